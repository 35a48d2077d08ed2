"""Found by a Python whose clock is wrong. libfaketime 0.9.10 breaks `time.sleep`, which asks for a time of the monotonic clock."""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]
