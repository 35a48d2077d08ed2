"""What one server's tools are to the rest of the platform: served by this process, told to all through the catalog.

Several workers may hold sessions with one server. Each says the same of it; one that cannot reach it says nothing while
another can. All methods here wait for Redis, so the loop has them run in threads.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import redis

from orchestrator.catalog.imported import Handler, SchemaTool
from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.store import CatalogStore, NameTaken
from orchestrator.errors import Conflict
from orchestrator.models.catalog import Diff, Refusal, ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_discovery.mcp import report_of
from orchestrator.tool_discovery.servers import ServerConfig, Toolset

if TYPE_CHECKING:
    from orchestrator.tool_discovery.connect import Listing

log = logging.getLogger(__name__)

POOL = "mcp"
STALE_S = 15.0  # who said nothing of a server for so long holds it no more
HOST = socket.gethostname()


def source_of(server: str) -> str:
    """The name under which a server's tools are published."""
    return f"mcp:{server}"


def worker_id() -> str:
    """This process, as its sign of life names it."""
    return f"{POOL}-{os.getpid()}@{HOST}"


class Shelf:
    """The tools of one server. `handler` gives what runs a call of one."""

    def __init__(
        self,
        config: ServerConfig,
        toolset: Toolset | None,
        *,
        catalog: CatalogStore,
        registry: ToolRegistry,
        handler: Callable[[ToolDefinition], Handler],
    ) -> None:
        self.config, self._toolset = config, toolset
        self._catalog, self._registry, self._handler = catalog, registry, handler
        self._served: dict[str, ToolDefinition] = {}
        self._unpublished = False
        self.state = ServerState(name=config.name, kind=config.kind, state="starting", worker=worker_id())

    def follow(self, config: ServerConfig, toolset: Toolset | None) -> None:
        """What is said of the tools from the next `take` on."""
        self.config, self._toolset = config, toolset

    def serves(self, name: str) -> bool:
        """Whether a tool is still offered."""
        return name in self._served

    def stock(self) -> None:
        """Serves what is known of the server already: calls of it can wait until it is there."""
        known = self._known()
        self._serve(tuple(known.values()))
        before = self._said()
        if before is not None:
            keep = {
                "quarantined": before.quarantined,
                "refused": before.refused,
                "version": before.version,
                "reach": before.reach,
                "away": before.away,
            }
            self.state = self.state.model_copy(update={**keep, "tools": len(known)})
        if before is None or not self._told_by_another(before):
            self._put("starting")

    def take(self, listing: Listing, *, version: str | None, protocol: str | None) -> None:
        """Serves what the server listed, as far as it may be served, and tells all."""
        before = self._said()
        report = report_of(
            self.config, self._toolset, listing, known=self._compared(before), server_version=version or None,
            known_version=before.version if before is not None else None, known_reach=before.reach if before is not None else "",
            away=before.away if before is not None else None,
        )  # fmt: skip
        refused = (*report.refused, *self._serve(report.tools))
        self.state = self.state.model_copy(
            update={
                "protocol": protocol, "version": report.version, "error": None, "tools": len(self._served),
                "quarantined": report.quarantined, "refused": refused, "away": dict(report.away), "reach": self.config.reach,
            }
        )  # fmt: skip
        for note in (*report.notes, *(f"`{q.name}` is held back: {'; '.join(q.reasons)}" for q in report.quarantined)):
            log.warning("server `%s`: %s", self.config.name, note[:500], extra={"action": "server_note"})
        self._unpublished = True
        self.show()

    def show(self) -> None:
        """Says that the server is up, and publishes what could not be published before."""
        try:
            if self._unpublished:
                self._publish()
            self._put("up")
        except redis.RedisError as error:
            log.warning("server `%s` is not told: %s", self.config.name, error, extra={"action": "server_untold"})

    def down(self, why: str) -> bool:
        """Says that the server cannot be reached from here, unless somebody else can, and whether so; its tools stay."""
        with suppress(redis.RedisError):
            if self.held_elsewhere():
                return True
            self._put("down", error=why)
        return False

    def held_elsewhere(self) -> bool:
        """Whether another worker has a session with the server."""
        said = self._said()
        return said is not None and said.state == "up" and self._told_by_another(said)

    def clear(self) -> None:
        """Serves nothing of the server any more in this process."""
        for name in self._served:
            self._registry.remove(name)
        self._served = {}

    def withdraw(self) -> bool:
        """Takes the server's tools out of the catalog, unless somebody else serves them; whether that is settled."""
        said = self._said()
        if said is not None and self._told_by_another(said):
            return False
        withdraw(self._catalog, self.config.name)
        return True

    def _said(self) -> ServerState | None:
        """What was said of the server last, by whatever worker."""
        return self._catalog.server_states().get(self.config.name)

    def _told_by_another(self, said: ServerState) -> bool:
        return said.worker != worker_id() and time.time() - said.at < STALE_S

    def _known(self) -> dict[str, ToolDefinition]:
        return {t.name: t for t in self._catalog.all().tools if t.server == self.config.name and t.pool == POOL}

    def _compared(self, before: ServerState | None) -> dict[str, ToolDefinition]:
        """The tools as they were. Those that were held back, or away for a while, must not count as new."""
        out = [] if before is None else [*before.away, *(q.name for q in before.quarantined)]
        former = {name: tool for name, tool in self._catalog.withdrawn(out).items() if tool.server == self.config.name}
        return former | self._known()

    def _serve(self, tools: tuple[ToolDefinition, ...]) -> list[Refusal]:
        """Serves exactly these; those whose names are taken in this process are not."""
        before, after, refused = self._served, {}, []
        for tool in tools:
            if tool != before.get(tool.name):
                try:
                    self._registry.add(SchemaTool(tool, self._handler(tool), origin=source_of(self.config.name)))
                except Conflict as error:
                    refused.append(Refusal(native_name=tool.native_name or tool.name, reason=error.message))
                    continue
            after[tool.name] = tool
        self._served = after
        for name in before.keys() - after.keys():
            self._registry.remove(name)
        return refused

    def _publish(self) -> None:
        diff, error = Diff(), None
        try:
            diff = self._catalog.publish(source_of(self.config.name), self._served.values())
        except NameTaken as taken:
            diff, error = taken.diff, taken.message
        self._unpublished = False
        changed = {"diff": diff} if diff else {}
        self.state = self.state.model_copy(update={"error": error, **changed})

    def _put(self, state: str, *, error: str | None = None) -> None:
        said = {"error": error} if error else {}
        self.state = self.state.model_copy(update={"state": state, "at": time.time(), **said})
        self._catalog.put_server_state(self.state)


def withdraw(catalog: CatalogStore, server: str) -> None:
    """Takes a server's tools and all that is known of it out of the catalog."""
    catalog.publish(source_of(server), [])
    catalog.drop_server_state(server)
    log.info("the tools of server `%s` are withdrawn", server, extra={"action": "server_withdrawn"})


def orphans(catalog: CatalogStore, named: set[str]) -> list[str]:
    """Servers of this machine that nobody names or holds any more: they left the file while no worker ran."""
    return [
        name
        for name, said in catalog.server_states().items()
        if said.kind != "openapi" and name not in named
        and said.worker.rpartition("@")[2] == HOST and time.time() - said.at > STALE_S
    ]  # fmt: skip
