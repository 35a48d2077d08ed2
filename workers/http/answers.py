"""What an API answers, as a value or as an error of ours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import EffectUnknown, ToolError
from orchestrator.models.plan import Effect
from orchestrator.tool_discovery.site import read_within

MOST_TOLD = 1_000
_MOST_PROBLEM = 64 << 10
_TRY_LATER = frozenset({408, 425, 429, 503})
_NOT_SERVED = frozenset({429, 503})  # the API says that it did nothing
_NEVER = frozenset({501, 505})
_BETWEEN = frozenset({502, 504})  # said by what stands before the API: nobody knows what the API did


async def value_of(response: httpx.Response, context: ToolContext, *, most: int) -> Any:
    """The value of an answer that succeeded: JSON as it is, text as a text, everything else as a file of the job.

    Raises:
        ToolError: `too_large`; `bad_answer`: it is not the JSON that it claims to be.
    """
    if response.request.method in ("HEAD", "OPTIONS"):
        return {name: value for name, value in response.headers.items() if name != "set-cookie"}
    body = await read_within(response, most)
    if body is None:
        raise ToolError(
            f"the API did what it was asked to, and answered with more than {most >> 20} MiB",
            code="too_large", next="Ask for less, or raise TOOLWEAVER_FETCH_MAX_BYTES.",
        )  # fmt: skip
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        return _parsed(body)
    if (text := _text(body, kind, response)) is not None:
        return text
    save = partial(context.save_file, body, name=_name(response), media_type=kind or None)
    ref = await asyncio.to_thread(save)
    family = kind.partition("/")[0]
    return {"type": family if family in ("image", "audio", "video") else "file", "file": ref, "media_type": kind or None}


async def error_of(response: httpx.Response, *, name: str, effect: Effect, secrets: frozenset[str]) -> ToolError:
    """An answer that did not succeed, as the ledger hears of it."""
    status = response.status_code
    body = await read_within(response, _MOST_PROBLEM)
    problem = without(_problem(body or b"", response), secrets)
    said = f"`{name}` answered {status} {response.reason_phrase}".rstrip() + (f": {problem}" if problem else "")
    if effect == "once" and status in _BETWEEN:
        return EffectUnknown(
            f"{said}; its effect may have happened", next="Find out, then `toolweaver resolve` with `--happened` or `--retry`."
        )
    move = "Check the headers of its entry in the servers file." if status in (401, 403) else None
    later = retry_after(response.headers)
    return ToolError(said, code="http_error", retryable=_retryable(status, effect), retry_after_s=later, next=move)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds after which the API wants to be asked again."""
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(min(int(said), 86_400))
    try:
        return min(max(0.0, parsedate_to_datetime(said).timestamp() - time.time()), 86_400.0) if said else None
    except ValueError:
        return None


def without(text: str, secrets: frozenset[str]) -> str:
    """The text without what nobody may read."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _retryable(status: int, effect: Effect) -> bool:
    if status < 500 or status in _NOT_SERVED:
        return status in _TRY_LATER and (effect != "once" or status in _NOT_SERVED)
    return effect != "once" and status not in _NEVER


def _problem(body: bytes, response: httpx.Response) -> str:
    """What the API says is wrong, as short as it says it."""
    text = body.decode("utf-8", "replace").strip()
    if "html" in response.headers.get("content-type", ""):
        return ""
    try:
        told = json.loads(text)
    except ValueError:
        return _cut(text)
    if isinstance(told, Mapping):
        first = (told.get(key) for key in ("detail", "message", "error_description", "error", "title", "errors"))
        told = next((t for t in first if t), told)
        told = told.get("message", told) if isinstance(told, Mapping) else told
    return _cut(told if isinstance(told, str) else json.dumps(told, ensure_ascii=False))


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return text if len(text) <= MOST_TOLD else f"{text[: MOST_TOLD - 3]}..."


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ToolError(
            f"the API did what it was asked to, and answered with what is no JSON: {error}", code="bad_answer"
        ) from None


def _text(body: bytes, kind: str, response: httpx.Response) -> str | None:
    if not (kind.startswith("text/") or kind.endswith(("/xml", "+xml")) or not kind):
        return None
    try:
        return body.decode(response.charset_encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        return None if not kind else body.decode("utf-8", "replace")


def _name(response: httpx.Response) -> str:
    message = Message()
    message["content-disposition"] = response.headers.get("content-disposition", "")
    return (message.get_filename() or "").replace("\\", "/").rpartition("/")[2][:200]
