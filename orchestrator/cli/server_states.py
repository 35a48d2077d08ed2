"""What the running platform knows of servers: their states, and whether it noticed a change of the servers file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli.output import say
from orchestrator.client.client import Client
from orchestrator.errors import BackendError, PolicyError, ToolWeaverError
from orchestrator.extras import install_command, missing_packages
from orchestrator.models.catalog import ServerState
from orchestrator.models.platform import running_platform
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings

LOOK_S = 0.25
POOL_S = 4.0  # `up` looks at the file each second, and a worker says that it is there as soon as it has begun
POOL_OF = {"mcp": "mcp", "openapi": "http"}


@contextmanager
def platform(settings: Settings) -> Iterator[Client | None]:
    """A client of the platform, or None where there is none to ask."""
    if running_platform(settings.home) is None and settings.url is None:
        yield None
        return
    with Client(settings=settings, timeout=10.0) as client:
        yield client


def states(settings: Settings) -> dict[str, ServerState] | None:
    """The servers by name as the platform sees them; None where it cannot be asked, which is said unless none runs."""
    try:
        with platform(settings) as client:
            return None if client is None else {s.name: s for s in client.servers()}
    except (BackendError, PolicyError) as error:
        say(f"the platform does not say how servers are: {error.message}")
        return None


def known_tools(settings: Settings, server: str) -> list[ToolDefinition] | None:
    """The tools of a server that the platform serves; None where it cannot be asked."""
    try:
        with platform(settings) as client:
            return None if client is None else [t for t in client.tools() if t.server == server]
    except (BackendError, PolicyError):
        return None


def follow_change(settings: Settings, name: str, *, section: str, since: float) -> ServerState | None:
    """Says whether the platform took up what was changed in the file, and how the server is then; its state if it did."""
    pool = POOL_OF[section]
    running = running_platform(settings.home)
    if running is None:
        say(_without_platform(settings, name))
        return None
    if missing := _missing(pool):
        say(missing)
        return None
    say(f"the platform here looks at it (pool {pool}) ...")
    try:
        with Client(settings=settings, timeout=10.0) as client:
            state = _settled(client, settings, name, pool=pool, since=since)
    except ToolWeaverError as error:
        say(f"the platform does not answer: {error.message}")
        return None
    say(in_words(state) if state else _not_taken_up(settings, name, pool))
    return state


def in_words(state: ServerState) -> str:
    """A server's state in one line."""
    if state.state == "down":
        return f"{state.name} is down: {state.error or 'it says no more'}; it is tried again"
    if state.state == "starting":
        return f"{state.name} is starting; `toolweaver mcp list` shows when it is up"
    held = f", {len(state.quarantined)} quarantined (`toolweaver mcp show {state.name}`)" if state.quarantined else ""
    refused = f", {len(state.refused)} refused" if state.refused else ""
    return f"{state.name} is up: {state.tools} tools{held}{refused}"


def age(at: float) -> str:
    """How long ago that was, in the largest unit that fits."""
    seconds = max(0.0, time.time() - at)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _settled(client: Client, settings: Settings, name: str, *, pool: str, since: float) -> ServerState | None:
    """The server's state once it is up or down; the last one seen when that takes long; None when nobody serves the pool."""
    began = time.monotonic()
    seen: ServerState | None = None
    while time.monotonic() < began + settings.server_connect_s + POOL_S:
        seen = next((s for s in client.servers() if s.name == name and s.at >= since), seen)
        if seen is not None and seen.state != "starting":
            return seen
        if seen is None and time.monotonic() > began + POOL_S and not served(client, settings, pool):
            return None
        time.sleep(LOOK_S)
    return seen


def served(client: Client, settings: Settings, pool: str) -> bool:
    """Whether somebody serves a pool here, or is about to."""
    running = running_platform(settings.home)
    return (running is not None and pool in running.pools) or any(w.pool == pool for w in client.workers())


def _missing(pool: str) -> str | None:
    missing = missing_packages("mcp") if pool == "mcp" else []
    return f"the pool mcp cannot start: {', '.join(missing)} not installed; run `{install_command('mcp')}`" if missing else None


def _without_platform(settings: Settings, name: str) -> str:
    if settings.url is not None:
        return f"the platform at {settings.url} reads the files of its own machines; this one is read by workers that run here"
    return f"`toolweaver mcp test {name}` tries it; `toolweaver up` serves it"


def _not_taken_up(settings: Settings, name: str, pool: str) -> str:
    running = running_platform(settings.home)
    if running is not None and pool in running.pools:
        return f"the pool {pool} has not said anything of {name} yet; `toolweaver logs {pool}` may say why"
    return f"nobody serves the pool {pool}: run `toolweaver worker --pool {pool}`, or start `toolweaver up` anew"
