"""What references stand for: a shape that a tool promises, or a value that is known already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.models.plan import Plan, Reference, parse_reference
from orchestrator.planner.problems import Problems, clip, join, listed
from orchestrator.planner.schemas import (
    UNKNOWN,
    NoSuchPath,
    Path,
    Shape,
    describe,
    fields,
    kinds,
    list_of,
    path_text,
    value_words,
    walk,
)
from orchestrator.planner.steps import Item
from orchestrator.publisher.graph import find_roots, is_aligned

MANY = 5  # values of one list that are told apart before the rest is taken as read
_TEXT_MOVE = 'Write `step:<id>.field[0]` or `input:<name>`; when plain text is meant, write `{"$literal": "..."}`.'


@dataclass(slots=True)
class Source:
    """What a reference stands for: a shape, and when they are known already the values with their places."""

    text: str
    about: str
    shape: Shape = UNKNOWN
    values: list[tuple[str, Any]] | None = None


def begins_as_reference(text: str) -> bool:
    """Whether a text is meant as a reference to a step or an input, well-formed or not."""
    return text.startswith(("step:", "input:"))


class Sources:
    """Looks references up; whatever leads nowhere is noted, once, at its place.

    `elements` holds by position of the step what an element of its map is, as soon as that is known.
    """

    def __init__(self, plan: Plan, items: Iterable[Item], *, inputs: Mapping[str, Any] | None, problems: Problems) -> None:
        self.problems, self.given = problems, inputs
        self.values = {**plan.inputs, **(inputs or {})}
        self.used_inputs: dict[str, None] = {}
        self.elements: dict[int, Source] = {}
        self.by_id: dict[str, Item] = {}
        for item in items:
            if not item.draft.unnamed:
                self._name(item)
        self.roots = find_roots({name: i.step for name, i in self.by_id.items()})

    def _name(self, item: Item) -> None:
        first = self.by_id.setdefault(item.step.id, item)
        if first is not item:
            message = f"The id `{item.step.id}` is taken by {first.place}."
            self.problems.add(f"{item.place}.id", "duplicate_id", message, "Give each step an id of its own.")

    def parse(self, text: str, *, place: str) -> Reference | None:
        """The reference that a text is; None when it is plain text, or a bad reference, which is noted."""
        try:
            return parse_reference(text)
        except ValueError:
            self.problems.add(place, "bad_reference", f"{clip(text)} begins as a reference and goes on as none.", _TEXT_MOVE)
            return None

    def resolve(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        """What a reference of a step stands for; None when it leads nowhere, which is noted."""
        if reference.kind == "item":
            return self._resolve_item(reference, item, place=place)
        if reference.kind == "input":
            return self._resolve_input(reference)
        if not self.names_step(reference.name, item, place=place):
            return None
        aligned = not reference.whole and is_aligned(reference.name, root=self.roots.get(item.step.id), roots=self.roots)
        return self.walk_to(self.result(reference.name, whole=not aligned), reference, place=place)

    def _resolve_item(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        if item.step.map is None and "map" not in item.draft.broken:
            move = 'Add `"map": "input:<list>"` to the step; when the word itself is meant, write `{"$literal": "item"}`.'
            self.problems.add(place, "item_outside_map", f"`{reference}` has no meaning here: the step has no `map`.", move)
        element = self.elements.get(item.draft.index)
        return self.walk_to(element, reference, place=place) if element else None

    def _resolve_input(self, reference: Reference) -> Source | None:
        name = reference.name
        self.used_inputs[name] = None
        about = f"input `{name}`"
        if name in self.values:
            source = Source(f"input:{name}", about, values=[(join("inputs", name), self.values[name])])
            return self.walk_to(source, reference, place=join("inputs", name))
        if self.given is not None:
            supplied = listed(self.values) if self.values else "none"
            move = self.problems.suggest(
                name, self.given, otherwise=f"Give it a value, or a default under the plan's `inputs`; given: {supplied}."
            )
            message = f"Input `{name}` is used by the plan and has no value."
            self.problems.add(join("inputs", name), "missing_input", message, move)
            return None
        return Source(str(reference), about)

    def names_step(self, name: str, item: Item | None, *, place: str) -> bool:
        """Whether there is such a step, other than `item` itself; the place is remembered as the reason why `item` waits."""
        if item is not None and name == item.step.id and not item.draft.unnamed:
            message = f"Step `{name}` refers to itself."
            self.problems.add(place, "self_reference", message, "Name a step before it.")
            return False
        if name in self.by_id:
            if item is not None:
                item.places.setdefault(name, place)
            return True
        otherwise = f"There are: {listed(self.by_id)}." if self.by_id else "Add the step."
        self.problems.add(
            place, "unknown_step", f"There is no step {clip(name)}.", self.problems.suggest(name, self.by_id, otherwise=otherwise)
        )
        return False

    def is_mapped(self, name: str) -> bool:
        """Whether a step runs once per element of a list."""
        return self.by_id[name].step.map is not None

    def result(self, name: str, *, whole: bool) -> Source:
        """The result of a step; of a map step as a `whole`, the list of all its results."""
        source = self.by_id[name]
        shape = source.made.output if source.made else UNKNOWN
        tool = f"`{source.step.tool}`" if source.made else f"step `{name}`"
        if source.step.map is not None and whole:
            return Source(f"step:{name}", f"the list of all results of map step `{name}`", list_of(shape))
        return Source(f"step:{name}", f"the whole result of {tool}", shape)

    def walk_to(self, source: Source, reference: Reference, *, place: str) -> Source | None:
        """What lies at the reference's path inside a source; None when nothing does, which is noted."""
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
        return Source(
            str(reference), f"`{path_text(reference.path).lstrip('.')}` of {source.about.replace('the whole ', 'the ')}", shape
        )

    def _pick_all(self, values: list[tuple[str, Any]], reference: Reference) -> Iterator[tuple[str, Any]]:
        missed = 0
        for at, value in values:
            found = self._pick(value, reference, place=at)
            if found:
                yield found
            missed += found is None
            if missed >= MANY:
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
                message = f"`{reference}` leads nowhere: there is no `{path_text((part,))}` in {value_words(value)}."
                self.problems.add(place, "no_such_field", message, move)
                return None
            value, place = value[part], join(place, part)
        return place, value

    def _note_no_path(self, error: NoSuchPath, source: Source, reference: Reference, *, place: str) -> None:
        here = f"`{source.text}{path_text(error.done)}`"
        if isinstance(error.part, int):
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)}, which has no elements."
            self.problems.add(place, "no_such_field", message, self._field_move(error.shape, source, error.done))
        elif "array" in kinds(error.shape) and not fields(error.shape):
            what = "a list" if error.done else source.about
            message = f"`{reference}` leads nowhere: {here} is {what}, and a list has no field `{error.part}`."
            move = (
                f"Name an element, such as `{source.text}{path_text((*error.done, 0, error.part))}`, or map this step over {here}."
            )
            self.problems.add(place, "no_such_field", message, move)
        else:
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)} and has no field `{error.part}`."
            move = self._field_move(error.shape, source, error.done)
            near = self.problems.nearest(error.part, fields(error.shape))
            near_text = f"{source.text}{path_text((*error.done, near))}" if near else ""
            self.problems.add(place, "no_such_field", message, f"Did you mean `{near_text}`?" if near else move)

    def _field_move(self, shape: Shape, source: Source, done: Path) -> str:
        known = list(fields(shape))
        if known:
            return f"Its fields are {listed(known)}."
        return f"Use the value as it is: `{source.text}{path_text(done)}`."
