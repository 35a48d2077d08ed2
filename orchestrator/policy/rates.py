"""How many jobs and programs are started an hour: by one key, by a tenant, by all. Calls do not count, nor does who needs no key.

A sliding window by the clock of Redis, exact: in no hour are there more. One script asks all three windows, and counts in all
or in none. A program counts when it runs, but for the first of a job, which its job stands for: so a job that is one program
counts once. A program that runs again, since its container was lost, is the same one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import redis

from orchestrator.errors import RateLimited
from orchestrator.models.access import Caller
from orchestrator.policy.store import PolicyStore
from orchestrator.settings import Settings
from orchestrator.state.keys import covered_program, started_by
from orchestrator.state.scripts import Scripts

LUA = Path(__file__).parent / "lua"
HOUR_S = 3_600.0
COVERED_S = 8 * 86_400.0  # longer than jobs run
ANY = -1

Level = Literal["user", "tenant", "global"]
_LEVELS: tuple[Level, ...] = ("user", "tenant", "global")
_WHO = {"user": "This key", "tenant": "This tenant", "global": "All tenants together"}
_RAISE = {
    "user": "or ask an admin for more: `toolweaver permissions set {tenant} --limit user_jobs_per_hour=...`",
    "tenant": "or ask an admin for more: `toolweaver permissions set {tenant} --limit jobs_per_hour=...`",
    "global": "or ask the operator for a higher `TOOLWEAVER_RATE_GLOBAL_PER_HOUR`",
}


class JobRates:
    """The rates of all callers. Each method blocks for one round trip.

    Args:
        window_s: The time that the limits are meant for; other than an hour only in tests.
    """

    def __init__(
        self, client: redis.Redis, settings: Settings, *, policies: PolicyStore | None = None, window_s: float = HOUR_S
    ) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, LUA)
        self._policies = policies or PolicyStore(client, settings)
        self._global, self._window_ms = settings.rate_global_per_hour, round(window_s * 1000)

    def take(self, caller: Caller) -> None:
        """Counts one job of a caller.

        Raises:
            RateLimited: there are as many as there may be; it says of whom, and when there is room again.
            redis.RedisError: Redis does not answer.
        """
        self._take(caller.tenant, caller.key, f"j{secrets.token_hex(6)}")

    @contextmanager
    def job(self, caller: Caller) -> Iterator[Callable[[], None]]:
        """Counts the job that is made in the block, which says so; without a new job nothing was counted.

        Raises:
            RateLimited: there are as many as there may be.
        """
        name = f"j{secrets.token_hex(6)}"
        made: list[bool] = []
        self._take(caller.tenant, caller.key, name)
        try:
            yield lambda: made.append(True)
        finally:
            if not made and caller.limited:
                self._give_back(caller, name)

    def take_program(self, *, tenant: str, called: Sequence[str], job: str, call: str) -> None:
        """Counts a program that a call of a job runs; `called` is who submitted the job (`JobStore.caller`).

        Raises:
            RateLimited: there are as many as there may be.
        """
        key = "" if tuple(called) == ("direct",) else called[0]
        self._take(tenant, key, f"p{job}/{call}", covered=covered_program(job))

    def _take(self, tenant: str, key: str, name: str, *, covered: str | None = None) -> None:
        if not key:
            return
        limits = self._policies.of(tenant).limits
        most = [ANY if n is None else n for n in (limits.user_jobs_per_hour, limits.jobs_per_hour, self._global)]
        keys = [*_windows(tenant, key), covered or covered_program("")]
        kept = "" if covered is None else round(COVERED_S * 1000)
        if answer := self._scripts.call("rate_take", keys, [name, self._window_ms, *most, kept]):
            which, wait_ms = answer
            raise _refusal(_LEVELS[which - 1], most[which - 1], wait_ms / 1000, tenant)

    def _give_back(self, caller: Caller, name: str) -> None:
        pipe = self._redis.pipeline()
        for window in _windows(caller.tenant, caller.key):
            pipe.zrem(window, name)
        pipe.execute()


def _windows(tenant: str, key: str) -> tuple[str, str, str]:
    return started_by(f"user:{key}"), started_by(f"tenant:{tenant}"), started_by("all")


def _refusal(level: Level, most: int, wait_s: float, tenant: str) -> RateLimited:
    return RateLimited(
        f"{_WHO[level]} may start {most:,} jobs and programs an hour, and did.",
        path={"user": "user_jobs_per_hour", "tenant": "jobs_per_hour", "global": "rate_global_per_hour"}[level],
        retry_after_s=wait_s,
        next=f"Wait {_span(wait_s)}, {_RAISE[level].format(tenant=tenant)}.",
    )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
