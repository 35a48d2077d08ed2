"""The reconciler: what it publishes again, what it leaves alone, and that nothing at the head of a set hides the rest."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import Priority
from orchestrator.models.plan import Plan
from orchestrator.publisher import reconcile
from orchestrator.publisher.publish import Publisher
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from tests.engine import Engine, Mailbox
from workers.presence import Presence


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings.model_copy(update={"age_s": 1e6, "window_least": 1_000}))

    @made.tool()
    def echo(value: Any = None) -> Any:
        return value

    return made


def submit(engine: Engine, priority: Priority) -> str:
    """A started job of one call, whose message is lost."""
    plan = Plan.model_validate({"steps": [{"id": "a", "tool": "echo"}]})
    engine.ledger.redis.delete(engine.ledger.keys("any").shard.load)  # each stands as the first of its tenant
    job, _ = engine.store.submit(plan, inputs={}, priority=priority)
    engine.mailbox.calls.clear()
    engine.start(job)
    return job


def age(engine: Engine, job: str, *, seconds: float) -> ReadyCall:
    """Lets the job's call be published so long ago; its message."""
    (call,) = engine.mailbox.calls
    engine.mailbox.calls.clear()
    keys = engine.ledger.keys(job)
    at = engine.ledger.now_ms() - int(seconds * 1000)
    engine.store.redis.zadd(keys.shard.queued("function"), {f"{job}|{call.call}|{call.attempt}": at})
    level = engine.store.redis.hget(keys.state, "c:a#0").decode().rpartition("|")[2]
    engine.store.redis.hset(keys.state, "c:a#0", f"q|{call.attempt}|0|0|{at}|{level}")
    return call


def backlog(engine: Engine) -> None:
    engine.store.redis.lpush("function", "a message of somebody")


@pytest.mark.parametrize(
    ("slow", "quick", "again"), [("batch", "interactive", False), ("interactive", "batch", True), ("normal", "normal", True)]
)
def test_only_a_call_of_no_higher_priority_overtakes(engine: Engine, slow: Priority, quick: Priority, again: bool) -> None:
    engine.store.redis.flushdb()
    waits = submit(engine, slow)
    age(engine, waits, seconds=100)
    passes = submit(engine, quick)
    engine.deliver(age(engine, passes, seconds=10))
    backlog(engine)
    Reconciler(engine.store, engine.mailbox).once()
    assert (waits in {c.job for c in engine.mailbox.calls}) is again


def test_calls_of_a_purged_job_leave_the_outbox(engine: Engine) -> None:
    job = submit(engine, "normal")
    age(engine, job, seconds=100)
    engine.ledger.cancel(job)
    keys = engine.ledger.keys(job)
    engine.store.redis.delete(keys.state, keys.data, keys.events)
    Reconciler(engine.store, engine.mailbox).once()
    assert engine.store.redis.zscore(keys.shard.queued("function"), f"{job}|a#0|1") is None


def test_many_low_calls_do_not_hide_an_overtaken_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "BATCH", 2)
    engine.store.redis.flushdb()
    for _ in range(4):
        age(engine, submit(engine, "batch"), seconds=100)
    lost = submit(engine, "interactive")
    age(engine, lost, seconds=50)
    engine.deliver(age(engine, submit(engine, "interactive"), seconds=10))
    backlog(engine)
    look = Reconciler(engine.store, engine.mailbox)
    for _ in range(3):
        look.once()
    assert {c.job for c in engine.mailbox.calls} == {lost}


def test_every_job_learns_that_its_queue_has_no_worker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "BATCH", 2)
    engine.store.redis.flushdb()
    jobs = [submit(engine, "normal") for _ in range(5)]
    engine.mailbox.calls.clear()
    for job in jobs:
        engine.store.redis.zadd(engine.ledger.keys(job).shard.queued("function"), {f"{job}|a#0|1": engine.ledger.now_ms() - 500})
    look = Reconciler(engine.store, engine.mailbox)
    for _ in range(3):
        look.once()
    assert [engine.store.view(job).steps[0].waiting for job in jobs] == ["no worker for queue function"] * 5


def test_a_broker_that_is_not_redis_loses_the_only_message(engine: Engine, settings: Settings) -> None:
    """Nothing would ever overtake it: the queue's length tells that nobody will deliver it."""
    job = submit(engine, "normal")
    age(engine, job, seconds=100)
    engine.store.redis.zadd(engine.ledger.keys(job).shard.accepted, {"job_lost": 1})
    app = Celery(broker="memory://")
    sent: list[str] = []
    mailbox = Mailbox(app)
    mailbox.wake_planner = sent.append  # type: ignore[method-assign,assignment]
    look = Reconciler(engine.store, mailbox)
    look.once()
    assert [c.job for c in mailbox.calls] == [job]
    assert sent == ["job_lost"]
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("function")
        queue.put("a message")
        assert look._backlog("function") == 1
        queue.clear()
    assert isinstance(mailbox, Publisher)


def test_a_worker_that_woke_after_a_long_sleep_shows_itself(engine: Engine) -> None:
    presence = Presence("function", concurrency=1, tools=["echo"])
    presence.show(engine.store)
    engine.store.redis.zadd("tw:workers", {presence.info.id: 1})
    presence.show(engine.store)
    assert [w.id for w in engine.store.workers()] == [presence.info.id]
