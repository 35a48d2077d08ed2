"""Tools of the tests of files and large values."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from typing import Any

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import File, Lazy
from orchestrator.catalog.register import register_function


@register_function("grow", effect="none")
def grow(bytes: int, seed: int = 0) -> dict[str, Any]:
    """A value of so many bytes, other ones for every seed."""
    piece = os.urandom(512).hex()
    rows = [f"{seed:08d}{n:08d}{piece}" for n in range(bytes // 1040)]
    return {"rows": rows, "count": len(rows)}


@register_function("turn", effect="none")
def turn(value: dict[str, Any]) -> dict[str, Any]:
    """Takes the whole value and gives one of the same size."""
    return {"rows": value["rows"][1:] + value["rows"][:1], "count": value["count"]}


@register_function("measure", effect="none")
def measure(value: dict[str, Any]) -> dict[str, Any]:
    """A small value about a large one."""
    return {"rows": len(value["rows"]), "sha256": hashlib.sha256(json.dumps(value["rows"]).encode()).hexdigest()}


@register_function("length", effect="none")
def length(row: str) -> int:
    """Reads one element."""
    return len(row)


@register_function("peek", effect="none")
def peek(value: Lazy[dict[str, Any]], look: bool = False) -> dict[str, Any]:
    """Looks into the value only if it is told to; and how much memory this process took at most (KiB)."""
    rows = len(value.load()["rows"]) if look else None
    return {"rows": rows, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "pid": os.getpid()}


@register_function("shout", effect="none")
def shout(text: File, context: ToolContext) -> str:
    """A file in capital letters."""
    with text.open() as read:
        data = read.read().upper()
    return context.save_file(data, name=f"LOUD {text.name}")
