"""The command `logs`: what a process of the platform wrote, or what the tools of a job logged."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.jobs import event_line, open_job, past_events
from orchestrator.cli.output import DONE, AsJson, print_json, print_line, register
from orchestrator.errors import NotFound
from orchestrator.settings import load_settings


def add_to(app: typer.Typer) -> None:
    """Registers the command."""

    @register(app, "logs", examples="toolweaver logs ocr -n 50 · toolweaver logs job_1f3a")
    def logs(
        name: Annotated[
            str | None, typer.Argument(metavar="[PROCESS|JOB]", help="A process of the platform, or a job's id.")
        ] = None,
        lines: Annotated[int, typer.Option("-n", min=1, help="The last so many lines of a process.")] = 30,
        as_json: AsJson = False,
    ) -> int:
        """Print the log of a process, what a job's tools logged, or (without a name) which logs there are."""
        folder = load_settings().home / "logs"
        if name is None:
            return _list(folder, as_json=as_json)
        if name.startswith("job_"):
            return _print_job(name, as_json=as_json)
        return _print_process(folder, name, lines=lines, as_json=as_json)


def _print_job(job_id: str, *, as_json: bool) -> int:
    with open_job(job_id) as job:
        for event in past_events(job, None):
            if event.type in ("log", "alert") and as_json:
                print_json(event, indent=None)
            elif event.type in ("log", "alert"):
                print_line(event_line(event))
    return DONE


def _list(folder: Path, *, as_json: bool) -> int:
    found = sorted(folder.glob("*.log"))
    if as_json:
        print_json({p.stem: str(p) for p in found})
    for path in [] if as_json else found:
        print_line(f"{path.stem:<14} {path}")
    return DONE


def _print_process(folder: Path, name: str, *, lines: int, as_json: bool) -> int:
    path = folder / f"{Path(name).name}.log"
    if not path.exists():
        known = ", ".join(p.stem for p in sorted(folder.glob("*.log"))) or "none"
        raise NotFound(f"there is no log of `{name}`", next=f"Logs in `{folder}`: {known}. A job's id shows what its tools logged.")
    with path.open(errors="replace") as file:
        last = list(deque(file, maxlen=lines))
    if as_json:
        print_json({"log": str(path), "lines": [line.rstrip("\n") for line in last]})
    for line in [] if as_json else last:
        print_line(line.rstrip("\n"))
    return DONE
