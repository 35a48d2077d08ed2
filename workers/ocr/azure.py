"""Azure Computer Vision: the picture leaves this machine, so it is asked only when the setting names it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.models import ImageAnalysisResult, VisualFeatures
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from PIL import Image

from orchestrator.providers.in_time import within
from orchestrator.settings import Settings
from workers.ocr.languages import plain
from workers.ocr.pieces import Deadline, Engine, Orientation, Picture, Piece, Reading, TooLate, Unable, as_corners, joined, turn

LONGEST, SHORTEST = 16_000, 50  # pixels of a side that the service takes (Image Analysis 4.0: 50 to 16,000)
LARGEST = 20_000_000  # bytes that it takes
QUALITY = 92  # of the JPEG that is sent: a tenth of a PNG's bytes, and nothing that is read is lost
CONNECT_S, ANSWER_S, WAITED = 5.0, 30.0, 5.0  # seconds; the last: what it may ask us to wait before we try once more
_REACH = "Check TOOLWEAVER_AZURE_VISION_ENDPOINT and the network."
_MOVES = {401: "Check TOOLWEAVER_AZURE_VISION_KEY.", 403: "Check the key's rights and the resource's network rules."}


@dataclass(frozen=True, slots=True)
class AzureVision:
    """The `read` feature of Azure's Image Analysis 4.0."""

    settings: Settings
    name: str = "azure"
    local: bool = False

    def read(self, picture: Picture, *, language: str, orientation: Orientation, deadline: Deadline) -> Reading:
        """See `Engine.read`; the service finds by itself how a page stands, its first corners tell."""
        given = 0 if orientation == "auto" else int(orientation)
        upright = turn(picture, given)
        body, scale = _encoded(upright)
        pieces = _pieces(self._ask(body, plain(language), deadline), scale)
        more = _stands(pieces) if orientation == "auto" else 0
        if more:
            height, width = upright.shape[:2]
            pieces = [Piece(p.text, p.confidence, _turned(p, more, width, height)) for p in pieces]
        return Reading(pieces, turn(upright, more), (given + more) % 360)

    def _client(self, deadline: Deadline) -> ImageAnalysisClient:
        key = self._key()
        if self.settings.azure_vision_endpoint is None or not key:
            raise Unable(
                "it is not set up", next="Set TOOLWEAVER_AZURE_VISION_ENDPOINT and TOOLWEAVER_AZURE_VISION_KEY."
            )  # fmt: skip
        return ImageAnalysisClient(
            self.settings.azure_vision_endpoint.rstrip("/"),
            AzureKeyCredential(key),
            retry_total=0,  # the SDK would sleep for as long as the service asks, past any deadline
            connection_timeout=min(CONNECT_S, deadline.left), read_timeout=min(ANSWER_S, deadline.left),
            permit_redirects=False, logging_enable=False,
        )  # fmt: skip

    def _key(self) -> str:
        """The key without the line break that files of secrets end with; the SDK quotes one that no header can hold."""
        key = self.settings.azure_vision_key.get_secret_value().strip() if self.settings.azure_vision_key else ""
        if not (key.isascii() and key.isprintable()):
            raise Unable("its key holds characters that no key has", next="Check TOOLWEAVER_AZURE_VISION_KEY.")
        return key

    def _ask(self, body: bytes, language: str, deadline: Deadline) -> ImageAnalysisResult:
        try:
            return self._ask_once(body, language, deadline)
        except Busy as busy:
            if busy.after_s > min(WAITED, deadline.left):
                raise
            time.sleep(busy.after_s)
            return self._ask_once(body, language, deadline)

    def _ask_once(self, body: bytes, language: str, deadline: Deadline) -> ImageAnalysisResult:
        deadline.check()
        try:
            return within(min(CONNECT_S + ANSWER_S, deadline.left), partial(self._analysed, body, language, deadline))
        except TimeoutError:
            if deadline.left <= 0:
                raise TooLate from None
            raise Unable("does not answer in time", next=_REACH, retryable=True) from None
        except HttpResponseError as error:
            raise _refused(error) from None  # the cause holds the request, with the key among its headers
        except (ServiceRequestError, ServiceResponseError) as error:
            if deadline.left <= 0:
                raise TooLate from None
            what = "does not answer in time" if "timed out" in str(error).lower() else f"cannot be reached: {_reason(error)}"
            raise Unable(what, next=_REACH, retryable=True) from None
        except (AzureError, ValueError) as error:
            raise Unable(f"failed: {_reason(error)}", next="Check TOOLWEAVER_AZURE_VISION_ENDPOINT.") from None

    def _analysed(self, body: bytes, language: str, deadline: Deadline) -> ImageAnalysisResult:
        with self._client(deadline) as client:
            return client.analyze(image_data=body, visual_features=[VisualFeatures.READ], language=language)


class Busy(Unable):
    """The service refuses for a while; it may be asked again after so many seconds."""

    def __init__(self, reason: str, *, after_s: float) -> None:
        super().__init__(f"{reason}, and asks to wait {after_s:g} s", next="Try again later.", retryable=True)
        self.after_s = after_s


def _refused(error: HttpResponseError) -> Unable:
    status = error.status_code or 0
    told = f" ({error.error.code})" if error.error is not None and error.error.code else ""
    reason = f"answered {status} {error.reason or ''}".rstrip() + told
    if status in (408, 429) or status >= 500:
        return Busy(reason, after_s=_asked_to_wait(error))
    return Unable(reason, next=_MOVES.get(status, "See what the service says of it, or send another picture."))


def _asked_to_wait(error: HttpResponseError) -> float:
    """Seconds; a second when the service names none, or names them in a way of its own."""
    headers = getattr(error.response, "headers", {})
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return 1.0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _encoded(picture: Picture) -> tuple[bytes, float]:
    """The picture as a JPEG that the service takes, and the scale at which it shows the page."""
    height, width = picture.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    least = math.ceil(SHORTEST / scale)
    if min(height, width) < least:
        picture = cv2.copyMakeBorder(
            picture, 0, max(0, least - height), 0, max(0, least - width), cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
    if scale < 1.0:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    if out.tell() > LARGEST:
        raise Unable(f"the picture has more than {LARGEST:,} bytes", next="Send it at a lower resolution.")
    return out.getvalue(), scale


def _pieces(result: ImageAnalysisResult, scale: float) -> list[Piece]:
    lines = (line for block in (result.read.blocks if result.read else ()) for line in block.lines)
    return [piece for line in lines for piece in joined(list(_words(line, scale)))]


def _words(line: Any, scale: float) -> Iterator[Piece]:
    for word in line.words:
        if len(word.bounding_polygon) == 4:
            yield Piece(word.text, word.confidence, as_corners([(p.x / scale, p.y / scale) for p in word.bounding_polygon]))


def _stands(pieces: list[Piece]) -> int:
    """Degrees clockwise that turn the page upright: most characters' words run that way."""
    votes = {0: 0, 90: 0, 180: 0, 270: 0}
    for piece in pieces:
        (x, y), (right, low), _, _ = piece.corners
        along, down = right - x, low - y
        runs = (0 if along > 0 else 180) if abs(along) >= abs(down) else (90 if down > 0 else 270)
        votes[(360 - runs) % 360] += len(piece.text)
    return max(votes, key=lambda v: (votes[v], -v))


def _turned(piece: Piece, degrees: int, width: int, height: int) -> Any:
    """Its corners once the page was turned clockwise."""
    places = {90: lambda x, y: (height - y, x), 180: lambda x, y: (width - x, height - y), 270: lambda x, y: (y, width - x)}
    return as_corners([places[degrees](x, y) for x, y in piece.corners])


def engine_for(settings: Settings) -> Engine:
    """The engine as the settings want it."""
    return AzureVision(settings)
