"""Whether a regular expression may take for ever or is very heavy: judged by its form, never by running it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]  # the parser of `re` has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from re import error as BadPattern
from typing import Any

LONGEST = 2_000
MOST_WEIGHT = 2_000  # made ready in a tenth of a second
_WIDE = 25  # the weight of a class with characters of all scripts, beside one of a few
_FEW = 16  # repeats of so many at most are no danger
_COUNT = re.compile(r"\{(?:\d{1,6},)?(\d{1,6}),?\}")
_UNICODE_CLASS = re.compile(r"\\[pP](?:\{[^}]*\}|[A-Z])")
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


@lru_cache(maxsize=4096)
def weight_of(pattern: str) -> int:
    """How large a pattern is with its counted repeats written out, roughly; MOST_WEIGHT and more when that cannot be told."""
    if len(pattern) > MOST_WEIGHT:
        return len(pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _weight(parser.parse(_UNICODE_CLASS.sub(r"\\w", pattern)))
    except (BadPattern, RecursionError, OverflowError):
        counts: int = math.prod(max(1, int(n)) for n in _COUNT.findall(pattern))
        return min(len(pattern) * counts * (_WIDE if "\\" in pattern else 1), MOST_WEIGHT + 1)


def _weight(parsed: Iterable[Any]) -> int:
    return sum(_weight_of_part(part) for part in parsed)


def _weight_of_part(part: Any) -> int:
    op, argument = part
    inner = sum(_weight(body) for body in _inside(part))
    if op in _REPEATS:
        least, most = int(argument[0]), int(argument[1])
        return 1 + inner * max(1, least if most == int(sre.MAXREPEAT) else most)
    if op is sre.IN:
        return sum(_WIDE if i[0] is sre.CATEGORY else 1 for i in argument)
    return 1 + inner


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
