"""A Docker engine of a test's own, to be killed: with its own data, state and socket, beside the machine's engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support import wait_until


def missing() -> str | None:
    """Why there can be none."""
    if os.geteuid() != 0:
        return "only root may start an engine"
    return None if shutil.which("dockerd") else "there is no dockerd"


class PrivateEngine:
    """`dockerd` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        places = {"data-root": "data", "exec-root": "run", "pidfile": "pid"}
        words = [f"--{name}={self.folder / place}" for name, place in places.items()]
        for file in (self.folder / "pid", self.folder / "run" / "containerd" / "containerd.pid"):
            file.unlink(missing_ok=True)  # of those before, whose ids may be zombies' or others' by now
        with (self.folder / "log").open("ab") as log:
            self._running = subprocess.Popen(
                # A network of its own: without a bridge it would take away that of the machine's engine.
                ["unshare", "--net", "--", "dockerd", f"--host={self.host}", "--bridge=none", "--iptables=false", *words],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        wait_until(self.answers, description="the engine answers", timeout=90, every=0.1)

    def answers(self) -> bool:
        """Whether it does; fails when it has ended."""
        assert self._running is not None
        assert self._running.poll() is None, (self.folder / "log").read_text(encoding="utf-8")[-2000:]
        asked = subprocess.run(("docker", "-H", self.host, "version"), capture_output=True, timeout=30, check=False)
        return asked.returncode == 0

    def kill(self) -> None:
        """kill -9; containers go on for a while, the engine's own containerd dies with it."""
        self._end(signal.SIGKILL)
        wait_until(lambda: "containerd" not in map(_name, self._family()), description="containerd is gone")

    def _family(self) -> list[psutil.Process]:
        """Its own processes that live: containerd, a shim for each container, and what of `runc` was forgotten."""
        return [p for p in psutil.process_iter() if _name(p).startswith(("containerd", "runc")) and _tells(p, str(self.folder))]

    def _end(self, how: signal.Signals) -> None:
        assert self._running is not None, "start() comes first"
        self._running.send_signal(how)
        self._running.wait(60)

    def said(self, of: list[str]) -> str:
        """What its log says of containers."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if any(id in line for id in of))

    def close(self) -> None:
        """Ends it in order, and what it may have left behind."""
        if self._running is not None and self._running.poll() is None:
            self._end(signal.SIGTERM)
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(("umount", "--lazy", mount), check=False)

    def take_image(self, name: str) -> None:
        """Copies an image from the machine's engine."""
        with subprocess.Popen(("docker", "save", name), stdout=subprocess.PIPE) as saved:
            subprocess.run(("docker", "-H", self.host, "load"), stdin=saved.stdout, check=True, capture_output=True, timeout=120)


def _tells(process: psutil.Process, folder: str) -> bool:
    try:
        words = process.cmdline()
        return any(folder in word for word in (*words, *_targets(process.pid)))
    except psutil.Error:
        return False


def _targets(pid: int) -> list[str]:
    """What its open files are."""
    with suppress(OSError):
        return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


@contextmanager
def private_engine(folder: Path) -> Iterator[PrivateEngine]:
    """An engine that runs."""
    folder.mkdir()
    made = PrivateEngine(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
