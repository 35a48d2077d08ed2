"""Tools as Gemini takes them: function declarations with `parameters_json_schema`.

That field takes JSON Schema, which Google recommends; `parameters` takes a part of OpenAPI that has no type lists, no `const`, no
numbers in `enum` and no `$ref`. Even so the API reads only the keywords that the SDK's `JSONSchema` has, and refuses references
with words beside them and `anyOf` with words beside it: references are written out, and the rest is said in descriptions.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.catalog.render.draft import Draft
from orchestrator.catalog.render.mapping import NameRule
from orchestrator.catalog.render.schemas import (
    Notes,
    Schema,
    add_text,
    every,
    inlined,
    listed,
    mapped,
    merged,
    one_type_each,
    only,
    said,
    type_of,
)

NAMES = NameRule(re.compile(r"^[^a-zA-Z_]|[^a-zA-Z0-9_.:-]"), 64)  # newer models: 128
KEYS = NameRule(re.compile(r"^[^a-zA-Z_]|[^a-zA-Z0-9_]"), 64)
MOST_TOOLS = 512

_KEPT = frozenset(
    {"type", "format", "title", "description", "default", "items", "minItems", "maxItems", "enum", "properties", "required"}
    | {"minProperties", "maxProperties", "minimum", "maximum", "minLength", "maxLength", "pattern", "additionalProperties", "anyOf"}
    | {"uniqueItems"}
)
_SILENT = frozenset({"deprecated", "readOnly", "writeOnly"})
_MOST_ITEMS = 900  # a tool whose `maxItems` add up to more is refused without a reason


def declaration(draft: Draft, *, examples: bool) -> dict[str, Any]:
    """A function declaration; one without parameters has no schema."""
    schema = mapped(inlined(draft.schema, draft.notes), lambda s: simple(s, draft.notes))
    if sum(s.get("maxItems", 0) for s in every(schema)) > _MOST_ITEMS:
        schema = mapped(schema, lambda s: only(s, _KEPT - {"maxItems"}, draft.notes, "together they are more than Gemini takes"))
    out = {"name": draft.name, **draft.described(examples=examples)}
    bare = not schema["properties"] and not schema.get("additionalProperties")
    return out if bare else {**out, "parameters_json_schema": schema}


def simple(schema: Schema, notes: Notes) -> Schema:
    """One schema in Gemini's words."""
    why = "Gemini does not read it"
    out = _choices(merged(schema, notes), notes)
    if "oneOf" in out and "anyOf" not in out:
        out = {("anyOf" if k == "oneOf" else k): v for k, v in out.items()}
    out = listed(one_type_each(out), notes)
    if "properties" in out and "required" in out:
        out["required"] = [n for n in out["required"] if n in out["properties"]]
    return _lone_union(only(out, _KEPT, notes, why, silent=_SILENT), notes)


def _choices(schema: Schema, notes: Notes) -> Schema:
    """`const` as `enum`, and choices of strings and numbers alone."""
    out = dict(schema)
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if "enum" not in out:
        return out
    kinds = list(dict.fromkeys(type_of(v) for v in out["enum"]))
    if "type" not in out and "anyOf" not in out:
        out["type"] = kinds[0] if len(kinds) == 1 else kinds
    if set(kinds) - {"string", "number", "integer"} and not isinstance(out.get("type"), list):
        said(out, "enum", notes, "Gemini takes strings and numbers")
    return out


def _lone_union(schema: Schema, notes: Notes) -> Schema:
    """A choice stands alone: what is said beside it goes to its first schema that is not null."""
    if "anyOf" not in schema or len(schema) == 1:
        return schema
    out = dict(schema)
    if "type" in out or "properties" in out:
        said(out, "anyOf", notes, "Gemini takes it alone")
        return out
    branches = [dict(b) if isinstance(b, dict) else {} for b in out.pop("anyOf")]
    first = next((b for b in branches if b.get("type") != "null"), branches[0])
    said_beside = out.pop("description", None)
    if said_beside:
        within = first.pop("description", None)
        first["description"] = said_beside
        if within and within != said_beside:
            add_text(first, within)
    first |= {k: v for k, v in out.items() if k not in first}
    return {"anyOf": branches}
