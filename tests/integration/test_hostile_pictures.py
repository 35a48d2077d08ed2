"""Pictures and files made to break what reads them, and engines that break: bounded memory and time, and a failure that says so."""

from __future__ import annotations

import io
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pydantic import SecretStr

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")

from orchestrator.errors import ToolError
from orchestrator.settings import load_settings
from tests.integration.test_ocr_engines import GROCERY, TOTAL, need
from workers.ocr import decode, pdf, rapid, tesseract
from workers.ocr.engines import Ask, read_image, read_pages
from workers.ocr.papers import papers
from workers.ocr.pieces import Deadline

pytestmark = pytest.mark.integration
SETTINGS = load_settings(_env_file=None)


@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
@pytest.mark.parametrize(
    "size", [(2_000, 1), *(pytest.param(size, marks=pytest.mark.long) for size in ((1, 300), (1, 2_000), (30_000, 20)))]
)
def test_a_slim_picture_is_an_empty_text(engine: str, size: tuple[int, int]) -> None:
    if engine == "tesseract":
        need(shutil.which("tesseract"), "tesseract")
    result = read_image(Image.new("RGB", size, "white"), settings=SETTINGS, engines=[engine])
    assert (result.text, result.engine) == ("", engine)


@pytest.mark.parametrize(
    ("height", "width"), [(736, 54_000), (40, 60_000), (60_000, 40), (1, 40_000_000), (6_300, 6_300), (2_000, 20_000)]
)
def test_what_the_detector_is_given_is_bounded_whatever_the_shape(height: int, width: int) -> None:
    page = np.broadcast_to(np.uint8(255), (height, width, 3))
    searched, _ = rapid._to_search(page)
    assert searched.shape[0] * searched.shape[1] < 2 * 40_000_000
    for top, bottom in rapid.strips(searched)[:3]:
        rows, columns = rapid._not_slim(searched[top:bottom]).shape[:2]
        enlarged = max(1.0, 736 / min(rows, columns))  # what the detector does to the short side
        assert rows * columns * enlarged**2 < 6_500_000


def test_a_line_cut_out_of_a_receipt_is_still_read() -> None:
    line = GROCERY.crop((0, 20, GROCERY.width, 60)).resize((GROCERY.width * 2, 80))
    plain = read_image(GROCERY, settings=SETTINGS).lines[0].text
    assert plain.split()[0] in read_image(line, settings=SETTINGS).text


@pytest.mark.parametrize("error", [MemoryError(), rapid.ONNXRuntimeError("Traceback ...\nstd::bad_alloc\n")])
def test_an_engine_without_memory_lets_the_next_one_take_over(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    need(shutil.which("tesseract"), "tesseract")

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(rapid, "find", broken)
    result = read_image(GROCERY, settings=SETTINGS)
    assert result.engine == "tesseract"
    assert TOTAL in result.text
    assert type(error).__name__ in result.notes[0]


@pytest.mark.parametrize(
    ("script", "says"),
    [("sleep 60", "does not work"), ("echo broken >&2; exit 127", "does not work"), ("echo 2.0", "does not work")],
)
def test_a_tesseract_that_hangs_or_is_broken_is_left(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tesseract"
    program.write_text(f"#!/bin/sh\nexec 2>&1\n{'exec ' * script.startswith('sleep')}{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(tesseract, "ANSWER_S", 0.3)
    tesseract.packs.cache_clear()
    began = time.monotonic()
    try:
        result = read_image(GROCERY, settings=SETTINGS, engines=["tesseract", "rapidocr"])
    finally:
        tesseract.packs.cache_clear()
    assert time.monotonic() - began < 30
    assert result.engine == "rapidocr"
    assert says in result.notes[0]


def test_a_picture_done_just_when_the_time_is_over_is_whole() -> None:
    deadline = Deadline(60)

    def pages() -> Iterator[Image.Image]:
        yield GROCERY
        object.__setattr__(deadline, "seconds", 0.0)  # the only page is read

    made = read_pages(pages(), Ask(SETTINGS, ("rapidocr",), "en", "auto", deadline), source="x")
    assert (made.pages, made.notes) == (1, ())


# -- PDF


def a_pdf(*objects: bytes) -> bytes:
    """A PDF of one page, whose catalogue, pages and page are the first three objects."""
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Resources<</XObject<</F 5 0 R>>/Pattern<</P 5 0 R>>>>/Contents 4 0 R>>",
        *objects,
    ]
    out, places = b"%PDF-1.4\n", []
    for n, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, part)
    table = b"".join(b"%010d 00000 n \n" % p for p in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1)
    return out + head + table + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(parts) + 1, len(out))


def stream(data: bytes, more: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (more, len(data), data)


def forms_in_forms() -> bytes:
    """Twelve forms, each of which draws the next one ten times: three kilobytes, and a thousand billion rectangles."""
    made = []
    for n in range(12):
        inner = b"/Resources<</XObject<</F %d 0 R>>>>" % (6 + n) if n < 11 else b""
        body = b"/F Do " * 10 if n < 11 else b"0 0 9 9 re f"
        made.append(stream(body, b"/Type/XObject/Subtype/Form/BBox[0 0 300 300]" + inner))
    return a_pdf(stream(b"/F Do"), *made)


def endless_pattern() -> bytes:
    tile = b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 300 300]/XStep 0.001/YStep 0.001/Resources<<>>"
    return a_pdf(stream(b"/Pattern cs /P scn 0 0 300 300 re f"), stream(b"0 0 1 1 re f", tile))


def zeros_packed(mib: int) -> bytes:
    """As `zlib.compress` packs so many MiB of zeros, but of the same packed MiB again and again: it takes no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    one = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checked = (((mib << 20) % 65_521) << 16 | 1).to_bytes(4, "big")  # Adler-32 of zeros
    return b"\x78\xda" + one * mib + packer.flush() + checked


def test_what_is_packed_so_is_zeros() -> None:
    assert zlib.decompress(zeros_packed(3)) == bytes(3 << 20)


def unpacks_to_gigabytes() -> bytes:
    once = zeros_packed(3_000)
    return a_pdf(stream(zlib.compress(once, 9), b"/Filter[/FlateDecode/FlateDecode]"))


@pytest.mark.parametrize("made", [forms_in_forms, endless_pattern, unpacks_to_gigabytes], ids=lambda m: m.__name__)
def test_a_pdf_that_cannot_be_drawn_harms_nobody(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "PAGE_S", 4.0)
    monkeypatch.setattr(pdf, "MEMORY", 1 << 30)
    data, own, began = made(), psutil.Process().memory_info().rss, time.monotonic()
    with pytest.raises(ToolError) as caught:
        decode.decode(data, "x.pdf")
    assert (caught.value.code, caught.value.retryable) == ("too_large", False)
    assert caught.value.next
    assert time.monotonic() - began < 20
    assert psutil.Process().memory_info().rss - own < 100 << 20
    assert not [c for c in psutil.Process().children() if "draw.py" in " ".join(c.cmdline())]


def test_pages_that_nobody_asks_for_leave_no_process() -> None:
    out = io.BytesIO()
    GROCERY.save(out, "PDF", save_all=True, append_images=[GROCERY] * 4)
    document = decode.open_document(out.getvalue(), "x.pdf", most=5)
    assert next(document.pages).size[0] > 100
    del document
    assert not [c for c in psutil.Process().children() if "draw.py" in " ".join(c.cmdline())]


# -- papers


def test_a_wide_invoice_with_an_empty_middle_stays_one_paper() -> None:
    invoice = Image.new("RGB", (2_000, 900), "white")
    invoice.paste(GROCERY.crop((0, 0, 450, 700)), (60, 60))
    invoice.paste(GROCERY.crop((0, 0, 450, 700)), (1_450, 60))
    table = Image.new("RGB", (2_200, 1_100), (62, 48, 40))
    table.paste(invoice, (100, 100))
    for picture in (invoice, table):
        found, notes = papers(np.asarray(picture))
        assert (len(found), notes) == (1, ())


# -- Azure's key


@pytest.mark.parametrize("key", ["abc\nsecret", "abc-sécret", "abc\x00secret"])
def test_a_key_that_no_header_can_hold_is_not_quoted(key: str) -> None:
    pytest.importorskip("azure.ai.vision.imageanalysis", reason="the extra `azure` is not installed")
    made = load_settings(_env_file=None, azure_vision_endpoint="http://127.0.0.1:9", azure_vision_key=SecretStr(key))
    with pytest.raises(ToolError) as caught:
        read_image(GROCERY, settings=made, engines=["azure"])
    assert "cret" not in str(caught.value)
    assert "TOOLWEAVER_AZURE_VISION_KEY" in (caught.value.next or "")


# -- formats


def test_a_large_picture_of_a_phone_with_a_second_one_inside_is_reduced_like_a_plain_jpeg() -> None:
    out = io.BytesIO()
    Image.new("RGB", (7_000, 6_500), "white").save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    page = decode.decode(out.getvalue(), "x.jpg")
    assert page.width * page.height <= decode.MAX_PIXELS


def test_numbers_that_are_none_are_black(recwarn: pytest.WarningsRecorder) -> None:
    out = io.BytesIO()
    values = np.full((8, 8), 200.0, np.float32)
    values[2, 2] = np.nan
    Image.fromarray(values).save(out, "TIFF")
    assert decode.decode(out.getvalue(), "x.tiff").getpixel((2, 2)) == (0, 0, 0)
    assert not recwarn.list
