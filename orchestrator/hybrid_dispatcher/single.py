"""One call of a tool from Python, outside of any plan: it is a job of one step, so it has limits, retries and an end like all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from typing import Any

from orchestrator.client.aio import AsyncClient
from orchestrator.errors import NotFound, ToolTimeout

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
        JobFailed: the tool failed.
        ToolTimeout: it took longer than `timeout`.
        BackendError: the platform does not answer or does not come up.
    """
    async with on_platform([tool_name]) as client:
        tool = await client.tool(tool_name)
        if server not in (*ANY_SERVER, tool.domain):
            raise NotFound(f"Server `{server}` has no tool `{tool_name}`.", next=f"It belongs to `{tool.domain}`.")
        job = await client.submit_tool(tool_name, parameters or {})
        try:
            async with asyncio.timeout(timeout):
                return await job.result()
        except TimeoutError:
            await job.cancel()
            raise ToolTimeout(
                f"tool `{tool_name}` took longer than {timeout:g} s and was cancelled", next="Give it more time, or less to do."
            ) from None


def on_platform(names: Sequence[str]) -> AbstractAsyncContextManager[AsyncClient]:
    """A client of the platform in use; those of the names that are functions of this script are served meanwhile.

    The way there is an entry point, since what starts a platform lies above this room.
    """
    found = {point.name: point for point in entry_points(group="toolweaver.inline")}
    made: AbstractAsyncContextManager[AsyncClient] = found["platform"].load()(found["own"].load()(names))
    return made
