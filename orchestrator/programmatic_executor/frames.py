"""Frames of the program channel: four bytes of length, big-endian, then a JSON object. What comes in is hostile till then.

Nothing here recurses over what was sent, and nothing is parsed before its depth and its number of values are known: a few
bytes of JSON such as `[],` become many times as much memory.
"""

from __future__ import annotations

import json
import socket
import struct
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from pydantic_core import from_json, to_json, to_jsonable_python

HEADER = struct.Struct(">I")
MOST_VALUES = 1_300_000
"""What one frame may hold: a value in a list or object counts once, a list or object twice more. About 100 MB at worst."""
WIDE_BYTES = 11 << 20
"""A frame with characters beyond U+FFFF: one of them makes Python hold its whole text in four bytes a character."""

_CHUNK = 64 * 1024
_GULPS = 4  # reads in one turn of the loop, so that a flood of one program leaves turns to the others
_MOST_PARTS = 512  # in one system call, which takes 1024

_HUGE = 2_000  # digits
_PLAIN_BYTES = 1 << 20  # longer frames are read without a second copy of them as text
_WIDE = (*(bytes([lead]) for lead in range(0xF0, 0xF5)), b"\\ud", b"\\uD")  # how characters beyond U+FFFF begin

_BUT_STRUCTURE = bytes(set(range(256)) - set(b'",[]{}'))
_ROUND = bytes.maketrans(b"{}", b"[]")


class FrameError(Exception):
    """What came is no frame of the protocol; the message says why, in words that may be shown."""


class TooManyValues(FrameError):
    """The frame holds more values than the host takes in: large, but no attack."""


class FrameReader:
    """Cuts what arrives on a socket into frames. One that does not fit the chunk is received into a buffer of its own."""

    def __init__(self, sock: socket.socket, *, frame_bytes: int) -> None:
        self._sock, self._most = sock, frame_bytes
        self._chunk = bytearray(_CHUNK)
        self._view = memoryview(self._chunk)
        self._start = self._end = 0
        self._large: bytearray | None = None
        self._have = 0
        self.received = 0

    def frames(self) -> Iterator[bytearray | bytes]:
        """Every frame that can be had now, without its length. Waits for nothing; stop asking at any point, nothing is lost.

        Raises:
            EOFError: the other end closed, in the middle of a frame too.
            FrameError: a frame is empty or too long.
        """
        yield from self._cut()
        for _ in range(_GULPS):
            more = self._receive()
            yield from self._cut()
            if not more:
                return

    @property
    def left_over(self) -> bool:
        """Whether bytes came after the last frame that was taken, here or still in the socket."""
        if self._end > self._start or self._large is not None:
            return True
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _receive(self) -> bool:
        """Takes what is there; whether there may be more."""
        room = self._room()
        try:
            size = self._sock.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # such as a reset: nothing more will come
            size = 0
        if size == 0:
            raise EOFError
        self.received += size
        if self._large is None:
            self._end += size
        else:
            self._have += size
        return size == len(room) or self._large is not None

    def _room(self) -> memoryview:
        if self._large is not None:
            return memoryview(self._large)[self._have :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            self._chunk[: self._end - self._start] = self._chunk[self._start : self._end]
            self._start, self._end = 0, self._end - self._start
        return self._view[self._end :]

    def _cut(self) -> Iterator[bytearray | bytes]:
        if self._large is not None:
            if self._have < len(self._large):
                return
            whole, self._large = self._large, None
            yield whole
        while self._end - self._start >= HEADER.size:
            begin, size = self._start + HEADER.size, self._size()
            if begin + size > self._end:
                if HEADER.size + size > _CHUNK:
                    self._grow(begin, size)
                return
            self._start = begin + size
            yield bytes(self._view[begin : begin + size])

    def _size(self) -> int:
        size: int = HEADER.unpack_from(self._chunk, self._start)[0]
        if not 0 < size <= self._most:
            raise FrameError(f"a frame of {size} bytes; 1 to {self._most} are allowed")
        return size

    def _grow(self, begin: int, size: int) -> None:
        self._large, self._have = bytearray(size), self._end - begin
        self._large[: self._have] = self._view[begin : self._end]
        self._start = self._end = 0


class FrameWriter:
    """Sends frames in order and never waits: what the socket does not take stays in a queue until it can."""

    def __init__(self, loop: AbstractEventLoop, sock: socket.socket) -> None:
        self._loop, self._sock = loop, sock
        self._queue: deque[bytes | memoryview] = deque()
        self._waiting = self._due = self._closed = False
        self.sent = 0

    def send(self, *parts: bytes, at_once: bool = True) -> None:
        """Sends one frame, given in parts so that large ones need no copy. Not `at_once`: with others of this turn of the loop."""
        if self._closed:
            return
        size = sum(map(len, parts))
        self.sent += HEADER.size + size
        if size < _CHUNK:
            self._queue.append(b"".join((HEADER.pack(size), *parts)))
        else:
            self._queue += (HEADER.pack(size), *parts)
        if self._waiting or self._due:
            return
        if at_once:
            self._flush()
        else:
            self._due = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Sends nothing more; the socket stays open, it is its owner's."""
        self._closed = True
        self._queue.clear()
        self._listen(False)

    def _flush(self) -> None:
        self._due = False
        try:
            while self._queue:
                self._drop(self._sock.sendmsg(list(islice(self._queue, _MOST_PARTS))))
        except (BlockingIOError, InterruptedError):
            self._listen(True)
        except OSError:  # the other end takes nothing more; that it closed is for the reader to find
            self.close()
        else:
            self._listen(False)

    def _drop(self, size: int) -> None:
        while self._queue and size >= len(self._queue[0]):
            size -= len(self._queue.popleft())
        if size:
            self._queue[0] = memoryview(self._queue[0])[size:]

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._waiting:
            self._loop.add_writer(self._sock, self._flush)
        elif self._waiting and not wanted:
            self._loop.remove_writer(self._sock)
        self._waiting = wanted


def decode(data: bytes | bytearray, *, depth: int) -> dict[str, Any]:
    """The object that a frame holds: strict JSON, finite numbers, text that UTF-8 can carry.

    Raises:
        FrameError: it is none, or is nested deeper than `depth`.
        TooManyValues: it holds more values than the host takes in.
    """
    weigh(data, depth=depth)
    found = _read(data) if len(data) <= _PLAIN_BYTES else _read_large(data)
    if not isinstance(found, dict):
        raise FrameError("a frame that is no JSON object")
    return _whole_text(found) if len(data) <= _PLAIN_BYTES and _may_hold_halves(data) else found


def _read(data: bytes | bytearray) -> Any:
    try:
        return _STRICT.decode(str(data, "utf-8"))
    except UnicodeDecodeError:
        raise FrameError("a frame that is no UTF-8") from None
    except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError too
        raise FrameError("a frame that is no JSON") from None


def _read_large(data: bytes | bytearray) -> Any:
    """The same from the bytes themselves, faster and in half of the memory; halves of characters are no text here."""
    if len(data) > WIDE_BYTES and any(mark in data for mark in _WIDE):
        raise TooManyValues(f"a frame of {len(data):,} bytes with characters beyond U+FFFF; {WIDE_BYTES:,} are allowed")
    try:
        found = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        raise FrameError("a frame that is no JSON, or no UTF-8") from None
    if isinstance(found, dict) and not _all_finite(found):  # 1e999
        raise FrameError("a frame that is no JSON")
    return found


def _all_finite(found: dict[str, Any]) -> bool:
    left: list[Any] = [found]
    while left:
        around = left.pop()
        for value in around.values() if type(around) is dict else around:
            kind = type(value)
            if kind is float:
                if value - value != 0.0:
                    return False
            elif kind is dict or kind is list:
                left.append(value)
    return True


def encode(value: Any, *, depth: int) -> bytes:
    """A value as JSON for a frame: dates, sets, models and other values of Python become the nearest JSON, NaN becomes null.

    Raises:
        FrameError: there is no JSON for it, or it is nested deeper than `depth`.
    """
    try:
        text = to_json(value, inf_nan_mode="null", bytes_mode="base64")  # several times as fast as `json`
    except Exception:  # tools return anything, and it may raise anything when it is looked at
        text = _dump_anything(value)
    if _may_hold_huge_number(text):
        text = _dump_anything(value)
    weigh(text, depth=depth)
    return text


def weigh(data: bytes | bytearray, *, depth: int) -> None:
    """Refuses a JSON text that is too deep or holds too many values, without parsing it.

    Raises:
        FrameError: lists and objects are nested deeper than `depth`, or do not match.
        TooManyValues: there are more than `MOST_VALUES`.
    """
    if _few_nests(data, depth) and (len(data) <= MOST_VALUES or data.count(b",") + 2 * depth <= MOST_VALUES):
        return
    _weigh_structure(_structure(data), depth)


def _few_nests(data: bytes | bytearray, most: int) -> bool:
    """Whether there are no more opening brackets than that. In a large text single looks are ten times as fast as counting."""
    if len(data) < _CHUNK:
        return data.count(b"[") + data.count(b"{") <= most
    for mark in b"[{":
        at = data.find(mark)
        while at >= 0:
            most -= 1
            if most < 0:
                return False
            at = data.find(mark, at + 1)
    return True


def count_values(data: bytes | bytearray) -> int:
    """How many values a JSON text holds, counted as `MOST_VALUES` counts. Text that has been decoded, and so is well formed."""
    values = data.count(b",") + 2 * (data.count(b"[") + data.count(b"{"))
    return values if values < 1_000 else _values(_structure(data))


def _values(marks: bytes) -> int:
    return marks.count(b",") + 2 * marks.count(b"[")


def _structure(data: bytes | bytearray) -> bytes:
    """Only the commas and brackets that are not part of a text."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = bytes(data.translate(_ROUND, _BUT_STRUCTURE))
    marks = marks.replace(b'""', b"")  # two neighbours leave what lies in a text and what does not as it was
    return _outside_of_texts(marks) if b'"' in marks else marks


def _outside_of_texts(marks: bytes) -> bytes:
    kept, inside = [], 0
    for at in range(0, len(marks), _CHUNK):  # in chunks, so that a flood of quotes does not become a flood of pieces
        pieces = marks[at : at + _CHUNK].split(b'"')
        kept.append(b"".join(pieces[inside::2]))
        inside = (inside + len(pieces) - 1) % 2
    return b"".join(kept)


def _weigh_structure(marks: bytes, depth: int) -> None:
    values = _values(marks)
    if values > MOST_VALUES:
        raise TooManyValues(f"a frame of about {values:,} values; {MOST_VALUES:,} are allowed")
    nests = marks.translate(None, b",")
    for _ in range(depth):  # each turn takes the innermost pairs away
        nests = nests.replace(b"[]", b"")
    if nests:
        raise FrameError(f"JSON nested deeper than {depth}, or with brackets that do not match")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:  # 1e999 reads as infinite
        raise ValueError(text)
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_STRICT = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _dump_anything(value: Any) -> bytes:
    """What the fast way does not take, such as halves of characters; and what it should not, numbers of thousands of digits."""
    with suppress(Exception):
        return _dumps(value).encode("utf-8", "replace")
    with suppress(Exception):
        return _dumps(to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64")).encode("utf-8", "replace")
    raise FrameError("a value that is no JSON")


def _may_hold_huge_number(text: bytes) -> bool:
    """Whether there may be a number that Python reads no more, of over 4300 digits: it fills one of these pieces whole."""
    return len(text) > _HUGE and any(text[at : at + _HUGE].isdigit() for at in range(0, len(text), _HUGE))


def _may_hold_halves(data: bytes | bytearray) -> bool:
    return b"\\" in data and b"\\u" in data and (b"\\ud" in data or b"\\uD" in data)  # the first look is the fastest


def _whole_text(found: dict[str, Any]) -> dict[str, Any]:
    """The same with `?` for halves of characters, which JSON can name and UTF-8 cannot carry."""
    text = _dumps(found)
    try:
        text.encode()
    except UnicodeEncodeError:
        whole: dict[str, Any] = _STRICT.decode(text.encode("utf-8", "replace").decode())
        return whole
    return found
