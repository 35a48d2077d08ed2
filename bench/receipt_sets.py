"""The pictures that `bench/receipts.py` reads, each with its truth: bundled, drawn from a seed, or a folder of scanned receipts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from dateutil import parser as dates
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.receipts import render, wear
from workers.ocr import layout
from workers.ocr.images import DATA
from workers.ocr.pieces import Corners, Piece
from workers.receipt import OcrResult

TRUTH = Path(render.__file__).parent / "truth.json"
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
KINDS = ("bundled", *wear.CLASSES, "scanned")


@dataclass(frozen=True)
class Item:
    """An item of the truth, and the ways in which its amount may be printed."""

    description: str
    amount: Decimal
    printed: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """What a picture says; only the fields named in `values` are known, and None means that the paper prints none."""

    is_receipt: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()  # other names of the merchant that are right
    items: tuple[Item, ...] | None = None  # None: not known
    printed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the strings that make up a value


@dataclass(frozen=True)
class Sample:
    """One picture: a file, or what to draw it from."""

    name: str
    kind: str
    path: Path | None = None
    drawn: tuple[int, int] | None = None  # seed and number
    boxes: Path | None = None
    truth: Truth | None = None

    def image(self) -> Image.Image:
        """The picture as RGB."""
        if self.drawn:
            return render.draw(*self.drawn, self.kind)[0]
        assert self.path
        with Image.open(self.path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")

    def known(self) -> Truth:
        """Its truth; that of a drawn picture is drawn with it."""
        return self.truth or from_json(render.draw(*self.drawn, self.kind)[1] if self.drawn else {})

    def box_text(self) -> OcrResult:
        """The text of the boxes file, put into lines as the engines' is; `FileNotFoundError` where there is none."""
        if self.boxes is None:
            raise FileNotFoundError(f"{self.name} has no boxes file")
        return boxed(self.boxes)


def drawn(seed: int, count: int) -> list[Sample]:
    """The classes in turn, `count` pictures in all."""
    kinds = [wear.CLASSES[at % len(wear.CLASSES)] for at in range(count)]
    return [Sample(f"{at:04d}_{kind}", kind, drawn=(seed, at)) for at, kind in enumerate(kinds)]


def bundled() -> list[Sample]:
    """The pictures that the product ships."""
    truths: dict[str, Any] = json.loads(TRUTH.read_text(encoding="utf-8"))
    return [
        Sample(name, truth.get("class", "clean"), next(DATA.glob(f"{name}.*")), truth=from_json(truth))
        for name, truth in truths.items()
    ]


def from_json(truth: Mapping[str, Any]) -> Truth:
    """The truth as `tests.receipts.render` writes it, or `tests/receipts/truth.json`."""
    names = ("merchant", "date", "currency", "total", "tax")
    values = {name: _exact(truth.get(name)) for name in names} if truth["is_receipt"] else {}
    items = tuple(_item(i) for i in truth.get("items", ()))
    printed = {name: tuple(strings) for name, strings in truth.get("printed", {}).items()}
    return Truth(truth["is_receipt"], values, tuple(truth.get("merchant_also") or ()), items, printed)


def _item(item: Any) -> Item:
    if isinstance(item, dict):
        return Item(item["description"], _exact(item["amount"]), tuple(item["printed"][-1:]))
    return Item(item[0], _exact(item[3]), written(_exact(item[3])))


def written(amount: Decimal) -> tuple[str, ...]:
    """The ways in which countries print an amount: for a truth that does not tell how it was."""
    plain = f"{amount:,.2f}"
    ways = [plain.translate(str.maketrans(",.", marks)) for marks in (",.", ".,", "'.", " ,")] + [plain.replace(",", "")]
    return (*ways, *(w[:-3] for w in ways if amount == amount.to_integral_value()))


def _exact(value: Any) -> Any:
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


# -- a folder in the layout of the public sets of scanned receipts


class BadSet(ValueError):
    """A folder that is no such set: what is missing, and what it should hold."""


def folder(root: Path, *, month_first: bool = False) -> list[Sample]:
    """Its pictures (`img/`, `images/` or at the top), with boxes (`box/`) and key fields (`key/` or `entities/`).

    A folder that `tests.receipts.render` wrote has its `truth.json` instead.

    Raises:
        BadSet: no picture, or no key fields for any.
    """
    pictures = sorted(
        p for d in (root / "img", root / "images", root) if d.is_dir() for p in d.iterdir() if p.suffix.lower() in PICTURES
    )
    if (root / "truth.json").is_file():
        return _written(root, pictures)
    found = [_scanned(root, picture, month_first) for picture in pictures]
    samples = [s for s in found if s]
    if not samples:
        raise BadSet(
            f"{root} holds {len(pictures)} pictures and key fields of none: put images into {root / 'img'}, and for each "
            f"a JSON with company, date, address and total into {root / 'key'} (.json) or {root / 'entities'} (.txt)"
        )
    return samples


def _written(root: Path, pictures: list[Path]) -> list[Sample]:
    truths = json.loads((root / "truth.json").read_text(encoding="utf-8"))
    return [Sample(p.name, truths[p.name]["class"], p, truth=from_json(truths[p.name])) for p in pictures if p.name in truths]


def _scanned(root: Path, picture: Path, month_first: bool) -> Sample | None:
    key = _beside(root, picture.stem, {"key": (".json", ".txt"), "entities": (".txt", ".json")})
    boxes = _beside(root, picture.stem, {"box": (".csv", ".txt"), "boxes": (".csv", ".txt")})
    if key is None:
        return None
    fields = {str(k).lower(): str(v) for k, v in json.loads(key.read_text(encoding="utf-8-sig", errors="replace")).items()}
    return Sample(picture.name, "scanned", picture, boxes=boxes, truth=key_truth(fields, month_first=month_first))


def _beside(root: Path, stem: str, where: Mapping[str, tuple[str, ...]]) -> Path | None:
    paths = (root / name / f"{stem}{suffix}" for name, suffixes in where.items() for suffix in suffixes)
    return next((p for p in paths if p.is_file()), None)


def key_truth(fields: Mapping[str, str], *, month_first: bool = False) -> Truth:
    """The truth by key fields as printed; a date or an amount that cannot be read is left out, for there is nothing to compare."""
    read: dict[str, Any] = {
        "merchant": fields.get("company") or None,
        "date": read_day(fields.get("date", ""), month_first=month_first),
        "total": read_amount(fields.get("total", "")),
    }
    printed = {"merchant": fields.get("company"), "date": fields.get("date"), "total": fields.get("total")}
    values = {name: value for name, value in read.items() if value is not None}
    return Truth(values=values, printed={name: (str(printed[name]),) for name in values})


def read_day(text: str, *, month_first: bool = False) -> str | None:
    """The ISO date of one that is written in any order; None where it is no date."""
    text = text.strip()
    if run := re.fullmatch(r"((?:19|20)\d{2})(0\d|1[0-2])(\d{2})", text) or re.fullmatch(
        r"(\d{2})(\d{2})(\d{4})", text
    ):  # 20181225, 25122018
        text = "-".join(run.groups())
    year_first = re.match(r"\d{4}\D", text) is not None
    try:
        day = dates.parse(text, dayfirst=not month_first and not year_first, fuzzy=True, default=datetime(1, 1, 1)).date()
    except (ValueError, OverflowError):
        return None
    return day.isoformat() if day.year > 1 else None  # a time alone


def read_amount(text: str) -> Decimal | None:
    """The amount in a string such as `RM 1,234.50` or `1.234,50`; None where it holds no digit."""
    found = re.search(r"-?\d[\d.,' ]*", text)
    if not found:
        return None
    number = found.group().rstrip(" .,'").replace(" ", "").replace("'", "")
    whole, mark, cents = number.rpartition("." if number.rfind(".") > number.rfind(",") else ",")
    if not mark or len(cents) == 3:  # no decimals, or a mark between thousands
        whole, cents = number, "0"
    return Decimal(f"{re.sub('[.,]', '', whole)}.{cents}")


def boxed(path: Path) -> OcrResult:
    """A boxes file, `x1,y1,x2,y2,x3,y3,x4,y4,text` a line, as the text of a picture read without a slip."""
    pieces = [p for row in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if (p := _piece(row))]
    right = max((c[0] for p in pieces for c in p.corners), default=0.0)
    bottom = max((c[1] for p in pieces for c in p.corners), default=0.0)
    page = layout.page(pieces, middle=(right / 2, bottom / 2))
    return OcrResult(
        text="\n".join(line.text for line in page.lines),
        lines=page.lines,
        confidence=1.0,
        width=round(right),
        height=round(bottom),
        engine="boxes",
        source=path.name,
    )


def _piece(row: str) -> Piece | None:
    parts = row.split(",", 8)
    if len(parts) < 9 or not parts[8].strip():
        return None
    x1, y1, x2, y2, x3, y3, x4, y4 = (float(p) for p in parts[:8])
    corners: Corners = ((x1, y1), (x2, y2), (x3, y3), (x4, y4))
    return Piece(parts[8].strip(), 1.0, corners)
