"""What runs and is hardly meant: references inside text, effects said to be weaker, waits cut short, jobs of great size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.models.plan import MAX_MAP
from orchestrator.planner.fixes import remove, replace
from orchestrator.planner.problems import Problems, clip, join
from orchestrator.planner.read import strings
from orchestrator.planner.sources import Sources, begins_as_reference
from orchestrator.planner.steps import Item
from orchestrator.publisher.graph import Graph

_STRENGTH = {"none": 0, "idempotent": 1, "once": 2}
_REPEAT = {"none": "does nothing", "idempotent": "does the same again", "once": "does it a second time"}
MANY_CALLS = 10 * MAX_MAP  # of one job, and
MANY_READS = 100 * MAX_MAP  # results read by all calls of one step: beyond, the job takes hours
_HEAD = r"(?:(step|input):|steps\.)"
_INSIDE = re.compile(rf"(?<![\w:/.-]){_HEAD}([A-Za-z][\w-]*)((?:\.\w+|\[\d+\])*)")
_WRAPPED = re.compile(rf"^\s*(?:\$?\{{{{?\s*)({_HEAD}[A-Za-z][\w-]*(?:\.\w+|\[\d+\])*)\s*\}}}}?\s*$")
_LONGEST_TEXT = 100_000


def warn_of_texts(item: Item, sources: Sources, warnings: Problems) -> None:
    """References inside longer text, which stay text: of steps and inputs that there are, or with a path behind the name."""
    if item.made is not None and item.made.tool.type == "code_exec":
        return  # a program's text is its own
    for path, text in strings(item.step.input):
        if begins_as_reference(text) or len(text) > _LONGEST_TEXT:
            continue
        found = next((m for m in _INSIDE.finditer(text) if m[3] or _known(m, sources)), None)
        if found is None:
            continue
        place, whole = join(item.arguments_at, *path), _WRAPPED.match(text)
        message = f"`{found[0]}` stands inside a text, and stays text there."
        move = "A reference is a whole string; let a step put the text together, or write `{{...}}` in `final_synthesis`."
        better = whole[1].replace("steps.", "step:", 1) if whole else None
        sound = better is not None and _known(found, sources)
        if sound:
            move = f"Write `{better}` alone."
        example = f"the tool is given {clip(text, most=80)} as it stands"
        warnings.add(place, "reference_in_text", message, move, example=example, fix=replace(place, better) if sound else None)


def warn_of_settings(item: Item, warnings: Problems) -> None:
    """An effect weaker than the tool's own, and waits that never come."""
    tool, step = item.made.tool if item.made else None, item.step
    if tool and step.effect and _STRENGTH[step.effect] < _STRENGTH[tool.effect]:
        message = (
            f"`effect` is `{step.effect}`, but a repeat of `{tool.name}` {_REPEAT[tool.effect]}: the tool says `{tool.effect}`."
        )
        example = f"a worker dies in the middle of `{step.id}`: `{tool.name}` is called again"
        place = f"{item.place}.effect"
        warnings.add(
            place, "weaker_effect", message, "Leave `effect` out, unless you know better.", example=example, fix=remove(place)
        )
    if step.retry and step.retry.max and step.retry.backoff_s > step.retry.max_backoff_s:
        wait, longest = step.retry.backoff_s, step.retry.max_backoff_s
        message = f"`backoff_s` is {wait:g}, but no wait is longer than `max_backoff_s`, which is {longest:g}."
        example = f"the first retry comes after {longest:g} s at most, not after {wait:g} s"
        warnings.add(f"{item.place}.retry.backoff_s", "short_wait", message, "Make `max_backoff_s` larger.", example=example)


def warn_of_size(items: Mapping[str, Item], graph: Graph, sources: Sources, warnings: Problems) -> None:
    """Jobs of more calls than a day has room for, and steps that read whole lists once per item."""
    lengths = {name: sources.length(name) for name, i in items.items() if i.step.map is not None}
    calls = sum(n if n is not None else 1 for n in lengths.values()) + len(items) - len(lengths)
    if calls > MANY_CALLS:
        most = max(lengths, key=lambda name: lengths[name] or 0)
        example = f"`{most}` alone has {lengths[most]} calls"
        message = f"The job would have {calls} calls, more than {MANY_CALLS}."
        warnings.add("steps", "large_job", message, "Submit several jobs of fewer items.", example=example)
    for name, item in items.items():
        own = lengths.get(name) or 0
        for other in graph.nodes[name].barrier:
            reads = own * (lengths.get(other) or 0)
            if reads > MANY_READS:
                place = item.places.get(other, item.place)
                message = f"Each of {own} calls of `{name}` would read all {lengths[other]} results of `{other}`."
                move = f"Write `step:{other}` in a step that maps over the same list, or let one plain step sum the list up first."
                warnings.add(place, "large_job", message, move, example=f"{own} x {lengths[other]} = {reads} results to read")


def _known(found: re.Match[str], sources: Sources) -> bool:
    return found[2] in (sources.values if found[1] == "input" else sources.by_id)
