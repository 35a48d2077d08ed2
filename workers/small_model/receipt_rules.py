"""The text of an image as a receipt, by rules that hold for receipts at large: nothing that is not printed is put in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from workers.receipt import Charge, OcrResult, ParsedReceipt, TaxBase, cents
from workers.small_model.dates import find_date
from workers.small_model.items import Line, read_items
from workers.small_model.money import find_currency, prints_us
from workers.small_model.reckoning import Reckoning, read_reckoning
from workers.small_model.rows import Row, read_rows, uncertain

_BELOW_ITEMS = frozenset({"subtotal", "tax", "total", "net", "charge", "payment"})
_PAPER = r"receipt|invoice|bill|check|copy|quittung|rechnung|beleg|ticket|facture|recibo"
_GREETING = r"welcome(?: to)?|thank you.*|duplicate|reprint"
_NO_NAME = re.compile(rf"(?i)^\W*(?:(?:simplified |sales |cash |tax |customer |guest )*(?:{_PAPER})|{_GREETING})\b\W*\w{{0,3}}\W*$")
_CONTACT = re.compile(r"(?i)\b(?:tel|phone|fax|date|gst|vat|abn)\b|@|www\.|\d{2}[:/.-]\d{2}")


def parse_receipt(ocr: OcrResult) -> ParsedReceipt:
    """What the text says, with a problem for each thing that could not be read or does not add up."""
    rows = read_rows(ocr)
    if not rows:
        return ParsedReceipt(is_receipt=False, problems=("no text could be read in the image",), source=ocr.source)
    start, end = _bounds(rows)
    lines, troubles = read_items(_with_name(rows, start, end), heads=rows[:start])
    reckoning = read_reckoning(rows[end:])
    if not _is_receipt(lines, reckoning, rows[end:]):
        return ParsedReceipt(
            is_receipt=False,
            problems=("this is no receipt: it prints no total, and no items with tax or payment",),
            source=ocr.source,
        )
    return _receipt(ocr, rows, start, lines=lines, reckoning=reckoning, troubles=troubles)


def _bounds(rows: Sequence[Row]) -> tuple[int, int]:
    """Where the items start, and where the reckoning below them starts."""
    end = next((n for n, r in enumerate(rows) if r.kind in _BELOW_ITEMS), len(rows))
    start = next((n for n, r in enumerate(rows[:end]) if r.amounts), end)
    return start, end


def _with_name(rows: Sequence[Row], start: int, end: int) -> Sequence[Row]:
    """The item rows; with the row above, when the first has an amount and no name of its own."""
    first = rows[start] if start < end else None
    return rows[start - 1 if first and start and not re.search(r"[^\W\d_]{2}", first.label) else start : end]


def _is_receipt(lines: Sequence[Line], reckoning: Reckoning, below: Sequence[Row]) -> bool:
    paid = any(r.kind in ("payment", "tax", "subtotal") for r in below)
    return reckoning.total is not None or bool(lines and paid)


def _receipt(
    ocr: OcrResult, rows: Sequence[Row], start: int, *, lines: Sequence[Line], reckoning: Reckoning, troubles: Sequence[str]
) -> ParsedReceipt:
    texts = [r.text for r in rows]
    currency, merchant = find_currency(texts), _merchant(rows[:start])
    date, date_problem = find_date(texts, month_first=_month_first(currency, texts))
    items_sum = sum((line.amount for line in lines if line.amount is not None), Decimal(0))
    apart = reckoning.disagreements(items_sum) if lines else []
    base = reckoning.tax_base(items_sum)
    missing = [
        problem
        for problem, absent in (
            ("no merchant could be read", merchant is None),
            (date_problem or "", date is None),
            ("no currency could be read", currency is None),
            ("no items could be read", not lines),
            ("no total could be read", reckoning.total is None),
        )
        if absent
    ]
    return ParsedReceipt(
        is_receipt=True,
        merchant=merchant,
        date=date.isoformat() if date else None,
        currency=currency,
        items=tuple(line.item() for line in lines),
        charges=tuple(Charge(description=label, amount=cents(amount)) for label, amount in reckoning.charges),
        subtotal=_wire(reckoning.subtotal),
        tax=_wire(reckoning.tax),
        total=_wire(reckoning.total),
        tax_base=TaxBase(amount=cents(base), rate=reckoning.rate) if base is not None and reckoning.rate is not None else None,
        items_sum=cents(items_sum) if lines else None,
        balanced=bool(lines) and reckoning.total is not None and not apart and not troubles,
        problems=(*missing, *troubles, *reckoning.problems, *apart, *uncertain(rows)),
        source=ocr.source,
    )


def _wire(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else cents(amount)


def _month_first(currency: str | None, texts: Sequence[str]) -> bool | None:
    """Whether dates have the month first: certain only where something printed tells the country."""
    if currency == "USD":
        return True if prints_us(texts) else None
    return None if currency in (None, "CAD", "PHP") else False


def _merchant(head: Sequence[Row]) -> str | None:
    """The first line above the items that can be a name."""
    for row in head:
        name = row.text.split("  ")[0].strip(" *-=#.:|")
        if len(re.findall(r"[^\W\d_]", name)) >= 3 and not _NO_NAME.match(name) and not _CONTACT.search(name):
            return name
    return None
