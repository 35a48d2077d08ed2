"""From a model's words to a value that fits the schema: models wrap JSON in prose, fences and thoughts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from orchestrator.errors import ModelError

_LONGEST = 200_000  # characters; what is longer is no answer of a small schema
_TRIES = 20  # places where an object may begin
_THINKS, _THOUGHT = "<think>", "</think>"


def read_answer(text: str, schema: Mapping[str, Any]) -> Any:
    """The first JSON value in the text that fits the schema.

    Raises:
        ModelError: `model_bad_answer`: there is none. The message quotes nothing of the text.
    """
    checker = Draft202012Validator(schema)
    found = False
    for value in _values(_without_thoughts(text[:_LONGEST])):
        found = True
        if checker.is_valid(value):
            return value
    what = "JSON that does not fit the schema" if found else "no JSON"
    raise ModelError(f"the model answered with {what}", code="model_bad_answer")


def _without_thoughts(text: str) -> str:
    """The text without what stands between the two tags; found by hand, as a pattern would look to the end from every first tag."""
    kept, at = [], 0
    while (begin := text.find(_THINKS, at)) >= 0 and (end := text.find(_THOUGHT, begin)) >= 0:
        kept.append(text[at:begin])
        at = end + len(_THOUGHT)
    return "".join([*kept, text[at:]])


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=_no_number)  # NaN and Infinity are no JSON
    for at, _ in zip(re.finditer(r"[{\[]", text), range(_TRIES), strict=False):
        try:
            yield decoder.raw_decode(text, at.start())[0]
        except (ValueError, RecursionError):  # a JSONDecodeError is one; a number of 5,000 digits raises the plain one
            continue
