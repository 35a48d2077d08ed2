"""The tools of the pool `small_model`: the meaning of a receipt's text. By rules here; a model takes the same place."""

from __future__ import annotations

from orchestrator.catalog.register import tool
from workers.receipt import Categorized, Item, OcrResult, ParsedReceipt
from workers.small_model.categories import categorise
from workers.small_model.receipt_rules import parse_receipt


@tool(pool="small_model", effect="none", domain="receipts", timeout_s=60)
def line_item_parser(ocr: OcrResult) -> ParsedReceipt:
    """Finds merchant, date, currency, items, tax and total in the text of a receipt, and checks that they add up.

    What cannot be read is null and named in `problems`; an image that is no receipt gives `is_receipt: false`.

    Args:
        ocr: The text of the image, as `receipt_ocr` gives it.
    """
    return parse_receipt(ocr)


@tool(
    pool="small_model",
    effect="none",
    domain="receipts",
    timeout_s=60,
    examples=[
        {
            "scenario": "Two items",
            "input": {"items": [{"description": "Green Tea", "amount": 3.5}, {"description": "AA Batteries", "amount": 6.0}]},
        }
    ],
)
def expense_categorizer(items: list[Item]) -> Categorized:
    """Puts items into categories such as food, beverage, household or office, and totals each category.

    An item that fits none is `other`.

    Args:
        items: The items, such as those of a parsed receipt.
    """
    return categorise(items)
