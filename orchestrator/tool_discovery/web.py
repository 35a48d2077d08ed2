"""A server by HTTP: the SDK's streamable transport, over a client that bounds what comes back and remembers why a request failed.

The SDK answers a failed request with an error that says neither the status nor the cause, reads bodies of any length, and one
refused connection would end all other calls. Here a request that fails fails alone, with its reason in `troubles`.
"""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client

from orchestrator.tool_discovery.stdio import MAX_MESSAGE

REFUSED = frozenset({401, 403, 404, 405, 406, 415, 429})
"""Statuses by which a server says that it did nothing."""

_CONNECT_S = 10.0
_CONNECTIONS = 1_000


@dataclass(frozen=True)
class Trouble:
    """Why a request was not served; `sent`: whether the server may have begun with it."""

    reason: str
    sent: bool
    status: int | None = None
    fatal: bool = False  # the session is over


Note = Callable[[Any, Trouble], None]


def client(headers: Mapping[str, str], note: Note) -> httpx2.AsyncClient:
    """A client for one server. It follows no redirects of its own, and the SDK's part only those to the same origin."""
    pools = httpx2.AsyncHTTPTransport(verify=_trusted(), limits=httpx2.Limits(max_connections=_CONNECTIONS))
    return httpx2.AsyncClient(
        headers={**headers, "accept-encoding": "identity"},  # a small body that grows when it is unpacked has no bound
        timeout=httpx2.Timeout(_CONNECT_S, read=None),  # streams are silent for long; each request has its own deadline
        follow_redirects=False,
        transport=_Guarded(pools, note),
    )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom to trust, read once: each reading takes a tenth of a second, and nothing else runs meanwhile."""
    return httpx2.create_ssl_context()


def streams(url: str, http: httpx2.AsyncClient) -> AbstractAsyncContextManager[Any]:
    """The two streams of messages with the server at `url`."""
    return streamable_http_client(url, http_client=http, max_sse_event_size=MAX_MESSAGE)


class _Guarded(httpx2.AsyncBaseTransport):
    """Sends requests; a failure becomes an answer, and its reason a note."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, note: Note) -> None:
        self._inner, self._note = inner, note

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as e:
            unsent = isinstance(e, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
            self._trouble(request, Trouble(f"cannot be reached: {_said(e)}", sent=not unsent))
            return httpx2.Response(503, request=request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            self._trouble(request, Trouble("packs its answers, although it was asked not to", sent=True))
            return httpx2.Response(502, request=request)
        self._look_at(request, response)
        body = _Bounded(response, lambda trouble: self._trouble(request, trouble))
        return httpx2.Response(response.status_code, headers=response.headers, stream=body, extensions=response.extensions)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _look_at(self, request: httpx2.Request, response: httpx2.Response) -> None:
        status = response.status_code
        speaks = response.headers.get("content-type", "").startswith("application/json") and 400 <= status < 500
        over = status == 404 and MCP_SESSION_ID in request.headers
        if status >= 400 and (over or not speaks or status in (401, 403, 429)):
            reason = "has forgotten the session" if over else f"answered with HTTP status {status}"
            self._trouble(request, Trouble(reason, sent=status not in REFUSED, status=status, fatal=over))

    def _trouble(self, request: httpx2.Request, trouble: Trouble) -> None:
        if request.method == "POST":
            self._note(_id_of(request), trouble)


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends early, with a note, when it is too long or its connection breaks; a stream of events has no end."""

    def __init__(self, response: httpx2.Response, trouble: Callable[[Trouble], None]) -> None:
        self._response, self._trouble = response, trouble
        self._endless = response.headers.get("content-type", "").startswith("text/event-stream")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, httpx2.AsyncByteStream)
        size = 0
        try:
            async for chunk in self._response.stream:
                size += len(chunk)
                if size > MAX_MESSAGE and not self._endless:
                    reason = f"sent a message of more than {MAX_MESSAGE >> 20} MiB"
                    self._trouble(Trouble(reason, sent=True, fatal=True))
                    return
                yield chunk
        except httpx2.TransportError as e:
            self._trouble(Trouble(f"broke off its answer: {_said(e)}", sent=True))

    async def aclose(self) -> None:
        await self._response.aclose()


def _id_of(request: httpx2.Request) -> Any:
    try:
        message = json.loads(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return None
    return message.get("id") if isinstance(message, dict) else None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
