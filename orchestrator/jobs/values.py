"""How values lie in the store: small ones inline, large ones beside the job under their SHA-256 (the claim check)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ToolError
from orchestrator.settings import MIB

INLINE, LARGE = b"j", b"b"


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it is written: `field` stands in the job's data; `large` (under `sha256`) only when it is not inline."""

    field: bytes
    sha256: str = ""
    large: bytes = b""


def encode(value: Any, *, inline_bytes: int, max_bytes: int) -> Stored:
    """The stored form of a JSON value.

    Raises:
        ToolError: it is no JSON value, or larger than `max_bytes`.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ToolError(
            f"the result is no JSON value: {error}", code="bad_output", next="return dicts, lists, strings, numbers"
        ) from None
    if len(text) > max_bytes:
        raise ToolError(
            f"the result is {len(text) / MIB:.1f} MiB; the limit `result_max_bytes` is {max_bytes / MIB:.0f} MiB",
            code="result_too_large",
            next="return a reference to a file instead",
        )
    if len(text) <= inline_bytes:
        return Stored(INLINE + text)
    digest = hashlib.sha256(text).hexdigest()
    return Stored(LARGE + json.dumps({"sha256": digest, "size": len(text)}).encode(), digest, text)


def large_reference(field: bytes) -> str | None:
    """The SHA-256 under which the value lies, or None when it stands inline."""
    return str(json.loads(field[1:])["sha256"]) if field[:1] == LARGE else None


def decode(field: bytes | None, large: Mapping[str, Any]) -> Any:
    """The value of a stored field; a missing one is None. `large` holds the values that are not inline, by SHA-256."""
    if field is None:
        return None
    digest = large_reference(field)
    return json.loads(field[1:]) if digest is None else large[digest]
