"""The command `config`: every setting, its value, and where the value came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from dotenv import dotenv_values
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from orchestrator.cli.output import DONE, AsJson, print_json, print_table, register
from orchestrator.settings import Settings, load_settings

_PASSWORD = re.compile(r"(?P<before>://[^:/@\s]*:)\S+(?=@)|(?P<key>[?&](?:password|token|secret|key)=)[^&\s]+", re.IGNORECASE)
_SECRET_NAME = re.compile(r"password|token|secret|api_key", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """One setting as it is, and what set it."""

    name: str
    value: str
    source: str
    variable: str
    description: str


def add_to(app: typer.Typer) -> None:
    """Registers the command."""

    @register(app, "config")
    def config(as_json: AsJson = False) -> int:
        """Print each setting, its value and where it came from. Passwords are not shown."""
        found = list(origins(load_settings(), os.environ, dotenv_file()))
        if as_json:
            print_json([asdict(o) for o in found])
        else:
            print_table(("setting", "value", "from", "variable"), ((o.name, o.value, o.source, o.variable) for o in found))
        return DONE


def dotenv_file() -> dict[str, str | None]:
    """What the `.env` of this folder sets."""
    path = Path(str(Settings.model_config.get("env_file")))
    return dict(dotenv_values(path)) if path.exists() else {}


def origins(settings: Settings, env: Mapping[str, str], dotenv: Mapping[str, str | None]) -> Iterator[Origin]:
    """Every setting with its origin: the environment, else `.env`, else the default."""
    sources = (("environment", {k.upper() for k in env}), (".env", {k.upper() for k in dotenv}))
    for name, field in Settings.model_fields.items():
        names = variables(name, field)
        hit = next(((source, n) for source, known in sources for n in names if n.upper() in known), ("default", names[0]))
        yield Origin(name, masked(name, getattr(settings, name)), *hit, description=field.description or "")


def variables(name: str, field: FieldInfo) -> list[str]:
    """The environment variables that set a field, the first one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(c) for c in field.validation_alias.choices]
    return [f"{Settings.model_config.get('env_prefix', '')}{name}".upper()]


def masked(name: str, value: Any) -> str:
    """The value as text, without the passwords in it."""
    if value is None:
        return ""
    text = ", ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
    if _SECRET_NAME.search(name) and not isinstance(value, int | float):  # as `planner_max_tokens`: a limit, no secret
        return "***"
    return _PASSWORD.sub(lambda m: (m["before"] or m["key"]) + "***", text)
