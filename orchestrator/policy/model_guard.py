"""A model with a guard: each request asks the circuit breaker and the provider's limits, is counted once, and is tried again.

Which requests are tried again, so that nothing is paid for twice. Vendors bill answers, also those that never arrive. So a request
is sent again only when the server proves that it made none, or when nothing was sent:

- nothing was sent (`sent=False`, such as a refused connection);
- the server said so itself: 408 (it did not get the whole request), 409 and 425 (not now), 429 (limited), 500 (it failed;
  no vendor bills an error that it returns), 503 and 529 (overloaded, so not begun);
- it refused how the request was put (400, 422, 501) and the provider, which says `retryable` then, puts it otherwise the next time.

It is not sent again after a time limit, a connection that was lost, or 502, 504 and 524, with which a proxy says that it does
not know what the model did: the answer may have been made and billed. `retry_timeouts` allows that. And never when a part of an
answer was already handed on, since `on_text` would get it twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import redis
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from orchestrator.errors import CircuitBreakerOpenError, ModelError
from orchestrator.models.usage import ModelCall
from orchestrator.policy.breaker import Breakers, Permit
from orchestrator.policy.provider_limits import Place, ProviderLimits, Wait
from orchestrator.providers.model import Around, Model, ModelReply, ModelRequest, OnText, TokenCounts

OnCall = Callable[[ModelCall], None]
OnWait = Callable[[str, float], None]
Price = Callable[[str, Sequence[str], TokenCounts], float | None]
T = TypeVar("T")

PATIENCE_S = 5.0  # so long one request waits here; for longer its job waits
OVERTIME_S = 1.0  # a model that does not keep the deadline is left after this
LEAST_S = 0.05  # with less time left no request is sent
BYTES_A_TOKEN = 3  # English and JSON have about 4; few languages have less than 3 in UTF-8

_NOT_DONE = frozenset((400, 408, 409, 422, 425, 429, 500, 501, 503, 529))
_ANSWERED = frozenset(("model_bad_answer", "model_refused", "model_cut_off"))
_BACKOFF = wait_random_exponential(multiplier=0.5, max=PATIENCE_S)

log = logging.getLogger(__name__)


class _NotAsked(ModelError):
    """The guard kept the request back; it is for its caller to come again."""


class _HeldUp(ModelError):
    """This process did not send in time; that is no fault of the provider."""


@dataclass(slots=True)
class _End:
    """How one request that was sent ended."""

    seconds: float
    reply: ModelReply | None = None
    error: BaseException | None = None
    spoke: bool = False  # a part of the answer was handed on

    @property
    def code(self) -> str | None:
        if isinstance(self.error, ModelError):
            return self.error.code
        return None if self.error is None else "cancelled" if isinstance(self.error, asyncio.CancelledError) else "internal"

    @property
    def sent(self) -> bool:
        return not (isinstance(self.error, ModelError) and not self.error.sent)


class GuardedModel(Around):
    """A `Model` around another one. It may serve many requests at once; `on_call` and `on_wait` run on the loop, so they are short.

    Args:
        limits, breakers: Those of all processes; None: without.
        retries: Further tries after the first.
        on_call: Told each request that was sent, exactly once, also when it failed or was cancelled; before the answer is given.
        on_wait: Told why, in words, and for about how many seconds a request now waits.
        price: The cost in dollars of tokens, by provider and the model's names (the server's, ours); None where it is not known.
        retry_timeouts: Also requests that may have been paid for are tried again.
        ticket: Who asks, such as a job: while it waits elsewhere it keeps its place in the queue for the provider.
    """

    def __init__(
        self,
        model: Model,
        *,
        limits: ProviderLimits | None,
        breakers: Breakers | None,
        retries: int,
        on_call: OnCall | None = None,
        on_wait: OnWait | None = None,
        price: Price | None = None,
        retry_timeouts: bool = False,
        ticket: str | None = None,
    ) -> None:
        super().__init__(model)
        self._limits, self._breakers, self._retries = limits, breakers, retries
        self._on_call, self._on_wait, self._price = on_call, on_wait, price
        self._retry_timeouts, self._ticket = retry_timeouts, ticket

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request, within its `deadline_s` over all tries and waits.

        Raises:
            ModelError: none came. `model_limited` with `sent=False`: the provider's limit is used up for longer than a request
                waits here; `model_paused`: its circuit is open. `retry_after_s` says when to come again.
        """
        return await _Asking(self, request, on_text).answer()


class _Asking:
    """One request on its way, with its tries."""

    def __init__(self, guard: GuardedModel, request: ModelRequest, on_text: OnText | None) -> None:
        self._guard, self._request, self._on_text = guard, request, on_text
        self._ends = time.monotonic() + request.deadline_s
        self._tokens = estimated_tokens(request)
        self._ticket = guard._ticket or secrets.token_hex(8)
        self._spoke = False

    async def answer(self) -> ModelReply:
        tries = AsyncRetrying(
            retry=retry_if_exception(self._again), wait=_pause, stop=self._enough, before_sleep=self._told, reraise=True
        )
        return await tries(self._one_try)

    async def _one_try(self) -> ModelReply:
        permit, place = await self._let_go()
        end = await self._sent(place)
        try:
            if end.sent:
                self._count(end)
        finally:
            await _to_its_end(lambda: self._close(permit, place, end))
        if end.error is not None:
            raise end.error
        assert end.reply is not None
        return end.reply

    async def _let_go(self) -> tuple[Permit | None, Place | None]:
        """Waits until breaker and limits let a request go."""
        waits_until, why = min(time.monotonic() + PATIENCE_S, self._ends - LEAST_S), ""
        while True:
            passed = await self._passed()
            if not isinstance(passed, Wait):
                return passed
            again = passed.again_s + (random.uniform(0, min(1.0, passed.again_s / 10)) if passed.reason == "paused" else 0.0)
            if time.monotonic() + again >= waits_until:
                await self._give_up(passed)
            if why != passed.reason:
                why = passed.reason
                self._tell(passed.text, passed.seconds)
            await self._sleep(again)

    async def _passed(self) -> tuple[Permit | None, Place | None] | Wait:
        if self._left <= LEAST_S:
            raise _NotAsked(
                f"no time is left to ask {self._named}", code="model_timeout", retryable=True, sent=False,
                next="Give the request a longer `deadline_s`.",
            )  # fmt: skip
        permit = await _to_its_end(self._admitted, undo=_neutral)
        try:
            found = await _to_its_end(self._reserved, undo=self._undone)
        except BaseException:
            _neutral(permit)
            raise
        if isinstance(found, Wait):
            await _to_its_end(lambda: _neutral(permit))
            return found
        return permit, found

    def _admitted(self) -> Permit | None:
        breakers, name = self._guard._breakers, f"model:{self._guard.provider}"
        try:
            return breakers.admit((name,), lease_s=self._left + PATIENCE_S) if breakers else None
        except CircuitBreakerOpenError as error:
            raise _NotAsked(
                f"{self._named} is not asked now: {error.message}", code="model_paused", retryable=True,
                retry_after_s=error.retry_after_s, sent=False, next=error.next,
            ) from error  # fmt: skip

    def _reserved(self) -> Place | Wait | None:
        guard = self._guard
        if guard._limits is None:
            return None
        return guard._limits.reserve(guard.provider, tokens=self._tokens, ticket=self._ticket, later=guard._ticket is not None)

    def _undone(self, found: Place | Wait | None) -> None:
        limits = self._guard._limits
        if limits is not None and isinstance(found, Place):
            limits.release(found)
        elif limits is not None and found is not None and self._guard._ticket is None:
            limits.leave(self._guard.provider, self._ticket)

    async def _give_up(self, wait: Wait) -> None:
        await _to_its_end(lambda: self._undone(wait))
        raise _NotAsked(
            f"{self._named} is not asked now: {wait.text}", code="model_limited", retryable=True,
            retry_after_s=wait.seconds, sent=False, next=f"Try again in {wait.seconds:.1f} s.",
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            limits = self._guard._limits
            if limits is not None and self._guard._ticket is None:
                await _to_its_end(lambda: limits.leave(self._guard.provider, self._ticket))
            raise

    async def _sent(self, place: Place | None) -> _End:
        """Sends the request, and never raises; a place that is stale counts as an error of a request that was not sent."""
        limits, begun = self._guard._limits, time.monotonic()
        if limits is not None and place is not None and not limits.in_time(place):
            return _End(0.0, error=_HeldUp("this process was held up", code="model_timeout", retryable=True, sent=False))
        end = _End(0.0)
        try:
            async with asyncio.timeout(self._left + OVERTIME_S):
                end.reply = await self._guard.model.ask(replace(self._request, deadline_s=self._left), on_text=self._hand_on())
        except TimeoutError:
            end.error = ModelError(f"{self._named} did not keep its time", code="model_timeout", retryable=True)
        except BaseException as error:  # raised again when the request has been counted
            end.error = error
        end.seconds, end.spoke = time.monotonic() - begun, self._spoke
        return end

    def _hand_on(self) -> OnText | None:
        on_text = self._on_text
        if on_text is None:
            return None

        def heard(text: str) -> None:
            self._spoke = True
            on_text(text)

        return heard

    def _count(self, end: _End) -> None:
        if self._guard._on_call is None:
            return
        tokens = end.reply.tokens if end.reply else TokenCounts()
        self._guard._on_call(
            ModelCall(
                id=f"model_{secrets.token_hex(8)}",
                purpose=self._request.purpose,
                provider=self._guard.provider,
                model=self._guard.name,
                ok=end.error is None,
                error=end.code,
                input_tokens=tokens.input_tokens,
                output_tokens=tokens.output_tokens,
                cached_tokens=tokens.cached_tokens,
                cache_write_tokens=tokens.cache_write_tokens,
                cost_usd=self._cost(end.reply),
                seconds=end.seconds,
                at=time.time(),
            )
        )

    def _cost(self, reply: ModelReply | None) -> float | None:
        price = self._guard._price
        if price is None or reply is None:
            return None
        return price(self._guard.provider, tuple(dict.fromkeys((reply.model, self._guard.name))), reply.tokens)

    def _close(self, permit: Permit | None, place: Place | None, end: _End) -> None:
        """Tells limits and breaker how a request ended; what the store makes of it is no reason to lose an answer."""
        for tell in (partial(self._settle, place, end), partial(_report, permit, end)):
            try:
                tell()
            except redis.RedisError as error:
                log.error("the end of a request is not noted: %s", error, extra={"action": "model_end_lost"})

    def _settle(self, place: Place | None, end: _End) -> None:
        limits = self._guard._limits
        if limits is not None and place is not None:
            if not end.sent:
                limits.release(place)
            else:
                limits.settle(place, _used(end))
        if limits is not None and isinstance(end.error, ModelError) and end.error.status in (429, 503, 529):
            limits.pause(self._guard.provider, _hint(end.error))

    @property
    def _left(self) -> float:
        return self._ends - time.monotonic()

    @property
    def _named(self) -> str:
        return f"`{self._guard.name}` of `{self._guard.provider}`"

    def _again(self, error: BaseException) -> bool:
        """Whether a request may be sent again after an error, as the head of this file says."""
        if not isinstance(error, ModelError) or isinstance(error, _NotAsked) or not error.retryable or self._spoke:
            return False
        return not error.sent or error.status in _NOT_DONE or self._guard._retry_timeouts

    def _enough(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        pause = max(state.upcoming_sleep, _hint(error))
        return stop_after_attempt(self._guard._retries + 1)(state) or _hint(error) > PATIENCE_S or pause >= self._left - LEAST_S

    def _told(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        code = error.code if isinstance(error, ModelError) else "model_failed"
        log.info(
            "%s is asked again in %.1f s", self._named, state.upcoming_sleep,
            extra={"action": "model_retry", "provider": self._guard.provider, "code": code, "try": state.attempt_number},
        )  # fmt: skip
        self._tell(f"{self._named} is tried again ({code})", state.upcoming_sleep)

    def _tell(self, why: str, seconds: float) -> None:
        if self._guard._on_wait is not None:
            self._guard._on_wait(why, seconds)


def estimated_tokens(request: ModelRequest) -> int:
    """How many tokens a request uses at most, about: its bytes by three, and all that its answer may have."""
    return math.ceil(sum(len(text.encode()) for text in _texts(request)) / BYTES_A_TOKEN) + request.max_tokens


def _texts(request: ModelRequest) -> Iterator[str]:
    yield from (block.text for block in request.system)
    for turn in request.turns:
        yield from (block.text for block in turn.blocks)
        yield from (result.text for result in turn.results)
        yield from (json.dumps(use.arguments, default=str) for use in turn.uses)
    yield json.dumps([request.schema, request.tools], default=str)


def _used(end: _End) -> int | None:
    """Tokens that a request used; None: nobody knows."""
    if end.reply is not None:
        return end.reply.tokens.input_tokens + end.reply.tokens.output_tokens
    status = end.error.status if isinstance(end.error, ModelError) else None
    return 0 if status is not None and (status < 500 or status in _NOT_DONE) else None


def _report(permit: Permit | None, end: _End) -> None:
    """Tells the circuit what a request says about its provider; what is wrong with a key or this process says nothing."""
    error = end.error
    if permit is None:
        return
    if error is None or (isinstance(error, ModelError) and _answered(error)):
        permit.succeeded()
    elif isinstance(error, ModelError) and _at_fault(error):
        permit.failed(f"{error.code}{f', status {error.status}' if error.status else ''}")
    else:
        permit.neutral()


def _answered(error: ModelError) -> bool:
    return error.code in _ANSWERED or error.status in (400, 404, 413, 422)


def _at_fault(error: ModelError) -> bool:
    if isinstance(error, _HeldUp):
        return False
    if error.status == 429:
        return error.retryable and not _hint(error)  # a quota that is used up does not heal; with a hint all processes pause
    if error.status is not None:
        return error.status >= 500 or error.status == 408
    return error.retryable or error.code in ("model_timeout", "model_unreachable")


def _hint(error: BaseException | None) -> float:
    """The seconds that a server asked to wait; 0 when it said nothing of sense."""
    hint = error.retry_after_s if isinstance(error, ModelError) else None
    return hint if hint is not None and math.isfinite(hint) and hint > 0 else 0.0


def _pause(state: RetryCallState) -> float:
    """Before a further try: what the server wants and a little more, so that not all come at once; else full jitter."""
    hint = _hint(state.outcome.exception() if state.outcome else None)
    return hint + random.uniform(0, min(1.0, 0.05 + hint / 10)) if hint else float(_BACKOFF(state))


def _neutral(permit: Permit | None) -> None:
    if permit is not None:
        permit.neutral()


async def _to_its_end(work: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
    """Runs what blocks in a thread. Who is cancelled meanwhile does not wait for it, and what it did is undone."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(lambda done: _undo(done, undo))
        raise


def _undo(done: asyncio.Future[T], undo: Callable[[T], None] | None) -> None:
    if not done.cancelled() and done.exception() is None and undo is not None:
        done.get_loop().run_in_executor(None, undo, done.result())
