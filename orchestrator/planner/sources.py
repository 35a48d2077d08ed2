"""What references stand for: a shape that a tool promises, or a value that is known already."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.models.plan import Plan, Reference, parse_reference
from orchestrator.planner.examples import may_give
from orchestrator.planner.fixes import remove
from orchestrator.planner.fixes import replace as replace_by
from orchestrator.planner.problems import MAX_NAME, Fix, Problems, around, at_path, clip, join, listed, shown
from orchestrator.planner.schemas import (
    UNKNOWN,
    NoSuchPath,
    Path,
    Shape,
    describe,
    fields,
    kinds,
    list_of,
    longest,
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
        except ValueError as error:
            message = f"{clip(text)} begins as a reference and goes on as none."
            better = self._cleaned(text)
            fix = replace_by(place, better) if better else None
            move = f"Write `{better}`." if better else _TEXT_MOVE
            self.problems.add(
                place,
                "bad_reference",
                message,
                move,
                example=str(error).partition("is not a reference: ")[2][:200] or None,
                fix=fix,
            )
            return None

    def _cleaned(self, text: str) -> str | None:
        """The reference to a step or an input that must have been meant: without blanks, with `.field` for `[field]`."""
        better = re.sub(r"\[['\"]?([A-Za-z_][\w-]*)['\"]?\]", r".\1", re.sub(r"\s+", "", text) if len(text) <= MAX_NAME else "")
        better = re.sub(r"\.{2,}", ".", better).rstrip(".[")
        try:
            reference = parse_reference(better)
        except ValueError:
            return None
        known = self.by_id if reference is not None and reference.kind == "step" else self.values
        return better if reference is not None and reference.name in known else None

    def resolve(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        """What a reference of a step stands for; None when it leads nowhere, which is noted."""
        if reference.kind == "item":
            return self._resolve_item(reference, item, place=place)
        if reference.kind == "input":
            return self._resolve_input(reference, place=place)
        if not self.names_step(reference.name, item, place=place, text=str(reference)):
            return None
        return self.walk_to(self.base(reference, item), reference, place=place)

    def head(self, reference: Reference, item: Item) -> Source | None:
        """Where a reference begins: an element of the map, an input, or a step's result; of one that was resolved before."""
        if reference.kind == "item":
            return self.elements.get(item.draft.index)
        if reference.kind == "input":
            known = self.values.get(reference.name)
            return Source(f"input:{reference.name}", "", values=None if reference.name not in self.values else [("", known)])
        return self.base(reference, item)

    def base(self, reference: Reference, item: Item) -> Source:
        """What the head of a reference to a step is: its result, the one at the same index, or the list of all."""
        aligned = not reference.whole and is_aligned(reference.name, root=self.roots.get(item.step.id), roots=self.roots)
        return self.result(reference.name, whole=not aligned)

    def _resolve_item(self, reference: Reference, item: Item, *, place: str) -> Source | None:
        if item.step.map is None and "map" not in item.draft.broken:
            move = 'Add `"map": "input:<list>"` to the step; when the word itself is meant, write `{"$literal": "item"}`.'
            self.problems.add(place, "item_outside_map", f"`{reference}` has no meaning here: the step has no `map`.", move)
        element = self.elements.get(item.draft.index)
        return self.walk_to(element, reference, place=place) if element else None

    def _resolve_input(self, reference: Reference, *, place: str) -> Source | None:
        name = reference.name
        self.used_inputs[name] = None
        about = f"input `{name}`"
        if name in self.values:
            source = Source(f"input:{name}", about, values=[(join("inputs", name), self.values[name])])
            return self.walk_to(source, reference, place=join("inputs", name))
        if self.given is not None:
            supplied = listed(self.values) if self.values else "none"
            otherwise = f"Give it a value, or a default under the plan's `inputs`; given: {supplied}."
            move = self.problems.suggest(name, self.values, otherwise=otherwise)
            message = f"Input `{name}` is used by the plan and has no value ({place})."
            better = self.problems.meant(name, self.values)
            fix = replace_by(place, str(dataclasses.replace(reference, name=better))) if better else None
            example = f"the inputs are {shown(self.values)}: `input:{name}` stands for nothing"
            self.problems.add(join("inputs", name), "missing_input", message, move, example=example, fix=fix)
            return None
        return Source(str(reference), about)

    def names_step(self, name: str, item: Item | None, *, place: str, text: str | None = None) -> bool:
        """Whether there is such a step, other than `item` itself; the place is remembered as the reason why `item` waits.

        `text` is all that stands at the place, if it may be written anew.
        """
        if item is not None and name == item.step.id and not item.draft.unnamed:
            message = f"Step `{name}` refers to itself."
            fix = remove(place) if ".depends_on[" in place else None
            example = f"`{name}` -> `{name}`: it waits for its own end"
            self.problems.add(place, "self_reference", message, "Name a step before it.", example=example, fix=fix)
            return False
        if name in self.by_id:
            if item is not None:
                item.places.setdefault(name, place)
            return True
        others = [n for n in self.by_id if item is None or n != item.step.id] if self.problems.open else []
        otherwise = f"There are: {listed(others)}." if others else "Add the step, or leave the reference out."
        move = self.problems.suggest(name, others, otherwise=otherwise)
        self.problems.add(place, "unknown_step", f"There is no step {clip(name)}.", move, fix=self._step_fix(name, place, text))
        return False

    def _step_fix(self, name: str, place: str, text: str | None) -> Fix | None:
        """The name that must have been meant, in the reference `text`, or as the whole of what stands at the place."""
        known = self.problems.meant(name, self.by_id) if text is not None else None
        head = "step:" if text is not None and text.startswith("step:") else ""
        return None if known is None or text is None else replace_by(place, f"{head}{known}{text[len(head) + len(name) :]}")

    def is_mapped(self, name: str) -> bool:
        """Whether a step runs once per element of a list."""
        return self.by_id[name].step.map is not None

    def result(self, name: str, *, whole: bool) -> Source:
        """The result of a step; of a map step as a `whole`, the list of all its results."""
        source = self.by_id[name]
        shape = source.made.output if source.made else UNKNOWN
        tool = f"`{source.step.tool}`" if source.made else f"step `{name}`"
        if source.step.map is not None and whole:
            return Source(f"step:{name}", f"the list of all results of map step `{name}`", list_of(shape, self.length(name)))
        return Source(f"step:{name}", f"the whole result of {tool}", shape)

    def length(self, name: str) -> int | None:
        """How many items a map step runs over, when its list is known already: the inputs at hand, or the plan's defaults."""
        root = self.roots.get(name)
        seen = {name}
        while root is not None and root.kind == "step" and root.whole and not root.path and root.name not in seen:
            seen.add(root.name)
            root = self.roots.get(root.name)
        if root is None or root.kind != "input" or root.name not in self.values:
            return None
        found = at_path(self.values[root.name], root.path)
        return len(found) if isinstance(found, list | tuple) else None

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
                beyond = fits and isinstance(part, int)
                if beyond:
                    message = f"`{reference}` leads nowhere: `{place}` has {len(value)} element{'s' if len(value) != 1 else ''}."
                    move = (
                        f"Name an index below {len(value)}, or give a longer list." if value else "Give a list that is not empty."
                    )
                self.problems.add(
                    place, "out_of_range" if beyond else "no_such_field", message, move, example=f"`{place}` is {around(value)}"
                )
                return None
            value, place = value[part], join(place, part)
        return place, value

    def _note_no_path(self, error: NoSuchPath, source: Source, reference: Reference, *, place: str) -> None:
        here = f"`{source.text}{path_text(error.done)}`"
        example = may_give(f"{source.text}{path_text(error.done)}", error.shape)
        if isinstance(error.part, int) and "array" in kinds(error.shape):
            self._note_out_of_range(error, source, reference, place=place)
        elif isinstance(error.part, int):
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)}, which has no elements."
            move = self._field_move(error.shape, source, error.done)
            self.problems.add(place, "no_such_field", message, move, example=example)
        elif "array" in kinds(error.shape) and not fields(error.shape):
            what = "a list" if error.done else source.about
            message = f"`{reference}` leads nowhere: {here} is {what}, and a list has no field `{error.part}`."
            move = (
                f"Name an element, such as `{source.text}{path_text((*error.done, 0, error.part))}`, or map this step over {here}."
            )
            self.problems.add(place, "no_such_field", message, move, example=example)
        else:
            message = f"`{reference}` leads nowhere: {here} is {describe(error.shape)} and has no field `{error.part}`."
            move = self._field_move(error.shape, source, error.done)
            near = self.problems.nearest(error.part, fields(error.shape))
            near_text = f"{source.text}{path_text((*error.done, near))}" if near else ""
            move = f"Did you mean `{near_text}`?" if near else move
            fix = self._field_fix(error, reference, place=place)
            self.problems.add(place, "no_such_field", message, move, example=example, fix=fix)

    def _note_out_of_range(self, error: NoSuchPath, source: Source, reference: Reference, *, place: str) -> None:
        here, most = f"{source.text}{path_text(error.done)}", longest(error.shape)
        count = "no elements" if not most else f"{most} element{'s' if most != 1 else ''} at most"
        message = f"`{reference}` leads nowhere: `{here}` has {count}."
        move = f"The last one is `{here}[{most - 1}]`." if most else "Name another list."
        example = f"index {error.part} of {'an empty list' if not most else f'a list whose last index is {most - 1}'}"
        self.problems.add(place, "out_of_range", message, move, example=example)

    def _field_fix(self, error: NoSuchPath, reference: Reference, *, place: str) -> Fix | None:
        """The same reference with the field that must have been meant; in a template it is one word of many."""
        name = self.problems.meant(str(error.part), fields(error.shape))
        if name is None or not (place == "output" or place.startswith("steps[")):
            return None
        at = len(error.done)
        path = (*reference.path[:at], name, *reference.path[at + 1 :])
        return replace_by(place, str(dataclasses.replace(reference, path=path)))

    def _field_move(self, shape: Shape, source: Source, done: Path) -> str:
        known = list(fields(shape))
        if known:
            return f"Its fields are {listed(known)}."
        return f"Use the value as it is: `{source.text}{path_text(done)}`."
