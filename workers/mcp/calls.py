"""One call of a server's tool, in the order that keeps it from happening twice: remembered answer, circuit breaker, tool, server.

The step's own retry repeats a call that failed; what may have had its effect, and must not have it twice, becomes unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import redis

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import EffectUnknown, ToolError, ToolTimeout
from orchestrator.jobs.store import JobStore
from orchestrator.models.plan import Effect
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.breaker import Breakers, Permit
from orchestrator.state.keys import mcp_answer
from orchestrator.tool_discovery.connect import CallResult, ServerUnreachable
from workers.mcp.sessions import Session
from workers.mcp.values import Throttle, cut, has_files, text_of, value_of
from workers.step import CallContext, PutBack

log = logging.getLogger(__name__)

T = TypeVar("T")
REMEMBERED_S = 600  # another attempt comes within seconds, or when Redis is back
MOST_REMEMBERED = 64 << 10  # a larger answer is not kept twice
COUNTS_FROM_S = 5.0  # a step that gives a server less time than this says nothing about the server
TURNED_AWAY = 2  # a server whose sessions begin well and take no call is not away, it fails
THREADS = 8
ANSWERS = frozenset({"bad_input", "unknown_method", "needs_input"})  # a server that says so is well


@dataclass
class Asked:
    """A call on its way. `sent_at`: from then on its effect may have happened; `turned_away`: sessions that took it not."""

    session: Session
    tool: ToolDefinition
    arguments: dict[str, Any]
    context: ToolContext
    began: float = field(default_factory=time.monotonic)
    sent_at: float | None = None
    turned_away: int = 0

    @property
    def native(self) -> str:
        return self.tool.native_name or self.tool.name

    @property
    def effect(self) -> Effect:
        """What a repeat would do, as the step has it."""
        own = self.context.claim.spec.get("effect") if isinstance(self.context, CallContext) else None
        return own or self.tool.effect

    @property
    def timeout_s(self) -> float:
        """The step's time or the tool's, whichever is less."""
        own = self.context.claim.spec.get("timeout_s") if isinstance(self.context, CallContext) else None
        return min(self.tool.timeout_s, own or self.tool.timeout_s)

    @property
    def left_s(self) -> float:
        return self.began + self.timeout_s - time.monotonic()

    @property
    def circuits(self) -> tuple[str, str]:
        return f"mcp:{self.session.name}", f"mcp:{self.session.name}.{self.native}"

    @property
    def digest(self) -> str:
        """What is asked for: an answer to something else is not taken for its own."""
        text = json.dumps([self.tool.name, self.arguments], sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Calls:
    """What runs behind every tool of the pool. Waiting for Redis is done in threads, so that the loop never does."""

    def __init__(self, store: JobStore) -> None:
        self._redis: Any = store.redis  # redis-py types one method for its sync and async client at once
        self._breakers = Breakers(store.redis, store.settings)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mcp")
        self._after: set[asyncio.Future[Any]] = set()

    async def close(self) -> None:
        """Waits a little for what is still told to the circuits."""
        if self._after:
            await asyncio.wait(self._after, timeout=1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, session: Session, tool: ToolDefinition, arguments: dict[str, Any], context: ToolContext) -> Any:
        """The value of one call.

        Raises:
            CircuitBreakerOpenError: the server, or this tool of it, failed too often.
            EffectUnknown: the call was sent, nobody knows what became of it, and it must not be repeated silently.
            PutBack: it was not sent, and can be soon: the server starts again, or has its share of this worker's calls.
            ToolError: the tool failed (`tool_failed`), or the server: `server_unreachable`, `server_timeout`, `needs_input`, ...
        """
        with session.place():
            return await self._run(Asked(session, tool, arguments, context))

    async def _run(self, asked: Asked) -> Any:
        remembered, permit = await self._step(self._admitted, asked)
        if permit is None:
            return remembered
        try:
            result = await self._answer(asked)
        except asyncio.CancelledError:
            self._stopped(asked, permit)
            raise
        except Exception as error:
            ours = self._failed(asked, permit, error)
            raise ours from (None if ours is error else error)
        asked.session.answered()
        self._later(self._step(permit.succeeded))
        return await self._value(asked, result)

    def _admitted(self, asked: Asked) -> tuple[Any, Permit | None]:
        """The answer that is remembered, or leave to ask for one."""
        if asked.effect != "none" and (kept := self._remembered(asked)) is not None:
            asked.context.log("answered before", idempotency_key=asked.context.idempotency_key)
            return kept["value"], None
        return None, self._breakers.admit(asked.circuits, lease_s=asked.timeout_s + COUNTS_FROM_S)

    async def _answer(self, asked: Asked) -> CallResult:
        """What the server says; what was not sent yet goes to the server's next session."""
        while True:
            connection = await asked.session.connected(within_s=0.8 * asked.left_s)
            if not asked.session.serves(asked.tool.name):
                raise ToolError(
                    f"server `{asked.session.name}` does not offer `{asked.native}` any more",
                    code="tool_missing", next=f"`toolweaver mcp test {asked.session.name}` says what it offers.",
                )  # fmt: skip
            asked.sent_at = time.monotonic()
            try:
                return await connection.call(
                    asked.native,
                    asked.arguments,
                    timeout_s=max(asked.left_s, 0.001),
                    on_progress=_progress(asked),
                    meta=_meta(asked),
                )
            except ServerUnreachable as error:
                asked.session.broke(connection, error)
                if error.sent:
                    raise
                asked.sent_at = None
                asked.turned_away += 1
                if asked.turned_away >= TURNED_AWAY or asked.left_s <= 0:
                    raise

    def _failed(self, asked: Asked, permit: Permit, error: Exception) -> Exception:
        """Tells the circuits, and says what the ledger shall hear."""
        if isinstance(error, ToolTimeout):
            self._later(self._silent(asked, permit, error.message))
            return _by_effect(asked, error)
        if isinstance(error, ServerUnreachable):
            if (
                asked.sent_at is None
                and asked.turned_away < TURNED_AWAY
                and (delay_s := asked.session.back_in_s(patience_s=asked.timeout_s)) is not None
            ):
                self._later(self._step(permit.neutral))
                return PutBack(error.message, delay_s=delay_s)
            self._later(self._unreached(asked, permit, error))
            return _by_effect(asked, error)
        answered = isinstance(error, ToolError) and error.code in ANSWERS
        self._later(self._step(permit.succeeded if answered else permit.neutral))
        if isinstance(error, ToolError) and error.code == "server_error" and asked.effect != "once":
            return ToolError(error.message, code=error.code, retryable=True, next=error.next)
        return error

    def _stopped(self, asked: Asked, permit: Permit) -> None:
        """The call was cancelled, or its step's time is over: that counts when the server had time enough."""
        waited = time.monotonic() - (asked.sent_at or time.monotonic())
        if asked.context.cancelled() or waited < min(0.5 * asked.tool.timeout_s, COUNTS_FROM_S):
            self._later(self._step(permit.neutral))
        else:
            self._later(self._silent(asked, permit, f"no answer within {waited:.1f} s"))

    async def _unreached(self, asked: Asked, permit: Permit, error: ServerUnreachable) -> None:
        """A call did not come through. What this worker cannot reach and another can is no reason to keep all from it."""
        elsewhere = not error.sent and await asked.session.held_elsewhere()
        await self._step(permit.neutral if elsewhere else partial(permit.failed, error.message))

    async def _silent(self, asked: Asked, permit: Permit, reason: str) -> None:
        """A call got no answer: a server that does not answer a ping either has failed as a whole."""
        alive = await asked.session.alive()
        await self._step(partial(permit.failed, reason, of=asked.circuits[1:] if alive else None))

    async def _value(self, asked: Asked, result: CallResult) -> Any:
        if result.is_error:
            raise ToolError(text_of(result) or f"`{asked.tool.name}` failed and did not say why")
        save = partial(_save, asked.context)
        value = await asyncio.to_thread(value_of, result, save=save) if has_files(result) else value_of(result, save=save)
        if asked.effect != "none":
            await self._step(self._remember, asked, value)
        return value

    def _remembered(self, asked: Asked) -> dict[str, Any] | None:
        with suppress(redis.RedisError, ValueError):
            raw = self._redis.get(mcp_answer(asked.context.idempotency_key))
            kept = json.loads(raw) if raw else None
            if kept is not None and kept["asked"] == asked.digest:
                return dict(kept)
        return None

    def _remember(self, asked: Asked, value: Any) -> None:
        """Keeps an answer before it is committed: if this process dies in between, the next attempt finds it."""
        try:
            raw = json.dumps({"asked": asked.digest, "value": value}, separators=(",", ":"))
            if len(raw) <= MOST_REMEMBERED:
                self._redis.set(mcp_answer(asked.context.idempotency_key), raw, ex=REMEMBERED_S)
        except (redis.RedisError, TypeError, ValueError) as error:
            log.warning("an answer is not remembered: %s", error, extra={"action": "not_remembered", "tool": asked.tool.name})

    async def _step(self, what: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, what, *args)

    def _later(self, what: Any) -> None:
        """Does something that the call need not wait for."""
        task = asyncio.ensure_future(what)
        self._after.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Future[Any]) -> None:
        self._after.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a circuit was not told: %r", error, extra={"action": "circuit_lost"})


def _by_effect(asked: Asked, error: ToolTimeout | ServerUnreachable) -> ToolError:
    """A failure of the server: to be tried again, unless that might do a thing twice."""
    if asked.sent_at is not None and asked.effect == "once":
        return EffectUnknown(
            f"`{asked.tool.name}` was sent and not answered, so its effect may have happened: {error.message}",
            next="Find out, then `toolweaver resolve` with `--happened` or `--retry`.",
        )
    return ToolError(error.message, code=error.code, retryable=True, next=error.next)


def _progress(asked: Asked) -> Callable[[float, float | None, str | None], Any]:
    """What the server says of its progress becomes events of the job, few enough to be read."""
    throttle = Throttle()

    async def told(progress: float, total: float | None, message: str | None) -> None:
        if throttle.lets(progress, total):
            more = {} if total is None else {"total": total}
            asked.context.log(cut(message, 500) if message else "progress", progress=progress, **more)

    return told


def _meta(asked: Asked) -> dict[str, Any] | None:
    """A server that knows the key refuses to do a thing twice by itself."""
    return None if asked.effect == "none" else {"toolweaver/idempotencyKey": asked.context.idempotency_key}


def _save(context: ToolContext, data: bytes, name: str, media_type: str | None) -> str:
    return context.save_file(data, name=name, media_type=media_type)
