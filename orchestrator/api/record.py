"""What the audit log says of a request: every change, every fetched file, every look at keys and rules, every refusal."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Scope, Send

from orchestrator.api.auth import HARMLESS_POSTS, METRICS_PATH, ROOMS, SAFE
from orchestrator.api.services import Services
from orchestrator.models.access import Caller

log = logging.getLogger(__name__)

VERDICTS: Mapping[int, str] = {
    400: "bad_request", 401: "unauthorized", 403: "denied", 404: "not_found", 405: "bad_request", 408: "timeout", 409: "conflict",
    413: "too_large", 415: "bad_request", 422: "invalid", 429: "limited",
}  # fmt: skip
_REFUSED = (401, 403, 404, 429)


class Record:
    """One request, watched through what is sent in answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.caller: Caller | None = None
        self._scope, self._send = scope, send
        self._status = 500  # unless an answer begins
        self._location = ""

    async def send(self, message: Message) -> None:
        """Sends on, and takes down the status and the address of what was made."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._location = dict(message.get("headers", ())).get(b"location", b"").decode("latin-1")
        await self._send(message)

    async def write(self) -> None:
        """Writes the entry, if the request is worth one."""
        if not self._worth():
            return
        services: Services = self._scope["app"].state.services
        address = (self._scope.get("client") or ("", 0))[0]
        verdict = "ok" if self._status < 400 else VERDICTS.get(self._status, "failed")
        await run_in_threadpool(
            services.audit.write,
            self.caller,
            self._action(),
            self._object(),
            verdict=verdict,
            status=self._status,
            address=address,
        )

    def _worth(self) -> bool:
        method, path = self._scope["method"], self._scope["path"]
        room, _, rest = path.removeprefix("/v1/").partition("/")
        local = self.caller is not None and not self.caller.limited
        if self._status < 400 and room == "blobs":
            return False  # a worker at work for somebody whose job is in the log
        if method not in SAFE:
            return path not in HARMLESS_POSTS or self._status in _REFUSED
        if room in ROOMS or (room == "files" and rest):
            return True
        return self._status in _REFUSED and not local and (path.startswith("/v1/") or path == METRICS_PATH)

    def _action(self) -> str:
        """Such as `jobs.cancel`: the room and the handler; the bare request where it met none."""
        endpoint = self._scope.get("endpoint")
        room = self._scope["path"].removeprefix("/v1/").partition("/")[0]
        name = getattr(endpoint, "__name__", "")
        return f"{room}.{name}" if name else f"{self._scope['method']} {self._scope['path'][:100]}"

    def _object(self) -> str:
        """What was made, else what the address names."""
        if self._location:
            return self._location.rpartition("/")[2]
        return " ".join(str(v) for v in (self._scope.get("path_params") or {}).values())
