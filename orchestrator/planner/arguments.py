"""Literal arguments against a tool's schema; a reference is a hole that fits anywhere and is judged apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jsonschema.exceptions import SchemaError, best_match

from orchestrator.catalog.judge import TooManySteps, bounded, found_in, make_validator, sound_dialect_of
from orchestrator.models.tool import ToolDefinition
from orchestrator.planner.examples import example_of
from orchestrator.planner.fixes import add, rename, replace
from orchestrator.planner.problems import Fix, Problems, clip, join, listed, meant, shown
from orchestrator.planner.schemas import (
    KINDS,
    UNKNOWN,
    Path,
    Shape,
    describe,
    fields,
    item_of,
    kind_of,
    kind_words,
    kinds,
    opened,
    shape_of,
    value_words,
    walk,
)

Violation = Any  # jsonschema's ValidationError, whose fields are typed as perhaps unset
_NUMBER = re.compile(r"^-?\d{1,30}(\.\d{1,30})?$")
_MOST_KEPT = 512
MOST = 20  # problems told of one object of arguments
_WHOLE_VALUE = ("enum", "const", "uniqueItems", "contains", "not")  # cannot be judged while a part is missing


class Hole:
    """Stands where a reference will put a value."""

    __slots__ = ()


def has_hole(value: Any) -> bool:
    """Whether a part of a value is known only when the step runs."""
    if isinstance(value, dict):
        return any(has_hole(v) for v in value.values())
    return isinstance(value, Hole) or (isinstance(value, list) and any(has_hole(v) for v in value))


def _lenient(keyword: str, judge: Callable[..., Any]) -> Callable[..., Iterator[Violation]]:
    blind: Callable[[Any], bool] = has_hole if keyword in _WHOLE_VALUE else lambda value: isinstance(value, Hole)

    def judged(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Violation]:
        if not blind(instance):
            yield from judge(validator, value, instance, schema) or ()

    return judged


@dataclass(frozen=True, slots=True)
class Checked:
    """A tool with what is needed to judge calls of it, made once for all steps that use it."""

    tool: ToolDefinition
    input: Shape
    output: Shape
    validator: Any

    def target(self, path: Path) -> Shape:
        """What the tool asks for at a place inside its arguments.

        Raises:
            NoSuchPath: it takes nothing there.
        """
        return walk(self.input, path)

    def misfits(self, value: Any, target: Shape) -> list[Violation]:
        """What keeps a known value from a place in the arguments; at most three of it."""
        return _errors(self.validator.evolve(schema=target.schema), value, most=3)


_made: dict[int, Checked] = {}  # by the identity of the tool, which each holds on to


def prepare(tool: ToolDefinition) -> Checked:
    """The tool made ready; kept, since the catalog of a process holds the same definitions from plan to plan.

    Raises:
        SchemaError: its schema is none in any dialect, or refers to something outside itself.
    """
    made = _made.get(id(tool))
    if made is None or made.tool is not tool:
        made = _make_ready(tool)
        if len(_made) >= _MOST_KEPT:
            _made.clear()
        _made[id(tool)] = made
    return made


def _make_ready(tool: ToolDefinition) -> Checked:
    schema = tool.input_schema
    try:
        validator = make_validator(schema, dialect=sound_dialect_of(schema), wrap=_lenient)
        with bounded(), suppress(TooManySteps):
            next(validator.iter_errors({p.name: Hole() for p in tool.parameters}), None)
            for parameter in schema.get("properties", {}).values():
                next(validator.evolve(schema=parameter).iter_errors(None), None)
    except SchemaError:
        raise
    except Exception as error:  # references without an end, or to what is no schema; a `$ref` that is no text
        raise SchemaError(str(error)) from None
    return Checked(tool, shape_of(opened(schema) if tool.json_schema is not None else schema), _output(tool), validator)


def _output(tool: ToolDefinition) -> Shape:
    """What the tool gives; unknown where its schema is none."""
    schema = tool.output_schema
    if schema is None:
        return UNKNOWN
    try:
        sound_dialect_of(schema)
    except (SchemaError, RecursionError):
        return UNKNOWN
    return shape_of(schema)


def _errors(validator: Any, value: Any, *, most: int) -> list[Violation]:
    """What a validator finds, at most so much; what would take too long or cannot be judged is left to the tool."""
    found: list[Violation] = []
    with suppress(Exception), bounded():
        found.extend(islice(validator.iter_errors(value), most))
    return found


def check_arguments(made: Checked, arguments: dict[str, Any], *, place: str, problems: Problems, complete: bool = True) -> None:
    """Notes what is wrong with the literal parts of the arguments; what is missing only when they are `complete`."""
    for error in distinct(_errors(made.validator, arguments, most=MOST)):
        if complete or error.validator != "required" or error.absolute_path:
            _note(made, error, place=place, problems=problems)


def distinct(errors: list[Violation]) -> list[Violation]:
    """The violations without those of a type where the options are told too: one finding a place."""
    options = {tuple(e.absolute_path) for e in errors if e.validator in ("enum", "const")}
    return [e for e in errors if e.validator != "type" or tuple(e.absolute_path) not in options]


def explain(error: Violation) -> str:
    """A violation in words, beginning after the name of the place: `is text, but must be a number`."""
    given = value_words(error.instance)
    limit = error.validator_value
    if error.validator is None or (error.validator == "not" and not limit):  # a schema that is `false`
        return "is not allowed"
    if error.validator == "type":
        wanted = frozenset([limit] if isinstance(limit, str) else limit)
        return f"is {given}, but must be {kind_words(wanted)}"
    if error.validator in ("enum", "const"):
        options = limit if error.validator == "enum" else [limit]
        return f"is {clip(error.instance)}, but must be {listed(map(str, options), last='or')}"
    words = _BOUNDS.get(str(error.validator))
    return (
        words.format(value=clip(error.instance) if error.instance != "" else "empty", limit=limit)
        if words
        else f"does not fit the tool's schema: {error.message[:200]}"
    )


_BOUNDS = {
    "minimum": "is {value}, but must be at least {limit}",
    "maximum": "is {value}, but must be at most {limit}",
    "exclusiveMinimum": "is {value}, but must be more than {limit}",
    "exclusiveMaximum": "is {value}, but must be less than {limit}",
    "multipleOf": "is {value}, but must be a multiple of {limit}",
    "minLength": "is {value}, which is too short; it needs {limit} or more characters",
    "maxLength": "is {value}, which is too long; it takes {limit} or fewer characters",
    "pattern": "is {value}, which does not match the pattern `{limit}`",
    "minItems": "has too few elements; the least is {limit}",
    "maxItems": "has too many elements; the most is {limit}",
    "uniqueItems": "holds an element twice",
    "minProperties": "has too few fields; at least {limit} are needed",
    "maxProperties": "has too many fields; at most {limit} are allowed",
}


def innermost(error: Violation, root: Any) -> Violation | None:
    """The violation that says most; None when the plain sentence about kinds does (`must be a number or null`)."""
    if not error.context:
        return error
    fitting = kinds(Shape(error.schema, root))
    return None if kind_of(error.instance) not in fitting else best_match([error])


def _note(made: Checked, error: Violation, *, place: str, problems: Problems) -> None:
    inner = innermost(error, made.input.root)
    found = inner or error
    where = join(place, *found.absolute_path)
    name = _name(made, found)
    fix = literal_fix(found if inner is not None else error, where, root=made.input.root)
    if found.validator == "required":
        _note_missing(made, found, where=where, problems=problems)
    elif found.validator == "additionalProperties":
        _note_unknown(made, found, where=where, problems=problems)
    elif inner is None:
        wanted = describe(Shape(error.schema, made.input.root))
        given = value_words(error.instance)
        problems.add(where, "wrong_type", f"{name} is {given}, but must be {wanted}.", _move(made, found), fix=fix)
    else:
        code = "wrong_type" if found.validator == "type" else "bad_value"
        problems.add(where, code, f"{name} {explain(found)}.", _move(made, found, problems), fix=fix)


def _note_missing(made: Checked, error: Violation, *, where: str, problems: Problems) -> None:
    known = fields(Shape(error.schema, made.input.root))
    for name in error.validator_value:
        if name in error.instance:
            continue
        wanted = known.get(name, UNKNOWN)
        about = wanted.schema.get("description") if isinstance(wanted.schema, dict) else None
        owner = f"Tool `{made.tool.name}`" if not error.absolute_path else _name(made, error)
        note = f" ({' '.join(about.split())[:120].rstrip('.')})" if about else ""
        move = f"Add `{name}`: {describe(wanted)}{note}."
        holes = "given are " + listed(map(str, error.instance)) if error.instance else "nothing is given"
        example = f"{owner[0].lower()}{owner[1:]} takes {shown({name: example_of(wanted, 2, most=3)})} and alike; {holes}"
        only = wanted.schema.get("const") if isinstance(wanted.schema, dict) else None
        problems.add(
            join(where, name),
            "missing_argument",
            f"{owner} needs `{name}`, which is missing.",
            move,
            example=example,
            fix=None if only is None else add(join(where, name), only),
        )


def _note_unknown(made: Checked, error: Violation, *, where: str, problems: Problems) -> None:
    known, patterns = list(error.schema.get("properties", {})), list(error.schema.get("patternProperties", {}))
    for name in error.instance:
        if name in known or any(found_in(p, name) for p in patterns):
            continue
        owner = f"Tool `{made.tool.name}`" if not error.absolute_path else _name(made, error)
        takes = f"It takes {listed(known)}." if known else "It takes no arguments; leave it out."
        free = [k for k in known if k not in error.instance]
        better = problems.meant(name, free)
        fix = rename(join(where, name), better) if better else None
        move = problems.suggest(name, free, otherwise=takes if free or not known else f"{takes[:-1]}; leave this out.")
        problems.add(join(where, name), "unknown_argument", f"{owner} takes no `{name}`.", move, fix=fix)


def literal_fix(error: Violation, place: str, *, root: Any = None) -> Fix | None:
    """The value that must have been meant: the number in quotes, a list of the one thing, the name but for a slip."""
    value = error.instance
    if error.validator == "enum" and isinstance(value, str):
        better = meant(value, [o for o in error.validator_value if isinstance(o, str)])
        return replace(place, better) if better else None
    wanted = kinds(Shape(error.schema, root)) - {"null"}
    if isinstance(value, str) and wanted and wanted <= {"number", "integer"}:
        number = as_number(value)
        return replace(place, number) if number is not None and (isinstance(number, int) or "number" in wanted) else None
    if isinstance(value, str) and wanted == {"boolean"}:
        return replace(place, value.lower() == "true") if value.lower() in ("true", "false") else None
    if wanted == {"string"} and isinstance(value, int | float) and not isinstance(value, bool):
        return replace(place, str(value))
    if wanted == {"array"} and value is not None and kind_of(value) in kinds(item_of(Shape(error.schema, root))) < KINDS:
        return None if has_hole(value) else replace(place, [value])
    return None


def as_number(text: str) -> int | float | None:
    """The number that a text is in JSON, as it stands."""
    try:
        number = json.loads(text) if _NUMBER.match(text) else None
    except ValueError:  # thousands of digits
        return None
    return number if isinstance(number, int | float) and number not in (float("inf"), float("-inf")) else None


def _name(made: Checked, error: Violation) -> str:
    path = join("", *error.absolute_path)
    return f"`{path}` of `{made.tool.name}`" if path else f"The input of `{made.tool.name}`"


def _move(made: Checked, error: Violation, problems: Problems | None = None) -> str:
    if problems and error.validator == "enum" and isinstance(error.instance, str):
        texts = [o for o in error.validator_value if isinstance(o, str)]
        return problems.suggest(error.instance, texts, otherwise="Use one of these.")
    if isinstance(error.instance, str) and error.validator == "type" and _reads_as_number(error.instance):
        return "Write it without quotes."
    wanted = Shape(error.schema, made.input.root)
    such = example_of(wanted, 2, most=3) if kinds(wanted) != KINDS else None
    fits = such is not None and not _errors(made.validator.evolve(schema=error.schema), such, most=1)
    such_as = f"Give {describe(wanted)}, such as `{shown(such)}`" if fits else "Change the value"
    return f"{such_as}; `toolweaver tools show {made.tool.name}` says what the tool takes."


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
