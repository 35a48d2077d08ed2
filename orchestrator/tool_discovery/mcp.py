"""What an MCP server lists becomes tools of the catalog: those that may be used, those that a person must see first, and the rest.

`report_of` decides, for the pool that serves the tools and for `discover_all` alike.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.catalog.imported import imported_name
from orchestrator.errors import ToolWeaverError
from orchestrator.models.catalog import Quarantined, Refusal, ServerKind, ServerState
from orchestrator.models.plan import Effect
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_discovery.diff import changes, said_version
from orchestrator.tool_discovery.servers import ServerConfig, Toolset, ToolsetTool
from orchestrator.tool_discovery.vet import vet

if TYPE_CHECKING:
    from orchestrator.tool_discovery.connect import Listing

log = logging.getLogger(__name__)

POOL = "mcp"
MAX_DESCRIPTION, CUT_DESCRIPTION = 16 << 10, 4 << 10
MAX_SCHEMA = 1 << 20
MAX_NATIVE = 512
MAX_REASON = 500
MAX_AWAY = 2_000

_CALLERS: tuple[str, ...] = ToolDefinition.model_fields["allowed_callers"].default

HINTS = {
    "readOnlyHint": "read-only",
    "destructiveHint": "destructive",
    "idempotentHint": "idempotent",
    "openWorldHint": "open-world",
}
"""Each hint that a server gives becomes a tag, so that a change of it is a change of the tool."""


@dataclass(frozen=True)
class ServerReport:
    """What a server offers. `tools` may be used; `quarantined` wait for an approval; `refused` are none.

    `notes` say what was cut or left out, `deferred` are the names of tools with `defer_loading`, `disabled` the native names that
    the toolset switches off, `error` is why the server could not be asked (`tools` are empty then), `seconds` how long it took.
    """

    server: str
    tools: tuple[ToolDefinition, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    held: tuple[ToolDefinition, ...] = field(default=(), repr=False)  # the quarantined ones, as they would be
    error: str | None = None
    seconds: float = 0.0
    protocol: str | None = None
    version: str | None = None
    away: Mapping[str, str | None] = field(
        default_factory=dict, repr=False
    )  # what was known and is not offered, with the version then

    @property
    def deferred(self) -> tuple[str, ...]:
        """The names of tools that models load on demand."""
        return tuple(t.name for t in self.tools if t.defer_loading)

    def state(self, kind: ServerKind) -> ServerState:
        """The report as others are told of it."""
        return ServerState(
            name=self.server, kind=kind, state="down" if self.error else "up", error=self.error, protocol=self.protocol,
            version=self.version, tools=len(self.tools), quarantined=self.quarantined, refused=self.refused,
            away=dict(self.away), at=time.time(),
        )  # fmt: skip


async def discover_server(
    server: ServerConfig,
    toolset: Toolset | None,
    *,
    settings: Settings,
    known: Mapping[str, ToolDefinition] | None = None,
    known_version: str | None = None,
    known_reach: str = "",
    away: Mapping[str, str | None] | None = None,
    log_file: Path | None = None,
) -> ServerReport:
    """Connects to the server, lists its tools and judges them; within its connect timeout, and without ever raising for it.

    `known` are its tools as they were, by catalog name, `known_version` the version that the server had then and `known_reach`
    how it was reached; `away` the versions of those that were not offered the last time.
    """
    before = _Before(known or {}, known_version, known_reach, away or {})
    started = time.monotonic()
    try:
        report = await _asked(server, toolset, settings=settings, before=before, log=log_file)
    except ToolWeaverError as e:
        report = ServerReport(server.name, error=str(e), away=before.away)
    except Exception as e:  # a fault of ours, with what one server sent, is no reason to be without the others
        log.exception("server `%s` could not be judged", server.name, extra={"action": "server_unjudged"})
        report = ServerReport(server.name, error=f"what it sent could not be judged: {type(e).__name__}", away=before.away)
    return replace(report, seconds=time.monotonic() - started)


async def _asked(
    server: ServerConfig,
    toolset: Toolset | None,
    *,
    settings: Settings,
    before: _Before,
    log: Path | None,
) -> ServerReport:
    from orchestrator.tool_discovery.connect import connect  # noqa: PLC0415  (the extra `mcp`, and a second to import it)

    async with connect(server, settings=settings, log=log) as connection:
        listing = await connection.list_tools(timeout_s=max(connection.due - time.monotonic(), 1.0))
        version = connection.server_version or None
        judged = asyncio.to_thread(  # what one server made large is not to hold up the others
            report_of, server, toolset, listing, known=before.tools, server_version=version,
            known_version=before.version, known_reach=before.reach, away=before.away,
        )  # fmt: skip
        return replace(await judged, protocol=connection.protocol)


def report_of(
    server: ServerConfig,
    toolset: Toolset | None,
    listing: Listing,
    *,
    known: Mapping[str, ToolDefinition],
    server_version: str | None,
    known_version: str | None,
    known_reach: str = "",
    away: Mapping[str, str | None] | None = None,
) -> ServerReport:
    """What becomes of the tools that a server listed. Pure.

    A tool is quarantined for what its texts hide (`vet`), or because what the server says of it is not what it said before
    (`known`) although the server's version is the same as then (`known_version`, or that in `away` for a tool that was not
    offered meanwhile) and it is reached in the same way (`known_reach`); with `pin`, for any change. An approval of just
    what it says now (`said_version`) lifts both.
    """
    before = _Before(known, known_version, known_reach, away or {})
    judge = _Judge(server, toolset or Toolset(mcp_server_name=server.name), before, version=server_version)
    judge.name(listing.tools)
    for raw in _once(listing.tools, judge):
        judge.take(raw)
    return ServerReport(
        server.name, tools=tuple(judge.accepted), quarantined=tuple(judge.quarantined), refused=tuple(judge.refused),
        notes=(*listing.problems, *judge.notes), disabled=tuple(judge.disabled), held=tuple(judge.held), version=server_version,
        away=before.without(*judge.accepted, *judge.held),
    )  # fmt: skip


@dataclass(frozen=True)
class _Before:
    """What was known of a server's tools, and under which version of it."""

    tools: Mapping[str, ToolDefinition]
    version: str | None
    reach: str
    away: Mapping[str, str | None]

    def version_of(self, name: str) -> str | None:
        return self.away.get(name, self.version)

    def without(self, *offered: ToolDefinition) -> dict[str, str | None]:
        """The tools that are not offered, with the version under which they were; the latest of very many."""
        names = {t.name for t in offered}
        return {n: self.version_of(n) for n in [n for n in self.tools if n not in names][-MAX_AWAY:]}


class _Judge:
    """Sorts the tools of one server."""

    def __init__(self, server: ServerConfig, toolset: Toolset, before: _Before, *, version: str | None) -> None:
        self._server, self._toolset, self._before, self._version = server, toolset, before, version
        self._owners: dict[str, str] = {}
        self.accepted: list[ToolDefinition] = []
        self.held: list[ToolDefinition] = []
        self.quarantined: list[Quarantined] = []
        self.refused: list[Refusal] = []
        self.notes: list[str] = []
        self.disabled: list[str] = []

    def refuse(self, raw: Any, reason: str) -> None:
        self.refused.append(Refusal(native_name=native_of(raw), reason=reason[:MAX_REASON]))

    def name(self, tools: tuple[Any, ...]) -> None:
        """Decides whose a name is that several would have here, whatever their order: the one's who has it there too."""
        natives = {t["name"] for t in tools if isinstance(t, Mapping) and isinstance(t.get("name"), str)}
        for native in sorted(natives, key=lambda n: (not _keeps_name(self._server.name, n), n)):
            self._owners.setdefault(imported_name(self._server.name, native), native)

    def take(self, raw: Any) -> None:
        if (reason := _no_tool(raw)) is not None:
            return self.refuse(raw, reason)
        config = self._toolset.of(raw["name"])
        if config.enabled is False:
            self.disabled.append(raw["name"])
            return None
        try:
            tool = definition_of(raw, self._server, config)
        except ValidationError as e:
            return self.refuse(raw, "; ".join(str(p["msg"]) for p in e.errors(include_url=False)))
        return self._place(raw, tool)

    def _place(self, raw: dict[str, Any], tool: ToolDefinition) -> None:
        if (owner := self._owners[tool.name]) != raw["name"]:
            return self.refuse(raw, f"its name becomes `{tool.name}` here, like that of `{owner}`")
        if len(raw.get("description") or "") > MAX_DESCRIPTION:
            self.notes.append(
                f"the description of `{tool.name}` was cut from {len(raw['description']):,} to {CUT_DESCRIPTION:,} characters"
            )
        findings = vet(tool)
        if wrong := [str(f) for f in findings if f.severity == "refuse"]:
            return self.refuse(raw, "; ".join(wrong))
        self.notes += [f"`{tool.name}`: {f}" for f in findings if f.severity == "note"]
        reasons = [*self._changed(tool), *(str(f) for f in findings if f.severity == "quarantine")]
        if reasons and self._server.approved.get(raw["name"]) != (version := said_version(tool)):
            self.held.append(tool)
            self.quarantined.append(Quarantined(name=tool.name, version=version, reasons=tuple(reasons)))
        else:
            self.accepted.append(tool)
        return None

    def _changed(self, tool: ToolDefinition) -> Iterator[str]:
        before = self._before.tools.get(tool.name)
        said = changes(before, tool) if before is not None else []
        asked_alike = self._before.reach in ("", self._server.reach)
        if said and (self._server.pin or (asked_alike and self._version == self._before.version_of(tool.name))):
            but = "is pinned" if self._server.pin else "says that its version is the same"
            yield f"changed: its {' and its '.join(said)}; the server {but}"


def definition_of(raw: Mapping[str, Any], server: ServerConfig, config: ToolsetTool) -> ToolDefinition:
    """A listed tool as a definition; raises pydantic's ValidationError where it cannot be one."""
    native, hints = raw["name"], _hints(raw)
    return ToolDefinition(
        name=imported_name(server.name, native),
        type="mcp",
        description=_described(raw),
        domain=server.name,
        pool=POOL,
        server=server.name,
        native_name=native,
        json_schema=raw["inputSchema"],
        output_schema=raw.get("outputSchema"),
        tags=tuple(tag for hint, tag in HINTS.items() if hints.get(hint) is True),
        effect=server.effects.get(native) or config.effect or _effect(hints, trusted=server.trust_hints),
        timeout_s=config.timeout_s or server.timeout_s,
        tenants=server.tenants,
        requires=server.requires,
        max_concurrency=server.max_concurrency,
        defer_loading=bool(config.defer_loading),
        aliases=config.aliases or (),
        deprecated=config.deprecated,
        allowed_callers=_CALLERS if config.allowed_callers is None else config.allowed_callers,
    )


def native_of(raw: Any) -> str:
    """The name that a listed thing has, for a report."""
    name = raw.get("name") if isinstance(raw, Mapping) else None
    shown = name if isinstance(name, str) else f"({type(name).__name__})" if name is not None else "(no name)"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)[:128]


def _effect(hints: Mapping[str, Any], *, trusted: bool) -> Effect:
    if trusted and hints.get("readOnlyHint") is True:
        return "none"
    return "idempotent" if trusted and hints.get("idempotentHint") is True else "once"


def _hints(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    hints = raw.get("annotations")
    return hints if isinstance(hints, Mapping) else {}


def _described(raw: Mapping[str, Any]) -> str:
    text: str = raw.get("description") or raw.get("title") or _hints(raw).get("title") or ""
    return text if len(text) <= MAX_DESCRIPTION else text[:CUT_DESCRIPTION].rstrip() + " (cut)"


def _keeps_name(server: str, native: str) -> bool:
    return imported_name(server, native).endswith(native)


def _no_tool(raw: Any) -> str | None:
    """Why something listed is no tool, where that is so."""
    if not isinstance(raw, Mapping):
        return f"it is {type(raw).__name__}, not an object"
    name = raw.get("name")
    if not isinstance(name, str) or not name.strip():
        return "it has no name"
    if len(name) > MAX_NATIVE or not name.isprintable():
        return f"its name is longer than {MAX_NATIVE} characters, or holds some that cannot be printed"
    for key in ("description", "title"):
        if not isinstance(raw.get(key) or "", str):
            return f"its {key} is no text"
    if not isinstance(_hints(raw).get("title") or "", str) or not _encodable(_described(raw)):
        return "its description is no text"
    return _no_schemas(raw)


def _encodable(text: str) -> bool:
    try:
        return bool(text.encode()) or not text
    except UnicodeEncodeError:
        return False


def _no_schemas(raw: Mapping[str, Any]) -> str | None:
    schema, output = raw.get("inputSchema"), raw.get("outputSchema")
    if not isinstance(schema, Mapping):
        return "it has no input schema"
    if schema.get("type", "object") != "object":
        return f"its input schema is of type {json.dumps(schema['type'])[:60]}, not `object`"
    if output is not None and not isinstance(output, Mapping):
        return "its output schema is no object"
    try:
        size = len(json.dumps([schema, output], allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):  # a lone surrogate is a ValueError as well
        return "its schemas hold what is no JSON: a number without an end, half a character, or too deep a nesting"
    return f"its schemas are larger than {MAX_SCHEMA >> 20} MiB" if size > MAX_SCHEMA else None


def _once(tools: tuple[Any, ...], judge: _Judge) -> Iterator[Any]:
    """Each tool once; of those that share a name, and are not the same, none."""
    names = Counter(t["name"] for t in tools if isinstance(t, Mapping) and isinstance(t.get("name"), str))
    first: dict[str, Any] = {}
    for raw in tools:
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if not isinstance(name, str) or names[name] == 1:
            yield raw
        elif name not in first:
            first[name] = raw
            same = all(t == raw for t in tools if isinstance(t, Mapping) and t.get("name") == name)
            if same:
                yield raw
            else:
                judge.refuse(raw, f"{names[name]} different tools have this name")
