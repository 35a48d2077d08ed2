"""Tools of the async pool's tests. What they saw they return, or leave in Redis under `test:<job>`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextvars import ContextVar
from functools import lru_cache

import redis
import redis.asyncio

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import register_function
from orchestrator.settings import load_settings
from orchestrator.state.connection import connect, connect_async

_at_once = [0, 0]  # now, at most
_whose: ContextVar[str] = ContextVar("whose", default="nobody")


@lru_cache
def shared() -> redis.asyncio.Redis:
    """One client for all calls of the process: it belongs to the loop on which it was first used."""
    return connect_async(load_settings())


@lru_cache
def _notes() -> redis.Redis:
    return connect(load_settings())


def note(context: ToolContext, what: str) -> None:
    _notes().rpush(f"test:{context.job_id}", f"{what} {context.attempt} {time.time()}")


@register_function("a_look", effect="none")
async def a_look(context: ToolContext, seconds: float = 0.3) -> dict[str, int | str]:
    """Waits on the loop, and tells where it ran and beside how many."""
    before = _whose.get()
    _whose.set(context.call)
    _at_once[0] += 1
    _at_once[1] = max(_at_once)
    await shared().incr(f"test:{context.job_id}:looks")
    await asyncio.sleep(seconds)
    most = _at_once[1]
    _at_once[0] -= 1
    return {"pid": os.getpid(), "loop": id(asyncio.get_running_loop()), "most": most, "before": before, "client": id(shared())}


@register_function("a_wait", effect="none")
async def a_wait(context: ToolContext, seconds: float = 60, value: str = "") -> dict[str, int | str]:
    """Waits, and notes when it began and when it was cancelled."""
    note(context, "began")
    context.log("waiting", seconds=seconds)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(context, "cancelled")
        raise
    return {"attempt": context.attempt, "value": value}


@register_function("a_text", effect="none")
async def a_text(size: int) -> str:
    """A text of so many letters."""
    return "x" * size


@register_function("a_length", effect="none")
async def a_length(texts: list[str]) -> int:
    """The length of texts together."""
    return sum(map(len, texts))


@register_function("a_fails", effect="none")
async def a_fails(context: ToolContext, how: str, times: int = 99) -> int:
    """Fails so many times."""
    if context.attempt <= times:
        if how == "exit":
            sys.exit(3)
        if how == "cancel":
            raise asyncio.CancelledError
        raise ValueError(how)
    return context.attempt


@register_function("a_stubborn", effect="none", pool="narrow")
async def a_stubborn(context: ToolContext) -> None:
    """Swallows its cancellation."""
    note(context, "began")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            note(context, "cancelled")


@register_function("a_narrow", effect="none", pool="narrow")
async def a_narrow(context: ToolContext, seconds: float = 0.2) -> int:
    """Tells beside how many it ran."""
    note(context, "began")
    _at_once[0] += 1
    _at_once[1] = max(_at_once)
    await asyncio.sleep(seconds)
    most = _at_once[1]
    _at_once[0] -= 1
    return most


@register_function("a_blocker", effect="none", timeout_s=0.5)
async def a_blocker(context: ToolContext) -> int:
    """Holds up the loop, the first time."""
    note(context, "began")
    if context.attempt == 1:
        time.sleep(60)  # noqa: ASYNC251 (what this tool is for)
    return context.attempt
