"""The command line: which commands there are, and how the process ends."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from orchestrator.cli.output import INTERRUPTED, print_line
from orchestrator.loaded import settle

DISTRIBUTION = "toolweaver"
PARTS: Mapping[str, tuple[str, ...]] = {
    "platform": ("up", "worker"),
    "demo": ("demo",),
    "jobs": ("submit", "status", "result", "events", "confirm", "cancel", "retry", "resolve", "jobs"),
    "logs": ("logs",),
    "config": ("config",),
    "doctor": ("doctor",),
    "metrics": ("metrics",),
    "access": ("purge", "audit", "keys", "permissions"),
    "tools": ("tools",),
    "search": ("search",),
    "mcp": ("mcp",),
    "plans": ("plan",),
    "files": ("files",),
    "sandbox": ("sandbox",),
}
"""The modules of commands, with the commands of each: a command waits for its own module only."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"toolweaver {installed_version(DISTRIBUTION)}")
        raise typer.Exit


def root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Runs AI-agent work on task queues: a plan of tool calls, pools of workers, an answer."""


def make_app(parts: Iterable[str] = PARTS) -> typer.Typer:
    """The command line with the commands of these modules."""
    app = typer.Typer(
        name="toolweaver",
        help="Runs AI-agent work on task queues: a plan of tool calls, pools of workers, an answer.",
        epilog="Data on stdout, progress on stderr."
        " Exit codes: 0 done, 1 job failed, 2 bad request, 3 unreachable, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for name in parts:
        part = import_module(f"orchestrator.cli.{name}")
        if hasattr(part, "add_to"):
            part.add_to(app)
        else:
            app.add_typer(part.app, name=PARTS[name][0])
    return app


@lru_cache(maxsize=1)
def _whole() -> typer.Typer:
    return make_app()


def __getattr__(name: str) -> typer.Typer:
    """`app`: all commands."""
    if name != "app":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return _whole()


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    try:
        gc.disable()  # while modules are loaded, of which nothing is garbage
        word = sys.argv[1] if len(sys.argv) > 1 else ""
        own = [name for name, words in PARTS.items() if word in words]
        app = make_app(own) if own else _whole()  # help, a mistyped command and completion know all
        settle()
        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(INTERRUPTED)
