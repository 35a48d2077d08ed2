"""How many containers to keep ready: as many as are asked for while one is made, and as came at once lately."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

MEMORY_S = 60.0  # a burst this long ago counts a third
SMOOTH = 0.3  # weight of the newest making
LEAST = 1


@dataclass
class Demand:
    """Arrivals and the time that making takes, as averages that forget."""

    most: int
    make_s: float = 0.5
    clock: Callable[[], float] = time.monotonic
    _rate: float = 0.0  # arrivals a second
    _burst: float = 0.0  # arrivals within one making
    _last: float = 0.0
    _recent: deque[float] = field(default_factory=deque)

    def arrived(self) -> None:
        """Somebody took a container."""
        self._forget()
        now = self._last
        self._rate += 1 / MEMORY_S
        self._recent.append(now)
        while self._recent[0] < now - self.make_s:
            self._recent.popleft()
        self._burst = max(self._burst, float(len(self._recent)))

    def made(self, seconds: float) -> None:
        """A container was made in so many seconds."""
        self.make_s += SMOOTH * (seconds - self.make_s)

    def target(self) -> int:
        """How many to keep ready now."""
        self._forget()
        expected = max(self._burst, 2 * self._rate * self.make_s)
        return min(self.most, max(LEAST, math.ceil(expected - 0.35)))

    def _forget(self) -> None:
        now = self.clock()
        keep = math.exp(-(now - self._last) / MEMORY_S)
        self._rate, self._burst, self._last = self._rate * keep, self._burst * keep, now
