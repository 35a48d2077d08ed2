"""Repairs what messages and processes lost: expired leases, due retries, queued calls that nobody will deliver.

It runs in every planner process; per shard one works, by lease. Two at once are harmless, since every repair compares
state and attempt. A queued call is published again when its queue is empty although it waits, or when a younger call
of its queue, of no higher priority, was claimed long since: a mere backlog causes no traffic.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from kombu.exceptions import OperationalError

from orchestrator.broker.queues import PLANNER, PRIORITIES, PRIORITY_STEPS, SEPARATOR
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import Priority
from orchestrator.publisher.publish import Publisher, by_job
from orchestrator.state.keys import Shard, all_shards

log = logging.getLogger(__name__)

BATCH = 500
MOST_SAID = 10_000

_LEAD = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_SAY_IDLE = """
if redis.call('HGET', KEYS[1], 'st') ~= 'running' or redis.call('HSETNX', KEYS[1], ARGV[1], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 't', 'step.waiting', 's', ARGV[2], 'd', ARGV[3])
return 1
"""
_SAY_SERVED = "return redis.call('HDEL', KEYS[1], ARGV[1])"


@dataclass
class Repairs:
    """How many repairs of each kind one look made."""

    lost: int = 0
    due: int = 0
    queued: int = 0
    planner: int = 0


@dataclass
class Reconciler:
    """One look is `once()`; `run()` looks every `reconcile_s` until it is stopped."""

    store: JobStore
    publisher: Publisher
    _me: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _idle_said: dict[tuple[str, str], None] = field(default_factory=dict)
    _read_to: dict[str, int] = field(default_factory=dict)  # by look, how many at the head of its set were left as they are

    def run(self, stop: threading.Event) -> None:
        """Looks until `stop` is set; an outage of Redis or the broker only makes it wait."""
        while not stop.wait(self.store.settings.reconcile_s):
            try:
                self.once()
            except (redis.RedisError, OperationalError, BackendError, OSError) as error:
                log.warning("reconciler waits: %s", error, extra={"action": "reconcile_wait"})
            except Exception:  # this loop must live: without it a lost message hangs its job
                log.exception("reconciler failed on one look", extra={"action": "reconcile_error"})

    def once(self) -> Repairs:
        """Repairs what is broken now, on the shards that this process leads."""
        repairs = Repairs()
        for shard in all_shards(self.store.settings.shards):
            if self._leads(shard):
                self._look(shard, repairs)
        if repairs != Repairs():
            log.info("repaired %s", repairs, extra={"action": "reconcile"})
        return repairs

    def _leads(self, shard: Shard) -> bool:
        ttl = max(2_000, int(self.store.settings.reconcile_s * 4_000))
        return bool(self.store.redis.eval(_LEAD, 1, shard.leader, self._me, ttl))

    def _look(self, shard: Shard, repairs: Repairs) -> None:
        now = self.store.ledger.now_ms()
        repairs.lost += self._repair(self._due(shard.leases, now), "lost", shard.leases)
        repairs.due += self._repair(self._due(shard.timers, now), "due", shard.timers)
        grace = int(self.store.settings.grace_s * 1000)
        for raw in self.store.redis.smembers(shard.queues):
            queue = raw.decode()
            repairs.queued += self._repair(self._suspects(shard, queue, now - grace), "queued", shard.queued(queue))
            self._say_whether_served(shard, queue, now)
        repairs.planner += self._wake_planner(shard, now - grace)

    def _due(self, key: str, now: int, *, look: str = "") -> Iterator[tuple[str, str, int, int]]:
        """Up to BATCH members up to a time, behind those that earlier looks left; from the head again after the last."""
        at = self._read_to.get(look, 0)
        rows: Any = self.store.redis.zrange(key, "-inf", now, byscore=True, offset=at, num=BATCH, withscores=True)
        if len(rows) < BATCH:
            self._read_to.pop(look, None)
        for raw, score in rows:
            job, call, attempt = raw.decode().split("|")
            yield job, call, int(attempt), int(score)

    def _suspects(self, shard: Shard, queue: str, before: int) -> Iterator[tuple[str, str, int, int]]:
        if not self._backlog(queue):
            yield from self._due(shard.queued(queue), before)
            return
        overtaken, look = self._overtaken(shard, queue), f"overtaken {shard.number} {queue}"
        known: dict[str, Priority] = {}
        left = 0
        for row in self._due(shard.queued(queue), min(before, max(overtaken.values())), look=look):
            job, seen = row[0], row[3]
            priority = known[job] = known.get(job) or self.store.priority(job)
            if seen <= overtaken[priority]:
                yield row
            else:
                left += 1
        if left >= BATCH // 2:  # so that these do not hide what stands behind them
            self._read_to[look] = self._read_to.get(look, 0) + left

    def _overtaken(self, shard: Shard, queue: str) -> dict[Priority, int]:
        """By priority, up to when its calls are overtaken: a younger one of the same or a lower priority was claimed long since."""
        marks = self.store.redis.hmget(shard.marks, [f"{queue}|{p}" for p in PRIORITIES])
        grace = int(self.store.settings.grace_s * 1000)
        claimed = {p: int(mark or 0) - grace for p, mark in zip(PRIORITIES, marks, strict=True)}
        return {p: max(claimed[o] for o in PRIORITIES if PRIORITIES[o] >= PRIORITIES[p]) for p in PRIORITIES}

    def _backlog(self, queue: str) -> int:
        """Messages of a queue in the broker that no worker has taken."""
        with self.publisher.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            client = getattr(channel, "client", None)
            if client is None:
                try:
                    return int(channel.queue_declare(queue=queue, passive=True).message_count)
                except connection.channel_errors:  # nobody has declared it yet
                    return 0
            names = [queue if step == 0 else f"{queue}{SEPARATOR}{step}" for step in PRIORITY_STEPS]
            return sum(int(client.llen(name)) for name in names)

    def _repair(self, rows: Iterator[tuple[str, str, int, int]], kind: str, key: str) -> int:
        ready: list[ReadyCall] = []
        repaired = 0
        for job, call, attempt, seen in rows:
            verdict, calls = self.store.ledger.repair(job, kind=kind, call=call, attempt=attempt, seen=seen)
            repaired += verdict == "ok"
            if verdict == "stale":  # its job ended; a purged one does not know its queues any more
                self.store.redis.zrem(key, f"{job}|{call}|{attempt}")
            ready += calls
        for job, calls in by_job(ready).items():
            self.publisher.publish(calls, priority=self.store.priority(job))
        return repaired

    def _wake_planner(self, shard: Shard, before: int) -> int:
        rows: Any = self.store.redis.zrange(shard.accepted, "-inf", before, byscore=True, offset=0, num=BATCH)
        if not rows or self._backlog(PLANNER):
            return 0
        for raw in rows:
            self.publisher.wake_planner(raw.decode())
        return len(rows)

    def _say_whether_served(self, shard: Shard, queue: str, now: int) -> None:
        """Tells jobs whose calls wait that their queue has no worker, once, and takes it back when one comes."""
        served = any(w.queue == queue for w in self.store.workers())
        if served:
            for job, field_name in [key for key in self._idle_said if key[1].endswith(f":{queue}")]:
                self._forget(job, field_name)
            return
        look = f"idle {shard.number} {queue}"
        rows = list(self._due(shard.queued(queue), now - int(self.store.settings.grace_s * 500), look=look))
        for job, step in {job: call.rpartition("#")[0] for job, call, _, _ in reversed(rows)}.items():
            self._say_idle(job, step, queue)
        if len(rows) == BATCH:
            self._read_to[look] = self._read_to.get(look, 0) + BATCH

    def _say_idle(self, job: str, step: str, queue: str) -> None:
        queues = self.store.ledger.queues(job).names
        if queue not in queues or (job, f"nw:{queues.index(queue)}:{queue}") in self._idle_said:
            return
        keys = self.store.ledger.keys(job)
        field_name = f"nw:{queues.index(queue)}"
        data = json.dumps({"reason": f"no worker for queue {queue}", "queue": queue})
        self.store.redis.eval(_SAY_IDLE, 2, keys.state, keys.events, field_name, step, data)
        self._idle_said[(job, f"{field_name}:{queue}")] = None
        if len(self._idle_said) > MOST_SAID:  # mostly jobs that were cancelled meanwhile
            del self._idle_said[next(iter(self._idle_said))]

    def _forget(self, job: str, field_name: str) -> None:
        name = field_name.rpartition(":")[0]
        self.store.redis.eval(_SAY_SERVED, 1, self.store.ledger.keys(job).state, name)
        del self._idle_said[(job, field_name)]


def start(reconciler: Reconciler) -> Callable[[], None]:
    """Runs a reconciler in a thread of its own; the answer stops it."""
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,), name="reconciler", daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(timeout=5)

    return end
