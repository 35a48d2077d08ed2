"""A value against a JSON Schema of any dialect, in bounded time: neither value nor schema holds the process up.

Checks go to `jsonschema` in counted steps, and fetch nothing for a `$ref`. Patterns run in an engine that takes linear time;
what that engine does not know, and `unevaluated...`, is left to whoever has the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError as BadSchema
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend as _extend
from jsonschema.validators import validator_for as _validator_for
from jsonschema_specifications import REGISTRY as SPECIFICATIONS  # type: ignore[import-untyped]
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing.jsonschema import specification_with

from orchestrator.catalog.patterns import MOST_WEIGHT, weight_of

Violation = Any  # jsonschema's ValidationError, whose fields are typed as perhaps unset
Keyword = Callable[..., Iterator[Violation] | None]
Wrap = Callable[[str, Keyword], Keyword]

SOME_STEPS, MANY_STEPS = 50_000, 200_000  # about half a second, and two seconds
_STEPS_OF_WEIGHT = 4  # what it takes to make a pattern ready, by its weight
_DEEPEST = 120  # keywords within keywords: of values nested 60 deep
_MOST = 20  # problems told of one value
_VALUES = frozenset({"const", "enum", "default", "examples"})
_GUESSES = (Draft202012Validator, Draft7Validator, Draft4Validator)
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class TooManySteps(Exception):
    """The check would take too long."""


class _Steps:
    """How many steps a check may still take, and how deep it is in schemas within schemas."""

    def __init__(self, left: int) -> None:
        self.left, self.depth = left, 0

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise TooManySteps


_steps: ContextVar[_Steps] = ContextVar("steps")


class Judge:
    """Judges values by one schema; made once for all of them.

    A schema without `$schema` is of 2020-12, or of an older dialect when it is valid in that alone.
    """

    def __init__(self, schema: Any) -> None:
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        self._names = [n for n in properties if isinstance(n, str)] if isinstance(properties, Mapping) else []
        self._schema = schema

    @cached_property
    def _validator(self) -> Any:
        """Made for the first value: of a server's thousand tools few are called."""
        return make_validator(self._schema)

    def errors(self, value: Any, *, steps: int = MANY_STEPS, most: int = _MOST) -> list[Violation]:
        """What keeps the value from the schema.

        Raises:
            TooManySteps: the check would take too long.
            Exception: the schema is none, or a number is too large for its arithmetic.
        """
        with bounded(steps):
            return list(islice(self._validator.iter_errors(value), most))

    def problems(self, value: Any, *, steps: int = SOME_STEPS, most: int = _MOST) -> list[dict[str, Any]]:
        """The same as data, `path, code, message`: those that were found before it could not be decided any more."""
        found: list[dict[str, Any]] = []
        with suppress(Exception), bounded(steps):  # whoever has the schema checks again
            for error in islice(self._validator.iter_errors(value), most):
                found += self.told(error)
        return found[:most]

    def told(self, error: Violation) -> Iterator[dict[str, Any]]:
        """A violation in words: what is missing and what is unknown each by its name."""
        error = _innermost(error)
        place, keyword = _place(error.absolute_path), str(error.validator)
        if keyword == "required" and isinstance(error.validator_value, list):
            missing = (n for n in error.validator_value if n not in error.instance)
            yield from ({"path": _under(place, n), "code": "missing", "message": "is missing"} for n in missing)
        elif keyword == "additionalProperties" and not place:
            unknown = [n for n in error.instance if n not in self._names]
            yield from ({"path": _clip(n, 60), "code": "unknown", "message": self._unknown(n)} for n in unknown)
        else:
            yield {"path": place, "code": keyword, "message": _why(error)}

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name[:100], self._names, n=1)
        move = (
            f"did you mean `{near[0]}`?" if near else f"it takes {_clip(', '.join(f'`{n}`' for n in self._names), 300) or 'none'}"
        )
        return f"is no parameter of it ({move})"


@contextmanager
def bounded(steps: int = MANY_STEPS) -> Iterator[None]:
    """Within it, validators of `make_validator` may take so many steps, or raise TooManySteps."""
    token = _steps.set(_Steps(steps))
    try:
        with _survived():
            yield
    finally:
        _steps.reset(token)


@contextmanager
def _survived() -> Iterator[None]:
    """Makes a panic of the library for references, when Python's stack is full, the RecursionError that it is."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RecursionError(str(error)) from None


def make_validator(schema: Any, *, dialect: Any = None, wrap: Wrap | None = None) -> Any:
    """A validator that counts its steps, to be used within `bounded`; it fetches no `$ref` from the network.

    `dialect` is the schema's where that is known; `wrap` makes another judge of each keyword's.
    """
    known = dialect or dialect_of(schema)
    plain = _of_one_dialect(schema)
    return _bounded_class(known, wrap)(plain, _resolver=_resolver_of(plain, known))


def _resolver_of(schema: Any, dialect: Any) -> Any:
    """Where references lead. Anchors are looked for here once: for each use of one the whole schema would be."""
    resource = specification_with(dialect.META_SCHEMA.get("$schema", "")).create_resource(schema)
    at = resource.id() or ""
    return SPECIFICATIONS.with_resource(at, resource).crawl().resolver(base_uri=at)


def dialect_of(schema: Any) -> Any:
    """The validator class for a schema: that of its `$schema`, else the first that finds it valid, 2020-12 first."""
    if isinstance(schema, Mapping) and isinstance(schema.get("$schema"), str):
        return _validator_for(schema, default=Draft202012Validator)
    return next((d for d in _GUESSES if _valid_in(d, schema)), Draft202012Validator)


def sound_dialect_of(schema: Any) -> Any:
    """As `dialect_of`, of a schema that is one.

    Raises:
        BadSchema: it is none.
        RecursionError: it is nested too deeply.
    """
    if not (isinstance(schema, Mapping) and isinstance(schema.get("$schema"), str)):
        known = next((d for d in _GUESSES if _valid_in(d, schema)), None)
        if known is not None:
            return known
    dialect = dialect_of(schema)
    check_schema(dialect, schema)
    return dialect


def _of_one_dialect(schema: Any) -> Any:
    """The schema without `$schema`, since each would bring an unbounded validator back in; what are values stays as it is."""
    if isinstance(schema, list):
        return [_of_one_dialect(s) for s in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {k: v if k in _VALUES else _of_one_dialect(v) for k, v in schema.items()}
    if isinstance(properties := kept.get("properties"), Mapping):  # of `false` the library would not say where
        kept["properties"] = {n: {"not": {}} if s is False else s for n, s in properties.items()}
    if isinstance(kept.get("$schema"), str):
        del kept["$schema"]
    return kept


def _valid_in(dialect: Any, schema: Any) -> bool:
    try:
        check_schema(dialect, schema)
    except (BadSchema, RecursionError):
        return False
    return True


def check_schema(dialect: Any, schema: Any) -> None:
    """Lets a schema pass that is one in the dialect.

    Raises:
        SchemaError: it is none.
        RecursionError: it is nested too deeply.
    """
    with _survived():
        dialect.check_schema(schema)


def _innermost(error: Violation) -> Violation:
    """What says most of `anyOf` and its like; the whole, when all that it asks is another type."""
    return error if not error.context or _types_asked(error) else best_match([error]) or error


def _types_asked(error: Violation) -> list[str]:
    """The types of which a value may have any, when that is all that alternatives differ in."""
    if not error.context or any(e.validator != "type" or e.relative_path for e in error.context):
        return []
    asked = [[v] if isinstance(v := e.validator_value, str) else list(v) for e in error.context]
    return [t for types in asked for t in types]


def _why(error: Violation) -> str:
    given, limit = error.instance, error.validator_value
    if error.validator is None or (error.validator == "not" and not limit):  # a schema that is `false`
        return "is not allowed"
    types = _types_asked(error)
    if types or error.validator == "type":
        wanted = types or ([limit] if isinstance(limit, str) else limit)
        return f"is {_KINDS.get(type(given), 'something else')}, but must be {' or '.join(_WORDS.get(w, str(w)) for w in wanted)}"
    if error.validator == "enum":
        return f"is `{_clip(str(given), 60)}`, but must be one of {_clip(', '.join(map(str, limit)), 300)}"
    return f"breaks `{error.validator}: {_clip(str(limit), 100)}`"


def _place(path: Any) -> str:
    return _clip("".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip("."), 200)


def _under(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


@lru_cache(maxsize=256)  # one may take up to 10 MB
def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Says whether a pattern is found in a text, in time linear in the text.

    None when the engine does not know the pattern, or would take long to make it ready.
    """
    weight = weight_of(pattern)
    if weight > MOST_WEIGHT:
        return None
    if (steps := _steps.get(None)) is not None:
        steps.take(weight * _STEPS_OF_WEIGHT)
    try:
        found = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return None
    return lambda text: found.isinstance_python(text, strict=True)


def found_in(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text; also when that cannot be told."""
    found = matcher(pattern)
    return found is None or found(text)


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Violation]:
    if isinstance(instance, str):
        _steps.get().take(len(instance) // 1_000)
        if not found_in(pattern, instance):
            yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any) -> Iterator[Violation]:
    for pattern, schema in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            _steps.get().take(1)
            if matcher(pattern) is not None and found_in(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[Violation]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), list(schema.get("patternProperties", {}))
    _steps.get().take(len(instance) * (1 + len(patterns)) // 16)
    extras = [n for n in instance if n not in known and not any(found_in(p, n) for p in patterns)]
    if rest is False and extras:
        yield ValidationError("has fields that it may not have")
    for name in extras if isinstance(rest, dict) else ():
        yield from validator.descend(instance[name], rest, path=name)


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[Violation]:
    if not wanted or not isinstance(instance, list):
        return
    if {type(i) for i in instance} <= {str} or {type(i) for i in instance} <= {int, float}:
        _steps.get().take(len(instance))
        unique = len(set(instance)) == len(instance)
    else:
        _steps.get().take(len(instance) ** 2 // 16)
        unique = not any(_same(a, b) for at, a in enumerate(instance) for b in islice(instance, at))
    if not unique:
        yield ValidationError("has an item twice")


def _enum(validator: Any, values: Any, instance: Any, schema: Any) -> Iterator[Violation]:
    """Python's own comparison, which is fast and takes 1 for true, leaves few values for the exact one."""
    alike = [v for v in values if v == instance]
    if alike:
        yield from _EXACT_ENUM(validator, alike, instance, schema) or ()
    else:
        yield ValidationError("is none of them")


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _left_to_the_tool(*_: Any) -> Iterator[Violation]:
    return iter(())


def _counted(judge: Keyword) -> Keyword:
    def judged(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Violation]:
        steps = _steps.get()
        steps.take(1 + (len(value) if isinstance(value, list) else len(value) // 16 if isinstance(value, dict) else 0))
        if steps.depth >= _DEEPEST:  # before Python's own limit, which the library for references does not survive
            raise RecursionError("a schema within a schema, and so on")
        steps.depth += 1
        try:
            for error in judge(validator, value, instance, schema) or ():
                yield error
                steps.take(1 + len(error.message) // 500)  # it may hold the whole value
        finally:
            steps.depth -= 1

    return judged


extend: Callable[..., Any] = _extend
_EXACT_ENUM: Keyword = Draft202012Validator.VALIDATORS["enum"]
_OWN: dict[str, Keyword] = {
    "enum": _enum,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedProperties": _left_to_the_tool,
    "unevaluatedItems": _left_to_the_tool,
}


@lru_cache(maxsize=64)
def _bounded_class(dialect: Any, wrap: Wrap | None) -> Any:
    counted = {k: _counted(j) for k, j in (dialect.VALIDATORS | _OWN).items()}
    return extend(dialect, counted if wrap is None else {k: wrap(k, j) for k, j in counted.items()})
