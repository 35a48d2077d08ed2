"""Waits for work no longer than it may take: a server that sends a byte now and then outlives every timeout of a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What the work returns, done in another thread; that thread is left to the connection's own timeouts when it is late.

    Raises:
        TimeoutError: it is not done by then.
    """
    made: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            made.set_result(context.run(work))
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, name="within", daemon=True).start()
    return made.result(seconds)
