"""What a schema promises at a path, and what can stand where."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planner.schemas import (
    KINDS,
    NoSuchPath,
    describe,
    fitting_fields,
    item_of,
    kinds,
    list_of,
    misfit,
    path_text,
    shape_of,
    walk,
)

TEXT, NUMBER, WHOLE, NULL = ({"type": t} for t in ("string", "number", "integer", "null"))


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


WALKS: list[tuple[dict[str, Any], tuple[str | int, ...], set[str] | None]] = [
    (closed(a=TEXT), ("a",), {"string"}),
    (closed(a=TEXT), ("b",), None),
    (closed(a=TEXT), (0,), None),
    (TEXT, ("a",), None),
    ({"type": "object"}, ("any", "thing"), set(KINDS)),
    ({}, (3, "x"), set(KINDS)),
    (closed(a=TEXT) | {"additionalProperties": NUMBER}, ("b",), {"number", "integer"}),
    (closed(a=TEXT) | {"additionalProperties": True}, ("b",), set(KINDS)),
    (closed(a=TEXT) | {"patternProperties": {"^x_": NULL}}, ("x_1",), {"null"}),
    ({"type": "array", "items": closed(a=TEXT)}, (7, "a"), {"string"}),
    ({"type": "array"}, (0,), set(KINDS)),
    ({"type": "array", "prefixItems": [TEXT, NUMBER], "items": False}, (1,), {"number", "integer"}),
    ({"type": "array", "prefixItems": [TEXT, NUMBER], "items": False}, (2,), None),
    ({"type": "array", "items": TEXT, "maxItems": 2}, (2,), None),
    ({"anyOf": [closed(a=TEXT), closed(a=NULL), NULL]}, ("a",), {"string", "null"}),
    ({"anyOf": [NULL, TEXT]}, ("a",), None),
    ({"allOf": [closed(a=TEXT), closed(b=NUMBER)]}, ("b",), {"number", "integer"}),
    ({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, ("a",), set(KINDS)),
    ({"$ref": "#/$defs/A", "$defs": {"A": closed(me={"$ref": "#/$defs/A"}, x=TEXT)}}, ("me", "me", "x"), {"string"}),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": closed(x=TEXT)}}, ("x",), {"string"}),
    ({"$ref": "#/$defs/gone"}, ("x",), set(KINDS)),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, ("x",), set(KINDS)),
    ({"$ref": "https://example.com/s.json"}, ("x",), set(KINDS)),
]


@pytest.mark.parametrize(("schema", "path", "expected"), WALKS)
def test_a_path_is_followed(schema: dict[str, Any], path: tuple[str | int, ...], expected: set[str] | None) -> None:
    if expected is None:
        with pytest.raises(NoSuchPath):
            walk(shape_of(schema), path)
    else:
        assert kinds(walk(shape_of(schema), path)) == expected


FITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (WHOLE, NUMBER),
    (NUMBER, WHOLE),  # 5.0 is a whole number
    ({}, NUMBER),
    (TEXT, {}),
    ({"anyOf": [NUMBER, NULL]}, NUMBER),
    (NUMBER, {"anyOf": [TEXT, NUMBER]}),
    ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}),
    ({"const": 1}, NUMBER),
    (closed(("a", "b"), a=TEXT, b=TEXT), closed(("a",), a=TEXT)),
    (closed((), a=TEXT), closed(("a",), a=TEXT)),
    ({"type": "object"}, closed(("a",), a=TEXT)),
    ({"type": "array", "items": {"anyOf": [TEXT, NULL]}}, {"type": "array", "items": TEXT}),
]
MISFITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (TEXT, NUMBER),
    (NULL, NUMBER),
    ({"type": "boolean"}, NUMBER),
    ({"anyOf": [TEXT, NULL]}, NUMBER),
    ({"anyOf": [TEXT, TEXT]}, NUMBER),
    ({"enum": ["a"]}, {"enum": ["b"]}),
    ({"const": "a"}, {"const": "b"}),
    (closed((), b=TEXT), closed(("a",), a=TEXT)),
    (closed(("a",), a=TEXT), closed((), a=NUMBER)),
    (closed(("a", "b"), a=TEXT, b=TEXT), closed(("a",), a=TEXT) | {"additionalProperties": False}),
    ({"type": "array", "items": TEXT}, {"type": "array", "items": NUMBER}),
    ({"type": "array", "items": TEXT}, TEXT),
]


@pytest.mark.parametrize(("source", "target"), FITS)
def test_what_may_fit_is_let_pass(source: dict[str, Any], target: dict[str, Any]) -> None:
    assert misfit(shape_of(source), shape_of(target)) is None


@pytest.mark.parametrize(("source", "target"), MISFITS)
def test_what_cannot_fit_is_refused(source: dict[str, Any], target: dict[str, Any]) -> None:
    assert misfit(shape_of(source), shape_of(target)) is not None


def test_a_misfit_says_where_it_lies() -> None:
    source = {"type": "array", "items": closed(("a",), a=closed(("b",), b=TEXT))}
    target = {"type": "array", "items": closed((), a=closed((), b=NUMBER))}
    found = misfit(shape_of(source), shape_of(target))
    assert found is not None
    assert (path_text(found.path), found.why) == ("[0].a.b", "text where a number belongs")


def test_schemas_that_contain_themselves_are_compared_to_an_end() -> None:
    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        kids = {"type": "array", "items": {"$ref": "#/$defs/T"}}
        return {"$ref": "#/$defs/T", "$defs": {"T": closed(("kids", "leaf"), kids=kids, leaf=leaf)}}

    assert misfit(shape_of(tree(TEXT)), shape_of(tree(TEXT))) is None
    assert misfit(shape_of(tree(TEXT)), shape_of(tree(NUMBER))) is not None


def test_fields_that_fit_are_found_nearest_first() -> None:
    schema = closed(deep=closed(n=WHOLE, far=closed(n=NUMBER, farther=closed(n=NUMBER))), n=NUMBER, t=TEXT, any={})
    assert fitting_fields(shape_of(schema), shape_of(NUMBER)) == [("n",), ("deep", "n"), ("deep", "far", "n")]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (NUMBER, "a number"),
        ({"anyOf": [WHOLE, NULL]}, "a whole number or null"),
        ({"type": ["string", "boolean", "null"]}, "text, true or false or null"),
        ({"type": "array", "items": TEXT}, "a list of texts"),
        ({"type": "array"}, "a list"),
        (closed(a=TEXT), "an object with `a`"),
        (closed(**dict.fromkeys("abcdefgh", TEXT)), "an object with `a`, `b`, `c`, `d`, `e`, `f` and 2 more"),
        ({}, "a value of unknown type"),
    ],
)
def test_a_shape_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert describe(shape_of(schema)) == words


def test_lists_are_made_and_opened() -> None:
    assert kinds(item_of(list_of(shape_of(TEXT)))) == {"string"}
    assert kinds(item_of(shape_of({"type": "array", "prefixItems": [TEXT], "items": NULL}))) == {"string", "null"}
    assert kinds(item_of(shape_of(None))) == KINDS
