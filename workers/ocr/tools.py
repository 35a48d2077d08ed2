"""The tools of the pool `ocr`: the text of an image."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from orchestrator.errors import ToolError
from orchestrator.settings import Settings
from workers.ocr.decode import decode
from workers.ocr.engines import Ask, read_image, read_pages
from workers.ocr.images import DATA, load_document, short
from workers.ocr.pieces import Deadline, Orientation
from workers.receipt import OcrResult

TIMEOUT_S = 120.0
LEFT_S = 5.0  # of the tool's time, for what follows the reading


def warm_up() -> None:
    """Loads the models and reads one image, so that the first call is as fast as the next."""
    try:
        read_image(decode((DATA / "notice.png").read_bytes(), "notice.png"))
    except ToolError:
        return  # each call will say why


@tool(
    pool="ocr",
    effect="none",
    domain="receipts",
    timeout_s=TIMEOUT_S,
    requires=("filesystem:read", "network:http", "network:https"),
    examples=[
        {"scenario": "A receipt on the web", "input": {"image_url": "https://example.com/receipts/2026-03-14.jpg"}},
        {
            "scenario": "A file in an allowed folder, in Spanish, that lies on its side",
            "input": {"image_url": "./receipts/restaurant_2026_01_15.jpg", "language": "es", "orientation": "90"},
            "notes": "`auto` finds out how a picture stands; name the orientation only if it is always the same.",
        },
        {"scenario": "A receipt that ships with ToolWeaver", "input": {"image_uri": "bundled:grocery"}},
    ],
)
def receipt_ocr(
    image_url: str | None = None,
    image_uri: str | None = None,
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2}([-_][A-Za-z0-9]+)*$")] = "en",
    orientation: Orientation = "auto",
    *,
    context: ToolContext,
) -> OcrResult:
    """Reads the text of a picture or PDF, such as a photographed receipt, line by line.

    An image without readable text gives an empty text. Give `image_url` or `image_uri`, which are the same.

    Args:
        image_url: `https://...`, `file:///...` or a path in an allowed folder, `blob:sha256:...` of an uploaded file,
            `data:image/png;base64,...` or `bundled:<name>`.
        image_uri: The same by its other name; exactly one of the two.
        language: Language of the text, by ISO 639-1, such as `en`, `de`, `es` or `fr`.
        orientation: Degrees clockwise by which to turn the picture so that it stands upright; `auto` finds out.
    """
    name, uri = _one_of(image_url, image_uri)
    try:
        settings = context.settings
        deadline = Deadline(_seconds(settings), context.check)  # fetching counts, or a slow server's picture is lost
        document = load_document(uri, settings, files=context.files)
        ask = Ask(settings, settings.ocr_engines, language=language, orientation=orientation, deadline=deadline)
        return read_pages(document.pages, ask, source=short(uri), notes=document.notes)
    except ToolError as error:
        error.path = name if error.path == "image_uri" else error.path
        raise


def _one_of(image_url: str | None, image_uri: str | None) -> tuple[str, str]:
    """The name and the value of the one that was given."""
    given = [(n, v) for n, v in (("image_url", image_url), ("image_uri", image_uri)) if v is not None]
    if len(given) != 1:
        raise ToolError(
            "both `image_url` and `image_uri` were given" if given else "neither `image_url` nor `image_uri` was given",
            code="bad_input",
            path="image_url",
            next="Give one of them: where the picture is.",
        )
    return given[0]


def _seconds(settings: Settings) -> float:
    return min(settings.ocr_deadline_s, TIMEOUT_S - LEFT_S)
