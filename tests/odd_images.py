"""Odd inputs and what each becomes: `python -m tests.odd_images` prints the table, with the text or the message.

Every input is made here. `code` is that of the failure, None where a text is read; `holds` is what text or message has in it.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from orchestrator.errors import ToolError
from orchestrator.settings import load_settings
from workers.ocr.images import DATA
from workers.ocr.tools import receipt_ocr
from workers.receipt import OcrResult
from workers.testing import FakeContext

Make = Callable[[], bytes]
NOTICE, GROCERY, FUEL = (Image.open(DATA / f"{n}.png").convert("RGB") for n in ("notice", "grocery", "fuel"))


@dataclass(frozen=True)
class Odd:
    """One input, how it is made, and what it becomes."""

    name: str
    make: Make
    holds: str
    code: str | None = None
    notes: str = ""
    needs: str = ""
    missing: str = ""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture in a format."""
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def two_papers() -> bytes:
    """Two receipts beside each other on a dark table."""
    height = max(FUEL.height, GROCERY.height)
    table = Image.new("RGB", (FUEL.width + GROCERY.width + 180, height + 120), (62, 48, 40))
    table.paste(FUEL, (60, 60))
    table.paste(GROCERY, (FUEL.width + 120, 60))
    return saved(table, "JPEG", quality=92)


def sixteen_bits() -> bytes:
    """Grey of 16 bits, as some scanners make it."""
    grey = np.asarray(GROCERY.convert("L"), np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def huge_png(side: int = 10_000) -> bytes:
    """100 megapixels in some 100 kB: a head that tells the size, and as many zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes((side + 1) * side), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def huge_jpeg(*, progressive: bool = False) -> bytes:
    """A receipt drawn at 100 megapixels."""
    large = GROCERY.convert("L").resize((8_600, 11_700))
    return saved(large, "JPEG", quality=60, progressive=progressive)


def transparent() -> bytes:
    """Black letters on nothing, with a palette."""
    grey = np.asarray(GROCERY.convert("L"))
    rgba = np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey])
    return saved(Image.fromarray(rgba).quantize(64), "PNG")


def animated() -> bytes:
    """Three frames."""
    return saved(NOTICE, "GIF", save_all=True, append_images=[FUEL, GROCERY])


def tiff_pages() -> bytes:
    """Two pages in one file."""
    return saved(FUEL, "TIFF", save_all=True, append_images=[GROCERY], compression="tiff_lzw")


def tiff_bomb() -> bytes:
    """A few bytes that claim 40,000 pixels each way, as one strip."""
    fields = {256: 40_000, 257: 40_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 40_000, 279: 100}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields)) + table + bytes(104)


def pdf(*images: Image.Image, size: tuple[float, float] | None = None) -> bytes:
    """A PDF with a picture on each page."""
    document = pdfium.PdfDocument.new()
    for image in images:
        drawn = pdfium.PdfImage.new(document)
        drawn.set_bitmap(pdfium.PdfBitmap.from_pil(image))
        width, height = size or (image.width / 2, image.height / 2)
        drawn.set_matrix(pdfium.PdfMatrix().scale(width, height))
        page = document.new_page(width, height)
        page.insert_obj(drawn)
        page.gen_content()
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pdf_with_text() -> bytes:
    """A PDF whose text is text."""
    document = pdfium.PdfDocument.new()
    page = document.new_page(300, 200)
    font = pdfium_c.FPDFText_LoadStandardFont(document, b"Helvetica")
    for row, line in enumerate(("CORNER SHOP", "Green tea 3.50", "TOTAL 3.50")):
        text = pdfium_c.FPDFPageObj_CreateTextObj(document, font, 18)
        encoded = (line + "\0").encode("utf-16-le")
        pdfium_c.FPDFText_SetText(text, (pdfium_c.FPDF_WCHAR * (len(encoded) // 2)).from_buffer_copy(encoded))
        pdfium_c.FPDFPageObj_Transform(text, 1, 0, 0, 1, 30, 150 - 40 * row)
        pdfium_c.FPDFPage_InsertObject(page, text)
    page.gen_content()
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pdf_with_password() -> bytes:
    """A PDF that says it is encrypted, with keys that no empty password opens."""
    plain = pdf(NOTICE)
    start = plain.rindex(b"startxref")
    table = int(plain[start:].split()[1])
    at = len(plain[:start])
    head = b"99 0 obj\n<</Filter/Standard/V 2/R 3/Length 128/P -44/O<" + b"3C" * 32 + b">/U<" + b"7E" * 32 + b">>>\nendobj\n"
    trailer = plain[plain.index(b"trailer", table) : start] if b"trailer" in plain[table:] else b""
    body = plain[:start] + head
    root = trailer[trailer.index(b"/Root") :].split(b">>")[0].split(b"/Info")[0]
    xref = b"xref\n0 0\n99 1\n%010d 00000 n \ntrailer\n<</Size 100/Encrypt 99 0 R/ID[<00><00>]/Prev %d %s>>\n" % (at, table, root)
    return body + xref + b"startxref\n%d\n%%%%EOF\n" % len(body)


def pdf_bomb() -> bytes:
    """A page whose picture claims 60,000 pixels each way."""
    image = b"\0" * 100
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Resources<</XObject<</I 4 0 R>>>>/Contents 5 0 R>>",
        b"<</Type/XObject/Subtype/Image/Width 60000/Height 60000/ColorSpace/DeviceRGB/BitsPerComponent 8"
        b"/Length %d>>stream\n%s\nendstream" % (len(image), image),
        b"<</Length 28>>stream\nq 300 0 0 300 0 0 cm /I Do Q\nendstream",
    ]
    out, places = b"%PDF-1.4\n", []
    for n, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, part)
    table = b"".join(b"%010d 00000 n \n" % p for p in places)
    return (
        out + b"xref\n0 6\n0000000000 65535 f \n" + table + b"trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(out)
    )


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(64)


def heic() -> bytes:
    """A picture as phones make it."""
    pillow_heif = importlib.import_module("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(GROCERY).save(out, quality=80)
    return out.getvalue()


ODD = (
    Odd("no receipt: a notice", lambda: saved(NOTICE, "PNG"), "CITY LIBRARY"),
    Odd("nothing on it: white paper", lambda: saved(Image.new("RGB", (600, 800), "white"), "PNG"), ""),
    Odd("two receipts on a table", two_papers, "NORTHWAY FUEL & GO", notes="two papers"),
    Odd("upside down", lambda: saved(GROCERY.rotate(180), "PNG"), "HARVEST LANE MARKET"),
    Odd("lying on its side", lambda: saved(GROCERY.rotate(90, expand=True), "PNG"), "HARVEST LANE MARKET"),
    Odd("1 x 1 pixel", lambda: saved(Image.new("RGB", (1, 1), "white"), "PNG"), ""),
    Odd("100 megapixels, PNG", huge_png, "more than 40,000,000 pixels", "too_large"),
    Odd("100 megapixels, JPEG", huge_jpeg, "HARVEST LANE MARKET"),
    Odd("100 megapixels, progressive JPEG", lambda: huge_jpeg(progressive=True), "more than 40,000,000 pixels", "too_large"),
    Odd("animated GIF", animated, "CITY LIBRARY", notes="animated"),
    Odd("TIFF of two pages", tiff_pages, "HARVEST LANE MARKET"),
    Odd("TIFF that claims 1.6 gigapixels", tiff_bomb, "more than 40,000,000 pixels", "too_large"),
    Odd("CMYK", lambda: saved(GROCERY.convert("CMYK"), "JPEG"), "HARVEST LANE MARKET"),
    Odd("16 bits a pixel", sixteen_bits, "HARVEST LANE MARKET"),
    Odd("palette with a transparent ground", transparent, "HARVEST LANE MARKET"),
    Odd("truncated PNG", lambda: saved(GROCERY, "PNG")[:4_000], "damaged PNG", "corrupt_image"),
    Odd("truncated JPEG", lambda: saved(GROCERY, "JPEG")[:4_000], "damaged JPEG", "corrupt_image"),
    Odd("HEIC without a decoder", lambda: HEIC, "pillow-heif", "no_decoder", missing="pillow_heif"),
    Odd("HEIC, with one, but broken", lambda: HEIC, "damaged HEIC", "corrupt_image", needs="pillow_heif"),
    Odd("HEIC, with one", heic, "HARVEST LANE MARKET", needs="pillow_heif"),
    Odd("PDF, scanned", lambda: pdf(GROCERY), "HARVEST LANE MARKET"),
    Odd("PDF with text", pdf_with_text, "Green tea"),
    Odd("PDF of 3 pages, 2 allowed", lambda: pdf(FUEL, GROCERY, NOTICE), "HARVEST LANE", notes="only the first 2 of 3 pages"),
    Odd("PDF with a password", pdf_with_password, "a PDF with a password", "needs_password"),
    Odd("PDF with a picture of 3.6 gigapixels", pdf_bomb, "more than 40,000,000 pixels", "too_large"),
    Odd("PDF that is cut off", lambda: pdf(GROCERY)[:300], "damaged PDF", "corrupt_image"),
    Odd("a text file", lambda: b"Dear all,\nthis is no picture.\n", "is a text file", "not_an_image"),
    Odd("empty file", lambda: b"", "is empty", "empty_file"),
)  # fmt: skip


def tried(odd: Odd, folder: Path) -> OcrResult | ToolError:
    """What the tool makes of it: a result or a failure."""
    path = folder / "odd.bin"
    path.write_bytes(odd.make())
    made = FakeContext(settings=load_settings(_env_file=None, file_roots=(folder,), ocr_pages=2))
    with without(odd.missing):
        try:
            return receipt_ocr(str(path), context=made)
        except ToolError as error:
            return error


@contextmanager
def without(package: str) -> Iterator[None]:
    """As if a package were not installed."""
    known = sys.modules.get(package)
    if package:
        sys.modules[package] = None  # type: ignore[assignment]  # so that its import fails
    try:
        yield
    finally:
        if package:
            del sys.modules[package]
        if known is not None:
            sys.modules[package] = known


def told(result: OcrResult | ToolError) -> str:
    """One cell of the table."""
    if isinstance(result, ToolError):
        return f"`{result.code}`: {result.message}. {result.next or ''}".replace("\n", " ")
    lines = [line.text for line in result.lines]
    said = f"{len(lines)} lines, {result.pages} page{'s' if result.pages > 1 else ''}, confidence {result.confidence:.2f}"
    turned = f", turned by {result.orientation}" if result.orientation else ""
    return f"{said}{turned}" + "".join(f"; {note}" for note in result.notes)


def main() -> None:
    """Prints the table."""
    print("| input | becomes |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for odd in ODD:
            if odd.needs and importlib.util.find_spec(odd.needs) is None:
                continue
            print(f"| {odd.name} | {told(tried(odd, Path(folder)))} |".replace(folder, "..."), flush=True)


if __name__ == "__main__":
    main()
