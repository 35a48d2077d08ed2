"""Repairs what messages and processes lost: expired leases, due retries, queued calls that nobody will deliver.

It runs in every planner process; per shard one works, by lease. Two at once are harmless, since every repair compares
state and attempt. A queued call is published again when its queue is empty although it waits, or when a younger call
of its queue was claimed long since: a mere backlog causes no traffic.
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

from orchestrator.broker.queues import PLANNER, PRIORITY_STEPS, SEPARATOR
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.jobs.store import JobStore
from orchestrator.publisher.publish import Publisher, by_job
from orchestrator.state.keys import Shard, all_shards

log = logging.getLogger(__name__)

BATCH = 500

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
        repairs.lost += self._repair(self._due(shard.leases, now), "lost")
        repairs.due += self._repair(self._due(shard.timers, now), "due")
        grace = int(self.store.settings.grace_s * 1000)
        for raw in self.store.redis.smembers(shard.queues):
            queue = raw.decode()
            repairs.queued += self._repair(self._suspects(shard, queue, now - grace), "queued")
            self._say_whether_served(shard, queue, now)
        repairs.planner += self._wake_planner(shard, now - grace)

    def _due(self, key: str, now: int) -> Iterator[tuple[str, str, int, int]]:
        rows: Any = self.store.redis.zrange(key, "-inf", now, byscore=True, offset=0, num=BATCH, withscores=True)
        for raw, score in rows:
            job, call, attempt = raw.decode().split("|")
            yield job, call, int(attempt), int(score)

    def _suspects(self, shard: Shard, queue: str, before: int) -> Iterator[tuple[str, str, int, int]]:
        if self._backlog(queue):
            before = min(before, int(self.store.redis.hget(shard.marks, queue) or 0) - int(self.store.settings.grace_s * 1000))
        yield from self._due(shard.queued(queue), before)

    def _backlog(self, queue: str) -> int:
        """Messages of a queue in the broker; on a broker that is not Redis only overtaken calls are suspects."""
        with self.publisher.app.connection_for_write() as connection:
            client = getattr(connection.default_channel, "client", None)
            if client is None:
                return 1
            names = [queue if step == 0 else f"{queue}{SEPARATOR}{step}" for step in PRIORITY_STEPS]
            return sum(int(client.llen(name)) for name in names)

    def _repair(self, rows: Iterator[tuple[str, str, int, int]], kind: str) -> int:
        ready: list[ReadyCall] = []
        repaired = 0
        for job, call, attempt, seen in rows:
            verdict, calls = self.store.ledger.repair(job, kind=kind, call=call, attempt=attempt, seen=seen)
            repaired += verdict == "ok"
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
        for job, call, _, _ in self._due(shard.queued(queue), now - int(self.store.settings.grace_s * 500)):
            self._say_idle(job, call.rpartition("#")[0], queue)

    def _say_idle(self, job: str, step: str, queue: str) -> None:
        queues = self.store.ledger.queues(job).names
        if queue not in queues or (job, f"nw:{queues.index(queue)}:{queue}") in self._idle_said:
            return
        keys = self.store.ledger.keys(job)
        field_name = f"nw:{queues.index(queue)}"
        data = json.dumps({"reason": f"no worker for queue {queue}", "queue": queue})
        self.store.redis.eval(_SAY_IDLE, 2, keys.state, keys.events, field_name, step, data)
        self._idle_said[(job, f"{field_name}:{queue}")] = None

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
