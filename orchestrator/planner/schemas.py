"""What a JSON Schema promises at a path, and whether a value of one can stand where another is asked. Pure.

Answers lean to yes: a schema that says nothing accepts everything, and only what cannot fit is refused. One
assumption is stricter than the standard: an object whose fields are listed has no others, unless it says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from orchestrator.catalog.judge import found_in
from orchestrator.planner.problems import clip, join, listed

KINDS = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
_DEEP = 24  # references followed within one schema before it counts as unknown
_MOST_OPENED = 500  # schemas opened for one place, and
_MOST_ALTERNATIVES = 32  # alternatives there, before it counts as unknown
_MOST_PAIRS = 500  # places of two schemas compared before they count as fitting
_DEEPEST_FIT = 8
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_SCHEMAS = frozenset({"items", "prefixItems", "additionalItems", "additionalProperties", "anyOf", "oneOf", "allOf"})
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema together with the document in which its `$ref`s are looked up."""

    schema: Any
    root: Any


UNKNOWN = Shape(True, True)


class NoSuchPath(LookupError):
    """`shape`, reached by `done`, has nothing at `part`."""

    def __init__(self, shape: Shape, done: Path, part: str | int) -> None:
        super().__init__(part)
        self.shape, self.done, self.part = shape, done, part


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value cannot stand somewhere: at `path` inside it, in words. `plain`: it is of another kind altogether."""

    path: Path
    why: str
    plain: bool = False


def shape_of(schema: Mapping[str, Any] | None) -> Shape:
    """The shape of a whole schema document; of None, the unknown shape."""
    return UNKNOWN if schema is None else Shape(schema, schema)


def opened(schema: Any) -> Any:
    """The schema with the standard's own rule said: an object may have other fields than those that are listed."""
    if not isinstance(schema, dict):
        return schema
    more = {k: _opened_parts(k, v) for k, v in schema.items()}
    closed = schema.keys() & {"additionalProperties", "unevaluatedProperties", "patternProperties"}
    return more if "properties" not in schema or closed else more | {"additionalProperties": True}


def _opened_parts(keyword: str, value: Any) -> Any:
    if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
        return {name: opened(s) for name, s in value.items()}
    if keyword in _SCHEMAS:
        return [opened(s) for s in value] if isinstance(value, list) else opened(value)
    return value


def list_of(shape: Shape, length: int | None = None) -> Shape:
    """A list of such values, of a length that is known perhaps."""
    known = {} if length is None else {"minItems": length, "maxItems": length}
    return Shape({"type": "array", "items": shape.schema, **known}, shape.root)


def item_of(shape: Shape) -> Shape:
    """What the elements of a list look like."""
    lists = [a for a in alternatives(shape) if "array" in _kinds(a)]
    return _any_of([_schema_at_index(a, None) for a in lists], shape.root)


def longest(shape: Shape) -> int | None:
    """How many elements a list has at most; None when that is open."""
    found = [a.get("maxItems") for a in alternatives(shape) if isinstance(a, dict) and "array" in _kinds(a)]
    return max((n for n in found if isinstance(n, int)), default=None) if None not in found else None


def alternatives(shape: Shape) -> list[Any]:
    """The plain schemas of which a value satisfies one: `$ref`, `anyOf` and `oneOf` are opened, `allOf` is merged."""
    found = list(islice(_open(shape.schema, shape.root, 0, [_MOST_OPENED]), _MOST_ALTERNATIVES + 1))
    return found if len(found) <= _MOST_ALTERNATIVES else [True]


def kinds(shape: Shape) -> frozenset[str]:
    """The JSON types that a value may have."""
    return frozenset().union(*(_kinds(a) for a in alternatives(shape)))


def walk(shape: Shape, path: Path) -> Shape:
    """The shape at a path.

    Raises:
        NoSuchPath: no value of this shape has something there.
    """
    for at, part in enumerate(path):
        found = [s for a in alternatives(shape) if (s := _step_into(a, part)) is not None]
        if not found:
            raise NoSuchPath(shape, path[:at], part)
        shape = _any_of(found, shape.root)
    return shape


def fields(shape: Shape) -> dict[str, Shape]:
    """The named fields of an object, of all its alternatives."""
    return {
        name: Shape(schema, shape.root)
        for a in alternatives(shape)
        if isinstance(a, dict)
        for name, schema in a.get("properties", {}).items()
    }


_Seen = dict[tuple[int, int], tuple[Shape, Shape, Misfit | None]]


def misfit(source: Shape, target: Shape) -> Misfit | None:
    """Why no value of `source` can stand where `target` is asked; None when one may."""
    return _misfit(source, target, {}, 0)


def fitting_fields(source: Shape, target: Shape, *, most: int = 5) -> list[Path]:
    """Where inside an object values lie that fit, nearest first; at most three names deep."""
    found: list[Path] = []
    queue: deque[tuple[Path, Shape]] = deque([((), source)])
    while queue and len(found) < most:
        path, shape = queue.popleft()
        for name, inner in fields(shape).items():
            known = kinds(inner) != KINDS
            if known and misfit(inner, target) is None:
                found.append((*path, name))
            elif known and len(path) < 2:
                queue.append(((*path, name), inner))
    return found[:most]


def describe(shape: Shape) -> str:
    """The shape in words: `a number or null`, `a list of text`, `an object with fields a, b`."""
    found = kinds(shape)
    if found == KINDS or not found:
        return "a value of unknown type"
    if found <= {"object", "null"} and (names := list(fields(shape))):
        return f"an object with {listed(names, most=6)}"
    if found == {"array"} and (inner := kinds(item_of(shape))) != KINDS:
        return f"a list of {_plural(inner)}"
    return kind_words(found)


def kind_words(found: frozenset[str]) -> str:
    """JSON types in words."""
    if found == KINDS or not found:
        return "any value"
    shown = found - {"integer"} if "number" in found else found
    words = [_WORDS[k] for k in _WORDS if k in shown]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def kind_of(value: Any) -> str:
    """The JSON type of a Python value."""
    if isinstance(value, bool):
        return "boolean"
    for kind, types in (("null", type(None)), ("string", str), ("integer", int), ("number", float), ("array", list | tuple)):
        if isinstance(value, types):
            return kind
    return "object"


def value_words(value: Any) -> str:
    """A value for a sentence: small ones as they are, others by their type."""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    words = kind_words(frozenset({kind_of(value)}))
    return f"{words} ({clip(value, most=40)})" if isinstance(value, str | int | float) else words


def _plural(found: frozenset[str]) -> str:
    words = {"object": "objects", "array": "lists", "string": "texts", "number": "numbers", "integer": "whole numbers"}
    shown = found - ({"integer"} if "number" in found else set())
    return " or ".join(words.get(k, k) for k in _WORDS if k in shown)


def _open(schema: Any, root: Any, depth: int, left: list[int]) -> Iterator[Any]:
    """`left` counts down over the whole look: schemas within themselves have alternatives without number."""
    left[0] -= 1
    if schema is False:
        return
    if not isinstance(schema, dict) or depth > _DEEP or left[0] < 0:
        yield True
    elif isinstance(ref := schema.get("$ref"), str):
        yield from _open(_pointed(root, ref), root, depth + 1, left)
    elif isinstance(options := schema.get("anyOf") or schema.get("oneOf"), list):
        if "type" in schema or "properties" in schema:
            yield {"type": schema["type"]} if "type" in schema else True  # what the options add is left open
        else:
            for option in options if left[0] > 0 else [True]:
                yield from _open(option, root, depth + 1, left)
    elif isinstance(parts := schema.get("allOf"), list):
        yield _merged([{k: v for k, v in schema.items() if k != "allOf"}, *parts], root, depth, left)
    else:
        yield schema


def _merged(parts: list[Any], root: Any, depth: int, left: list[int]) -> Any:
    merged: dict[str, Any] = {}
    for part in parts:
        opened_part = list(islice(_open(part, root, depth + 1, left), 2))
        if len(opened_part) != 1 or not isinstance(opened_part[0], dict):
            return True
        inner = opened_part[0]
        properties = merged.get("properties", {}) | inner.get("properties", {})
        required = [*merged.get("required", ()), *inner.get("required", ())]
        merged |= inner
        merged |= ({"properties": properties} if properties else {}) | ({"required": required} if required else {})
    return merged


def _pointed(root: Any, ref: str) -> Any:
    if ref != "#" and not ref.startswith("#/"):
        return True  # another document, or an anchor
    for part in ref[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, Mapping) or key not in root:
            return True
        root = root[key]
    return root


def _kinds(schema: Any) -> frozenset[str]:
    if not isinstance(schema, dict):
        return KINDS
    if "const" in schema:
        return _wider([kind_of(schema["const"])])
    if isinstance(schema.get("enum"), list):
        return _wider([kind_of(v) for v in schema["enum"]])
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, list) else []
    known = [n for n in names if isinstance(n, str) and n in KINDS]
    return _wider(known) if known and len(known) == len(names) else KINDS


def _wider(found: list[str]) -> frozenset[str]:
    return frozenset([*found, "integer"] if "number" in found else found)


def _any_of(schemas: list[Any], root: Any) -> Shape:
    if not schemas:
        return UNKNOWN
    return Shape(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}, root)


def _step_into(schema: Any, part: str | int) -> Any:
    """The schema at one key or index, True when nothing is known, None when there can be nothing."""
    if not isinstance(schema, dict):
        return True
    if ("array" if isinstance(part, int) else "object") not in _kinds(schema):
        return None
    found = _schema_at_index(schema, part) if isinstance(part, int) else _schema_at_key(schema, part)
    return None if found is False else found


def _schema_at_key(schema: dict[str, Any], key: str) -> Any:
    properties = schema.get("properties")
    if properties and key in properties:
        return properties[key]
    for pattern, inner in schema.get("patternProperties", {}).items():
        if found_in(pattern, key):
            return inner
    return schema.get("additionalProperties", not properties)


def _schema_at_index(schema: Any, index: int | None) -> Any:
    """The schema of one element; of any element when `index` is None."""
    if not isinstance(schema, dict):
        return True
    prefix, rest = schema.get("prefixItems", []), schema.get("items", True)
    if isinstance(rest, list):  # up to 2019-09
        prefix, rest = rest, schema.get("additionalItems", True)
    if index is None:
        return {"anyOf": [*prefix, rest]} if prefix else rest
    if index < len(prefix):
        return prefix[index]
    return False if index >= schema.get("maxItems", index + 1) else rest


def _misfit(source: Shape, target: Shape, seen: _Seen, depth: int) -> Misfit | None:
    pair = (id(source.schema), id(target.schema))
    if pair not in seen and depth <= _DEEPEST_FIT and len(seen) < _MOST_PAIRS:
        seen[pair] = (source, target, None)  # a schema within itself fits until shown otherwise; holding both keeps the ids theirs
        seen[pair] = (source, target, _closest_misfit(source, target, seen, depth))
    return seen[pair][2] if pair in seen else None


def _closest_misfit(source: Shape, target: Shape, seen: _Seen, depth: int) -> Misfit | None:
    worst: Misfit | None = None
    for mine in alternatives(source):
        for asked in alternatives(target):
            found = _misfit_plain(Shape(mine, source.root), Shape(asked, target.root), seen, depth)
            if found is None:
                return None
            worst = found if worst is None or len(found.path) > len(worst.path) else worst
    return worst


def _misfit_plain(source: Shape, target: Shape, seen: _Seen, depth: int) -> Misfit | None:
    mine, asked = _kinds(source.schema), _kinds(target.schema)
    shared = mine & asked or ({"number"} if "number" in mine and "integer" in asked else set())
    if not shared:
        return Misfit((), f"{describe(source)} where {describe(target)} belongs", plain=True)
    if not isinstance(source.schema, dict) or not isinstance(target.schema, dict):
        return None
    if mine == {"object"}:
        return _misfit_object(source, target, seen, depth)
    if len(one := mine - {"integer"} or mine) == 1 and (apart := _apart(source.schema, target.schema, *one)):
        return Misfit((), apart)
    if mine == {"array"}:
        inner = _misfit(item_of(source), item_of(target), seen, depth + 1)
        return inner and Misfit((0, *inner.path), inner.why)
    return _misfit_enum(source.schema, target.schema)


def _misfit_object(source: Shape, target: Shape, seen: _Seen, depth: int) -> Misfit | None:
    wanted = target.schema.get("properties", {})
    for name in target.schema.get("required", ()):
        if _schema_at_key(source.schema, name) is False:
            return Misfit((), f"there is no `{name}`, which is required")
    for name in source.schema.get("required", ()):
        here = source.schema.get("properties", {}).get(name)
        if name in wanted and here is not None:
            inner = _misfit(Shape(here, source.root), Shape(wanted[name], target.root), seen, depth + 1)
            if inner:
                return Misfit((name, *inner.path), inner.why)
        elif name not in wanted and target.schema.get("additionalProperties") is False:
            return Misfit((), f"there is `{name}`, which is not taken")
    return None


_RANGES = {
    "array": ("minItems", "maxItems", " elements"),
    "string": ("minLength", "maxLength", " characters"),
    "number": ("minimum", "maximum", ""),
    "integer": ("minimum", "maximum", ""),
}


def _apart(source: dict[str, Any], target: dict[str, Any], kind: str) -> str | None:
    """Why lengths or numbers of two schemas have none in common."""
    least, most, unit = _RANGES.get(kind, ("", "", ""))
    if _above(low := source.get(least), high := target.get(most)):
        return f"it is at least {low}{unit} where at most {high} {'are taken' if unit else 'is taken'}"
    if _above(low := target.get(least), high := source.get(most)):
        return f"it is at most {high}{unit} where at least {low} {'are needed' if unit else 'is needed'}"
    return None


def _above(one: Any, other: Any) -> bool:
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in (one, other)) and one > other


def _misfit_enum(source: dict[str, Any], target: dict[str, Any]) -> Misfit | None:
    mine, asked = _values(source), _values(target)
    if mine is None or asked is None or any(v in asked for v in mine):
        return None
    return Misfit((), f"one of {listed(map(str, mine), last='or')} where one of {listed(map(str, asked), last='or')} belongs")


def _values(schema: dict[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def path_text(path: Path) -> str:
    """A path within a value as it is written after a reference."""
    text = join("", *path)
    return text if not text or text.startswith("[") else f".{text}"
