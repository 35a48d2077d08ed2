"""The arguments of a program's call against the tool's schema, in bounded time: neither program nor schema holds the host up.

Plain schemas (a type, an enum of texts) are judged by a look at the types. All others go to `jsonschema`, in counted steps;
patterns run in an engine that takes linear time. What that engine does not know, and `unevaluated...`, is left to the tool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend as _extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing.jsonschema import EMPTY_REGISTRY

from orchestrator.models.tool import ToolDefinition

Violation = Any  # jsonschema's ValidationError, whose fields are typed as perhaps unset
Judge = Callable[..., Iterator[Violation] | None]

FEW_STEPS, MANY_STEPS = 2_000, 200_000  # about 10 ms on the loop, about two seconds in a thread
_MOST_TOLD = 3
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_NOTES = frozenset({"title", "description", "default", "examples", "deprecated"})


class _TooManySteps(Exception):
    """The check would take too long."""


class _Steps:
    """How many steps a check may still take; an error costs more, since its message holds the whole value."""

    def __init__(self, left: int, size: int) -> None:
        self.left, self.for_error = left, 1 + size // 1_000

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise _TooManySteps


_steps: ContextVar[_Steps] = ContextVar("steps")


@dataclass(frozen=True, slots=True)
class _Plain:
    """A parameter whose values are judged by their type, and by being one of some texts."""

    types: tuple[type, ...]
    texts: frozenset[str] | None = None

    def takes(self, value: Any) -> bool:
        return type(value) in self.types and (self.texts is None or value in self.texts)


class ArgumentCheck:
    """Judges calls of one tool; made once for all of them."""

    def __init__(self, tool: ToolDefinition) -> None:
        schema = tool.input_schema
        self._tool, self._names = tool.name, [p.name for p in tool.parameters]
        self._plain = {name: plain for name, s in schema["properties"].items() if (plain := _plain(s)) is not None}
        self._required = frozenset(schema["required"])
        self._one_at_a_time = asyncio.Lock()
        self._validator = _Validator(schema, registry=EMPTY_REGISTRY)  # the default one would fetch `$ref`s from the network

    def plainly_right(self, arguments: Mapping[str, Any]) -> bool:
        """Whether they are right at a glance; False says nothing."""
        plain = self._plain
        return self._required <= arguments.keys() and all(n in plain and plain[n].takes(v) for n, v in arguments.items())

    async def problem(self, arguments: Mapping[str, Any], *, size: int) -> str | None:
        """What is wrong with them, for the program's author; None when nothing is. `size`: bytes of their JSON."""
        if self.plainly_right(arguments):
            return None
        try:
            return self._judge(arguments, _Steps(FEW_STEPS, size))
        except _TooManySteps:
            pass
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(self._judge, arguments, _Steps(MANY_STEPS, size))
        except _TooManySteps:
            return f"The arguments of `{self._tool}` are too large and intricate to be checked; send less at once."

    def _judge(self, arguments: Mapping[str, Any], steps: _Steps) -> str | None:
        token = _steps.set(steps)
        try:
            found = list(islice(self._validator.iter_errors(arguments), _MOST_TOLD))
            told = [words for error in found for words in self._words(error)][:_MOST_TOLD]
        except _TooManySteps:
            raise
        except Exception as error:  # a schema that is none, a number too large for its arithmetic
            return f"The arguments of `{self._tool}` cannot be checked against its schema ({type(error).__name__})."
        finally:
            _steps.reset(token)
        return f"`{self._tool}` cannot take these arguments: {'; '.join(told)}." if told else None

    def _words(self, error: Violation) -> Iterator[str]:
        place = _place(error.absolute_path)
        if error.validator == "required":
            yield from (f"`{_under(place, n)}` is missing" for n in error.validator_value if n not in error.instance)
        elif error.validator == "additionalProperties" and not place:
            yield from (self._unknown(n) for n in error.instance if n not in self._names)
        else:
            yield f"`{place}` {_why(error)}" if place else _why(error)

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name[:100], self._names, n=1)
        move = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(f'`{n}`' for n in self._names) or 'none'}"
        return f"`{_clip(name, 60)}` is no parameter of it ({move})"


def _plain(schema: Mapping[str, Any]) -> _Plain | None:
    """The parameter's schema as a look at the type, if it says no more than that."""
    kinds = schema.get("type", list(_TYPES))
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    if not schema.keys() <= _NOTES | {"type", "enum"} or not _TYPES.keys() >= set(names):
        return None
    types = tuple(dict.fromkeys(t for n in names for t in _TYPES[n]))
    if "enum" not in schema:
        return _Plain(types)
    texts = frozenset(v for v in schema["enum"] if isinstance(v, str))
    return _Plain((str,), texts) if str in types else None  # other values of the enum take the long way


def _why(error: Violation) -> str:
    given, limit = error.instance, error.validator_value
    if error.validator == "type":
        wanted = [limit] if isinstance(limit, str) else limit
        return f"is {_KINDS.get(type(given), 'something else')}, but must be {' or '.join(_WORDS.get(w, str(w)) for w in wanted)}"
    if error.validator == "enum":
        return f"is `{_clip(str(given), 60)}`, but must be one of {_clip(', '.join(map(str, limit)), 300)}"
    return f"breaks `{error.validator}: {_clip(str(limit), 100)}`"


def _place(path: Any) -> str:
    return _clip("".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip("."), 200)


def _under(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], bool] | None:
    """Says whether a pattern is found in a text, in time linear in the text; None when the engine does not know the pattern."""
    try:
        found = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return None
    return lambda text: found.isinstance_python(text, strict=True)


def _found(pattern: str, text: str) -> bool:
    matcher = _matcher(pattern)
    return matcher is None or matcher(text)


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Violation]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any) -> Iterator[Violation]:
    for pattern, schema in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            _steps.get().take(1)
            if _matcher(pattern) is not None and _found(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[Violation]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), list(schema.get("patternProperties", {}))
    extras = [n for n in instance if n not in known and not any(_found(p, n) for p in patterns)]
    if rest is False and extras:
        yield ValidationError("has fields that it may not have")
    for name in extras if isinstance(rest, dict) else ():
        yield from validator.descend(instance[name], rest, path=name)


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[Violation]:
    if not wanted or not isinstance(instance, list):
        return
    if {type(i) for i in instance} <= {str} or {type(i) for i in instance} <= {int, float}:
        _steps.get().take(len(instance))
        unique = len(set(instance)) == len(instance)
    else:
        _steps.get().take(len(instance) ** 2 // 16)
        unique = not any(_same(a, b) for at, a in enumerate(instance) for b in islice(instance, at))
    if not unique:
        yield ValidationError("has an item twice")


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _left_to_the_tool(*_: Any) -> Iterator[Violation]:
    return iter(())


def _counted(judge: Judge) -> Judge:
    def judged(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Violation]:
        steps = _steps.get()
        steps.take(1 + (len(value) if isinstance(value, list) else 0))
        for error in judge(validator, value, instance, schema) or ():
            steps.take(steps.for_error)
            yield error

    return judged


extend: Callable[..., Any] = _extend
_OWN: dict[str, Judge] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedProperties": _left_to_the_tool,
    "unevaluatedItems": _left_to_the_tool,
}
_Validator = extend(Draft202012Validator, {k: _counted(j) for k, j in (Draft202012Validator.VALIDATORS | _OWN).items()})
