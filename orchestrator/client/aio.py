"""The asyncio client: the same calls as `Client`, awaited."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx
from pydantic import SecretStr

from orchestrator.client import calls
from orchestrator.client.access import AsyncAccess
from orchestrator.client.client import PAGE
from orchestrator.client.files import Upload, listed, named, source_of
from orchestrator.client.handle import AsyncJobHandle
from orchestrator.client.plans import PlanSource
from orchestrator.client.transport import AsyncTransport, find_endpoint
from orchestrator.models.catalog import ServerState
from orchestrator.models.file import FileRef
from orchestrator.models.job import JobStatus, JobView, Priority, RequestMode
from orchestrator.models.plan import Plan, PlanView
from orchestrator.models.request import Health, PlanSummary
from orchestrator.models.search import FeedbackEntry, FeedbackPage, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.models.worker import WorkerInfo
from orchestrator.settings import Settings


class AsyncClient:
    """Talks to a platform from an event loop; every method is that of `Client`, which says what it gives and raises."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | SecretStr | None = None,
        timeout: float = 30.0,
        settings: Settings | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport = AsyncTransport(find_endpoint(url, settings, api_key), timeout=timeout, http=http)

    @property
    def access(self) -> AsyncAccess:
        """See `Client.access`."""
        return AsyncAccess(self._transport)

    @property
    def url(self) -> str:
        """The address of the API."""
        return self._transport.address

    async def submit(
        self,
        plan: PlanSource | None = None,
        *,
        request: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        files: Iterable[Upload | FileRef] | Upload | FileRef = (),
        idempotency_key: str | None = None,
        priority: Priority = "normal",
        mode: RequestMode = "run",
        tools: Sequence[str] | None = None,
    ) -> AsyncJobHandle:
        """See `Client.submit`."""
        call = calls.submit(
            plan,
            request=request,
            inputs=inputs,
            files=[await self._reference(file) for file in listed(files)],
            idempotency_key=idempotency_key,
            priority=priority,
            mode=mode,
            tools=tools,
        )
        return self.job((await self._transport.send(call)).id)

    async def _reference(self, file: Upload | FileRef) -> str:
        return named(file) or (await self.upload(file)).ref  # type: ignore[arg-type]  # what is not named is to be uploaded

    def job(self, id: str) -> AsyncJobHandle:
        """See `Client.job`."""
        return AsyncJobHandle(id, self._transport)

    async def jobs(
        self, *, status: JobStatus | str | None = None, name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[JobView]:
        """See `Client.jobs`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self._transport.send(calls.jobs(status=status, name=name, limit=size, cursor=cursor))
            for job in page.jobs:
                yield job
            left = None if left is None else left - len(page.jobs)
            if (cursor := page.next_cursor) is None:
                return

    async def check(self, plan: PlanSource, *, inputs: Mapping[str, Any] | None = None) -> PlanView:
        """See `Client.check`."""
        return await self._transport.send(calls.check(plan, inputs=inputs))

    async def plans(self) -> list[PlanSummary]:
        """See `Client.plans`."""
        return await self._transport.send(calls.plans())

    async def plan(self, name: str) -> Plan:
        """See `Client.plan`."""
        return await self._transport.send(calls.named_plan(name))

    async def tools(self) -> list[ToolDefinition]:
        """See `Client.tools`."""
        return (await self._transport.send(calls.tools())).tools

    async def tool(self, name: str) -> ToolDefinition:
        """See `Client.tool`."""
        return await self._transport.send(calls.tool(name))

    async def search_tools(self, request: SearchRequest | str) -> SearchAnswer:
        """See `Client.search_tools`."""
        return await self._transport.send(calls.search_tools(calls.searching(request)))

    async def tell_use(self, query: str, used: Sequence[str], *, ok: bool = True) -> FeedbackEntry:
        """See `Client.tell_use`."""
        return await self._transport.send(calls.tell_use(calls.use_of(query, used, ok=ok)))

    async def told_uses(self, *, limit: int = 100) -> FeedbackPage:
        """See `Client.told_uses`."""
        return await self._transport.send(calls.told_uses(limit=limit))

    async def untell_use(self, id: str) -> FeedbackEntry:
        """See `Client.untell_use`."""
        return await self._transport.send(calls.untell_use(id))

    async def submit_tool(
        self, name: str, input: Mapping[str, Any], *, idempotency_key: str | None = None, priority: Priority = "interactive"
    ) -> AsyncJobHandle:
        """See `Client.submit_tool`."""
        call = calls.run_tool(name, input, idempotency_key=idempotency_key, priority=priority)
        return self.job((await self._transport.send(call)).id)

    async def run_tool(self, name: str, input: Mapping[str, Any], *, timeout: float | None = None) -> Any:
        """See `Client.run_tool`."""
        return await (await self.submit_tool(name, input)).result(timeout)

    async def upload(self, file: Upload, *, name: str | None = None, media_type: str | None = None) -> FileRef:
        """See `Client.upload`."""
        return await self._transport.send(calls.upload(source_of(file, name=name, media_type=media_type)))

    async def download(self, ref: str | FileRef, to: str | os.PathLike[str] | BinaryIO) -> Path | None:
        """See `Client.download`."""
        return await self._transport.fetch(ref.ref if isinstance(ref, FileRef) else ref, to)

    async def files(self, *, limit: int | None = None) -> AsyncIterator[FileRef]:
        """See `Client.files`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = await self._transport.send(calls.files(limit=PAGE if left is None else min(PAGE, left), cursor=cursor))
            for file in page.files:
                yield file
            left = None if left is None else left - len(page.files)
            if (cursor := page.next_cursor) is None:
                return

    async def remove_file(self, ref: str | FileRef) -> bool:
        """See `Client.remove_file`."""
        return await self._transport.send(calls.remove_file(ref.ref if isinstance(ref, FileRef) else ref))

    async def workers(self) -> list[WorkerInfo]:
        """See `Client.workers`."""
        return await self._transport.send(calls.workers())

    async def servers(self) -> list[ServerState]:
        """See `Client.servers`."""
        return await self._transport.send(calls.servers())

    async def former_tools(self, server: str) -> list[ToolDefinition]:
        """See `Client.former_tools`."""
        return await self._transport.send(calls.former_tools(server))

    async def health(self) -> Health:
        """See `Client.health`."""
        return await self._transport.send(calls.health())

    async def close(self) -> None:
        """Gives the connections back."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
