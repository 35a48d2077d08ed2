"""The tools that a planner takes along: all while they are few, else those that the index service, or this process, finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import ToolWeaverError
from orchestrator.models.search import (
    DEFAULT_K,
    MOST_NAMES,
    MOST_PRIORITY,
    MOST_QUERIES,
    QUERY_CHARS,
    Filters,
    SearchAnswer,
    SearchRequest,
)
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.monitoring.feed import record_fallback, record_search
from orchestrator.tool_search.client import IndexClient
from orchestrator.tool_search.engine import ToolSearchEngine, shared_engine
from orchestrator.tool_search.routing import SHARE, decide, saved_line, saved_share

log = logging.getLogger(__name__)
SERVICE_AWAY = "the index service: no replica answered, so this process searched"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a planner takes along: the tools, best first, and why these. Tokens are of schemas, estimated.

    `catalog_hash` names the catalog that a service searched: a plan that carries it is not run on another one unnoticed.
    """

    tools: tuple[ToolDefinition, ...]
    reason: str
    tokens_all: int
    tokens_chosen: int
    searched: bool
    degraded: tuple[str, ...] = ()
    catalog_hash: str | None = None

    @property
    def saved(self) -> float:
        """The part of the tokens that is not sent, 0 to 1."""
        return saved_share(self.tokens_all, self.tokens_chosen)


def select_tools(
    queries: Sequence[str],
    catalog: ToolCatalog,
    *,
    window: int | None = None,
    threshold: int | None = None,
    share: float = SHARE,
    k: int = DEFAULT_K,
    priority: Sequence[str] = (),
    filters: Filters | None = None,
    client: IndexClient | None = None,
    engine: ToolSearchEngine | None = None,
    min_generation: int | None = None,
) -> Selection:
    """The tools for a request, of a catalog that the caller may use; deprecated ones are never among them.

    Args:
        queries: the request, or what its parts need; their answers are merged in turn. Without any, all tools are taken.
        catalog: what may be used: no other tool is chosen, whatever a service finds.
        window: tokens that the model reads at most; all tools are taken while they fill `share` of it at most.
        threshold: a number of tools that decides instead.
        k: how many tools are taken when they are searched.
        priority: tools that are always taken, in front; they count.
        filters: what the service leaves out before it ranks; default: nothing but the names that the catalog does not have.
        client: of the index service; None, or while it is away: this process searches.
    """
    tools = {t.name: t for t in catalog.tools if t.deprecated is None}
    engine = engine or shared_engine()
    costs = dict(zip(tools, engine.tokens(tuple(tools.values())), strict=True))
    total = sum(costs.values())
    decision = decide(len(tools), total, window=window, share=share, threshold=threshold)
    asked = [q[:QUERY_CHARS] for q in dict.fromkeys(queries) if q.strip()][:MOST_QUERIES]
    if not decision.search or not asked:
        why = decision.reason if asked else "there is no query"
        return Selection(tuple(tools.values()), why, total, total, searched=False)
    request = SearchRequest(
        queries=tuple(asked),
        k=k,
        priority=tuple(n for n in priority if n in tools)[:MOST_PRIORITY],
        filters=(filters or Filters()).model_copy(update={"names": tuple(tools)} if len(tools) <= MOST_NAMES else {}),
        detail="names",
        min_generation=min_generation,
    )
    served = _served(client, request) if client is not None else None
    found = served or _own_answer(engine, request, tuple(tools.values()), instead=client is not None)
    degraded = found.degraded if served or client is None else (SERVICE_AWAY, *found.degraded)
    chosen = tuple(tools[hit.name] for hit in found.hits if hit.name in tools)
    spent = sum(costs[t.name] for t in chosen)
    log.info(saved_line(len(tools), len(chosen), saved=saved_share(total, spent)), extra={"action": "tools_selected"})
    return Selection(
        chosen,
        decision.reason,
        total,
        spent,
        searched=True,
        degraded=degraded,
        catalog_hash=served.catalog_hash if served else None,
    )


def _own_answer(
    engine: ToolSearchEngine, request: SearchRequest, tools: tuple[ToolDefinition, ...], *, instead: bool
) -> SearchAnswer:
    """What this process finds; `instead` of a service that is away."""
    began = time.perf_counter()
    found = engine.answer(request, tools)
    record_search("process", cached=False, seconds=time.perf_counter() - began)
    if instead:
        record_fallback("index service")
    return found


def _served(client: IndexClient, request: SearchRequest) -> SearchAnswer | None:
    """What the service found; None: no replica answered, or not with tools."""
    try:
        return client.search(request)
    except ToolWeaverError as error:  # away, or it refuses: a wrong key, more names than a request may have
        log.warning("%s: %s", SERVICE_AWAY, error.message, extra={"action": "index_away"})
        return None
