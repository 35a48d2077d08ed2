"""Paper that is written from top to bottom, and that remembers the truth of what was printed on it."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.receipts.fonts import DISPLAY, Face, covers, load

Cell = tuple[str, float, str]  # text, place as a share of the width, anchor: l, m or r
_PLAIN = str.maketrans("łŁıøØđßæÆ€₹₱₺", "lLioOdsaAERPT")


@dataclass
class Style:
    """How one register prints."""

    width: int
    face: Face
    size: int
    margin: int = 26
    leading: float = 1.25
    upper: bool = False
    ascii: bool = False  # registers without accents
    rule: str = "-"  # a character, `line` or nothing
    ink: tuple[int, int, int] = (25, 25, 28)
    big: tuple[float, float] = (1.0, 1.0)  # how the total and the shop's name are stretched: width, height


@dataclass
class Sheet:
    """Ink on paper, as a grey image (0 none, 255 full), and the truth so far."""

    style: Style
    rng: random.Random
    y: int = 30
    truth: dict[str, Any] = field(default_factory=dict)
    printed: dict[str, list[str]] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image = Image.new("L", (self.style.width, 900), 0)
        self.pen = ImageDraw.Draw(self.image)

    @property
    def inner(self) -> int:
        return self.style.width - 2 * self.style.margin

    def say(self, text: str) -> str:
        """The text as this register prints it."""
        if self.style.upper:
            text = text.upper()
        if self.style.ascii:
            text = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("€", "EUR").translate(_PLAIN))
            text = "".join(c for c in text if not unicodedata.combining(c) and ord(c) < 128)
        return text

    def spare(self, pixels: int) -> None:
        if self.y + pixels + 60 > self.image.height:
            longer = Image.new("L", (self.style.width, self.image.height + max(900, pixels)), 0)
            longer.paste(self.image)
            self.image, self.pen = longer, ImageDraw.Draw(longer)

    def width_of(self, text: str, bold: bool = False, stretch: float = 1.0) -> float:
        return self.font(bold).getlength(self.say(text)) * stretch

    def font(self, bold: bool = False) -> Any:
        face = self.style.face
        return load((bold and face.bold) or face.regular, self.style.size)

    def put(self, text: str, x: float, *, bold: bool = False, stretch: tuple[float, float] = (1.0, 1.0), down: float = 0.0) -> None:
        """Text with its left edge at x pixels; its letters may be stretched, as thermal printers do."""
        text, font = self.say(text), self.font(bold)
        double = bold and not self.style.face.bold
        if stretch == (1.0, 1.0):
            self.pen.text((x, self.y + down), text, fill=255, font=font, stroke_width=0)
            if double:
                self.pen.text((x + 1, self.y + down), text, fill=255, font=font)
            return
        _, _, right, bottom = font.getbbox(text)
        small = Image.new("L", (int(right) + 4, int(bottom) + 4), 0)
        ImageDraw.Draw(small).text((0, 0), text, fill=255, font=font)
        size = (max(1, int(small.width * stretch[0])), max(1, int(small.height * stretch[1])))
        big = small.resize(size, Image.Resampling.BICUBIC)
        self.image.paste(255, (int(x), int(self.y + down)), big)

    def row(self, *cells: Cell, bold: bool = False, stretch: tuple[float, float] = (1.0, 1.0)) -> None:
        """One printed line."""
        height = int(self.style.size * self.style.leading * stretch[1])
        self.spare(height)
        for text, place, anchor in cells:
            width = self.width_of(text, bold, stretch[0])
            x = self.style.margin + place * self.inner - {"l": 0, "m": width / 2, "r": width}[anchor]
            self.put(text, max(4, x), bold=bold, stretch=stretch)
        self.y += height

    def left(self, text: str, **how: Any) -> None:
        for line in self.wrap(text, self.inner, bold=how.get("bold", False), stretch=how.get("stretch", (1.0, 1.0))[0]):
            self.row((line, 0, "l"), **how)

    def middle(self, text: str, **how: Any) -> None:
        for line in self.wrap(text, self.inner, bold=how.get("bold", False), stretch=how.get("stretch", (1.0, 1.0))[0]):
            self.row((line, 0.5, "m"), **how)

    def pair(self, left: str, right: str, *, at: float = 0.0, to: float = 1.0, **how: Any) -> None:
        """A word and its value; on two lines where one has no room for both."""
        stretch = how.get("stretch", (1.0, 1.0))[0]
        bold = how.get("bold", False)
        room = (to - at) * self.inner - self.width_of(right, bold, stretch) - self.style.size * 0.6
        if self.width_of(left, bold, stretch) <= room:
            self.row((left, at, "l"), (right, to, "r"), **how)
        elif stretch > 1:
            self.pair(left, right, at=at, to=to, bold=bold)
        else:
            self.row((left, 0, "l"), **how)
            self.row((right, to, "r"), **how)

    def wrap(self, text: str, room: float, *, bold: bool = False, stretch: float = 1.0) -> list[str]:
        """The text in lines that are no wider than the room, broken at spaces, or inside a word that has none."""
        lines: list[str] = []
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width_of(longer, bold, stretch) <= room:
                lines[-1] = longer
            else:
                lines.append(word)
        return [line for line in lines if line] or [""]

    def edges(self, columns: Sequence[Sequence[str]], least: float = 0.0) -> list[float]:
        """The right edges of columns of numbers, as shares of the width, the last one's at the margin.

        Columns stand apart, and begin at `least` or further right; `ValueError` where they have no room.
        """
        widths = [max(self.width_of(text) for text in column) for column in columns]
        gap = self.style.size * 0.9
        room = self.inner * (1 - least) - sum(widths) - gap * len(widths)
        if room < 0:
            raise ValueError("no room for the columns")
        spare = min(room / len(widths), self.inner * 0.07)
        ends = [float(self.inner)]
        for width in reversed(widths[1:]):
            ends.insert(0, ends[0] - width - gap - spare)
        return [end / self.inner for end in ends]

    def grid(self, names: Sequence[str], rows: Sequence[Sequence[str]], *, ruled: bool = False) -> None:
        """A small table of numbers with names before them; the first row holds the heads."""
        columns = list(zip(*(row[: len(rows[0])] for row in rows), strict=True))
        try:
            edges = self.edges(columns, least=max(self.width_of(n) for n in names) / self.inner)
        except ValueError:  # no room: two columns at the ends
            columns, edges = columns[:2], [0.66, 1.0]
        for at, name in enumerate(names):
            self.row((name, 0.0, "l"), *((c[at], e, "r") for c, e in zip(columns, edges, strict=True)))
            if at == 0 and ruled:
                self.rule()

    def rule(self, mark: str | None = None) -> None:
        """A line across: drawn, or typed in characters."""
        mark = self.style.rule if mark is None else mark
        if mark == "line":
            self.spare(20)
            self.pen.line(
                [(self.style.margin, self.y + 7), (self.style.width - self.style.margin, self.y + 7)],
                fill=220,
                width=self.rng.choice((1, 2)),
            )
            self.y += 18
        elif mark:
            self.row((mark * int(self.inner / self.width_of(mark * 20) * 20), 0, "l"))

    def space(self, lines: float = 0.5) -> None:
        self.y += int(self.style.size * lines)
        self.spare(40)

    def logo(self, text: str, size: int) -> None:
        """A name in display type, perhaps white on black."""
        face = next((f for f in self.rng.sample(DISPLAY, len(DISPLAY)) if covers(f, text)), "DejaVuSans.ttf")
        font = load(face, size)
        while font.getlength(text) > self.inner - 20 and size > 16:
            size -= 2
            font = load(face, size)
        self.spare(size * 2)
        x = self.style.margin + (self.inner - font.getlength(text)) / 2
        inverse = self.rng.random() < 0.2
        if inverse:
            self.pen.rectangle([x - 14, self.y - 4, x + font.getlength(text) + 14, self.y + size * 1.3], fill=245)
        self.pen.text((x, self.y), text, fill=0 if inverse else 255, font=font)
        self.y += int(size * 1.5)

    def emblem(self) -> None:
        """A drawn mark above the name: no letters in it."""
        middle, r = self.style.width // 2, self.rng.randrange(22, 40)
        box = [middle - r, self.y, middle + r, self.y + 2 * r]
        match self.rng.randrange(4):
            case 0:
                self.pen.ellipse(box, outline=240, width=5)
                self.pen.pieslice(box, 20, 160, fill=230)
            case 1:
                self.pen.polygon(
                    [(middle, self.y), (middle + r, self.y + 2 * r), (middle - r, self.y + 2 * r)], outline=240, width=4
                )
            case 2:
                self.pen.rounded_rectangle(box, 10, fill=230)
                self.pen.arc([box[0] + 9, box[1] + 9, box[2] - 9, box[3] - 9], 200, 520, fill=0, width=5)
            case _:
                for k in range(3):
                    self.pen.arc(
                        [middle - r + 9 * k, self.y + 9 * k, middle + r - 9 * k, self.y + 2 * r - 9 * k],
                        180,
                        360,
                        fill=235,
                        width=4,
                    )
        self.y += 2 * r + 8

    def barcode(self) -> None:
        self.spare(110)
        x, end = self.style.margin + self.inner * 0.15, self.style.margin + self.inner * 0.85
        while x < end:
            bar = self.rng.choice((2, 2, 3, 4, 6))
            self.pen.rectangle([x, self.y + 6, x + bar - 1, self.y + 70], fill=240)
            x += bar + self.rng.choice((2, 3, 4, 6))
        self.y += 80
        self.row(("".join(str(self.rng.randrange(10)) for _ in range(13)), 0.5, "m"))

    def square_code(self) -> None:
        """A square of dark and light cells, as a QR code looks."""
        n, cell = 25, 5
        self.spare(n * cell + 30)
        x0, y0 = (self.style.width - n * cell) // 2, self.y + 8
        cells = np.array([[self.rng.random() < 0.5 for _ in range(n)] for _ in range(n)])
        for cy, cx in ((0, 0), (0, n - 7), (n - 7, 0)):
            cells[cy : cy + 7, cx : cx + 7] = True
            cells[cy + 1 : cy + 6, cx + 1 : cx + 6] = False
            cells[cy + 2 : cy + 5, cx + 2 : cx + 5] = True
        for y, x in np.argwhere(cells):
            self.pen.rectangle(
                [x0 + int(x) * cell, y0 + int(y) * cell, x0 + int(x) * cell + cell - 1, y0 + int(y) * cell + cell - 1], fill=240
            )
        self.y += n * cell + 24

    # -- the truth

    def tell(self, name: str, value: Any, *printed: str) -> None:
        """Notes a value with the strings that it was printed as, all of which make it up."""
        self.truth[name] = value
        self.printed[name] = [self.say(p) for p in printed]

    def tell_item(
        self, name: str, *, quantity: Decimal | None, unit_price: Decimal | None, amount: Decimal, printed: Sequence[str]
    ) -> None:
        self.items.append(
            {
                "description": self.say(name),
                "quantity": quantity,
                "unit_price": unit_price,
                "amount": amount,
                "printed": [self.say(p) for p in printed],
            }
        )

    def done(self) -> Image.Image:
        return self.image.crop((0, 0, self.style.width, self.y + 30))
