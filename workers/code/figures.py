"""What a container used, as its machine's kernel counts it in the container's cgroup: nothing inside has a say in it."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from orchestrator.errors import BackendError, ToolError
from orchestrator.models.program import Usage
from workers.code.engine import Engine

T = TypeVar("T")

V1_ROOTS = ("memory", "cpuacct", "pids", "cpu")
MEASURED: ContextVar[list[Usage] | None] = ContextVar("measured", default=None)


@dataclass(frozen=True, slots=True)
class Figures:
    """Counters of a container since its start; None where they cannot be had."""

    cpu_s: float | None = None
    memory_peak: int | None = None  # bytes
    oom_kills: int = 0
    measured_by: Literal["cgroup", "engine", "none"] = "none"


class CGroup:
    """The files of a container's cgroup, of version 1 or 2."""

    def __init__(self, pid: int) -> None:
        self.folders = _folders(pid)

    def read(self, controller: str, file: str) -> str | None:
        """The text of a file; None where there is no such file."""
        folder = self.folders.get(controller) or self.folders.get("")
        if folder is None:
            return None
        with suppress(OSError):
            return (folder / file).read_text(encoding="ascii").strip()
        return None

    def number(self, controller: str, file: str) -> int | None:
        """The number that a file consists of; None where there is none, or it is `max`."""
        text = self.read(controller, file)
        return int(text) if text is not None and text.lstrip("-").isdigit() else None

    def count(self, controller: str, file: str, key: str) -> int | None:
        """The number beside a word in a file."""
        lines = (self.read(controller, file) or "").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{key} ")), None)

    def figures(self) -> Figures:
        """What the kernel counted; all None when the cgroup is gone."""
        ns, us = self.number("cpuacct", "cpuacct.usage"), self.count("", "cpu.stat", "usage_usec")
        cpu_s = ns / 1e9 if ns is not None else us / 1e6 if us is not None else None
        peak = self.number("memory", "memory.max_usage_in_bytes") or self.number("", "memory.peak")
        peak = peak if peak is not None else self.number("", "memory.current")
        kills = self.count("memory", "memory.oom_control", "oom_kill") or self.count("", "memory.events", "oom_kill") or 0
        return Figures(cpu_s, peak, kills, "none" if cpu_s is None and peak is None else "cgroup")

    def reset_peak(self) -> None:
        """Lets the peak begin anew, where the kernel and this user's rights allow it."""
        for controller, file in (("memory", "memory.max_usage_in_bytes"), ("", "memory.peak")):
            if (folder := self.folders.get(controller)) is not None:
                with suppress(OSError):
                    (folder / file).write_text("0", encoding="ascii")


def _folders(pid: int) -> dict[str, Path]:
    """The folder of each controller (of version 2: of all, as `""`) of a process."""
    mounts, found = _mounts(), {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                found[name] = mounts[name] / path.lstrip("/")
    if "memory" in found:  # hybrid: version 2 is there, and has no controllers
        found.pop("", None)
    return found


@functools.cache
def _mounts() -> dict[str, Path]:
    """Where the hierarchies of cgroups are mounted, whole."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        root, where = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if root != "/":
            continue  # a part of the tree only
        names = [""] if kind == "cgroup2" else [n for n in V1_ROOTS if kind == "cgroup" and n in options.split()[-1].split(",")]
        found |= {n: Path(where) for n in names if n not in found}
    return found


def is_ours(pid: int, id: str) -> bool:
    """Whether this number is the container's process here too: not where the engine is on another machine or outside of ours."""
    try:
        return pid > 0 and id in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return False


def _of_engine(stats: Mapping[str, Mapping[str, object]]) -> Figures:
    usage = stats.get("cpu_stats", {}).get("cpu_usage", {})
    total = usage.get("total_usage") if isinstance(usage, Mapping) else None
    memory = stats.get("memory_stats", {})
    peak = memory.get("max_usage") or memory.get("usage")
    if not isinstance(total, int) or not isinstance(peak, int) or not peak:
        return Figures()
    return Figures(total / 1e9, peak, 0, "engine")


class Meter:
    """Measures executions in one container: each the difference to its `begin`."""

    def __init__(self, engine: Engine, id: str, pid: int) -> None:
        self._engine, self._id = engine, id
        self.cgroup = CGroup(pid) if is_ours(pid, id) else None
        self._started = time.time()
        self._before = Figures()

    def begin(self, *, again: bool = False) -> None:
        """Takes the counters as they are; `again` where the container has run something before."""
        if self.cgroup is not None:
            if again:
                self.cgroup.reset_peak()
            self._before = self.cgroup.figures()

    async def usage(self, *, bytes_in: int = 0, bytes_out: int = 0) -> Usage:
        """What was used since. A container that is gone leaves only what the engine remembers of its end."""
        now = await self._now()
        used = Usage(
            cpu_s=None if now.cpu_s is None else max(0.0, now.cpu_s - (self._before.cpu_s or 0.0)),
            memory_peak=now.memory_peak,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            memory_exceeded=now.oom_kills > self._before.oom_kills or (now.measured_by != "cgroup" and await self._remembered()),
            container=self._id,
            measured_by=now.measured_by,
        )
        if (seen := MEASURED.get()) is not None:
            seen.append(used)
        return used

    async def _now(self) -> Figures:
        if self.cgroup is not None:
            return self.cgroup.figures()
        with suppress(BackendError):
            return _of_engine(await self._engine.run(self._engine.stats, self._id))
        return Figures()

    async def _remembered(self) -> bool:
        with suppress(BackendError):
            return await self._engine.run(self._engine.was_out_of_memory, self._id, since=self._started)
        return False


class ResourceError(ToolError):
    """The program used more than it was allowed."""

    code = "resource_exceeded"


class ResourceMonitor:
    """Watches what the containers of an execution use, and says so when it was too much.

    The walls are the container's own limits; this is for callers who want an error below them.

    Args:
        cpu_limit: Cores on average: CPU seconds by seconds that went by.
        memory_limit: Bytes at most.
    """

    def __init__(self, cpu_limit: float = 1.0, memory_limit: int = 512 << 20) -> None:
        self.cpu_limit, self.memory_limit = cpu_limit, memory_limit
        self.usage: tuple[Usage, ...] = ()

    async def monitor_execution(self, code_func: Callable[[], Awaitable[T]]) -> T:
        """What `code_func()` gives; `usage` then has the figures of each container that it used, from their cgroups.

        Raises:
            ResourceError: they used more than the limits.
        """
        seen: list[Usage] = []
        token = MEASURED.set(seen)
        began = time.monotonic()
        try:
            result = await code_func()
        finally:
            MEASURED.reset(token)
            self.usage = tuple({u.container: u for u in seen}.values())
        self._judge(time.monotonic() - began)
        return result

    def _judge(self, wall_s: float) -> None:
        cores = sum(u.cpu_s or 0.0 for u in self.usage) / max(wall_s, 1e-3)
        peak = max((u.memory_peak or 0 for u in self.usage), default=0)
        if cores > self.cpu_limit:
            raise ResourceError(f"CPU limit exceeded: {cores:.2f} cores of {self.cpu_limit:g}")
        if peak > self.memory_limit or any(u.memory_exceeded for u in self.usage):
            raise ResourceError(f"Memory limit exceeded: {peak / (1 << 20):.0f} MB of {self.memory_limit / (1 << 20):.0f} MB")
