"""Helpers that tests share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], *, description: str, timeout: float = 20.0, every: float = 0.02) -> T:
    """The first true value of `predicate`; fails by naming what never became true."""
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {description}; last value {value!r}")
        time.sleep(every)
