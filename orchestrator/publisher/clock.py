"""When the clock of Redis jumps: noticed by comparing it with the monotonic clock of this process, and set right.

Leases, timers and the outbox carry Redis TIME. After a jump forward every lease looks expired although its call beats;
after one back, what is lost would look alive for as long as the jump was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.jobs.store import JobStore
from orchestrator.state.keys import WORKERS, Shard

log = logging.getLogger(__name__)

NOTICED_MS = 500  # between two looks; slewing by NTP is far below
_BATCH = 1_000
_SCORES = """#!lua flags=allow-oom
redis.call('ZADD', KEYS[1], 'XX', unpack(ARGV))
"""


@dataclass
class ClockWatch:
    """Notices jumps from look to look, and says for how long leases are not to be trusted after one."""

    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[Shard, tuple[float, int]] = field(default_factory=dict)
    _jumped_at: dict[Shard, float] = field(default_factory=dict)

    def jumped_ms(self, shard: Shard, now_ms: int) -> int:
        """By how much Redis TIME jumped since the last look; 0 when it did not."""
        here = self.monotonic()
        before = self._seen.get(shard)
        self._seen[shard] = (here, now_ms)
        if before is None:
            return 0
        drift = (now_ms - before[1]) - int((here - before[0]) * 1000)
        if abs(drift) < NOTICED_MS:
            return 0
        self._jumped_at[shard] = here
        return drift

    def waits(self, shard: Shard, lease_s: float) -> bool:
        """Whether the clock jumped less than a lease ago."""
        at = self._jumped_at.get(shard)
        return at is not None and self.monotonic() - at < lease_s


def set_right(store: JobStore, shard: Shard, *, now: int, jumped_ms: int) -> None:
    """Moves what carries the old time to the new one."""
    log.warning("the clock of Redis jumped by %+.1f s", jumped_ms / 1000, extra={"action": "clock_jump"})
    lease = int(store.settings.lease_s * 1000)
    if jumped_ms > 0:
        _shift(store, shard.leases, up_to=now, by=jumped_ms)
        return
    _shift(store, shard.timers, above=now, by=jumped_ms)
    _shift(store, shard.accepted, above=now, by=jumped_ms)
    _clamp(store, shard.leases, at_most=now + lease)
    for raw in store.redis.smembers(shard.queues):
        _clamp(store, shard.queued(raw.decode()), at_most=now)
    _clamp(store, WORKERS, at_most=now + lease)
    store.redis.delete(shard.marks)  # publish times of the old clock would overtake everything


def _shift(store: JobStore, key: str, *, by: int, up_to: int | None = None, above: int | None = None) -> None:
    low, high = ("-inf", str(up_to)) if above is None else (f"({above}", "+inf")
    rows: Any = store.redis.zrange(key, low, high, byscore=True, withscores=True)
    _move(store, key, {member: score + by for member, score in rows})


def _clamp(store: JobStore, key: str, *, at_most: int) -> None:
    rows: Any = store.redis.zrange(key, f"({at_most}", "+inf", byscore=True)
    _move(store, key, dict.fromkeys(rows, at_most))


def _move(store: JobStore, key: str, scores: dict[bytes, float]) -> None:
    members = list(scores)
    for at in range(0, len(members), _BATCH):
        rows = [part for m in members[at : at + _BATCH] for part in (int(scores[m]), m)]
        store.redis.eval(_SCORES, 1, key, *rows)
