"""The blocking client: for scripts, notebooks and threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx
from pydantic import SecretStr

from orchestrator.client import calls
from orchestrator.client.access import Access
from orchestrator.client.files import Upload, listed, named, source_of
from orchestrator.client.handle import JobHandle
from orchestrator.client.plans import PlanSource
from orchestrator.client.transport import Transport, find_endpoint
from orchestrator.models.catalog import ServerState
from orchestrator.models.file import FileRef
from orchestrator.models.job import JobStatus, JobView, Priority, RequestMode
from orchestrator.models.plan import Plan, PlanView
from orchestrator.models.request import Health, PlanSummary
from orchestrator.models.search import FeedbackEntry, FeedbackPage, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.models.worker import WorkerInfo
from orchestrator.settings import Settings

PAGE = 100


class Client:
    """Talks to a platform: `Client().submit("receipts").result()`.

    The address is `url`, else TOOLWEAVER_URL, else the platform that runs in the home folder; the key is `api_key`, else
    TOOLWEAVER_API_KEY, else none. `timeout` is the seconds that one answer may take. Errors of the server are raised as
    the same classes (`orchestrator.errors`).

    Raises:
        BackendError: nothing says where the platform is.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | SecretStr | None = None,
        timeout: float = 30.0,
        settings: Settings | None = None,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(find_endpoint(url, settings, api_key), timeout=timeout, http=http)

    @property
    def access(self) -> Access:
        """Keys, permissions, audit: for admins."""
        return Access(self._transport)

    @property
    def url(self) -> str:
        """The address of the API."""
        return self._transport.address

    def submit(
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
    ) -> JobHandle:
        """The job of a plan, or of a request in words of which the platform makes the plan.

        `submit("process these receipts and tell me what we spent on food", files=["receipts/1.png"])`: a text with blanks is a
        request (so is `request`, also of one word). Anything else is a plan: a dict, a Plan, a `.json` file, or the name of a
        bundled plan. `files` (paths, bytes, open binary files, or what `upload` gave) are uploaded; the plan has them as the
        input `files`, a list of references.

        Of a request, `mode` says what is done with its plan: `run` it; `confirm`, it waits for `JobHandle.confirm`; `plan`, it is
        the job's output and nothing runs. `tools` names those that it may use.

        The same `idempotency_key` with the same request gives the same job for a day; one is made up when none is
        given, so that a request that is sent again after a cut makes no second job.

        Raises:
            PlanError: the plan has problems; all are in `.problems`, and nothing of it runs.
            NotFound: there is no plan, file or tool of that name.
            RequestError: there is neither a plan nor a request, or both.
            Conflict: the key was used for another request.
        """
        call = calls.submit(
            plan,
            request=request,
            inputs=inputs,
            files=[self._reference(file) for file in listed(files)],
            idempotency_key=idempotency_key,
            priority=priority,
            mode=mode,
            tools=tools,
        )
        return self.job(self._transport.send(call).id)

    def _reference(self, file: Upload | FileRef) -> str:
        return named(file) or self.upload(file).ref  # type: ignore[arg-type]  # what is not named is to be uploaded

    def job(self, id: str) -> JobHandle:
        """The handle of a job that was submitted before; whether it exists shows with its first use."""
        return JobHandle(id, self._transport)

    def jobs(
        self, *, status: JobStatus | str | None = None, name: str | None = None, limit: int | None = None
    ) -> Iterator[JobView]:
        """The jobs, newest first, of one status or of one named plan if asked; `limit` ends after so many."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self._transport.send(calls.jobs(status=status, name=name, limit=size, cursor=cursor))
            yield from page.jobs
            left = None if left is None else left - len(page.jobs)
            if (cursor := page.next_cursor) is None:
                return

    def check(self, plan: PlanSource, *, inputs: Mapping[str, Any] | None = None) -> PlanView:
        """The plan as the platform would run it, with its `warnings`; nothing runs.

        Raises:
            PlanError: it has problems; all are in `.problems`.
        """
        return self._transport.send(calls.check(plan, inputs=inputs))

    def plans(self) -> list[PlanSummary]:
        """The bundled plans."""
        return self._transport.send(calls.plans())

    def plan(self, name: str) -> Plan:
        """A bundled plan."""
        return self._transport.send(calls.named_plan(name))

    def tools(self) -> list[ToolDefinition]:
        """The tools that plans may use, by name."""
        return self._transport.send(calls.tools()).tools

    def tool(self, name: str) -> ToolDefinition:
        """One tool.

        Raises:
            NotFound: there is none of that name; `.next` names the nearest.
        """
        return self._transport.send(calls.tool(name))

    def search_tools(self, request: SearchRequest | str) -> SearchAnswer:
        """The tools that fit a query best, of those that you may use: names, scores, reasons.

        Raises:
            BackendError: no index service answers.
        """
        return self._transport.send(calls.search_tools(calls.searching(request)))

    def tell_use(self, query: str, used: Sequence[str], *, ok: bool = True) -> FeedbackEntry:
        """Tells which tools were used for a query, and whether they did what was wanted: the next similar query finds them."""
        return self._transport.send(calls.tell_use(calls.use_of(query, used, ok=ok)))

    def told_uses(self, *, limit: int = 100) -> FeedbackPage:
        """What was told, newest first."""
        return self._transport.send(calls.told_uses(limit=limit))

    def untell_use(self, id: str) -> FeedbackEntry:
        """Takes back what was told.

        Raises:
            NotFound: nothing of that id was told.
        """
        return self._transport.send(calls.untell_use(id))

    def submit_tool(
        self, name: str, input: Mapping[str, Any], *, idempotency_key: str | None = None, priority: Priority = "interactive"
    ) -> JobHandle:
        """The job of one call of a tool."""
        return self.job(self._transport.send(calls.run_tool(name, input, idempotency_key=idempotency_key, priority=priority)).id)

    def run_tool(self, name: str, input: Mapping[str, Any], *, timeout: float | None = None) -> Any:
        """What one call of a tool gives.

        Raises:
            PlanError: the input does not fit the tool.
            JobFailed: the tool failed.
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return self.submit_tool(name, input).result(timeout)

    def upload(self, file: Upload, *, name: str | None = None, media_type: str | None = None) -> FileRef:
        """Stores a file: a path, bytes, or an open binary file. Pass `ref` of the answer where a plan takes a file.

        It is kept for a day, and as long as any job that names it. Without `media_type` the name says what it is.

        Raises:
            NotFound: there is no file at the path.
            LimitExceeded: it is larger than the platform takes.
            StoreFull: the platform has no room left.
        """
        return self._transport.send(calls.upload(source_of(file, name=name, media_type=media_type)))

    def download(self, ref: str | FileRef, to: str | os.PathLike[str] | BinaryIO) -> Path | None:
        """Fetches a file into a path, a folder (under its own name), or an open binary file; where it is.

        It is checked against its hash, and a half file never lies at the path.

        Raises:
            NotFound: you have no such file.
        """
        return self._transport.fetch(ref.ref if isinstance(ref, FileRef) else ref, to)

    def files(self, *, limit: int | None = None) -> Iterator[FileRef]:
        """Your files, newest first: uploaded ones, and those that tools made."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = self._transport.send(calls.files(limit=PAGE if left is None else min(PAGE, left), cursor=cursor))
            yield from page.files
            left = None if left is None else left - len(page.files)
            if (cursor := page.next_cursor) is None:
                return

    def remove_file(self, ref: str | FileRef) -> bool:
        """Removes a file: at once (True), or with the last kept job that names it.

        Raises:
            NotFound: you have no such file.
        """
        return self._transport.send(calls.remove_file(ref.ref if isinstance(ref, FileRef) else ref))

    def workers(self) -> list[WorkerInfo]:
        """The workers that are alive."""
        return self._transport.send(calls.workers())

    def servers(self) -> list[ServerState]:
        """The MCP servers and APIs whose tools there are, and how they do; an admin sees all of it."""
        return self._transport.send(calls.servers())

    def former_tools(self, server: str) -> list[ToolDefinition]:
        """The versions of a server's quarantined tools that were served before; for admins."""
        return self._transport.send(calls.former_tools(server))

    def health(self) -> Health:
        """Whether the platform can serve, and what is missing if not."""
        return self._transport.send(calls.health())

    def close(self) -> None:
        """Gives the connections back."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
