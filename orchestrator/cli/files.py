"""The commands about files: upload, list, fetch, remove."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import DONE, AsJson, print_json, print_line, print_table, register, say
from orchestrator.client.client import Client
from orchestrator.errors import RequestError
from orchestrator.models.file import FileRef

Ref = Annotated[str, typer.Argument(metavar="REF", help="The file: blob:sha256:...")]
KIB = 1024

app = typer.Typer(help="Files that plans and tools take, and that jobs make.", no_args_is_help=True)


@register(app, "upload", examples="toolweaver files upload scan.png · toolweaver submit plan.json --file picture=scan.png")
def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files to upload; - for standard input.")],
    name: Annotated[str | None, typer.Option(help="What one file shall be called.")] = None,
    media_type: Annotated[str | None, typer.Option("--type", help="What it is, such as image/png; default: by its name.")] = None,
    as_json: AsJson = False,
) -> int:
    """Upload files; prints a reference a line, which plans take as input."""
    if name is not None and len(paths) > 1:
        raise RequestError("--name goes with one file", path="--name", next="Upload them one by one.")
    with Client() as client:
        sources = (sys.stdin.buffer if str(p) == "-" else p for p in paths)
        found = [client.upload(source, name=name, media_type=media_type) for source in sources]
    if as_json:
        print_json(found)
    for file in [] if as_json else found:
        print_line(file.ref)
        say(f"{file.name or '(no name)'}  {size(file.size)}  kept until {_until(file)}, and as long as a kept job names it")
    return DONE


@register(app, "get", examples="toolweaver files get blob:sha256:... -o out.pdf")
def get(
    ref: Ref,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file, a folder, or - for standard output.")] = Path("."),
) -> int:
    """Fetch a file; it is checked against its hash."""
    with Client() as client:
        if str(output) == "-":
            client.download(ref, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return DONE
        path = client.download(ref, output)
    print_line(str(path))
    return DONE


@register(app, "list")
def list_files(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    job: Annotated[str | None, typer.Option(help="Only files that this job made.")] = None,
    as_json: AsJson = False,
) -> int:
    """List files, newest first."""
    with Client() as client:
        if job is not None:
            made = list(client.job(job).artifacts())
            if as_json:
                print_json(made)
            else:
                print_table(("call", *_HEADERS), ((a.call, *_row(a.file)) for a in made))
            return DONE
        found = list(client.files(limit=limit))
    if as_json:
        print_json(found)
    else:
        print_table(_HEADERS, (_row(f) for f in found))
    return DONE


@register(app, "rm")
def remove(refs: Annotated[list[str], typer.Argument(metavar="REF...", help="The files: blob:sha256:...")]) -> int:
    """Remove files; one that a kept job names goes with that job."""
    with Client() as client:
        for ref in refs:
            gone = client.remove_file(ref)
            say(f"{ref} removed" if gone else f"{ref} goes with the last kept job that names it")
    return DONE


def uploaded(client: Client, pairs: Iterable[str], *, option: str) -> dict[str, str]:
    """`name=PATH` pairs: each file is uploaded, and its reference is the input of that name.

    Raises:
        RequestError: one has no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise RequestError(f"`{pair}` is no `name=PATH`", path=option, next=f"Write it as `{option} picture=scan.png`.")
        if name in found:
            raise RequestError(f"`{name}` is given twice", path=option, next="Upload the files first and pass a list.")
        found[name] = client.upload(Path(path)).ref
    return found


def size(count: int) -> str:
    """Bytes for a person."""
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < KIB:
            break
        amount, unit = amount / KIB, larger
    return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


_HEADERS = ("file", "name", "type", "size", "kept until")


def _row(file: FileRef) -> tuple[str, ...]:
    return file.ref, file.name, file.media_type, size(file.size), _until(file)


def _until(file: FileRef) -> str:
    return f"{file.expires_at.astimezone():%Y-%m-%d %H:%M}"
