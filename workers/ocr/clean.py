"""A picture made easier to read: even light, full contrast, less grain, larger letters; for a second look at a poor one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.ocr.pieces import Picture

LEGIBLE = 1_000  # pixels of width that a receipt's letters want
ENLARGED = 2.0
GRAIN = 9.0  # standard deviation of what a small median takes away, above which the picture is smoothed


def cleaned(picture: Picture) -> tuple[Picture, float]:
    """The picture, cleaned; and by how much it was enlarged."""
    scale = min(max(1.0, LEGIBLE / picture.shape[1]), ENLARGED)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey = _smooth(grey)
    if scale > 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return cv2.cvtColor(_even(grey), cv2.COLOR_GRAY2RGB), scale


def _smooth(grey: NDArray[Any]) -> NDArray[Any]:
    """Without grain, if it has any."""
    grain = float(np.std(grey.astype(np.int16) - cv2.medianBlur(grey, 3)))
    if grain < GRAIN:
        return grey
    return cv2.fastNlMeansDenoising(grey, None, h=min(3 * grain, 40.0), templateWindowSize=5, searchWindowSize=11)


def _even(grey: NDArray[Any]) -> NDArray[Any]:
    """On a white ground, with black letters: divided by the light of the paper, and stretched."""
    size = max(15, min(grey.shape) // 12) | 1
    small = cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) if min(grey.shape) > 200 else grey
    ground = cv2.dilate(small, np.ones((5, 5), np.uint8))
    ground = cv2.GaussianBlur(ground, (0, 0), size / 8)
    light = cv2.resize(ground, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    even = grey.astype(np.float32) / np.maximum(light, 1.0)
    dark, bright = np.percentile(even[::3, ::3], (1, 70))
    stretched: NDArray[Any] = np.clip((even - dark) / max(float(bright - dark), 0.05) * 255, 0, 255)
    return stretched.astype(np.uint8)
