"""Tools in a vendor's request format: one table of vendors, one way through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from orchestrator.catalog.render import anthropic, gemini, ollama, openai
from orchestrator.catalog.render.draft import Draft
from orchestrator.catalog.render.mapping import NameRule, Names, vendor_names
from orchestrator.catalog.render.schemas import Schema
from orchestrator.catalog.render.strict import without_nulls
from orchestrator.errors import RequestError
from orchestrator.models.tool import ToolCatalog, ToolDefinition

VendorName = Literal["openai", "openai-chat", "azure", "anthropic", "gemini", "ollama", "neutral"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Tools as a vendor's request holds them.

    `tools` is the request's own list (Gemini's holds one object with all declarations). `names` leads from either name of a tool
    to the other. `notes` says by catalog name what a tool lost or how it was rewritten, `left_out` why a tool is not offered, and
    `warnings` what the vendor will refuse about the request as a whole.
    """

    vendor: VendorName
    tools: list[dict[str, Any]]
    names: Names
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    _renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    _loose: Mapping[str, Schema] = field(default_factory=dict, repr=False)

    def arguments(self, vendor_name: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The catalog name of a tool that a model called, and its arguments as the tool takes them.

        Properties get their own names back; of a strict tool, where a model must give every property, the nulls of optional ones
        are taken out.

        Raises:
            NotFound: no tool of that name was offered.
        """
        name = self.names.to_catalog(vendor_name)
        loose = self._loose.get(name)
        plain = without_nulls(dict(given), loose, loose.get("$defs", {})) if loose else dict(given)
        renamed = self._renamed.get(name, {})
        return name, {renamed.get(k, k): v for k, v in plain.items()}


@dataclass(frozen=True, slots=True)
class Ask:
    """What the caller asked for."""

    strict: bool
    examples: bool
    hosted: bool
    grammar: anthropic.Grammar

    def wants_strict(self, draft: Draft) -> bool:
        """Whether the tool is to be strict: all are, or it says so itself."""
        return self.strict or draft.tool.strict


@dataclass(frozen=True, slots=True)
class Vendor:
    """One row of the table."""

    title: str
    names: NameRule
    tool: Callable[[Draft, Ask], dict[str, Any]]
    keys: NameRule | None = None
    most_tools: int | None = None
    has_strict: bool = True
    has_deferral: bool = False


def _responses(d: Draft, ask: Ask) -> dict[str, Any]:
    return openai.responses_tool(d, strict=ask.wants_strict(d), examples=ask.examples, hosted=ask.hosted)


def _chat(d: Draft, ask: Ask) -> dict[str, Any]:
    return openai.chat_tool(d, strict=ask.wants_strict(d), examples=ask.examples, azure=False)


def _azure(d: Draft, ask: Ask) -> dict[str, Any]:
    return openai.chat_tool(d, strict=ask.wants_strict(d), examples=ask.examples, azure=True)


def _anthropic(d: Draft, ask: Ask) -> dict[str, Any]:
    return anthropic.tool(d, strict=ask.wants_strict(d), examples=ask.examples, hosted=ask.hosted, grammar=ask.grammar)


_MOST = openai.MOST_TOOLS
VENDORS: dict[str, Vendor] = {
    "openai": Vendor("OpenAI", openai.NAMES, _responses, most_tools=_MOST, has_deferral=True),
    "openai-chat": Vendor("OpenAI", openai.NAMES, _chat, most_tools=_MOST),
    "azure": Vendor("Azure", openai.NAMES, _azure, most_tools=_MOST),
    "anthropic": Vendor("Anthropic", anthropic.NAMES, _anthropic, keys=anthropic.KEYS, has_deferral=True),
    "gemini": Vendor(
        "Gemini", gemini.NAMES, lambda d, ask: gemini.declaration(d, examples=ask.examples), keys=gemini.KEYS,
        most_tools=gemini.MOST_TOOLS, has_strict=False,
    ),
    "ollama": Vendor("Ollama", ollama.NAMES, lambda d, ask: ollama.tool(d, examples=ask.examples), has_strict=False),
}  # fmt: skip


def render(
    tools: ToolCatalog | Iterable[ToolDefinition],
    vendor: VendorName,
    *,
    strict: bool = False,
    include_examples: bool = True,
    available_tools: Sequence[str] | None = None,
    hosted_programs: bool = False,
    cache_control: bool = False,
) -> Rendered:
    """The tools as a vendor's requests take them, in the order of their names: the same tools give the same bytes.

    Args:
        tools: a catalog, or definitions.
        vendor: "openai" (the Responses API), "openai-chat", "azure", "anthropic", "gemini", "ollama", or "neutral", which is
            `to_llm_format` and changes nothing.
        strict: asks for strict schemas wherever a tool can have one; a tool that says `strict` itself is strict anyway.
        include_examples: shows examples, in the vendor's own field or at the end of the description.
        available_tools: names (or aliases) of the tools to keep. A deprecated tool is offered only when it is named here.
        hosted_programs: the request has the vendor's own code execution, so tools say which callers they allow. Without it tools
            that only programs may call are left out.
        cache_control: Anthropic: marks the last tool that is not deferred as the end of what its prompt cache keeps.

    Raises:
        RequestError: there is no such vendor.
    """
    if vendor not in get_args(VendorName):
        known = ", ".join(get_args(VendorName))
        raise RequestError(f"There is no vendor `{vendor}`.", path="vendor", next=f"There are {known}.")
    known_tools = {t.name: t for t in (tools.tools if isinstance(tools, ToolCatalog) else tools)}
    chosen, left_out = _chosen(known_tools, available_tools, hosted=hosted_programs or vendor == "neutral")
    if vendor == "neutral":
        same = {t.name: t.name for t in chosen}
        return Rendered(vendor, [t.to_llm_format(include_examples) for t in chosen], Names(same, same), left_out=left_out)
    row = VENDORS[vendor]
    names = vendor_names((t.name for t in chosen), row.names)
    drafts = [Draft.of(t, names.to_vendor(t.name), row.keys) for t in chosen]
    ask = Ask(strict, include_examples, hosted_programs, anthropic.Grammar())
    made = [row.tool(d, ask) for d in drafts]
    for draft in drafts:
        _note_the_rest(draft, row, ask)
    return Rendered(
        vendor,
        _request(vendor, made, cache_control),
        names,
        notes={d.tool.name: tuple(d.notes) for d in drafts if d.notes},
        left_out=left_out,
        warnings=_warnings(row, len(made)),
        _renamed={d.tool.name: d.renamed for d in drafts if d.renamed},
        _loose={d.tool.name: d.loose for d in drafts if d.loose},
    )


def _chosen(
    tools: Mapping[str, ToolDefinition], available: Collection[str] | None, *, hosted: bool
) -> tuple[list[ToolDefinition], dict[str, str]]:
    wanted = set(available or ())
    chosen: list[ToolDefinition] = []
    left_out: dict[str, str] = {}
    for _, tool in sorted(tools.items()):
        named = tool.name in wanted or not wanted.isdisjoint(tool.aliases)
        if available is not None and not named:
            continue
        if tool.deprecated is not None and not named:
            left_out[tool.name] = f"deprecated: {tool.deprecated}"
        elif not hosted and "direct" not in tool.allowed_callers:
            left_out[tool.name] = "only programs may call it"
        else:
            chosen.append(tool)
    return chosen, left_out


def _note_the_rest(draft: Draft, row: Vendor, ask: Ask) -> None:
    if ask.wants_strict(draft) and not row.has_strict:
        draft.note(f"strict: {row.title} has no strict mode for single tools")
    if draft.tool.defer_loading and not row.has_deferral:
        draft.note("defer_loading: offered whole, this API knows no deferral")


def _request(vendor: str, made: list[dict[str, Any]], cache_control: bool) -> list[dict[str, Any]]:
    if vendor == "gemini":
        return [{"function_declarations": made}] if made else []
    if vendor == "anthropic" and cache_control:
        for tool in [t for t in made if "defer_loading" not in t][-1:]:  # the two together are refused
            tool["cache_control"] = {"type": "ephemeral"}
    return made


def _warnings(row: Vendor, count: int) -> tuple[str, ...]:
    if row.most_tools is None or count <= row.most_tools:
        return ()
    return (f"{count} tools; {row.title} takes {row.most_tools} in one request. Choose with `available_tools`.",)
