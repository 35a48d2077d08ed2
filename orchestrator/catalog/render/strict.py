"""Schemas that a vendor compiles to a grammar: closed objects, known types, few keywords; and arguments back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.render.schemas import (
    Notes,
    Schema,
    allows_null,
    every,
    listed,
    mapped,
    merged,
    one_type_each,
    only,
    said,
    type_of,
)

_LOOKAROUND = ("(?", "\\1", "\\2", "\\b", "\\B")
_STRUCTURE = frozenset({"type", "description", "title", "properties", "required", "additionalProperties", "items", "anyOf", "enum"})
_STRUCTURE |= {"const", "$ref", "$defs"}
_SILENT = frozenset({"deprecated", "readOnly", "writeOnly", "examples"})


class NotStrict(Exception):
    """The schema says something that strict mode cannot; the message says what."""


@dataclass(frozen=True, slots=True)
class StrictRules:
    """What one vendor's strict mode takes beyond the common form."""

    words: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset()
    few_items: bool = False  # `minItems` of 0 and 1 alone
    typed_choices: bool = True  # `type` beside `enum` and `const`
    type_lists: bool = True
    recursive: bool = True

    @property
    def kept(self) -> frozenset[str]:
        """Every keyword that stays."""
        return _STRUCTURE | self.words | ({"format"} if self.formats else set()) | ({"minItems"} if self.few_items else set())


@dataclass(frozen=True, slots=True)
class StrictLimits:
    """How large a strict schema may be."""

    properties: int
    depth: int
    choices: int
    characters: int  # of all names and choices
    many_choices: int  # characters of one list of more than 250 choices


def tightened(schema: Schema, rules: StrictRules, notes: Notes) -> Schema:
    """The schema in the strict form, its optional properties still optional.

    Raises:
        NotStrict: it takes values that no strict schema describes.
    """
    if not rules.recursive and recursive(schema):
        raise NotStrict("it refers to itself")
    root = {**schema, "additionalProperties": schema.get("additionalProperties", False)}
    return mapped(root, lambda s: _tight(s, rules, notes))


def all_required(schema: Schema) -> Schema:
    """The schema with every property required; what was optional may be null instead."""
    return mapped(schema, _required)


def check_limits(schema: Schema, limits: StrictLimits) -> None:
    """Raises NotStrict for a schema that is too large."""
    objects = [s["properties"] for s in every(schema) if "properties" in s]
    choices = [s["enum"] for s in every(schema) if "enum" in s] + [[s["const"]] for s in every(schema) if "const" in s]
    texts = [name for p in objects for name in p] + [str(c) for listed in choices for c in listed] + list(schema.get("$defs", {}))
    if sum(map(len, objects)) > limits.properties:
        raise NotStrict(f"it has more than {limits.properties} properties")
    if _depth(schema, schema.get("$defs", {}), {}) > limits.depth:
        raise NotStrict(f"its objects are nested more than {limits.depth} deep")
    if sum(map(len, choices)) > limits.choices or sum(map(len, texts)) > limits.characters:
        raise NotStrict(f"it has more than {limits.choices} choices or {limits.characters} characters of names and choices")
    if any(len(c) > 250 and sum(len(str(v)) for v in c) > limits.many_choices for c in choices):
        raise NotStrict(f"one list of choices has more than {limits.many_choices} characters")


def without_nulls(value: Any, schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    """The value without the nulls of optional properties, which only stand for what was not given."""
    schema = _written_for(value, schema, definitions, set()) or {}
    if isinstance(value, list):
        return [without_nulls(v, schema.get("items", {}), definitions) for v in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    needed, known = schema.get("required", ()), schema["properties"]
    kept = {n: v for n, v in value.items() if v is not None or n in needed or n not in known}
    return {n: without_nulls(v, known.get(n, {}), definitions) for n, v in kept.items()}


def optional_count(schema: Schema) -> int:
    """How many properties need not be given, at any depth."""
    return sum(len(s["properties"]) - len(s.get("required", ())) for s in every(schema) if "properties" in s)


def union_count(schema: Schema) -> int:
    """How many schemas in it are of several types."""
    return sum("anyOf" in s or isinstance(s.get("type"), list) for s in every(schema))


def recursive(schema: Schema) -> bool:
    """Whether one of the schema's references leads back to where it stands."""
    definitions = schema.get("$defs", {})
    uses = {n: {r["$ref"].removeprefix("#/$defs/") for r in every(s) if "$ref" in r} for n, s in definitions.items()}
    while leaves := [n for n, used in uses.items() if not used & uses.keys()]:
        for n in leaves:
            del uses[n]
    return bool(uses)


def _tight(schema: Schema, rules: StrictRules, notes: Notes) -> Schema:
    why = "strict mode has no such keyword"
    out = merged(schema, notes)
    if "allOf" in out:
        raise NotStrict("allOf of references")
    if out.get("not") == {}:
        raise NotStrict("a value that nothing fits")
    if "oneOf" in out and "anyOf" not in out:
        out = {("anyOf" if k == "oneOf" else k): v for k, v in out.items()}
        notes["oneOf: written as anyOf"] = None
    if not rules.type_lists and "enum" not in out:
        out = one_type_each(out)
    if "patternProperties" in out or out.get("additionalProperties", False) is not False:
        raise NotStrict("an object with properties of any name")
    out = listed(out, notes)
    if out.get("items") == {}:
        raise NotStrict("a list of values of any type")
    out = only(_limited(out, rules, notes), rules.kept, notes, why, silent=_SILENT)
    if "$ref" in out:
        beside = {k: v for k, v in out.items() if k in ("description", "title")}
        return {"anyOf": [{"$ref": out["$ref"]}], **beside} if beside else {"$ref": out["$ref"]}
    return _object(_typed(out, rules, notes), notes)


def _limited(schema: Schema, rules: StrictRules, notes: Notes) -> Schema:
    """Without those values of keywords that the vendor does not take."""
    out = dict(schema)
    why = "strict mode does not take this one"
    if rules.formats and "format" in out and out["format"] not in rules.formats:
        said(out, "format", notes, why)
    if "pattern" in rules.words and "pattern" in out and any(w in out["pattern"] for w in _LOOKAROUND):
        said(out, "pattern", notes, why)
    if rules.few_items and out.get("minItems", 0) not in (0, 1):
        said(out, "minItems", notes, why)
    if "enum" in out and any(isinstance(v, dict | list) for v in out["enum"]):
        raise NotStrict("choices that are objects or lists")
    return out


def _typed(schema: Schema, rules: StrictRules, notes: Notes) -> Schema:
    out = dict(schema)
    choices = out.get("enum", [out["const"]] if "const" in out else None)
    if choices is not None:
        out.pop("anyOf", None)
        if not rules.typed_choices:
            out.pop("type", None)
            return {k: v for k, v in out.items() if k in ("enum", "const", "description", "title")}
        if "type" not in out:
            kinds = list(dict.fromkeys(type_of(c) for c in choices))
            out["type"] = kinds[0] if len(kinds) == 1 else kinds
        return out
    if "anyOf" in out and ("type" in out or "properties" in out):
        said(out, "anyOf", notes, "strict mode takes it without a type beside it only")
    if "anyOf" in out:
        return {k: v for k, v in out.items() if k in ("anyOf", "description", "title", "$defs")}
    if "type" not in out:
        if "properties" not in out and "items" not in out:
            raise NotStrict("a value of any type")
        out["type"] = "object" if "properties" in out else "array"
    return out


def _object(schema: Schema, notes: Notes) -> Schema:
    kinds = schema.get("type")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        return {k: v for k, v in schema.items() if k not in ("properties", "required", "additionalProperties")}
    if "properties" not in schema or (not schema["properties"] and "additionalProperties" not in schema):
        raise NotStrict("an object with properties of any name")
    out = {**schema, "additionalProperties": False}
    required = [n for n in schema.get("required", ()) if n in schema["properties"]]
    if lost := [n for n in schema.get("required", ()) if n not in required]:
        notes[f"required: {', '.join(lost)} are no properties"] = None
    return {**out, "required": required} if "required" in schema else out


def _required(schema: Schema) -> Schema:
    if "properties" not in schema:
        return schema
    needed = schema.get("required", ())
    properties = {n: s if n in needed else _or_null(s) for n, s in schema["properties"].items()}
    return {**schema, "properties": properties, "required": list(properties)}


def _or_null(schema: Schema) -> Schema:
    if allows_null(schema):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    out = {k: v for k, v in schema.items() if k != "const"} | {"type": list(dict.fromkeys([*kinds, "null"]))}
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return out if choices is None else {**out, "enum": [*choices, None]}


def _written_for(value: Any, schema: Schema, definitions: Mapping[str, Schema], tried: set[str]) -> Schema | None:
    """The schema itself, or of a choice the branch, that a value was written for: of objects the one with exactly its names.

    `tried` are the definitions looked at for this value: none is worth a second look, and some lead in circles.
    """
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in tried or name not in definitions:
            return None
        tried.add(name)
        schema = definitions[name]
    if "anyOf" in schema:
        found = (_written_for(value, s, definitions, tried) for s in schema["anyOf"])
        return next((s for s in found if s is not None), None)
    return schema if _fits(value, schema) else None


def _fits(value: Any, schema: Schema) -> bool:
    kinds = schema.get("type")
    kind = type_of(value)
    if kinds is not None and kind not in kinds and not (kind == "integer" and "number" in kinds):
        return False
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if not isinstance(value, dict) or "properties" not in schema:
        return True
    constants = {n: s for n, s in schema["properties"].items() if "const" in s or "enum" in s}
    return value.keys() == schema["properties"].keys() and all(value[n] is None or _fits(value[n], s) for n, s in constants.items())


def _depth(schema: Any, definitions: Mapping[str, Schema], known: dict[str, int]) -> int:
    """How deep objects lie in objects; a schema that refers to itself counts once."""
    if not isinstance(schema, dict):
        return 0
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name not in known:
            known[name] = 0
            known[name] = _depth(definitions.get(name), definitions, known)
        return known[name]
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), schema.get("items")]
    return ("properties" in schema) + max(_depth(s, definitions, known) for s in inner)
