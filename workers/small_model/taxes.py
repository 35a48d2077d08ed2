"""The taxes that a receipt prints: single lines above the total, tables below it, and sums of both, each counted once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import permutations

from workers.receipt import CENT, TaxLine, cents
from workers.small_model.labels import RATED, plain_letters
from workers.small_model.rows import Row

_RATE = re.compile(r"(?<!\d)(\d{1,2}(?:[.,]\d{1,3})?)\s?%")
_CODE = re.compile(r"^\W*(?:[A-Z]{1,4}\d?|\d|\(?[A-Z]\)?\s?=?)?(?:\W|\d|$)")  # how a row of a tax table begins: `A`, `SR`, `1`
_TABLE_HEAD = re.compile(
    r"\b(?:tax|vat|gst|sst|mwst|ust|tva|iva|btw|moms|mva|alv|dph|ptu|kdv|cgst|steuer)\b.*(?:%|\s{2})|%.*\b(?:tax|vat|mwst|tva|iva|btw|moms|mva)\b"
)
HIGHEST = Decimal("0.35")  # no country's tax on a purchase is more of its net amount
LOOSE = 2 * CENT
_USUAL = ("3", "4", "5", "5.5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", *map(str, range(16, 26)), "27")  # percent
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Taxes:
    """The taxes as far as the lines tell them.

    Attributes:
        lines: Each tax once.
        amount: Their sum, or None when none is printed or one cannot be told.
        proved: Whether rates, or a sum printed apart, confirm it.
        problems: What could not be told.
    """

    lines: tuple[TaxLine, ...] = ()
    amount: Decimal | None = None
    proved: bool = False
    problems: tuple[str, ...] = ()


def read_taxes(rows: Sequence[Row], *, total: Decimal | None, at_total: int | None) -> Taxes:
    """The taxes in the rows of the reckoning; lines above the total count before the table below it."""
    told = [
        (n, row, _in_table(rows, n) or _tax_line(row, total))
        for n, row in enumerate(rows)
        if _is_tax(row, total) or _in_table(rows, n)
    ]
    sums = [line for _, row, line in told if line and _all_taxes(row)]
    parts = [(n, row, line) for n, row, line in told if line and not _all_taxes(row)]
    stop = len(rows) if at_total is None else at_total
    above = [line for n, _, line in parts if n < stop]
    below = [line for n, _, line in parts if n >= stop]
    unread = tuple(f"which amount is the tax in `{row.text}` could not be told" for _, row, line in told if line is None)
    return _chosen(sums, _distinct(above), _distinct(below), unread)


def _all_taxes(row: Row) -> bool:
    return row.name is not None and (row.name.all_taxes or row.name.kind in ("total", "subtotal"))


def _chosen(sums: list[TaxLine], above: list[TaxLine], below: list[TaxLine], unread: tuple[str, ...]) -> Taxes:
    totals = [sum((line.amount for line in group), _ZERO) for group in (above, below) if group] + [s.amount for s in sums]
    if not totals:
        return Taxes(problems=unread)
    group = above or below
    amount = totals[0] if group else sums[0].amount
    if sums and not any(_near(s.amount, amount) for s in sums):
        amount = sums[0].amount if not _near(sums[0].amount, _ZERO) or _near(amount, _ZERO) else amount
        other = below if above and below and _near(_sum(below), amount) else group
        group = other if _near(_sum(other), amount) else [sums[0]]
    agreed = sum(_near(t, amount) for t in totals) > 1
    rated = bool(group) and all(_by_rate(line) for line in group)
    return Taxes(tuple(group or sums[:1]), amount, agreed or rated, unread if not agreed and not group else ())


def _sum(lines: Sequence[TaxLine]) -> Decimal:
    return sum((line.amount for line in lines), _ZERO)


def _near(a: Decimal, b: Decimal) -> bool:
    return abs(a - b) <= LOOSE


def _by_rate(line: TaxLine) -> bool:
    return line.rate is not None and line.net is not None and _near(cents(line.net * line.rate), line.amount)


def _distinct(lines: Sequence[TaxLine]) -> list[TaxLine]:
    """The lines without repetitions: the same name, rate, net amount and tax printed twice is one tax."""
    seen: dict[tuple[Decimal | None, Decimal | None, Decimal, str], TaxLine] = {}
    for line in lines:
        name = re.sub(r"[\W\d_]", "", plain_letters(line.label))
        seen.setdefault((line.rate, line.net, line.amount, name), line)
    return list(seen.values())


def _in_table(rows: Sequence[Row], at: int) -> TaxLine | None:
    """A row of a tax table whose rate stands in a column of its own: `1  8.1  19.50  1.46` below a head that names a tax."""
    row = rows[at]
    if len(row.amounts) < 2 or row.name is not None or rate_of(row) is not None or not _below_head(rows, at):
        return None
    numbers = {Decimal(n.replace(",", ".")) / 100 for n in re.findall(r"(?<![\d.,])\d{1,2}(?:[.,]\d{1,2})?(?![\d.,])", row.text)}
    for rate in sorted(r for r in numbers if _ZERO < r <= HIGHEST):
        if found := _split(row, rate):
            return TaxLine(label=row.label or row.text, amount=found[1], rate=rate, net=found[0], included=True, line=row.line)
    return None


def _below_head(rows: Sequence[Row], at: int) -> bool:
    """Whether the nearest row above without amounts is the head of a tax table."""
    head = next((r for r in reversed(rows[:at]) if not r.amounts), None)
    return head is not None and _TABLE_HEAD.search(plain_letters(head.text)) is not None


def _is_tax(row: Row, total: Decimal | None) -> bool:
    """A line called tax, or one of a tax table: a code or a rate, a net amount and its share."""
    if not row.amounts:
        return False
    if row.name and row.name.kind == "tax":
        return row.name.certainty >= RATED
    if row.name and row.name.kind in ("total", "subtotal"):
        return _is_content(row, total) or _is_sum(row, total)
    if len(row.amounts) < 2 or (row.name and row.name.kind != "info"):
        return False
    rate = rate_of(row)
    if rate is not None:
        return _split(row, rate) is not None
    found = _split(row, None)
    whole = found is not None and total is not None and _near(found[0] + found[1], total)
    return whole and _CODE.match(row.label) is not None and len(row.label) <= 6


def rate_of(row: Row) -> Decimal | None:
    """The rate that the row prints, as a share."""
    match = _RATE.search(row.text)
    return Decimal(match[1].replace(",", ".")) / 100 if match else None


def _is_content(row: Row, total: Decimal | None) -> bool:
    """`Total includes GST  1.56`: called a total, but the tax that is in it."""
    named = row.name is not None and row.name.included and row.name.taxed
    if not named or total is None or len(row.amounts) != 1 or not _ZERO < row.amount <= total * HIGHEST / (1 + HIGHEST):
        return False
    rates = [rate] if (rate := rate_of(row)) else [Decimal(percent) / 100 for percent in _USUAL]
    return any(abs(total * r / (1 + r) - row.amount) <= max(LOOSE, row.amount / 100) for r in rates)


def _is_sum(row: Row, total: Decimal | None) -> bool:
    """The last row of a tax table: net amount, tax and perhaps their sum, which is the total."""
    values = [a.value for a in row.amounts]
    return total is not None and len(values) in (2, 3) and _near(values[0] + values[1], total) and values[-1] in (values[1], total)


def _tax_line(row: Row, total: Decimal | None) -> TaxLine | None:
    rate, included = rate_of(row), bool(row.name and row.name.included)
    label = row.label or row.text
    if row.name and row.name.kind in ("total", "subtotal") and len(row.amounts) > 1:
        low, high = sorted(a.value for a in row.amounts[:2])
        return TaxLine(label=label, amount=low, net=high, included=True, line=row.line)
    if len(row.amounts) == 1:
        amount = row.amount
        told = total is None or abs(amount) <= abs(total) * HIGHEST
        return TaxLine(label=label, amount=amount, rate=rate, included=included, line=row.line) if told else None
    found = _split(row, rate) or _smallest(row)
    if found is None:
        return None
    return TaxLine(label=label, amount=found[1], rate=rate, net=found[0], included=included, line=row.line)


def _split(row: Row, rate: Decimal | None) -> tuple[Decimal, Decimal] | None:
    """The two amounts of a row of which one is the rate's share of the other (without a rate: a third is their sum)."""
    values = [a.value for a in row.amounts]
    pairs = {
        (net, tax)
        for net, tax in permutations(values, 2)
        if _ZERO < tax < net and tax <= net * HIGHEST and _shares(net, tax, rate, values)
    }
    if rate is not None and not pairs:
        pairs = _gross(values, rate) | _halves(values, rate)
    return min(pairs, key=lambda p: abs(p[0] * (rate or _ZERO) - p[1])) if pairs else None


def _gross(values: Sequence[Decimal], rate: Decimal) -> set[tuple[Decimal, Decimal]]:
    """Net amount and tax where the table prints the gross amount and the tax in it."""
    return {(g - t, t) for g, t in permutations(values, 2) if _ZERO < t < g and abs(g * rate / (1 + rate) - t) <= CENT}


def _halves(values: Sequence[Decimal], rate: Decimal) -> set[tuple[Decimal, Decimal]]:
    """Net amount and tax where the tax is printed in two halves, as India's central and state tax."""
    return {(n, a + b) for n, a, b in permutations(values, 3) if _near(a, b) and a < n and abs(n * rate - a - b) <= LOOSE}


def _shares(net: Decimal, tax: Decimal, rate: Decimal | None, values: Sequence[Decimal]) -> bool:
    if rate is not None:
        return abs(net * rate - tax) <= LOOSE
    return len(values) == 2 or any(_near(v, net + tax) for v in values)


def _smallest(row: Row) -> tuple[Decimal, Decimal] | None:
    """Net amount and tax of a row that is called tax but whose rate was not read; `0.00` is a tax too."""
    low, high = sorted((row.amounts[0].value, row.amounts[-1].value))
    return (high, low) if _ZERO <= low <= high * HIGHEST else None
