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
# Its own sign comes last: it may have slept so long itself. A full store must not take its workers for dead.
_SHOW = """#!lua flags=allow-oom
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 10 * tonumber(ARGV[3]))) do
  redis.call('ZREM', KEYS[1], gone); redis.call('HDEL', KEYS[2], gone)
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
"""


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

    def show(self, store: JobStore, *, tools: Sequence[str] | None = None) -> None:
        """Says that the worker is alive, and forgets those that died without a word; nothing once it was taken back.

        `tools`: those that it serves now, where they are others than at its start.
        """
        if self._gone:
            return
        if tools is not None and tuple(tools) != self.info.tools:
            self.info = self.info.model_copy(update={"tools": tuple(tools)})
        store.redis.eval(_SHOW, 2, WORKERS, WORKERS_INFO, self.info.id, self.info.model_dump_json(), ALIVE_MS)

    def withdraw(self, store: JobStore) -> None:
        """Takes the sign of life back, for good."""
        self._gone = True
        store.redis.zrem(WORKERS, self.info.id)
        store.redis.hdel(WORKERS_INFO, self.info.id)
