"""What is left of jobs when their time is over: their places in lists, their files; and all of a tenant, when it leaves.

A job's own keys expire by themselves, `retention_s` after its end. What else names it is taken away here, a little at a
time, by the reconciler that leads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import BackendError
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import Purged
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.state.keys import Shard, all_shards, job_keys

EVERY_S = 5.0
BATCH = 500


@dataclass
class Housekeeper:
    """Trims what expired jobs leave behind; `look` does a bounded part of it, at most every `EVERY_S` seconds."""

    store: JobStore
    monotonic: Callable[[], float] = time.monotonic
    _next: dict[Shard, float] = field(default_factory=dict)
    _read_to: dict[tuple[Shard, str], int] = field(default_factory=dict)
    _swept_to: dict[str, bytes] = field(default_factory=dict)

    def look(self, shard: Shard) -> None:
        """One part of the work on a shard, when it is time."""
        if self.monotonic() < self._next.get(shard, 0.0):
            return
        self._next[shard] = self.monotonic() + min(EVERY_S, self.store.settings.retention_s / 4)
        for raw in self.store.redis.smembers(shard.tenants):
            self._trim(shard, raw.decode())
        self._sweep_keys(shard.held, shard.leases)
        self._sweep_keys(shard.parked, shard.timers)
        try:
            self.store.files.blobs.sweep(BATCH)
        except BackendError:
            return  # the blob store is away: later

    def _trim(self, shard: Shard, tenant: str) -> None:
        """Takes jobs that are gone out of the tenant's list, from its old end on, a batch a look."""
        index, place = shard.index(tenant), (shard, tenant)
        at = self._read_to.pop(place, 0)
        jobs = self.store.redis.zrange(index, at, at + BATCH - 1)
        pipe = self.store.redis.pipeline(transaction=False)
        for raw in jobs:
            pipe.exists(job_keys(raw.decode(), self.store.settings.shards).state)
        gone = [raw for raw, there in zip(jobs, pipe.execute() if jobs else (), strict=True) if not there]
        if gone:
            self.store.redis.zrem(index, *gone)
        if len(jobs) == BATCH:
            self._read_to[place] = at + BATCH - len(gone)
        if not jobs and at == 0:
            self._forget(shard, tenant)

    def _sweep_keys(self, key: str, alive: str) -> None:
        """Keys of tools that are held, or waited for, by calls of jobs that are gone: nobody may ever ask for them again."""
        after = self.store.redis.eval(_SWEEP, 2, key, alive, self._swept_to.pop(key, b"-"), BATCH)
        if after:
            self._swept_to[key] = b"(" + after

    def _forget(self, shard: Shard, tenant: str) -> None:
        """Forgets a tenant without jobs; one that submits in between is noted again by its next submission."""
        self.store.redis.eval(_FORGET, 2, shard.index(tenant), shard.tenants, tenant)


_FORGET = """#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
"""


# `k|tool|key\njob|call|attempt`, beside a lease, or `k|tool|key\nsince\njob\ncall|attempt`, beside a timer.
_SWEEP = """#!lua flags=allow-oom
local rows = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '(k|\\255', 'LIMIT', 0, ARGV[2])
for _, row in ipairs(rows) do
  local who = string.gsub(string.match(row, '^[^\\n]*\\n(.*)$'), '^%d+\\n([^\\n]*)\\n', '%1|')
  if not redis.call('ZSCORE', KEYS[2], who) then redis.call('ZREM', KEYS[1], row) end
end
return #rows == tonumber(ARGV[2]) and rows[#rows] or ''
"""


def purge_tenant(store: JobStore, publisher: Publisher, tenant: str) -> Purged:
    """Cancels what a tenant runs and deletes what is kept of it: jobs, results, events, idempotency keys, files.

    Its keys of the API, its permissions and its audit log stay. What it submits meanwhile may stay too.
    """
    jobs = cancelled = 0
    for shard in all_shards(store.settings.shards):
        for job in _jobs(store, shard, tenant):
            keys = job_keys(job, store.settings.shards)
            ended = store.ledger.cancel(job)
            cancelled += ended.verdict in ("planning", "running", "waiting")
            follow(store.ledger, publisher, ended)
            store.redis.unlink(keys.state, keys.data, keys.events, keys.big)
            store.redis.zrem(shard.index(tenant), job)
            jobs += 1
        for batch in _batches(store.redis.scan_iter(shard.idempotency(tenant, "*"), count=BATCH)):
            store.redis.unlink(*batch)
    return Purged(tenant=tenant, jobs=jobs, cancelled=cancelled, files=store.files.blobs.books.expire(tenant))


def _jobs(store: JobStore, shard: Shard, tenant: str) -> Iterator[str]:
    """All jobs of the list, which shrinks while it is read."""
    while rows := store.redis.zrange(shard.index(tenant), 0, BATCH - 1):
        yield from (raw.decode() for raw in rows)


def _batches(keys: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for key in keys:
        batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
