"""The commands about jobs: submit one, look at it, stop it, go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.asked import await_plan, confirmed, told_lines, usage_words
from orchestrator.cli.files import uploaded
from orchestrator.cli.follow import ending, watch_or_detach
from orchestrator.cli.inputs import read_object, read_pairs, read_value
from orchestrator.cli.output import DONE, AsJson, print_json, print_line, print_table, register, say
from orchestrator.cli.progress import step_line
from orchestrator.client.calls import FILES
from orchestrator.client.client import Client
from orchestrator.client.handle import JobHandle
from orchestrator.client.plans import is_sentence
from orchestrator.errors import RequestError
from orchestrator.models.event import Event
from orchestrator.models.job import JobResult, JobStatus, JobView, Priority, RequestMode

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
_SHOWN = 40  # characters of a request in a list
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Show the progress and print the result.")]


@contextmanager
def open_job(job_id: str) -> Iterator[JobHandle]:
    """The handle of a job on the platform in use."""
    with Client() as client:
        yield client.job(job_id)


def finish(job: JobHandle, *, as_json: bool) -> int:
    """Waits for the end with progress, prints what came out; the exit code."""
    status = watch_or_detach(job)
    details = job.details()
    if as_json:
        print_json(details)
    elif status is JobStatus.SUCCEEDED:
        print_line(details.answer) if details.answer is not None else print_json(details.output)
    if not as_json and details.usage and details.usage.calls:
        say(f"usage    {usage_words(details.usage)}")
    if not as_json and (details.errors or status is not JobStatus.SUCCEEDED):
        _explain(details)
    return ending(status)


def _explain(details: JobResult) -> None:
    ended = f"{details.status} with errors" if details.status is JobStatus.SUCCEEDED else details.status
    say(f"{details.job_id} {ended}; `toolweaver retry {details.job_id}` goes on from what did not succeed")
    for error in details.errors:
        item = "" if error.index is None else f"#{error.index}"
        say(f"  {error.step or 'job'}{item}: {error.message}" + (f" {error.next}" if error.next else ""))


def announce(job: JobHandle, client: Client, *, as_json: bool) -> None:
    """Says a new job's id (data), its address and what comes next."""
    address, following = f"{client.url}/v1/jobs/{job.id}", f"toolweaver status {job.id} --follow"
    if as_json:
        print_json({"id": job.id, "address": address, "next": following})
        return
    print_line(job.id)
    say(f"address  {address}")
    say(f"next     {following}")


def show_view(view: JobView) -> None:
    """A job as a table of its steps."""
    name = f" {view.name}" if view.name else ""
    print_line(f"{view.id}{name} {view.status}{' with errors' if view.has_errors else ''} · {age(view)}")
    for line in told_lines(view):
        print_line(line)
    if view.steps or view.request is None:
        print_table(
            ("step", "tool", "state", "progress"), ((s.id, s.tool, s.state, step_line(s).partition(" ")[2]) for s in view.steps)
        )
    for call in view.unknown:
        print_line(f"{call.call} may or may not have happened: `toolweaver resolve {view.id} {call.call} --happened` or `--retry`")
    if view.error:
        print_line(f"error: {view.error.message}" + (f" {view.error.next}" if view.error.next else ""))


def age(view: JobView) -> str:
    """How long a job took, or has been going on."""
    seconds = ((view.finished_at or datetime.now(UTC)) - view.created_at).total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def event_line(event: Event) -> str:
    """An event in one line."""
    place = event.call or event.step or ""
    data = " ".join(f"{k}={v}" for k, v in event.data.items()) if event.type != "gap" else "(events before this were dropped)"
    return f"{event.ts:%H:%M:%S.%f}"[:-3] + f"  {event.type:<15} {place:<20} {data}".rstrip()


def past_events(job: JobHandle, after: str | None) -> Iterator[Event]:
    """The events up to now, without waiting for more."""
    newest = job.view().cursor
    if newest is None or newest == after:
        return
    for event in job.events(after):
        yield event
        if event.id == newest:
            return


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""

    @register(
        app,
        "submit",
        examples='toolweaver submit "tell me what we spent on food" receipts/*.png --wait'
        " · toolweaver submit receipts --wait · toolweaver submit plan.json -i amount=12.5",
    )
    def submit(
        plan: Annotated[
            str,
            typer.Argument(
                metavar="REQUEST",
                help="What to do, in words: a text with blanks. One word is the name of a bundled plan, or a plan file (.json).",
            ),
        ],
        files: Annotated[
            list[Path] | None,
            typer.Argument(metavar="FILES", help="Files for a request; they are uploaded, and are its input `files`."),
        ] = None,
        pair: Annotated[
            list[str] | None, typer.Option("--input", "-i", metavar="NAME=VALUE", help="One input; may be repeated.")
        ] = None,
        inputs: Annotated[str | None, typer.Option(help="All inputs as a JSON object, @file, or - for stdin.")] = None,
        file: Annotated[
            list[str] | None,
            typer.Option("--file", "-f", metavar="NAME=PATH", help="One input that is a file, which is uploaded; may be repeated."),
        ] = None,
        key: Annotated[str | None, typer.Option(help="Idempotency key: the same key and plan give the same job.")] = None,
        priority: Annotated[Priority, typer.Option(help="Who goes first when workers are busy.")] = "normal",
        tool: Annotated[
            list[str] | None,
            typer.Option("--tool", metavar="NAME", help="A tool that a request may use, no other; may be repeated."),
        ] = None,
        confirm: Annotated[
            bool, typer.Option("--confirm", help="Show the plan of a request, and run it once you said yes.")
        ] = False,
        plan_only: Annotated[bool, typer.Option("--plan-only", help="Print the plan of a request as JSON; nothing runs.")] = False,
        wait: Wait = False,
        as_json: AsJson = False,
    ) -> int:
        """Submit a request in words, or a plan; prints the job's id."""
        mode = _mode(plan, files=files or (), tools=tool, confirm=confirm, plan_only=plan_only)
        given = {**read_object(inputs, option="--inputs"), **read_pairs(pair or (), option="--input")}
        with Client() as client:
            given |= uploaded(client, file or (), option="--file")
            given |= _files(client, files or (), given)
            job = client.submit(plan, inputs=given, idempotency_key=key, priority=priority, mode=mode, tools=tool)
            if plan_only:
                print_json(await_plan(job).model_dump(mode="json", exclude_defaults=True))
                return DONE
            if confirm and (code := confirmed(job, inputs=given, as_json=as_json)) is not None:
                return code
            if not wait:
                announce(job, client, as_json=as_json)
                return DONE
            say(f"{job.id}  {client.url}/v1/jobs/{job.id}")
            return finish(job, as_json=as_json)

    @register(app, "status")
    def status(
        job_id: JobId,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch until it ends.")] = False,
        as_json: AsJson = False,
    ) -> int:
        """Where a job stands, step by step."""
        with open_job(job_id) as job:
            if follow:
                watch_or_detach(job)
            view = job.view()
        if as_json:
            print_json(view)
        else:
            show_view(view)
        return ending(view.status)

    @register(app, "result")
    def result(job_id: JobId, as_json: AsJson = False) -> int:
        """Wait for a job with progress, and print what came out."""
        with open_job(job_id) as job:
            return finish(job, as_json=as_json)

    @register(app, "events")
    def events(
        job_id: JobId,
        follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until the job ends.")] = True,
        after: Annotated[str | None, typer.Option(help="Resume after the event of this id.")] = None,
        as_json: AsJson = False,
    ) -> int:
        """Print what happens in a job, one event a line."""
        with open_job(job_id) as job:
            for event in job.events(after) if follow else past_events(job, after):
                if as_json:
                    print_json(event, indent=None)
                else:
                    print_line(event_line(event))
        return DONE

    _add_actions(app)


def _files(client: Client, paths: Sequence[Path], given: Mapping[str, Any]) -> dict[str, Any]:
    """The input that the files of a request are, uploaded.

    Raises:
        RequestError: it is given by its name, too.
    """
    if paths and FILES in given:
        raise RequestError("the files are the input `files`, which is given too", path=FILES, next="Leave one of them out.")
    return {FILES: [client.upload(path).ref for path in paths]} if paths else {}


def _mode(plan: str, *, files: Sequence[Path], tools: Sequence[str] | None, confirm: bool, plan_only: bool) -> RequestMode:
    """What is done with the plan of a request.

    Raises:
        RequestError: what is asked for contradicts itself, or belongs to a request, and this is a plan.
    """
    if confirm and plan_only:
        raise RequestError(
            "say either --confirm or --plan-only", next="The plan of the one runs when you agree, that of the other never."
        )
    own = {"files": bool(files), "--tool": bool(tools), "--confirm": confirm, "--plan-only": plan_only}
    name = next((n for n, given in own.items() if given), None)
    if name is not None and not is_sentence(plan):
        move = f"`{plan}` is one word, so it names a plan. Write what is to be done as one text with blanks, in quotes."
        if files:
            move += " A plan takes files by the names of its inputs: `--file name=PATH`."
        raise RequestError(f"{name} goes with a request in words", path=name, next=move)
    return "confirm" if confirm else "plan" if plan_only else "run"


def _add_actions(app: typer.Typer) -> None:
    @register(app, "confirm")
    def confirm(job_id: JobId, wait: Wait = False, as_json: AsJson = False) -> int:
        """Let the plan of a request run, which `submit --confirm` showed."""
        with open_job(job_id) as job:
            view = job.confirm()
            return finish(job, as_json=as_json) if wait else _acted(view, as_json=as_json)

    @register(app, "cancel")
    def cancel(job_id: JobId, as_json: AsJson = False) -> int:
        """Cancel a job; running calls that listen stop."""
        with open_job(job_id) as job:
            return _acted(job.cancel(), as_json=as_json)

    @register(app, "retry")
    def retry(job_id: JobId, wait: Wait = False, as_json: AsJson = False) -> int:
        """Go on with a failed or cancelled job, from what did not succeed."""
        with open_job(job_id) as job:
            view = job.retry()
            return finish(job, as_json=as_json) if wait else _acted(view, as_json=as_json)

    @register(app, "resolve", examples="toolweaver resolve job_1f3a pay#0 --happened --result '{\"paid\": true}'")
    def resolve(
        job_id: JobId,
        call: Annotated[str, typer.Argument(help="The call, such as pay#0 (see `status`).")],
        happened: Annotated[bool, typer.Option("--happened", help="It did its work.")] = False,
        retry: Annotated[bool, typer.Option("--retry", help="It did not; run it again.")] = False,
        result: Annotated[str | None, typer.Option(help="With --happened: its result, as JSON or @file.")] = None,
        as_json: AsJson = False,
    ) -> int:
        """Settle a call whose outcome is unknown."""
        if happened == retry:
            raise RequestError("say either --happened or --retry", next="Look whether the call did its work, then say which.")
        value = read_value(result, option="--result") if result is not None else None
        with open_job(job_id) as job:
            return _acted(job.resolve(call, happened=happened, result=value), as_json=as_json)

    @register(app, "jobs")
    def jobs(
        status: Annotated[JobStatus | None, typer.Option(help="Only jobs that stand there.")] = None,
        name: Annotated[str | None, typer.Option(help="Only jobs of this bundled plan.")] = None,
        limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
        as_json: AsJson = False,
    ) -> int:
        """List jobs, newest first."""
        with Client() as client:
            found = list(client.jobs(status=status, name=name, limit=limit))
        if as_json:
            print_json(found)
        else:
            print_table(("job", "plan or request", "status", "created", "took"), (_job_row(v) for v in found))
        return DONE


def _acted(view: JobView, *, as_json: bool) -> int:
    if as_json:
        print_json(view)
    else:
        print_line(f"{view.id} {view.status}")
        say(f"next     toolweaver status {view.id}" + ("" if view.status.final else " --follow"))
    return DONE


def _job_row(view: JobView) -> tuple[object, ...]:
    flaw = " with errors" if view.has_errors else ""
    return (
        view.id,
        view.name or _beginning(view.request or ""),
        f"{view.status}{flaw}",
        f"{view.created_at.astimezone():%Y-%m-%d %H:%M:%S}",
        age(view),
    )


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
