"""How a worker ends: it withdraws, takes no more calls, lets those that run go on for a while, then gives up.

What is cut off is not lost: its lease runs out and another worker takes it (a call with the effect `once` becomes
`unknown`, since nobody knows whether it happened).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from billiard.process import active_children

log = logging.getLogger(__name__)

ASKED = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """Stands before Celery's own handlers of the signals that ask for an end; a second one, or SIGQUIT, ends the worker at once."""

    def __init__(self, drain_s: float, *, withdraw: Callable[[], None]) -> None:
        self._drain_s, self._withdraw = drain_s, withdraw
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._asked = False

    def install(self) -> None:
        """Takes over from the handlers that are there; call it in the main thread."""
        for number in ASKED:
            before = signal.getsignal(number)
            assert callable(before), "Celery has installed its own"
            self._before[number] = before
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGQUIT, lambda *_: _end("SIGQUIT"))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            _end("a second signal")
        self._asked = True
        threading.Thread(target=self._watch, name="drain", daemon=True).start()
        self._before[number](number, frame)

    def _watch(self) -> None:
        self._withdraw()
        threading.Event().wait(self._drain_s)
        _end(f"calls still ran after {self._drain_s:g} s")


def _end(why: str) -> None:
    sys.stderr.write(f"the worker ends at once: {why}; what is cut off comes back by its lease\n")
    for child in active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
    os._exit(0)
