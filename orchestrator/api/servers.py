"""`/v1/servers`: the MCP servers and APIs whose tools the pools serve, and how they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fastapi import APIRouter

from orchestrator.api.auth import check_scope
from orchestrator.api.services import Api, By
from orchestrator.errors import NotFound
from orchestrator.models.catalog import ServerState
from orchestrator.models.tool import ToolDefinition

router = APIRouter(prefix="/v1", tags=["tools"])


@router.get("/servers")
def servers(api: Api, by: By) -> list[ServerState]:
    """The MCP servers and APIs that the pools know, by name. Only an admin learns of all, and why one is down."""
    states = sorted(api.catalog.server_states().values(), key=lambda s: s.name)
    if "admin" in by.scopes:
        return states
    seen: Counter[str | None] = Counter(tool.server for tool in api.tools(by.tenant).tools if tool.server)
    return [_outline(s, seen) for s in states if seen[s.name]]


@router.get("/servers/{name}/former")
def former(name: str, api: Api, by: By) -> list[ToolDefinition]:
    """Of each quarantined tool of a server, the version that was served before, where one was. Needs the scope `admin`."""
    check_scope(by, "admin")
    state = api.catalog.server_states().get(name)
    if state is None:
        raise NotFound(f"There is no server `{name[:64]}`.", path="name", next="`toolweaver mcp list` shows those that there are.")
    return [tool for held in state.quarantined if (tool := api.catalog.former(held.name)) is not None]


def _outline(state: ServerState, seen: Mapping[str | None, int]) -> ServerState:
    """What a tenant may know: how the server does and how many of its tools are there for it.

    Its errors, and the texts that got a tool quarantined, tell of a machine and carry what a hostile server wrote.
    """
    return ServerState(
        name=state.name,
        kind=state.kind,
        state=state.state,
        error="It cannot be reached now; an admin sees why." if state.error else None,
        protocol=state.protocol,
        version=state.version,
        tools=seen[state.name],
        at=state.at,
    )
