"""A worker's sign of life: who serves which queue, with which tools. It lapses by itself when the process dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.jobs.store import JobStore
from orchestrator.models.worker import WorkerInfo
from orchestrator.state.keys import WORKERS, WORKERS_INFO

ALIVE_MS = 6_000


class Presence:
    """Shown every few seconds by the beating thread."""

    def __init__(self, pool: str, *, concurrency: int, tools: Sequence[str]) -> None:
        host = socket.gethostname()
        self.info = WorkerInfo(
            id=f"{pool}-{os.getpid()}@{host}",
            host=host,
            pid=os.getpid(),
            pool=pool,
            queue=pool,
            concurrency=concurrency,
            tools=tuple(tools),
            since=datetime.now(UTC),
        )
        self._gone = False

    def show(self, store: JobStore) -> None:
        """Says that the worker is alive, and forgets those that died without a word; nothing once it was taken back."""
        if self._gone:
            return
        now = store.ledger.now_ms()
        pipe = store.redis.pipeline()
        stale = [w.decode() for w in store.redis.zrangebyscore(WORKERS, "-inf", now - 10 * ALIVE_MS)]
        if stale:
            pipe.zrem(WORKERS, *stale)
            pipe.hdel(WORKERS_INFO, *stale)
        pipe.zadd(WORKERS, {self.info.id: now + ALIVE_MS})  # last: this one may have slept so long itself
        pipe.hset(WORKERS_INFO, self.info.id, self.info.model_dump_json())
        pipe.execute()

    def withdraw(self, store: JobStore) -> None:
        """Takes the sign of life back, for good."""
        self._gone = True
        store.redis.zrem(WORKERS, self.info.id)
        store.redis.hdel(WORKERS_INFO, self.info.id)
