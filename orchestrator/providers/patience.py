"""How long one request to a small model may take, and how often it is tried: the server's own pauses, within one deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.errors import ModelError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # between tries, where the server gives no hint

T = TypeVar("T")


@dataclass
class Patience:
    """What is left of one request: until when (`time.monotonic`), and how many tries more."""

    end: float
    tries: int

    @property
    def left_s(self) -> float:
        """Seconds; less than 0 when the time is over."""
        return self.end - time.monotonic()

    def retried(self, ask: Callable[[], T]) -> T:
        """The answer of the first try that has one.

        Raises:
            ModelError: of the last try.
        """
        wait = FIRST_WAIT_S
        while True:
            try:
                return ask()
            except ModelError as error:
                pause = error.retry_after_s if error.retry_after_s is not None else wait * random.uniform(0.75, 1)
                if not error.retryable or self.tries < 1 or pause >= self.left_s:
                    raise
            self.tries -= 1
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT_S)
