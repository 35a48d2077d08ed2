"""Examples of what a schema allows: the smallest value that shows a clash. Pure."""

from __future__ import annotations

from typing import Any

from orchestrator.planner.problems import shown
from orchestrator.planner.schemas import KINDS, Path, Shape, alternatives, fields, item_of, kinds

_MOST_FIELDS = 8
_SIZES = ((3, _MOST_FIELDS), (2, _MOST_FIELDS), (2, 4), (1, _MOST_FIELDS), (1, 3))  # depth and fields, until it is short
_SHORT = 140
_PLAIN: dict[str, Any] = {"string": "a text", "integer": 7, "number": 0.5, "boolean": True, "null": None, "array": [], "object": {}}
_LIKELY = ("object", "array", "string", "number", "integer", "boolean", "null")


def example_of(shape: Shape, deep: int = 3, *, most: int = _MOST_FIELDS) -> Any:
    """A value that a schema may stand for: what it must have and no more. Patterns and formats are not looked at."""
    schema = next(iter(alternatives(shape)), True)
    if not isinstance(schema, dict):
        return "a text"
    if "const" in schema or schema.get("enum"):
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    kind = next((k for k in _LIKELY if k in kinds(Shape(schema, shape.root))), "null")
    if kind == "object":
        return _object(Shape(schema, shape.root), schema, deep, most)
    if kind == "array":
        inner = item_of(Shape(schema, shape.root))
        return [example_of(inner, deep - 1, most=most)] if deep > 0 and kinds(inner) != KINDS else []
    return _bounded(schema, kind)


def within(path: Path, value: Any) -> Any:
    """A value at a path, with nothing around it but what leads there: `{"items": [{"amount": null}]}`."""
    for part in reversed(path):
        value = {part: value} if isinstance(part, str) else [*["…"] * min(part, 3), value]
    return value


def may_give(name: str, shape: Shape) -> str:
    """The beginning of a counter-example: `` `step:ocr` may give {"text": "a text"} ``; large values are shown in outline."""
    texts = (shown(example_of(shape, deep, most=most), most=_SHORT) for deep, most in _SIZES)
    text = next((t for t in texts if not t.endswith("…")), None)
    return f"`{name}` may give {text or shown(example_of(shape, 1, most=3))}"


def _object(shape: Shape, schema: dict[str, Any], deep: int, most: int) -> dict[str, Any]:
    known, free = fields(shape), schema.get("additionalProperties")
    if not known and isinstance(free, dict) and deep > 0:
        return {"a key": example_of(Shape(free, shape.root), deep - 1, most=most)}
    names = [n for n in schema.get("required", ()) if n in known] or list(known)
    return {n: example_of(known[n], deep - 1, most=most) for n in names[:most]} if deep > 0 else {}


def _bounded(schema: dict[str, Any], kind: str) -> Any:
    if kind == "string":
        return "a text".ljust(min(int(schema.get("minLength", 0)), 40), "x")[: int(schema.get("maxLength", 40))]
    if kind not in ("number", "integer"):
        return _PLAIN[kind]
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", schema.get("exclusiveMaximum"))
    if isinstance(low, int | float) and isinstance(high, int | float):
        return (int(low) + int(high) + 1) // 2 if kind == "integer" else (low + high) / 2
    if isinstance(low, int | float):
        return max(low + ("exclusiveMinimum" in schema), _PLAIN[kind])
    return min(high - ("exclusiveMaximum" in schema), _PLAIN[kind]) if isinstance(high, int | float) else _PLAIN[kind]
