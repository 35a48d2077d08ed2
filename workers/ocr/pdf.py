"""The pages of a PDF, drawn by a process of their own (`draw.py`): its time and memory are bounded, its crash harms nobody."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from PIL import Image

DPI = 200  # at which a page is drawn: print of 8 points is some 22 pixels high
PIXELS = 12_000_000  # a larger page is drawn coarser
PAGE_S = 20.0  # that a page may take
MEMORY = 2 << 30  # bytes that the process may take
_DRAW = Path(__file__).with_name("draw.py")
_CHUNK = 1 << 20


class PdfFailure(Exception):
    """No page: it has a password, holds a picture of too many pixels, is damaged, or takes too much to draw."""

    def __init__(self, kind: Literal["password", "pixels", "damaged", "heavy"], text: str = "") -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


def open_pdf(data: bytes, *, most: int, most_pixels: int) -> tuple[int, Iterator[Image.Image]]:
    """How many pages a PDF has, and the first `most` of them, drawn one at a time.

    Raises:
        PdfFailure: it cannot be read; the pages raise it, too.
    """
    told = _drawn(data, most, most_pixels)
    return next(told)["count"], (Image.frombytes("RGB", (page["width"], page["height"]), page["picture"]) for page in told)


def _drawn(data: bytes, most: int, most_pixels: int) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-P", str(_DRAW), *map(str, (most, DPI, PIXELS, most_pixels, MEMORY))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True
    ) as process:
        try:
            _hand(process, data)
            pipe = _Pipe(process)
            head = pipe.line()
            yield head
            for _ in range(min(most, head["count"])):
                page = pipe.line()
                yield page | {"picture": pipe.take(page["width"] * page["height"] * 3)}
        finally:
            process.kill()


def _hand(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Writes the file to the process, which reads all of it before it writes."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        for at in range(0, len(data), _CHUNK):
            rest = memoryview(data)[at : at + _CHUNK]
            while rest:
                rest = rest[process.stdin.write(rest) or 0 :]


class _Pipe:
    """What a process writes, waited for no longer than a page may take."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._from, self._kept = process.stdout, bytearray()

    def line(self) -> dict[str, Any]:
        """The next line, which tells a number of pages or a page.

        Raises:
            PdfFailure: it tells an error, or there is none.
        """
        end = time.monotonic() + PAGE_S
        while b"\n" not in self._kept:
            self._more(end)
        line, _, self._kept = self._kept.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise PdfFailure(told["error"], str(told.get("text", "")))
        return told

    def take(self, count: int) -> bytes:
        """So many bytes."""
        end = time.monotonic() + PAGE_S
        while len(self._kept) < count:
            self._more(end)
        taken, self._kept = bytes(self._kept[:count]), self._kept[count:]
        return taken

    def _more(self, end: float) -> None:
        if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
            raise PdfFailure("heavy", f"a page takes more than {PAGE_S:g} s to draw")
        got = os.read(self._from.fileno(), _CHUNK)
        if not got:
            raise PdfFailure("heavy", "drawing a page takes too much memory, or breaks what draws it")
        self._kept += got
