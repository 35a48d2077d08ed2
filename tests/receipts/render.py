"""Draws receipts with exact truth from a seed: `python -m tests.receipts.render --seed 1 --count 16 OUT`.

One picture of every class in turn. `OUT` gets `img/NNNN_CLASS.jpg` and `truth.json`: by file name the fields of a parsed
receipt as they are printed (None where the layout prints none), and under `printed` the strings that each value was printed
as. The same seed draws the same pictures with the same packages. Needs numpy, Pillow, OpenCV and Debian's fonts that
`tests.receipts.fonts.PACKAGES` names.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image

from tests.receipts import content, layouts, wear
from tests.receipts.fonts import NoFonts
from tests.receipts.places import ENGLISH, FOREIGN, Place
from tests.receipts.printer import Printer
from tests.receipts.sheet import Sheet

OFTEN = {"US": 4, "MY": 5, "GB": 2, "SG": 2, "AU": 2, "CA": 1.5, "DE": 2, "FR": 2, "IN": 1.5}


def draw(seed: int, at: int, kind: str) -> tuple[Image.Image, dict[str, Any]]:
    """Picture number `at` of a seed in that class of wear, as RGB, and its truth; raises `NoFonts`."""
    rng = random.Random(f"{seed}/{at}/{kind}")
    sheet, receipt, name = _set(rng, _place(rng, kind))
    face = sheet.style.face
    image = wear.worn(kind, sheet.done(), sheet.style.ink, rng, dots=face.mono and not face.dots and rng.random() < 0.12)
    return image, _truth(sheet, receipt) | {"class": kind, "layout": name, "country": receipt.place.code}


def _place(rng: random.Random, kind: str) -> Place:
    """A country: never one of English in the class `foreign`, mostly one of English in the others."""
    places = FOREIGN if kind == "foreign" or rng.random() < 0.2 else ENGLISH
    return rng.choices(places, [OFTEN.get(p.code, 1) for p in places])[0]


def _set(rng: random.Random, place: Place) -> tuple[Sheet, content.Receipt, str]:
    name, kind = layouts.choose(rng, place)
    layout = layouts.LAYOUTS[name]
    receipt = content.draw(rng, place, kind)
    sheet = Sheet(layouts.style(rng, layout, place), rng)
    layout.print(Printer(receipt, sheet, rng))
    return sheet, receipt, name


def _truth(sheet: Sheet, receipt: content.Receipt) -> dict[str, Any]:
    """What the sheet noted, with None for what it does not print."""
    told = sheet.truth
    truth = {
        name: told.get(name) for name in ("merchant", "merchant_also", "date", "total", "subtotal", "tax", "rounding", "change")
    }
    lists: dict[str, Any] = {name: told.get(name, []) for name in ("discounts", "charges", "payments")}
    taxes = receipt.taxes if truth["tax"] is not None else []
    lists["tax_lines"] = [{"rate": t.rate / 100, "net": t.net, "amount": t.amount} for t in taxes]
    return truth | lists | {"is_receipt": True, "currency": receipt.place.currency, "items": sheet.items, "printed": sheet.printed}


def rendered(seed: int, count: int, classes: Sequence[str] = wear.CLASSES) -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """`count` pictures with name and truth, the classes in turn."""
    for at in range(count):
        kind = classes[at % len(classes)]
        image, truth = draw(seed, at, kind)
        yield f"{at:04d}_{kind}", image, truth


def plain(value: Any) -> Any:
    """A value as JSON has it: decimals as numbers."""
    return float(value) if isinstance(value, Decimal) else str(value)


def write(out: Path, seed: int, count: int, classes: Sequence[str]) -> None:
    """Pictures and `truth.json` into a folder."""
    (out / "img").mkdir(parents=True, exist_ok=True)
    truths = {}
    for name, image, truth in rendered(seed, count, classes):
        image.save(out / "img" / f"{name}.jpg", quality=92)
        truths[f"{name}.jpg"] = truth
    (out / "truth.json").write_text(json.dumps(truths, default=plain, ensure_ascii=False, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--classes", nargs="+", choices=wear.CLASSES, default=wear.CLASSES)
    options = parser.parse_args()
    try:
        write(options.out, options.seed, options.count, options.classes)
    except NoFonts as error:
        sys.exit(f"tests.receipts.render: {error}")


if __name__ == "__main__":
    main()
