"""What was spent, in words: on a category, in all, by category, by receipt, and what the figures cannot tell."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from workers.function.receipts import MergedReceipt
from workers.function.tools import report_spending
from workers.receipt import CategorizedItem, CategoryTotal


def receipt(total: str | None = "10.00", **more: Any) -> MergedReceipt:
    categories = more.pop("categories", {"food": (2, "8.10")})
    return MergedReceipt(
        is_receipt=more.pop("is_receipt", True),
        balanced=more.pop("balanced", True),
        total=None if total is None else Decimal(total),
        items=tuple(CategorizedItem(description="x") for _ in range(sum(n for n, _ in categories.values()))),
        categories=tuple(CategoryTotal(category=c, count=n, total=Decimal(t)) for c, (n, t) in categories.items()),
        **more,
    )


FOOD = receipt(
    "43.00", currency="EUR", merchant="Rewe", date="2026-03-01", categories={"food": (2, "35.00"), "household": (1, "8.00")}
)
CAFE = receipt("8.10", currency="EUR", merchant="Cafe", categories={"food": (1, "8.10")})


@pytest.mark.parametrize(
    ("receipts", "options", "text"),
    [
        ([FOOD, CAFE], {"category": "Food"}, "You spent 43.10 EUR on food (3 items, 2 receipts)."),
        ([receipt(), receipt()], {"category": "food"}, "You spent 16.20 on food (4 items, 2 receipts)."),
        ([CAFE], {"category": "food", "by": "receipt"}, "You spent 8.10 EUR on food (1 item, 1 receipt)."),
        (
            [FOOD, receipt(currency="USD")],
            {"category": "food"},
            "You spent 35.00 EUR and 8.10 USD on food (4 items, 2 receipts).",
        ),
        (
            [FOOD],
            {"category": "fuel"},
            "You spent nothing on fuel: no item on 1 receipt is in that category. There are: food, household.",
        ),
        ([FOOD, CAFE], {}, "You spent 51.10 EUR (4 items, 2 receipts)."),
        ([FOOD, CAFE], {"by": "category"}, "food: 43.10 EUR (3 items)\nhousehold: 8.00 EUR (1 item)"),
        ([FOOD, CAFE], {"by": "receipt"}, "Rewe, 2026-03-01: 43.00 EUR (3 items)\nCafe: 8.10 EUR (1 item)"),
        ([], {}, "No receipt could be read."),
        (
            [None, receipt(is_receipt=False)],
            {"category": "food"},
            "No receipt could be read. 1 picture could not be processed. 1 picture is no receipt.",
        ),
        (
            [FOOD, None, receipt(is_receipt=False), receipt(is_receipt=False), receipt(None, currency="EUR", balanced=False)],
            {"category": "food"},
            "You spent 43.10 EUR on food (4 items, 2 receipts). 1 picture could not be processed. 2 pictures are no receipt. "
            "The total of 1 receipt could not be read. 1 receipt does not add up.",
        ),
        ([CAFE, CAFE, None], {"by": "receipt"}, "Cafe: 8.10 EUR (1 item)\n" * 2 + "1 picture could not be processed."),
    ],
)
def test_the_words(receipts: list[MergedReceipt | None], options: dict[str, Any], text: str) -> None:
    assert report_spending(receipts, **options).text == text


def test_the_figures_stand_beside_the_words() -> None:
    made = report_spending([FOOD, CAFE, None], category="food")
    assert (made.category, made.receipts, made.pictures) == ("food", 2, 3)
    assert [(a.on, a.currency, a.total, a.items, a.receipts) for a in made.amounts] == [("food", "EUR", Decimal("43.10"), 3, 2)]
    assert report_spending([receipt()], category="none").amounts == ()
