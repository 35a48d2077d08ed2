"""A server as a process: JSON-RPC over its stdin and stdout, its stderr kept, and the whole group of processes ended with it.

The SDK's own transport would do but for three things: it reads lines of any length, it notices a process that died only by its
pipes, and its servers outlive a client that is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anyio import BrokenResourceError, ClosedResourceError, create_memory_object_stream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

MAX_MESSAGE = 16 << 20
"""A server that sends a longer message is not listened to any more."""

MAX_NOISE = 1_000
"""Lines on stdout that are no messages, after which the server is not listened to any more."""

GRACE_S = 1.5
"""How long a server may take to end once its stdin is closed, and again once it is asked to (SIGTERM)."""

LOG_BYTES = 1 << 20
TAIL_LINES, TAIL_LINE = 20, 400
_LINE = 8 << 10
_LAUNCH = str(Path(__file__).with_name("launch.py"))


class Tail:
    """The last lines that a server wrote to stderr; all of them go to a log file of two parts of at most 1 MiB each."""

    def __init__(self, log: Path | None, clean: Callable[[str], str]) -> None:
        self._log, self._clean = log, clean
        self._rest = b""
        self._size = 0
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, chunk: bytes) -> None:
        """Takes what came in; a line without an end counts as one after 8 KiB."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LINE:
            lines, self._rest = [*lines, self._rest], b""
        self._keep([self._clean(line.decode("utf-8", "replace").rstrip("\r")) for line in lines])

    def note(self, text: str) -> None:
        """Adds a line of ours."""
        self._keep([self._clean(text)])

    def end(self) -> None:
        """Takes a last line without an end."""
        if self._rest:
            self.feed(b"\n")

    def text(self, most: int = 3) -> str:
        """The last lines that say something."""
        return "\n".join([line[:TAIL_LINE] for line in self.lines if line.strip()][-most:])

    def _keep(self, lines: Sequence[str]) -> None:
        self.lines.extend(lines)
        if self._log is None or not lines:
            return
        with suppress(OSError):  # a log that cannot be written is no reason to be without the server
            self._write(self._log, "".join(f"{line}\n" for line in lines))

    def _write(self, log: Path, text: str) -> None:
        if not self._size:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._size = log.stat().st_size if log.exists() else 0
        if self._size > LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
            self._size = 0
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as out:
            self._size += out.write(text)


def command_line(command: str, args: Sequence[str], *, env: Mapping[str, str], cwd: str | None) -> list[str] | None:
    """The command with the whole path of its program; None when there is no such program."""
    if "/" in command:
        command = os.path.join(cwd or "", os.path.expanduser(command))
    found = shutil.which(command, path=env.get("PATH"))
    return [found, *args] if found else None


class Pipes:
    """What the two ends of a running server are, why it was given up if it was, and how it ended."""

    def __init__(self, process: asyncio.subprocess.Process, exited: asyncio.Event, tail: Tail) -> None:
        self.process, self.exited, self.tail = process, exited, tail
        self.fault: str | None = None
        self.grace_s = 0.2  # one that has not said a word yet has nothing to bring to an end
        self._incoming, self.read_stream = create_memory_object_stream[SessionMessage | Exception](0)
        self.write_stream, self._outgoing = create_memory_object_stream[SessionMessage](0)

    async def read(self) -> None:
        """Hands on each message, one at a time, until the server ends or sends what it may not."""
        assert self.process.stdout is not None
        noise = 0
        async with self._incoming:
            try:
                while noise < MAX_NOISE:
                    line = await self.process.stdout.readuntil(b"\n")
                    message = _parsed(line) if line.strip() else None
                    if message is not None:
                        await self._incoming.send(message)
                    elif line.strip():
                        noise += 1
                        self.tail.note(f"(stdout, no message) {line[:TAIL_LINE].decode('utf-8', 'replace').strip()}")
                self.fault = f"wrote {MAX_NOISE} lines to stdout that are no messages"
            except asyncio.LimitOverrunError:
                self.fault = f"sent a message of more than {MAX_MESSAGE >> 20} MiB"
            except (asyncio.IncompleteReadError, BrokenResourceError, ClosedResourceError, OSError):
                pass  # it closed its stdout, or we are done with it

    async def write(self) -> None:
        """Sends each message; when the server reads no more, what waits for it hears of that by the closed stream."""
        assert self.process.stdin is not None
        async with self._outgoing:
            try:
                async for item in self._outgoing:
                    self.process.stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                    await self.process.stdin.drain()
            except OSError:
                await self._incoming.aclose()

    async def errors(self) -> None:
        """Keeps what the server says on stderr."""
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(64 << 10):
            self.tail.feed(chunk)
        self.tail.end()

    async def mourn(self, reader: asyncio.Task[None]) -> None:
        """When the process ends, whatever it left running ends too, and nobody waits for its pipes."""
        await self.exited.wait()
        self.signal(signal.SIGKILL)
        await asyncio.wait({reader}, timeout=1.0)
        reader.cancel()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all processes of the server."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    async def ended(self, within: float) -> bool:
        """Whether the process ends within so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), within)
        return self.exited.is_set()

    async def stop(self) -> None:
        """Closes its stdin, asks it to end, ends it: bounded at each step."""
        self.read_stream.close()
        self.write_stream.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        if not await self.ended(self.grace_s):
            self.signal(signal.SIGTERM)
            await self.ended(self.grace_s)

    def cause(self) -> str:
        """How it came to an end, for a message."""
        if self.fault:
            return self.fault
        code = self.process.returncode
        if code is None:
            return "closed its output"
        if code > 128 and code - 128 in set(signal.Signals):
            return f"was ended by {signal.Signals(code - 128).name}"
        return f"ended with exit status {code}"


@asynccontextmanager
async def started(command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, tail: Tail) -> AsyncIterator[Pipes]:
    """The server, running; at the end it is gone, with every process of its group. Raises OSError when it cannot be started."""
    lifeline, held = os.pipe()
    spawning = asyncio.create_task(_spawned(command, env=env, cwd=cwd, lifeline=lifeline, tail=tail))
    try:
        pipes = await asyncio.shield(spawning)
    except BaseException:
        await _abandoned(spawning, held)
        raise
    finally:
        os.close(lifeline)
    reader = asyncio.create_task(pipes.read())
    tasks = [reader, *(asyncio.create_task(c) for c in (pipes.write(), pipes.errors(), pipes.mourn(reader)))]
    try:
        try:
            yield pipes
        finally:
            await pipes.stop()
    finally:
        await _let_go(pipes, held)
        await _over(tasks)
        pipes.process._transport.close()  # type: ignore[attr-defined]  # else its pipes stay open while a stray process holds them


async def _let_go(pipes: Pipes, held: int) -> None:
    os.close(held)  # the launcher ends all that is left, and then itself
    try:
        await pipes.ended(1.0)
    finally:
        pipes.signal(signal.SIGKILL)


async def _abandoned(spawning: asyncio.Task[Pipes], held: int) -> None:
    """Ends a server that was given up while it started.

    asyncio would kill the launcher alone, and what that had started by then would live on if it bears the end of its stdin.
    """
    try:
        await asyncio.wait({spawning})
    finally:
        if spawning.done() and not spawning.cancelled() and spawning.exception() is None:
            pipes = spawning.result()
            await _let_go(pipes, held)
            pipes.process._transport.close()  # type: ignore[attr-defined]
        else:
            os.close(held)


async def _over(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks, timeout=1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _spawned(command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, lifeline: int, tail: Tail) -> Pipes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _Watched(loop), sys.executable, "-I", "-S", _LAUNCH, str(lifeline), *command,
        stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(env), cwd=cwd, pass_fds=(lifeline,), start_new_session=True,
    )  # fmt: skip
    return Pipes(asyncio.subprocess.Process(transport, protocol, loop), protocol.exited, tail)


class _Watched(SubprocessStreamProtocol):
    """Says when the process ended; asyncio's own `wait` waits for its pipes too, which others may hold open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=MAX_MESSAGE, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        self.exited.set()
        super().process_exited()


def _parsed(line: bytes) -> SessionMessage | None:
    with suppress(ValueError):
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    if not line.lstrip().startswith(b"{"):
        return None
    with suppress(ValueError, RecursionError):  # half a character is no reason to wait for an answer that came
        whole = json.dumps(json.loads(line.decode("utf-8", "replace")), ensure_ascii=False).encode("utf-8", "replace")
        return SessionMessage(jsonrpc_message_adapter.validate_json(whole, by_name=False))
    return None
