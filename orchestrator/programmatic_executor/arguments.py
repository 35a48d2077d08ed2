"""The arguments of a program's call against the tool's schema, in bounded time: neither program nor schema holds the host up.

Plain schemas (a type, an enum of texts) are judged by a look at the types, all others by `catalog.judge`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.judge import MANY_STEPS, Judge, TooManySteps
from orchestrator.models.tool import ToolDefinition

FEW_STEPS = 2_000  # about 10 ms, on the loop; a thread may take MANY_STEPS
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
_NOTES = frozenset({"title", "description", "default", "examples", "deprecated"})
_PLAIN_OBJECT = _NOTES | {"type", "properties", "required", "additionalProperties", "$schema", "$id", "$defs", "definitions"}


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
        self._tool = tool.name
        self._plain = _plain_fields(tool.input_schema)
        self._required = frozenset(tool.input_schema.get("required", ())) if self._plain is not None else frozenset()
        self._one_at_a_time = asyncio.Lock()
        self._judge = Judge(tool.input_schema)

    def plainly_right(self, arguments: Mapping[str, Any]) -> bool:
        """Whether they are right at a glance; False says nothing."""
        plain = self._plain
        if plain is None:
            return False
        return self._required <= arguments.keys() and all(n in plain and plain[n].takes(v) for n, v in arguments.items())

    async def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with them, for the program's author; None when nothing is."""
        if self.plainly_right(arguments):
            return None
        try:
            return self._judged(arguments, FEW_STEPS)
        except TooManySteps:
            pass
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(self._judged, arguments, MANY_STEPS)
        except TooManySteps:
            return f"The arguments of `{self._tool}` are too large and intricate to be checked; send less at once."

    def _judged(self, arguments: Mapping[str, Any], steps: int) -> str | None:
        try:
            found = self._judge.errors(arguments, steps=steps, most=_MOST_TOLD)
            problems = [p for error in found for p in self._judge.told(error)][:_MOST_TOLD]
        except TooManySteps:
            raise
        except Exception as error:  # a schema that is none, a number too large for its arithmetic
            return f"The arguments of `{self._tool}` cannot be checked against its schema ({type(error).__name__})."
        told = "; ".join(f"`{p['path']}` {p['message']}" if p["path"] else p["message"] for p in problems)
        return f"`{self._tool}` cannot take these arguments: {told}." if told else None


def _plain_fields(schema: Mapping[str, Any]) -> dict[str, _Plain] | None:
    """The parameters that a look at the type judges; None where the schema says more than what each of them is."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not schema.keys() <= _PLAIN_OBJECT or schema.get("type") != "object":
        return None
    if not isinstance(schema.get("required", []), list):
        return None
    return {name: plain for name, s in properties.items() if isinstance(s, Mapping) and (plain := _plain(s)) is not None}


def _plain(schema: Mapping[str, Any]) -> _Plain | None:
    """The parameter's schema as a look at the type, if it says no more than that."""
    kinds = schema.get("type", list(_TYPES))
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if not names or not schema.keys() <= _NOTES | {"type", "enum"} or not all(isinstance(n, str) and n in _TYPES for n in names):
        return None
    types = tuple(dict.fromkeys(t for n in names for t in _TYPES[n]))
    if "enum" not in schema:
        return _Plain(types)
    options = schema["enum"] if isinstance(schema["enum"], list) else []
    texts = frozenset(v for v in options if isinstance(v, str))
    return _Plain((str,), texts) if str in types else None  # other values of the enum take the long way
