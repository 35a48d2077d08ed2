"""What was spent, in words: in total, on one category, by category or by receipt; and what the figures cannot tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, Field

from workers.function.receipts import MergedReceipt
from workers.receipt import Amount, cents

By = Literal["total", "category", "receipt"]
_UNNAMED = "a receipt without a name"


class Spent(BaseModel):
    """What was spent on one thing in one currency."""

    on: str = Field(description="a category or a merchant; empty: everything")
    currency: str | None = None
    total: Amount
    items: int
    receipts: int
    date: str | None = None


class Spending(BaseModel):
    """What was spent, as a sentence or a line each, and the figures of it."""

    text: str
    category: str | None = None
    amounts: tuple[Spent, ...] = ()
    receipts: int
    pictures: int


def report(receipts: Sequence[MergedReceipt | None], *, category: str | None, by: By) -> Spending:
    """The report; None stands for a picture that could not be processed."""
    real = [r for r in receipts if r is not None and r.is_receipt]
    wanted = " ".join(category.casefold().split()) if category is not None else None
    amounts = tuple(_amounts(real, wanted, by))
    first = _sentence(real, amounts, wanted) if wanted is not None or by == "total" else _lines(amounts)
    if not real:
        first = "No receipt could be read."
    text = "\n".join([first, *_caveats(receipts, real)]) if "\n" in first else " ".join([first, *_caveats(receipts, real)])
    return Spending(text=text, category=wanted, amounts=amounts, receipts=len(real), pictures=len(receipts))


def _amounts(real: Sequence[MergedReceipt], category: str | None, by: By) -> Iterator[Spent]:
    if category is not None:
        yield from (s for s in _by_category(real) if s.on == category)
    elif by == "category":
        yield from _by_category(real)
    elif by == "receipt":
        yield from (_receipt(r) for r in real)
    else:
        currencies = sorted({r.currency for r in real}, key=lambda c: (c is None, c or ""))
        yield from (_total([r for r in real if r.currency == c], c) for c in currencies)


def _by_category(real: Sequence[MergedReceipt]) -> list[Spent]:
    total: dict[tuple[str | None, str], Decimal] = defaultdict(Decimal)
    items: dict[tuple[str | None, str], int] = defaultdict(int)
    held: dict[tuple[str | None, str], int] = defaultdict(int)
    for receipt in real:
        for found in receipt.categories:
            key = receipt.currency, found.category.casefold()
            total[key] += found.total
            items[key] += found.count
            held[key] += 1
    rows = [Spent(on=k[1], currency=k[0], total=cents(total[k]), items=items[k], receipts=held[k]) for k in total]
    return sorted(rows, key=lambda s: (s.currency is None, s.currency or "", -s.total, s.on))


def _receipt(receipt: MergedReceipt) -> Spent:
    row = _total([receipt], receipt.currency)
    return row.model_copy(update={"on": receipt.merchant or _UNNAMED, "date": receipt.date})


def _total(receipts: Sequence[MergedReceipt], currency: str | None) -> Spent:
    known = sum((r.total for r in receipts if r.total is not None), Decimal(0))
    return Spent(on="", currency=currency, total=cents(known), items=sum(len(r.items) for r in receipts), receipts=len(receipts))


def _sentence(real: Sequence[MergedReceipt], amounts: Sequence[Spent], category: str | None) -> str:
    """ "You spent 43.10 EUR on food (3 items, 2 receipts)." """
    on = f" on {category}" if category is not None else ""
    counts = f"({_count(sum(a.items for a in amounts), 'item')}, {_count(sum(a.receipts for a in amounts), 'receipt')})"
    if amounts:
        return f"You spent {' and '.join(_money(a) for a in amounts)}{on} {counts}."
    others = sorted({c.category for r in real for c in r.categories})
    there = f" There are: {', '.join(others)}." if others else ""
    return f"You spent nothing{on}: no item on {_count(len(real), 'receipt')} is in that category.{there}"


def _lines(amounts: Iterable[Spent]) -> str:
    return "\n".join(f"{a.on}{f', {a.date}' if a.date else ''}: {_money(a)} ({_count(a.items, 'item')})" for a in amounts)


def _caveats(receipts: Sequence[MergedReceipt | None], real: Sequence[MergedReceipt]) -> Iterator[str]:
    failed = sum(r is None for r in receipts)
    if failed:
        yield f"{_count(failed, 'picture')} could not be processed."
    if others := len(receipts) - failed - len(real):
        yield f"{_count(others, 'picture')} {'is' if others == 1 else 'are'} no receipt."
    if open_totals := sum(r.total is None for r in real):
        yield f"The total of {_count(open_totals, 'receipt')} could not be read."
    if odd := sum(not r.balanced for r in real):
        yield f"{_count(odd, 'receipt')} {'does' if odd == 1 else 'do'} not add up."


def _money(spent: Spent) -> str:
    return f"{spent.total:.2f} {spent.currency}" if spent.currency else f"{spent.total:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
