"""What every engine hands on: pieces of text with their corners, read from a picture before a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Corners = tuple[Point, Point, Point, Point]
Picture = NDArray[Any]
"""Height x width x 3, RGB."""
Orientation = Literal["auto", "0", "90", "180", "270"]
APART = 1.6  # heights of text between the columns of a line; words stand closer


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text: `corners` from the top left of its first character clockwise, in pixels of the picture."""

    text: str
    confidence: float
    corners: Corners


class TooLate(Exception):
    """The deadline passed."""


class Unable(Exception):
    """An engine cannot read: it is not installed, not set up, or failed; `next` is what the user can do about it."""

    def __init__(self, reason: str, *, next: str = "", retryable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.next, self.retryable = reason, next, retryable


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment that work may not pass; `check` is called between its parts, and stops it when the call was cancelled."""

    seconds: float
    cancelled: Callable[[], None] = field(default=lambda: None)
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until then; at least 0."""
        return max(0.0, self.began + self.seconds - time.monotonic())

    def check(self) -> None:
        """Lets work go on.

        Raises:
            TooLate: it is past.
        """
        self.cancelled()
        if self.left <= 0:
            raise TooLate


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine read: pieces in pixels of `picture`, which stands upright by `turned` degrees clockwise."""

    pieces: Sequence[Piece]
    picture: Picture
    turned: int = 0

    @property
    def characters(self) -> int:
        """How many were read."""
        return sum(len(p.text) for p in self.pieces)

    @property
    def confidence(self) -> float:
        """Mean over the characters, 0 to 1; 0 without text."""
        return self.evidence / self.characters if self.characters else 0.0

    @property
    def evidence(self) -> float:
        """Confidence times characters: what makes one reading of a picture better than another."""
        return sum(p.confidence * len(p.text) for p in self.pieces)


class Engine(Protocol):
    """Reads the text of a picture."""

    @property
    def name(self) -> str:
        """What the setting `ocr_engines` calls it."""

    @property
    def local(self) -> bool:
        """Whether a second reading costs nothing but time."""

    def read(self, picture: Picture, *, language: str, orientation: Orientation, deadline: Deadline) -> Reading:
        """The pieces of text, of the picture turned by `orientation`, or as it is found to stand.

        Raises:
            Unable: it cannot read now.
            TooLate: it was not done by then.
        """


def turn(picture: Picture, degrees: int) -> Picture:
    """The picture turned clockwise by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(picture, -(degrees // 90) % 4))


def as_corners(points: Any) -> Corners:
    """Four points of an array as plain numbers."""
    (a, b), (c, d), (e, f), (g, h) = ((float(x), float(y)) for x, y in points)
    return ((a, b), (c, d), (e, f), (g, h))


def joined(words: Sequence[Piece]) -> list[Piece]:
    """The words of one line from left to right; those that stand no further apart than words do are one piece."""
    pieces: list[Piece] = []
    for word in words:
        if pieces and _gap(pieces[-1], word) < APART:
            word = _join(pieces.pop(), word)
        pieces.append(word)
    return pieces


def _gap(left: Piece, right: Piece) -> float:
    """What lies between two pieces of a line, in heights of text."""
    height = max(_height(left), _height(right), 1.0)
    return float(np.hypot(*np.subtract(right.corners[0], left.corners[1]))) / height


def _height(piece: Piece) -> float:
    return float(np.hypot(*np.subtract(piece.corners[3], piece.corners[0])))


def _join(left: Piece, right: Piece) -> Piece:
    weight, more = len(left.text), len(right.text)
    confidence = (left.confidence * weight + right.confidence * more) / (weight + more)
    corners = (left.corners[0], right.corners[1], right.corners[2], left.corners[3])
    return Piece(f"{left.text} {right.text}", confidence, corners)
