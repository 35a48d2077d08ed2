"""The functions of this process that became tools."""

from __future__ import annotations

from orchestrator.catalog.register import ToolRegistry
from orchestrator.models.tool import ToolDefinition


def function_tools(registry: ToolRegistry) -> list[ToolDefinition]:
    """What `@register_function` registered, in that order; tools of servers that this process serves are theirs, not ours."""
    return [t for t in registry.definitions() if t.server is None]
