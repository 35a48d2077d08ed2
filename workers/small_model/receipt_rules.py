"""The text of an image as a receipt, by rules that hold for receipts at large; each value with its evidence.

Read in this order: rows, items, reckoning, what the sums put right, and then how far each value is to be believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile

from workers.receipt import CENT, CERTAIN, Evidence, OcrResult, ParsedReceipt, TaxBase, cents
from workers.small_model.countries import Place, place
from workers.small_model.dates import FoundDate, read_date
from workers.small_model.items import Line, named_nothing, read_items
from workers.small_model.labels import plain_letters
from workers.small_model.merchant import Merchant, find_merchant
from workers.small_model.reckoning import Reckoning, is_discount, read_reckoning
from workers.small_model.repair import repaired, without_groups, without_stray
from workers.small_model.rows import Row, plain, read_rows, uncertain
from workers.small_model.total import UNLABELLED

_BELOW_ITEMS = frozenset({"subtotal", "tax", "total", "net", "charge", "rounding", "tender", "change"})
_PAPER = re.compile(
    r"\b(?:receipt|invoice|cash\s?(?:bill|sales?)|resit|invois|quittung|rechnung|beleg|kassenbon|facture|ticket|recibo|factura|"
    r"scontrino|fattura|kvittering|kvitto|paragon|fatura|fis|nota|struk|guest\s?check|bon)\b"
)
_REFERENCE = re.compile(r"(?i)^\W*(?:order|check|bill|inv\w*|ref|table|doc|trans\w*|tel|ph|kp|ic|no|chk)\b[\w\s]{0,6}[:#.]")
DATED_LINES = 400  # among which a date and a place are looked for
DOUBTED = "not to be relied on: "  # how the problem begins that names uncertain fields
_ZERO = Decimal(0)


@dataclass(frozen=True)
class _Reading:
    """All that was read of one receipt."""

    rows: Sequence[Row]
    items: Sequence[Line]
    troubles: Sequence[str]
    reckoning: Reckoning
    mended: int | None
    merchant: Merchant | None
    place: Place
    date: FoundDate | None

    @property
    def items_sum(self) -> Decimal:
        return _sum(self.items)


def parse_receipt(ocr: OcrResult) -> ParsedReceipt:
    """What the text says, with a problem for each thing that could not be read or does not add up."""
    rows = read_rows(ocr)
    if not rows:
        return ParsedReceipt(is_receipt=False, problems=("no text could be read in the image",), source=ocr.source)
    first = _first(rows)
    reading = _read(first, ocr)
    if not _is_receipt(reading):
        return ParsedReceipt(
            is_receipt=False,
            problems=("this is no receipt: it prints no total, and no items with tax or payment",),
            source=ocr.source,
        )
    more = () if len(first) == len(rows) else ("the picture holds more than one receipt; only the first is read",)
    return _receipt(reading, ocr, more)


def _first(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of the first receipt on the page: a second one follows a payment, and its own items come to its own total."""
    for at in (n + 1 for n, r in enumerate(rows[:-3]) if r.kind in ("tender", "change", "total")):
        if not rows[at].amounts and _is_whole(rows[at:]) and _is_whole(rows[:at]):
            return rows[:at]
    return rows


def _is_whole(rows: Sequence[Row]) -> bool:
    """Whether rows hold items and the total that they come to."""
    items: list[Decimal] = []
    for row in rows:
        if row.kind in ("total", "subtotal") and items:
            return abs(sum(items, _ZERO) - row.amount) <= CENT and row.amount > 0
        if row.kind in _BELOW_ITEMS:
            items = []
        elif _may_be_item(row) and re.search(r"[^\W\d_]{3}", row.label):  # no row of a tax table
            items.append(row.amount)
    return False


def _read(rows: Sequence[Row], ocr: OcrResult) -> _Reading:
    start, end = _bounds(rows)
    lines, troubles = read_items(_with_name(rows, start, end), heads=rows[:start])
    below = rows[end:] if end < len(rows) else [r for r in rows[start:] if not is_discount(r)]  # the items hold those
    items = without_groups(lines, {a.value for r in below for a in r.amounts})
    reckoning = read_reckoning(below, items_sum=_sum(items), item_count=len(items), every=rows)
    found = len(items)
    whole = any(r.kind in ("subtotal", "total") and r.amount == _sum(items) for r in below)
    items, mended = (items, None) if whole else repaired(without_stray(items, _wanted(reckoning)), _wanted(reckoning))
    if mended is not None or len(items) != found:
        reckoning = read_reckoning(below, items_sum=_sum(items), item_count=len(items), every=rows)
    last = rows[-1].line + 1
    texts = [plain(t) for t in [line.text for line in ocr.lines[:last]] or ocr.text.splitlines()[:last]][:DATED_LINES]
    where = place(texts)
    return _Reading(
        rows=rows,
        items=items,
        troubles=troubles,
        reckoning=reckoning,
        mended=mended,
        merchant=find_merchant(rows[:start] or rows[:6]),
        place=where,
        date=read_date(texts, place=where, confidences=[line.confidence for line in ocr.lines[: len(texts)]] or None),
    )


def _sum(lines: Sequence[Line]) -> Decimal:
    return sum((line.amount for line in lines if line.amount is not None), _ZERO)


def _wanted(reckoning: Reckoning) -> list[Decimal]:
    """What the items should come to: the subtotal if it leads to the total, else the total less what was added."""
    if reckoning.total is None or reckoning.total.confidence < CERTAIN:
        return []
    tax = reckoning.taxes.amount or _ZERO
    if reckoning.subtotal is not None:
        return [reckoning.subtotal.amount - reckoning.early]
    base = reckoning.total.value - reckoning.charged - reckoning.rounded
    return sorted({base, base - tax})


def _bounds(rows: Sequence[Row]) -> tuple[int, int]:
    """Where the items start, and where the reckoning below them starts; a total printed above all items counts for neither."""
    below = [n for n, r in enumerate(rows) if (r.kind in _BELOW_ITEMS and not _among_items(rows, n)) or _lost_total(r)]
    for end in below or [len(rows)]:
        start = next((n for n, r in enumerate(rows[:end]) if _may_be_item(r)), end)
        if start < end:
            return start, end
    end = below[0] if below else len(rows)
    return end, end


def _among_items(rows: Sequence[Row], at: int) -> bool:
    """Whether a row called a payment is an item, such as a bottle's deposit: items go on below it, and then a subtotal or total."""
    if rows[at].kind not in ("tender", "change"):
        return False
    ahead = [r for r in rows[at + 1 :] if r.amounts]
    items = len(list(takewhile(_may_be_item, ahead)))
    return 0 < items < len(ahead) and ahead[items].kind in ("subtotal", "total") and not any(r.kind == "total" for r in rows[:at])


def _lost_total(row: Row) -> bool:
    return row.lost_point is not None and row.name is not None and row.name.kind == "total" and row.name.strength >= 2


def _may_be_item(row: Row) -> bool:
    return bool(row.amounts) and row.kind not in _BELOW_ITEMS and row.kind != "info" and not _REFERENCE.match(row.text)


def _with_name(rows: Sequence[Row], start: int, end: int) -> Sequence[Row]:
    """The item rows; with the rows above, when the first has an amount and no name of its own."""
    first = rows[start] if start < end else None
    return rows[max(0, start - 2) if first and named_nothing(first) else start : end]


def _is_receipt(reading: _Reading) -> bool:
    """A total that is surely one, items with what is called a total, payment or tax, or an amount on a page that calls itself a
    receipt and is dated."""
    total = reading.reckoning.total
    if total is None:
        return False
    called = any(r.kind == "total" and r.name is not None and r.name.strength >= 2 for r in reading.rows)
    paid = called or any(r.kind in ("tender", "change", "tax", "subtotal") for r in reading.rows)
    papers = any(_PAPER.search(plain_letters(r.text)) for r in reading.rows)
    return total.confidence > UNLABELLED or (bool(reading.items) and paid) or (papers and reading.date is not None)


def _receipt(reading: _Reading, ocr: OcrResult, more: tuple[str, ...]) -> ParsedReceipt:
    reckoning, items_sum = reading.reckoning, reading.items_sum
    apart = reckoning.disagreements(items_sum) if reading.items else []
    evidence = _evidence(reading)
    doubtful = tuple(name for name, found in evidence.items() if found.confidence < CERTAIN)
    total, rounding = reckoning.total, reckoning.rounding
    return ParsedReceipt(
        is_receipt=True,
        merchant=reading.merchant.name if reading.merchant else None,
        date=reading.date.value.isoformat() if reading.date else None,
        currency=reading.place.currency,
        items=tuple(line.item() for line in reading.items),
        charges=reckoning.charges,
        discounts=reckoning.discounts,
        subtotal=_cents(reckoning.subtotal),
        tax=None if reckoning.taxes.amount is None else cents(reckoning.taxes.amount),
        tax_lines=tuple(line.model_copy(update={"included": reckoning.holds_tax(items_sum)}) for line in reckoning.taxes.lines),
        rounding=_rounding(reading) if rounding else None,
        total=None if total is None else cents(total.value),
        tax_base=_tax_base(reckoning, items_sum),
        payments=reckoning.payments,
        change=None if reckoning.change is None else cents(abs(reckoning.change.amount)),
        items_sum=cents(items_sum) if reading.items else None,
        balanced=bool(reading.items) and total is not None and not apart and not reading.troubles,
        evidence=evidence,
        uncertain=doubtful,
        problems=(*more, *_missing(reading), *reading.troubles, *reckoning.taxes.problems, *apart, *_doubts(reading, doubtful)),
        source=ocr.source,
    )


def _cents(row: Row | None) -> Decimal | None:
    return None if row is None else cents(row.amount)


def _rounding(reading: _Reading) -> Decimal:
    """What rounding added, with the sign by which the total comes out; many receipts print none."""
    reckoning, rounding, total = reading.reckoning, reading.reckoning.rounded, reading.reckoning.total
    if total is None or not rounding:
        return cents(rounding)
    before = {r.amount for r in reading.rows if r.kind in ("total", "subtotal")}
    before |= {base + tax for base in reckoning.bases(reading.items_sum) for tax in (_ZERO, reckoning.taxes.amount or _ZERO)}
    return cents(-rounding if total.value + rounding in before and total.value - rounding not in before else rounding)


def _tax_base(reckoning: Reckoning, items_sum: Decimal) -> TaxBase | None:
    """The net amount that the rate applies to; None without a single rate, and where neither rate nor sums tell the amount."""
    line = reckoning.taxes.lines[0] if len(reckoning.taxes.lines) == 1 else None
    if line is None or line.rate is None:
        return None
    bases = [line.net] if line.net is not None else _net_amounts(reckoning, items_sum, line.amount)
    rate = line.rate
    taxed = (base for base in bases if abs(base * rate - line.amount) <= CENT)
    base = next(taxed, bases[0] if line.net is not None or reckoning.explains(items_sum) else None)
    return None if base is None else TaxBase(amount=cents(base), rate=rate)


def _net_amounts(reckoning: Reckoning, items_sum: Decimal, tax: Decimal) -> list[Decimal]:
    """What a tax can be of, the likeliest first; service and discounts are taxed, or not."""
    gross = [] if reckoning.total is None else [reckoning.total.value - tax]
    if reckoning.holds_tax(items_sum):
        return gross or [items_sum - tax]
    subtotal = items_sum if reckoning.subtotal is None else reckoning.subtotal.amount
    return [subtotal, *reckoning.bases(items_sum), *gross]


def _missing(reading: _Reading) -> list[str]:
    absent = {
        "no merchant could be read": reading.merchant is None,
        "no date could be read": reading.date is None,
        "no currency could be read": reading.place.currency is None,
        "no items could be read": not reading.items,
        "no total could be read": reading.reckoning.total is None,
    }
    return [problem for problem, missing in absent.items() if missing]


def _doubts(reading: _Reading, doubtful: Sequence[str]) -> list[str]:
    told = uncertain(reading.rows)
    if reading.date and reading.date.problem:
        told.append(reading.date.problem)
    return [*told, *doubted(doubtful)]


def doubted(names: Sequence[str]) -> list[str]:
    """The problem that names the fields which are not to be relied on; none where there are none."""
    return [f"{DOUBTED}{', '.join(names)}"] if names else []


def _evidence(reading: _Reading) -> dict[str, Evidence]:
    """Where each value comes from and the chance that it is right."""
    reckoning, found = reading.reckoning, {}
    if reading.merchant:
        row = reading.merchant.row
        found["merchant"] = Evidence(confidence=reading.merchant.confidence, line=row.line, text=row.text)
    if date := reading.date:
        found["date"] = Evidence(confidence=date.confidence, line=date.line, text=date.text)
    if reading.place.currency:
        found["currency"] = _currency(reading)
    if total := reckoning.total:
        found["total"] = _of(total.row, total.confidence, how=total.how)
    agrees = reckoning.explains(reading.items_sum)
    if reckoning.subtotal:
        found["subtotal"] = _of(reckoning.subtotal, _part(reading, proved=agrees))
    if reckoning.taxes.amount is not None:
        at = reckoning.taxes.lines[0].line if reckoning.taxes.lines else None
        printed = next((r for r in reading.rows if r.line == at), None)
        found["tax"] = _of(printed, _tax_confidence(reading, agrees=agrees))
    if reading.items:
        found["items"] = Evidence(
            confidence=_items(reading, agrees=agrees), how="printed" if reading.mended is None else "repaired"
        )
    for name, other in (("rounding", reckoning.rounding), ("change", reckoning.change)):
        if other:
            found[name] = _of(other, _part(reading, proved=agrees))
    return found


def _of(row: Row | None, confidence: float, how: str = "printed") -> Evidence:
    return Evidence(
        confidence=confidence,
        line=row.line if row else None,
        text=row.text if row else "",
        how=how,  # type: ignore[arg-type]  # one of the three
    )


def _currency(reading: _Reading) -> Evidence:
    line = reading.place.currency_line
    row = next((r for r in reading.rows if r.line == line), None) if line is not None else None
    return _of(row, reading.place.currency_confidence, how="printed" if row else "reckoned")


def _part(reading: _Reading, *, proved: bool) -> float:
    total = reading.reckoning.total
    return round(0.95 if proved else 0.6 if total and total.confidence >= CERTAIN else 0.4, 3)


def _tax_confidence(reading: _Reading, *, agrees: bool) -> float:
    """Of the tax: low where it is more than its own rates can make of the whole total."""
    taxes, total = reading.reckoning.taxes, reading.reckoning.total
    rates = [line.rate for line in taxes.lines if line.rate]
    rated = bool(rates) and len(rates) == len(taxes.lines)
    if total and taxes.amount and rated and abs(taxes.amount) > abs(total.value) * sum(rates) * Decimal("1.03"):
        return 0.3
    return _part(reading, proved=taxes.proved or (agrees and not reading.reckoning.included))


def _items(reading: _Reading, *, agrees: bool) -> float:
    reckoning = reading.reckoning
    wanted = _wanted(reckoning) or ([reckoning.total.value] if reckoning.total else [])
    tax = reckoning.taxes.amount or _ZERO
    if any(abs(reading.items_sum - w - t) <= 2 * CENT for w in wanted for t in (_ZERO, tax)):
        return 0.95
    if agrees and reckoning.subtotal is None:
        return 0.7
    read = [line.confidence for line in reading.items]
    return 0.5 if read and min(read) >= 0.9 else 0.4  # well read: then the receipt itself may not add up
