"""The tools of the pool `function`: reckoning with amounts and items, exact to the cent."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from statistics import median
from typing import Annotated

from pydantic import BaseModel, Field

from orchestrator.catalog.register import tool
from workers.function.receipts import MergedReceipt, ReceiptSummary, merge, summarise
from workers.function.spending import By, Spending, report
from workers.receipt import Amount, Categorized, CategorizedItem, Item, ParsedReceipt, cents, exact, items_total

Money = Annotated[float, Field(allow_inf_nan=False, description="in any currency; rounded to cents")]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Tax(BaseModel):
    """A tax on a net amount."""

    amount: Amount
    tax_rate: Amount
    tax: Amount
    total: Amount = Field(description="amount plus tax")


class Discount(BaseModel):
    """An amount with a discount taken off."""

    amount: Amount
    percent: Amount
    discount: Amount
    total: Amount = Field(description="amount less discount")


class MergedItems(BaseModel):
    """Items with equal descriptions as one, in the order of their first appearance."""

    items: tuple[Item, ...]
    count: int = Field(description="items before merging")
    total: Amount


class ItemStatistics(BaseModel):
    """What can be said about a list of items by counting."""

    count: int
    priced: int = Field(description="items whose amount is known; the figures below are about these")
    total: Amount
    average: Amount | None = None
    median: Amount | None = None
    smallest: Amount | None = None
    largest: Amount | None = None
    most_expensive: str | None = Field(default=None, description="description of the item with the largest amount")


@tool(
    effect="none",
    domain="finance",
    timeout_s=30,
    examples=[{"scenario": "8 % of 100", "input": {"amount": 100.0, "tax_rate": 0.08}}],
)
def compute_tax(amount: Money, tax_rate: Rate) -> Tax:
    """Computes the tax on a net amount, rounded to cents.

    Args:
        amount: The net amount.
        tax_rate: The rate as a share: 0.08 for 8 %.
    """
    net = exact(amount)
    tax = cents(net * exact(tax_rate))
    return Tax(amount=cents(net), tax_rate=exact(tax_rate), tax=cents(tax), total=cents(net + tax))


@tool(
    effect="none", domain="finance", timeout_s=30, examples=[{"scenario": "A tenth off", "input": {"amount": 80.0, "percent": 10}}]
)
def apply_discount(amount: Money, percent: Percent) -> Discount:
    """Takes a discount in percent off an amount, rounded to cents.

    Args:
        amount: The full amount.
        percent: The discount in percent: 10 for a tenth off.
    """
    full = exact(amount)
    discount = cents(full * exact(percent) / 100)
    return Discount(amount=cents(full), percent=exact(percent), discount=cents(discount), total=cents(full - discount))


@tool(effect="none", domain="finance", timeout_s=30)
def merge_items(items: list[Item]) -> MergedItems:
    """Merges items with equal descriptions, adding quantities and amounts, and totals them.

    Args:
        items: The items; one without a quantity counts as one, one without an amount adds nothing to the total.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[" ".join(item.description.casefold().split())].append(item)
    return MergedItems(items=tuple(_merged(g) for g in groups.values()), count=len(items), total=cents(items_total(items)))


def _merged(group: list[Item]) -> Item:
    if len(group) == 1:
        return group[0]
    prices = {i.unit_price for i in group}
    return Item(
        description=group[0].description,
        quantity=sum((Decimal(1) if i.quantity is None else i.quantity for i in group), Decimal(0)),
        unit_price=prices.pop() if len(prices) == 1 else None,
        amount=cents(items_total(group)) if all(i.amount is not None for i in group) else None,
    )


@tool(effect="none", domain="finance", timeout_s=30)
def filter_items_by_category(items: list[CategorizedItem], category: str) -> list[CategorizedItem]:
    """Keeps the items of one category.

    Args:
        items: Items with categories, such as `expense_categorizer` gives.
        category: The category to keep, in any case of letters.
    """
    wanted = category.strip().casefold()
    return [i for i in items if (i.category or "").casefold() == wanted]


@tool(effect="none", domain="finance", timeout_s=30)
def compute_item_statistics(items: list[Item]) -> ItemStatistics:
    """Computes count, total, average, median, smallest and largest amount of a list of items.

    Args:
        items: The items; those without an amount are counted and left out of the figures.
    """
    amounts = [i.amount for i in items if i.amount is not None]
    if not amounts:
        return ItemStatistics(count=len(items), priced=0, total=Decimal(0))
    dearest = max((i for i in items if i.amount is not None), key=lambda i: i.amount or Decimal(0))
    return ItemStatistics(
        count=len(items),
        priced=len(amounts),
        total=cents(sum(amounts, Decimal(0))),
        average=cents(sum(amounts, Decimal(0)) / len(amounts)),
        median=cents(median(amounts)),
        smallest=cents(min(amounts)),
        largest=cents(max(amounts)),
        most_expensive=dearest.description,
    )


@tool(effect="none", domain="receipts", timeout_s=30)
def merge_receipt(
    receipt: ParsedReceipt, categories: Categorized | None = None, tax: Tax | None = None, statistics: ItemStatistics | None = None
) -> MergedReceipt:
    """Puts what is known about one receipt together, and says where the printed tax is not the computed one.

    Args:
        receipt: The parsed receipt.
        categories: Its items by category.
        tax: The tax computed from its net amount and rate.
        statistics: Statistics of its items.
    """
    return merge(
        receipt,
        categories=categories,
        computed_tax=None if tax is None else tax.tax,
        statistics=None if statistics is None else statistics.model_dump(),
    )


@tool(effect="none", domain="receipts", timeout_s=60)
def summarise_receipts(receipts: list[MergedReceipt | None]) -> ReceiptSummary:
    """Summarises receipts: one row for each, totals by currency and category, and everything that is wrong with them.

    Args:
        receipts: Merged receipts; null stands for a picture that could not be processed.
    """
    return summarise(receipts)


@tool(effect="none", domain="receipts", timeout_s=60)
def report_spending(receipts: list[MergedReceipt | None], category: str | None = None, by: By = "total") -> Spending:
    """Says in words what was spent on receipts: in total, on one category, by category or by receipt.

    Args:
        receipts: Merged receipts; null stands for a picture that could not be processed.
        category: The category that is asked about, such as `food`; `by` does not count then.
        by: What gets a line each: `total` (one sentence), `category` or `receipt`.
    """
    return report(receipts, category=category, by=by)
