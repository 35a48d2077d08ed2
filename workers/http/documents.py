"""The OpenAPI documents of the servers file: each has a task that reads it, serves its operations, and reads it again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.imported import Handler, SchemaTool
from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.store import CatalogStore, NameTaken
from orchestrator.errors import Conflict, ToolWeaverError
from orchestrator.models.catalog import Diff, Refusal, ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_discovery.openapi import Offer, Operation, offer_of
from orchestrator.tool_discovery.openapi_read import is_address, read_document
from orchestrator.tool_discovery.servers import OpenApiConfig, ServersFile, load_servers, resolve_secrets
from orchestrator.tool_discovery.site import Site

log = logging.getLogger(__name__)

POLL_S = 1.0
SHOWN_S = 5.0
STALE_S = 15.0  # who said nothing of a document for so long serves it no more
REFETCH_S = 60.0  # a document at an address is fetched again so often
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
CLOSE_S = 8.0
HOST = socket.gethostname()

Run = Callable[["Served", Operation, dict[str, Any], ToolContext], Awaitable[Any]]
"""What runs one call: `Calls.run`."""


def worker_id() -> str:
    """This process, as its sign of life names it."""
    return f"http-{os.getpid()}@{HOST}"


def source_of(document: str) -> str:
    """The name under which a document's tools are published."""
    return f"openapi:{document}"


class HttpTool(SchemaTool):
    """An operation as a served tool. What it answers is taken as it is: the thing is done, whatever the document promised."""

    def __init__(self, definition: ToolDefinition, handler: Handler, *, origin: str) -> None:
        super().__init__(definition, handler, origin=origin)
        self._output = None


class Served:
    """One document: its operations as tools of this process and of the catalog. `run` is its life."""

    def __init__(
        self, config: OpenApiConfig, *, settings: Settings, catalog: CatalogStore, registry: ToolRegistry, run: Run
    ) -> None:
        self.config, self._settings, self._catalog, self._registry, self._run = config, settings, catalog, registry, run
        self._offer: Offer | None = None
        self._operations: dict[str, Operation] = {}
        self._site: Site | None = None
        self._digest = ""
        self._stamp: tuple[int, int, int] | None = None
        self._due = 0.0
        self._unpublished = False
        self.secrets: frozenset[str] = frozenset()
        self.state = ServerState(name=config.name, kind="openapi", worker=worker_id())

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def site(self) -> Site:
        """The client of its API; there is one as soon as there are operations."""
        assert self._site is not None
        return self._site

    async def run(self) -> None:
        """Serves the document for as long as it is in the servers file; ends by being cancelled."""
        pause, shown = PAUSE_S, 0.0
        while True:
            if await asyncio.to_thread(self._is_due):
                ok = await self._read()
                pause = PAUSE_S if ok else min(2 * pause, LONGEST_PAUSE_S)
                self._due, shown = time.monotonic() + (REFETCH_S if ok else pause), 0.0
            if time.monotonic() >= shown + SHOWN_S:
                await asyncio.to_thread(self._show)
                shown = time.monotonic()
            await asyncio.sleep(POLL_S)

    async def end(self) -> None:
        """After `run`: serves nothing of it any more in this process."""
        for name in self._operations:
            self._registry.remove(name)
        self._operations = {}
        if self._site is not None:
            await self._site.close()
        await asyncio.to_thread(self._down, "its worker ended")

    def withdraw(self) -> bool:
        """After `end`: takes its tools out of the catalog, unless another worker serves them; whether that is settled."""
        said = self._catalog.server_states().get(self.name)
        if said is not None and _by_another(said):
            return False
        withdraw(self._catalog, self.name)
        return True

    def _is_due(self) -> bool:
        """Whether the document is to be read: its file changed, or the time to look again has come."""
        now = time.monotonic()
        if is_address(self.config.document) or not self._digest:
            return now >= self._due
        return _stamp(self.config.document) != self._stamp

    async def _read(self) -> bool:
        """Reads the document and serves it if it is another; whether that went well."""
        stamp = _stamp(self.config.document)
        try:
            document = await read_document(self.config, settings=self._settings)
            self._stamp = stamp
            if document.digest != self._digest:
                offer = await asyncio.to_thread(offer_of, document, self.config)
                self.secrets = await asyncio.to_thread(self._found_secrets)
                await self._take(offer)
                self._digest = document.digest
            self._unpublished = self._unpublished or self.state.state != "up"
        except ToolWeaverError as error:
            self._stamp = stamp
            await asyncio.to_thread(self._down, str(error))
            return False
        except Exception as error:  # whatever a document does, it does not end its task
            log.exception("document `%s` was not read", self.name, extra={"action": "document_failed"})
            await asyncio.to_thread(self._down, str(error) or type(error).__name__)
            return False
        return True

    async def _take(self, offer: Offer) -> None:
        """Serves exactly what the document offers now."""
        if offer.report.error is None:
            before, self._site = self._site, self._site_of(offer)
            if before is not None:
                asyncio.get_running_loop().call_later(self.config.timeout_s, lambda: asyncio.ensure_future(before.close()))
        refused = self._serve(offer.operations)
        self._offer = replace(offer, report=replace(offer.report, refused=(*offer.report.refused, *refused)))
        for note in offer.report.notes:
            log.warning("document `%s`: %s", self.name, note[:500], extra={"action": "document_note"})
        self._unpublished = True

    def _site_of(self, offer: Offer) -> Site:
        trusted = self._settings.fetch_hosts
        return Site(offer.url, self._headers, private=self.config.private, trusted=trusted)

    def _headers(self) -> dict[str, str]:
        return {name: resolve_secrets(value) for name, value in self.config.headers.items()}

    def _found_secrets(self) -> frozenset[str]:
        """What the references in the entry name, and keys that stand there themselves."""
        found: set[str] = set()
        values = [resolve_secrets(v, found=found) for v in (*self.config.headers.values(), self.config.base_url or "")]
        return frozenset(s for s in {*found, *values[:-1]} if len(s) >= 4)

    def _serve(self, operations: tuple[Operation, ...]) -> list[Refusal]:
        """Serves exactly these; those whose names are taken in this process are not."""
        before, after, refused = self._operations, {}, []
        for operation in operations:
            tool = operation.tool
            known = before.get(tool.name)
            if known is None or known.tool != tool:
                try:
                    self._registry.add(HttpTool(tool, self._handler(tool.name), origin=source_of(self.name)))
                except Conflict as error:
                    refused.append(Refusal(native_name=tool.native_name or tool.name, reason=error.message))
                    continue
            after[tool.name] = operation
        self._operations = after
        for name in before.keys() - after.keys():
            self._registry.remove(name)
        return refused

    def _handler(self, name: str) -> Handler:
        def call(arguments: dict[str, Any], context: ToolContext) -> Awaitable[Any]:
            return self._run(self, self._operations[name], arguments, context)

        return call

    def _show(self) -> None:
        """Says how the document is, and publishes what could not be published before."""
        try:
            if self._unpublished:
                self._publish()
            elif self.state.state == "up":
                self._put(self.state)
        except redis.RedisError as error:
            log.warning("document `%s` is not told: %s", self.name, error, extra={"action": "server_untold"})

    def _publish(self) -> None:
        assert self._offer is not None
        report, diff, error = self._offer.report, Diff(), self._offer.report.error
        try:
            diff = self._catalog.publish(source_of(self.name), [o.tool for o in self._operations.values()])
        except NameTaken as taken:
            diff, error = taken.diff, taken.message
        self._unpublished = False
        said = report.state("openapi").model_copy(
            update={"worker": worker_id(), "error": error, "diff": diff or self.state.diff, "tools": len(self._operations)}
        )
        self._put(said.model_copy(update={"refused": report.refused}))

    def _down(self, why: str) -> None:
        """Says that the document cannot be read, unless another worker can; what was read before is served on."""
        log.warning("document `%s`: %s", self.name, why, extra={"action": "document_down"})
        with suppress(redis.RedisError):
            said = self._catalog.server_states().get(self.name)
            if said is None or not (said.state == "up" and _by_another(said)):
                self._put(self.state.model_copy(update={"state": "down", "error": why}))

    def _put(self, state: ServerState) -> None:
        self.state = state.model_copy(update={"at": time.time()})
        self._catalog.put_server_state(self.state)


class Documents:
    """All documents of the servers file, which is read again when it changes."""

    def __init__(self, *, settings: Settings, catalog: CatalogStore, registry: ToolRegistry, run: Run) -> None:
        self._settings, self._catalog, self._registry, self._run = settings, catalog, registry, run
        self._served: dict[str, tuple[Served, asyncio.Task[None]]] = {}
        self._leaving: dict[str, Served] = {}
        self._seen: Any = ()
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to read them, each by itself."""
        self._poll = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Serves nothing any more."""
        if self._poll is not None:
            await _ended([self._poll])
        await self._end(list(self._served))

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # the file or Redis; the next look may be luckier
                log.exception("the servers file was not followed", extra={"action": "servers_lost"})
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        seen = _stamp(str(self._settings.servers_path))
        if seen != self._seen:
            first, file = self._seen == (), await asyncio.to_thread(load_servers, self._settings.servers_path)
            await self._follow_file(file)
            self._seen = seen
            if first and not file.problems:
                await asyncio.to_thread(self._forget_orphans, set(file.openapi))
        for name, served in list(self._leaving.items()):
            if await asyncio.to_thread(served.withdraw):
                del self._leaving[name]

    async def _follow_file(self, file: ServersFile) -> None:
        for problem in file.problems:
            log.warning("%s", problem, extra={"action": "servers_problem"})
        wanted = file.documents()
        changed = [n for n, (s, _) in self._served.items() if s.config != wanted.get(n) and not _is_unread(n, file)]
        for served in await self._end(changed):
            if served.name not in wanted:
                self._leaving[served.name] = served
        for name, config in wanted.items():
            if name not in self._served:
                self._begin(config)

    def _begin(self, config: OpenApiConfig) -> None:
        self._leaving.pop(config.name, None)
        served = Served(config, settings=self._settings, catalog=self._catalog, registry=self._registry, run=self._run)
        self._served[config.name] = served, asyncio.create_task(self._alone(served), name=f"document {config.name}")

    async def _alone(self, served: Served) -> None:
        """A task that fails begins again: what fails it is Redis."""
        while True:
            try:
                await served.run()
            except Exception:
                log.exception("document `%s` is followed again", served.name, extra={"action": "document_failed"})
                await asyncio.sleep(POLL_S)

    async def _end(self, names: list[str]) -> list[Served]:
        gone = [self._served.pop(name) for name in names]
        await _ended([task for _, task in gone])
        for served, _ in gone:
            await served.end()
        return [served for served, _ in gone]

    def _forget_orphans(self, named: set[str]) -> None:
        """Documents that left the file while no worker of this machine ran."""
        for name, said in self._catalog.server_states().items():
            own = said.worker.rpartition("@")[2] == HOST and time.time() - said.at > STALE_S
            if said.kind == "openapi" and own and name not in named:
                withdraw(self._catalog, name)


def withdraw(catalog: CatalogStore, document: str) -> None:
    """Takes a document's tools and all that is known of it out of the catalog."""
    catalog.publish(source_of(document), [])
    catalog.drop_server_state(document)
    log.info("the tools of document `%s` are withdrawn", document, extra={"action": "document_withdrawn"})


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_S)


def _by_another(said: ServerState) -> bool:
    return said.worker != worker_id() and said.state == "up" and time.time() - said.at < STALE_S


def _is_unread(name: str, file: ServersFile) -> bool:
    """Whether a document is missing because its entry, or the whole file, cannot be read: it is kept as it was."""
    if name in file.openapi:
        return False
    return any(p.path == str(file.path) or f"openapi.{name}" in p.path for p in file.problems)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
