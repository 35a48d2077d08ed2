"""What became of tools between two looks at them."""

from __future__ import annotations

from collections.abc import Iterable

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
    pairs = {
        "description": (before.description, after.description),
        "input schema": (before.input_schema, after.input_schema),
        "output schema": (before.output_schema, after.output_schema),
        "hints": (sorted(before.tags), sorted(after.tags)),
    }
    return [said for said, (old, new) in pairs.items() if old != new]
