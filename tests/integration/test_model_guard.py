"""What the guard of a model makes of each end of a request: what is tried again, what counts against the provider, what is told."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator.errors import ModelError
from orchestrator.models.usage import ModelCall, Usage
from orchestrator.policy.breaker import Breakers
from orchestrator.policy.model_guard import GuardedModel, estimated_tokens
from orchestrator.policy.provider_limits import Most, Place, ProviderLimits
from orchestrator.providers.model import Block, Model, ModelReply, ModelRequest, OnText, TokenCounts, ToolResult, Turn
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import breaker, provider_window
from tests.support import wait_until

pytestmark = pytest.mark.integration

Act = Callable[[ModelRequest, OnText | None], Awaitable[ModelReply]]
REQUEST = ModelRequest((Block("Plan."),), (Turn("user", (Block("Go."),)),), "plan", max_tokens=100, deadline_s=30)
REPLY = ModelReply("{}", TokenCounts(1_000, 50, cached_tokens=800, cache_write_tokens=10), "sim-1-2026", 0.1)
PROVIDER = "openai"
CIRCUIT = f"model:{PROVIDER}"


@dataclass
class Scripted:
    """A model that does, of each request, the next of what it was told; it keeps what it was asked."""

    script: list[ModelReply | BaseException | Act]
    asked: list[ModelRequest] = field(default_factory=list)
    closed: bool = False
    provider = PROVIDER
    name = "sim-1"
    where = "http://127.0.0.1:1"
    vendor = "openai"
    window = 100_000

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        self.asked.append(request)
        act = self.script.pop(0)
        if isinstance(act, BaseException):
            raise act
        return act if isinstance(act, ModelReply) else await act(request, on_text)

    async def close(self) -> None:
        self.closed = True


async def hang(request: ModelRequest, on_text: OnText | None) -> ModelReply:
    await asyncio.Event().wait()
    raise AssertionError


async def speak_and_break(request: ModelRequest, on_text: OnText | None) -> ModelReply:
    assert on_text is not None
    on_text("half an ans")
    raise ModelError("overloaded", status=529, retryable=True)


def error(status: int | None = None, *, code: str = "model_failed", sent: bool = True, **more: Any) -> ModelError:
    more.setdefault("retryable", True)
    return ModelError("the server said no", code=code, status=status, sent=sent, **more)


UNREACHABLE = error(code="model_unreachable", sent=False)
LOST = error(code="model_unreachable")
TIMEOUT = error(code="model_timeout")


class Guarded:
    """A guarded model with all that it told."""

    def __init__(
        self, settings: Settings, *script: ModelReply | BaseException | Act, most: Most | None = None, **more: Any
    ) -> None:
        self.client: Any = connect(settings)
        self.calls: list[ModelCall] = []
        self.waits: list[tuple[str, float]] = []
        self.inner = Scripted(list(script))
        self.limits = ProviderLimits(self.client, most or Most())
        self.breakers = Breakers(self.client, settings)
        self.model = GuardedModel(
            self.inner, limits=self.limits, breakers=self.breakers, retries=more.pop("retries", 2),
            on_call=self.calls.append, on_wait=lambda *said: self.waits.append(said), **more,
        )  # fmt: skip

    async def ask(self, request: ModelRequest = REQUEST, **more: Any) -> ModelReply:
        return await self.model.ask(request, **more)

    def used(self) -> dict[str, int]:
        """Requests and tokens in the provider's window, and places that nobody settled."""
        sums = self.client.hgetall(provider_window(PROVIDER)[2])
        return {name: int(sums.get(name.encode()) or 0) for name in "rto"}

    @property
    def outcome(self) -> list[str | None]:
        return [call.error for call in self.calls]


async def test_it_is_a_model_and_counts_what_it_asks(settings: Settings) -> None:
    prices: list[tuple[str, Sequence[str]]] = []

    def price(provider: str, models: Sequence[str], tokens: TokenCounts) -> float | None:
        prices.append((provider, models))
        return tokens.input_tokens / 1e6

    it = Guarded(settings, REPLY, price=price)
    model: Model = it.model
    assert (model.provider, model.name, model.where, model.vendor, model.window) == (
        PROVIDER, "sim-1", "http://127.0.0.1:1", "openai", 100_000,
    )  # fmt: skip
    assert await model.ask(REQUEST) == REPLY
    (call,) = it.calls
    assert (call.purpose, call.provider, call.model, call.ok, call.error) == ("plan", PROVIDER, "sim-1", True, None)
    assert (call.input_tokens, call.output_tokens, call.cached_tokens, call.cache_write_tokens) == (1_000, 50, 800, 10)
    assert (call.cost_usd, prices) == (0.001, [(PROVIDER, ("sim-1-2026", "sim-1"))]), "the server's name and ours"
    assert abs(call.at - time.time()) < 60
    assert it.used() == {"r": 1, "t": 1_050, "o": 0}
    await model.close()
    assert it.inner.closed


async def test_a_store_that_refuses_the_end_of_a_request_costs_no_answer(settings: Settings) -> None:
    async def spoilt(request: ModelRequest, on_text: OnText | None) -> ModelReply:
        it.client.set(provider_window(PROVIDER)[1], "no hash")
        return REPLY

    it = Guarded(settings, *[error(500)] * 20, retries=0)
    while it.breakers.state(CIRCUIT) == "CLOSED":
        with pytest.raises(ModelError):
            await it.ask()
    it.client.hset(breaker(CIRCUIT), "u", 1)  # its time is over, so the next request probes
    it.inner.script[:] = [spoilt]
    assert await it.ask() == REPLY
    assert it.breakers.state(CIRCUIT) == "CLOSED", "the breaker is told all the same"
    assert it.outcome[-1] is None


@pytest.mark.parametrize(
    "first",
    [UNREACHABLE, *(error(status) for status in (408, 409, 425, 429, 500, 503, 529)), error(429, retry_after_s=0.05)],
    ids=lambda e: f"{e.status or e.code}",
)
async def test_what_the_server_proves_that_it_did_not_do_is_tried_again(settings: Settings, first: ModelError) -> None:
    it = Guarded(settings, first, REPLY)
    assert await it.ask() == REPLY
    assert it.outcome == ([None] if not first.sent else ["model_failed", None])
    assert len({c.id for c in it.calls}) == len(it.calls)
    assert it.used() == {"r": len(it.calls), "t": 1_050, "o": 0}, "no tokens of the first, and no place when it was not sent"
    assert Usage.of(it.calls).failed == len(it.calls) - 1
    assert it.waits
    assert "is tried again" in it.waits[0][0]


@pytest.mark.parametrize("first", [TIMEOUT, LOST, error(502), error(504), error(524)], ids=lambda e: f"{e.status or e.code}")
async def test_what_may_have_been_paid_for_is_not_sent_again(settings: Settings, first: ModelError) -> None:
    it = Guarded(settings, first, REPLY)
    with pytest.raises(ModelError) as caught:
        await it.ask()
    assert caught.value is first
    assert (len(it.inner.asked), it.outcome) == (1, [first.code])
    assert it.used()["t"] == estimated_tokens(REQUEST), "nobody knows what it used, so the estimate stands"


async def test_a_user_may_allow_to_pay_twice(settings: Settings) -> None:
    it = Guarded(settings, TIMEOUT, LOST, REPLY, retry_timeouts=True)
    assert await it.ask() == REPLY
    assert it.outcome == ["model_timeout", "model_unreachable", None]


@pytest.mark.parametrize("first", [error(400, retryable=False), error(401, retryable=False), error(500, retryable=False)], ids=str)
async def test_what_the_provider_calls_final_is_final(settings: Settings, first: ModelError) -> None:
    it = Guarded(settings, first, REPLY)
    with pytest.raises(ModelError):
        await it.ask()
    assert len(it.inner.asked) == 1


async def test_an_answer_that_was_handed_on_in_part_is_not_asked_for_again(settings: Settings) -> None:
    it, heard = Guarded(settings, speak_and_break, REPLY), list[str]()
    with pytest.raises(ModelError, match="overloaded"):
        await it.ask(on_text=heard.append)
    assert (heard, len(it.inner.asked)) == (["half an ans"], 1)


async def test_tries_are_bounded_and_the_last_error_is_the_one_that_is_told(settings: Settings) -> None:
    errors = [error(503, code=f"number {n}") for n in range(4)]
    it = Guarded(settings, *errors, retries=2)
    with pytest.raises(ModelError) as caught:
        await it.ask()
    assert caught.value is errors[2]
    assert len(it.calls) == 3


async def test_a_hint_is_waited_for_when_it_is_short_and_pauses_all_processes(settings: Settings) -> None:
    it = Guarded(settings, error(429, retry_after_s=0.5), REPLY)
    begun = time.monotonic()
    other = asyncio.create_task(other_after(it))
    await it.ask()
    assert time.monotonic() - begun >= 0.5
    await other


async def other_after(it: Guarded) -> None:
    """Another process meets the pause."""
    answer: Any = None
    async with asyncio.timeout(5):
        while not hasattr(answer, "reason"):
            if isinstance(answer, Place):
                it.limits.release(answer)
            await asyncio.sleep(0)
            answer = await asyncio.to_thread(lambda: it.limits.reserve(PROVIDER, tokens=1, ticket="other"))
    assert answer.reason == "paused"
    it.limits.leave(PROVIDER, "other")


async def test_a_long_hint_is_for_the_job_to_wait_for(settings: Settings) -> None:
    it = Guarded(settings, error(429, retry_after_s=40.0), REPLY)
    with pytest.raises(ModelError) as caught:
        await it.ask()
    assert (caught.value.retry_after_s, len(it.calls)) == (40.0, 1)
    with pytest.raises(ModelError) as paused:
        await it.ask()
    assert (paused.value.code, paused.value.sent, paused.value.retryable, len(it.calls)) == ("model_limited", False, True, 1)
    assert 39 < (paused.value.retry_after_s or 0) <= 40
    assert it.breakers.state(CIRCUIT) == "CLOSED"
    assert it.breakers.failures(CIRCUIT) == 0, "a server that says when to come again is well"


async def test_over_the_limit_nothing_is_sent_and_the_caller_learns_when_to_come(settings: Settings) -> None:
    it = Guarded(settings, REPLY, REPLY, most=Most(requests=1))
    await it.ask()
    with pytest.raises(ModelError, match="1 requests a minute") as caught:
        await it.ask()
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("model_limited", True, False)
    assert 50 < (caught.value.retry_after_s or 0) <= 60.1
    assert len(it.inner.asked) == 1
    assert it.client.zcard(provider_window(PROVIDER)[3]) == 0, "who gave up holds no place in the queue"


async def test_a_job_keeps_its_place_in_the_queue_while_it_waits_elsewhere(settings: Settings) -> None:
    it = Guarded(settings, REPLY, most=Most(requests=1), ticket="job_1")
    await it.ask()
    with pytest.raises(ModelError):
        await it.ask()
    assert it.client.zrange(provider_window(PROVIDER)[3], 0, -1) == [b"job_1"]


async def test_a_short_wait_for_a_limit_is_waited_for(settings: Settings) -> None:
    it = Guarded(settings, REPLY, REPLY)
    it.limits = it.model._limits = ProviderLimits(it.client, Most(requests=1), window_s=0.5)
    await it.ask()
    assert await it.ask() == REPLY
    ((why, seconds),) = it.waits
    assert "1 requests a minute" in why
    assert 0 < seconds < 0.6


@pytest.mark.parametrize(
    ("end", "counts"),
    [
        (UNREACHABLE, True), (LOST, True), (TIMEOUT, True), (error(500), True), (error(502), True), (error(429), True),
        (error(429, retry_after_s=0.01), False), (error(429, retryable=False), False),
        (error(400, retryable=False), False), (error(401, retryable=False), False), (error(403, retryable=False), False),
        (error(code="model_bad_answer", retryable=False), False), (error(code="model_refused", retryable=False), False),
        (error(code="model_not_set", sent=False, retryable=False), False), (ValueError("a defect"), False),
        (replace(REPLY, stop="refused"), False),
    ],
    ids=lambda e: f"{getattr(e, 'status', None) or getattr(e, 'code', type(e).__name__)}",
)  # fmt: skip
async def test_what_counts_against_a_provider(settings: Settings, end: ModelReply | BaseException, counts: bool) -> None:
    it = Guarded(settings, end, retries=0)
    with suppress(ModelError, ValueError):
        await it.ask()
    assert it.breakers.failures(CIRCUIT) == int(counts)
    assert it.used()["o"] == 0, "every place is settled"


async def test_a_provider_that_keeps_failing_is_left_alone_and_then_tried_by_one(settings: Settings) -> None:
    quick = settings.model_copy(update={"breaker_failures": 2, "breaker_open_s": 0.5})
    it = Guarded(quick, TIMEOUT, TIMEOUT, REPLY, retries=0)
    for _ in range(2):
        with pytest.raises(ModelError):
            await it.ask()
    with pytest.raises(ModelError, match="failed 2 times in a row") as paused:
        await it.ask()
    assert (paused.value.code, paused.value.sent, paused.value.retryable) == ("model_paused", False, True)
    assert 0 < (paused.value.retry_after_s or 0) <= 0.5
    assert (len(it.inner.asked), len(it.calls)) == (2, 2)
    wait_until(lambda: it.breakers.state(CIRCUIT) == "HALF_OPEN", description="the circuit's time is over")
    assert await it.ask() == REPLY
    assert it.breakers.state(CIRCUIT) == "CLOSED"


async def test_the_deadline_holds_over_all_tries_and_for_a_model_that_hangs(settings: Settings) -> None:
    it = Guarded(settings, error(503), hang, retries=5)
    begun = time.monotonic()
    with pytest.raises(ModelError, match="did not keep its time") as caught:
        await it.ask(replace(REQUEST, deadline_s=1.5))
    assert time.monotonic() - begun < 10
    assert caught.value.code == "model_timeout"
    first, second = it.inner.asked
    assert second.deadline_s < first.deadline_s <= 1.5
    assert it.outcome == ["model_failed", "model_timeout"]


async def test_a_request_that_is_cancelled_is_counted_and_settled(settings: Settings) -> None:
    it = Guarded(settings, hang)
    asking = asyncio.create_task(it.ask())
    await until(lambda: bool(it.inner.asked))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert it.outcome == ["cancelled"]
    await until(lambda: it.used() == {"r": 1, "t": estimated_tokens(REQUEST), "o": 0})
    assert it.breakers.failures(CIRCUIT) == 0


async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing_behind(settings: Settings) -> None:
    it = Guarded(settings, REPLY)
    it.limits = it.model._limits = ProviderLimits(it.client, Most(requests=1), window_s=3.0)
    await it.ask()
    asking = asyncio.create_task(it.ask())
    await until(lambda: bool(it.waits))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: it.client.zcard(provider_window(PROVIDER)[3]) == 0)
    assert len(it.calls) == 1


async def test_an_error_of_who_counts_settles_the_request_first(settings: Settings) -> None:
    def refuse(call: ModelCall) -> None:
        raise RuntimeError("the job was taken over")

    it = Guarded(settings, REPLY)
    it.model._on_call = refuse
    with pytest.raises(RuntimeError, match="taken over"):
        await it.ask()
    assert it.used() == {"r": 1, "t": 1_050, "o": 0}


async def test_it_works_without_breakers_limits_and_listeners() -> None:
    model = GuardedModel(Scripted([error(500), REPLY]), limits=None, breakers=None, retries=1)
    assert await model.ask(REQUEST) == REPLY


def test_an_estimate_counts_all_that_is_sent_and_all_that_may_come() -> None:
    more = replace(
        REQUEST, schema={"type": "object"}, tools=({"name": "x" * 300},),
        turns=(*REQUEST.turns, Turn("user", results=(ToolResult("1", "t", "é" * 300),))),
    )  # fmt: skip
    assert estimated_tokens(more) >= estimated_tokens(REQUEST) + 300
    assert estimated_tokens(REQUEST) >= 100 + 2


async def until(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, holds, description="what was asked is so")


def ask_until_it_is_paused(url: str) -> None:
    """A process whose model is down; it says how often it asked, then comes again until the circuit closes."""
    settings = load_settings(_env_file=None, redis_url=url, breaker_failures=3, breaker_open_s=0.5)
    client: Any = connect(settings)

    async def down_until_mended(request: ModelRequest, on_text: OnText | None) -> ModelReply:
        client.incr("asked")
        if not client.get("mended"):
            raise TIMEOUT
        return REPLY

    async def run() -> None:
        inner = Scripted([down_until_mended] * 1_000)
        model = GuardedModel(inner, limits=None, breakers=Breakers(client, settings), retries=0)
        client.rpush("ready", "1")
        client.blpop("go", timeout=30)
        while True:
            try:
                await model.ask(REQUEST)
                client.incr("answered")
                return
            except ModelError as raised:
                if raised.code == "model_paused":
                    client.incr("paused")
                    await asyncio.sleep(raised.retry_after_s or 0)

    asyncio.run(run())


@pytest.mark.timeout(120)
async def test_a_circuit_opens_and_closes_for_all_processes(settings: Settings, client: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=ask_until_it_is_paused, args=(settings.store_url,), daemon=True) for _ in range(3)]
    quick = settings.model_copy(update={"breaker_failures": 3, "breaker_open_s": 0.5})
    breakers = Breakers(client, quick)

    def number(key: str) -> int:
        return int(client.get(key) or 0)

    try:
        for process in processes:
            process.start()
        wait_until(lambda: client.llen("ready") == 3, description="all processes are up", timeout=60)
        client.rpush("go", *"123")
        wait_until(lambda: number("paused") >= 6, description="all were told to pause", timeout=30)
        wait_until(lambda: breakers.state(CIRCUIT) != "CLOSED", description="the circuit is open for this process, too")
        assert number("asked") < 30, "an open circuit lets one probe pass in each half second"
        client.set("mended", "1")
        wait_until(lambda: number("answered") == 3, description="all got their answer", timeout=30)
        assert breakers.state(CIRCUIT) == "CLOSED"
    finally:
        for process in processes:
            process.kill()
            process.join()
