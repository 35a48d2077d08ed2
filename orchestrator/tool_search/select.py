"""The tools that a planner takes along: all while they are few, else those that the index service, or this process, finds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from orchestrator.errors import BackendError
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
    costs = engine.tokens(tuple(tools.values()))
    decision = decide(len(tools), sum(costs), window=window, share=share, threshold=threshold)
    asked = [q[:QUERY_CHARS] for q in dict.fromkeys(queries) if q.strip()][:MOST_QUERIES]
    if not decision.search or not asked:
        why = decision.reason if asked else "there is no query"
        return Selection(tuple(tools.values()), why, sum(costs), sum(costs), searched=False)
    request = SearchRequest(
        queries=tuple(asked),
        k=k,
        priority=tuple(n for n in priority if n in tools)[:MOST_PRIORITY],
        filters=(filters or Filters()).model_copy(update={"names": tuple(tools)} if len(tools) <= MOST_NAMES else {}),
        min_generation=min_generation,
    )
    names, told = _served(client, request) if client is not None else (None, None)
    degraded = told.degraded if told is not None else (SERVICE_AWAY,) * (client is not None)
    if names is None:
        names = _searched(engine, list(tools.values()), request)
        degraded = (*degraded, *engine.degraded)
    chosen = tuple(tools[name] for name in names if name in tools)
    of = dict(zip(tools, costs, strict=True))
    spent = sum(of[t.name] for t in chosen)
    log.info(saved_line(len(tools), len(chosen), saved=saved_share(sum(costs), spent)), extra={"action": "tools_selected"})
    return Selection(
        chosen,
        decision.reason,
        sum(costs),
        spent,
        searched=True,
        degraded=degraded,
        catalog_hash=told.catalog_hash if told else None,
    )


def _served(client: IndexClient, request: SearchRequest) -> tuple[list[str] | None, SearchAnswer | None]:
    """The names that the service found; None: no replica answered."""
    try:
        answer = client.search(request)
    except BackendError as error:
        log.warning("%s: %s", SERVICE_AWAY, error.message, extra={"action": "index_away"})
        return None, None
    return [hit.name for hit in answer.hits], answer


def _searched(engine: ToolSearchEngine, tools: Sequence[ToolDefinition], request: SearchRequest) -> list[str]:
    """The names that this process finds: of each query in turn the next best, as the service merges them."""
    lists = [[t.name for t, _ in engine.rank(q, tools, request.most)] for q in request.queries]
    in_turn = (name for rank in zip_longest(*lists) for name in rank if name is not None)
    return list(dict.fromkeys((*request.priority, *in_turn)))[: max(request.most, len(request.priority))]
