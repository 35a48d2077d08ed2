"""The index service as processes: what it finds, how it follows the catalog, what it survives, and what it never tells."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.search import Filters, IndexStatus, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.client import IndexClient
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until

pytestmark = pytest.mark.integration

MODULE = "orchestrator.tool_search.service"


def tool(name: str, description: str, **more: Any) -> ToolDefinition:
    return ToolDefinition(name=name, description=description, **more)


TOOLS = [
    tool("weather.forecast", "Tells the weather of the next days for a city"),
    tool("mail.send", "Sends an e-mail message to somebody"),
    tool("files.delete", "Deletes a file for ever", requires=("filesystem:delete",)),
    tool("acme.ledger", "Reads the secret zyzzyva ledger of Acme", tenants=("acme",)),
    tool("bank.transfer", "Moves money from one account to another", tags=("money",), server="bank"),
    tool("old.forecast", "Tells the weather, formerly", deprecated="use weather.forecast"),
]


class Lab:
    """A server, and replicas of the index over one home."""

    def __init__(self, running: Platform) -> None:
        self.running = running
        self.store = CatalogStore(running.client)
        self.urls: dict[str, str] = {}
        self.client = IndexClient.of(running.settings, timeout=30.0)

    def start(self, name: str = "index", **env: str) -> IndexClient:
        port = free_port()
        self.urls[name] = f"http://127.0.0.1:{port}"
        self.running.start(name, [sys.executable, "-m", MODULE], env={"TOOLWEAVER_INDEX_PORT": str(port), **env})
        return self.of(name)

    def of(self, name: str) -> IndexClient:
        return IndexClient([self.urls[name]], timeout=30.0)

    def index_folders(self) -> list[Path]:
        return [note.with_suffix("") for note in self.running.settings.home.glob("index/*/*.json")]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with platform() as running:
        made = Lab(running)
        made.store.publish("mcp:all", TOOLS)
        made.start()
        wait_until(lambda: made.client.statuses(), description="the replica announces itself", timeout=60)
        yield made
        made.client.close()


def names(answer: SearchAnswer) -> list[str]:
    return [hit.name for hit in answer.hits]


def ask(client: IndexClient, *queries: str, **more: Any) -> SearchAnswer:
    return client.search(SearchRequest(queries=queries, **more))


def settled(client: IndexClient) -> IndexStatus:
    """A replica that knows all of the store, by meaning too."""

    def look() -> IndexStatus | None:
        status = client.status()
        known = status.generation == status.store_generation and status.catalog_hash == status.store_hash
        return status if known and not status.backlog else None

    found = wait_until(look, description="the replica knows all tools by meaning", timeout=60)
    assert found is not None
    return found


def test_a_search_over_http_finds_by_words_and_by_meaning(lab: Lab) -> None:
    settled(lab.client)
    assert names(ask(lab.client, "weather forecast for a city"))[0] == "weather.forecast"
    meant = ask(lab.client, "will it rain tomorrow?", k=1, deadline_ms=10_000)
    assert names(meant) == ["weather.forecast"], "no word of the query stands in the tool"
    hit = meant.hits[0]
    assert "meaning" in hit.reason
    assert 0 < hit.score <= 1
    assert hit.tokens > 0
    assert hit.version == TOOLS[0].content_hash
    assert meant.tokens == hit.tokens < meant.tokens_all


def test_details_and_several_queries_share_one_answer(lab: Lab) -> None:
    both = ask(lab.client, "weather", "send an e-mail", k=2, detail="schema")
    assert set(names(both)) == {"weather.forecast", "mail.send"}
    assert {h.tool for h in both.hits if h.tool is not None and h.tool.name == "mail.send"} or both.hits
    assert next(h.tool for h in both.hits if h.name == "mail.send") == TOOLS[1]
    assert all(h.description is None and h.tool is None for h in ask(lab.client, "weather", detail="names").hits)


def test_a_tool_of_another_tenant_is_in_no_answer_and_in_no_count(lab: Lab) -> None:
    own = ask(lab.client, "secret zyzzyva ledger of Acme", "acme.ledger", filters=Filters(tenant="acme"), priority=("acme.ledger",))
    other = ask(
        lab.client, "secret zyzzyva ledger of Acme", "acme.ledger", filters=Filters(tenant="other"), priority=("acme.ledger",)
    )
    assert names(own)[0] == "acme.ledger"
    assert "acme" not in other.model_dump_json()
    assert (other.size, own.size) == (own.size - 1, other.size + 1)
    assert own.tokens_all - other.tokens_all == own.hits[0].tokens


def test_what_is_not_granted_or_is_deprecated_is_left_out_before_ranking(lab: Lab) -> None:
    assert "files.delete" in names(ask(lab.client, "delete a file"))
    assert "files.delete" not in names(
        ask(lab.client, "delete a file", "files.delete", filters=Filters(requires=("filesystem:read",)))
    )
    assert "old.forecast" not in names(ask(lab.client, "weather formerly"))
    assert "old.forecast" in names(ask(lab.client, "weather formerly", filters=Filters(deprecated=True)))
    money = ask(lab.client, "weather", filters=Filters(tags=("money",), servers=("bank",)))
    assert names(money) in ([], ["bank.transfer"])
    assert money.size == 1


def test_named_tools_come_first_and_priority_tools_are_always_in(lab: Lab) -> None:
    found = ask(lab.client, "the weather, but with mail.send please", k=1, priority=("bank.transfer",))
    assert names(found)[0] == "mail.send"
    assert found.hits[0].exact
    assert found.hits[0].score >= 0.95
    assert "bank.transfer" in names(found)


def test_a_budget_of_tokens_bounds_the_answer(lab: Lab) -> None:
    wide = ask(lab.client, "weather", "money", "mail", "file", k=4)
    narrow = ask(lab.client, "weather", "money", "mail", "file", token_budget=wide.tokens - 1)
    assert narrow.tokens < wide.tokens
    assert len(narrow.hits) < 4
    assert narrow.hits


def test_odd_queries_are_answered(lab: Lab) -> None:
    for query in ("", " \n", "🙂🙂", "погода в Париже", "the of and", "'; DROP TABLE tools; --", "\x00\x01", "a" * 100_000):
        found = ask(lab.client, query)
        assert found.generation >= 1
    assert "100000 characters" in ask(lab.client, "b " * 50_000).notes[0]


def test_equal_requests_are_answered_from_what_is_kept(lab: Lab) -> None:
    settled(lab.client)
    first = ask(lab.client, "weather in Rome", deadline_ms=10_000)
    again = ask(lab.client, "weather in Rome", deadline_ms=10_000)
    assert not first.cached
    assert again.cached
    assert names(first) == names(again)


def test_a_change_is_found_by_words_within_a_second_and_the_hashes_are_equal(lab: Lab) -> None:
    lab.store.publish("mcp:new", [tool("new.frobnicate", "Frobnicates quuxes")])
    wait_until(
        lambda: names(ask(lab.client, "frobnicates quuxes"))[:1] == ["new.frobnicate"], description="it is found", timeout=1.0
    )
    lab.store.publish("mcp:new", [tool("new.frobnicate", "Polishes brass")])
    wait_until(lambda: ask(lab.client, "polishes brass").hits[0].name == "new.frobnicate", description="its change is", timeout=1.0)
    lab.store.publish("mcp:new", [])
    wait_until(lambda: "new.frobnicate" not in names(ask(lab.client, "polishes brass")), description="it is gone", timeout=1.0)
    status = settled(lab.client)
    assert status.catalog_hash == lab.store.catalog_hash()


def test_a_replica_waits_for_the_generation_that_is_asked_for(lab: Lab) -> None:
    lab.store.publish("mcp:min", [tool("min.one", "Counts marbles")])
    version = lab.store.version()
    assert version is not None
    found = ask(lab.client, "marbles", min_generation=int(version.split(b":")[1]))
    assert names(found)[0] == "min.one"
    with httpx.Client(base_url=lab.urls["index"], headers={"Content-Type": "application/json"}) as raw:
        behind = raw.post("/search", content=SearchRequest(queries=("x",), min_generation=10**12).model_dump_json())
    assert behind.status_code == 425
    assert behind.json()["code"] == "index_behind"


def test_what_is_asked_wrongly_is_a_problem_with_its_place(lab: Lab) -> None:
    with httpx.Client(base_url=lab.urls["index"], headers={"Content-Type": "application/json"}) as raw:
        wrong = raw.post("/search", content=b'{"queries": ["a"], "k": 0}')
        assert wrong.status_code == 422
        assert wrong.json()["path"] == "k"
        assert raw.post("/search", content=b"{").status_code == 422
        many = raw.post("/search", json={"queries": ["a"] * 17})
        assert many.status_code == 422
        assert many.json()["path"] == "queries"
        large = raw.post("/search", json={"queries": ["a" * (1 << 21)]})
        assert large.status_code == 413
        assert large.json()["code"] == "limit_exceeded"
        patterns = [f"*a{n}*" for n in range(5_000)]
        assert raw.post("/search", json={"queries": ["a"], "filters": {"allowed": [patterns]}}).json()["path"] == "filters.allowed"
        assert raw.get("/feedback", params={"limit": "²"}).status_code == 200
        assert raw.get("/nothing").status_code == 404
        page = raw.post("/search", json={"queries": ["a"]}, headers={"Origin": "https://evil.example"})
        assert page.status_code == 403
        assert raw.get("/status", headers={"Host": "evil.example"}).status_code == 403
        assert raw.post("/search", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_vectors_are_made_for_others(lab: Lab) -> None:
    found = lab.client.embed(["weather", "e-mail"])
    assert found.dimensions == 384 == len(found.vectors[0])
    assert len(found.vectors) == 2
    before = lab.running.client.dbsize()
    lab.client.embed([f"text {n} that is no query" for n in range(64)])
    assert lab.running.client.dbsize() <= before, "the store's memory is that of the jobs"


def test_large_answers_are_not_kept(lab: Lab) -> None:
    settled(lab.client)
    many = {"detail": "summary", "k": 1_000, "deadline_ms": 10_000, "filters": Filters(tenant="large")}
    lab.store.publish("mcp:large", [tool(f"large.t{n}", f"Does a large thing {n}", tenants=("large",)) for n in range(60)])
    settled(lab.client)
    found = [ask(lab.client, "a large thing", **many) for _ in range(2)]
    assert len(found[1].hits) >= 60
    assert not any(f.cached for f in found)
    few = [ask(lab.client, "a large thing", **many | {"k": 5}) for _ in range(2)]
    assert few[1].cached
    lab.store.publish("mcp:large", [])


def test_feedback_changes_the_ranking_and_its_undo_restores_it(lab: Lab) -> None:
    settled(lab.client)
    query = "take care of the quarterly thing"
    before = ask(lab.client, query, deadline_ms=10_000)
    told = lab.client.feedback(query, ["bank.transfer"], tenant="learner")
    mine = Filters(tenant="learner")
    wait_until(
        lambda: names(ask(lab.client, query, filters=mine, deadline_ms=10_000))[:1] == ["bank.transfer"],
        description="what was used is first", timeout=30,
    )  # fmt: skip
    assert "used before" in ask(lab.client, query, filters=mine, deadline_ms=10_000).hits[0].reason
    assert names(ask(lab.client, query, deadline_ms=10_000)) == names(before), "another tenant's use teaches nobody else"
    assert [e.id for e in lab.client.told(tenant="learner").entries] == [told.id]
    assert lab.client.undo(told.id, tenant="learner").used == ("bank.transfer",)
    wait_until(
        lambda: names(ask(lab.client, query, filters=mine, deadline_ms=10_000)) == names(before),
        description="ranking is as before", timeout=30,
    )  # fmt: skip


def test_metrics_and_health_are_told(lab: Lab) -> None:
    with httpx.Client(base_url=lab.urls["index"]) as raw:
        text = raw.get("/metrics").text
        assert raw.get("/health").json()["status"] == "ok"
    for name in (
        "search_seconds_bucket",
        "search_degraded",
        "index_backlog",
        "index_generation",
        'index_events_total{event="swaps"}',
    ):
        assert name in text


def test_a_replica_that_was_killed_starts_from_its_snapshot_and_a_corrupt_one_is_made_anew(lab: Lab) -> None:
    settled(lab.client)
    wait_until(lambda: lab.client.status().snapshot, description="a snapshot is written", timeout=60)
    lab.running.kill("index")
    lab.running.look_from_here()
    lab.store.publish("mcp:while", [tool("while.away", "Juggles seven torches")])
    client = lab.start()
    status = settled(client)
    assert status.snapshot is not None, lab.running.logs()
    assert not status.counts.get("reloads"), "only what changed was read"
    assert names(ask(client, "juggles torches"))[0] == "while.away"
    assert lab.running.said("is taken up")

    lab.running.kill("index")
    for folder in lab.index_folders():
        spoiled = max((f for f in folder.iterdir() if f.suffix == ".npy"), key=lambda f: f.stat().st_size)
        data = bytearray(spoiled.read_bytes())
        data[len(data) // 2] ^= 0xFF
        spoiled.write_bytes(bytes(data))
    lab.running.look_from_here()
    client = lab.start()
    status = settled(client)
    assert lab.running.said("snapshot `.*` is refused")
    assert status.counts["refused"]
    assert status.counts["reloads"]
    assert names(ask(client, "juggles torches"))[0] == "while.away"
    wait_until(lambda: client.status().snapshot, description="a snapshot is made anew", timeout=60)


def test_without_the_store_searches_go_on_and_say_so(lab: Lab) -> None:
    client = lab.of("index")
    lab.running.pause("server")
    try:
        degraded = wait_until(
            lambda: [a for a in [ask(client, "weather city")] if a.degraded],
            description="it says that the store is away",
            timeout=15,
        )
        assert names(degraded[0])[0] == "weather.forecast"
        assert any("the store is away" in d for d in degraded[0].degraded)
    finally:
        lab.running.resume("server")
    wait_until(lambda: not ask(client, "weather city").degraded, description="the store is back", timeout=15)


def test_two_replicas_share_a_home_and_a_query_fails_with_neither_killed(lab: Lab) -> None:
    second = lab.start("second")
    assert settled(second).catalog_hash == settled(lab.of("index")).catalog_hash
    both = IndexClient.of(lab.running.settings, timeout=20.0)
    wait_until(lambda: len(both.statuses()) >= 2, description="both are found", timeout=10)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, both, f"weather {n}") for n in range(60)]
        lab.running.kill("second")
        asked += [pool.submit(ask, both, f"weather again {n}") for n in range(60)]
        answers = [a.result() for a in asked]
    assert all(names(a)[0] == "weather.forecast" for a in answers)
    both.close()


def test_many_tools_are_built_beside_and_followed_from_there(lab: Lab) -> None:
    lab.store.publish("mcp:many", [tool(f"many.tool_{n}", f"Serves purpose {n} of a great many") for n in range(3_500)])
    client = lab.start("large", TOOLWEAVER_HOME=str(lab.running.folder / "large"))
    wait_until(lambda: _status(httpx.Client(base_url=lab.urls["large"]), "/health") == 200, description="it is up", timeout=90)
    status = client.status()
    assert status.size > 3_500
    assert status.snapshot is not None, "it was built as a snapshot"
    assert status.catalog_hash == status.store_hash
    assert names(ask(client, "many.tool_3333"))[0] == "many.tool_3333"
    lab.store.publish("mcp:many", [])
    wait_until(lambda: client.status().size < 100, description="they are gone again", timeout=30)
    status = client.status()
    assert status.catalog_hash == status.store_hash
    lab.running.kill("large")


def test_without_an_encoder_answers_are_by_words_and_say_so(lab: Lab) -> None:
    alone = lab.start("blind", TOOLWEAVER_EMBED_URL="http://127.0.0.1:9", TOOLWEAVER_HOME=str(lab.running.folder / "blind"))
    found = ask(alone, "weather forecast for a city")
    assert names(found)[0] == "weather.forecast"
    assert any(d.startswith("meaning:") for d in found.degraded)
    assert lab.running.terminate("blind") == 0


def test_beyond_loopback_a_key_is_needed_and_asked_for(lab: Lab) -> None:
    lab.start("open", TOOLWEAVER_INDEX_HOST="0.0.0.0")
    assert lab.running.processes.pop("open").wait(30) == 2
    keyed = lab.start(
        "keyed", TOOLWEAVER_INDEX_HOST="0.0.0.0", TOOLWEAVER_INDEX_KEY="swordfish", TOOLWEAVER_INDEX_ADDRESS="http://127.0.0.1:9"
    )
    with httpx.Client(base_url=lab.urls["keyed"], headers={"Content-Type": "application/json"}) as raw:
        wait_until(lambda: _status(raw, "/health") == 200, description="it is up", timeout=30)
        assert raw.get("/status").status_code == 401
        assert raw.get("/status", headers={"Authorization": "Bearer swordfisH"}).status_code == 401
        assert raw.get("/status", headers={"Authorization": "Bearer swordfish"}).status_code == 200
    keyed.close()
    lab.running.kill("keyed")
    assert "swordfish" not in lab.running.logs()


def test_a_busy_port_moves_on(lab: Lab) -> None:
    first = lab.urls["index"].rpartition(":")[2]
    behind = {f"http://127.0.0.1:{port}" for port in range(int(first) + 1, int(first) + 50)}
    lab.running.start("moved", [sys.executable, "-m", MODULE], env={"TOOLWEAVER_INDEX_PORT": first})
    moved = wait_until(lambda: behind & lab.client.statuses().keys(), description="it is found", timeout=30)
    assert lab.running.terminate("moved") == 0
    wait_until(lambda: not moved & lab.client.statuses().keys(), description="it took its address back", timeout=10)


def _status(raw: httpx.Client, path: str) -> int:
    try:
        return raw.get(path).status_code
    except httpx.TransportError:
        return 0
