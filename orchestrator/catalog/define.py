"""A function's signature and docstring as a tool: what it takes, what it gives, and both checked by pydantic."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, PydanticSerializationError, to_jsonable_python

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.docstring import Use, read_doc, read_uses
from orchestrator.catalog.files import FileSource, Lazy
from orchestrator.errors import ToolError
from orchestrator.models.tool import MAX_EXAMPLES, ParameterType, ToolDefinition, ToolExample, ToolParameter

_TYPES: frozenset[ParameterType] = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_PREFIX = "arg_"  # a model's field may not be named `_x`, `json` or `copy`; a parameter may
_PLAIN = frozenset({"type", "description", "default", "enum"})  # what a ToolParameter says without `json_schema`


class _Schema(GenerateJsonSchema):
    """Schemas without the titles that pydantic makes of field names: they are noise to the model that reads them.

    The fields of models, dataclasses and TypedDicts get what the docstring of their class says of them.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        return False

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return _with_class_doc(super().model_schema(schema), schema)

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _with_class_doc(super().dataclass_schema(schema), schema)

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _with_class_doc(super().typed_dict_schema(schema), schema)


def _with_class_doc(made: JsonSchemaValue, schema: CoreSchema) -> JsonSchemaValue:
    doc = read_doc(getattr(schema.get("cls"), "__doc__", None))
    for name, field in made.get("properties", {}).items():
        if name in doc.parameters and "description" not in field:
            field["description"] = doc.parameters[name]
    if doc.parameters and "description" in made:  # what stands at the fields need not be said twice
        made["description"] = doc.description
    return made


class ServedTool(Protocol):
    """A tool that a worker can run: its definition, the check of what goes in and comes out, and the call itself."""

    @property
    def definition(self) -> ToolDefinition:
        """What it is."""

    @property
    def origin(self) -> str:
        """Where it comes from: two of one name and different origins are a conflict."""

    @property
    def is_async(self) -> bool:
        """Whether `call` gives a coroutine."""

    @property
    def lazy_parameters(self) -> frozenset[str]:
        """The parameters whose values are fetched when the tool asks for them."""

    def validate_input(self, value: Mapping[str, Any], *, files: FileSource | None = None) -> dict[str, Any]:
        """The arguments as `call` takes them.

        Raises:
            ToolError: `bad_input`, with every bad field in `problems`.
        """

    def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """The result, or the coroutine that gives it."""

    def validate_output(self, value: Any) -> Any:
        """The result as a JSON value.

        Raises:
            ToolError: `bad_output`.
        """


@dataclass(frozen=True)
class RegisteredTool:
    """A tool and the function behind it."""

    definition: ToolDefinition
    function: Callable[..., Any]
    is_async: bool
    context_parameter: str | None
    arguments: type[BaseModel]
    returns: TypeAdapter[Any] | None

    @cached_property
    def lazy_parameters(self) -> frozenset[str]:
        """The parameters whose values are fetched when the function asks for them."""
        fields = self.arguments.model_fields.items()
        return frozenset(name.removeprefix(_PREFIX) for name, field in fields if get_origin(field.annotation) is Lazy)

    @property
    def origin(self) -> str:
        """The function's place."""
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', type(self.function).__qualname__)}"

    def call(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """Calls the function; it gets the context if it asks for it."""
        own = {self.context_parameter: context} if self.context_parameter is not None else {}
        return self.function(**arguments, **own)

    def validate_input(self, value: Mapping[str, Any], *, files: FileSource | None = None) -> dict[str, Any]:
        """The function's keyword arguments: typed, models built; what was not given is left to the function's defaults.

        `files` is where files come from.

        Raises:
            ToolError: `bad_input`, with every bad field in `problems`; `not_found`: there is no such file.
        """
        try:
            model = self.arguments.model_validate(value, context={"files": files})
        except ValidationError as error:
            raise self._refused("bad_input", error) from None
        return {
            name.removeprefix(_PREFIX): getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set
        }

    def validate_output(self, value: Any) -> Any:
        """What the function returned, checked against its annotation, as a JSON value.

        Raises:
            ToolError: `bad_output`.
        """
        try:
            checked = to_jsonable_python(value) if self.returns is None else self._promised(self.returns, value)
            json.dumps(checked, allow_nan=False)  # NaN and infinity pass pydantic and are no JSON
        except ValidationError as error:
            raise self._refused("bad_output", error) from None
        except (PydanticSerializationError, ValueError) as error:
            raise ToolError(
                f"`{self.definition.name}` returned what is no JSON value: {error}.",
                code="bad_output",
                next="Return numbers, strings, lists, dicts or pydantic models.",
            ) from None
        return checked

    @staticmethod
    def _promised(returns: TypeAdapter[Any], value: Any) -> Any:
        return returns.dump_python(returns.validate_python(value), mode="json", by_alias=True)

    def _refused(self, code: str, error: ValidationError) -> ToolError:
        problems = [self._problem(e) for e in error.errors(include_url=False, include_context=False)]
        told = "; ".join(f"`{p['path']}`: {p['message']}" if p["path"] else p["message"] for p in problems)
        verb, move = (
            ("got an input that it cannot take", f"See `toolweaver tools show {self.definition.name}` for what it takes.")
            if code == "bad_input"
            else ("returned what it does not promise", "Mend the tool or its return annotation.")
        )
        return ToolError(
            f"`{self.definition.name}` {verb}: {told}{'' if told.endswith('?') else '.'}",
            code=code,
            path=problems[0]["path"] or None,
            next=move,
            problems=problems,
        )

    def _problem(self, error: Any) -> dict[str, Any]:
        path = path_text(error["loc"])
        message = error["msg"]
        if error["type"] == "missing":
            message = "is missing"
        elif error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
            near = difflib.get_close_matches(path, [p.name for p in self.definition.parameters], n=1)
            message = "is no parameter of it" + (f"; did you mean `{near[0]}`?" if near else "")
        return {"path": path, "code": error["type"], "message": message}


def path_text(loc: Iterable[str | int]) -> str:
    """A pydantic location as a path: `items[0].amount`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


@dataclass(frozen=True)
class Signature:
    """What a function's signature and docstring say about it as a tool."""

    description: str
    parameters: tuple[ToolParameter, ...]
    definitions: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    context_parameter: str | None
    arguments: type[BaseModel]
    returns: TypeAdapter[Any] | None
    examples: tuple[ToolExample, ...] = ()
    deprecated: str | None = None


def read_signature(function: Callable[..., Any]) -> Signature:
    """The function as a tool.

    Raises:
        TypeError: it takes `*args`, `**kwargs` or positional-only parameters, or a type that has no JSON form; or a
            `Field(...)` is the default of a parameter.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"tool `{name}`: {error}; the types that it names must be importable from its module's top") from error
    context, kept = _parameters(function, hints, name)
    doc = read_doc(inspect.getdoc(function))
    try:
        arguments = _arguments_model(name, kept, hints, described=doc.parameters)
        schema = arguments.model_json_schema(schema_generator=_Schema)
        returns = None if hints.get("return", Any) is Any else TypeAdapter[Any](hints["return"])
        output = returns.json_schema(mode="serialization", schema_generator=_Schema) if returns else None
    except PydanticUserError as error:
        raise TypeError(f"tool `{name}`: {error.message}") from error
    if output is not None and doc.returns:
        output.setdefault("description", doc.returns)
    required, definitions = set(schema.get("required", ())), schema.get("$defs", {})
    properties = {n: _inlined(s, definitions) for n, s in schema["properties"].items()}
    return Signature(
        description=doc.description,
        parameters=tuple(_parameter(n, s, required=n in required, definitions=definitions) for n, s in properties.items()),
        definitions=_used(definitions, properties) or None,
        output_schema=output,
        context_parameter=context,
        arguments=arguments,
        returns=returns,
        examples=_examples(function, kept, arguments, returns=returns),
        deprecated=doc.deprecated or getattr(function, "__deprecated__", None),
    )


def _inlined(schema: JsonSchemaValue, definitions: Mapping[str, Any]) -> JsonSchemaValue:
    """An enum in the place of the reference to it, so that the parameter itself says its values."""
    target = definitions.get(_target(schema), {})
    if "enum" not in target:
        return schema
    return {k: v for k, v in {**target, **schema}.items() if k not in ("$ref", "title")}


def _target(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _used(definitions: Mapping[str, Any], by: Any) -> dict[str, Any]:
    """Those of the definitions that something refers to, or that they refer to themselves."""
    found: set[str] = set()
    waiting = [by]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list | tuple):
            waiting += node
        elif isinstance(node, Mapping):
            waiting += node.values()
            name = _target(node) if isinstance(node.get("$ref"), str) else ""
            if name in definitions and name not in found:
                found.add(name)
                waiting.append(definitions[name])
    return {name: schema for name, schema in definitions.items() if name in found}


def _examples(
    function: Callable[..., Any],
    parameters: Iterable[inspect.Parameter],
    arguments: type[BaseModel],
    *,
    returns: TypeAdapter[Any] | None,
) -> tuple[ToolExample, ...]:
    """The first calls of the docstring's doctests that the tool could take and answer so."""
    names = frozenset({getattr(function, "__name__", "")})
    order = inspect.Signature(list(parameters))
    made = (_example(use, order, arguments, returns=returns) for use in read_uses(inspect.getdoc(function), names=names))
    return tuple(e for e in made if e is not None)[:MAX_EXAMPLES]


def _example(
    use: Use, order: inspect.Signature, arguments: type[BaseModel], *, returns: TypeAdapter[Any] | None
) -> ToolExample | None:
    try:
        given = dict(order.bind(*use.positional, **use.named).arguments)
        arguments.model_validate(given)
        if returns is not None and use.result is not None:
            returns.validate_python(use.result)
    except Exception:  # validators are the author's; what they refuse, however they say so, is no example
        return None
    return ToolExample(scenario=use.scenario, input=given, output=use.result)


def _parameters(function: Callable[..., Any], hints: Mapping[str, Any], name: str) -> tuple[str | None, list[inspect.Parameter]]:
    context: str | None = None
    kept = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"tool `{name}`: parameter `{parameter}` cannot be given by name; a tool's input is an object of named values"
            )
        if _is_context(hints.get(parameter.name)):
            context = parameter.name
        else:
            kept.append(parameter)
    return context, kept


def _is_context(hint: Any) -> bool:
    return hint is ToolContext or ToolContext in get_args(hint)


def _arguments_model(
    name: str, parameters: Iterable[inspect.Parameter], hints: Mapping[str, Any], *, described: Mapping[str, str]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in parameters:
        default = ... if parameter.default is parameter.empty else parameter.default
        if isinstance(default, FieldInfo):
            raise TypeError(
                f"tool `{name}`: the default of `{parameter.name}` is a `Field(...)`, which the function itself would get; "
                f"write `{parameter.name}: Annotated[<type>, Field(...)] = <default>`"
            )
        hint = hints.get(parameter.name, Any)
        said = described.get(parameter.name) or _annotated(hint)
        told: dict[str, Any] = (
            {"description": said} if said else {}
        )  # a description of None would hide that of `Annotated[..., Field(...)]`
        fields[_PREFIX + parameter.name] = (hint, Field(default, alias=parameter.name, **told))
    return create_model(
        f"{name.rpartition('.')[2]}_input", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
    )


def _annotated(hint: Any) -> str:
    """The text of `Annotated[int, "how many"]`, or of `Annotated[int, Doc("how many")]`."""
    words = (getattr(m, "documentation", m) for m in getattr(hint, "__metadata__", ()))
    return next((w for w in words if isinstance(w, str)), "")


def _parameter(name: str, schema: JsonSchemaValue, *, required: bool, definitions: Mapping[str, Any]) -> ToolParameter:
    target = definitions.get(_target(schema), schema)
    kind = target.get("type")
    rest = {k: v for k, v in schema.items() if k not in ("description", "default", "enum")}
    return ToolParameter(
        name=name,
        type=kind if kind in _TYPES else "any",
        description=schema.get("description", ""),
        required=required,
        enum=tuple(schema["enum"]) if "enum" in schema else None,
        default=schema.get("default"),
        json_schema=rest if set(rest) - _PLAIN else None,
    )
