"""What a docstring says of a function or class, in Google's, NumPy's, Sphinx's or Epydoc's style; and its examples."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import docstring_parser
from docstring_parser.common import Docstring

if TYPE_CHECKING:
    import doctest

_ATTRIBUTES = frozenset({"var", "ivar", "cvar"})  # of Sphinx's style; the parser leaves them as they are
_HEADING = re.compile(r"^(examples?:?|-{3,}|={3,}|\.\. .*::.*|usage:?)$", re.IGNORECASE)
_NO_PROSE = "From its documentation"


@dataclass(frozen=True, slots=True)
class Doc:
    """A docstring: its prose without the sections, what it says of each parameter or field, and of the result."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    returns: str = ""
    deprecated: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A call that an example shows: its arguments, and the result where one stands there. Both are plain JSON values."""

    scenario: str
    positional: tuple[Any, ...]
    named: dict[str, Any]
    result: Any = None


def read_doc(text: str | None) -> Doc:
    """The docstring; what follows none of the styles is all prose."""
    clean = inspect.cleandoc(text or "")
    try:
        parsed = docstring_parser.parse(clean)
    except docstring_parser.ParseError:
        return Doc(description=clean)
    deprecation = parsed.deprecation.description if parsed.deprecation else None
    return Doc(
        description="\n\n".join(t for t in (parsed.short_description, parsed.long_description) if t),
        parameters=dict(_described(parsed)),
        returns=(parsed.returns.description or "") if parsed.returns and len(parsed.many_returns) == 1 else "",
        deprecated=deprecation or "",
    )


def _described(parsed: Docstring) -> Iterator[tuple[str, str]]:
    for meta in parsed.meta:
        if meta.args and meta.args[0] in _ATTRIBUTES and meta.description:
            yield meta.args[-1], meta.description
    for parameter in parsed.params:
        for name in parameter.arg_name.split(","):  # NumPy's style describes several at once: `x, y : int`
            if parameter.description:
                yield name.strip().lstrip("*"), parameter.description


def read_uses(text: str | None, *, names: frozenset[str]) -> Iterator[Use]:
    """The doctests that are one call of a function of these names with literal arguments, and its literal result if it has one."""
    if ">>>" not in (text or ""):
        return
    try:
        # Loaded here, since it brings unittest and the debugger along.
        parts = import_module("doctest").DocTestParser().parse(inspect.cleandoc(text or ""))
    except ValueError:  # no prompt, or indentation, as doctest wants it
        return
    prose = ""
    for part in parts:
        if isinstance(part, str):
            prose = _last_paragraph(part) or prose
        elif (use := _use(part, names, prose or _NO_PROSE)) is not None:
            yield use
            prose = ""


def _last_paragraph(text: str) -> str:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    kept: list[str] = []
    for line in reversed(lines):
        if not line or _HEADING.match(line):
            break
        kept.insert(0, line)
    return " ".join(kept).rstrip(":")


def _use(example: doctest.Example, names: frozenset[str], scenario: str) -> Use | None:
    if example.exc_msg is not None:
        return None
    try:
        call: Any = ast.parse(example.source.strip(), mode="eval").body
        call = call.value if isinstance(call, ast.Await) else call
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names):
            return None
        positional = tuple(_plain(a) for a in call.args)
        named = {k.arg: _plain(k.value) for k in call.keywords if k.arg is not None}
        result = _plain(ast.parse(example.want.strip(), mode="eval").body) if example.want.strip() else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return Use(scenario, positional, named, result) if len(named) == len(call.keywords) else None


def _plain(node: ast.expr) -> Any:
    """The value of a literal that JSON can say as it stands.

    Raises:
        ValueError, TypeError: it is something else.
    """
    value = ast.literal_eval(node)
    if json.loads(json.dumps(value, allow_nan=False)) != value:  # a tuple, or keys that are no strings
        raise ValueError("JSON has no such value")
    return value
