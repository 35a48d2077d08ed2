"""From a model's answer to a plan's data: models wrap JSON in fences, prose and calls of functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.answers import without_thoughts
from orchestrator.providers.model import ModelReply

MOST = 2 << 20  # characters of an answer that are looked at; a plan has at most 1 MiB
_TRIES = 20
_DEEPEST = 4  # wrappings
_WRAPPED = ("plan", "arguments", "function_call", "input", "parameters", "answer", "response", "result", "output")
_REASON = 300
_BLANK: tuple[Any, ...] = (None, "", {}, [])
_KEPT = ("id", "tool", "input")  # of a step, whatever they say


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer holds: a plan's data, or why there can be none, or what is wrong with the answer itself."""

    data: dict[str, Any] | None = None
    cannot: str | None = None
    problem: dict[str, Any] | None = None


def parse(reply: ModelReply) -> Answered:
    """The plan in an answer, or the model's reason why it makes none, or a problem to send back."""
    candidates = [] if reply.value is None else [reply.value]
    candidates += _values(without_thoughts(reply.text), whole=reply.stop == "length")
    opened = [found for value in candidates if (found := _opened(value)) is not None]
    if plan := next((found for found in opened if "cannot" not in found), None):
        return Answered(data=plan)
    if said := next((found["cannot"] for found in opened), None):
        return Answered(cannot=one_line(said))
    return Answered(problem=_problem(reply, candidates))


def one_line(text: str, *, most: int = _REASON) -> str:
    """A model's words for a message: one line, no control characters, cut when long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[:most]}…"


def _opened(value: Any, depth: int = 0) -> dict[str, Any] | None:
    """The object with `steps`, or with `cannot`, in a value and its wrappings."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and depth < _DEEPEST:
        return next((f for v in _values(value) if (f := _opened(v, depth + 1)) is not None), None)
    if isinstance(value, list) and value and all(isinstance(v, Mapping) and "tool" in v for v in value):
        return {"steps": value}
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("cannot"), str) and value["cannot"].strip():
        return {"cannot": value["cannot"]}
    if isinstance(value.get("steps"), list):
        return _without_blanks({k: v for k, v in value.items() if k != "cannot"})
    if depth >= _DEEPEST:
        return None
    return next((f for name in _WRAPPED if name in value and (f := _opened(value[name], depth + 1)) is not None), None)


def _without_blanks(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without fields that say nothing: some vendors make models write every field of the schema."""
    steps = [{k: v for k, v in s.items() if k in _KEPT or v not in _BLANK} if isinstance(s, Mapping) else s for s in plan["steps"]]
    return {**{k: v for k, v in plan.items() if v not in _BLANK}, "steps": steps}


def _values(text: str, *, whole: bool = False) -> Iterator[Any]:
    """The JSON values in a text. Behind one that cannot be read only objects count; with `whole` nothing: it would be a part."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    text, at, broken = text[:MOST], 0, False
    for _ in range(_TRIES):
        begin = re.compile(r"[{\[]").search(text, at)
        if begin is None:
            return
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            if whole:
                return
            at, broken = begin.start() + 1, True
            continue
        if not broken or isinstance(value, Mapping):
            yield value


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _problem(reply: ModelReply, candidates: list[Any]) -> dict[str, Any]:
    if reply.stop == "length":
        message = "The answer was cut off before the plan was whole."
        return _said("cut_off", message, "Write a shorter plan: `map` for work that repeats, no long texts.")
    if not reply.text.strip() and not candidates:
        return _said("empty_answer", "The answer was empty.", "Answer with the plan as one JSON object.")
    if any(isinstance(c, Mapping) for c in candidates):
        return _said(
            "no_plan", "The answer is JSON, but has no list `steps`.", 'Answer with `{"steps": [...]}` or `{"cannot": "..."}`.'
        )
    return _said("no_plan", "The answer holds no JSON object.", "Answer with the plan as one JSON object and nothing else.")


def _said(code: str, message: str, move: str) -> dict[str, Any]:
    return {"path": "$", "code": code, "message": message, "next": move}
