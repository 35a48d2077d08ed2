"""Where a receipt was printed: every clue in its lines speaks for some countries, and the sum of them tells the place.

The clues and their weights are in `countries.json`, `currencies.json` and `languages.json`; a weight is the logarithm of how
much likelier the clue is in that country than elsewhere. Which currency, languages and date order a country has is from the
CLDR, through babel.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from importlib.resources import files
from math import exp, log2
from typing import Any, Literal

from babel import Locale, UnknownLocaleError
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

Order = Literal["dmy", "mdy", "ymd"]


def _data(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("workers.small_model").joinpath(name).read_text(encoding="utf-8"))
    return loaded


_COUNTRIES = _data("countries.json")
_CURRENCIES: dict[str, list[str]] = _data("currencies.json")
_LANGUAGES: dict[str, list[str]] = _data("languages.json")

_WEIGHTS = {"sure": 7.0, "likely": 3.5, "hint": 1.5}
_FAINT = 2.0  # evidence below this for the best country is as good as none
_COMMON = 0.9  # a bare `$` is more often that of the United States than of any other country
_MOST = 0.98  # no clue is proof
_FOREIGN = 0.03  # the share of receipts whose printed currency is that of another country
_PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ß": "ss", "ı": "i", "æ": "ae", "œ": "oe", "Ø": "O", "Ł": "L", "Đ": "D"}
)
_LIKE = str.maketrans("01l|58", "oiiisb")  # letters and digits that OCR takes for each other
_WORD = re.compile(r"[^\W_]+")
_FIGURES = re.compile(r"(?=[OIl|()-]*\d)[\dOIl|-]{4,}")  # a number with letters read for figures
_NOUGHTS = str.maketrans("OIl|", "0111")
_LONGEST = 5  # words in a clue
_GLUED = 8  # letters from which a clue is looked for inside a longer word, since OCR drops spaces
_WORDS_TOO = frozenset({"ALL", "COP", "CUP", "GEL", "MAD", "MOP", "PEN", "RON", "SOS", "TOP", "TRY"})  # codes that are words, too
_CODE = re.compile(r"(?<![A-Za-z])([A-Z]{3})(?![A-Za-z])")
_GLUED_CODE = re.compile(r"\b(?:TOTAL|SUMME|AMOUNT|TOTAAL|TOTALE|SUMA|BETRAG)([A-Z]{3})\b")
_TOTAL = re.compile(r"(?i)total|summe|amount|toplam|jumlah|betrag|suma|importe|balance|due|paid|zahl|betal|ukupno|celkem")
_DATE_AHEAD = r"(?!\d{1,2}[./-]\d{1,2}[./-])"  # `Fr. 25.03.2018` is a Friday
_CALL = re.compile(r"(?:(?<!\d)\+|(?<![\d.,])\b00(?=\d+[\s().-]))\s?\(?(?=(?:[\s().-]*\d){8})([1-9]\d{0,2})")  # a phone number
_ADDRESS = re.compile(r"(?i)(?:www[.,]|@|https?[:;]/*)[\w.,@/-]*?[.,]([a-z]{2})\b")
_WEAK_EURO = re.compile(r"\d,\d\d\s?[CE]$")


@dataclass(frozen=True)
class Place:
    """The country and currency that the lines speak for, each with the chance that it is right.

    Attributes:
        country: ISO 3166 alpha-2, or None where nothing tells it.
        country_confidence: 0 to 1; below 0.5 it is not to be relied on.
        currency: ISO 4217, or None.
        currency_confidence: 0 to 1; below 0.5 it is not to be relied on.
        currency_line: Index of the line that prints the currency; None where it follows from the country.
        month_first: Whether 05/02 is the second of May there; None: not known.
        month_first_chance: The same as a chance, 0 to 1.
        languages: Languages that the words are of, as two letters, the surest first.
    """

    country: str | None = None
    country_confidence: float = 0.0
    currency: str | None = None
    currency_confidence: float = 0.0
    currency_line: int | None = None
    month_first: bool | None = None
    month_first_chance: float = 0.1
    languages: tuple[str, ...] = ()


def place(lines: Sequence[str]) -> Place:
    """The country, currency and order of day and month that the lines speak for."""
    printed = _printed_currencies(lines)
    spoken = _languages(lines)
    scores = _scores(lines, printed=printed, languages=spoken)
    chances = _chances(scores)
    country = max(chances, key=lambda c: chances[c])
    told = scores[country] >= _FAINT
    currency, sure = _currency(chances, printed) if told else (None, 0.0)
    month = sum(chance * month_first_chance(c) for c, chance in chances.items())
    return Place(
        country=country if told and chances[country] > 0.2 else None,
        country_confidence=round(min(chances[country], _MOST), 3) if told else 0.0,
        currency=currency,
        currency_confidence=round(min(sure, _MOST), 3),
        currency_line=printed[currency][1] if currency in printed else None,
        month_first=None if not told or 0.3 < month < 0.7 else month > 0.5,
        month_first_chance=round(month, 3),
        languages=tuple(spoken),
    )


@cache
def date_order(country: str) -> Order:
    """The order in which the country writes a date in figures."""
    return _order(_locale(country).date_formats["short"].pattern)


@cache
def month_first_chance(country: str) -> float:
    """The chance that a date in figures has the month before the day; about even where the country writes it both ways."""
    short = date_order(country)
    if short != "ymd":
        return 1.0 if short == "mdy" else 0.0
    return 0.45 if _order(_locale(country).date_formats["medium"].pattern) == "mdy" else 0.0


@cache
def currency_of(country: str) -> str:
    """The currency that is legal tender there now."""
    return get_territory_currencies(country, date.today())[0]


def plain(text: str) -> str:
    """The text in small letters without accents."""
    bare = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(c for c in bare if not unicodedata.combining(c)).lower()


def _order(pattern: str) -> Order:
    day, month, year = (pattern.lower().find(letter) for letter in "dmy")
    return "ymd" if year < day else "dmy" if day < month else "mdy"


def _locale(country: str) -> Locale:
    for name in (f"en_{country}" if "en" in get_official_languages(country) else "", f"und_{country}"):
        try:
            return Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            continue
    return Locale.parse("en_GB")


def _chances(scores: dict[str, float]) -> dict[str, float]:
    """Each country's share: its prior weight times the exponential of its score."""
    top = max(scores.values())
    masses = {c: _COUNTRIES[c].get("prior", 1.0) * exp(score - top) for c, score in scores.items()}
    total = sum(masses.values())
    return {c: mass / total for c, mass in masses.items()}


def _currency(chances: dict[str, float], printed: dict[str, tuple[float, int]]) -> tuple[str | None, float]:
    """The currency with the largest share of its countries; a printed one has a share although none of them is spoken for."""
    shares = dict.fromkeys([*_CURRENCIES, *printed], 0.0)
    for country, chance in chances.items():
        shares[currency_of(country)] += chance
    masses = {code: exp(score) for code, (score, _) in printed.items()}
    for code, mass in masses.items():
        shares[code] += _FOREIGN * mass / sum(masses.values())
    code, share = max(shares.items(), key=lambda pair: pair[1])
    return (code, share / sum(shares.values())) if share > 0.25 else (None, 0.0)


def _scores(lines: Sequence[str], *, printed: dict[str, tuple[float, int]], languages: dict[str, float]) -> dict[str, float]:
    scores = dict.fromkeys(_COUNTRIES, 0.0)
    for country, weight in [*_words(lines), *_shapes(lines), *_calls_and_addresses(lines)]:
        scores[country] += weight
    for country in scores:
        scores[country] += printed.get(currency_of(country), (0.0, 0))[0]
        scores[country] += _spoken_weight(country, languages)
    return scores


def _spoken_weight(country: str, languages: dict[str, float]) -> float:
    """What the words say for a country; English is printed everywhere, so it tells less."""
    heard = {language: n for language, n in languages.items() if language in _spoken_in(country)}
    if not heard:
        return -2.0 if any(n > 1 and language != "en" for language, n in languages.items()) else 0.0
    return max(min(n * 0.2, 0.6) if language == "en" else min(n * 1.5, 6.0) for language, n in heard.items())


@cache
def _spoken_in(country: str) -> frozenset[str]:
    official = {name.split("_")[0] for name in get_official_languages(country, regional=True, de_facto=True)}
    return frozenset(official | {_locale(country).language} | ({"nb"} if "no" in official else set()))


def _words(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Every clue in words that the lines hold, once."""
    clues, found = _clues(), set()
    for line in lines:
        tokens = _WORD.findall(line)
        found |= {key for key in _grams(tokens) if key in clues}
        found |= {key for word in map(like, tokens) if len(word) > _GLUED for key in _glued_clues() if key in word}
    for key in sorted(found):  # sums of fractions depend on their order
        yield from clues[key]


def _grams(tokens: Sequence[str]) -> Iterator[str]:
    """The words and what stands side by side, written as one; short ones only if they are printed as an acronym."""
    folded = [like(token) for token in tokens]
    for start in range(len(tokens)):
        for end in range(start + 1, min(start + _LONGEST, len(tokens)) + 1):
            key = "".join(folded[start:end])
            if len(key) > 3 or (_is_acronym(tokens[start:end]) and len(key) > 1):
                yield key


def _is_acronym(tokens: Sequence[str]) -> bool:
    return (len(tokens) == 1 and not tokens[0].islower()) or all(len(t) == 1 for t in tokens)


@lru_cache(maxsize=4096)
def like(word: str) -> str:
    """The word in small letters without accents, with one letter for all that OCR takes for each other."""
    small = plain(word)
    return small if small.isdigit() else small.translate(_LIKE)


@cache
def _clues() -> dict[str, list[tuple[str, float]]]:
    clues: dict[str, list[tuple[str, float]]] = {}
    for country, about in _COUNTRIES.items():
        for strength, words in about["words"].items():
            for word in words:
                clues.setdefault("".join(like(w) for w in _WORD.findall(word)), []).append((country, _WEIGHTS[strength]))
    return clues


@cache
def _glued_clues() -> tuple[str, ...]:
    return tuple(key for key in _clues() if len(key) >= _GLUED or key in ("sdnbhd", "gmbh", "pteitd", "ptyitd"))


def _shapes(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Registration numbers, postal codes and phone numbers in the shape of a country."""
    text = "\n".join(lines)
    mended = _FIGURES.sub(lambda match: match[0].translate(_NOUGHTS), text)
    for country, pattern, weight in _patterns():
        if pattern.search(text) or (mended != text and pattern.search(mended)):
            yield country, weight


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str], float], ...]:
    return tuple((c, re.compile(p), w) for c, about in _COUNTRIES.items() for p, w in about["patterns"].items())


def _calls_and_addresses(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    phones, domains = set(), set()
    for line in lines:
        phones |= {m[1] for m in _CALL.finditer(line)}
        domains |= {m[1].lower() for m in _ADDRESS.finditer(line)}
    for country, about in _COUNTRIES.items():
        if any(digits.startswith(about["phone"]) for digits in phones):
            yield country, 4.0
        if about.get("tld", country.lower()) in domains:
            yield country, 4.0


def _languages(lines: Sequence[str]) -> dict[str, float]:
    """How many different words of each language the lines hold, the most first; a word of many languages is shared out."""
    words, heard = _language_words(), dict.fromkeys(_LANGUAGES, 0.0)
    for key in sorted({key for line in lines for key in _grams(_WORD.findall(line)) if key in words}):
        for language in words[key]:
            heard[language] += 1 / len(words[key])
    return dict(sorted(((lang, n) for lang, n in heard.items() if n >= 0.5), key=lambda pair: -pair[1]))


@cache
def _language_words() -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for language, texts in _LANGUAGES.items():
        for text in texts:
            words.setdefault("".join(like(w) for w in _WORD.findall(text)), []).append(language)
    return words


def _printed_currencies(lines: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Each currency that a code or symbol can stand for: how much it speaks for it, and the line that says it best."""
    seen: dict[str, list[tuple[float, int]]] = {}
    hits = [(codes, weight + _in_total(line), n) for n, line in enumerate(lines) for codes, weight in _in_line(line)]
    certain = {codes[0] for codes, weight, _ in hits if len(codes) == 1 and weight > _FAINT}
    for codes, weight, n in hits:
        for code in certain.intersection(codes) or codes:  # `$` beside `CAD` is the dollar of Canada
            seen.setdefault(code, []).append((weight + _COMMON * (code == "USD" and len(codes) > 1), n))
    printed = {}
    for code, of_code in seen.items():
        best = max(of_code, key=lambda hit: hit[0])
        printed[code] = (best[0] + 0.7 * log2(len(of_code)), best[1])
    return printed


def _in_total(line: str) -> float:
    return 0.5 if _TOTAL.search(line) else 0.0


def _in_line(line: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """The codes and symbols of a line: the currencies that each can stand for, and how much it speaks for them."""
    for match in [*_CODE.finditer(line), *_GLUED_CODE.finditer(line)]:
        if match[1] in _CURRENCIES:
            beside = _beside_number(line, match.start(1), match.end(1))
            if beside or match[1] not in _WORDS_TOO:
                yield (match[1],), (6.0 if beside else 4.0) - 3.0 * (match[1] in _WORDS_TOO)
    for match in _symbols().finditer(line):
        yield _codes_of(match["a"] or match["b"] or match["c"] or match["d"]), 5.0
    if _WEAK_EURO.search(line):
        yield ("EUR",), 0.8


def _beside_number(line: str, start: int, end: int) -> bool:
    return bool(re.match(r"\)?[\s:]{0,3}[$€£]?-?\d", line[end:]) or re.search(r"\d\s?\(?$", line[:start]))


@cache
def _codes_of(symbol: str) -> tuple[str, ...]:
    return tuple(code for code, symbols in _CURRENCIES.items() if symbol in symbols)


@cache
def _symbols() -> re.Pattern[str]:
    """A symbol before or behind a number, in brackets, or in a cell of its own; O may stand for a nought, S for $."""
    symbols = {s for of in _CURRENCIES.values() for s in of}
    one = "|".join(re.escape(s) for s in sorted(symbols, key=len, reverse=True))
    return re.compile(
        rf"(?<![A-Za-z$])(?P<a>{one})\s{{0,2}}-?{_DATE_AHEAD}[\dO]+(?:[.,\s\d]|$)"
        rf"|\d\s?(?P<b>{one})(?![A-Za-z\d])"
        rf"|\(\s?(?P<c>{one})\s?\)"
        rf"|(?:^|  )(?P<d>{one})(?=  |$)"
    )
