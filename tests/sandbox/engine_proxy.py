"""Stands before the engine's socket and takes it away on demand: refused, silent, or back again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK = 1 << 16


class EngineProxy:
    """A unix socket that leads to the engine, in a thread of its own."""

    def __init__(self, path: Path, *, engine: str) -> None:
        self._path, self._engine = path, engine.removeprefix("unix://")
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.restore()

    @property
    def host(self) -> str:
        """What is given in place of the engine's own address."""
        return f"unix://{self._path}"

    def cut(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        self._do(self._stop())

    def restore(self) -> None:
        """The engine is back."""
        self._do(self._listen())

    def close(self) -> None:
        """Ends it."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            there, back = await asyncio.open_unix_connection(self._engine)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    finally:
        with suppress(OSError):
            target.close()
