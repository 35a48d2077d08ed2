"""From a path in a plan to its line and column in the file, and a caret under it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from orchestrator.errors import PlanError
from orchestrator.planner.fixes import fix_text
from orchestrator.planner.problems import parts

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")  # JSON writes an emoji as two; YAML refuses them
_AT_KEY = frozenset({"unknown_field", "unknown_argument", "unknown_input"})  # the name is wrong, not the value
_WIDTH = 100
_DEEPEST = 1_000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line, both counted from 1; `width` in columns, at least 1."""

    line: int = 1
    column: int = 1
    width: int = 1


def read_text(text: str) -> Any:
    """The plan that a JSON text holds.

    Raises:
        PlanError: the text is no JSON; its problem carries `line` and `column` too.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        problem = {"message": f"This is no JSON: {error.msg}.", "line": error.lineno, "column": error.colno}
    except _Twice as error:
        problem = {"message": str(error), "line": 1, "column": 1} | _place_of_twice(text, error)
    except RecursionError:
        problem = {"message": "This is nested too deeply.", "line": 1, "column": 1}
    except ValueError as error:  # a number of thousands of digits
        problem = {"message": f"This is no JSON: {error}.", "line": 1, "column": 1}
    where = f"line {problem['line']}, column {problem['column']}"
    raise PlanError(
        f"The plan cannot be read: {where}.", problems=[{"path": "$", "code": "bad_json", "next": f"Mend {where}.", **problem}]
    )


def locate(text: str, path: str, *, key: bool = False) -> tuple[int, int, str]:
    """Line and column (both from 1) of what lies at a path such as `steps[3].input.image_uri`, and the line itself.

    What is not there is found at the nearest thing around it. `key` asks for the name of the field, not its value.
    """
    span = _span(text, path, key=key)
    return span.line, span.column, _line(text, span.line)


def render_problem(text: str, filename: str, problem: Mapping[str, Any]) -> str:
    """A problem for a terminal: file and place, the line with a caret, the message, an example, the next move, a fix."""
    path = str(problem.get("path") or "$")
    move = "".join(f"\n  {line}" for line in _below(problem, path))
    if problem.get("given") or (problem.get("code") == "missing_input" and "line" not in problem):
        return f"{path}  (an input that comes with the plan)\n  {problem.get('message', '')}{move}"
    if "line" in problem:
        span = Span(int(problem["line"]), int(problem.get("column", 1)))
    else:
        span = _span(text, path, key=problem.get("code") in _AT_KEY)
    shown, caret = _window(_line(text, span.line), span)
    head = f"{filename}:{span.line}:{span.column}  {path}"
    return f"{head}\n    {shown}\n    {caret}\n  {problem.get('message', '')}{move}"


def _below(problem: Mapping[str, Any], path: str) -> list[str]:
    """What is said beneath the message; an example that only repeats what the caret points at is left out."""
    example, move, fix = str(problem.get("example") or ""), problem.get("next"), problem.get("fix")
    told = example and not example.startswith(f"`{path}` is ") and ": there is no `" not in example
    lines = [f"For example: {example}"] if told else []
    return [*lines, *([str(move)] if move else []), *([f"Fix: {fix_text(fix)}"] if isinstance(fix, Mapping) else [])]


class _Twice(ValueError):
    """A key that stands twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The key `{key[:60]}` stands twice in one object; the first one would be lost.")
        self.key = key


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise _Twice(key)
        made[key] = value
    return made


def _place_of_twice(text: str, error: _Twice) -> dict[str, int]:
    node = _compose(text)
    mark = _second(node, error.key) if node is not None else None
    return {"line": mark.line + 1, "column": mark.column + 1} if mark else {}


def _second(node: Any, key: str) -> Any:
    """The mark of the key's second standing in the first object that has it twice."""
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, yaml.MappingNode):
            keys = [k for k, _ in here.value if k.value == key]
            if len(keys) > 1:
                return keys[1].start_mark
            todo.extend(v for _, v in reversed(here.value))
        elif isinstance(here, yaml.SequenceNode):
            todo.extend(reversed(here.value))
    return None


@lru_cache(maxsize=2)
def _compose(text: str) -> Any:
    """The nodes of a text with their marks; None when it is too odd for YAML. Tabs count as one column."""
    if _depth(text) > _DEEPEST:
        return None  # libyaml recurses in C, and a stack overflow there ends the process
    try:
        return yaml.compose(_SURROGATE.sub(r"\\u0041", text.replace("\t", " ")), Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _depth(text: str) -> int:
    """The deepest nesting of brackets, at least: those inside strings count too."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _span(text: str, path: str, *, key: bool) -> Span:
    node = _compose(text)
    if node is None:
        return Span()
    start, end = node.start_mark, node.end_mark
    for part in parts(path):
        found = _child(node, part)
        if found is None:
            return Span(start.line + 1, start.column + 1)  # missing: point at what should hold it
        name, node = found
        marked = name if key and name is not None else node
        start, end = marked.start_mark, marked.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Span(start.line + 1, start.column + 1, max(1, width))


def _child(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """The node of a key with its value's, or of an element."""
    if isinstance(part, int):
        inside = isinstance(node, yaml.SequenceNode) and part < len(node.value)
        return (None, node.value[part]) if inside else None
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((k, v) for k, v in node.value if k.value == part), None)


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _window(line: str, span: Span) -> tuple[str, str]:
    """The part of a line around a span, without its indentation, and the caret line beneath it."""
    at = span.column - 1
    indent = len(line) - len(line.lstrip())
    start = min(indent, at) if len(line) - indent <= _WIDTH else max(min(indent, at), at - _WIDTH // 2)
    shown = line[start : start + _WIDTH].replace("\t", " ").rstrip()
    before, after = ("…" if start > indent else ""), ("…" if len(line.rstrip()) > start + _WIDTH else "")
    room = max(1, len(shown) - (at - start))
    pad = len(before) + _columns(shown[: at - start])
    return f"{before}{shown}{after}", " " * pad + "^" * max(1, min(span.width, room))


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)
