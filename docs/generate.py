"""Writes the references that follow from the code: `python docs/generate.py`, after a change of settings or commands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from orchestrator.cli.app import app
from orchestrator.settings import KIB, MIB, Settings

REFERENCE = Path(__file__).parent / "reference"
SETTINGS_HEAD = """# Settings

Each is an environment variable, or a line `NAME=value` in the file `.env` of the folder that a process starts in; the
environment wins. A process reads them once, at its start. `toolweaver config` prints every value and where it came
from. This page is written by `python docs/generate.py`.

| variable | type | default | sets |
| --- | --- | --- | --- |
"""
CLI_HEAD = """# Command line

Data goes to stdout, progress and errors to stderr. Exit codes: 0 done, 1 the job failed or was cancelled, 2 bad request,
3 the platform cannot be reached, 130 interrupted. Ctrl-C while a job is watched only detaches: the job goes on. Every
command takes `--json` and `--help`. This page is written by `python docs/generate.py`.
"""


def settings_page() -> str:
    """The page of all settings."""
    return SETTINGS_HEAD + "".join(_setting(name, field) for name, field in Settings.model_fields.items())


def cli_page() -> str:
    """The page of all commands."""
    return CLI_HEAD + "".join(_section(names, command) for names, command in _commands(app, ()))


def _setting(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    names = [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [f"TOOLWEAVER_{name.upper()}"]
    variables = " or ".join(f"`{n}`" for n in names)
    return f"| {variables} | {_kind(field)} | {_default(name, field.default)} | {_cell(field.description or '')} |\n"


def _kind(field: FieldInfo) -> str:
    text = str(field.annotation).replace("<class '", "").replace("'>", "").replace("pathlib.", "").replace("pydantic.types.", "")
    words = {
        "str": "text",
        "int": "number",
        "float": "number",
        "bool": "`true` or `false`",
        "Path": "path",
        "SecretStr": "secret text",
    }
    core = text.removesuffix(" | None")
    if core.startswith("typing.Literal"):
        return "one of " + ", ".join(f"`{v}`" for v in get_args(field.annotation))
    return words.get(core, "list, comma-separated" if core.startswith("tuple") else core)


def _default(name: str, value: Any) -> str:
    if value is None or value == ():
        return "none"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value} ({value // MIB} MiB)" if value >= MIB else f"{value} ({value // KIB} KiB)"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _commands(group: typer.Typer, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], CommandInfo]]:
    for command in group.registered_commands:
        yield (*names, str(command.name)), command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, (*names, str(inner.name)))


def _section(names: tuple[str, ...], command: CommandInfo) -> str:
    assert command.callback is not None
    given = [_Given(p) for p in inspect.signature(command.callback, eval_str=True).parameters.values()]
    rows = [g for g in given if g.name != "as_json"]
    arguments = [g.shown for g in rows if g.is_argument]
    usage = " ".join(["toolweaver", *names, "[OPTIONS]", *arguments])
    parts = [f"\n## {' '.join(names)}\n", f"{_flow(command.help or command.callback.__doc__ or '')}\n", f"```text\n{usage}\n```\n"]
    if rows:
        lines = "".join(f"| `{_cell(g.shown)}` | {g.text} |\n" for g in sorted(rows, key=lambda g: not g.is_argument))
        parts.append(f"| argument or option | is |\n| --- | --- |\n{lines}")
    if command.epilog:
        examples = "\n".join(e.strip() for e in command.epilog.split(" · "))
        parts.append(f"```text\n{examples}\n```\n")
    return "\n".join(parts)


class _Given:
    """One argument or option of a command, as a person reads it."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        hint, *extra = get_args(parameter.annotation)
        info = next(e for e in extra if isinstance(e, ArgumentInfo | OptionInfo))
        self.name, self.is_argument = parameter.name, isinstance(info, ArgumentInfo)
        self._info, self._hint, self._default = info, hint, parameter.default
        self.text = _cell(info.help or "") + self._choices() + self._shown_default()

    @property
    def shown(self) -> str:
        if self.is_argument:
            name = str(self._info.metavar or self.name.upper())
            return name if name.startswith("[") or self._default is inspect.Parameter.empty else f"[{name}]"
        first = (self._info.default,) if isinstance(self._info.default, str) else ()  # where typer keeps it in Annotated
        declared = ", ".join((*first, *(self._info.param_decls or ()))) or f"--{self.name.replace('_', '-')}"
        return declared if self._hint is bool else f"{declared} {self._info.metavar or self.name.upper()}"

    def _choices(self) -> str:
        hints = [self._hint, *get_args(self._hint)]
        enum = next((h for h in hints if isinstance(h, type) and issubclass(h, StrEnum)), None)
        values = [v.value for v in enum] if enum else [v for v in get_args(self._hint) if isinstance(v, str)]
        return f" One of {', '.join(f'`{v}`' for v in values)}." if values else ""

    def _shown_default(self) -> str:
        told = isinstance(self._default, str | int) and not isinstance(self._default, bool)
        return f" Default: `{self._default}`." if told else ""


def _cell(text: str) -> str:
    return _flow(text).replace("|", "\\|")


def _flow(text: str) -> str:
    return " ".join(text.split())


PAGES = {"settings.md": settings_page, "cli.md": cli_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (REFERENCE / page).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{page}\n")
