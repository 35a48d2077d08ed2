"""Containers kept ready: one for each execution, made before it is asked for, removed after; or one kept for a job.

A taken container was never used before, unless the same job used it and asked for that. Nothing here trusts a container:
it is looked at when it is handed out, and whatever is odd about it removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.errors import BackendError
from orchestrator.models.program import ProgramLimits, Usage
from orchestrator.settings import Settings
from workers.code.container import OURS, Container, Kind, Maker, Shape, Volume, seccomp_profile
from workers.code.demand import Demand
from workers.code.engine import Engine, Missing
from workers.code.image import require_any, require_image
from workers.code.inspection import verify
from workers.code.leases import SWEEP_S, Owner, remove_of, remove_unwanted, sweep

log = logging.getLogger(__name__)

TAKE_S = 15.0  # the longest wait for a container when none is ready
IDLE_S = 10.0  # a job's container that is not used for so long is removed
TICK_S = 0.5
BREATH_S = 0.03  # programs go first: what replaces and removes their containers begins so much later
MAKERS = 4  # containers made at the same time: the engine mostly waits for the kernel, more than there are cores pays
REMOVERS = 4
FAULTS = 3  # failures in a row after which takers are told at once
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between failures
PER_JOB = 4  # containers of one job that are kept or in use
PINGS = 4  # in the time of a lease
NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(eq=False)
class Sandbox:
    """A container in somebody's hands, with a program process that is ready for its program."""

    id: str  # of the container, whole
    sock: socket.socket  # our end of the program's channel
    n: int  # which program of this container: 1, unless a job uses it again
    labels: Mapping[str, str]
    _container: Container
    condemned: str | None = None

    async def figures(self, *, bytes_in: int = 0, bytes_out: int = 0) -> Usage:
        """What it has used since it was taken; to be asked before it is given back."""
        return await self._container.meter.usage(bytes_in=bytes_in, bytes_out=bytes_out)

    def condemn(self, why: str) -> None:
        """It shall not be used again, not even by its job."""
        self.condemned = self.condemned or why

    def kill(self, why: str = "it was killed") -> None:
        """Ends everything inside at once, without waiting for the engine."""
        self.condemn(why)
        self._container.control.close()

    @property
    def folder(self) -> Path:
        """Where its socket lay."""
        return self._container.folder

    @property
    def fault(self) -> str | None:
        """What happened to the container while it was out, such as that it was killed; None when it lives."""
        return self._container.control.broken

    async def exited(self, *, within_s: float = 1.0) -> int | None:
        """The same as `exit_code`, after a moment: the channel closes before it is known."""
        return await self._container.control.exit_code(self.n, within_s=within_s)

    @property
    def exit_code(self) -> int | None:
        """How the program's process ended, negative for a signal; None while it runs, or with its container gone."""
        return self._container.control.ended.get(self.n)


@dataclass(eq=False)
class _Kept:
    """The containers of one job with one set of limits."""

    idle: list[tuple[float, asyncio.Task[Container]]] = field(default_factory=list)
    out: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def wake(self) -> None:
        """Tells the first who waits that something came free."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


@dataclass
class _Circuit:
    """Failures to make a container: how many in a row, and when the next try may come."""

    failures: int = 0
    until: float = 0.0
    error: BackendError | None = None

    def failed(self, error: BackendError) -> None:
        pause = PAUSES_S[min(self.failures, len(PAUSES_S) - 1)]
        self.failures, self.error, self.until = self.failures + 1, error, time.monotonic() + pause

    def mended(self) -> None:
        self.failures, self.error = 0, None

    @property
    def open(self) -> bool:
        return self.failures >= FAULTS

    @property
    def rests(self) -> bool:
        return self.error is not None and time.monotonic() < self.until


class SandboxPool:
    """The warm pool of one process. `start` it on the loop that takes from it, and `close` it.

    `limits` are those of the containers that wait; `kind` says whose image the setting `sandbox_image` names.
    """

    def __init__(
        self, settings: Settings, *, engine: Engine | None = None, kind: Kind = OURS, limits: ProgramLimits | None = None
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._engine = engine or Engine.of(settings)
        self._owner = Owner.of(settings, self._engine.host)
        self._slots = asyncio.Semaphore(settings.sandbox_concurrency)
        self._removing = asyncio.Semaphore(REMOVERS)
        self._demand = Demand(most=settings.sandbox_warm_max)
        self._circuit = _Circuit()
        self._warm: deque[Container] = deque()
        self._takers: deque[asyncio.Future[Container]] = deque()
        self._jobs: dict[tuple[str, Shape], _Kept] = {}
        self._all: set[Container] = set()
        self._making = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._more = asyncio.Event()
        self._heart: _Heart | None = None
        self._maker: Maker | None = None
        self._plain = Shape.of(limits)

    # Life

    async def start(self) -> None:
        """Makes ready; afterwards `take` is quick.

        Raises:
            BackendError: Docker or the image is missing, or a wall of the container does not stand.
        """
        try:
            require = require_any if self._kind.foreign else require_image
            image = await self._engine.run(require, self._engine, self._settings.sandbox_image)
            await self._engine.run(self._owner.begin)
            await self._engine.run(sweep, self._engine, self._owner.place)
            self._maker = self._maker_of(image.id)
            if self._kind.foreign:
                await self._engine.run(self._maker.unpack)
            self._heart = _Heart(self._all, every_s=self._settings.sandbox_lease_s / PINGS)
            self._heart.start()
            await self._verify(self._maker)
        except BaseException:
            await asyncio.shield(self.close())
            raise
        self._spawn(self._keep_full(), name="sandbox refill")
        self._spawn(self._look_after(), name="sandbox care")
        self._spawn(self._sweep(), name="sandbox sweep")

    def _maker_of(self, image: str) -> Maker:
        seccomp = seccomp_profile(network=self._kind.network != "none")
        return Maker(self._engine, self._owner, image, self._settings.sandbox_lease_s, seccomp=seccomp, kind=self._kind)

    async def _verify(self, maker: Maker) -> None:
        """One container is looked at from all sides, and removed."""
        probe = await maker.make(self._plain)
        self._all.add(probe)
        self._demand.made(probe.took_s)
        try:
            await verify(probe)
        finally:
            await self._remove(probe)

    async def close(self) -> None:
        """Removes every container. Who waits for one is told so."""
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        for taker in self._takers:
            if not taker.done():
                taker.set_exception(BackendError("the sandbox pool was closed"))
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._heart is not None:
            self._heart.stop()
        await asyncio.gather(*(self._remove(c) for c in list(self._all)), return_exceptions=True)
        self._warm.clear()
        self._jobs.clear()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._engine.drain()
        try:
            remove_of(self._engine, self._owner.place, self._owner.id)  # what a cancelled creation made meanwhile
        except BackendError as error:
            log.warning("the guard goes on to remove containers: %s", error, extra={"action": "remove_failed"})
            self._owner.end(clean=False)
        else:
            self._owner.end()
        self._engine.close()

    @property
    def owner(self) -> Owner:
        """Whose containers these are, by their label."""
        return self._owner

    @property
    def held(self) -> frozenset[str]:
        """The ids of containers that wait to be used again by their jobs."""
        idle = [again for kept in self._jobs.values() for _, again in kept.idle if again.done() and not again.cancelled()]
        return frozenset(again.result().id for again in idle if again.exception() is None)

    @property
    def ready(self) -> int:
        """How many unused containers are ready."""
        return len(self._warm)

    # Taking

    @asynccontextmanager
    async def take(
        self,
        *,
        limits: ProgramLimits | None = None,
        job: str | None = None,
        reuse: bool = False,
        labels: Mapping[str, str] = NO_LABELS,
        volumes: tuple[Volume, ...] = (),
    ) -> AsyncIterator[Sandbox]:
        """A sandbox for one execution, for as long as the block runs; it is removed afterwards, in the background.

        Args:
            limits: What the program may use; default: those of `ProgramLimits`.
            job: Whose it is; needed for `reuse`.
            reuse: A container that the same job used before, with the same limits, may be used again: its processes
                were ended and its temporary folder emptied. A block that raises, or condemns it, prevents that.
            labels: What is noted with it in the log.
            volumes: What it sees of the machine; never what a job asks for. It takes a container made for it.

        Raises:
            BackendError: no container can be had now; retryable.
        """
        shape = Shape.of(limits, volumes)
        async with self._slots:
            kept = self._jobs.setdefault((job, shape), _Kept()) if reuse and job is not None else None
            container = await (self._take_kept(kept, shape) if kept is not None else self._take_new(shape))
            assert container.channel is not None, "a container without a channel has a fault"
            sandbox = Sandbox(container.id, container.channel, container.n, labels, container)
            log.debug("took %s", container.name, extra={"action": "sandbox_taken", "job_id": job, "labels": dict(labels)})
            try:
                yield sandbox
            except BaseException:
                sandbox.condemn("its execution failed")
                raise
            finally:
                self._give_back(sandbox, kept)

    async def _take_new(self, shape: Shape) -> Container:
        """A container that nobody used."""
        self._demand.arrived()
        if not shape.same_place(self._plain):
            return await self._make_own(shape)
        until = time.monotonic() + TAKE_S
        while True:
            container = self._ready_one() or await self._wait_for_one(until)
            self._more.set()
            try:
                await container.update(shape)
            except BaseException as error:
                self._discard(container, f"its limits could not be changed: {error}")
                if isinstance(error, Missing) and time.monotonic() < until:  # it died between two looks
                    continue
                raise
            return container

    def _ready_one(self) -> Container | None:
        while self._warm:
            container = self._warm.popleft()
            if (fault := self._unfit(container)) is None:
                return container
            self._discard(container, fault)
        return None

    def _unfit(self, container: Container) -> str | None:
        too_old = container.age_s > self._settings.sandbox_max_age_s
        return "it waited for too long" if too_old else container.fault()

    async def _wait_for_one(self, until: float) -> Container:
        if self._circuit.open and self._circuit.rests:
            raise self._unavailable()
        taker: asyncio.Future[Container] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._more.set()
        try:
            async with asyncio.timeout(until - time.monotonic()):
                return await taker
        except BaseException as error:
            if taker.done() and not taker.cancelled() and taker.exception() is None:
                self._offer(taker.result())  # it came just as the wait ended
            if isinstance(error, TimeoutError):
                raise self._unavailable() from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._takers.remove(taker)

    def _unavailable(self) -> BackendError:
        why = self._circuit.error
        return BackendError(
            f"no sandbox can be had: {why.message if why else f'none became ready within {TAKE_S:g} s'}",
            next=why.next if why and why.next else "Try again; if it stays so, look at the load of the engine's machine.",
        )

    async def _make_own(self, shape: Shape) -> Container:
        """A container for limits that a running one cannot be given."""
        if self._circuit.open and self._circuit.rests:
            raise self._unavailable()
        assert self._maker is not None, "the pool was started"
        container = await self._maker.make(shape)
        self._all.add(container)
        return container

    # A job's own

    async def _take_kept(self, kept: _Kept, shape: Shape) -> Container:
        while True:
            while kept.idle:
                _, again = kept.idle.pop()
                kept.out += 1
                try:
                    container = await asyncio.shield(again)
                    if container.fault() is None:
                        return container
                    self._discard(container, container.fault() or "")
                except BackendError as error:
                    log.info("a job's container was lost: %s", error, extra={"action": "sandbox_lost"})
                except BaseException:
                    self._keep(kept, again)
                    raise
                kept.out -= 1
            if kept.out < PER_JOB:
                kept.out += 1
                try:
                    return await self._take_new(shape)
                except BaseException:
                    self._one_less(kept)
                    raise
            turn = asyncio.get_running_loop().create_future()
            kept.waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    kept.wake()
                raise

    def _give_back(self, sandbox: Sandbox, kept: _Kept | None) -> None:
        container = sandbox._container
        fault = sandbox.condemned or container.control.broken
        if kept is None:
            self._spawn(self._remove(container, after_s=0.0 if fault else BREATH_S), name="sandbox remove")
            return
        if fault is not None:
            self._discard(container, fault)
            self._one_less(kept)
        else:
            self._keep(kept, self._spawn(self._renew(container), name="sandbox renew"))

    async def _renew(self, container: Container) -> Container:
        """The next program process, at once: what the last one left running ends now, and the next taker need not wait."""
        try:
            await container.spawn()
        except BackendError as error:
            self._discard(container, str(error))
            raise
        return container

    def _keep(self, kept: _Kept, again: asyncio.Task[Container]) -> None:
        kept.idle.append((time.monotonic(), again))
        self._one_less(kept)

    def _one_less(self, kept: _Kept) -> None:
        kept.out -= 1
        kept.wake()

    # Care

    async def _keep_full(self) -> None:
        """Makes containers while fewer are ready than wanted, some at a time; pauses after failures."""
        while True:
            self._more.clear()
            if self._circuit.rests:
                await asyncio.sleep(max(0.0, self._circuit.until - time.monotonic()))
            most = 1 if self._circuit.failures else MAKERS
            while self._making < most and len(self._warm) + self._making < self._demand.target() + len(self._takers):
                self._making += 1
                self._spawn(self._make_one(), name="sandbox make")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._more.wait()
            if self._warm and not self._takers:
                await asyncio.sleep(BREATH_S)

    async def _make_one(self) -> None:
        assert self._maker is not None, "the pool was started"
        try:
            container = await self._maker.make(self._plain)
        except BackendError as error:
            self._circuit.failed(error)
            log.warning("no sandbox was made: %s", error, extra={"action": "sandbox_failed"})
            if self._circuit.open:
                self._tell_takers()
        else:
            self._circuit.mended()
            self._demand.made(container.took_s)
            self._all.add(container)
            self._offer(container)
        finally:
            self._making -= 1
            self._more.set()

    def _offer(self, container: Container) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(container)
                return
        self._warm.append(container)

    def _tell_takers(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_exception(self._unavailable())

    async def _look_after(self) -> None:
        """Replaces what is old or broken, and removes what a job no longer uses."""
        while True:
            await asyncio.sleep(TICK_S)
            for container, fault in [(c, f) for c in self._warm if (f := self._unfit(c)) is not None]:
                self._warm.remove(container)
                self._discard(container, fault)
            for key, kept in list(self._jobs.items()):
                self._drop_idle(kept)
                if not kept.idle and not kept.out and not kept.waiting:
                    del self._jobs[key]

    def _drop_idle(self, kept: _Kept) -> None:
        late = time.monotonic() - IDLE_S
        for entry in [e for e in kept.idle if e[0] < late and e[1].done()]:
            kept.idle.remove(entry)
            if not entry[1].cancelled() and entry[1].exception() is None:
                self._spawn(self._remove(entry[1].result()), name="sandbox remove")

    async def _sweep(self) -> None:
        """Removes what dead owners left on this machine, and what of this pool could not be removed; replaces a dead guard."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._engine.run(self._sweep_once)
            except (BackendError, OSError) as error:
                log.warning("the sweep failed: %s", error, extra={"action": "sweep_failed"})

    def _sweep_once(self) -> None:
        if self._owner.keep_guarded():
            log.warning("the guard of the containers was gone; there is a new one", extra={"action": "guard_replaced"})
        for id in sweep(self._engine, self._owner.place):
            log.info("removed container %s of a pool that is gone", id[:12], extra={"action": "sandbox_swept"})
        for id in remove_unwanted(self._engine, self._owner):
            log.info("removed container %s, which was given up", id[:12], extra={"action": "sandbox_swept"})

    def _discard(self, container: Container, why: str) -> None:
        log.info("removing %s: %s", container.name, why, extra={"action": "sandbox_discarded"})
        self._spawn(self._remove(container), name="sandbox remove")

    async def _remove(self, container: Container, *, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        container.control.close()  # ends it at once; the engine may take its time
        async with self._removing:
            for pause in (*PAUSES_S, None):
                try:
                    await asyncio.shield(container.remove())
                    break
                except BackendError as error:
                    if pause is None:  # the sweep of its owner's end, its lease and `auto_remove` are left
                        log.warning("%s was not removed: %s", container.name, error, extra={"action": "remove_failed"})
                        return
                    await asyncio.sleep(pause)
        self._all.discard(container)
        self._more.set()

    def _spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, BackendError):
            log.error("%s failed", task.get_name(), exc_info=error, extra={"action": "sandbox_task_failed"})


class _Heart(threading.Thread):
    """Pings every container from a thread of its own: a loop that is busy for a while must not cost them their lives."""

    def __init__(self, containers: set[Container], *, every_s: float) -> None:
        super().__init__(name="sandbox heart", daemon=True)
        self._containers, self._every_s = containers, every_s
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            for container in self._copy():
                if container.control.broken is None:
                    container.control.send({"op": "ping"})

    def _copy(self) -> list[Container]:
        while True:
            with contextlib.suppress(RuntimeError):  # it changed meanwhile
                return list(self._containers)

    def stop(self) -> None:
        self._over.set()
