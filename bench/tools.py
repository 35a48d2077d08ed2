"""The tools that the benchmarks run: they do next to nothing."""

from __future__ import annotations

import asyncio
import time

from orchestrator.catalog.register import register_function


@register_function("bench_noop", effect="none")
def bench_noop() -> None:
    """Does nothing."""


@register_function("bench_list", effect="none")
def bench_list(n: int) -> list[int]:
    """A list of n numbers."""
    return list(range(n))


@register_function("bench_sleep", effect="none")
def bench_sleep(seconds: float = 0.01) -> None:
    """Takes its time."""
    time.sleep(seconds)


@register_function("bench_wait", effect="none")
async def bench_wait(seconds: float) -> float:
    """Waits on the loop."""
    await asyncio.sleep(seconds)
    return seconds
