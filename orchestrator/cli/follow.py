"""Watches a job until it ends: a live display in a terminal, plain lines in a pipe. Ctrl-C only detaches."""

from __future__ import annotations

import time

from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.asked import waiting_lines
from orchestrator.cli.output import DONE, JOB_FAILED, say, stderr
from orchestrator.cli.progress import PlainLines, Progress, failure_line, planned_lines
from orchestrator.client.handle import JobHandle
from orchestrator.models.job import JobStatus, JobView


def watch(job: JobHandle) -> JobStatus:
    """Shows the job's progress on stderr until it ends; how it ended."""
    view = job.view()
    while not view.status.final:
        if stderr().is_terminal:
            _watch_live(job, view)
        else:
            _watch_plain(job, view)
        view = job.view()  # a second round only if somebody retried it just now
    return view.status


def watch_or_detach(job: JobHandle) -> JobStatus:
    """The same; an interrupt says how to come back before it goes on."""
    try:
        return watch(job)
    except KeyboardInterrupt:
        say(f"detached; {job.id} goes on. Come back with `toolweaver status {job.id} --follow`.")
        raise


def ending(status: JobStatus) -> int:
    """The exit code of a job that ended, or still runs."""
    return JOB_FAILED if status in (JobStatus.FAILED, JobStatus.CANCELLED) else DONE


def _watch_live(job: JobHandle, view: JobView) -> None:
    progress, begun = Progress(view), time.monotonic()

    def picture() -> Group:
        head = Text(f"{job.id} {progress.status} {time.monotonic() - begun:.1f} s", style="dim")
        return Group(head, progress.text())

    with Live(get_renderable=picture, console=stderr(), refresh_per_second=8) as live:
        for event in job.events(view.cursor):
            progress.apply(event)
            for told in planned_lines(event):
                live.console.print(Text(told, style="dim"))
            if line := failure_line(event):
                live.console.print(Text(line, style="red"))


def _watch_plain(job: JobHandle, view: JobView) -> None:
    lines = PlainLines(Progress(view))
    for told in waiting_lines(view):
        say(told)
    for event in job.events(view.cursor):
        for line in lines.lines(event):
            say(line)
