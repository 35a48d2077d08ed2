"""A checked plan becomes rows of the ledger: what the scripts must know of each step, and what the worker must."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.broker.queues import PRIVATE
from orchestrator.errors import PlanError, ToolError
from orchestrator.jobs.ledger import Child, Lane, StepRow
from orchestrator.jobs.references import ALIGNED, LIST, PLAIN, pick
from orchestrator.models.plan import MAX_MAP, Plan, Reference, Retry
from orchestrator.models.tool import Lookup, ToolCatalog, ToolDefinition
from orchestrator.publisher.envelope import envelope_name
from orchestrator.publisher.graph import Graph, Node, build_graph, references

NO_LIST, TOO_LONG = -1, -2
_NO_LIMIT = 1_000_000
ARGUMENTS_MAX = 1 << 20  # bytes of JSON: they stand in the ledger, and travel with others in one script


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan as the ledger takes it, the same for all its jobs; `tools` are its (queue, tool) pairs.

    `lists` are the lists in the inputs that maps run over.
    """

    rows: tuple[StepRow, ...]
    lists: tuple[Reference, ...]
    queues: tuple[str, ...]
    tools: tuple[tuple[str, str], ...]
    lanes: tuple[Lane, ...]

    def lengths(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """The lengths of the lists in a job's inputs."""
        return {str(root): list_length(inputs.get(root.name), root.path) for root in self.lists}


def compile_plan(plan: Plan, *, catalog: ToolCatalog, shards: int = 1) -> Compiled:
    """The rows, the lists in the inputs, the queues and lanes of a plan. Of `shards` each allows its part of a tool's limit.

    Raises:
        PlanError: a tool is not in the catalog any more.
    """
    graph = build_graph(plan)
    tools = _tools(plan, catalog)
    queues = tuple(dict.fromkeys((*(tools[n].pool for n in graph.nodes), *_pools_of_programs(plan, catalog, tools))))
    takers = _takers(graph)
    limited = {t.name: t for t in tools.values() if t.max_concurrency or t.concurrency_key}
    lanes: tuple[Lane, ...] = (
        *((at, "", 0) for at in range(len(queues))),
        *((queues.index(t.pool), t.name, max(1, (t.max_concurrency or _NO_LIMIT) // shards)) for t in limited.values()),
    )
    places = {name: len(queues) + at for at, name in enumerate(limited)}
    rows = tuple(
        _row(plan, graph, node, tool=tools[name], queues=queues, takers=takers, lane=places.get(tools[name].name))
        for name, node in graph.nodes.items()
    )
    roots = {str(n.root): n.root for n in graph.nodes.values() if n.root is not None and n.root.kind == "input"}
    return Compiled(rows, tuple(roots.values()), queues, tuple({(t.pool, t.name): None for t in tools.values()}), lanes)


def list_length(value: Any, path: Sequence[str | int]) -> int:
    """The length of the list at a path; NO_LIST or TOO_LONG when a map cannot run over it."""
    try:
        found = pick(value, tuple(path))
    except ToolError:
        return NO_LIST
    if not isinstance(found, list):
        return NO_LIST
    return len(found) if len(found) <= MAX_MAP else TOO_LONG


def lengths_for(takes: Sequence[Sequence[Any]], *, index: int, result: Any) -> dict[str, int]:
    """The lengths of the lists that maps take from a call's result; `takes` is `lens` of the worker's spec."""
    return {key: list_length(result, path) for key, at, path in takes if at is None or at == index}


def _tools(plan: Plan, catalog: ToolCatalog) -> dict[str, ToolDefinition]:
    known = {t.name: t for t in catalog.tools}
    missing = [
        {"path": f"steps[{at}].tool", "code": "unknown_tool", "message": f"There is no tool `{s.tool}` any more."}
        for at, s in enumerate(plan.steps)
        if s.tool not in known
    ]
    if missing:
        raise PlanError(problems=missing)
    return {s.id: known[s.tool] for s in plan.steps}


def _pools_of_programs(plan: Plan, catalog: ToolCatalog, tools: Mapping[str, ToolDefinition]) -> list[str]:
    """The pools of the tools that programs in the plan may call. Those of scripts and notebooks only where they are named.

    A name counts for every tool that has it: which of them it means is another thing for each tenant, and is known when it runs.
    """
    pools: dict[str, None] = {}
    lookup = catalog.lookup()
    for step in plan.steps:
        if tools[step.id].type != "code_exec":
            continue
        named = step.input.get("tools")
        named = named.get("$literal") if isinstance(named, dict) else named
        if isinstance(named, list):
            granted = [t for name in named if isinstance(name, str) for t in _meant_by(name, lookup)]
        else:
            granted = [t for t in catalog.tools if not t.pool.startswith(PRIVATE)]
        pools |= dict.fromkeys(t.pool for t in granted if t.callable_by_code)
    return list(pools)


def _meant_by(name: str, lookup: Lookup) -> list[ToolDefinition]:
    exact = lookup.names.get(name)
    return [*([exact] if exact is not None else []), *lookup.aliases.get(name, ())]


def child_of(
    tool: ToolDefinition,
    arguments: Mapping[str, Any],
    *,
    key: str,
    caller: Mapping[str, Any],
    timeout_s: float | None = None,
    shards: int = 1,
) -> Child:
    """A call of a tool as a running call makes it: its arguments are values, never references. The tool's timeout is the most.

    Raises:
        ToolError: the arguments are too large.
    """
    timeout_s = min(tool.timeout_s, timeout_s or tool.timeout_s)
    retry = Retry()
    facts: dict[str, Any] = {
        "e": "continue",
        "al": 0,
        "ef": tool.effect,
        "to": int(timeout_s * 1000),
        "tool": tool.name,
        "env": envelope_name(tool.pool, tool.name),
        "rm": retry.max,
    }
    spec = {
        "tool": tool.name,
        "hash": tool.content_hash,
        "input": {name: {"$literal": value} for name, value in arguments.items()},
        "retry": [retry.max, retry.backoff_s, retry.max_backoff_s],
        "timeout_s": timeout_s,
        "effect": tool.effect,
        "caller": dict(caller),
    }
    if tool.concurrency_key:
        spec["key"] = [tool.concurrency_key, tool.max_per_key]
    limited = tool.max_concurrency or tool.concurrency_key
    limit = max(1, (tool.max_concurrency or _NO_LIMIT) // shards) if limited else None
    return Child(key, digest(tool.name, arguments), tool.pool, facts, spec, limit)


def digest(tool: str, arguments: Mapping[str, Any]) -> str:
    """What tells two calls of a program apart: the tool and its arguments.

    Raises:
        ToolError: these are too large.
    """
    text = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"))
    if len(text) > ARGUMENTS_MAX:
        raise ToolError(
            f"the arguments of tool `{tool}` are {len(text)} bytes of JSON; the most that a program may pass is {ARGUMENTS_MAX}",
            code="arguments_too_large", next="Pass a part at a time, or a reference to a file.",
        )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _takers(graph: Graph) -> dict[str, list[list[Any]]]:
    """By step, the lists inside its results that maps run over: `[key, index of the call or None, path]`."""
    takers: dict[str, dict[str, list[Any]]] = {}
    for node in graph.nodes.values():
        root = node.root
        if root is None or root.kind != "step" or root.whole:
            continue
        source = graph.nodes[root.name]
        index, path = (root.path[0], root.path[1:]) if source.root is not None else (None, root.path)
        takers.setdefault(root.name, {})[str(root)] = [str(root), index, list(path)]
    return {name: list(lists.values()) for name, lists in takers.items()}


def _row(
    plan: Plan,
    graph: Graph,
    node: Node,
    *,
    tool: ToolDefinition,
    queues: Sequence[str],
    takers: Mapping[str, list[list[Any]]],
    lane: int | None,
) -> StepRow:
    step = node.step
    retry = step.retry or Retry()
    timeout_s = step.timeout_s or tool.timeout_s
    effect = step.effect or tool.effect
    modes = _modes(graph, node)
    listed = [name for name, mode in modes.items() if mode == LIST or _also_listed(node, name)]
    whole_roots = {str(n.root) for n in graph.nodes.values() if n.root is not None and n.root.whole and n.root.name == step.id}
    facts: dict[str, Any] = {
        "q": queues.index(tool.pool),
        "l": queues.index(tool.pool) if lane is None else lane,
        "b": graph.successors[step.id],
        "a": graph.aligned_successors[step.id],
        "e": step.on_error or plan.on_error,
        "al": len(node.aligned),
        "ef": effect,
        "to": int(timeout_s * 1000),
        "tool": step.tool,
        "env": envelope_name(tool.pool, step.tool),
        "rm": retry.max,
    }
    optional = {
        "run": step.on_skip == "run",
        "m": str(node.root) if node.root else None,
        "ls": listed,
        "wl": next(iter(whole_roots), None),
    }
    spec = {
        "tool": step.tool,
        "hash": tool.content_hash,
        "input": step.input,
        "map": step.map,
        "when": step.when.model_dump() if step.when else None,
        "modes": modes,
        "retry": [retry.max, retry.backoff_s, retry.max_backoff_s],
        "timeout_s": timeout_s,
        "effect": effect,
        "lens": takers.get(step.id, []),
        "key": [tool.concurrency_key, tool.max_per_key] if tool.concurrency_key else None,
    }
    return StepRow(
        step.id,
        len(node.barrier) + len(node.aligned),
        facts | {k: v for k, v in optional.items() if v},
        {k: v for k, v in spec.items() if v not in (None, [], {})},
    )


def _modes(graph: Graph, node: Node) -> dict[str, str]:
    named = {r.name for _, r in references(node.step) if r.kind == "step"}
    return {name: _mode(graph, node, name) for name in sorted(named)}


def _mode(graph: Graph, node: Node, name: str) -> str:
    if graph.nodes[name].root is None:
        return PLAIN
    return ALIGNED if name in node.aligned else LIST


def _also_listed(node: Node, name: str) -> bool:
    """An aligned step whose whole list is named too (`step:a` and `step:a[*]`)."""
    return any(r.whole and r.name == name for _, r in references(node.step)) and name in node.aligned
