"""A function's signature and docstring as a tool: what it takes, what it gives, and both checked by pydantic."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import FileSource, Lazy
from orchestrator.errors import ToolError
from orchestrator.models.tool import ParameterType, ToolDefinition, ToolParameter

_TYPES: frozenset[ParameterType] = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_PREFIX = "arg_"  # a model's field may not be named `_x`, `json` or `copy`; a parameter may
_PLAIN = frozenset({"type", "description", "default", "enum"})  # what a ToolParameter says without `json_schema`


class _Schema(GenerateJsonSchema):
    """Schemas without the titles that pydantic makes of field names: they are noise to the model that reads them."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        return False


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


def read_signature(function: Callable[..., Any]) -> Signature:
    """The function as a tool.

    Raises:
        TypeError: it takes `*args`, `**kwargs` or positional-only parameters, or a type that has no JSON form.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"tool `{name}`: {error}; the types that it names must be importable from its module's top") from error
    context, kept = _parameters(function, hints, name)
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {p.arg_name: p.description or "" for p in doc.params}
    try:
        arguments = _arguments_model(name, kept, hints, described=described)
        schema = arguments.model_json_schema(schema_generator=_Schema)
        returns = None if hints.get("return", Any) is Any else TypeAdapter[Any](hints["return"])
        output = returns.json_schema(mode="serialization", schema_generator=_Schema) if returns else None
    except PydanticUserError as error:
        raise TypeError(f"tool `{name}`: {error.message}") from error
    required, definitions = set(schema.get("required", ())), schema.get("$defs")
    return Signature(
        description="\n\n".join(t for t in (doc.short_description, doc.long_description) if t),
        parameters=tuple(
            _parameter(n, s, required=n in required, definitions=definitions or {}) for n, s in schema["properties"].items()
        ),
        definitions=definitions,
        output_schema=output,
        context_parameter=context,
        arguments=arguments,
        returns=returns,
    )


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
        field = Field(default, alias=parameter.name, description=described.get(parameter.name))
        fields[_PREFIX + parameter.name] = (hints.get(parameter.name, Any), field)
    return create_model(
        f"{name.rpartition('.')[2]}_input", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
    )


def _parameter(name: str, schema: JsonSchemaValue, *, required: bool, definitions: Mapping[str, Any]) -> ToolParameter:
    target = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
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
