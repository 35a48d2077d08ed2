"""A schema that could do harm, or is none: found by looking at it once, without evaluating anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from orchestrator.catalog.imported import risky_pattern
from orchestrator.catalog.judge import check_schema, dialect_of

MOST_NODES = 10_000
MOST_DEPTH = 60
MOST_EXPANDED = 10_000
_SHORT = 10_000
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_REFS = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA = frozenset({"enum", "const", "default", "examples", "example"})


def schema_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    """Why the schema cannot be taken, each reason in words; nothing when it can."""
    size = _size(schema)
    if size is not None:
        yield size
        return
    invalid = _invalid(schema)
    if invalid is not None:
        yield invalid
        return
    yield from _bad_references(schema)


def _invalid(schema: Mapping[str, Any]) -> str | None:
    """Why it is no JSON Schema; one without `$schema` may be of any dialect."""
    if "$schema" not in schema and all(_is_valid(part) for part in _parts(schema)):
        return None
    dialect = dialect_of(schema)  # without `$schema`: the first that finds it valid
    if "$schema" not in schema and dialect is not Draft202012Validator:
        return None
    try:
        check_schema(dialect, schema)
    except (SchemaError, RecursionError, ValueError, TypeError, Unresolvable) as error:
        where = ".".join(str(p) for p in getattr(error, "absolute_path", ()))
        why = str(getattr(error, "message", error))[:200]
        return f"no valid JSON Schema{f' at `{where[:100]}`' if where else ''}: {why}"
    return None


def _parts(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schema without its definitions, and each of those: the tools of one API share many, and a check costs much."""
    definitions = schema.get("$defs")
    if not isinstance(definitions, Mapping):
        yield schema
        return
    yield {**schema, "$defs": {}}
    yield from definitions.values()


def _is_valid(part: Any) -> bool:
    try:
        text = json.dumps(part, sort_keys=True)
    except (TypeError, ValueError):
        return False
    return _is_valid_text(text) if len(text) < _SHORT else _is_of_2020(part)


@lru_cache(maxsize=4_096)
def _is_valid_text(text: str) -> bool:
    return _is_of_2020(json.loads(text))


def _is_of_2020(part: Any) -> bool:
    try:
        check_schema(Draft202012Validator, part)
    except (SchemaError, RecursionError, ValueError, TypeError, Unresolvable):
        return False
    return True


def pattern_notes(schema: Mapping[str, Any]) -> Iterator[str]:
    """The patterns in it that may take without end; they are left to the server."""
    for node in _schemas(schema):
        patterns = [node.get("pattern"), *(p if isinstance(p := node.get("patternProperties"), Mapping) else ())]
        yield from (p for p in patterns if isinstance(p, str) and risky_pattern(p))


def _size(schema: Any) -> str | None:
    """Why it is too large or too deep."""
    todo, seen = [(schema, 1)], 0
    while todo:
        node, depth = todo.pop()
        seen += 1
        if depth > MOST_DEPTH:
            return f"its schema is nested more than {MOST_DEPTH} deep"
        if seen > MOST_NODES:
            return f"its schema has more than {MOST_NODES:,} parts"
        inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        todo += [(n, depth + 1) for n in inner]
    return None


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object within the schema that is not mere data."""
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, Mapping):
            yield node
            todo += [v for k, v in node.items() if k not in _DATA]
        elif isinstance(node, list):
            todo += node


def _bad_references(schema: Mapping[str, Any]) -> Iterator[str]:
    anchors = _anchors(schema)
    for node in _schemas(schema):
        for ref in (node[k] for k in _REFS if isinstance(node.get(k), str)):
            if not ref.startswith("#") and ref not in anchors:
                yield f"it refers to `{ref[:100]}`, outside of itself"
                return
            if _target(schema, ref, anchors) is None:
                yield f"it refers to `{ref[:100]}`, which it does not have"
                return
    if _explodes(schema, anchors):
        yield "its references lead back to themselves, or unfold without end"


def _anchors(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"#": schema}
    for node in _schemas(schema):
        found |= {f"#{node[k]}": node for k in ("$anchor", "$dynamicAnchor") if isinstance(node.get(k), str)}
        found |= {node[k]: node for k in ("$id", "id") if isinstance(node.get(k), str)}
    return found


def _target(schema: Mapping[str, Any], ref: str, anchors: Mapping[str, Any]) -> Any:
    """What a reference names; None when there is no such thing."""
    if ref in anchors:
        return anchors[ref]
    node: Any = schema
    for part in unquote(ref[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node if ref.startswith("#/") else None


def _explodes(schema: Mapping[str, Any], anchors: Mapping[str, Any]) -> bool:
    """Whether judging one value could go round in a circle, or through more schemas than there is time for."""
    costs: dict[int, int] = {}
    return any(_cost(node, schema, anchors, costs) > MOST_EXPANDED for node in _schemas(schema))


def _cost(start: Any, schema: Mapping[str, Any], anchors: Mapping[str, Any], costs: dict[int, int]) -> int:
    """How many schemas apply to one value at `start`, all references followed; too many for a circle."""
    todo: list[tuple[Any, bool]] = [(start, False)]
    while todo:
        node, ready = todo.pop()
        if not isinstance(node, Mapping) or (id(node) in costs and not ready):
            if isinstance(node, Mapping) and costs[id(node)] < 0:
                return MOST_EXPANDED + 1  # it is on its own way
            continue
        next_ones = _applied(node, schema, anchors)
        if ready:
            costs[id(node)] = min(MOST_EXPANDED + 1, 1 + sum(costs.get(id(n), 0) for n in next_ones))
        else:
            costs[id(node)] = -1
            todo.append((node, True))
            todo += [(n, False) for n in next_ones]
    return costs.get(id(start), 0)


def _applied(node: Mapping[str, Any], schema: Mapping[str, Any], anchors: Mapping[str, Any]) -> list[Any]:
    """The schemas that apply to the same value."""
    found = [_target(schema, node[k], anchors) for k in _REFS if isinstance(node.get(k), str) and k == "$ref"]
    for key in _IN_PLACE:
        inner = node.get(key)
        found += (
            inner
            if isinstance(inner, list)
            else list(inner.values())
            if key == "dependentSchemas" and isinstance(inner, Mapping)
            else [inner]
        )
    return [n for n in found if isinstance(n, Mapping)]
