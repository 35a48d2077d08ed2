"""Hundreds of calls at once in one process: each is a coroutine on one event loop, claimed and committed in batches.

Threads share the work, so that nothing that waits for a server holds up the tools: one claims what came in since its
last round and prepares it, one is the loop and runs nothing but tools, one commits what ended; a few helpers read
results that calls refer to, and store large ones. A hand-over between them wakes the next thread once for a batch.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import redis

from orchestrator.errors import CallCancelled, ToolError
from orchestrator.jobs.ledger import Claim, ClaimRequest, Committed, Completion, new_token
from orchestrator.settings import KIB
from orchestrator.state.connection import transient
from workers.batches import Batches
from workers.beats import CANCEL_GRACE_S, COMMIT_PATIENCE_S, Beat, Running
from workers.step import CallContext, Ending, Prepared, Ran, Runner, TimeLimitReached

log = logging.getLogger(__name__)

HELPERS = 4
SERVICE_S = 60.0
NOT_BEGUN = "not begun"
PULSE_S, HELD_UP_S = 0.25, 1.0
QUICK_NODES, QUICK_TEXT = 200, 64 * KIB


class Message(Protocol):
    """A message that asks for its call."""

    @property
    def job(self) -> str: ...
    @property
    def call(self) -> str: ...
    @property
    def attempt(self) -> int: ...


@dataclass(eq=False, slots=True)
class _Call:
    """A call from its claim to its end. `stopped` says why its tool was told to stop, `left` that it did not.

    `settled`: its `ending` is known; there is none when nothing is to be committed.
    """

    message: Message
    claim: Claim
    beat: Beat
    deadline: float
    context: _Context
    prepared: Prepared | None = None
    task: asyncio.Task[Any] | None = None
    timer: asyncio.TimerHandle | None = None
    stopped: Literal["refused", "timeout"] | None = None
    left: bool = False
    ending: Ending | None = None
    settled: bool = False
    began: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class _Context(CallContext):
    """The context of a tool on the loop: what it logs goes out with the commits, not while the loop waits."""

    send: Callable[[_Log], None] = field(kw_only=True)

    def log(self, message: str, **data: Any) -> None:
        self.send(_Log(self.claim, {"message": message, **data}))


@dataclass(frozen=True, slots=True)
class _Log:
    """A tool's own event, on its way."""

    claim: Claim
    data: Mapping[str, Any]


class AsyncRunner:
    """Runs the calls of one process. `started` and `ended` hear of messages in batches, in other threads."""

    def __init__(
        self,
        runner: Runner,
        *,
        started: Callable[[Sequence[Message]], None],
        ended: Callable[[Sequence[tuple[Message, Ran]]], None],
    ) -> None:
        self._runner, self._ledger, self._table = runner, runner.store.ledger, runner.beats
        self._on_started, self._on_ended = started, ended
        self._closed = False
        self._service: AbstractAsyncContextManager[None] | None = None
        self._pulse = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="loop", daemon=True)
        self._claims: Batches[Message] = Batches("claims", self._claim)
        self._commits: Batches[_Call | _Log] = Batches("commits", self._commit)
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="helper")
        self._running: dict[tuple[int, int], _Call] = {}  # touched by the loop only

    def start(self) -> None:
        for part in (self._claims, self._commits, self._thread):
            part.start()

    def serve(self, service: AbstractAsyncContextManager[None]) -> None:
        """Enters what the tools of this process need, on the loop; it is left when the calls have ended.

        Raises:
            Exception: what the service raised; it is not entered then.
        """
        entering = asyncio.run_coroutine_threadsafe(service.__aenter__(), self._loop)
        try:
            entering.result(SERVICE_S)
        except TimeoutError:
            entering.cancel()
            raise
        self._service = service

    def _leave_service(self) -> None:
        if self._service is None:
            return
        leaving = asyncio.run_coroutine_threadsafe(self._service.__aexit__(None, None, None), self._loop)
        try:
            leaving.result(SERVICE_S)
        except Exception:  # the process ends anyway
            log.exception("a service did not end well", extra={"action": "service_failed"})

    def take(self, message: Message) -> None:
        """Runs the call of a message, if the message still gets it."""
        self._claims.put(message)

    def close(self) -> None:
        """Begins no more calls: what is not claimed yet stays queued."""
        self._closed = True

    def stop(self) -> None:
        """Ends the threads; call it when nothing runs any more."""
        self.close()
        self._claims.stop(1.0)
        self._helpers.shutdown(wait=False, cancel_futures=True)
        self._commits.stop(1.0)
        self._leave_service()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def refuse(self, running: Running) -> None:
        """A beat of this process was refused: the call was cancelled or overtaken."""
        self._loop.call_soon_threadsafe(self._refuse, (running.slot, running.serial))

    # Claiming: the thread `claims`, and helpers for calls that refer to results.

    def _claim(self, messages: Sequence[Message]) -> None:
        self._wait_for_loop()
        if self._closed:
            self._on_ended([(m, Ran(NOT_BEGUN)) for m in messages])
            return
        requests = [ClaimRequest(m.job, m.call, m.attempt, new_token()) for m in messages]
        try:
            answers: Sequence[Claim | str | Exception] = self._ledger.claim_many(requests, queue=self._runner.queue)
        except redis.RedisError as error:
            answers = [error] * len(messages)
        dropped, calls = [], []
        for message, answer in zip(messages, answers, strict=True):
            try:
                if isinstance(answer, Claim):
                    calls.append(self._registered(message, answer))
                    continue
            except Exception as error:  # such as no slot for its beats: its lease runs out
                answer = error
            dropped.append((message, Ran(_why_dropped(message, answer))))
        if dropped:
            self._on_ended(dropped)
        if calls:
            self._on_started([c.message for c in calls])
            self._resolve(calls)

    def _wait_for_loop(self) -> None:
        """While a tool holds the loop up, no call is claimed: its time would run out before it began."""
        while time.monotonic() - self._pulse > HELD_UP_S and not self._closed:
            time.sleep(PULSE_S)

    def _registered(self, message: Message, claim: Claim) -> _Call:
        timeout_s = claim.spec["timeout_s"]
        beat = self._table.take(claim, timeout_s=timeout_s)
        context = _Context(claim, self._runner.store, beat.refused, send=self._commits.put)
        return _Call(message, claim, beat, time.monotonic() + timeout_s, context)

    def _resolve(self, calls: Sequence[_Call]) -> None:
        """Prepares at once what waits for nothing, so that a large value of one job, or the disk, holds up no other."""
        settings = self._runner.store.settings
        secures = bool(settings.once_fsync or settings.once_replicas)
        plain: list[_Call] = []
        readers: dict[str, list[tuple[_Call, Sequence[str]]]] = {}
        for call in calls:
            try:
                needed = self._runner.needed(call.claim)
            except Exception as error:
                self._unprepared(call, error)
                continue
            if needed or (secures and call.claim.spec["effect"] == "once"):
                readers.setdefault(call.claim.job, []).append((call, needed))
            else:
                plain.append(call)
        for job, group in readers.items():
            self._helpers.submit(self._read, job, group)
        self._prepare(plain, {})

    def _read(self, job: str, group: Sequence[tuple[_Call, Sequence[str]]]) -> None:
        try:
            results = self._runner.read(job, sorted({name for _, needed in group for name in needed}))
        except Exception as error:
            for call, _ in group:
                self._unprepared(call, error)
        else:
            self._prepare([call for call, _ in group], results)

    def _prepare(self, calls: Sequence[_Call], results: Mapping[str, Any]) -> None:
        ready = []
        for call in calls:
            try:
                prepared = self._runner.prepare(call.claim, call.context, results=results)
            except Exception as error:
                self._unprepared(call, error)
                continue
            if isinstance(prepared, Ending):
                self._settle(call, prepared)
            else:
                call.prepared = prepared
                ready.append(call)
        if ready:
            self._loop.call_soon_threadsafe(self._begin, ready)

    def _unprepared(self, call: _Call, error: Exception) -> None:
        self._settle(call, self._runner.ended_by(error, call.claim, cancelled=call.beat.refused))

    def _settle(self, call: _Call, ending: Ending | None) -> None:
        call.ending, call.settled = ending, True
        self._commits.put(call)

    # Running: the thread `loop`.

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._beat_pulse()
        while not self._loop.is_closed():
            try:
                self._loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as error:  # asyncio lets these two of a tool end the loop
                log.error("a tool raised %r on the loop, which goes on", error, extra={"action": "tool_crashed"})

    def _beat_pulse(self) -> None:
        self._pulse = time.monotonic()
        self._loop.call_later(PULSE_S, self._beat_pulse)

    def _begin(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            assert call.prepared is not None
            call.began = time.perf_counter()
            try:
                call.task = self._loop.create_task(call.prepared.start())
            except Exception as error:
                self._unprepared(call, error)
                continue
            self._running[call.beat.key] = call
            call.timer = self._loop.call_at(call.deadline, self._halt, call, "timeout")
            call.task.add_done_callback(partial(self._done, call))
            if call.beat.refused():  # before it ran
                self._halt(call, "refused")

    def _refuse(self, key: tuple[int, int]) -> None:
        call = self._running.get(key)
        if call is not None:
            self._halt(call, "refused")

    def _halt(self, call: _Call, why: Literal["refused", "timeout"]) -> None:
        if call.stopped is None and call.task is not None:
            call.stopped = why
            call.task.cancel()
            self._loop.call_later(CANCEL_GRACE_S, self._leave, call)

    def _leave(self, call: _Call) -> None:
        """A coroutine cannot be killed: one that swallows its cancellation goes on alone, and its slot is free again."""
        if call.beat.key in self._running:
            tool = call.claim.spec["tool"]
            log.error("tool `%s` ignores that it was cancelled; it is left to itself", tool, extra=_where(call, "left"))
            call.left = True
            self._over(call)

    def _done(self, call: _Call, task: asyncio.Task[Any]) -> None:
        if not call.left:
            self._over(call)
        elif not task.cancelled() and task.exception() is not None:
            log.warning("a tool that was left to itself failed: %r", task.exception(), extra=_where(call, "left_failed"))

    def _over(self, call: _Call) -> None:
        assert call.timer is not None
        call.seconds = time.perf_counter() - call.began
        call.timer.cancel()
        del self._running[call.beat.key]
        call.beat.ended()
        self._commits.put(call)

    # Committing: the thread `commits`.

    def _commit(self, batch: Sequence[_Call | _Log]) -> None:
        calls = []
        for item in batch:
            if isinstance(item, _Log):
                self._tell(item)
            elif not item.settled and _is_slow(item):
                self._helpers.submit(self._settle_slowly, item)
            else:
                calls.append(item)
        if calls:
            try:
                rans = self._committed(calls)
            except Exception as error:  # their leases run out
                log.exception("commits failed", extra={"action": "commit_failed", "calls": len(calls)})
                rans = [Ran(repr(error))] * len(calls)
            for call in calls:
                call.context.close()
                call.beat.release()
            self._on_ended([(c.message, ran) for c, ran in zip(calls, rans, strict=True)])

    def _settle_slowly(self, call: _Call) -> None:
        self._settle(call, self._ending(call))

    def _tell(self, item: _Log) -> None:
        try:
            self._ledger.log(item.claim, item.data)
        except redis.RedisError as error:
            log.warning("a tool's event was lost: %s", error, extra={"action": "log_failed", "job_id": item.claim.job})

    def _committed(self, calls: Sequence[_Call]) -> Sequence[Ran]:
        endings = [c.ending if c.settled else self._ending(c) for c in calls]
        completions = [
            Completion(c.claim, e.outcome, e.payload, e.delay_s, e.lengths, e.large)
            for c, e in zip(calls, endings, strict=True)
            if e is not None
        ]
        answers = iter(self._persist(completions))
        rans = []
        for call, ending in zip(calls, endings, strict=True):
            answer = next(answers) if ending is not None else "given up"
            if isinstance(answer, Committed):
                self._runner.follow(answer)
                answer = answer.verdict
            if ending is not None and answer == "ok":
                self._runner.count(call.claim, ending, call.seconds)
            elif ending is not None:
                log.info("outcome refused: %s", answer, extra=_where(call, "refused"))
            rans.append(Ran(str(answer), ending))
        return rans

    def _ending(self, call: _Call) -> Ending | None:
        """What became of a tool; None when there is nothing to commit."""
        assert call.prepared is not None
        assert call.task is not None
        try:
            if call.stopped == "timeout":
                raise TimeLimitReached
            if call.left or call.task.cancelled():
                raise CallCancelled if call.stopped else ToolError("the tool cancelled itself", code="cancelled_itself")
            return self._runner.succeeded(call.claim, call.prepared.tool, call.task.result(), files=call.context.made)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            return self._runner.ended_by(error, call.claim, cancelled=call.beat.refused)

    def _persist(self, completions: Sequence[Completion]) -> Sequence[Committed | Exception]:
        """Commits, patiently: work that is done shall not be lost to a restart of Redis."""
        give_up = time.monotonic() + COMMIT_PATIENCE_S
        answers: dict[int, Committed | Exception] = {}
        left = list(range(len(completions)))
        while left:
            try:
                got: Sequence[Committed | Exception] = self._ledger.complete_many([completions[i] for i in left])
            except redis.RedisError as error:
                got = [error] * len(left)
            answers.update(zip(left, got, strict=True))
            left = [i for i in left if transient(answers[i])]
            if left and time.monotonic() > give_up:
                break
            if left:
                log.warning("commits wait for Redis: %s", answers[left[0]], extra={"action": "commit_wait", "calls": len(left)})
                time.sleep(0.5)
        return [answers[i] for i in range(len(completions))]


def _is_slow(call: _Call) -> bool:
    """Whether the result may have to be stored outside of Redis, which shall hold up no other commit."""
    task = call.task
    if task is None or call.left or task.cancelled() or task.exception() is not None:
        return False
    return bool(call.context.made) or _is_large(task.result())


def _is_large(value: Any) -> bool:
    """Whether a value is, or may be, too large to look at in no time."""
    todo, seen = [value], 0
    while todo:
        node = todo.pop()
        seen += 1
        if isinstance(node, str):
            if len(node) > QUICK_TEXT:
                return True
        elif isinstance(node, dict | list | tuple):
            todo += node.values() if isinstance(node, dict) else node
            if seen + len(todo) > QUICK_NODES:
                return True
        elif node is not None and not isinstance(node, int | float):
            return True  # a model, say: what it holds is not known
    return False


def _why_dropped(message: Message, answer: str | Exception) -> str:
    if isinstance(answer, str):
        return answer
    where = {"action": "call_left", "job_id": message.job, "call": message.call}
    log.warning("a call was left to its lease: %s", answer, extra=where)
    return str(answer)


def _where(call: _Call, action: str) -> dict[str, Any]:
    claim = call.claim
    return {"action": action, "job_id": claim.job, "step_id": claim.step, "tool": claim.spec["tool"]}
