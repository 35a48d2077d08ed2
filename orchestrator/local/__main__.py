"""`python -m orchestrator.local up`: what `toolweaver up` and `toolweaver demo` start."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # while modules are loaded, of which nothing is garbage: looking for it took a fifth of the start

import argparse
import shutil
import sys
from collections.abc import Sequence

from orchestrator.errors import RequestError, ToolWeaverError
from orchestrator.loaded import settle
from orchestrator.local.up import Wanted, say, up
from orchestrator.models.platform import Platform
from orchestrator.settings import load_settings

DONE, BAD_REQUEST, UNREACHABLE = 0, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code."""
    options = _parser().parse_args(arguments)
    wanted = Wanted(
        pools=None if options.pools is None else tuple(p for p in options.pools.split(",") if p),
        flower=options.flower,
        until_stdin_ends=options.until_stdin_ends,
    )
    settings = load_settings()
    settle()
    try:
        reason = up(settings, wanted, ready=_print_json if options.json else _print_table)
    except ToolWeaverError as error:
        say(f"error: {error.message}")
        say(error.next or "")
        return BAD_REQUEST if isinstance(error, RequestError) else UNREACHABLE
    finally:
        if options.temporary:
            shutil.rmtree(settings.home, ignore_errors=True)
    if not options.until_stdin_ends:  # else somebody else speaks to the person
        say(f"stopped ({reason})")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.local", description="The platform on this machine.")
    command = parser.add_subparsers(required=True).add_parser("up", help="bring the platform up and keep it up")
    command.add_argument("--pools", help="pools to start, comma-separated; default: all that have something to serve")
    command.add_argument("--no-flower", dest="flower", action="store_false", help="start without Flower")
    command.add_argument("--json", action="store_true", help="print the addresses as JSON")
    command.add_argument(
        "--until-stdin-ends", action="store_true", help="stop when standard input ends: with the process that holds it"
    )
    command.add_argument("--temporary", action="store_true", help="remove the home folder when everything has stopped")
    return parser


def _print_json(platform: Platform) -> None:
    sys.stdout.write(platform.model_dump_json() + "\n")
    sys.stdout.flush()


def _print_table(platform: Platform) -> None:
    from rich.console import Console  # noqa: PLC0415  # nobody waits for it who asked for JSON
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {
        "API": platform.api,
        "API page": f"{platform.api}/docs",
        "Flower": platform.flower or "(not started)",
        "store and broker": platform.redis.rpartition("@")[2],
        "pools": ", ".join(platform.pools),
    }
    for name, address in rows.items():
        table.add_row(f"[bold]{name}[/bold]", address)
    console = Console()
    console.print(table)
    console.print(f"ready; stop with Ctrl-C or `kill {platform.pid}`", style="dim", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
