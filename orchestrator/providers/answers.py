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
_THOUGHTS = re.compile(r"(?s)<think>.*?</think>")


def read_answer(text: str, schema: Mapping[str, Any]) -> Any:
    """The first JSON value in the text that fits the schema.

    Raises:
        ModelError: `model_bad_answer`: there is none. The message quotes nothing of the text.
    """
    checker = Draft202012Validator(schema)
    found = False
    for value in _values(_THOUGHTS.sub("", text[:_LONGEST])):
        found = True
        if checker.is_valid(value):
            return value
    what = "JSON that does not fit the schema" if found else "no JSON"
    raise ModelError(f"the model answered with {what}", code="model_bad_answer")


def _values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for at, _ in zip(re.finditer(r"[{\[]", text), range(_TRIES), strict=False):
        try:
            yield decoder.raw_decode(text, at.start())[0]
        except (json.JSONDecodeError, RecursionError):
            continue
