"""A session against peers that keep the protocol, break it, or lie: it always ends, says how, and calls only what was granted."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError, LimitExceeded, PermissionDenied, RequestError, ToolError, ToolTimeout
from orchestrator.models import CallRecord, ProgramLimits, ToolDefinition, ToolParameter
from orchestrator.programmatic_executor.session import Ended, Program, Session, ToolCall

HEADER = struct.Struct(">I")
TOOLS = {
    t.name: t
    for t in (
        ToolDefinition(
            name="get_expenses",
            type="mcp",
            parameters=(
                ToolParameter(name="user_id", required=True),
                ToolParameter(name="quarter", enum=("Q1", "Q2", "Q3", "Q4")),
                ToolParameter(name="limit", type="integer", json_schema={"type": "integer", "minimum": 1}),
            ),
        ),
        ToolDefinition(name="echo", parameters=(ToolParameter(name="value", type="any"),)),
    )
}


class Peer:
    """The other end, as raw as its script wants it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._loop = sock, asyncio.get_running_loop()
        sock.setblocking(False)

    async def receive(self) -> dict[str, Any]:
        (size,) = HEADER.unpack(await self._exactly(4))
        found: dict[str, Any] = json.loads(await self._exactly(size))
        return found

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = await self._loop.sock_recv(self.sock, size - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    async def raw(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def send(self, *messages: dict[str, Any]) -> None:
        bodies = [json.dumps(m).encode() for m in messages]
        await self.raw(b"".join(HEADER.pack(len(b)) + b for b in bodies))

    async def call(self, number: int, **arguments: Any) -> None:
        await self.send(call(number, "echo", **arguments))

    async def done(self, value: Any = None) -> None:
        await self.send(done(value))


def call(number: Any, tool: Any, *, key: Any = None, **arguments: Any) -> dict[str, Any]:
    return {"op": "call", "id": number, "key": f"0:{number}" if key is None else key, "tool": tool, "args": arguments}


def done(value: Any = None, error: Any = None) -> dict[str, Any]:
    return {"op": "done", "value": value, "has_value": error is None, "error": error}


def out(text: Any, stream: Any = "stdout") -> dict[str, Any]:
    return {"op": "out", "stream": stream, "text": text}


Script = Callable[[Peer], Awaitable[Any]]


class Tools:
    """Answers calls, and remembers them."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.now = self.most = self.cancelled = 0
        self.gate: asyncio.Event | None = None
        self._begun: asyncio.Queue[int] = asyncio.Queue()

    async def begun(self, number: int) -> None:
        """Waits until so many more calls began."""
        for _ in range(number):
            await self._begun.get()

    async def __call__(self, call: ToolCall) -> Any:
        self.calls.append(call)
        self._begun.put_nowait(call.id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return call.arguments.get("value", {"user": call.arguments.get("user_id")})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    try:
        yield here, there
        assert here.fileno() >= 0, "the session closed a socket that is its owner's"
    finally:
        here.close()
        there.close()


async def play(script: Script, *, tools: Any = None, input_data: Any = None, listen: Any = None, **limits: Any) -> Ended:
    """What a session makes of a scripted peer; it must end by its limit, whatever the peer does."""
    async with channel() as (here, there):
        bounds = ProgramLimits(**({"timeout_s": 10} | limits))
        program = Program("code", input_data, TOOLS, "code_exec_1a2b3c4d")
        told: list[CallRecord] = []
        session = Session(here, program, limits=bounds, call=tools or Tools(), on_call=told.append, on_output=listen)
        other = asyncio.create_task(_act(script, Peer(there)))
        ended = await asyncio.wait_for(session.run(), bounds.timeout_s + 3)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    assert {r.caller.tool_id for r in told} == {r.caller.tool_id for r in ended.records}
    assert (ended.error is None) == (ended.status == "success")
    return ended


async def _act(script: Script, peer: Peer) -> None:
    try:
        await peer.receive()
        await script(peer)
    except (EOFError, OSError):
        peer.sock.close()


async def answers(peer: Peer, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to calls, in the order of their ids."""
    await peer.send(*messages)
    return sorted([await peer.receive() for _ in messages], key=lambda a: a["id"])


async def answered(*messages: dict[str, Any], tools: Any = None, **limits: Any) -> tuple[list[dict[str, Any]], Ended]:
    got: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        got.extend(await answers(peer, *messages))
        await peer.done()

    return got, await play(script, tools=tools, **limits)


# As it should be


async def test_a_program_prints_calls_and_returns() -> None:
    heard: list[tuple[str, str]] = []
    tools = Tools()

    async def script(peer: Peer) -> None:
        await peer.send({"op": "ready"}, out("a"), out("warn", "stderr"), out("b\n"))
        (first,) = await answers(peer, call(1, "get_expenses", key="0.2:1", user_id="alice", quarter="Q3"))
        await peer.done(first["value"])

    ended = await play(script, tools=tools, listen=lambda *news: heard.append(news))
    assert (ended.status, ended.value, ended.has_value) == ("success", {"user": "alice"}, True)
    assert (ended.output, ended.errors, ended.truncated) == ("ab\n", "warn", False)
    assert heard == [("stdout", "a"), ("stderr", "warn"), ("stdout", "b\n")]
    assert [(c.id, c.key, c.tool.name, c.arguments) for c in tools.calls] == [
        (1, "0.2:1", "get_expenses", {"user_id": "alice", "quarter": "Q3"})
    ]
    (record,) = ended.records
    assert record.caller.model_dump() == {"type": "code_execution", "execution_id": "code_exec_1a2b3c4d", "tool_id": "tool_call_1"}
    assert (record.tool, record.type, record.error) == ("get_expenses", "mcp", None)
    assert record.result_size == len('{"user":"alice"}')
    assert record.completed_at == pytest.approx(record.timestamp + (record.duration or 0))
    assert abs(time.time() - record.timestamp) < 60
    assert ended.alerts == []
    assert ended.bytes_in > 100
    assert ended.bytes_out > 100


async def test_the_program_is_told_code_input_stubs_seed_and_limits() -> None:
    async with channel() as (here, there):
        program = Program("1+1", {"a": [1]}, TOOLS, "code_exec_00000001", {"tools/x.py": "..."}, {"echo": "tools.x"})
        session = Session(here, program, limits=ProgramLimits(in_flight=7), call=Tools())
        running = asyncio.create_task(session.run())
        peer = Peer(there)
        frame = await peer.receive()
        await peer.done()
        assert (await running).status == "success"
    assert {k: frame[k] for k in ("op", "code", "input", "modules", "names", "seed")} == {
        "op": "exec",
        "code": "1+1",
        "input": {"a": [1]},
        "modules": {"tools/x.py": "..."},
        "names": {"echo": "tools.x"},
        "seed": "code_exec_00000001",
    }
    assert (frame["limits"]["in_flight"], frame["limits"]["output_bytes"]) == (7, 1 << 20)


async def test_calls_run_at_once_and_more_wait_in_order() -> None:
    tools = Tools()
    tools.gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.send(*(call(n, "echo", value=n) for n in range(1, 31)))
        await tools.begun(8)
        for _ in range(20):
            await asyncio.sleep(0)
        assert tools.now == 8
        assert tools.gate is not None
        tools.gate.set()
        got = [await peer.receive() for _ in range(30)]
        await peer.done(sorted(a["value"] for a in got))

    ended = await play(script, tools=tools, in_flight=8)
    assert ended.value == list(range(1, 31))
    assert tools.most == 8
    assert [c.id for c in tools.calls] == list(range(1, 31))
    assert [r.caller.tool_id for r in ended.records] == [f"tool_call_{n}" for n in range(1, 31)]


@pytest.mark.parametrize("key", ["0:1", "0.2.13:4", "0.1.t2:1", "0" + ".1" * 1_000 + ":1"], ids=len)
async def test_keys_of_tasks_and_threads_are_taken(key: str) -> None:
    tools = Tools()
    _, ended = await answered(call(1, "echo", key=key), tools=tools)
    assert (ended.status, [c.key for c in tools.calls]) == ("success", [key])


async def test_large_values_pass_whole_in_both_directions() -> None:
    text = "äx" * 2_000_000

    async def script(peer: Peer) -> None:
        (answer,) = await answers(peer, call(1, "get_expenses", user_id="a"))
        await peer.done(answer["value"])

    async def large(_: ToolCall) -> str:
        return text

    ended = await play(script, tools=large)
    assert (ended.status, ended.value) == ("success", text)


async def test_the_error_of_a_program_is_told_with_its_line() -> None:
    error = {"type": "ZeroDivisionError", "message": "division by zero", "line": 3, "traceback": "Traceback ..."}
    ended = await play(lambda peer: peer.send(done(error=error)))
    assert (ended.status, str(ended.error)) == ("error", "ZeroDivisionError: division by zero (line 3)")
    assert (ended.value, ended.has_value, ended.closed) == (None, False, False)


async def test_no_memory_left_in_the_program_is_an_alert() -> None:
    ended = await play(lambda peer: peer.send(done(error={"type": "MemoryError", "message": ""})))
    assert (ended.status, ended.alerts) == ("error", ["memory"])


# Calls that are refused


async def test_a_tool_that_was_not_granted_is_never_invoked_and_the_nearest_is_named() -> None:
    tools = Tools()
    got, ended = await answered(call(1, "get_expense", user_id="a"), call(2, "delete_all"), call(3, "x" * 100_000), tools=tools)
    assert tools.calls == []
    assert [a["error"]["code"] for a in got] == ["unknown_tool"] * 3
    assert "Did you mean `get_expenses`?" in got[0]["error"]["message"]
    assert "echo, get_expenses" in got[1]["error"]["message"]
    assert len(got[2]["error"]["message"]) < 1_000
    assert [r.error for r in ended.records] == [a["error"]["message"] for a in got]
    assert ended.status == "success"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "`user_id` is missing"),
        ({"user_id": 7}, "`user_id` is a number, but must be text"),
        ({"user_id": "a", "quarter": "Q5"}, "must be one of Q1, Q2, Q3, Q4"),
        ({"user_id": "a", "quartr": "Q1"}, "did you mean `quarter`?"),
        ({"user_id": "a", "limit": 0}, "`limit` breaks `minimum: 1`"),
        ({"user_id": "a", "limit": True}, "`limit` is true or false, but must be a whole number"),
    ],
    ids=str,
)
async def test_arguments_that_break_the_schema_never_reach_the_tool(arguments: dict[str, Any], told: str) -> None:
    tools = Tools()
    (answer,), ended = await answered(call(1, "get_expenses", **arguments), tools=tools)
    assert tools.calls == []
    assert answer["error"]["code"] == "bad_input"
    assert told in answer["error"]["message"]
    assert ended.records[0].parameters == arguments


async def test_the_call_after_the_limit_is_answered_with_the_limit() -> None:
    tools = Tools()
    got, ended = await answered(*(call(n, "echo", value=n) for n in range(1, 6)), tools=tools, calls=3)
    assert [("error" in a) for a in got] == [False, False, False, True, True]
    assert "3 tool calls (`calls`)" in got[3]["error"]["message"]
    assert len(tools.calls) == 3
    assert (ended.status, ended.alerts, len(ended.records)) == ("success", ["call_limit"], 3)


async def test_a_program_that_cannot_stop_calling_is_stopped() -> None:
    async def script(peer: Peer) -> None:
        for n in range(1, 5_000):
            await peer.call(n)
            await peer.receive()

    ended = await play(script, calls=2)
    assert (ended.status, ended.alerts) == ("error", ["call_limit"])
    assert ended.error is not None
    assert "limit of 2 calls" in ended.error.message


async def test_arguments_that_are_too_large_are_refused_with_the_next_move() -> None:
    tools = Tools()
    (answer,), ended = await answered(call(1, "echo", value="x" * (5 << 20)), tools=tools)
    assert tools.calls == []
    assert "4 MiB" in answer["error"]["message"]
    assert len(json.dumps(ended.records[0].parameters)) < 1_000


async def test_arguments_of_too_many_values_are_refused_too() -> None:
    tools = Tools()
    (answer,), _ = await answered(call(1, "echo", value=[[]] * 50_000), tools=tools)
    assert tools.calls == []
    assert "100000 values" in answer["error"]["message"]


class Spoilt(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ToolError("no such user", code="no_user", next="Ask for another."), "no_user", "no such user Ask for another."),
        (ToolTimeout(), "timeout", "The call ran longer than its `timeout_s`."),
        (PermissionDenied("you may not"), "permission_denied", "you may not"),
        (BackendError("redis://:secret@10.0.0.1 is gone"), "backend_unavailable", "did not answer"),
        (Spoilt("/root/secret/path"), "internal", "failed inside the platform"),
        (TimeoutError("secret"), "timeout", "took too long"),
        (asyncio.CancelledError("secret"), "cancelled", "was cancelled"),
    ],
    ids=lambda v: type(v).__name__,
)
async def test_a_failed_call_tells_the_program_why_and_nothing_of_the_host(error: BaseException, code: str, told: str) -> None:
    async def fails(_: ToolCall) -> Any:
        raise error

    (answer,), ended = await answered(call(1, "echo"), tools=fails)
    assert answer["error"]["type"] == "ToolError"
    assert answer["error"]["code"] == code
    assert told in answer["error"]["message"]
    assert "secret" not in json.dumps(answer)
    assert (ended.records[0].error, ended.records[0].result_size) == (answer["error"]["message"], None)


@pytest.mark.parametrize(
    ("value", "code"),
    [(object(), "bad_output"), ("x" * 3_000, "result_too_large"), ([[[[[[1]]]]]], "bad_output")],
    ids=["no JSON", "too large", "too deep"],
)
async def test_a_result_that_cannot_be_sent_is_an_error_inside_the_program(value: Any, code: str) -> None:
    async def gives(_: ToolCall) -> Any:
        return value

    (answer,), ended = await answered(call(1, "echo"), tools=gives, value_bytes=2_048, depth=5)
    assert answer["error"]["code"] == code
    assert ended.status == "success"


async def test_all_results_together_are_bounded() -> None:
    asked = 0
    got: list[dict[str, Any]] = []

    async def gives(_: ToolCall) -> Any:
        nonlocal asked
        asked += 1
        return "x" * 600_000

    async def script(peer: Peer) -> None:
        for n in (1, 2, 3):
            got.extend(await answers(peer, call(n, "echo")))
        await peer.done()

    ended = await play(script, tools=gives, total_bytes=1 << 20)
    assert ["error" in a for a in got] == [False, True, True]
    assert all("total_bytes" in a["error"]["message"] for a in got[1:])
    assert (asked, ended.status) == (2, "success")


# Arguments made to hold the host up

EVIL = {
    "pattern": ({"type": "string", "pattern": "^(a+)+$"}, "a" * 5_000 + "!", True),
    "lookahead": ({"type": "string", "pattern": "^(?=(a+)+$)b"}, "a" * 5_000 + "!", False),
    "pattern of names": (
        {"type": "object", "patternProperties": {"^(a+)+$": {"type": "integer"}}},
        {"a" * 5_000 + "!": "x"},
        False,
    ),
    "other names": (
        {"type": "object", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"a" * 5_000 + "!": 1},
        True,
    ),
    "unique objects": ({"type": "array", "uniqueItems": True}, [{"n": n} for n in range(30_000)], True),
    "remote": ({"$ref": "http://192.0.2.1/schema.json"}, 1, True),
    "endless": ({"$ref": "#/properties/value"}, 1, True),
    "branching": (
        {"$defs": {}, "anyOf": [{"type": "array", "items": {"$ref": "#/properties/value"}}] * 2 + [{"type": "integer"}]},
        json.loads("[" * 55 + '"x"' + "]" * 55),
        True,
    ),
    "huge number": ({"type": "number", "multipleOf": 0.1}, 10**4_000, True),
}


@pytest.mark.parametrize(("schema", "value", "refused"), EVIL.values(), ids=EVIL)
async def test_no_schema_and_no_argument_holds_the_host_up(schema: dict[str, Any], value: Any, refused: bool) -> None:
    tool = ToolDefinition(name="evil", parameters=(ToolParameter(name="value", type="any", json_schema=schema),))
    tools = Tools()
    began = time.monotonic()
    async with channel() as (here, there):
        session = Session(here, Program("", None, {"evil": tool}, "e"), limits=ProgramLimits(timeout_s=20), call=tools)
        running = asyncio.create_task(session.run())
        peer = Peer(there)
        await peer.receive()
        (answer,) = await answers(peer, call(1, "evil", value=value))
        await peer.done()
        assert (await running).status == "success"
    assert ("error" in answer) == refused, answer
    assert len(tools.calls) == (0 if refused else 1)
    assert len(json.dumps(answer)) < 6_000
    assert time.monotonic() - began < 10


async def test_the_loop_goes_on_while_intricate_arguments_are_checked() -> None:
    schema = {"type": "array", "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}}
    tool = ToolDefinition(name="rows", parameters=(ToolParameter(name="value", type="array", json_schema=schema),))
    value = [{"a": n} for n in range(20_000)]
    async with channel() as (here, there):
        session = Session(here, Program("", None, {"rows": tool}, "e"), limits=ProgramLimits(), call=Tools())
        running = asyncio.create_task(session.run())
        peer = Peer(there)
        await peer.receive()
        ticks, asked = 0, asyncio.create_task(answers(peer, call(1, "rows", value=value)))
        while not asked.done():
            ticks += 1
            await asyncio.sleep(0.001)
        assert "error" not in asked.result()[0]
        await peer.done()
        assert (await running).status == "success"
    assert ticks > 5


# What breaks the protocol

FORGED: dict[str, list[dict[str, Any]]] = {
    "unknown operation": [{"op": "spawn", "n": 1}],
    "operation of the host": [{"op": "result", "id": 1, "value": 1}],
    "no operation": [{}],
    "operation that cannot be hashed": [{"op": ["call"]}],
    "id 0": [call(0, "echo")],
    "id from 2": [call(2, "echo")],
    "id twice": [call(1, "echo"), call(1, "echo", key="0:2")],
    "id backwards": [call(1, "echo"), call(2, "echo"), call(1, "echo", key="0:3")],
    "id true": [call(True, "echo", key="0:1")],
    "id text": [call("1", "echo")],
    "id with a fraction": [call(1.0, "echo")],
    "id huge": [call(10**4_000, "echo", key="0:1")],
    "key twice": [call(1, "echo"), call(2, "echo", key="0:1")],
    "key empty": [call(1, "echo", key="")],
    "key of other letters": [call(1, "echo", key="0:x")],
    "key of another beginning": [call(1, "echo", key="job/1")],
    "key of other digits": [call(1, "echo", key="\u0660:1")],
    "key with a line": [call(1, "echo", key="0:1\n")],
    "key long": [call(1, "echo", key="0" + ".1" * 4_000 + ":1")],
    "key number": [call(1, "echo", key=1)],
    "tool list": [call(1, ["echo"])],
    "no arguments": [{"op": "call", "id": 1, "key": "0:1", "tool": "echo"}],
    "arguments list": [{"op": "call", "id": 1, "key": "0:1", "tool": "echo", "args": []}],
    "other stream": [out("x", "log")],
    "stream list": [out("x", ["stdout"])],
    "text number": [out(1)],
    "ready twice": [{"op": "ready"}, {"op": "ready"}],
    "ready late": [out("x"), {"op": "ready"}],
    "done and more": [done(1), out("x")],
    "done twice": [done(1), done(2)],
    "done without has_value": [{"op": "done", "value": 1}],
    "error text": [done(error="boom")],
    "error without type": [done(error={"message": "x"})],
    "traceback list": [done(error={"type": "E", "message": "x", "traceback": []})],
}


@pytest.mark.parametrize("messages", FORGED.values(), ids=FORGED)
async def test_a_forged_frame_is_a_security_error(messages: list[dict[str, Any]]) -> None:
    tools = Tools()
    ended = await play(lambda peer: peer.send(*messages), tools=tools)
    assert (ended.status, ended.alerts) == ("security_error", ["violation"])
    assert len(str(ended.error)) < 500
    assert len(tools.calls) <= 2


RAW = {
    "too long": HEADER.pack(17 << 20),
    "empty": HEADER.pack(0),
    "no JSON": HEADER.pack(3) + b"abc",
    "list": HEADER.pack(2) + b"[]",
    "no UTF-8": HEADER.pack(3) + b'"\xff"',
    "infinite": HEADER.pack(len(b'{"op":"done","value":1e999,"has_value":true}')) + b'{"op":"done","value":1e999,"has_value":true}',
    "pickle": HEADER.pack(6) + b"\x80\x04K\x01.x",
    "deep": HEADER.pack(200_006) + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half a frame after done": b"".join(
        HEADER.pack(len(b)) + b for b in [b'{"op":"done","value":1,"has_value":true}', b'{"op":"out"}']
    )[:-3],
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
async def test_raw_bytes_that_are_no_frame_are_a_security_error(data: bytes) -> None:
    ended = await play(lambda peer: peer.raw(data))
    assert (ended.status, ended.alerts, ended.value) == ("security_error", ["violation"], None)


async def test_more_values_than_the_host_takes_are_an_error_not_an_attack() -> None:
    ended = await play(lambda peer: peer.raw(HEADER.pack(12_000_038) + done_bytes(b"[" + b"[]," * 3_999_999 + b"1]")))
    assert (ended.status, ended.alerts) == ("error", [])
    assert ended.error is not None
    assert "Return less" in ended.error.message


def done_bytes(value: bytes) -> bytes:
    body = b'{"op":"done","has_value":true,"value":' + value + b"}"
    return body.ljust(12_000_038)


async def test_nothing_is_called_after_a_violation() -> None:
    tools = Tools()
    await play(lambda peer: peer.send({"op": "what"}, call(1, "echo")), tools=tools)
    assert tools.calls == []


async def test_extra_fields_change_nothing() -> None:
    tools = Tools()
    forged = call(1, "echo") | {"caller": {"type": "direct"}, "timestamp": 0, "status": "success"}
    _, ended = await answered(forged, tools=tools)
    assert ended.records[0].caller.type == "code_execution"
    assert ended.records[0].timestamp > 1e9


@pytest.mark.parametrize("start", [b"", b"\0", HEADER.pack(100) + b"{", HEADER.pack(1 << 20) + b"{" * 200_000], ids=len)
async def test_a_channel_that_closes_before_done_is_never_success(start: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.raw(start)
        peer.sock.close()

    ended = await play(script)
    assert (ended.status, ended.closed) == ("error", True)


# Limits


async def test_output_is_cut_and_flagged() -> None:
    ended = await play(lambda peer: peer.send(out("ä" * 10), out("b" * 10, "stderr"), out("c"), done(1)), output_bytes=25)
    assert (ended.output, ended.errors, ended.truncated) == ("ä" * 10, "b" * 5, True)
    assert (ended.status, ended.value) == ("success", 1)


async def test_a_character_is_never_cut_in_half() -> None:
    ended = await play(lambda peer: peer.send(out("aä\U0001f600"), done()), output_bytes=5)
    assert (ended.output, ended.truncated) == ("aä", True)


async def test_half_characters_in_what_is_printed_can_be_stored() -> None:
    ended = await play(lambda peer: peer.send(out("\ud800"), done({"\udfff": "\ud800"})))
    assert (ended.output, ended.value) == ("?", {"?": "?"})


async def flood(peer: Peer, data: bytes) -> None:
    while True:
        await peer.raw(data)


def framed(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return HEADER.pack(len(body)) + body


@pytest.mark.parametrize("text", ["", "x" * 60_000], ids=["tiny", "large"])
async def test_a_flood_of_output_ends(text: str) -> None:
    ended = await play(lambda peer: flood(peer, framed(out(text))), total_bytes=4 << 20)
    assert (ended.status, ended.alerts) == ("security_error", ["violation"])
    assert len(ended.output) <= 1 << 20
    assert ended.bytes_out < 6 << 20


async def test_a_program_that_is_silent_is_timed_out() -> None:
    async def silent(peer: Peer) -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    ended = await play(silent, timeout_s=0.3)
    assert (ended.status, ended.alerts) == ("timeout", ["timeout"])
    assert "0.3 s (`timeout_s`)" in str(ended.error)
    assert 0.3 <= ended.duration <= time.monotonic() - began < 2


async def test_a_program_that_drips_is_timed_out() -> None:
    async def drip(peer: Peer) -> None:
        for byte in HEADER.pack(1_000) + b" " * 900:
            await peer.raw(bytes([byte]))
            await asyncio.sleep(0.01)

    assert (await play(drip, timeout_s=0.3)).status == "timeout"


async def test_a_program_that_never_reads_is_timed_out() -> None:
    async def deaf(peer: Peer) -> None:
        for n in range(1, 101):
            await peer.call(n, value="x" * 500_000)
        await asyncio.Event().wait()

    tools = Tools()
    ended = await play(deaf, tools=tools, timeout_s=0.5)
    assert (ended.status, ended.alerts) == ("timeout", ["timeout"])
    assert 1 <= len(tools.calls) <= 100


async def test_waiting_arguments_are_bounded_and_nothing_is_lost() -> None:
    tools = Tools()
    tools.gate = asyncio.Event()
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent

        async def calls() -> None:
            nonlocal sent
            for n in range(1, 41):
                await peer.call(n, value="x" * 200_000)
                sent = n

        sending = asyncio.create_task(calls())
        await asyncio.wait({sending}, timeout=0.3)
        assert 2 <= sent < 20, "the host took in more than it may hold"
        assert tools.gate is not None
        tools.gate.set()
        for _ in range(40):
            await peer.receive()
        await sending
        await peer.done("all")

    ended = await play(script, tools=tools, frame_bytes=1 << 20, value_bytes=1 << 20, in_flight=2)
    assert (ended.status, ended.value, len(tools.calls)) == ("success", "all", 40)


async def test_calls_in_flight_are_cancelled_when_the_program_is_done() -> None:
    tools = Tools()
    tools.gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.send(*(call(n, "echo") for n in range(1, 6)))
        await tools.begun(2)
        await peer.done("early")

    ended = await play(script, tools=tools, in_flight=2)
    assert (ended.status, ended.value) == ("success", "early")
    assert (tools.now, tools.cancelled, len(tools.calls)) == (0, 2, 2)
    assert len(ended.records) == 5
    assert all(r.error is not None and "cancelled" in r.error for r in ended.records)


async def test_calls_in_flight_are_cancelled_at_the_time_limit() -> None:
    tools = Tools()
    tools.gate = asyncio.Event()
    ended = await play(lambda peer: peer.call(1), tools=tools, timeout_s=0.3)
    assert (ended.status, tools.cancelled, len(ended.records)) == ("timeout", 1, 1)


async def test_a_tool_that_will_not_stop_does_not_hold_the_end_up() -> None:
    free = asyncio.Event()

    async def stubborn(_: ToolCall) -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    ended = await play(lambda peer: peer.call(1), tools=stubborn, timeout_s=0.2)
    free.set()
    assert ended.status == "timeout"
    assert time.monotonic() - began < 3


async def test_cancelling_the_session_cancels_its_calls() -> None:
    tools = Tools()
    tools.gate = asyncio.Event()
    async with channel() as (here, there):
        session = Session(here, Program("", None, TOOLS, "e"), limits=ProgramLimits(), call=tools)
        running = asyncio.create_task(session.run())
        peer = Peer(there)
        await peer.receive()
        await peer.call(1)
        await tools.begun(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (tools.now, tools.cancelled) == (0, 1)


async def test_an_input_that_cannot_be_sent_is_the_callers_error() -> None:
    async with channel() as (here, _):
        for value, error in [(object(), RequestError), ("x" * (17 << 20), LimitExceeded)]:
            session = Session(here, Program("", value, TOOLS, "e"), limits=ProgramLimits(), call=Tools())
            with pytest.raises(error):
                await session.run()


async def test_a_listener_that_fails_is_not_the_programs_fault() -> None:
    def broken(*_: Any) -> None:
        raise ValueError

    ended = await play(lambda peer: peer.send(out("x"), done(1)), listen=broken)
    assert (ended.status, ended.output) == ("success", "x")


# Whatever comes


def some_frame(chance: random.Random, number: int) -> bytes:
    valid = [
        call(number, "echo", value=chance.randint(0, 9)),
        call(chance.randint(0, 3), "echo"),
        call(number, "get_expenses", user_id="a"),
        call(number, "nothing"),
        out("text"),
        out("text", "stderr"),
        {"op": "ready"},
        done(chance.random()),
        done(error={"type": "E", "message": "m"}),
        {"op": chance.choice(["call", "out", "done", "exec", None, 1, []])},
    ]
    body = json.dumps(chance.choices(valid, [9, 1, 5, 3, 9, 5, 1, 1, 1, 1])[0]).encode()
    if chance.random() < 0.05:
        body = bytes(chance.randrange(256) for _ in range(chance.randint(1, 40)))
    if chance.random() < 0.05:
        at = chance.randrange(len(body))
        body = body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
    size = len(body) if chance.random() < 0.97 else chance.choice([0, 1, len(body) + 1, 1 << 31, (1 << 32) - 1])
    return HEADER.pack(size) + body


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_comes_the_session_ends_and_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    tools = Tools()
    number = 0

    async def script(peer: Peer) -> None:
        nonlocal number
        for _ in range(chance.randint(1, 40)):
            data = some_frame(chance, number + 1)
            number += b'"id": %d' % (number + 1) in data
            if chance.random() < 0.05:
                data = data[: chance.randrange(len(data))]
            await peer.raw(data)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        peer.sock.close()

    ended = await play(script, tools=tools, timeout_s=2, in_flight=chance.choice([1, 3, 64]))
    assert ended.status in ("success", "error", "security_error", "timeout")
    assert len(tools.calls) <= number
    assert {c.tool.name for c in tools.calls} <= set(TOOLS)
    json.dumps([r.model_dump() for r in ended.records], allow_nan=False).encode()


# With the real program's side


@contextmanager
def runner(there: socket.socket) -> Iterator[None]:
    """The process that runs programs in the image, here for a harmless one."""
    serve = "import socket, sys; from sandbox_image import program; program.serve(socket.socket(fileno=int(sys.argv[1])))"
    command = [sys.executable, "-c", serve, str(there.fileno())]
    process = subprocess.Popen(command, pass_fds=[there.fileno()], cwd=Path(__file__).resolve().parents[2])
    there.close()
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def test_the_runner_of_the_image_speaks_the_same_protocol() -> None:
    code = """
import asyncio
from datetime import datetime
rows = await asyncio.gather(*(get_expenses(user_id=f"u{n}") for n in range(45)))
print(len(rows), input["greeting"])
try:
    await get_expenses(user=1)
except ToolError as error:
    print(error.code)
sorted(r["user"] for r in rows)[:2]
"""
    stubs = """
from toolweaver_bridge import call_tool
async def get_expenses(**arguments):
    return await call_tool(server="function", tool_name="get_expenses", parameters=arguments)
"""
    together = asyncio.Barrier(45)

    async def expenses(call: ToolCall) -> Any:
        await together.wait()
        return {"user": call.arguments["user_id"]}

    modules, names = {"tools/finance.py": stubs, "tools/__init__.py": ""}, {"get_expenses": "tools.finance"}
    program = Program(code, {"greeting": "hello"}, TOOLS, "code_exec_00000001", modules, names)
    async with channel() as (here, there):
        with runner(there):
            ended = await Session(here, program, limits=ProgramLimits(), call=expenses).run()
    assert (ended.status, ended.error) == ("success", None)
    assert (ended.output, ended.value) == ("45 hello\nbad_input\n", ["u0", "u1"])
    assert [r.error is None for r in ended.records] == [True] * 45 + [False]
