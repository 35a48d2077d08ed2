"""References become values: the input of a call, its item, its condition. Pure, but for the `Source` that reads."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.errors import ToolError
from orchestrator.models.plan import Reference, When, find_references, parse_reference

PLAIN, ALIGNED, LIST = "p", "a", "l"


class Source(Protocol):
    """Where values come from: the inputs of the job and the results of its calls."""

    def inputs(self) -> Mapping[str, Any]:
        """The job's inputs."""

    def result(self, call: str) -> Any:
        """The result of one call; None when it has none."""


def pick(value: Any, path: tuple[str | int, ...]) -> Any:
    """What lies at a path inside a JSON value; None under None.

    Raises:
        ToolError: the path leads nowhere.
    """
    for at, part in enumerate(path):
        if value is None:
            return None
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path[: at + 1])
            known = (
                f"there are {', '.join(sorted(map(str, value)))}"
                if isinstance(value, dict)
                else f"the value is a {type(value).__name__}"
            )
            raise ToolError(f"there is nothing at `{where}`; {known}", code="bad_reference") from None
    return value


@dataclass(frozen=True, slots=True)
class Scope:
    """What the references of one call see.

    `modes` says for every step that is named how its results are meant: PLAIN, ALIGNED or LIST; `totals` how many
    calls the listed ones have; `index` is the call's position, `map` the reference that it maps over.
    """

    source: Source
    modes: Mapping[str, str]
    totals: Mapping[str, int] = field(default_factory=dict)
    index: int = 0
    map: str | None = None

    def value(self, reference: Reference) -> Any:
        """The value that a reference names."""
        if reference.kind == "item":
            return pick(self.item(), reference.path)
        if reference.kind == "input":
            return pick(self.source.inputs().get(reference.name), reference.path)
        mode = self.modes.get(reference.name, PLAIN)
        if mode == PLAIN:
            return pick(self.source.result(f"{reference.name}#0"), reference.path)
        if mode == ALIGNED and not reference.whole:
            return pick(self.source.result(f"{reference.name}#{self.index}"), reference.path)
        return pick([self.source.result(f"{reference.name}#{i}") for i in range(self.totals[reference.name])], reference.path)

    def item(self) -> Any:
        """The element of the map that this call is for."""
        reference = parse_reference(self.map)
        if reference is None:
            return None
        if reference.kind == "step" and self.modes.get(reference.name) == ALIGNED and not reference.whole:
            return self.source.result(f"{reference.name}#{self.index}")
        items = self.value(reference)
        return items[self.index] if items is not None else None

    def resolve(self, value: Any) -> Any:
        """A template with every reference replaced by its value, as a copy that a tool may change."""
        if isinstance(value, dict):
            if set(value) == {"$literal"}:
                return value["$literal"]
            return {key: self.resolve(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.resolve(inner) for inner in value]
        reference = parse_reference(value)
        return value if reference is None else _copied(self.value(reference))


def _copied(value: Any) -> Any:
    """A copy of a JSON value, several times as fast as `deepcopy`."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value


def calls_needed(template: Any, scope: Scope) -> set[str]:
    """The calls whose results a template and the condition read, and the map's when they read `item`: fetched in one go."""
    needed: set[str] = set()
    named = [r for _, r in find_references(template)]
    if any(r.kind == "item" for r in named):
        named += [r for _, r in find_references(scope.map)]
    for reference in named:
        if reference.kind != "step":
            continue
        mode = scope.modes.get(reference.name, PLAIN)
        if mode == PLAIN:
            needed.add(f"{reference.name}#0")
        elif mode == ALIGNED and not reference.whole:
            needed.add(f"{reference.name}#{scope.index}")
        else:
            needed.update(f"{reference.name}#{i}" for i in range(scope.totals[reference.name]))
    return needed


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "in": lambda a, b: a in b,
    "not_in": lambda a, b: a not in b,
    "contains": lambda a, b: b in a,
    "exists": lambda a, _: a is not None,
    "truthy": lambda a, _: bool(a),
    "falsy": lambda a, _: not a,
}


def holds(when: When, scope: Scope) -> bool:
    """Whether a condition holds.

    Raises:
        ToolError: the two values cannot be compared.
    """
    value = scope.resolve(when.ref)
    try:
        return _OPERATORS[when.op](value, when.value)
    except TypeError:
        raise ToolError(
            f"`when` cannot compare `{when.ref}` ({type(value).__name__}) {when.op} {when.value!r}",
            code="bad_condition",
            next="compare values of one type, or use `exists` first",
        ) from None
