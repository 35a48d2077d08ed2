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
    for value in _values(without_thoughts(text[:_LONGEST])):
        found = True
        if checker.is_valid(value):
            return value
    what = "JSON that does not fit the schema" if found else "no JSON"
    raise ModelError(f"the model answered with {what}", code="model_bad_answer")


def without_thoughts(text: str) -> str:
    """The text without what a model thought aloud, for servers that do not take it out.

    Thoughts stand between two tags, found by hand, as a pattern would look to the end from every first tag. A lone last tag ends
    them too, since some templates write the first one themselves; a lone first tag says that they never ended. What begins as
    JSON has none: there the tags would be a part of its texts.
    """
    if text.lstrip()[:1] in ("{", "["):
        return text
    kept, at = [], 0
    while (begin := text.find(_THINKS, at)) >= 0 and (end := text.find(_THOUGHT, begin)) >= 0:
        kept.append(text[at:begin])
        at = end + len(_THOUGHT)
    rest = "".join([*kept, text[at:]]).rpartition(_THOUGHT)[2]
    return "" if rest.lstrip().startswith(_THINKS) else rest


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=_no_number)  # NaN and Infinity are no JSON
    for at, _ in zip(re.finditer(r"[{\[]", text), range(_TRIES), strict=False):
        try:
            yield decoder.raw_decode(text, at.start())[0]
        except (ValueError, RecursionError):  # a JSONDecodeError is one; a number of 5,000 digits raises the plain one
            continue
