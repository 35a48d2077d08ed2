"""Steps that never run, and results that nothing reads: worth a warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.models.plan import Plan, When
from orchestrator.planner.arguments import as_number
from orchestrator.planner.examples import may_give
from orchestrator.planner.fixes import remove, replace
from orchestrator.planner.problems import Fix, Problems, join, listed, meant, shown
from orchestrator.planner.schemas import KINDS, Shape, alternatives, describe, kinds, misfit
from orchestrator.planner.sources import Source
from orchestrator.planner.steps import Item
from orchestrator.planner.synthesis import steps_read
from orchestrator.publisher.graph import Graph

_NEVER, _ALWAYS = "never", "always"


def judge_when(item: Item, source: Source, warnings: Problems) -> bool:
    """Whether the step's condition can hold at all, by what the tool says of the value; a warning when not, or when it always does.

    The value of an input is no reason: it is a switch that another job sets otherwise.
    """
    when = item.step.when
    if when is None or source.values is not None or kinds(source.shape) == KINDS:
        return True
    verdict = _verdict(when, source.shape)
    if verdict is not None:
        value = "" if when.op in ("exists", "truthy", "falsy") else f" {shown(when.value)}"
        clash = f"`{when.ref}` is {_what(source.shape)}"
        message = f"`when` {verdict} holds: {clash}, and the condition is `{when.op}`{value}."
        move = "Compare values of one type that it can have." if verdict == _NEVER else "Leave `when` out, or compare it otherwise."
        if verdict == _NEVER:
            move = f"The step would never run. {move}"
        place = f"{item.place}.when"
        example = f"{may_give(when.ref, source.shape)}, for which `{when.op}`{value} is {str(verdict == _ALWAYS).lower()}"
        code = f"when_{verdict}_holds"
        warnings.add(place, code, message, move, example=example, fix=_value_fix(when, source.shape, place))
    return verdict != _NEVER


def warn_of_skipped(items: Mapping[str, Item], graph: Graph, never: set[str], warnings: Problems) -> None:
    """Steps that wait for one that never runs, and are skipped with it."""
    skipped = set(never)
    for name, node in graph.nodes.items():  # in topological order
        if name in skipped or node.step.on_skip == "run":
            continue
        lost = [d for d in node.barrier if d in skipped and items[d].step.map is None] + [d for d in node.aligned if d in skipped]
        if lost:
            skipped.add(name)
            message = f"`{name}` is never run: it depends on `{lost[0]}`, which is always skipped."
            example = f"`{lost[0]}` -> skipped, so `{name}` -> skipped"
            move = 'Mend the condition there, or add `"on_skip": "run"` here.'
            place = items[name].places.get(lost[0], items[name].place)
            warnings.add(place, "never_runs", message, move, example=example)


def warn_of_unused(plan: Plan, items: Mapping[str, Item], graph: Graph, warnings: Problems) -> None:
    """Steps without an effect whose results go nowhere."""
    read = steps_read(plan, graph)
    for name, item in items.items():
        effect = item.step.effect or (item.made.tool.effect if item.made else "once")
        waited_for = graph.successors.get(name) or graph.aligned_successors.get(name)
        if name in read or waited_for or effect != "none":
            continue
        message = f"Nothing uses what `{name}` gives, and `{item.step.tool}` does nothing else."
        example = f"the answer is made of {listed(sorted(read))}; no step refers to `{name}`"
        warnings.add(
            item.place, "unused_result", message, "Refer to it, name it in `output`, or leave the step out.", example=example
        )


def warn_of_unused_inputs(plan: Plan, used: Mapping[str, Any], warnings: Problems) -> None:
    """Defaults of inputs that no step refers to."""
    for name in plan.inputs:
        if name not in used:
            place = join("inputs", name)
            message = f"No step uses input `{name}`."
            move = warnings.suggest(name, list(used), otherwise=f"Write `input:{name}` where it is meant, or leave it out.")
            warnings.add(place, "unused_input", message, move, example=f"`input:{name}` stands nowhere", fix=remove(place))


def _verdict(when: When, shape: Shape) -> str | None:
    options = [_possible(when, Shape(a, shape.root)) for a in alternatives(shape)]
    if options and all(o is False for o in options):
        return _NEVER
    return _ALWAYS if when.op in ("ne", "not_in") and options and all(o is True for o in options) else None


def _possible(when: When, shape: Shape) -> bool | None:
    """Whether a condition holds for a plain schema's values: False for none, True for all, None for who knows."""
    found = kinds(shape)
    if when.op in ("exists", "truthy") and found == {"null"}:
        return False
    if when.op in ("truthy", "falsy"):
        known = _values(shape)
        wanted = when.op == "truthy"
        return False if known is not None and all(bool(v) != wanted for v in known) else None
    if when.op in ("eq", "ne"):
        equal = _equal(when.value, shape)
        return equal if when.op == "eq" else None if equal is None else not equal
    if when.op in ("in", "not_in") and isinstance(when.value, list | tuple):
        inside = None if any(_equal(v, shape) is None for v in when.value) else False
        return inside if when.op == "in" else None if inside is None else True
    return None


def _equal(value: Any, shape: Shape) -> bool | None:
    """False when no value of the schema equals this one; an item that was skipped is null whatever the schema says."""
    if value is None:
        return None
    alike = [value]
    if isinstance(value, bool | int | float) and value in (0, 1):
        alike = [int(value), bool(value)]  # `true` equals 1 where conditions are evaluated
    return False if all(misfit(Shape({"const": v}, True), shape) is not None and _bare(v, shape) for v in alike) else None


def _bare(value: Any, shape: Shape) -> bool:
    """Whether a misfit may be believed: inside objects and lists the standard is looser than the check."""
    return not isinstance(value, dict | list | tuple) or not kinds(shape) & {"object", "array"}


def _values(shape: Shape) -> list[Any] | None:
    schema = shape.schema
    if not isinstance(schema, dict):
        return None
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _what(shape: Shape) -> str:
    options = alternatives(shape)
    known = _values(Shape(options[0], shape.root)) if len(options) == 1 else None
    return f"one of {listed(map(str, known), last='or')}" if known else describe(shape)


def _value_fix(when: When, shape: Shape, place: str) -> Fix | None:
    """The value that must have been meant: a number in quotes, a name but for its capitals or a letter."""
    if not isinstance(when.value, str) or when.op not in ("eq", "ne"):
        return None
    if kinds(shape) <= {"number", "integer", "null"}:
        number = as_number(when.value)
        return None if number is None else replace(f"{place}.value", number)
    known = [v for a in alternatives(shape) for v in _values(Shape(a, shape.root)) or () if isinstance(v, str)]
    better = meant(when.value, known)
    return replace(f"{place}.value", better) if better else None
