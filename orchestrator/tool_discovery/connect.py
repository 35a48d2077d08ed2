"""One live connection to an MCP server, of either generation of the protocol.

A connection lives in a task of its own, which alone enters and leaves the SDK's contexts; requests run in tasks of their own
too. So nobody who waits for a server is ever held longer than asked: whatever hangs is left behind and ended elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from orchestrator.errors import BackendError, RequestError, ToolError, ToolTimeout, ToolWeaverError
from orchestrator.extras import DISTRIBUTION, install_command
from orchestrator.settings import Settings
from orchestrator.tool_discovery.servers import ServerConfig, resolve_secrets

try:
    from mcp import ClientSession, MCPError
    from mcp.client.stdio import get_default_environment
    from mcp_types import Implementation, InputRequiredResult

    from orchestrator.tool_discovery import session as sessions
    from orchestrator.tool_discovery import stdio, web
except ImportError:
    raise RequestError("MCP servers need the package `mcp`", next=f"Run `{install_command('mcp')}`.") from None

T = TypeVar("T")
Progress = Callable[[float, float | None, str | None], Awaitable[None]]

MOST_TOOLS, MOST_BYTES = 2_000, 16 << 20
MOST_MESSAGE, MOST_NAME = 2_000, 200
PROBE_S = 10.0
"""How long a server may think about what protocol it speaks, before it is asked in the old way."""

STARTS, TURN_S = 6, 1.0
"""So many processes start at once, each for at most so long: more would wait for one another until nobody is in time."""

CLOSE_S = 8.0
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_CODES = {-32602: "bad_input", -32601: "unknown_method", -32020: "header_mismatch"}
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|cookie|session", re.IGNORECASE)
_NAMED = re.compile(r"-{0,2}[A-Za-z_][\w-]*")
_SHORT = 6  # a value of fewer characters would be struck out of words that have nothing to do with it


class ServerUnreachable(BackendError):
    """The server did not start, did not answer, or broke off. `sent`: whether it may have begun with the call."""

    code = "server_unreachable"

    def __init__(self, message: str | None = None, *, sent: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.sent = sent


class ServerTimeout(ToolTimeout):
    """The server did not answer in time. It was told to stop; whether it did is not known."""

    code = "server_timeout"


@dataclass(frozen=True)
class Listing:
    """The tools of a server as it sent them, and what was wrong with the list; `total` counts those beyond the limit too."""

    tools: tuple[Any, ...]
    problems: tuple[str, ...] = ()
    total: int = 0


@dataclass(frozen=True)
class CallResult:
    """What a tool gave: blocks of content in MCP's own form, `structured` where `has_structured`; `is_error`: it failed."""

    content: list[dict[str, Any]] = field(default_factory=list)
    structured: Any = None
    has_structured: bool = False
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text blocks, one after another."""
        return "\n".join(b["text"] for b in self.content if b.get("type") == "text" and isinstance(b.get("text"), str))


@asynccontextmanager
async def connect(
    server: ServerConfig,
    *,
    settings: Settings,
    on_tools_changed: Callable[[], None] | None = None,
    log: Path | None = None,
) -> AsyncIterator[Connection]:
    """A connection to the server, closed at the end with all that it started; `log` takes what the server says on stderr.

    `on_tools_changed` is called (on this loop) whenever the server says that its tools are others now.
    Raises ServerUnreachable, with the server's last words, when it cannot be had within its connect timeout (which
    begins when it is its turn to be started); RequestError when a secret is not set or the extra `mcp` is not installed.
    """
    limit = server.connect_timeout_s or settings.server_connect_s
    async with _turn(server):
        connection = await _opened(server, limit, changed=on_tools_changed, log=log)
    try:
        yield connection
    finally:
        await connection.close()


class Connection:
    """A connection that `connect` made. `closed` is set when it broke, whoever is to blame; it does not come back then."""

    def __init__(self, server: ServerConfig, *, changed: Callable[[], None] | None, log: Path | None, legacy: bool) -> None:
        self.server = server
        self.protocol = self.server_name = self.server_version = ""
        self.instructions: str | None = None
        self.closed = asyncio.Event()
        self.error: str | None = None
        self.due = 0.0  # when its connect timeout is over, by the monotonic clock
        self._changed, self._log, self._legacy = changed, log, legacy
        self._secrets: set[str] = set()
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._listing = asyncio.Lock()
        self._session: ClientSession | None = None
        self._wire: sessions.Wire | None = None
        self._pipes: stdio.Pipes | None = None

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        return self._session is not None and self._wire is not None and not (self.closed.is_set() or self._wire.ended.is_set())

    async def list_tools(self, *, most: int = MOST_TOOLS, most_bytes: int = MOST_BYTES, timeout_s: float = 30.0) -> Listing:
        """All pages of the server's tools, as they came: the first `most` by name, of no more than `most_bytes` in all.

        Raises as `call` does.
        """
        session, wire = self._talking()
        async with self._listing:
            pages = sessions.pages(session, wire, most_bytes=most_bytes)
            return _listed(*await self._within(pages, timeout_s, "list its tools"), most)

    async def call(
        self,
        native: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        on_progress: Progress | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> CallResult:
        """Calls a tool. Cancelling this, or the time running out, tells the server to stop.

        Raises ServerUnreachable (`sent` says whether the server may have begun), ServerTimeout, and ToolError where the server
        refused the call: code `bad_input`, `needs_input` when it wants to ask a person or a model, `server_error` and others.
        """
        session, _ = self._talking()
        work = sessions.called(session, native, dict(arguments), progress=on_progress and _Latest(on_progress), meta=meta)
        result = await self._within(work, timeout_s, f"answer a call of `{native}`")
        if isinstance(result, InputRequiredResult):
            raise self._failed("it wants to be answered questions first, which nobody can here", code="needs_input")
        content = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
        return CallResult(
            content=[self._decent(block) for block in content] if result.is_error else content,
            structured=result.structured_content,
            has_structured="structured_content" in result.model_fields_set,
            is_error=bool(result.is_error),
        )

    async def ping(self, *, timeout_s: float = 10.0) -> None:
        """Returns when the server answers; raises as `call` does."""
        session, _ = self._talking()
        await self._within(sessions.pinged(session), timeout_s, "answer a ping")

    async def open(self, limit: float) -> None:
        """Connects; returns when the protocol is agreed upon. `connect` calls it."""
        self._owner = asyncio.create_task(self._live(limit), name=f"mcp:{self.server.name}")
        done, _ = await asyncio.wait({self._ready}, timeout=max(limit, 0.0))
        if not done:
            raise self._gone(f"did not answer within {limit:.3g} s", sent=False)
        self._ready.result()

    async def close(self) -> None:
        """Ends the connection and the server's processes, in bounded time whatever they do. `connect` calls it."""
        self._stop.set()
        if self._owner is not None:
            if self._session is None:
                self._owner.cancel()  # it waits for an answer that nobody wants any more
            await asyncio.wait({self._owner}, timeout=CLOSE_S)
            if not self._owner.done():
                await self._abandon(self._owner)
        for task in self._running:
            task.cancel()

    @property
    def died_of_the_question(self) -> bool:
        """Whether the server ended while it was asked for its protocol: some old ones bear no question before `initialize`."""
        return not self._legacy and self._wire is not None and self._wire.asking and self.closed.is_set()

    async def _live(self, limit: float) -> None:
        """The task that owns the contexts, from the start of the server to its end."""
        try:
            async with AsyncExitStack() as stack:
                await self._enter(stack, limit)
                self._ready.set_result(None)
                await self._until_over()
        except ToolWeaverError as e:  # in words already, such as of a secret that is not set
            self._settle(e)
        except Exception as e:
            self.error = self.error or self._reason(e)
        finally:
            self._settle()

    async def _enter(self, stack: AsyncExitStack, limit: float) -> None:
        read, write = await (self._start(stack) if self.server.command else self._reach(stack))
        self._wire = wire = sessions.Wire(read, write, probe_s=min(PROBE_S, limit / 2))
        us = Implementation(name=DISTRIBUTION, version=metadata.version(DISTRIBUTION))
        session = await stack.enter_async_context(ClientSession(dispatcher=wire, client_info=us, message_handler=self._heard))
        await sessions.negotiate(session, wire, legacy=self._legacy)
        self._introduced(session)
        if self._changed and sessions.tells_changes(session):
            stack.push_async_callback(_ended, asyncio.create_task(sessions.watch(session, self._changed)))

    async def _start(self, stack: AsyncExitStack) -> tuple[Any, Any]:
        server, program = self.server, self._value(self.server.command or "")
        env = get_default_environment() | {k: self._value(v, k) for k, v in server.env.items()}
        cwd = str(Path(self._value(server.cwd)).expanduser()) if server.cwd else None
        flags = ("", *server.args)  # what follows `--api-key` is a secret, even where it is written down as it is
        args = [self._argument(a, after=flag) for flag, a in zip(flags, server.args, strict=False)]
        command = stdio.command_line(program, args, env=env, cwd=cwd)
        if command is None:
            raise self._gone(f"there is no program `{program}`", sent=False, next="Install it, or give its whole path.")
        tail = stdio.Tail(self._log, self.clean)
        self._pipes = await stack.enter_async_context(stdio.started(command, env=env, cwd=cwd, tail=tail))
        return self._pipes.read_stream, self._pipes.write_stream

    async def _reach(self, stack: AsyncExitStack) -> tuple[Any, Any]:
        headers = {k: self._value(v, "key") for k, v in self.server.headers.items()}
        http = await stack.enter_async_context(web.client(headers, self._trouble))
        read, write = await stack.enter_async_context(web.streams(self._value(self.server.url or ""), http))
        return read, write

    def _trouble(self, request_id: Any, trouble: web.Trouble) -> None:
        if self._wire is not None:
            self._wire.note(request_id, trouble)

    async def _until_over(self) -> None:
        assert self._wire is not None
        waiting = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._wire.ended.wait())]
        await asyncio.wait(waiting, return_when=FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self._stop.is_set():
            self.error = await self._why()
            self._settle()

    async def _why(self) -> str:
        """Why the connection ended by itself."""
        if self._wire is not None and self._wire.fatal:
            return self._wire.fatal
        if self._pipes is None:
            return "ended the connection"
        await self._pipes.ended(0.5)
        return self._pipes.cause()

    def _settle(self, error: ToolWeaverError | None = None) -> None:
        self.closed.set()
        if not self._over.done():
            self._over.set_result(None)
        if not self._ready.done():
            self._ready.set_exception(error or self._gone(self.error or "ended at once", sent=False))
            self._ready.exception()  # seen: nobody may be waiting any more

    def _introduced(self, session: ClientSession) -> None:
        info = session.server_info
        self.protocol = session.protocol_version or ""
        self.server_name, self.server_version = (info.name[:MOST_NAME], info.version[:MOST_NAME]) if info else ("", "")
        self.instructions = session.instructions
        self._session = session
        if self._pipes is not None:
            self._pipes.grace_s = stdio.GRACE_S

    async def _heard(self, message: Any) -> None:
        if self._changed and getattr(message, "method", None) == "notifications/tools/list_changed":
            self._changed()

    async def _within(self, work: Coroutine[Any, Any, T], limit: float, what: str) -> T:
        """The outcome of a request in a task of its own: nobody waits longer than asked, whatever the request does."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            both: set[asyncio.Future[Any]] = {task, self._over}
            await asyncio.wait(both, timeout=limit, return_when=FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if self._over.done() and not task.done():  # it may know better than the connection whether it was sent
            await asyncio.wait({task}, timeout=1.0)
        if task.done():
            return await self._outcome(task)
        task.cancel()
        if self._over.done():
            raise self._gone(self.error or "ended the connection", sent=True)
        words = self._pipes.tail.text(1) if self._pipes else ""
        said = f"; the last that it said: {words}" if words else ""
        raise ServerTimeout(self.clean(f"server `{self.server.name}` did not {what} within {limit:g} s{said}"), retryable=True)

    async def _outcome(self, task: asyncio.Task[T]) -> T:
        try:
            return task.result()
        except sessions.Refused as e:
            raise self._gone(e.trouble.reason, sent=e.trouble.sent, next=_move(e.trouble.status)) from e
        except MCPError as e:
            if not sessions.is_broken(e):
                raise self._failed(f"{e.message} ({e.code})", code=_CODES.get(e.code, "server_error")) from e
            await asyncio.wait({self._over}, timeout=1.0)
            raise self._gone(self.error or e.message, sent=True) from e
        except ValidationError as e:
            problem = e.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise self._failed(f"its answer is against the protocol: {where}: {problem['msg']}", code="bad_answer") from e

    def _talking(self) -> tuple[ClientSession, sessions.Wire]:
        if not self.alive or self._session is None or self._wire is None:
            raise self._gone(self.error or "is not connected any more", sent=False)
        return self._session, self._wire

    def _failed(self, message: str, *, code: str) -> ToolError:
        return ToolError(f"server `{self.server.name}`: {self.clean(message)[:MOST_MESSAGE]}", code=code)

    def _gone(self, reason: str, *, sent: bool, next: str | None = None) -> ServerUnreachable:
        words = self._pipes.tail.text() if self._pipes else ""
        said = f". It said:\n{words}" if words else ""
        return ServerUnreachable(self.clean(f"server `{self.server.name}` {reason}{said}"), sent=sent, next=next)

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, MCPError) and sessions.is_broken(error) and self._pipes:
            return self._pipes.cause()
        if isinstance(error, sessions.Refused):
            return f"{error.trouble.reason}. {_move(error.trouble.status) or ''}".rstrip(". ")
        return f"cannot be connected: {self.clean(str(error)) or type(error).__name__}"

    def _value(self, text: str, name: str = "") -> str:
        value = resolve_secrets(text, found=self._secrets)
        if _SECRET_NAME.search(name):
            self._secrets.update([value, *value.split()])
        return value

    def _argument(self, text: str, *, after: str) -> str:
        """The value of a word of the command; `--key=value` and `KEY=value` name their secret themselves."""
        flag, is_pair, value = text.partition("=")
        if is_pair and _NAMED.fullmatch(flag):
            return f"{flag}={self._value(value, flag)}"
        return self._value(text, after if after.startswith("-") and not text.startswith("-") else "")

    def clean(self, text: str) -> str:
        """The text without the values of secrets."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SHORT:
                text = text.replace(secret, "***")
        return text

    def _decent(self, block: dict[str, Any]) -> dict[str, Any]:
        """A block of an error, which is read by more people than a result is."""
        return {**block, "text": self.clean(block["text"])} if isinstance(block.get("text"), str) else block

    async def _abandon(self, owner: asyncio.Task[None]) -> None:
        if self._pipes is not None:
            self._pipes.signal(signal.SIGKILL)
        owner.cancel()
        await asyncio.wait({owner}, timeout=1.0)


class _Latest:
    """Hands on progress one at a time; of what comes in meanwhile, only the last."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._busy = False
        self._next: tuple[float, float | None, str | None] | None = None

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self._next = progress, total, message
        if self._busy:
            return
        self._busy = True
        try:
            while (now := self._next) is not None:
                self._next = None
                await self._tell(*now)
        finally:
            self._busy = False


@asynccontextmanager
async def _turn(server: ServerConfig) -> AsyncIterator[None]:
    """A turn to start a process. It ends with the block, or after a second: who hangs holds up nobody for longer."""
    if server.command is None:
        yield
        return
    loop = asyncio.get_running_loop()
    turns = _TURNS.setdefault(loop, asyncio.Semaphore(STARTS))
    await turns.acquire()
    turn = ExitStack()  # closing it again does nothing
    turn.callback(turns.release)
    timer = loop.call_later(TURN_S, turn.close)
    try:
        yield
    finally:
        timer.cancel()
        turn.close()


async def _opened(server: ServerConfig, limit: float, **more: Any) -> Connection:
    """An open connection; a server that ends when it is asked something new is started again and asked as before 2026."""
    due = time.monotonic() + limit
    for legacy in (False, True):
        connection = Connection(server, legacy=legacy, **more)
        connection.due = due
        try:
            await connection.open(due - time.monotonic())
            return connection
        except BaseException:
            again = not legacy and connection.died_of_the_question  # by itself: closing it looks the same
            await connection.close()
            if not again:
                raise
    raise AssertionError("unreachable")


def _listed(tools: list[Any], problems: list[str], most: int) -> Listing:
    """The first by name, so that it is always the same ones that stay out."""
    total = len(tools)
    if total > most:
        problems = [*problems, f"it has {total:,} tools; only the first {most:,} by name are taken"]
        tools = sorted(tools, key=_name_of)[:most]
    return Listing(tuple(tools), tuple(problems), total)


def _name_of(tool: Any) -> str:
    return str(tool.get("name", "")) if isinstance(tool, dict) else ""


def _move(status: int | None) -> str | None:
    return "Check the `headers` of its entry." if status in (401, 403) else None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
