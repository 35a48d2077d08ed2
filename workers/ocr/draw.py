"""Draws the pages of a PDF, as a program of its own: pdfium is native code, which a small file can crash, hang or fill memory with.

`draw.py PAGES DPI PIXELS MOST BYTES` reads the file from its input. It writes a line of JSON with the number of pages, then for
each page, PAGES at most, a line with its width and height and the bytes of its picture, RGB; or a line with an `error`. A page is
drawn at DPI, or coarser where that makes more than PIXELS; none holds a picture of more than MOST; and BYTES are all it may take.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

CPU_S = 120  # should whoever started this be gone


def main(pages: int, dpi: int, pixels: int, most: int) -> None:
    """Draws what comes by the input."""
    try:
        document = pdfium.PdfDocument(sys.stdin.buffer.read())
        count = len(document)
        _tell({"count": count})
        for n in range(min(count, pages)):
            _draw(document[n], n, dpi, pixels, most)
    except (pdfium.PdfiumError, MemoryError) as error:
        _tell({"error": "password" if "password" in str(error).lower() else "damaged", "text": str(error)})


def _draw(page: Any, n: int, dpi: int, pixels: int, most: int) -> None:
    for drawn in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=4):
        width, height = drawn.get_px_size()
        if width * height > most:
            _tell({"error": "pixels"})
            return
    width, height = page.get_size()
    scale = min(dpi / 72, (pixels / max(width * height, 1e-6)) ** 0.5)
    if max(width, height) * scale < 1:
        _tell({"error": "damaged", "text": f"page {n + 1} has no size"})
        return
    picture = page.render(scale=scale).to_pil().convert("RGB")
    _tell({"width": picture.width, "height": picture.height})
    sys.stdout.buffer.write(picture.tobytes())
    sys.stdout.buffer.flush()


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    sys.stdout.buffer.flush()


def _limited(most_bytes: int) -> None:
    for what, most in ((resource.RLIMIT_AS, most_bytes), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # some systems know no such limit
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    *_numbers, _bytes = map(int, sys.argv[1:])
    _limited(_bytes)
    main(*_numbers)
