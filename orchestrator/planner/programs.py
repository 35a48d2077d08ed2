"""Programs that stand in a plan are judged with it, as far as they are there already and not yet to come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import NotFound, PermissionDenied, ToolWeaverError
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.problems import Problems, join
from orchestrator.planner.steps import Item
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.granted import callable_by_programs


def check_program_of(item: Item, arguments: Mapping[str, Any], *, catalog: ToolCatalog, problems: Problems) -> None:
    """Notes what is wrong with the program of a step that runs one; `arguments` are the step's, references left out."""
    code, named, domains = (arguments.get(name) for name in ("code", "tools", "domains"))
    if item.made is None or item.made.tool.type != "code_exec" or not isinstance(code, str):
        return
    if isinstance(named, list) and not all(isinstance(name, str) for name in named):
        return  # which tools it may call is known when it runs
    try:
        tools = callable_by_programs(catalog, named if isinstance(named, list) else None)
    except (NotFound, PermissionDenied) as error:
        problems.add(join(item.arguments_at, "tools"), error.code, error.message, error.next or "Leave it out.")
        return
    if isinstance(domains, dict):
        tools = {n: t.model_copy(update={"domain": str(domains[n])}) if n in domains else t for n, t in tools.items()}
    try:
        check_program(code, tools=tools)
    except ToolWeaverError as error:
        for problem in error.problems or [{"message": error.message}]:
            where = f"{problem['path']}: " if "path" in problem else ""
            move = problem.get("next") or "Mend the program; docs/programs.md says what it may use."
            problems.add(
                join(item.arguments_at, "code"), str(problem.get("code") or error.code), f"{where}{problem['message']}", move
            )
