"""What a server answers, as one of our values: structured content, else text, else its blocks with their bytes in files."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import ToolError

MOST_TEXT = 2_048
MOST_BLOCKS = 1_000
PROGRESS_EVERY_S = 0.2

Block = Mapping[str, Any]
Save = Callable[[bytes, str, "str | None"], str]
"""Keeps bytes under a name and a media type, and gives the reference to return."""


class Answer(Protocol):
    """What a server says to a call (`orchestrator.tool_discovery.connect.CallResult`, which needs the extra `mcp`)."""

    @property
    def content(self) -> list[dict[str, Any]]: ...
    @property
    def structured(self) -> Any: ...
    @property
    def has_structured(self) -> bool: ...


def value_of(answer: Answer, *, save: Save) -> Any:
    """The value of a call that succeeded; what is no text is kept by `save`, which may take a while.

    Raises:
        ToolError: `bad_output`: bytes that are no base64, or more blocks than anybody reads.
    """
    if answer.has_structured:
        return answer.structured
    content = answer.content
    if len(content) == 1 and _is_plain_text(content[0]):
        return content[0]["text"]
    if len(content) > MOST_BLOCKS:
        raise ToolError(f"the server answered with {len(content):,} blocks, more than {MOST_BLOCKS:,}", code="bad_output")
    return {"content": [_block(block, save) for block in content]}


def has_files(answer: Answer) -> bool:
    """Whether `value_of` saves anything."""
    return not answer.has_structured and any(_bytes_of(block) is not None for block in answer.content)


def text_of(answer: Answer) -> str:
    """What an answer says in words, cut at 2 KiB: the message of a tool that failed."""
    words = "\n".join(_words(answer.content)).strip()
    return cut(words if words or not answer.has_structured else str(answer.structured))


def cut(text: str, most: int = MOST_TEXT) -> str:
    """A text of at most `most` bytes that can be written down: half a character becomes a question mark."""
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "..."


def _words(content: Sequence[Block]) -> Iterator[str]:
    for block in content:
        text = block.get("text") if block.get("type") == "text" else _inner(block).get("text")
        if isinstance(text, str):
            yield text


def _is_plain_text(block: Block) -> bool:
    return block.get("type") == "text" and isinstance(block.get("text"), str)


def _inner(block: Block) -> Block:
    inner = block.get("resource")
    return inner if isinstance(inner, Mapping) else {}


def _bytes_of(block: Block) -> Any:
    """The base64 text of an image, a sound or a resource."""
    return block.get("data") if block.get("type") in ("image", "audio") else _inner(block).get("blob")


def _block(block: Block, save: Save) -> dict[str, Any]:
    kind = str(block.get("type"))
    encoded = _bytes_of(block)
    if encoded is not None:
        return _saved(kind, block, encoded, save)
    if kind == "resource":
        inner = _inner(block)
        return {"type": "resource", **_named(inner), "text": inner.get("text", "")}
    if kind == "resource_link":
        return {"type": "resource_link", **_named(block)}
    if kind == "text":
        return {"type": "text", "text": str(block.get("text", ""))}
    return {k: v for k, v in block.items() if k not in ("_meta", "annotations")}


def _saved(kind: str, block: Block, encoded: Any, save: Save) -> dict[str, Any]:
    inner = _inner(block) if kind == "resource" else block
    media_type = inner.get("mimeType") if isinstance(inner.get("mimeType"), str) else None
    ref = save(_decoded(kind, encoded), _name(kind, inner, media_type), media_type)
    where = {"uri": inner["uri"]} if isinstance(inner.get("uri"), str) else {}
    return {"type": kind, "file": ref, "media_type": media_type or "application/octet-stream", **where}


def _decoded(kind: str, encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ToolError(f"the server answered with {kind} data that is no base64: {error}", code="bad_output") from None


def _name(kind: str, inner: Block, media_type: str | None) -> str:
    uri = inner.get("uri")
    last = uri.rstrip("/").rpartition("/")[2] if isinstance(uri, str) else ""
    return last or kind + (mimetypes.guess_extension(media_type or "") or "")


def _named(block: Block) -> dict[str, Any]:
    """What tells a resource from others, in our spelling."""
    said = {"uri": block.get("uri"), "name": block.get("name"), "title": block.get("title"), "media_type": block.get("mimeType")}
    return {key: value for key, value in said.items() if isinstance(value, str)}


@dataclass
class Throttle:
    """Lets five reports of progress a second through, and the one that says that all is done."""

    every_s: float = PROGRESS_EVERY_S
    clock: Callable[[], float] = time.monotonic
    _last: float = float("-inf")
    _finished: bool = False

    def lets(self, progress: float, total: float | None) -> bool:
        """Whether this report is passed on."""
        finished = total is not None and progress >= total
        now = self.clock()
        if now - self._last < self.every_s and (not finished or self._finished):
            return False
        self._last, self._finished = now, finished
        return True
