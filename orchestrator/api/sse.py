"""A job's events as server-sent events: resumable, with heartbeats, and ended cleanly when the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from orchestrator.errors import BackendError
from orchestrator.models.event import Event
from orchestrator.state.connection import STORE_AWAY

log = logging.getLogger(__name__)

HEARTBEAT_S = 15
CLOSING_GRACE_S = 1.0
LOOK_S = 1.0  # a stream ends so long after its key was revoked, and the second that answers are kept
RECONNECT_MS = 1_000  # told to browsers


class HeldStream(EventSourceResponse):
    """A stream that holds a place for exactly as long as it is served, however it ends."""

    place: AbstractContextManager[None] = nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.place:
            await super().__call__(scope, receive, send)


def event_stream(
    events: AsyncIterator[Event],
    *,
    for_s: float | None = None,
    place: AbstractContextManager[None] | None = None,
    still: Callable[[], bool] | None = None,
) -> EventSourceResponse:
    """The response that streams `events` to their end, for at most `for_s` seconds.

    It holds `place` while it is served, and ends when `still` (asked every second) is no longer true.
    """
    closing = anyio.Event()
    stream = HeldStream(
        _messages(events, closing=closing, for_s=for_s, still=still),
        ping=HEARTBEAT_S,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat", sep="\n"),
        sep="\n",
        shutdown_event=closing,
        shutdown_grace_period=CLOSING_GRACE_S,
    )
    stream.place = place or nullcontext()
    return stream


async def _messages(
    events: AsyncIterator[Event], *, closing: anyio.Event, for_s: float | None, still: Callable[[], bool] | None
) -> AsyncGenerator[ServerSentEvent, None]:
    source = cast(AsyncGenerator[Event, None], events)
    stop = asyncio.ensure_future(closing.wait())
    patience = _Patience(stop, for_s=for_s, still=still)
    following: asyncio.Future[Event | None] | None = None
    yield ServerSentEvent(comment="events follow", retry=RECONNECT_MS, sep="\n")  # the headers go out at once
    try:
        while True:
            following = asyncio.ensure_future(anext(source, None))
            event = following.result() if await patience.wait(following) else None
            if event is None:
                return
            yield ServerSentEvent(event.model_dump_json(), event=event.type, id=event.id, sep="\n")
    except (*STORE_AWAY, BackendError) as error:
        # The reader comes back with the id of its last event, and is told by a problem if the store is still away.
        log.warning("a stream of events ends early: %s", error, extra={"action": "stream_cut"})
    finally:
        stop.cancel()
        if following is not None and not following.done():
            following.cancel()  # ends the source, which gives up its place at the shared reader
        else:
            await source.aclose()


class _Patience:
    """Waits for the next event until the time is over, the server stops, or the reader may not read any more."""

    def __init__(self, stop: asyncio.Future[None], *, for_s: float | None, still: Callable[[], bool] | None) -> None:
        self._stop, self._still = stop, still
        self._time = asyncio.get_running_loop().time
        self._until = self._time() + for_s if for_s is not None else float("inf")
        self._look_at = self._time() + LOOK_S if still is not None else float("inf")

    async def wait(self, following: asyncio.Future[Event | None]) -> bool:
        """Whether the event came."""
        while True:
            wake = min(self._until, self._look_at)
            timeout = max(0.0, wake - self._time()) if wake < float("inf") else None
            both: set[asyncio.Future[Any]] = {following, self._stop}
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._time() >= self._look_at and not await self._may_still():
                return False
            if following.done() or self._stop.done() or self._time() >= self._until:
                return following.done()

    async def _may_still(self) -> bool:
        self._look_at = self._time() + LOOK_S
        return self._still is None or await run_in_threadpool(self._still)
