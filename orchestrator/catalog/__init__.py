"""What tools exist: how functions become tools, where definitions are kept, and the bundled ones."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import ToolRegistry, load_entry_points, load_tools, register_function, registry, tool

__all__ = [
    "Rendered", "ToolContext", "ToolRegistry", "load_entry_points", "load_tools", "register_function", "registry", "render_tools",
    "tool",
]  # fmt: skip

if TYPE_CHECKING:
    from orchestrator.catalog.render.vendors import Rendered
    from orchestrator.catalog.render.vendors import render as render_tools


def __getattr__(name: str) -> Any:
    """What only those need who talk to a model, loaded on first use."""
    rendering = {"render_tools": "render", "Rendered": "Rendered"}
    if name not in rendering:
        raise AttributeError(f"module `orchestrator.catalog` has no attribute `{name}`")
    return getattr(import_module("orchestrator.catalog.render.vendors"), rendering[name])
