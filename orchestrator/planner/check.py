"""A plan is judged before anything runs: every problem at once, each with its place and the next move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema.exceptions import SchemaError

from orchestrator.models.plan import MAX_MAP, Plan, Reference, Step, parse_reference
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.arguments import Checked, Hole, check_arguments, explain, innermost, prepare
from orchestrator.planner.problems import Problems, clip, join, listed
from orchestrator.planner.read import Draft, Read, check_json, read_plan, strings
from orchestrator.planner.schemas import (
    KINDS,
    UNKNOWN,
    NoSuchPath,
    Path,
    Shape,
    describe,
    fields,
    fitting_fields,
    item_of,
    kind_of,
    kind_words,
    kinds,
    list_of,
    misfit,
    path_text,
    walk,
)
from orchestrator.planner.synthesis import placeholders
from orchestrator.publisher.graph import Graph, build_graph, find_cycles, find_roots, is_aligned

FUNCTION_CALL, CODE_EXEC = "function_call", "code_exec"
_MANY = 5  # values of a list that are named when they do not fit
_TEXT_MOVE = 'Write `step:<id>.field[0]` or `input:<name>`; when plain text is meant, write `{"$literal": "..."}`.'


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can run: normalised, with its graph, and the names of the inputs that have no default."""

    plan: Plan
    graph: Graph
    required_inputs: tuple[str, ...] = ()


@dataclass(slots=True)
class Source:
    """What a reference stands for: a shape, and when they are known already the values with their places."""

    text: str
    about: str
    shape: Shape = UNKNOWN
    values: list[tuple[str, Any]] | None = None


@dataclass(slots=True)
class Item:
    """A step under judgement: normalised, with its tool and with where a person wrote its arguments."""

    draft: Draft
    step: Step
    arguments_at: str
    made: Checked | None = None
    judged: bool = True  # the arguments can be judged: tool known, input well-formed
    element: Source | None = None
    places: dict[str, str] = field(default_factory=dict)  # step that is named -> where

    @property
    def place(self) -> str:
        return self.draft.place


def check_plan(data: Mapping[str, Any] | Plan, catalog: ToolCatalog, *, inputs: Mapping[str, Any] | None = None) -> CheckedPlan:
    """The plan, normalised, and its graph. Values of `inputs` are judged too when given; None leaves them open.

    Raises:
        PlanError: with all problems: `path`, `code`, `message` and `next` each.
    """
    problems = Problems()
    read = read_plan(data, problems)
    if inputs is not None:
        check_json(dict(inputs), place="inputs", problems=problems)
        problems.raise_any()
    check = _Check(read, catalog, inputs=inputs, problems=problems)
    check.run()
    problems.raise_any()
    plan = read.plan.model_copy(update={"steps": tuple(i.step for i in check.items)})
    return CheckedPlan(plan, build_graph(plan), tuple(check.required_inputs))


class _Check:
    """One judgement: the steps by id, what was found so far."""

    def __init__(self, read: Read, catalog: ToolCatalog, *, inputs: Mapping[str, Any] | None, problems: Problems) -> None:
        self.plan, self.problems = read.plan, problems
        self.tools = {t.name: t for t in catalog.tools}
        self.made: dict[str, Checked | None] = {}
        self.given = inputs
        self.values = {**read.plan.inputs, **(inputs or {})}
        self.used_inputs: dict[str, None] = {}
        self.items = [self._normalise(d) for d in read.drafts]
        self.by_id: dict[str, Item] = {}
        self.roots: dict[str, Reference | None] = {}

    @property
    def required_inputs(self) -> Iterator[str]:
        return (name for name in self.used_inputs if name not in self.plan.inputs)

    def run(self) -> None:
        self._name_steps()
        self.roots = find_roots({name: i.step for name, i in self.by_id.items()})
        for item in self.items:
            self._check_map(item)
        for item in self.items:
            self._check_references(item)
            self._check_when(item)
            self._check_depends_on(item)
        self._check_cycles()
        self._check_output()
        self._check_synthesis()
        self._check_inputs()

    # -- steps and their tools

    def _name_steps(self) -> None:
        for item in self.items:
            if item.draft.unnamed:
                continue
            first = self.by_id.setdefault(item.step.id, item)
            if first is not item:
                message = f"The id `{item.step.id}` is taken by {first.place}."
                self.problems.add(f"{item.place}.id", "duplicate_id", message, "Give each step an id of its own.")

    def _normalise(self, draft: Draft) -> Item:
        item = Item(draft, draft.step, f"{draft.place}.input", judged="input" not in draft.broken)
        tool_at, name = f"{draft.place}.tool", draft.step.tool
        if "tool" in draft.broken:
            item.judged = False
        elif name == FUNCTION_CALL and FUNCTION_CALL not in self.tools:
            self._unwrap_function(item)
        elif name == CODE_EXEC and CODE_EXEC not in self.tools:
            message = "No pool of this installation runs code yet."
            self.problems.add(tool_at, "no_code_pool", message, "Name a tool instead; `toolweaver tools` lists them.")
            item.judged = False
        else:
            item.made = self._tool(name, place=tool_at)
        item.judged = item.judged and item.made is not None
        return item

    def _unwrap_function(self, item: Item) -> None:
        """`function_call {name, args}` is a call of the function of that name."""
        call, place = item.step.input, item.arguments_at
        name, arguments = call.get("name"), call.get("args", {})
        for key in call.keys() - {"name", "args"}:
            move = self.problems.suggest(key, ("name", "args"), otherwise="Put the function's arguments into `args`.")
            self.problems.add(join(place, key), "unknown_argument", f"`function_call` takes no `{key}`.", move)
        if not isinstance(arguments, dict):
            self._wrong_args(arguments, place=join(place, "args"))
            arguments, item.judged = {}, False
        if name is None:
            message = "`function_call` needs `name`, which is missing."
            self.problems.add(join(place, "name"), "missing_argument", message, "Add `name`: the name of a function.")
        elif not isinstance(name, str) or not name:
            message = f"`name` is {kind_words(frozenset({kind_of(name)}))}, but must be the name of a function."
            self.problems.add(join(place, "name"), "wrong_type", message, "Write its name as text.")
        else:
            item.made = self._tool(name, place=join(place, "name"))
            item.step = item.step.model_copy(update={"tool": name, "input": arguments})
            item.arguments_at = join(place, "args")

    def _wrong_args(self, arguments: object, *, place: str) -> None:
        message = f"`args` is {kind_words(frozenset({kind_of(arguments)}))}, but must be an object."
        self.problems.add(place, "wrong_type", message, "Write the arguments by name; a reference stands for one of them.")

    def _tool(self, name: str, *, place: str) -> Checked | None:
        tool = self.tools.get(name)
        if tool is None:
            move = self.problems.suggest(name, self.tools, otherwise="`toolweaver tools` lists the tools there are.")
            self.problems.add(place, "unknown_tool", f"There is no tool {clip(name)}.", move)
            return None
        if "direct" not in tool.allowed_callers:
            message = f"Tool `{name}` may be called by {listed(tool.allowed_callers)} only, not by a step of a plan."
            self.problems.add(place, "caller_refused", message, "Name another tool, or add `direct` to its `allowed_callers`.")
        if name not in self.made:
            self.made[name] = self._prepare(tool)
        if self.made[name] is None:
            message = f"Tool `{name}` describes its arguments by a schema that cannot be read."
            self.problems.add(place, "bad_tool_schema", message, "Mend the tool's definition and announce it again.")
        return self.made[name]

    @staticmethod
    def _prepare(tool: ToolDefinition) -> Checked | None:
        try:
            return prepare(tool)
        except SchemaError:
            return None

    # -- references

    def _parse(self, text: str, *, place: str) -> Reference | None:
        """The reference that a text is; None when it is plain text, or a bad reference, which is noted."""
        try:
            return parse_reference(text)
        except ValueError:
            self.problems.add(place, "bad_reference", f"{clip(text)} begins as a reference and goes on as none.", _TEXT_MOVE)
            return None

    def _resolve(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        """What a reference of a step stands for; None when it leads nowhere, which is noted."""
        if reference.kind == "item":
            return self._resolve_item(reference, item, place=place)
        if reference.kind == "input":
            return self._resolve_input(reference)
        if not self._names_step(reference.name, item, place=place):
            return None
        aligned = not reference.whole and is_aligned(reference.name, root=self.roots.get(item.step.id), roots=self.roots)
        return self._walk(self._result(reference.name, whole=not aligned), reference, place=place)

    def _resolve_item(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        if item.step.map is None and "map" not in item.draft.broken:
            move = 'Add `"map": "input:<list>"` to the step; when the word itself is meant, write `{"$literal": "item"}`.'
            self.problems.add(place, "item_outside_map", f"`{reference}` has no meaning here: the step has no `map`.", move)
        return self._walk(item.element, reference, place=place) if item.element else None

    def _resolve_input(self, reference: Reference) -> Source | None:
        name = reference.name
        self.used_inputs[name] = None
        about = f"input `{name}`"
        if name in self.values:
            source = Source(f"input:{name}", about, values=[(join("inputs", name), self.values[name])])
            return self._walk(source, reference, place=join("inputs", name))
        if self.given is not None:
            supplied = listed(self.values) if self.values else "none"
            move = self.problems.suggest(
                name, self.given, otherwise=f"Give it a value, or a default under the plan's `inputs`; given: {supplied}."
            )
            message = f"Input `{name}` is used by the plan and has no value."
            self.problems.add(join("inputs", name), "missing_input", message, move)
            return None
        return Source(str(reference), about)

    def _names_step(self, name: str, item: Item | None, *, place: str) -> bool:
        if item is not None and name == item.step.id and not item.draft.unnamed:
            message = f"Step `{name}` refers to itself."
            self.problems.add(place, "self_reference", message, "Name a step before it.")
            return False
        if name in self.by_id:
            if item is not None:
                item.places.setdefault(name, place)
            return True
        otherwise = f"The steps are {listed(self.by_id)}." if self.by_id else "Add the step."
        self.problems.add(
            place, "unknown_step", f"There is no step {clip(name)}.", self.problems.suggest(name, self.by_id, otherwise=otherwise)
        )
        return False

    def _result(self, name: str, *, whole: bool) -> Source:
        """The result of a step; of a map step as a `whole`, the list of all its results."""
        source = self.by_id[name]
        shape = source.made.output if source.made else UNKNOWN
        tool = f"`{source.step.tool}`" if source.made else f"step `{name}`"
        if source.step.map is not None and whole:
            return Source(f"step:{name}", f"the list of all results of map step `{name}`", list_of(shape))
        return Source(f"step:{name}", f"the whole result of {tool}", shape)

    def _walk(self, source: Source, reference: Reference, *, place: str) -> Source | None:
        if not reference.path:
            return source
        if source.values is not None:
            found = list(self._pick_all(source.values, reference))
            return Source(str(reference), source.about, values=found) if found else None
        try:
            shape = walk(source.shape, reference.path)
        except NoSuchPath as error:
            self._note_no_path(error, source, reference, place=place)
            return None
        return Source(str(reference), f"`{path_text(reference.path)}` of {source.about}", shape)

    def _pick_all(self, values: list[tuple[str, Any]], reference: Reference) -> Iterator[tuple[str, Any]]:
        missed = 0
        for at, value in values:
            found = self._pick(value, reference, place=at)
            if found:
                yield found
            missed += found is None
            if missed >= _MANY:
                return

    def _pick(self, value: Any, reference: Reference, *, place: str) -> tuple[str, Any] | None:
        """The value at the reference's path with its place; None when there is none, which is noted."""
        for part in reference.path:
            fits = isinstance(value, dict) if isinstance(part, str) else isinstance(value, list | tuple)
            if not fits or (part not in value if isinstance(part, str) else part >= len(value)):
                known = (
                    f"There are {listed(value)}."
                    if fits and isinstance(part, str) and value
                    else "Mend the value or the reference."
                )
                move = self.problems.suggest(part, value, otherwise=known) if fits and isinstance(part, str) else known
                message = f"`{reference}` leads nowhere: there is no {path_text((part,))} in {_shown(value)}."
                self.problems.add(place, "unknown_field", message, move)
                return None
            value, place = value[part], join(place, part)
        return place, value

    def _note_no_path(self, error: NoSuchPath, source: Source, reference: Reference, *, place: str) -> None:
        here = f"`{source.text}{path_text(error.done)}`"
        if isinstance(error.part, int):
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)}, which has no elements."
            self.problems.add(place, "unknown_field", message, self._field_move(error.shape, source, error.done))
        elif "array" in kinds(error.shape) and not fields(error.shape):
            what = "a list" if error.done else source.about
            message = f"`{reference}` leads nowhere: {here} is {what}, and a list has no field `{error.part}`."
            move = (
                f"Name an element, such as `{source.text}{path_text((*error.done, 0, error.part))}`, or map this step over {here}."
            )
            self.problems.add(place, "unknown_field", message, move)
        else:
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)} and has no field `{error.part}`."
            move = self._field_move(error.shape, source, error.done)
            near = self.problems.nearest(error.part, fields(error.shape))
            near_text = f"{source.text}{path_text((*error.done, near))}" if near else ""
            self.problems.add(place, "unknown_field", message, f"Did you mean `{near_text}`?" if near else move)

    def _field_move(self, shape: Shape, source: Source, done: Path) -> str:
        known = list(fields(shape))
        if known:
            return f"Its fields are {listed(known)}."
        return f"Use the value as it is: `{source.text}{path_text(done)}`."

    # -- what a step says

    def _check_map(self, item: Item) -> None:
        text, place = item.step.map, f"{item.place}.map"
        if text is None:
            return
        reference = self._parse(text, place=place)
        if reference is None:
            if not text.startswith(("step:", "input:")):
                move = self.problems.suggest(text, self.by_id, otherwise="Write `input:<name>` or `step:<id>.field`.")
                move = f"{move[:-1].replace('Did you mean `', 'Did you mean `step:')}?" if move.startswith("Did") else move
                self.problems.add(place, "bad_map", f"`map` takes a reference to a list, {clip(text)} is none.", move)
            return
        if reference.kind == "item":
            move = "Name the list by `input:<name>` or `step:<id>`; maps do not nest."
            self.problems.add(place, "bad_map", "`item` has no meaning in `map`: it is what `map` gives.", move)
            return
        source = self._resolve(reference, item, place=place)
        item.element = self._element(source, reference, place=place) if source else None

    def _element(self, source: Source, reference: Reference, *, place: str) -> Source | None:
        """One element of what is mapped over; of an aligned step, its result at the same index."""
        about = f"an element of `{reference}`"
        if source.values is not None:
            return self._known_elements(source, reference, place=place)
        follows = (
            reference.kind == "step"
            and not reference.path
            and not reference.whole
            and self.by_id[reference.name].step.map is not None
        )
        if follows:
            return Source("item", f"the result of `{self.by_id[reference.name].step.tool}`", source.shape)
        if "array" not in kinds(source.shape):
            lists = [f"`{source.text}{path_text(p)}`" for p in fitting_fields(source.shape, Shape({"type": "array"}, True))]
            move = f"Lists in it: {', '.join(lists)}." if lists else "Run the step without `map`, or name a list."
            message = f"`map` takes a list, but `{reference}` is {source.about}, {describe(source.shape)}."
            self.problems.add(place, "map_not_list", message, move)
            return None
        return Source("item", about, item_of(source.shape))

    def _known_elements(self, source: Source, reference: Reference, *, place: str) -> Source | None:
        at, value = (source.values or [("", None)])[0]
        if not isinstance(value, list | tuple):
            message = f"{place} runs over `{reference}`, which must be a list, but is {kind_words(frozenset({kind_of(value)}))}."
            self.problems.add(
                at, "map_not_list", message, "Give a list." if value is None else "Put the value into a list: `[...]`."
            )
            return None
        if len(value) > MAX_MAP:
            message = f"`{reference}` has {len(value)} elements; the limit is {MAX_MAP} (elements of a map)."
            self.problems.add(at, "limit_exceeded", message, "Submit several jobs.")
            return None
        return Source("item", f"an element of `{reference}`", values=[(join(at, i), v) for i, v in enumerate(value)])

    def _check_references(self, item: Item) -> None:
        found: dict[Path, Reference] = {}
        sources: dict[Path, Source | None] = {}
        for path, text in strings(item.step.input):
            place = join(item.arguments_at, *path)
            reference = self._parse(text, place=place)
            if reference is not None:
                found[path], sources[path] = reference, self._resolve(reference, item, place=place)
            elif text.startswith(("step:", "input:")):
                sources[path] = None
        arguments = self._with_holes(item.step.input, sources, (), item)
        if not item.judged or item.made is None:
            return
        check_arguments(item.made, arguments, place=item.arguments_at, problems=self.problems, complete=not item.draft.broken)
        for path, reference in found.items():
            source = sources[path]
            if source is not None:
                self._check_fit(source, reference, path=path, item=item, made=item.made)

    def _with_holes(self, value: Any, holes: Mapping[Path, Any], path: Path, item: Item) -> Any:
        """The arguments as a value: references are holes, `$literal` is opened."""
        if path in holes:
            return Hole()
        if isinstance(value, dict):
            if set(value) == {"$literal"}:
                return value["$literal"]
            if "$literal" in value:
                message = "`$literal` stands alone in its object; here it has neighbours."
                self.problems.add(
                    join(item.arguments_at, *path), "bad_literal", message, 'Write `{"$literal": value}` and nothing beside it.'
                )
            return {k: self._with_holes(v, holes, (*path, k), item) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._with_holes(v, holes, (*path, i), item) for i, v in enumerate(value)]
        return value

    def _check_fit(self, source: Source, reference: Reference, *, path: Path, item: Item, made: Checked) -> None:
        try:
            target = made.target(path)
        except NoSuchPath:
            return  # told as an unknown argument
        place = join(item.arguments_at, *path)
        argument = f"`{join('', *path)}` of `{item.step.tool}`"
        if source.values is not None:
            self._check_values(source.values, target, argument=argument, place=place, reference=reference, made=made)
            return
        wrong = misfit(source.shape, target)
        if wrong is None:
            return
        what = f"`{reference}` is {source.about}, {describe(source.shape)}"
        why = (
            f"; {argument} takes {describe(target)}"
            if not wrong.path
            else f", which does not fit {argument}: at `{path_text(wrong.path)}`, {wrong.why}"
        )
        self.problems.add(place, "wrong_type", f"{what}{why}.", self._fit_move(source, target, reference, item))

    def _fit_move(self, source: Source, target: Shape, reference: Reference, item: Item) -> str:
        element = item_of(source.shape) if kinds(source.shape) == {"array"} else None
        if element and kinds(element) != KINDS and misfit(element, target) is None:
            mapped = reference.kind == "step" and item.step.map is None
            run = f' or run this step once per element: `"map": "{reference}"`, and `item` here' if mapped else ""
            return f"Name one element, such as `{reference}[0]`{run}."
        near = [f"`{reference}{path_text(p)}`" for p in fitting_fields(source.shape, target)]
        if near:
            return f"Name a field of it that fits: {', '.join(near[:-1]) + ' or ' if near[1:] else ''}{near[-1]}."
        return f"Nothing in it is {describe(target)}; put a step between that makes one, or refer to another step."

    def _check_values(
        self, values: list[tuple[str, Any]], target: Shape, *, argument: str, place: str, reference: Reference, made: Checked
    ) -> None:
        told = 0
        for at, value in values:
            for error in made.misfits(value, target):
                found = innermost(error, target.root)
                where = join(at, *(found or error).absolute_path)
                why = explain(found) if found else f"is {_shown(value)}, but must be {describe(target)}"
                message = f"`{where}` {why}: it becomes {argument} ({place})."
                self.problems.add(where, "bad_input", message, f"Give another value, or change `{reference}` in the plan.")
                told += 1
            if told >= _MANY:
                return

    def _check_when(self, item: Item) -> None:
        when, place = item.step.when, f"{item.place}.when"
        if when is None:
            return
        reference = self._parse(when.ref, place=f"{place}.ref")
        if reference is None:
            if not when.ref.startswith(("step:", "input:")):
                message = f"`ref` takes a reference, {clip(when.ref)} is none."
                self.problems.add(
                    f"{place}.ref", "bad_reference", message, "Write `step:<id>.field`, `input:<name>` or `item.field`."
                )
            return
        source = self._resolve(reference, item, place=f"{place}.ref")
        if when.op in ("in", "not_in") and not isinstance(when.value, list | tuple | str):
            message = f"`{when.op}` looks in a list, but `value` is {_shown(when.value)}."
            self.problems.add(f"{place}.value", "bad_value", message, 'Give a list, such as `["EUR", "USD"]`.')
        if when.op in ("lt", "le", "gt", "ge"):
            self._check_order(when.value, source, reference, op=when.op, place=place)

    def _check_order(self, value: Any, source: Source | None, reference: Reference, *, op: str, place: str) -> None:
        kind = kind_of(value)
        if kind not in ("integer", "number", "string"):
            message = f"`{op}` compares numbers or text, but `value` is {_shown(value)}."
            self.problems.add(f"{place}.value", "bad_value", message, "Give a number or text.")
            return
        comparable = frozenset({"string"} if kind == "string" else {"number", "integer"})
        if source and source.values is None and not kinds(source.shape) & comparable:
            message = f"`{op}` cannot compare `{reference}`, {describe(source.shape)}, with {_shown(value)}."
            self.problems.add(f"{place}.ref", "wrong_type", message, "Compare values of one type.")

    def _check_depends_on(self, item: Item) -> None:
        for at, name in enumerate(item.step.depends_on):
            self._names_step(name, item, place=f"{item.place}.depends_on[{at}]")

    # -- the plan as a whole

    def _check_cycles(self) -> None:
        for cycle in find_cycles({name: i.places for name, i in self.by_id.items()}):
            places = [self.by_id[a].places[b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
            circle = " -> ".join(f"`{n}`" for n in _shortened([*cycle, cycle[0]]))
            move = f"Take one of these references away: {listed(places, most=5, last='or')}."
            self.problems.add(places[0], "cycle", f"Steps wait for each other in a circle: {circle}.", move)

    def _check_output(self) -> None:
        text = self.plan.output
        if text is None:
            return
        reference = self._parse(text, place="output")
        if reference is not None and reference.kind == "step":
            self._check_answer(reference, place="output")
        elif reference is not None or not text.startswith(("step:", "input:")):
            move = f"Write `step:{text}`." if text in self.by_id else "Write `step:<id>` or `step:<id>.field`."
            self.problems.add(
                "output", "bad_reference", f"`output` takes a reference to a step's result, {clip(text)} is none.", move
            )

    def _check_synthesis(self) -> None:
        template = self.plan.final_synthesis.prompt_template if self.plan.final_synthesis else ""
        place = "final_synthesis.prompt_template"
        for inside, reference in placeholders(template):
            if inside == "steps":
                continue
            if reference is None:
                message = f"`{{{{{inside}}}}}` is no placeholder."
                self.problems.add(place, "bad_placeholder", message, "Write `{{steps}}` or `{{steps.<id>.field}}`.")
            else:
                self._check_answer(reference, place=place)

    def _check_answer(self, reference: Reference, *, place: str) -> None:
        if self._names_step(reference.name, None, place=place):
            self._walk(self._result(reference.name, whole=True), reference, place=place)

    def _check_inputs(self) -> None:
        for name in self.given or ():
            if name in self.used_inputs or name in self.plan.inputs:
                continue
            known = list(dict.fromkeys([*self.used_inputs, *self.plan.inputs]))
            otherwise = f"It uses {listed(known)}." if known else "It takes none; leave it out."
            move = self.problems.suggest(name, known, otherwise=otherwise)
            self.problems.add(join("inputs", name), "unknown_input", f"The plan uses no input `{name}`.", move)


def _shown(value: Any) -> str:
    """A value for a sentence: small ones as they are, others by their type."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return f"{kind_words(frozenset({kind_of(value)}))} ({clip(value, most=40)})"
    return kind_words(frozenset({kind_of(value)}))


def _shortened(names: list[str]) -> Iterable[str]:
    return names if len(names) <= 12 else [*names[:6], "…", *names[-5:]]
