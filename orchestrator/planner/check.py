"""A plan is judged before anything runs: every problem at once, each with its place and the next move."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.models.plan import Plan, Reference, When, parse_reference
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.arguments import Hole, as_number, check_arguments
from orchestrator.planner.examples import may_give
from orchestrator.planner.fits import check_fit
from orchestrator.planner.fixes import replace
from orchestrator.planner.habits import warn_of_settings, warn_of_size, warn_of_texts
from orchestrator.planner.maps import find_element
from orchestrator.planner.nulls import Use, argument_name, warn_of_nulls
from orchestrator.planner.problems import Fix, Problems, clip, join, listed, shown
from orchestrator.planner.programs import check_program_of
from orchestrator.planner.reach import judge_when, warn_of_skipped, warn_of_unused, warn_of_unused_inputs
from orchestrator.planner.read import Read, check_json, read_plan, strings
from orchestrator.planner.schemas import Path, Shape, describe, fitting_fields, kind_of, kinds, path_text, value_words
from orchestrator.planner.sources import Source, Sources, begins_as_reference
from orchestrator.planner.steps import Item, Toolbox
from orchestrator.planner.synthesis import placeholders
from orchestrator.publisher.graph import Graph, build_graph, find_cycles

_ORDERED = frozenset({"integer", "number", "string"})
_TEMPLATE = "final_synthesis.prompt_template"


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can run: normalised, with its graph, and the names of the inputs that have no default.

    `warnings` look like problems: what runs and should be changed all the same, such as a tool that is deprecated.
    """

    plan: Plan
    graph: Graph
    required_inputs: tuple[str, ...] = ()
    warnings: tuple[dict[str, Any], ...] = ()


def check_plan(
    data: Mapping[str, Any] | Plan,
    catalog: ToolCatalog,
    *,
    inputs: Mapping[str, Any] | None = None,
    allowed: Callable[[ToolDefinition], str | None] | None = None,
) -> CheckedPlan:
    """The plan, normalised, and its graph. Values of `inputs` are judged too when given; None leaves them open.

    `allowed` says why the caller may not use a tool, None when it may; without it permissions are not looked at.

    Raises:
        PlanError: with all problems: `path`, `code`, `message`, `example` (the clash as a value or a path) and `next` each,
            and `fix` where nothing else can have been meant (see `planner.fixes`). A problem of a value in `inputs`
            that is not the plan's own default carries `given: true`.
    """
    problems = Problems(given=frozenset(inputs or ()), plan=_shown(data, inputs))
    warnings = Problems(plan=problems.plan)
    read = read_plan(data, problems)
    if inputs is not None:
        check_json(dict(inputs), place="inputs", problems=problems)
        problems.raise_any()
    toolbox = Toolbox(catalog, problems, warnings=warnings, allowed=allowed)
    items = [toolbox.normalise(d) for d in read.drafts]
    check = _Check(read, items, toolbox=toolbox, catalog=catalog, inputs=inputs)
    check.run()
    problems.raise_any()
    plan = read.plan.model_copy(update={"steps": tuple(i.step for i in items)})
    graph = build_graph(plan)
    check.warn(plan, graph)
    return CheckedPlan(plan, graph, check.required_inputs(), tuple(warnings.sorted()))


def _shown(data: Any, inputs: Mapping[str, Any] | None) -> Any:
    """The plan as it was handed in, with the inputs that came beside it, for examples."""
    raw = data.model_dump(mode="json", exclude_unset=True) if isinstance(data, Plan) else data
    own = raw.get("inputs") if isinstance(raw, Mapping) else None
    if not inputs or not isinstance(raw, Mapping):
        return raw
    return {**raw, "inputs": {**(own if isinstance(own, Mapping) else {}), **inputs}}


class _Check:
    """One judgement of a plan whose form was read and whose tools were looked up."""

    def __init__(
        self, read: Read, items: list[Item], *, toolbox: Toolbox, catalog: ToolCatalog, inputs: Mapping[str, Any] | None
    ) -> None:
        self.plan, self.items, self.catalog = read.plan, items, catalog
        self.toolbox, self.problems = toolbox, toolbox.problems
        self.sources = Sources(read.plan, items, inputs=inputs, problems=self.problems)
        self.uses: list[Use] = []
        self.conditions: list[tuple[Item, Source]] = []

    def run(self) -> None:
        for item in self.items:  # all maps first: other steps refer to what they give
            find_element(item, self.sources)
        for item in self.items:
            self.check_input(item)
            self.check_when(item)
            self.check_depends_on(item)
        self.check_cycles()
        self.check_output()
        self.check_synthesis()
        self.check_given()

    def warn(self, plan: Plan, graph: Graph) -> None:
        """Looks for what runs and should be changed all the same; the plan has no problems."""
        warnings, items = self.toolbox.warnings, self.sources.by_id
        for use in self.uses:
            warn_of_nulls(use, self.sources, warnings)
        never = {item.step.id for item, source in self.conditions if not judge_when(item, source, warnings)}
        warn_of_skipped(items, graph, never, warnings)
        warn_of_unused(plan, items, graph, warnings)
        warn_of_unused_inputs(plan, self.sources.used_inputs, warnings)
        for item in self.items:
            warn_of_texts(item, self.sources, warnings)
            warn_of_settings(item, warnings)
        warn_of_size(items, graph, self.sources, warnings)

    def required_inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.sources.used_inputs if name not in self.plan.inputs)

    def check_input(self, item: Item) -> None:
        found: dict[Path, tuple[Reference, Source]] = {}
        holes: set[Path] = set()
        for path, text in strings(item.step.input):
            place = join(item.arguments_at, *path)
            reference = self.sources.parse(text, place=place)
            source = self.sources.resolve(reference, item, place=place) if reference else None
            if reference and source:
                found[path] = reference, source
            if reference or begins_as_reference(text):
                holes.add(path)
        arguments = self.with_holes(item.step.input, holes, (), item)
        if not item.judged or item.made is None:
            return
        check_arguments(item.made, arguments, place=item.arguments_at, problems=self.problems, complete=not item.draft.broken)
        check_program_of(item, arguments, catalog=self.catalog, toolbox=self.toolbox)
        for path, (reference, source) in found.items():
            target = check_fit(source, reference, path=path, item=item, made=item.made, problems=self.problems)
            if target is not None and (base := self.sources.head(reference, item)) is not None:
                place, argument = join(item.arguments_at, *path), argument_name(item, path)
                self.uses.append(Use(item, reference, base, target, place, argument))

    def with_holes(self, value: Any, holes: set[Path], path: Path, item: Item) -> Any:
        """The arguments as a value: references are holes, `$literal` is opened."""
        if path in holes:
            return Hole()
        if isinstance(value, dict):
            if set(value) == {"$literal"}:
                return value["$literal"]
            if "$literal" in value:
                message = "`$literal` stands alone in its object; here it has neighbours."
                move = 'Write `{"$literal": value}` and nothing beside it.'
                self.problems.add(join(item.arguments_at, *path), "bad_literal", message, move)
            return {k: self.with_holes(v, holes, (*path, k), item) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.with_holes(v, holes, (*path, i), item) for i, v in enumerate(value)]
        return value

    def check_when(self, item: Item) -> None:
        when, place = item.step.when, f"{item.place}.when"
        if when is None:
            return
        reference = self.sources.parse(when.ref, place=f"{place}.ref")
        if reference is None:
            if not begins_as_reference(when.ref):
                message = f"`ref` takes a reference, {clip(when.ref)} is none."
                move, named = "Write `step:<id>.field`, `input:<name>` or `item.field`.", self.step_named(when.ref)
                fix = replace(f"{place}.ref", f"step:{named}") if named else None
                self.problems.add(f"{place}.ref", "bad_reference", message, move, fix=fix)
            return
        source = self.sources.resolve(reference, item, place=f"{place}.ref")
        if source is not None:
            self.conditions.append((item, source))
        if when.op in ("in", "not_in") and not isinstance(when.value, list | tuple | str):
            message = f"`{when.op}` looks in a list, but `value` is {value_words(when.value)}."
            fix = replace(f"{place}.value", [when.value]) if when.value is not None else None
            self.problems.add(f"{place}.value", "bad_value", message, 'Give a list, such as `["EUR", "USD"]`.', fix=fix)
        if when.op in ("contains", "in", "not_in") and source is not None and source.values is None:
            self.check_inside(when, source, place=place)
        if when.op in ("lt", "le", "gt", "ge"):
            self.check_order(when, source, place=place)

    def check_inside(self, when: When, source: Source, *, place: str) -> None:
        """A look into what holds nothing, or for something other than text in a text, fails the call."""
        found = kinds(source.shape)
        if when.op == "contains" and not found & {"array", "string", "object"}:
            message = f"`contains` looks in a list or a text, but `{when.ref}` is {describe(source.shape)}."
            example = may_give(when.ref, source.shape)
            self.problems.add(f"{place}.ref", "wrong_type", message, "Use `eq`, or name a list.", example=example)
        elif when.op == "contains" and found == {"string"} and not isinstance(when.value, str):
            message = f"`contains` looks in the text `{when.ref}`, but `value` is {value_words(when.value)}."
            self.problems.add(f"{place}.value", "wrong_type", message, "Give a text.")
        elif when.op != "contains" and isinstance(when.value, str) and "string" not in found:
            message = f"`{when.op}` looks in the text {clip(when.value)}, but `{when.ref}` is {describe(source.shape)}."
            self.problems.add(f"{place}.value", "wrong_type", message, "Give a list of such values.")

    def check_order(self, when: When, source: Source | None, *, place: str) -> None:
        kind, words = kind_of(when.value), value_words(when.value)
        if kind not in _ORDERED:
            message = f"`{when.op}` compares numbers or text, but `value` is {words}."
            self.problems.add(f"{place}.value", "bad_value", message, "Give a number or text.")
            return
        comparable = frozenset({"string"} if kind == "string" else {"number", "integer"})
        if source and source.values is None and not kinds(source.shape) & comparable:
            message = f"`{when.op}` cannot compare `{when.ref}`, {describe(source.shape)}, with {words}."
            example = f"{may_give(when.ref, source.shape)}; `value` is {shown(when.value)}"
            fix = _number_fix(when, source, place)
            self.problems.add(f"{place}.ref", "wrong_type", message, _comparable(when, source, kind), example=example, fix=fix)

    def check_depends_on(self, item: Item) -> None:
        for at, name in enumerate(item.step.depends_on):
            self.sources.names_step(name, item, place=f"{item.place}.depends_on[{at}]", text=name)

    def check_cycles(self) -> None:
        steps = self.sources.by_id
        for cycle in find_cycles({name: i.places for name, i in steps.items()}):
            places = [steps[a].places[b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
            circle = " -> ".join(f"`{n}`" for n in _shortened([*cycle, cycle[0]]))
            move = f"Take one of these references away: {listed(places, most=5, last='or')}."
            first, second = cycle[0], [*cycle, cycle[0]][1]
            example = f"`{first}` waits for `{second}`, which can only begin after `{first}`: {circle}"
            message = f"Steps wait for each other in a circle: {circle}."
            self.problems.add(places[0], "cycle", message, move, example=example)

    def check_output(self) -> None:
        text = self.plan.output
        if text is None:
            return
        reference = self.sources.parse(text, place="output")
        if reference is not None and reference.kind == "step":
            self.check_answer(reference, place="output")
        elif reference is not None or not begins_as_reference(text):
            move = f"Write `step:{text}`." if text in self.sources.by_id else "Write `step:<id>` or `step:<id>.field`."
            message = f"`output` takes a reference to a step's result, {clip(text)} is none."
            named = self.step_named(text) if reference is None else None
            fix = replace("output", f"step:{named}") if named else None
            self.problems.add("output", "bad_reference", message, move, fix=fix)

    def check_synthesis(self) -> None:
        template = self.plan.final_synthesis.prompt_template if self.plan.final_synthesis else ""
        place = _TEMPLATE
        for inside, reference in placeholders(template):
            if reference is not None:
                self.check_answer(reference, place=place)
            elif inside != "steps":
                message = f"`{{{{{inside}}}}}` is no placeholder."
                move, named = "Write `{{steps}}` or `{{steps.<id>.field}}`.", self.step_named(inside)
                fix = replace(place, _refilled(template, inside, f"steps.{named}")) if named else None
                move = f"{move} Steps are {listed(self.sources.by_id)}." if self.sources.by_id else move
                example = f"`{{{{{inside}}}}}` would stand in the answer as it is written here"
                self.problems.add(place, "bad_placeholder", message, move, example=example, fix=fix)

    def step_named(self, text: str) -> str | None:
        """A step's id with a path, as it follows `step:`, when a text is that but for how it begins."""
        rest = text.removeprefix("steps:").removeprefix("step:").removeprefix("step.")
        try:
            reference = parse_reference(f"step:{rest}")
        except ValueError:
            return None
        return rest if reference is not None and reference.name in self.sources.by_id else None

    def check_answer(self, reference: Reference, *, place: str) -> None:
        text = None if place == _TEMPLATE else str(reference)
        if self.sources.names_step(reference.name, None, place=place, text=text):
            self.sources.walk_to(self.sources.result(reference.name, whole=True), reference, place=place)

    def check_given(self) -> None:
        known = list(dict.fromkeys([*self.sources.used_inputs, *self.plan.inputs]))
        otherwise = f"It uses {listed(known)}." if known else "It takes none; leave it out."
        for name in self.sources.given or ():
            if name not in known:
                move = self.problems.suggest(name, known, otherwise=otherwise)
                self.problems.add(join("inputs", name), "unknown_input", f"The plan uses no input `{name}`.", move)


def _comparable(when: When, source: Source, kind: str) -> str:
    """Which fields of an object may be compared with a value of this kind."""
    wanted = Shape({"type": "string" if kind == "string" else "number"}, True)
    near = [f"{when.ref}{path_text(p)}" for p in fitting_fields(source.shape, wanted)]
    return f"Name a field of it: {listed(near, last='or')}." if near else "Compare values of one type."


def _refilled(template: str, inside: str, better: str) -> str:
    return re.sub(r"\{\{\s*" + re.escape(inside) + r"\s*\}\}", lambda _: f"{{{{{better}}}}}", template)


def _number_fix(when: When, source: Source, place: str) -> Fix | None:
    number = as_number(when.value) if isinstance(when.value, str) else None
    known = kinds(source.shape) <= {"number", "integer", "null"}
    return replace(f"{place}.value", number) if number is not None and known else None


def _shortened(names: list[str]) -> Iterable[str]:
    return names if len(names) <= 12 else [*names[:6], "…", *names[-5:]]
