"""Frames: what hostile bytes become, what arrives in pieces, and what a reader that never reads does."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.programmatic_executor.frames import (
    HEADER,
    MOST_VALUES,
    FrameError,
    FrameReader,
    FrameWriter,
    TooManyValues,
    decode,
    encode,
    weigh,
)

MANY = 16 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    yield here, there
    here.close()
    there.close()


def framed(*bodies: bytes) -> bytes:
    return b"".join(HEADER.pack(len(b)) + b for b in bodies)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":' + b"1" * 400 + b".0}",
        b'{"a":' + b"1" * 5_000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\x01"}',
        b'{"a":1}{"b":2}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{1:"a"}',
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"]" * 100 + b"[" * 100 + b"}",
    ],
    ids=lambda b: b[:20].decode("latin-1") + f" ({len(b)})",
)
def test_what_is_no_strict_object_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode(body, depth=64)


def test_twice_the_same_key_is_harmless() -> None:
    assert decode(b'{"op":"out","op":"done"}', depth=64) == {"op": "done"}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"\ud800", "?"),
        (r"a\udfffb", "a?b"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\ud83d\ude00\ud83d", "\U0001f600?"),
        (r"\uD83D", "?"),
        (r"\\ud800", r"\ud800"),
    ],
)
def test_half_a_character_becomes_a_question_mark(text: str, read: str) -> None:
    got = decode(b'{"%s":["%s"]}' % (text.encode(), text.encode()), depth=64)
    assert got == {read: [read]}
    json.dumps(got, ensure_ascii=False).encode()


def test_depth_is_counted_outside_of_texts_only() -> None:
    brackets = json.dumps('["' * 500 + "{\\" * 500 + '\\"[')
    assert decode(b'{"a":%s}' % brackets.encode(), depth=4)["a"].startswith('["')
    exactly = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert decode(exactly, depth=64)
    with pytest.raises(FrameError, match="deeper than 63"):
        decode(exactly, depth=63)


def test_many_shallow_values_are_not_deep() -> None:
    rows = [{"id": n, "tags": ["[", "]"]} for n in range(5_000)]
    assert decode(json.dumps({"rows": rows}).encode(), depth=4)["rows"] == rows


def depth_by_hand(text: str) -> int | None:
    """The depth of brackets outside of texts; None when they do not match. One character after the other."""
    deep = deepest = 0
    in_text = escaped = False
    for c in text:
        if in_text:
            in_text = escaped or c != '"'
            escaped = not escaped and c == "\\"
        elif c == '"':
            in_text = True
        elif c in "[{":
            deep += 1
            deepest = max(deepest, deep)
        elif c in "]}":
            deep -= 1
            if deep < 0:
                return None
    return deepest if deep == 0 else None


def test_the_fast_count_agrees_with_a_slow_one() -> None:
    chance = random.Random(7)
    told = {True: 0, False: 0}
    for _ in range(3_000):
        text = json.dumps("".join(chance.choice('[]{},"\\ a') for _ in range(chance.randint(0, 24))))
        data = "".join(chance.choice([text, "[", "{", "]", "}", ",", "[[]]", " "]) for _ in range(chance.randint(1, 12)))
        if data.count("[") + data.count("{") <= 3:
            continue  # few brackets cannot be deep; whether they match is for the parser to say
        deep = depth_by_hand(data)
        fits = deep is not None and deep <= 3
        told[fits] += 1
        assert fits_in(data, depth=3) == fits, data
    assert min(told.values()) > 100


def fits_in(data: str, *, depth: int) -> bool:
    try:
        weigh(data.encode(), depth=depth)
    except FrameError:
        return False
    return True


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1", b'{"":0}'], ids=bytes.decode)
def test_few_bytes_that_would_become_much_memory_are_refused(item: bytes) -> None:
    number = MANY // (len(item) + 1) - 10
    with pytest.raises(TooManyValues):
        decode(b'{"a":[' + b",".join([item] * number) + b"]}", depth=64)


def test_commas_in_a_text_are_no_values() -> None:
    text = "1,2,[3]\n" * (MOST_VALUES // 2)
    assert decode(json.dumps({"csv": text}).encode(), depth=64)["csv"] == text


class Model(BaseModel):
    day: date


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
        (Model(day=date(2024, 1, 2)), {"day": "2024-01-02"}),
        ({"a": [date(2024, 1, 2)]}, {"a": ["2024-01-02"]}),
        (Decimal("1.5"), "1.5"),
        ([float("nan"), float("inf")], [None, None]),
        ("\ud800", "?"),
        (b"\xff", "_w=="),
    ],
    ids=str,
)
def test_what_tools_return_becomes_json(value: Any, told: Any) -> None:
    assert json.loads(encode(value, depth=64)) == told


def cyclic() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(5_000):
        nest = [nest]
    return nest


@pytest.mark.parametrize("value", [cyclic(), deep(), Nasty(), 10**5_000], ids=["cyclic", "deep", "nasty", "huge"])
def test_what_cannot_be_json_is_a_frame_error(value: Any) -> None:
    with pytest.raises(FrameError):
        encode(value, depth=64)


def read_all(reader: FrameReader) -> list[bytes]:
    return [bytes(f) for f in reader.frames()]


def test_frames_arrive_in_pieces_of_any_size(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    chance = random.Random(3)
    bodies = [bytes([chance.randrange(256)]) * chance.choice([1, 2, 50, 3_000, 65_531, 65_532, 65_533, 200_000]) for _ in range(60)]
    stream = framed(*bodies)
    reader, got = FrameReader(here, frame_bytes=1 << 20), []
    there.setblocking(False)
    while stream:
        try:
            stream = stream[there.send(stream[: chance.choice([1, 3, 5, 70_000])]) :]
        except BlockingIOError:
            got += read_all(reader)
        if chance.random() < 0.5:
            got += read_all(reader)
    while len(got) < len(bodies):
        got += read_all(reader)
    assert got == bodies
    assert reader.received == sum(len(b) + 4 for b in bodies)
    assert not reader.left_over


def test_a_reader_that_stops_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(framed(b"a", b"bb", b"ccc"))
    reader = FrameReader(here, frame_bytes=10)
    assert next(iter(reader.frames())) == b"a"
    assert reader.left_over
    assert read_all(reader) == [b"bb", b"ccc"]


@pytest.mark.parametrize("size", [0, 11, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_refused_before_anything_is_held(size: int, pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(HEADER.pack(size))
    with pytest.raises(FrameError, match=str(size)):
        read_all(FrameReader(here, frame_bytes=10))


@pytest.mark.parametrize("start", [b"", b"\0\0", HEADER.pack(5) + b"ab", HEADER.pack(100_000) + b"ab"], ids=len)
def test_the_end_in_the_middle_of_a_frame_is_the_end(start: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(start)
    there.close()
    reader = FrameReader(here, frame_bytes=1 << 20)
    with pytest.raises(EOFError):
        read_all(reader) + read_all(reader) + read_all(reader)


async def test_a_writer_keeps_the_order_and_never_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    loop = asyncio.get_running_loop()
    writer = FrameWriter(loop, here)
    bodies = [bytes([65 + n % 26]) * size for n, size in enumerate([1, 500_000, 3, 70_000, 2, 2_000_000, 1])]
    for n, body in enumerate(bodies):
        writer.send(body[: len(body) // 2], body[len(body) // 2 :], at_once=n % 2 == 0)
    there.setblocking(False)
    reader, got = FrameReader(there, frame_bytes=4 << 20), []
    while len(got) < len(bodies):
        got += read_all(reader)
        await asyncio.sleep(0)
    assert got == bodies
    assert writer.sent == sum(len(b) + 4 for b in bodies)
    writer.close()


async def test_a_writer_whose_reader_is_gone_is_silent(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    writer = FrameWriter(asyncio.get_running_loop(), here)
    there.close()
    writer.send(b"x" * 1_000_000)
    writer.send(b"y")
    await asyncio.sleep(0)
    writer.close()
    assert here.fileno() >= 0
