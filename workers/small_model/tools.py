"""The tools of the pool `small_model`: the meaning of a receipt's text, by rules, examples and, where one is set, a model."""

from __future__ import annotations

import logging

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from orchestrator.errors import ModelError, ToolError
from orchestrator.settings import load_settings
from workers.receipt import Categorized, Item, OcrResult, ParsedReceipt
from workers.small_model.categories import categorise, warm_nearest
from workers.small_model.opinion import second_opinion
from workers.small_model.receipt_rules import parse_receipt

log = logging.getLogger(__name__)


def warm_up() -> None:
    """Loads the embedder and the examples, so that the first call is as fast as the next."""
    try:
        warm_nearest(load_settings())
    except (ModelError, ToolError) as error:  # the calls themselves say so too
        log.warning("categories: %s", error)


@tool(pool="small_model", effect="none", domain="receipts", timeout_s=60)
def line_item_parser(ocr: OcrResult, context: ToolContext) -> ParsedReceipt:
    """Finds merchant, date, currency, items, discounts, tax, total and payment in a receipt's text, and checks that they add up.

    Every value has its evidence: the line that prints it and the chance that it is right. What cannot be read is null and
    named in `problems`, what is not to be relied on in `uncertain`; an image that is no receipt gives `is_receipt: false`.
    Where `use_small_model` is set, a model is asked about what the rules left open.

    Args:
        ocr: The text of the image, as `receipt_ocr` gives it.
    """
    return second_opinion(parse_receipt(ocr), ocr, context.settings)


@tool(
    pool="small_model",
    effect="none",
    domain="receipts",
    timeout_s=120,
    examples=[
        {
            "scenario": "Two items",
            "input": {"items": [{"description": "Green Tea", "amount": 3.5}, {"description": "AA Batteries", "amount": 6.0}]},
        }
    ],
)
def expense_categorizer(items: list[Item], context: ToolContext, categories: list[str] | None = None) -> Categorized:
    """Puts items into categories such as food, beverage, household or office, and totals each category.

    An item that fits none is `other`. Items whose category is not to be relied on are named in `uncertain`.

    Args:
        items: The items, such as those of a parsed receipt.
        categories: The names to choose from, beside `other`; all when left out.
    """
    return categorise(items, settings=context.settings, categories=categories or ())
