"""The program's side of its channel: tool calls and output go out as frames, answers come in and wake who waits for them.

A frame is four bytes of length (big-endian) and that many of JSON. Everything here is for speed and friendliness alone:
the host believes none of it. Generated stubs import this module as `toolweaver_bridge`.
"""

from __future__ import annotations

import asyncio
import codecs
import collections
import contextlib
import functools
import io
import itertools
import json
import os
import select
import socket
import struct
import threading
from asyncio import events
from collections.abc import Callable, Mapping
from typing import Any

from sandbox_image import values
from sandbox_image.loop import ProgramLoop, node

HEADER = struct.Struct(">I")
_decode = json.JSONDecoder().raw_decode
FRAME_BYTES = 16 << 20
_READ_BYTES = 1 << 16
_JOIN_BYTES = 1 << 18  # shorter writes are put together, longer ones go without a copy
_MOST_TEXT = 1 << 20  # characters in one frame of output
GONE = 70  # exit status when the host has hung up


class ToolError(Exception):
    """A tool call failed. `code` says how in one word, `type` which error it was on the other side."""

    __module__ = "builtins"  # that is how tracebacks show it

    def __init__(self, message: str = "The tool call failed.", *, code: str = "tool_error", type: str = "ToolError") -> None:
        super().__init__(message)
        self.message, self.code, self.type = message, code, type


class ToolTimeout(ToolError, TimeoutError):
    """No answer came within the `timeout` that the program itself gave."""

    __module__ = "builtins"


class _Pending:
    """A call that waits for its answer; `rest` is what its frame says besides the id."""

    __slots__ = ("future", "loop", "rest")

    def __init__(self, loop: asyncio.AbstractEventLoop, rest: tuple[bytes, ...]) -> None:
        self.loop = loop
        self.rest = rest
        self.future: asyncio.Future[Any] = loop.create_future()

    def settle(self, value: Any, error: Exception | None) -> None:
        """Wakes the waiting task, from whichever thread."""
        if self.loop is events._get_running_loop():
            self.set(value, error)
        else:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self.set, value, error)

    def set(self, value: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


class Channel:
    """The socket to the host, used from any thread and any loop of the program."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._buffer = bytearray(_READ_BYTES)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLOUT)
        self._lock = threading.RLock()  # counters and what is yet to be sent
        self._sending = threading.RLock()
        self._reading = threading.Lock()
        self._outgoing: list[bytes] = []
        self._written: list[tuple[str, str]] = []
        self._room = 0  # bytes of output that may still be sent
        self._pending: dict[int, _Pending] = {}
        self._waiting: collections.deque[_Pending] = collections.deque()
        self._ids = itertools.count(1)
        self._in_flight = 64
        self._frame_bytes = FRAME_BYTES
        self.unsent = False
        self.closed = False
        self.on_first_write: Callable[[], None] | None = None

    def fileno(self) -> int:
        return self._fd

    def limit(self, limits: Mapping[str, int]) -> None:
        """Takes the limits of an execution. The host cuts output itself, and must see that there was more."""
        self._room = limits.get("output_bytes", 1 << 20) + 4
        self._in_flight = max(1, limits.get("in_flight", 64))
        self._frame_bytes = limits.get("frame_bytes", FRAME_BYTES)

    # Out

    def write(self, stream: str, text: str) -> None:
        """Keeps output until the next flush; what is beyond the limit is dropped."""
        if self._room > 0 and text:
            if self.on_first_write is not None:
                with self._lock:
                    begin, self.on_first_write = self.on_first_write, None
                if begin is not None:
                    begin()
            text = text[: self._room]
            self._room -= len(text)
            self._written.append((stream, text))
            self.unsent = True

    def send(self, *pieces: bytes) -> None:
        """Queues one frame made of `pieces`."""
        size = sum(map(len, pieces))
        if size > self._frame_bytes:
            raise values.ValueUnfit(f"{size:,} bytes are more than fit a message ({self._frame_bytes:,}): send or return less")
        with self._lock:
            if self._written:
                self._queue_output()
            self._outgoing.append(HEADER.pack(size))
            self._outgoing.extend(pieces)
            self.unsent = True

    def flush(self) -> None:
        """Sends everything that was written or queued, in order."""
        with self._sending:
            with self._lock:
                if self._written:
                    self._queue_output()
                outgoing, self._outgoing, self.unsent = self._outgoing, [], False
            if self.closed or not outgoing:
                return
            try:
                if sum(map(len, outgoing)) <= _JOIN_BYTES:
                    outgoing = [b"".join(outgoing)]
                for piece in outgoing:
                    self._send_all(memoryview(piece))
            except OSError:
                os._exit(GONE)

    def _send_all(self, piece: memoryview) -> None:
        """Sends, and hears meanwhile: a host that is writing itself may not be reading."""
        while piece:
            try:
                piece = piece[self._sock.send(piece, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if any(events & select.POLLIN for _, events in self._poll.poll()):
                    self.receive()

    def finish(self, *pieces: bytes) -> None:
        """Sends the last frame, after all output; nothing follows it."""
        with self._sending, self._lock:
            self.flush()
            self.send(*pieces)
            self.flush()
            self.closed = True

    def _queue_output(self) -> None:
        written, self._written = self._written, []
        for stream, parts in itertools.groupby(written, key=lambda part: part[0]):
            text = "".join(part[1] for part in parts)
            for start in range(0, len(text), _MOST_TEXT):
                piece = values.dumps(text[start : start + _MOST_TEXT])
                self.send(b'{"op":"out","stream":"%s","text":' % stream.encode(), piece, b"}")

    # Calls

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float | None = None) -> Any:
        """Calls a tool and waits for its result, at most `timeout` seconds when given.

        Raises:
            ToolError: the call failed.
            ToolTimeout: no answer came in time; the call itself may still go on.
            ValueUnfit: the arguments are no JSON, or too long.
        """
        key = node.get().next_key()
        data = values.dumps(arguments)
        if len(data) + 1000 > self._frame_bytes:
            raise values.ValueUnfit(f"the arguments for `{tool}` have {len(data):,} bytes, which is too long: send less")
        if self.closed:
            raise ToolError("only the first process of a program can call tools", code="forked")
        waits = _Pending(asyncio.get_running_loop(), (b'"key":"%s","tool":%s,"args":' % (key.encode(), _name(tool)), data))
        self._begin(waits)
        if timeout is None:
            return await waits.future
        late = ToolTimeout(f"`{tool}` did not answer within {timeout:g} s", code="timeout", type="ToolTimeout")
        timer = waits.loop.call_later(timeout, waits.set, None, late)
        try:
            return await waits.future
        finally:
            timer.cancel()

    def _begin(self, waits: _Pending) -> None:
        """Sends the call, or lets it wait until fewer are in flight."""
        with self._lock:
            if len(self._pending) < self._in_flight:
                self._send_call(waits)
            else:
                self._waiting.append(waits)
        loop = waits.loop
        if not isinstance(loop, ProgramLoop):  # one that the program brought along
            loop.add_reader(self._fd, self.receive)
            self.flush()
        elif loop.wire is None:
            loop.attach(self)

    def _send_call(self, waits: _Pending) -> None:
        number = next(self._ids)
        self._pending[number] = waits
        self.send(b'{"op":"call","id":%d,' % number, *waits.rest, b"}")

    def _settle(self, frame: dict[str, Any]) -> None:
        with self._lock:
            waits = self._pending.pop(frame["id"], None)
            while self._waiting and len(self._pending) < self._in_flight:
                following = self._waiting.popleft()
                if not following.future.done():
                    self._send_call(following)
        if waits is not None:
            error = frame.get("error")
            waits.settle(frame.get("value"), None if error is None else _error(error))

    # In

    def receive(self) -> None:
        """Takes what has come, and wakes those who wait for it. Another thread may be at it: then it does so."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            frames = self._frames(self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            os._exit(GONE)
        finally:
            self._reading.release()
        for frame in frames:
            self._settle(frame)

    def next_frame(self) -> dict[str, Any]:
        """Waits for one frame and takes not a byte more."""
        header = memoryview(bytearray(HEADER.size))
        self._fill(header)
        return self._load(self._rest_of(b"", *HEADER.unpack(header)))

    def _frames(self, got: int) -> list[dict[str, Any]]:
        if not got:
            os._exit(GONE)
        frames, at = [], 0
        with memoryview(self._buffer) as buffer:
            while at < got:
                if got - at < HEADER.size:
                    header = memoryview(bytearray(HEADER.size))
                    header[: got - at] = buffer[at:got]
                    self._fill(header[got - at :])
                    start, (size,) = got, HEADER.unpack(header)
                else:
                    start, (size,) = at + HEADER.size, HEADER.unpack_from(buffer, at)
                at = start + size
                body = buffer[start:at] if at <= got else self._rest_of(buffer[start:got], size)
                frames.append(self._load(body))
        return frames

    def _rest_of(self, begun: bytes | memoryview, size: int) -> memoryview:
        body = memoryview(bytearray(size))
        body[: len(begun)] = begun
        self._fill(body[len(begun) :])
        return body

    def _fill(self, part: memoryview) -> None:
        """Reads on until `part` is full. The host sends whole frames, so that the wait is one for memory, not for events."""
        while part:
            got = self._sock.recv_into(part, 0, socket.MSG_WAITALL)
            if not got:
                os._exit(GONE)
            part = part[got:]

    @staticmethod
    def _load(body: memoryview) -> dict[str, Any]:
        frame: dict[str, Any] = _decode(str(body, "utf-8"))[0]
        return frame

    def forget(self) -> None:
        """In a process that the program forked: two that speak on one channel would garble it."""
        self.closed = True
        self._lock, self._sending, self._reading = threading.RLock(), threading.RLock(), threading.Lock()
        self._sock.close()


@functools.lru_cache
def _name(tool: str) -> bytes:
    return values.dumps(tool)


def _error(error: Mapping[str, Any]) -> ToolError:
    return ToolError(
        str(error.get("message") or "The tool call failed."),
        code=str(error.get("code", "tool_error")),
        type=str(error.get("type", "ToolError")),
    )


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a program. Sending is the business of the channel: at a call, at the end, and every 50 ms."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self.name = f"<{name}>"
        self._kind = name
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._channel.write(self._kind, text)
        return len(text)

    def reconfigure(self, **_: Any) -> None:
        """Nothing to do: it is UTF-8 already, and lines are sent as they come."""

    def close(self) -> None:
        """Stays open: what comes later is still wanted."""


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, text: Stream) -> None:
        self._text = text
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._text.write(self._decode(bytes(data)))
        return len(data)

    def close(self) -> None:
        """Stays open as its stream does."""


_channel: Channel | None = None


def open_channel(sock: socket.socket) -> Channel:
    """Makes `sock` the channel of this process."""
    global _channel
    _channel = Channel(sock)
    os.register_at_fork(after_in_child=_channel.forget)
    return _channel


async def call_tool(
    server: str,  # noqa: ARG001 (names alone identify tools; this says whose they are)
    tool_name: str,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Any:
    """Calls the tool `tool_name` with `parameters` and gives its result; see `Channel.call`."""
    if _channel is None:
        raise ToolError("there is no host to call tools on", code="no_host")
    return await _channel.call(tool_name, parameters or {}, timeout)
