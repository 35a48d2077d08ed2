"""The soak: jobs of mixed shapes keep coming while random faults strike at random times; memory stays flat, keys go away.

    make soak              # ten minutes; SOAK_S=60 for another length, SOAK_BROKER=rabbitmq for another broker
    python -m tests.soak   # the same

Processes that no fault kills are measured: a worker with its children, an async worker, a planner, the API, the server. The others
are killed, paused and cut off. The exit code is 0 when every job ended as it should, no measured process grew, and after the
retention Redis holds what it held at the start.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from orchestrator.client import Client
from orchestrator.errors import Conflict, ToolWeaverError
from orchestrator.jobs.events import EventReader
from orchestrator.models.job import JobStatus
from orchestrator.state.keys import all_shards
from tests.faults import strikes as do
from tests.faults.load import QUIET_S, Load, pass_time, seven_steps
from tests.faults.messages import double
from tests.faults.strikes import Strike
from tests.processes import SERVER, Broker, Platform, platform
from tests.support import wait_until

SECONDS = float(os.environ.get("SOAK_S", "600"))
BROKER: Any = os.environ.get("SOAK_BROKER", "direct")
ACTIVE = 12  # jobs at a time
EVERY_S = (2.0, 6.0)  # between two faults
RETENTION_S = 60  # the shortest that can be set
KEPT_BYTES = 2 << 20  # so that this cache is full before the warm-up ends
WARM_UP = 0.3  # of the time: until then caches fill
MOST_GROWTH = 0.1  # of a process's memory, over the time that is measured ...
LEAST_MIB = 8.0  # ... or so much: what a garbage collector leaves lying about
SPARED = ("two", "loop", "planner", "api")
USED = "Redis used_memory"
REDIS = (SERVER, USED)
# What grows, but not for ever: a log with a longest length, a mark per queue and level. And kombu's own list of the
# mailboxes of workers, in which those that were killed stay: some 60 bytes each.
BOUNDED = ("tw:audit:", "tw:{s0}:marks", "_kombu.binding.celery.pidbox")
MIB = 1 << 20


def worker_killed(load: Load) -> int:
    load.p.restart("one")
    return 1


def planner_killed(load: Load) -> int:
    load.p.restart("planner2")
    return 1


def slow_for_a_while(load: Load) -> int:
    with do.slow_network(load):
        pass_time(3.0)
    return 1


def doubled(load: Load) -> int:
    return double(load.p, set())


FAULTS: Mapping[str, Strike] = {
    "kill -9 worker": worker_killed,
    "kill -9 pool child": do.child_killed,
    "kill -9 planner": planner_killed,
    "messages discarded": do.messages_discarded,
    "messages doubled": doubled,
    "connections cut": do.connections_cut,
    "network swallows": do.network_swallows,
    "network slow": slow_for_a_while,
    "worker paused past its lease": do.worker_paused,
    "async worker paused past its lease": do.async_worker_paused,
    "pool child paused past its lease": do.child_paused,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of job: its plan, how it shall end."""

    name: str
    steps: Sequence[Mapping[str, Any]]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    ends: JobStatus = JobStatus.SUCCEEDED


def map_of(tool: str, items: int, seconds: float) -> list[dict[str, Any]]:
    """A map and a step behind it."""
    return [
        {"id": "each", "tool": tool, "map": "input:xs", "input": {"seconds": seconds}},
        {"id": "last", "tool": "nap", "depends_on": ["each"]},
    ]


SEVEN = Shape("seven steps", seven_steps(seconds=0.02))
CANCELLED = Shape("cancelled", map_of("work", 100, 5.0), {"xs": [0] * 100}, JobStatus.CANCELLED)
SHAPES = (
    SEVEN,
    SEVEN,
    SEVEN,
    Shape("map", map_of("work", 100, 0.005), {"xs": list(range(100))}),
    Shape("retries", [{"id": "a", "tool": "fails_at_first", "input": {"times": 1}, "retry": {"max": 5, "backoff_s": 0.2}}]),
    Shape(
        "long values",
        [{"id": "a", "tool": "long_text", "input": {"kib": 200}}, {"id": "b", "tool": "measure", "input": {"text": "step:a"}}],
    ),
    CANCELLED,
)


class Soak:
    """The run: `jobs` in the main thread, faults in another one."""

    def __init__(self, p: Platform, *, seconds: float, seed: int = 11) -> None:
        self.p, self.rng, self.seconds = p, random.Random(seed), seconds
        self.load = Load(p, seed=seed)
        self.load.victims = ("one",)
        self.client = Client(p.api.url)
        self.struck: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.memory = Memory(p)
        self._shapes: dict[str, Shape] = {}
        self._reader = EventReader(p.settings)
        self._calm_since = time.monotonic()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Jobs and faults for as long as asked; then the last jobs end."""
        end = time.monotonic() + self.seconds
        striker = threading.Thread(target=self._strike_until, args=(end - 5.0,), name="faults")
        striker.start()
        try:
            while time.monotonic() < end:
                self._top_up()
                self._look()
        finally:
            striker.join()
        if self._failure is not None:
            raise self._failure
        wait_until(self._look, description=f"the last jobs end: {self.load.jobs}", timeout=180)
        self.load.audit_books()

    def warm_up(self) -> None:
        """One job of each shape, so that keys which stay for ever are there."""
        for shape in SHAPES:
            self._submit(shape)
        wait_until(self._look, description="a job of each shape ends", timeout=120)
        self.ended.clear()

    def _top_up(self) -> None:
        for _ in range(ACTIVE - len(self.load.jobs)):
            self._submit(self.rng.choice(SHAPES))

    def _submit(self, shape: Shape) -> None:
        key = f"{self.rng.random()}"
        plan = {"steps": shape.steps}
        job = persist(lambda: self.client.submit(plan, inputs=shape.inputs, idempotency_key=key).id)
        self._shapes[job] = shape
        self.load.jobs.append(job)

    def _look(self) -> bool:
        """Settles, cancels, audits what ended; whether nothing is left."""
        self.memory.sample()
        if time.monotonic() - self._calm_since > QUIET_S:
            self.load.settle()
        for job in list(self.load.jobs):
            self._look_at(job)
        pass_time(0.1)
        return not self.load.jobs

    def _look_at(self, job: str) -> None:
        shape, status = self._shapes[job], self.p.store.status(job)
        if shape is CANCELLED and status is JobStatus.RUNNING and self.p.effects.bodies(job):
            persist(lambda: self._cancel(job))
        if not status.final:
            return
        assert status is shape.ends, (shape.name, self.p.store.view(job), self.p.logs())
        if shape is SEVEN:
            self.load.audit_job(job, self._reader)
        self.ended[shape.name] += 1
        self.load.forget(job)

    def _cancel(self, job: str) -> None:
        try:
            self.client.job(job).cancel()
        except Conflict:  # an earlier try came through
            return

    def _strike_until(self, end: float) -> None:
        try:
            while time.monotonic() + EVERY_S[1] < end:
                pass_time(self.rng.uniform(*EVERY_S))
                name = self.rng.choice(list(FAULTS))
                self._calm_since = float("inf")
                self.struck[name] += bool(FAULTS[name](self.load))
                self._calm_since = time.monotonic()
        except BaseException as error:  # told in the main thread
            self._failure = error


def persist(what: Callable[[], Any]) -> Any:
    """Asks again for as long as the platform is away, as a user would."""
    while True:
        try:
            return what()
        except ToolWeaverError as error:
            if not error.retryable:
                raise


class Memory:
    """RSS of the processes that are spared, and what Redis uses, over time."""

    def __init__(self, p: Platform) -> None:
        self._p = p
        self._began = self._last = time.monotonic()
        self.series: dict[str, list[tuple[float, float]]] = {}

    def sample(self) -> None:
        """Once a second at most."""
        now = time.monotonic()
        if now - self._last < 1.0:
            return
        self._last = now
        for name, process in self._processes():
            try:
                self._add(name, process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        self._add(USED, int(self._p.client.info("memory")["used_memory"]))

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for name in (*SPARED, SERVER):
            process = psutil.Process(self._p.processes[name].pid)
            yield name, process
            for n, child in enumerate(sorted(process.children(), key=lambda c: c.pid) if name == "two" else ()):
                yield f"{name}, child {n + 1}", child

    def _add(self, name: str, size: int) -> None:
        self.series.setdefault(name, []).append((time.monotonic() - self._began, size / MIB))

    def table(self) -> list[str]:
        """Start, middle, end and slope of each."""
        lines = [f"{'MiB':<22}{'start':>8}{'middle':>8}{'end':>8}{'slope/min':>11}{'growth':>9}"]
        for name, rows in self.series.items():
            sizes = [size for _, size in rows]
            slope, growth = self._slope(name), self._growth(name)
            middle = sizes[len(sizes) // 2]
            lines.append(f"{name:<22}{sizes[0]:>8.1f}{middle:>8.1f}{sizes[-1]:>8.1f}{slope * 60:>11.2f}{growth:>9.1f}")
        return lines

    def grown(self) -> list[str]:
        """Those that grew by more than is allowed after the warm-up."""
        return [name for name, rows in self.series.items() if self._growth(name) > max(LEAST_MIB, MOST_GROWTH * rows[0][1])]

    def _slope(self, name: str) -> float:
        steady = _steady(name, self.series[name])
        return statistics.linear_regression(*zip(*steady, strict=True)).slope if len(steady) > 2 else 0.0

    def _growth(self, name: str) -> float:
        steady = _steady(name, self.series[name])
        return self._slope(name) * (steady[-1][0] - steady[0][0]) if len(steady) > 2 else 0.0


def _steady(name: str, rows: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """The samples after the warm-up. Redis fills for as long as ended jobs are kept."""
    begin, end = rows[0][0], rows[-1][0]
    warm = begin + max(WARM_UP * (end - begin), 1.5 * RETENTION_S if name in REDIS else 0.0)
    return [row for row in rows if row[0] >= warm]


def book(p: Platform) -> dict[str, int]:
    """Every key of every database of Redis, with how much stands in it."""
    sizes = {b"zset": "ZCARD", b"hash": "HLEN", b"list": "LLEN", b"set": "SCARD", b"stream": "XLEN", b"string": "EXISTS"}
    found: dict[str, int] = {}
    for client in {id(c): c for c in (p.client, p.messages)}.values():
        raw: Any = client
        for key in raw.scan_iter(count=10_000):
            kind: Any = raw.type(key)
            if kind in sizes:
                found[key.decode(errors="replace")] = int(raw.execute_command(sizes[kind], key))
    return found


def left_over(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """What is there now and was not, or holds more."""
    grown = {key: n for key, n in after.items() if n > before.get(key, 0) and not key.startswith(BOUNDED)}
    return [f"{key}: {before.get(key, 0)} -> {n}" for key, n in sorted(grown.items())]


@contextmanager
def soaked(*, seconds: float, broker: Broker) -> Iterator[tuple[Soak, dict[str, int]]]:
    """The platform and its keys after one job of each shape was there and gone."""
    with ExitStack() as stack:
        p = stack.enter_context(
            platform(broker=broker, proxied=True, retention_s=RETENTION_S, idempotency_s=RETENTION_S, kept_bytes=KEPT_BYTES)
        )
        p.start_all()
        p.start_api()
        wait_until(lambda: do.api_answers(p), description="the API answers", timeout=60)
        soak = Soak(p, seconds=seconds)
        soak.warm_up()
        let_all_go(p)
        yield soak, book(p)


def let_all_go(p: Platform) -> None:
    """Waits until every ended job is forgotten, by the list of jobs too."""
    indexes = [shard.index("default") for shard in all_shards(p.settings.shards)]
    store: Any = p.client
    wait_until(lambda: not any(store.zcard(i) for i in indexes), description="no job is kept", timeout=3 * RETENTION_S, every=0.5)
    pass_time(2.0)


def main() -> int:
    """Runs the soak and prints what came of it; the exit code."""
    with soaked(seconds=SECONDS, broker=BROKER) as (soak, before):
        soak.run()
        let_all_go(soak.p)
        left = left_over(before, book(soak.p))
        grown = soak.memory.grown()
        say(f"\n{sum(soak.ended.values())} jobs in {SECONDS:g} s over {BROKER}: {dict(soak.ended)}")
        say(f"{soak.load.unknown} calls were settled by hand; {sum(soak.struck.values())} faults: {dict(soak.struck)}\n")
        say(*soak.memory.table(), "")
        say(f"keys of Redis: {len(before)} at the start, {len(book(soak.p))} at the end; left over: {left or 'nothing'}")
        say(f"grew: {', '.join(grown) or 'none'}")
        return int(bool(left or grown))


def say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
