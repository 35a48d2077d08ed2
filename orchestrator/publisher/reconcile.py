"""Repairs what messages and processes lost: expired leases, due retries, queued calls that nobody will deliver.

It runs in every planner process; per shard one works, by lease. Two at once are harmless, since every repair compares
state and attempt. A queued call is published again when its queue is empty although it waits, or when a younger call
of its queue, of no better level, was claimed long since: a mere backlog causes no traffic. A call that better ones keep
waiting moves to the front. Redis TIME is the clock of all leases: when it jumps, they are set right and wait once more.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from kombu.exceptions import OperationalError

from orchestrator.broker.queues import LEVELS, PLANNER
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import TAKEN, NewerJob
from orchestrator.jobs.store import JobStore
from orchestrator.models.worker import WorkerInfo
from orchestrator.publisher.clock import ClockWatch, set_right
from orchestrator.publisher.housekeeping import Housekeeper
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.state.keys import Shard, all_shards

log = logging.getLogger(__name__)

BATCH = 500
AGED = 4  # calls that move to the front in one look
GATES = 200  # looked at in one look, of those at which something is parked
MOST_SAID = 10_000

_LEAD = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_SAY_IDLE = """#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'st') ~= 'running' or redis.call('HSETNX', KEYS[1], ARGV[1], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 't', 'step.waiting', 's', ARGV[2], 'd', ARGV[3])
return 1
"""
_SET_SLOTS = """#!lua flags=allow-oom
redis.call('DEL', KEYS[1])
if #ARGV > 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
"""
_SAY_SERVED = "return redis.call('HDEL', KEYS[1], ARGV[1])"


@dataclass
class Repairs:
    """How many repairs of each kind one look made."""

    lost: int = 0
    due: int = 0
    queued: int = 0
    aged: int = 0
    released: int = 0
    planner: int = 0


@dataclass
class Reconciler:
    """One look is `once()`; `run()` looks every `reconcile_s` until it is stopped."""

    store: JobStore
    publisher: Publisher
    _me: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _idle_said: dict[tuple[str, str], None] = field(default_factory=dict)
    _empty_since: dict[str, float] = field(default_factory=dict)
    _read_to: dict[str, int] = field(default_factory=dict)  # by look, how many at the head of its set were left as they are
    _gates_to: dict[Shard, bytes] = field(default_factory=dict)  # the gate up to which the last look came
    _clock: ClockWatch = field(default_factory=ClockWatch)
    _housekeeper: Housekeeper = field(init=False)

    def __post_init__(self) -> None:
        self._housekeeper = Housekeeper(self.store)

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
        jumped = self._clock.jumped_ms(shard, now)
        if jumped:
            set_right(self.store, shard, now=now, jumped_ms=jumped)
        workers = self.store.workers()
        self._count_slots(shard, workers)
        self._housekeeper.look(shard)  # first: repairs stop where the broker is away, and what expired must go then too
        if not self._clock.waits(shard, self.store.settings.lease_s):  # else every living call has yet to beat by the new time
            repairs.lost += self._repair(self._due(shard.leases, now), "lost", shard.leases)
        repairs.due += self._repair(self._due(shard.timers, now), "due", shard.timers)
        grace = int(self.store.settings.grace_s * 1000)
        for raw in self.store.redis.smembers(shard.queues):
            queue = raw.decode()
            repairs.queued += self._repair(self._suspects(shard, queue, now - grace), "queued", shard.queued(queue))
            repairs.aged += self._repair(self._starved(shard, queue, now), "aged", shard.queued(queue))
            self._say_whether_served(shard, queue, now, served=any(w.queue == queue for w in workers))
        repairs.released += self._release(shard)
        repairs.planner += self._wake_planner(shard, now, before=now - grace)

    def _due(self, key: str, now: int, *, look: str = "") -> Iterator[tuple[str, str, int, int]]:
        """Up to BATCH members up to a time, behind those that earlier looks left; from the head again after the last."""
        at = self._read_to.get(look, 0)
        rows: Any = self.store.redis.zrange(key, "-inf", now, byscore=True, offset=at, num=BATCH, withscores=True)
        if len(rows) < BATCH:
            self._read_to.pop(look, None)
        for raw, score in rows:
            yield *_member(raw), int(score)

    def _suspects(self, shard: Shard, queue: str, before: int) -> Iterator[tuple[str, str, int, int]]:
        if not self._backlog(queue):
            yield from self._due(shard.queued(queue), before)
            return
        grace = int(self.store.settings.grace_s * 1000)
        claimed = self._claimed(shard, queue)
        overtaken = [max(claimed[level:]) - grace for level in LEVELS]  # by one that stood no better, long since
        look = f"overtaken {shard.number} {queue}"
        rows = list(self._due(shard.queued(queue), min(before, max(overtaken)), look=look))
        left = 0
        for row, level in zip(rows, self._levels(rows), strict=True):
            if row[3] <= overtaken[level]:
                yield row
            else:
                left += 1
        if left >= BATCH // 2:  # so that these do not hide what stands behind them
            self._read_to[look] = self._read_to.get(look, 0) + left

    def _starved(self, shard: Shard, queue: str, now: int) -> Iterator[tuple[str, str, int, int]]:
        """Calls that waited longer than `age_s` while younger ones of better levels were claimed; few at a time."""
        long_ago = now - int(self.store.settings.age_s * 1000)
        claimed = self._claimed(shard, queue)
        rows: Any = self.store.redis.zrange(
            shard.queued(queue), "-inf", long_ago, byscore=True, offset=0, num=AGED, withscores=True
        )
        found = [(*_member(raw), int(score)) for raw, score in rows]
        for row, level in zip(found, self._levels(found), strict=True):
            if level > 0 and max(claimed[:level]) > row[3]:
                yield row

    def _levels(self, rows: Sequence[tuple[str, str, int, int]]) -> list[int]:
        """At which level each call stands in its queue."""
        pipe = self.store.redis.pipeline(transaction=False)
        for job, call, _, _ in rows:
            pipe.hget(self.store.ledger.keys(job).state, f"c:{call}")
        records = [(raw or b"").decode().split("|") for raw in (pipe.execute() if rows else ())]
        return [int(r[5]) if r[0] == "q" and r[5] else 0 for r in records]

    def _claimed(self, shard: Shard, queue: str) -> list[int]:
        """By level, when the youngest call of it that was claimed had been published."""
        return [int(mark or 0) for mark in self.store.redis.hmget(shard.marks, [f"{queue}|{level}" for level in LEVELS])]

    def _count_slots(self, shard: Shard, workers: Sequence[WorkerInfo]) -> None:
        """Says in the ledger how many calls each queue's workers run at once: its windows are multiples of that."""
        alive = Counter[str]()
        for worker in workers:
            alive[worker.queue] += worker.concurrency
        shards = self.store.settings.shards
        slots = {queue.encode(): b"%d" % -(-count // shards) for queue, count in alive.items()}
        if slots != self.store.redis.hgetall(shard.slots):
            self.store.redis.eval(_SET_SLOTS, 1, shard.slots, *(part for row in slots.items() for part in row))

    def _release(self, shard: Shard) -> int:
        """Lets in what is parked at gates that have room, in case nobody was told when it came free; some gates a look."""
        released, after = 0, self._gates_to.pop(shard, b"(k|\xff")  # those that wait for a key have their timer
        for _ in range(GATES):
            first = self.store.redis.zrangebylex(shard.parked, after, "+", start=0, num=1)
            if not first:
                return released
            gate, _, _ = first[0].partition(b"\n")
            after = b"(" + gate + b"\n\xff"
            try:
                done = self.store.ledger.release(first[0].decode())
            except NewerJob:
                continue
            released += done.verdict == "ok"
            follow(self.store.ledger, self.publisher, done)
        self._gates_to[shard] = after
        return released

    def _backlog(self, queue: str) -> int:
        """Messages of a queue that wait in the broker.

        RabbitMQ leaves out those that workers hold, so there a queue counts as empty once it was so for the grace time.
        """
        waiting = self.publisher.waiting(queue)
        if waiting or not self.store.settings.on_rabbitmq:
            self._empty_since.pop(queue, None)
            return waiting
        now = time.monotonic()
        return 0 if now - self._empty_since.setdefault(queue, now) >= self.store.settings.grace_s else 1

    def _repair(self, rows: Iterator[tuple[str, str, int, int]], kind: str, key: str) -> int:
        repaired = 0
        for job, call, attempt, seen in list(rows):
            try:
                done = self.store.ledger.repair(job, kind=kind, call=call, attempt=attempt, seen=seen)
            except NewerJob:  # during an upgrade: a newer reconciler repairs it
                continue
            repaired += done.verdict == "ok"
            if done.verdict == "stale":  # its job ended; a purged one does not know its queues any more
                self.store.redis.zrem(key, f"{job}|{call}|{attempt}")
            follow(self.store.ledger, self.publisher, done)
        return repaired

    def _wake_planner(self, shard: Shard, now: int, *, before: int) -> int:
        """Of what is new its message may be on its way; what was taken, or waits, is due at its time."""
        accepted = self.store.redis.zrange(shard.accepted, "-inf", before, byscore=True, offset=0, num=BATCH)
        taken = self.store.redis.zrange(shard.accepted, TAKEN, TAKEN + now, byscore=True, offset=0, num=BATCH)
        rows = [*accepted, *taken]
        if not rows or self._backlog(PLANNER):
            return 0
        for raw in rows:
            self.publisher.wake_planner(raw.decode())
        return len(rows)

    def _say_whether_served(self, shard: Shard, queue: str, now: int, *, served: bool) -> None:
        """Tells jobs whose calls wait that their queue has no worker, once, and takes it back when one comes."""
        if served:
            for job, field_name in [key for key in self._idle_said if key[1].endswith(f":{queue}")]:
                self._forget(job, field_name)
            return
        look = f"idle {shard.number} {queue}"
        rows = list(self._due(shard.queued(queue), now - int(self.store.settings.grace_s * 500), look=look))
        for job, step in {job: call.replace("#", ".").partition(".")[0] for job, call, _, _ in reversed(rows)}.items():
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


def _member(raw: bytes) -> tuple[str, str, int]:
    job, call, attempt = raw.decode().split("|")
    return job, call, int(attempt)


def start(reconciler: Reconciler) -> Callable[[], None]:
    """Runs a reconciler in a thread of its own; the answer stops it."""
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,), name="reconciler", daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(timeout=5)

    return end
