"""The commands that become other processes: the platform, a worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.broker.queues import ON_DEMAND, PoolKind
from orchestrator.cli.output import AsJson, print_json, register, say
from orchestrator.models.platform import running_platform
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_discovery.servers import used_pools

Tools = Annotated[list[str] | None, typer.Option("--tools", help="Module or .py file with tools of yours; may be repeated.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""

    @register(app, "up", examples="toolweaver up · toolweaver up --tools my_tools.py --pools function")
    def up(
        pools: Annotated[
            str | None,
            typer.Option(help="Pools to start, comma-separated; default: all that are installed and have something to serve."),
        ] = None,
        flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Watch the workers with Flower.")] = True,
        tools: Tools = None,
        as_json: AsJson = False,
    ) -> int:
        """Run the platform on this machine until Ctrl-C: server, API, planner, pools, Flower."""
        words = [*(("--pools", pools) if pools else ()), *(() if flower else ("--no-flower",)), *(("--json",) if as_json else ())]
        return become("orchestrator.local", "up", *words, env=_tools_env(tools, load_settings()))

    @register(app, "worker", examples="toolweaver worker --pool ocr · toolweaver worker --pool mine --tools my_tools.py")
    def worker(
        pool: Annotated[
            str, typer.Option(help="function, async, ocr, small_model, mcp, http, code, or the pool of a tool of yours.")
        ],
        concurrency: Annotated[int | None, typer.Option(min=1, help="Calls at the same time.")] = None,
        kind: Annotated[
            PoolKind | None, typer.Option(help="How it runs them; default: async when all tools of the pool are, else prefork.")
        ] = None,
        tools: Tools = None,
        as_json: AsJson = False,
    ) -> int:
        """Run a worker of one pool until Ctrl-C, for the platform that runs here or at TOOLWEAVER_REDIS_URL."""
        settings = load_settings()
        if settings.redis_url is None and running_platform(settings.home) is None:
            say(f"no platform runs in `{settings.home}` yet: this worker waits for one (`toolweaver up`)")
        if pool in ON_DEMAND and pool not in used_pools(settings):
            say(f"`{settings.servers_path}` names nothing for this pool yet: it waits for `toolweaver mcp add`")
        words = ["--pool", pool, *(("--concurrency", str(concurrency)) if concurrency else ())]
        words += ["--kind", kind] if kind else []
        for spec in tools or ():
            words += ["--tools", spec]
        if as_json:
            print_json({"pool": pool, "pid": os.getpid(), "command": ["workers.boot", *words]}, indent=None)
        else:
            say(f"worker of pool {pool}; stop with Ctrl-C")
        return become("workers.boot", *words, env=store_env(settings))


def become(module: str, *words: str, env: dict[str, str]) -> int:
    """Replaces this process by a module of ours; it does not return."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *words], {**os.environ, **env})


def _tools_env(tools: list[str] | None, settings: Settings) -> dict[str, str]:
    named = [*settings.tools, *(str(Path(t).absolute()) if t.endswith(".py") else t for t in tools or ())]
    return {"TOOLWEAVER_TOOLS": ",".join(named)} if tools else {}


def store_env(settings: Settings) -> dict[str, str]:
    """Where the running platform keeps its store: its socket may lie elsewhere than the settings say."""
    platform = running_platform(settings.home) if settings.redis_url is None else None
    return {"TOOLWEAVER_REDIS_URL": platform.redis} if platform else {}
