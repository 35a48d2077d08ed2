"""The async pool in real processes: many calls on one loop, cancelled, cut off, drained and killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import LEVELS, list_name
from orchestrator.jobs.events import EventReader
from orchestrator.models.job import JobStatus, JobView
from tests.integration.test_flower_events import heard
from tests.processes import Platform, platform
from tests.services import RabbitService
from tests.support import wait_until

TOOLS = Path(__file__).parents[1] / "async_tools.py"


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(tools=str(TOOLS), lease_s=2.0, window_least=64) as p:
        p.start_planner()
        yield p


@pytest.fixture
def p(running: Platform) -> Platform:
    """The platform with a worker of pool `async`, a new one when the test before ended it."""
    return with_worker(running)


def with_worker(p: Platform, name: str = "aio", *, pool: str = "async", concurrency: int | None = None, **env: str) -> Platform:
    if name not in p.processes:
        p.start_worker(name, pool=pool, concurrency=concurrency or (50 if pool == "async" else 1), env=env)
        p.wait_announced(name)
    return p


def step(tool: str, **input: Any) -> dict[str, Any]:
    return {"id": "s", "tool": tool, "input": input}


def result(p: Platform, job: str) -> Any:
    return p.store.result(job).steps["s"]


def notes(p: Platform, job: str, what: str) -> list[tuple[int, float]]:
    """Attempt and time of each note of a job's tools."""
    rows = [row.decode().split() for row in p.client.lrange(f"test:{job}", 0, -1)]
    return [(int(attempt), float(at)) for said, attempt, at in rows if said == what]


def began(p: Platform, job: str, *, attempt: int = 1) -> None:
    wait_until(lambda: attempt in [a for a, _ in notes(p, job, "began")], description=f"attempt {attempt} begins", timeout=30)


def runs(p: Platform, job: str) -> None:
    wait_until(lambda: [c for c in p.store.calls(job) if c.state == "running"], description="a call runs", timeout=30)


def error(view: JobView) -> Any:
    assert view.error is not None
    return view.error


def test_calls_run_at_once_on_one_loop_and_share_a_client(p: Platform) -> None:
    begun = time.monotonic()
    job = p.submit([step("a_look", seconds=0.5) | {"map": "input:xs"}], inputs={"xs": list(range(40))})
    assert p.wait(job).status is JobStatus.SUCCEEDED
    took = time.monotonic() - begun

    seen = result(p, job)
    assert took < 8, "one after the other they take 20 s"
    assert max(s["most"] for s in seen) == 40
    for what in ("pid", "loop", "client"):
        assert len({s[what] for s in seen}) == 1
    assert {s["before"] for s in seen} == {"nobody"}, "what a call puts into a context variable is its own"
    assert p.client.get(f"test:{job}:looks") == b"40"


def test_results_small_and_large_are_read_conditions_and_logs_work(p: Platform) -> None:
    job = p.submit(
        [
            {"id": "small", "tool": "a_text", "input": {"size": 10}, "map": "input:xs"},
            {"id": "large", "tool": "a_text", "input": {"size": 50_000}},
            {"id": "both", "tool": "a_length", "input": {"texts": "step:small"}},
            {"id": "s", "tool": "a_length", "input": {"texts": ["step:large", "step:large"]}},
            {"id": "not", "tool": "a_text", "input": {"size": 1}, "when": {"ref": "step:both", "op": "gt", "value": 1000}},
            {"id": "log", "tool": "a_wait", "input": {"seconds": 0, "value": "input:y"}},
        ],
        inputs={"xs": list(range(20)), "y": "from the inputs"},
    )
    view = p.wait(job)

    steps = p.store.result(job).steps
    assert view.status is JobStatus.SUCCEEDED
    assert (steps["both"], steps["s"], steps["not"]) == (200, 100_000, None)
    assert steps["log"]["value"] == "from the inputs"
    events = [e for e in EventReader(p.settings).read(job) if e.step == "log"]
    kinds = [e.type for e in events]
    assert kinds.index("log") < kinds.index("step.succeeded")


def test_a_cancelled_call_hears_of_it_at_once(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=60)])
    began(p, job)
    cancelled_at = time.time()
    p.control.cancel(job)

    wait_until(lambda: notes(p, job, "cancelled"), description="the tool is cancelled", timeout=5)
    ((_, heard_at),) = notes(p, job, "cancelled")
    assert heard_at - cancelled_at < 1.0, "0.3 s on an idle machine"


def test_a_call_that_fails_fast_stops_the_others_of_its_job(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=60), {"id": "bad", "tool": "a_fails", "input": {"how": "no"}, "depends_on": ["first"]},
                    {"id": "first", "tool": "a_look"}])  # fmt: skip
    assert p.wait(job).status is JobStatus.FAILED
    wait_until(lambda: notes(p, job, "cancelled"), description="the other call is cancelled", timeout=5)


def test_time_is_limited(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=60) | {"timeout_s": 0.3}])
    view = p.wait(job, timeout=10)
    assert error(view).code == "timeout"
    assert notes(p, job, "cancelled")


@pytest.mark.parametrize(("how", "code"), [("oh", "tool_crashed"), ("exit", "tool_crashed"), ("cancel", "cancelled_itself")])
def test_what_a_tool_raises_ends_its_call_and_nothing_else(p: Platform, how: str, code: str) -> None:
    beside = p.submit([step("a_look", seconds=1)])
    job = p.submit([step("a_fails", how=how)])
    assert error(p.wait(job)).code == code
    assert p.wait(beside).status is JobStatus.SUCCEEDED


def test_failures_are_tried_again(p: Platform) -> None:
    job = p.submit([step("a_fails", how="oh", times=2) | {"retry": {"max": 3, "backoff_s": 0.05}}])
    p.wait(job)
    assert result(p, job) == 3


def test_bad_input_is_told(p: Platform) -> None:
    assert error(p.wait(p.submit([step("a_wait", seconds="much")]))).code == "bad_input"


def test_flower_sees_each_call_with_its_tool(p: Platform) -> None:
    with heard(p) as seen:
        job = p.submit(
            [step("a_look"), {"id": "bad", "tool": "a_fails", "input": {"how": "no"}, "on_error": "continue", "retry": {"max": 0}}]
        )
        p.wait(job)
        failed, done = {"type": "task-failed", "uuid": f"{job}:bad#0:1"}, {"type": "task-succeeded", "uuid": f"{job}:s#0:1"}
        wait_until(lambda: any(failed.items() <= e.items() for e in seen), description="a failure is told")
        wait_until(lambda: any(done.items() <= e.items() for e in seen), description="a success is told")
    received = {
        e["uuid"]: e["name"] for e in seen if e["type"] == "task-received" and e["uuid"].startswith(f"{job}:") and "#" in e["uuid"]
    }
    assert received == {f"{job}:s#0:1": "a_look", f"{job}:bad#0:1": "a_fails"}
    types = [e["type"] for e in seen if e.get("uuid") == f"{job}:s#0:1"]
    assert types == ["task-received", "task-started", "task-succeeded"]
    assert "tool_crashed" in next(e["exception"] for e in seen if failed.items() <= e.items())


def test_celery_knows_what_runs(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=60)])
    began(p, job)
    active = make_app(p.settings).control.inspect(timeout=3).active()
    rows = [row for worker in (active or {}).values() for row in worker if row["id"] == f"{job}:s#0:1"]
    assert [(row["name"], row["args"]) for row in rows] == [("a_wait", [job, "s#0", 1])]
    p.control.cancel(job)


def test_no_more_calls_are_taken_than_run(p: Platform) -> None:
    with_worker(p, "narrow", pool="narrow", concurrency=3)
    job = p.submit([step("a_narrow", seconds=1) | {"map": "input:xs"}], inputs={"xs": list(range(9))})
    wait_until(lambda: len(notes(p, job, "began")) == 3, description="three calls run")
    assert sum(p.messages.llen(list_name("narrow", level)) for level in LEVELS) == 6
    p.wait(job)
    assert max(result(p, job)) == 3
    p.kill("narrow")


def test_a_tool_that_swallows_its_cancellation_is_left_and_its_slot_is_free(p: Platform) -> None:
    with_worker(p, "narrow", pool="narrow", concurrency=1)
    job = p.submit([step("a_stubborn")])
    began(p, job)
    after = p.submit([step("a_narrow", seconds=0)])
    p.control.cancel(job)
    assert p.wait(after, timeout=10).status is JobStatus.SUCCEEDED
    assert p.said("tool `a_stubborn` ignores that it was cancelled")
    p.kill("narrow")


def test_a_prefork_tool_that_goes_on_after_its_cancel_is_killed(p: Platform) -> None:
    with_worker(p, "function", pool="function", concurrency=1)
    job = p.submit([step("hang", seconds=600)])
    runs(p, job)
    after = p.submit([step("work", seconds=0)])
    p.control.cancel(job)
    assert p.wait(after, timeout=15).status is JobStatus.SUCCEEDED
    assert p.said("goes on although its call was cancelled")
    p.kill("function")


def test_a_stopped_worker_withdraws_and_ends_what_runs(p: Platform) -> None:
    process = p.processes.pop("aio")
    job = p.submit([step("a_wait", seconds=1.5)])
    began(p, job)
    process.terminate()
    wait_until(lambda: process.pid not in [w.pid for w in p.store.workers()], description="it withdraws", timeout=1.4)
    later = p.submit([step("a_look")])
    assert process.wait(15) == 0
    assert result(p, job)["attempt"] == 1
    assert p.store.status(later) is JobStatus.RUNNING
    with_worker(p)
    assert p.wait(later).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(("pool", "tool"), [("async", "a_wait"), ("function", "work")])
def test_a_drain_ends_in_time_and_what_is_cut_off_runs_elsewhere(p: Platform, pool: str, tool: str) -> None:
    with_worker(p, "short", pool=pool, TOOLWEAVER_DRAIN_S="0.5")
    if pool == "async":
        p.kill("aio")
    job = p.submit([step(tool, seconds=3)])
    runs(p, job)
    begun = time.monotonic()
    assert p.terminate("short") == 0
    assert time.monotonic() - begun < 4
    with_worker(p, "other", pool=pool)
    p.wait(job)
    assert p.store.calls(job)[0].attempt == 2
    p.kill("other")


def test_a_second_signal_ends_at_once(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=60)])
    began(p, job)
    process = p.processes["aio"]
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: process.pid not in [w.pid for w in p.store.workers()], description="it withdraws")
    begun = time.monotonic()
    assert p.terminate("aio") == 0
    assert time.monotonic() - begun < 2
    p.control.cancel(job)


def test_another_broker_feeds_the_loop_as_well(rabbit_node: RabbitService) -> None:
    with platform(broker="rabbitmq", node=rabbit_node, tools=str(TOOLS), window_least=64) as p:
        p.start_planner()
        with_worker(p)
        many = {"map": "input:xs"}
        job = p.submit(
            [
                {"id": "first", "tool": "a_look", "input": {"seconds": 0.1}} | many,
                step("a_look") | many | {"depends_on": ["first"]},
            ],
            inputs={"xs": list(range(30))},
        )
        assert p.wait(job).status is JobStatus.SUCCEEDED
        assert max(r["most"] for r in result(p, job)) >= 20
        waiting = p.submit([step("a_wait", seconds=1)])
        began(p, waiting)
        assert p.terminate("aio") == 0
        assert result(p, waiting)["attempt"] == 1


@pytest.mark.chaos
def test_the_calls_of_a_killed_process_come_back(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=4) | {"map": "input:xs"}], inputs={"xs": list(range(20))})
    wait_until(lambda: len(notes(p, job, "began")) == 20, description="all run")
    p.kill("aio")
    with_worker(p)
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert {r["attempt"] for r in result(p, job)} == {2}


@pytest.mark.chaos
def test_a_worker_whose_loop_is_held_up_ends_and_says_where(p: Platform) -> None:
    job = p.submit([step("a_blocker") | {"retry": {"max": 1}}])
    began(p, job)
    process = p.processes["aio"]
    wait_until(lambda: process.poll() == -signal.SIGKILL, description="it kills itself", timeout=15)
    assert p.said("in a_blocker")
    p.kill("aio")
    with_worker(p)
    p.wait(job)
    assert result(p, job) >= 2


@pytest.mark.chaos
def test_a_restart_of_the_server_stops_no_tool(p: Platform) -> None:
    job = p.submit([step("a_wait", seconds=2) | {"map": "input:xs"}], inputs={"xs": list(range(20))})
    wait_until(lambda: len(notes(p, job, "began")) == 20, description="all run")
    p.restart_server()
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert len(result(p, job)) == 20

    cancelled = p.submit([step("a_wait", seconds=60)])
    began(p, cancelled)
    p.control.cancel(cancelled)
    wait_until(lambda: notes(p, cancelled, "cancelled"), description="the worker listens again", timeout=5)
