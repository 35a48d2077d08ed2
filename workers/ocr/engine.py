"""The one OCR engine of a process: loaded once, kept warm, never carried over a fork."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from rapidocr import RapidOCR

from workers.ocr.layout import Cell, lines
from workers.receipt import OcrResult

THREADS = 1  # a process's share: the pool has one process per core or so
SMALLEST, SLIMMEST = 32, 25  # pixels, and length over width: the detector cannot take less, or slimmer


@lru_cache(maxsize=1)
def engine() -> Any:
    """The warm engine; its models ship with `rapidocr`. Call it first after a fork: its threads do not survive one."""
    return RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Global.use_cls": False,  # it turns single lines upside down, which no receipt needs
            "Global.log_level": "error",
            "Rec.rec_batch_num": 2,  # the default of 6 takes some 60 MB more and no less time here
        }
    )


def read(image: Image.Image, *, source: str = "") -> OcrResult:
    """The text of an RGB image."""
    width, height = image.size
    least = max(SMALLEST, max(width, height) // SLIMMEST)
    if min(width, height) < least:
        padded = Image.new("RGB", (max(width, least), max(height, least)), "white")
        padded.paste(image)
        image = padded
    found = engine()(np.asarray(image)[:, :, ::-1])  # as BGR
    cells = [
        Cell(text, float(score), tuple((float(x), float(y)) for x, y in box))  # type: ignore[arg-type]  # four corners
        for box, text, score in zip(
            found.boxes if found.boxes is not None else (), found.txts or (), found.scores or (), strict=True
        )
    ]
    printed = lines(cells)
    return OcrResult(
        text="\n".join(line.text for line in printed),
        lines=printed,
        confidence=_mean(cells),
        width=width,
        height=height,
        source=source,
    )


def _mean(cells: list[Cell]) -> float:
    characters = sum(len(c.text) for c in cells)
    return round(sum(c.confidence * len(c.text) for c in cells) / characters, 4) if characters else 0.0
