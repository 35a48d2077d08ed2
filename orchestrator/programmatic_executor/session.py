"""One execution of a program, seen from the host: a state machine over one socket that believes nothing of what comes out of it.

The container may send anything at any time. Whatever it sends, the session ends by its limit, calls nothing that was not
granted, holds a few frames of memory, and says how it went. Ids, callers, times and the status are the host's own.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import LimitExceeded, PlanError, PolicyError, RequestError, ToolError, ToolWeaverError
from orchestrator.models.program import Alert, Caller, CallRecord, ProgramLimits, Status
from orchestrator.models.tool import ToolDefinition
from orchestrator.programmatic_executor.arguments import ArgumentCheck
from orchestrator.programmatic_executor.frames import (
    FrameError,
    FrameReader,
    FrameWriter,
    TooManyValues,
    count_values,
    decode,
    encode,
)

log = logging.getLogger(__name__)

Frame = bytes | bytearray

ARGUMENT_BYTES = 4 << 20
"""Arguments of one call, as JSON."""
ARGUMENT_VALUES = 100_000
"""Values in the arguments of one call; lists and objects count thrice."""
CANCEL_GRACE_S = 1.0
"""How long the end of a session waits for its cancelled calls."""

_TURN_FRAMES = 256  # taken in one turn of the loop, about 5 ms
_FRAME_COST = 1 << 10  # the least that a frame counts, so that a flood of tiny ones ends too
_PATIENCE = 1_000  # calls answered after the limit of calls, before a program that cannot stop is stopped
_FEW_BYTES = 4 << 10  # too few to be worth a count
_VALUE_BYTES = 64  # what a value costs in memory, about, besides its text
_KEPT_BYTES = 8 << 10  # arguments that a record keeps whole
_MOST_MESSAGE, _MOST_TRACEBACK, _MOST_NAME = 4_000, 16_000, 200
_KEY = re.compile(r"0(\.[a-z]{0,8}\d{1,9})*:\d{1,9}", re.ASCII)
_CALL = re.compile(rb'\{"op": ?"call", ?"id": ?\d{1,9}, ?"key": ?"[^"\\]{1,4096}", ?"tool": ?"[^"\\]{0,1000}", ?"args": ?(?=\{)')
_LARGE = re.compile(rb'\{"op": ?"(out|done)",')
_MOST_KEY = 4_096  # a thousand tasks, each begun by the one before
_TOO_MUCH = f"The arguments have more than {ARGUMENT_BYTES >> 20} MiB or {ARGUMENT_VALUES} values. Pass a file, or send less."
_TOLD = (ToolError, RequestError, PolicyError, PlanError)  # their messages are written for who made the call


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a program makes: granted, counted and checked."""

    id: int
    key: str
    """Names the call within the program whatever the timing, so that a rerun finds the recorded answer: `<task>:<n>`."""
    tool: ToolDefinition
    arguments: dict[str, Any]
    caller: Caller


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be run: the code, its input, and the tools that it may call (no others)."""

    code: str
    input_data: Any
    tools: Mapping[str, ToolDefinition]
    execution_id: str
    modules: Mapping[str, str] = field(default_factory=dict)
    """Stubs by path, such as `tools/finance.py`."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The module that a tool's plain name comes from, such as `{"get_expenses": "tools.finance"}`."""


@dataclass(frozen=True, slots=True)
class ProgramFailure:
    """How a program failed. What it says of itself is the program's own word."""

    type: str
    message: str
    line: int | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        return f"{self.type}: {self.message}{where}"


@dataclass(slots=True)
class Ended:
    """How a session ended, and all that came of it."""

    status: Status
    value: Any = field(default=None, repr=False)
    has_value: bool = False
    output: str = field(default="", repr=False)
    """What the program printed on stdout; `errors`: on stderr. Both together are bounded; `truncated`: there was more."""
    errors: str = field(default="", repr=False)
    truncated: bool = False
    error: ProgramFailure | None = None
    records: list[CallRecord] = field(default_factory=list, repr=False)
    alerts: list[Alert] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    duration: float = 0.0
    closed: bool = False
    """The channel closed before the program said that it was done: its process or its container died."""


@dataclass(slots=True)
class _Open:
    """A call that has no answer yet. `size`: bytes of its frame; `weight`: about what its arguments hold in memory."""

    call: ToolCall
    size: int
    weight: int
    began: float
    timestamp: float
    task: asyncio.Task[None] | None = None


class Session:
    """Runs one program in a container that waits at the other end of `sock`.

    `call` answers the program's calls; what it raises becomes an error inside the program. `on_output` is told of what is
    printed (stream, text) and `on_call` of each call that ended. The socket stays open: it is its owner's.
    """

    def __init__(
        self,
        sock: socket.socket,
        program: Program,
        *,
        limits: ProgramLimits,
        call: Callable[[ToolCall], Awaitable[Any]],
        on_output: Callable[[str, str], None] | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self._sock, self._program, self._limits, self._call = sock, program, limits, call
        self._on_output, self._on_call = on_output, on_call
        self._result = Ended("error")
        self._over: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._writer: FrameWriter
        self._reader = FrameReader(sock, frame_bytes=limits.frame_bytes)
        self._reading = False
        self._seen_ready = False
        self._began = 0.0
        self._spent = self._answered = 0
        self._exhausted = False
        self._printed = 0
        self._texts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._last_id = 0
        self._keys: set[str] = set()
        self._open: dict[int, _Open] = {}
        self._running = 0
        self._held = 0
        self._waiting: deque[_Open] = deque()
        self._records: dict[int, CallRecord] = {}
        self._checks: dict[str, ArgumentCheck] = {}
        self._ops: dict[Any, Callable[[dict[str, Any], Frame], None]] = {
            "call": self._on_call_frame,
            "out": self._on_out,
            "done": self._on_done,
            "ready": self._on_ready,
        }

    async def run(self) -> Ended:
        """Starts the program and returns how it ended: done, failed, out of time, caught, or gone. Its open calls are cancelled.

        Nothing that the container does raises. To be called once.

        Raises:
            RequestError: the program's input is no JSON.
            LimitExceeded: code, input and stubs are larger than a frame.
        """
        frame = self._exec_frame()
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._writer = FrameWriter(self._loop, self._sock)
        self._sock.setblocking(False)
        self._began = self._loop.time()
        alarm = self._loop.call_at(self._began + self._limits.timeout_s, self._time_out)
        try:
            self._writer.send(frame)
            self._read(True)
            await self._over
        finally:
            alarm.cancel()
            self._end_quietly()
            self._read(False)
            self._writer.close()
            await self._cancel_calls()
        return self._ended()

    # What comes in

    def _read(self, wanted: bool) -> None:
        if wanted and not self._reading:
            self._loop.add_reader(self._sock, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._sock)
        self._reading = wanted

    def _readable(self) -> None:
        try:
            for number, frame in enumerate(self._reader.frames(), 1):
                self._take(frame)
                if not self._reading or self._over.done():
                    return
                if number == _TURN_FRAMES:
                    self._loop.call_soon(self._read_on)  # others have their turn first
                    return
        except EOFError:
            self._gone()
        except TooManyValues as error:
            self._fail("LimitExceeded", f"The program sent {error}. Return less, or aggregate it first.")
        except FrameError as error:
            self._violated(str(error))
        except Exception:  # whatever it was, the program does not go on
            log.exception("a frame of a program could not be taken", extra={"action": "program.frame"})
            self._fail("SandboxError", "The platform could not read what the program sent.")

    def _take(self, frame: Frame) -> None:
        self._spent += max(len(frame), _FRAME_COST)
        if self._spent > self._limits.total_bytes:
            raise FrameError(f"more than {self._limits.total_bytes} bytes in all (`total_bytes`)")
        message = _outsized(frame) or decode(frame, depth=self._limits.depth)
        op = message.get("op")
        handle = self._ops.get(op) if isinstance(op, str) else None
        if handle is None:
            raise FrameError(f"a frame with the operation {_short(op)}")
        handle(message, frame)

    def _on_ready(self, _message: dict[str, Any], _frame: Frame) -> None:
        if self._seen_ready or self._last_id or self._printed:
            raise FrameError("`ready` after the program began")
        self._seen_ready = True

    def _on_out(self, message: dict[str, Any], _frame: Frame) -> None:
        stream, text = message.get("stream"), message.get("text")
        if stream not in ("stdout", "stderr") or not isinstance(text, str):
            raise FrameError("output that is no text of stdout or stderr")
        kept = _first_bytes(text, self._limits.output_bytes - self._printed)
        self._result.truncated |= len(kept) < len(text)
        if kept:
            self._printed += len(kept.encode())
            self._texts[stream].append(kept)
            _tell(self._on_output, stream, kept)

    def _on_done(self, message: dict[str, Any], frame: Frame) -> None:
        error, has_value = message.get("error"), message.get("has_value")
        if not isinstance(has_value, bool):
            raise FrameError("`done` without `has_value`")
        told = _told_error(error) if error is not None else None
        if self._reader.left_over:
            raise FrameError("something after `done`")
        if len(frame) > self._limits.value_bytes + _FRAME_COST + _MOST_TRACEBACK:
            told = ProgramFailure(
                "LimitExceeded", f"The value has more than {self._limits.value_bytes} bytes (`value_bytes`); return less."
            )
        self._result.truncated |= message.get("truncated") is True
        if told is None:
            self._result.value, self._result.has_value = message.get("value") if has_value else None, has_value
        elif told.type == "MemoryError":
            self._alert("memory")
        self._end("success" if told is None else "error", told)

    def _on_call_frame(self, message: dict[str, Any], frame: Frame) -> None:
        number, key, name, arguments = (message.get(n) for n in ("id", "key", "tool", "args"))
        if type(number) is not int or number != self._last_id + 1:
            raise FrameError(f"a call with the id {_short(number)} after {self._last_id}")
        if not isinstance(key, str) or len(key) > _MOST_KEY or not _KEY.fullmatch(key) or key in self._keys:
            raise FrameError(f"a call with the key {_short(key)}")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise FrameError("a call without a tool's name or without arguments")
        self._last_id = number
        if number > self._limits.calls:
            self._refuse_more(number)
        else:
            self._keys.add(key)
            self._accept(number, key, name=name, arguments=arguments, frame=frame)

    # Calls

    def _accept(self, number: int, key: str, *, name: str, arguments: dict[str, Any], frame: Frame) -> None:
        caller = Caller(type="code_execution", execution_id=self._program.execution_id, tool_id=f"tool_call_{number}")
        tool, values = self._program.tools.get(name), count_values(frame) if len(frame) > _FEW_BYTES else 0
        known = tool or ToolDefinition.model_construct(name=_clip(name, _MOST_NAME))
        call = ToolCall(number, key, known, arguments, caller)
        entry = _Open(call, len(frame), len(frame) + _VALUE_BYTES * values, self._loop.time(), time.time())
        self._open[number] = entry
        if tool is None:
            self._refuse(entry, "unknown_tool", self._no_such_tool(name))
        elif len(frame) > ARGUMENT_BYTES or values > ARGUMENT_VALUES:
            self._refuse(entry, "limit_exceeded", _TOO_MUCH)
        elif self._exhausted:
            self._refuse(entry, "result_too_large", self._no_more_results())
        else:
            self._wait_for_turn(entry)

    def _wait_for_turn(self, entry: _Open) -> None:
        self._held += entry.weight
        self._waiting.append(entry)
        self._pump()
        if self._held > self._limits.frame_bytes:  # reads no more until some of what it holds is done
            self._read(False)

    def _pump(self) -> None:
        while self._waiting and self._running < self._limits.in_flight and not self._over.done():
            entry = self._waiting.popleft()
            self._running += 1
            entry.began, entry.timestamp = self._loop.time(), time.time()
            entry.task = self._loop.create_task(self._serve(entry))

    async def _serve(self, entry: _Open) -> None:
        try:
            await self._serve_within(entry)
        finally:
            self._running -= 1
            self._held -= entry.weight
            if not self._over.done():
                self._pump()
                if not self._reading and self._held <= self._limits.frame_bytes:
                    self._read(True)
                    self._loop.call_soon(self._read_on)  # frames that are here already make no socket readable

    def _read_on(self) -> None:
        if self._reading and not self._over.done():
            self._readable()

    async def _serve_within(self, entry: _Open) -> None:
        call = entry.call
        try:
            check = self._check(call.tool)
            if not check.plainly_right(call.arguments):
                problem = await check.problem(call.arguments)
                if problem is not None:
                    self._refuse(entry, "bad_input", problem)
                    return
            value = await self._call(call)
        except asyncio.CancelledError:
            if self._over.done():
                raise
            self._refuse(entry, "cancelled", f"The call of `{call.tool.name}` was cancelled.")
        except Exception as error:
            self._refuse(entry, *_told_failure(call.tool.name, error))
        else:
            self._answer(entry, value)

    def _check(self, tool: ToolDefinition) -> ArgumentCheck:
        found = self._checks.get(tool.name)
        if found is None:
            found = self._checks[tool.name] = ArgumentCheck(tool)
        return found

    def _answer(self, entry: _Open, value: Any) -> None:
        if self._over.done():
            return
        if self._exhausted:
            self._refuse(entry, "result_too_large", self._no_more_results())
            return
        try:
            text = encode(value, depth=self._limits.depth)
        except FrameError as error:
            self._refuse(entry, "bad_output", f"`{entry.call.tool.name}` returned {error}.")
            return
        if (problem := self._too_large(entry.call.tool.name, len(text))) is not None:
            self._refuse(entry, "result_too_large", problem)
            return
        self._answered += len(text)
        self._write(b'{"op":"result","id":%d,"value":' % entry.call.id, text, b"}")
        self._record(entry, result_size=len(text))

    def _too_large(self, tool: str, size: int) -> str | None:
        limits = self._limits
        if size > min(limits.value_bytes, limits.frame_bytes - _FRAME_COST):
            return f"`{tool}` returned {size} bytes; `value_bytes` allows {limits.value_bytes}. Ask it for less, or in pages."
        self._exhausted |= self._answered + size > limits.total_bytes
        return self._no_more_results() if self._exhausted else None

    def _no_more_results(self) -> str:
        return f"The tools answered more than {self._limits.total_bytes} bytes in all (`total_bytes`). Ask them for less."

    def _refuse(self, entry: _Open, code: str, message: str) -> None:
        self._write_error(entry.call.id, code, message)
        self._record(entry, error=message)

    def _refuse_more(self, number: int) -> None:
        limit = self._limits.calls
        self._alert("call_limit")
        if number > limit + _PATIENCE:
            self._fail("LimitExceeded", f"The program went on calling tools after its limit of {limit} calls.")
            return
        self._write_error(
            number, "call_limit", f"A program may make {limit} tool calls (`calls`). Ask for more at once, in fewer calls."
        )

    def _no_such_tool(self, name: str) -> str:
        names = sorted(self._program.tools)
        near = get_close_matches(name[:_MOST_NAME], names, n=1)
        move = f"Did you mean `{near[0]}`?" if near else f"It may call: {_clip(', '.join(names), 500) or 'none'}."
        return f"This program has no tool `{_clip(name, 80)}`. {move}"

    def _write_error(self, number: int, code: str, message: str) -> None:
        error = {"type": "ToolError", "code": code, "message": message}
        self._write(encode({"op": "result", "id": number, "error": error}, depth=self._limits.depth))

    def _write(self, *parts: bytes) -> None:
        if not self._over.done():
            self._writer.send(*parts, at_once=self._running <= 1)

    def _record(self, entry: _Open, *, result_size: int | None = None, error: str | None = None) -> None:
        if self._open.pop(entry.call.id, None) is None:
            return
        call, duration = entry.call, max(0.0, self._loop.time() - entry.began)
        record = self._records[call.id] = CallRecord(
            tool=call.tool.name,
            type=call.tool.type,
            parameters=call.arguments if entry.size <= _KEPT_BYTES else _outline(call.arguments),
            timestamp=entry.timestamp,
            completed_at=entry.timestamp + duration,
            duration=duration,
            result_size=result_size,
            error=error,
            caller=call.caller,
        )
        _tell(self._on_call, record)

    # The end

    def _time_out(self) -> None:
        self._alert("timeout")
        limit = f"{self._limits.timeout_s:g} s"
        message = f"The program ran longer than {limit} (`timeout_s`). Do less, or make calls at once with asyncio.gather."
        self._end("timeout", ProgramFailure("TimeoutError", message))

    def _gone(self) -> None:
        self._result.closed = True
        self._fail("SandboxError", "The program's process ended before the program was done; it may have used too much memory.")

    def _violated(self, why: str) -> None:
        self._alert("violation")
        self._end("security_error", ProgramFailure("SecurityError", f"The program broke the protocol of its sandbox: {why}."))

    def _fail(self, kind: str, message: str) -> None:
        self._end("error", ProgramFailure(kind, message))

    def _alert(self, alert: Alert) -> None:
        if alert not in self._result.alerts:
            self._result.alerts.append(alert)

    def _end(self, status: Status, error: ProgramFailure | None) -> None:
        if not self._over.done():
            self._result.status, self._result.error = status, error
            self._result.duration = self._loop.time() - self._began
            self._over.set_result(None)

    def _end_quietly(self) -> None:
        if not self._over.done():
            self._over.cancel()

    async def _cancel_calls(self) -> None:
        self._waiting.clear()
        tasks = [e.task for e in self._open.values() if e.task is not None and not e.task.done()]
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)
        finally:
            for entry in list(self._open.values()):
                self._record(entry, error="The program ended before the call did; the call was cancelled.")

    def _ended(self) -> Ended:
        result = self._result
        result.output, result.errors = "".join(self._texts["stdout"]), "".join(self._texts["stderr"])
        result.records = [self._records[n] for n in sorted(self._records)]
        result.bytes_in, result.bytes_out = self._writer.sent, self._reader.received
        return result

    def _exec_frame(self) -> bytes:
        program, limits = self._program, self._limits
        message = {
            "op": "exec",
            "code": program.code,
            "input": program.input_data,
            "modules": dict(program.modules),
            "names": dict(program.names),
            "seed": program.execution_id,
            "limits": {
                "output_bytes": limits.output_bytes,
                "in_flight": limits.in_flight,
                "frame_bytes": limits.frame_bytes,
                "value_bytes": limits.value_bytes,
                "depth": limits.depth,
            },
        }
        try:
            frame = encode(message, depth=limits.depth + 2)
        except FrameError as error:
            raise RequestError(f"The program's input cannot be sent: {error}.", next="Pass plain JSON values.") from None
        if len(frame) > limits.frame_bytes:
            raise LimitExceeded(
                f"Code, input and stubs of the program have {len(frame)} bytes; `frame_bytes` allows {limits.frame_bytes}.",
                next="Pass large values as files, by reference.",
            )
        return frame


def _outsized(frame: Frame) -> dict[str, Any] | None:
    """A call whose arguments are too many to be taken in, without them: what they would become is many times their bytes.

    Raises:
        FrameError: it is as large and neither call, output nor end.
    """
    if len(frame) <= _FEW_BYTES:
        return None
    call = _CALL.match(frame)
    if call is None:
        if len(frame) > ARGUMENT_BYTES and not _LARGE.match(frame):
            raise FrameError(f"a frame of {len(frame)} bytes of no known kind")
        return None
    if len(frame) <= ARGUMENT_BYTES and (len(frame) <= ARGUMENT_VALUES or count_values(frame) <= ARGUMENT_VALUES):
        return None
    return decode(call[0] + b"{}}", depth=2)


def _told_error(error: Any) -> ProgramFailure:
    """What the program says of its failure, cut to what may be kept.

    Raises:
        FrameError: it does not have the fields that it must have.
    """
    if not isinstance(error, dict):
        raise FrameError("`done` with an error that is no object")
    kind, message, line, trace = (error.get(n) for n in ("type", "message", "line", "traceback"))
    if not isinstance(kind, str) or not isinstance(message, str) or not isinstance(trace, str | None):
        raise FrameError("`done` with an error without type or message")
    line = line if type(line) is int and 0 <= line < 1 << 31 else None
    return ProgramFailure(_clip(kind, _MOST_NAME), _clip(message, _MOST_MESSAGE), line, trace and _clip(trace, _MOST_TRACEBACK))


def _told_failure(tool: str, error: Exception) -> tuple[str, str]:
    """Code and message of a failed call, for the program: nothing of the host's inside."""
    if isinstance(error, _TOLD):
        return error.code, _clip(str(error), _MOST_MESSAGE)
    if isinstance(error, ToolWeaverError):
        return error.code, f"`{tool}` could not be run: {(type(error).__doc__ or '').strip().splitlines()[0]}"
    if isinstance(error, TimeoutError):
        return "timeout", f"`{tool}` took too long."
    log.warning("a tool called by a program failed", exc_info=error, extra={"action": "program.call", "tool": tool})
    return "internal", f"`{tool}` failed inside the platform; the operator finds the reason in the log."


def _outline(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a record that cannot hold all of them: the small ones whole, of the others the size."""
    kept: dict[str, Any] = {}
    for name in list(arguments)[:64]:
        size = len(encode(arguments[name], depth=1_000))
        kept[_clip(name, _MOST_NAME)] = arguments[name] if size <= 128 else f"({size} bytes of JSON)"
    return kept


def _first_bytes(text: str, most: int) -> str:
    """As much of a text as its UTF-8 fits into so many bytes."""
    if len(text) * 4 <= most:
        return text
    return text[: max(0, most)].encode()[: max(0, most)].decode("utf-8", "ignore")


def _tell(listener: Callable[..., None] | None, *news: Any) -> None:
    if listener is None:
        return
    try:
        listener(*news)
    except Exception:  # a listener's fault is not the program's
        log.exception("a listener of a program failed")


def _short(value: Any) -> str:
    """A value of unknown kind and size, safe to show."""
    return repr(_clip(value, 40)) if isinstance(value, str) else str(value) if isinstance(value, bool | float) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 63 else "a huge number"
    return "null" if value is None else f"a {type(value).__name__}"


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
