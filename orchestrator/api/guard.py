"""What no request passes without: a host name of ours, no foreign page behind it, a key, a body of bearable size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.auth import always_keyed, check_scope, needed_scope
from orchestrator.api.hosts import Hosts
from orchestrator.api.problems import problem_response, store_away
from orchestrator.api.record import Record
from orchestrator.api.services import Services
from orchestrator.errors import LimitExceeded, RequestError, ToolWeaverError
from orchestrator.models.access import Caller
from orchestrator.models.access import Scope as KeyScope
from orchestrator.settings import MIB, Settings

MAX_BODY_BYTES = 2 * MIB
BODY_S = 30.0  # a body of that size takes longer only if somebody wants it to


class RequestTimeout(RequestError):
    """The body did not come in time."""

    code = "request_timeout"
    http_status = 408


class Guard:
    """ASGI middleware; the inner app sees whole bodies of at most `max_body` bytes, from callers that were let in."""

    def __init__(self, app: ASGIApp, *, settings: Settings, max_body: int = MAX_BODY_BYTES, body_s: float = BODY_S) -> None:
        self._app = app
        self._hosts = Hosts(settings)
        self._keyed = always_keyed(settings)
        self._max_body = max_body
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(scope, send)
        try:
            refusal, body = await self._pass(scope, receive, record)
            if refusal is not None:
                response = problem_response(refusal)
                response.headers["Connection"] = "close"  # whatever is left of the body is not read
                await response(scope, receive, record.send)
            else:
                await self._app(scope, _replay(body, receive), record.send)
        finally:
            await record.write()

    async def _pass(self, scope: Scope, receive: Receive, record: Record) -> tuple[ToolWeaverError | None, list[Message]]:
        headers = Headers(scope=scope)
        refusal = self._hosts.refusal(headers)
        if refusal is None:
            refusal = await self._let_in(scope, headers, record)
        if refusal is None and streams_its_body(scope):
            return None, []
        refusal = refusal or self._declared_too_large(headers)
        return await self._read(receive) if refusal is None else (refusal, [])

    async def _let_in(self, scope: Scope, headers: Headers, record: Record) -> ToolWeaverError | None:
        """Puts the caller into the request, before a byte of its body is read."""
        needed = needed_scope(scope["method"], scope["path"])
        if needed is None:
            scope["state"]["keyed"] = self._keyed
            return None
        services: Services = scope["app"].state.services
        address = (scope.get("client") or ("", 0))[0]
        try:
            if services.door.open_known():  # the usual case on one machine, without a thread
                caller = services.door.local(headers, address=address)
            else:
                caller = await run_in_threadpool(_admit, services, headers, address, needed, record)
        except ToolWeaverError as error:
            return error
        except RedisError as error:
            return store_away(error)
        record.caller = scope["state"]["caller"] = caller
        return None

    def _declared_too_large(self, headers: Headers) -> ToolWeaverError | None:
        declared = headers.get("content-length", "0")
        return self._too_large() if declared.isdigit() and int(declared) > self._max_body else None

    async def _read(self, receive: Receive) -> tuple[ToolWeaverError | None, list[Message]]:
        messages: list[Message] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_s):
                while True:
                    message = await receive()
                    messages.append(message)
                    size += len(message.get("body", b""))
                    if size > self._max_body:
                        return self._too_large(), []
                    if not message.get("more_body", False):
                        return None, messages
        except TimeoutError:
            return RequestTimeout(f"The body did not come within {self._body_s:g} s.", next="Send it faster, or a smaller one."), []

    def _too_large(self) -> LimitExceeded:
        limit = self._max_body / MIB
        return LimitExceeded(
            f"The body is larger than {limit:g} MiB.", path="$", next="Name large inputs by address instead of sending them along."
        )


def streams_its_body(scope: Scope) -> bool:
    """An upload goes into the blob store as it comes, under limits of its own."""
    path: str = scope["path"]
    return bool(scope["method"] == "POST") and (path == "/v1/files" or path.startswith("/v1/blobs/"))


def _admit(services: Services, headers: Headers, address: str, needed: KeyScope, record: Record) -> Caller:
    caller = services.door.admit(headers, address=address)
    record.caller = caller  # known from here on, refused or not
    check_scope(caller, needed)
    if needed != "worker":  # it serves all tenants, and none of them pays for it
        services.limits.take_request(caller)
    return caller


def _replay(messages: list[Message], receive: Receive) -> Receive:
    left: Iterator[Message] = iter(messages)

    async def again() -> Message:
        message = next(left, None)
        return message if message is not None else await receive()

    return again
