"""JSON Schema as a Python annotation: what a model reads in a stub. Whatever is odd, deep or unknown is `Any`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_MAX_DEPTH = 4
_MAX_UNION = 8
_MAX_CHOICES = 40
_MAX_TEXT = 200


def hint(schema: Any, definitions: Mapping[str, Any] | None = None, *, depth: int = 0) -> str:
    """The annotation for values of the schema: `list[dict[str, Any]]`, `Literal["Q1", "Q2"]`, `str | None`."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return "Any"
    if "$ref" in schema:
        return hint(_definition(schema["$ref"], definitions or {}), definitions, depth=depth + 1)
    if choices := _choices(schema):
        return choices
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list | tuple):
            return _union([hint(s, definitions, depth=depth + 1) for s in schema[word][: _MAX_UNION + 1]])
    kinds = schema.get("type")
    names = kinds if isinstance(kinds, list | tuple) else [kinds]
    return _union([_of_kind(n, schema, definitions, depth) for n in names[: _MAX_UNION + 1]])


def literal(value: Any) -> str:
    """The value as Python source; strings in double quotes where that is plain."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and not set(value) & {'"', "\\"}:
        return f'"{value}"'
    return repr(value)


def _of_kind(name: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any] | None, depth: int) -> str:
    if not isinstance(name, str):
        return "Any"
    if name == "array":
        return f"list[{hint(schema.get('items'), definitions, depth=depth + 1)}]"
    if name == "object":
        return f"dict[str, {_values(schema, definitions, depth)}]"
    return _WORDS.get(name, "Any")


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None, depth: int) -> str:
    return "Any" if schema.get("properties") else hint(schema.get("additionalProperties"), definitions, depth=depth + 1)


def _choices(schema: Mapping[str, Any]) -> str | None:
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(choices, list | tuple) or not 0 < len(choices) <= _MAX_CHOICES:
        return None
    if not all(_fits_literal(c) for c in choices):
        return None
    return f"Literal[{', '.join(dict.fromkeys(literal(c) for c in choices))}]"


def _fits_literal(value: Any) -> bool:
    small = isinstance(value, int) and abs(value) < 1 << 63  # True and False too
    return value is None or small or (isinstance(value, str) and len(value) <= _MAX_TEXT)


def _definition(ref: Any, definitions: Mapping[str, Any]) -> Any:
    return definitions.get(ref.removeprefix("#/$defs/")) if isinstance(ref, str) else None


def _union(parts: list[str]) -> str:
    distinct = list(dict.fromkeys(parts)) or ["Any"]
    return "Any" if "Any" in distinct or len(parts) > _MAX_UNION else " | ".join(distinct)
