"""Pieces back into printed lines: tilt and curl of the paper are taken out, then pieces of one height form a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.ocr.pieces import Piece, Point
from workers.ocr.tilt import WIDE, tilt_of, turn_points
from workers.receipt import OcrCell, OcrLine

STACKED = 2.2  # a piece taller than this many lines, and narrow, holds characters that stand one below the other
OFF = 0.55  # pieces of one line are at most so many heights off each other
COVERED = 0.4  # pieces that share so much of the narrower one's width are of two lines
SEEN = 6  # pieces whose slope can be trusted from which a curl is made out
TOUCHING = 0.35  # heights between two pieces of one cell


@dataclass(frozen=True)
class Cell:
    """A piece, and where it lies on the page once tilt and curl are out."""

    piece: Piece
    left: float
    right: float
    middle: float
    height: float
    box: tuple[int, int, int, int]  # levelled, but curled as the paper is


@dataclass(frozen=True, slots=True)
class Page:
    """The lines of a page from top to bottom, and the degrees by which it leaned clockwise."""

    lines: tuple[OcrLine, ...]
    skew: float


def page(pieces: Sequence[Piece], *, middle: Point = (0.0, 0.0), number: int = 1) -> Page:
    """The printed lines, each with its cells from left to right; boxes are those of the page levelled about `middle`."""
    kept = [p for p in pieces if p.text.strip()]
    if not kept:
        return Page((), 0.0)
    skew = tilt_of([p.corners for p in kept])
    cells = _cells(kept, skew, middle)
    pitch = median(c.height for c in cells)
    whole = [part for c in cells for part in _unstack(c, pitch)]
    rows = sorted(_rows(whole), key=lambda r: median(c.middle for c in r))
    return Page(tuple(_line(sorted(r, key=lambda c: c.left), number) for r in rows), skew)


def lines(pieces: Sequence[Piece]) -> tuple[OcrLine, ...]:
    """The printed lines of a page."""
    return page(pieces).lines


def _cells(pieces: Sequence[Piece], skew: float, middle: Point) -> list[Cell]:
    turned = turn_points(np.array([p.corners for p in pieces], np.float64).reshape(-1, 2), skew, middle).reshape(-1, 4, 2)
    flat = turned - np.stack([np.zeros(turned.shape[:2]), _curl(turned)], axis=2)
    return [_cell(*told) for told in zip(pieces, turned, flat, strict=True)]


def _cell(piece: Piece, turned: NDArray[Any], flat: NDArray[Any]) -> Cell:
    xs, ys = flat[:, 0], flat[:, 1]
    height = (ys[3] + ys[2] - ys[0] - ys[1]) / 2
    left, top, right, bottom = turned[:, 0].min(), turned[:, 1].min(), turned[:, 0].max(), turned[:, 1].max()
    box = (round(left), round(top), round(right), round(bottom))
    return Cell(piece, float(xs.min()), float(xs.max()), float(ys.mean()), max(float(height), 1.0), box)


def _curl(corners: NDArray[Any]) -> NDArray[Any]:
    """How far below a level line each corner lies, made out from how the slope of the lines changes over the page.

    A slope that is a polynomial in x and y is fitted to those of the wide pieces, and its integral along x is the curl:
    nothing is assumed but that the paper bends smoothly.
    """
    along = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    heights = (corners[:, 3, 1] + corners[:, 2, 1] - corners[:, 0, 1] - corners[:, 1, 1]) / 2
    wide = along[:, 0] > WIDE * np.maximum(heights, 1.0)
    if wide.sum() < SEEN:
        return np.zeros(corners.shape[:2])
    low, size = corners.reshape(-1, 2).min(axis=0), np.maximum(np.ptp(corners.reshape(-1, 2), axis=0), 1.0)
    middles = (corners[wide].mean(axis=1) - low) / size * 2 - 1
    slopes = along[wide, 1] / along[wide, 0]
    a = _fit(_powers(middles), slopes, along[wide, 0] / np.maximum(heights[wide], 1.0))
    places = (corners - low) / size * 2 - 1
    curl: NDArray[Any] = _integrals(places) @ a * size[0] / 2
    return curl


def _powers(at: NDArray[Any]) -> NDArray[Any]:
    x, y = at[..., 0], at[..., 1]
    return np.stack([np.ones_like(x), y, x, x * y, x * x], axis=-1)


def _integrals(at: NDArray[Any]) -> NDArray[Any]:
    """The integrals of `_powers` along x, from the middle of the page."""
    x, y = at[..., 0], at[..., 1]
    return np.stack([x, x * y, x * x / 2, x * x * y / 2, x**3 / 3], axis=-1)


def _fit(powers: NDArray[Any], slopes: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """A weighted fit that outliers do not bend, and that says little where little is known."""
    damp = np.diag([0.0, 0.5, 0.5, 1.0, 1.0])
    factor = weights.copy()
    for _ in range(4):
        told = powers * factor[:, None]
        a = np.linalg.solve(told.T @ powers + damp, told.T @ slopes)
        off = np.abs(powers @ a - slopes)
        factor = weights / np.maximum(off / max(float(np.median(off)), 1e-3), 1.0)
    return a


def _unstack(cell: Cell, pitch: float) -> list[Cell]:
    """A column of single digits is detected as one tall box; here its digits go back to their lines."""
    text = cell.piece.text.strip()
    if not (cell.height > STACKED * pitch and cell.right - cell.left < STACKED * pitch and text.isdigit() and len(text) > 1):
        return [cell]
    step = cell.height / len(text)
    top = cell.middle - cell.height / 2
    left, above, right, _ = cell.box
    return [
        replace(
            cell, piece=replace(cell.piece, text=digit), middle=top + step * (n + 0.5), height=min(step, pitch),
            box=(left, round(above + step * n), right, round(above + step * (n + 1))),
        )
        for n, digit in enumerate(text)
    ]  # fmt: skip


def _rows(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The pieces by line: the two that are least off each other are joined first, so that a line takes its own amount."""
    pairs = sorted((off, one, other) for one, other in _near(cells) if (off := _off(cells[one], cells[other])) < OFF)
    row_of = {n: [n] for n in range(len(cells))}
    for _, one, other in pairs:
        mine, theirs = row_of[one], row_of[other]
        if mine is not theirs and not any(_covers(cells[a], cells[b]) for a in mine for b in theirs):
            mine += theirs
            row_of |= dict.fromkeys(theirs, mine)
    return [[cells[n] for n in row] for row in {id(r): r for r in row_of.values()}.values()]


def _near(cells: Sequence[Cell]) -> list[tuple[int, int]]:
    """The pairs whose heights on the page overlap, so that they may be of one line."""
    order = sorted(range(len(cells)), key=lambda n: cells[n].middle)
    near: list[tuple[int, int]] = []
    for at, one in enumerate(order):
        for other in order[at + 1 :]:
            if cells[other].middle - cells[one].middle > OFF * cells[one].height:
                break  # however high the other is: the lower one of both counts
            near.append((one, other))
    return near


def _off(one: Cell, other: Cell) -> float:
    """How far two pieces are from being on one line, in heights of text; those far apart a little more."""
    if _covers(one, other):
        return 9.0
    height = min(one.height, other.height)
    gap = max(one.left - other.right, other.left - one.right, 0.0)
    return abs(one.middle - other.middle) / height + min(0.1, 0.002 * gap / height)


def _covers(one: Cell, other: Cell) -> bool:
    shared = min(one.right, other.right) - max(one.left, other.left)
    return shared > COVERED * min(one.right - one.left, other.right - other.left)


def _line(row: list[Cell], number: int) -> OcrLine:
    cells = [OcrCell(text=_text(c), confidence=_share(c.piece.confidence), box=c.box) for c in row]
    weight = [len(c.text) for c in cells]
    return OcrLine(
        text="  ".join(c.text for c in cells),
        confidence=_share(sum(c.confidence * w for c, w in zip(cells, weight, strict=True)) / sum(weight)),
        box=_hull([c.box for c in cells]),
        page=number,
        cells=tuple(cells),
    )


def _text(cell: Cell) -> str:
    return " ".join(cell.piece.text.split())


def _share(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)


def _hull(boxes: Sequence[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return (min(lefts), min(tops), max(rights), max(bottoms))
