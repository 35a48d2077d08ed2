"""How much a tenant may use: requests a minute, active jobs, open streams, bytes. One tenant's flood is its own trouble."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from orchestrator.errors import PolicyError, QuotaExceeded, RateLimited
from orchestrator.models.access import Caller, Limits
from orchestrator.models.job import Priority
from orchestrator.policy.rates import JobRates
from orchestrator.policy.store import PolicyStore
from orchestrator.settings import KIB, MIB
from orchestrator.state.keys import active_jobs, request_bucket
from orchestrator.state.scripts import Scripts

LUA = Path(__file__).parent / "lua"
NO_LIMIT = -1
SWEEP_EVERY_S = 1.0  # a tenant at its limit of jobs is counted again at most so often
RESERVED_MS = 60_000  # a place that was reserved and never filled is given up after this
_ORDER: dict[Priority, int] = {"batch": 0, "normal": 1, "interactive": 2}
_RAISE = "Wait for some to end, or ask an admin for a higher limit: `toolweaver permissions set {tenant} --limit {name}=...`."

Ended = Callable[[Sequence[str]], Sequence[bool]]
"""Of each job, whether it has ended or is gone."""


def within(used: int, most: int | None) -> bool:
    """Whether one more than `used` is within a limit."""
    return most is None or most == NO_LIMIT or used < most


def check_priority(limits: Limits, priority: Priority) -> None:
    """Lets a priority pass that the tenant may use.

    Raises:
        PolicyError: it is higher.
    """
    highest = limits.priority or "interactive"
    if _ORDER[priority] > _ORDER[highest]:
        raise PolicyError(f"Jobs of this tenant have at most the priority `{highest}`.", path="priority", next=f"Use `{highest}`.")


def check_bytes(limits: Limits, *, used: int, more: int, tenant: str) -> None:
    """Lets a file of `more` bytes pass when it fits beside the `used` ones.

    Raises:
        QuotaExceeded: it does not.
    """
    most = limits.file_bytes
    if most is not None and most != NO_LIMIT and used + more > most:
        raise QuotaExceeded(
            f"The files of this tenant would have {_size(used + more)}; the limit is {_size(most)}.",
            path="file_bytes",
            next=f"Delete files, or ask an admin: `toolweaver permissions set {tenant} --limit file_bytes=...`.",
        )


class LimitKeeper:
    """The limits of all tenants, as one process of the API keeps them. A caller without a key has none."""

    def __init__(self, client: redis.Redis, policies: PolicyStore, *, ended: Ended, rates: JobRates) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, LUA)
        self._policies = policies
        self._ended = ended
        self._rates = rates
        self._streams: Counter[str] = Counter()
        self._swept: dict[str, float] = {}
        self._lock = threading.Lock()

    def of(self, caller: Caller) -> Limits:
        """The limits that hold for a caller; FILES asks this for `file_bytes`."""
        return self._policies.of(caller.tenant).limits if caller.limited else Limits()

    def take_request(self, caller: Caller) -> None:
        """Counts one request.

        Raises:
            RateLimited: the tenant made too many.
        """
        rate = self.of(caller).requests
        if rate is None or rate == NO_LIMIT:
            return
        wait_ms = self._scripts.call("take", [request_bucket(caller.tenant)], [rate, burst(rate)]) if rate else 60_000
        if wait_ms:
            raise RateLimited(
                f"This tenant made more than {rate} requests a minute.",
                retry_after_s=int(wait_ms) / 1000,
                next="Wait as long as `Retry-After` says; follow events instead of asking again and again.",
            )

    @contextmanager
    def new_job(self, caller: Caller) -> Iterator[Callable[[str], None]]:
        """`job_place` for a job that is submitted: it also counts among the jobs of this hour, if it is made.

        Raises:
            QuotaExceeded: the tenant has as many jobs as it may.
            RateLimited: as many were started in this hour as may be.
        """
        with self.job_place(caller) as fill, self._rates.job(caller) as made:

            def both(job: str) -> None:
                fill(job)
                made()

            yield both

    @contextmanager
    def job_place(self, caller: Caller) -> Iterator[Callable[[str], None]]:
        """A place for a job that becomes active in the block, which tells its id; without a new job the place is given back.

        Raises:
            QuotaExceeded: the tenant has as many as it may.
        """
        most = self.of(caller).jobs
        if most is None or most == NO_LIMIT:
            yield lambda _: None
            return
        key, token = active_jobs(caller.tenant), f"reserved {secrets.token_hex(8)}"
        made: list[str] = []
        if not self._reserve(caller.tenant, token, most) and not (
            self._sweep(caller.tenant) and self._reserve(caller.tenant, token, most)
        ):
            raise QuotaExceeded(
                f"This tenant has {most} jobs that have not ended, which is its limit.",
                path="jobs",
                next=_RAISE.format(tenant=caller.tenant, name="jobs"),
            )
        try:
            yield made.append
        finally:
            pipe = self._redis.pipeline()
            pipe.zrem(key, token)
            for job in made:
                pipe.zadd(key, {job: int(time.time() * 1000)})
            pipe.execute()

    @contextmanager
    def stream_place(self, caller: Caller, *, most: int | None) -> Iterator[None]:
        """A place among at most `most` open streams of events, for as long as the block runs; asks no store.

        Raises:
            QuotaExceeded: the tenant has as many as it may.
        """
        with self._lock:
            if not within(self._streams[caller.tenant], most):
                raise QuotaExceeded(
                    f"This tenant has {most} open streams of events here, which is its limit.",
                    path="streams",
                    next=_RAISE.format(tenant=caller.tenant, name="streams"),
                )
            self._streams[caller.tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[caller.tenant] -= 1

    def _reserve(self, tenant: str, token: str, most: int) -> bool:
        return bool(self._scripts.call("reserve", [active_jobs(tenant)], [token, most]))

    def _sweep(self, tenant: str) -> bool:
        """Takes out what has ended; False when that was done just now."""
        with self._lock:
            if time.monotonic() - self._swept.get(tenant, float("-inf")) < SWEEP_EVERY_S:
                return False
            self._swept[tenant] = time.monotonic()
        key = active_jobs(tenant)
        rows = [(m.decode(), int(at)) for m, at in self._redis.zrange(key, 0, -1, withscores=True)]
        jobs = [m for m, _ in rows if not m.startswith("reserved ")]
        over = [job for job, ended in zip(jobs, self._ended(jobs), strict=True) if ended]
        seconds, _ = self._redis.time()
        over += [m for m, at in rows if m.startswith("reserved ") and int(seconds) * 1000 - at > RESERVED_MS]
        for at in range(0, len(over), 1_000):
            self._redis.zrem(key, *over[at : at + 1_000])
        return True


def burst(rate: int) -> int:
    """How many requests may come at once: those of ten seconds, ten at least."""
    return max(10, rate // 6)


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
