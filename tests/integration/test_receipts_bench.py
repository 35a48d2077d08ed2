"""`bench/receipts.py` on a folder in the layout of the public sets: it tells right from wrong, whoever read the text."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.receipts import render
from tests.receipts.fonts import load

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench" / "receipts.py"
sys.path.insert(0, str(BENCH.parent))
sets = importlib.import_module("receipt_sets")

pytestmark = pytest.mark.integration

FIRST = [
    [(20, "KEDAI RUNCIT MELATI SDN BHD")],
    [(20, "No 4 Jalan Besar, 47300 Petaling Jaya")],
    [(20, "Date: 03/04/2018"), (300, "12:40")],
    [(20, "Soap, lemon"), (400, "4.50")],
    [(20, "Rice 5kg"), (400, "26.90")],
    [(20, "TOTAL RM"), (400, "31.40")],
    [(20, "CASH"), (400, "50.00")],
    [(20, "CHANGE"), (400, "18.60")],
]
SECOND = [
    [(20, "HARBOUR BOOKS PTE LTD")],
    [(20, "8 Bugis Street, Singapore 189560")],
    [(20, "Date: 25 DEC 2017")],
    [(20, "Notebook ruled"), (400, "5.40")],
    [(20, "TOTAL"), (400, "$5.40")],
    [(20, "VISA"), (400, "$5.40")],
]


@dataclass
class Result:
    code: int
    out: str
    err: str


def bench(*arguments: object) -> Result:
    done = subprocess.run(
        [sys.executable, str(BENCH), *map(str, arguments)], capture_output=True, text=True, timeout=150, cwd=ROOT, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def picture(folder: Path, name: str, rows: list[list[tuple[int, str]]], key: dict[str, str]) -> None:
    """A plain receipt with its boxes and key fields."""
    image, font = Image.new("RGB", (520, 60 + 40 * len(rows)), "white"), load("DejaVuSans.ttf", 22)
    pen, boxes = ImageDraw.Draw(image), []
    for at, row in enumerate(rows):
        for x, text in row:
            pen.text((x, 30 + 40 * at), text, fill="black", font=font)
            left, top, right, bottom = (round(v) for v in pen.textbbox((x, 30 + 40 * at), text, font=font))
            boxes.append(f"{left},{top},{right},{top},{right},{bottom},{left},{bottom},{text}")
    image.save(folder / "img" / f"{name}.jpg", quality=92)
    (folder / "box" / f"{name}.csv").write_text("\n".join(boxes), encoding="utf-8")
    (folder / "key" / f"{name}.json").write_text(json.dumps(key), encoding="utf-8")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two receipts; the second one's key fields name another total."""
    for name in ("img", "box", "key"):
        (tmp_path / name).mkdir()
    address = "No 4 Jalan Besar"
    first = {"company": "KEDAI RUNCIT MELATI SDN BHD", "date": "03/04/2018", "address": address, "total": "RM 31.40"}
    picture(tmp_path, "000", FIRST, first)
    picture(tmp_path, "001", SECOND, {"company": "HARBOUR BOOKS PTE LTD", "date": "25-12-2017", "address": "", "total": "9.99"})
    return tmp_path


def scores(result: Result, engine: str) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    found: list[dict[str, Any]] = json.loads(result.out)[engine]["scores"]
    return found


def test_the_text_of_the_boxes_is_parsed_and_a_value_that_is_not_the_true_one_counts_as_wrong(scans: Path) -> None:
    first, second = scores(bench("--set", scans, "--text", "boxes", "--json"), "boxes")
    assert first["right"] == {"merchant": True, "date": True, "total": True}
    assert first["held"] == {"merchant": True, "date": True, "total": True}
    assert second["right"] == {"merchant": True, "date": True, "total": False}
    assert second["held"]["total"] is False
    assert [(m["field"], m["true"], m["got"]) for m in second["misses"]] == [("total", "9.99", "5.40")]
    assert first["items"] is None
    assert first["ocr_ms"] is None


def test_an_ambiguous_date_of_the_truth_is_day_first_unless_told(scans: Path) -> None:
    first, _ = scores(bench("--set", scans, "--text", "boxes", "--json", "--month-first"), "boxes")
    assert first["right"]["date"] is False
    assert first["misses"][0]["true"] == "2018-03-04"


@pytest.mark.long
def test_an_engine_reads_the_pictures_once_and_one_that_cannot_is_named(scans: Path, tmp_path: Path) -> None:
    how = ("--set", scans, "--engines", "rapidocr,no-such-engine", "--cache", tmp_path / "cache", "--jobs", "2")
    result = bench(*how, "--misses")
    assert result.code == 0, result.err
    assert "no-such-engine: not available here" in result.err
    assert "001.jpg  total: true '9.99', got '5.40'" in result.out
    assert "rapidocr, all but blurred, 2 pictures: total 50.0 MISSED (>= 95%); date 100.0 met (>= 95%)" in result.out
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2
    assert [s["ocr_ms"] for s in scores(bench(*how, "--json"), "rapidocr")] == [None, None]
    assert all(s["ocr_ms"] > 0 for s in scores(bench(*how, "--json", "--no-cache", "--first", "1"), "rapidocr"))


def test_a_folder_that_the_renderer_wrote_is_measured_with_its_items_and_class(tmp_path: Path) -> None:
    render.write(tmp_path, seed=1, count=1, classes=("folded",))
    result = bench("--set", tmp_path, "--json", "--no-cache")
    (one,) = scores(result, "rapidocr")
    assert one["kind"] == "folded"
    assert set(one["right"]) == {"merchant", "date", "currency", "total", "tax"}
    true, found, matched = one["items"]
    truth = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    assert true == len(truth[one["name"]]["items"])
    assert matched <= min(true, found)


def test_a_folder_that_is_no_set_is_refused_with_what_it_should_hold(tmp_path: Path) -> None:
    result = bench("--set", tmp_path)
    assert result.code == 1
    assert "holds 0 pictures" in result.err
    assert "company, date, address and total" in result.err


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("25/12/2018", "2018-12-25"),
        ("03/04/2018", "2018-04-03"),
        ("2018-03-04", "2018-03-04"),
        ("2018/3/4 10:12", "2018-03-04"),
        ("25122018", "2018-12-25"),
        ("20181225", "2018-12-25"),
        ("20122018", "2018-12-20"),
        ("12:30", None),
        ("15 JAN 18", "2018-01-15"),
        ("29/12/17(FRI)", "2017-12-29"),
        ("12-JUN-2016 16:02:11", "2016-06-12"),
        ("", None),
        ("n/a", None),
    ],
)
def test_dates_of_a_truth_are_read_in_many_spellings(text: str, day: str | None) -> None:
    assert sets.read_day(text) == day


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("RM 1,234.50", "1234.50"),
        ("$8.20", "8.20"),
        ("1.234,50", "1234.50"),
        ("1'729.06", "1729.06"),
        ("15.000", "15000"),
        ("7", "7"),
        ("", None),
    ],
)
def test_amounts_of_a_truth_are_read_as_printed(text: str, amount: str | None) -> None:
    assert sets.read_amount(text) == (Decimal(amount) if amount else None)
