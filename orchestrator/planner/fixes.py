"""Fixes of a plan that are certain: one operation each, in the manner of a JSON Patch (RFC 6902), made and applied. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.errors import PlanError
from orchestrator.planner.problems import Fix, parts, shown

_ROUNDS = 10
_Way = tuple[str | int, ...]


def replace(place: str, value: Any) -> Fix:
    """Another value at a place such as `steps[0].tool`; with no value there it is added."""
    return {"op": "replace", "path": pointer(*parts(place)), "value": value}


def add(place: str, value: Any) -> Fix:
    """A value for a field that is missing."""
    return {"op": "add", "path": pointer(*parts(place)), "value": value}


def remove(place: str) -> Fix:
    """Takes away a field or an element."""
    return {"op": "remove", "path": pointer(*parts(place))}


def rename(place: str, name: str) -> Fix:
    """Another name for a field; RFC 6902 calls that `move`."""
    way = parts(place)
    return {"op": "move", "from": pointer(*way), "path": pointer(*way[:-1], name)}


def pointer(*way: str | int) -> str:
    """Keys and indexes as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in way)


def fix_text(fix: Mapping[str, Any]) -> str:
    """A fix for a person: `put "compute_tax" at /steps/0/tool`."""
    if fix["op"] == "remove":
        return f"take {fix['path']} away"
    if fix["op"] == "move":
        return f"rename {fix['from']} to {fix['path'].rpartition('/')[2].replace('~1', '/').replace('~0', '~')}"
    return f"put {shown(fix['value'])} at {fix['path']}"


def apply_fixes(plan: Mapping[str, Any], problems: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of the plan with the fixes of its problems made; problems without a fix, and fixes that do not fit it, are left out.

    Of two fixes of one place the first is made, so a second round of check and fixes may find more. What is taken out of a
    list goes last and from its end, so that no other fix meets moved elements.
    """
    made: dict[str, Any] = copy.deepcopy(dict(plan))
    fixes: dict[str, Mapping[str, Any]] = {}
    for problem in problems:
        fix = problem.get("fix")
        if isinstance(fix, Mapping):
            fixes.setdefault(str(fix.get("from", fix.get("path"))), fix)
    for fix in sorted(fixes.values(), key=_order):
        _apply(made, fix)
    return made


def repair(plan: Mapping[str, Any], check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The plan with certain fixes made until `check` passes.

    Raises:
        PlanError: what is left when no fix is; the problems are those of the plan as far as it was repaired.
    """
    made = dict(plan)
    for _ in range(_ROUNDS):
        try:
            check(made)
            return made
        except PlanError as error:
            better = apply_fixes(made, error.problems)
            if better == made:
                raise
            made = better
    check(made)
    return made


def _order(fix: Mapping[str, Any]) -> tuple[bool, tuple[int, ...]]:
    """Removals last, and those later in the plan before the earlier ones."""
    taken = fix["op"] == "remove"
    return taken, tuple(-int(p) for p in _way(fix["path"]) if isinstance(p, int) or p.isdigit()) if taken else ()


def _apply(plan: dict[str, Any], fix: Mapping[str, Any]) -> None:
    way = _way(fix["path"])
    holder = _holder(plan, way)
    if not way or holder is None:
        return
    last = _key(holder, way[-1])
    if fix["op"] == "remove":
        if _has(holder, last):
            del holder[last]
    elif fix["op"] == "move":
        source = _way(fix["from"])[-1]
        if _has(holder, source) and not _has(holder, last):
            renamed = {last if k == source else k: v for k, v in holder.items()}
            holder.clear()
            holder.update(renamed)  # in the order in which they stood
    elif isinstance(holder, dict) or _has(holder, last):
        holder[last] = copy.deepcopy(fix["value"])


def _way(path: str) -> _Way:
    return tuple(p.replace("~1", "/").replace("~0", "~") for p in path.split("/")[1:])


def _holder(plan: Any, way: _Way) -> Any:
    """The object or list that holds what a way leads to; None when there is none."""
    for part in way[:-1]:
        key = _key(plan, part)
        if not _has(plan, key):
            return None
        plan = plan[key]
    return plan if isinstance(plan, dict | list) else None


def _key(holder: Any, part: str | int) -> str | int:
    return int(part) if isinstance(holder, list) and str(part).isdigit() else part


def _has(holder: Any, key: str | int) -> bool:
    if isinstance(holder, dict):
        return key in holder
    return isinstance(holder, list) and isinstance(key, int) and key < len(holder)
