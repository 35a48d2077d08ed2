"""An HTTP server with canned answers: what the command line meets in place of a platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import ToolWeaverError, to_problem

NOW = "2026-01-01T00:00:00Z"


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    """A job's view on the wire."""
    return {"id": "job_1", "status": status, "created_at": NOW, "finished_at": None, "cursor": "1-0"} | more


def step(id: str, **more: Any) -> dict[str, Any]:
    """A step's view on the wire."""
    return {"id": id, "tool": f"{id}_tool", "queue": "function", "state": "pending", "done": 0} | more


def result(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    """A job's result on the wire."""
    return {"job_id": "job_1", "status": status} | more


def events(*types: str | tuple[str, dict[str, Any]]) -> str:
    """A stream of events; a tuple carries further fields."""
    text = ""
    for number, entry in enumerate(types, 2):
        name, more = (entry, {}) if isinstance(entry, str) else entry
        body = {"id": f"{number}-0", "type": name, "job_id": "job_1", "ts": NOW, "data": {}} | more
        text += f"event: {name}\nid: {number}-0\ndata: {json.dumps(body)}\n\n"
    return text


class FakePlatform:
    """Answers from a table `"GET /path"`: a JSON value, a stream (str), an error, or a list of them in turn."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, Any] | None, dict[str, str]]] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        self.seen.append((f"{method} {path}", json.loads(body) if body else None, headers))
        found = self.answers.get(f"{method} {urlsplit(path).path}")
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found is None:
            found = ToolWeaverError(f"the fake has no answer to {method} {path}")
        if isinstance(found, ToolWeaverError):
            return found.http_status, "application/problem+json", json.dumps(to_problem(found)).encode()
        if isinstance(found, str):
            return 200, "text/event-stream", found.encode()
        return 200, "application/json", json.dumps(found).encode()

    def sent(self, request: str) -> list[dict[str, Any] | None]:
        """The bodies that came with a request."""
        return [body for name, body, _ in self.seen if name == request]


@contextmanager
def fake_platform() -> Iterator[FakePlatform]:
    """A fake that listens on loopback as long as the block runs."""
    fake = FakePlatform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, kind, answer = fake.answer(self.command, self.path, body, dict(self.headers))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _serve

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
