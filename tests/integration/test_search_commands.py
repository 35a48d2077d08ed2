"""Search as a person has it: `up`, then find, explain, lab, feedback; all with real processes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.errors import NotFound
from orchestrator.models.platform import Platform
from orchestrator.settings import load_settings
from tests.integration.test_up_demo import call, finish, start
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
QUERIES = ROOT / "examples" / "search" / "queries.csv"
DONE, BAD_REQUEST, UNREACHABLE = 0, 2, 3


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "home"
        process = start(path, "up", "--json", "--no-flower", "--pools", "function")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        platform = Platform.model_validate_json(line)
        try:
            with Client(platform.api, settings=load_settings(_env_file=None, home=path)) as client:
                wait_until(lambda: client.search_tools("receipt").backlog == 0, description="every tool has a vector", timeout=90)
            yield path
        finally:
            finish(process, timeout=60)


def test_find_prints_names_scores_and_why(home: Path) -> None:
    found = call(home, "search", "find", "read the text of a photographed receipt", "-k", "3")
    assert found.returncode == DONE, found.stderr
    assert found.stdout.splitlines()[1].startswith("receipt_ocr")
    assert "words: " in found.stdout
    assert "tools -> 3" in found.stderr

    as_json = json.loads(call(home, "search", "find", "text of a receipt", "-k", "2", "--json").stdout)
    assert [len(as_json["hits"]), as_json["hits"][0]["name"]] == [2, "receipt_ocr"]
    assert as_json["degraded"] == []


def test_explain_says_what_each_half_says(home: Path) -> None:
    told = json.loads(call(home, "search", "explain", "sales tax on an amount", "--json", "--tool", "receipt_ocr").stdout)
    first = told["hits"][0]
    assert (first["name"], first["rank"], first["rank_by_words"]) == ("compute_tax", 1, 1)
    assert "tax" in first["terms"]
    assert 0 < first["cosine"] <= 1
    assert told["tool"]["rank"] > 1
    assert "below `compute_tax`" in told["tool"]["said"]
    shown = call(home, "search", "explain", "sales tax on an amount", "-k", "2")
    assert "compute_tax" in shown.stdout
    nobody = call(home, "search", "explain", "x", "--tool", "receipt_ocrr")
    assert (nobody.returncode, "receipt_ocr" in nobody.stderr) == (BAD_REQUEST, True)


def test_the_lab_measures_the_running_platform(home: Path) -> None:
    measured = call(home, "search", "lab", "--queries", str(QUERIES))
    assert measured.returncode == DONE, measured.stderr
    assert "12 of 12 queries judged" in measured.stdout
    assert "too little to choose" in measured.stdout
    report = json.loads(call(home, "search", "lab", "--queries", str(QUERIES), "--json").stdout)
    assert report["ways"][0]["recall"]["5"] > 0.7
    assert report["fit"]["setting"] is None


def test_the_lab_names_what_is_wrong(home: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("query,tools\nsomething,\n")
    ended = call(home, "search", "lab", "--queries", str(bad))
    assert ended.returncode == BAD_REQUEST
    assert "line 2" in ended.stderr
    assert "one object a line" in ended.stderr
    assert call(home, "search", "lab", "--queries", str(tmp_path / "none")).returncode == BAD_REQUEST


def test_feedback_teaches_and_can_be_taken_back(home: Path) -> None:
    query = "zufriedene Kunden am Abend"
    noted = call(home, "search", "feedback", query, "--used", "merge_items")
    assert noted.returncode == DONE, noted.stderr
    id = noted.stdout.strip()
    assert id in call(home, "search", "feedback").stdout
    wait_until(lambda: first(home, query) == "merge_items", description="the next search knows it", timeout=30)

    undone = call(home, "search", "feedback", "--undo", id)
    assert undone.returncode == DONE, undone.stderr
    assert id not in call(home, "search", "feedback").stdout
    again = call(home, "search", "feedback", "--undo", "nothing-of-that-name")
    assert again.returncode == BAD_REQUEST
    with Client(settings=load_settings(_env_file=None, home=home)) as client, pytest.raises(NotFound):
        client.untell_use("nothing-of-that-name")


def first(home: Path, query: str) -> str:
    with Client(settings=load_settings(_env_file=None, home=home)) as client:
        return client.search_tools(query).hits[0].name


@pytest.mark.parametrize("words", [("feedback", "only a query"), ("feedback", "x", "--undo", "y")])
def test_half_a_feedback_is_refused(home: Path, words: tuple[str, ...]) -> None:
    ended = call(home, "search", *words)
    assert ended.returncode == BAD_REQUEST
    assert "toolweaver search feedback" in ended.stderr


def test_without_a_platform_it_says_how_to_start_one(tmp_path: Path) -> None:
    ended = call(tmp_path / "nothing", "search", "find", "x")
    assert (ended.returncode, "toolweaver up" in ended.stderr) == (UNREACHABLE, True)
