"""Jobs of programs that run while the processes around them are killed, the person who settles payments, and the audit."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.models.job import JobStatus
from tests.faults.load import QUIET_S
from tests.processes import Platform

CALLS = """
import asyncio
first = await get_expenses("a0", wait_s=0.1)
found = await asyncio.gather(*[get_expenses(f"b{n}", wait_s=0.2 + 0.1 * n) for n in range(6)])
last = [await get_expenses(f"c{n}", wait_s=0.1) for n in range(3)]
output = sum(x["total"] for x in [first, *found, *last])
"""
EACH = """
got = await get_expenses(f"m{input_data}", wait_s=0.2)
input_data * 2 + got["total"]
"""
BUSY = """
output = 0
for n in range(3_000_000):
    output = (output * 31 + n) % 1_000_003
"""
ENDLESS = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
PAYMENT = """
before = await get_expenses("d0")
paid = await pay(7, wait_s=2.0)
after = await get_expenses("d1")
output = [before["total"], paid, after["total"]]
"""
TIMEOUT = "timeout"
PAID = "paid 7"
RETRIES = {"max": 50, "backoff_s": 0.3, "max_backoff_s": 3.0}  # whoever is struck again and again comes back again and again


def _busy() -> int:
    found = 0
    for n in range(3_000_000):
        found = (found * 31 + n) % 1_000_003
    return found


def _step(code: str, **more: Any) -> dict[str, Any]:
    words = {"code": {"$literal": code}, **more.pop("input", {})}
    return {"id": "p", "tool": "code_exec", "input": words, "retry": RETRIES, **more}


@dataclass(frozen=True)
class Kind:
    """A program, what it comes to (or the code that it fails with), and whom it calls."""

    step: Mapping[str, Any]
    right: Any
    calls: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "calls": Kind(_step(CALLS), 2000, ("a0", *(f"b{n}" for n in range(6)), *(f"c{n}" for n in range(3)))),
    "map in one container": Kind(
        _step(EACH, map="input:xs", input={"input_data": "item", "isolation": "job"}),
        [2 * n + 200 for n in range(6)],
        tuple(f"m{n}" for n in range(6)),
        {"xs": list(range(6))},
    ),
    "busy": Kind(_step(BUSY), _busy()),
    "endless": Kind(_step(ENDLESS, input={"limits": {"timeout_s": 2}}), TIMEOUT),
    "payment": Kind(_step(PAYMENT), [200, 7, 200], ("d0", PAID, "d1")),
}
ORDER = ("calls", "map in one container", "calls", "busy", "payment", "endless")


@dataclass
class Job:
    """One job, and when it began and ended by this clock."""

    id: str
    kind: Kind
    began: float
    ended: float | None = None
    asked: float | None = None  # since when it waits for a person


class ProgramLoad:
    """A few jobs at a time, a new one for each that ends, for as long as they are wanted."""

    def __init__(self, p: Platform, *, at_once: int, rng: random.Random) -> None:
        self.p, self.at_once = p, at_once
        self.jobs: list[Job] = []
        self.unknown = 0
        self._kinds = itertools.cycle(rng.sample(ORDER, len(ORDER)))

    def live(self) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in self.jobs if job.ended is None]

    def look(self, *, more: bool = True) -> None:
        """Notes what ended, settles what is unknown, submits what is missing."""
        for job in self.live():
            status = self.p.store.status(job.id)
            if status.final:
                job.ended = time.monotonic()
            elif status is JobStatus.WAITING:
                self._settle(job)
        for _ in range(self.at_once - len(self.live()) if more else 0):
            self._submit()

    def _submit(self) -> None:
        kind = KINDS[next(self._kinds)]
        id = self.p.submit([dict(kind.step)], inputs=dict(kind.inputs))
        self.jobs.append(Job(id, kind, time.monotonic()))

    def _settle(self, job: Job) -> None:
        """As a person would: looks into the books of the other side, once nothing is on its way any more."""
        unknown = [c for c in self.p.store.calls(job.id) if c.state == "unknown" and c.parent is not None]
        if not unknown:
            return
        job.asked = job.asked or time.monotonic()
        if time.monotonic() - job.asked < QUIET_S:
            return
        happened = PAID in self.notes(job)
        self.p.control.resolve(job.id, unknown[0].call, happened=happened, result=7 if happened else None)
        self.unknown += 1
        job.asked = None

    def notes(self, job: Job) -> Counter[str]:
        """What bodies of the job's calls noted, and how often."""
        rows = [row.decode().removeprefix("expenses ") for row in self.p.client.lrange(f"test:{job.id}", 0, -1)]
        return Counter(row for row in rows if row != "cancelled")

    def audit(self) -> int:
        """Every job ended as it should, and made each call once or, where its body was struck, again; how many began again."""
        return sum(self._audit(job) for job in self.jobs)

    def _audit(self, job: Job) -> int:
        store, kind = self.p.store, job.kind
        view, notes = store.view(job.id), self.notes(job)
        told = (view, [str(c) for c in store.calls(job.id)], notes)
        if kind.right == TIMEOUT:
            assert view.status is JobStatus.FAILED, told
            assert view.error is not None, told
            assert view.error.code == TIMEOUT, told
        else:
            assert view.status is JobStatus.SUCCEEDED, told
            assert store.result(job.id).steps["p"] == kind.right, told
        attempts = {self._whom(job, c.call): c.attempt for c in store.calls(job.id) if c.parent is not None}
        assert sorted(attempts) == sorted(kind.calls), told
        assert sorted(notes) == sorted(kind.calls), told
        assert all(notes[name] <= attempts[name] for name in attempts), told
        assert notes[PAID] <= 1, told
        return sum(notes.values()) - len(notes)

    def _whom(self, job: Job, call: str) -> str:
        spec = self.p.store.child_spec(job.id, call)
        return PAID if spec["tool"] == "pay" else str(spec["input"]["user_id"]["$literal"])

    def stuck(self) -> str:
        """What has not ended, for the message of a test that fails."""
        store = self.p.store
        return "\n".join(f"{store.view(j.id)}\n{[str(c) for c in store.calls(j.id)]}" for j in self.live()[:3])


def slowest(jobs: list[Job], when: Callable[[Job], float | None]) -> float | None:
    """The longest time from `when` to the end of a job."""
    return max((job.ended - since for job in jobs if job.ended is not None and (since := when(job)) is not None), default=None)
