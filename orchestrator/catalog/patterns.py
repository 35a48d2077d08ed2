"""Whether a regular expression may take for ever: judged by its form, never by running it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]  # the parser of `re` has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from re import error as BadPattern
from typing import Any

LONGEST = 2_000
_FEW = 16  # repeats of so many at most are no danger
_SAMPLES = frozenset([*range(128), 0xE9, 0x4E2D])
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)


@lru_cache(maxsize=4096)
def risky_pattern(pattern: str) -> bool:
    """Whether a backtracking engine may take for ever over a pattern: open repeats of what can be split in several ways.

    A pattern that Python's parser does not know is not judged, one that is very long is a risk.
    """
    if len(pattern) > LONGEST:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _risky(parser.parse(pattern))
    except (BadPattern, RecursionError, OverflowError):
        return False


def _risky(parsed: Iterable[Any]) -> bool:
    return any((_open(part) and _ambiguous(part[1][2])) or any(_risky(inner) for inner in _inside(part)) for part in parsed)


def _open(part: Any) -> bool:
    op, argument = part
    return op in _REPEATS and argument[1] - argument[0] > _FEW


def _inside(part: Any) -> Sequence[Any]:
    """The patterns that a part is made of."""
    op, argument = part
    if op in _REPEATS:
        return [argument[2]]
    if op is sre.BRANCH:
        return list(argument[1])
    if op is sre.SUBPATTERN:
        return [argument[3]]
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return [argument[1]]
    return []


def _ambiguous(body: Any) -> bool:
    """Whether repeats of a body can match one text in many ways."""
    parts = _flat(body)
    loops = [p for p in _all(body) if _open(p)]
    branches = [p for p in _all(body) if p[0] is sre.BRANCH]
    if any(p[0] is sre.GROUPREF for p in _all(body)) or any(_overlap(p[1][1]) for p in branches):
        return True
    looped = frozenset().union(*(_chars(p) for p in loops))
    fixed = [_chars(p) for p in parts if p[0] in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY)]
    return bool(loops) and not any(own and not own & looped for own in fixed)  # a separator keeps the repeats apart


def _flat(body: Any) -> list[Any]:
    """The parts that each repeat has, groups opened."""
    return [p for part in body for p in (_flat(part[1][3]) if part[0] is sre.SUBPATTERN else [part])]


def _all(body: Any) -> Iterable[Any]:
    for part in body:
        yield part
        for inner in _inside(part):
            yield from _all(inner)


def _overlap(alternatives: Sequence[Any]) -> bool:
    """Whether two alternatives may begin alike, or one of them is empty."""
    seen: frozenset[int] = frozenset()
    for alternative in alternatives:
        first = next(iter(_flat(alternative)), None)
        own = _chars(first) if first is not None else _SAMPLES
        if own & seen:
            return True
        seen |= own
    return False


def _chars(part: Any) -> frozenset[int]:
    """Of the sample characters, those that a part may hold."""
    op, argument = part
    if op is sre.LITERAL:
        return frozenset({argument})
    if op is sre.NOT_LITERAL:
        return _SAMPLES - {argument}
    if op is sre.ANY:
        return _SAMPLES
    if op is sre.IN:
        return _in_set(argument)
    if op is sre.AT or op in (sre.ASSERT, sre.ASSERT_NOT):
        return frozenset()
    inside = _inside(part)
    return frozenset().union(*(_chars(p) for body in inside for p in body)) if inside else _SAMPLES


def _in_set(items: Sequence[Any]) -> frozenset[int]:
    negated = bool(items) and items[0][0] is sre.NEGATE
    found: set[int] = set()
    for op, argument in items[1:] if negated else items:
        if op is sre.LITERAL:
            found.add(argument)
        elif op is sre.RANGE:
            found.update(c for c in _SAMPLES if argument[0] <= c <= argument[1])
        elif op is sre.CATEGORY:
            found.update(c for c in _SAMPLES if _of_category(argument, chr(c)))
    return _SAMPLES - found if negated else frozenset(found)


def _of_category(category: Any, char: str) -> bool:
    tests = {
        sre.CATEGORY_DIGIT: char.isdigit(),
        sre.CATEGORY_SPACE: char.isspace(),
        sre.CATEGORY_WORD: char.isalnum() or char == "_",
    }
    opposites = {
        sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
        sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
        sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
    }
    return not tests[opposites[category]] if category in opposites else tests.get(category, True)
