"""The index of tools while its catalog changes: 50 queries a second at a real replica, and 1,000 tools that come, change and go.

    python -m bench.tool_search_churn [--tools 5000] [--changed 1000] [--rate 50] [--before 20] [--json]

Real tools are the catalog and real queries, each asked once, the load: they are sent at their time, whether the former ones are
answered or not, through the client that planners use. Servers of ten tools each are published as workers do it, then changed,
then withdrawn. A probe asks for the words of the ten until they are found (or are gone), by words alone; what it says is an upper
bound, since it includes its own requests. A swap of the base is when the count of merges rises; queries of a second before and
half a second after it are the swap's. "Before" is after all tools were embedded, with nothing that changes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import httpx
import numpy as np

from bench.common import Report
from bench.tool_search_scale import SEED, real_queries, real_tools
from orchestrator.models.search import SearchAnswer, SearchRequest
from orchestrator.models.tool import MAX_TOOL_NAME, ToolDefinition, ToolParameter
from orchestrator.tool_search.client import AsyncIndexClient
from tests.processes import platform
from tests.replicas import Replicas, own_words

EACH = 10  # tools of a server; also queries of one probe
FOUND_S, TAIL = 1.0, 3.0
BEFORE_SWAP_S, AFTER_SWAP_S = 1.0, 0.5
PROBE_S, LOOK_S = 0.05, 0.1
QUERIES = 2_100  # real ones
_MERGES = re.compile(r'^\w*index_events_total\{event="merges"\} (\d+)', re.MULTILINE)


@dataclass
class Load:
    """What the queries came to: when each was sent, what it took, what it failed of."""

    sent: list[tuple[float, float]] = field(default_factory=list)
    inside: list[tuple[float, float]] = field(default_factory=list)  # as the replica counts: this process publishes and probes, too
    late: int = 0
    failed: list[str] = field(default_factory=list)
    backlog: int = 0

    def p(self, share: float, when: Callable[[float], bool]) -> float:
        """A percentile in ms of those that were sent when that is true; NaN: there are none."""
        return _percentile(self.sent, share, when)

    def p_inside(self, share: float, when: Callable[[float], bool]) -> float:
        """The same of the time from a request's arrival to its answer in the replica."""
        return _percentile(self.inside, share, when)


def _percentile(times: Sequence[tuple[float, float]], share: float, when: Callable[[float], bool]) -> float:
    took = [took for sent, took in times if when(sent)]
    return float(np.percentile(took, share)) * 1000 if took else float("nan")


@dataclass
class Change:
    """How long each server of tools took to be found, changed, gone."""

    lags: dict[str, list[float]] = field(default_factory=lambda: {"added": [], "changed": [], "removed": []})
    swaps: list[float] = field(default_factory=list)
    caught_up: dict[str, tuple[int, float]] = field(default_factory=dict)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=int, default=5_000)
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=50.0, help="queries a second")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between two servers of ten tools")
    parser.add_argument("--before", type=float, default=20.0, help="seconds of queries before anything changes")
    parser.add_argument("--quick", action="store_true", help="1,000 tools, and 600 that come, change and go")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.tools, options.changed, options.before, options.every = 1_000, 600, 8.0, 0.1
    churn(options).print(options.json)


def churn(options: argparse.Namespace) -> Report:
    """All figures of a run."""
    report = Report("churn")
    with platform() as running:
        replicas = Replicas(running)
        tools = list(islice(catalog(), options.tools))
        replicas.store.publish("mcp:real", tools)
        replicas.start("one")
        began = time.monotonic()
        replicas.wait_ready("one")
        report.add("tools of the catalog", len(tools), "")
        report.add("start to first answer", time.monotonic() - began, "s")
        _settled(replicas)
        report.add("start to all tools known by meaning", time.monotonic() - began, "s")
        said("the catalog is embedded; queries begin")
        asyncio.run(measured(replicas, options, report))
        status = replicas.wait_equal("one")
        report.add("hash is the store's in the end", float(status.catalog_hash == status.store_hash), "", 1.0, least=True)
        report.add("memory of the replica", status.memory_bytes / 2**20, "MiB")
    return report


def _settled(replicas: Replicas) -> None:
    while True:
        status = replicas.wait_equal("one", timeout=600)
        if not status.backlog and status.snapshot:
            return
        said(f"{status.backlog} of {status.size} tools are to be embedded")
        time.sleep(2)


async def measured(replicas: Replicas, options: argparse.Namespace, report: Report) -> None:
    """Queries go on while everything else happens."""
    url, load, change = replicas.urls["one"], Load(), Change()
    async with AsyncIndexClient([url], timeout=20.0) as client:
        await asyncio.gather(*(client.search(SearchRequest(queries=(f"warm up {n}",))) for n in range(20)))
        asking = asyncio.create_task(ask(client, load, rate=options.rate))
        watching = asyncio.create_task(watch(url, load, change))
        start = time.monotonic()
        await asyncio.sleep(options.before)
        begun = time.monotonic()
        await changed(replicas, client, change, options)
        await asyncio.sleep(2.0)
        ended = time.monotonic()
        for task in (asking, watching):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    before = load.p(99, lambda t: start <= t < begun)
    report.add("queries", len(load.sent), "")
    report.add("queries that failed", len(load.failed), "", 0.0)
    report.add("queries that the encoder was late for", load.late, "")
    report.add("p50 before", load.p(50, lambda t: start <= t < begun), "ms")
    report.add("p99 before", before, "ms")
    report.add("p50 during the changes", load.p(50, lambda t: begun <= t < ended), "ms")
    during = load.p(99, lambda t: begun <= t < ended)
    report.add("p99 during the changes", during, "ms")
    report.add("p99 during the changes : before", during / before, "x", TAIL)
    swap = load.p(99, lambda t: any(s - BEFORE_SWAP_S <= t <= s + AFTER_SWAP_S for s in change.swaps))
    report.add("swaps of the base", len(change.swaps), "", 1.0, least=True)
    report.add("p99 at a swap", swap, "ms")
    report.add("p99 at a swap : before", swap / before, "x", TAIL)
    for name, when in {
        "before": lambda t: start <= t < begun,
        "during the changes": lambda t: begun <= t < ended,
        "at a swap": lambda t: any(s - BEFORE_SWAP_S <= t <= s + AFTER_SWAP_S for s in change.swaps),
    }.items():
        report.add(f"p99 inside the replica {name}", load.p_inside(99, when), "ms")
    for what, lags in change.lags.items():
        report.add(f"{what}: known by words, p50", float(np.percentile(lags, 50)), "s")
        report.add(f"{what}: known by words, p99", float(np.percentile(lags, 99)), "s")
        report.add(f"{what}: known by words, slowest", max(lags), "s", FOUND_S)
    for what, (backlog, took) in change.caught_up.items():
        report.add(f"{what}: without a vector at the end of it", backlog, "")
        report.add(f"{what}: until all were known by meaning", took, "s")


async def ask(client: AsyncIndexClient, load: Load, *, rate: float) -> None:
    """Real queries, each at its time; those that are asked again have a number, so that none is answered from what is kept."""
    queries = cycle(mixed_queries())
    pending: set[asyncio.Task[None]] = set()
    start, number = time.monotonic(), 0
    while True:
        number += 1
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        task = asyncio.create_task(_one(client, load, f"{next(queries)} {number}"))
        pending.add(task)
        task.add_done_callback(pending.discard)


def mixed_queries() -> list[str]:
    """Real ones of all sets mixed: those of one take the encoder twice as long as another's, and every second is to be alike."""
    queries = real_queries(QUERIES)
    return [queries[n] for n in np.random.default_rng(SEED).permutation(len(queries)).tolist()]


async def _one(client: AsyncIndexClient, load: Load, query: str) -> None:
    began = time.monotonic()
    try:
        found = await client.search(SearchRequest(queries=(query,)))
        load.backlog = found.backlog
        load.inside.append((began, found.took_ms / 1000))
        load.late += any(d.startswith("meaning") for d in found.degraded)
    except Exception as error:
        load.failed.append(repr(error))
    load.sent.append((began, time.monotonic() - began))


async def watch(url: str, load: Load, change: Change) -> None:
    """Notes when the base is swapped."""
    async with httpx.AsyncClient() as client:
        known: int | None = None
        while True:
            found = _MERGES.search((await client.get(f"{url}/metrics")).text)
            count = int(found.group(1)) if found else 0
            if known is not None and count > known:
                change.swaps.append(time.monotonic())
                said(f"the base is swapped, {load.backlog} tools are without a vector")
            known = count
            await asyncio.sleep(LOOK_S)


async def changed(replicas: Replicas, client: AsyncIndexClient, change: Change, options: argparse.Namespace) -> None:
    """Adds, changes and removes all tools, a server of ten at a time."""
    servers = options.changed // EACH
    probes: list[asyncio.Task[None]] = []
    for kind, edition in (("added", 0), ("changed", 1), ("removed", 2)):
        said(f"tools are {kind}")
        start = time.monotonic()
        for server in range(servers):
            await asyncio.sleep(max(0.0, start + server * options.every - time.monotonic()))
            numbers = [edition * options.changed + server * EACH + n for n in range(EACH)]
            tools = [fresh(server, n, number) for n, number in enumerate(numbers)] if edition < 2 else []
            await asyncio.to_thread(replicas.store.publish, f"mcp:server{server}", tools)
            probes.append(asyncio.create_task(probe(client, change.lags[kind], server, tools, options.changed)))
        await asyncio.gather(*probes)
        if edition < 2:
            change.caught_up[kind] = await caught_up(client)


async def caught_up(client: AsyncIndexClient) -> tuple[int, float]:
    """How many tools have no vector yet, and how long until all have."""
    began, first = time.monotonic(), None
    while True:
        backlog = (await client.search(SearchRequest(queries=("backlog",), k=1, deadline_ms=0))).backlog
        first = backlog if first is None else first
        if not backlog:
            return first, time.monotonic() - began
        await asyncio.sleep(LOOK_S)


def fresh(server: int, place: int, number: int) -> ToolDefinition:
    """A tool with words of its own; the number stands for its edition, too."""
    described = f"Reads and writes {own_words(number)} records, and lists those that changed since a day"
    return ToolDefinition(
        name=f"server{server}.tool{place}",
        description=described,
        parameters=(ToolParameter(name="since"),),
        server=f"server{server}",
    )


async def probe(client: AsyncIndexClient, lags: list[float], server: int, tools: Sequence[ToolDefinition], changed: int) -> None:
    """Asks until a server's tools are as they were published: each first for its own words, in this version; or none there."""
    began = time.monotonic()
    numbers = [changed + server * EACH + n for n in range(EACH)]
    queries = tuple(t.description for t in tools) or tuple(fresh(server, n, number).description for n, number in enumerate(numbers))
    wanted = {(t.name, t.content_hash) for t in tools}
    request = SearchRequest(queries=queries, k=EACH, detail="names", deadline_ms=0)
    while True:
        found: SearchAnswer = await client.search(request)
        there = {(hit.name, hit.version) for hit in found.hits if hit.name.startswith(f"server{server}.")}
        if there == wanted:
            break
        await asyncio.sleep(PROBE_S)
    lags += [time.monotonic() - began] * EACH


def catalog() -> Iterator[ToolDefinition]:
    """Real tools under names of ours; with more than there are, they come again, with a number that makes them others."""
    rows: list[dict[str, Any]] = real_tools()
    for number, row in enumerate(cycle(rows)):
        plain = re.sub(r"[^\w.:/-]", "_", row["name"])
        again = "" if number < len(rows) else f" ({number // len(rows)})"
        yield ToolDefinition(
            name=f"t{number}.{plain}"[:MAX_TOOL_NAME],
            description=f"{row['description'] or ''}{again}",
            parameters=tuple({p: ToolParameter(name=p, description=str(d or "")) for p, d in row["params"] if p}.values()),
        )


def said(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
