"""How values lie in the store: small ones inline, larger ones beside the job under their SHA-256, the largest in the blob store.

This is the claim check: messages carry ids, and Redis carries no value that is larger than `blob_bytes`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.errors import ToolError
from orchestrator.settings import MIB, Settings

INLINE, BESIDE, BLOB = b"j", b"b", b"f"


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it is written: `field` stands in the job's data, `large` beside it under `sha256`, `blob` in the blob store."""

    field: bytes
    sha256: str = ""
    large: bytes = b""
    blob: bytes = b""


class Elsewhere(NamedTuple):
    """Where a value lies that does not stand inline: beside the job, or (`in_blobs`) in the blob store."""

    sha256: str
    in_blobs: bool


def encode(value: Any, settings: Settings) -> Stored:
    """The stored form of a JSON value.

    Raises:
        ToolError: it is no JSON value, or larger than `result_max_bytes`.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ToolError(
            f"the result is no JSON value: {error}", code="bad_output", next="return dicts, lists, strings, numbers"
        ) from None
    if len(text) > settings.result_max_bytes:
        raise ToolError(
            f"the result is {len(text) / MIB:.1f} MiB; the limit `result_max_bytes` is {settings.result_max_bytes / MIB:.0f} MiB",
            code="result_too_large",
            next="save it with `context.save_file` and return the reference",
        )
    return stored(text, settings)


def stored(text: bytes, settings: Settings) -> Stored:
    """The stored form of a JSON text, by its size."""
    if len(text) <= settings.inline_bytes:
        return Stored(INLINE + text)
    digest = hashlib.sha256(text).hexdigest()
    where = json.dumps({"sha256": digest, "size": len(text)}).encode()
    if len(text) > settings.blob_bytes:
        return Stored(BLOB + where, blob=text)
    return Stored(BESIDE + where, digest, text)


def elsewhere(field: bytes) -> Elsewhere | None:
    """Where the value of a field lies, None when it stands inline."""
    return None if field[:1] == INLINE else Elsewhere(str(json.loads(field[1:])["sha256"]), field[:1] == BLOB)


def decode(field: bytes | None, large: Mapping[str, Any]) -> Any:
    """The value of a stored field; a missing one is None. `large` holds the values that are not inline, by SHA-256."""
    if field is None:
        return None
    where = elsewhere(field)
    return json.loads(field[1:]) if where is None else large[where.sha256]


class Kept:
    """Large values that a process has read, the latest ones: every call of a map may read the same list.

    Bounded by the size of their JSON texts. Safe to share between threads; the values are shared too, so nobody changes them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes = 0
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> tuple[bool, Any]:
        """Whether it is kept, and the value."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return False, None
            self._values.move_to_end(key)
            return True, found[0]

    def put(self, key: str, value: Any, size: int) -> None:
        """Keeps a value unless it alone is too large; older ones make room."""
        with self._lock:
            if size > self._most or key in self._values:
                return
            self._values[key] = value, size
            self._sizes += size
            while self._sizes > self._most:
                _, (_, gone) = self._values.popitem(last=False)
                self._sizes -= gone
