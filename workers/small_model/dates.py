"""The date of a receipt: of all dates it prints, the one that its label, its time of day and its repeats speak for.

The order of day and month is told by the place, by other dates on the receipt, and by what lies in the future; where nothing
tells it, the day is taken to be first, with little confidence. Labels are in `dates.json`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from math import exp

from workers.small_model import countries
from workers.small_model.countries import Place
from workers.small_model.date_shapes import LABELS, Shape, flat, shapes, weekday_names

_CLOCK = re.compile(r"(?<![\d.,:])\d{1,2}\s?[:;h]\s?[0-5o]\d(?:[:;.]\s?[0-5o]\d)?(?!\d)|\b\d{1,2}[.:]\d{2}\s?(?:[ap]\.?m|uhr)\b")
_RANGE = re.compile(r"\s*(?:-|to|until|bis|till|au|al|hasta|tot|s/d)\s*")
_VALUE = re.compile(r"\d{3,}|\d\s")  # a number that a label ahead was for
_POINTS = {"date": 3.0, "perhaps": 1.0, "seldom": -3.0, "number": -3.0, "": 0.0}
_SURE = 0.98  # no reading is certain
_LEAST = 0.01  # no order is impossible anywhere
_AGREES = 200  # how much likelier a reading is that is printed elsewhere in a way that leaves no choice
_NAMED = 30  # how much likelier a reading is that falls on the day of the week printed beside it
_AGES = 8  # years in which a receipt gets so much rarer that two readings are told apart by their age


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


@dataclass(frozen=True)
class _Candidate:
    shape: Shape
    line: int
    text: str
    points: float
    soft: bool  # more likely the date of something else
    weekdays: frozenset[int]  # the days that the name beside it can be; empty without one
    value: date = date.min
    order: float = 1.0  # the chance that day and month are the right way round
    later: bool = False  # after today


def read_date(
    lines: Sequence[str],
    *,
    place: Place | None = None,
    confidences: Sequence[float] | None = None,
    today: date | None = None,
) -> FoundDate | None:
    """The day the receipt was printed, or None where no line holds a date of its own.

    Args:
        lines: The lines of the receipt.
        place: Where it was printed, for the order of day and month; None: it is read off the lines.
        confidences: How sure the OCR is of each line, 0 to 1.
        today: No receipt is of a later day; None: today by the clock.
    """
    where, now = place or countries.place(lines), today or date.today()
    found = _resolve(_candidates(lines, where, now), where, now)
    if not found:
        return None
    values = _points_by_value(found)
    best = max(found, key=lambda c: (values[c.value], c.points, c.shape.quality))
    return FoundDate(
        value=best.value,
        line=best.line,
        text=best.text,
        confidence=round(_confidence(best, found, values) * _legible(confidences, best.line), 3),
        problem=_problem(best, found, values),
    )


def _candidates(lines: Sequence[str], where: Place, today: date) -> list[_Candidate]:
    """Every date in the lines but those that a label calls the end of an offer, a birthday and the like."""
    every = [shapes(line, country=where.country, languages=where.languages, today=today) for line in lines]
    return [
        _candidate(lines, n, shape, every=every, kind=kind)
        for n, in_line in enumerate(every)
        for shape in in_line
        if (kind := _label(lines, n, shape, in_line)) != "never"
    ]


def _candidate(lines: Sequence[str], n: int, shape: Shape, *, every: Sequence[Sequence[Shape]], kind: str) -> _Candidate:
    of_range, weekdays = _is_range(lines[n], shape, every[n]), _weekdays(flat(lines[n]), shape)
    points = _POINTS["seldom" if of_range else kind] + _signs(lines[n], shape, weekdays) + _clock(lines, n, shape, every)
    return _Candidate(
        shape, n, lines[n][shape.start : shape.end].strip(), points, soft=of_range or kind == "seldom", weekdays=weekdays
    )


def _label(lines: Sequence[str], n: int, shape: Shape, others: Sequence[Shape]) -> str:
    """The kind of label that the date stands behind, in its line or, where it begins the line, above it."""
    ahead = flat(lines[n][: shape.start])
    if kind := _last_label(ahead, ends=[o.end for o in others if o.end <= shape.start]):
        return kind
    if n and not re.search(r"[^\W_]{2}", _no_weekday(ahead)):
        above = flat(lines[n - 1])
        kind = _last_label(above, ends=[])
        hanging = bool(re.search(r":\s*$", above)) or _label_end(above) > len(above) - 4
        if kind and not re.search(r"\d", above) and (hanging or kind == "date"):
            return kind
    return _head(flat(lines[n - 1])) if n else ""


def _head(above: str) -> str:
    """What a row of column heads says of a date under it."""
    if "  " not in above or re.search(r"\d", above):
        return ""
    kinds = {str(match.lastgroup) for match in _labels().finditer(above)} - {"number"}
    return "date" if "date" in kinds else kinds.pop() if len(kinds) == 1 else ""


def _last_label(text: str, *, ends: Sequence[int]) -> str:
    """The kind of the last label in the text that no number or other date has been the value of."""
    kind = ""
    for match in _labels().finditer(text):
        between = text[match.end() :]
        used = any(end > match.end() for end in ends) or (
            match.lastgroup in ("number", "seldom", "perhaps") and _VALUE.search(between)
        )
        kind = "" if used else str(match.lastgroup)
    return kind


def _label_end(text: str) -> int:
    return max((m.end() for m in _labels().finditer(text)), default=-9)


@cache
def _labels() -> re.Pattern[str]:
    """All labels; a kind that rules a date out takes the word `date` behind it along."""
    kinds = []
    for kind in ("never", "seldom", "perhaps", "number", "date"):
        words = "|".join(_loose(flat(word)) for word in sorted(LABELS[kind], key=len, reverse=True))
        left = (
            r"(?<![a-z])"
            if kind != "date"
            else r"(?<![a-z])|(?<=trans)|(?<=invoice)|(?<=bill)|(?<=receipt)|(?<=[a-z]{3})(?=dat[ou])"
        )
        behind = rf"(?:\s?(?:{'|'.join(_loose(flat(w)) for w in LABELS['date'])}|from|until|by|on|no|:))*" if kind != "date" else ""
        kinds.append(rf"(?P<{kind}>(?:{left})(?:{words}){behind}(?![a-z]))")
    return re.compile("|".join(kinds))


def _loose(word: str) -> str:
    """The word with the letters that OCR takes for others, and blanks that it drops."""
    likeness = {"o": "[o0]", "i": "[il1]", "l": "[il1]", " ": r"[\s.]{0,2}", ".": r"\.?", "-": "-?"}
    return "".join(likeness.get(c, re.escape(c)) for c in word)


def _no_weekday(text: str) -> str:
    return "".join(word for word in re.findall(r"[^\W\d_]+", text) if word not in weekday_names())


def _is_range(line: str, shape: Shape, others: Sequence[Shape]) -> bool:
    """Whether the date is one end of `01/03/2018 - 31/03/2018`."""
    text = flat(line)
    return any(_RANGE.fullmatch(text[a.end : b.start]) for a in others for b in others if a.end < b.start and shape in (a, b))


def _signs(line: str, shape: Shape, weekdays: frozenset[int]) -> float:
    """What speaks for the date of purchase: the day of the week, a whole year; and against it: it is part of a longer number."""
    text = flat(line)
    ahead, behind = text[: shape.start], text[shape.end :]
    points = 1.0 if weekdays else 0.0
    points += 0.5 if shape.style == "name" or shape.style.endswith("4") else 0.0
    if re.search(r"\d[-/#_]$|[a-z][-/#_]$", ahead) and _last_label(ahead, ends=[]) != "date":
        points -= 3.0
    if re.match(r"[-/_]\w", behind):
        points -= 3.0
    return points


def _weekdays(text: str, shape: Shape) -> frozenset[int]:
    """The days of the week that the word before or behind the date names."""
    words = re.findall(r"([a-z]+)[.,]?[^a-z\d]{0,3}$", text[: shape.start]) + re.findall(
        r"^[^a-z\d]{0,3}([a-z]+)", text[shape.end :]
    )
    return next((weekday_names()[word] for word in words if word in weekday_names()), frozenset())


def _clock(lines: Sequence[str], n: int, shape: Shape, every: Sequence[Sequence[Shape]]) -> float:
    """What a time of day speaks for the date: in its line much, in a line beside it that has no date of its own a little."""
    text = flat(lines[n])
    if shape.clock or _CLOCK.search(text[shape.end :]) or _CLOCK.search(text[: shape.start]):
        return 2.0
    beside = [m for m in (n - 1, n + 1) if 0 <= m < len(lines) and not every[m]]
    return 1.0 if any(_CLOCK.search(flat(lines[m])) for m in beside) else 0.0


def _resolve(found: Sequence[_Candidate], where: Place, today: date) -> list[_Candidate]:
    """Each candidate with the likeliest of its readings."""
    plain = {next(iter(c.shape.readings.values())) for c in found if _is_plain(c.shape)}
    resolved = []
    for candidate in found:
        weights = _weights(candidate, found, plain, where=where, today=today)
        best = max(weights, key=lambda value: weights[value])
        order = weights[best] / sum(weights.values()) * _usual(candidate.shape, best, where)
        resolved.append(replace(candidate, value=best, order=order, later=best > today + timedelta(days=1)))
    return resolved


def _usual(shape: Shape, value: date, where: Place) -> float:
    """What is taken off where the only reading has an order that the country does not write: a figure may be misread."""
    orders = {order for order, day in shape.readings.items() if day == value}
    unusual = orders == {"dmy"} if where.month_first else orders == {"mdy"}
    figures = shape.style != "name" and where.month_first is not None
    return 1.0 - 0.4 * where.country_confidence if unusual and figures else 1.0


def _is_plain(shape: Shape) -> bool:
    return len(set(shape.readings.values())) == 1


def _weights(
    candidate: _Candidate, found: Sequence[_Candidate], plain: set[date], *, where: Place, today: date
) -> dict[date, float]:
    """How likely each day is that the figures can stand for."""
    orders = _order_weights(candidate.shape, found, where)
    weights: dict[date, float] = defaultdict(float)
    for order, value in candidate.shape.readings.items():
        likely = orders.get(order, 0.1) * exp(-abs((value - today).days) / 365 / _AGES)
        likely *= 0.002 if value > today + timedelta(days=1) else 1.0
        likely *= _NAMED if value.weekday() in candidate.weekdays else 1.0
        weights[value] += likely * (_AGREES if value in plain else 1)
    return weights


def _order_weights(shape: Shape, found: Sequence[_Candidate], where: Place) -> Mapping[str, float]:
    """How likely each order is: by the country, the separator, and dates in the same style that can be read but one way."""
    month = where.month_first_chance if where.country or where.month_first is not None else min(where.month_first_chance, 0.3)
    month *= 0.1 if shape.style.startswith(".") else 1.0
    year = 0.04
    if where.country and countries.date_order(where.country) == "ymd":
        year += 0.5 * where.country_confidence
    orders = {"dmy": max(1 - month, _LEAST) * (1 - year), "mdy": max(month, _LEAST) * (1 - year), "ymd": year}
    for other in found:
        if other.shape.style == shape.style and len(other.shape.readings) == 1:
            orders[next(iter(other.shape.readings))] = orders.get(next(iter(other.shape.readings)), 0.1) * 20
    return orders


def _points_by_value(found: Sequence[_Candidate]) -> dict[date, float]:
    """The points of each day: those of its best print, and something for each repeat and for being the latest."""
    prints: dict[date, list[float]] = defaultdict(list)
    for candidate in found:
        prints[candidate.value].append(candidate.points + 3.0 * (candidate.shape.quality - 1) - 6.0 * candidate.later)
    latest = max((c.value for c in found if not c.later), default=None)
    first = found[0].value
    return {
        value: max(points) + 1.5 * (len(points) > 1) + 0.7 * (value == latest) + 0.5 * (value == first)
        for value, points in prints.items()
    }


def _confidence(best: _Candidate, found: Sequence[_Candidate], values: Mapping[date, float]) -> float:
    """The chance that the figures are read right, in the right order, and that it is the date of the receipt."""
    wrong = 1.0
    for candidate in found:
        if candidate.value == best.value:
            wrong *= 1 - min(candidate.shape.quality, _SURE)
    order = max(c.order for c in found if c.value == best.value)
    rivals = sum(exp(points - values[best.value]) for value, points in values.items() if abs((value - best.value).days) > 1)
    role = (0.99 if best.points >= 1.5 else 0.93 if best.points >= 0 else 0.6) / (1 + 0.7 * rivals)
    doubt = (0.35 if best.soft else 1.0) * (0.2 if best.later else 1.0)
    return min((1 - wrong) * order * role * doubt, _SURE)


def _legible(confidences: Sequence[float] | None, line: int) -> float:
    """What the OCR's own doubt takes off."""
    return 1.0 if not confidences or confidences[line] >= 0.9 else 0.5 + 0.5 * confidences[line] / 0.9


def _problem(best: _Candidate, found: Sequence[_Candidate], values: Mapping[date, float]) -> str | None:
    rival = max((v for v in values if v != best.value), key=lambda v: values[v], default=None)
    if best.later:
        return f"the date {best.text} is in the future"
    if best.order < 0.8:
        return f"the date {best.text} can be read two ways"
    if best.soft:
        return f"the date {best.text} may be that of something else than the purchase"
    if best.shape.quality < 0.7:
        return f"the date {best.text} was read badly"
    if rival and abs((rival - best.value).days) > 1 and values[rival] > values[best.value] - 1.5:
        other = next(c.text for c in found if c.value == rival)
        return f"the receipt prints two dates: {best.text} and {other}"
    return None
