"""Looks at the containers of a platform's pools, twice a second: none may outlive what was struck by more than it is allowed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.errors import BackendError
from tests.support import wait_until
from workers.code.engine import Engine, Listed, Missing
from workers.code.leases import LOCK, OWNER, PLACE, lives, owners, place_name

EVERY_S = 0.5
ALLOWED_S = 10.0  # beyond the lease


@dataclass
class Doomed:
    """A container that shall go, and since when."""

    since: float
    strike: int | None  # its number; None: its owner ended by itself
    gone: float | None = None


class Watch:
    """A thread that looks until the block ends."""

    def __init__(self, host: str, place: Path, *, lease_s: float) -> None:
        self.place, self.most_s = place, lease_s + ALLOWED_S
        self.doomed: dict[str, Doomed] = {}
        self.late: dict[str, str] = {}
        self.most = 0  # containers at once
        self._engine = Engine(host)
        self._fallen: dict[str, tuple[float, int | None]] = {}  # owners
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        self._engine.close()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            try:
                self.look()
            except BackendError:  # the engine is away; it is asked again
                continue

    def look(self) -> None:
        """One look. What is over its time is kept in `late`."""
        listed = self.listed()
        with self._lock:
            now = time.monotonic()
            self.most = max(self.most, len(listed))
            for container in listed:
                self._judge(container, now)
            here = {c.id for c in listed}
            for id, doomed in self.doomed.items():
                if id not in here and doomed.gone is None:
                    doomed.gone = now

    def _judge(self, container: Listed, now: float) -> None:
        owner = container.labels[OWNER]
        if owner not in self._fallen and not lives(self.place, owner):
            self._fallen[owner] = now, None
        if owner in self._fallen and container.id not in self.doomed:
            self.doomed[container.id] = Doomed(*self._fallen[owner])
        doomed = self.doomed.get(container.id)
        if doomed is not None and now - doomed.since > self.most_s:
            self.late[container.id] = (
                f"{container.state} {now - doomed.since:.1f} s after strike {doomed.strike}: {container.labels}"
            )

    def listed(self) -> list[Listed]:
        """The containers of this platform, in whatever state.

        An engine that was killed while it removed one may list it as dead, and say of the same id that there is no such
        container: that one is gone.
        """
        found = self._engine.containers(f"{PLACE}={place_name(self.place)}")
        return [c for c in found if c.state != "dead" or self._exists(c.id)]

    def _exists(self, container: str) -> bool:
        try:
            return bool(self._engine.inspect(container))
        except Missing:
            return False

    def pid(self, container: str) -> int:
        """The first process of a container as the host sees it; 0 when it has none."""
        return int(self._engine.inspect(container)["State"]["Pid"])

    def fell(self, owner: str, strike: int) -> None:
        """An owner is about to be killed: its containers shall go, those too that appear later."""
        with self._lock:
            self._fallen[owner] = time.monotonic(), strike

    def doom(self, containers: list[str], strike: int) -> None:
        """These shall go."""
        with self._lock:
            for id in containers:
                self.doomed.setdefault(id, Doomed(time.monotonic(), strike))

    def of_strike(self, strike: int) -> list[Doomed]:
        """The containers that it doomed."""
        return [d for d in self.doomed.values() if d.strike == strike]

    def left(self) -> list[str]:
        """All that is still there of pools that have ended: containers, their processes, guards, folders of sockets."""
        containers = [f"{c.id[:12]} {c.state}" for c in self.listed()]
        folders = [str(p) for p in self.place.iterdir() if p.name.removesuffix(LOCK) in owners(self.place)]
        return containers + folders + [f"process {pid}" for pid in (*inside(self.place), *guards(self.place))]

    def wait_nothing_left(self) -> None:
        """Fails with what is left when it is there for longer than it may be."""
        try:
            wait_until(lambda: not self.left(), description="nothing is left", timeout=self.most_s, every=0.2)
        except AssertionError:
            raise AssertionError(f"left after {self.most_s} s: {self.left()}") from None


def inside(place: Path) -> list[int]:
    """The processes in containers that have a folder of `place`, whatever the engine knows of them.

    An engine that is killed between a creation and a start may forget a `runc init`, which waits and runs nothing of ours.
    """
    return [pid for pid in psutil.pids() if str(place) in _mounts(pid) and _command(pid) != b"runc\0init\0"]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _mounts(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def guards(place: Path) -> dict[int, str]:
    """The guards, and what becomes of them when they sweep: by process id, the owner that each serves."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(place) in words and {"workers.code.guard", "workers.code.leases"} & set(words):
            found[process.pid] = str(words[words.index(str(place)) + 1])
    return found
