"""Programs that stand in a plan are judged with it, as far as they are there already and not yet to come from elsewhere."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import NotFound, PermissionDenied, ToolWeaverError
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.problems import Problems, join, sentence
from orchestrator.planner.steps import Item, Toolbox
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.granted import callable_by_programs


def check_program_of(item: Item, arguments: Mapping[str, Any], *, catalog: ToolCatalog, toolbox: Toolbox) -> None:
    """Notes what is wrong with the program of a step that runs one; `arguments` are the step's, references left out."""
    problems = toolbox.problems
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
    refused = {n: refusal for n, t in tools.items() if (refusal := toolbox.allowed(t)) is not None}
    _check_allowed(item, code, named, refused=refused, problems=problems)
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


def _check_allowed(item: Item, code: str, named: Any, *, refused: Mapping[str, str], problems: Problems) -> None:
    """Tools that the caller may not use: those that the step grants by name, and those whose name stands in the program."""
    called = set() if isinstance(named, list) or not refused else _called(code)
    for name, refusal in refused.items():
        if isinstance(named, list):
            at = next((i for i, n in enumerate(named) if n == name), 0)
            place = join(item.arguments_at, "tools", at)
        elif name in called:
            place = join(item.arguments_at, "code")
        else:
            continue
        example = f"the program may call `{name}`, which this caller may not use"
        problems.add(place, "permission_denied", sentence(refusal), "Leave the tool out, or ask an admin for it.", example=example)


def _called(code: str) -> set[str]:
    """The names of what a program calls and does not define itself."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()  # told as a problem of its own
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    called = (n.func for n in nodes if isinstance(n, ast.Call))
    return {f.id if isinstance(f, ast.Name) else f.attr for f in called if isinstance(f, ast.Name | ast.Attribute)} - own
