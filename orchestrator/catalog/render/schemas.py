"""JSON Schemas of any draft brought to one form: 2020-12, an object at the root, references that lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]
Notes = dict[str, None]  # what was changed and why, each once, in order

TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
MAPS = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
ONES = frozenset(
    {"items", "contains", "additionalProperties", "propertyNames", "if", "then", "else", "not", "unevaluatedItems", "contentSchema"}
    | {"unevaluatedProperties"}
)
MAX_DEPTH = 32
MAX_NODES = 3_000  # of one schema; references to references to references may stand for billions
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_OPEN = frozenset({"additionalProperties", "unevaluatedProperties", "unevaluatedItems"})  # `true` and `false` stay there
_SILENT = frozenset({"$schema", "$id", "id", "$comment", "$anchor", "$dynamicAnchor", "$vocabulary", "$recursiveAnchor", "$defs"})
_SILENT |= {"definitions", "nullable", "additionalItems"}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"}
)
_FLAGS = frozenset({"uniqueItems", "deprecated", "readOnly", "writeOnly"})
_TEXTS = frozenset({"description", "title", "pattern", "format"})
_BELONGS = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}),
    "object": frozenset({"properties", "required", "additionalProperties", "patternProperties", "propertyNames"})
    | {"minProperties", "maxProperties"},
    "number": _NUMBERS,
    "integer": _NUMBERS,
}
_ANNOTATIONS = ("description", "title", "default", "examples")


def mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """The schema with every schema in it changed, the innermost first."""
    out: Schema = {}
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            out[key] = {name: mapped(s, change) if isinstance(s, dict) else s for name, s in value.items()}
        elif key in LISTS and isinstance(value, list):
            out[key] = [mapped(s, change) if isinstance(s, dict) else s for s in value]
        else:
            out[key] = mapped(value, change) if key in ONES and isinstance(value, dict) else value
    return change(out)


def every(schema: Schema) -> Iterable[Schema]:
    """The schema and all within it."""
    yield schema
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            inner: Iterable[Any] = value.values()
        elif key in LISTS and isinstance(value, list):
            inner = value
        else:
            inner = (value,) if key in ONES else ()
        for s in inner:
            if isinstance(s, dict):
                yield from every(s)


def modern(schema: Mapping[str, Any], notes: Notes) -> Schema:
    """The schema as 2020-12, a copy: only what is well formed, and of the definitions only those that are used, in `$defs`."""
    return _Modern(schema, notes).whole()


def object_root(schema: Schema, notes: Notes) -> Schema:
    """The schema as one object with `properties`: no vendor takes a choice between schemas at the root."""
    definitions = schema.get("$defs", {})
    root = _Root(definitions, notes).of(schema, frozenset())
    for word in ("enum", "const", "not", "if", "then", "else"):
        if word in root:
            said(root, word, notes, "at the root")
    if root.get("type") != "object":
        if root.get("type") is not None and "object" not in root["type"]:
            notes["the root was no object"] = None
        root["type"] = "object"
    root.setdefault("properties", {})
    return {"type": "object", **root, **({"$defs": definitions} if definitions else {})}


def inlined(schema: Schema, notes: Notes) -> Schema:
    """The schema without `$ref`; what refers to itself ends there as a value of its plain type."""
    out: Schema = _Inline(schema.get("$defs", {}), notes).of({k: v for k, v in schema.items() if k != "$defs"}, (), 0)
    return out


def said(schema: Schema, word: str, notes: Notes, why: str) -> None:
    """Moves a keyword into the description, where the model can still read it."""
    value = schema.pop(word)
    text = f"{word}: {clipped(json.dumps(value, ensure_ascii=False, separators=(', ', ': ')))}"
    add_text(schema, text)
    notes[f"{word}: said in the description ({why})"] = None


def add_text(schema: Schema, text: str) -> None:
    """Says more in a schema's description."""
    known = schema.get("description")
    schema["description"] = f"{known}\n{text}" if known else text


def clipped(text: str, most: int = 300) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def only(schema: Schema, kept: frozenset[str], notes: Notes, why: str, *, silent: frozenset[str] = frozenset()) -> Schema:
    """One schema with the `kept` keywords; the others are said in its description, the `silent` ones left out."""
    out = dict(schema)
    for word in [w for w in out if w not in kept]:
        if word in silent:
            del out[word]
        else:
            said(out, word, notes, why)
    return out


def merged(schema: Schema, notes: Notes) -> Schema:
    """One schema with its `allOf` taken into it, where the parts do not contradict each other in ways that we cannot say."""
    if "allOf" not in schema:
        return schema
    rest = {k: v for k, v in schema.items() if k != "allOf"}
    if any(not isinstance(b, dict) or "$ref" in b for b in schema["allOf"]):
        if len(schema["allOf"]) == 1 and not set(rest) - {*_ANNOTATIONS}:
            only_part: Schema = schema["allOf"][0]
            return {**only_part, **rest}
        return schema
    notes["allOf: its parts are one schema now"] = None
    return _joined(rest, schema["allOf"], "allOf")


def listed(schema: Schema, notes: Notes) -> Schema:
    """One schema of an array with one schema for all its items, which those vendors want that know no tuples."""
    kinds = schema.get("type")
    if not (kinds == "array" or (isinstance(kinds, list) and "array" in kinds) or "prefixItems" in schema):
        return schema
    out = {k: v for k, v in schema.items() if k != "prefixItems"}
    if "prefixItems" in schema:
        notes["prefixItems: any of the items' schemas, at any place"] = None
        rest = [schema["items"]] if isinstance(schema.get("items"), dict) else []
        kinds_of = _distinct([s for s in [*schema["prefixItems"], *rest] if isinstance(s, dict)])
        out["items"] = kinds_of[0] if len(kinds_of) == 1 else {"anyOf": kinds_of}
    elif not isinstance(out.get("items"), dict):
        out["items"] = {}
    return out


def one_type_each(schema: Schema) -> Schema:
    """One schema whose `type` is a list as `anyOf` of a schema for each type."""
    kinds = schema.get("type")
    if not isinstance(kinds, list) or "anyOf" in schema:
        return schema
    notes_of = {k: schema[k] for k in _ANNOTATIONS if k in schema}
    rest = {k: v for k, v in schema.items() if k not in notes_of and k != "type"}
    return {**notes_of, "anyOf": [_of_type(k, rest) for k in kinds]}


def type_of(value: Any) -> str:
    """The type of a JSON value."""
    if isinstance(value, bool):
        return "boolean"
    words = {str: "string", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}
    return words.get(type(value), "object")


def allows_null(schema: Any) -> bool:
    """Whether the schema says that null is a value."""
    if not isinstance(schema, dict):
        return False
    if "const" in schema or "enum" in schema:
        return None in schema.get("enum", [schema.get("const", 0)])
    kinds = schema.get("type")
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return True
    return any(allows_null(s) for word in ("anyOf", "oneOf") for s in schema.get(word, ()))


def plain(text: str) -> str:
    """Text that any vendor takes: without control characters, but for tabs and ends of lines, and without halves of characters."""
    clean = _CONTROL.sub(" ", text.replace("\r\n", "\n"))
    return clean if clean.isascii() else clean.encode("utf-8", "replace").decode("utf-8")


class _Modern:
    """Reads one schema of any draft."""

    def __init__(self, root: Mapping[str, Any], notes: Notes) -> None:
        self.root = root
        self.notes = notes
        self.names: dict[str, str] = {}  # of definitions, by the pointer to them
        self.numbers: dict[str, int] = {}  # how many wanted a name
        self.defs: dict[str, Schema] = {}
        self.waiting: list[tuple[str, Any]] = []
        self.nodes = 0

    def whole(self) -> Schema:
        out = self.of(self.root, 0)
        while self.waiting:
            name, target = self.waiting.pop(0)
            self.defs[name] = self.of(target, 0)
        for name, definition in self.defs.items():
            if self.leads_to_itself(name):
                self.notes["$ref: leads in a circle; any value is taken"] = None
                del definition["$ref"]
        return {**out, "$defs": dict(sorted(self.defs.items()))} if self.defs else out

    def of(self, schema: Any, depth: int) -> Schema:
        self.nodes += 1
        if schema is False:
            return {"not": {}}
        if not isinstance(schema, Mapping):
            return {}
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            self.notes["cut: it is nested too deeply or too large"] = None
            return {}
        out = {k: v for key, value in schema.items() for k, v in self.pair(str(key), value, schema, depth)}
        return _nullable(out) if schema.get("nullable") is True else out

    def pair(self, key: str, value: Any, schema: Mapping[str, Any], depth: int) -> list[tuple[str, Any]]:
        """A keyword as we write it: none, one, or two."""
        if key in _SILENT:
            return []
        if key in _REFERENCES:
            return self.reference(value)
        if key == "items" and isinstance(value, list):  # a tuple of the drafts before 2020-12
            rest = schema.get("additionalItems")
            parts = [self.of(s, depth + 1) for s in value]
            return [("prefixItems", parts)] * bool(parts) + (
                [("items", self.of(rest, depth + 1))] if isinstance(rest, dict) else []
            )
        if key in ONES:
            return [(key, value if isinstance(value, bool) and key in _OPEN else self.of(value, depth + 1))]
        if key in LISTS:
            return [(key, [self.of(s, depth + 1) for s in value])] if isinstance(value, list) and value else []
        if key in MAPS:
            return [(key, self.map(key, value, depth))] if isinstance(value, Mapping) else []
        if key in ("dependencies", "dependentRequired") and not isinstance(value, Mapping):
            return []
        if key == "dependencies":
            lists = {n: [m for m in v if isinstance(m, str)] for n, v in value.items() if isinstance(v, list)}
            others = {n: self.of(v, depth + 1) for n, v in value.items() if not isinstance(v, list)}
            return [("dependentRequired", lists)] * bool(lists) + [("dependentSchemas", others)] * bool(others)
        return self.plain_pair(key, value, schema)

    def map(self, key: str, value: Mapping[str, Any], depth: int) -> Schema:
        forbidden = [n for n, s in value.items() if s is False and key == "properties"]
        if forbidden:
            self.notes[f"never allowed, so not shown: {', '.join(forbidden)}"] = None
        return {str(n): self.of(s, depth + 1) for n, s in value.items() if n not in forbidden}

    def plain_pair(self, key: str, value: Any, schema: Mapping[str, Any]) -> list[tuple[str, Any]]:
        if key in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(value, bool):  # draft 4
            bound = schema.get(key.replace("exclusiveM", "m"))
            return [(key, bound)] if value and isinstance(bound, int | float) else []
        found = _well_formed(key, value)
        if found is None:
            self.notes[f"{key}: left out, it is not well formed"] = None
            return []
        return [(key, found[0])]

    def reference(self, pointer: Any) -> list[tuple[str, Any]]:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            self.notes["$ref: leads outside of the schema; any value is taken"] = None
            return []
        if pointer not in self.names:
            try:
                target = _at(self.root, pointer)
            except LookupError:
                self.notes["$ref: leads nowhere; any value is taken"] = None
                return []
            self.names[pointer] = self.free_name(pointer)
            self.waiting.append((self.names[pointer], target))
        return [("$ref", f"#/$defs/{self.names[pointer]}")]

    def leads_to_itself(self, name: str) -> bool:
        """Whether a definition is nothing but a way back to itself."""
        seen, at = {name}, self.defs[name].get("$ref")
        while at is not None:
            at = at.removeprefix("#/$defs/")
            if at in seen:
                return bool(at == name)
            seen.add(at)
            at = self.defs[at].get("$ref")
        return False

    def free_name(self, pointer: str) -> str:
        wanted = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in unquote(pointer).rpartition("/")[2])
        wanted = wanted.strip("#") or "Root"
        name, taken = wanted, set(self.names.values())
        while name in taken:
            self.numbers[wanted] = self.numbers.get(wanted, 1) + 1
            name = f"{wanted}_{self.numbers[wanted]}"
        return name


class _Inline:
    def __init__(self, definitions: Mapping[str, Schema], notes: Notes) -> None:
        self.definitions = definitions
        self.notes = notes
        self.nodes = 0

    def of(self, schema: Any, stack: tuple[str, ...], depth: int) -> Any:
        if not isinstance(schema, dict):
            return schema
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            self.notes["cut: it is nested too deeply or too large"] = None
            return _ended(schema)
        if "$ref" in schema:
            return self.target(schema, stack, depth)
        out: Schema = {}
        for key, value in schema.items():
            if key in MAPS and isinstance(value, dict):
                out[key] = {n: self.of(s, stack, depth + 1) for n, s in value.items()}
            elif key in LISTS and isinstance(value, list):
                out[key] = [self.of(s, stack, depth + 1) for s in value]
            else:
                out[key] = self.of(value, stack, depth + 1) if key in ONES else value
        return out

    def target(self, schema: Schema, stack: tuple[str, ...], depth: int) -> Schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        target = self.definitions.get(name, {})
        rest = {k: v for k, v in schema.items() if k != "$ref"}
        if name in stack:
            self.notes[f"$ref: {name} refers to itself; cut there"] = None
            return {**_ended(target), "description": f"again as described for {name}", **rest}
        self.notes["$ref: written out"] = None
        found: Schema = self.of({**target, **rest}, (*stack, name), depth + 1)
        return found


def _ended(schema: Schema) -> Schema:
    """A schema's type, without what is within."""
    kinds = schema.get("type")
    return {"type": kinds} if isinstance(kinds, str) else {}


class _Root:
    """Takes the references, parts and choices at the root into it, however deep they stand within each other."""

    def __init__(self, definitions: Mapping[str, Schema], notes: Notes) -> None:
        self.definitions = definitions
        self.notes = notes
        self.nodes = 0

    def of(self, schema: Schema, path: frozenset[str]) -> Schema:
        """A copy that may be changed; `path` are the definitions that it stands in."""
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            self.notes["cut: it is nested too deeply or too large"] = None
            return {}
        out, path = self.resolved(schema, path)
        for word in ("allOf", "anyOf", "oneOf"):
            if branches := out.pop(word, None):
                out = _joined(out, [self.of(b, path) for b in branches if isinstance(b, dict)], word)
                self.notes[f"{word} at the root: its properties are the tool's, its conditions are said in the description"] = None
        return out

    def resolved(self, schema: Schema, path: frozenset[str]) -> tuple[Schema, frozenset[str]]:
        """A schema that is no reference, without its own definitions, and those that it stands in."""
        out = {k: v for k, v in schema.items() if k != "$defs"}
        while "$ref" in out:
            name = out.pop("$ref").removeprefix("#/$defs/")
            if name in path:
                break
            path |= {name}
            out = {**self.definitions.get(name, {}), **out}
        return out, path


def _joined(schema: Schema, branches: list[Schema], word: str) -> Schema:
    """The schema with the properties of its branches; with `allOf` also with all that they ask for."""
    out = dict(schema)
    if word != "allOf":
        properties = _either([s["properties"] for s in (schema, *branches) if "properties" in s])
        out |= {"properties": properties} if properties else {}
        _say_choice(out, branches, word)
        return out
    for branch in branches:
        for key, value in branch.items():
            if key == "properties":
                out[key] = _with_properties(out.get(key, {}), value)
            elif key == "required":
                out[key] = list(dict.fromkeys([*out.get(key, []), *value]))
            elif key == "description" and out.get(key):
                out[key] = out[key] if value in out[key] else f"{out[key]}\n{value}"
            elif key not in out:
                out[key] = value
    return out


def _say_choice(out: Schema, branches: list[Schema], word: str) -> None:
    required = frozenset(out.get("required", ()))
    needs = [[n for n in b.get("required", []) if n not in required] for b in branches]
    if shared := [n for n in (needs[0] if needs else []) if all(n in more for more in needs)]:
        out["required"] = [*out.get("required", []), *shared]
    told = list(dict.fromkeys(" and ".join(f"`{n}`" for n in more) or "none of the others" for more in needs))
    if len(told) > 1:
        how = "Exactly" if word == "oneOf" else "At least"
        add_text(out, f"{how} one of these is needed: {clipped('; '.join(told), 1_000)}.")


def _with_properties(known: Schema, more: Schema) -> Schema:
    """The properties of two schemas that both hold."""
    return {n: {**more.get(n, {}), **known.get(n, {})} for n in dict.fromkeys([*known, *more])}


def _either(sets: Iterable[Mapping[str, Schema]]) -> Schema:
    """The properties of schemas of which one holds; where they differ in one, it is any of theirs."""
    options: dict[str, list[Schema]] = {}
    for properties in sets:
        for name, schema in properties.items():
            options.setdefault(name, []).extend(schema["anyOf"] if schema.keys() == {"anyOf"} else [schema])
    distinct = {name: _distinct(schemas) for name, schemas in options.items()}
    return {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in distinct.items()}


def _distinct(schemas: list[Schema]) -> list[Schema]:
    return list({json.dumps(s, sort_keys=True): s for s in schemas}.values())


def _of_type(kind: str, rest: Schema) -> Schema:
    others = frozenset().union(*_BELONGS.values())
    mine = {k: v for k, v in rest.items() if k in _BELONGS.get(kind, ()) or k not in others}
    if "enum" in mine:
        mine["enum"] = [v for v in mine["enum"] if type_of(v) == kind or (kind == "number" and type_of(v) == "integer")]
        if not mine["enum"] or kind in ("null", "boolean"):
            del mine["enum"]
    return {"type": kind, **mine}


def _nullable(schema: Schema) -> Schema:
    """OpenAPI's `nullable: true`."""
    kinds = schema.get("type")
    if isinstance(kinds, str) and kinds != "null":
        enum = {"enum": [*schema["enum"], None]} if "enum" in schema and None not in schema["enum"] else {}
        return {**schema, "type": [kinds, "null"], **enum}
    return schema if kinds or not schema else {"anyOf": [schema, {"type": "null"}]}


def _well_formed(key: str, value: Any) -> tuple[Any] | None:
    """The value of a keyword that holds no schema, a copy; None when it is not what the keyword takes."""
    if key == "type":
        kinds = [k for k in (value if isinstance(value, list) else [value]) if isinstance(k, str) and k in TYPES]
        return ((kinds[0] if len(kinds) == 1 else list(dict.fromkeys(kinds))),) if kinds else None
    if key in _TEXTS:
        return (plain(value),) if isinstance(value, str) else None
    if key in _NUMBERS | _COUNTS:
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value or abs(value) == float("inf"):
            return None
        fits = value == int(value) >= 0 if key in _COUNTS else key != "multipleOf" or value > 0
        return (value,) if fits else None
    if key == "required":
        return (list(dict.fromkeys(n for n in value if isinstance(n, str))),) if isinstance(value, list) else None
    if key == "enum" and (not isinstance(value, list) or not value):
        return None
    if (key in _FLAGS and not isinstance(value, bool)) or (key == "examples" and not isinstance(value, list)):
        return None
    if isinstance(value, bool | str | None):
        return (value,)
    try:
        return (json.loads(json.dumps(value, allow_nan=False)),)
    except (TypeError, ValueError, RecursionError):
        return None


def _at(root: Any, pointer: str) -> Any:
    """What a JSON pointer such as `#/$defs/Node` points to."""
    found = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) and name.isdigit() else _member(found, name)
    if pointer != "#" and not pointer.startswith("#/"):
        raise KeyError(pointer)
    return found


def _member(found: Any, name: str) -> Any:
    if not isinstance(found, Mapping):
        raise KeyError(name)
    return found[name]
