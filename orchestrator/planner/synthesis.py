"""What a job answers: the value that the plan names, and the words around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from orchestrator.models.plan import Plan, Reference, parse_reference
from orchestrator.publisher.graph import Graph

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


def final_synthesis_text(plan: Plan, steps: Mapping[str, Any]) -> str | None:
    """The worded answer: the plan's template with the results of `steps` (by id) put in; None without a template.

    A result that holds `{{...}}` itself is put in as it is.
    """
    if plan.final_synthesis is None:
        return None
    return _PLACEHOLDER.sub(lambda found: _filled(found, steps), plan.final_synthesis.prompt_template)


def plan_output(plan: Plan, graph: Graph, steps: Mapping[str, Any]) -> Any:
    """What the plan names as its output; else the result of its last step, or of its last steps by id.

    A step without a result, and a path that leads nowhere, count as None.
    """
    if plan.output is not None:
        reference = parse_reference(plan.output)
        return value_at(steps.get(reference.name), reference) if reference else None
    if len(graph.leaves) == 1:
        return steps.get(graph.leaves[0])
    return {name: steps.get(name) for name in graph.leaves}


def steps_read(plan: Plan, graph: Graph) -> set[str]:
    """The steps whose results the output and the worded answer are made of."""
    reference = parse_reference(plan.output) if plan.output is not None else None
    read = set(graph.leaves) if reference is None else {reference.name}
    if plan.final_synthesis is not None:
        for text, named in placeholders(plan.final_synthesis.prompt_template):
            read |= {s.id for s in plan.steps} if text == "steps" else {named.name} if named is not None else set()
    return read


def placeholders(template: str) -> Iterator[tuple[str, Reference | None]]:
    """What stands between `{{` and `}}` in a template, and the result that it names: None for `steps` and for nonsense."""
    for found in _PLACEHOLDER.finditer(template):
        yield found[1], _reference(found[1])


def value_at(value: Any, reference: Reference) -> Any:
    """What lies at the reference's path inside a value; None when there is nothing."""
    for part in reference.path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _reference(inside: str) -> Reference | None:
    if not inside.startswith("steps."):
        return None
    try:
        return parse_reference(f"step:{inside.removeprefix('steps.')}")
    except ValueError:
        return None


def _filled(found: re.Match[str], steps: Mapping[str, Any]) -> str:
    if found[1] == "steps":
        return "\n".join(_section(name, value) for name, value in steps.items())
    reference = _reference(found[1])
    return found[0] if reference is None else _readable(value_at(steps.get(reference.name), reference))


def _section(name: str, value: Any) -> str:
    text = _readable(value)
    if "\n" not in text:
        return f"{name}: {text}"
    return f"{name}:\n" + "\n".join(f"  {line}" for line in text.splitlines())


def _readable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def __getattr__(name: str) -> Any:
    """`model_synthesis` is in `planner.wording`, loaded on first use: who checks plans needs no model."""
    if name == "model_synthesis":
        return import_module("orchestrator.planner.wording").model_synthesis
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
