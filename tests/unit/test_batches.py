"""Batches: nothing waits for a batch to fill, and what comes while one is worked off goes together."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.support import wait_until
from workers.batches import Batches


class Seen:
    """The batches that came; the first one waits for `go`."""

    def __init__(self, *, most: int = 128) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.of = Batches[int]("test", self._work, most=most)
        self.of.start()

    def _work(self, batch: Sequence[int]) -> None:
        self.batches.append(list(batch))
        self.go.wait(10)
        if 13 in batch:
            raise ValueError("13")


def test_one_goes_alone_and_those_that_came_meanwhile_together() -> None:
    seen = Seen()
    seen.of.put(0)
    wait_until(lambda: seen.batches == [[0]], description="the first goes at once")
    for n in range(1, 6):
        seen.of.put(n)
    seen.go.set()
    wait_until(lambda: seen.batches == [[0], [1, 2, 3, 4, 5]], description="the others go together")
    seen.of.stop(5)


def test_a_batch_has_a_limit_and_order_is_kept() -> None:
    seen = Seen(most=3)
    seen.of.put(0)
    wait_until(lambda: seen.batches, description="the first goes")
    for n in range(1, 8):
        seen.of.put(n)
    seen.go.set()
    seen.of.stop(5)
    assert seen.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_a_batch_that_fails_does_not_stop_the_next() -> None:
    seen = Seen()
    seen.go.set()
    seen.of.put(13)
    wait_until(lambda: seen.batches == [[13]], description="it came")
    seen.of.put(1)
    seen.of.stop(5)
    assert seen.batches == [[13], [1]]
