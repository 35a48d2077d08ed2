"""How receipts are written in one country: numbers, dates, words, taxes, goods. Read from `places.json`; every shop is invented."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Goods = tuple[tuple[str, float, float], ...]  # name, lowest and highest price in units of about one dollar


@dataclass(frozen=True)
class Words:
    """What a register of one language prints; of several words for one thing one is drawn a receipt."""

    total: tuple[str, ...]
    subtotal: tuple[str, ...]
    discount: tuple[str, ...]
    service: tuple[str, ...]
    rounding: tuple[str, ...]
    cash: tuple[str, ...]
    card: tuple[str, ...]
    change: tuple[str, ...]
    tendered: tuple[str, ...]
    date: tuple[str, ...]
    time: tuple[str, ...]
    receipt: tuple[str, ...]
    title: tuple[str, ...]
    cashier: tuple[str, ...]
    table: tuple[str, ...]
    count: tuple[str, ...]
    net: tuple[str, ...]
    gross: tuple[str, ...]
    thanks: tuple[str, ...]
    notes: tuple[str, ...]
    columns: tuple[str, ...]  # item, quantity, price, amount
    fuel: tuple[str, ...]
    parking: tuple[str, ...]  # the fee, from, to
    months: tuple[str, ...]
    grocery: Goods
    restaurant: Goods
    pharmacy: Goods
    office: Goods
    shops: dict[str, tuple[str, ...]]  # by kind, `{n}` for one of the `names`


@dataclass(frozen=True)
class Place:
    """One country."""

    code: str
    currency: str
    words: str
    scale: float  # what a dollar's worth costs, in the currency
    symbols: tuple[str, ...]  # as printed at amounts; the first is the usual one
    after: bool  # the symbol stands after the amount
    decimals: int
    decimal: tuple[str, ...]
    thousands: tuple[str, ...]
    dates: tuple[str, ...]  # strftime, and %o for the month's name, %O for its short name
    tax: tuple[str, ...]
    rates: tuple[str, ...]  # percent, the usual one first
    included: float  # how often the prices hold the tax
    towns: tuple[str, ...]
    streets: tuple[str, ...]
    phone: str  # '#' is a digit
    ids: tuple[str, ...]  # `{4}` is four digits, `{A}` a letter
    company: tuple[str, ...] = ("",)
    cash_step: str = ""  # cash totals are rounded to this
    tax_split: tuple[str, ...] = ()  # two halves of one rate, as India's


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(v) for v in value)
    return {k: _frozen(v) for k, v in value.items()} if isinstance(value, dict) else value


_DATA = _frozen(json.loads((Path(__file__).parent / "places.json").read_text(encoding="utf-8")))
WORDS = {language: Words(**words) for language, words in _DATA["words"].items()}
PLACES = tuple(Place(**place) for place in _DATA["places"])
ENGLISH = tuple(p for p in PLACES if p.words == "en")
FOREIGN = tuple(p for p in PLACES if p.words != "en")
