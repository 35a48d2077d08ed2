"""What the receipt tools hand each other: the text of an image, a parsed receipt, and what is made of it.

Amounts are decimals in the receipt's currency: exact in Python, plain numbers on the wire. What could not be read is
None and named in `problems`; what was read but is not to be relied on is named in `uncertain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

MOST = 10**15  # nothing costs more, and floats keep the cents of anything less
Amount = Annotated[
    Decimal,
    Field(allow_inf_nan=False, ge=-MOST, le=MOST),
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number"}),
]
Share = Annotated[float, Field(ge=0, le=1)]
Box = tuple[int, int, int, int]
CENT = Decimal("0.01")
CERTAIN = 0.5  # evidence below this makes a value uncertain
_WIDE = Context(prec=400)  # any float has its cents in it


def exact(value: float | int | Decimal) -> Decimal:
    """The decimal number that is written the same way, so that sums have no binary dust."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def cents(value: Decimal) -> Decimal:
    """The amount rounded to cents, halves away from zero."""
    return value.quantize(CENT, ROUND_HALF_UP, _WIDE)


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class OcrCell(_Shape):
    """A piece of a line that stands apart from the others, such as the amount in its column."""

    text: str
    confidence: Share
    box: Box = Field(description="left, top, right, bottom in pixels")


class OcrLine(_Shape):
    """One printed line; cells that stand apart are joined by two spaces."""

    text: str
    confidence: Share
    box: Box = Field(description="left, top, right, bottom in pixels of the upright page")
    page: int = Field(default=1, description="from 1")
    cells: tuple[OcrCell, ...] = ()


class OcrResult(_Shape):
    """The text of an image or of a document's pages, line by line from the top; empty when nothing could be read."""

    text: str = Field(description="the lines, joined by newlines")
    lines: tuple[OcrLine, ...] = ()
    confidence: Share = Field(default=0.0, description="mean over the characters, 0 to 1; 0 without text")
    width: int = Field(default=0, description="pixels of the upright first page")
    height: int = Field(default=0, description="pixels of the upright first page")
    pages: int = Field(default=1, description="pages read")
    orientation: int = Field(default=0, description="degrees clockwise by which the picture was turned to stand upright")
    skew: float = Field(default=0.0, description="degrees of tilt that were taken out")
    engine: str = Field(default="", description="what read it")
    language: str | None = Field(default=None, description="the language that was asked for")
    notes: tuple[str, ...] = Field(default=(), description="what a reader should know: an engine that failed, a second reading")
    source: str = Field(default="", description="the image's URI; a `data:` URI is shortened")


class Evidence(_Shape):
    """Where a value comes from, and how far it is to be believed."""

    confidence: Share = Field(description="the chance that the value is right, 0 to 1")
    line: int | None = Field(default=None, description="index of its line in the OCR result")
    text: str = Field(default="", description="that line as it was read, or of it the date")
    how: Literal["printed", "repaired", "reckoned"] = Field(
        default="printed", description="as read; with digits put right because the sums prove it; or computed from other values"
    )


class Item(_Shape):
    """One line of a receipt; a discount has a negative amount."""

    description: str = ""
    quantity: Amount | None = None
    unit_price: Amount | None = None
    amount: Amount | None = Field(default=None, description="quantity times unit price")
    tax_class: str | None = Field(default=None, description="the tax mark printed beside the amount, such as `A` or `SR`")
    confidence: Share | None = Field(default=None, description="the chance that the amount is right")
    line: int | None = Field(default=None, description="index of its line in the OCR result")


class CategorizedItem(Item):
    """An item and what it was bought for."""

    category: str | None = None
    category_confidence: Share | None = Field(default=None, description="the chance that the category is right")
    category_source: str | None = Field(default=None, description="what decided: `rules`, `prototypes` or `model`")


class Charge(_Shape):
    """What is added to the items beside tax: service, delivery, a tip; a discount on the whole is negative."""

    description: str
    amount: Amount
    line: int | None = Field(default=None, description="index of its line in the OCR result")


class TaxLine(_Shape):
    """One printed tax: a rate, the net amount it is of, and its share."""

    label: str
    amount: Amount
    rate: Amount | None = Field(default=None, description="a share: 0.19 for 19 %")
    net: Amount | None = None
    included: bool = Field(default=False, description="whether the prices hold it already")
    line: int | None = Field(default=None, description="index of its line in the OCR result")


class Payment(_Shape):
    """What was handed over: in cash more than the total, by card the total."""

    method: str
    amount: Amount
    line: int | None = Field(default=None, description="index of its line in the OCR result")


class TaxBase(_Shape):
    """The net amount that the printed tax rate applies to."""

    amount: Amount
    rate: Amount = Field(description="a share: 0.19 for 19 %")


class ParsedReceipt(_Shape):
    """What a receipt says, with the evidence for each value; what is uncertain is named, what is absent is null."""

    is_receipt: bool
    merchant: str | None = None
    date: str | None = Field(default=None, description="ISO 8601")
    currency: str | None = Field(default=None, description="ISO 4217")
    items: tuple[Item, ...] = ()
    charges: tuple[Charge, ...] = ()
    discounts: tuple[Charge, ...] = Field(default=(), description="on the whole; negative")
    subtotal: Amount | None = None
    tax: Amount | None = Field(default=None, description="sum of the tax lines")
    tax_lines: tuple[TaxLine, ...] = ()
    rounding: Amount | None = Field(default=None, description="what rounding to coins added")
    total: Amount | None = Field(default=None, description="what was to be paid in the end")
    tax_base: TaxBase | None = None
    payments: tuple[Payment, ...] = ()
    change: Amount | None = None
    items_sum: Amount | None = Field(default=None, description="sum of the items' amounts")
    balanced: bool = Field(default=False, description="items, charges and tax add up to the printed subtotal and total")
    evidence: dict[str, Evidence] = Field(default_factory=dict, description="by the name of a field above")
    uncertain: tuple[str, ...] = Field(default=(), description="fields whose value is the best reading, but not to be relied on")
    problems: tuple[str, ...] = Field(default=(), description="what could not be read or does not add up")
    source: str = ""


class CategoryTotal(_Shape):
    """What was spent on one category."""

    category: str
    count: int
    total: Amount


class Categorized(_Shape):
    """Every item with its category, and the totals by category, largest first."""

    items: tuple[CategorizedItem, ...]
    totals: tuple[CategoryTotal, ...]
    uncertain: tuple[int, ...] = Field(default=(), description="indexes of items whose category is not to be relied on")
    notes: tuple[str, ...] = Field(default=(), description="what a reader should know: a model that failed and what took over")


def items_total(items: Iterable[Item]) -> Decimal:
    """The exact sum of the amounts that are known."""
    return sum((i.amount for i in items if i.amount is not None), Decimal(0))
