"""One session per server, kept for all calls: a task of its own connects, lists, watches, and connects again when it ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.imported import Handler
from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.store import CatalogStore
from orchestrator.errors import ToolWeaverError
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_discovery.connect import Connection, ServerUnreachable, connect
from orchestrator.tool_discovery.servers import ServerConfig, ServersFile, Toolset, load_servers
from workers.mcp.shelf import Shelf, orphans, withdraw
from workers.step import PutBack

log = logging.getLogger(__name__)

POLL_S = 1.0
SHOWN_S = 5.0
PATIENCE_S = 5.0  # a call waits for a server that is tried within this time
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
CALM_S = 10.0  # a session that held so long, or answered a call, was well: the next one begins soon
RELIST_S, RELIST_SHARE = 1.0, 10  # lists are read again at most this often, and for at most a tenth of the time
PING_S, SILENCES = 2.0, 3
CLOSE_S = 8.0
DRAIN_S = 10.0  # calls that run have so long to end when their server's entry changes
RESTART_S = 20.0  # a server that was well and is away for no longer costs no call a try
NEVER = float("-inf")
BUSY_S = 1.0  # a call beyond its server's share of the worker comes again after about so long

Run = Callable[["Session", ToolDefinition, dict[str, Any], ToolContext], Awaitable[Any]]
"""What runs one call: `Calls.run`."""


class Session:
    """The connection with one server, as it comes and goes. `run` is its life."""

    def __init__(
        self, config: ServerConfig, toolset: Toolset | None, *, settings: Settings, catalog: CatalogStore,
        registry: ToolRegistry, run: Run,
    ) -> None:  # fmt: skip
        self.config, self.toolset, self._settings = config, toolset, settings
        self._shelf = Shelf(config, toolset, catalog=catalog, registry=registry, handler=self._handler_by(run))
        self._connection: Connection | None = None
        self._why = "it has not started yet"
        self._news = asyncio.Event()  # set when anything changes, then replaced
        self._stir = asyncio.Event()
        self._relist_at: float | None = None
        self._relist_gap = RELIST_S
        self._lost = False
        self._silences = 0
        self._useful = self._elsewhere = False
        self._failures = 0
        self._next_try = 0.0  # when the next one begins
        self._pinging: asyncio.Task[bool] | None = None
        self._down_since = NEVER
        self._leaving_since: float | None = None
        self._unfollowed = False  # the entry changed, and the tools are not listed anew yet
        self._running = 0
        self.share: int | None = None  # of the worker's calls; None: all of them

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def _connect_s(self) -> float:
        return self.config.connect_timeout_s or self._settings.server_connect_s

    def serves(self, name: str) -> bool:
        """Whether the server still offers a tool."""
        return self._shelf.serves(name)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one call.

        Raises:
            PutBack: the session is about to end, or the server has its share: the calls of others shall not wait for it.
        """
        if self._leaving_since is not None:
            raise PutBack(f"the entry of server `{self.name}` changes", delay_s=POLL_S)
        if self.share is not None and self._running >= self.share:
            why = f"server `{self.name}` has {self._running} calls of this worker already"
            raise PutBack(why, delay_s=BUSY_S * random.uniform(0.5, 1.5))
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def back_in_s(self, *, patience_s: float) -> float | None:
        """When a call that was not sent had better come again; None: the server is away for longer than it can wait."""
        if self._leaving_since is not None or self._elsewhere:
            return POLL_S
        if time.monotonic() - self._down_since > min(RESTART_S, patience_s):
            return None
        return max(self._next_try - time.monotonic(), 0.0) + PAUSE_S

    def follow(self, config: ServerConfig, toolset: Toolset | None) -> None:
        """Takes an entry that says something else of the same server: its tools are judged anew, no call notices."""
        self.config = config
        self.toolset = toolset
        self._shelf.follow(config, toolset)
        self._unfollowed = True
        self._relist_at = time.monotonic()
        self._stir.set()

    def stay(self) -> None:
        """Goes on, should it have been about to end."""
        self._leaving_since = None

    def may_end(self) -> bool:
        """Whether nothing speaks against ending it: it takes no more calls from now on, and those that run have some time."""
        now = time.monotonic()
        self._leaving_since = self._leaving_since or now
        return not self._running or now - self._leaving_since > DRAIN_S

    async def connected(self, *, within_s: float) -> Connection:
        """The connection, once there is one; calls wait a little for a server that starts again.

        Raises:
            ServerUnreachable: there was none in time; nothing was sent.
        """
        end = time.monotonic() + min(within_s, self._connect_s)
        while (connection := self._connection) is None or not connection.alive:
            try:
                if self._hopeless():
                    raise TimeoutError
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                raise ServerUnreachable(
                    f"server `{self.name}` cannot be reached: {self._why}",
                    next=f"`toolweaver mcp test {self.name}` says what it answers.",
                ) from None
        return connection

    def _hopeless(self) -> bool:
        """Whether a call had better be tried again, later or by a worker that has the server."""
        away = self._next_try > time.monotonic() + PATIENCE_S or (self._elsewhere and self._failures > 1)
        return away or self._leaving_since is not None

    def broke(self, connection: Connection, error: Exception) -> None:
        """A call found that the connection is no good any more."""
        if connection is self._connection:
            self._leave(_told(error))
            self._lost = True
            self._stir.set()

    def answered(self) -> None:
        """The server answered a call."""
        self._silences, self._useful = 0, True

    async def alive(self) -> bool:
        """Whether the server answers a ping. One that fails a few in a row is connected, or started, anew."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping())
        return await asyncio.shield(self._pinging)

    async def run(self) -> None:
        """Holds a session for as long as the server is in the file; ends by being cancelled."""
        try:
            await self._off(self._shelf.stock)
            while True:
                began, self._useful = time.monotonic(), False
                await self._hold_one()
                calm = self._useful or time.monotonic() - began > CALM_S
                self._down_since = time.monotonic() if calm else self._down_since
                self._failures = 1 if calm else self._failures + 1
                pause = min(PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S)
                self._next_try = time.monotonic() + pause
                self._say()
                await asyncio.sleep(pause)
        finally:
            self._leave("its worker ended")
            if self._pinging is not None:
                self._pinging.cancel()

    async def held_elsewhere(self) -> bool:
        """Whether another worker has the server: that it cannot be reached from here says nothing about it."""
        return bool(await self._off(self._shelf.held_elsewhere))

    async def end(self, why: str) -> None:
        """After `run`: serves nothing of it any more."""
        await self._off(self._shelf.clear)
        await self._off(self._shelf.down, why)

    async def withdraw(self) -> bool:
        """After `end`: takes the tools out of the catalog, unless somebody else serves them; whether that is settled."""
        return bool(await self._off(self._shelf.withdraw))

    async def _hold_one(self) -> None:
        try:
            await self._hold()
            why = self._why
        except Exception as error:  # whatever a server does, it does not end its supervisor
            why = _told(error)
        self._leave(why)
        log.warning("server `%s`: %s", self.name, why, extra={"action": "server_down", "server": self.name})
        self._elsewhere = await self._off(self._shelf.down, why)

    async def _hold(self) -> None:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                connect(self.config, settings=self._settings, on_tools_changed=self._changed, log=self._log_file())
            )
            self._lost, self._relist_at = False, None
            await self._list(connection)
            self._connection, self._silences = connection, 0
            if self._down_since == NEVER:
                self._down_since = time.monotonic()
            self._say()
            log.info("server `%s` is up", self.name, extra={"action": "server_up", "server": self.name})
            await self._watch(connection)

    async def _watch(self, connection: Connection) -> None:
        closed = asyncio.create_task(connection.closed.wait())
        shown = time.monotonic()
        try:
            while connection.alive and not self._lost:
                due = shown + SHOWN_S if self._relist_at is None else min(shown + SHOWN_S, self._relist_at)
                await self._stirred(closed, due - time.monotonic())
                now = time.monotonic()
                if self._relist_at is not None and now >= self._relist_at:
                    await self._list_again(connection)
                if now >= shown + SHOWN_S:
                    await self._off(self._shelf.show)
                    shown = now
        finally:
            closed.cancel()
        if not self._lost:
            self._why = connection.error or "the session ended"

    async def _stirred(self, closed: asyncio.Task[Any], within_s: float) -> None:
        stirred = asyncio.create_task(self._stir.wait())
        await asyncio.wait({closed, stirred}, timeout=max(0.0, within_s), return_when=asyncio.FIRST_COMPLETED)
        stirred.cancel()
        self._stir.clear()

    def _changed(self) -> None:
        """The server says that its tools are others; it may say so as often as it likes."""
        if self._relist_at is None:
            self._relist_at = time.monotonic() + self._relist_gap
            self._stir.set()

    async def _list_again(self, connection: Connection) -> None:
        self._relist_at = None
        began = time.monotonic()
        try:
            await self._list(connection)
        except Exception as error:  # what it listed before is served on
            log.warning("server `%s` does not list its tools: %s", self.name, _told(error), extra={"action": "list_failed"})
        self._relist_gap = max(RELIST_S, RELIST_SHARE * (time.monotonic() - began))
        if self._unfollowed:
            self._changed()

    async def _list(self, connection: Connection) -> None:
        config = self.config
        listing = await connection.list_tools(timeout_s=self._connect_s)
        await self._off(lambda: self._shelf.take(listing, version=connection.server_version, protocol=connection.protocol))
        self._unfollowed = self.config is not config

    async def _ping(self) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            await connection.ping(timeout_s=PING_S)
        except Exception as error:
            self._silences += 1
            if self._silences >= SILENCES:
                self.broke(connection, error)
            return False
        self._silences = 0
        return True

    def _leave(self, why: str) -> None:
        self._connection, self._why = None, why
        self._say()

    def _say(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _log_file(self) -> Any:
        return self._settings.home / "logs" / f"mcp-{''.join(c if c.isalnum() else '_' for c in self.name)}.log"

    def _handler_by(self, run: Run) -> Callable[[ToolDefinition], Handler]:
        def handler(tool: ToolDefinition) -> Handler:
            def call(arguments: dict[str, Any], context: ToolContext) -> Awaitable[Any]:
                return run(self, tool, arguments, context)

            return call

        return handler

    @staticmethod
    async def _off(what: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(what, *args)


class Sessions:
    """The sessions with all servers of the file, which is read again when it changes."""

    def __init__(self, *, settings: Settings, catalog: CatalogStore, registry: ToolRegistry, run: Run, slots: int) -> None:
        self._settings, self._catalog, self._registry, self._run = settings, catalog, registry, run
        self._slots = slots
        self._sessions: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, Session] = {}
        self._read: tuple[int, int, int] | None = None
        self._pending = False  # what the file says is not done yet: calls are waited for
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects to all servers at once, and goes on by itself."""
        self._poll = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends the sessions and the servers' processes."""
        if self._poll is not None:
            await _ended([self._poll])
        await _ended(list(self._tasks.values()))
        await asyncio.gather(*(s.end("its worker ended") for s in self._sessions.values()), return_exceptions=True)

    async def _follow(self) -> None:
        first = True
        while True:
            try:
                await self._look(first)
                first = False
            except Exception:  # the file or Redis; the next look may be luckier
                log.exception("the servers file was not followed", extra={"action": "servers_lost"})
            await asyncio.sleep(POLL_S)

    async def _look(self, first: bool) -> None:
        stamp = _stamp(self._settings)
        if first or stamp != self._read or self._pending:
            file = await asyncio.to_thread(load_servers, self._settings.servers_path)
            for problem in file.problems if first or stamp != self._read else ():
                log.warning("%s", problem, extra={"action": "servers_problem"})
            self._pending = not await self._follow_file(file)
            self._read = stamp
            if first and not file.problems:
                await asyncio.to_thread(self._forget_orphans, set(file.servers))
        for name, session in list(self._leaving.items()):
            if await session.withdraw():
                del self._leaving[name]

    async def _follow_file(self, file: ServersFile) -> bool:
        """Begins, changes and ends sessions as the file says; whether all of that is done."""
        wanted = file.enabled()
        changed = [s for s in self._sessions.values() if not self._keeps(s, file, wanted.get(s.name))]
        over = [self._sessions.pop(s.name) for s in changed if s.may_end()]
        await _ended([self._tasks.pop(session.name) for session in over])
        for session in over:
            stays = session.name in wanted
            await session.end("its entry in the servers file changed" if stays else "it left the servers file")
            if not stays:
                self._leaving[session.name] = session
        for name, config in wanted.items():
            if name not in self._sessions:
                self._begin(config, file.toolsets.get(name))
        for session in self._sessions.values():
            session.share = max(1, self._slots // 2) if len(self._sessions) > 1 else None
        return len(over) == len(changed)

    @staticmethod
    def _keeps(session: Session, file: ServersFile, config: ServerConfig | None) -> bool:
        """Whether a session goes on: its entry is the same, or cannot be read, or says only other things of the same server."""
        toolset = file.toolsets.get(session.name)
        if session.name not in file.servers and _is_unread(session.name, file):
            config, toolset = session.config, session.toolset
        if config is None or config.reach != session.config.reach:
            return False
        session.stay()
        if (config, toolset) != (session.config, session.toolset):
            session.follow(config, toolset)
        return True

    def _begin(self, config: ServerConfig, toolset: Toolset | None) -> None:
        self._leaving.pop(config.name, None)
        session = Session(
            config, toolset, settings=self._settings, catalog=self._catalog, registry=self._registry, run=self._run
        )  # fmt: skip
        self._sessions[config.name] = session
        self._tasks[config.name] = asyncio.create_task(self._alone(session), name=f"server {config.name}")

    async def _alone(self, session: Session) -> None:
        """A supervisor that fails begins again: what fails it is Redis."""
        while True:
            try:
                await session.run()
            except Exception:
                log.exception("the session with `%s` begins again", session.name, extra={"action": "session_failed"})
                await asyncio.sleep(POLL_S)

    def _forget_orphans(self, named: set[str]) -> None:
        for name in orphans(self._catalog, named):
            withdraw(self._catalog, name)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_S)


def _is_unread(name: str, file: ServersFile) -> bool:
    """Whether a server is missing because its entry, or the whole file, cannot be read: it is kept as it was."""
    return any(p.path == str(file.path) or f"mcpServers.{name}" in p.path or f"servers.{name}" in p.path for p in file.problems)


def _stamp(settings: Settings) -> tuple[int, int, int] | None:
    try:
        found = settings.servers_path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _told(error: BaseException) -> str:
    """What went wrong, of a group of errors the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ToolWeaverError):
        return error.message
    return str(error) or type(error).__name__
