"""The reckoning below the items: subtotal, charges, tax and total, and whether they add up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from workers.receipt import CENT
from workers.small_model.labels import tax_included
from workers.small_model.rows import Row

TOLERANCE = 2 * CENT  # roundings of tax and of cash
_RATE = re.compile(r"(\d{1,2}(?:[.,]\d{1,3})?)\s?%")
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Reckoning:
    """What the lines below the items say, exact.

    `early` are the charges above the subtotal, `net` is what a tax line itself says that it is of.
    """

    subtotal: Decimal | None
    tax: Decimal | None
    total: Decimal | None
    charges: tuple[tuple[str, Decimal], ...]
    early: Decimal
    rate: Decimal | None
    net: Decimal | None
    included: bool
    problems: tuple[str, ...]

    @property
    def charged(self) -> Decimal:
        """All charges together."""
        return sum((a for _, a in self.charges), _ZERO)

    def tax_base(self, items_sum: Decimal) -> Decimal | None:
        """The net amount that the rate applies to, or None when there is no single rate."""
        if self.rate is None or self.tax is None or self.net is not None:
            return self.net
        if self.total is not None and (self.included or (self.subtotal is None and _near(self.total, items_sum + self.charged))):
            return self.total - self.tax
        return self.subtotal if self.subtotal is not None else items_sum

    def disagreements(self, items_sum: Decimal) -> list[str]:
        """What does not add up."""
        told, tax = [], self.tax or _ZERO
        sums = (items_sum, items_sum + self.early)
        if self.subtotal is not None and not any(_near(self.subtotal, s - t) for s in sums for t in (_ZERO, tax)):
            told.append(_apart("the items sum to", items_sum, "the printed subtotal", self.subtotal))
        if self.total is None:
            return told
        late = self.charged - self.early
        bases = [items_sum + self.charged] if self.subtotal is None else [self.subtotal + late, self.subtotal + self.charged]
        if not any(_near(self.total, b + t) for b in bases for t in (_ZERO, tax)):
            start = "the items with charges and tax come to" if self.subtotal is None else "subtotal, charges and tax come to"
            told.append(_apart(start, bases[0] + (_ZERO if self.included else tax), "the printed total", self.total))
        return told


def _near(a: Decimal, b: Decimal) -> bool:
    return abs(a - b) <= TOLERANCE


def _apart(start: str, ours: Decimal, name: str, printed: Decimal) -> str:
    return f"{start} {ours:.2f}, {name} is {printed:.2f} ({abs(printed - ours):.2f} {'more' if printed > ours else 'less'})"


def read_reckoning(rows: Sequence[Row]) -> Reckoning:
    """The reckoning in the rows that follow the items."""
    paid = next((n for n, r in enumerate(rows) if r.kind == "payment"), len(rows))
    at_total = _last(rows[:paid], "total")
    if at_total is None:
        at_total = _last(rows, "total")
    stop = paid if at_total is None else at_total
    at_subtotal = next((n for n, r in enumerate(rows[:stop]) if r.kind in ("subtotal", "net")), None)
    charges = [(n, r.label, _charge(r)) for n, r in enumerate(rows[:stop]) if r.kind in ("charge", "discount")]
    taxes = _tax_rows(rows, stop)
    tax, problems = _tax(taxes)
    rates = {rate for r in taxes if (rate := _rate(r.label)) is not None}
    return Reckoning(
        subtotal=None if at_subtotal is None else rows[at_subtotal].amount,
        tax=tax,
        total=None if at_total is None else rows[at_total].amount,
        charges=tuple((label, amount) for _, label, amount in charges),
        early=sum((a for n, _, a in charges if at_subtotal is not None and n < at_subtotal), _ZERO),
        rate=rates.pop() if len(rates) == 1 and len(taxes) == 1 else None,
        net=share[0] if len(taxes) == 1 and (share := _share(taxes[0])) else None,
        included=any(tax_included(r.label) for r in taxes),
        problems=tuple(problems),
    )


def _last(rows: Sequence[Row], kind: str) -> int | None:
    return next((n for n in reversed(range(len(rows))) if rows[n].kind == kind), None)


def _charge(row: Row) -> Decimal:
    return -abs(row.amount) if row.kind == "discount" else row.amount


def _tax_rows(rows: Sequence[Row], stop: int) -> list[Row]:
    """The tax lines above the total, else those below; a `total tax` stands for all of them."""
    above = [r for r in rows[:stop] if _is_tax(r)]
    found = above or [r for r in rows[stop:] if _is_tax(r)]
    return [r for r in found if re.search(r"(?i)total|summe|gesamt", r.label)][:1] or found


def _is_tax(row: Row) -> bool:
    """A line called tax, or one of a tax table: a rate, a net amount and its share."""
    return row.kind == "tax" or (row.kind is None and len(row.amounts) > 1 and _share(row) is not None)


def _tax(rows: Sequence[Row]) -> tuple[Decimal | None, list[str]]:
    amounts, problems = [], []
    for row in rows:
        amount = _tax_amount(row)
        if amount is None:
            problems.append(f"which amount is the tax in `{row.text}` could not be told")
        else:
            amounts.append(amount)
    return (sum(amounts, _ZERO) if amounts and not problems else None), problems


def _tax_amount(row: Row) -> Decimal | None:
    """The tax in a tax line; of several amounts (net, tax, gross) the one that is the rate's share of another."""
    if len(row.amounts) == 1:
        return row.amount
    share = _share(row)
    return share[1] if share else None


def _share(row: Row) -> tuple[Decimal, Decimal] | None:
    """The two amounts of a line of which one is the line's rate of the other: net and tax."""
    rate = _rate(row.label)
    if rate is None:
        return None
    values = [a.value for a in row.amounts]
    found = {(net, v) for v in values for net in values if _ZERO < v < net and abs(net * rate - v) <= CENT}
    return found.pop() if len(found) == 1 else None


def _rate(label: str) -> Decimal | None:
    match = _RATE.search(label)
    return Decimal(match[1].replace(",", ".")) / 100 if match else None
