"""How far a page is tilted, from the boxes of its lines; and the same page levelled."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.ocr.pieces import Corners, Picture

WIDE = 2.0  # boxes wider than this many heights tell the tilt
LOOK, SHARPER = 700, 1.15  # pixels of the longer side that show a lean; how much better than none it must be
SLIM = 9  # and of the shorter one that shows none
MOST = 30.0  # degrees: what leans further is no line of the page


def tilt_of(boxes: NDArray[Any] | Sequence[Corners]) -> float:
    """Degrees by which the page leans clockwise: the median over the wide boxes, a wide one counting for more."""
    if not len(boxes):
        return 0.0
    corners = np.asarray(boxes, np.float64)
    along = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    down = (corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1]) / 2
    widths, heights = np.linalg.norm(along, axis=1), np.maximum(np.linalg.norm(down, axis=1), 1.0)
    angles = np.degrees(np.arctan2(along[:, 1], along[:, 0]))
    telling = (widths > WIDE * heights) & (np.abs(angles) < MOST)
    return _middle(angles[telling], widths[telling]) if telling.any() else 0.0


def _middle(values: NDArray[Any], weights: NDArray[Any]) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.5)])


def turn_points(points: NDArray[Any], angle: float, middle: tuple[float, float]) -> NDArray[Any]:
    """The points where they are when a page that leans by `angle` degrees is levelled about `middle`."""
    c, s = cos(radians(angle)), sin(radians(angle))
    turned: NDArray[Any] = (points - middle) @ np.array([[c, -s], [s, c]]) + middle
    return turned


def level(picture: Picture, angle: float) -> tuple[Picture, NDArray[Any]]:
    """The picture levelled, enlarged so that nothing is lost; and the 2x3 matrix that leads back."""
    height, width = picture.shape[:2]
    c, s = abs(cos(radians(angle))), abs(sin(radians(angle)))
    size = (int(width * c + height * s), int(height * c + width * s))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    edge = [float(v) for v in np.median(picture.reshape(-1, 3)[:: max(1, picture.size // 30_000)], axis=0)]
    straight = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=edge)
    return straight, cv2.invertAffineTransform(matrix)


def lean_of(picture: Picture) -> float:
    """Degrees by which a page leans clockwise, to 15 either way, from its rows alone: levelled, they are dark or light."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, LOOK / max(grey.shape))
    if min(grey.shape) * scale < SLIM:
        return 0.0
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ink = cv2.morphologyEx(small, cv2.MORPH_BLACKHAT, np.ones((9, 9), np.uint8))
    rough = max(np.arange(-15.0, 15.1, 1.0), key=lambda a: _contrast(ink, float(a)))
    fine = max(np.arange(rough - 0.8, rough + 0.9, 0.2), key=lambda a: _contrast(ink, float(a)))
    return float(fine) if _contrast(ink, float(fine)) > SHARPER * _contrast(ink, 0.0) else 0.0


def _contrast(ink: NDArray[Any], angle: float) -> float:
    """How much neighbouring rows differ once the page is turned back by the angle."""
    height, width = ink.shape
    turned = cv2.warpAffine(ink, cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0), (width, height))
    return float(np.square(np.diff(turned.mean(axis=1))).sum())
