"""`up`, `worker` and `logs`: what they become, what they show; and the answer of `demo` as a table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.cli.receipts import answer, problem_lines
from orchestrator.models.job import JobResult
from orchestrator.models.platform import Platform

Run = Callable[..., Result]


class Replaced(Exception):
    """Stands for the process that a command became."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in ("TOOLWEAVER_URL", "TOOLWEAVER_REDIS_URL", "REDIS_URL", "TOOLWEAVER_TOOLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands and environments that processes became."""
    seen: list[Any] = []

    def execve(path: str, words: list[str], env: dict[str, str]) -> None:
        seen.append((words[1:], env))
        raise Replaced

    monkeypatch.setattr(os, "execve", execve)
    return seen


def running(home: Path, redis: str) -> None:
    me = psutil.Process()
    platform = Platform(
        pid=me.pid, api="http://127.0.0.1:1", redis=redis, started=datetime.now(UTC), process_started=me.create_time()
    )
    (home / "platform.json").write_text(platform.model_dump_json())


def test_up_becomes_the_supervisor(run: Run, became: list[Any], tmp_path: Path) -> None:
    run("up", "--no-flower", "--pools", "function", "--tools", "mine.py", "--json")

    words, env = became[0]
    assert words == ["-m", "orchestrator.local", "up", "--pools", "function", "--no-flower", "--json"]
    assert env["TOOLWEAVER_TOOLS"] == str(tmp_path / "mine.py")


def test_worker_becomes_a_worker_of_the_running_platform(run: Run, became: list[Any], tmp_path: Path) -> None:
    running(tmp_path, "unix:///tmp/short/redis.sock?db=0")

    run("worker", "--pool", "ocr", "--concurrency", "3", "--tools", "mine")

    words, env = became[0]
    assert words == ["-m", "workers.boot", "--pool", "ocr", "--concurrency", "3", "--tools", "mine"]
    assert env["TOOLWEAVER_REDIS_URL"] == "unix:///tmp/short/redis.sock?db=0"


def test_worker_keeps_to_the_redis_that_was_set(
    run: Run, became: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(tmp_path, "unix:///elsewhere.sock?db=0")
    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", "redis://host/0")

    run("worker", "--pool", "ocr")

    assert became[0][1]["TOOLWEAVER_REDIS_URL"] == "redis://host/0"


def test_worker_without_a_platform_says_that_it_waits(run: Run, became: list[Any]) -> None:
    assert "waits for one" in run("worker", "--pool", "ocr").stderr


def test_logs_are_listed_and_their_last_lines_printed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ocr.log").write_text("one\ntwo\nthree\n")

    assert run("logs").stdout.split() == ["ocr", str(tmp_path / "logs" / "ocr.log")]
    assert run("logs", "ocr", "-n", "2").stdout == "two\nthree\n"
    assert json.loads(run("logs", "ocr", "--json").stdout)["lines"] == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["orc", "../../etc/passwd"])
def test_a_log_that_is_not_there_names_those_that_are(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ocr.log").write_text("")

    ended = run("logs", name)

    assert ended.exit_code == 2
    assert ": ocr." in ended.stderr


def row(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "source": f"bundled:r{index}", "state": "ok", "items": 0, "balanced": False, "problems": []} | more


def test_the_answer_shows_what_adds_up_what_does_not_and_what_is_missing() -> None:
    good = row(0, merchant="HARVEST", date="2026-03-14", currency="USD", items=6, tax=2.5, total=1037.32, balanced=True)
    wrong = row(1, state="problems", merchant="PHARMA", total=62.4, problems=["the items sum to 52.55"])
    rows = [good, wrong, row(2, state="no receipt"), row(3, source="", state="failed", problems=["could not be processed"])]
    food = [{"category": "food", "count": 2, "total": 37.3}]
    totals = [{"currency": "USD", "receipts": 1, "total": 1037.32, "tax": 2.5, "categories": food}]
    counts = {"pictures": 4, "receipts": 2, "balanced": 1, "unbalanced": [1], "not_receipts": [2], "failed": [3]}
    merged = [{"categories": food}, None, {"categories": []}, None]
    result = JobResult(
        job_id="job_1", status="succeeded", output={"rows": rows, "totals": totals, **counts}, steps={"merge": merged}
    )

    console = Console(file=sys.stderr, width=160, record=True)
    console.print(answer(result))
    text = console.export_text()

    lines = {line.split()[1]: line for line in text.splitlines() if line.strip()[:1].isdigit() and "   " in line.strip()}
    assert "1,037.32 USD" in lines["r0"]
    assert "food 37.30" in lines["r0"]
    assert lines["r0"].rstrip().endswith("yes")
    assert lines["r1"].rstrip().endswith("no")
    assert lines["r2"].rstrip().endswith("no receipt")
    assert lines["picture"].rstrip().endswith("failed")
    assert "2  r1: the items sum to 52.55" in text
    assert "2 receipts in 4 pictures · 1 add up · 1 do not · 1 no receipt · 1 failed" in text


def test_what_a_receipt_prints_is_no_markup() -> None:
    rows = [row(0, merchant="CAFE [/b] [HALAL]", source="file:/a/[/red].png")]
    result = JobResult(job_id="job_1", status="succeeded", output={"rows": rows, "totals": []}, steps={})

    console = Console(file=sys.stderr, width=160, record=True)
    console.print(answer(result))

    assert "CAFE [/b] [HALAL]" in console.export_text()


def test_every_problem_names_its_picture() -> None:
    rows = [row(0, source="file:/a/b/till roll.png", problems=["no total", "no date"])]

    assert list(problem_lines(rows)) == ["1  till roll.png: no total", "1  till roll.png: no date"]
