"""Following the catalog's changes, page by page, without reading what is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import redis

from orchestrator.catalog.store import CatalogStore, Row, generation_of
from orchestrator.models.tool import ToolDefinition
from orchestrator.state.keys import CATALOG_HASHES
from tests.support import wait_until

pytestmark = pytest.mark.integration


def tool(name: str, text: str = "") -> ToolDefinition:
    return ToolDefinition(name=name, description=text)


def rows(pages: Iterable[Sequence[Row]]) -> dict[str, Row]:
    return {row.name: row for page in pages for row in page}


@pytest.fixture
def store(client: redis.Redis) -> CatalogStore:
    return CatalogStore(client)


def test_a_follower_gets_what_changed_with_rows_and_versions(store: CatalogStore) -> None:
    store.publish("mcp:a", [tool("a.one"), tool("a.two")])
    before = store.version()
    store.publish("mcp:a", [tool("a.two", "new"), tool("a.three")])
    changes = store.changes(before)
    assert changes is not None
    assert changes.exact
    assert changes.version == store.version()
    found = rows(changes.pages)
    assert set(found) == {"a.one", "a.two", "a.three"}
    assert found["a.one"].raw is None
    two = tool("a.two", "new")
    assert found["a.two"] == Row("a.two", two.content_hash, two.to_row().encode())


def test_nothing_changed_is_an_empty_page_and_not_everything(store: CatalogStore) -> None:
    store.publish("mcp:a", [tool("a.one")])
    changes = store.changes(store.version())
    assert changes is not None
    assert rows(changes.pages) == {}


def test_who_knows_nothing_or_another_epoch_reads_everything(store: CatalogStore, client: redis.Redis) -> None:
    store.publish("mcp:a", [tool("a.one")])
    before = store.version()
    assert store.changes(None) is None
    client.flushdb()
    store.publish("mcp:a", [tool("a.one")])
    assert store.changes(before) is None


def test_many_changes_come_in_pages(store: CatalogStore) -> None:
    store.publish("mcp:b", [tool("b.one")])
    before = store.version()
    store.publish("mcp:a", [tool(f"a.t{n}") for n in range(25)])
    changes = store.changes(before, page=10)
    assert changes is not None
    assert not changes.exact
    pages = list(changes.pages)
    assert [len(p) for p in pages] == [10, 10, 5]
    assert set(rows(pages)) == {f"a.t{n}" for n in range(25)}


def test_what_changes_while_pages_are_read_comes_again(store: CatalogStore) -> None:
    store.publish("mcp:b", [tool("b.one")])
    before = store.version()
    store.publish("mcp:a", [tool(f"a.t{n}") for n in range(25)])
    changes = store.changes(before, page=10)
    assert changes is not None
    known: dict[str, Row] = {}
    for number, page in enumerate(changes.pages):
        if number == 0:
            store.withdraw(["a.t3"])
            store.publish("mcp:c", [tool("c.one")])
        known |= {row.name: row for row in page}
    later = store.changes(changes.version)
    assert later is not None
    known |= rows(later.pages)
    there = {name for name, row in known.items() if row.raw is not None}
    assert there == {t.name for t in store.all().tools} - {"b.one"}


def test_everything_is_read_in_pages_with_versions(store: CatalogStore, client: redis.Redis) -> None:
    store.publish("mcp:a", [tool(f"a.t{n}", str(n)) for n in range(1_200)])
    everything = store.everything(page=100)
    found = rows(everything.pages)
    assert everything.version == store.version()
    assert {n.encode(): r.version.encode() for n, r in found.items()} == client.hgetall(CATALOG_HASHES)
    assert all(row.raw for row in found.values())


def test_generations_rise_and_an_empty_store_has_none(store: CatalogStore) -> None:
    assert generation_of(store.version()) == ("", 0)
    store.publish("mcp:a", [tool("a.one")])
    epoch, first = generation_of(store.version())
    store.publish("mcp:a", [tool("a.one", "new")])
    assert generation_of(store.version()) == (epoch, first + 1)


def test_generations_rise_also_over_a_store_that_was_emptied(store: CatalogStore, client: redis.Redis) -> None:
    store.publish("mcp:a", [tool("a.one")])
    store.publish("mcp:a", [tool("a.two")])
    epoch, number = generation_of(store.version())
    client.flushdb()
    wait_until(lambda: client.time()[0] > number, description="the second is over, in which there were two changes")
    store.publish("mcp:a", [tool("a.one")])
    later, rising = generation_of(store.version())
    assert later != epoch
    assert rising > number


def test_who_knew_changes_that_a_restored_store_lost_forgets_them(client: redis.Redis) -> None:
    first, reader = CatalogStore(client), CatalogStore(client)
    first.publish("mcp:a", [tool("a.one")])
    kept = {key: client.dump(key) or b"" for key in client.keys("*")}
    first.publish("mcp:a", [tool("a.one"), tool("a.two")])
    assert [t.name for t in reader.all().tools] == ["a.one", "a.two"]
    client.flushdb()
    for key, raw in kept.items():
        client.restore(key, 0, raw)
    assert [t.name for t in reader.all().tools] == ["a.one"]
