"""Which tools of a catalog a program may be granted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from orchestrator.errors import NotFound, PermissionDenied
from orchestrator.models.tool import Lookup, ToolCatalog, ToolDefinition


def callable_by_programs(catalog: ToolCatalog, named: Iterable[str] | None = None) -> dict[str, ToolDefinition]:
    """The tools that a program may be granted, by name; only the `named` ones when given, by their name or an alias.

    Raises:
        NotFound: the catalog has no tool of a given name.
        PermissionDenied: a named tool is not for programs.
    """
    if named is None:
        return {t.name: t for t in catalog.tools if t.callable_by_code}
    lookup = catalog.lookup()
    return {tool.name: tool for tool in (_for_programs(name, lookup) for name in named)}


def with_aliases(tools: Mapping[str, ToolDefinition]) -> dict[str, ToolDefinition]:
    """The tools under every name by which a program may call them: an alias that two claim stands for neither."""
    claims = Counter(alias for t in tools.values() for alias in set(t.aliases))
    return {a: t for t in tools.values() for a in t.aliases if claims[a] == 1} | dict(tools)


def _for_programs(name: str, lookup: Lookup) -> ToolDefinition:
    tool = lookup.resolve(name)
    if tool is None:
        raise NotFound(f"There is no tool `{name}`.", next="`toolweaver tools` lists those that there are.")
    if not tool.callable_by_code:
        move = (
            "A program cannot start another one." if tool.type == "code_exec" else "Add `code_execution` to its `allowed_callers`."
        )
        raise PermissionDenied(f"Tool `{name}` may not be called by programs.", next=move)
    return tool
