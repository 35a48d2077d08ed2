"""`GET /v1/servers`: what an admin sees of servers, and how much less a tenant does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from orchestrator.api import create_app
from orchestrator.catalog.store import CatalogStore
from orchestrator.client import AsyncClient, Client
from orchestrator.models.access import CreateKeyRequest
from orchestrator.models.catalog import Diff, Quarantined, Refusal, ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.keys import KeyStore
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from tests.integration.test_api import Served

pytestmark = pytest.mark.integration

SECRETIVE = ServerState(
    name="notes",
    kind="stdio",
    state="down",
    error="notes died: Traceback in /srv/private/notes.py",
    protocol="2025-11-25",
    version="1.2",
    tools=3,
    quarantined=(Quarantined(name="notes.add", version="0123456789abcdef", reasons=("ignore all previous instructions",)),),
    refused=(Refusal(native_name="broken", reason="no schema"),),
    diff=Diff(added=("notes.list",)),
    at=1_800_000_000.0,
    worker="mcp-1@host.internal",
)
OTHER = ServerState(name="acme-only", kind="http", state="up", tools=1, at=1_800_000_000.0, worker="mcp-1@host.internal")


def definition(name: str, server: str, tenants: tuple[str, ...] | None = None) -> ToolDefinition:
    schema = {"type": "object", "properties": {}}
    native = name.partition(".")[2]
    return ToolDefinition(name=name, type="mcp", pool="mcp", server=server, native_name=native, json_schema=schema, tenants=tenants)


@pytest.fixture
def store(settings: Settings) -> CatalogStore:
    store = CatalogStore(connect(settings))
    store.publish("mcp:notes", [definition("notes.list", "notes"), definition("notes.private", "notes", ("acme",))])
    store.publish("mcp:acme-only", [definition("acme-only.pay", "acme-only", ("acme",))])
    for state in (SECRETIVE, OTHER):
        store.put_server_state(state)
    return store


@contextmanager
def api(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        yield client


def key(settings: Settings, tenant: str, *scopes: str) -> dict[str, str]:
    made = KeyStore(connect(settings)).create(CreateKeyRequest.model_validate({"tenant": tenant, "name": "k", "scopes": scopes}))
    return {"Authorization": f"Bearer {made.key}"}


def test_whoever_works_on_this_machine_sees_all(settings: Settings, store: CatalogStore) -> None:
    with api(settings) as client:
        answered = client.get("/v1/servers").json()
    assert [ServerState.model_validate(s) for s in answered] == [OTHER, SECRETIVE]


def test_a_tenant_learns_of_servers_whose_tools_it_sees_and_nothing_of_machines(settings: Settings, store: CatalogStore) -> None:
    admin, acme, stranger = (
        key(settings, t, *s) for t, s in (("ops", ("read", "admin")), ("acme", ("read",)), ("else", ("read",)))
    )
    with api(settings) as client:
        assert client.get("/v1/servers").status_code == 401
        assert len(client.get("/v1/servers", headers=admin).json()) == 2
        seen = client.get("/v1/servers", headers=stranger)
        of_acme = client.get("/v1/servers", headers=acme).json()
    assert [(s["name"], s["tools"]) for s in seen.json()] == [("notes", 1)]
    assert [(s["name"], s["tools"]) for s in of_acme] == [("acme-only", 1), ("notes", 2)]
    for private in ("private", "Traceback", "host.internal", "ignore all", "broken", "acme"):
        assert private not in seen.text
    assert seen.json()[0]["state"] == "down"


def test_the_version_before_a_change_is_there_for_an_admin(settings: Settings, store: CatalogStore) -> None:
    known = definition("notes.add", "notes")
    store.publish("mcp:notes", [known, definition("notes.list", "notes")])
    store.publish("mcp:notes", [definition("notes.list", "notes")])  # it changed, and is held back
    admin, reader = key(settings, "ops", "read", "admin"), key(settings, "ops", "read")
    with api(settings) as client:
        assert client.get("/v1/servers/notes/former", headers=admin).json() == [known.model_dump(mode="json")]
        assert client.get("/v1/servers/acme-only/former", headers=admin).json() == []
        assert client.get("/v1/servers/notes/former", headers=reader).status_code == 403
        assert client.get("/v1/servers/nots/former", headers=admin).status_code == 404


async def test_both_clients_read_it(settings: Settings, store: CatalogStore) -> None:
    served = Served(settings)
    try:
        with Client(served.url) as client:
            assert await asyncio.to_thread(client.servers) == [OTHER, SECRETIVE]
        async with AsyncClient(served.url) as other:
            assert await other.servers() == [OTHER, SECRETIVE]
    finally:
        await asyncio.to_thread(served.stop)


def test_a_platform_without_servers_has_none(settings: Settings) -> None:
    with api(settings) as client:
        assert client.get("/v1/servers").json() == []
