"""The answer as the input of one tool that the model calls, where a vendor's structured output does not take a schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer

ABOUT = "Gives the answer. Call it once, with the whole answer."
_DEFINITIONS = ("$defs", "definitions")
_CHOICES = frozenset({"anyOf", "oneOf", "allOf", "$ref"})


@dataclass(frozen=True)
class AnswerTool:
    """The tool; its input is the answer, or holds it as `value` where vendors would not take the schema as a tool's."""

    name: str
    parameters: Mapping[str, Any] = field(hash=False)
    wrapped: bool = False

    @classmethod
    def of(cls, schema: Mapping[str, Any], name: str, taken: Collection[str]) -> AnswerTool:
        """The tool for a schema, under the name or, where one of the request's tools has it, under one like it."""
        while name in taken:
            name += "_"
        whole: dict[str, Any] = copy.deepcopy(dict(schema))
        if schema.get("type") == "object" and _CHOICES.isdisjoint(schema):
            return cls(name, whole)
        definitions: dict[str, Any] = {k: whole.pop(k) for k in _DEFINITIONS if k in whole}
        return cls(name, {"type": "object", "properties": {"value": whole}, "required": ["value"], **definitions}, True)

    def text(self, given: Any, *, cut: bool = False) -> str:
        """The answer as JSON text, made from the tool's input; of one that was `cut` off, text that is surely not the whole."""
        whole = json.dumps(given["value"] if self.wrapped and isinstance(given, Mapping) and "value" in given else given)
        return whole[:-1] if cut else whole


def fitting(text: str, schema: Mapping[str, Any] | None) -> Any:
    """The JSON value that the text is, or else the first one in it, that fits the schema; None: there is none, or no schema."""
    if schema is None:
        return None
    try:
        whole = json.loads(text)
        if Draft202012Validator(schema).is_valid(whole):
            return whole
    except (ValueError, RecursionError):
        pass
    try:
        return read_answer(text, schema)
    except ModelError:
        return None


def key_of(schema: Mapping[str, Any]) -> str:
    """What tells one schema from another."""
    return json.dumps(schema, sort_keys=True)
