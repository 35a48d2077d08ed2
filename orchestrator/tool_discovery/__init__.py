"""What tools there are, found where they are: functions, MCP servers, OpenAPI documents, programs, and what pools announced."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.tool_discovery.orchestrator import ToolDiscoveryOrchestrator

__all__ = ["ToolDiscoveryOrchestrator"]


def __getattr__(name: str) -> Any:
    """The public name, loaded on first use: who reads the servers file loads nothing else of this room."""
    if name not in __all__:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module("orchestrator.tool_discovery.orchestrator"), name)
