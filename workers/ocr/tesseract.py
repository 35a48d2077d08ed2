"""Tesseract, the program, one process a reading: it is ended when the deadline passes, and its memory goes with it."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytesseract
from PIL import Image

from orchestrator.settings import Settings
from workers.ocr.languages import PACKS, plain
from workers.ocr.pieces import Deadline, Engine, Orientation, Picture, Piece, Reading, TooLate, Unable, as_corners, joined, turn
from workers.ocr.tilt import lean_of, level

LEGIBLE = 1_000  # pixels of width below which a page is enlarged: Tesseract wants letters some 20 pixels high
ENLARGED, LONGEST = 3.0, 30_000  # nothing is enlarged further; Tesseract takes sides to 32,767 pixels
ANSWER_S = 5.0  # seconds in which the program says its version
TILTED = 0.7  # degrees from which the picture is levelled before it is read
POOR, FEW = 0.6, 12  # confidence and characters below which a page may stand otherwise
BLOCK = "--psm 6"  # one block of text: a receipt's columns stay on their lines
_TIMED_OUT = "Tesseract process timeout"


@dataclass(frozen=True, slots=True)
class Tesseract:
    """Tesseract with the packs that are installed."""

    name: str = "tesseract"
    local: bool = True

    def read(self, picture: Picture, *, language: str, orientation: Orientation, deadline: Deadline) -> Reading:
        """See `Engine.read`."""
        try:
            return self._read(picture, _pack(language), orientation, deadline)
        except (cv2.error, MemoryError, OSError) as error:  # such as a full disk: the program reads and writes files
            raise Unable(f"failed: {type(error).__name__}: {str(error)[:200]}", retryable=True) from error

    def _read(self, picture: Picture, pack: str, orientation: Orientation, deadline: Deadline) -> Reading:
        given = 0 if orientation == "auto" else int(orientation)
        reading = _read(picture, given, pack, deadline)
        if orientation != "auto" or (reading.confidence >= POOR and reading.characters >= FEW):
            return reading
        turned = _stands(picture, deadline)
        others = [turned] if turned else [] if turned == 0 else [90, 270, 180]
        return max([reading, *(_read(picture, t, pack, deadline) for t in others)], key=lambda r: r.evidence)


@lru_cache(maxsize=1)
def packs() -> tuple[str, ...]:
    """The packs that are installed.

    Raises:
        Unable: the program is not installed, or does not work.
    """
    try:
        # pytesseract waits for ever for an answer to these; it asks for the version before each reading, and remembers it.
        subprocess.run([pytesseract.pytesseract.tesseract_cmd, "--version"], capture_output=True, timeout=ANSWER_S, check=True)
        pytesseract.get_tesseract_version()
        return tuple(pytesseract.get_languages())
    except (subprocess.SubprocessError, SystemExit) as error:  # SystemExit: a version that it does not know
        raise Unable(f"the program `tesseract` does not work: {' '.join(str(error).split())[:200]}") from None
    except OSError:  # TesseractNotFoundError is one
        raise Unable("the program `tesseract` is not installed", next="Install it: Debian's package is `tesseract-ocr`.") from None


def _pack(language: str) -> str:
    wanted = PACKS.get(plain(language))
    if wanted is None:
        raise Unable(f"there is no pack for the language `{language}`", next="Give a two-letter code such as `en`.")
    if wanted not in packs():
        raise Unable(
            f"its pack `{wanted}` for the language `{plain(language)}` is not installed",
            next=f"Install it: Debian's package is `tesseract-ocr-{wanted.replace('_', '-')}`.",
        )
    return wanted if wanted == "eng" or "eng" not in packs() else f"{wanted}+eng"


def _read(picture: Picture, turned: int, pack: str, deadline: Deadline) -> Reading:
    upright = turn(picture, turned)
    lean = lean_of(upright)
    straight, back = level(upright, lean) if abs(lean) >= TILTED else (upright, None)
    page, scale = _legible(straight)
    pieces = [_back(p, scale, back) for p in _words(_run(page, pack, deadline))]
    return Reading(pieces, upright, turned)


def _legible(picture: Picture) -> tuple[Image.Image, float]:
    """The page in grey with its light evened out, enlarged when it is small; and by how much."""
    height, width = picture.shape[:2]
    scale = min(max(1.0, min(LEGIBLE / width, ENLARGED)), LONGEST / max(height, width))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if scale != 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return Image.fromarray(cv2.copyMakeBorder(grey, 12, 12, 12, 12, cv2.BORDER_REPLICATE)), scale


def _run(page: Image.Image, pack: str, deadline: Deadline) -> dict[str, list[Any]]:
    deadline.check()
    try:
        told: dict[str, list[Any]] = pytesseract.image_to_data(
            page, lang=pack, config=BLOCK, timeout=max(deadline.left, 0.1), output_type=pytesseract.Output.DICT
        )
        return told
    except pytesseract.TesseractNotFoundError:
        packs.cache_clear()
        raise Unable("the program `tesseract` is not installed", next="Install Debian's package `tesseract-ocr`.") from None
    except RuntimeError as error:  # TesseractError is one, too
        if str(error) == _TIMED_OUT:
            raise TooLate from None
        raise Unable(f"failed: {' '.join(str(error).split())[:200]}", retryable=True) from error


def _words(told: dict[str, list[Any]]) -> list[Piece]:
    """The words of each line, those that stand close together as one piece."""
    lines: dict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for n, text in enumerate(told["text"]):
        if str(text).strip() and float(told["conf"][n]) >= 0:
            line = (told["block_num"][n], told["par_num"][n], told["line_num"][n])
            left, top = told["left"][n] - 12, told["top"][n] - 12
            lines[line].append(_piece(str(text), told["conf"][n], (left, top, told["width"][n], told["height"][n])))
    return [piece for words in lines.values() for piece in joined(words)]


def _piece(text: str, confidence: float, box: tuple[int, int, int, int]) -> Piece:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return Piece(text, float(confidence) / 100, as_corners(((left, top), (right, top), (right, bottom), (left, bottom))))


def _back(piece: Piece, scale: float, back: Any) -> Piece:
    corners = np.asarray(piece.corners) / scale
    return Piece(piece.text, piece.confidence, as_corners(corners if back is None else corners @ back[:, :2].T + back[:, 2]))


def _stands(picture: Picture, deadline: Deadline) -> int | None:
    """Degrees clockwise that turn the page upright, by Tesseract's own detection; None when it cannot tell."""
    if "osd" not in packs():
        return None
    deadline.check()
    try:
        told = pytesseract.image_to_osd(_legible(picture)[0], timeout=max(deadline.left, 0.1), output_type=pytesseract.Output.DICT)
    except RuntimeError as error:
        if str(error) == _TIMED_OUT:
            raise TooLate from None
        return None  # too few characters
    return int(told["rotate"])


def engine_for(_: Settings) -> Engine:
    """The engine as the settings want it."""
    return Tesseract()
