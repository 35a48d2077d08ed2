"""Tools as Anthropic's Messages API takes them: the schema nearly whole, examples, deferral and callers in fields of their own.

The API refuses a whole request for one tool with a choice at the schema's root, a property name beside the pattern below, an
example that does not fit its schema, more strict tools than its grammar holds, or a tool for its own programs that is strict or
whose schema refers to itself; each of these is mended here. The strict form is the one that the SDK's own `transform_schema`
leaves as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.judge import Judge
from orchestrator.catalog.render.draft import Draft
from orchestrator.catalog.render.mapping import NameRule
from orchestrator.catalog.render.schemas import Schema, inlined
from orchestrator.catalog.render.strict import NotStrict, StrictRules, optional_count, recursive, tightened, union_count

NAMES = NameRule(re.compile(r"[^a-zA-Z0-9_-]"), 128)
KEYS = NameRule(re.compile(r"[^a-zA-Z0-9_.-]"), 64)
CODE_EXECUTION = "code_execution_20260521"

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_RULES = StrictRules(formats=_FORMATS, few_items=True, typed_choices=False, type_lists=False, recursive=False)


@dataclass(slots=True)
class Grammar:
    """What is left of what one request's strict tools may have together."""

    tools: int = 20
    optional: int = 24
    unions: int = 16

    def take(self, schema: Schema) -> None:
        """Takes one tool's share.

        Raises:
            NotStrict: less is left.
        """
        optional, unions = optional_count(schema), union_count(schema)
        if self.tools < 1 or optional > self.optional or unions > self.unions:
            raise NotStrict("a request may have 20 strict tools, with 24 optional properties and 16 of several types in all")
        self.tools, self.optional, self.unions = self.tools - 1, self.optional - optional, self.unions - unions


def tool(draft: Draft, *, strict: bool, examples: bool, hosted: bool, grammar: Grammar) -> dict[str, Any]:
    """A custom tool."""
    programs = hosted and "code_execution" in draft.tool.allowed_callers
    if strict and programs:
        draft.note("not strict: programs may call it, and Anthropic takes the two together for no tool")
    if programs and recursive(draft.schema):
        draft.schema = inlined(draft.schema, draft.notes)
    schema, is_strict = _input_schema(draft, strict and not programs, grammar)
    native = _examples(draft, schema) if examples else None
    described = draft.described(examples=examples and native is None)
    out: dict[str, Any] = {"name": draft.name, **described, "input_schema": schema}
    if is_strict:
        out["strict"] = True
    if draft.tool.defer_loading:
        out["defer_loading"] = True
    if native:
        out["input_examples"] = native
    if programs:
        out["allowed_callers"] = [CODE_EXECUTION if c == "code_execution" else c for c in draft.tool.allowed_callers]
    return out


def _input_schema(draft: Draft, strict: bool, grammar: Grammar) -> tuple[Schema, bool]:
    if strict:
        try:
            schema = tightened(draft.schema, _RULES, draft.notes)
            grammar.take(schema)
        except NotStrict as why:
            draft.note(f"not strict: {why}")
        else:
            return schema, True
    return draft.schema, False


def _examples(draft: Draft, schema: Schema) -> list[dict[str, Any]] | None:
    """The inputs of the tool's examples; None when one does not fit the schema, for which the API would refuse the request."""
    inputs = [e.input for e in draft.examples()]
    if inputs and not _fit(inputs, schema):
        draft.note("input_examples: in the description, since one does not fit the schema")
        return None
    return inputs


def _fit(inputs: list[dict[str, Any]], schema: Schema) -> bool:
    try:
        judge = Judge(schema)
        return not any(judge.errors(i, most=1) for i in inputs)
    except Exception:  # too many steps, or a schema that is none: not to be sent as proven
        return False
