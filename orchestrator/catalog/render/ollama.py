"""Tools as Ollama's chat takes them.

Its properties know a type, choices, items, properties of their own and a description; everything else is said there.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.catalog.render.draft import Draft
from orchestrator.catalog.render.mapping import NameRule
from orchestrator.catalog.render.schemas import Notes, Schema, inlined, listed, mapped, merged, only

NAMES = NameRule(re.compile(r"[^a-zA-Z0-9_-]"), 64)  # it takes any; templates of models expect such

_KEPT = frozenset({"type", "items", "description", "enum", "anyOf", "properties", "required"})
_SILENT = frozenset({"title", "additionalProperties", "deprecated", "readOnly", "writeOnly", "$defs"})


def tool(draft: Draft, *, examples: bool) -> dict[str, Any]:
    """A function of Ollama's chat."""
    schema = mapped(inlined(draft.schema, draft.notes), lambda s: simple(s, draft.notes))
    schema |= {"type": "object", "properties": schema["properties"], "required": schema.get("required", [])}
    return {"type": "function", "function": {"name": draft.name, **draft.described(examples=examples), "parameters": schema}}


def simple(schema: Schema, notes: Notes) -> Schema:
    """One schema in Ollama's words."""
    out = listed(merged(schema, notes), notes)
    if "const" in out:
        out = {("enum" if k == "const" else k): [v] if k == "const" else v for k, v in out.items()}
    if "oneOf" in out and "anyOf" not in out:
        out = {("anyOf" if k == "oneOf" else k): v for k, v in out.items()}
    return only(out, _KEPT, notes, "Ollama does not read it", silent=_SILENT)
