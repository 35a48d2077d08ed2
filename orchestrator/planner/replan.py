"""Planning anew after steps failed: what succeeded is kept as inputs, the steps that are added have ids of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.models.plan import Plan, parse_reference
from orchestrator.planner.asked import KEPT, Former, PlanRequest


def inputs_of(request: PlanRequest) -> dict[str, Any]:
    """The inputs that a plan may refer to: those of the request, and results that are kept."""
    kept = {f"{KEPT}{name}": value for name, value in sorted(request.former.results.items())} if request.former else {}
    return {**request.inputs, **kept}


def inputs_used(plan: Plan | Mapping[str, Any]) -> set[str]:
    """The names of the inputs that a plan refers to; what is no reference is passed over."""
    used: set[str] = set()
    for value in _strings(plan.model_dump(mode="json") if isinstance(plan, Plan) else plan):
        try:
            reference = parse_reference(value)
        except ValueError:
            continue
        if reference is not None and reference.kind == "input":
            used.add(reference.name)
    return used


def kept_inputs(plan: Plan, former: Former) -> dict[str, Any]:
    """The kept results that a new plan refers to, by the names of its inputs: submit them beside the request's own."""
    used = inputs_used(plan)
    return {name: value for step, value in former.results.items() if (name := f"{KEPT}{step}") in used}


def reused_ids(data: Mapping[str, Any], former: Former | None) -> list[dict[str, Any]]:
    """Problems: ids of a new plan that a step of the former one has."""
    old = {s.id for s in former.plan.steps} if former is not None else set()
    steps = data.get("steps")
    return [
        {
            "path": f"steps[{n}].id",
            "code": "duplicate_id",
            "message": f"A step of the former plan is named `{step['id']}` already.",
            "next": f"Choose another id; the result of a step that succeeded is `input:{KEPT}<step>`.",
        }
        for n, step in enumerate(steps if isinstance(steps, list | tuple) else ())
        if isinstance(step, Mapping) and isinstance(step.get("id"), str) and step["id"] in old
    ]


def _strings(value: Any) -> list[str]:
    found: list[str] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, Mapping):
            stack.extend(() if set(inner) == {"$literal"} else inner.values())
        elif isinstance(inner, list | tuple):
            stack.extend(inner)
    return found
