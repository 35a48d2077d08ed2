"""A local HTTP server that speaks the wire format of OpenAI's chat completions, for tests of providers.

Each request takes the next turn of a script; the last turn answers all that follow. `seen` keeps what was sent. It is our own and
not a packaged one, because the tests need what those do not do: truncated bodies, dripping bytes, wrong schemas, vendor errors
with their headers, redirects, and no Node beside Python.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Turn:
    """What is answered: `text` in a completion, else `body` as it stands."""

    text: str | None = None
    status: int = 200
    body: bytes | Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    usage: Body | None = None
    silent: bool = False  # takes the request, and answers nothing
    drips: bool = False  # sends one blank every 20 ms, for ever
    answer: Callable[[Body], str] | None = None  # the text, made from the request


def error(status: int, code: str | None = None, *, param: str | None = None, message: str = "no", **headers: str) -> Turn:
    """A refusal in OpenAI's format."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Turn(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@dataclass
class ChatServer:
    """The running server."""

    url: str
    turns: list[Turn]
    seen: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def next(self, body: Body, headers: Mapping[str, str]) -> Turn:
        """The turn for this request."""
        self.seen.append(body)
        self.headers.append(headers)
        return self.turns[min(len(self.seen), len(self.turns)) - 1]

    @property
    def forms(self) -> list[str]:
        """The forms of structured output that were asked for, one a request."""
        return [body.get("response_format", {}).get("type", "text") for body in self.seen]


def completion(turn: Turn, request: Body) -> Body:
    """A chat completion as the API writes it."""
    text = turn.answer(request) if turn.answer else turn.text
    message = {"role": "assistant", "content": text, "refusal": turn.refusal}
    made: Body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{request['model']}-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": turn.finish, "logprobs": None}],
    }
    return made | ({"usage": turn.usage} if turn.usage else {})


@contextmanager
def chat_server(turns: Sequence[Turn]) -> Iterator[ChatServer]:
    """The server, on a free port of loopback, for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            turn = made.next(request, {k.lower(): v for k, v in self.headers.items()})
            if turn.silent:
                made.stopping.wait(20)
                self.close_connection = True
                return
            body = turn.body if turn.body is not None else completion(turn, request)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(turn.status)
            self.send_header("Content-Type", "application/json")
            for name, value in turn.headers.items():
                self.send_header(name, value)
            if turn.drips:
                self._drip()
                return
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _drip(self) -> None:
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                while not made.stopping.wait(0.02):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = ChatServer(f"http://127.0.0.1:{server.server_port}/v1", list(turns))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stopping.set()
        server.shutdown()
        server.server_close()
