"""A local HTTP server that answers as a vendor of large models does, by a script of turns, some of which get lost on the way.

Each request takes the next turn of the script, and the last turn answers all that follow; a script may also be a function of the
request. How a turn looks on the wire is a vendor's `Dialect` (`tests.wire.openai`, `.anthropic`, `.gemini`). No token is spent and
no network is met: usage and delays are those that the script says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

Body = dict[str, Any]
VendorName = Literal["openai", "openai-chat", "azure-openai", "anthropic", "gemini"]
Fault = Literal["garbage", "truncated", "drip", "silent", "refusal", "length"]
_DIALECTS: dict[str, tuple[str, str]] = {
    "openai": ("openai", "Responses"),
    "openai-chat": ("openai", "Chat"),
    "azure-openai": ("openai", "Azure"),
    "anthropic": ("anthropic", "Anthropic"),
    "gemini": ("gemini", "Gemini"),
}
KEY = "sk-wire-0123456789abcdef-secret"  # what every server's settings send; tests look for it where it must not be
MODEL = "wire-model"
_DRIP_S = 0.02
_LONGEST_SILENCE_S = 60.0


@dataclass(frozen=True)
class Turn:
    """One answer: `text`, or `value` as JSON text, and the `uses` of tools that the model asks for, as (name, arguments).

    `usage` is (input, output, cached): input includes the cached tokens, as OpenAI counts; a dialect translates. `written` tokens
    go to the prompt cache. With another `status` an error in the vendor's format, of the vendor's word `code`. Faults: `garbage` a
    body that is no JSON; `truncated` half an answer, then the connection ends; `drip` a byte that means nothing every 20 ms, for
    ever; `silent` the request is taken, never answered; `refusal` and `length` an answer that the model refused or was cut off in.
    """

    text: str | None = None
    value: Any = None
    uses: Sequence[tuple[str, Mapping[str, Any]]] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: tuple[int, int, int] = (100, 20, 0)
    written: int = 0
    delay_s: float = 0
    fault: Fault | None = None
    code: str | None = None
    message: str = "no"  # of an error

    @property
    def words(self) -> str:
        """The text of the answer; of one that was cut off, half of it."""
        whole = self.text if self.text is not None else "" if self.value is None else json.dumps(self.value)
        return whole[: len(whole) // 2] if self.fault == "length" else whole


Answer = Turn | str | Body
Script = Sequence[Answer] | Callable[[int, Body], Answer]


@dataclass(frozen=True)
class Asked:
    """A request that came: the `number`-th (from 1) of this server."""

    number: int
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in small letters
    body: Body


class Dialect(Protocol):
    """One vendor's wire format."""

    keepalive: bytes  # what a stream may send that means nothing

    def url(self, root: str) -> str:
        """The address that a client is given, made from `http://host:port`."""

    def settings(self, url: str) -> dict[str, Any]:
        """The settings that make the platform use the server at that address, with `KEY` and `MODEL`."""

    def refuses(self, asked: Asked) -> Turn | None:
        """An error (`Turn.status`) where the vendor would refuse what was asked: an address, a key or a body that is none."""

    def streams(self, asked: Asked) -> bool:
        """Whether the answer is asked for as a stream."""

    def answer(self, turn: Turn, asked: Asked) -> Body:
        """The whole answer."""

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        """The pieces of the streamed answer, each complete (an event with its blank line)."""

    def error(self, turn: Turn, asked: Asked) -> Body:
        """The body of a refusal with `turn.status`."""

    def headers(self, number: int) -> Mapping[str, str]:
        """What the answer to the `number`-th request carries, beside the headers of its turn."""


@dataclass
class WireServer:
    """The running server. `seen` are the parsed bodies in the order they came, `headers` and `paths` beside them."""

    dialect: Dialect
    script: Script
    root: str = ""
    seen: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """What `planner_url` is set to."""
        return self.dialect.url(self.root)

    def settings(self) -> dict[str, Any]:
        """Settings (as of `load_settings`) that make the platform use this server."""
        return self.dialect.settings(self.url)

    def environment(self) -> dict[str, str]:
        """The same as variables of a process."""
        return {f"TOOLWEAVER_{name.upper()}": str(value) for name, value in self.settings().items()}

    def take(self, path: str, headers: Mapping[str, str], body: Body) -> tuple[Asked, Turn]:
        """Records a request, and says what answers it."""
        parts = urlsplit(path)
        with self.lock:
            self.seen.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            asked = Asked(len(self.seen), parts.path, dict(parse_qsl(parts.query)), headers, body)
        return asked, self.dialect.refuses(asked) or self._scripted(asked)

    def _scripted(self, asked: Asked) -> Turn:
        if callable(self.script):
            return as_turn(self.script(asked.number, asked.body))
        return as_turn(self.script[min(asked.number, len(self.script)) - 1])


def as_turn(answer: Answer) -> Turn:
    """A text is one answered, a dict a JSON value."""
    if isinstance(answer, Turn):
        return answer
    return Turn(text=answer) if isinstance(answer, str) else Turn(value=answer)


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event, its data as JSON unless it is text."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode() if name else f"data: {text}\n\n".encode()


def pieces(text: str, size: int = 8) -> list[str]:
    """The text in pieces, as a model streams it."""
    return [text[at : at + size] for at in range(0, len(text), size)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wire: WireServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked, turn = self.wire.take(self.path, {k.lower(): v for k, v in self.headers.items()}, _parsed(raw))
        self.wire.stopping.wait(turn.delay_s) if turn.delay_s else None
        try:
            self._answer(asked, turn)
        except OSError:  # the client has gone
            self.close_connection = True

    def _answer(self, asked: Asked, turn: Turn) -> None:
        streams = turn.status == 200 and self.wire.dialect.streams(asked)
        if turn.fault == "silent":
            self.wire.stopping.wait(_LONGEST_SILENCE_S)
            self.close_connection = True
        elif turn.fault == "drip":
            self._drip(turn, asked, streams)
        elif streams:
            self._stream(turn, asked)
        else:
            self._whole(turn, asked)

    def _whole(self, turn: Turn, asked: Asked) -> None:
        dialect = self.wire.dialect
        raw = json.dumps(dialect.answer(turn, asked) if turn.status == 200 else dialect.error(turn, asked)).encode()
        if turn.fault == "garbage":
            raw = b"<html>this is no answer</html>"
        self._head(turn, asked, {"Content-Type": "application/json", "Content-Length": str(len(raw))})
        if turn.fault == "truncated":
            raw, self.close_connection = raw[: len(raw) // 2], True
        self.wfile.write(raw)

    def _stream(self, turn: Turn, asked: Asked) -> None:
        parts = list(self.wire.dialect.stream(turn, asked))
        if turn.fault == "garbage":
            parts = [b"data: {this is no answer\n\n"]
        cut = turn.fault == "truncated"
        self._head(turn, asked, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for part in parts[: len(parts) // 2] if cut else parts:
            self._chunk(part)
        if cut:
            self.close_connection = True
        else:
            self._chunk(b"")

    def _drip(self, turn: Turn, asked: Asked, streams: bool) -> None:
        kind, drop = ("text/event-stream", self.wire.dialect.keepalive) if streams else ("application/json", b" ")
        self._head(turn, asked, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
        while not self.wire.stopping.wait(_DRIP_S):
            self._chunk(drop)
        self.close_connection = True

    def _chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    def _head(self, turn: Turn, asked: Asked, headers: Mapping[str, str]) -> None:
        self.send_response(turn.status)
        for name, value in {**headers, **self.wire.dialect.headers(asked.number), **turn.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _parsed(raw: bytes) -> Body:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no failure of the test."""


@contextmanager
def wire_server(vendor: VendorName, turns: Script) -> Iterator[WireServer]:
    """The server, on a free port of loopback, for as long as the block runs.

    `turns`: a list of answers, or a function of (number of the request from 1, parsed body) that may be called by several threads.
    """
    module, name = _DIALECTS[vendor]
    made = WireServer(getattr(import_module(f"tests.wire.{module}"), name)(), turns)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"wire": made}))
    made.root = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield made
    finally:
        made.stopping.set()
        server.shutdown()
        server.server_close()
