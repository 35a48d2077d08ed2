"""Detected boxes back into printed lines: the page's tilt is taken out, then boxes of one height form a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atan2, cos, sin
from statistics import median

from workers.receipt import OcrLine

Point = tuple[float, float]
STACKED = 2.2  # a box taller than this many lines, and narrow, holds characters that stand one below the other
WIDE = 2.0  # boxes wider than this many heights tell the tilt


@dataclass(frozen=True)
class Cell:
    """A box of text: where it is on the picture (`corners`) and, once the tilt is out, on the page."""

    text: str
    confidence: float
    corners: tuple[Point, Point, Point, Point]
    left: float = 0.0
    right: float = 0.0
    middle: float = 0.0
    height: float = 0.0


def lines(cells: Sequence[Cell]) -> tuple[OcrLine, ...]:
    """The printed lines from top to bottom, each with its cells from left to right."""
    kept = [c for c in cells if c.text.strip()]
    if not kept:
        return ()
    level = [_level(c, _tilt(kept)) for c in kept]
    pitch = median(c.height for c in level)
    whole = [part for c in level for part in _unstack(c, pitch)]
    rows: list[list[Cell]] = []
    for cell in sorted(whole, key=lambda c: c.middle):
        row = min(rows[-4:], key=lambda r: _distance(r, cell), default=None)
        if row is not None and _distance(row, cell) < 0.5:
            row.append(cell)
        else:
            rows.append([cell])
    rows.sort(key=lambda r: median(c.middle for c in r))
    return tuple(_line(sorted(r, key=lambda c: c.left)) for r in rows)


def _tilt(cells: Sequence[Cell]) -> float:
    """The page's angle in radians: the median over the wide boxes, which show it best."""
    angles = []
    for (x0, y0), (x1, y1), _, (_, below) in (c.corners for c in cells):
        if abs(x1 - x0) > WIDE * max(abs(below - y0), 1.0):
            angles.append(atan2(y1 - y0, x1 - x0))
    return median(angles) if angles else 0.0


def _level(cell: Cell, angle: float) -> Cell:
    turned = [(x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)) for x, y in cell.corners]
    xs, ys = [p[0] for p in turned], [p[1] for p in turned]
    height = (ys[3] + ys[2] - ys[0] - ys[1]) / 2
    return replace(cell, left=min(xs), right=max(xs), middle=sum(ys) / 4, height=max(height, 1.0))


def _unstack(cell: Cell, pitch: float) -> list[Cell]:
    """A column of single digits is detected as one tall box; here its digits go back to their lines."""
    text = cell.text.strip()
    if not (cell.height > STACKED * pitch and cell.right - cell.left < STACKED * pitch and text.isdigit() and len(text) > 1):
        return [cell]
    step = cell.height / len(text)
    top = cell.middle - cell.height / 2
    return [replace(cell, text=digit, middle=top + step * (n + 0.5), height=min(step, pitch)) for n, digit in enumerate(text)]


def _distance(row: list[Cell], cell: Cell) -> float:
    """How far a cell is off a line, in heights of text; what would cover a cell of the line is no part of it."""
    if any(min(c.right, cell.right) - max(c.left, cell.left) > 0.4 * min(c.right - c.left, cell.right - cell.left) for c in row):
        return 9.0
    nearest = min(row, key=lambda c: max(c.left - cell.right, cell.left - c.right))
    return abs(nearest.middle - cell.middle) / min(nearest.height, cell.height)


def _line(row: list[Cell]) -> OcrLine:
    weight = [len(c.text) for c in row]
    xs = [x for c in row for x, _ in c.corners]
    ys = [y for c in row for _, y in c.corners]
    return OcrLine(
        text="  ".join(" ".join(c.text.split()) for c in row),
        confidence=round(sum(c.confidence * w for c, w in zip(row, weight, strict=True)) / sum(weight), 4),
        box=(int(min(xs)), int(min(ys)), int(max(xs)), int(max(ys))),
    )
