"""Amounts as receipts print them: `$1,234.50`, `1'234.50`, `12,50 EUR`, `4.60-`, `¥1,280`, and as engines misread them: `l2.5O`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Literal

from price_parser.parser import parse_number

_CURRENCIES: dict[str, list[str]] = json.loads(files("workers.small_model").joinpath("currencies.json").read_text(encoding="utf-8"))
CODES = frozenset(_CURRENCIES)
_SYMBOLS = {symbol for symbols in _CURRENCIES.values() for symbol in symbols}
_SYMBOL = "|".join(re.escape(s) for s in sorted([*_SYMBOLS, *CODES], key=len, reverse=True))
_GROUPED = r"\d{1,3}(?:[.,'’]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}"  # the second as in India: 1,00,000
_SPACED = r"(?<!\d\s)\d{1,3}(?:\s\d{3})+"
_NUMBER = rf"(?:(?:{_GROUPED})\s?[.,]\s?\d{{2}}|{_SPACED},\d{{2}}|\d+\s?[.,]\s?\d{{2}}|(?:{_GROUPED})|\d+)"
_UNIT = r"(?:(?i:kg|gr|mg|lbs?|oz|ml|cl|gal|cm|mm|km|pcs?|pk|ct|kwh)|[glmxXh%])(?!\w)"
_MINUS = r"[-–−]"
_AMOUNT = re.compile(
    rf"(?<![\w.,'/%#-])(?<!\d:)(?<!\d\s{_MINUS}\s)"  # no part of a word, a date, a time or a range
    rf"(?P<sign>(?<!\d\s)(?:{_MINUS}|\+)\s?)?(?P<open>\(\s?)?(?:(?P<pre>{_SYMBOL}|(?i:rs\.?|kr\.?|fr\.|r\s?m)|[RK][MNHW](?=\s?\d))|[RNPKES](?=\d))?\s?(?P<sign2>{_MINUS})?"
    rf"(?P<number>{_NUMBER})(?P<close>\))?(?P<minus>-(?!\s?\d))?(?:\s{{0,2}}(?P<post>{_SYMBOL}))?"
    rf"(?![\d'/:%])(?!\s?[.,]\s?\d)(?!\s?{_UNIT})(?!\w{{4}})(?!\s?{_MINUS}\s?\d)"
)
_CENTS = re.compile(r"\s?([.,])\s?(\d{2})$")
_FLAGS = re.compile(  # tax marks, and dirt, behind an amount
    r"[\s*]*(?:\(?[A-Z0#*^%]{1,3}\)?[\s*]*){0,2}(?:\s\d)?(?:[|\])}_.:~'\"-]\s*){0,2}$"
)
_TENTHS = re.compile(r"(?<![\d.,])\d{1,6}\.\d$")
_COUNT = re.compile(r"\s+\d{1,4}(?:\s?[A-Za-z]{1,3}\.?)?\s+")  # a quantity between price and amount
_LIKE_DIGITS = str.maketrans("OoQDIl|!SsBZ", "000011115582")
_DIGIT = r"[\dOoQDIl|!SsBZ]"
_MISREAD = re.compile(
    rf"(?:(?<![A-Za-z\d])|(?<=RM)|(?<=RN)|(?<=EUR)|(?<=\b[RNPKES]))(?![SsBZ]\d)(?:(?=[^\s]*\d)|(?<=\s\s))"
    rf"(?:{_DIGIT}{{1,3}}[.,](?={_DIGIT}{{3}}[.,]))*{_DIGIT}{{1,6}}\s?[.,]\s?[\dOoQDIlSsBZ]\s?[\dOoQDIl|SsBZ](?![\w,]|\.\w)"
)
_BARE = re.compile(rf"(?:^|\s|{_SYMBOL})(?P<number>\d{{3,7}}|\d{{1,4}}\s{{1,2}}\d{{2}})$")
_LONGEST = 12  # digits before the point; what has more is an article's or a card's number, in every currency


@dataclass(frozen=True)
class Amount:
    """An amount in a line: its value, where it stands, and whether letters had to be taken for digits."""

    value: Decimal
    start: int
    end: int
    mended: bool = False


@dataclass(frozen=True)
class Style:
    """How a receipt writes its amounts: the decimal mark, or None where amounts are whole."""

    mark: Literal[".", ","] | None = "."


def style_of(lines: Iterable[str]) -> Style:
    """The style that most numbers of the lines follow: two decimals behind a point or a comma, or else whole amounts."""
    marks: Counter[str] = Counter()
    for line in lines:
        for match in _AMOUNT.finditer(mended(line)) if not re.search(r"\d{1,2}[.,]\d{1,2}[.,]\d", line) else ():
            cents = _CENTS.search(match["number"])
            marks[cents[1] if cents else "whole" if re.fullmatch(_GROUPED, match["number"]) else ""] += 1
    if marks["whole"] > marks["."] + marks[","] or not marks["."] + marks[","]:
        return Style(None)
    return Style("," if marks[","] > marks["."] else ".")


def mended(line: str) -> str:
    """The line with letters that engines take for digits put right where they stand in an amount; as long as before."""
    return _MISREAD.sub(lambda m: m[0].translate(_LIKE_DIGITS), line)


def with_cents(lines: Sequence[str]) -> list[str]:
    """The lines with `48.0` as 48.00, where most amounts are printed with one decimal."""
    ends = [match[0] for line in lines if (match := _TENTHS.search(line))]
    two = sum(bool(re.search(r"\d[.,]\d{2}$", line)) for line in lines)
    return [_TENTHS.sub(r"\g<0>0", line) for line in lines] if len(ends) > max(2, two) else list(lines)


def amounts(line: str, style: Style | None = None) -> list[Amount]:
    """The amounts in a line, from left to right: numbers with two decimals or with a currency, in `style` whole ones with
    thousands apart too."""
    style = style or style_of([line])
    plain, found = mended(line), []
    for match in _AMOUNT.finditer(plain):
        value = _value(match, style)
        if value is not None:
            negative = bool(match["open"] and match["close"]) or any(
                (match[name] or "").strip() in ("-", "–", "−") for name in ("sign", "sign2", "minus")
            )
            misread = plain[match.start() : match.end()] != line[match.start() : match.end()]
            found.append(Amount(-value if negative else value, match.start(), match.end(), misread))
    return found


def _value(match: re.Match[str], style: Style) -> Decimal | None:
    number, cents = match["number"], _CENTS.search(match["number"])
    symbol = match["pre"] or match["post"]
    grouped = not cents and not number.isdigit()
    if not cents and style.mark and style.mark in number:
        return None  # `3.059` a litre: three decimals, no thousands
    if not cents and style.mark and symbol in CODES and match[0].strip()[:3] + number == match[0].strip():
        return None  # `RON95`: a fuel, no leu
    if not (cents or symbol or (grouped and style.mark is None)):
        return None
    compact = re.sub(r"\s", "", number).replace("’", "'").replace("'", "")
    if sum(c.isdigit() for c in compact) > _LONGEST + (2 if cents else 0):
        return None
    return parse_number(compact, cents[1] if cents else ("." if "," in compact else ","))


def trailing(line: str, style: Style | None = None) -> tuple[str, list[Amount]]:
    """A line as its label and the amounts that end it: nothing but spaces, a
    quantity and tax marks stands between or behind them."""
    ending: list[Amount] = []
    end = len(line)
    for amount in reversed(amounts(line, style)):
        between = line[amount.end : end]
        if not _FLAGS.fullmatch(between) and not (ending and _COUNT.fullmatch(between)):
            break
        ending.insert(0, amount)
        end = amount.start
    return line[:end].rstrip(" .:-_*=|"), ending


def leading(line: str, style: Style | None = None) -> tuple[str, list[Amount]]:
    """A line as the label that ends it and the amount that begins it: some printers, and some engines, turn them round."""
    found = amounts(line, style)
    if len(found) != 1 or line[: found[0].start].strip():
        return line, []
    return line[found[0].end :].strip(" .:-_*=|"), found


def tax_mark(line: str, amount: Amount) -> str | None:
    """The letters behind an amount that name its tax class, such as `A`, `SR` or `T`."""
    match = re.match(r"\s?\*?\(?([A-Z]{1,3})\)?(?![A-Za-z])", line[amount.end :])
    return match[1] if match and match[1] not in CODES else None


def without_point(line: str) -> Decimal | None:
    """What the number that ends the line comes to if its decimal point was lost: `1250` and `12 50` as 12.50."""
    match = _BARE.search(line.rstrip(" .:-_*|")[-12:].translate(_LIKE_DIGITS))
    return Decimal(re.sub(r"\s", "", match["number"])) / 100 if match else None
