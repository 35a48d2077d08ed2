"""Programs that models write: checked, given stubs of the tools, run in a container by a worker."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ProgrammaticToolExecutor", "StubGenerator"]

_PLACES = {"ProgrammaticToolExecutor": "executor", "StubGenerator": "stubs"}


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: a worker that checks programs needs no client."""
    if name not in _PLACES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
