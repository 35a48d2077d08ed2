"""The papers on a photograph: bright sheets on a darker table, cut out and straightened, but only when that is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.ocr.pieces import Picture

LOOK = 640  # pixels of the longer side in which sheets are looked for
SLIM = 64  # and of the shorter one below which there are none
SMALLEST, LARGEST = 0.08, 0.92  # of the picture, that a sheet may fill
FILLED = 0.93  # of its four-sided hull, that a sheet must fill: no shadow, no bite
TABLE = 0.97  # of the picture's edge that must show the table
DARKER = 45  # levels of grey between paper and table
SHADED = 0.45  # of the way from the table's grey to the paper's: what is brighter may be paper in the shade
CROOKED = 20.0  # degrees from which it is no sheet: a fold's shade or a shadow took a corner
SLANTED = 3.0  # degrees off a right angle from which a sheet is straightened
OUTSIDE = 0.01  # of the dark marks of the picture that may lie beside the sheets: what is cut away holds no text
RIM = 0.04  # of its longer side is kept around a sheet: a folded one bulges beyond its corners
MARK = 25  # levels of grey by which a mark is darker than what is around it

Quad = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Four corners from the top left clockwise, in pixels of the picture."""

    corners: Quad

    @property
    def left(self) -> float:
        return float(self.corners[:, 0].min())

    @property
    def right(self) -> float:
        return float(self.corners[:, 0].max())

    @property
    def slant(self) -> float:
        """The most that an angle differs from a right one, in degrees."""
        return max(abs(90.0 - _angle(self.corners, n)) for n in range(4))


def papers(picture: Picture) -> tuple[list[Picture], tuple[str, ...]]:
    """What is to be read one after the other, from the left, and notes on it: mostly the picture as it is."""
    sheets = _sheets(picture)
    if len(sheets) == 2 and sheets[0].right < sheets[1].left:
        note = "two papers lie side by side: the lines of the left one come first; boxes are those of both put beside each other"
        return [_straight(picture, s) for s in sheets], (note,)
    if len(sheets) == 1 and SLANTED < sheets[0].slant < CROOKED:
        return [_straight(picture, sheets[0])], (
            "the paper was seen aslant and straightened: boxes are those of the straight page",
        )
    return [picture], ()


def _sheets(picture: Picture) -> list[Sheet]:
    scale = min(1.0, LOOK / max(picture.shape[:2]))
    if min(picture.shape[:2]) * scale < SLIM:
        return []
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.GaussianBlur(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), (5, 5), 0)
    level, mask = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not _on_table(small, mask, level):
        return []
    paper, table = float(np.median(small[mask > 0])), float(np.median(small[mask == 0]))
    shaded = np.where(small > table + SHADED * (paper - table), 255, 0).astype(np.uint8)  # a fold's dark side is paper too
    masks = [shaded, mask] if _on_table(small, shaded, level) else [mask]
    found = next((q for m in masks if (q := _quads(small, m))), [])
    return sorted((Sheet(q / np.float32(scale)) for q in found), key=lambda s: s.left)


def _quads(small: NDArray[Any], mask: NDArray[Any]) -> list[Quad]:
    """The corners of the sheets that a mask shows; none if one of them is no clear sheet: then nothing is cut away."""
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [o for o in outlines if cv2.contourArea(o) > SMALLEST * small.size]
    quads = [q for o in large if (q := _quad(o, small.size)) is not None]
    return quads if len(quads) == len(large) and quads and _beside(small, quads) <= OUTSIDE else []


def _beside(grey: NDArray[Any], quads: Sequence[Quad]) -> float:
    """The share of the picture's marks that lie beside the sheets."""
    marks = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((9, 9), np.uint8)) > MARK
    inside = np.zeros_like(grey)
    cv2.fillPoly(inside, [q.astype(np.int32) for q in quads], 255)
    inside = cv2.dilate(inside, np.ones((9, 9), np.uint8))
    return float((marks & (inside == 0)).sum()) / max(1, int(marks.sum()))


def _on_table(grey: NDArray[Any], mask: NDArray[Any], level: float) -> bool:
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    paper, table = grey[mask > 0], grey[mask == 0]
    apart = len(paper) and len(table) and float(np.median(paper)) - float(np.median(table)) > DARKER
    return bool(apart and (edge == 0).mean() >= TABLE and level > 0)


def _quad(outline: NDArray[Any], size: int) -> Quad | None:
    hull = cv2.convexHull(outline)
    for share in (0.01, 0.02, 0.03, 0.05):
        corners = cv2.approxPolyDP(hull, share * cv2.arcLength(hull, True), True)
        if len(corners) == 4:
            break
    else:
        return None
    area = cv2.contourArea(corners)
    if not SMALLEST * size < area < LARGEST * size or cv2.contourArea(outline) < FILLED * area:
        return None
    return _ordered(corners.reshape(4, 2).astype(np.float32))


def _ordered(corners: Quad) -> Quad:
    """From the top left clockwise."""
    around = corners[np.argsort(np.arctan2(*(corners - corners.mean(axis=0)).T[::-1]))]
    return np.roll(around, -int(np.argmin(around.sum(axis=1))), axis=0)


def _angle(corners: Quad, n: int) -> float:
    one, other = corners[n - 1] - corners[n], corners[(n + 1) % 4] - corners[n]
    cosine = float(one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-6)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _straight(picture: Picture, sheet: Sheet) -> Picture:
    a, b, c, d = sheet.corners
    width = max(float(np.linalg.norm(b - a)), float(np.linalg.norm(c - d)))
    height = max(float(np.linalg.norm(d - a)), float(np.linalg.norm(c - b)))
    rim = RIM * max(width, height)
    target = np.array([[rim, rim], [rim + width, rim], [rim + width, rim + height], [rim, rim + height]], np.float32)
    matrix = cv2.getPerspectiveTransform(sheet.corners, target)
    size = (round(width + 2 * rim), round(height + 2 * rim))
    return cv2.warpPerspective(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
