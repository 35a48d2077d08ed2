"""The figures of this process for tests, counted by a monitor instead of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.monitoring import ToolUsageMonitor
from orchestrator.monitoring import feed as room
from orchestrator.monitoring.metrics import Count


class _Local(ToolUsageMonitor):
    """A monitor that stands where a feed does."""

    def add(self, *counts: Count) -> None:
        self._tally.add(counts)

    def model_call(self, call: Any) -> None:
        self.log_model_call(call)


@contextmanager
def counted() -> Iterator[ToolUsageMonitor]:
    """What `orchestrator.monitoring.feed`'s functions count while the block runs."""
    before, made = list(room._own), _Local()
    room._own[:] = [made]  # type: ignore[list-item]
    try:
        yield made
    finally:
        room._own[:] = before
