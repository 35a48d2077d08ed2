"""Tools of the fault tests: each leaves a trace in Redis of every body that began."""

from __future__ import annotations

import os
import signal
import time

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import register_function
from orchestrator.state.connection import connect


def _trace(context: ToolContext, seconds: float) -> None:
    client = connect(context.settings)
    client.hincrby("test:bodies", f"{context.job_id}/{context.call}", 1)
    client.rpush(f"test:starts:{context.job_id}/{context.call}", f"{context.attempt} {time.time()}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        context.check()
        time.sleep(0.01)


@register_function("work", effect="none")
def work(context: ToolContext, seconds: float = 0.03) -> int:
    """Works for a while."""
    _trace(context, seconds)
    return context.attempt


@register_function("work_idempotent", effect="idempotent")
def work_idempotent(context: ToolContext, seconds: float = 0.03) -> int:
    """Works for a while; a repeat is harmless."""
    _trace(context, seconds)
    return context.attempt


@register_function("work_once", effect="once")
def work_once(context: ToolContext, seconds: float = 0.03) -> int:
    """Works for a while; a repeat would do harm."""
    _trace(context, seconds)
    return context.attempt


@register_function("kill_self", effect="none")
def kill_self(context: ToolContext, times: int = 1) -> int:
    """Takes its own process down, as the out-of-memory killer does, for the first attempts."""
    _trace(context, 0)
    if context.attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


@register_function("hang", effect="none")
def hang(seconds: float = 600) -> None:
    """Sleeps without looking at its context."""
    time.sleep(seconds)


@register_function("nap", effect="none")
async def nap(seconds: float = 0.01) -> float:
    """Sleeps on the loop."""
    import asyncio

    await asyncio.sleep(seconds)
    return seconds
