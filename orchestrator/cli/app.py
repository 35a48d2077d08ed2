"""The command line: which commands there are, and how the process ends."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from orchestrator.cli import access, config, demo, doctor, files, jobs, logs, mcp, plans, platform, sandbox, search, tools
from orchestrator.cli.output import INTERRUPTED, print_line
from orchestrator.extras import DISTRIBUTION

app = typer.Typer(
    name="toolweaver",
    help="Runs AI-agent work on task queues: a plan of tool calls, pools of workers, an answer.",
    epilog="Data on stdout, progress on stderr. Exit codes: 0 done, 1 job failed, 2 bad request, 3 unreachable, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"toolweaver {installed_version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Runs AI-agent work on task queues: a plan of tool calls, pools of workers, an answer."""


for part in (platform, demo, jobs, logs, config, doctor, access):
    part.add_to(app)
app.add_typer(tools.app, name="tools")
app.add_typer(search.app, name="search")
app.add_typer(mcp.app, name="mcp")
app.add_typer(plans.app, name="plan")
app.add_typer(files.app, name="files")
app.add_typer(sandbox.app, name="sandbox")


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    try:
        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(INTERRUPTED)
