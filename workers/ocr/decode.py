"""Bytes become pages: pictures of any common kind and PDF, upright, RGB, on white, at most so many pixels in memory.

A file that is small can unpack to gigabytes, so sizes are looked at before anything is unpacked: a page may have
`MAX_PIXELS`; a larger JPEG is reduced by its decoder, which never holds it whole.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, features

from orchestrator.errors import ToolError
from workers.ocr.pdf import PdfFailure, open_pdf

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
MAX_PIXELS = 40_000_000
MAX_JPEG = 200_000_000  # pixels, of a JPEG that its decoder can reduce
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, TypeError, OverflowError)
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


@dataclass(frozen=True, slots=True)
class Document:
    """Pages that are unpacked one at a time, and what a reader should know of those that are left out."""

    pages: Iterator[Image.Image]
    notes: tuple[str, ...] = ()


def decode(data: bytes, name: str) -> Image.Image:
    """The picture, or the first page.

    Raises:
        ToolError: see `open_document`.
    """
    return next(open_document(data, name, most=1).pages)


def open_document(data: bytes, name: str, *, most: int) -> Document:
    """The pages of what the bytes are, `most` of them.

    Raises:
        ToolError: `not_an_image`, `corrupt_image`, `too_large`, `no_decoder` or `needs_password`; the pages raise it, too.
    """
    if b"%PDF-" in data[:1024]:
        return _pdf(data, name, most)
    return _picture(data, name, most)


def _picture(data: bytes, name: str, most: int) -> Document:
    image = _opened(data, name)
    frames = 1
    if image.format == "TIFF":
        frames = _frames(image, most)
    elif getattr(image, "is_animated", False) and image.format != "MPO":
        return Document(_each(image, name, 1), ("the picture is animated: only its first frame was read",))
    if frames > most:
        return Document(_each(image, name, most), (f"only the first {most} pages were read (TOOLWEAVER_OCR_PAGES)",))
    return Document(_each(image, name, frames))


def _opened(data: bytes, name: str) -> Image.Image:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        _learn_heif(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower than Pillow's
            image = Image.open(io.BytesIO(data), formats=[f for f in (*FORMATS, "HEIF") if f in _known()])
    except Image.DecompressionBombError:
        raise _too_many_pixels(name) from None
    except _DAMAGED:
        raise _no_image(data, name) from None
    _check_size(image, name)
    return image


def _known() -> frozenset[str]:
    Image.init()
    return frozenset(f for f in Image.OPEN if f != "AVIF" or features.check("avif"))


def _learn_heif(name: str) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ModuleNotFoundError:
        raise ToolError(
            f"`{name}` is a HEIC image, for which this worker has no decoder",
            code="no_decoder",
            path="image_uri",
            next="Install `pillow-heif` where the worker runs (pip install 'toolweaver[heic]'), or send a JPEG or PNG.",
        ) from None


def _frames(image: Image.Image, most: int) -> int:
    """The frames, counted to one more than are read: a file may claim, or hold, any number."""
    for n in range(1, most + 1):
        try:
            image.seek(n)
        except _DAMAGED:
            image.seek(0)
            return n
    image.seek(0)
    return most + 1


def _each(image: Image.Image, name: str, count: int) -> Iterator[Image.Image]:
    for n in range(count):
        try:
            if n:
                image.seek(n)
                _check_size(image, name)
            yield _upright(image)
        except _DAMAGED as error:
            raise _damaged(f"`{name}` is a damaged {image.format} image: {error}") from None
        except MemoryError:
            raise _too_many_pixels(name) from None


def _check_size(image: Image.Image, name: str) -> None:
    """Lets pass what can be unpacked; a large JPEG is told to come out smaller."""
    pixels = image.width * image.height
    if pixels <= MAX_PIXELS:
        return
    # A progressive one is kept whole by its decoder before it is reduced.
    if image.format not in ("JPEG", "MPO") or pixels > MAX_JPEG or image.info.get("progressive"):
        raise _too_many_pixels(name)
    share = (MAX_PIXELS / pixels) ** 0.5
    image.draft("RGB", (int(image.width * share / 2), int(image.height * share / 2)))
    if image.width * image.height > MAX_PIXELS:
        raise _too_many_pixels(name)


def _upright(image: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith(("I", "F")):
        return _eight_bits(turned).convert("RGB")
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        white = Image.new("RGBA", turned.size, "white")
        return Image.alpha_composite(white, turned).convert("RGB")
    return turned.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits a pixel in 8: Pillow would cut the values off, which makes it all white."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and 255 < high <= 65_535:
        low, high = 0.0, 65_535.0
    elif low >= 0 and high <= 255 and not image.mode.startswith("F"):
        low, high = 0.0, 255.0
    return Image.fromarray(np.clip((values - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8))


def _pdf(data: bytes, name: str, most: int) -> Document:
    try:
        count, pages = open_pdf(data, most=most, most_pixels=MAX_PIXELS)
    except PdfFailure as failure:
        raise _of_pdf(failure, name) from None
    if not count:
        raise _damaged(f"`{name}` is a PDF without pages")
    notes = (f"only the first {most} of {count} pages were read (TOOLWEAVER_OCR_PAGES)",) if count > most else ()
    return Document(_drawn(pages, name), notes)


def _drawn(pages: Iterator[Image.Image], name: str) -> Iterator[Image.Image]:
    try:
        yield from pages
    except PdfFailure as failure:
        raise _of_pdf(failure, name) from None


def _of_pdf(failure: PdfFailure, name: str) -> ToolError:
    match failure.kind:
        case "password":
            return ToolError(
                f"`{name}` is a PDF with a password",
                code="needs_password",
                path="image_uri",
                next="Send it without the password, or a picture of its pages.",
            )
        case "pixels":
            return _too_many_pixels(name)
        case "heavy":
            return ToolError(
                f"`{name}` is a PDF that cannot be drawn: {failure.text}",
                code="too_large",
                path="image_uri",
                next="Send a picture of its pages.",
            )
    return _damaged(f"`{name}` is a damaged PDF: {failure.text}")


def _damaged(what: str) -> ToolError:
    return ToolError(what, code="corrupt_image", path="image_uri", next="Send the image again.")


def _too_many_pixels(name: str) -> ToolError:
    return ToolError(
        f"`{name}` has more than {MAX_PIXELS:,} pixels", code="too_large", path="image_uri", next="Send it at a lower resolution."
    )


def _no_image(data: bytes, name: str) -> ToolError:
    known = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    kind = next((k for magic, k in known.items() if data.startswith(magic)), None)
    if kind or data[4:8] == b"ftyp":
        return _damaged(f"`{name}` is a damaged {kind or 'HEIC'} image")
    what = "a text file" if _is_text(data[:4096]) else "no image of a known format"
    formats = ", ".join([*FORMATS, "HEIC", "PDF"])
    return ToolError(f"`{name}` is {what}", code="not_an_image", path="image_uri", next=f"Send one of {formats}.")


def _is_text(data: bytes) -> bool:
    try:
        return data.decode("utf-8", errors="strict").isprintable() or b"\0" not in data
    except UnicodeDecodeError:
        return False
