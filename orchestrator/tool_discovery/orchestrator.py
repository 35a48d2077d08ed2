"""All tools that there are, from all sources at once, and from a file while nothing changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.register import registry as default_registry
from orchestrator.extras import DISTRIBUTION
from orchestrator.models.catalog import Diff, ServerKind
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_discovery import cache
from orchestrator.tool_discovery.cache import Cached, Found
from orchestrator.tool_discovery.diff import diff_of
from orchestrator.tool_discovery.functions import function_tools
from orchestrator.tool_discovery.servers import OpenApiConfig, ServerConfig, ServersFile, Toolset, load_servers

if TYPE_CHECKING:
    from orchestrator.tool_discovery.mcp import ServerReport

FUNCTIONS, BUNDLED, CODE, ANNOUNCED = "functions", "bundled", "code_execution", "announced"
_VERSION = metadata.version(DISTRIBUTION).encode()


class ToolDiscoveryOrchestrator:
    """Finds tools: functions of this process, MCP servers, OpenAPI documents, programs, bundled tools, what pools announced.

    Args:
        enable_cache: Whether `<home>/discovered_tools.json` is read and written.
        cache_ttl: Seconds that it counts; default: the setting `discovery_ttl_s`, a day.
        servers: The servers file, or its path; default: the setting `servers_file`.
        registry: Whose functions count; default: the process's.
    """

    def __init__(
        self,
        enable_cache: bool = True,
        cache_ttl: float | None = None,
        *,
        settings: Settings | None = None,
        servers: ServersFile | Path | None = None,
        registry: ToolRegistry | None = None,
    ) -> None:
        self._settings = settings or load_settings()
        self._servers = servers or self._settings.servers_path
        self._registry = registry or default_registry
        self._enabled = enable_cache
        self._ttl = self._settings.discovery_ttl_s if cache_ttl is None else cache_ttl
        self._path = self._settings.home / cache.FILE

    async def discover_all(self, *, refresh: bool = False) -> ToolCatalog:
        """All tools; `refresh` asks every source anew. No server that fails, hangs or lies keeps the others out.

        `metadata` of the catalog: `discovery_time_ms`, `cache_hit`, `tools_by_source` (numbers), `servers` (the state of each:
        `error`, `quarantined`, `refused` and more), `added`, `changed` and `removed` since the last run, and `problems` of the
        servers file.
        """
        started = time.perf_counter()
        last = cache.read(self._path) if self._enabled else None
        key, now = self._key(), time.time()
        if last is not None and not refresh and last.fresh(key, now, self._ttl):
            return _catalog(last.found, started, hit=True)
        run = _Run(self._settings, self._file(), self._registry, last or Cached(), ttl=0 if refresh else self._ttl)
        found = await run.found()
        if self._enabled:
            cache.write(self._path, Cached(key=key, found=found))
        diff = diff_of(*(_tools(f) for f in (last.found, found))) if last is not None else Diff()
        return _catalog(found, started, diff=diff, problems=[str(p) for p in run.file.problems])

    def _file(self) -> ServersFile:
        return self._servers if isinstance(self._servers, ServersFile) else load_servers(self._servers)

    def _key(self) -> str:
        if isinstance(self._servers, ServersFile):
            said = self._servers.model_dump_json().encode()
        else:
            said = str(self._servers).encode() + (self._servers.read_bytes() if self._servers.exists() else b"")
        functions = cache.bytes_of(function_tools(self._registry))
        return cache.key_of(_VERSION, said, functions, str(maybe_running(self._settings)).encode())


class _Run:
    """One run: what is still fresh is kept, the rest asked for, all at once."""

    def __init__(self, settings: Settings, file: ServersFile, registry: ToolRegistry, last: Cached, *, ttl: float) -> None:
        self.file = file
        self._settings, self._registry, self._ttl = settings, registry, ttl
        self._last = {f.source: f for f in last.found}
        self._now = time.time()

    async def found(self) -> tuple[Found, ...]:
        return tuple(await asyncio.gather(*self._sources()))

    def _sources(self) -> Iterator[Coroutine[Any, Any, Found]]:
        """Those that come first win where two have a tool of one name."""
        yield self._here(FUNCTIONS, function_tools(self._registry))
        for name, server in self.file.enabled().items():
            yield self._server(server, self.file.toolsets.get(name))
        for document in self.file.documents().values():
            yield self._document(document)
        yield self._announced()
        yield self._bundled()
        yield self._code()

    async def _here(self, source: str, tools: Iterable[ToolDefinition]) -> Found:
        return Found(source=source, at=self._now, tools=tuple(tools))

    async def _bundled(self) -> Found:
        from orchestrator.tool_discovery.code import bundled_tools  # noqa: PLC0415  (a run from the file needs it not)

        return await self._here(BUNDLED, bundled_tools())

    async def _code(self) -> Found:
        from orchestrator.tool_discovery.code import code_tools  # noqa: PLC0415

        return await self._here(CODE, code_tools())

    async def _announced(self) -> Found:
        if not maybe_running(self._settings):
            return Found(source=ANNOUNCED, at=self._now)
        from orchestrator.tool_discovery.announced import announced_tools  # noqa: PLC0415  (and with it Redis)

        tools = await asyncio.to_thread(announced_tools, self._settings)
        return Found(source=ANNOUNCED, at=self._now, failed=tools is None, tools=tuple(tools or ()))

    async def _server(self, server: ServerConfig, toolset: Toolset | None) -> Found:
        from orchestrator.tool_discovery.mcp import discover_server  # noqa: PLC0415

        source = f"mcp:{server.name}"
        key = cache.key_of(_VERSION, server.model_dump_json().encode(), toolset.model_dump_json().encode() if toolset else b"")
        last = self._last.get(source, Found(source=source))
        if last.key == key and last.fresh(self._now, self._ttl):
            return last
        report = await discover_server(
            server, toolset, settings=self._settings, known=last.known(), known_version=last.known_version,
            known_reach=last.known_reach, away=last.state.away if last.state is not None else None,
        )  # fmt: skip
        return _founded(report, server.kind, key, last, reach=server.reach)

    async def _document(self, document: OpenApiConfig) -> Found:
        from orchestrator.tool_discovery.openapi import discover_document  # noqa: PLC0415

        source = f"openapi:{document.name}"
        key = cache.key_of(_VERSION, document.model_dump_json().encode(), _content(document))
        last = self._last.get(source, Found(source=source))
        if last.key == key and last.fresh(self._now, self._ttl):
            return last
        report = await discover_document(document, settings=self._settings)
        return _founded(report, "openapi", key, last)


def _founded(report: ServerReport, kind: ServerKind, key: str, last: Found, *, reach: str = "") -> Found:
    """What a server offers now, beside what the tools that are not among that were before: when they come back, it counts."""
    before, accepted = last.known(), {t.name for t in report.tools}
    away = [t for name, t in before.items() if name not in accepted]
    return Found(
        source=last.source,
        key=key,
        at=time.time(),
        failed=report.error is not None,
        state=report.state(kind),
        known_version=last.known_version if report.error else report.version,
        known_reach=last.known_reach if report.error else reach,
        tools=report.tools,
        former=tuple(away[-cache.MOST_FORMER :]),
    )


def _catalog(
    found: Iterable[Found], started: float, *, hit: bool = False, diff: Diff | None = None, problems: Iterable[str] = ()
) -> ToolCatalog:
    found, diff = tuple(found), diff or Diff()
    counts, tools = _by_source(found)
    servers = {f.state.name: f.state.model_dump(mode="json") for f in found if f.state is not None}
    catalog = ToolCatalog(source="discovered")
    catalog.tools = tools
    catalog.metadata = {
        "discovery_time_ms": (time.perf_counter() - started) * 1000,
        "cache_hit": hit,
        "tools_by_source": counts,
        "servers": servers,
        "added": list(diff.added),
        "changed": list(diff.changed),
        "removed": list(diff.removed),
        "problems": list(problems),
    }
    return catalog


def _by_source(found: tuple[Found, ...]) -> tuple[dict[str, int], list[ToolDefinition]]:
    """Each tool once, from the first source that has it; what a server may not offer, it does not offer through a pool either."""
    up = {f.state.name for f in found if f.state is not None and not f.failed}
    kept: dict[str, ToolDefinition] = {}
    counts: dict[str, int] = {}
    for one in found:
        before = len(kept)
        for tool in one.tools:
            if one.source != ANNOUNCED or tool.server not in up:
                kept.setdefault(tool.name, tool)
        if one.tools or one.state is not None:
            counts[one.source] = len(kept) - before
    return counts, list(kept.values())


def _tools(found: tuple[Found, ...]) -> list[ToolDefinition]:
    return _by_source(found)[1]


def _content(document: OpenApiConfig) -> bytes:
    """A document of this machine, so that a change of it counts at once; others count until the cache is old."""
    path = Path(document.document)
    return path.read_bytes() if path.is_file() else b""


def maybe_running(settings: Settings) -> bool:
    """Whether there may be a platform: the embedded store's socket is there, or the store is elsewhere."""
    url = urlsplit(settings.store_url)
    return url.scheme != "unix" or Path(url.path).exists()
