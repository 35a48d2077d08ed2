"""What in a line can be a date: every shape that a printed date takes, and the days that it can be read as."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from babel import Locale
from rapidfuzz.distance import Levenshtein

_DATA: dict[str, Any] = json.loads(files("workers.small_model").joinpath("dates.json").read_text(encoding="utf-8"))
_LATIN = (
    *("af", "bs", "ca", "cs", "cy", "da", "de", "en", "es", "et", "eu", "fi", "fil", "fr", "ga", "gl", "hr", "hu", "id", "is"),
    *("it", "lb", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt", "ro", "sk", "sl", "sq", "sr_Latn", "sv", "sw", "tr", "uz", "zu"),
)
_LEAST = 0.05  # shapes that are hardly ever a date
LABELS: dict[str, list[str]] = {kind: _DATA[kind] for kind in ("date", "perhaps", "seldom", "never", "number")}
OLDEST = 1990  # no receipt that is still scanned is older

_LIKE = {"o": "o0q", "i": "il1|!", "l": "il1|!", "s": "s5$", "b": "b8", "g": "g69", "a": "a4", "t": "t7"}
_DIGITS = str.maketrans("oqdil|!szbg", "00011115286")
_SPOILT = {"o": 0.97, "q": 0.95, "l": 0.95, "i": 0.95, "|": 0.95, "!": 0.95}  # how surely the letter is a misread figure
_SINGLE = str.maketrans("øłđðßıæœ’‘´`–—−：／．，", "olddsiao''''---:/.,")
_D = r"[0-9oqdil|!szbg]"
_LEFT = rf"(?<!\d)(?<!\d[./,:-])(?<!\d[oqdil|!szbg])(?<![a-z](?=[a-z|!]))(?<!v)(?={_D}{{0,1}}\d)"
_YEAR4 = r"(?:[12zil|!][059oqds][0-9oqdil|!szbg]{2})"
_TIME = r"\d{1,2}\s?[:;h]\s?\d{2}"
_YEAR_END = rf"(?=[^\d]|$|{_TIME}|\d{{4}}(?!\d)|\d{{6}}(?!\d))(?!:\d\d(?![\d:]))"
_SHORT_END = r"(?=[0-2]\d[:;.h][0-5]\d(?!\d)|[^\d]|$)(?![.,]\d|[/%:]|-\d)"
_SEP = r"(?:\s{0,2}[-/.,'\\|_~:]\s{0,2}|[li!]|\s)"
_NUMERIC = re.compile(
    rf"{_LEFT}(?P<a>{_D}{{1,2}})(?P<s>{_SEP})(?P<b>{_D}{{1,2}})(?P<t>{_SEP})"
    rf"(?:(?P<y>{_YEAR4}){_YEAR_END}|(?P<apart>20\s\d\d)(?!\s?[\d:;.,h%/])|'?(?P<y2>{_D}{{2}}){_SHORT_END}|(?P<odd>\d{{3}}|\d{{5}})(?![\d.,%]))"
)
_YEAR_FIRST = re.compile(
    rf"{_LEFT}(?P<y>{_YEAR4})(?P<s>{_SEP}|\s?年\s?)(?P<b>{_D}{{1,2}})(?P<t>{_SEP}|\s?月\s?)"
    rf"(?P<a>{_D}{{2}}(?=[^\d]|$|{_TIME})|{_D}(?![\d]))"
)
_SLASH_LOST = re.compile(
    r"(?<!\d)(?P<a>[0-3]\d)(?P<s>[17il|/.-]?)(?P<b>[01]\d|[0-3]\d)(?P<t>[17il|/.-]?)(?P<y>(?:19|20)\d{2})(?=[^\d]|$|\d{1,2}:\d{2})"
)
_SLASH_READ = re.compile(  # `19/06118`, `19106/18`
    r"(?<![\d.,/:-])(?P<a>[0-3]?\d)(?:(?P<s>[-/.])(?P<b>[01]\d|[0-3]\d)[17]|[17](?P<b2>[01]\d|[0-3]\d)(?P<t>[-/.]))(?P<y2>\d{2})(?![\d.,/%:-])"
)
_COMPACT = re.compile(
    r"(?<![\w-])(?P<y>(?:19|20)\d{2})(?P<b>0[1-9]|1[0-2])(?P<a>[0-3]\d)(?P<clock>[\sT-]?[0-2]\d:?[0-5]\d(?::?[0-5]\d)?)?(?!\w|-\d)"
)
_MINGUO = re.compile(r"(?<![\d./-])(?P<y>1[01]\d)(?P<s>[-/.]|年)(?P<b>\d{1,2})(?P<t>[-/.]|月)(?P<a>\d{1,2})(?!\d)")
_ERA = re.compile(r"(?<![a-z\d])(?P<era>r|h|令和|平成)\s?(?P<y>\d{1,2})[./年-]\s?(?P<b>\d{1,2})[./月-]\s?(?P<a>\d{1,2})(?!\d)")
_VIETNAMESE = re.compile(r"(?<!\d)(?P<a>\d{1,2})\s?thang\s?(?P<b>\d{1,2}),?\s?(?:nam)?\s?(?P<y>(?:19|20)\d{2})(?!\d)")
_ERAS = {"r": 2018, "令和": 2018, "h": 1988, "平成": 1988}


@dataclass(frozen=True)
class Shape:
    """Something printed that can be a date.

    Attributes:
        start: Where it begins in the line.
        end: Where it ends.
        readings: The days it can be, by the order that gives them: `dmy`, `mdy` or `ymd`.
        quality: The chance that its figures are read right and that it is a date at all, 0 to 1.
        style: What dates printed by one machine share: the separator and the length of the year.
        clock: Whether the time of day is written in one with it.
    """

    start: int
    end: int
    readings: dict[str, date]
    quality: float
    style: str
    clock: bool = False


def shapes(line: str, *, country: str | None, languages: Collection[str], today: date) -> list[Shape]:
    """All that can be a date in the line, the surest first; none overlaps a surer one.

    Args:
        line: A line of the receipt.
        country: ISO 3166 alpha-2, for the calendars of Japan, Taiwan and Thailand.
        languages: The languages of the receipt: a month's name of another language counts less.
        today: Years of two figures are of the hundred years before it.
    """
    if sum(c.isdigit() for c in line) < 3:
        return []
    text, world = flat(line), _World(country, frozenset(languages), today)
    found = sorted(
        (s for find in _FINDERS for s in find(text, world) if s.readings and s.quality > _LEAST), key=lambda s: -s.quality
    )
    kept: list[Shape] = []
    for shape in found:
        if all(shape.end <= other.start or shape.start >= other.end for other in kept):
            kept.append(shape)
    return kept


def flat(line: str) -> str:
    """The line in small letters without accents, of the same length."""
    small = line.replace("İ", "i").lower()  # else it is two letters in small
    return "".join(unicodedata.normalize("NFD", c)[0] for c in small.translate(_SINGLE))


@cache
def month_names() -> dict[str, dict[int, set[str]]]:
    """Names of the months, whole and shortened, without accents: the month each stands for, and in which languages."""
    names: dict[str, dict[int, set[str]]] = {}
    for language in _LATIN:
        for name, month in _names_in(language).items():
            names.setdefault(name, {}).setdefault(month, set()).add(language[:2])
    return names


@cache
def weekday_names() -> dict[str, frozenset[int]]:
    """The names of the days of the week, whole and shortened, without accents: the days that each can be, Monday as 0."""
    names: dict[str, set[int]] = {}
    for language in _LATIN:
        for width in Locale.parse(language).days["format"].values():
            for number, name in width.items():
                names.setdefault(flat(name).strip(". "), set()).add(number)
    return {name: frozenset(numbers) for name, numbers in names.items() if len(name) > 1}


@dataclass(frozen=True)
class _World:
    country: str | None
    languages: frozenset[str]
    today: date


def _names_in(language: str) -> dict[str, int]:
    months = Locale.parse(language).months
    printed = [
        (flat(name).strip(". "), number)
        for form in months.values()
        for width in ("wide", "abbreviated")
        for number, name in form[width].items()
    ]
    printed += _DATA["months"].get(language, {}).items()
    names = {flat(name): number for name, number in printed if len(name) >= 3 and name.isalpha()}
    for length in (3, 4):  # tills cut the names
        cut: dict[str, set[int]] = {}
        for name, number in names.items():
            cut.setdefault(name[:length], set()).add(number)
        names |= {
            short: numbers.pop()
            for short, numbers in cut.items()
            if len(numbers) == 1 and len(short) == length and short not in names
        }
    return names


@cache
def _named() -> tuple[tuple[re.Pattern[str], float], ...]:
    """The shapes with a month's name: `5 March 2018`, `March 5, 2018`, `2018 March 5`."""
    month = "|".join("".join(f"[{_LIKE[c]}]" if c in _LIKE else c for c in name) for name in _longest_first(month_names()))
    name, day, gap = rf"(?P<m>{month})(?![a-z])\.?", rf"(?P<a>{_D}{{1,2}})", r"[\s./,'_-]"
    long, short = rf"(?P<y>{_YEAR4}){_YEAR_END}", rf"(?P<y2>{_D}{{2}}){_SHORT_END}"
    clock = r"[\s,]{1,2}\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]m)?\s(?:[a-z]{3,4}\s)?"
    day_first = rf"{_LEFT}{day}\s?(?:st|nd|rd|th|er|o)?(?P<s>{gap}{{0,3}})(?:(?:de|of|del|di|d'|den)\s?)?{name}"
    month_first = rf"(?<![a-z]){name}(?P<s>{gap}{{0,2}}){day}\s?(?:st|nd|rd|th)?(?P<t>\s?[,;]\s?|{gap}{{0,3}}|{clock})"
    return (
        (re.compile(rf"{day_first}(?P<t>{gap}{{0,3}})(?:(?:de|del|of)\s?)?(?:{long}|'?{short})"), 1.0),
        (re.compile(rf"{month_first}(?:{long}|(?<=['/-]){short})"), 0.99),
        (re.compile(rf"{_LEFT}(?P<y>{_YEAR4})(?P<s>{gap}{{0,2}}){name}(?P<t>{gap}{{0,2}})(?=\D?\d){day}(?!\d)"), 0.99),
    )


def _longest_first(names: Collection[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)


_SPOILT_NAME = re.compile(
    rf"{_LEFT}(?P<a>{_D}{{1,2}})(?P<s>[-/. ])(?P<m>[a-z0-9|]{{3}})(?P=s)'?(?:(?P<y>{_YEAR4})(?!\d)|(?P<y2>\d{{2}}){_SHORT_END})"
)
_SPOILT_LONG = (
    re.compile(rf"{_LEFT}(?P<a>{_D}{{1,2}})(?P<s>[-/., ]{{0,2}})(?P<m>[a-z0-9|]{{4,10}})[-/., ]{{1,2}}(?P<y>{_YEAR4})(?!\d)"),
    re.compile(rf"(?<![a-z\d])(?P<m>[a-z0-9|]{{4,10}})(?P<s>[-/., ]{{1,2}})(?P<a>{_D}{{1,2}})[,;. ]{{1,2}}(?P<y>{_YEAR4})(?!\d)"),
)


def _by_name(text: str, world: _World) -> Iterator[Shape]:
    for pattern, sure in _named():
        for match in pattern.finditer(text):
            month, chance = _month(match["m"], world)
            yield _shape(match, {"dmy": (_year(match, world), month, _int(match["a"]))}, sure * chance, style="name")
    for match in _SPOILT_NAME.finditer(text):
        if near := _nearest_month(match["m"]):
            yield _shape(match, {"dmy": (_year(match, world), near, _int(match["a"]))}, 0.4, style="name")
    for match in (m for pattern in _SPOILT_LONG for m in pattern.finditer(text)):
        if near := _like_month(match["m"]):
            yield _shape(match, {"dmy": (_year(match, world), near, _int(match["a"]))}, 0.7, style="name")


def _month(name: str, world: _World) -> tuple[int, float]:
    """The month that a name stands for in the languages of the receipt, and the chance that it is one."""
    months = month_names().get(name) or next(m for known, m in month_names().items() if _misread(known, name) == 0)
    heard = world.languages | {"en"}
    best = max(months, key=lambda month: (len(months[month] & world.languages), "en" in months[month], len(months[month])))
    chance = 1.0 if months[best] & heard or len(months) == 1 else 0.6
    if name in _DATA["words_too"] and not months[best] & heard:
        chance = 0.6
    return best, chance


def _misread(known: str, name: str) -> int:
    """How many letters of a name cannot be a reading of the known one's; 99 where the lengths differ."""
    if len(known) != len(name):
        return 99
    return sum(a != b and b not in _LIKE.get(a, "") for a, b in zip(known, name, strict=True))


def _nearest_month(name: str) -> int | None:
    """The English month that differs in one letter, if there is but one."""
    near = {
        month
        for known, months in month_names().items()
        for month, languages in months.items()
        if len(known) == 3 and "en" in languages and _misread(known, name) == 1
    }
    return near.pop() if len(near) == 1 and sum(c.isalpha() for c in name) >= 2 else None


@cache
def _like_month(word: str) -> int | None:
    """The month whose whole name differs from the word in a letter or, if long, in two; if there is but one."""
    if sum(c.isalpha() for c in word) < 4:
        return None
    most = 2 if len(word) > 7 else 1
    near = {
        month
        for name, months in month_names().items()
        if len(name) > 4 and 0 < Levenshtein.distance(name, word, score_cutoff=most) <= most
        for month in months
    }
    return near.pop() if len(near) == 1 else None


def _by_figures(text: str, world: _World) -> Iterator[Shape]:
    for match in _NUMERIC.finditer(text):
        a, b = _int(match["a"]), _int(match["b"])
        year = _odd_year(match["odd"], world) if match["odd"] else _year(match, world)
        spoilt = 0.35 if match["odd"] else 0.6 if match["apart"] else 1.0
        ways = {"dmy": (year, b, a), "mdy": (year, a, b)}
        if match["y2"]:
            ways["ymd"] = (_century(a, world), b, _int(match["y2"]))
        sure = _separators(match["s"].strip(), match["t"].strip(), short=not (match["y"] or match["apart"]))
        yield _shape(match, ways, sure * spoilt)
    for match in _YEAR_FIRST.finditer(text):
        year, a, b = _year(match, world), _int(match["a"]), _int(match["b"])
        yield _shape(match, {"ymd": (year, b, a)}, _separators(match["s"].strip(), match["t"].strip(), short=False))
        if b > 12:
            yield _shape(match, {"ydm": (year, a, b)}, 0.5)


def _separators(first: str, second: str, *, short: bool) -> float:
    """The chance that figures with these between them are a date."""
    usual = first == second and first in ("-", "/", ".", "年")
    if usual or (first, second) == ("年", "月"):
        return (0.93 if first != "." else 0.88) if short else 1.0
    if not (first and second):  # blanks
        return (0.0 if short else 0.75) if first == second else 0.35 if short else 0.7
    if ":" in (first, second) or "," in (first, second):
        return 0.3 if short else 0.8
    return 0.6 if short else 0.85


def _by_lost_separators(text: str, world: _World) -> Iterator[Shape]:
    """Dates whose slashes were read as figures or not at all."""
    for match in _SLASH_LOST.finditer(text):
        a, b, year = int(match["a"]), int(match["b"]), int(match["y"])
        marks = sum(match[s] in ("/", ".", "-") and match[s] != "" for s in "st")
        ways = {"dmy": (year, b, a), "mdy": (year, a, b)}
        yield _shape(match, ways, {0: 0.35, 1: 0.6, 2: 0.99}[marks])
    for match in _SLASH_READ.finditer(text):
        a, b, year = int(match["a"]), int(match["b"] or match["b2"]), _year(match, world)
        yield _shape(match, {"dmy": (year, b, a), "mdy": (year, a, b)}, 0.5)
    for match in _COMPACT.finditer(text):
        yield _shape(
            match, {"ymd": (int(match["y"]), int(match["b"]), int(match["a"]))}, 0.8 if match["clock"] else 0.6, style="compact"
        )


def _by_other_calendars(text: str, world: _World) -> Iterator[Shape]:
    for match in _MINGUO.finditer(text):
        yield _shape(
            match, {"ymd": (int(match["y"]) + 1911, int(match["b"]), int(match["a"]))}, 0.95 if world.country == "TW" else 0.3
        )
    for match in _ERA.finditer(text):
        sure = 0.95 if world.country == "JP" or len(match["era"]) == 2 else 0.3
        yield _shape(match, {"ymd": (int(match["y"]) + _ERAS[match["era"]], int(match["b"]), int(match["a"]))}, sure)
    for match in _VIETNAMESE.finditer(text):
        yield _shape(match, {"dmy": (int(match["y"]), int(match["b"]), int(match["a"]))}, 1.0)


_FINDERS: tuple[Callable[[str, _World], Iterator[Shape]], ...] = (_by_name, _by_figures, _by_lost_separators, _by_other_calendars)


def _shape(match: re.Match[str], ways: dict[str, tuple[int, int, int]], quality: float, *, style: str = "") -> Shape:
    readings = {order: day for order, way in ways.items() if (day := _day(*way)) and day.year >= OLDEST}
    groups = match.groupdict()
    figures = [groups.get(name) or "" for name in ("a", "b", "y", "y2")]
    for letter in "".join(figures):
        quality *= 1.0 if letter.isdigit() else _SPOILT.get(letter, 0.9)
    style = style or (groups.get("s") or "").strip() + ("4" if groups.get("y") else "2")
    clock = bool(groups.get("clock")) or match.string[match.end() : match.end() + 1].isdigit()
    return Shape(match.start(), match.end(), readings, quality, style, clock)


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _int(figures: str) -> int:
    return int(figures.translate(_DIGITS))


def _year(match: re.Match[str], world: _World) -> int:
    groups = match.groupdict()
    if groups.get("y2"):
        return _century(_int(groups["y2"]), world)
    year = _int(groups["y"] or groups["apart"].replace(" ", ""))
    return year - 543 if 2533 <= year <= world.today.year + 544 else year  # the years of Buddha


def _century(year: int, world: _World) -> int:
    if world.country == "TH" and year > world.today.year % 100 + 1:
        return 2500 + year - 543
    return 1900 + year if year > 89 else 2000 + year


def _odd_year(figures: str, world: _World) -> int:
    """The latest year that is these figures with one more or one less; 0 if there is none."""
    for year in range(world.today.year, OLDEST, -1):
        longer, shorter = sorted((str(year), figures), key=len, reverse=True)
        if any(longer[:n] + longer[n + 1 :] == shorter for n in range(len(longer))):
            return year
    return 0
