"""A circuit breaker, in this process and in Redis: the same behaviour. Time is real and short."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import CircuitBreakerOpenError, RequestError, ToolError
from orchestrator.monitoring.metrics import Metrics
from orchestrator.policy.breaker import Breakers, CircuitBreaker, Gate, Rules
from orchestrator.settings import Settings
from orchestrator.state.keys import METRICS
from tests.support import wait_until

SHORT = 0.2
LONG = 60.0
Make = Callable[..., CircuitBreaker]


class Broken(Exception):
    """What the function raises."""


async def good(value: Any = "ok") -> Any:
    return value


async def bad() -> None:
    raise Broken("no route")


@pytest.fixture(params=["own", "shared"])
def made(request: pytest.FixtureRequest) -> Make:
    """Makes breakers of either kind."""
    client = request.getfixturevalue("client") if request.param == "shared" else None
    return lambda *args, **kwargs: CircuitBreaker(*args, client=client, **kwargs)


@pytest.fixture(params=["own", "shared"])
def gate(request: pytest.FixtureRequest) -> Gate:
    """A gate of either kind that opens after two failures, for long."""
    return Gate(request.getfixturevalue("client") if request.param == "shared" else None, Rules(2, LONG))


@pytest.fixture(params=["own", "shared"])
def quick(request: pytest.FixtureRequest) -> Gate:
    """The same with circuits that are open for a moment only."""
    return Gate(request.getfixturevalue("client") if request.param == "shared" else None, Rules(2, SHORT))


async def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Broken):
            await breaker.call(bad)


def half_open(breaker: CircuitBreaker) -> None:
    wait_until(lambda: breaker.state == "HALF_OPEN", description="the circuit's time is over")


def break_it(gate: Gate, *names: str) -> None:
    for _ in range(gate.rules.failures):
        gate.admit(names).failed("no route")


async def test_it_is_the_one_of_the_references_sample(made: Make) -> None:
    breaker = made(failure_threshold=5, timeout=60)
    assert breaker.state == "CLOSED"
    assert await breaker.call(good, "a result") == "a result"
    await fail(breaker, 4)
    assert (breaker.state, breaker.failure_count) == ("CLOSED", 4)
    await fail(breaker, 1)
    assert (breaker.state, breaker.failure_count) == ("OPEN", 5)
    with pytest.raises(CircuitBreakerOpenError) as refused:
        await breaker.call(bad)
    assert refused.value.retryable
    assert 59 < (refused.value.retry_after_s or 0) <= 60
    assert "`default` failed 5 times in a row (the last time: Broken: no route); it is not called until " in str(refused.value)
    assert isinstance(refused.value, ToolError)
    assert refused.value.code == "circuit_open"


async def test_a_success_resets_the_count(made: Make) -> None:
    breaker = made(3, LONG)
    await fail(breaker, 2)
    await breaker.call(good)
    await fail(breaker, 2)
    assert breaker.state == "CLOSED"


async def test_while_it_is_open_the_function_is_not_called(made: Make) -> None:
    breaker, called = made(1, LONG), []

    async def counted() -> None:
        called.append(1)

    await fail(breaker, 1)
    with pytest.raises(CircuitBreakerOpenError):
        await breaker.call(counted)
    assert called == []


async def test_after_its_time_a_probe_closes_it(made: Make) -> None:
    breaker = made(2, SHORT)
    await fail(breaker, 2)
    half_open(breaker)
    assert await breaker.call(good) == "ok"
    assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)
    await fail(breaker, 1)
    assert breaker.state == "CLOSED"  # the count began anew


async def test_a_probe_that_fails_opens_it_again_at_once(made: Make) -> None:
    breaker = made(3, SHORT)
    await fail(breaker, 3)
    half_open(breaker)
    await fail(breaker, 1)
    assert breaker.state == "OPEN"


async def test_of_many_calls_one_probes(made: Make) -> None:
    breaker, called, go = made(1, SHORT), [], asyncio.Event()

    async def slow() -> str:
        called.append(1)
        await go.wait()
        return "ok"

    await fail(breaker, 1)
    half_open(breaker)
    calls = [asyncio.create_task(breaker.call(slow)) for _ in range(30)]
    while sum(c.done() for c in calls) < 29:
        await asyncio.wait([c for c in calls if not c.done()], return_when=asyncio.FIRST_COMPLETED, timeout=5)
    refused = [c.exception() for c in calls if c.done()]
    assert called == [1]
    assert all(isinstance(e, CircuitBreakerOpenError) and 0 < (e.retry_after_s or 0) <= SHORT for e in refused)
    assert "one call tries it now" in str(refused[0])
    go.set()
    await asyncio.wait(calls)
    assert breaker.state == "CLOSED"


async def test_a_cancelled_probe_lets_another_try(made: Make) -> None:
    breaker, began = made(1, SHORT), asyncio.Event()

    async def forever() -> None:
        began.set()
        await asyncio.Event().wait()

    await fail(breaker, 1)
    half_open(breaker)
    probe = asyncio.create_task(breaker.call(forever))
    await began.wait()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert breaker.state == "HALF_OPEN"
    assert await breaker.call(good) == "ok"


async def test_ignored_errors_neither_count_nor_reset(made: Make) -> None:
    breaker = made(2, LONG, ignore=RequestError)

    async def wrong() -> None:
        raise RequestError("no such city")

    await fail(breaker, 1)
    with pytest.raises(RequestError):
        await breaker.call(wrong)
    assert breaker.failure_count == 1
    await fail(breaker, 1)
    assert breaker.state == "OPEN"


def test_a_probe_that_died_lets_another_try_after_its_lease(quick: Gate) -> None:
    break_it(quick, "s")
    wait_until(lambda: quick.state("s") == "HALF_OPEN", description="the circuit's time is over")
    dead = quick.admit(["s"], lease_s=0.3)
    with pytest.raises(CircuitBreakerOpenError, match="one call tries it now"):
        quick.admit(["s"])

    def another() -> Any:
        try:
            return quick.admit(["s"], lease_s=LONG)
        except CircuitBreakerOpenError:
            return None

    second = wait_until(another, description="the lease of the first probe ran out")
    dead.succeeded()  # it was not dead, only late: the second one decides
    assert quick.state("s") == "HALF_OPEN"
    second.failed("still no route")
    assert quick.state("s") == "OPEN"


@pytest.mark.parametrize("end", ["succeeded", "failed", "neutral"])
def test_what_was_admitted_before_the_opening_says_nothing_after_it(gate: Gate, end: str) -> None:
    late = gate.admit(["s"])
    break_it(gate, "s")
    late.failed("x") if end == "failed" else getattr(late, end)()
    assert (gate.state("s"), gate.failures("s")) == ("OPEN", 2)


def test_what_was_admitted_before_the_opening_says_nothing_after_the_closing_either(quick: Gate) -> None:
    late = [quick.admit(["s"]) for _ in range(2)]
    break_it(quick, "s")
    wait_until(lambda: quick.state("s") == "HALF_OPEN", description="the circuit's time is over")
    late.pop().succeeded()
    assert quick.state("s") == "HALF_OPEN"
    quick.admit(["s"]).succeeded()
    late.pop().failed("timed out at last")
    assert (quick.state("s"), quick.failures("s")) == ("CLOSED", 0)


def test_one_open_circuit_of_several_refuses_and_takes_no_probe_of_the_others(quick: Gate) -> None:
    break_it(quick, "server")
    wait_until(lambda: quick.state("server") == "HALF_OPEN", description="the server's time is over")
    slow = Gate(None, Rules(1, LONG))
    slow._circuits = quick._circuits  # the same circuits, opened for longer
    slow.admit(["server.tool"]).failed("x")
    with pytest.raises(CircuitBreakerOpenError, match=r"`server\.tool` failed"):
        quick.admit(["server", "server.tool"])
    quick.admit(["server"]).succeeded()  # its probe was still free
    assert quick.state("server") == "CLOSED"


def test_a_failure_may_count_for_some_circuits_only(gate: Gate) -> None:
    for _ in range(2):
        gate.admit(["server", "server.slow"]).failed("timed out", of=["server.slow"])
    assert (gate.state("server.slow"), gate.state("server")) == ("OPEN", "CLOSED")
    assert gate.failures("server") == 0
    gate.admit(["server", "server.other"]).succeeded()


def test_an_end_is_told_once(gate: Gate) -> None:
    permit = gate.admit(["s"])
    permit.failed("x")
    permit.failed("x")
    permit.succeeded()
    assert gate.failures("s") == 1


@pytest.mark.parametrize("rules", [(0, 1.0), (1, 0.0)])
def test_rules_that_make_no_sense_are_refused(rules: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="failure_threshold of 1 at least"):
        CircuitBreaker(*rules)


async def test_two_breakers_of_a_name_share_the_circuit_and_others_do_not(client: redis.Redis) -> None:
    first, second = CircuitBreaker(2, client=client, name="a"), CircuitBreaker(2, client=client, name="a")
    await fail(first, 1)
    await fail(second, 1)
    with pytest.raises(CircuitBreakerOpenError):
        await first.call(good)
    assert await CircuitBreaker(2, client=client, name="b").call(good) == "ok"


def test_changes_are_counted_and_logged(client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="orchestrator.policy.breaker")
    breakers = Breakers(client, settings.model_copy(update={"breaker_failures": 1, "breaker_open_s": SHORT}))
    breakers.admit(["mcp:time"]).failed("broken pipe")
    wait_until(lambda: breakers.state("mcp:time") == "HALF_OPEN", description="the circuit's time is over")
    breakers.admit(["mcp:time"]).succeeded()
    assert [r.message for r in caplog.records] == [
        "circuit `mcp:time` is OPEN: broken pipe",
        "circuit `mcp:time` is HALF_OPEN: its time is over; one call probes",
        "circuit `mcp:time` is CLOSED: the probe succeeded",
    ]
    families = text_string_to_metric_families(Metrics(client, METRICS).text().decode())
    counted = {s.labels["state"]: s.value for f in families if f.name == "toolweaver_circuit_changes" for s in f.samples}
    assert counted == {"OPEN": 1, "HALF_OPEN": 1, "CLOSED": 1}


def test_a_healthy_circuit_leaves_nothing_in_the_store(client: redis.Redis, settings: Settings) -> None:
    Breakers(client, settings).admit(["a", "b"]).succeeded()
    assert list(client.scan_iter("tw:breaker:*")) == []


def test_what_is_kept_ends_by_itself(client: redis.Redis, settings: Settings) -> None:
    breakers = Breakers(client, settings)
    breakers.admit(["a"]).failed("x")
    (key,) = client.scan_iter("tw:breaker:*")
    assert 86_000 < client.ttl(key) <= 86_400


async def test_without_redis_calls_pass(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    away = redis.Redis.from_url("unix:///tmp/no-such-folder/redis.sock")
    breaker = CircuitBreaker(1, client=away)
    assert await breaker.call(good) == "ok"
    await fail(breaker, 3)
    assert [r.levelname for r in caplog.records] == ["WARNING"]  # asked once; then not again for a second
    assert "let every call pass" in caplog.text
