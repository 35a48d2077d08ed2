"""The supervisor: starts processes in order, starts again what crashed, stops all in the opposite order."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.local.home import Home
from orchestrator.local.processes import spawn

BACKOFF_S, BACKOFF_MAX_S = 0.5, 30.0
STEADY_S = 30.0  # a process that ran so long is taken for healthy: its next crash is its first
LOG_MAX = 10 << 20  # bytes; beyond it a log moves to `.1`
LOG_LOOK_S = 30.0


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running. Stages start in ascending order and stop in descending order."""

    name: str
    command: tuple[str, ...]
    stage: int = 1
    grace_s: float = 2.0  # between SIGTERM and SIGKILL
    env: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One supervised process, across its restarts."""

    def __init__(self, spec: ChildSpec, *, log: Path, env: Mapping[str, str]) -> None:
        self.spec = spec
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.crashes = 0  # in a row
        self.due = 0.0  # monotonic second of the next start
        self._env = {**env, **spec.env}
        self._started = 0.0

    def start(self) -> None:
        rotate(self.log)
        self.process = spawn(self.spec.command, env=self._env, log=self.log)
        self._started = time.monotonic()

    def ended(self) -> int | None:
        """The exit code of a process that has ended and was not seen to yet. Its own children end with it."""
        if self.process is None or not _has_ended(self.process):
            return None
        kill_group(self.process)  # before the process id is given back to the kernel
        code = self.process.wait()
        self.process = None
        return code

    def postpone(self) -> float:
        """Decides when to start again; in how many seconds."""
        now = time.monotonic()
        self.crashes = 1 if now - self._started > STEADY_S else self.crashes + 1
        wait = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** (self.crashes - 1))
        self.due = now + wait
        return wait

    def terminate(self) -> None:
        if self.process is not None and not _has_ended(self.process):
            self.process.terminate()

    def finish(self, until: float) -> bool:
        """Waits for the end, and brings it about at `until`; False when it had to."""
        if self.process is None:
            return True
        in_time = _poll(lambda: _has_ended(self.process), until=until)
        kill_group(self.process)
        self.process.wait()
        self.process = None
        return in_time


class Supervisor:
    """Keeps processes running until it is told to stop. `say` hears, line by line, what a person wants to know."""

    def __init__(self, home: Home, *, env: Mapping[str, str], say: Callable[[str], None]) -> None:
        self.children: dict[str, Child] = {}
        self.on_start: Callable[[Child], None] = lambda _: None
        self._home, self._env, self._say = home, env, say
        self._looked_at_logs = time.monotonic()

    def start(self, spec: ChildSpec) -> Child:
        """Starts a process and keeps it running from now on."""
        child = self.children[spec.name] = Child(spec, log=self._home.log(spec.name), env=self._env)
        self._launch(child)
        return child

    def tick(self) -> None:
        """Looks at every process once: notes the ends, starts what is due, keeps the logs short."""
        now = time.monotonic()
        for child in self.children.values():
            code = child.ended()
            if code is not None:
                wait = child.postpone()
                self._say(f"{child.spec.name} {describe_exit(code)}; starting again in {wait:g} s (log: {child.log})")
            elif child.process is None and now >= child.due:
                self._launch(child)
        if now - self._looked_at_logs > LOG_LOOK_S:
            self._looked_at_logs = now
            for child in self.children.values():
                rotate(child.log)

    def stop(self) -> None:
        """Stops everything, the highest stage first; what does not go within its grace is killed."""
        for stage in sorted({c.spec.stage for c in self.children.values()}, reverse=True):
            group = [c for c in self.children.values() if c.spec.stage == stage]
            for child in group:
                child.terminate()
            begun = time.monotonic()
            for child in group:
                if not child.finish(begun + child.spec.grace_s):
                    self._say(f"{child.spec.name} did not stop within {child.spec.grace_s:g} s and was killed")

    def _launch(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # such as no memory for a fork: the rest goes on, and this is tried again
            self._say(f"{child.spec.name} could not be started: {error}; again in {child.postpone():g} s")
            return
        self.on_start(child)


class Signals:
    """The signals that ask for an end, as something to wait on: first `asked` wins, a second Ctrl-C changes nothing."""

    def __init__(self, *, watch: int | None = None) -> None:
        self.asked: str | None = None
        self._watch = watch  # a descriptor whose end asks too: the standard input that a parent holds open
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the wait

    def wait(self, timeout_s: float) -> None:
        """Returns after the time, or as soon as a signal came."""
        watched = [self._read] if self._watch is None else [self._read, self._watch]
        ready = select.select(watched, [], [], timeout_s)[0] if self.asked is None else []
        if self._read in ready:
            os.read(self._read, 4096)
        if self._watch is not None and self._watch in ready and not os.read(self._watch, 4096):
            self.asked, self._watch = self.asked or "parent", None

    def _note(self, signum: int, _: object) -> None:
        self.asked = self.asked or signal.Signals(signum).name


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def rotate(log: Path, *, limit: int = LOG_MAX) -> bool:
    """Moves a log beyond the limit to `.1`; the writer goes on in the emptied file, since it appends."""
    if not log.exists() or log.stat().st_size <= limit:
        return False
    shutil.copyfile(log, log.with_name(log.name + ".1"))
    os.truncate(log, 0)
    return True


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of a process's group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS: PermissionError when only the zombie is left
        return


def _has_ended(process: subprocess.Popen[bytes] | None) -> bool:
    """Whether it has, without taking its exit code: the process id, and so the group, stays its own."""
    if process is None or process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _poll(predicate: Callable[[], bool], *, until: float) -> bool:
    while not predicate():
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)
    return True
