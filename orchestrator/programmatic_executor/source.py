"""A program's text: read within bounds, and its places shown as people count them."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.errors import LimitExceeded, ProgramError

MAX_CODE = 64 * 1024
"""Bytes of UTF-8 that a program may have. Python takes quadratic time for some of them, in which no thread of the process runs."""

_MAX_SHOWN = 120
_MAX_BRACKETS = 100  # Python itself stops at 200
_WARNINGS = threading.Lock()
_TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_TOO_DEEP = "The program is nested too deeply."
_SPLIT = "Split the expression into several statements."

_MOVES = (
    ("'return' outside function", "Assign the value to `output` instead."),
    ("'await' outside", "Make the function around it `async def`, and await that one where it is called."),
    ("async", "Make the function around it `async def`."),
    ("was never closed", "Close it."),
    ("unterminated", "End the string on its line, or use three quotes."),
    ("indent", "Indent the lines of a block alike, with spaces."),
    ("Missing parentheses in call to 'print'", "Programs are Python 3: write `print(...)`."),
)


@dataclass(slots=True, frozen=True)
class Spot:
    """A place in the program, both counted from 1; the column in characters."""

    line: int
    column: int


@dataclass
class Source:
    """The text of a program, by line."""

    code: str
    _lines: dict[int, str] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[str]:
        return re.split(r"\r\n|\r|\n", self.code)

    def spot(self, node: ast.AST) -> Spot:
        """Where the node starts."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        text = self._line(line)
        return Spot(line, len(text.encode()[:offset].decode(errors="replace")) + 1)

    def problem(self, spot: Spot, code: str, message: str, next: str) -> dict[str, Any]:
        """A problem as data: `path, code, message, next, line, column, source`, the last with a caret below the column."""
        return {
            "path": f"line {spot.line}, column {spot.column}",
            "code": code,
            "message": message,
            "next": next,
            "line": spot.line,
            "column": spot.column,
            "source": self._shown(spot),
        }

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def _shown(self, spot: Spot) -> str:
        """The line and a caret; of a long line only what is around it."""
        text, at = self._line(spot.line), spot.column - 1
        start = max(0, at - _MAX_SHOWN // 2) if len(text) > _MAX_SHOWN else 0
        cut = text[start : start + _MAX_SHOWN]
        plain = "".join(c if c.isprintable() else " " for c in cut)
        return f"{plain.rstrip()}\n{' ' * (at - start)}^"


def read(code: str) -> tuple[ast.Module, Source]:
    """The program, parsed.

    Raises:
        LimitExceeded: it is longer than `MAX_CODE`.
        ProgramError: Python cannot read it.
    """
    if len(code) > MAX_CODE or len(code.encode(errors="replace")) > MAX_CODE:
        raise LimitExceeded(
            f"The program is longer than {MAX_CODE // 1024} KiB.", next="Give data as `input_data`, not as part of the program."
        )
    code = code.removeprefix("\ufeff")  # the mark that some editors put before a text
    source = Source(code)
    _check_characters(source)
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes; they are no business of the host's log
            tree = ast.parse(code, "<program>")
            compile(tree, "<program>", "exec", flags=_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        raise _refusal(source, error) from None
    except (RecursionError, MemoryError):
        raise _at(source, Spot(1, 1), _TOO_DEEP, _SPLIT) from None
    except (ValueError, OverflowError, SystemError) as error:
        raise _at(
            source, Spot(1, 1), f"Python cannot read the program: {str(error)[:200]}.", "Write it as plain UTF-8 text."
        ) from None
    return tree, source


def _check_characters(source: Source) -> None:
    """Python's own words for these name no place."""
    found = re.search("[\0\ud800-\udfff]", source.code)
    if found:
        line = len(re.findall(r"\r\n|\r|\n", source.code[: found.start()]))
        begin = found.start() - sum(len(part) for part in re.split(r"(\r\n|\r|\n)", source.code)[: 2 * line])
        name = "a null byte" if found[0] == "\0" else "half of a character"
        raise _at(source, Spot(line + 1, begin + 1), f"The program contains {name}.", "Write it as plain UTF-8 text.")
    _check_brackets(source)


# Possessive, and a text without its end goes to the end: whatever is matched is never looked at again.
_LEXEMES = re.compile(
    r"#[^\n]*+"
    r"|'''(?:[^\\']|\\.|'(?!''))*+(?:''')?"
    r'|"""(?:[^\\"]|\\.|"(?!""))*+(?:""")?'
    r"|'(?:[^'\\\n]|\\.)*+'?"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|[\[\](){}]",
    re.S,
)


def _check_brackets(source: Source) -> None:
    """Refuses brackets in brackets without end before a parser sees them; strings and comments do not count."""
    depth = 0
    for found in _LEXEMES.finditer(source.code):
        text = found[0]
        depth = depth + 1 if text in "([{" else max(0, depth - 1) if text in ")]}" else depth
        if depth > _MAX_BRACKETS:
            line = source.code.count("\n", 0, found.start()) + 1
            column = found.start() - source.code.rfind("\n", 0, found.start())
            raise _at(source, Spot(line, column), _TOO_DEEP, _SPLIT)


def _refusal(source: Source, error: SyntaxError) -> ProgramError:
    message = (error.msg or "invalid syntax")[:300]
    if "too many nested" in message or "too many levels" in message or "too many statically" in message:
        return _at(source, Spot(error.lineno or 1, max(1, error.offset or 1)), _TOO_DEEP, _SPLIT)
    move = next((move for words, move in _MOVES if words in message), "Mend this line.")
    spot = Spot(max(1, error.lineno or 1), max(1, error.offset or 1))
    return _at(source, spot, f"Syntax error: {message} at line {spot.line}.", move)


def _at(source: Source, spot: Spot, message: str, next: str) -> ProgramError:
    problem = source.problem(spot, "syntax", message, next)
    return ProgramError(message, next=next, problems=[problem])
