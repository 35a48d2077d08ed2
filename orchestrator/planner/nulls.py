"""Where a result may be null or lack a field while a tool wants a value: worth a warning, unless `when` guards it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.models.plan import Reference, parse_reference
from orchestrator.planner.examples import within
from orchestrator.planner.problems import Problems, join, shown
from orchestrator.planner.schemas import KINDS, Path, Shape, alternatives, describe, fields, item_of, kinds, path_text, walk
from orchestrator.planner.sources import Source, Sources
from orchestrator.planner.steps import Item

_DEEPEST = 6
_MOST = 200  # places compared for one argument
_NOT_NULL = frozenset({"truthy", "exists", "lt", "le", "gt", "ge", "contains"})  # hold for no null, or fail on it by themselves


@dataclass(frozen=True, slots=True)
class Use:
    """A reference in a step's arguments: what it names, from where it is walked to, and what is asked for there."""

    item: Item
    reference: Reference
    base: Source
    target: Shape
    place: str
    argument: str


def warn_of_nulls(use: Use, sources: Sources, warnings: Problems) -> None:
    """Warns when what the reference names may be null or missing and the argument takes no null."""
    if use.base.values is not None:  # known, and judged by its value
        return
    if lacking := next(_lacking(use, sources), None):
        path, missing = lacking
        _warn(use, path, missing=missing, warnings=warnings)
        return
    shape = walk(use.base.shape, use.reference.path)
    shape = _with_skipped(use, shape, sources)
    if clash := _clash(shape, use.target, _DEEPEST, [_MOST]):
        path, missing = clash
        guarded = not path and use.reference.path in _guarded(use, sources)
        if not guarded:
            _warn(use, (*use.reference.path, *path), missing=missing, warnings=warnings)


def may_be_null(shape: Shape) -> bool:
    """Whether null is among the kinds that a schema names; one that names none says nothing."""
    found = kinds(shape)
    return "null" in found and found != KINDS


def guards(item: Item, sources: Sources) -> tuple[tuple[str, str], Path] | None:
    """The value of which the step's `when` says that it is not null: from where it is walked to, and the path."""
    when = item.step.when
    if when is None or not (
        when.op in _NOT_NULL
        or (when.op == "eq" and when.value is not None)
        or (when.op == "ne" and when.value is None)
        or (when.op == "in" and not (isinstance(when.value, list | tuple) and None in when.value))
    ):
        return None
    reference = _parsed(when.ref)
    return None if reference is None else (_head(reference, item, sources), reference.path)


def _guarded(use: Use, sources: Sources) -> set[Path]:
    """The paths beneath the use's own head that `when` says to be there."""
    found = guards(use.item, sources)
    if found is None or found[0] != _head(use.reference, use.item, sources):
        return set()
    return {found[1][:n] for n in range(len(found[1]) + 1)}


def _head(reference: Reference, item: Item, sources: Sources) -> tuple[str, str]:
    """Where a reference begins; `item` of a map that follows a step is that step's result at the same index."""
    if reference.kind != "item":
        return reference.kind, reference.name + ("[*]" if reference.whole else "")
    mapped = _parsed(item.step.map or "")
    follows = mapped is not None and mapped.kind == "step" and not mapped.path and not mapped.whole
    return ("step", mapped.name) if mapped is not None and follows and sources.is_mapped(mapped.name) else ("item", "")


def _parsed(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ValueError:
        return None


def _lacking(use: Use, sources: Sources) -> Iterator[tuple[Path, bool]]:
    """Places on the way to the value that may be null, so that it is, or that may be missing, so that the call fails."""
    guarded, path = _guarded(use, sources), use.reference.path
    takes_null = "null" in kinds(use.target)
    for at in range(len(path)):
        here = walk(use.base.shape, path[:at])
        if not takes_null and path[:at] not in guarded and may_be_null(here):
            yield path[:at], False
        part = path[at]
        if isinstance(part, str) and path[: at + 1] not in guarded and _may_be_missing(here, part):
            yield path[: at + 1], True


def _may_be_missing(shape: Shape, name: str) -> bool:
    """Whether an object may lack a field: its schema says which are required and this is none of them, nor has it a default."""
    options = [a for a in alternatives(shape) if isinstance(a, dict) and name in a.get("properties", {})]
    return bool(options) and all(
        a.get("required") and name not in a["required"] and "default" not in _dict(a["properties"][name]) for a in options
    )


def _dict(schema: object) -> dict[str, object]:
    return schema if isinstance(schema, dict) else {}


def _with_skipped(use: Use, shape: Shape, sources: Sources) -> Shape:
    """The list of a map step's results has null where an item is skipped."""
    reference = use.reference
    if reference.kind != "step" or reference.path or kinds(shape) != {"array"} or not use.base.about.startswith("the list of"):
        return shape
    if not skips(sources.by_id[reference.name]):
        return shape
    return Shape({"type": "array", "items": {"anyOf": [item_of(shape).schema, {"type": "null"}]}}, shape.root)


def skips(item: Item) -> bool:
    """Whether a step leaves items out by its condition."""
    return item.step.when is not None


def _clash(source: Shape, target: Shape, deep: int, left: list[int]) -> tuple[Path, bool] | None:
    """Where inside a value null may stand, or a field be missing, that the target wants; whether it is the latter."""
    left[0] -= 1
    if deep < 0 or left[0] < 0 or kinds(target) == KINDS:
        return None
    if may_be_null(source) and "null" not in kinds(target):
        return (), False
    mine, asked = _only(source), _only(target)
    if mine is None or asked is None:
        return None
    if kinds(mine) == kinds(asked) == {"array"}:
        inner = _clash(item_of(mine), item_of(asked), deep - 1, left)
        return inner and ((0, *inner[0]), inner[1])
    return _clash_of_fields(mine, asked, deep, left) if kinds(mine) == kinds(asked) == {"object"} else None


def _clash_of_fields(source: Shape, target: Shape, deep: int, left: list[int]) -> tuple[Path, bool] | None:
    mine = fields(source)
    required = target.schema.get("required", ())
    for name, asked in fields(target).items():
        if name not in mine:
            continue
        if name in required and _may_be_missing(source, name):
            return (name,), True
        if inner := _clash(mine[name], asked, deep - 1, left):
            return (name, *inner[0]), inner[1]
    return None


def _only(shape: Shape) -> Shape | None:
    """The one alternative beside null; None when there are several, of which another may be meant."""
    found = [a for a in alternatives(shape) if not (isinstance(a, dict) and kinds(Shape(a, shape.root)) == {"null"})]
    return Shape(found[0], shape.root) if len(found) == 1 and isinstance(found[0], dict) else None


def _warn(use: Use, path: Path, *, missing: bool, warnings: Problems) -> None:
    head, at = use.base.text, path_text(path)
    value = within(path[:-1], {}) if missing else within(path, None)
    what = f"`{head}{at}` may be {'missing' if missing else 'null'}"
    example = f"`{head}` may give {shown(value)}; {use.argument} takes {describe(use.target)}"
    if len(path) > len(use.reference.path) and path[len(use.reference.path)] == 0 and not missing:
        what = f"An element of `{_written(use.reference, use.reference.path)}` may be null"
    message = f"{what}; {use.argument} takes {'nothing less' if missing else 'no null'}."
    prefix = path[: len(use.reference.path)]
    guard = f"{_written(use.reference, prefix)}"
    if missing or len(path) > len(use.reference.path):
        move = "Name another value, or put a step between that fills the gap."
    elif use.item.step.when is None:
        move = f'Add `"when": {{"ref": "{guard}", "op": "exists"}}` to the step, or name another value.'
    else:
        move = f"Let `when` ask whether `{guard}` exists, or name another value."
    warnings.add(use.place, "may_be_missing" if missing else "may_be_null", message, move, example=example)


def _written(reference: Reference, path: Path) -> str:
    return str(Reference(reference.kind, reference.name, path, reference.whole))


def argument_name(item: Item, path: Path) -> str:
    """An argument for a sentence."""
    return f"`{join('', *path)}` of `{item.step.tool}`"
