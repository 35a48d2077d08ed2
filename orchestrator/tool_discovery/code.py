"""Programs as tools: what runs code in a container is offered like any other tool."""

from __future__ import annotations

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.models.tool import ToolDefinition


def code_tools() -> list[ToolDefinition]:
    """The tools that run programs, such as `code_exec`."""
    return [t for t in bundled_catalog().tools if t.type == "code_exec"]


def bundled_tools() -> list[ToolDefinition]:
    """The other tools that come with the platform."""
    return [t for t in bundled_catalog().tools if t.type != "code_exec"]
