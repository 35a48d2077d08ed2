"""The date of a receipt: read where the order of day and month is certain, else left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from workers.small_model.countries import Place

_MONTHS = (
    "jan ene gen",
    "feb fév fev",
    "mar mär mrz",
    "apr avr abr",
    "may mai mag",
    "jun juin giu",
    "jul juil lug",
    "aug aoû ago",
    "sep set",
    "oct okt ott out",
    "nov",
    "dec dez déc dic",
)
_NAMES = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_MONTH = r"(?P<month>[A-Za-zäéûÄÉ]{3,10})\.?"
_YEAR = r"(?P<year>(?:19|20)\d{2}|\d{2}(?!\d))"
_YEAR_FIRST = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d{2})(?P<s>[-/.])(?P<a>\d{1,2})(?P=s)(?P<b>\d{1,2})(?!\d{3})")
_NUMBERS = re.compile(rf"(?<![\d.])(?P<a>\d{{1,2}})\s?(?P<s>[-/.])\s?(?P<b>\d{{1,2}})\s?(?P=s)\s?{_YEAR}")
_DAY_NAME = re.compile(rf"(?<!\d)(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?[\s/-]?{_MONTH}[\s,/'-]*{_YEAR}")
_NAME_DAY = re.compile(rf"\b{_MONTH}\s?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[\s,]+{_YEAR}")
_OTHER_DATE = re.compile(r"\b(?:due|expir\w*|valid|until|return|before|delivery|gültig|bis)\b", re.IGNORECASE)


@dataclass(frozen=True)
class FoundDate:
    """The date of a receipt.

    Attributes:
        value: The date.
        line: Index of the line that prints it.
        text: The date as it was read.
        confidence: The chance that it is right, 0 to 1; below 0.5 it is not to be relied on.
        problem: What speaks against it, in words, or None.
    """

    value: date
    line: int
    text: str
    confidence: float
    problem: str | None = None


def read_date(
    lines: Sequence[str],
    *,
    place: Place | None = None,
    confidences: Sequence[float] | None = None,
    today: date | None = None,
) -> FoundDate | None:
    """The day the receipt was printed, or None where no line holds a date.

    Args:
        lines: The lines of the receipt.
        place: Where it was printed, for the order of day and month; None: it is read off the lines.
        confidences: How sure the OCR is of each line, 0 to 1.
        today: No receipt is of a later day; None: today by the clock.
    """
    month_first = place.month_first if place else None
    for sure, order in ((0.9, month_first), (0.5, False)):
        for n, line in enumerate(lines):
            value, _ = find_date([line], month_first=order)
            if value and value <= (today or date.today()):
                return FoundDate(value, n, line, sure * (confidences[n] if confidences else 1.0))
    return None


def find_date(lines: Sequence[str], *, month_first: bool | None) -> tuple[date | None, str | None]:
    """The first date in the lines, and what is the matter with it, if anything.

    Args:
        lines: The lines of the receipt.
        month_first: Whether 05/02 is the second of May; None: not known, then such a date is not read.
    """
    problem: str | None = None
    ordered = sorted(
        (line for line in lines if not _OTHER_DATE.search(line)), key=lambda line: not re.search(r"(?i)\bdat[eu]", line)
    )
    for line in ordered:
        found, trouble = _in_line(line, month_first=month_first)
        if found:
            return found, None
        problem = problem or trouble
    return None, problem or "no date could be read"


def _in_line(line: str, *, month_first: bool | None) -> tuple[date | None, str | None]:
    if match := _YEAR_FIRST.search(line):
        return _date(match["year"], match["a"], match["b"]), None
    for pattern in (_DAY_NAME, _NAME_DAY):
        if (match := pattern.search(line)) and (
            month := _NAMES.get(match["month"].lower()[:4]) or _NAMES.get(match["month"].lower()[:3])
        ):
            return _date(match["year"], month, match["day"]), None
    if match := _NUMBERS.search(line):
        return _by_numbers(match, month_first=month_first)
    return None, None


def _by_numbers(match: re.Match[str], *, month_first: bool | None) -> tuple[date | None, str | None]:
    a, b, year = match["a"], match["b"], match["year"]
    day_first, month_day = _date(year, b, a), _date(year, a, b)
    if match["s"] == ".":  # dots are written where the day comes first
        return day_first, None
    if day_first and month_day and day_first != month_day:
        if month_first is None:
            return None, f"the date {match[0]} can be read two ways"
        return (month_day if month_first else day_first), None
    return day_first or month_day, None


def _date(year: str, month: str | int, day: str | int) -> date | None:
    try:
        return date(int(year) + (2000 if len(year) == 2 else 0), int(month), int(day))
    except ValueError:
        return None
