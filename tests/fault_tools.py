"""Tools of the fault tests. Each notes in a database outside the platform that its body began, and what it did."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import register_function
from orchestrator.errors import ToolError
from tests.effects import Effects

_effects = Effects.of_process()


def _work(context: ToolContext, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        context.check()
        time.sleep(0.01)


@register_function("work", effect="none")
def work(context: ToolContext, seconds: float = 0.03) -> int:
    """Works for a while."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="none"):
        _work(context, seconds)
    return context.attempt


@register_function("work_idempotent", effect="idempotent")
def work_idempotent(context: ToolContext, seconds: float = 0.03) -> int:
    """Has its effect halfway, under the key of its call: a repeat is harmless."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="idempotent"):
        _work(context, seconds / 2)
        _effects.happens_by_key(context.idempotency_key, job=context.job_id, call=context.call, attempt=context.attempt)
        _work(context, seconds / 2)
    return context.attempt


@register_function("work_once", effect="once")
def work_once(context: ToolContext, seconds: float = 0.03) -> int:
    """Has its effect halfway: a repeat does harm, and shows."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="once"):
        _work(context, seconds / 2)
        _effects.happens(job=context.job_id, call=context.call, attempt=context.attempt)
        _work(context, seconds / 2)
    return context.attempt


async def _work_on_loop(context: ToolContext, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        context.check()
        await asyncio.sleep(0.01)


@register_function("work_async", effect="none")
async def work_async(context: ToolContext, seconds: float = 0.03) -> int:
    """Works for a while, on the loop of its pool."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="none"):
        await _work_on_loop(context, seconds)
    return context.attempt


@register_function("work_async_idempotent", effect="idempotent")
async def work_async_idempotent(context: ToolContext, seconds: float = 0.03) -> int:
    """Has its effect halfway, under the key of its call."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="idempotent"):
        await _work_on_loop(context, seconds / 2)
        _effects.happens_by_key(context.idempotency_key, job=context.job_id, call=context.call, attempt=context.attempt)
        await _work_on_loop(context, seconds / 2)
    return context.attempt


@register_function("work_async_once", effect="once")
async def work_async_once(context: ToolContext, seconds: float = 0.03) -> int:
    """Has its effect halfway: a repeat does harm, and shows."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="once"):
        await _work_on_loop(context, seconds / 2)
        _effects.happens(job=context.job_id, call=context.call, attempt=context.attempt)
        await _work_on_loop(context, seconds / 2)
    return context.attempt


@register_function("kill_self", effect="none")
def kill_self(context: ToolContext, times: int = 1) -> int:
    """Takes its own process down, as the out-of-memory killer does, for the first attempts."""
    with _effects.body(job=context.job_id, call=context.call, attempt=context.attempt, effect="none"):
        if context.attempt <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


@register_function("hang", effect="none")
def hang(seconds: float = 600) -> None:
    """Sleeps without looking at its context."""
    time.sleep(seconds)


@register_function("nap", effect="none", pool="function")
async def nap(seconds: float = 0.01) -> float:
    """Sleeps on the loop."""
    await asyncio.sleep(seconds)
    return seconds


@register_function("fails_at_first", effect="none")
def fails_at_first(context: ToolContext, times: int) -> int:
    """Fails for the first attempts, in a way that may pass."""
    if context.attempt <= times:
        raise ToolError("not yet", retryable=True)
    return context.attempt


@register_function("long_text", effect="none")
def long_text(kib: int) -> str:
    """Text that is too long to stand inline."""
    return os.urandom(512).hex() * kib


@register_function("measure", effect="none")
def measure(text: str) -> int:
    """How long a text is."""
    return len(text)


@register_function("reverse_file", effect="none", pool="far")
def reverse_file(context: ToolContext, file: str) -> str:
    """Reads a file of the tenant and keeps it backwards, as another one."""
    with context.open_file(file) as opened:
        return context.save_file(opened.read()[::-1], name="reversed.bin")
