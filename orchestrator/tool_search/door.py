"""What no request of the index service passes without: no web page behind it, the key where one is set, a body of bearable size."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.errors import LimitExceeded, PolicyError, RequestError, ToolWeaverError, Unauthorized, to_problem
from orchestrator.settings import MIB, Settings

MAX_BODY_BYTES = MIB
OPEN = ("/health", "/ping")
MEDIA_TYPE = "application/problem+json"


class WrongType(RequestError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"
    http_status = 415


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_key(settings: Settings) -> None:
    """Refuses to serve others than this machine's users without a key.

    Raises:
        RequestError: `index_host` is beyond loopback and no `index_key` is set.
    """
    if settings.index_key is None and not settings.index_in_container and not is_loopback(settings.index_host):
        raise RequestError(
            f"Without a key the index service listens on loopback only, not on `{settings.index_host}`.",
            path="TOOLWEAVER_INDEX_KEY",
            next="Set TOOLWEAVER_INDEX_KEY, here and for the API and the planners; or leave TOOLWEAVER_INDEX_HOST at 127.0.0.1.",
        )


class Door:
    """ASGI middleware that answers with a problem what it does not let in."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        key = settings.index_key.get_secret_value() if settings.index_key else None
        self._key = _digest(key) if key is not None else None
        self._any_host = self._key is not None or settings.index_in_container

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(refusal)(scope, receive, send)

    def _refusal(self, request: Request) -> ToolWeaverError | None:
        if "origin" in request.headers:
            return PolicyError(
                "Web pages may not use the index service.", path="Origin", next="Use `POST /v1/tools/search` of the API."
            )
        if not self._any_host and not is_loopback(_host(request)):
            return PolicyError(
                "Without a key the index service is reached by a loopback address only.", path="Host", next="Use 127.0.0.1."
            )
        if self._key is not None and request.url.path not in OPEN and not self._has_key(request):
            return Unauthorized(
                "The index service needs its key.", next="Send `Authorization: Bearer <key>`; clients take TOOLWEAVER_INDEX_KEY."
            )
        return _wrong_type(request)

    def _has_key(self, request: Request) -> bool:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(_digest(text.strip()), self._key or b"")


async def body_of(request: Request) -> bytes:
    """The whole body.

    Raises:
        LimitExceeded: it is larger than 1 MiB.
    """
    declared = request.headers.get("content-length", "0")
    size, parts = int(declared) if declared.isdigit() else 0, list[bytes]()
    if size <= MAX_BODY_BYTES:
        size = 0
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > MAX_BODY_BYTES:
                break
    if size > MAX_BODY_BYTES:
        raise LimitExceeded(
            f"The body is larger than {MAX_BODY_BYTES // MIB} MiB.", path="$", next="Send fewer or shorter queries."
        )
    return b"".join(parts)


def problem_response(error: ToolWeaverError, *, status: int | None = None, code: str | None = None) -> Response:
    """The response of an error, as RFC 9457 has it."""
    problem = to_problem(error)
    problem |= {"status": status or problem["status"], "code": code or problem["code"]}
    headers = {"Retry-After": "1"} if problem["status"] in (425, 503) else {}
    return Response(json.dumps(problem), status_code=problem["status"], media_type=MEDIA_TYPE, headers=headers)


def _wrong_type(request: Request) -> ToolWeaverError | None:
    """A page's form can send other types without asking; JSON it cannot."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in ("POST", "PUT") and kind != "application/json":
        return WrongType("The body is not declared as JSON.", path="Content-Type", next="Send `Content-Type: application/json`.")
    return None


def _host(request: Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
