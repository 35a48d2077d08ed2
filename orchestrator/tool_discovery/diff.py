"""What became of tools between two looks at them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.models.catalog import Diff
from orchestrator.models.tool import ToolDefinition


def diff_of(before: Iterable[ToolDefinition], after: Iterable[ToolDefinition]) -> Diff:
    """What was added, changed and removed, by name, each in alphabetical order."""
    old, new = {t.name: t for t in before}, {t.name: t for t in after}
    return Diff(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(n for n in new.keys() & old.keys() if new[n] != old[n])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def changes(before: ToolDefinition, after: ToolDefinition) -> list[str]:
    """What its server says of a tool otherwise than before, in words; what our own configuration changed does not count."""
    old, new = _said(before), _said(after)
    return [what for what in old if _json(old[what]) != _json(new[what])]


def said_version(tool: ToolDefinition) -> str:
    """A hash (16 hex digits) of what its server says of a tool: what a person approves.

    Our own configuration, such as a time limit, is no part of it, nor is the order of keys.
    """
    return hashlib.sha256(_json(_said(tool)).encode()).hexdigest()[:16]


def _said(tool: ToolDefinition) -> dict[str, Any]:
    return {
        "name": tool.native_name,
        "description": tool.description,
        "input schema": tool.input_schema,
        "output schema": tool.output_schema,
        "hints": sorted(tool.tags),
    }


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))  # `True == 1` in Python, and not here
