"""Whether what a reference stands for can be the argument that it is given as."""

from __future__ import annotations

from orchestrator.models.plan import Reference
from orchestrator.planner.arguments import Checked, distinct, explain, innermost, literal_fix
from orchestrator.planner.examples import example_of, may_give, within
from orchestrator.planner.fixes import replace
from orchestrator.planner.problems import Fix, Problems, around, join, shown
from orchestrator.planner.schemas import (
    KINDS,
    NoSuchPath,
    Path,
    Shape,
    describe,
    fitting_fields,
    item_of,
    kinds,
    list_of,
    longest,
    misfit,
    path_text,
    value_words,
    walk,
)
from orchestrator.planner.sources import MANY, Source
from orchestrator.planner.steps import Item


def check_fit(source: Source, reference: Reference, *, path: Path, item: Item, made: Checked, problems: Problems) -> Shape | None:
    """Notes it when the reference at `path` in the step's arguments can give nothing that the tool takes there.

    Returns what the tool takes there, None when that is nothing or the value cannot fit.
    """
    try:
        target = made.target(path)
    except NoSuchPath:
        return None  # told as an unknown argument
    place, argument = join(item.arguments_at, *path), f"`{join('', *path)}` of `{item.step.tool}`"
    if source.values is not None:
        _check_values(source, target, argument=f"{argument} ({place})", reference=reference, made=made, problems=problems)
        return target
    wrong = misfit(source.shape, target)
    if wrong is None:
        return target
    what = f"`{reference}` is {source.about}, {describe(source.shape)}"
    inner, count = example_of(_at(source.shape, wrong.path), 1), longest(source.shape)
    clash = f"`{reference}` may give {shown(within(wrong.path, inner))}" if wrong.path else may_give(str(reference), source.shape)
    if count is not None and not wrong.plain and not wrong.path:  # by its length
        clash = f"`{reference}` gives {count} element{'s' if count != 1 else ''}"
    example = f"{clash}; {argument} takes {describe(target)}"
    if wrong.plain:
        why = f"; {argument} takes {describe(target)}"
    else:
        inside = f" at `{path_text(wrong.path).lstrip('.')}`," if wrong.path else ""
        why = f", which does not fit {argument}:{inside} {wrong.why}"
    move = _move(source, target, reference, item=item, plain=wrong.plain)
    fix = None if _all_of(reference, item) else _fix(source, target, reference, path=path, place=place)
    problems.add(place, "wrong_type", f"{what}{why}.", move, example=example, fix=fix)
    return None


def _at(shape: Shape, path: Path) -> Shape:
    """The shape at a path that is there, for an example."""
    try:
        return walk(shape, path)
    except NoSuchPath:
        return shape


def _fix(source: Source, target: Shape, reference: Reference, *, path: Path, place: str) -> Fix | None:
    """The one way to name what fits: a list of it where a list alone is taken, or the field of the argument's own name."""
    mine = kinds(source.shape)
    if kinds(target) == {"array"} and "array" not in mine and misfit(list_of(source.shape), target) is None:
        return replace(place, [str(reference)])
    own = [p for p in fitting_fields(source.shape, target, most=50) if p[-1] == path[-1]]
    return replace(place, f"{reference}{path_text(own[0])}") if len(own) == 1 else None


def _move(source: Source, target: Shape, reference: Reference, *, item: Item, plain: bool) -> str:
    if misfit(list_of(source.shape), target) is None:
        return f'A list is taken here: write `["{reference}"]`{_all_of(reference, item)}.'
    if kinds(source.shape) == {"array"} and (move := _one_of(item_of(source.shape), target, reference, item)):
        return move
    near = [f"`{reference}{path_text(p)}`" for p in fitting_fields(source.shape, target)]
    if near:
        return f"Name a field of it that is {describe(target)}: {', '.join(near[:-1]) + ' or ' if near[1:] else ''}{near[-1]}."
    if not plain:
        return "Refer to something that has what is asked for, or put a step between that makes it."
    return f"Nothing in it is {describe(target)}; put a step between that makes one, or refer to another step."


def _one_of(element: Shape, target: Shape, reference: Reference, item: Item) -> str | None:
    """How to name one element of a list, or a field of one, where that is what fits."""
    if kinds(element) == KINDS:
        return None
    paths = [()] if misfit(element, target) is None else fitting_fields(element, target, most=1)
    if not paths:
        return None
    tail = path_text(paths[0])
    mapped = reference.kind == "step" and item.step.map is None
    run = f', or run this step once per element: `"map": "{reference}"`, and `item{tail}` here' if mapped else ""
    return f"Name one, such as `{reference}[0]{tail}`{run}."


def _all_of(reference: Reference, item: Item) -> str:
    """How to name all results where the one at the same index was named."""
    if reference.path or item.step.map is None:
        return ""
    listed = item.step.map if reference.kind == "item" else str(reference)
    star = "" if listed.startswith("input:") or listed.endswith("]") else "[*]"
    return f", or `{listed}{star}` for all of them"


def _check_values(source: Source, target: Shape, *, argument: str, reference: Reference, made: Checked, problems: Problems) -> None:
    told = 0
    for at, value in source.values or ():
        for error in distinct(made.misfits(value, target)):
            found = innermost(error, target.root)
            where = join(at, *(found or error).absolute_path)
            why = explain(found) if found else f"is {value_words(value)}, but must be {describe(target)}"
            message = f"`{where}` {why}: it becomes {argument}."
            example = f"`{where}` is {around((found or error).instance)}"
            otherwise = "map over another list" if reference.kind == "item" else f"change `{reference}` in the plan"
            move = f"Give another value, or {otherwise}."
            problems.add(where, "bad_input", message, move, example=example, fix=literal_fix(found or error, where))
            told += 1
        if told >= MANY:
            return
