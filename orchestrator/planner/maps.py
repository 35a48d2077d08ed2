"""What `map` runs over, and what `item` is then."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.models.plan import MAX_MAP, Reference
from orchestrator.planner.examples import may_give
from orchestrator.planner.fixes import replace as replace_by
from orchestrator.planner.problems import Problems, clip, join
from orchestrator.planner.schemas import Shape, describe, fitting_fields, item_of, kinds, path_text, value_words
from orchestrator.planner.sources import Source, Sources, begins_as_reference
from orchestrator.planner.steps import Item

_ANY_LIST = Shape({"type": "array"}, True)


def find_element(item: Item, sources: Sources) -> None:
    """Makes known to `sources` what an element of the step's map is; notes a map that runs over no list."""
    text, place = item.step.map, f"{item.place}.map"
    reference = sources.parse(text, place=place) if text is not None else None
    if reference is None:
        if text is not None and not begins_as_reference(text):
            move = f"Write `step:{text}`." if text in sources.by_id else "Write `input:<name>` or `step:<id>.field`."
            fix = replace_by(place, f"step:{text}") if text in sources.by_id else None
            sources.problems.add(place, "bad_map", f"`map` takes a reference to a list, {clip(text)} is none.", move, fix=fix)
    elif reference.kind == "item":
        move = "Name the list by `input:<name>` or `step:<id>`; maps do not nest."
        sources.problems.add(place, "bad_map", "`item` has no meaning in `map`: it is what `map` gives.", move)
    elif source := sources.resolve(reference, item, place=place):
        element = _element(source, reference, sources, place=place)
        if element:
            sources.elements[item.draft.index] = element


def _element(source: Source, reference: Reference, sources: Sources, *, place: str) -> Source | None:
    """One element of a list; of a map step that is followed, its result at the same index."""
    if source.values is not None:
        return _known_elements(source, reference, place=place, problems=sources.problems)
    if reference.kind == "step" and not reference.path and not reference.whole and sources.is_mapped(reference.name):
        return replace(source, text="item")
    if "array" in kinds(source.shape):
        return Source("item", f"an element of `{reference}`", item_of(source.shape))
    lists = fitting_fields(source.shape, _ANY_LIST)
    named = ", ".join(f"`{reference}{path_text(p)}`" for p in lists)
    move = f"Lists in it: {named}." if lists else "Run the step without `map`, or name a list."
    message = f"`map` takes a list, but `{reference}` is {source.about}, {describe(source.shape)}."
    example = f"{may_give(str(reference), source.shape)}, which has no items to run over"
    sources.problems.add(place, "map_not_list", message, move, example=example)
    return None


def _known_elements(source: Source, reference: Reference, *, place: str, problems: Problems) -> Source | None:
    at, value = (source.values or [("", None)])[0]
    if not isinstance(value, list | tuple):
        message = f"`{reference}` must be a list, for {place} runs over it, but it is {value_words(value)}."
        fix = None if value is None else replace_by(at, [value])
        move = "Give a list." if value is None else "Put the value into a list: `[...]`."
        problems.add(at, "map_not_list", message, move, fix=fix)
    elif len(value) > MAX_MAP:
        message = f"`{reference}` has {len(value)} elements; the limit is {MAX_MAP} (elements of a map)."
        example = f"item {MAX_MAP + 1} of {len(value)} is one too many"
        problems.add(at, "limit_exceeded", message, "Submit several jobs.", example=example)
    else:
        return Source("item", f"an element of `{reference}`", values=[(join(at, i), v) for i, v in enumerate(value)])
    return None
