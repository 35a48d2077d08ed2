"""The tools of the pool `ocr`: the text of an image."""

from __future__ import annotations

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from workers.ocr.engine import read
from workers.ocr.images import DATA, decode, load_image, short
from workers.receipt import OcrResult


def warm_up() -> None:
    """Loads the models and reads one image, so that the first call is as fast as the next."""
    read(decode((DATA / "notice.png").read_bytes(), "notice.png"))


@tool(
    pool="ocr",
    effect="none",
    domain="receipts",
    timeout_s=120,
    requires=("filesystem:read", "network:http", "network:https"),
    examples=[
        {"scenario": "A receipt on the web", "input": {"image_uri": "https://example.com/receipts/2026-03-14.jpg"}},
        {"scenario": "A receipt that ships with ToolWeaver", "input": {"image_uri": "bundled:grocery"}},
    ],
)
def receipt_ocr(image_uri: str, context: ToolContext) -> OcrResult:
    """Reads the text of an image, such as a photographed receipt, line by line.

    An image without readable text gives an empty text.

    Args:
        image_uri: `blob:sha256:...` of an uploaded file, `https://...`, `file:///...` in an allowed folder,
            `data:image/png;base64,...` or `bundled:<name>`.
    """
    image = load_image(image_uri, context.settings, files=context.files)
    context.check()
    return read(image, source=short(image_uri))
