"""Faults with real processes: kill -9, doubled and discarded messages. Nothing is lost, stuck or committed twice."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import PRIORITY_STEPS, SEPARATOR
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import CallState, JobStatus
from orchestrator.publisher.publish import Publisher
from tests.processes import Platform, platform
from tests.support import wait_until

JOBS = int(os.environ.get("CHAOS_JOBS", "50"))

pytestmark = pytest.mark.chaos
FAST = {"lease_s": 1.5, "grace_s": 1.0, "reconcile_s": 0.2}


def receipt_shape(tool: str) -> list[dict[str, Any]]:
    """Seven steps of about 30 ms: a -> b, c, d -> e -> f -> g."""
    after: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"], "f": ["e"], "g": ["f"]}
    return [{"id": s, "tool": tool, "depends_on": d} for s, d in after.items()]


def submit_all(p: Platform, tool: str = "work", jobs: int = JOBS) -> list[str]:
    return [p.submit(receipt_shape(tool)) for _ in range(jobs)]


def all_ended(p: Platform, jobs: list[str]) -> bool:
    store = p.store
    return all(store.status(j).final for j in jobs)


def keep_doing(p: Platform, jobs: list[str], fault: Callable[[], None], *, every: float, times: int) -> None:
    """Repeats a fault while jobs run, then waits for the end of all of them."""
    for _ in range(times):
        if all_ended(p, jobs):
            break
        fault()
        let_pass(every)
    wait_until(lambda: all_ended(p, jobs), description="all jobs end", timeout=120, every=0.2)


def let_pass(seconds: float) -> None:
    """Lets the platform work on between two faults."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, description=f"{seconds} s pass", timeout=seconds + 5)


def assert_whole(p: Platform, jobs: list[str]) -> None:
    """0 lost, 0 stuck, 0 committed twice; and the books are even."""
    store, reader = p.store, EventReader(p.settings)
    for job in jobs:
        view = store.view(job)
        assert view.status is JobStatus.SUCCEEDED, (view, p.logs())
        commits = Counter(e.step for e in reader.read(job, limit=10_000) if e.type == "step.succeeded")
        assert commits == Counter(dict.fromkeys("abcdefg", 1))
        raw: Any = store.redis.hgetall(store.ledger.keys(job).state)
        assert raw[b"live"] == b"0"
        assert raw[b"w:0"] == b"0"
        calls = {c.call: c.attempt for c in store.calls(job)}
        assert store.result(job).steps == {s: calls[f"{s}#0"] for s in "abcdefg"}, "the result is that of the last attempt"
    shard = store.ledger.keys(jobs[0]).shard
    wait_until(lambda: store.redis.zcard(shard.leases) == 0, description="no lease is left", timeout=30)


def waiting_messages(p: Platform, queue: str = "function") -> list[tuple[str, list[bytes]]]:
    names = [f"{queue}{SEPARATOR}{s}" if s else queue for s in PRIORITY_STEPS]
    client: Any = p.broker
    return [(name, client.lrange(name, 0, -1)) for name in names]


def test_kill_9_of_a_worker() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.start_worker("two")
        p.wait_ready(workers=2)
        jobs = submit_all(p)

        def fault() -> None:
            p.kill("one")
            p.start_worker("one")

        keep_doing(p, jobs, fault, every=2.0, times=3)
        assert_whole(p, jobs)


def test_kill_9_of_pool_children() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.start_worker("two")
        p.wait_ready(workers=2)
        jobs = submit_all(p)
        rng = random.Random(7)
        keep_doing(p, jobs, lambda: p.kill_child(rng.choice(["one", "two"])), every=0.4, times=12)
        assert_whole(p, jobs)


def test_kill_9_of_the_planner() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        jobs = submit_all(p, jobs=20)

        def fault() -> None:
            p.kill("planner")
            jobs.extend(submit_all(p, jobs=10))
            p.start_planner()

        keep_doing(p, jobs, fault, every=1.5, times=3)
        assert_whole(p, jobs)


def test_kill_9_of_everything_at_once_and_restart() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        jobs = submit_all(p)
        store = p.store
        wait_until(lambda: sum(store.status(j).final for j in jobs) >= 3, description="some jobs are done", timeout=60)
        # The append-only file is written through once a second: what was accepted longer ago survives.
        let_pass(1.2)
        for name in ["one", "planner", "server"]:
            p.kill(name)
        p.start_server()
        p.start_planner()
        p.start_worker("one")
        wait_until(lambda: all_ended(p, jobs), description="all jobs end", timeout=120, every=0.2)
        assert_whole(p, jobs)


def test_every_message_doubled() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        jobs = submit_all(p)
        client: Any = p.client
        doubled: set[str] = set()

        def fault() -> None:
            for name, messages in waiting_messages(p):
                for message in messages:
                    if (call := json.loads(message)["headers"]["id"]) not in doubled:
                        client.lpush(name, message)
                        doubled.add(call)

        keep_doing(p, jobs, fault, every=0.1, times=100)
        assert len(doubled) > JOBS
        assert_whole(p, jobs)
        bodies: Any = client.hgetall("test:bodies")
        assert set(bodies.values()) == {b"1"}, "no body ran twice"


def test_queued_messages_discarded() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        jobs = submit_all(p)
        client: Any = p.client
        discarded = 0

        def fault() -> None:
            nonlocal discarded
            for name, messages in waiting_messages(p):
                discarded += len(messages)
                client.delete(name)

        keep_doing(p, jobs, fault, every=1.0, times=4)
        assert discarded > 50
        assert_whole(p, jobs)


@pytest.mark.parametrize("tool", ["work", "work_idempotent", "work_once"])
def test_a_killed_call(tool: str) -> None:
    """none and idempotent: the next attempt starts within 5 s, with the default lease. once: `unknown`, never repeated."""
    with platform() as p:
        p.start_planner()
        p.start_worker("one", concurrency=1)
        p.wait_ready()
        job = p.submit([{"id": "a", "tool": tool, "input": {"seconds": 1.5}}])
        client: Any = p.client
        wait_until(lambda: client.llen(f"test:starts:{job}/a#0"), description="the body begins")
        p.start_worker("two", concurrency=1)
        p.kill("one")
        killed = time.time()
        if tool == "work_once":
            wait_until(lambda: p.store.status(job) is JobStatus.WAITING, description="the job waits for a person", timeout=15)
            assert [c.state for c in p.store.view(job).unknown] == [CallState.UNKNOWN]
            p.control.resolve(job, "a", happened=False)
            assert p.wait(job).status is JobStatus.SUCCEEDED
            return
        assert p.wait(job).status is JobStatus.SUCCEEDED
        starts = [float(row.split()[1]) for row in client.lrange(f"test:starts:{job}/a#0", 0, -1)]
        assert len(starts) == 2
        assert starts[1] - killed < 5.0


def test_a_tool_that_kills_its_process() -> None:
    with platform(**FAST, max_lost=2) as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        once = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 1}}])
        always = p.submit([{"id": "a", "tool": "kill_self", "input": {"times": 99}}])
        assert p.wait(once).status is JobStatus.SUCCEEDED
        view = p.wait(always)
        assert view.error is not None
        assert view.error.code == "poison"


def test_a_hung_tool_is_stopped_and_a_cancelled_one_stops() -> None:
    with platform(**FAST) as p:
        p.start_planner()
        p.start_worker("one", concurrency=1)
        p.wait_ready()
        hung = p.submit([{"id": "a", "tool": "hang", "timeout_s": 1.0, "retry": {"max": 0}}])
        view = p.wait(hung, timeout=30)
        assert view.error is not None
        assert view.error.code == "timeout"
        long = p.submit([{"id": "a", "tool": "work", "input": {"seconds": 60}}])
        client: Any = p.client
        wait_until(lambda: client.llen(f"test:starts:{long}/a#0"), description="the body begins")
        p.control.cancel(long)
        after = p.submit([{"id": "a", "tool": "work"}])
        assert p.wait(after, timeout=15).status is JobStatus.SUCCEEDED, "the slot is free again"


def test_a_plan_waits_for_its_pool_and_goes_on() -> None:
    with platform(**FAST) as p:
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


def test_a_message_made_by_the_ledger_is_the_one_that_celery_makes() -> None:
    """The envelope with its blanks filled in against the publisher's own message, field by field."""
    with platform() as p:
        p.start_worker("one")
        p.wait_ready()
        p.kill("one")
        p.start_planner()
        job = p.submit([{"id": "a", "tool": "work"}])
        client: Any = p.client
        name = waiting_messages(p)[1][0]
        wait_until(lambda: client.llen(name), description="the message is queued")
        ours = json.loads(client.lpop(name))
        Publisher(make_app(p.settings)).publish([ReadyCall(job, "a#0", 1, "function", "work")])
        theirs = json.loads(client.lpop(name))
        bodies = [json.loads(ours.pop("body")), json.loads(base64.b64decode(theirs.pop("body")))]
        for body in bodies:
            body[0][2] = int(body[0][2])  # the attempt, a blank in the envelope
        assert bodies[0] == bodies[1]
        for message in (ours, theirs):
            for noise in ("origin", "argsrepr"):  # who made it, and the attempt's type
                message["headers"].pop(noise)
            for noise in ("delivery_tag", "body_encoding", "reply_to"):
                message["properties"].pop(noise, None)
        assert {k: v for k, v in ours.items() if v != theirs[k]} == {}
        assert ours["headers"] == theirs["headers"]
