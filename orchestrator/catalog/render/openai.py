"""Tools as OpenAI takes them: flat in the Responses API, nested in Chat Completions, which Azure speaks with limits of its own.

Where the limits are from: the names' and the strict form's from the SDK's types and its own maker of strict schemas, sizes and
keywords from the guide to structured outputs (Azure's from its own), the 1,024 characters of a description and the 128 tools
from refusals of the API ("string too long", "array too long").
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.catalog.render.draft import Draft
from orchestrator.catalog.render.mapping import NameRule
from orchestrator.catalog.render.schemas import Schema, listed, mapped, modern
from orchestrator.catalog.render.strict import NotStrict, StrictLimits, StrictRules, all_required, check_limits, tightened

NAMES = NameRule(re.compile(r"[^a-zA-Z0-9_-]"), 64)
MOST_TOOLS = 128
LONGEST_CHAT_DESCRIPTION = 1024

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_WORDS = frozenset({"pattern", "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OPENAI = (StrictRules(_WORDS, _FORMATS), StrictLimits(5000, 10, 1000, 120_000, 15_000))
AZURE = (StrictRules(), StrictLimits(100, 5, 500, 15_000, 7_500))


def parameters(draft: Draft, *, strict: bool, rules: StrictRules, limits: StrictLimits) -> tuple[Schema, bool]:
    """The schema, and whether it is a strict one: a tool that cannot be strict is offered all the same."""
    if strict:
        try:
            loose = tightened(draft.schema, rules, draft.notes)
            schema = all_required(loose)
            check_limits(schema, limits)
        except NotStrict as why:
            draft.note(f"not strict: {why}")
        else:
            draft.loose = loose
            return schema, True
    return mapped(draft.schema, lambda s: listed(s, draft.notes)), False


def responses_tool(draft: Draft, *, strict: bool, examples: bool, hosted: bool) -> dict[str, Any]:
    """A function of the Responses API. `strict` is always said, since there a function is strict unless it says no."""
    schema, is_strict = parameters(draft, strict=strict, rules=OPENAI[0], limits=OPENAI[1])
    tool = {"type": "function", "name": draft.name, **draft.described(examples=examples), "parameters": schema, "strict": is_strict}
    if draft.tool.defer_loading:
        tool["defer_loading"] = True
    if hosted and "code_execution" in draft.tool.allowed_callers:
        tool["allowed_callers"] = ["programmatic" if c == "code_execution" else c for c in draft.tool.allowed_callers]
        tool |= {"output_schema": modern(draft.tool.output_schema, draft.notes)} if draft.tool.output_schema else {}
    return tool


def chat_tool(draft: Draft, *, strict: bool, examples: bool, azure: bool) -> dict[str, Any]:
    """A function of Chat Completions."""
    rules, limits = AZURE if azure else OPENAI
    schema, is_strict = parameters(draft, strict=strict, rules=rules, limits=limits)
    described = draft.described(examples=examples, longest=LONGEST_CHAT_DESCRIPTION)
    function = {"name": draft.name, **described, "parameters": schema, **({"strict": True} if is_strict else {})}
    return {"type": "function", "function": function}
