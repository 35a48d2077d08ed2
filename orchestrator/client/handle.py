"""A job that was submitted: watch it, wait for it, stop it, go on with it. One handle for scripts, one for event loops."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar, overload

from orchestrator.client import calls
from orchestrator.client.files import placed
from orchestrator.client.outcome import outcome
from orchestrator.client.transport import AsyncTransport, Transport
from orchestrator.errors import JobFailed
from orchestrator.models.event import Event
from orchestrator.models.file import Artifact
from orchestrator.models.job import CallState, CallView, JobResult, JobView
from orchestrator.models.plan import Plan
from orchestrator.models.usage import Usage

T = TypeVar("T")
PAGE = 500
PLANNED = "job.planned"


def has_plan(view: JobView) -> bool:
    """Whether a job has its plan.

    Raises:
        JobFailed: it ended without one.
    """
    if view.request is None or view.planned is not None:
        return True
    if view.status.final:
        why = f": {view.error.message}" if view.error else ""
        raise JobFailed(f"{view.id} {view.status} before it had a plan{why}", next=view.error.next if view.error else None)
    return False


class JobHandle:
    """A job, by its id; it holds no state, so that any number of handles of one job may exist."""

    def __init__(self, id: str, transport: Transport) -> None:
        self.id = id
        self._transport = transport

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def view(self) -> JobView:
        """The job as it stands now."""
        return self._transport.send(calls.view(self.id))

    def plan(self) -> Plan:
        """The plan that it runs, as it was checked.

        Raises:
            Conflict: it is a request that was not planned yet (`code` is `no_plan_yet`).
        """
        return self._transport.send(calls.job_plan(self.id))

    def wait_plan(self, timeout: float | None = None) -> Plan:
        """The same, once a request has its plan.

        Raises:
            JobFailed: no plan came.
            TimeoutError: there is none within `timeout` seconds.
        """
        while not has_plan(view := self.view()):
            for event in self.events(view.cursor, timeout=timeout):
                if event.type == PLANNED or event.final:
                    break
        return self.plan()

    def confirm(self) -> JobView:
        """Lets the plan of a request run that was submitted with `mode="confirm"`; confirming twice is once.

        Raises:
            Conflict: there is no plan yet, or the job waits for nothing.
        """
        return self._transport.send(calls.confirm(self.id))

    def usage(self) -> Usage:
        """The calls of models that a request cost so far: their tokens, and dollars where the price is known."""
        return self.view().usage or Usage()

    def details(self) -> JobResult:
        """Everything that came out so far, by step, with the errors; partial while the job runs."""
        return self._transport.send(calls.result(self.id))

    def events(self, after: str | None = None, *, timeout: float | None = None) -> Iterator[Event]:
        """The job's events up to its last, each once; a lost connection is taken up again where it broke.

        `after` is the `id` of the last event that is known already.

        Raises:
            TimeoutError: the job has not ended within `timeout` seconds.
            BackendError: the platform did not answer for a minute.
        """
        return self._transport.follow(self.id, after=after, timeout=timeout)

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def wait(self, timeout: float | None = None) -> JobResult:
        """What came out, once the job has ended, however it did.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        while not (view := self.view()).status.final:  # a second round only if somebody retried it just now
            for _ in self.events(view.cursor, timeout=timeout):
                pass
        return self.details()

    @overload
    def result(self, timeout: float | None = None, as_: None = None) -> Any: ...
    @overload
    def result(self, timeout: float | None = None, *, as_: type[T]) -> T: ...
    def result(self, timeout: float | None = None, as_: Any = None) -> Any:
        """The plan's output, as the type `as_` (a pydantic model, a dataclass, `list[int]`) when one is given.

        Raises:
            JobFailed: the job failed; `.result` is the JobResult with what was done. JobCancelled likewise.
            TimeoutError: it has not ended within `timeout` seconds.
            pydantic.ValidationError: the output does not fit `as_`.
        """
        return outcome(self.wait(timeout), as_)

    def calls(self, *, step: str | None = None, state: CallState | str | None = None) -> Iterator[CallView]:
        """Its calls, in the order of steps and positions."""
        cursor: str | None = None
        while True:
            page = self._transport.send(calls.job_calls(self.id, step=step, state=state, limit=PAGE, cursor=cursor))
            yield from page.calls
            if (cursor := page.next_cursor) is None:
                return

    def artifacts(self) -> Iterator[Artifact]:
        """The files that its calls made, in the order of steps and positions."""
        cursor: str | None = None
        while True:
            page = self._transport.send(calls.job_artifacts(self.id, cursor=cursor))
            yield from page.artifacts
            if (cursor := page.next_cursor) is None:
                return

    def download(self, to: str | os.PathLike[str]) -> list[Path]:
        """Fetches the files that its calls made into a folder; where they are. Files of one name get their step's before it."""
        return [self._transport.fetch(file.ref, path) or path for file, path in placed(self.artifacts(), Path(to))]

    def cancel(self) -> JobView:
        """Cancels the job; cooperative calls stop.

        Raises:
            Conflict: it has ended otherwise.
        """
        return self._transport.send(calls.cancel(self.id))

    def retry(self) -> JobView:
        """Goes on with a job that failed or was cancelled, from what did not succeed.

        Raises:
            Conflict: it is no such job.
        """
        return self._transport.send(calls.retry(self.id))

    def resolve(self, call: str, *, happened: bool, result: Any = None) -> JobView:
        """Settles a call whose outcome is unknown: it happened (with this result), or it did not and is run again.

        Raises:
            Conflict: the call is not unknown.
        """
        return self._transport.send(calls.resolve(self.id, call, happened=happened, result=result))


class AsyncJobHandle:
    """The same for an event loop: `async for event in job`, `await job.result()`."""

    def __init__(self, id: str, transport: AsyncTransport) -> None:
        self.id = id
        self._transport = transport

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.id!r})"

    async def view(self) -> JobView:
        """See `JobHandle.view`."""
        return await self._transport.send(calls.view(self.id))

    async def plan(self) -> Plan:
        """See `JobHandle.plan`."""
        return await self._transport.send(calls.job_plan(self.id))

    async def wait_plan(self, timeout: float | None = None) -> Plan:
        """See `JobHandle.wait_plan`."""
        while not has_plan(view := await self.view()):
            async with aclosing(self._transport.follow(self.id, after=view.cursor, timeout=timeout)) as events:
                async for event in events:
                    if event.type == PLANNED or event.final:
                        break
        return await self.plan()

    async def confirm(self) -> JobView:
        """See `JobHandle.confirm`."""
        return await self._transport.send(calls.confirm(self.id))

    async def usage(self) -> Usage:
        """See `JobHandle.usage`."""
        return (await self.view()).usage or Usage()

    async def details(self) -> JobResult:
        """See `JobHandle.details`."""
        return await self._transport.send(calls.result(self.id))

    def events(self, after: str | None = None, *, timeout: float | None = None) -> AsyncIterator[Event]:
        """See `JobHandle.events`."""
        return self._transport.follow(self.id, after=after, timeout=timeout)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def wait(self, timeout: float | None = None) -> JobResult:
        """See `JobHandle.wait`."""
        while not (view := await self.view()).status.final:
            async with aclosing(self._transport.follow(self.id, after=view.cursor, timeout=timeout)) as events:
                async for _ in events:
                    pass
        return await self.details()

    @overload
    async def result(self, timeout: float | None = None, as_: None = None) -> Any: ...
    @overload
    async def result(self, timeout: float | None = None, *, as_: type[T]) -> T: ...
    async def result(self, timeout: float | None = None, as_: Any = None) -> Any:
        """See `JobHandle.result`."""
        return outcome(await self.wait(timeout), as_)

    async def calls(self, *, step: str | None = None, state: CallState | str | None = None) -> AsyncIterator[CallView]:
        """See `JobHandle.calls`."""
        cursor: str | None = None
        while True:
            page = await self._transport.send(calls.job_calls(self.id, step=step, state=state, limit=PAGE, cursor=cursor))
            for call in page.calls:
                yield call
            if (cursor := page.next_cursor) is None:
                return

    async def artifacts(self) -> AsyncIterator[Artifact]:
        """See `JobHandle.artifacts`."""
        cursor: str | None = None
        while True:
            page = await self._transport.send(calls.job_artifacts(self.id, cursor=cursor))
            for artifact in page.artifacts:
                yield artifact
            if (cursor := page.next_cursor) is None:
                return

    async def download(self, to: str | os.PathLike[str]) -> list[Path]:
        """See `JobHandle.download`."""
        made = [artifact async for artifact in self.artifacts()]
        return [await self._transport.fetch(file.ref, path) or path for file, path in placed(made, Path(to))]

    async def cancel(self) -> JobView:
        """See `JobHandle.cancel`."""
        return await self._transport.send(calls.cancel(self.id))

    async def retry(self) -> JobView:
        """See `JobHandle.retry`."""
        return await self._transport.send(calls.retry(self.id))

    async def resolve(self, call: str, *, happened: bool, result: Any = None) -> JobView:
        """See `JobHandle.resolve`."""
        return await self._transport.send(calls.resolve(self.id, call, happened=happened, result=result))
