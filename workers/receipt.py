"""What the receipt tools hand each other: the text of an image, a parsed receipt, and what is made of it.

Amounts are numbers in the receipt's currency, rounded to cents; what could not be read is None and named in `problems`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]
CENT = Decimal("0.01")
_WIDE = Context(prec=400)  # any float has its cents in it


def exact(value: float | int | Decimal) -> Decimal:
    """The decimal number that is written the same way, so that sums have no binary dust."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def cents(value: Decimal) -> float:
    """The amount as it goes over the wire: rounded to cents, halves away from zero."""
    return float(value.quantize(CENT, ROUND_HALF_UP, _WIDE))


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class OcrLine(_Shape):
    """One printed line; cells that stand apart are joined by two spaces."""

    text: str
    confidence: float = Field(description="0 to 1")
    box: tuple[int, int, int, int] = Field(description="left, top, right, bottom in pixels")


class OcrResult(_Shape):
    """The text of an image, line by line from the top; empty when nothing could be read."""

    text: str = Field(description="the lines, joined by newlines")
    lines: tuple[OcrLine, ...] = ()
    confidence: float = Field(default=0.0, description="mean over the characters, 0 to 1; 0 without text")
    width: int = Field(default=0, description="pixels")
    height: int = Field(default=0, description="pixels")
    source: str = Field(default="", description="the image's URI; a `data:` URI is shortened")


class Item(_Shape):
    """One line of a receipt; a discount has a negative amount."""

    description: str = ""
    quantity: Number | None = None
    unit_price: Number | None = None
    amount: Number | None = Field(default=None, description="quantity times unit price")


class CategorizedItem(Item):
    """An item and what it was bought for."""

    category: str | None = None


class Charge(_Shape):
    """What is added to the items beside tax: service, delivery, rounding; a discount on the whole is negative."""

    description: str
    amount: Number


class TaxBase(_Shape):
    """The net amount that the printed tax rate applies to."""

    amount: Number
    rate: Number = Field(description="a share: 0.19 for 19 %")


class ParsedReceipt(_Shape):
    """What a receipt says. Nothing in it is guessed."""

    is_receipt: bool
    merchant: str | None = None
    date: str | None = Field(default=None, description="ISO 8601")
    currency: str | None = Field(default=None, description="ISO 4217; a bare `$` is read as USD")
    items: tuple[Item, ...] = ()
    charges: tuple[Charge, ...] = ()
    subtotal: Number | None = None
    tax: Number | None = None
    total: Number | None = None
    tax_base: TaxBase | None = None
    items_sum: Number | None = Field(default=None, description="sum of the items' amounts")
    balanced: bool = Field(default=False, description="items, charges and tax add up to the printed subtotal and total")
    problems: tuple[str, ...] = Field(default=(), description="what could not be read or does not add up")
    source: str = ""


class CategoryTotal(_Shape):
    """What was spent on one category."""

    category: str
    count: int
    total: Number


class Categorized(_Shape):
    """Every item with its category, and the totals by category, largest first."""

    items: tuple[CategorizedItem, ...]
    totals: tuple[CategoryTotal, ...]


def items_total(items: Iterable[Item]) -> Decimal:
    """The exact sum of the amounts that are known."""
    return sum((exact(i.amount) for i in items if i.amount is not None), Decimal(0))
