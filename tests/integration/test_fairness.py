"""Windows, caps per tenant, limits of tools, keys, levels and ageing: what many jobs share, and that nobody starves."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from orchestrator.catalog.files import File
from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import SCHEMA_VERSION, Claim, ReadyCall, new_token
from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from orchestrator.publisher.control import Control
from orchestrator.publisher.housekeeping import Housekeeper
from orchestrator.publisher.publish import follow
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.support import wait_until

LEAST = 8
X, Y = (sha256(f'"{account}"'.encode()).hexdigest()[:16] for account in "xy")  # as a worker names them


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)

    @made.tool()
    def echo(value: Any = None) -> Any:
        return value

    @made.tool(max_concurrency=2)
    def few(value: Any = None) -> Any:
        return value

    @made.tool(name="flaky", max_concurrency=2)
    def flaky() -> Any:
        raise ToolError("not now", retryable=True)

    @made.tool(concurrency_key="account", max_per_key=1)
    def transfer(account: str) -> str:
        return account

    return made


def submit(engine: Engine, steps: list[dict[str, Any]], *, tenant: str = "default", **rest: Any) -> str:
    """A started job of a tenant."""
    job, _ = engine.store.submit(Plan.model_validate({"steps": steps}), inputs={}, tenant=tenant, **rest)
    engine.start(job)
    return job


def wide(tool: str = "echo", n: int = 40, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": "list", "tool": "echo", "input": {"value": list(range(n))}},
        {"id": "all", "tool": tool, "map": "step:list", "input": {"value": "item"}, **more},
    ]


def load(engine: Engine) -> dict[str, int]:
    raw: Any = engine.store.redis.hgetall(engine.ledger.keys("any").shard.load)
    return {k.decode(): int(v) for k, v in raw.items()}


def nothing_is_left(engine: Engine) -> None:
    shard = engine.ledger.keys("any").shard
    assert load(engine) == {}
    assert [k for k in (shard.parked, shard.held, shard.leases, shard.timers) if engine.store.redis.exists(k)] == []


def one_look(engine: Engine) -> None:
    Reconciler(engine.store, engine.mailbox).once()


@pytest.mark.parametrize("seed", range(6))
def test_no_gate_is_ever_overrun_and_every_job_ends(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    jobs = [submit(engine, wide(rng.choice(["echo", "few"]), rng.randint(3, 60)), tenant=t) for t in "aabbc" for _ in range(3)]
    while engine.mailbox.calls:
        now = load(engine)
        assert now.get("t|few", 0) <= 2
        assert {k: v for k, v in now.items() if k.startswith("q|") and v > LEAST} == {}
        engine.drain(shuffle=rng, limit=1)
    assert {engine.store.status(j, tenant=engine.store.tenant(j)) for j in jobs} == {JobStatus.SUCCEEDED}
    nothing_is_left(engine)


def test_a_flood_of_one_tenant_stands_behind_the_first_calls_of_another(engine: Engine) -> None:
    submit(engine, wide(n=500), tenant="flood")
    engine.drain(limit=1)
    heavy = [c.level for c in engine.mailbox.calls]
    submit(engine, wide(n=3), tenant="small")
    assert engine.mailbox.calls[-1].level == 1
    assert Counter(heavy) == {1: 4, 4: 4}, "a tenant with few calls out stands at the light level"


def test_cancelled_jobs_give_back_what_they_hold(engine: Engine) -> None:
    flood = [submit(engine, wide("few", 100)) for _ in range(5)]
    engine.drain(limit=5)
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    last = submit(engine, wide("few", 3))
    for job in flood:
        control.cancel(job)
    engine.drain()
    assert engine.store.status(last) is JobStatus.SUCCEEDED
    nothing_is_left(engine)


def test_a_release_that_nobody_followed_is_found_by_the_reconciler(engine: Engine) -> None:
    first, second = submit(engine, wide("few", 2)), submit(engine, wide("few", 2))
    engine.drain(limit=2)
    call = next(c for c in engine.mailbox.calls if c.job == first)
    assert [e.partition(b"\n")[0] for e in engine.store.redis.zrange(engine.ledger.keys(first).shard.parked, 0, -1)] == [
        b"t|few|default"
    ]
    for message in [c for c in engine.mailbox.calls if c.job == first]:
        claim = engine.ledger.claim(first, message.call, attempt=1, token=new_token(), queue=message.queue)
        assert isinstance(claim, Claim)
        engine.ledger.complete(claim, outcome="s", payload=b"j1")  # and the worker dies before it follows
    engine.mailbox.calls.clear()
    assert call.tool == "few"
    one_look(engine)
    assert {c.job for c in engine.mailbox.calls} == {second}
    engine.drain()
    assert engine.store.status(second) is JobStatus.SUCCEEDED
    nothing_is_left(engine)


def test_a_job_that_waited_long_goes_before_new_calls_of_its_tenant(engine: Engine) -> None:
    chains = [submit(engine, [{"id": f"s{i}", "tool": "echo", "depends_on": [f"s{i - 1}"] if i else []} for i in range(30)])
              for _ in range(LEAST)]  # fmt: skip
    late = submit(engine, [{"id": "a", "tool": "echo"}])
    assert late not in {c.job for c in engine.mailbox.calls}, "the tenant's window is full"
    engine.drain(limit=LEAST)
    assert late not in {c.job for c in engine.mailbox.calls}, "chains go on for a while"
    shard = engine.ledger.keys(late).shard
    (entry,) = engine.store.redis.zrange(shard.parked, 0, -1)
    gate, _, job, lane = entry.split(b"\n")
    old = b"\n".join([gate, b"%013d" % (engine.ledger.now_ms() - 3_000), job, lane])
    engine.store.redis.zrem(shard.parked, entry)
    engine.store.redis.zadd(shard.parked, {old: 0})
    engine.store.redis.hset(engine.ledger.keys(late).state, "pk:0", old)
    engine.drain(limit=LEAST + 1)
    assert engine.store.status(late) is JobStatus.SUCCEEDED
    assert not any(engine.store.status(j).final for j in chains)
    engine.drain()
    nothing_is_left(engine)


def claim_of(engine: Engine, call: ReadyCall) -> Claim:
    claim = engine.ledger.claim(call.job, call.call, attempt=call.attempt, token=new_token(), queue=call.queue)
    assert isinstance(claim, Claim)
    return claim


def test_calls_of_one_key_wait_for_each_other_and_others_do_not(engine: Engine) -> None:
    jobs = [submit(engine, [{"id": "t", "tool": "transfer", "input": {"account": a}}]) for a in ("x", "x", "x", "y")]
    calls = {c.job: c for c in engine.mailbox.calls}
    engine.mailbox.calls.clear()
    holder = claim_of(engine, calls[jobs[0]])
    assert engine.ledger.hold(holder, key=X, limit=1).verdict == "ok"
    assert engine.ledger.hold(holder, key=X, limit=1).verdict == "ok", "asked again after a cut"
    for job in jobs[1:3]:
        assert engine.ledger.hold(claim_of(engine, calls[job]), key=X, limit=1).verdict == "parked"
    assert engine.ledger.hold(claim_of(engine, calls[jobs[3]]), key=Y, limit=1).verdict == "ok"
    assert engine.store.view(jobs[1]).steps[0].running == 0, "a waiting call holds no slot"
    follow(engine.ledger, engine.mailbox, engine.ledger.complete(holder, outcome="s", payload=b"j1"))
    (let_in,) = engine.mailbox.calls
    assert let_in.job in jobs[1:3], "one that waits, and only it"
    engine.drain()
    assert [engine.store.status(j) for j in jobs[:3]] == [JobStatus.SUCCEEDED] * 3


def test_the_key_of_a_lost_call_is_free_again(engine: Engine) -> None:
    first, second = (submit(engine, [{"id": "t", "tool": "transfer", "input": {"account": "x"}}]) for _ in range(2))
    calls = {c.job: c for c in engine.mailbox.calls}
    engine.mailbox.calls.clear()
    lost = claim_of(engine, calls[first])
    assert engine.ledger.hold(lost, key=X, limit=1).verdict == "ok"
    assert engine.ledger.hold(claim_of(engine, calls[second]), key=X, limit=1).verdict == "parked"
    shard = engine.ledger.keys(first).shard
    engine.store.redis.zadd(shard.leases, {f"{first}|t#0|1": engine.ledger.now_ms() - 1})
    one_look(engine)
    assert second in {c.job for c in engine.mailbox.calls}
    engine.drain()
    assert engine.store.status(second) is JobStatus.SUCCEEDED


def test_a_call_that_better_ones_overtook_for_long_moves_to_the_front(engine: Engine) -> None:
    slow = submit(engine, [{"id": "a", "tool": "echo"}], priority="batch")
    engine.mailbox.calls.clear()
    keys = engine.ledger.keys(slow)
    at = engine.ledger.now_ms() - 60_000
    engine.store.redis.zadd(keys.shard.queued("function"), {f"{slow}|a#0|1": at})
    engine.store.redis.hset(keys.state, "c:a#0", f"q|1|0|0|{at}|2")
    engine.store.redis.lpush("function", "a backlog")
    one_look(engine)
    assert engine.mailbox.calls == [], "nobody overtook it"
    quick = submit(engine, [{"id": "a", "tool": "echo"}], priority="interactive")
    engine.drain()
    one_look(engine)
    assert [(c.job, c.level, c.attempt) for c in engine.mailbox.calls] == [(slow, 0, 2)]
    assert engine.store.status(quick) is JobStatus.SUCCEEDED


def test_the_planner_takes_one_job_of_each_tenant_before_the_tail_of_a_flood(engine: Engine) -> None:
    plan = Plan.model_validate({"steps": [{"id": "a", "tool": "echo"}]})
    flood = [engine.store.submit(plan, inputs={}, tenant="flood")[0] for _ in range(20)]
    small, _ = engine.store.submit(plan, inputs={}, tenant="small")
    shard = engine.ledger.keys(small).shard
    taken = []
    for _ in range(21):
        job = engine.ledger.take(shard)
        assert job is not None
        taken.append(job)
        engine.start(job)
    assert taken.index(small) <= 3
    assert [j for j in taken if j != small] == flood
    assert engine.ledger.take(shard) is None
    engine.drain()
    nothing_is_left(engine)


def test_a_file_is_a_key_by_its_content(engine: Engine) -> None:
    @engine.tool(concurrency_key="scan")
    def read(scan: File) -> int:
        return scan.size

    ref = engine.store.files.blobs.put(b"pixels", tenant="default").ref
    view, result = engine.run([{"id": "a", "tool": "read", "input": {"scan": ref}}])
    assert (view.status, result.steps) == (JobStatus.SUCCEEDED, {"a": 6})


def due(engine: Engine) -> None:
    """All timers run out."""
    shard = engine.ledger.keys("any").shard
    for raw in engine.store.redis.zrange(shard.timers, 0, -1):
        job, call, attempt = raw.decode().split("|")
        follow(engine.ledger, engine.mailbox, engine.ledger.repair(job, kind="due", call=call, attempt=int(attempt)))


def test_retries_that_are_due_wait_for_their_gate(engine: Engine) -> None:
    many = [{"id": "list", "tool": "echo", "input": {"value": [1] * 6}}]
    many += [{"id": "all", "tool": "flaky", "map": "step:list", "retry": {"max": 2, "backoff_s": 1}, "on_error": "continue"}]
    job = submit(engine, many)
    for _ in range(10):
        engine.drain()
        due(engine)
        assert load(engine).get("t|flaky", 0) <= 2
    assert engine.store.status(job) is JobStatus.SUCCEEDED
    assert {(c.attempt, c.state) for c in engine.store.calls(job) if c.step == "all"} == {(3, "failed")}, "each had its three tries"
    nothing_is_left(engine)


def transfers(engine: Engine, n: int, **more: Any) -> tuple[list[str], dict[str, ReadyCall]]:
    """Jobs of one transfer each, from one account, and their messages."""
    jobs = [submit(engine, [{"id": "t", "tool": "transfer", "input": {"account": "x"}}], **more) for _ in range(n)]
    calls = {c.job: c for c in engine.mailbox.calls}
    engine.mailbox.calls.clear()
    return jobs, calls


def waits_for_key(engine: Engine, call: ReadyCall) -> None:
    assert engine.ledger.hold(claim_of(engine, call), key=X, limit=1).verdict == "parked"


def test_the_key_of_a_cancelled_call_goes_on_when_its_worker_let_go(engine: Engine) -> None:
    (first, second), calls = transfers(engine, 2)
    assert engine.ledger.hold(claim_of(engine, calls[first]), key=X, limit=1).verdict == "ok"
    waits_for_key(engine, calls[second])
    engine.ledger.cancel(first)
    assert engine.mailbox.calls == [], "it may still run"
    shard = engine.ledger.keys(first).shard
    engine.store.redis.zadd(shard.leases, {f"{first}|t#0|1": engine.ledger.now_ms() - 1})
    follow(engine.ledger, engine.mailbox, engine.ledger.repair(first, kind="lost", call="t#0", attempt=1))
    assert [c.job for c in engine.mailbox.calls] == [second]
    engine.drain()
    nothing_is_left(engine)


def test_those_that_wait_for_a_key_keep_their_place_in_line(engine: Engine) -> None:
    jobs, calls = transfers(engine, 4)
    holder = claim_of(engine, calls[jobs[0]])
    assert engine.ledger.hold(holder, key=X, limit=1).verdict == "ok"
    for job in jobs[1:]:
        waits_for_key(engine, calls[job])
        parked_at = engine.ledger.now_ms()
        wait_until(lambda at=parked_at: engine.ledger.now_ms() > at, description="a millisecond passes")
    due(engine)
    assert engine.mailbox.calls == [], "as long as somebody holds it they will be told"
    done = engine.ledger.release(engine.store.redis.zrange(engine.ledger.keys("any").shard.parked, 0, 0)[0].decode())
    waits_for_key(engine, done.ready[0])  # another one was quicker
    follow(engine.ledger, engine.mailbox, engine.ledger.complete(holder, outcome="s", payload=b"j1"))
    assert [c.job for c in engine.mailbox.calls] == [jobs[1]]
    engine.drain()
    assert [engine.store.status(j) for j in jobs] == [JobStatus.SUCCEEDED] * 4
    nothing_is_left(engine)


def test_nothing_is_left_of_keys_of_purged_jobs(engine: Engine) -> None:
    jobs, calls = transfers(engine, 3, tenant="gone")
    assert engine.ledger.hold(claim_of(engine, calls[jobs[0]]), key=X, limit=1).verdict == "ok"
    for job in jobs[1:]:
        waits_for_key(engine, calls[job])
    Control(engine.store, engine.mailbox.app).purge("gone")
    shard = engine.ledger.keys("any").shard
    engine.store.redis.zadd(shard.leases, {f"{jobs[0]}|t#0|1": engine.ledger.now_ms() - 1})
    engine.store.redis.zadd(shard.timers, {f"{job}|t#0|1": 1 for job in jobs[1:]})
    one_look(engine)
    Housekeeper(engine.store).look(shard)
    nothing_is_left(engine)


def test_a_retried_job_forgets_that_its_call_waited_for_a_key(engine: Engine) -> None:
    (first, second), calls = transfers(engine, 2)
    holder = claim_of(engine, calls[first])
    assert engine.ledger.hold(holder, key=X, limit=1).verdict == "ok"
    waits_for_key(engine, calls[second])
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.cancel(second)
    control.retry(second)
    (again,) = engine.mailbox.calls
    engine.mailbox.calls.clear()
    engine.ledger.complete(claim_of(engine, again), outcome="w", payload=b"{}")
    follow(engine.ledger, engine.mailbox, engine.ledger.repair(second, kind="due", call="t#0", attempt=again.attempt))
    state = engine.ledger.keys(second).state
    assert engine.store.redis.hmget(state, "w:1", "kw:1") == [b"1", None]
    follow(engine.ledger, engine.mailbox, engine.ledger.complete(holder, outcome="s", payload=b"j1"))
    engine.drain()
    assert engine.store.status(second) is JobStatus.SUCCEEDED
    due(engine)
    nothing_is_left(engine)


def test_a_newer_job_that_is_parked_first_stops_neither_workers_nor_reconcilers(engine: Engine) -> None:
    first, newer = submit(engine, wide("few", 2)), submit(engine, wide("few", 2))
    engine.drain(limit=2)
    state = engine.ledger.keys(newer).state
    engine.store.redis.hset(state, "v", SCHEMA_VERSION + 1)
    messages = list(engine.mailbox.calls)
    engine.mailbox.calls.clear()
    for message in messages:
        assert engine.deliver(message) == "ok", "it is woken, and passed by"
    one_look(engine)
    assert engine.store.status(first) is JobStatus.SUCCEEDED
    assert engine.mailbox.calls == []
    engine.store.redis.hset(state, "v", SCHEMA_VERSION)  # the newer worker
    one_look(engine)
    engine.drain()
    assert engine.store.status(newer) is JobStatus.SUCCEEDED
    nothing_is_left(engine)


def test_a_job_that_cannot_be_planned_now_stands_behind_those_that_can(engine: Engine) -> None:
    plan = Plan.model_validate({"steps": [{"id": "a", "tool": "echo"}]})
    jobs = [engine.store.submit(plan, inputs={}, tenant="flood")[0] for _ in range(400)]  # by virtual time four seconds
    shard = engine.ledger.keys("any").shard
    broken, *others = [engine.ledger.take(shard) for _ in range(400)]
    assert broken == jobs[0]
    assert others == jobs[1:], "nothing is given twice while its lease runs"
    assert engine.ledger.take(shard) is None


def test_a_clock_that_went_back_does_not_put_those_that_wait_behind_newcomers(engine: Engine) -> None:
    running = submit(engine, wide("few", 2))
    early = submit(engine, wide("few", 2))
    engine.drain(limit=2)
    shard = engine.ledger.keys(early).shard
    (entry,) = engine.store.redis.zrange(shard.parked, 0, -1)
    gate, _, job, lane = entry.split(b"\n")
    ahead = b"\n".join([gate, b"%013d" % (engine.ledger.now_ms() + 3_600_000), job, lane])  # parked before the jump
    engine.store.redis.zrem(shard.parked, entry)
    engine.store.redis.zadd(shard.parked, {ahead: 0})
    engine.store.redis.hset(engine.ledger.keys(early).state, "pk:1", ahead)
    late = submit(engine, wide("few", 2))
    engine.deliver(engine.mailbox.calls.pop())
    assert [e.split(b"\n")[2].decode() for e in engine.store.redis.zrange(shard.parked, 0, -1)] == [early, late]
    while not engine.store.status(early).final:
        engine.drain(limit=1)
        assert not engine.store.status(late).final
    engine.drain()
    assert engine.store.status(running) is JobStatus.SUCCEEDED
    nothing_is_left(engine)


def test_tenants_take_turns_at_the_gate_of_a_tool(engine: Engine) -> None:
    flood = [submit(engine, wide("few", 3), tenant="flood") for _ in range(40)]
    submit(engine, wide("few", 200), tenant="flood")
    engine.drain(limit=200)
    small = submit(engine, wide("few", 10), tenant="small")
    delivered = 0
    while not engine.store.status(small, tenant="small").final:
        delivered += engine.drain(limit=1)
    assert delivered < 60, "about every second call is the small tenant's"
    engine.drain()
    assert all(engine.store.status(j, tenant="flood") is JobStatus.SUCCEEDED for j in flood)
    nothing_is_left(engine)
