"""Programs that models write: checked, given stubs of the tools, run in a container by a worker, whose calls come back here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Ended": "session",
    "LimitRules": "limits",
    "Program": "session",
    "ProgrammaticToolExecutor": "executor",
    "Session": "session",
    "StubGenerator": "stubs",
    "ToolCall": "session",
    "check_program": "check",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: a worker that runs programs does not pay for the client that submits them."""
    if name not in _HOME:
        raise AttributeError(f"module `orchestrator.programmatic_executor` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
