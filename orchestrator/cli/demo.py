"""The command `demo`: the receipts job from pictures to an answer, on a running platform or one of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.follow import ending, watch
from orchestrator.cli.output import AsJson, print_json, print_line, register, say, stdout
from orchestrator.cli.receipts import answer
from orchestrator.client.client import Client
from orchestrator.client.handle import JobHandle
from orchestrator.errors import BackendError, NotFound, ToolWeaverError
from orchestrator.launch import launched
from orchestrator.models.job import JobResult, JobStatus
from orchestrator.models.platform import running_platform
from orchestrator.settings import Settings, load_settings

POOLS = "ocr,small_model,function"  # those that the job needs
PLAN = "receipts"


def add_to(app: typer.Typer) -> None:
    """Registers the command."""

    @register(app, "demo", examples="toolweaver demo · toolweaver demo --images receipts/*.png")
    def demo(
        images: Annotated[
            list[Path] | None, typer.Option("--images", help="Pictures of yours in place of the bundled ones; may be repeated.")
        ] = None,
        more: Annotated[
            list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="More pictures, so that --images takes a wildcard.")
        ] = None,
        as_json: AsJson = False,
    ) -> int:
        """Read receipts, from pictures to totals by category. Starts the platform if none runs, and stops it again."""
        settings = load_settings()
        pictures = existing([*(images or ()), *(more or ())])
        with platform(settings) as client, one_job(client, pictures) as job:
            status = watch(job)
            details = job.details()
            show(details, save(details, settings.home), as_json=as_json)
        return ending(status)


def existing(images: Sequence[Path]) -> list[Path]:
    """The pictures as absolute paths.

    Raises:
        NotFound: one is not there.
    """
    for path in images:
        if not path.is_file():
            raise NotFound(f"there is no picture `{path}`", path="--images", next="Check the path.")
    return [p.absolute() for p in images]


@contextmanager
def platform(settings: Settings) -> Iterator[Client]:
    """A client of the running platform, or of one that lives as long as the block."""
    if settings.url or running_platform(settings.home):
        with Client(settings=settings) as client:
            say(f"using the platform at {client.url}")
            yield client
        return
    say("starting the platform (it stops again when this is done)")
    with launched(options=("--no-flower", "--pools", POOLS)) as started, Client(started.api) as client:
        say(f"ready at {started.api}")
        yield client
        say("stopping the platform")


@contextmanager
def one_job(client: Client, pictures: Sequence[Path]) -> Iterator[JobHandle]:
    """The job of this demo; it is cancelled when the block is left before its end."""
    inputs: dict[str, Any] = {"images": [client.upload(p).ref for p in pictures]} if pictures else {}
    job = client.submit(PLAN, inputs=inputs)
    say(f"{job.id}  {client.url}/v1/jobs/{job.id}")
    try:
        yield job
    except KeyboardInterrupt:
        _cancel(job)
        raise


def save(details: JobResult, home: Path) -> Path:
    """Writes the whole result as JSON; where it lies."""
    folder = home / "results"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{details.job_id}.json"
    path.write_text(json.dumps(details.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def show(details: JobResult, path: Path, *, as_json: bool) -> None:
    """Prints the answer and where its JSON is."""
    if as_json:
        print_json(details.model_dump(mode="json") | {"path": str(path)})
        return
    if details.status is JobStatus.SUCCEEDED:
        stdout().print(answer(details))
    for error in details.errors:
        say(f"{error.step or 'job'}{'' if error.index is None else f'#{error.index}'}: {error.message}")
    print_line(f"result  {path}")


def _cancel(job: JobHandle) -> None:
    try:
        job.cancel()
        say(f"{job.id} cancelled")
    except (BackendError, ToolWeaverError) as error:
        say(f"{job.id} could not be cancelled: {error.message}")
