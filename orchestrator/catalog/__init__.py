"""What tools exist: how functions become tools, where definitions are kept, and the bundled ones."""

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import ToolRegistry, load_entry_points, load_tools, register_function, registry, tool

__all__ = ["ToolContext", "ToolRegistry", "load_entry_points", "load_tools", "register_function", "registry", "tool"]
