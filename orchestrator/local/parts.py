"""What the platform on one machine consists of: which processes, with which command, in which order."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from orchestrator.broker.queues import ON_DEMAND, POOLS
from orchestrator.errors import BackendError, RequestError
from orchestrator.extras import install_command, missing_packages
from orchestrator.local.home import Home
from orchestrator.local.processes import mark
from orchestrator.local.server import server_command
from orchestrator.local.supervisor import ChildSpec
from orchestrator.models.platform import MARK
from orchestrator.settings import Settings
from orchestrator.tool_discovery.servers import used_pools

PORTS_TRIED = 50
CHECK_S = 90.0
LOCAL_DRAIN_S = 3.0
_reserved: list[socket.socket] = []  # one a port
SERVER, MIDDLE, WORKERS = 0, 1, 2  # stages: pools stop first, the server last


def usual_pools(settings: Settings) -> tuple[str, ...]:
    """The pools that `up` starts unasked: all that there are, but for those that have nothing to serve yet."""
    used = used_pools(settings)
    return tuple(name for name in POOLS if name not in ON_DEMAND or name in used)


def check_pools(names: Sequence[str], *, own: bool = False) -> tuple[list[str], list[str]]:
    """The pools that can run here, and a line for each that cannot, with what installs it.

    `own` allows other names than the bundled ones: pools of the user's tools.

    Raises:
        RequestError: there is no pool of that name.
    """
    able, lines = [], []
    for name in names:
        if name not in POOLS and not own:
            near = "".join(f"Did you mean `{n}`? " for n in get_close_matches(name, POOLS, n=1))
            raise RequestError(f"there is no pool `{name}`", next=f"{near}The pools are {', '.join(POOLS)}.")
        if why := why_not(name):
            lines.append(f"pool {name} is not started: {why}")
        else:
            able.append(name)
    return able, lines


def why_not(pool: str) -> str | None:
    """Why a pool cannot run here, with the next move; None when it can."""
    known = POOLS.get(pool)
    if known is None:
        return None
    if known.extra and (missing := missing_packages(known.extra)):
        return f"{', '.join(missing)} not installed; run `{install_command(known.extra)}`"
    return _checked(known.check) if known.check else None


def _checked(module: str) -> str | None:
    """What the pool's own check says; a process of its own, since nothing here may import it."""
    try:
        ended = subprocess.run((sys.executable, "-m", module, "--brief"), capture_output=True, text=True, timeout=CHECK_S)
    except subprocess.TimeoutExpired:
        return f"its check did not end within {CHECK_S:g} s; look at the load of this machine"
    said = [line for line in (*ended.stderr.splitlines(), *ended.stdout.splitlines()) if line.strip()]
    return None if ended.returncode == 0 else (said or [f"its check ended with exit code {ended.returncode}"])[-1]


def free_port(host: str, first: int, *, setting: str = "api_port") -> int:
    """The first free port from `first` on. It is this process's till it ends: no other platform of this machine is given it.

    Raises:
        BackendError: none of the next ones is free.
    """
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            if _reserve(port):
                return port
    raise BackendError(
        f"no port from {first} to {first + PORTS_TRIED - 1} is free on {host}",
        next=f"Set TOOLWEAVER_{setting.upper()} to another one.",
    )


def _reserve(port: int) -> bool:
    """Whether no other platform has chosen the port and is yet to listen on it: two that start at once would share an API.

    Who has chosen one holds a name in Linux's abstract namespace of sockets, which ends with its process.
    """
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0toolweaver-port-{port}")
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True


def own_host(settings: Settings) -> str:
    """Where this machine reaches what listens on `api_host`."""
    host = settings.api_host
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def api_address(settings: Settings, port: int) -> str:
    """The API's address for clients here; with TLS by the name that its certificate has."""
    if settings.api_tls_cert is None:
        return f"http://{own_host(settings)}:{port}"
    return f"https://{next(iter(settings.api_hosts), own_host(settings))}:{port}"


def flower_host(settings: Settings) -> str:
    """Where Flower listens: on loopback, since it asks nobody who they are."""
    return settings.api_host if settings.api_host in ("::1", "localhost") else "127.0.0.1"


def environment(home: Home, settings: Settings, *, redis_url: str, api_port: int) -> dict[str, str]:
    """The environment of every part: what was settled here, so that no part settles it again. No part needs a caller's key."""
    fixed = {
        MARK: mark(home.path, os.getpid()),
        "TOOLWEAVER_HOME": str(home.path),
        "TOOLWEAVER_REDIS_URL": redis_url,
        "TOOLWEAVER_API_HOST": settings.api_host,
        "TOOLWEAVER_API_PORT": str(api_port),
        "TOOLWEAVER_URL": api_address(settings, api_port),
        "TOOLWEAVER_TOOLS": ",".join(settings.tools),
        "TOOLWEAVER_DRAIN_S": f"{drain_s(settings):g}",
        "PYTHONUNBUFFERED": "1",
    }
    return {k: v for k, v in os.environ.items() if k.upper() != "TOOLWEAVER_API_KEY"} | fixed


def drain_s(settings: Settings) -> float:
    """How long Ctrl-C lets running calls go on, unless it is set: less than elsewhere, since a person waits."""
    return settings.drain_s if "drain_s" in settings.model_fields_set else LOCAL_DRAIN_S


def server_part(home: Home) -> ChildSpec:
    return ChildSpec("server", server_command(home), stage=SERVER, grace_s=2.5)


def api_part() -> ChildSpec:
    return _module("api", "orchestrator.api", stage=MIDDLE)


def planner_part() -> ChildSpec:
    return _module("planner", "orchestrator.tasks", stage=MIDDLE)


def index_part() -> ChildSpec:
    """One replica of the index service; clients find it through the store, whatever port it gets."""
    return _module("index", "orchestrator.tool_search.service", stage=MIDDLE)


def pool_part(pool: str, drain_s: float = LOCAL_DRAIN_S) -> ChildSpec:
    return _module(pool, "workers.boot", "--pool", pool, stage=WORKERS, grace_s=drain_s + 1.5)


def flower_part(settings: Settings, port: int) -> ChildSpec:
    return _module("flower", "orchestrator.local.flower", flower_host(settings), str(port), stage=MIDDLE, grace_s=1.0)


def _module(name: str, module: str, *words: str, stage: int, grace_s: float = 2.0) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-m", module, *words), stage=stage, grace_s=grace_s)
