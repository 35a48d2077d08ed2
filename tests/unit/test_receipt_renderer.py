"""Drawn receipts: the same seed draws the same, every layout prints, and the truth adds up and is what was printed."""

from __future__ import annotations

import os
import random
from decimal import Decimal

import pytest

from tests.receipts import content, layouts, wear
from tests.receipts.fonts import NoFonts, load
from tests.receipts.places import PLACES
from tests.receipts.printer import Printer, grouped
from tests.receipts.render import draw
from tests.receipts.sheet import Sheet

try:
    for face in (*layouts.MONO, *layouts.PROPORTIONAL):
        load(face.regular, 20)
except NoFonts as missing:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(str(missing), allow_module_level=True)


def test_the_same_seed_draws_the_same_picture_and_another_seed_another() -> None:
    first, again, other = draw(3, 1, "noisy"), draw(3, 1, "noisy"), draw(4, 1, "noisy")
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1] == again[1]
    assert first[1] != other[1]


@pytest.mark.parametrize("kind", wear.CLASSES)
def test_every_class_wears_the_picture_and_leaves_the_truth(kind: str) -> None:
    image, truth = draw(5, 2, kind)
    assert image.mode == "RGB"
    assert min(image.size) > 100
    assert truth["class"] == kind
    assert truth["total"] is not None
    assert truth["date"] is not None
    assert truth["merchant"]


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.code)
def test_what_is_bought_and_taxed_adds_up_to_the_cent(place: object) -> None:
    rng = random.Random(7)
    for kind in content.KINDS * 8:
        r = content.draw(rng, place, kind)  # type: ignore[arg-type]
        on_top = Decimal(0) if r.included else r.tax
        assert sum((x.amount + x.discount for x in r.lines), Decimal(0)) + r.discount + r.service + on_top == r.due
        assert r.change >= 0
        for tax in r.taxes:
            assert abs(tax.net * tax.rate / 100 - tax.amount) <= Decimal(1).scaleb(-r.place.decimals)
        if r.included and r.taxes:
            assert sum((t.gross for t in r.taxes), Decimal(0)) == r.due


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_prints_what_its_truth_says(name: str) -> None:
    layout, rng = layouts.LAYOUTS[name], random.Random(11)
    for place in (p for p in PLACES if not layout.places or p.code in layout.places):
        receipt = content.draw(rng, place, rng.choice(layout.kinds))
        sheet = Told(layouts.style(rng, layout, place), rng)
        layout.print(Printer(receipt, sheet, rng))
        assert {"merchant", "date", "total"} <= set(sheet.truth)
        text = " ".join(sheet.told)
        for field, strings in sheet.printed.items():
            assert all(s in text for s in strings), (field, strings)
        for item in sheet.items:
            assert all(word in text for word in item["description"].split()), item


class Told(Sheet):
    """A sheet that also keeps the strings that were put on it."""

    def __init__(self, style: layouts.Style, rng: random.Random) -> None:
        self.told: list[str] = []
        super().__init__(style, rng)

    def put(self, text: str, *where: object, **how: object) -> None:
        self.told.append(self.say(text))
        super().put(text, *where, **how)  # type: ignore[arg-type]

    def logo(self, text: str, size: int) -> None:
        self.told.append(text)
        super().logo(text, size)


def test_a_font_that_is_not_installed_is_named_with_the_next_move() -> None:
    with pytest.raises(NoFonts, match=r"no-such-face\.ttf is not installed: `apt-get install fonts-dejavu-core"):
        load("no-such-face.ttf", 20)


def test_digits_are_grouped_as_the_country_does() -> None:
    assert grouped("1234567", ",", indian=False) == "1,234,567"
    assert grouped("1234567", ",", indian=True) == "12,34,567"
    assert grouped("67", ".", indian=False) == "67"
