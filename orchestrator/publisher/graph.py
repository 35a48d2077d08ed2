"""The DAG of a plan: which step waits for which, as a whole (barrier) or item by item (aligned). Pure.

A map has a *root*: the list that gives its length. `map: "step:M"` over a mapped M takes over M's root, and a
reference between two steps of one root means the result at the same index, so their calls follow each other
without a barrier. Everything else waits for the whole of the step that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from orchestrator.errors import PlanError
from orchestrator.models.plan import Plan, Reference, Step, find_references, parse_reference


@dataclass(frozen=True, slots=True)
class Node:
    """A step and what it waits for.

    `barrier` names the steps whose end it awaits, `aligned` the mapped steps over the same root that it follows item
    by item. A step named both ways (`step:a` and `step:a[*]`) is in both. `root` is None for a plain step.
    """

    index: int
    step: Step
    barrier: tuple[str, ...] = ()
    aligned: tuple[str, ...] = ()
    root: Reference | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes in topological order, the same edges the other way round, and the steps that nothing waits for."""

    nodes: dict[str, Node]
    successors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    aligned_successors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()


def build_graph(plan: Plan) -> Graph:
    """The graph of a checked plan.

    Raises:
        PlanError: a step that does not exist is named, or steps wait for each other in a circle.
    """
    steps = {s.id: s for s in plan.steps}
    _refuse_unknown(plan, steps)
    order = _order({s.id: dependencies(s) for s in plan.steps})
    roots = find_roots(steps)
    index = {s.id: at for at, s in enumerate(plan.steps)}
    nodes = {name: _node(steps[name], index=index[name], roots=roots) for name in order}
    barrier = _reverse({n: node.barrier for n, node in nodes.items()})
    aligned = _reverse({n: node.aligned for n, node in nodes.items()})
    return Graph(nodes, barrier, aligned, tuple(s.id for s in plan.steps if not barrier[s.id] and not aligned[s.id]))


def references(step: Step) -> Iterator[tuple[str, Reference]]:
    """Every reference of a step with its place beneath the step, in the order `map`, `when`, `input`.

    Raises:
        ValueError: a string begins as a reference and goes on as none.
    """
    for place, text in (("map", step.map), ("when.ref", step.when.ref if step.when else None)):
        reference = parse_reference(text)
        if reference is not None:
            yield place, reference
    yield from find_references(step.input, "input")


def dependencies(step: Step) -> tuple[str, ...]:
    """The ids of the steps that a step names, in any way, each once."""
    named = [r.name for _, r in references(step) if r.kind == "step"]
    return tuple(dict.fromkeys([*named, *step.depends_on]))


def find_roots(steps: Mapping[str, Step]) -> dict[str, Reference | None]:
    """The root of every step, None for a plain one. Steps that map over each other in a circle get None too."""
    roots: dict[str, Reference | None] = {}
    for name in steps:
        _settle(name, steps, roots)
    return roots


def is_aligned(name: str, *, root: Reference | None, roots: Mapping[str, Reference | None]) -> bool:
    """Whether `step:<name>`, met in a step of that root, means the result at the same index."""
    return root is not None and roots.get(name) == root


def find_cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Circles in a graph, none sharing a node with another; at least one when there is any. In order: each waits for the next."""
    cycles: list[list[str]] = []
    closed: set[str] = set()  # nodes of a circle that was found, or whose circle touches one
    done: set[str] = set()
    for start in edges:
        path: dict[str, Iterator[str]] = {}
        if start not in done:
            path[start] = iter(edges[start])
        while path:
            name = next(reversed(path))
            following = next(path[name], None)
            if following is None:
                path.pop(name)
                done.add(name)
            elif following in path and following not in closed:
                walk = list(path)
                cycle = walk[walk.index(following) :]
                if closed.isdisjoint(cycle):
                    cycles.append(cycle)
                    closed.update(cycle)
                closed.add(following)
            elif following in edges and following not in path and following not in done:
                path[following] = iter(edges[following])
    return cycles


def _settle(name: str, steps: Mapping[str, Step], roots: dict[str, Reference | None]) -> None:
    trail: dict[str, None] = {}  # mapped steps on the way to the root, all of which share it
    root: Reference | None = None
    while name not in roots and name not in trail:
        trail[name] = None
        reference = _map_reference(steps[name])
        source = steps.get(reference.name) if reference and reference.kind == "step" else None
        follows = source is not None and source.map is not None and reference is not None
        if follows and reference is not None and not reference.whole and not reference.path:
            name = reference.name
            continue
        root = _plain_spelling(reference, mapped=follows)
        break
    else:
        root = roots.get(name)
    roots.update(dict.fromkeys(trail, root))


def _map_reference(step: Step) -> Reference | None:
    try:
        return parse_reference(step.map)
    except ValueError:
        return None  # the check names it


def _plain_spelling(reference: Reference | None, *, mapped: bool) -> Reference | None:
    """`step:a[*]` of a plain step is `step:a`, and `step:a[*][0]` is `step:a[0]`: one root, one spelling."""
    if reference is None or (reference.whole and mapped and not reference.path):
        return reference
    return replace(reference, whole=False)


def _node(step: Step, *, index: int, roots: Mapping[str, Reference | None]) -> Node:
    root = roots[step.id]
    named = [(r.name, r.whole) for _, r in references(step) if r.kind == "step"] + [(d, False) for d in step.depends_on]
    if root is not None and root.kind == "step":
        named.append((root.name, True))  # its length is known only then
    aligned = dict.fromkeys(n for n, whole in named if not whole and is_aligned(n, root=root, roots=roots))
    barrier = dict.fromkeys(n for n, whole in named if whole or n not in aligned)
    return Node(index, step, tuple(barrier), tuple(aligned), root)


def _reverse(edges: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    back: dict[str, list[str]] = {name: [] for name in edges}
    for name, sources in edges.items():
        for source in sources:
            back[source].append(name)
    return {name: tuple(names) for name, names in back.items()}


def _order(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    try:
        return tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        circle = " -> ".join(f"`{n}`" for n in reversed(error.args[1]))
        raise PlanError(f"Steps wait for each other in a circle: {circle}.", next="Take one of these references away.") from None


def _refuse_unknown(plan: Plan, steps: Mapping[str, Step]) -> None:
    problems = [
        {"path": f"steps[{at}]", "code": "unknown_step", "message": f"There is no step `{name}`."}
        for at, step in enumerate(plan.steps)
        for name in dependencies(step)
        if name not in steps
    ]
    if problems:
        raise PlanError(problems=problems)
