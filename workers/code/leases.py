"""No container outlives its owner: who owns one is a label, whether the owner lives is a file that it holds locked.

An owner is one pool in one process. When it ends, by whatever means, the kernel drops the lock; then anybody who sweeps
removes its containers and their folders: the guard process of that pool, at once, and every other pool of the machine,
every few seconds. A container whose owner is silent also ends by itself, since its first process wants to be pinged.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import BackendError
from orchestrator.settings import Settings
from workers.code.engine import Engine, Listed

OWNER, PLACE = "toolweaver.owner", "toolweaver.place"
LOCK = ".lock"
OWNER_ID = re.compile(r"[0-9a-f]{12}")  # nothing else in the folder is ours to remove
FORGOTTEN_S = 120.0  # longer than the engine takes from a creation to a start, with all tries
AWAY_S = 900.0  # so long a guard waits for an engine that is away
SWEEP_S = 5.0  # between two sweeps of a pool
PATH_BYTES = 107  # of a unix socket's address
AFTER_S = (0.0, 0.3, 0.7, 1.0, 2.0, 2.0, 2.0)  # pauses before the sweeps after an owner's end: a creation may be under way


@dataclass(eq=False)
class Owner:
    """One pool: an id, a locked file and a folder that say that it lives, and a guard that cleans up when it does not."""

    place: Path
    host: str
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    _lock: int | None = None
    _guard: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, settings: Settings, host: str) -> Owner:
        """An owner where the settings say."""
        return cls(settings.sandbox_folder, host)

    @property
    def folder(self) -> Path:
        """Where the folders of its containers' sockets lie."""
        return self.place / self.id

    @property
    def labels(self) -> dict[str, str]:
        """What its containers are known by."""
        return {OWNER: self.id, PLACE: place_name(self.place)}

    def begin(self) -> None:
        """Takes the lock and starts the guard.

        Raises:
            BackendError: the folder is another user's, or its path is too long for sockets.
        """
        make_place(self.place)
        draft = self.place / f"{self.id}.new"
        self._lock = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(lock_file(self.place, self.id))  # nobody ever sees it unlocked
        self.folder.mkdir(mode=0o711)
        self.keep_guarded()

    def keep_guarded(self) -> bool:
        """Starts the guard where there is none, or none any more; whether it did."""
        if self._lock is None or (self._guard is not None and self._guard.poll() is None):
            return False
        command = (sys.executable, "-P", "-m", "workers.code.guard", str(self.place), self.id, self.host)
        quiet = subprocess.DEVNULL  # whoever waits for the end of our output shall not wait for the guard
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
        return True

    @property
    def guard_pid(self) -> int | None:
        """The process that sweeps when this one is gone."""
        return self._guard.pid if self._guard is not None else None

    def end(self, *, clean: bool = True) -> None:
        """Gives everything back. `clean`: its containers are gone; otherwise the guard stays to remove them."""
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._guard.communicate(b"done" if clean else b"", timeout=5.0 if clean else 0.1)
        if self._lock is not None:
            forget(self.place, self.id)
            os.close(self._lock)
        self._guard = self._lock = None


def place_name(place: Path) -> str:
    """The label of a folder of sockets: owners of other folders and machines are judged by those who see their files."""
    return f"{_machine()}:{place}"


def _machine() -> str:
    for source in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            return Path(source).read_text(encoding="ascii").strip()
    return os.uname().nodename


def make_place(place: Path) -> None:
    """Makes the folder of the sockets: others pass through it and cannot list it.

    Raises:
        BackendError: it is another user's, or its path is too long.
    """
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = place.lstat()
    if place.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise BackendError(
            f"`{place}` is not this user's own folder", next="Set TOOLWEAVER_SANDBOX_DIR to a new one, and remove this one."
        )
    place.chmod(0o711)
    if len(os.fsencode(place)) > PATH_BYTES - 40:
        raise BackendError(f"`{place}` is too long for sockets", next="Set TOOLWEAVER_SANDBOX_DIR to a short path.")


def container_name(owner: str, folder: str) -> str:
    """What the container is called whose socket lies in that folder of the owner's."""
    return f"toolweaver-{owner}-{folder}"


def lock_file(place: Path, owner: str) -> Path:
    return place / f"{owner}{LOCK}"


def lives(place: Path, owner: str) -> bool:
    """Whether somebody holds the owner's lock."""
    try:
        file = os.open(lock_file(place, owner), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def owners(place: Path) -> set[str]:
    """All that left a trace in the folder."""
    return {name for p in place.iterdir() if OWNER_ID.fullmatch(name := p.name.removesuffix(LOCK))}


def forget(place: Path, owner: str) -> None:
    """Removes an owner's files."""
    shutil.rmtree(place / owner, ignore_errors=True)
    lock_file(place, owner).unlink(missing_ok=True)


def remove_of(engine: Engine, place: Path, owner: str) -> list[str]:
    """Removes the containers of one owner, in whatever state they are; their ids."""
    found = engine.containers(f"{OWNER}={owner}", f"{PLACE}={place_name(place)}")
    return _remove_all(engine, [c.id for c in found])


def _remove_all(engine: Engine, containers: list[str]) -> list[str]:
    """Removes what can be removed: one that cannot must not keep the others.

    Raises:
        BackendError: some could not be.
    """
    failure = None
    for id in containers:
        try:
            engine.remove(id)
        except BackendError as error:
            failure = error
    if failure is not None:
        raise failure
    return containers


def sweep(engine: Engine, place: Path) -> list[str]:
    """Removes containers and folders whose owner is gone; the ids of the containers."""
    ours = place_name(place)
    found = engine.containers(OWNER)
    held = {c.id: c.labels[OWNER] for c in found if c.labels.get(PLACE) == ours}
    dead = {o for o in owners(place) | set(held.values()) if not lives(place, o)}
    try:
        return _remove_all(engine, [c.id for c in found if held.get(c.id) in dead or _forgotten(c)])
    finally:
        for owner in dead:
            forget(place, owner)


def _forgotten(container: Listed) -> bool:
    """Whether it was created on this machine and never started, or ended and never removed: of whatever folder, nobody wants it."""
    here = container.labels.get(PLACE, "").startswith(f"{_machine()}:")
    return here and container.state not in ("running", "paused") and time.time() - container.created > FORGOTTEN_S


def remove_unwanted(engine: Engine, owner: Owner) -> list[str]:
    """Removes the containers of an owner that lives whose folder is gone: they were given up, and their removal failed."""
    found = engine.containers(f"{OWNER}={owner.id}", f"{PLACE}={place_name(owner.place)}")
    known = {container_name(owner.id, folder.name) for folder in owner.folder.iterdir()}  # each folder is older than its container
    own = container_name(owner.id, "")
    return _remove_all(engine, [c.id for c in found if c.name.startswith(own) and c.name not in known])


def sweep_after(engine: Engine, place: Path, owner: str) -> Iterator[list[str]]:
    """Sweeps of one owner that has ended, a few times: its last request may still be carried out."""
    give_up = time.monotonic() + AWAY_S
    for pause in AFTER_S:
        time.sleep(pause)
        while time.monotonic() < give_up:
            with contextlib.suppress(BackendError):  # the engine may be restarting; there may be nobody else to sweep
                yield remove_of(engine, place, owner)
                break
            time.sleep(1.0)
    forget(place, owner)


def main(argv: list[str] | None = None) -> int:
    """Removes what an owner left; what the guard becomes when its pool is gone."""
    parser = argparse.ArgumentParser(prog="python -m workers.code.leases", description=__doc__)
    for name in ("place", "owner", "host"):
        parser.add_argument(name)
    options = parser.parse_args(argv)
    engine = Engine(options.host)
    for _removed in sweep_after(engine, Path(options.place), options.owner):
        pass
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
