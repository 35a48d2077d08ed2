"""What a person types as JSON: inline, from a file, from standard input, or as `name=value`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.errors import NotFound, RequestError


def read_object(text: str | None, *, option: str) -> dict[str, Any]:
    """A JSON object: inline, `@file`, or `-` for standard input.

    Raises:
        RequestError: it is no JSON object; the message says where it breaks.
        NotFound: there is no such file.
    """
    if text is None:
        return {}
    value = _parse(_source(text, option), option)
    if not isinstance(value, dict):
        raise RequestError(
            f"{option} is a JSON {type(value).__name__}, not an object", path=option, next="Write it as '{\"name\": value}'."
        )
    return value


def read_pairs(pairs: Iterable[str], *, option: str) -> dict[str, Any]:
    """`name=value` pairs; a value that is JSON is taken as such, anything else as text.

    Raises:
        RequestError: one has no `=`.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise RequestError(f"`{pair}` is no `name=value`", path=option, next=f"Write it as `{option} name=value`.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def read_value(text: str, *, option: str) -> Any:
    """Any JSON value."""
    return _parse(_source(text, option), option)


def read_text(path: Path) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        NotFound: it cannot be read.
        RequestError: it is no text.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"`{path}` cannot be read: {error.strerror}", next="Check the path.") from None
    except UnicodeDecodeError:
        raise RequestError(f"`{path}` is no text file in UTF-8", next="Give a plan as JSON.") from None


def _source(text: str, option: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return read_text(Path(text[1:]))
    except (NotFound, RequestError) as error:
        error.path = option
        raise


def _parse(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RequestError(
            f"{option} is no JSON: {error.msg} at {place}", path=option, next="Quote it for the shell, or use @file."
        ) from None
