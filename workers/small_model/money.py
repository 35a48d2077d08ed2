"""Amounts and currencies as receipts print them: `$1,234.50`, `1'234.50`, `12,50 EUR`, `4.60-`, `¥1,280`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files

_CURRENCIES: dict[str, list[str]] = json.loads(files("workers.small_model").joinpath("currencies.json").read_text(encoding="utf-8"))
CODES = frozenset(_CURRENCIES)
_SYMBOLS = {symbol: code for code, symbols in _CURRENCIES.items() for symbol in symbols}
_SYMBOL = "|".join(re.escape(s) for s in sorted([*_SYMBOLS, *CODES], key=len, reverse=True))
_GROUPED = r"\d{1,3}(?:[.,'’]\d{3})+"
_NUMBER = rf"(?:{_GROUPED}[.,]\s?\d{{2}}|\d+[.,]\s?\d{{2}}|{_GROUPED}|\d+)"
_UNIT = r"(?:(?i:kg|gr|mg|lbs?|oz|ml|cl|gal|cm|mm|km|pcs?|pk|ct)|[glmxXh%])(?!\w)"
_MINUS = r"[-–−]"
_AMOUNT = re.compile(
    rf"(?<![\w.,'/:%#-])(?<!\d\s{_MINUS}\s)"  # no part of a word, a date, a time or a range
    rf"(?P<sign>(?<!\d\s)(?:{_MINUS}|\+)\s?)?(?P<pre>{_SYMBOL})?\s?(?P<sign2>{_MINUS})?"
    rf"(?P<number>{_NUMBER})(?P<minus>-(?!\s?\d))?(?:\s?(?P<post>{_SYMBOL}))?"
    rf"(?![\d'/:%])(?![.,]\d)(?!\s?{_UNIT})(?!\w{{4}})(?!\s?{_MINUS}\s?\d)"
)
_DECIMALS = re.compile(r"[.,]\s?(\d{2})$")
_FLAGS = re.compile(r"\s*(?:[A-Z*#]{1,3}\s*){0,2}$")  # tax marks behind an amount: `3.50 T`, `7.00 SR`, `1,59 A`
_US_HINT = re.compile(r"\b[A-Z]{2}\s+\d{5}(?:-\d{4})?\b|\bsales\s?tax\b", re.IGNORECASE)
_DOLLAR_ELSEWHERE = re.compile(r"\b(?:ABN|HST|PST|QST|GST/HST|UEN)\b")


@dataclass(frozen=True)
class Amount:
    """An amount in a line: its value, and where it stands."""

    value: Decimal
    start: int
    end: int


def amounts(line: str) -> list[Amount]:
    """The amounts in a line, from left to right: numbers with two decimals, with thousands apart, or with a currency."""
    found = []
    for match in _AMOUNT.finditer(line):
        number, decimals = match["number"], _DECIMALS.search(match["number"])
        symbol = match["pre"] or match["post"]
        grouped = not decimals and not number.isdigit()
        if not (decimals or symbol or grouped):
            continue
        digits = re.sub(r"\D", "", number[: decimals.start()] if decimals else number) or "0"
        value = Decimal(f"{digits}.{decimals[1]}" if decimals else digits)
        negative = any((match[name] or "").strip() in ("-", "–", "−") for name in ("sign", "sign2", "minus"))
        found.append(Amount(-value if negative else value, match.start(), match.end()))
    return found


def trailing(line: str) -> tuple[str, list[Amount]]:
    """A line as its label and the amounts that end it: nothing but spaces and tax marks stands between or behind them."""
    ending: list[Amount] = []
    end = len(line)
    for amount in reversed(amounts(line)):
        if not _FLAGS.fullmatch(line[amount.end : end]):
            break
        ending.insert(0, amount)
        end = amount.start
    return line[:end].rstrip(" .:-_*"), ending


def find_currency(lines: Sequence[str]) -> str | None:
    """The currency that the lines print, or None. Codes count before symbols; a bare `$` is read as USD."""
    codes = Counter(c for line in lines for c in re.findall(r"(?<![A-Za-z])([A-Z]{3})(?![A-Za-z])", line) if c in CODES)
    glued = Counter(m[1] for line in lines if (m := re.search(r"\b(?:TOTAL|SUMME|AMOUNT)([A-Z]{3})\b", line)) and m[1] in CODES)
    if found := (codes + glued).most_common(1):
        return found[0][0]
    symbols: Counter[str] = Counter()
    for line in lines:
        for match in re.finditer(rf"(?<![A-Za-z])({_SYMBOL})\s?-?\d|\d\s?({_SYMBOL})(?![A-Za-z])", line):
            symbols[_SYMBOLS.get(match[1] or match[2], "")] += 1
    symbols.pop("", None)
    if not symbols:
        return None
    code = symbols.most_common(1)[0][0]
    if code == "USD" and any(_DOLLAR_ELSEWHERE.search(line) for line in lines):
        return None  # dollars, but of Canada, Australia or Singapore
    return code


def prints_us(lines: Sequence[str]) -> bool:
    """Whether something beside a bare `$` says United States: the code USD, a state with its ZIP code, a sales tax."""
    return any(
        re.search(r"(?<![A-Za-z])USD(?![A-Za-z])|(?:TOTAL|AMOUNT)USD\b|US\$", line) or _US_HINT.search(line) for line in lines
    )
