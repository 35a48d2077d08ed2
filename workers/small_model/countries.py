"""Where a receipt was printed: the country, the currency and the order of day and month, from the clues in its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.small_model.money import find_currency, prints_us


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
        languages: Languages that the words are of, as two letters, the surest first.
    """

    country: str | None = None
    country_confidence: float = 0.0
    currency: str | None = None
    currency_confidence: float = 0.0
    currency_line: int | None = None
    month_first: bool | None = None
    languages: tuple[str, ...] = ()


def place(lines: Sequence[str]) -> Place:
    """The country, currency and order of day and month that the lines speak for."""
    currency = find_currency(lines)
    month_first = None if currency in (None, "CAD", "PHP") else False
    if currency == "USD":
        month_first = True if prints_us(lines) else None
    return Place(currency=currency, currency_confidence=0.8 if currency else 0.0, month_first=month_first)
