"""Jobs of mixed effects that run while a fault strikes, the person who settles what is unknown, and the audit afterwards."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.jobs.events import EventReader
from orchestrator.models.job import FINAL_STATUSES, CallState, JobStatus
from tests.effects import Body
from tests.processes import Platform
from tests.support import wait_until

AFTER: Mapping[str, tuple[str, ...]] = {
    "a": (), "b": ("a",), "c": ("a",), "d": ("a",), "e": ("b", "c", "d"), "f": ("e",), "g": ("f",),
}  # fmt: skip
TOOLS: Mapping[str, str] = {
    "a": "work", "b": "work_idempotent", "c": "work_once",
    "d": "work_async", "e": "work_async_idempotent", "f": "work_async_once", "g": "work",
}  # fmt: skip
QUIET_S = 2.0  # so long after a fault nothing is on its way any more that could still begin a body


def seven_steps(*, seconds: float = 0.03, tools: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """a -> b, c, d -> e -> f -> g, of mixed effects, on two pools; `tools` replaces that of a step."""
    chosen = {**TOOLS, **(tools or {})}
    timed = {step: {"seconds": seconds} if tool.startswith("work") else {} for step, tool in chosen.items()}
    return [{"id": s, "tool": chosen[s], "input": timed[s], "depends_on": list(after)} for s, after in AFTER.items()]


class Load:
    """Jobs of seven steps on a platform."""

    def __init__(self, p: Platform, *, seconds: float = 0.03, tools: Mapping[str, str] | None = None, seed: int = 7) -> None:
        self.p, self.steps, self.rng = p, seven_steps(seconds=seconds, tools=tools), random.Random(seed)
        self.jobs: list[str] = []
        self.strikes: list[float] = []
        self.unknown = 0
        self.victims: tuple[str, ...] = ("one", "two")  # workers whose children are killed
        self._ended: set[str] = set()

    def submit(self, jobs: int) -> None:
        """Submits so many more."""
        self.jobs += [self.p.submit(self.steps) for _ in range(jobs)]

    def ended(self) -> bool:
        """Whether all of them have ended."""
        left = [job for job in self.jobs if job not in self._ended]
        pipe = self.p.store.redis.pipeline(transaction=False)
        for job in left:
            pipe.hget(self.p.store.ledger.keys(job).state, "st")
        found = dict(zip(left, pipe.execute(), strict=True))
        self._ended |= {job for job, status in found.items() if status and JobStatus(status.decode()) in FINAL_STATUSES}
        return len(self._ended) == len(self.jobs)

    def running(self) -> list[Body]:
        """The bodies of its jobs that run now."""
        jobs = set(self.jobs)
        return [b for b in self.p.effects.bodies() if b.job in jobs and not b.over]

    def wait_busy(self) -> None:
        """Waits until a body runs, or nothing is left to run."""
        wait_until(lambda: self.running() or self.ended() or self._waits_for_person(), description="a body runs", timeout=60)

    def finish(self, *, timeout: float = 240) -> None:
        """Waits for the end of all jobs; a person settles what is unknown."""
        pass_time(QUIET_S if self._unknown() else 0)

        def done() -> bool:
            self.settle()
            return self.ended()

        try:
            wait_until(done, description="all jobs end", timeout=timeout, every=0.1)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self._stuck()}\n{self.p.logs()}") from None

    def audit(self) -> None:
        """0 lost, 0 stuck, 0 committed twice, no `once` effect repeated; and the books are even."""
        reader = EventReader(self.p.settings)
        for job in self.jobs:
            self.audit_job(job, reader)
        self.audit_books()
        known = {j.id for j in self.p.store.list(limit=100_000).jobs}
        assert known.issuperset(self.jobs)

    def audit_books(self) -> None:
        """Nothing is left of ended jobs in what all jobs share."""
        try:
            wait_until(lambda: not self._left_over(), description="the books are even", timeout=30)
        except AssertionError:
            raise AssertionError(f"left in the books: {self._left_over()}") from None

    def forget(self, job: str) -> None:
        """Drops a job that was audited."""
        self.jobs.remove(job)
        self._ended.discard(job)
        self.p.effects.forget(job)

    def repeats(self) -> int:
        """How many bodies began again."""
        return sum(n - 1 for n in Counter((b.job, b.call) for b in self._bodies()).values())

    def next_attempts(self) -> list[float]:
        """Of each body that began again, the seconds since the last strike that came before."""
        found: list[float] = []
        last: dict[tuple[str, str], Body] = {}
        for body in self._bodies():
            before = last.get((body.job, body.call))
            strikes = [s for s in self.strikes if before and before.began <= s <= body.began]
            if strikes and body.effect != "once":  # a person decides about those, in his own time
                found.append(body.began - strikes[0])
            last[(body.job, body.call)] = body
        return found

    def _bodies(self) -> list[Body]:
        jobs = set(self.jobs)
        return [b for b in self.p.effects.bodies() if b.job in jobs]

    def _unknown(self) -> Iterable[tuple[str, str]]:
        waiting = [j for j in self.jobs if j not in self._ended]
        return [(j, c.call) for j in waiting for c in self.p.store.calls(j, state=CallState.UNKNOWN)]

    def _waits_for_person(self) -> bool:
        left = [j for j in self.jobs if j not in self._ended]
        return bool(left) and all(self.p.store.status(j) is JobStatus.WAITING for j in left)

    def settle(self) -> None:
        """Looks into the database of effects, as a person would, once nothing runs that could still change it."""
        for job, call in self._unknown():
            if all(body.over for body in self.p.effects.bodies(job, call)):
                happened = self.p.effects.attempts(job, call)
                self.p.control.resolve(job, call, happened=bool(happened), result=happened[0] if happened else None)
                self.unknown += 1

    def _stuck(self) -> str:
        stuck = [j for j in self.jobs if j not in self._ended][:3]
        return "\n".join(f"{self.p.store.view(j)}\n{[str(c) for c in self.p.store.calls(j)]}" for j in stuck)

    def audit_job(self, job: str, reader: EventReader) -> None:
        store = self.p.store
        view = store.view(job)
        assert view.status is JobStatus.SUCCEEDED, (view, self.p.logs())
        commits = Counter(e.step for e in reader.read(job, limit=10_000) if e.type == "step.succeeded")
        assert commits == Counter(dict.fromkeys(AFTER, 1)), "each step is committed once"
        raw: Mapping[bytes, bytes] = store.redis.hgetall(store.ledger.keys(job).state)
        uneven = {k: v for k, v in raw.items() if (k in (b"live", b"un") or k.startswith(b"w:")) and v != b"0"}
        assert not uneven, f"{job} counts {uneven}"
        calls = {c.step: c for c in store.calls(job)}
        assert store.result(job).steps == {s: calls[s].attempt for s in AFTER}, "the result is that of the last attempt"
        for step in self.steps:
            self._audit_effect(job, f"{step['id']}#0", step["tool"])

    def _audit_effect(self, job: str, call: str, tool: str) -> None:
        effects = self.p.effects
        assert effects.bodies(job, call), f"{job}/{call} succeeded without a body"
        if tool.endswith("once"):
            assert len(effects.attempts(job, call)) == 1, (
                f"the effect of {job}/{call} happened in attempts {effects.attempts(job, call)}"
            )
        if tool.endswith("idempotent"):
            assert effects.keyed(f"{job}/{call}") == 1

    def _left_over(self) -> dict[str, Any]:
        """What is still open in the books that jobs share."""
        client, left = self.p.store.redis, {}
        for key in client.scan_iter("tw:{s*", count=10_000):
            name = key.decode().partition("}:")[2]
            if name in ("leases", "timers", "accepted", "held") or name.startswith(("queued:", "parked")):
                left[key] = client.exists(key) and _size(client, key)
            elif name.startswith("load"):
                left[key] = {k: v for k, v in client.hgetall(key).items() if v != b"0"}
        return {key: value for key, value in left.items() if value}


def _size(client: Any, key: bytes) -> Any:
    kind = client.type(key)
    return {b"zset": client.zcard, b"hash": client.hlen, b"list": client.llen, b"set": client.scard}.get(kind, client.exists)(key)


def pass_time(seconds: float) -> None:
    """Lets the platform work on."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, description=f"{seconds} s pass", timeout=seconds + 5)
