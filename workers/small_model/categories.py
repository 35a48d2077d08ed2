"""What an item was bought for, by words in its description; an item without a known word is `other`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from importlib.resources import files

from workers.receipt import Categorized, CategorizedItem, CategoryTotal, Item, cents

OTHER, DISCOUNT = "other", "discount"
_WORDS: dict[str, list[str]] = json.loads(files("workers.small_model").joinpath("categories.json").read_text(encoding="utf-8"))
_CATEGORY_OF = {word: category for category, words in _WORDS.items() for word in words}
_DISCOUNT = re.compile(r"(?i)\b(?:discount|rabatt|coupon|voucher|promo\w*|remise|off|saving|nachlass|refund)\b")


def categorise(items: Iterable[Item]) -> Categorized:
    """The items with their categories, and the totals, largest first."""
    done = tuple(CategorizedItem(**item.model_dump(exclude={"category"}), category=category_of(item)) for item in items)
    totals: dict[str, Decimal] = defaultdict(Decimal)
    counts: dict[str, int] = defaultdict(int)
    for item in done:
        category = item.category or OTHER
        totals[category] += item.amount or Decimal(0)
        counts[category] += 1
    ordered = sorted(totals, key=lambda c: (-totals[c], c))
    return Categorized(
        items=done, totals=tuple(CategoryTotal(category=c, count=counts[c], total=cents(totals[c])) for c in ordered)
    )


def category_of(item: Item) -> str:
    """The category of an item; its last known word decides, since names end with what the thing is (`lemon tart`)."""
    if (item.amount or 0) < 0 or _DISCOUNT.search(item.description):
        return DISCOUNT
    words = re.findall(r"[^\W\d_]+\d*(?:-[^\W\d_]+)*", item.description.casefold())
    known = [c for w in words if (c := _CATEGORY_OF.get(w) or _CATEGORY_OF.get(w.removesuffix("s")) or _by_parts(w))]
    return known[-1] if known else OTHER


def _by_parts(word: str) -> str | None:
    return next((c for part in reversed(word.split("-")) if (c := _CATEGORY_OF.get(part))), None) if "-" in word else None
