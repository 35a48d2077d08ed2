"""`POST /v1/tools/search`: the key decides whose tools are searched, the policy which; without an index it says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.access import CreateKeyRequest, Policy
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.keys import KeyStore
from orchestrator.policy.store import PolicyStore
from orchestrator.tool_search.client import IndexClient
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until

pytestmark = pytest.mark.integration

TOOLS = [
    ToolDefinition(name="weather.forecast", description="Tells the weather of the next days"),
    ToolDefinition(name="acme.weather", description="Tells the weather in the halls of Acme", tenants=("acme",)),
    ToolDefinition(name="files.delete", description="Deletes the weather file", requires=("filesystem:delete",)),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(index_port=free_port()) as made:
        CatalogStore(made.client).publish("mcp:all", TOOLS)
        made.start_api()
        wait_until(lambda: _health(made) == 200, description="the API answers", timeout=60)
        yield made


@pytest.fixture(scope="module")
def keys(running: Platform) -> dict[str, str]:
    store = KeyStore(running.client)
    return {tenant: store.create(CreateKeyRequest(tenant=tenant, scopes=("read",))).key for tenant in ("acme", "other")}


def _health(made: Platform) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{made.env['TOOLWEAVER_API_PORT']}/health").status_code
    except httpx.TransportError:
        return 0


def search(made: Platform, key: str, **body: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{made.env['TOOLWEAVER_API_PORT']}/v1/tools/search"
    return httpx.post(url, json={"queries": ["weather"], **body}, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def test_without_an_index_it_is_a_problem_with_the_next_move(running: Platform, keys: dict[str, str]) -> None:
    response = search(running, keys["acme"])
    problem = response.json()
    assert (response.status_code, problem["code"], problem["retryable"]) == (503, "index_unavailable", True)
    assert "toolweaver up" in problem["next"]


def test_the_key_decides_whose_tools_are_searched_and_the_policy_which(running: Platform, keys: dict[str, str]) -> None:
    running.start("index", [sys.executable, "-m", "orchestrator.tool_search.service"])
    client = IndexClient.of(running.settings, timeout=60)
    wait_until(lambda: client.statuses(), description="the index announces itself", timeout=60)
    client.close()

    def names(key: str, **body: Any) -> set[str]:
        response = search(running, key, **body)
        assert response.status_code == 200, response.text
        return {hit["name"] for hit in response.json()["hits"]}

    assert {"weather.forecast", "acme.weather"} <= names(keys["acme"])
    other = search(running, keys["other"], filters={"tenant": "acme"}, priority=["acme.weather"])
    assert "acme" not in other.text
    assert "files.delete" not in names(keys["acme"]), "what it needs is denied until somebody allows it"

    PolicyStore(running.client, running.settings).put("other", Policy(tools=("files.*",), actions={"filesystem": ("delete",)}))
    wait_until(lambda: names(keys["other"]) == {"files.delete"}, description="the new policy holds", timeout=10)
    asked_for_less = search(running, keys["other"], filters={"requires": ["network:https"]})
    assert asked_for_less.json()["hits"] == []


def test_what_is_asked_wrongly_names_its_place(running: Platform, keys: dict[str, str]) -> None:
    response = search(running, keys["acme"], k=0)
    assert (response.status_code, response.json()["path"]) == (422, "k")


def test_a_caller_has_few_patterns_of_its_own(running: Platform, keys: dict[str, str]) -> None:
    response = search(running, keys["acme"], filters={"forbidden": [f"*a{n}*" for n in range(40)]})
    assert (response.status_code, response.json()["path"]) == (400, "filters")


def test_feedback_that_is_told_twice_under_its_id_counts_once(running: Platform) -> None:
    key = KeyStore(running.client).create(CreateKeyRequest(tenant="acme", scopes=("read", "write"))).key
    headers = {"Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}/v1/tools/feedback"
    told = {"query": "will it rain", "used": ["weather.forecast"], "id": "mine-1"}
    twice = [httpx.post(url, json=told, headers=headers, timeout=30) for _ in range(2)]
    assert [(r.status_code, r.json()["id"]) for r in twice] == [(201, "mine-1")] * 2
    assert httpx.get(url, headers=headers, timeout=30).json()["total"] == 1
    misspelt = httpx.post(url, json={"query": "will it rain", "used": ["weather.forcast"]}, headers=headers, timeout=30)
    assert (misspelt.status_code, "weather.forecast" in misspelt.json()["next"]) == (404, True)
