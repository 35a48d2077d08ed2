"""What a fault does to one call: how soon it is tried again, when it is given up, when nothing serves it."""

from __future__ import annotations

import time

import pytest

from orchestrator.jobs.events import EventReader
from orchestrator.models.job import CallState, JobStatus
from tests.faults.platforms import LONG, QUICK
from tests.processes import BROKERS, Broker, platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("broker", BROKERS if LONG else BROKERS[:1])
def test_the_next_attempt_of_a_killed_call_begins_within_5_s(broker: Broker) -> None:
    """With the default lease, where effects allow it."""
    with platform(broker=broker) as p:
        p.start_planner()
        for name in ("one", "two"):
            p.start_worker(name)
        p.wait_ready(workers=2)
        for tool in ("work", "work_idempotent"):
            job = p.submit([{"id": "a", "tool": tool, "input": {"seconds": 1.0}}])
            p.wait_body(job, "a#0")
            p.restart(p.owner(p.effects.bodies(job)[0].pid))
            killed = time.monotonic()
            assert p.wait(job).status is JobStatus.SUCCEEDED
            first, second = p.effects.bodies(job, "a#0")
            assert first.began < second.began < killed + 5.0


def test_a_killed_call_of_effect_once_waits_for_a_person() -> None:
    """Before its effect it is run again, afterwards it is not: the person who looks it up says which."""
    with platform(**QUICK) as p:
        p.start_planner()
        p.start_worker("one", concurrency=2)
        p.wait_ready()
        done = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 2.0}}])
        wait_until(lambda: p.effects.attempts(done, "a#0"), description="the effect happens")
        not_done = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 2.0}}])
        p.wait_body(not_done, "a#0")
        p.restart("one")
        for job in (done, not_done):
            wait_until(lambda j=job: p.store.status(j) is JobStatus.WAITING, description="it waits for a person", timeout=15)  # type: ignore[misc]
            assert [c.state for c in p.store.view(job).unknown] == [CallState.UNKNOWN]
        assert (p.effects.attempts(done, "a#0"), p.effects.attempts(not_done, "a#0")) == ([1], [])
        p.control.resolve(done, "a", happened=True, result=1)
        p.control.resolve(not_done, "a", happened=False)
        assert [p.wait(job).status for job in (done, not_done)] == [JobStatus.SUCCEEDED] * 2
        assert (p.effects.attempts(done, "a#0"), p.effects.attempts(not_done, "a#0")) == ([1], [2])


def test_a_tool_that_kills_its_process_again_and_again_is_poison() -> None:
    with platform(**QUICK, max_lost=2) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        once = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 1}}])
        always = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 99}}])
        assert p.wait(once).status is JobStatus.SUCCEEDED
        view = p.wait(always)
        assert view.error is not None
        assert view.error.code == "poison"
        assert len(p.effects.bodies(always)) == 2


def test_a_hung_tool_is_stopped_and_a_cancelled_one_stops() -> None:
    with platform(**QUICK) as p:
        p.start_planner()
        p.start_worker("one", concurrency=1)
        p.wait_ready()
        hung = p.submit([{"id": "a", "tool": "hang", "timeout_s": 1.0, "retry": {"max": 0}}])
        view = p.wait(hung, timeout=30)
        assert view.error is not None
        assert view.error.code == "timeout"
        long = p.submit([{"id": "a", "tool": "work", "input": {"seconds": 60}}])
        p.wait_body(long, "a#0")
        p.control.cancel(long)
        after = p.submit([{"id": "a", "tool": "work"}])
        assert p.wait(after, timeout=15).status is JobStatus.SUCCEEDED, "the slot is free again"


def test_a_plan_waits_for_its_pool_and_goes_on() -> None:
    with platform(**QUICK) as p:
        p.start_worker("one")
        p.wait_ready()
        p.kill("one")
        p.start_planner()
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
