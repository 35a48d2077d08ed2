"""A tool in few tokens, for a model that writes plans: what it does, takes and gives, each type as one short line.

Schemas are for vendors' tool calls. A plan passes most values by reference, so that names and kinds of fields are what counts:
the twelve bundled tools take a fifth of the tokens that their schemas do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.models.tool import ToolDefinition

LONGEST = 1_500  # characters of one type; a longer one is shown less deep
_TEXT, _NOTE = 2_000, 240  # characters of a description, and of a parameter's
_DEEPEST = 4
_CHOICES = 20
_EXAMPLES = 2


def compact(tool: ToolDefinition, *, examples: bool = True) -> dict[str, Any]:
    """`{name, does, takes, gives, effect, examples?}`: types as text such as `[{amount: number|null, category?: string}]`.

    `takes` is by parameter; one whose name ends in `?` may be left out. The same tool gives the same object.
    """
    row: dict[str, Any] = {"name": tool.name, "does": _clipped(tool.description, _TEXT), "takes": _takes(tool)}
    if tool.output_schema is not None:
        row["gives"] = type_line(tool.output_schema)
    row["effect"] = tool.effect
    if tool.allowed_callers == ("code_execution",):
        row["only"] = "in programs"
    shown = [{"input": e.input} for e in tool.examples[:_EXAMPLES] if len(json.dumps(e.input)) <= 2 * _NOTE]
    return row | ({"examples": shown} if examples and shown else {})


def type_line(schema: Mapping[str, Any]) -> str:
    """A schema as one short line; what is deep is `object` or `list` where the line would be longer than `LONGEST`."""
    lines = (_type(schema, schema, depth) for depth in range(_DEEPEST, 0, -1))
    return next((line for line in lines if len(line) <= LONGEST), _type(schema, schema, 0)[:LONGEST])


def _takes(tool: ToolDefinition) -> dict[str, str]:
    schema = tool.input_schema
    fields, needed = _properties(schema), _required(schema)
    return {n if n in needed else f"{n}?": _parameter(s, schema) for n, s in fields.items()}


def _parameter(schema: Any, root: Mapping[str, Any]) -> str:
    lines = (_type(schema, root, depth) for depth in range(_DEEPEST - 1, -1, -1))
    line = next((text for text in lines if len(text) <= LONGEST // 2), "any")
    if not isinstance(schema, Mapping):
        return line
    default = f" = {json.dumps(schema['default'])}" if schema.get("default") is not None else ""
    said = schema.get("description")
    return line + default + (f"; {_clipped(said, _NOTE)}" if isinstance(said, str) and said else "")


def _type(schema: Any, root: Mapping[str, Any], depth: int) -> str:
    schema = _followed(schema, root)
    if not isinstance(schema, Mapping):
        return "any"
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and choices:
        return "|".join(json.dumps(c, ensure_ascii=False) for c in choices[:_CHOICES]) + ("|..." if len(choices) > _CHOICES else "")
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return "|".join(dict.fromkeys(_type(s, root, depth) for s in schema[word])) or "any"
    kinds = schema.get("type")
    names = kinds if isinstance(kinds, list) else [kinds]
    return "|".join(dict.fromkeys(_kind(n, schema, root, depth) for n in names))


def _kind(name: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
    fields = _properties(schema)
    if name == "array":
        return "list" if depth <= 0 else f"[{_type(schema.get('items'), root, depth)}]"
    if name == "object" or (name is None and fields):
        if not fields or depth <= 0:
            return "object"
        needed = _required(schema)
        inner = (f"{n}{'' if n in needed else '?'}: {_type(s, root, depth - 1)}" for n, s in fields.items())
        return "{" + ", ".join(inner) + "}"
    return name if isinstance(name, str) else "any"


def _followed(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a `$ref` into the same document leads to; others say nothing."""
    for _ in range(8):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            return schema
        ref, at = schema["$ref"], root
        for part in ref.split("/")[1:] if isinstance(ref, str) and ref.startswith("#/") else ("",):
            inner = at.get(part) if isinstance(at, Mapping) else None
            if inner is None:
                return None
            at = inner
        schema = at
    return None


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _required(schema: Mapping[str, Any]) -> frozenset[str]:
    found = schema.get("required")
    return frozenset(n for n in found if isinstance(n, str)) if isinstance(found, list | tuple) else frozenset()


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
