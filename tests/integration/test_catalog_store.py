"""The catalog in Redis: who publishes what, what every process sees of it, and that it is whole whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import redis

from orchestrator.catalog.imported import imported_name
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore, NameTaken
from orchestrator.models.catalog import Diff, Quarantined, Refusal, ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import CATALOG, CATALOG_FORMER, CATALOG_GONE, CATALOG_HASHES, SERVERS
from tests.support import wait_until

pytestmark = pytest.mark.integration

LIVE = Path(__file__).parents[1] / "data" / "livemcp" / "tools.jsonl"


def tool(name: str, text: str = "", **more: object) -> ToolDefinition:
    return ToolDefinition.model_validate({"name": name, "description": text, **more})


@pytest.fixture
def store(client: redis.Redis) -> CatalogStore:
    return CatalogStore(client)


@pytest.fixture
def other(settings: Settings) -> CatalogStore:
    """The same catalog as another process sees it: nothing is shared but the server."""
    return CatalogStore(connect(settings))


def names(store: CatalogStore) -> list[str]:
    return [t.name for t in store.all().tools]


def test_a_source_is_replaced_and_the_difference_told(store: CatalogStore, other: CatalogStore) -> None:
    assert store.publish("mcp:time", [tool("time.now"), tool("time.zone"), tool("time.old")]) == Diff(
        added=("time.now", "time.zone", "time.old")
    )
    assert names(other) == ["time.now", "time.old", "time.zone"]
    again = store.publish("mcp:time", [tool("time.now"), tool("time.zone", "new"), tool("time.new")])
    assert again == Diff(added=("time.new",), changed=("time.zone",), removed=("time.old",))
    assert names(other) == names(store) == ["time.new", "time.now", "time.zone"]
    assert not store.publish("mcp:time", [tool("time.now"), tool("time.zone", "new"), tool("time.new")])
    assert sorted(store.publish("mcp:time", []).removed) == ["time.new", "time.now", "time.zone"]
    assert names(other) == []


def test_nothing_new_is_no_new_version(store: CatalogStore) -> None:
    store.publish("mcp:a", [tool("a.x")])
    before = store.version()
    store.publish("mcp:a", [tool("a.x")])
    store.publish("mcp:b", [])
    assert store.version() == before
    store.publish("mcp:a", [tool("a.x", "other")])
    assert store.version() != before


def test_a_name_of_another_source_is_refused_and_the_rest_goes_in(store: CatalogStore) -> None:
    store.publish("mcp:first", [tool("shared.x", "the first")])
    with pytest.raises(NameTaken) as caught:
        store.publish("mcp:second", [tool("shared.x", "the second"), tool("shared.y")])
    assert "`shared.x` of `mcp:first`" in str(caught.value)
    assert caught.value.diff.added == ("shared.y",)
    assert [p["path"] for p in caught.value.problems] == ["shared.x"]
    kept = store.get("shared.x")
    assert kept is not None
    assert kept.description == "the first"
    with pytest.raises(NameTaken):
        store.publish("pool:function", [tool("shared.x")], replace=False)
    store.publish("mcp:second", [])
    assert names(store) == ["shared.x"], "what it never owned, it does not take away"
    store.publish("mcp:first", [])
    assert store.publish("mcp:second", [tool("shared.x")]).added == ("shared.x",), "a free name is anybody's"


def test_a_tool_moves_to_another_pool(store: CatalogStore) -> None:
    store.announce([tool("report", pool="function")])
    store.announce([tool("report", pool="async")])
    found = store.get("report")
    assert found is not None
    assert found.pool == "async"
    assert store.owners() == {"report": "pool:async"}
    assert store.withdraw(["report"], source="pool:function") == (), "it is no longer the former pool's"
    assert store.publish("pool:function", []).removed == ()
    assert names(store) == ["report"]


def test_workers_of_a_pool_with_other_tools_add_to_each_other(store: CatalogStore) -> None:
    store.publish("pool:function", [tool("a"), tool("b")], replace=False)
    store.publish("pool:function", [tool("b"), tool("c")], replace=False)
    assert names(store) == ["a", "b", "c"]


def test_announced_tools_stand_over_the_bundled_ones(store: CatalogStore) -> None:
    base = bundled_catalog()
    store.announce([tool(base.tools[0].name, "mine")])
    merged = store.all(base)
    assert len(merged.tools) == len(base.tools)
    mine = merged.get_tool(base.tools[0].name)
    assert mine is not None
    assert mine.description == "mine"
    merged.add_tool(tool("only_here"))
    assert store.all(base).get_tool("only_here") is None, "each catalog is its reader's own"


def test_former_versions_are_kept_for_a_while(store: CatalogStore, client: redis.Redis) -> None:
    versions = [tool("t", f"text {n}") for n in range(8)]
    for one in versions:
        store.publish("mcp:a", [one])
    found = [store.get("t", version=one.content_hash) for one in versions]
    assert found[:3] == [None] * 3
    assert found[3:] == versions[3:]
    store.publish("mcp:a", [versions[4]])
    assert store.get("t", version=versions[7].content_hash) == versions[7], "the one before is a former one now"
    store.publish("mcp:a", [])
    assert store.get("t") is None
    assert store.get("t", version=versions[4].content_hash) == versions[4], "plans that began with it still find it"
    assert client.hlen(CATALOG_FORMER) <= 5


def test_names_that_come_and_go_leave_a_bounded_trace(store: CatalogStore, client: redis.Redis, other: CatalogStore) -> None:
    store.publish("mcp:stays", [tool("stays.x")])
    other.all()
    for low in range(0, 13_000, 1_000):
        store.publish("pool:private", [tool(f"p{n}") for n in range(low, low + 1_000)])
    store.publish("pool:private", [])
    assert client.zcard(CATALOG_GONE) <= 10_000
    assert client.hlen(CATALOG_FORMER) <= 10_000
    assert names(other) == ["stays.x"], "who saw none of it reads everything again"


def test_readers_are_told_only_what_changed(store: CatalogStore, other: CatalogStore) -> None:
    store.publish("mcp:a", [tool(f"a.t{n}") for n in range(50)])
    first = {t.name: t for t in other.all().tools}
    store.publish("mcp:a", [tool("a.t7", "changed"), tool("a.new")], replace=False)
    store.withdraw(["a.t9"])
    then = {t.name: t for t in other.all().tools}
    assert then["a.t7"].description == "changed"
    assert then.keys() == first.keys() - {"a.t9"} | {"a.new"}
    unread = [n for n in first.keys() & then.keys() if then[n] is first[n]]
    assert len(unread) == 48, "the others are the very same objects"


def test_a_store_that_was_emptied_is_read_anew(store: CatalogStore, other: CatalogStore, client: redis.Redis) -> None:
    store.publish("mcp:a", [tool("a.x"), tool("a.y")])
    assert names(other) == ["a.x", "a.y"]
    client.flushdb()
    store.publish("mcp:a", [tool("a.x", "later")])  # again the first change of a catalog, but of another one
    assert names(other) == ["a.x"]
    assert other.all().tools[0].description == "later"
    client.flushdb()
    assert names(other) == []


def test_a_row_that_cannot_be_read_hides_no_other(
    store: CatalogStore, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store.publish("mcp:a", [tool("a.x"), tool("a.y")])
    client.hset(CATALOG, "a.x", '{"name": "a.x", "of_a_later_version": 1}')
    assert names(store) == ["a.y"]
    assert "cannot be read" in caplog.text
    assert store.get("a.x") is None
    store.put_server_state(ServerState(name="up", state="up"))
    client.hset(SERVERS, "odd", '{"name": "odd", "kind": "of a later version"}')
    assert list(store.server_states()) == ["up"]


def test_the_hash_is_equal_wherever_the_tools_are(store: CatalogStore, other: CatalogStore) -> None:
    store.publish("mcp:a", [tool("a.x"), tool("a.y")])
    first = store.catalog_hash()
    assert other.catalog_hash() == first
    other.publish("mcp:b", [tool("b.x")])
    assert store.catalog_hash() == other.catalog_hash() != first
    other.publish("mcp:b", [])
    assert store.catalog_hash() == other.catalog_hash() == first, "the tools are what they were"


def test_real_schemas_are_kept_byte_for_byte(store: CatalogStore, other: CatalogStore) -> None:
    rows = [json.loads(line) for line in LIVE.read_text(encoding="utf-8").splitlines()]
    tools = {imported_name(r["server"], r["name"]): r for r in rows}
    assert len(tools) == 527
    store.publish(
        "mcp:live",
        [tool(n, r["description"], json_schema=r["schema"], server=r["server"], native_name=r["name"]) for n, r in tools.items()],
    )
    seen = {t.name: t for t in other.all().tools}
    for name, row in tools.items():
        text = json.dumps(row["schema"])
        alone = other.get(name)
        assert json.dumps(seen[name].input_schema) == text
        assert alone is not None
        assert json.dumps(alone.input_schema) == text
        assert (alone.description, alone.native_name) == (row["description"], row["name"])


def test_the_states_of_servers(store: CatalogStore, other: CatalogStore) -> None:
    state = ServerState(
        name="time", state="up", protocol="2025-11-25", version="1.2", tools=2, at=12.5, worker="w",
        quarantined=(Quarantined(name="time.evil", version="abc", reasons=("hidden order",)),),
        refused=(Refusal(native_name="bad", reason="no schema"),), diff=Diff(added=("time.now",)),
    )  # fmt: skip
    store.put_server_state(state)
    store.put_server_state(ServerState(name="dead", state="down", error="it did not start"))
    assert other.server_states() == {"dead": ServerState(name="dead", state="down", error="it did not start"), "time": state}
    store.drop_server_state("dead")
    assert list(other.server_states()) == ["time"]


WATCH = """
import sys, time, redis
from orchestrator.catalog.store import CatalogStore
store = CatalogStore(redis.Redis.from_url(sys.argv[1]))
print("ready", len(store.all().tools), flush=True)
while (found := store.all().get_tool("a.t5")) is None or found.description != "changed":
    time.sleep(0.01)
print("seen", time.time(), len(store.all().tools), store.catalog_hash(), flush=True)
"""
PUBLISH = """
import sys, redis
from orchestrator.catalog.store import CatalogStore
from orchestrator.models.tool import ToolDefinition
store = CatalogStore(redis.Redis.from_url(sys.argv[1]))
sets = [[ToolDefinition(name=f"k.t{n}", description=f"edition {e}") for n in range(300 + 100 * e)] for e in range(2)]
print("ready", flush=True)
while True:
    for tools in sets:
        store.publish("mcp:k", tools)
"""


def process(code: str, settings: Settings) -> subprocess.Popen[str]:
    made = subprocess.Popen([sys.executable, "-c", code, settings.store_url], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    assert made.stdout.readline().startswith("ready")
    return made


def test_another_process_sees_a_change_within_a_second(store: CatalogStore, settings: Settings) -> None:
    store.publish("mcp:a", [tool(f"a.t{n}", "x" * 200) for n in range(10_000)])
    watcher = process(WATCH, settings)
    try:
        at = time.time()
        store.publish("mcp:a", [tool("a.t5", "changed")], replace=False)
        out, _ = watcher.communicate(timeout=20)
    finally:
        watcher.kill()
    _, seen, number, digest = out.split()
    assert float(seen) - at < 1.0
    assert (int(number), digest) == (10_000, store.catalog_hash())


def test_one_change_in_a_large_catalog_is_read_quickly(store: CatalogStore, client: redis.Redis) -> None:
    store.publish("mcp:a", [tool(f"a.t{n}", "x" * 200) for n in range(10_000)])
    reader = CatalogStore(client)
    whole, one = [], []
    for n in range(5):
        reader.all()
        store.publish("mcp:a", [tool("a.t5", f"changed {n}")], replace=False)
        one.append(seconds(reader))
        whole.append(seconds(CatalogStore(client)))
        changed = reader.all().get_tool("a.t5")
        assert changed is not None
        assert changed.description == f"changed {n}"
    assert min(one) < min(whole) / 5


def seconds(reader: CatalogStore) -> float:
    clock = time.perf_counter()
    reader.all()
    return time.perf_counter() - clock


def published(store: CatalogStore, versions: set[bytes | None], times: int) -> bool:
    versions.add(store.version())
    return len(versions) >= times


def test_a_publisher_that_is_killed_leaves_a_whole_catalog(store: CatalogStore, settings: Settings, client: redis.Redis) -> None:
    seen = set()
    for n in range(6):
        publisher = process(PUBLISH, settings)
        versions: set[bytes | None] = set()
        wait_until(partial(published, store, versions, n + 2), description="it publishes", every=0.001)
        os.kill(publisher.pid, signal.SIGKILL)
        publisher.wait()
        found = store.all().tools
        editions = {t.description for t in found}
        assert len(editions) == 1, "never a mixture"
        assert len(found) == {"edition 0": 300, "edition 1": 400}[next(iter(editions))]
        assert {t.name.encode(): t.content_hash.encode() for t in found} == client.hgetall(CATALOG_HASHES)
        seen |= editions
    assert names(CatalogStore(client)) == names(store)


def test_publishers_at_once_do_not_disturb_each_other(settings: Settings, store: CatalogStore) -> None:
    def publish(source: str) -> None:
        own = CatalogStore(connect(settings))
        for round in range(10):
            own.publish(f"mcp:{source}", [tool(f"{source}.t{n}", f"round {round}") for n in range(round, round + 20)])
            own.put_server_state(ServerState(name=source, tools=20))

    threads = [threading.Thread(target=publish, args=(f"s{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        store.all()
    for thread in threads:
        thread.join()
    found = store.all().tools
    assert {t.name for t in found} == {f"s{s}.t{n}" for s in range(6) for n in range(9, 29)}
    assert {t.description for t in found} == {"round 9"}
    assert len(store.server_states()) == 6
