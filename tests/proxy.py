"""A TCP proxy that misbehaves on demand: it cuts every connection, swallows everything for a while, or is slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 16


class Proxy:
    """Stands before one server, in a thread of its own; processes are given `port` in place of the server's."""

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self._target, self._host = target, host
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._delay = 0.0
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{target}", daemon=True)
        self._thread.start()
        self.port: int = self._do(self._listen)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    def cut(self) -> int:
        """Breaks every connection; new ones are taken. How many there were."""
        return int(self._do(self._cut))

    def swallow(self) -> None:
        """From now on nothing comes through, in either direction; connections are taken, and stay silent."""
        self._do(self._swallow)

    def restore(self, *, deliver: bool) -> None:
        """Everything comes through again: also what was sent meanwhile (`deliver`), or the old connections break."""
        self._do(self._deliver if deliver else self._drop)

    def delay(self, seconds: float) -> None:
        """Each piece of data comes so much later."""
        self._delay = seconds

    def close(self) -> None:
        """Ends the proxy and its connections."""
        self._do(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def _do(self, what: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what(), self._loop).result(timeout=10)

    async def _listen(self) -> int:
        self._passes.set()
        self._server = await asyncio.start_server(self._accept, self._host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        return len(links)

    async def _swallow(self) -> None:
        self._passes.clear()

    async def _deliver(self) -> None:
        self._passes.set()

    async def _drop(self) -> None:
        await self._cut()
        self._passes.set()

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a cut, or the server is away: the client sees a broken connection
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        back, forth = await asyncio.open_connection(self._host, self._target)
        pumps = [asyncio.ensure_future(self._pump(reader, forth)), asyncio.ensure_future(self._pump(back, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            forth.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._passes.wait()
            sink.write(data)
            await sink.drain()
