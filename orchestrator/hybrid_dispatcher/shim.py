"""`MCPClientShim`: tools called by name, and a map of them that shows what the pools announced.

A call takes one way, in this order: the idempotency key (the API gives a repeat the job of the first call), then, in the
worker, the circuit breaker, the map of the tools that it serves, and the tool itself under its retries and timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from difflib import get_close_matches
from types import TracebackType
from typing import Any, NoReturn, Self

from orchestrator.client.aio import AsyncClient
from orchestrator.errors import RequestError
from orchestrator.hybrid_dispatcher.single import on_platform, result_within
from orchestrator.models.tool import ToolDefinition

_READ_ONLY = (
    "`tool_map` shows the tools that the pools announced and cannot be written; register a tool with `@register_function`, "
    "or `@register_worker(definition)` for a function of the whole payload, in a module that a worker loads (`--tools`)"
)


class MappedTool:
    """A tool as an async function of its payload; `definition` says what it takes."""

    def __init__(self, definition: ToolDefinition, shim: MCPClientShim) -> None:
        self.definition = definition
        self._shim = shim
        self.__name__ = definition.name
        self.__doc__ = definition.description

    async def __call__(self, payload: Mapping[str, Any] | None = None) -> Any:
        """See `MCPClientShim.call_tool`; the tool's own `timeout_s` is the limit."""
        return await self._shim.call_tool(self.definition.name, payload, timeout=self.definition.timeout_s)

    def __repr__(self) -> str:
        return f"<tool {self.definition.name}>"


class ToolMap(Mapping[str, MappedTool]):
    """Tools by name, in the catalog's order. It cannot be written: tools are registered where they run."""

    def __init__(self, tools: Iterable[MappedTool] = ()) -> None:
        self._tools = {t.definition.name: t for t in tools}

    def __getitem__(self, name: str) -> MappedTool:
        try:
            return self._tools[name]
        except KeyError:
            near = get_close_matches(name, self._tools, n=1)
            raise KeyError(f"no pool announced a tool `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")) from None

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __setitem__(self, name: str, value: object) -> NoReturn:
        raise TypeError(_READ_ONLY)

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError(_READ_ONLY)

    def __repr__(self) -> str:
        return f"ToolMap({list(self._tools)})"


class MCPClientShim:
    """Calls tools of the platform in use, or of one started for this process.

        async with MCPClientShim() as shim:
            expenses = await shim.tool_map["get_expenses"]({"user_id": "alice", "quarter": "Q3"})

    Args:
        client: A client of the platform; it stays open. Default: one for each call.
    """

    def __init__(self, client: AsyncClient | None = None) -> None:
        self._client = client
        self._map: ToolMap | None = None

    @property
    def tool_map(self) -> ToolMap:
        """The tools as they were announced when the map was last read; `refresh` reads it again.

        The first look reads it, and holds up the thread meanwhile, where neither `async with` nor `refresh` did so before.

        Raises:
            RequestError: the shim was given a client, and the map was not read.
            BackendError: the platform does not answer or does not come up.
        """
        if self._map is None:
            if self._client is not None:
                raise RequestError(
                    "the tools were not read yet",
                    next="Write `async with MCPClientShim(client) as shim:`, or `await shim.refresh()`.",
                )
            with ThreadPoolExecutor(1) as thread:  # this thread may have a loop of its own that runs
                thread.submit(asyncio.run, self.refresh()).result()
        assert self._map is not None
        return self._map

    async def refresh(self) -> ToolMap:
        """Reads what is announced now.

        Raises:
            BackendError: the platform does not answer or does not come up.
        """
        async with self._platform() as client:
            self._map = ToolMap(MappedTool(t, self) for t in await client.tools())
        return self._map

    async def call_tool(
        self,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout: float = 30.0,
        idempotency_key: str | None = None,
    ) -> Any:
        """What a tool gives.

        Args:
            tool_name: A tool that a pool announced, or a function registered in this script.
            timeout: Seconds; afterwards the call is cancelled, or goes on if it has an idempotency key.
            idempotency_key: Calls with one key are one call, for a day: a repeat waits for the first and gets its result.

        Raises:
            NotFound: there is no such tool.
            RequestError: the tool does not take these parameters.
            Conflict: the key was used for another call.
            CircuitBreakerOpenError: what the tool needs failed again and again, and is not tried within `timeout`.
            JobFailed: the tool failed.
            ToolTimeout: it took longer than `timeout`.
            BackendError: the platform does not answer or does not come up.
        """
        async with self._platform(tool_name) as client:
            job = await client.submit_tool(tool_name, parameters or {}, idempotency_key=idempotency_key)
            return await result_within(job, tool_name, timeout, keep=idempotency_key is not None)

    @asynccontextmanager
    async def _platform(self, *names: str) -> AsyncIterator[AsyncClient]:
        if self._client is not None:
            yield self._client
            return
        async with on_platform(names) as client:
            yield client

    async def __aenter__(self) -> Self:
        await self.refresh()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing to give back: a given client is its owner's, others were closed after each call."""
