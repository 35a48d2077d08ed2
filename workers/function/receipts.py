"""Merging what is known about one receipt, and summing up many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from workers.receipt import CENT, Amount, Categorized, CategorizedItem, CategoryTotal, Charge, ParsedReceipt, cents

UNKNOWN = "unknown"
State = Literal["ok", "problems", "no receipt", "failed"]


class MergedReceipt(BaseModel):
    """A receipt with its categories, the check of its tax and its statistics."""

    source: str = ""
    is_receipt: bool
    merchant: str | None = None
    date: str | None = None
    currency: str | None = None
    items: tuple[CategorizedItem, ...] = ()
    charges: tuple[Charge, ...] = ()
    discounts: tuple[Charge, ...] = ()
    rounding: Amount | None = None
    categories: tuple[CategoryTotal, ...] = ()
    subtotal: Amount | None = None
    tax: Amount | None = None
    total: Amount | None = None
    computed_tax: Amount | None = Field(default=None, description="the printed rate applied to the net amount")
    items_sum: Amount | None = None
    balanced: bool = False
    uncertain: tuple[str, ...] = Field(default=(), description="fields whose value is not to be relied on")
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="what a reader should know, such as a model that failed")
    statistics: dict[str, Any] | None = None


class SummaryRow(BaseModel):
    """One picture in a summary."""

    index: int
    source: str
    state: State
    merchant: str | None = None
    date: str | None = None
    currency: str | None = None
    items: int = 0
    tax: Amount | None = None
    total: Amount | None = None
    balanced: bool = False
    uncertain: tuple[str, ...] = Field(default=(), description="fields whose value is not to be relied on")
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class CurrencyTotal(BaseModel):
    """What was spent in one currency, by category; `unknown` where a receipt prints no currency."""

    currency: str
    receipts: int
    total: Amount
    tax: Amount
    categories: tuple[CategoryTotal, ...] = ()


class ReceiptSummary(BaseModel):
    """The answer of the receipts job."""

    pictures: int
    receipts: int
    balanced: int
    unbalanced: tuple[int, ...] = Field(default=(), description="indexes of receipts that do not add up")
    uncertain: tuple[int, ...] = Field(default=(), description="indexes of receipts whose total is not to be relied on, or absent")
    not_receipts: tuple[int, ...] = Field(default=(), description="indexes of pictures that are no receipt")
    failed: tuple[int, ...] = Field(default=(), description="indexes of pictures that could not be processed")
    totals: tuple[CurrencyTotal, ...] = ()
    rows: tuple[SummaryRow, ...] = ()


def merge(
    receipt: ParsedReceipt, *, categories: Categorized | None, computed_tax: Decimal | None, statistics: dict[str, Any] | None
) -> MergedReceipt:
    """One receipt with all that is known about it."""
    problems = list(receipt.problems)
    if computed_tax is not None and receipt.tax is not None and receipt.tax - computed_tax > 2 * CENT:
        # less than computed is no problem: some items may be untaxed
        rate = receipt.tax_base.rate * 100 if receipt.tax_base else Decimal(0)
        problems.append(
            f"the printed tax of {receipt.tax:.2f} is more than its rate of {rate.normalize():f} % gives: {computed_tax:.2f}"
        )
    return MergedReceipt(
        **receipt.model_dump(include=_COMMON),
        items=categories.items if categories else tuple(CategorizedItem(**i.model_dump()) for i in receipt.items),
        charges=receipt.charges,
        discounts=receipt.discounts,
        categories=categories.totals if categories else (),
        computed_tax=None if computed_tax is None else cents(computed_tax),
        problems=tuple(problems),
        notes=categories.notes if categories else (),
        statistics=statistics,
    )


_COMMON = {
    *("source", "is_receipt", "merchant", "date", "currency", "subtotal", "tax", "rounding", "total"),
    *("items_sum", "balanced", "uncertain"),
}


def summarise(receipts: Sequence[MergedReceipt | None]) -> ReceiptSummary:
    """The summary of receipts; None stands for a picture that could not be processed."""
    rows = [_row(n, r) for n, r in enumerate(receipts)]
    real = [r for r in receipts if r is not None and r.is_receipt]
    by_currency: dict[str, list[MergedReceipt]] = defaultdict(list)
    for receipt in real:
        by_currency[receipt.currency or UNKNOWN].append(receipt)
    return ReceiptSummary(
        pictures=len(rows),
        receipts=len(real),
        balanced=sum(r.balanced for r in real),
        unbalanced=tuple(row.index for row in rows if row.state in ("ok", "problems") and not row.balanced),
        uncertain=tuple(n for n, r in enumerate(receipts) if r and r.is_receipt and (r.total is None or "total" in r.uncertain)),
        not_receipts=tuple(row.index for row in rows if row.state == "no receipt"),
        failed=tuple(row.index for row in rows if row.state == "failed"),
        totals=tuple(_currency_total(c, by_currency[c]) for c in sorted(by_currency)),
        rows=tuple(rows),
    )


def _row(index: int, receipt: MergedReceipt | None) -> SummaryRow:
    if receipt is None:
        return SummaryRow(index=index, source="", state="failed", problems=("could not be processed; see the job's errors",))
    state: State = "no receipt" if not receipt.is_receipt else "problems" if receipt.problems else "ok"
    return SummaryRow(
        index=index,
        source=receipt.source,
        state=state,
        merchant=receipt.merchant,
        date=receipt.date,
        currency=receipt.currency,
        items=len(receipt.items),
        tax=receipt.tax,
        total=receipt.total,
        balanced=receipt.balanced,
        uncertain=receipt.uncertain,
        problems=receipt.problems,
        notes=receipt.notes,
    )


def _currency_total(currency: str, receipts: Sequence[MergedReceipt]) -> CurrencyTotal:
    totals: dict[str, Decimal] = defaultdict(Decimal)
    counts: dict[str, int] = defaultdict(int)
    for category in (c for r in receipts for c in r.categories):
        totals[category.category] += category.total
        counts[category.category] += category.count
    return CurrencyTotal(
        currency=currency,
        receipts=len(receipts),
        total=cents(sum((r.total for r in receipts if r.total is not None), Decimal(0))),
        tax=cents(sum((r.tax for r in receipts if r.tax is not None), Decimal(0))),
        categories=tuple(
            CategoryTotal(category=c, count=counts[c], total=cents(totals[c]))
            for c in sorted(totals, key=lambda c: (-totals[c], c))
        ),
    )
