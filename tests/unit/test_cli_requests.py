"""Requests in words from the command line: what is sent, what of the plan is shown, and when nobody is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.cli.config import masked
from orchestrator.client.plans import is_sentence
from orchestrator.errors import BackendError
from tests.unit.fake_platform import FakePlatform, events, fake_platform, job, result

Run = Callable[..., Result]
DONE, JOB_FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130
REQUEST = "process these receipts and tell me what we spent on food"
PLAN = {
    "steps": [
        {"id": "ocr", "tool": "receipt_ocr", "map": "input:files", "input": {"image_uri": "item"}},
        {"id": "sum", "tool": "summarise_receipts", "input": {"receipts": "step:ocr"}},
    ],
    "output": "step:sum",
}
MADE = {"source": "model", "model": "openai gpt-5", "repairs": 1, "shown": 3, "of": 12}
USAGE = {"calls": 2, "input_tokens": 3210, "cached_tokens": 1024, "output_tokens": 412, "cost_usd": 0.0123}


def ref(name: str) -> dict[str, Any]:
    sha = name[0] * 64
    time = "2026-01-01T00:00:00Z"
    return {
        "ref": f"blob:sha256:{sha}",
        "sha256": sha,
        "size": 1,
        "media_type": "image/png",
        "name": name,
        "created_at": time,
        "expires_at": time,
    }


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakePlatform]:
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with fake_platform() as made:
        monkeypatch.setenv("TOOLWEAVER_URL", made.url)
        yield made


@pytest.fixture
def run(fake: FakePlatform) -> Run:
    return lambda *words, **more: CliRunner().invoke(app, list(words), **more)


def planned(fake: FakePlatform, status: str = "waiting", **more: Any) -> None:
    asked = {"request": REQUEST, "mode": "confirm"}
    fake.answers["POST /v1/jobs"] = job("planning", **asked)
    fake.answers["GET /v1/jobs/job_1"] = [
        job("planning", **asked),
        job(status, planned=MADE, usage=USAGE, waiting="waits for your confirmation", **asked, **more),
    ]
    slow = ("job.waiting", {"data": {"reason": "the provider takes no more requests now", "retry_in_s": 12}})
    fake.answers["GET /v1/jobs/job_1/events"] = events("job.planning", slow, "job.planned")
    fake.answers["GET /v1/jobs/job_1/plan"] = PLAN


def test_a_sentence_is_a_request_and_its_files_are_uploaded(run: Run, fake: FakePlatform, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b'"x"')
    fake.answers["POST /v1/jobs"] = job("planning")
    fake.answers["POST /v1/files"] = [ref("a.png"), ref("b.png")]

    ended = run("submit", REQUEST, "a.png", "b.png", "--tool", "receipt_ocr", "-i", "year=2026")

    assert (ended.exit_code, ended.stdout) == (DONE, "job_1\n"), ended.stderr
    files = [ref("a.png")["ref"], ref("b.png")["ref"]]
    assert fake.sent("POST /v1/jobs") == [
        {
            "request": REQUEST,
            "inputs": {"year": 2026, "files": files},
            "priority": "normal",
            "mode": "run",
            "tools": ["receipt_ocr"],
        }
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("receipts", False),
        ("plan.json", False),
        ("plans/a.json", False),
        (REQUEST, True),
        ("add a/b and c.json", True),
        (" one ", False),
    ],
)
def test_a_text_with_blanks_is_a_sentence(text: str, sentence: bool) -> None:
    assert is_sentence(text) is sentence


def test_a_file_with_a_blank_in_its_name_is_a_plan(run: Run, fake: FakePlatform, tmp_path: Path) -> None:
    (tmp_path / "my plan.json").write_text(json.dumps(PLAN))
    fake.answers["POST /v1/jobs"] = job("planning")
    assert run("submit", "my plan.json").exit_code == DONE
    assert fake.sent("POST /v1/jobs")[0]["plan"] == PLAN  # type: ignore[index]


def test_plan_only_prints_the_plan_as_data(run: Run, fake: FakePlatform) -> None:
    planned(fake, "succeeded")

    ended = run("submit", REQUEST, "--plan-only")

    assert (ended.exit_code, json.loads(ended.stdout)) == (DONE, PLAN)
    assert "waiting: the provider takes no more requests now" in ended.stderr
    assert fake.sent("POST /v1/jobs")[0]["mode"] == "plan"  # type: ignore[index]


def test_confirm_without_a_terminal_shows_the_plan_and_how_to_go_on(run: Run, fake: FakePlatform) -> None:
    planned(fake)

    ended = run("submit", REQUEST, "--confirm", "-i", 'files=["x", "y"]')

    assert ended.exit_code == DONE
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["ocr", "receipt_ocr", "2", '{"image_uri":', '"item"}'] in lines
    assert ["sum", "summarise_receipts", "1", '{"receipts":', '"step:ocr"}'] in lines
    assert "planned  by openai gpt-5; mended 1 time; 3 of 12 tools shown" in ended.stdout
    assert "usage    2 calls, 3,210 tokens in (1,024 cached), 412 out, $0.0123" in ended.stdout
    assert "toolweaver confirm job_1 --wait" in ended.stderr
    assert not fake.sent("POST /v1/jobs/job_1/confirm")


@pytest.mark.parametrize(
    ("answer", "code", "sent"), [("y\n", DONE, "confirm"), ("n\n", JOB_FAILED, "cancel"), ("\n", JOB_FAILED, "cancel")]
)
def test_on_a_terminal_a_person_is_asked(
    run: Run, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, sent: str
) -> None:
    monkeypatch.setattr("orchestrator.cli.asked._on_terminal", lambda: True)
    planned(fake)
    fake.answers["POST /v1/jobs/job_1/confirm"] = job("planning")
    fake.answers["POST /v1/jobs/job_1/cancel"] = job("cancelled")

    ended = run("submit", REQUEST, "--confirm", input=answer)

    assert ended.exit_code == code, ended.stderr
    assert "Run this plan?" in ended.stderr
    assert [r for r, _, _ in fake.seen if r.endswith(("confirm", "cancel"))] == [f"POST /v1/jobs/job_1/{sent}"]


def test_a_question_that_is_not_answered_leaves_the_job_waiting(
    run: Run, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.asked._on_terminal", lambda: True)
    planned(fake)

    ended = run("submit", REQUEST, "--confirm", input="")

    assert ended.exit_code == INTERRUPTED
    assert "toolweaver confirm job_1, or toolweaver cancel job_1" in ended.stderr
    assert not [r for r, _, _ in fake.seen if r.endswith(("confirm", "cancel"))]


def test_who_follows_a_job_that_waits_already_is_told_why(run: Run, fake: FakePlatform) -> None:
    waits = job("waiting", request=REQUEST, waiting="waits for your confirmation")
    fake.answers["GET /v1/jobs/job_1"] = [waits, job("succeeded", request=REQUEST)]
    fake.answers["GET /v1/jobs/job_1/events"] = events("job.confirmed", "job.succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(output=3)

    ended = run("result", "job_1")

    assert "waiting  waits for your confirmation: `toolweaver confirm job_1`" in ended.stderr


def test_a_request_that_gets_no_plan_says_why(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = job("planning", request=REQUEST)
    error = {"code": "model_denied", "message": "the key of OpenAI is not valid", "next": "Set OPENAI_API_KEY."}
    fake.answers["GET /v1/jobs/job_1"] = job("failed", request=REQUEST, error=error)

    ended = run("submit", REQUEST, "--plan-only")

    assert ended.exit_code == JOB_FAILED
    assert "the key of OpenAI is not valid" in ended.stderr
    assert "Set OPENAI_API_KEY." in ended.stderr


def test_confirm_goes_on_and_may_wait(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs/job_1/confirm"] = job("planning")
    fake.answers["GET /v1/jobs/job_1"] = job("succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(answer="You spent 12.50 on food.", usage=USAGE)

    assert run("confirm", "job_1").stdout == "job_1 planning\n"
    ended = run("confirm", "job_1", "--wait")
    assert ended.stdout == "You spent 12.50 on food.\n"
    assert "2 calls, 3,210 tokens in" in ended.stderr


def test_status_tells_of_a_request(run: Run, fake: FakePlatform) -> None:
    waiting = "the provider takes no more requests now; tried again in 12 s"
    fake.answers["GET /v1/jobs/job_1"] = job("planning", request=REQUEST, mode="run", waiting=waiting, usage=USAGE)

    ended = run("status", "job_1")

    assert f"request  {REQUEST}" in ended.stdout
    assert f"waiting  {waiting}" in ended.stdout
    assert "$0.0123" in ended.stdout


def test_progress_shows_the_plan_and_its_steps_as_they_come(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = job("planning", request=REQUEST)
    fake.answers["GET /v1/jobs/job_1"] = [job("planning", request=REQUEST), job("succeeded", request=REQUEST)]
    made = ("job.planned", {"data": {"model": "openai gpt-5", "total": 1, "steps": [{"id": "sum", "tool": "add"}]}})
    ended_well = ("step.succeeded", {"step": "sum", "data": {"total": 1, "done": 1}})
    fake.answers["GET /v1/jobs/job_1/events"] = events("job.planning", made, "job.running", ended_well, "job.succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(output=3)

    ended = run("submit", "add one and two", "--wait")

    assert json.loads(ended.stdout) == 3
    assert ended.stderr.splitlines()[1:] == [
        "job job_1 planning", "planned by openai gpt-5: 1 step", "sum 1/1 · succeeded", "job job_1 succeeded",
    ]  # fmt: skip


def test_the_list_shows_the_beginning_of_a_request(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs"] = {"jobs": [job("running", request=REQUEST)]}
    assert "process these receipts and tell me what…" in run("jobs").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "receipts", "a.png"], "--file name=PATH"),
        (["submit", "receipts", "--confirm"], "--confirm goes with a request in words"),
        (["submit", "receipts", "--plan-only"], "--plan-only goes with a request in words"),
        (["submit", "receipts", "--tool", "ocr"], "--tool goes with a request in words"),
        (["submit", REQUEST, "--confirm", "--plan-only"], "either --confirm or --plan-only"),
        (["submit", REQUEST, "a.png", "-i", "files=1"], "the files are the input `files`, which is given too"),
        (["submit", REQUEST, "missing.png"], "there is no file `missing.png`"),
    ],
)
def test_what_cannot_be_asked_ends_with_2(run: Run, fake: FakePlatform, words: list[str], said: str) -> None:
    ended = run(*words)
    assert ended.exit_code == BAD_REQUEST
    assert said in ended.stderr
    assert fake.seen == []


def test_a_full_store_is_told(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = BackendError("the store is away", next="Wait.")
    assert "the store is away" in run("submit", REQUEST).stderr


def test_limits_that_count_tokens_are_no_secrets() -> None:
    assert masked("planner_max_tokens", 8192) == "8192"
    assert masked("provider_tokens_per_minute", None) == ""
    assert masked("hf_token", "abc") == "***"
