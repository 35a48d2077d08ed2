"""The functions of the pool `function`: exact to the cent, and honest about what is missing."""

from __future__ import annotations

from decimal import Decimal

import pytest

from orchestrator.catalog.register import registry
from orchestrator.errors import ToolError
from workers.function.tools import (
    apply_discount,
    compute_item_statistics,
    compute_tax,
    filter_items_by_category,
    merge_items,
    merge_receipt,
    summarise_receipts,
)
from workers.receipt import CategorizedItem, Item, ParsedReceipt, TaxBase
from workers.small_model.categories import categorise

RECEIPT = ParsedReceipt(
    is_receipt=True,
    merchant="Shop",
    currency="EUR",
    items=(Item(description="Coffee", amount=0.1), Item(description="Bread", amount=0.2)),
    subtotal=0.3,
    tax=0.06,
    total=0.36,
    tax_base=TaxBase(amount=0.3, rate=0.2),
    balanced=True,
)


@pytest.mark.parametrize(
    ("amount", "rate", "tax", "total"),
    [(100.0, 0.08, 8.0, 108.0), (34.8, 0.0725, 2.52, 37.32), (1.25, 0.1, 0.13, 1.38), (0, 0.2, 0, 0)],
)
def test_tax_is_rounded_half_up_to_cents(amount: float, rate: float, tax: float, total: float) -> None:
    made = compute_tax(amount, rate)
    assert (made.tax, made.total) == (Decimal(str(tax)), Decimal(str(total)))


def test_a_discount_has_no_binary_dust() -> None:
    made = apply_discount(1.1, 10)
    assert (made.discount, made.total) == (Decimal("0.11"), Decimal("0.99"))


@pytest.mark.parametrize(
    ("name", "input", "path"),
    [
        ("compute_tax", {"amount": {"text": "x"}, "tax_rate": 0.08}, "amount"),
        ("compute_tax", {"amount": 1.0, "tax_rate": 8}, "tax_rate"),
        ("apply_discount", {"amount": 1.0, "percent": 101}, "percent"),
        ("merge_items", {"items": [{"amount": "much"}]}, "items[0].amount"),
    ],
)
def test_bad_input_is_refused(name: str, input: dict[str, object], path: str) -> None:
    tool = registry.get(name)
    assert tool is not None
    with pytest.raises(ToolError) as caught:
        tool.validate_input(input)
    assert caught.value.path == path


def test_equal_items_are_merged() -> None:
    made = merge_items(
        [
            Item(description="Green  tea", quantity=2, unit_price=1.5, amount=3.0),
            Item(description="Bread", amount=2.2),
            Item(description="green tea", unit_price=1.5, amount=1.5),
            Item(description="bread"),
        ]
    )
    assert (made.count, made.total) == (4, Decimal("6.7"))
    assert made.items[0] == Item(description="Green  tea", quantity=3, unit_price=1.5, amount=4.5)
    assert made.items[1].amount is None  # the sum of what is known would be a guess


def test_items_are_filtered_by_category() -> None:
    items = [
        CategorizedItem(description="Tea", category="beverage"),
        CategorizedItem(description="Pen"),
        CategorizedItem(category="food"),
    ]
    assert filter_items_by_category(items, " Beverage") == [items[0]]


def test_statistics_leave_unpriced_items_out() -> None:
    made = compute_item_statistics([Item(description="a", amount=0.1), Item(description="b", amount=0.2), Item(description="c")])
    assert (made.count, made.priced, made.total, made.average, made.median) == (
        3,
        2,
        Decimal("0.3"),
        Decimal("0.15"),
        Decimal("0.15"),
    )
    assert (made.smallest, made.largest, made.most_expensive) == (Decimal("0.1"), Decimal("0.2"), "b")
    assert compute_item_statistics([]).average is None


def test_merging_keeps_everything_and_checks_the_tax() -> None:
    merged = merge_receipt(RECEIPT, categorise(RECEIPT.items), compute_tax(0.3, 0.2), compute_item_statistics(list(RECEIPT.items)))
    assert [i.category for i in merged.items] == ["beverage", "food"]
    assert (merged.computed_tax, merged.problems) == (Decimal("0.06"), ())
    assert merged.statistics is not None
    assert merged.statistics["total"] == Decimal("0.3")


def test_a_printed_tax_above_its_rate_is_a_problem_and_one_below_is_not() -> None:
    computed = compute_tax(0.3, 0.2)
    above = merge_receipt(RECEIPT.model_copy(update={"tax": Decimal("0.16")}), tax=computed)
    assert above.problems == ("the printed tax of 0.16 is more than its rate of 20 % gives: 0.06",)
    assert merge_receipt(RECEIPT.model_copy(update={"tax": Decimal("0.01")}), tax=computed).problems == ()


def test_the_summary_tells_every_picture() -> None:
    good = merge_receipt(RECEIPT, categorise(RECEIPT.items))
    bad = merge_receipt(RECEIPT.model_copy(update={"balanced": False, "problems": ("does not add up",), "currency": None}))
    other = merge_receipt(ParsedReceipt(is_receipt=False, problems=("this is no receipt",), source="bundled:notice"))
    made = summarise_receipts([good, None, bad, other, good])
    assert (made.pictures, made.receipts, made.balanced) == (5, 3, 2)
    assert (made.failed, made.unbalanced, made.not_receipts) == ((1,), (2,), (3,))
    assert [(t.currency, t.receipts, t.total, t.tax) for t in made.totals] == [
        ("EUR", 2, Decimal("0.72"), Decimal("0.12")),
        ("unknown", 1, Decimal("0.36"), Decimal("0.06")),
    ]
    assert [(c.category, c.count, c.total) for c in made.totals[0].categories] == [
        ("food", 2, Decimal("0.4")),
        ("beverage", 2, Decimal("0.2")),
    ]
    assert [r.state for r in made.rows] == ["ok", "failed", "problems", "no receipt", "ok"]
    assert made.rows[2].problems == ("does not add up",)
