"""One harmless program as data: what a model wrote, the tools that it may call, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Calls = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Harmless:
    """A program that must run.

    Attributes:
        value: the program's value as JSON (lists, dicts, numbers, strings, null).
        prints: all of its stdout; None is not compared.
        tools: names of `tools.py` that are granted.
        calls: the calls in order, without arguments that equal the tool's default; or their number; None is not compared.
    """

    name: str
    area: str
    code: str
    value: Any = None
    prints: str | None = None
    tools: tuple[str, ...] = ()
    input_data: Any = None
    calls: Calls | int | None = None
