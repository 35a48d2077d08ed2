"""What a fault does to one call: how soon it is tried again, when it is given up, when nothing serves it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from orchestrator.jobs.events import EventReader
from orchestrator.models.job import CallState, JobStatus
from tests.faults.platforms import LONG, QUICK
from tests.processes import BROKERS, Broker, Platform, platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def p() -> Iterator[Platform]:
    """One worker of two children; a call that took two of them down is poison."""
    with platform(**QUICK, max_lost=2) as made:
        made.start_planner()
        made.start_worker("one")
        made.wait_ready()
        yield made


@pytest.mark.parametrize("broker", BROKERS if LONG else BROKERS[:1])
@pytest.mark.parametrize("tool", ["work", "work_idempotent"] if LONG else ["work_idempotent"])
def test_the_next_attempt_of_a_killed_call_begins_within_5_s(broker: Broker, tool: str) -> None:
    """With the default lease, where effects allow it."""
    with platform(broker=broker) as p:
        p.start_planner()
        for name in ("one", "two"):
            p.start_worker(name)
        p.wait_ready(workers=2)
        job = p.submit([{"id": "a", "tool": tool, "input": {"seconds": 1.0}}])
        p.wait_body(job, "a#0")
        p.kill(p.owner(p.effects.bodies(job)[0].pid))
        killed = time.monotonic()
        assert p.wait(job).status is JobStatus.SUCCEEDED
        first, second = p.effects.bodies(job, "a#0")
        assert first.began < killed < second.began < killed + 5.0


def test_a_killed_call_of_effect_once_waits_for_a_person(p: Platform) -> None:
    """Before its effect it is run again, afterwards it is not: the person who looks it up says which."""
    done = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 2.0}}])
    wait_until(lambda: p.effects.attempts(done, "a#0"), description="the effect happens")
    not_done = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 2.0}}])
    p.wait_body(not_done, "a#0")
    p.restart("one")
    for job in (done, not_done):
        wait_until(partial(waits, p, job), description="it waits for a person", timeout=15)
        assert [c.state for c in p.store.view(job).unknown] == [CallState.UNKNOWN]
    assert (p.effects.attempts(done, "a#0"), p.effects.attempts(not_done, "a#0")) == ([1], [])
    p.control.resolve(done, "a", happened=True, result=1)
    p.control.resolve(not_done, "a", happened=False)
    assert [p.wait(job).status for job in (done, not_done)] == [JobStatus.SUCCEEDED] * 2
    assert p.effects.attempts(done, "a#0") == [1]
    assert len(p.effects.attempts(not_done, "a#0")) == 1


def waits(p: Platform, job: str) -> bool:
    return p.store.status(job) is JobStatus.WAITING


def test_a_tool_that_kills_its_process_again_and_again_is_poison(p: Platform) -> None:
    once = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 1}}])
    always = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 99}}])
    assert p.wait(once).status is JobStatus.SUCCEEDED
    view = p.wait(always)
    assert view.error is not None
    assert view.error.code == "poison"
    assert len(p.effects.bodies(always)) == 2


def test_a_hung_tool_is_stopped_and_a_cancelled_one_stops(p: Platform) -> None:
    hung = p.submit([{"id": "a", "tool": "hang", "timeout_s": 1.0, "retry": {"max": 0}}])
    view = p.wait(hung, timeout=30)
    assert view.error is not None
    assert view.error.code == "timeout"
    long = [p.submit([{"id": "a", "tool": "work", "input": {"seconds": 60}}]) for _ in range(2)]
    for job in long:
        p.wait_body(job, "a#0")
        p.control.cancel(job)
    after = p.submit([{"id": "a", "tool": "work"}])
    assert p.wait(after, timeout=15).status is JobStatus.SUCCEEDED, "the slots are free again"


def test_a_plan_waits_for_its_pool_and_goes_on(p: Platform) -> None:
    p.terminate("one")
    job = p.submit([{"id": "a", "tool": "work"}])
    wait_until(
        lambda: p.store.view(job).steps[0].waiting == "no worker for queue function",
        description="the job says what it waits for",
        timeout=30,
    )
    reasons = [e.data["reason"] for e in EventReader(p.settings).read(job) if e.type == "step.waiting"]
    assert reasons == ["no worker for queue function"]
    p.start_worker("one")
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert p.store.view(job).steps[0].waiting is None
