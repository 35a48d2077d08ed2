"""The schemas of an OpenAPI document as JSON Schema 2020-12 that stands alone: what they refer to comes along as `$defs`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from orchestrator.catalog.files import FORMAT
from orchestrator.models.file import REF_PATTERN

MOST_DEPTH = 50
MOST_SENT, MOST_RECEIVED = 2_000, 400  # parts; what lies beyond is not described: anything passes there, and the API judges
FILE = {"type": "string", "format": FORMAT, "pattern": REF_PATTERN}

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_ONES = frozenset(
    {
        "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
        "unevaluatedProperties", "contentSchema", "additionalItems",
    }
)  # fmt: skip
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_DROPPED = frozenset({"nullable", "example", "xml", "externalDocs", "discriminator", "readOnly", "writeOnly", "$schema", "$id"})


class Unusable(Exception):
    """Why an operation, or the whole document, cannot be used."""


def target(document: Mapping[str, Any], ref: Any) -> Any:
    """What a reference within the document names.

    Raises:
        Unusable: it leads out of the document, or nowhere.
    """
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise Unusable(f"it refers to `{str(ref)[:100]}`, outside of the document")
    node: Any = document
    for part in unquote(ref[2:]).split("/") if ref != "#" else ():
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            raise Unusable(f"it refers to `{ref[:100]}`, which the document does not have")
    return node


def followed(document: Mapping[str, Any], node: Any) -> Any:
    """The object itself where a reference to it stands.

    Raises:
        Unusable: the reference leads nowhere, or round in a circle.
    """
    for _ in range(10):
        if not isinstance(node, Mapping) or "$ref" not in node:
            return node
        node = target(document, node["$ref"])
    raise Unusable(f"it refers to `{str(node['$ref'])[:100]}`, which leads back to itself")


class Schemas:
    """The schemas of one side of one operation, and the `$defs` that they share.

    `sending`: what only answers hold (`readOnly`) is left out; else what only requests hold. `old`: the document is of 3.0.
    """

    def __init__(self, document: Mapping[str, Any], *, old: bool, sending: bool) -> None:
        self._document, self._old, self._sending = document, old, sending
        self._names: dict[str, str] = {}
        self._todo: list[str] = []
        self._parts = 0

    def converted(self, schema: Any, depth: int = 0) -> Any:
        """The schema; what it refers to is noted for `definitions`.

        Raises:
            Unusable: it is nested too deep, or refers to what is not there.
        """
        self._parts += 1
        if depth > MOST_DEPTH:
            raise Unusable(f"a schema is nested more than {MOST_DEPTH} deep")
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" in schema and (self._old or not set(schema) - {"$ref"}):
            return self._referred(schema["$ref"])  # in 3.0 what stands beside it does not count
        made = {k: self._value(k, v, depth + 1) for k, v in schema.items() if k not in _DROPPED and not k.startswith("x-")}
        self._without_one_sided(schema, made)
        if "example" in schema and "examples" not in made:
            made["examples"] = [schema["example"]]
        return _of_old(schema, made) if self._old else made

    def definitions(self) -> dict[str, Any]:
        """`$defs` of all that was converted so far, and of what that refers to."""
        made: dict[str, Any] = {}
        while self._todo:
            ref = self._todo.pop(0)
            within = self._parts <= (MOST_SENT if self._sending else MOST_RECEIVED)
            made[self._names[ref]] = self.converted(target(self._document, ref)) if within else {}
        return {name: made[name] for name in sorted(made)}

    def _value(self, keyword: str, value: Any, depth: int) -> Any:
        if keyword == "$ref":
            return self._referred(value)["$ref"]
        if keyword in _MAPS and isinstance(value, Mapping):
            return {name: self.converted(inner, depth) for name, inner in value.items()}
        if keyword in _LISTS | _ONES and isinstance(value, list):
            return [self.converted(inner, depth) for inner in value]
        return self.converted(value, depth) if keyword in _ONES else value

    def _referred(self, ref: Any) -> dict[str, Any]:
        target(self._document, ref)
        if ref not in self._names:
            self._names[ref] = self._name_for(ref)
            self._todo.append(ref)
        return {"$ref": f"#/$defs/{self._names[ref]}"}

    def _name_for(self, ref: str) -> str:
        name = re.sub(r"[^\w.-]", "_", unquote(ref.rpartition("/")[2]), flags=re.ASCII) or "schema"
        taken, number = set(self._names.values()), 2
        while (made := name if number == 2 else f"{name}_{number - 1}") in taken:
            number += 1
        return made

    def _without_one_sided(self, schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        """Leaves out the properties that go the other way only."""
        mark, properties = "readOnly" if self._sending else "writeOnly", schema.get("properties")
        if not isinstance(properties, Mapping):
            return
        out = {name for name, inner in properties.items() if self._is_marked(inner, mark)}
        if out:
            made["properties"] = {n: s for n, s in made["properties"].items() if n not in out}
            if isinstance(made.get("required"), list):
                made["required"] = [n for n in made["required"] if n not in out]

    def _is_marked(self, schema: Any, mark: str) -> bool:
        node = followed(self._document, schema)
        return isinstance(node, Mapping) and node.get(mark) is True


def _of_old(schema: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """What 3.0 says otherwise than 2020-12."""
    for edge, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(edge), bool) and made.pop(edge) and limit in made:
            made[edge] = made.pop(limit)
    if made.get("format") == "byte":
        made["contentEncoding"] = "base64"
    return _or_null(made) if schema.get("nullable") is True else made


def _or_null(made: dict[str, Any]) -> dict[str, Any]:
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
        return made
    if not any(k in made for k in ("allOf", "anyOf", "oneOf", "$ref", "enum")):
        return made  # it has no type: null passes already
    told: dict[str, Any] = {k: made.pop(k) for k in ("description", "title", "default", "examples") if k in made}
    return {"anyOf": [made, {"type": "null"}], **told}


def is_file(schema: Any) -> bool:
    """Whether a property of a form is a file: `format: binary`, or bytes of a media type that are not encoded."""
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type", "string")
    if kinds != "string" and not (isinstance(kinds, Iterable) and "string" in kinds):
        return False
    media = schema.get("contentMediaType")
    return schema.get("format") == "binary" or (
        isinstance(media, str) and "contentEncoding" not in schema and not media.startswith("text/")
    )


def with_file(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a file as a tool takes it: a reference to one of the tenant's."""
    told = {k: schema[k] for k in ("title", "description") if k in schema}
    return {**FILE, **told}
