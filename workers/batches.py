"""A thread that works off what came in since its last round: one thing at once when alone, many together under load."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Batches(Generic[T]):
    """Hands batches to `work`, in the order of arrival; nothing waits for a batch to fill."""

    def __init__(self, name: str, work: Callable[[Sequence[T]], None], *, most: int = 128) -> None:
        self._work, self._most = work, most
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: T) -> None:
        """Adds something to work off, from any thread."""
        self._queue.put(item)

    def stop(self, timeout_s: float) -> None:
        """Works off what came in before, then ends."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._next()
            try:
                if batch:
                    self._work(batch)
            except Exception:  # the next batch must not suffer for it
                log.exception("a batch failed", extra={"action": "batch_failed"})

    def _next(self) -> tuple[list[T], bool]:
        batch: list[T] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == self._most:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True
