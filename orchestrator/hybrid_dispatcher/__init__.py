"""Calls outside a plan: of a program, or one at a time; and the place where `register_function` is looked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from orchestrator.catalog.register import register_function

__all__ = ["MCPClientShim", "call_tool", "register_function"]
_LATER = {"MCPClientShim": "shim", "call_tool": "single"}


def __getattr__(name: str) -> Any:
    """What calls tools, loaded on first use: whoever registers a function needs no client."""
    if name not in _LATER:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
