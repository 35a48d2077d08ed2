"""`ToolSearchEngine` as the references call it: weights, caches, routing of small catalogs, scores that mean something."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from orchestrator.errors import ModelError, RequestError
from orchestrator.models.tool import ToolCatalog
from orchestrator.providers import warm
from orchestrator.tool_search import ToolSearchEngine, search_tools
from tests.unit.search_tools import catalog, livemcp, tool


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ToolSearchEngine:
    return ToolSearchEngine(cache_dir=tmp_path_factory.mktemp("vectors"))


def names(results: list[tuple[object, float]]) -> list[str]:
    return [found.name for found, _ in results]  # type: ignore[attr-defined]


def test_the_sample_of_the_reference_runs_unchanged(tmp_path: Path) -> None:
    engine = ToolSearchEngine(bm25_weight=0.3, embedding_weight=0.7, cache_dir=str(tmp_path / "search_cache"))

    results = engine.search(query="process receipts and extract line items", catalog=catalog(), top_k=10, min_score=0.3)

    assert set(names(results)[:2]) == {"receipt_ocr", "line_item_parser"}
    assert all(0.0 <= score <= 1.0 for _, score in results)
    assert [s for _, s in results] == sorted((s for _, s in results), reverse=True)
    explained = engine.explain_results(results, query="receipt processing")
    assert explained.startswith('Query: "receipt processing"\n')
    assert "High relevance" in explained


def test_the_default_finds_what_is_meant_and_the_best_is_never_left_out(engine: ToolSearchEngine) -> None:
    for query in ("read the text of a photographed receipt", "sort my expenses", "wie wird das Wetter", "zzzz qqqq"):
        results = engine.search(query, catalog(), min_score=1.0)
        assert len(results) >= 1, query
    assert names(engine.search("photograph of a receipt", catalog()))[0] == "receipt_ocr"


def test_min_score_is_a_share_of_the_best_evidence(engine: ToolSearchEngine) -> None:
    kept = [names(engine.search("find the line items of a receipt", catalog(), min_score=m)) for m in (0.0, 0.3, 0.6, 1.0)]

    assert [len(k) for k in kept] == sorted((len(k) for k in kept), reverse=True)
    assert len(kept[0]) == 10
    assert len(kept[2]) < 10
    assert {"receipt_ocr", "line_item_parser"} <= set(kept[1])
    assert kept[3] == kept[0][:1] == ["line_item_parser"]


def test_few_tools_are_all_returned_with_score_one(engine: ToolSearchEngine) -> None:
    few = ToolCatalog(tools=list(livemcp()[:20]))
    assert [(t.name, s) for t, s in engine.search("anything", few, top_k=3)] == [(t.name, 1.0) for t in few.tools]
    more = ToolCatalog(tools=list(livemcp()[:21]))
    assert len(engine.search("search the web", more, top_k=3, min_score=0.0)) == 3


def test_tools_that_were_not_ranked_are_not_praised(engine: ToolSearchEngine) -> None:
    explained = engine.explain_results(engine.search("anything", ToolCatalog(tools=list(livemcp()[:20]))), query="anything")
    assert explained.count("Not ranked") == 20
    assert "relevance" not in explained


@pytest.mark.parametrize("weights", [{}, {"bm25_weight": 0.3, "embedding_weight": 0.7}])
def test_a_folder_that_cannot_be_made_costs_no_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weights: dict[str, float]
) -> None:
    (tmp_path / "file").write_text("no folder")
    engine = ToolSearchEngine(cache_dir=tmp_path / "file" / "cache", **weights)  # type: ignore[arg-type]

    found = engine.search("photograph of a receipt", catalog())
    assert names(found)[0] == "receipt_ocr"
    assert "meaning" in engine.explain_results(found, query="photograph of a receipt")
    engine.clear_cache()
    assert [r.message.partition(":")[0] for r in caplog.records if r.levelname == "WARNING"] == [
        f"no vectors are kept in `{tmp_path}/file/cache`"
    ]


def test_the_classic_hybrid_looks_at_the_catalog_once(tmp_path: Path) -> None:
    engine, tools = ToolSearchEngine(0.3, 0.7, cache_dir=tmp_path), catalog()
    first = names(engine.search("photograph of a receipt", tools))
    prepared = engine._prepare([t for t in tools.tools if t.deprecated is None])
    tables = vars(prepared)["exact"]

    assert first[0] == "receipt_ocr"
    engine.search("sort my expenses", tools)
    assert vars(prepared)["exact"] is tables


def test_deprecated_tools_are_never_found(engine: ToolSearchEngine) -> None:
    old = tool("receipt_reader", "Reads the text of a photographed receipt.", deprecated="use receipt_ocr")
    found = engine.search("photographed receipt", ToolCatalog(tools=[*catalog().tools, old]), min_score=0.0)
    assert "receipt_reader" not in names(found)


def test_a_name_that_is_asked_for_comes_first(engine: ToolSearchEngine) -> None:
    assert names(engine.search("expense_categorizer", catalog()))[0] == "expense_categorizer"


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_query_finds_nothing(engine: ToolSearchEngine, query: str) -> None:
    assert engine.search(query, catalog()) == []


@pytest.mark.parametrize("query", ["the of and", "\U0001f9fe\U0001f4b6", "\ud800", "receipt " * 20_000, "' OR 1=1 --", "领收书"])
def test_odd_queries_are_answered(engine: ToolSearchEngine, query: str) -> None:
    results = engine.search(query, catalog(), top_k=5)
    assert 1 <= len(results) <= 5
    assert engine.explain_results(results, query="x")


def test_a_tool_of_another_tenant_is_found_by_who_holds_its_catalog(engine: ToolSearchEngine) -> None:
    own = tool("acme_ledger", "Books an invoice into the ledger of Acme.", tenants=("acme",))
    assert names(engine.search("book an invoice into the ledger", ToolCatalog(tools=[*catalog().tools, own])))[0] == "acme_ledger"


def test_a_catalog_that_changed_is_searched_as_it_is_now(engine: ToolSearchEngine) -> None:
    changing = catalog()
    assert "helper_7" not in names(engine.search("high and low tides of a harbour", changing))
    changing.add_tool(tool("helper_7", "High and low tides of a harbour."))
    assert names(engine.search("high and low tides of a harbour", changing))[0] == "helper_7"
    changing.add_tool(tool("helper_7", "Renames a spreadsheet."))
    assert "helper_7" not in names(engine.search("high and low tides of a harbour", changing, top_k=1))


class Counting:
    """The model, counting what it is asked."""

    def __init__(self) -> None:
        self.model = warm.embedder()
        self.name, self.dimensions, self.texts = self.model.name, self.model.dimensions, 0

    def embed(self, texts: list[str]) -> object:
        self.texts += len(texts)
        return self.model.embed(texts)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr("orchestrator.tool_search.engine.named_embedder", lambda _: counting)
    return counting


def test_a_text_is_embedded_once_for_all_engines_until_the_cache_is_cleared(counted: Counting, tmp_path: Path) -> None:
    ToolSearchEngine(cache_dir=tmp_path).search("read a receipt", catalog(30))
    assert 30 <= counted.texts <= 31
    second = ToolSearchEngine(cache_dir=tmp_path)
    before = counted.texts
    second.search("read a receipt", catalog(30))
    assert counted.texts == before + 1, "only the query"
    second.search("read a receipt", catalog(30))
    assert counted.texts == before + 1, "nothing"
    second.clear_cache()
    second.search("read a receipt", catalog(30))
    assert counted.texts > before + 30


def test_a_result_is_kept_for_an_hour(counted: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ToolSearchEngine(cache_dir=tmp_path)
    searches: list[object] = []
    answer = engine.answer
    monkeypatch.setattr(engine, "answer", lambda *given: searches.append(given) or answer(*given))
    now = 1_000.0
    monkeypatch.setattr("orchestrator.tool_search.engine.time.monotonic", lambda: now)
    first = engine.search("read a receipt", catalog(30))
    assert engine.search("read a receipt", catalog(30)) == first
    assert len(searches) == 1
    now += 3_601
    assert engine.search("read a receipt", catalog(30)) == first
    assert len(searches) == 2


def test_results_are_shared_between_processes_and_what_others_wrote_there_does_no_harm(tmp_path: Path) -> None:
    class Shared:
        def __init__(self) -> None:
            self.kept: dict[str, object] = {}

        def get(self, key: str) -> object:
            return self.kept.get(key)

        def set(self, key: str, value: object, ttl: int = 0) -> None:
            self.kept[key] = value

    shared = Shared()

    def search() -> list[str]:
        engine = ToolSearchEngine(cache_dir=tmp_path, cache=shared)  # type: ignore[arg-type]
        return names(engine.search("photograph of a receipt", catalog(30)))

    found = search()
    (key,) = shared.kept
    shared.kept[key] = [["line_item_parser", 0.5, 0.5]]
    assert search() == ["line_item_parser"]
    for odd in ([["nobody", 0.5, 0.5]], [["line_item_parser", 0.5]], {"a": 1}, [[1, "x", None]], 7, "text"):
        shared.kept[key] = odd
        assert search() == found, odd


def test_without_the_model_words_are_compared_and_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "orchestrator.providers.sentence_transformers", raising=False)
    engine = ToolSearchEngine(embedding_model="all-mpnet-base-v2", cache_dir=tmp_path)
    with caplog.at_level(logging.WARNING):
        results = engine.search("photographed receipt", catalog())
    assert names(results)[0] == "receipt_ocr"
    assert "pip install 'toolweaver[sentence-transformers]'" in engine.degraded[0]
    assert "only words" in caplog.text
    assert "meaning" not in engine.explain_results(results[:1], "photographed receipt")


def test_another_model_without_its_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "orchestrator.providers.sentence_transformers", raising=False)
    with pytest.raises(ModelError, match="toolweaver\\[sentence-transformers\\]"):
        warm.named_embedder("all-mpnet-base-v2")


def test_rank_bm25_is_selectable_for_comparison(tmp_path: Path) -> None:
    classic = ToolSearchEngine(0.3, 0.7, cache_dir=tmp_path, lexical="rank-bm25")
    assert names(classic.search("text of a photographed receipt", catalog()))[0] == "receipt_ocr"


def test_rank_bm25_without_its_extra_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rank_bm25", None)
    with pytest.raises(RequestError, match="toolweaver\\[search-compare\\]"):
        ToolSearchEngine(lexical="rank-bm25", cache_dir=tmp_path).search("receipt", catalog(30))


@pytest.mark.parametrize(
    ("given", "expected"), [((0.3, 0.7), (0.3, 0.7)), ((0.5, None), (0.5, 0.5)), ((None, 1.0), (0.0, 1.0)), ((3, 7), (0.3, 0.7))]
)
def test_weights_of_ones_own(given: tuple[float | None, float | None], expected: tuple[float, float]) -> None:
    made = ToolSearchEngine(*given).weights
    assert (made.lexical, made.cosine, made.rescale) == (pytest.approx(expected[0]), pytest.approx(expected[1]), True)


@pytest.mark.parametrize("given", [(0.0, 0.0), (-1.0, 2.0)])
def test_weights_that_mix_nothing_are_refused(given: tuple[float, float]) -> None:
    with pytest.raises(RequestError, match=r"0\.3 and 0\.7"):
        ToolSearchEngine(*given)


def test_search_tools_gives_the_tools_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path))
    tools = search_tools(query="receipt processing", catalog=catalog(), top_k=10)
    assert len(tools) == 10
    assert "receipt_ocr" in [t.name for t in tools[:3]]
