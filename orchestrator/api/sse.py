"""A job's events as server-sent events: resumable, with heartbeats, and ended cleanly when the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent

from orchestrator.api.problems import STORE_AWAY
from orchestrator.errors import BackendError
from orchestrator.models.event import Event

log = logging.getLogger(__name__)

HEARTBEAT_S = 15
CLOSING_GRACE_S = 1.0
RECONNECT_MS = 1_000  # told to browsers


def event_stream(events: AsyncIterator[Event], *, for_s: float | None = None) -> EventSourceResponse:
    """The response that streams `events` to their end, for at most `for_s` seconds."""
    closing = anyio.Event()
    return EventSourceResponse(
        _messages(events, closing=closing, for_s=for_s),
        ping=HEARTBEAT_S,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat", sep="\n"),
        sep="\n",
        shutdown_event=closing,
        shutdown_grace_period=CLOSING_GRACE_S,
    )


async def _messages(
    events: AsyncIterator[Event], *, closing: anyio.Event, for_s: float | None
) -> AsyncGenerator[ServerSentEvent, None]:
    source = cast(AsyncGenerator[Event, None], events)
    loop = asyncio.get_running_loop()
    until = loop.time() + for_s if for_s is not None else None
    stop = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[Event | None] | None = None
    yield ServerSentEvent(comment="events follow", retry=RECONNECT_MS, sep="\n")  # the headers go out at once
    try:
        while True:
            following = asyncio.ensure_future(anext(source, None))
            left = max(0.0, until - loop.time()) if until is not None else None
            await asyncio.wait({following, stop}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            event = following.result() if following.done() else None
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
