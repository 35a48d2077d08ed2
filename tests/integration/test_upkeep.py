"""A ledger kept for years: expiry and purge leave nothing, a full store commits, clocks jump, newer jobs are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis

from orchestrator.jobs.ledger import SCHEMA_VERSION, TAKEN, Claim, NewerJob, new_token
from orchestrator.jobs.values import Stored
from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from orchestrator.publisher import housekeeping
from orchestrator.publisher.clock import ClockWatch
from orchestrator.publisher.housekeeping import Housekeeper, purge_tenant
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from orchestrator.tasks import Planner
from tests.engine import Engine
from tests.support import wait_until
from workers.presence import Presence

ONE = [{"id": "a", "tool": "echo", "input": {"value": 1}}]
HOUR = 3_600_000


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings.model_copy(update={"retention_s": 1}))

    @made.tool()
    def echo(value: Any = None) -> Any:
        return value

    @made.tool(name="pay", effect="once")
    def pay() -> str:
        return "paid"

    return made


def keys(engine: Engine) -> set[str]:
    return {k.decode() for k in engine.store.redis.keys("tw:*")}


def test_after_retention_nothing_is_left_of_a_job(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 3)
    look = Reconciler(engine.store, engine.mailbox)
    look.once()
    for _ in range(8):
        engine.run(ONE)
    waits = engine.submit([{"id": "a", "tool": "pay"}])
    keeper = Housekeeper(engine.store, monotonic=count(0, 100).__next__)
    shard = engine.ledger.keys(waits).shard

    def only_one_is_left() -> bool:
        keeper.look(shard)
        return [j.id for j in engine.store.list().jobs] == [waits] and engine.store.redis.zcard(shard.index("default")) == 1

    wait_until(only_one_is_left, description="the finished jobs are gone from the list")
    engine.drain()
    about_jobs = {"catalog", "queues", "marks", "envelopes", "leader", "slots", "metrics"}
    wait_until(
        lambda: keeper.look(shard) or {k.rpartition(":")[2] for k in keys(engine)} <= about_jobs,
        description="nothing is left that names a job",
    )


def test_a_purge_takes_everything_of_one_tenant_and_nothing_of_another(engine: Engine) -> None:
    plan = Plan.model_validate({"steps": ONE})
    runs = [engine.store.submit(plan, inputs={}, tenant="leaves", idempotency=(f"k{n}", "body"))[0] for n in range(5)]
    for job in runs[:3]:
        engine.start(job)
    stays, _ = engine.store.submit(plan, inputs={}, tenant="stays", idempotency=("k0", "body"))
    late = engine.mailbox.calls[0]
    claim = engine.ledger.claim(late.job, late.call, attempt=1, token=new_token(), queue="function")
    assert isinstance(claim, Claim)
    purged = purge_tenant(engine.store, engine.mailbox, "leaves")
    assert (purged.jobs, purged.cancelled) == (5, 5)
    assert [k for k in keys(engine) if "leaves" in k] == []
    assert engine.ledger.complete(claim, outcome="s", payload=b"j1").verdict == "fenced"
    engine.start(stays)
    engine.drain()
    assert engine.store.status(stays, tenant="stays") is JobStatus.SUCCEEDED
    assert engine.store.redis.hgetall(engine.ledger.keys(stays).shard.load) == {}
    Reconciler(engine.store, engine.mailbox).once()
    assert [k for k in keys(engine) for job in runs if job in k] == []


@pytest.fixture
def full(engine: Engine) -> Iterator[Engine]:
    """An engine whose server has no room left; one job of two steps began before."""
    engine.submit([{"id": "a", "tool": "pay"}, {"id": "b", "tool": "echo", "depends_on": ["a"]}])
    engine.store.redis.config_set("maxmemory", 1)
    try:
        yield engine
    finally:
        engine.store.redis.config_set("maxmemory", 0)


def test_a_full_store_takes_no_job_and_ends_those_that_run(full: Engine) -> None:
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        full.store.submit(Plan.model_validate({"steps": ONE}), inputs={})
    (first,) = full.mailbox.calls
    full.drain()
    assert full.store.status(first.job) is JobStatus.SUCCEEDED


def test_in_a_full_store_lost_calls_come_back_and_workers_stay_known(full: Engine) -> None:
    (first,) = full.mailbox.calls
    claim = full.ledger.claim(first.job, first.call, attempt=1, token=new_token(), queue="function")
    assert isinstance(claim, Claim)
    assert full.ledger.beat([(claim.job, claim.call, 1)]) == [True]
    full.ledger.log(claim, {"message": "a tool's own word fails no call"})
    assert [e.type for e in full.events(claim.job)][-1] == "log"
    Presence("function", concurrency=1, tools=["pay"]).show(full.store)
    assert [w.queue for w in full.store.workers()] == ["function"]
    shard = full.ledger.keys(first.job).shard
    full.store.redis.config_set("maxmemory", 0)
    full.store.redis.zadd(shard.leases, {f"{first.job}|a#0|1": full.ledger.now_ms() - 1})
    full.store.redis.config_set("maxmemory", 1)
    Reconciler(full.store, full.mailbox).once()
    assert full.store.calls(first.job)[0].state == "unknown", "`pay` is once"


def test_a_jump_forward_costs_no_running_call_its_lease(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "pay"}])
    claim = engine.ledger.claim(job, "a#0", attempt=1, token=new_token(), queue="function")
    assert isinstance(claim, Claim)
    shard, member = engine.ledger.keys(job).shard, f"{job}|a#0|1"
    look = Reconciler(engine.store, engine.mailbox)
    look.once()
    # As if the server's clock had gone an hour forward: all that it wrote before lies an hour back.
    engine.store.redis.zadd(shard.leases, {member: engine.ledger.now_ms() + 1_000 - HOUR})
    assert look.once().lost == 0
    assert engine.store.redis.zscore(shard.leases, member) > engine.ledger.now_ms(), "it has one more lease to beat in"
    assert engine.ledger.complete(claim, outcome="s", payload=b'j"paid"').verdict == "ok"


def test_a_jump_back_leaves_nothing_waiting_for_an_hour(engine: Engine) -> None:
    lost = engine.submit([{"id": "a", "tool": "echo"}])
    assert isinstance(engine.ledger.claim(lost, "a#0", attempt=1, token=new_token(), queue="function"), Claim)
    queued = engine.submit([{"id": "a", "tool": "echo"}])
    shard = engine.ledger.keys(lost).shard
    engine.mailbox.calls.clear()
    look = Reconciler(engine.store, engine.mailbox)
    look.once()
    ahead = engine.ledger.now_ms() + HOUR
    engine.store.redis.zadd(shard.leases, {f"{lost}|a#0|1": ahead})
    engine.store.redis.zadd(shard.timers, {f"{lost}|x#0|1": ahead + 5_000})
    engine.store.redis.zadd(shard.queued("function"), {f"{queued}|a#0|1": ahead})
    engine.store.redis.zadd(shard.accepted, {"job_x": ahead, "job_y": TAKEN + ahead})
    engine.store.redis.config_set("maxmemory", 1)  # a full store is no reason to wait
    here, seen = look._clock._seen[shard]
    look._clock._seen[shard] = (here, seen + HOUR)  # what it saw at its last look, before the jump
    try:
        look.once()
    finally:
        engine.store.redis.config_set("maxmemory", 0)
    now = engine.ledger.now_ms()
    assert engine.store.redis.zscore(shard.accepted, "job_x") <= now
    assert engine.store.redis.zscore(shard.accepted, "job_y") <= TAKEN + now
    lease = engine.store.settings.lease_s * 1000
    assert engine.store.redis.zscore(shard.leases, f"{lost}|a#0|1") <= now + lease
    assert abs(engine.store.redis.zscore(shard.timers, f"{lost}|x#0|1") - (now + 5_000)) < 2_000
    assert engine.store.redis.zscore(shard.queued("function"), f"{queued}|a#0|1") <= now


def test_a_watch_tells_a_jump_from_a_pause(engine: Engine) -> None:
    times = iter([0.0, 1.0, 61.0, 62.0, 62.5, 70.0])
    watch, shard = ClockWatch(monotonic=times.__next__), engine.ledger.keys("any").shard
    assert watch.jumped_ms(shard, 100_000) == 0
    assert watch.jumped_ms(shard, 101_100) == 0, "a little late"
    assert watch.jumped_ms(shard, 161_000) == 0, "a minute in which nobody looked"
    assert watch.jumped_ms(shard, 162_000 + HOUR) == HOUR
    assert watch.waits(shard, 3.0)
    assert not watch.waits(shard, 3.0)


def test_a_job_of_a_newer_version_is_left_to_newer_processes(engine: Engine, settings: Settings) -> None:
    job = engine.submit(ONE)
    (call,) = engine.mailbox.calls
    state = engine.ledger.keys(job).state
    engine.store.redis.hset(state, "v", SCHEMA_VERSION + 1)
    assert engine.deliver(call) == f"schema {SCHEMA_VERSION + 1}"
    with pytest.raises(NewerJob, match="newer version"):
        engine.ledger.cancel(job)
    shard = engine.ledger.keys(job).shard
    engine.store.redis.zadd(shard.queued("function"), {f"{job}|a#0|1": 1})
    Reconciler(engine.store, engine.mailbox).once()  # does not fail, and goes on with the others
    planner = Planner(settings, engine.mailbox.app)
    accepted, _ = engine.store.submit(Plan.model_validate({"steps": ONE}), inputs={})
    engine.store.redis.hset(engine.ledger.keys(accepted).state, "v", SCHEMA_VERSION + 1)
    assert planner.plan_job(accepted) == 0
    assert engine.store.status(accepted) is JobStatus.PLANNING
    engine.store.redis.hset(state, "v", SCHEMA_VERSION)  # the newer worker
    assert engine.deliver(call) == "ok"


def test_a_large_result_that_comes_after_the_end_goes_with_the_job(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "pay"}])
    claim = engine.ledger.claim(job, "a#0", attempt=1, token=new_token(), queue="function")
    assert isinstance(claim, Claim)
    engine.ledger.cancel(job)
    large = Stored(b'b{"sha256":"00","size":1}', "00", b'"x"')
    assert engine.ledger.complete(claim, outcome="s", payload=large.field, large=large).verdict == "job cancelled"
    assert engine.store.redis.ttl(engine.ledger.keys(job).big) in (0, 1)
