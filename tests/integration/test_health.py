"""`/health`: each check looks at a real thing, none waits long, none asks a vendor too often; strangers are told nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from orchestrator.api.checks import DEADLINE_S, HealthChecks, model_addresses
from orchestrator.catalog.store import CatalogStore
from orchestrator.client import Client
from orchestrator.models.access import CreateKeyRequest
from orchestrator.models.catalog import ServerState
from orchestrator.models.request import HealthCheck
from orchestrator.models.search import IndexStatus, SearchRequest
from orchestrator.monitoring import ToolUsageMonitor, print_metrics_report
from orchestrator.monitoring.feed import Feed
from orchestrator.policy.breaker import Breakers
from orchestrator.policy.keys import KeyStore
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
from tests.api import running_api
from tests.processes import platform
from tests.services import free_port
from tests.support import wait_until

pytestmark = pytest.mark.integration


class Far:
    """A server that answers each GET with a status and a body, or not at all; what it was asked."""

    def __init__(self) -> None:
        self.status, self.body, self.silent = 401, b"{}", threading.Event()
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        self.url = ""


@contextmanager
def far_server() -> Iterator[Far]:
    far, over = Far(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            far.seen.append((self.path, dict(self.headers)))
            if far.silent.is_set():
                over.wait(30)
                return
            self.send_response(far.status)
            self.send_header("Content-Length", str(len(far.body)))
            self.end_headers()
            self.wfile.write(far.body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    far.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield far
    finally:
        over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def far() -> Iterator[Far]:
    with far_server() as made:
        yield made


@contextmanager
def checks(settings: Settings, **options: Any) -> Iterator[HealthChecks]:
    made = HealthChecks(settings, connect(settings, retries=0, timeout_s=2.0), **options)
    try:
        yield made
    finally:
        made.close()


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def health(settings: Settings) -> tuple[int, dict[str, Any]]:
    with running_api(settings) as url:
        answer = httpx.get(f"{url}/health", timeout=10, trust_env=False)
        return answer.status_code, answer.json()


def test_a_bare_platform_can_take_jobs(settings: Settings, client: redis.Redis) -> None:
    status, found = health(settings)
    assert (status, found["status"]) == (200, "degraded")
    assert set(found["checks"]) == {"store", "database", "cache", "discovery", "workers", "embedding_model", "llm_api"}
    assert {name for name, check in found["checks"].items() if not check["ok"]} == {"workers"}
    for name in ("embedding_model", "llm_api"):
        assert not found["checks"][name]["configured"]
        assert found["checks"][name]["detail"].startswith("not configured: ")
    assert found["timestamp"]
    assert found["checks"]["discovery"]["detail"].endswith(" tools")


def test_without_a_store_it_can_not(settings: Settings, tmp_path: Path) -> None:
    status, found = health(changed(settings, redis_url=f"unix://{tmp_path}/none.sock"))
    assert (status, found["status"]) == (503, "down")
    assert {name for name, check in found["checks"].items() if not check["ok"]} == {
        "store", "database", "cache", "discovery", "workers", "embedding_model",
    }  # fmt: skip


def test_a_store_that_takes_no_writes_can_not(settings: Settings, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", free_port())  # a replica refuses writes
    try:
        status, found = health(settings)
    finally:
        client.replicaof("NO", "ONE")
    assert (status, found["status"]) == (503, "down")
    assert found["checks"]["store"]["ok"]
    assert not found["checks"]["database"]["ok"]
    assert "read only" in found["checks"]["database"]["detail"].lower()


def test_servers_of_tools_that_are_down_are_told(settings: Settings, client: redis.Redis) -> None:
    catalog = CatalogStore(client)
    catalog.put_server_state(ServerState(name="time", kind="stdio", state="up", at=time.time()))
    catalog.put_server_state(ServerState(name="git", kind="stdio", state="down", error="gone", at=time.time()))
    with checks(settings) as made:
        found = made.discovery()
    assert found.ok
    assert "1 of 2 servers of tools answer, down: git" in found.detail


def test_a_model_that_answers_anything_is_there_and_gets_no_key(settings: Settings, client: redis.Redis, far: Far) -> None:
    named = changed(settings, planner_provider="openai-compatible", planner_url=far.url + "/v1", planner_key=SecretStr("sk-secret"))
    with checks(named) as made:
        for _ in range(5):
            assert made.all()["llm_api"] == HealthCheck(ok=True, detail="openai-compatible: 127.0.0.1 answers")
    ((path, headers),) = far.seen
    assert path == "/v1"
    assert "sk-secret" not in str(headers)
    assert not {"authorization", "x-api-key", "api-key"} & {name.lower() for name in headers}


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_model_whose_server_is_down_is_not(settings: Settings, client: redis.Redis, far: Far, status: int) -> None:
    far.status = status
    named = changed(settings, planner_provider="openai-compatible", planner_url=far.url)
    code, found = health(named)
    assert (code, found["status"]) == (200, "degraded"), "jobs that need no model are taken all the same"
    assert found["checks"]["llm_api"]["detail"] == f"openai-compatible: 127.0.0.1 answers {status}"


def test_an_address_that_is_none_is_a_model_that_is_not_there(settings: Settings, client: redis.Redis) -> None:
    with checks(changed(settings, planner_provider="openai", planner_url="http://[half")) as made:
        assert [made.all()["llm_api"].ok for _ in range(2)] == [False, False]


def test_a_model_that_nobody_serves_is_not_there(settings: Settings, client: redis.Redis) -> None:
    named = changed(settings, planner_provider="ollama", planner_url=f"http://127.0.0.1:{free_port()}")
    with checks(named) as made:
        found = made.llm_api()
    assert found == HealthCheck(ok=False, detail="ollama: 127.0.0.1 does not answer (ConnectError)")


def test_a_provider_whose_breaker_is_open_is_left_alone(settings: Settings, client: redis.Redis, far: Far) -> None:
    named = changed(settings, planner_provider="anthropic", planner_url=far.url)
    breakers = Breakers(client, named)
    for _ in range(named.breaker_failures):
        breakers.admit(["model:anthropic"]).failed("529")
    with checks(named) as made:
        found = made.llm_api()
    assert found == HealthCheck(ok=False, detail=f"anthropic: failed {named.breaker_failures} times; left alone for now")
    assert far.seen == []


def test_a_small_model_is_looked_at_too(settings: Settings, client: redis.Redis, far: Far) -> None:
    named = changed(settings, planner_provider="scripted", use_small_model=True, small_model_url=far.url)
    with checks(named) as made:
        found = made.llm_api()
    assert found.detail == "scripted: in this platform's own processes; small model: 127.0.0.1 answers"


def test_every_provider_has_an_address_or_says_that_none_is_set(settings: Settings) -> None:
    def of(**values: Any) -> dict[str, str | None]:
        return model_addresses(changed(settings, **values))

    for provider in ("openai", "anthropic", "gemini"):
        assert str(of(planner_provider=provider)[provider]).startswith("https://")
    assert of(planner_provider="azure-openai") == {"azure-openai": ""}
    assert of(planner_provider="azure-openai", azure_openai_endpoint="https://r.openai.azure.com") == {
        "azure-openai": "https://r.openai.azure.com"
    }
    assert of(planner_provider="transformers") == {"transformers": None}
    assert of(planner_provider="openai", planner_url="http://proxy") == {"openai": "http://proxy"}
    assert of() == {}


def test_what_is_silent_holds_nobody_up(settings: Settings, client: redis.Redis, far: Far) -> None:
    far.silent.set()
    named = changed(settings, planner_provider="openai-compatible", planner_url=far.url, index_urls=(far.url,))
    with running_api(named) as url:
        for _ in range(3):
            began = time.monotonic()
            answer = httpx.get(f"{url}/health", timeout=10, trust_env=False)
            assert time.monotonic() - began < DEADLINE_S + 1.5
            found = answer.json()["checks"]
            assert answer.status_code == 200
            assert {n for n, c in found.items() if not c["ok"]} == {"workers", "embedding_model", "llm_api"}
        paths = [path for path, _ in far.seen]
        assert paths.count("/") <= 2, "one that has not come back is not begun again"


def test_an_index_without_its_encoder_is_degraded(settings: Settings, client: redis.Redis, far: Far) -> None:
    far.status = 200
    status = IndexStatus(
        replica="r", generation=1, catalog_hash="", size=12, backlog=0, degraded=("meaning: the package is missing",)
    )
    far.body = status.model_dump_json().encode()
    with checks(changed(settings, index_urls=(far.url,))) as made:
        found = made.embedding_model()
        assert not found.ok
        assert "the package is missing" in found.detail
        far.body = status.model_copy(update={"encoder": "MiniLM", "degraded": ()}).model_dump_json().encode()
        assert made.embedding_model() == HealthCheck(ok=True, detail="MiniLM; 12 tools, 0 not embedded yet")


def test_nothing_is_told_where_keys_are_in_force(settings: Settings, client: redis.Redis, far: Far) -> None:
    named = changed(settings, planner_provider="openai-compatible", planner_url=far.url, auth="required")
    _, found = health(named)
    assert all(check["detail"] == "" and check["configured"] for check in found["checks"].values())
    assert "openai" not in json.dumps(found)


def test_the_report_is_for_admins(settings: Settings, client: redis.Redis) -> None:
    Feed(client, METRICS).tool_call("acme.secret", "failed", seconds=0.1, code="boom")
    wait_until(lambda: ToolUsageMonitor(client=client).report().tool_calls == 1, description="it is counted")
    keys = KeyStore(client)
    user, admin = (keys.create(CreateKeyRequest(tenant="acme", scopes=s)).key for s in (("read", "write"), ("admin",)))
    with running_api(settings) as url:
        path = f"{url}/v1/metrics/report"
        assert httpx.get(path, trust_env=False).status_code == 401
        assert httpx.get(path, headers={"X-API-Key": user}, trust_env=False).status_code == 403
        with Client(url, api_key=admin) as asking:
            report = asking.access.metrics()
    assert (report.shared, report.tool_calls, report.recent_errors[0].code) == (True, 1, "boom")


def test_a_platform_tells_of_all_its_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """API, planner, a pool of processes and the index service count into one report, and are found healthy."""
    with platform(index_port=free_port()) as running:
        running.start_api()
        running.start_planner()
        running.start_worker("function", pool="function", concurrency=2)
        running.start("index", [sys.executable, "-m", "orchestrator.tool_search.service"])
        running.wait_ready()
        tax = {"id": "tax", "tool": "compute_tax", "input": {"amount": "item", "tax_rate": 0.1}, "map": "input:amounts"}
        job = running.submit([tax], inputs={"amounts": list(range(1, 41))})
        assert running.wait(job).status == "succeeded"
        wait_until(lambda: running.api.health().status == "ok", description="all is well, the encoder too", timeout=60)
        for _ in range(2):
            running.api.search_tools(SearchRequest(queries=("tax of an amount",)))
        monitor = ToolUsageMonitor(client=running.client)
        wait_until(lambda: monitor.report().tool_calls == 40, description="each call is counted once")
        wait_until(lambda: monitor.report().searches == 2, description="searches are counted")
        running.terminate("function")
        report = running.api.access.metrics()
    assert [(t.name, t.calls, t.errors) for t in report.tools] == [("compute_tax", 40, 0)]
    assert report.searches_cached == 1
    print_metrics_report(report)
    printed = capsys.readouterr().out
    assert "Total tool calls:    40" in printed
    assert "Cache hit rate:      50.0%" in printed
    assert "compute_tax                      40 calls  (p50: " in printed
