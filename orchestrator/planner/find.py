"""The tools that a planner's model is shown: what the caller may use, narrowed by search when that is much."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.render.compact import compact
from orchestrator.errors import NotFound, ToolWeaverError
from orchestrator.models.search import DEFAULT_K, MOST_HITS, MOST_QUERIES, Filters, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.problems import listed
from orchestrator.planner.prompt import as_data
from orchestrator.policy.permissions import BUILT_IN, denied
from orchestrator.settings import Settings
from orchestrator.tool_search.allowed import allowed
from orchestrator.tool_search.client import IndexClient
from orchestrator.tool_search.select import Selection, select_tools
from orchestrator.tool_search.tokens import count_tokens

PRIORITY = "priority"  # a tool with this tag is always shown
PROGRAMS = "code_exec"
INDEX_AWAY = "the index service: no replica answered"
_PART = re.compile(r"[.;:!?\n]+|,(?=\s)|\b(?:and then|then|and|after that|afterwards|finally)\b", re.IGNORECASE)
_WORDS_OF_A_PART = 2
_CONVERSATIONS = 1_000
_MOST_SHOWN = 60  # tools of one conversation before it starts anew


@dataclass(frozen=True, slots=True)
class Found:
    """The tools for a prompt, in its order: `always` are in every prompt of this catalog, `found` by this request.

    `batches`: how many of the found ones came with each request of the conversation, in turn.
    """

    always: tuple[ToolDefinition, ...]
    found: tuple[ToolDefinition, ...]
    of: int
    searched: bool = False
    degraded: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()

    @property
    def shown(self) -> int:
        return len(self.always) + len(self.found)


@dataclass(frozen=True, slots=True)
class Search:
    """How a planner searches: `on` False never does."""

    settings: Settings
    window: int
    room: int  # tokens that the tools may take in the prompt
    on: bool = True
    threshold: int | None = None
    index: IndexClient | None = None


class Usable:
    """What a request may use of a catalog, and why not the rest."""

    def __init__(self, catalog: ToolCatalog, request: PlanRequest, *, programs: bool) -> None:
        self.request, self.programs = request, programs
        self.policy = request.policy or BUILT_IN
        self.seen = catalog.seen_by(request.tenant)
        self.named = _named(self.seen, request.available_tools)

    def refusal(self, tool: ToolDefinition) -> str | None:
        """Why a plan may not use a tool, None when it may."""
        refused = denied(self.policy, tenant=self.request.tenant, caller=self.request.caller, tool=tool)
        if refused is not None:
            return refused.message
        if self.named is not None and tool.name not in self.named:
            return f"tool {tool.name} is not among the tools that this request may use"
        if not self.programs and tool.type == "code_exec":
            return "this request is planned without programs"
        return None

    def granted(self) -> list[str]:
        """The names of the tools that a plan's programs may call."""
        return sorted(t.name for t in self.seen.tools if t.callable_by_code and self.refusal(t) is None)

    def tools(self) -> ToolCatalog:
        """The catalog of what a plan may use."""
        kept = [t for t in self.seen.tools if self.refusal(t) is None]
        return ToolCatalog.model_construct(source=self.seen.source, version=self.seen.version, tools=kept, metadata={})

    def offered(self) -> ToolCatalog:
        """What a model is shown at most: no deprecated tools, none that no plan can call."""
        tools = self.tools()
        runs = self.programs and tools.get_tool(PROGRAMS) is not None
        kept = [t for t in tools.tools if t.deprecated is None and ("direct" in t.allowed_callers or (runs and t.callable_by_code))]
        return ToolCatalog.model_construct(source=tools.source, version=tools.version, tools=kept, metadata={})


def find_tools(request: PlanRequest, usable: Usable, search: Search) -> Found:
    """The tools to show for a request; it computes and waits, so call it in a thread.

    When the index service is down, all tools are shown if they fit, else this process searches; `degraded` says so. What does not
    fit into the room is left out, the least relevant first.
    """
    offered = usable.offered()
    always = sorted((t for t in offered.tools if PRIORITY in t.tags or t.name == PROGRAMS), key=_name)
    selection = _selected(request, usable, offered, always, search)
    chosen = selection.tools if selection.searched else sorted(selection.tools, key=_name)
    fitting = _fitting(always, chosen, search.room)
    degraded = [d for d in selection.degraded if selection.searched or d == INDEX_AWAY]
    if len(fitting) < len({t.name for t in (*always, *chosen)}):
        degraded.append(f"the model's window: {len(fitting)} of {len({t.name for t in (*always, *chosen)})} tools fit")
    if not selection.searched:
        return Found(tuple(sorted(fitting, key=_name)), (), len(offered.tools), degraded=tuple(degraded))
    kept = {t.name for t in always}
    found = [t for t in fitting if t.name not in kept]
    batches = _shelf.ordered(request, offered, found, room=search.room - _cost(always))
    ordered = tuple(t for batch in batches for t in batch)
    shown = tuple(t for t in fitting if t.name in kept)
    sizes = tuple(map(len, batches))
    return Found(tuple(sorted(shown, key=_name)), ordered, len(offered.tools), True, tuple(degraded), sizes)


def queries_of(text: str) -> list[str]:
    """What a request is searched by: itself, and each part of a compound one; at most 16."""
    parts = [" ".join(part.split()) for part in _PART.split(text)]
    long_enough = [p for p in parts if len(p.split()) >= _WORDS_OF_A_PART]
    whole = " ".join(text.split())
    return list(dict.fromkeys([whole, *long_enough] if len(long_enough) > 1 else [whole]))[:MOST_QUERIES]


class _Away(Exception):
    """The index service did not answer; not one of ToolWeaver's errors, so that nobody else takes over."""


class _Strict(IndexClient):
    """A client whose failures are seen."""

    def __init__(self, inner: IndexClient) -> None:
        self._inner = inner

    def search(self, request: SearchRequest) -> SearchAnswer:
        try:
            return self._inner.search(request)
        except ToolWeaverError as error:
            raise _Away from error


def _selected(
    request: PlanRequest, usable: Usable, offered: ToolCatalog, always: Sequence[ToolDefinition], search: Search
) -> Selection:
    queries = queries_of(request.text) if search.on else []
    asked: dict[str, Any] = {
        "window": search.window,
        "threshold": search.threshold if search.threshold is not None else search.settings.search_threshold,
        "share": search.settings.search_share,
        "k": min(max(DEFAULT_K, 3 * len(queries)), MOST_HITS),
        "priority": [t.name for t in always],
        "filters": allowed(Filters(), usable.policy, tenant=request.tenant, caller=request.caller),
    }
    try:
        return select_tools(queries, offered, client=_Strict(search.index) if search.index else None, **asked)
    except _Away:
        return _without_index(queries, offered, search, asked)
    except ToolWeaverError as error:  # nothing to search with
        return _everything(offered, (f"search: {error.message}",))


def _without_index(queries: Sequence[str], offered: ToolCatalog, search: Search, asked: dict[str, Any]) -> Selection:
    if _cost(offered.tools) <= search.room:
        return _everything(offered, (INDEX_AWAY,))
    try:
        found = select_tools(queries, offered, **asked)
    except ToolWeaverError:
        return _everything(offered, (INDEX_AWAY,))
    return Selection(
        found.tools, found.reason, found.tokens_all, found.tokens_chosen, found.searched, (INDEX_AWAY, *found.degraded)
    )


def _everything(offered: ToolCatalog, degraded: tuple[str, ...]) -> Selection:
    return Selection(tuple(offered.tools), "no search", 0, 0, searched=False, degraded=degraded)


def _fitting(always: Sequence[ToolDefinition], chosen: Sequence[ToolDefinition], room: int) -> list[ToolDefinition]:
    """Those that fit, best first; a tool that does not fit makes place for a smaller one."""
    fitting: dict[str, ToolDefinition] = {}
    for tool in (*always, *chosen):
        cost = _cost([tool])
        if tool.name not in fitting and cost <= room:
            fitting[tool.name] = tool
            room -= cost
    return list(fitting.values())


def _cost(tools: Sequence[ToolDefinition]) -> int:
    return sum(count_tokens(as_data(compact(t))) for t in tools)


def _name(tool: ToolDefinition) -> str:
    return tool.name


def _named(catalog: ToolCatalog, available: Sequence[str] | None) -> frozenset[str] | None:
    if available is None:
        return None
    found = {name: catalog.resolve(name) for name in available}
    if unknown := [name for name, tool in found.items() if tool is None]:
        message = f"There is no tool {listed(unknown, last='or')}."
        raise NotFound(message, path="available_tools", next="`toolweaver tools list` shows those that there are.")
    return frozenset(t.name for t in found.values() if t is not None)


class _Shelf:
    """What was found for earlier requests of a conversation, in the order of first discovery: prompts only grow at their end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, str], list[list[str]]] = OrderedDict()

    def ordered(
        self, request: PlanRequest, offered: ToolCatalog, found: Sequence[ToolDefinition], *, room: int
    ) -> list[tuple[ToolDefinition, ...]]:
        """The tools to show, as they came: earlier ones first; by name where there is no conversation: equal sets, equal bytes."""
        if request.conversation is None:
            return [tuple(sorted(found, key=_name))]
        with self._lock:
            return self._appended((request.tenant, request.conversation), offered, found, room)

    def _appended(
        self, key: tuple[str, str], offered: ToolCatalog, found: Sequence[ToolDefinition], room: int
    ) -> list[tuple[ToolDefinition, ...]]:
        lookup = offered.lookup().names
        earlier = self._found.pop(key, [])
        known = {name for batch in earlier for name in batch}
        names = [*earlier, [t.name for t in sorted(found, key=_name) if t.name not in known]]
        batches = [tuple(lookup[n] for n in batch if n in lookup) for batch in names if batch]
        tools = [t for batch in batches for t in batch]
        if len(tools) < sum(map(len, names)) or len(tools) > _MOST_SHOWN or _cost(tools) > room:  # begins anew
            batches = [tuple(sorted(found, key=_name))]
        self._found[key] = [[t.name for t in batch] for batch in batches]
        while len(self._found) > _CONVERSATIONS:
            self._found.popitem(last=False)
        return batches


_shelf = _Shelf()
