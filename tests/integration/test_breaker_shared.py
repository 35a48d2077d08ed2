"""One circuit over processes: of four hundred calls one probes, a killed probe holds nobody up; and what steps make of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
import redis

from orchestrator.errors import CircuitBreakerOpenError, ModelError, ToolError
from orchestrator.policy.breaker import CircuitBreaker
from orchestrator.settings import Settings
from orchestrator.state.keys import Shard
from tests.engine import Engine
from tests.support import wait_until

PROCESSES, CALLS = 4, 100  # the start of a process takes a second of work
OPEN_S = 0.5
ENDS_S = 30  # a test that failed leaves no process waiting


def circuit(client: redis.Redis, *, probe_s: float = ENDS_S) -> CircuitBreaker:
    return CircuitBreaker(1, OPEN_S, name="flaky", client=client, probe_s=probe_s)


def hammer(url: str) -> None:
    """Calls again and again from before the circuit's time is over, `CALLS` at once, until each got through or met a probe."""
    client: Any = redis.Redis.from_url(url)
    breaker = circuit(client)

    async def reach() -> None:
        client.incr("reached")
        await asyncio.to_thread(client.blpop, "let the probe end", timeout=ENDS_S)

    async def insist() -> str:
        while True:
            try:
                await breaker.call(reach)
            except CircuitBreakerOpenError as error:
                if "one call tries it now" in str(error):
                    return "refused"
            else:
                return "reached"

    async def all_calls() -> None:
        client.rpush("ready", os.getpid())
        client.blpop("go", timeout=ENDS_S)
        for call in asyncio.as_completed([insist() for _ in range(CALLS)]):
            client.incr(f"ended: {await call}")

    asyncio.run(all_calls())


def probe_forever(url: str) -> None:
    """Becomes the probe, and never ends."""
    client: Any = redis.Redis.from_url(url)

    async def hang() -> None:
        client.incr("reached")
        await asyncio.Event().wait()

    asyncio.run(circuit(client, probe_s=3.0).call(hang))


@pytest.fixture
def started(settings: Settings) -> Iterator[Any]:
    """Starts processes of functions above; those that are left are killed."""
    spawn, running = multiprocessing.get_context("spawn"), list[BaseProcess]()

    def start(function: Any) -> BaseProcess:
        process = spawn.Process(target=function, args=(settings.store_url,), daemon=True)
        process.start()
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.join()


def number(client: Any, key: str) -> int:
    return int(client.get(key) or 0)


async def open_it(breaker: CircuitBreaker) -> None:
    async def bad() -> None:
        raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        await breaker.call(bad)


@pytest.mark.timeout(120)
async def test_of_calls_of_many_processes_one_reaches_the_function(client: Any, started: Any) -> None:
    processes = [started(hammer) for _ in range(PROCESSES)]
    wait_until(lambda: client.llen("ready") == PROCESSES, description="all processes are up", timeout=60)
    await open_it(circuit(client))
    client.rpush("go", *range(PROCESSES))
    others = PROCESSES * CALLS - 1
    wait_until(lambda: number(client, "ended: refused") == others, description="all calls but the probe were refused", timeout=30)
    assert number(client, "reached") == 1
    assert circuit(client).state == "HALF_OPEN"
    client.rpush("let the probe end", "now")
    for process in processes:
        process.join(30)
    assert (number(client, "ended: reached"), number(client, "reached")) == (1, 1)
    assert circuit(client).state == "CLOSED"


@pytest.mark.timeout(60)
async def test_a_probe_that_is_killed_lets_another_try(client: Any, started: Any) -> None:
    breaker = circuit(client)
    await open_it(breaker)
    wait_until(lambda: breaker.state == "HALF_OPEN", description="the circuit's time is over")
    probe = started(probe_forever)
    wait_until(lambda: number(client, "reached") == 1, description="the other process probes")
    os.kill(probe.pid, signal.SIGKILL)
    probe.join(10)

    async def good() -> str:
        return "ok"

    with pytest.raises(CircuitBreakerOpenError, match="one call tries it now"):
        await breaker.call(good)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await breaker.call(good) == "ok"
                break
            except CircuitBreakerOpenError as error:
                await asyncio.sleep(error.retry_after_s or 0)  # what a caller does
    assert breaker.state == "CLOSED"


@pytest.mark.parametrize(
    ("error", "longest", "least", "most"),
    [
        (CircuitBreakerOpenError("`mcp:time` failed", retry_after_s=30.0), 60.0, 30.5, 31.0),
        (ToolError("slow down", code="rate_limited", retryable=True, retry_after_s=7.0), 60.0, 7.5, 8.0),
        (ModelError("busy", retryable=True, retry_after_s=7.0), 60.0, 7.5, 8.0),
        (CircuitBreakerOpenError("`mcp:time` failed", retry_after_s=30.0), 5.0, 5.0, 5.0),  # the step's own bound holds
        (ToolError("no luck", retryable=True), 60.0, 0.5, 1.0),
        (ToolError("a clock that lies", retryable=True, retry_after_s=-9.0), 60.0, 0.5, 1.0),
        (ToolError("no number", retryable=True, retry_after_s=float("nan")), 60.0, 0.5, 1.0),
    ],
)
def test_a_retry_waits_for_as_long_as_the_error_says(
    settings: Settings, client: Any, error: ToolError, longest: float, least: float, most: float
) -> None:
    engine = Engine(settings)

    @engine.tool()
    def refused() -> None:
        raise error

    retry = {"max": 1, "backoff_s": 1.0, "max_backoff_s": longest}
    engine.submit([{"id": "a", "tool": "refused", "retry": retry}])
    before = seconds(client)
    engine.drain()
    ((_, due),) = client.zrange(Shard(0).timers, 0, -1, withscores=True)
    assert least <= due / 1000 - before + 0.002  # the ledger counts in milliseconds
    assert due / 1000 - seconds(client) <= most + 0.002


def seconds(client: Any) -> float:
    """The store's clock."""
    whole, micros = client.time()
    return float(whole + micros / 1e6)
