"""When a planner searches, what it takes along, and what is logged of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError
from orchestrator.models.search import SearchAnswer, SearchHit, SearchRequest
from orchestrator.models.tool import ToolCatalog
from orchestrator.tool_search import ToolSearchEngine, select_tools
from orchestrator.tool_search.routing import decide, saved_line, saved_share
from orchestrator.tool_search.select import SERVICE_AWAY
from tests.unit.search_tools import catalog, livemcp, tool


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ToolSearchEngine:
    return ToolSearchEngine(cache_dir=tmp_path_factory.mktemp("vectors"))


@pytest.mark.parametrize(
    ("tools", "tokens", "given", "search"),
    [
        (200, 12_800, {"window": 128_000}, False),
        (200, 12_801, {"window": 128_000}, True),
        (3, 12_801, {"window": 128_000}, True),  # three huge tools
        (200, 12_801, {"window": 128_000, "share": 0.5}, False),
        (21, 100, {"window": 128_000, "threshold": 20}, True),  # the number decides alone
        (20, 90_000, {"window": 128_000, "threshold": 20}, False),
        (20, 90_000, {}, False),  # nothing is known: 20 tools
        (21, 100, {}, True),
        (0, 0, {"window": 1}, False),
        (1, 1, {"threshold": 0}, True),
    ],
)
def test_when_to_search(tools: int, tokens: int, given: dict[str, Any], search: bool) -> None:
    assert decide(tools, tokens, **given).search is search


def test_the_reason_names_the_figures() -> None:
    assert decide(58, 12_000, window=100_000).reason == "12,000 tokens of 58 tools, more than 10% of a window of 100,000"
    assert decide(20, 1, threshold=20).reason == "20 tools, at most 20"


def test_the_line_of_the_log() -> None:
    assert saved_line(30, 10, saved=2 / 3) == "30 tools -> 10 relevant (~66.7% token reduction)"
    assert saved_share(0, 0) == 0.0
    assert saved_share(300, 100) == pytest.approx(2 / 3)
    assert saved_share(100, 300) == 0.0


def test_all_tools_are_taken_while_they_fit(engine: ToolSearchEngine) -> None:
    taken = select_tools(["read a receipt"], catalog(), window=1_000_000, engine=engine)
    assert [t.name for t in taken.tools] == [t.name for t in catalog().tools]
    assert not taken.searched
    assert taken.saved == 0.0


def test_the_best_are_taken_when_they_do_not_fit(engine: ToolSearchEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        taken = select_tools(["read the text of a receipt", "sort my expenses"], catalog(), window=100_000, engine=engine)
    assert taken.searched
    assert len(taken.tools) == 10
    assert {"receipt_ocr", "expense_categorizer"} <= {t.name for t in taken.tools[:3]}
    assert 0.5 < taken.saved < 1.0
    assert taken.saved == pytest.approx(1 - taken.tokens_chosen / taken.tokens_all)
    assert f"120 tools -> 10 relevant (~{100 * taken.saved:.1f}% token reduction)" in caplog.text


def test_without_a_query_all_tools_are_taken(engine: ToolSearchEngine) -> None:
    assert len(select_tools(["  "], catalog(), threshold=20, engine=engine).tools) == 120


def test_priority_tools_are_always_taken_and_deprecated_ones_never(engine: ToolSearchEngine) -> None:
    own = ToolCatalog(tools=[*catalog().tools, tool("old_ocr", "Reads a receipt.", deprecated="use receipt_ocr")])
    taken = select_tools(["weather in Paris"], own, threshold=20, priority=["expense_categorizer", "nobody"], engine=engine)
    assert taken.tools[0].name == "expense_categorizer"
    assert len(taken.tools) == 10
    every = select_tools(["x"], own, threshold=1_000, engine=engine)
    assert "old_ocr" not in [t.name for t in every.tools]


class Service:
    """A client of the index service that answers this."""

    def __init__(self, answer: SearchAnswer | BackendError) -> None:
        self.answer, self.asked = answer, list[SearchRequest]()

    def search(self, request: SearchRequest) -> SearchAnswer:
        self.asked.append(request)
        if isinstance(self.answer, BackendError):
            raise self.answer
        return self.answer


def test_the_service_is_asked_for_tools_of_the_catalog_alone(engine: ToolSearchEngine) -> None:
    hits = (SearchHit(name="line_item_parser", score=0.9), SearchHit(name="of_somebody_else", score=0.8))
    service = Service(SearchAnswer(hits=hits, catalog_hash="abc", degraded=("meaning: the encoder was late",)))

    taken = select_tools(["items"], catalog(), threshold=20, client=service, engine=engine, k=5, min_generation=7)  # type: ignore[arg-type]

    assert [t.name for t in taken.tools] == ["line_item_parser"]
    assert (taken.catalog_hash, taken.degraded) == ("abc", ("meaning: the encoder was late",))
    (request,) = service.asked
    assert (request.k, request.min_generation) == (5, 7)
    assert set(request.filters.names or ()) == {t.name for t in catalog().tools}


def test_this_process_searches_while_the_service_is_away(engine: ToolSearchEngine) -> None:
    away = Service(BackendError("no replica answers"))
    taken = select_tools(["photographed receipt"], catalog(), threshold=20, client=away, engine=engine)  # type: ignore[arg-type]
    assert taken.tools[0].name == "receipt_ocr"
    assert taken.degraded == (SERVICE_AWAY,)
    assert taken.catalog_hash is None


def test_tokens_are_those_of_every_schema(tmp_path: Path) -> None:
    engine = ToolSearchEngine(embedding_model=str(tmp_path), cache_dir=tmp_path)  # no model: words are enough here
    taken = select_tools(["weather"], ToolCatalog(tools=list(livemcp())), window=200_000, engine=engine)
    assert taken.tokens_all > 100_000
    assert taken.saved > 0.9


def test_settings_of_a_cold_engine_do_not_matter_when_nothing_is_searched(tmp_path: Path) -> None:
    cold = ToolSearchEngine(embedding_model="none-of-that-name", cache_dir=tmp_path)
    assert select_tools(["x"], catalog(10), threshold=20, engine=cold).degraded == ()
