"""Processes that must not outlive their supervisor: the death signal, the mark that finds them again, the sweep."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from orchestrator.models.platform import MARK

_PR_SET_PDEATHSIG = 1


def mark(home: Path, supervisor: int) -> str:
    """The mark that the descendants of this supervisor carry in their environment."""
    return f"{supervisor}@{home}"


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own that the kernel kills when this one dies, whatever kills this one.

    To be called from the main thread: the kernel's signal comes when the *thread* that started the process ends.
    """
    with log.open("ab", buffering=0) as out:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor only, which stops all in order
            preexec_fn=death_signal(os.getpid()),  # the supervisor runs one thread
        )


def death_signal(parent: int, signum: int = signal.SIGKILL) -> Callable[[], None] | None:
    """What a child runs before its exec so that it dies with `parent`; None where the kernel offers no such signal."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum))
        if os.getppid() != parent:  # it died before the signal was armed
            os._exit(1)

    return arm


def marked(home: Path, *, supervisor: int | None = None) -> list[psutil.Process]:
    """The processes that a supervisor of this home started, itself excepted: of that supervisor, or of any."""
    own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in own and _carries(p, home, supervisor)]


def _carries(process: psutil.Process, home: Path, supervisor: int | None) -> bool:
    try:
        found = process.environ().get(MARK, "")
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
    except psutil.Error:
        return False
    return found == mark(home, supervisor) if supervisor is not None else found.partition("@")[2] == str(home)


def end(processes: Iterable[psutil.Process], *, grace_s: float) -> list[psutil.Process]:
    """Ends the processes, SIGKILL after the grace (at once when it is 0); the ones that even so remain."""
    alive = list(processes)
    if grace_s > 0:
        _signal(alive, signal.SIGTERM)
        _, alive = psutil.wait_procs(alive, timeout=grace_s)
    _signal(alive, signal.SIGKILL)
    return psutil.wait_procs(alive, timeout=2.0)[1]


def sweep(home: Path, *, supervisor: int | None = None, grace_s: float = 3.0, rounds: int = 5) -> int:
    """Ends every marked process, those included that are born meanwhile; how many there were."""
    count = 0
    for _ in range(rounds):
        left = marked(home, supervisor=supervisor)
        if not left:
            break
        count += len(left)
        end(left, grace_s=grace_s)
        grace_s = 0.0
    return count


def _signal(processes: Iterable[psutil.Process], signum: int) -> None:
    for process in processes:
        try:
            process.send_signal(signum)
        except psutil.NoSuchProcess:
            continue
