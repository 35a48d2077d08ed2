"""What no request passes without: a host name of this machine, no foreign web page behind it, a body of bearable size."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem_response
from orchestrator.errors import LimitExceeded, PolicyError, RequestError, ToolWeaverError
from orchestrator.models.access import Caller
from orchestrator.settings import MIB

MAX_BODY_BYTES = 2 * MIB


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class Guard:
    """ASGI middleware; the inner app sees whole bodies of at most `max_body` bytes."""

    def __init__(self, app: ASGIApp, *, max_body: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = _refusal(headers) or self._declared_too_large(headers)
        body: list[Message] = []
        if refusal is None:
            body, refusal = await self._read(receive)
        if refusal is not None:
            response = problem_response(refusal)
            response.headers["Connection"] = "close"  # whatever is left of the body is not read
            await response(scope, receive, send)
        else:
            scope.setdefault("state", {})["caller"] = Caller()  # whoever reaches this machine's loopback
            await self._app(scope, _replay(body, receive), send)

    def _declared_too_large(self, headers: Headers) -> ToolWeaverError | None:
        declared = headers.get("content-length", "0")
        return self._too_large() if declared.isdigit() and int(declared) > self._max_body else None

    async def _read(self, receive: Receive) -> tuple[list[Message], ToolWeaverError | None]:
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._max_body:
                return [], self._too_large()
            if not message.get("more_body", False):
                return messages, None

    def _too_large(self) -> LimitExceeded:
        limit = self._max_body / MIB
        return LimitExceeded(
            f"The body is larger than {limit:g} MiB.", path="$", next="Name large inputs by address instead of sending them along."
        )


def _refusal(headers: Headers) -> ToolWeaverError | None:
    """A page of a foreign site must not reach a service of this machine: neither by a name that it rebinds, nor by a form."""
    host = _host_of(f"//{headers.get('host', '')}")
    if not is_loopback(host):
        return RequestError(f"The host `{host}` is not served here.", path="Host", next="Use `127.0.0.1` or `localhost`.")
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_host_of(origin)):
        return PolicyError(
            f"Pages of `{origin}` may not use this API.", path="Origin", next="Call it from a program or from its own pages."
        )
    return None


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _replay(messages: list[Message], receive: Receive) -> Receive:
    left: Iterator[Message] = iter(messages)

    async def again() -> Message:
        message = next(left, None)
        return message if message is not None else await receive()

    return again
