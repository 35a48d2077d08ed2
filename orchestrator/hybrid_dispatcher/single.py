"""One call of a tool from Python, outside of any plan: it is a job of one step, so it has limits, retries and an end like all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from importlib.metadata import entry_points
from typing import Any, cast

from orchestrator.client.aio import AsyncClient
from orchestrator.client.handle import AsyncJobHandle
from orchestrator.client.outcome import outcome
from orchestrator.errors import CircuitBreakerOpenError, JobFailed, NotFound, ToolTimeout
from orchestrator.models.event import Event
from orchestrator.models.job import JobResult

ANY_SERVER = ("default", "function")


async def call_tool(server: str, tool_name: str, parameters: Mapping[str, Any] | None = None, timeout: float = 30) -> Any:
    """What a tool gives, on the platform in use or on one started for this process.

    Args:
        server: The tool's domain, as in `tools.<domain>`; `default` and `function` stand for any.
        tool_name: A tool that a pool announced, or a function registered in this script.
        timeout: Seconds; afterwards the call is cancelled.

    Raises:
        NotFound: the server has no such tool.
        RequestError: the tool does not take these parameters.
        CircuitBreakerOpenError: what the tool needs failed again and again, and is not tried within `timeout`.
        JobFailed: the tool failed.
        ToolTimeout: it took longer than `timeout`.
        BackendError: the platform does not answer or does not come up.
    """
    async with on_platform([tool_name]) as client:
        tool = await client.tool(tool_name)
        if server not in (*ANY_SERVER, tool.domain):
            raise NotFound(f"Server `{server}` has no tool `{tool_name}`.", next=f"It belongs to `{tool.domain}`.")
        job = await client.submit_tool(tool_name, parameters or {})
        return await result_within(job, tool_name, timeout)


async def result_within(job: AsyncJobHandle, tool_name: str, timeout: float, *, keep: bool = False) -> Any:
    """What the one call of a job gives. A job that takes too long is cancelled, unless it is to be kept.

    Raises:
        CircuitBreakerOpenError, JobFailed, ToolTimeout: see `call_tool`.
    """
    try:
        async with asyncio.timeout(timeout) as limit:
            details = await _followed(job, until=limit.when())
    except (TimeoutError, CircuitBreakerOpenError) as error:
        if not keep:
            await job.cancel()
        if isinstance(error, CircuitBreakerOpenError):
            raise
        raise _too_long(tool_name, timeout, keep=keep) from None
    try:
        return outcome(details)
    except JobFailed as failed:
        first = details.errors[0] if details.errors else None
        if first is None or first.code != CircuitBreakerOpenError.code:
            raise
        raise CircuitBreakerOpenError(first.message, next=first.next) from failed


async def _followed(job: AsyncJobHandle, *, until: float | None) -> JobResult:
    async with aclosing(cast(AsyncGenerator[Event, None], job.events())) as events:
        async for event in events:
            left = until - asyncio.get_running_loop().time() if until is not None else math.inf
            if (error := _waits_for_a_circuit(event, left)) is not None:
                raise error
    return await job.details()


def _waits_for_a_circuit(event: Event, left: float) -> CircuitBreakerOpenError | None:
    """The error of a call that is tried again later than anybody waits for it, since a circuit is open."""
    error = event.data.get("error")
    if event.type != "call.waiting" or not isinstance(error, Mapping) or error.get("code") != CircuitBreakerOpenError.code:
        return None
    wait = event.data.get("retry_in_ms", 0) / 1000
    return CircuitBreakerOpenError(error.get("message"), retry_after_s=wait, next=error.get("next")) if wait > left else None


def _too_long(tool_name: str, timeout: float, *, keep: bool) -> ToolTimeout:
    if keep:
        return ToolTimeout(
            f"tool `{tool_name}` took longer than {timeout:g} s and goes on", next="Ask again with the same idempotency key."
        )
    return ToolTimeout(
        f"tool `{tool_name}` took longer than {timeout:g} s and was cancelled", next="Give it more time, or less to do."
    )


def on_platform(names: Sequence[str]) -> AbstractAsyncContextManager[AsyncClient]:
    """A client of the platform in use; those of the names that are functions of this script are served meanwhile.

    The way there is an entry point, since what starts a platform lies above this room.
    """
    found = {point.name: point for point in entry_points(group="toolweaver.inline")}
    made: AbstractAsyncContextManager[AsyncClient] = found["platform"].load()(found["own"].load()(names))
    return made
