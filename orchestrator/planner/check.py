"""A plan is judged before anything runs: every problem at once, each with its place and the next move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.models.plan import Plan, Reference, When
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.arguments import Hole, check_arguments
from orchestrator.planner.fits import check_fit
from orchestrator.planner.maps import find_element
from orchestrator.planner.problems import Problems, clip, join, listed
from orchestrator.planner.programs import check_program_of
from orchestrator.planner.read import Read, check_json, read_plan, strings
from orchestrator.planner.schemas import Path, describe, kind_of, kinds, value_words
from orchestrator.planner.sources import Source, Sources, begins_as_reference
from orchestrator.planner.steps import Item, Toolbox
from orchestrator.planner.synthesis import placeholders
from orchestrator.publisher.graph import Graph, build_graph, find_cycles

_ORDERED = frozenset({"integer", "number", "string"})


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can run: normalised, with its graph, and the names of the inputs that have no default.

    `warnings` look like problems: what runs and should be changed all the same, such as a tool that is deprecated.
    """

    plan: Plan
    graph: Graph
    required_inputs: tuple[str, ...] = ()
    warnings: tuple[dict[str, Any], ...] = ()


def check_plan(data: Mapping[str, Any] | Plan, catalog: ToolCatalog, *, inputs: Mapping[str, Any] | None = None) -> CheckedPlan:
    """The plan, normalised, and its graph. Values of `inputs` are judged too when given; None leaves them open.

    Raises:
        PlanError: with all problems: `path`, `code`, `message` and `next` each. A problem of a value in `inputs`
            that is not the plan's own default carries `given: true`.
    """
    problems = Problems(given=frozenset(inputs or ()))
    read = read_plan(data, problems)
    if inputs is not None:
        check_json(dict(inputs), place="inputs", problems=problems)
        problems.raise_any()
    toolbox = Toolbox(catalog, problems)
    items = [toolbox.normalise(d) for d in read.drafts]
    check = _Check(read, items, catalog=catalog, inputs=inputs, problems=problems)
    check.run()
    problems.raise_any()
    plan = read.plan.model_copy(update={"steps": tuple(i.step for i in items)})
    return CheckedPlan(plan, build_graph(plan), check.required_inputs(), tuple(toolbox.warnings))


class _Check:
    """One judgement of a plan whose form was read and whose tools were looked up."""

    def __init__(
        self, read: Read, items: list[Item], *, catalog: ToolCatalog, inputs: Mapping[str, Any] | None, problems: Problems
    ) -> None:
        self.plan, self.items, self.catalog, self.problems = read.plan, items, catalog, problems
        self.sources = Sources(read.plan, items, inputs=inputs, problems=problems)

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
        check_program_of(item, arguments, catalog=self.catalog, problems=self.problems)
        for path, (reference, source) in found.items():
            check_fit(source, reference, path=path, item=item, made=item.made, problems=self.problems)

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
                move = "Write `step:<id>.field`, `input:<name>` or `item.field`."
                self.problems.add(f"{place}.ref", "bad_reference", message, move)
            return
        source = self.sources.resolve(reference, item, place=f"{place}.ref")
        if when.op in ("in", "not_in") and not isinstance(when.value, list | tuple | str):
            message = f"`{when.op}` looks in a list, but `value` is {value_words(when.value)}."
            self.problems.add(f"{place}.value", "bad_value", message, 'Give a list, such as `["EUR", "USD"]`.')
        if when.op in ("lt", "le", "gt", "ge"):
            self.check_order(when, source, place=place)

    def check_order(self, when: When, source: Source | None, *, place: str) -> None:
        kind, words = kind_of(when.value), value_words(when.value)
        if kind not in _ORDERED:
            message = f"`{when.op}` compares numbers or text, but `value` is {words}."
            self.problems.add(f"{place}.value", "bad_value", message, "Give a number or text.")
            return
        comparable = frozenset({"string"} if kind == "string" else {"number", "integer"})
        if source and source.values is None and not kinds(source.shape) & comparable:
            message = f"`{when.op}` cannot compare `{when.ref}`, {describe(source.shape)}, with {words}."
            self.problems.add(f"{place}.ref", "wrong_type", message, "Compare values of one type.")

    def check_depends_on(self, item: Item) -> None:
        for at, name in enumerate(item.step.depends_on):
            self.sources.names_step(name, item, place=f"{item.place}.depends_on[{at}]")

    def check_cycles(self) -> None:
        steps = self.sources.by_id
        for cycle in find_cycles({name: i.places for name, i in steps.items()}):
            places = [steps[a].places[b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
            circle = " -> ".join(f"`{n}`" for n in _shortened([*cycle, cycle[0]]))
            move = f"Take one of these references away: {listed(places, most=5, last='or')}."
            self.problems.add(places[0], "cycle", f"Steps wait for each other in a circle: {circle}.", move)

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
            self.problems.add("output", "bad_reference", message, move)

    def check_synthesis(self) -> None:
        template = self.plan.final_synthesis.prompt_template if self.plan.final_synthesis else ""
        place = "final_synthesis.prompt_template"
        for inside, reference in placeholders(template):
            if reference is not None:
                self.check_answer(reference, place=place)
            elif inside != "steps":
                message = f"`{{{{{inside}}}}}` is no placeholder."
                self.problems.add(place, "bad_placeholder", message, "Write `{{steps}}` or `{{steps.<id>.field}}`.")

    def check_answer(self, reference: Reference, *, place: str) -> None:
        if self.sources.names_step(reference.name, None, place=place):
            self.sources.walk_to(self.sources.result(reference.name, whole=True), reference, place=place)

    def check_given(self) -> None:
        known = list(dict.fromkeys([*self.sources.used_inputs, *self.plan.inputs]))
        otherwise = f"It uses {listed(known)}." if known else "It takes none; leave it out."
        for name in self.sources.given or ():
            if name not in known:
                move = self.problems.suggest(name, known, otherwise=otherwise)
                self.problems.add(join("inputs", name), "unknown_input", f"The plan uses no input `{name}`.", move)


def _shortened(names: list[str]) -> Iterable[str]:
    return names if len(names) <= 12 else [*names[:6], "…", *names[-5:]]
