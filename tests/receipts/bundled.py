"""Draws the bundled receipts: `python -m tests.receipts.bundled` writes `workers/ocr/data/*.png`.

Ten are set here, clean but for two, and told to the tests by hand in `truth.json`, so that a slip of the renderer is no slip
of the truth. The others are worn ones from the renderer, whose truth is written with them. Every shop is invented. Needs
Pillow, OpenCV and Debian's fonts that `tests.receipts.fonts.PACKAGES` names.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tests.receipts.render import draw

DATA = Path(__file__).parents[2] / "workers" / "ocr" / "data"
TRUTH = Path(__file__).parent / "truth.json"
INK, PAPER = 25, 250

MONO, MONO_BOLD = "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"
SANS, SANS_BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"
SERIF, SERIF_BOLD = "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"


@dataclass
class Paper:
    """A strip of paper that is written from top to bottom."""

    width: int
    height: int = 1600
    margin: int = 24
    y: int = 28
    image: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        self.image = Image.new("L", (self.width, self.height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def row(self, *cells: tuple[str, float, str], font: str = MONO, size: int = 20, gap: int = 9) -> None:
        """One line of cells `(text, place, anchor)`: the place as a share of the width, the anchor `l`, `m` or `r`."""
        face = ImageFont.truetype(font, size)
        inner = self.width - 2 * self.margin
        for text, place, anchor in cells:
            self.draw.text((self.margin + place * inner, self.y), text, fill=INK, font=face, anchor=anchor + "a")
        self.y += size + gap

    def middle(self, text: str, *, font: str = MONO, size: int = 20) -> None:
        self.row((text, 0.5, "m"), font=font, size=size)

    def pair(self, left: str, right: str, *, font: str = MONO, size: int = 20) -> None:
        self.row((left, 0, "l"), (right, 1, "r"), font=font, size=size)

    def rule(self) -> None:
        self.draw.line([(self.margin, self.y + 4), (self.width - self.margin, self.y + 4)], fill=90, width=1)
        self.y += 14

    def space(self, pixels: int = 14) -> None:
        self.y += pixels

    def done(self) -> Image.Image:
        return self.image.crop((0, 0, self.width, min(self.y + 28, self.height)))


def grocery() -> Image.Image:
    """Thermal paper, monospaced, US dollars, tax on top, cash and change after the total."""
    p = Paper(460)
    p.middle("HARVEST LANE MARKET", font=MONO_BOLD, size=26)
    p.middle("418 Orchard Road, Dayton OH")
    p.middle("Tel (937) 555-0142")
    p.space()
    p.pair("03/14/2026  17:42", "Reg 03")
    p.rule()
    for left, right in [
        ("Whole Milk 1gal", "4.29"),
        ("Sourdough Bread", "5.49"),
        ("Bananas 2.31 lb", "1.59"),
        ("Paper Towels 6pk", "8.99"),
        ("Ground Coffee", "11.25"),
        ("Dish Soap", "3.19"),
    ]:
        p.pair(left, right)
    p.rule()
    p.pair("SUBTOTAL", "34.80")
    p.pair("TAX 7.25%", "2.52")
    p.pair("TOTAL", "$37.32", font=MONO_BOLD, size=24)
    p.space()
    p.pair("CASH", "40.00")
    p.pair("CHANGE", "2.68")
    p.space()
    p.middle("Items sold: 6")
    p.middle("Thank you for shopping with us!")
    return p.done()


def cafe() -> Image.Image:
    """German style: decimal comma, quantity before the name, tax included in the sum."""
    p = Paper(480)
    p.middle("Café Lindenhof", font=SERIF_BOLD, size=30)
    p.middle("Marktplatz 7, 79098 Freiburg", font=SERIF)
    p.space()
    p.pair("Beleg-Nr. 20871", "21.05.2026 10:16", font=SANS, size=18)
    p.pair("Tisch 12", "Bedienung: Ida", font=SANS, size=18)
    p.rule()
    for left, right in [
        ("2 x Cappuccino", "7,80"),
        ("1 x Apfelkuchen", "4,50"),
        ("1 x Mineralwasser 0,5l", "3,90"),
        ("3 x Croissant", "7,50"),
    ]:
        p.pair(left, right, font=SANS)
    p.rule()
    p.pair("Summe EUR", "23,70", font=SANS_BOLD, size=24)
    p.space()
    p.pair("Netto", "19,92", font=SANS, size=18)
    p.pair("inkl. MwSt 19%", "3,78", font=SANS, size=18)
    p.pair("Gegeben Bar", "25,00", font=SANS, size=18)
    p.pair("Rückgeld", "1,30", font=SANS, size=18)
    p.space()
    p.middle("Vielen Dank für Ihren Besuch", font=SERIF, size=18)
    return p.done()


def restaurant() -> Image.Image:
    """A guest check with column heads, a service charge and a tip that is no part of the bill."""
    p = Paper(560)
    p.middle("THE COPPER KETTLE", font=SERIF_BOLD, size=32)
    p.middle("Bistro & Bar", font=SERIF, size=22)
    p.middle("22 Wharf Street, Portland", font=SERIF, size=18)
    p.space()
    p.pair("Check: 5521", "Guests: 4", font=SANS)
    p.pair("Date: 2026-02-09", "Server: Marcus", font=SANS)
    p.rule()
    p.row(("Qty", 0, "l"), ("Item", 0.12, "l"), ("Price", 0.8, "r"), ("Total", 1, "r"), font=SANS_BOLD)
    p.rule()
    for quantity, name, price, amount in [
        ("2", "Caesar Salad", "12.50", "25.00"),
        ("1", "Grilled Salmon", "28.00", "28.00"),
        ("2", "Ribeye Steak", "36.75", "73.50"),
        ("4", "Sparkling Water", "4.25", "17.00"),
        ("1", "Lemon Tart", "9.50", "9.50"),
    ]:
        p.row((quantity, 0, "l"), (name, 0.12, "l"), (price, 0.8, "r"), (amount, 1, "r"), font=SANS)
    p.rule()
    p.pair("Subtotal", "$153.00", font=SANS)
    p.pair("Service charge 18%", "$27.54", font=SANS)
    p.pair("Sales tax 8%", "$12.24", font=SANS)
    p.pair("Amount due", "$192.78", font=SANS_BOLD, size=26)
    p.space()
    p.pair("Tip", "__________", font=SANS)
    p.middle("Please pay your server", font=SERIF, size=18)
    return p.done()


def hardware() -> Image.Image:
    """Pounds; each item on two lines, the reckoning below the name; a discount; VAT included."""
    p = Paper(440)
    p.middle("Bridge & Sons Ironmongers", font=SANS_BOLD, size=24)
    p.middle("9 Mill Lane, Hebden Bridge", font=SANS, size=18)
    p.middle("VAT No. GB 482 1193 07", font=SANS, size=18)
    p.space()
    p.row(("7 Jan 2026 09:05", 0, "l"), font=SANS, size=18)
    p.rule()
    for name, reckoning, amount in [
        ("Wood screws 4x40 box", "3 @ 4.50", "13.50"),
        ("Masking tape 50mm", "2 @ 3.25", "6.50"),
        ("Claw hammer 16oz", "1 @ 14.99", "14.99"),
        ("LED bulb E27", "4 @ 2.75", "11.00"),
    ]:
        p.row((name, 0, "l"), font=SANS)
        p.row((reckoning, 0.08, "l"), (amount, 1, "r"), font=SANS)
    p.pair("Trade discount", "-4.60", font=SANS)
    p.rule()
    p.pair("TOTAL TO PAY", "£41.39", font=SANS_BOLD, size=24)
    p.pair("Visa ****4417", "£41.39", font=SANS, size=18)
    p.space()
    p.pair("VAT @ 20% included", "£6.90", font=SANS, size=18)
    p.middle("Goods may be returned within 28 days", font=SANS, size=16)
    return p.done()


def office() -> Image.Image:
    """A wide invoice with a table, francs, apostrophes between thousands."""
    p = Paper(820, margin=44)
    p.pair("Alpenblick Office Supply AG", "INVOICE", font=SANS_BOLD, size=28)
    p.pair("Bahnhofstrasse 88, 8001 Zürich", "No. 2026-0417", font=SANS, size=18)
    p.pair("office@alpenblick.example", "Date: 17 April 2026", font=SANS, size=18)
    p.space(30)
    head = [("Description", 0.0, "l"), ("Qty", 0.6, "r"), ("Unit price", 0.8, "r"), ("Amount", 1.0, "r")]
    p.row(*head, font=SANS_BOLD, size=19)
    p.rule()
    for name, quantity, price, amount in [
        ("Desk chair, adjustable", "2", "389.00", "778.00"),
        ("Printer paper A4, box", "10", "24.90", "249.00"),
        ("Toner cartridge black", "3", "119.50", "358.50"),
        ("USB-C dock", "1", "214.00", "214.00"),
    ]:
        p.row((name, 0, "l"), (quantity, 0.6, "r"), (price, 0.8, "r"), (amount, 1, "r"), font=SANS, size=19, gap=14)
    p.rule()
    p.row(("Subtotal", 0.62, "l"), ("1'599.50", 1, "r"), font=SANS, size=19)
    p.row(("VAT 8.1%", 0.62, "l"), ("129.56", 1, "r"), font=SANS, size=19)
    p.row(("Total CHF", 0.62, "l"), ("1'729.06", 1, "r"), font=SANS_BOLD, size=22)
    p.space(30)
    p.row(("Payable within 30 days. IBAN CH00 0000 0000 0000 0000 0", 0, "l"), font=SANS, size=16)
    return p.done()


def convenience() -> Image.Image:
    """Yen without decimals, thousands comma, a consumption tax on top."""
    p = Paper(420)
    p.middle("SAKURA MINI STORE", font=MONO_BOLD, size=26)
    p.middle("Shibuya 2-chome")
    p.pair("2026/06/30 22:08", "#0091", size=18)
    p.rule()
    for left, right in [
        ("Onigiri Salmon", "¥168"),
        ("Green Tea 600ml", "¥151"),
        ("Umbrella", "¥1,280"),
        ("Bento Chicken", "¥598"),
        ("AA Batteries 4", "¥440"),
    ]:
        p.pair(left, right)
    p.rule()
    p.pair("Subtotal", "¥2,637")
    p.pair("Tax (10%)", "¥264")
    p.pair("TOTAL", "¥2,901", font=MONO_BOLD, size=26)
    p.pair("IC CARD", "¥2,901")
    p.space()
    p.middle("THANK YOU")
    return p.done()


def pharmacy() -> Image.Image:
    """Does not add up on purpose: the items sum to 52.55, the printed subtotal is 55.25."""
    p = Paper(450)
    p.middle("WELLSPRING PHARMACY", font=SANS_BOLD, size=26)
    p.middle("Store 114 - 60 King St W, Toronto", font=SANS, size=18)
    p.space()
    p.row(("DATE 11/23/2025", 0, "l"), ("TIME 13:20", 1, "r"), font=SANS, size=18)
    p.rule()
    for left, right in [
        ("Ibuprofen 200mg", "12.49"),
        ("Bandages assorted", "6.75"),
        ("Toothpaste mint", "4.99"),
        ("Shampoo 400ml", "9.82"),
        ("Vitamin D3", "18.50"),
    ]:
        p.pair(left, right, font=SANS)
    p.rule()
    p.pair("SUBTOTAL", "55.25", font=SANS)
    p.pair("HST 13%", "7.18", font=SANS)
    p.pair("TOTAL CAD", "62.43", font=SANS_BOLD, size=24)
    p.pair("DEBIT", "62.43", font=SANS)
    p.space()
    p.middle("Keep this receipt for your records", font=SANS, size=16)
    return p.done()


def fuel() -> Image.Image:
    """A small photo of a receipt: turned by two degrees, on a dark table, with some noise."""
    p = Paper(430)
    p.middle("NORTHWAY FUEL & GO", font=MONO_BOLD, size=24)
    p.middle("Route 9, Exit 31")
    p.space()
    p.row(("05/02/2026 06:51", 0, "l"))
    p.rule()
    for left, right in [
        ("Unleaded 11.2 gal", "39.20"),
        ("Car Wash Basic", "9.00"),
        ("Coffee Large", "2.79"),
        ("Blueberry Muffin", "3.29"),
    ]:
        p.pair(left, right)
    p.rule()
    p.pair("SUBTOTAL", "54.28")
    p.pair("TAX", "1.21")
    p.pair("TOTAL USD", "55.49", font=MONO_BOLD, size=24)
    p.pair("MASTERCARD", "55.49")
    paper = p.done()
    table = Image.new("L", (paper.width + 90, paper.height + 90), 96)
    table.paste(paper, (45, 45))
    turned = table.rotate(2.0, resample=Image.Resampling.BICUBIC, fillcolor=96)
    return _grain(turned)


def blurred() -> Image.Image:
    """Out of focus beyond reading."""
    return grocery().filter(ImageFilter.GaussianBlur(7))


def notice() -> Image.Image:
    """No receipt: a notice with times and numbers that only look like prices."""
    p = Paper(620)
    p.middle("CITY LIBRARY", font=SERIF_BOLD, size=42)
    p.middle("Reading room, second floor", font=SERIF, size=24)
    p.space(24)
    for left, right in [("Monday - Friday", "9.00 - 18.30"), ("Saturday", "10.00 - 16.00"), ("Sunday", "closed")]:
        p.pair(left, right, font=SERIF, size=24)
    p.space(24)
    p.middle("Please keep your voice down.", font=SERIF, size=24)
    p.middle("Book exhibition: 12.05 to 30.06, room 2.14", font=SERIF, size=22)
    p.middle("Questions? Ask at the desk or call 555-0188", font=SERIF, size=22)
    return p.done()


def _grain(image: Image.Image) -> Image.Image:
    noise = random.Random(7)
    out = image.copy()
    for _ in range(out.width * out.height // 120):
        out.putpixel((noise.randrange(out.width), noise.randrange(out.height)), noise.randrange(60, 220))
    return out


PICTURES: dict[str, Callable[[], Image.Image]] = {
    f.__name__: f for f in (grocery, cafe, restaurant, hardware, office, convenience, pharmacy, fuel, blurred, notice)
}


WORN = {
    "burger": ("folded", 386),
    "tapas": ("perspective", 91),
    "parking": ("skewed", 29),
    "chemist": ("noisy", 35),
    "corner_shop": ("low-resolution", 1),
    "sklep": ("foreign", 55),
    "gida": ("foreign", 233),
}
SEED, LONGEST, GREYS, BYTES = 77, 800, (16, 12, 9, 7, 5), 56_000  # small files: pixels of the longer side, as many shades as fit
FIELDS = (
    "is_receipt",
    "merchant",
    "merchant_also",
    "date",
    "currency",
    "items",
    "charges",
    "discounts",
    "subtotal",
    "tax",
    "rounding",
)


def worn(name: str) -> tuple[Image.Image, dict[str, Any]]:
    """A receipt of the renderer in grey, and its truth in the form of `truth.json`."""
    kind, at = WORN[name]
    image, truth = draw(SEED, at, kind)
    grey = image.convert("L")
    grey.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    taxes, printed = truth["tax_lines"], truth["printed"]
    told = {field: truth[field] for field in FIELDS}
    told["items"] = [[i["description"], i["quantity"], i["unit_price"], i["amount"]] for i in truth["items"]]
    told |= {
        "total": truth["total"],
        "tax_base": [taxes[0]["net"], taxes[0]["rate"]] if len(taxes) == 1 else None,
        "balanced": True,
    }
    return grey, told | {"change": truth["change"], "class": kind, "printed": printed}


def as_rows(truths: dict[str, Any]) -> str:
    """The truths as JSON with a line a field."""
    plain = json.loads(json.dumps(truths, default=float))
    entries = []
    for name, truth in plain.items():
        rows = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in truth.items())
        entries.append(f"  {json.dumps(name)}: {{\n{rows}\n  }}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def save(name: str, image: Image.Image, *shades: int) -> None:
    """Writes the picture with the first number of shades that makes a small file, else with the last."""
    path = DATA / f"{name}.png"
    for few in shades:
        image.quantize(few).save(path, optimize=True)
        if path.stat().st_size < BYTES:
            break
    print(f"{path.name}  {path.stat().st_size / 1024:.1f} KiB")


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    truths = json.loads(TRUTH.read_text(encoding="utf-8"))
    for name, picture in PICTURES.items():
        save(name, picture(), 64 if name == "blurred" else 16)
    for name in WORN:
        image, truths[name] = worn(name)
        save(name, image, *GREYS)
    TRUTH.write_text(as_rows(truths), encoding="utf-8")


if __name__ == "__main__":
    main()
