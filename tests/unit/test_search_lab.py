"""The search lab: what people feed it, what it finds out, when it says that it cannot tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import NotFound, RequestError
from orchestrator.models.lab import LabReport
from orchestrator.models.tool import ToolCatalog
from orchestrator.providers.warm import embedder
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import document_of
from orchestrator.tool_search.embedding import embedded
from orchestrator.tool_search.exact import Exact, order, place
from orchestrator.tool_search.fusion import DEFAULT
from orchestrator.tool_search.index import Index, Query
from orchestrator.tool_search.lab import Lab
from orchestrator.tool_search.lab_fit import SETTING, fit, interval, parts
from orchestrator.tool_search.lab_input import Case, read_cases, read_catalog
from tests.unit.search_tools import catalog, livemcp, tool

JSONL = '{"query": "read a receipt", "tools": ["receipt_ocr"]}\n\n{"query": "sort", "labels": "a; b"}\n'
CSV = 'query,tools\n"read, slowly",receipt_ocr\nsort,"a;b"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JSONL, [(1, "read a receipt", ("receipt_ocr",)), (3, "sort", ("a", "b"))]),
        (CSV, [(2, "read, slowly", ("receipt_ocr",)), (3, "sort", ("a", "b"))]),
        ("\ufeffTools,Query\na|b,sort\n", [(2, "sort", ("a", "b"))]),
        (
            'query;tools\r\n"read, slowly";receipt_ocr\r\nsort;"a;b"\r\n',
            [(2, "read, slowly", ("receipt_ocr",)), (3, "sort", ("a", "b"))],
        ),
        ("request\tlabels\nsort\ta,b\n", [(2, "sort", ("a", "b"))]),
        ('[\n {"query": "x", "tool": "a"},\n {"query": "y", "tools": ["b"]}\n]', [(2, "x", ("a",)), (3, "y", ("b",))]),
        ('{"queries": [{"request": "x", "used": ["a", "a"]}]}', [(1, "x", ("a",))]),
        ('{"how is the weather": ["weather"], "more": "a b"}', [(1, "how is the weather", ("weather",)), (1, "more", ("a", "b"))]),
    ],
)
def test_queries_are_read_in_the_forms_that_people_have(text: str, expected: list[tuple[int, str, tuple[str, ...]]]) -> None:
    assert [(c.line, c.query, c.tools) for c in read_cases(text, name="q")] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"query": "x", "tools": ["a"]}\n{"query": "y"\n', "q:2: `q` is no JSON"),
        ("a,b\n1,2\n", "q:1: `q` has no heading with the columns `query` and `tools`"),
        ("", "q:1: `q` has no heading"),
        ("[]", "holds no queries"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(RequestError) as error:
        read_cases(text, name="q")
    assert says in str(error.value)
    assert error.value.next
    assert error.value.code == "bad_queries"


def test_every_bad_line_is_named_at_once() -> None:
    with pytest.raises(RequestError) as error:
        read_cases('{"query": "x", "tools": []}\n{"tools": ["a"]}\n[1]\n', name="q")
    assert [(p["path"], p["message"].partition(":")[0]) for p in error.value.problems] == [
        ("line 1", "has no `tools`"), ("line 2", "has no `query`"), ("line 3", "is no object with a query and its tools"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["query,tools\nfind items, taxes and total,parser\n", "query;tools\nsort;a;b\n"])
def test_a_line_with_more_values_than_columns_is_named(text: str) -> None:
    with pytest.raises(RequestError) as error:
        read_cases(text, name="q")
    assert [p["path"] for p in error.value.problems] == ["line 2"]
    assert "double quotes" in str(error.value.problems)


def test_catalogs_are_read_in_the_forms_that_people_have() -> None:
    ours = json.dumps({"source": "x", "tools": [json.loads(tool("a", "Does a.", "p").to_row())]})
    mcp = json.dumps(
        {"tools": [{"name": "a", "description": "Does a.", "inputSchema": {"type": "object", "properties": {"p": {}}}}]}
    )
    openai = json.dumps(
        [{"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {"p": {}}}}}]
    )
    anthropic = '{"name": "a", "input_schema": {"type": "object", "properties": {"p": {}}}, "cache_control": {}}\n'
    for text in (ours, mcp, openai, anthropic):
        (found,) = read_catalog(text, name="c").tools
        assert (found.name, [p.name for p in found.parameters]) == ("a", ["p"]), text


def test_a_bad_catalog_is_named() -> None:
    with pytest.raises(RequestError) as error:
        read_catalog('[{"name": "a"}, {"name": "9 lives"}, 7]', name="c")
    assert [p["path"] for p in error.value.problems] == ["tool 2", "tool 3"]
    assert error.value.code == "bad_catalog"


def lab(cases: list[tuple[str, str]], tools: ToolCatalog | None = None, *, words: bool = False) -> LabReport:
    made = [Case(n, query, tuple(wanted.split())) for n, (query, wanted) in enumerate(cases, 1)]
    return Lab(tools or catalog(), made, embedder=None if words else embedder()).report()


def test_figures_and_misses_with_their_reasons() -> None:
    old = tool("receipt_scan", "Reads a receipt.", deprecated="use receipt_ocr")
    mute = tool("zz9")
    report = lab(
        [
            ("text of a photographed receipt", "receipt_ocr"),
            ("items and total of a receipt", "line_item_parser"),
            ("read a receipt", "receipt_scan"),
            ("categories", "expense_categoriser"),
            ("compose a symphony for strings", "zz9"),
            ("play the violin quietly", "receipt_ocr"),
        ],
        ToolCatalog(tools=[*catalog().tools, old, mute]),
    )
    assert (report.tools, report.queries, report.used) == (121, 6, 4)
    assert report.ways[0].recall[10] == 0.5
    assert report.ways[0].recall[1] == 0.5
    assert (report.asked, report.missed) == (6, 4)
    told = {m.line: m for m in report.misses}
    assert told[3].code == "deprecated"
    assert "use receipt_ocr" in told[3].reason
    assert (told[4].code, told[4].reason) == ("absent", "not in the catalog")
    assert told[4].next == "Did you mean `expense_categorizer`?"
    assert (told[5].code, "no description" in told[5].reason) == ("no_words", True)
    assert told[6].code == "no_words"
    assert told[6].by_words is None
    assert (told[6].by_meaning or 0) > 10
    assert told[6].place is not None
    assert told[6].instead in told[6].reason
    assert 0.8 < report.tokens.saved < 1


def test_too_few_queries_choose_nothing() -> None:
    report = lab([("text of a photographed receipt", "receipt_ocr")])
    assert report.fit.verdict == "unsure"
    assert "too little" in report.fit.said
    assert report.fit.setting is None


def test_without_the_model_words_alone_are_measured() -> None:
    report = lab([("text of a photographed receipt", "receipt_ocr")], words=True)
    assert [w.name for w in report.ways] == ["words alone"]
    assert "absent" in report.degraded[0]


def test_aliases_and_native_names_lead_to_their_tool() -> None:
    own = ToolCatalog(tools=[*catalog().tools, tool("x.read_bill", "Reads a bill.", native_name="read_bill", aliases=("bill",))])
    assert lab([("read a bill", "read_bill"), ("a bill", "bill")], own).used == 2


def test_nothing_in_common_is_an_error_with_an_example() -> None:
    with pytest.raises(NotFound, match="none of the 1 right tools is in the catalog, such as `nobody`"):
        lab([("x", "nobody")])


def test_the_lab_ranks_as_the_index_does() -> None:
    documents = [document_of(t) for t in livemcp()[:150]]
    rows = embedded(embedder(), [d.text for d in documents])
    index = Index.of(documents, {text_digest(d.text): row for d, row in zip(documents, rows, strict=True)})
    exact = Exact(documents, rows)
    for query in ("search the web for news", "list files of a folder", "stock price of a company", "what is the weather"):
        vector = embedder().embed([query])[0]
        scores = exact.halves(query, vector).fused(DEFAULT)
        found = index.search(Query(query, tuple(terms(query)), vector), 10)
        assert [index.name(i) for i in found.ids] == [documents[row].name for row in order(scores, 10)], query
        assert place(scores, int(order(scores, 3)[2])) == 3


def queries(count: int) -> list[str]:
    return [f"query number {n}" for n in range(count)]


def test_the_parts_are_about_halves_and_the_same_request_is_in_one() -> None:
    said = queries(1_000)
    first = parts(said)
    assert 440 < first.sum() < 560
    assert (parts([q.upper() + " " for q in said]) == first).all()


def test_a_weight_that_wins_on_the_rest_is_set() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 200)
    found = fit({0.3: 0.5 + noise, 0.5: 0.6 + noise[::-1], 1.0: 0.55 + noise}, queries(200), default=0.3)
    assert (found.verdict, found.weight, found.setting) == ("better", 0.5, f"{SETTING}=0.5")
    assert 0 < found.low < found.difference < found.high
    assert found.fitted_on + found.reported_on == 200


def test_a_request_that_is_there_often_counts_once() -> None:
    queries = [text for n in range(20) for text in (f"Find invoice {n}!", f"find  invoice {n}")] * 10
    told = fit({0.3: np.zeros(400), 0.5: np.ones(400)}, queries, default=0.3)

    assert told.fitted_on + told.reported_on == 20
    assert (told.verdict, told.setting) == ("unsure", None)


def test_a_weight_that_only_wins_where_it_was_fitted_is_not() -> None:
    said = queries(200)
    lucky = np.where(parts(said), 0.6, 0.5)
    found = fit({0.3: np.full(200, 0.5), 0.5: lucky}, said, default=0.3)
    assert (found.verdict, found.setting) == ("unsure", None)
    worse = np.where(parts(said), 0.6, 0.4)
    assert fit({0.3: np.full(200, 0.5), 0.5: worse}, said, default=0.3).verdict == "same"


def test_the_default_stays_where_nothing_is_better() -> None:
    level = {w: np.full(100, 0.5) for w in (0.1, 0.3, 0.5)}
    assert fit(level, queries(100), default=0.3).verdict == "same"


def test_the_interval_is_that_of_a_mean() -> None:
    differences = np.random.default_rng(2).normal(0.1, 1.0, 400)
    low, high = interval(differences)
    error = differences.std() / 20
    assert low == pytest.approx(differences.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(differences.mean() + 1.96 * error, abs=0.3 * error)


def run_lab(home: Path, *words: str, stdin: str = "") -> tuple[int, dict[str, object], str]:
    command = [sys.executable, "-m", "orchestrator.tool_search.lab", *words]
    env = {"TOOLWEAVER_HOME": str(home), "PATH": "/usr/bin"}
    ended = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2], timeout=120
    )
    return ended.returncode, json.loads(ended.stdout), ended.stderr


def test_the_process_answers_in_json_and_keeps_the_vectors(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("query,tools\ntext of a photographed receipt,receipt_ocr\n")
    stdin = catalog(40).model_dump_json()
    code, told, said = run_lab(tmp_path, "--queries", str(tmp_path / "q.csv"), stdin=stdin)
    assert code == 0
    assert LabReport.model_validate(told).ways[0].recall[1] == 1.0
    assert "meaning of tools: 40 of 40" in said
    again = run_lab(tmp_path, "--queries", str(tmp_path / "q.csv"), stdin=stdin)
    assert "meaning of tools" not in again[2]


def test_the_process_says_what_is_wrong_and_ends_so(tmp_path: Path) -> None:
    code, told, _ = run_lab(tmp_path, "--queries", str(tmp_path / "none.csv"))
    assert (code, told["code"]) == (2, "not_found")
    assert "none.csv" in str(told["detail"])
