"""A look at a server from here: what it offers, what is kept out of that and why, and what would be approved."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from orchestrator.cli.server_entries import visible
from orchestrator.cli.server_states import known_tools, platform
from orchestrator.errors import BackendError, NotFound, RequestError, ToolWeaverError
from orchestrator.extras import install_command, missing_packages
from orchestrator.models.catalog import Quarantined, Refusal, ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_discovery.diff import said_version
from orchestrator.tool_discovery.servers import ServersFile

if TYPE_CHECKING:
    from orchestrator.tool_discovery.mcp import ServerReport


@dataclass(frozen=True)
class Held:
    """A tool of a server as it is now; `reasons` say why it is quarantined, `former` is what was known of it before."""

    native: str
    tool: ToolDefinition
    reasons: tuple[str, ...] = ()
    former: ToolDefinition | None = None

    @property
    def version(self) -> str:
        """What an approval of it names: a hash of what the server says of it."""
        return said_version(self.tool)


@dataclass(frozen=True)
class Look:
    """What a server offered when it was asked, or why it could not be."""

    name: str
    seconds: float
    error: str | None = None
    protocol: str | None = None
    version: str | None = None
    tools: tuple[ToolDefinition, ...] = ()
    held: tuple[Held, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    def headline(self) -> str:
        """The server in one line: `time: MCP 2026-07-28, version 1.2, 2 tools in 0.61 s`."""
        protocol = self.protocol and (self.protocol if self.protocol.startswith("OpenAPI") else f"MCP {self.protocol}")
        said = [protocol, f"version {self.version}" if self.version else ""]
        counts = [f"{len(self.tools)} tools in {self.seconds:.2f} s"]
        counts += [f"{len(self.held)} quarantined"] if self.held else []
        counts += [f"{len(self.refused)} refused"] if self.refused else []
        return f"{self.name}: {', '.join([*filter(None, said), *counts])}"

    def kept_out(self) -> Iterator[str]:
        """A line for everything that is not served or not as it came, and why."""
        yield from (f"quarantined: {h.native}: {'; '.join(h.reasons)}" for h in self.held)
        yield from (f"refused: {r.native_name}: {r.reason}" for r in self.refused)
        yield from (f"note: {n}" for n in self.notes)

    def to_json(self) -> dict[str, Any]:
        """The whole of it as JSON values."""
        return {
            "name": self.name,
            "ok": self.error is None and not self.held and not self.refused,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "protocol": self.protocol,
            "version": self.version,
            "tools": [t.model_dump(mode="json", exclude_defaults=True) for t in self.tools],
            "quarantined": [Quarantined(name=h.tool.name, version=h.version, reasons=h.reasons) for h in self.held],
            "refused": list(self.refused),
            "notes": list(self.notes),
        }


def look(file: ServersFile, name: str, *, settings: Settings) -> Look:
    """What a server of the file offers, asked from this process. A server that cannot be had is a `Look` with its error.

    Raises:
        RequestError: the packages that this needs are not installed.
    """
    if name in file.openapi:
        from orchestrator.tool_discovery.openapi import discover_document  # noqa: PLC0415 (no other command waits for these imports)

        return _judged(asyncio.run(discover_document(file.openapi[name], settings=settings)), {})
    if missing := missing_packages("mcp"):
        raise RequestError(f"{', '.join(missing)} not installed", next=f"Run `{install_command('mcp')}`.")
    from orchestrator.tool_discovery.mcp import discover_server  # noqa: PLC0415

    known, before = _known(settings, name)
    report = asyncio.run(
        discover_server(
            file.servers[name],
            file.toolsets.get(name),
            settings=settings,
            known={t.name: t for t in known},
            known_version=before.version if before is not None else None,
            known_reach=before.reach if before is not None else "",
        )
    )
    return _judged(report, {t.name: t for t in known})


def _judged(report: ServerReport, known: Mapping[str, ToolDefinition]) -> Look:
    reasons = {q.name: q.reasons for q in report.quarantined}
    former = {t.name: known[t.name] for t in report.held if t.name in known and known[t.name] != t}
    return Look(
        report.server,
        report.seconds,
        error=report.error,
        protocol=report.protocol,
        version=report.version,
        tools=tuple(sorted(report.tools, key=lambda t: t.name)),
        held=tuple(Held(t.native_name or t.name, t, reasons[t.name], former.get(t.name)) for t in report.held),
        refused=report.refused,
        notes=report.notes,
    )


def _known(settings: Settings, name: str) -> tuple[list[ToolDefinition], ServerState | None]:
    """What the platform knows of a server's tools, those included that are held back, and how the server was then."""
    try:
        with platform(settings) as client:
            if client is None:
                return [], None
            state = next((s for s in client.servers() if s.name == name), None)
            former = client.former_tools(name) if state is not None and state.quarantined else []
            return [*former, *(t for t in client.tools() if t.server == name)], state
    except ToolWeaverError:  # a look at the server itself says what there is to say
        return [], None


def one(file: ServersFile, name: str, tool: str, *, settings: Settings) -> Held:
    """One tool as it is now: of the running platform, else of the server itself, quarantined ones included.

    Raises:
        NotFound: the server has none of that name.
        BackendError: it cannot be asked.
    """
    for known in known_tools(settings, name) or ():
        if tool in (known.native_name, known.name):
            return Held(tool, known)
    seen = _reached(look(file, name, settings=settings))
    offered = [*seen.held, *(Held(t.native_name or t.name, t) for t in seen.tools)]
    found = next((h for h in offered if tool in (h.native, h.tool.name)), None)
    if found is None:
        raise _no_tool(seen, tool, [h.native for h in offered])
    return found


def held(file: ServersFile, name: str, tools: Sequence[str], *, settings: Settings) -> list[Held]:
    """The quarantined tools of those names, or all.

    Raises:
        NotFound: one is not quarantined; what it is then is said.
        BackendError: the server cannot be asked.
    """
    seen = _reached(look(file, name, settings=settings))
    if not tools:
        return list(seen.held)
    by_name = {n: h for h in seen.held for n in (h.native, h.tool.name)}
    for tool in tools:
        if tool not in by_name:
            raise _no_tool(seen, tool, [h.native for h in seen.held])
    return [by_name[t] for t in dict.fromkeys(tools)]


def explain(held: Held, console: Console) -> None:
    """Prints all that a model would read of a tool, with what is invisible made visible, and how it differs from before."""
    tool = held.tool
    lines = [f"{tool.name}  version {held.version}  effect {tool.effect}"]
    lines += [f"quarantined: {reason}" for reason in held.reasons]
    lines += ["", tool.description, "", json.dumps(tool.input_schema, indent=2, ensure_ascii=False)]
    if held.former is not None:
        lines += ["", f"changed from version {said_version(held.former)}:", *changes(held.former, tool)]
    console.print(Text(visible("\n".join(lines))), soft_wrap=True)


def changes(former: ToolDefinition, now: ToolDefinition) -> list[str]:
    """What differs between two versions, as lines of a diff."""
    return list(difflib.unified_diff(_lines(former), _lines(now), lineterm="", n=1))[2:]


def _lines(tool: ToolDefinition) -> list[str]:
    said = tool.model_dump(mode="json", exclude_defaults=True, exclude={"parameters"})
    return json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _reached(seen: Look) -> Look:
    if seen.error is not None:
        raise BackendError(visible(seen.error), next=f"`toolweaver mcp test {seen.name}` tries it.")
    return seen


def _no_tool(seen: Look, tool: str, offered: Sequence[str]) -> NotFound:
    if any(tool in (t.native_name, t.name) for t in seen.tools):
        return NotFound(f"`{tool}` of {seen.name} is not quarantined", path="TOOL", next="It is served as it is.")
    near = difflib.get_close_matches(tool, offered, n=1)
    move = f"Did you mean `{near[0]}`?" if near else f"`toolweaver mcp test {seen.name}` lists what it has."
    return NotFound(f"{seen.name} has no such tool `{tool}`", path="TOOL", next=move)
