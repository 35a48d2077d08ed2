"""Calls outside a plan: of a program, or one at a time; and the place where `register_function` is looked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from orchestrator.catalog.register import register_function

__all__ = ["call_tool", "register_function"]


def __getattr__(name: str) -> Any:
    """`call_tool`, loaded on first use: whoever registers a function needs no client."""
    if name != "call_tool":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return import_module(f"{__name__}.single").call_tool
