"""A catalog of thousands of tools that come, change and go while queries run: nothing fails, nothing stale stays."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import pytest

from orchestrator.models.search import SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.client import IndexClient
from tests.faults.platforms import LONG
from tests.processes import platform
from tests.replicas import Askers, Book, Replicas, embed_beforehand
from tests.support import wait_until

pytestmark = pytest.mark.integration

SIZE, MOVING = 5_000 if LONG else 2_000, 600  # so many that change at once make a new base worth while
SERVERS, EACH = (100, 10) if LONG else (20, 10)
BOUND_S = 3.0  # the service promises one second; the machine that tests run on is busy
RATE = 50.0


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    with platform() as running:
        yield Replicas(running)


@pytest.fixture(scope="module")
def book(replicas: Replicas) -> Book:
    """The catalog, all of it known by meaning already."""
    made = Book(replicas.store)
    for source, number in (("base", SIZE - MOVING), ("moving", MOVING)):
        tools = [made.tool(f"{source}.tool{n}") for n in range(number)]
        embed_beforehand(replicas.running.settings.home, tools)
        made.publish(f"mcp:{source}", tools)
    replicas.start("one")
    replicas.wait_equal("one")
    wait_until(
        lambda: (s := replicas.status("one")) and s.snapshot and not s.backlog,
        description="the base is made",
        timeout=60,
        every=0.1,
    )
    return made


def as_published(client: IndexClient, server: str, tools: Sequence[ToolDefinition], words: Sequence[str]) -> bool:
    """Whether the words of ten tools find these versions first, each its own, and nothing else of their server."""
    request = SearchRequest(queries=tuple(words), k=len(words), detail="names", deadline_ms=0)
    found = {(hit.name, hit.version) for hit in client.search(request).hits if hit.name.startswith(f"{server}.")}
    return found == {(t.name, t.content_hash) for t in tools}


def test_tools_come_change_and_go_under_queries(replicas: Replicas, book: Book) -> None:
    url, chance, lags = replicas.urls["one"], random.Random(7), list[float]()
    with (
        IndexClient([url], timeout=20.0) as own,
        Askers(book, lambda: IndexClient([url], timeout=20.0), seed=11, number=5, rate=RATE / 5, whole=True) as askers,
    ):
        for kind in ("add", "change", "remove"):
            for n in chance.sample(range(SERVERS), SERVERS):
                server = f"server{n}"
                former = [life for life in list(book.present.values()) if life.name.startswith(f"{server}.")]
                tools = [book.tool(f"{server}.tool{m}") for m in range(EACH)] if kind != "remove" else []
                book.publish(f"mcp:{server}", tools)
                words = [book.present[t.name].words for t in tools] or [life.words for life in former]
                began = time.monotonic()
                wait_until(
                    lambda: as_published(own, server, tools, words),  # noqa: B023
                    description=f"{server} is as it was published ({kind})", timeout=BOUND_S,
                )  # fmt: skip
                lags.append(time.monotonic() - began)
        assert not {life.name.partition(".")[0] for life in book.present.values()} & {f"server{n}" for n in range(SERVERS)}
        status = replicas.wait_equal("one")
    assert status.size >= SIZE
    assert len(askers.seen) > SERVERS
    assert not status.counts.get("errors")
    print(f"known by words after {sorted(lags)[len(lags) // 2]:.2f} s, at most {max(lags):.2f} s; {len(askers.seen)} queries")


def test_the_base_is_merged_under_queries_and_the_encoder_catches_up(replicas: Replicas, book: Book) -> None:
    """As many tools change at once as make a new base worth while; new ones are found by meaning when the backlog is done."""
    url, query = replicas.urls["one"], "do I need an umbrella later today?"
    before = replicas.wait_equal("one").counts.get("merges", 0)
    tools = [book.tool(f"moving.tool{n}") for n in range(MOVING)]
    embed_beforehand(replicas.running.settings.home, tools)
    with (
        IndexClient([url], timeout=20.0) as own,
        Askers(book, lambda: IndexClient([url], timeout=20.0), seed=12, number=5, rate=RATE / 5, whole=True),
    ):
        book.publish("mcp:moving", tools)
        book.publish("mcp:meant", [book.tool("meant.rain", "Tells whether it will rain in the afternoon")])
        wait_until(
            lambda: (s := replicas.status("one")) and s.counts.get("merges", 0) > before and not s.backlog,
            description="the base is merged, and all tools have vectors", timeout=90, every=0.1,
        )  # fmt: skip
        replicas.wait_equal("one")
        found = own.search(SearchRequest(queries=(query,), k=5, deadline_ms=20_000)).hits
        assert "meant.rain" in [hit.name for hit in found]
        assert "words" not in next(hit.reason for hit in found if hit.name == "meant.rain")
