"""ToolWeaver: turns a request into a plan of tool calls, runs it on pools of Celery workers, and answers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["execute_plan", "final_synthesis"]


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: a worker that imports `orchestrator.models` pays for nothing else."""
    if name not in __all__:
        raise AttributeError(f"module `orchestrator` has no attribute `{name}`")
    return getattr(import_module("orchestrator.local.inline"), name)
