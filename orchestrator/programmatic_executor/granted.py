"""Which tools of a catalog a program may be granted."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.errors import NotFound, PermissionDenied
from orchestrator.models.tool import ToolCatalog, ToolDefinition


def callable_by_programs(catalog: ToolCatalog, named: Iterable[str] | None = None) -> dict[str, ToolDefinition]:
    """The tools that a program may be granted, by name; only the `named` ones when given.

    Raises:
        NotFound: the catalog has no tool of a given name.
        PermissionDenied: a named tool is not for programs.
    """
    if named is None:
        return {t.name: t for t in catalog.tools if t.callable_by_code}
    return {name: _for_programs(name, catalog) for name in named}


def _for_programs(name: str, catalog: ToolCatalog) -> ToolDefinition:
    tool = catalog.get_tool(name)
    if tool is None:
        raise NotFound(f"There is no tool `{name}`.", next="`toolweaver tools` lists those that there are.")
    if not tool.callable_by_code:
        move = (
            "A program cannot start another one." if tool.type == "code_exec" else "Add `code_execution` to its `allowed_callers`."
        )
        raise PermissionDenied(f"Tool `{name}` may not be called by programs.", next=move)
    return tool
