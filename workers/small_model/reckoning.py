"""The reckoning below the items: subtotal, charges, discounts, tax, rounding, total and payment, and whether they add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from workers.receipt import Charge, Payment
from workers.small_model.labels import tax_included
from workers.small_model.rows import Row
from workers.small_model.taxes import Taxes, read_taxes
from workers.small_model.total import COINS, LOOSE, Facts, Total, find_total

_ZERO = Decimal(0)


@dataclass(frozen=True)
class Reckoning:
    """What the lines below the items say, exact; `early` are charges and discounts above the subtotal."""

    subtotal: Row | None
    taxes: Taxes
    total: Total | None
    charges: tuple[Charge, ...]
    discounts: tuple[Charge, ...]
    rounding: Row | None
    payments: tuple[Payment, ...]
    change: Row | None
    early: Decimal

    @property
    def charged(self) -> Decimal:
        """Charges and discounts together."""
        return sum((c.amount for c in (*self.charges, *self.discounts)), _ZERO)

    @property
    def rounded(self) -> Decimal:
        """What rounding added; its sign is the one by which the sums come out, since many receipts print none."""
        return self.rounding.amount if self.rounding else _ZERO

    @property
    def included(self) -> bool:
        """Whether a tax line says that the prices hold it."""
        return any(line.included or tax_included(line.label) for line in self.taxes.lines)

    def bases(self, items_sum: Decimal) -> list[Decimal]:
        """What the total should come to without tax."""
        late = self.charged - self.early
        if self.subtotal is None:
            return [items_sum + self.charged]
        return [self.subtotal.amount + late, self.subtotal.amount + self.charged]

    def explains(self, items_sum: Decimal) -> bool:
        """Whether the parts come to the total."""
        tax = self.taxes.amount or _ZERO
        return any(self._reaches(base + added) for base in self.bases(items_sum) for added in (_ZERO, tax))

    def holds_tax(self, items_sum: Decimal) -> bool:
        """Whether the prices hold the tax: a line says so, or they come to the total without it, and not with it."""
        tax = self.taxes.amount or _ZERO
        for bases in ([items_sum + self.charged], self.bases(items_sum)) if tax and not self.included else ():
            without, with_tax = (any(self._reaches(base + added) for base in bases) for added in (_ZERO, tax))
            if without or with_tax:
                return without and not with_tax
        return self.included

    def _reaches(self, amount: Decimal) -> bool:
        steps = (_ZERO, self.rounded, -self.rounded)
        return self.total is not None and any(_near(self.total.value, amount + step) for step in steps)

    def disagreements(self, items_sum: Decimal) -> list[str]:
        """What does not add up."""
        told, tax = [], self.taxes.amount or _ZERO
        sums = (items_sum, items_sum + self.early)
        if self.subtotal is not None and not any(_near(self.subtotal.amount, s + t) for s in sums for t in (_ZERO, tax, -tax)):
            told.append(_apart("the items sum to", items_sum, "the printed subtotal", self.subtotal.amount))
        if self.total is None or self.explains(items_sum):
            return told
        start = "the items with charges and tax come to" if self.subtotal is None else "subtotal, charges and tax come to"
        ours = self.bases(items_sum)[0] + (_ZERO if self.included else tax) + self.rounded
        return [*told, _apart(start, ours, "the printed total", self.total.value)]


def _near(a: Decimal, b: Decimal) -> bool:
    return abs(a - b) <= LOOSE


def _apart(start: str, ours: Decimal, name: str, printed: Decimal) -> str:
    return f"{start} {ours:.2f}, {name} is {printed:.2f} ({abs(printed - ours):.2f} {'more' if printed > ours else 'less'})"


def read_reckoning(rows: Sequence[Row], *, items_sum: Decimal, item_count: int, every: Sequence[Row]) -> Reckoning:
    """The reckoning in the rows that follow the items; `every` row of the page may print an amount once more."""
    facts = _facts(rows, items_sum=items_sum, item_count=item_count, every=every)
    total = find_total(facts)
    at_total = next((n for n, r in enumerate(rows) if total and total.row and r.line == total.row.line), None)
    stop = len(rows) if at_total is None else at_total
    taxes = read_taxes(rows, total=total.value if total else None, at_total=at_total)
    subtotal = _subtotal(facts, rows, stop, total=total, taxes=taxes)
    above = [(n, r) for n, r in enumerate(rows[:stop]) if r.kind == "charge" or is_discount(r)]
    at_subtotal = next((n for n, r in enumerate(rows) if subtotal and r.line == subtotal.line), None)
    early = sum((_signed(r) for n, r in above if at_subtotal is not None and n < at_subtotal), _ZERO)
    return Reckoning(
        subtotal=subtotal,
        taxes=taxes,
        total=total,
        charges=tuple(_charge(r) for _, r in above if r.kind == "charge"),
        discounts=tuple(_charge(r) for _, r in above if r.kind != "charge"),
        rounding=next((r for r in facts.roundings if r.amount), facts.roundings[0] if facts.roundings else None),
        payments=tuple(Payment(method=r.label, amount=r.amount, line=r.line) for r in facts.tenders),
        change=_change(facts, total),
        early=early,
    )


def _facts(rows: Sequence[Row], *, items_sum: Decimal, item_count: int, every: Sequence[Row]) -> Facts:
    taxes = read_taxes(rows, total=None, at_total=None)
    return Facts(
        rows=every,
        items=items_sum,
        item_count=item_count,
        subtotals=_of(rows, "subtotal"),
        totals=[r for r in rows if _may_be_total(r)],
        tenders=[_positive(r) for r in _of(rows, "tender")],
        changes=_of(rows, "change") + _of(rows, "balance"),
        roundings=[r for r in _of(rows, "rounding") if _may_round(r, rows)] + [r for r in _of(rows, "total") if _is_coins(r)],
        charged=sum((_signed(r) for r in _of(rows, "charge")), _ZERO),
        extra=_between(rows),
        discounted=sum((_signed(r) for r in rows if is_discount(r)), _ZERO),
        taxes=sorted({a for a in (taxes.amount, *(line.amount for line in taxes.lines)) if a}),
        nets=[r.amount for r in _of(rows, "net")] + [line.net for line in taxes.lines if line.net is not None][:3],
    )


def _lesser(facts: Facts, above: set[int], total: Total | None) -> list[Row]:
    """A total above the final one that tax or service is added to: `net total`, then `grand total`."""
    lesser = [r for r in facts.totals if r.amounts and r.line in above and total and _ZERO < r.amount < total.value - LOOSE]
    return [r for r in lesser if any(_near(r.amount + t, total.value) for t in (*facts.taxes, facts.charged) if t and total)]


def _change(facts: Facts, total: Total | None) -> Row | None:
    """The row that prints the change; a `balance` is change only where the payment less it is the total."""
    for row in facts.changes:
        given = [t.amount for t in facts.tenders]
        if (row.name and row.name.kind == "change") or (total and any(g - row.amount == total.value for g in given)):
            return row
    return None


def _between(rows: Sequence[Row]) -> Decimal:
    """What is added between the subtotal and the total under names that are not known, such as an `Environmental fee`."""
    start = next((n for n, r in enumerate(rows) if r.kind == "subtotal"), None)
    end = next((n for n, r in enumerate(rows) if r.kind == "total" and start is not None and n > start), None)
    if start is None or end is None:
        return _ZERO
    return sum((r.amount for r in rows[start + 1 : end] if r.name is None and len(r.amounts) == 1 and r.amount > 0), _ZERO)


def _may_round(row: Row, rows: Sequence[Row]) -> bool:
    """Rounding is to coins: what is more than a hundredth of the largest amount is in the wrong row."""
    largest = max((a.value for r in rows for a in r.amounts), default=_ZERO)
    return abs(row.amount) <= max(largest / 100, 10 * COINS)


def _may_be_total(row: Row) -> bool:
    """A row called total, balance or net amount; in some countries the last is the total after discounts."""
    if row.name is None or _is_coins(row):
        return False
    return (row.name.kind == "total" and bool(row.amounts or row.lost_point)) or (
        row.name.kind in ("balance", "net") and bool(row.amounts)
    )


def _is_coins(row: Row) -> bool:
    """`Total rounding  0.02`: called a total, but what rounding added."""
    return bool(row.amounts) and "round" in row.label.casefold() and abs(row.amount) <= COINS


def _positive(row: Row) -> Row:
    """The row with what was given as a positive amount; some print it as taken off."""
    return replace(row, amounts=tuple(replace(a, value=abs(a.value)) for a in row.amounts))


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [r for r in rows if r.name and r.name.kind == kind and r.amounts and r.name.certainty >= 0.75]


def _signed(row: Row) -> Decimal:
    return -abs(row.amount) if is_discount(row) else row.amount


def is_discount(row: Row) -> bool:
    """A line called discount, or below the items one that takes something off and is called nothing known."""
    return bool(row.amounts) and (row.kind == "discount" or (row.name is None and row.amount < 0))


def _charge(row: Row) -> Charge:
    return Charge(description=row.label, amount=_signed(row), line=row.line)


def _subtotal(facts: Facts, rows: Sequence[Row], stop: int, *, total: Total | None, taxes: Taxes) -> Row | None:
    """Of the rows called subtotal (or net) above the total the first that the items or the total confirm, else the first."""
    above = {r.line for r in rows[:stop]}
    printed = [r for r in facts.subtotals if r.line in above or not above]
    printed = printed or [r for r in rows[:stop] if r.kind == "net"] or _lesser(facts, above, total)
    tax = taxes.amount or _ZERO
    confirmed = [
        r
        for r in printed
        if (facts.item_count and _near(r.amount, facts.items)) or (total is not None and tax and _near(r.amount + tax, total.value))
    ]
    return next(iter(confirmed or printed), None)
