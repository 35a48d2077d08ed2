"""The SDK's session over a wire that keeps listings as they came, gives reasons for failures, and says when it ended."""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import count
from typing import Any, cast

import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from pydantic import TypeAdapter, ValidationError

from orchestrator.tool_discovery.web import Trouble

for _chatty in ("httpx2", "mcp"):  # at INFO they write URLs and session ids, which are secrets
    logging.getLogger(_chatty).setLevel(logging.WARNING)

MOST_PAGES = 1_000
HEADER_KEY = "x-mcp-header"
CALL_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class Refused(Exception):
    """The transport did not get an answer; `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class Wire(JSONRPCDispatcher[TransportContext]):
    """A dispatcher with what the session hides.

    The session refuses a whole listing for one tool that is no valid tool: here the tools stay in `page`, and it sees only
    those of whose schemas it makes headers.
    """

    def __init__(self, read: Any, write: Any, *, probe_s: float) -> None:
        super().__init__(read, write)
        self.ended = asyncio.Event()
        self.page: dict[str, Any] = {}
        self.fatal: str | None = None
        self.asking = False
        self.refusal: str | None = None
        self._troubles: dict[Any, Trouble] = {}
        self._ids = count(1)
        self._probe_s = probe_s

    def note(self, request_id: Any, trouble: Trouble) -> None:
        """Keeps why a request failed; a fatal reason ends the connection."""
        self._troubles[request_id] = trouble
        if trouble.fatal:
            self.fatal = trouble.reason
            self.ended.set()

    async def run(self, *args: Any, **kwargs: Any) -> None:
        """As the SDK's; sets `ended`."""
        try:
            await super().run(*args, **kwargs)
        finally:
            self.ended.set()

    async def send_raw_request(self, method: str, params: Any, opts: CallOptions | None = None, **rest: Any) -> dict[str, Any]:
        """As the SDK's, with ids that are known; raises Refused where the transport knows more than the error says."""
        options = CallOptions(**{"request_id": next(self._ids), **(opts or {})})
        if method == "server/discover":
            options["timeout"] = self._probe_s
        ident = options["request_id"]
        try:
            result = await super().send_raw_request(method, params, options, **rest)
        except MCPError as e:
            if trouble := self._troubles.get(ident):
                raise Refused(trouble) from e
            raise
        finally:
            self._troubles.pop(ident, None)
        return self._kept(result) if method == "tools/list" else result

    def _kept(self, result: dict[str, Any]) -> dict[str, Any]:
        self.page = result
        tools = result.get("tools")
        return {**result, "tools": [t for t in tools if _makes_headers(t)] if isinstance(tools, list) else []}


def is_broken(error: MCPError) -> bool:
    """Whether the SDK says that the connection is closed; servers have errors of their own under the same code."""
    return error.code == types.CONNECTION_CLOSED and error.message == "Connection closed"


async def negotiate(session: ClientSession, wire: Wire, *, legacy: bool) -> None:
    """Agrees on a protocol: asks a server of today, and where that is no such server shakes hands as before 2026.

    The SDK's own policy is private to its `Client`, which would also hide the wire.
    """
    wire.asking = not legacy
    if not legacy and await _discovered(session, wire):
        return
    wire.asking = False
    try:
        await session.initialize()
    except MCPError as e:
        if is_broken(e) and wire.refusal:
            raise RuntimeError(wire.refusal) from e  # it said why, and left
        if e.code != types.UNSUPPORTED_PROTOCOL_VERSION:
            raise
        await session.discover()  # it was slow with the first question, and is of today after all


async def _discovered(session: ClientSession, wire: Wire) -> bool:
    try:
        await session.discover()
    except MCPError as e:
        if is_broken(e):
            raise
        wire.refusal = e.message if e.code != types.METHOD_NOT_FOUND else None
        return False
    except Refused as e:
        if e.trouble.status in (None, 401, 403):
            raise
        return False
    except (RuntimeError, ValidationError):
        return False
    return True


async def pages(session: ClientSession, wire: Wire, *, most_bytes: int) -> tuple[list[Any], list[str]]:
    """All tools of all pages as they came, and what was wrong with the pages."""
    tools: list[Any] = []
    problems: list[str] = []
    seen: set[str] = set()
    cursor: str | None = None
    left = most_bytes
    for _ in range(MOST_PAGES):
        wire.page = {}
        try:
            await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        except ValidationError as e:
            problems.append(f"a page of its list is against the protocol: {e.errors(include_url=False)[0]['msg']}")
        if cursor is None and not isinstance(wire.page.get("tools"), list):
            raise Refused(Trouble("answers tools/list with what is no list of tools", sent=True))
        left -= _take(wire.page.get("tools"), tools, left)
        cursor = wire.page.get("nextCursor")
        if left <= 0:
            return tools, [*problems, f"its list is longer than {most_bytes >> 20} MiB; the rest was not read"]
        if not isinstance(cursor, str) or not cursor:
            return tools, problems
        if cursor in seen:
            return tools, [*problems, "the pages of its list go in a circle; they were read once"]
        seen.add(cursor)
    return tools, [*problems, f"its list has more than {MOST_PAGES:,} pages; the rest was not read"]


def _take(page: Any, tools: list[Any], left: int) -> int:
    """Adds the tools of a page as long as there is room; how much of it they took."""
    taken = 0
    for tool in page if isinstance(page, list) else []:
        taken += len(json.dumps(tool, ensure_ascii=False))
        if taken > left:
            return taken
        tools.append(tool)
    return taken


async def called(
    session: ClientSession, native: str, arguments: dict[str, Any], *, progress: Any, meta: Any
) -> types.CallToolResult | types.InputRequiredResult:
    """Calls a tool. Not by the session's own method, which judges results by schemas that we judge ourselves."""
    params = types.CallToolRequestParams(
        name=native, arguments=arguments, _meta=cast(types.RequestParamsMeta, dict(meta)) if meta else None
    )
    return await session.send_request(types.CallToolRequest(params=params), CALL_RESULT, progress_callback=progress)


async def pinged(session: ClientSession) -> None:
    """Returns when the server answers; servers of today know no ping, and are asked who they are."""
    if session.discover_result is not None:
        await session.send_discover(session.protocol_version or "")
    else:
        await session.send_ping()


def tells_changes(session: ClientSession) -> bool:
    """Whether the server is of today and can tell of changes of its tools; an older one tells them unasked."""
    can = session.server_capabilities
    return bool(session.discover_result and can and can.tools and can.tools.list_changed)


async def watch(session: ClientSession, changed: Any) -> None:
    """Calls `changed` whenever a server of today says that its tools changed; for as long as the connection lives."""
    pause = 1.0
    while True:
        try:
            async with listen(session, tools_list_changed=True) as events:
                pause = 1.0
                async for _ in events:
                    changed()
        except (MCPError, Refused, SubscriptionLost):
            pass
        await asyncio.sleep(pause)
        pause = min(pause * 2, 60.0)


def header_problem(tool: dict[str, Any]) -> str | None:
    """Why a server's headers for a tool cannot be made, where that is so: a client must not use such a tool."""
    return find_invalid_x_mcp_header(tool.get("inputSchema"))


def _makes_headers(tool: Any) -> bool:
    if not isinstance(tool, dict) or HEADER_KEY not in json.dumps(tool.get("inputSchema"), default=str):
        return False
    try:
        types.Tool.model_validate(tool, by_name=False)
    except ValidationError:
        return False
    return True
