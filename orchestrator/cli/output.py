"""What a command says and how it ends: data on stdout, everything else on stderr, one exit code per kind of end."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ParamSpec

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestrator.errors import BackendError, JobFailed, ToolWeaverError, to_problem

DONE, JOB_FAILED, BAD_REQUEST, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
PIPE_WIDTH = 200  # columns, where there is no terminal to ask
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all controls but tab and newline
_UNPRINTED = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # JSON lets them stand as they are

P = ParamSpec("P")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def stdout() -> Console:
    """The console for data."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console for progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False, soft_wrap=False)
    return console if console.is_terminal else _Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


class _Console(Console):
    """Programs and tools choose much of what is printed: none of it steers the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            steers = not segment.control and _STEERING.search(segment.text)
            yield Segment(_STEERING.sub("\ufffd", segment.text), segment.style) if steers else segment


def say(line: str) -> None:
    """A line for a person, beside the data."""
    stderr().print(Text(line), soft_wrap=True)


def print_line(line: str) -> None:
    """A line of data."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A value, a model or a list of models as JSON."""
    print_line(json_text(plain(value), indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which nothing steers a terminal or turns the direction of text, and which can be written whatever it holds."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNPRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(value: Any) -> Any:
    """The value with its models turned into JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table that stays readable when piped: no lines, one row a line."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    stdout().print(table)


def fail(error: ToolWeaverError, *, as_json: bool) -> int:
    """Says what went wrong, where and what to do; the exit code that stands for it."""
    if as_json:
        sys.stderr.write(json_text(to_problem(error)) + "\n")
    else:
        console = stderr()
        where = f"{error.path}: " if error.path else ""
        console.print(Text.assemble(("error: ", "bold red"), f"{where}{error.message}"), soft_wrap=True)
        for problem in error.problems:
            console.print(
                Text.assemble((f"  {problem.get('path') or '$'}", "bold"), f": {problem.get('message', '')}"), soft_wrap=True
            )
            if problem.get("next"):
                console.print(Text(f"    {problem['next']}", style="cyan"), soft_wrap=True)
        if error.next:
            console.print(Text(error.next, style="cyan"), soft_wrap=True)
    return exit_code(error)


def exit_code(error: ToolWeaverError) -> int:
    """The exit code of an error."""
    if isinstance(error, JobFailed):
        return JOB_FAILED
    return UNREACHABLE if isinstance(error, BackendError) else BAD_REQUEST


def reporting(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command whose errors are said, and whose return value is the exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            code = command(*args, **kwargs)
        except ToolWeaverError as error:
            code = fail(error, as_json=as_json)
        except ValidationError as error:
            code = fail(_bad_settings(error), as_json=as_json)
        except KeyboardInterrupt:
            say("interrupted")
            code = INTERRUPTED
        except BrokenPipeError:  # such as `| head`: whoever read has seen enough
            sys.stdout = open("/dev/null", "w")  # noqa: SIM115  # the interpreter flushes it at its end
            code = DONE
        raise typer.Exit(code or DONE)

    return run


def _bad_settings(error: ValidationError) -> ToolWeaverError:
    problems = [{"path": ".".join(str(p) for p in e["loc"]), "message": e["msg"]} for e in error.errors()]
    return ToolWeaverError(
        f"{error.title} cannot be read", problems=problems, next="`toolweaver config` shows where each setting comes from."
    )


def register(app: typer.Typer, name: str, *, examples: str = "") -> Callable[[Callable[P, int | None]], Callable[P, int | None]]:
    """Adds a command under `name`; `examples` close its help."""

    def add(command: Callable[P, int | None]) -> Callable[P, int | None]:
        app.command(name, epilog=examples or None)(reporting(command))
        return command

    return add
