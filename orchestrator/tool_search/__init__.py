"""Finds the right tools for a request among thousands: the library, and the index service that answers every planner."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["DistributedCache", "IndexClient", "Selection", "ToolSearchEngine", "search_tools", "select_tools"]

if TYPE_CHECKING:
    from orchestrator.tool_search.cache import DistributedCache
    from orchestrator.tool_search.client import IndexClient
    from orchestrator.tool_search.engine import ToolSearchEngine, search_tools
    from orchestrator.tool_search.select import Selection, select_tools

_IN = {
    "DistributedCache": "cache", "IndexClient": "client", "Selection": "select", "select_tools": "select",
    "ToolSearchEngine": "engine", "search_tools": "engine",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: a client of the index service needs no index."""
    if name not in _IN:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_IN[name]}"), name)
