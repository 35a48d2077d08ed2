"""The commands about jobs, tools and plans: what they send, what they print where, how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.errors import Conflict, NotFound, PlanError
from tests.unit.fake_platform import FakePlatform, events, fake_platform, job, result, step

Run = Callable[..., Result]
DONE, JOB_FAILED, BAD_REQUEST, UNREACHABLE = 0, 1, 2, 3


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
    return lambda *words: CliRunner().invoke(app, list(words))


def test_submit_prints_the_id_as_data_and_the_rest_beside_it(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = job("planning")

    ended = run("submit", "receipts", "-i", 'images=["a.png"]', "-i", "note=two words", "--priority", "batch", "--key", "k1")

    assert (ended.exit_code, ended.stdout) == (DONE, "job_1\n")
    assert f"{fake.url}/v1/jobs/job_1" in ended.stderr
    assert "toolweaver status job_1 --follow" in ended.stderr
    body = {"plan": "receipts", "inputs": {"images": ["a.png"], "note": "two words"}, "priority": "batch"}
    assert fake.sent("POST /v1/jobs") == [body]
    assert {k.lower(): v for k, v in fake.seen[0][2].items()}["idempotency-key"] == "k1"


def test_submit_as_json(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = job("planning")

    ended = run("submit", "receipts", "--json")

    assert json.loads(ended.stdout) == {
        "id": "job_1",
        "address": f"{fake.url}/v1/jobs/job_1",
        "next": "toolweaver status job_1 --follow",
    }


def test_submit_and_wait_prints_the_output_and_shows_progress_beside_it(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs"] = job("planning")
    fake.answers["GET /v1/jobs/job_1"] = [job(steps=[step("a", total=1)]), job("succeeded")]
    running = ("step.running", {"step": "a", "data": {"total": 1}})
    ended_well = ("step.succeeded", {"step": "a", "data": {"total": 1, "done": 1, "failed": 0, "skipped": 0}})
    fake.answers["GET /v1/jobs/job_1/events"] = events(running, ended_well, "job.succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(output={"sum": 3})

    ended = run("submit", "receipts", "--wait")

    assert (ended.exit_code, json.loads(ended.stdout)) == (DONE, {"sum": 3})
    assert ended.stderr.splitlines()[1:] == ["a 0/1", "a 1/1 · succeeded", "job job_1 succeeded"]


def test_a_job_that_failed_ends_with_1_and_names_what_failed(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1"] = job("failed")
    error = {"code": "corrupt", "message": "`b.png` is no image", "step": "ocr", "index": 1, "next": "Give a picture."}
    fake.answers["GET /v1/jobs/job_1/result"] = result("failed", errors=[error])

    ended = run("result", "job_1")

    assert (ended.exit_code, ended.stdout) == (JOB_FAILED, "")
    assert "ocr#1: `b.png` is no image Give a picture." in ended.stderr
    assert "toolweaver retry job_1" in ended.stderr


def test_result_as_json_is_the_whole_result(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1"] = job("succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(output=7, steps={"a": 7})

    assert json.loads(run("result", "job_1", "--json").stdout)["steps"] == {"a": 7}


def test_status_shows_every_step_and_the_way_out_of_an_unknown_outcome(run: Run, fake: FakePlatform) -> None:
    steps = [step("ocr", total=12, done=7, failed=1, state="running", waiting="no worker for queue ocr"), step("parse")]
    unknown = [{"call": "pay#0", "step": "pay", "state": "unknown", "attempt": 1}]
    fake.answers["GET /v1/jobs/job_1"] = job("waiting", steps=steps, unknown=unknown)

    ended = run("status", "job_1")

    assert ended.exit_code == DONE
    assert "7/12 · 1 failed · waiting: no worker for queue ocr" in ended.stdout
    assert "toolweaver resolve job_1 pay#0 --happened" in ended.stdout


def test_status_of_a_job_that_was_cancelled_ends_with_1(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1"] = job("cancelled")

    assert run("status", "job_1").exit_code == JOB_FAILED


def test_events_are_one_line_each_and_as_json_one_object_each(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1/events"] = events(("call.failed", {"call": "a#0", "data": {"n": 1}}), "job.failed")

    plain, as_json = run("events", "job_1"), run("events", "job_1", "--json")

    assert plain.stdout.splitlines() == ["00:00:00.000  call.failed     a#0                  n=1", "00:00:00.000  job.failed"]
    assert [json.loads(line)["type"] for line in as_json.stdout.splitlines()] == ["call.failed", "job.failed"]


def test_events_without_following_stop_at_what_is_known_now(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1"] = job(cursor="2-0")
    fake.answers["GET /v1/jobs/job_1/events"] = events("job.running", "job.succeeded")

    ended = run("events", "job_1", "--no-follow", "--json")

    assert [json.loads(line)["id"] for line in ended.stdout.splitlines()] == ["2-0"]


def test_logs_of_a_job_are_what_its_tools_logged(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_1"] = job(cursor="3-0")
    fake.answers["GET /v1/jobs/job_1/events"] = events("job.running", ("log", {"data": {"message": "half way"}}), "job.succeeded")

    ended = run("logs", "job_1", "--json")

    assert [json.loads(line)["data"] for line in ended.stdout.splitlines()] == [{"message": "half way"}]


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_an_action_prints_where_the_job_stands(run: Run, fake: FakePlatform, action: str) -> None:
    fake.answers[f"POST /v1/jobs/job_1/{action}"] = job("running")

    ended = run(action, "job_1")

    assert (ended.exit_code, ended.stdout) == (DONE, "job_1 running\n")


def test_resolve_sends_what_happened(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs/job_1/resolve"] = job("running")

    ended = run("resolve", "job_1", "pay#0", "--happened", "--result", '{"paid": true}')

    assert ended.exit_code == DONE
    assert fake.sent("POST /v1/jobs/job_1/resolve") == [{"call": "pay#0", "happened": True, "result": {"paid": True}}]


@pytest.mark.parametrize("flags", [[], ["--happened", "--retry"]])
def test_resolve_wants_one_verdict(run: Run, fake: FakePlatform, flags: list[str]) -> None:
    ended = run("resolve", "job_1", "pay#0", *flags)

    assert ended.exit_code == BAD_REQUEST
    assert "say either --happened or --retry" in ended.stderr
    assert fake.seen == []


def test_jobs_are_listed_newest_first_with_the_filters_that_were_asked_for(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs"] = {"jobs": [job("failed", name="receipts")], "next_cursor": None}

    ended = run("jobs", "--status", "failed", "--name", "receipts", "--limit", "5")

    assert "job_1" in ended.stdout
    assert fake.seen[0][0] == "GET /v1/jobs?status=failed&name=receipts&limit=5"


def test_a_tool_is_run_with_its_arguments_and_its_result_printed(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/tools/compute_tax/run"] = job("planning")
    fake.answers["GET /v1/jobs/job_1"] = job("succeeded")
    fake.answers["GET /v1/jobs/job_1/result"] = result(output=8.0)

    ended = run("tools", "run", "compute_tax", "--input", '{"amount": 100}', "-a", "tax_rate=0.08")

    assert (ended.exit_code, ended.stdout) == (DONE, "8.0\n")
    assert fake.sent("POST /v1/tools/compute_tax/run") == [{"input": {"amount": 100, "tax_rate": 0.08}, "priority": "interactive"}]


def test_tools_are_listed_and_shown(run: Run, fake: FakePlatform) -> None:
    parameter = {"name": "amount", "type": "number", "required": True, "description": "What to tax."}
    tool = {"name": "compute_tax", "description": "Tax.\nMore.", "pool": "function", "parameters": [parameter]}
    fake.answers["GET /v1/tools"] = {"tools": [tool]}
    fake.answers["GET /v1/tools/compute_tax"] = tool

    assert "compute_tax" in run("tools", "list").stdout
    shown = run("tools", "show", "compute_tax").stdout
    assert "amount" in shown
    assert "required" in shown


def test_what_a_tool_says_of_itself_steers_no_terminal(run: Run, fake: FakePlatform) -> None:
    evil = "\x1b]0;owned\x07 \x9b31m \u202egnp \U000e0041"
    parameter = {"name": f"a{evil}", "type": "string", "description": evil, "default": evil}
    example = {"scenario": evil, "input": {"a": evil}}
    tool = {"name": "t", "description": evil, "deprecated": evil, "aliases": [evil], "parameters": [parameter]}
    tool["examples"] = [example]
    fake.answers["GET /v1/tools"] = {"tools": [tool]}
    fake.answers["GET /v1/tools/t"] = tool

    for words in (("tools", "list"), ("tools", "show", "t"), ("tools", "show", "t", "--json")):
        ended = run(*words)
        assert ended.exit_code == DONE, ended.stderr
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ended.output), words
    assert json.loads(run("tools", "show", "t", "--json").stdout)["description"] == evil


def test_a_server_error_says_what_and_the_next_move(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/jobs/job_9"] = NotFound("there is no job `job_9`", next="`toolweaver jobs` lists them.")

    ended = run("status", "job_9")

    assert (ended.exit_code, ended.stdout) == (BAD_REQUEST, "")
    assert ended.stderr == "error: there is no job `job_9`\n`toolweaver jobs` lists them.\n"


def test_errors_as_json_are_problems(run: Run, fake: FakePlatform) -> None:
    fake.answers["POST /v1/jobs/job_1/cancel"] = Conflict("it has ended")

    ended = run("cancel", "job_1", "--json")

    assert ended.exit_code == BAD_REQUEST
    assert json.loads(ended.stderr)["code"] == "conflict"


def test_a_bad_plan_shows_every_problem(run: Run, fake: FakePlatform) -> None:
    problems = [
        {"path": "steps[0].tool", "code": "unknown_tool", "message": "there is no tool `orc`", "next": "Did you mean `ocr`?"},
        {"path": "steps[1].id", "code": "duplicate_id", "message": "twice"},
    ]
    fake.answers["POST /v1/jobs"] = PlanError("the plan has 2 problems", problems=problems)

    ended = run("submit", "receipts")

    assert ended.exit_code == BAD_REQUEST
    for text in ("steps[0].tool: there is no tool `orc`", "Did you mean `ocr`?", "steps[1].id: twice"):
        assert text in ended.stderr


def test_nothing_that_listens_ends_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_URL", "http://127.0.0.1:1")

    ended = run("status", "job_1")

    assert ended.exit_code == UNREACHABLE
    assert "toolweaver up" in ended.stderr


def test_no_platform_at_all_ends_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLWEAVER_URL")

    assert run("jobs").exit_code == UNREACHABLE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "receipts", "-i", "images"], "`images` is no `name=value`"),
        (["submit", "receipts", "--inputs", "{"], "--inputs is no JSON"),
        (["submit", "receipts", "--inputs", "[1]"], "--inputs is a JSON list, not an object"),
        (["submit", "receipts", "--inputs", "@missing.json"], "`missing.json` cannot be read"),
        (["submit", "missing.json"], "`missing.json` cannot be read"),
        (["submit", "receipts", "--priority", "soon"], "soon"),
        (["jobs", "--status", "sleeping"], "sleeping"),
        (["tools", "run", "t", "--input", "not json"], "--input is no JSON"),
        (["resolve", "job_1", "a#0", "--happened", "--result", "{"], "--result is no JSON"),
        (["nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_asked_ends_with_2_and_says_why(run: Run, fake: FakePlatform, words: list[str], said: str) -> None:
    ended = run(*words)

    assert ended.exit_code == BAD_REQUEST
    assert said in ended.stderr
    assert fake.seen == []


def test_ctrl_c_detaches_and_says_how_to_come_back(run: Run, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.cli.follow.watch", interrupted)

    ended = run("result", "job_1")

    assert ended.exit_code == 130
    assert "toolweaver status job_1 --follow" in ended.stderr
    assert not any("cancel" in request for request, _, _ in fake.seen)
