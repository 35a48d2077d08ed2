"""kill -9 of every process around the pool of programs, at random moments while programs run: no container stays, jobs end right.

A container whose owner or who itself was struck is gone within its lease and 10 s. `CHAOS_JOBS` set: 50 strikes, the engine
itself among them, which then is one of the test's own.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import BackendError
from tests.faults import private_engine, report
from tests.faults.load import pass_time
from tests.faults.platforms import LONG
from tests.faults.private_engine import PrivateEngine
from tests.faults.program_load import ProgramLoad, slowest
from tests.faults.sandbox_watch import Watch, guards
from tests.processes import Platform, platform
from tests.sandbox.lab import IMAGE, prepare, sandbox_settings
from tests.support import wait_until
from workers.code.engine import SOCKET, Engine
from workers.code.image import require_image
from workers.code.leases import PLACE, Owner, container_name, owners, place_name
from workers.code.pool import SandboxPool

pytestmark = pytest.mark.chaos

TOOLS = Path(__file__).parents[1] / "program_tools.py"
WORKERS = ("code", "code2")
LEASE_S = 8.0 if LONG else 3.0  # of a container
STRIKES = 50 if LONG else 8
BETWEEN_S = (0.3, 6.0) if LONG else (0.3, 1.5)
SEED = int(os.environ.get("CHAOS_SEED", "5"))


@dataclass
class Scene:
    """All that a strike needs to know."""

    p: Platform
    load: ProgramLoad
    watch: Watch
    rng: random.Random
    engine: PrivateEngine | None
    owners: dict[int, str] = field(default_factory=dict)  # by process id of the worker

    def look(self, *, more: bool = True) -> None:
        """The jobs go on; what ended by itself is started again, as a supervisor does."""
        for pid, owner in guards(self.watch.place).items():
            with suppress(psutil.NoSuchProcess):
                self.owners[psutil.Process(pid).ppid()] = owner
        for name in self.p.dead():
            self.p.processes.pop(name)
            self.p.start_again(name)
        self.load.look(more=more)

    def told(self, struck: list[str]) -> str:
        """For the message of a test that fails."""
        late = "\n".join(f"{id}: {what}" for id, what in self.watch.late.items())
        return f"{late}\nstruck: {struck}\n{self.engine.said(list(self.watch.late)) if self.engine else ''}\n{self.p.logs()}"

    def until(self, found: Callable[[], object], what: str) -> None:
        """Waits for something to strike, while the jobs go on."""

        def there() -> bool:
            self.look()
            return bool(found())

        wait_until(there, description=what, timeout=90, every=0.05)

    def container(self) -> tuple[str, psutil.Process]:
        """A container that runs, whoever has it, and its first process."""
        found: list[tuple[str, psutil.Process]] = []

        def find() -> bool:
            with suppress(BackendError, psutil.NoSuchProcess):
                id = self.rng.choice([c.id for c in self.watch.listed() if c.state == "running"] or [""])
                if id and id not in self.watch.doomed and (pid := self.watch.pid(id)):
                    found.append((id, psutil.Process(pid)))
            return bool(found)

        self.until(find, "a container runs")
        return found[0]

    def worker(self) -> tuple[str, int]:
        """A worker of programs whose pool has begun."""
        self.until(lambda: self._begun(), "a worker has a pool")
        return self.rng.choice(self._begun())

    def _begun(self) -> list[tuple[str, int]]:
        found = [(name, self.p.processes[name].pid) for name in WORKERS]
        return [(name, pid) for name, pid in found if self._guard(pid)]

    def _guard(self, worker: int) -> int | None:
        return next((pid for pid, owner in guards(self.watch.place).items() if owner == self.owners.get(worker, "")), None)

    def strike_worker(self, strike: int, *, guard: bool) -> None:
        """The process alone, or with its guard, which dies first; then it comes back."""
        name, pid = self.worker()
        beside = self._guard(pid) if guard else None
        self.watch.fell(self.owners[pid], strike)
        for each in filter(None, (beside, pid)):
            os.kill(each, signal.SIGKILL)
        self.p.processes.pop(name).wait()
        self.p.start_again(name)


Strike = Callable[[Scene, int], None]


def worker(scene: Scene, strike: int) -> None:
    scene.strike_worker(strike, guard=False)


def worker_and_guard(scene: Scene, strike: int) -> None:
    scene.strike_worker(strike, guard=True)


def guard(scene: Scene, strike: int) -> None:
    """Another one takes its place."""
    _name, pid = scene.worker()
    old = scene._guard(pid)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    scene.until(lambda: scene._guard(pid) not in (None, old) or not psutil.pid_exists(pid), "there is a new guard")


def worker_paused(scene: Scene, strike: int) -> None:
    """For longer than the lease of its containers and calls."""
    name, pid = scene.worker()
    os.kill(pid, signal.SIGSTOP)
    owner = scene.owners[pid]
    scene.watch.doom([c.id for c in scene.watch.listed() if c.state == "running" and owner in c.name], strike)
    until = time.monotonic() + LEASE_S + 2.0
    scene.until(lambda: time.monotonic() > until, "the lease is over")
    with suppress(ProcessLookupError):
        os.kill(scene.p.processes[name].pid, signal.SIGCONT)


def first_process(scene: Scene, strike: int) -> None:
    id, process = scene.container()
    scene.watch.doom([id], strike)
    with suppress(psutil.NoSuchProcess):
        process.kill()


def program(scene: Scene, strike: int) -> None:
    """The program's own process: its container is of no more use, but not in danger."""
    id, process = scene.container()
    with suppress(psutil.NoSuchProcess):
        children = process.children(recursive=True)
        if children:
            scene.watch.doom([id], strike)
            scene.rng.choice(children).kill()


def shim(scene: Scene, strike: int) -> None:
    """What stands between the engine and a container."""
    id, process = scene.container()
    with suppress(psutil.NoSuchProcess):
        parent = process.parent()
        assert parent is not None
        assert parent.name().startswith("containerd-shim"), parent
        scene.watch.doom([id], strike)
        parent.kill()


def async_worker(scene: Scene, strike: int) -> None:
    scene.p.restart("aio")


def planner(scene: Scene, strike: int) -> None:
    scene.p.restart("planner")


def server(scene: Scene, strike: int) -> None:
    scene.p.restart_server()


def engine(scene: Scene, strike: int) -> None:
    """The engine; when it comes back it ends the containers of before."""
    assert scene.engine is not None
    scene.watch.doom([c.id for c in scene.watch.listed()], strike)
    scene.engine.kill()
    pass_time(scene.rng.uniform(0.0, 3.0))
    scene.engine.start()


VICTIMS: dict[str, Strike] = {
    "worker": worker,
    "guard": guard,
    "worker and guard": worker_and_guard,
    "worker paused": worker_paused,
    "first process": first_process,
    "program": program,
    "shim": shim,
    "async worker": async_worker,
    "planner": planner,
    "Redis": server,
} | ({"engine": engine} if LONG else {})


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A planner, a worker of async functions, one of functions, two of programs; jobs run."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")
    if LONG and (why_not := private_engine.missing()):
        pytest.skip(f"no engine to kill: {why_not}")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True)))
        own = stack.enter_context(private_engine.private_engine(folder / "engine")) if LONG else None
        if own is not None:
            own.take_image(IMAGE)
            patch.setenv("DOCKER_HOST", own.host)
        place = folder / "boxes"
        p = stack.enter_context(
            platform(tools=str(TOOLS), sandbox_image=IMAGE, sandbox_dir=place, sandbox_lease_s=LEASE_S, sandbox_warm_max=3)
        )
        p.client.config_set("appendfsync", "always")
        p.server_options["appendfsync"] = "always"
        p.start_planner()
        p.start_worker("aio", pool="async", concurrency=50)
        for name in WORKERS:
            p.start_worker(name, pool="code", concurrency=4)
        try:
            p.wait_ready(workers=1 + len(WORKERS))
        except AssertionError as late:
            raise AssertionError(f"{late}\n{p.logs()}") from None
        rng = random.Random(SEED)
        watch = stack.enter_context(Watch(os.environ.get("DOCKER_HOST", SOCKET), place, lease_s=LEASE_S))
        yield Scene(p, ProgramLoad(p, at_once=6, rng=rng), watch, rng, own)


@pytest.mark.timeout(1200 if LONG else 300)
def test_whatever_is_killed_around_programs_no_container_stays_and_every_job_ends_right(scene: Scene) -> None:
    plan = _order(scene.rng)
    times: list[float] = []
    for number, victim in enumerate(plan):
        until = time.monotonic() + scene.rng.uniform(*BETWEEN_S)
        scene.until(lambda until=until: time.monotonic() > until, "a moment passes")
        times.append(time.monotonic())
        VICTIMS[victim](scene, number)
        assert not scene.watch.late, scene.told(plan[: number + 1])
    _finish(scene)
    repeats = scene.load.audit()
    _end_workers(scene)
    assert not scene.watch.late, scene.told(plan)
    for victim in VICTIMS:
        report.add(_row(scene, victim, [(n, t) for n, (v, t) in enumerate(zip(plan, times, strict=True)) if v == victim]))
    total = sum(len(scene.watch.of_strike(n)) for n in range(len(plan)))
    report.add(
        report.Kill(
            f"{len(scene.load.jobs)} jobs, {repeats} bodies again, {scene.load.unknown} settled", len(plan), total, None, None
        )
    )


def _order(rng: random.Random) -> list[str]:
    """Each victim some times, in any order."""
    least = list(VICTIMS) * (STRIKES // len(VICTIMS))
    return rng.sample(least + rng.sample(list(VICTIMS), STRIKES - len(least)), STRIKES)


def _finish(scene: Scene) -> None:
    """No new jobs; those that run come to their ends."""

    def ended() -> bool:
        scene.look(more=False)
        return not scene.load.live()

    try:
        wait_until(ended, description="all jobs end", timeout=120, every=0.1)
    except AssertionError as late:
        raise AssertionError(f"{late}\n{scene.load.stuck()}\n{scene.p.logs()}") from None


def _end_workers(scene: Scene) -> None:
    """One in order, one with all of its family: nothing of either is left."""
    for name, pid in [(name, scene.p.processes[name].pid) for name in WORKERS]:
        if pid in scene.owners:
            scene.watch.fell(scene.owners[pid], -1)
        if name == WORKERS[0]:
            scene.p.terminate(name)
        else:
            os.kill(pid, signal.SIGKILL)
            scene.p.processes.pop(name).wait()
    scene.watch.wait_nothing_left()


def _row(scene: Scene, victim: str, strikes: list[tuple[int, float]]) -> report.Kill:
    doomed = [d for number, _ in strikes for d in scene.watch.of_strike(number)]
    removal = max((d.gone - d.since for d in doomed if d.gone is not None), default=None)
    jobs = [slowest(scene.load.jobs, lambda job, at=at: at if job.began < at < (job.ended or at) else None) for _, at in strikes]
    return report.Kill(victim, len(strikes), len(doomed), removal, max((j for j in jobs if j is not None), default=None))


async def test_what_was_created_and_not_started_when_pool_and_guard_died_goes_when_the_worker_comes_back() -> None:
    """It runs nothing, so that no lease ends it: the pool that starts over the same folder does, before it serves."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:
        pool = SandboxPool(sandbox_settings(sandbox_dir=Path(folder), sandbox_warm_max=1))
        engine, before = Engine.of(sandbox_settings()), Owner(Path(folder), "")
        before.begin()
        name = container_name(before.id, "00000000")
        left = engine.create(require_image(engine, IMAGE).id, name=name, labels=before.labels, command=["x"])
        assert before.guard_pid is not None
        os.kill(before.guard_pid, signal.SIGKILL)
        assert before._lock is not None
        os.close(before._lock)  # as when its process ends
        await pool.start()
        try:
            assert left not in {c.id for c in engine.containers(f"{PLACE}={place_name(Path(folder))}")}
            assert owners(Path(folder)) == {pool.owner.id}
        finally:
            await pool.close()
            engine.close()
