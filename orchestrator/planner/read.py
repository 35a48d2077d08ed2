"""From what a person handed in to steps that can be judged: the form of a plan, field by field.

Whatever is malformed is noted and left out, so that the rest is judged in the same breath.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.models.plan import MAX_ID, MAX_PLAN_BYTES, MAX_STEPS, FinalSynthesis, Plan, Retry, Step, When
from orchestrator.planner.fixes import rename, replace
from orchestrator.planner.problems import Fix, Problems, at_path, clip, join, listed, parts
from orchestrator.planner.schemas import kind_of, kind_words

MAX_DEPTH = 64
_PLACEHOLDER = {"id": "unnamed", "tool": "unnamed"}
_MODELS: dict[str, tuple[type[BaseModel], str]] = {
    "": (Plan, "a plan"),
    "retry": (Retry, "`retry`"),
    "when": (When, "`when`"),
    "final_synthesis": (FinalSynthesis, "`final_synthesis`"),
}
_ADVICE = {
    "id": "a name of your own, such as `ocr`",
    "tool": "the name of a tool; `toolweaver tools list` shows them",
    "steps": 'a list such as `[{"id": "ocr", "tool": "receipt_ocr", "input": {"image_uri": "input:image"}}]`',
    "ref": "the reference whose value decides, such as `step:ocr.confidence`",
    "prompt_template": "text in which `{{steps}}` stands for the results",
}
_SUCH = {
    "string_type": 'text, such as `"total"`',
    "dict_type": "an object, such as `{}`",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "tuple_type": "a list, such as `[]`",
    "int_type": "a whole number, such as `3`",
    "int_parsing": "a whole number, such as `3`",
    "int_from_float": "a whole number, such as `3`",
    "float_type": "a number, such as `0.5`",
    "float_parsing": "a number, such as `0.5`",
    "finite_number": "a number, such as `0.5`",
    "string_too_long": "a shorter text",
    "string_too_short": "a text",
}
_SIGNS = {"==": "eq", "=": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "not in": "not_in"}
_WANTED = {
    "string_type": "text",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_long": "at most {max_length} characters long",
    "string_too_short": "at least {min_length} character long",
    "literal_error": "{expected}",
}


@dataclass(slots=True)
class Draft:
    """One step as read: `broken` names the fields that were left out, `unnamed` says that its id is unusable."""

    index: int
    step: Step
    broken: frozenset[str] = frozenset()
    unnamed: bool = False

    @property
    def place(self) -> str:
        """Where the step stands in the plan."""
        return f"steps[{self.index}]"


@dataclass(slots=True)
class Read:
    """The plan without its steps, and the steps."""

    plan: Plan
    drafts: list[Draft] = field(default_factory=list)


def read_plan(data: object, problems: Problems) -> Read:
    """The plan as far as it can be read.

    Raises:
        PlanError: it is no plan at all, or larger than a limit; nothing further can be judged.
    """
    if isinstance(data, Plan):
        data = data.model_dump(mode="json", exclude_unset=True)
    if not isinstance(data, Mapping):
        given = kind_words(frozenset({kind_of(data)}))
        problems.add("$", "not_an_object", f"A plan is a JSON object, this is {given}.", 'Write `{"steps": [...]}`.')
        problems.raise_any()
        raise AssertionError("unreachable: a problem was noted")
    check_json(data, place="", problems=problems)
    problems.raise_any()
    _check_size(data, problems)
    problems.raise_any()
    plan = _read_top(data, problems)
    steps = data.get("steps")
    drafts = [d for i, raw in enumerate(_sequence(steps)) if (d := _read_step(raw, i, problems))]
    return Read(plan, drafts)


def check_json(value: object, *, place: str, problems: Problems) -> None:
    """Notes what JSON cannot hold (dates, sets, NaN, keys that are no text) and values nested too deeply."""
    stack: list[tuple[object, str, int]] = [(value, place, 1)]
    while stack:
        inner, here, depth = stack.pop()
        if depth > MAX_DEPTH:
            message, example = f"This is nested deeper than {MAX_DEPTH} levels.", f"level {depth} begins here"
            problems.add(here, "too_deep", message, "Flatten it, or pass it by reference.", example=example)
        elif isinstance(inner, Mapping):
            stack.extend((v, _key_place(here, k, problems), depth + 1) for k, v in inner.items())
        elif isinstance(inner, list | tuple):
            stack.extend((v, join(here, i), depth + 1) for i, v in enumerate(inner))
        elif not _is_json_leaf(inner):
            what = (
                f"JSON has no number `{inner}`"
                if isinstance(inner, float)
                else f"A Python `{type(inner).__name__}` is no JSON value"
            )
            problems.add(here or "$", "not_json", f"{what}.", "Write it as text, a number, true, false or null.")


def _key_place(place: str, key: object, problems: Problems) -> str:
    if not isinstance(key, str):
        problems.add(place or "$", "not_json", f"The key {clip(key)} is no text.", "JSON keys are text; quote it.")
    return join(place, str(key))


def _is_json_leaf(value: object) -> bool:
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _check_size(data: Mapping[str, Any], problems: Problems) -> None:
    steps = data.get("steps")
    if isinstance(steps, list | tuple) and len(steps) > MAX_STEPS:
        message = f"The plan has {len(steps)} steps; the limit is {MAX_STEPS} (steps of a plan)."
        example = f"`steps[{MAX_STEPS}]` is one too many"
        problems.add(
            "steps", "limit_exceeded", message, "Use `map` for work that repeats, or submit several plans.", example=example
        )
    size = len(json.dumps(data, ensure_ascii=False, default=dict).encode(errors="replace"))
    if size > MAX_PLAN_BYTES:
        message = f"The plan has {size} bytes; the limit is {MAX_PLAN_BYTES} (bytes of a plan)."
        problems.add(
            "$", "limit_exceeded", message, "Pass large data by reference, such as a file or a URL.", example=_largest(data)
        )


def _largest(data: Mapping[str, Any]) -> str:
    """The text that takes the most room, and how much."""
    places = ((join("", *path), len(text.encode(errors="replace"))) for path, text in strings(data))
    place, size = max(places, key=lambda p: p[1], default=("$", 0))
    return f"`{place}` alone has {size} bytes"


def _sequence(steps: object) -> Sequence[Any]:
    return steps if isinstance(steps, list | tuple) else ()


def _read_top(data: Mapping[str, Any], problems: Problems) -> Plan:
    """The plan's own fields; each step is read apart, so one stands in for all."""
    raw = dict(data)
    if _sequence(raw.get("steps")):
        raw["steps"] = [_PLACEHOLDER]
    errors = _errors(Plan, raw)
    for error in errors:
        _note(error, model=(Plan, "a plan"), place="", problems=problems)
    broken = {str(e["loc"][0]) for e in errors}
    return Plan.model_validate({k: v for k, v in raw.items() if k not in broken} | {"steps": [_PLACEHOLDER]})


def _read_step(raw: object, index: int, problems: Problems) -> Draft | None:
    place = f"steps[{index}]"
    if not isinstance(raw, Mapping):
        given = kind_words(frozenset({kind_of(raw)}))
        problems.add(
            place, "wrong_type", f"A step is an object, this is {given}.", 'Write `{"id": ..., "tool": ..., "input": {...}}`.'
        )
        return None
    try:
        return Draft(index, Step.model_validate(raw))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for found in errors:
        _note(found, model=(Step, "a step"), place=place, problems=problems)
    broken = frozenset(str(e["loc"][0]) for e in errors)
    rest = _PLACEHOLDER | {k: v for k, v in raw.items() if k not in broken}
    return Draft(index, Step.model_validate(rest), broken, unnamed="id" in broken)


def _errors(model: type[BaseModel], raw: object) -> list[ErrorDetails]:
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _note(error: ErrorDetails, *, model: tuple[type[BaseModel], str], place: str, problems: Problems) -> None:
    loc = error["loc"]
    where, name = join(place, *loc), str(loc[-1])
    owner, owner_name = _MODELS.get(str(loc[-2]), model) if len(loc) > 1 else model
    given = kind_words(frozenset({kind_of(error["input"])}))
    if error["type"] == "missing":
        message = f"`{name}` is missing in {owner_name.replace('a ', 'the ')}."
        problems.add(where, "missing_field", message, f"Add `{name}`: {_ADVICE.get(name, 'a value')}.")
    elif error["type"] == "extra_forbidden":
        known = list(owner.model_fields)
        message = f"`{name}` is no field of {owner_name}."
        beside = at_path(problems.plan, parts(where)[:-1])
        better = problems.meant(name, [n for n in known if not isinstance(beside, Mapping) or n not in beside])
        fix = rename(where, better) if better else None
        move = problems.suggest(name, known, otherwise=f"Its fields are {listed(known, most=12)}.")
        problems.add(where, "unknown_field", message, move, fix=fix)
    elif error["type"] == "string_pattern_mismatch" or (
        error["type"] == "string_too_long" and error["ctx"]["max_length"] == MAX_ID
    ):
        _note_bad_id(where, str(error["input"]), problems)
    elif error["type"] == "too_short":
        problems.add(where, "missing_field", "The plan has no steps.", f"Add `{name}`: {_ADVICE['steps']}.")
    else:
        _note_value(error, where=where, name=name, given=given, problems=problems)


def _note_bad_id(where: str, text: str, problems: Problems) -> None:
    named = text.removeprefix("step:")
    if where.endswith("]") and named != text:
        message = f"{clip(text)} is a reference; `depends_on` takes ids."
        problems.add(where, "bad_id", message, f"Write {clip(named)}.", fix=replace(where, named))
        return
    move = "An id begins with a letter and goes on with at most 63 letters, digits, `_` or `-`."
    problems.add(where, "bad_id", f"{clip(text)} is no id.", move)


def _note_value(error: ErrorDetails, *, where: str, name: str, given: str, problems: Problems) -> None:
    kind, value = error["type"], error["input"]
    if kind not in _WANTED:
        problems.add(where, "bad_value", f"`{name}`: {error['msg']}.", "Change the value.")
        return
    wanted = _WANTED[kind].format(**error.get("ctx", {})).replace("'", "`")
    typed = kind.endswith(("_type", "_parsing", "_from_float"))
    shown = clip(value) if not typed or isinstance(value, str | int | float) else given
    message, code = f"`{name}` is {shown}, but must be {wanted}.", "wrong_type" if typed else "bad_value"
    problems.add(where, code, message, _value_move(error, problems), fix=_value_fix(error, where, problems))


def _value_fix(error: ErrorDetails, where: str, problems: Problems) -> Fix | None:
    """The value that must have been meant: the one name in a list, the operator of that sign, the limit."""
    kind, value = error["type"], error["input"]
    if kind == "tuple_type" and isinstance(value, str):
        return replace(where, [value.removeprefix("step:")])
    if kind == "literal_error" and isinstance(value, str):
        better = _SIGNS.get(value) or problems.meant(value, _options(error))
        return replace(where, better) if better else None
    if kind == "less_than_equal" and isinstance(value, int | float):
        return replace(where, int(error["ctx"]["le"]))
    return None


def _options(error: ErrorDetails) -> list[str]:
    return str(error["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")


def _value_move(error: ErrorDetails, problems: Problems) -> str:
    if error["type"] == "tuple_type" and isinstance(error["input"], str):
        return f'Write `["{error["input"][:60]}"]`.'
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        sign = _SIGNS.get(error["input"])
        return f"Write `{sign}`." if sign else problems.suggest(error["input"], _options(error), otherwise="Use one of these.")
    return f"Write {_SUCH[error['type']]}." if error["type"] in _SUCH else "Give a value within the limit."


def strings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every string inside a JSON value that may be a reference, with its path; a `$literal` hides what it holds."""
    if isinstance(value, dict):
        if set(value) != {"$literal"}:
            for key, inner in value.items():
                yield from strings(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from strings(inner, (*path, index))
    elif isinstance(value, str):
        yield path, value
