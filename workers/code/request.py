"""What a step asks of the pool `code`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Isolation = Literal["fresh", "job"]


@dataclass(frozen=True, slots=True)
class Request:
    """A program, what it gets, which tools it may call, and within which limits; `tool` is the one that the step names.

    `domains`: by tool, the module beneath `tools` that the program imports it from, where that is not its own.
    """

    tool: str
    code: str
    input_data: Any = None
    tools: Sequence[str] | None = None
    domains: Mapping[str, str] | None = None
    limits: Mapping[str, Any] | None = None
    isolation: Isolation = "fresh"
