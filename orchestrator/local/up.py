"""`up`: brings the platform up in its home, says where it answers, keeps it up until it is asked to stop."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import psutil
from redis.exceptions import RedisError

from orchestrator.broker.queues import ON_DEMAND
from orchestrator.errors import BackendError, Conflict
from orchestrator.jobs.store import JobStore
from orchestrator.local import parts
from orchestrator.local.home import Home
from orchestrator.local.processes import sweep
from orchestrator.local.server import answers, note_pid, stop_orphan, tail, wait_until_up
from orchestrator.local.supervisor import Child, Signals, Supervisor
from orchestrator.models.platform import Platform, running_platform
from orchestrator.settings import Settings
from orchestrator.state.connection import connect

READY_S = 90.0
TICK_S = 0.2
LOOK_S = 1.0  # between two looks at the servers file
FATAL_CRASHES = 3  # of a part without which nothing works, while it was never ready


@dataclass(frozen=True)
class Wanted:
    """What `up` is asked for."""

    pools: Sequence[str] | None = None  # None: all that are installed and have something to serve
    flower: bool = True
    until_stdin_ends: bool = False


@dataclass
class _Run:
    """The state of one `up`."""

    settings: Settings
    wanted: Wanted
    home: Home
    supervisor: Supervisor
    signals: Signals
    redis_url: str
    api_port: int
    pools: list[str]
    flower_port: int | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    looked: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)

    @property
    def api_url(self) -> str:
        return parts.api_address(self.settings, self.api_port)

    @property
    def health_url(self) -> str:
        """The same by an address that needs no name service."""
        scheme = "http" if self.settings.api_tls_cert is None else "https"
        return f"{scheme}://{parts.own_host(self.settings)}:{self.api_port}"


def say(line: str) -> None:
    """A line of progress, for a person."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def up(settings: Settings, wanted: Wanted, *, ready: Callable[[Platform], None]) -> str:
    """Runs the platform until a signal (or the parent's end) stops it; which it was.

    `ready` is called once, as soon as everything answers.

    Raises:
        Conflict: a platform runs in this home already.
        BackendError: a part that everything needs does not come up.
    """
    home = Home(settings.home)
    home.make()
    names = parts.usual_pools(settings) if wanted.pools is None else wanted.pools
    able, lines = parts.check_pools(names, own=bool(settings.tools))
    with _only_one(home), _guard(home):
        say_all(lines)
        _clear_away(home)
        run = _prepare(settings, wanted, home=home, pools=able)
        run.told.update(set(names) - set(able))
        try:
            _start(run)
            platform = _await_ready(run)
            if platform is not None:
                ready(platform)
                _start_what_can_wait(run)
            while run.signals.asked is None:
                run.signals.wait(TICK_S)
                run.supervisor.tick()
                _start_what_is_named(run)
        finally:
            _stop(run)
    return run.signals.asked or "error"


def _start_what_is_named(run: _Run) -> None:
    """Starts a pool when the servers file begins to name something for it, so that `mcp add` needs no restart."""
    if run.wanted.pools is not None or time.monotonic() - run.looked < LOOK_S:
        return
    run.looked = time.monotonic()
    new = [p for p in parts.usual_pools(run.settings) if p in ON_DEMAND and p not in run.told and p not in run.pools]
    if new:
        able, lines = parts.check_pools(new)
        say_all([*lines, *(f"pool {name} is started: the servers file names something for it" for name in able)])
        run.told.update(new)  # once is enough, whatever came of it
        for name in able:
            run.supervisor.start(parts.pool_part(name, parts.drain_s(run.settings)))
            run.pools.append(name)
        _write(run.home, _describe(run))


def say_all(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    try:
        with home.lock():
            yield
    except Conflict:
        running = running_platform(home.path)
        if running is None:
            raise
        raise Conflict(
            f"a platform already runs in `{home.path}` (pid {running.pid}, API {running.api})",
            next=f"Use it as it is, or stop it with `kill {running.pid}`; another one needs its own TOOLWEAVER_HOME.",
        ) from None


@contextmanager
def _guard(home: Home) -> Iterator[None]:
    """Runs the guard, which sweeps when this process is gone."""
    command = (sys.executable, "-m", "orchestrator.local.guard", str(home.path), str(os.getpid()))
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        if guard.stdin is not None:
            guard.stdin.close()
        guard.wait(10)


def _clear_away(home: Home) -> None:
    """Ends what a killed supervisor left behind in this home, the server last."""
    count = sweep(home.path) + (stop_orphan(home) is not None)
    home.platform_file.unlink(missing_ok=True)
    if count:
        say(f"stopped {count} processes that a killed platform had left behind")


def _prepare(settings: Settings, wanted: Wanted, *, home: Home, pools: list[str]) -> _Run:
    redis_url = settings.redis_url or home.redis_url
    api_port = _moved_on(settings, "api_port")
    flower_port = _moved_on(settings, "flower_port") if wanted.flower else None
    env = parts.environment(home, settings, redis_url=redis_url, api_port=api_port)
    supervisor = Supervisor(home, env=env, say=say)
    signals = Signals(watch=sys.stdin.fileno() if wanted.until_stdin_ends else None)
    return _Run(settings, wanted, home, supervisor, signals, redis_url, api_port, pools, flower_port)


def _moved_on(settings: Settings, setting: str) -> int:
    wanted: int = getattr(settings, setting)
    host = settings.api_host if setting == "api_port" else parts.flower_host(settings)
    port = parts.free_port(host, wanted, setting=setting)
    if port != wanted:
        say(f"port {wanted} is busy: {setting} is {port}")
    return port


def _start(run: _Run) -> None:
    if run.settings.redis_url is None:
        _start_server(run)
    elif not answers(run.redis_url, timeout_s=3.0):
        raise BackendError(
            "no server answers at TOOLWEAVER_REDIS_URL", next="Start it, or unset the variable for the embedded one."
        )
    drain_s = parts.drain_s(run.settings)
    for part in (parts.api_part(), parts.planner_part(), *(parts.pool_part(p, drain_s) for p in run.pools)):
        run.supervisor.start(part)


def _start_what_can_wait(run: _Run) -> None:
    """What plans and calls do not wait for: search, and the page that shows them."""
    run.supervisor.start(parts.index_part())
    if run.flower_port is not None:
        run.supervisor.start(parts.flower_part(run.settings, run.flower_port))


def _start_server(run: _Run) -> None:
    def note(child: Child) -> None:
        if child.spec.name == "server" and child.process is not None:
            note_pid(run.home, child.process.pid)

    run.supervisor.on_start = note
    server = run.supervisor.start(parts.server_part(run.home))
    if server.process is None:
        raise BackendError("the embedded server could not be started", next="`toolweaver doctor` looks for the cause.")
    wait_until_up(run.redis_url, server.process, log=server.log)


def _await_ready(run: _Run) -> Platform | None:
    """Waits until everything answers and says so in the platform file; None when it was asked to stop before.

    Raises:
        BackendError: a part that everything needs keeps crashing, or nothing came within the time.
    """
    until = time.monotonic() + READY_S
    settings = run.settings.model_copy(update={"redis_url": run.redis_url})
    store = JobStore(connect(settings, retries=0, timeout_s=2.0), settings)
    while run.signals.asked is None:
        missing = not_ready(run.health_url, run.supervisor, run.pools, store=store)
        if not missing:
            break
        _give_up(run, missing, late=time.monotonic() > until)
        run.signals.wait(TICK_S)
        run.supervisor.tick()
    if run.signals.asked is not None:
        return None
    platform = _describe(run)
    _write(run.home, platform)
    return platform


def _give_up(run: _Run, missing: Sequence[str], *, late: bool) -> None:
    for name in missing:
        child = run.supervisor.children.get(name)
        if child is not None and (late or child.crashes >= FATAL_CRASHES):
            why = "is not ready in time" if child.crashes < FATAL_CRASHES else f"crashed {child.crashes} times"
            raise BackendError(f"{name} {why}: {tail(child.log)}", next=f"Read `{child.log}`.")


def not_ready(api_url: str, supervisor: Supervisor, pools: Sequence[str], *, store: JobStore) -> list[str]:
    """The parts that do not answer yet: the API by its health, the pools by their announcement, the planner by its being there."""
    try:
        if not _healthy(api_url):
            return ["api"]
        announced = {worker.pid for worker in store.workers()}
    except (OSError, HTTPException, RedisError):
        return ["api"]
    pids = {name: child.process.pid for name, child in supervisor.children.items() if child.process is not None}
    return [p for p in pools if pids.get(p) not in announced] + [p for p in ("planner",) if p not in pids]


def _healthy(api_url: str) -> bool:
    where = urlsplit(api_url)
    if where.scheme == "https":
        # Nothing is sent that anybody could use, so the name in our own certificate does not matter here.
        unchecked = ssl._create_unverified_context()
        api: HTTPConnection = HTTPSConnection(where.netloc, timeout=2.0, context=unchecked)
    else:
        api = HTTPConnection(where.netloc, timeout=2.0)
    with closing(api):
        api.request("GET", "/health")
        return api.getresponse().status == HTTPStatus.OK


def _describe(run: _Run) -> Platform:
    return Platform(
        pid=os.getpid(),
        api=run.api_url,
        flower=f"http://{parts.flower_host(run.settings)}:{run.flower_port}" if run.flower_port else None,
        redis=run.redis_url,
        started=run.started,
        process_started=psutil.Process().create_time(),
        pools=tuple(run.pools),
    )


def _write(home: Home, platform: Platform) -> None:
    draft = home.platform_file.with_suffix(".tmp")
    draft.touch(mode=0o600)  # the address of a server may carry a password
    draft.write_text(platform.model_dump_json(indent=2) + "\n")
    draft.replace(home.platform_file)


def _stop(run: _Run) -> None:
    run.home.platform_file.unlink(missing_ok=True)
    run.supervisor.stop()
    sweep(run.home.path, supervisor=os.getpid(), grace_s=0.0)
    run.home.forget_server()
