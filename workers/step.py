"""One call from claim to commit: claim it, fetch what it refers to, run the tool, commit, publish what became ready."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from orchestrator.catalog.register import RegisteredTool, ToolRegistry
from orchestrator.errors import CallCancelled, ToolError, ToolTimeout, ToolWeaverError
from orchestrator.jobs import ledger as outcomes
from orchestrator.jobs.ledger import Claim, Outcome, new_token
from orchestrator.jobs.references import Scope, calls_needed, holds
from orchestrator.jobs.store import JobStore
from orchestrator.jobs.values import Stored, encode
from orchestrator.models.job import ErrorInfo
from orchestrator.models.plan import When
from orchestrator.publisher.compile import lengths_for
from orchestrator.publisher.publish import Publisher
from orchestrator.settings import Settings
from workers.beats import BeatTable

log = logging.getLogger(__name__)

CANCEL_GRACE_S = 2.0
COMMIT_PATIENCE_S = 60.0
_KEPT_INPUTS = 32
_OUTCOMES: dict[Outcome, str] = {"s": "succeeded", "f": "failed", "k": "skipped", "w": "waits for a retry", "u": "unknown"}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended, as the ledger takes it."""

    outcome: Outcome
    payload: bytes = b"null"
    delay_s: float = 0.0
    lengths: Mapping[str, int] = field(default_factory=dict)
    large: Stored | None = None


@dataclass(frozen=True)
class CallContext:
    """What a running tool may ask of its call (`orchestrator.catalog.context.ToolContext`)."""

    claim: Claim
    store: JobStore
    is_refused: Callable[[], bool]

    @property
    def job_id(self) -> str:
        return self.claim.job

    @property
    def call(self) -> str:
        return self.claim.call

    @property
    def attempt(self) -> int:
        return self.claim.attempt

    @property
    def tenant(self) -> str:
        return self.store.tenant(self.claim.job)

    @property
    def idempotency_key(self) -> str:
        return f"{self.claim.job}/{self.claim.call}"

    @property
    def settings(self) -> Settings:
        return self.store.settings

    def cancelled(self) -> bool:
        return self.is_refused()

    def check(self) -> None:
        if self.is_refused():
            raise CallCancelled()

    def log(self, message: str, **data: Any) -> None:
        self.store.ledger.log(self.claim, {"message": message, **data})


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a message: the ledger's verdict ("ok", or why it was dropped or refused), and how the call ended."""

    verdict: str
    ending: Ending | None = None

    @property
    def failed(self) -> bool:
        """Whether the call ended as failed."""
        return self.verdict == "ok" and self.ending is not None and self.ending.outcome == outcomes.FAILED

    def __str__(self) -> str:
        if self.verdict != "ok" or self.ending is None:
            return f"nothing done: {self.verdict}"
        said = _OUTCOMES[self.ending.outcome]
        return said if self.ending.outcome == outcomes.SUCCEEDED else f"{said}: {self.ending.payload.decode()}"


class TimeLimitReached(Exception):
    """The tool ran longer than its call's `timeout_s`; no tool raises this, unlike TimeoutError."""


class InputsUnreadable(Exception):
    """Redis did not give what the call refers to."""


class Runner:
    """Runs the calls that a worker process receives."""

    def __init__(self, store: JobStore, app: Celery, *, registry: ToolRegistry, queue: str, beats: BeatTable) -> None:
        self.store = store
        self.publisher = Publisher(app)
        self.registry = registry
        self.queue = queue
        self.beats = beats
        self._inputs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._loop: asyncio.Runner | None = None

    def run(self, job: str, call: str, *, attempt: int, slot: int | None = None) -> Ran:
        """Runs one call if this message still gets it; what became of the message."""
        claim = self.store.ledger.claim(job, call, attempt=attempt, token=new_token(), queue=self.queue)
        if isinstance(claim, str):
            log.debug("message dropped: %s", claim, extra={"action": "drop", "job_id": job, "call": call})
            return Ran(claim)
        with self.beats.running(claim, timeout_s=claim.spec["timeout_s"], slot=slot) as is_refused:
            ending = self._end(claim, CallContext(claim, self.store, is_refused))
            return Ran(self._commit(claim, ending), ending) if ending is not None else Ran("given up")

    def _end(self, claim: Claim, context: CallContext) -> Ending | None:
        """What became of the call; None when it was cancelled or overtaken, so that there is nothing to commit."""
        try:
            return self._execute(claim, context)
        except CallCancelled as error:
            return None if context.cancelled() else _failed(claim, ToolError(str(error), code="cancelled_itself"))
        except TimeLimitReached:
            return None if context.cancelled() else _timed_out(claim)
        except ToolError as error:
            return _failed(claim, error)
        except ToolWeaverError as error:
            return _failed(claim, ToolError(error.message, code=error.code, next=error.next, retryable=error.retryable))
        except InputsUnreadable as error:
            log.warning("inputs of a call could not be read: %s", error, extra=_where(claim, "read_failed"))
            return None  # its lease runs out and it is tried again
        except Exception as error:  # a tool may raise anything; the step's policy decides
            log.exception("tool crashed", extra=_where(claim, "tool_crashed"))
            crash = ToolError(f"{type(error).__name__}: {error}", code="tool_crashed", retryable=claim.spec["effect"] != "once")
            return _failed(claim, crash)

    def _execute(self, claim: Claim, context: CallContext) -> Ending:
        spec = claim.spec
        tool = self.registry.get(spec["tool"])
        if tool is None:
            raise ToolError(
                f"this worker of queue `{self.queue}` has no tool `{spec['tool']}`", code="tool_missing", retryable=True,
                next="start the worker with `--tools` and the module that defines it",
            )  # fmt: skip
        scope = self._scope(claim)
        if "when" in spec and not holds(when := When.model_validate(spec["when"]), scope):
            reason = outcomes.to_json({"reason": f"`when` does not hold: {when.ref} {when.op}"})
            return Ending(outcomes.SKIPPED, reason)
        arguments = tool.validate_input(scope.resolve(spec.get("input", {})))
        value = tool.validate_output(self._call(tool, arguments, context))
        settings = self.store.settings
        stored = encode(value, inline_bytes=settings.inline_bytes, max_bytes=settings.result_max_bytes)
        lengths = lengths_for(spec.get("lens", ()), index=claim.index, result=value)
        return Ending(outcomes.SUCCEEDED, stored.field, lengths=lengths, large=stored)

    def _scope(self, claim: Claim) -> Scope:
        spec = claim.spec
        scope = Scope(_NoResults(), spec.get("modes", {}), claim.totals, claim.index, spec.get("map"))
        needed = sorted(calls_needed([spec.get("input", {}), spec.get("when", {}).get("ref")], scope))
        try:
            results = dict(zip(needed, self.store.values(claim.job, needed), strict=True)) if needed else {}
        except redis.RedisError as error:
            raise InputsUnreadable(str(error)) from error
        return Scope(_Results(self, claim.job, results), scope.modes, scope.totals, scope.index, scope.map)

    def inputs(self, job: str) -> dict[str, Any]:
        """The inputs of a job, kept for its next calls here: a map must not fetch its list once per item."""
        if job not in self._inputs:
            try:
                self._inputs[job] = self.store.inputs(job)
            except redis.RedisError as error:
                raise InputsUnreadable(str(error)) from error
            if len(self._inputs) > _KEPT_INPUTS:
                self._inputs.popitem(last=False)
        return self._inputs[job]

    def _call(self, tool: RegisteredTool, arguments: dict[str, Any], context: CallContext) -> Any:
        if tool.context_parameter is not None:
            arguments[tool.context_parameter] = context
        if not tool.is_async:
            with time_limit(context.claim.spec["timeout_s"]):
                return tool.function(**arguments)
        self._loop = self._loop or asyncio.Runner()
        return self._loop.run(_watched(tool.function(**arguments), context, context.claim.spec["timeout_s"]))

    def _commit(self, claim: Claim, ending: Ending) -> str:
        verdict, ready = self._persist(claim, ending)
        if verdict != "ok":
            log.info("outcome refused: %s", verdict, extra=_where(claim, "refused"))
        try:
            self.publisher.publish(sorted(ready, key=lambda c: c.step), priority=claim.queues.priority)
        except (OperationalError, redis.RedisError) as error:
            log.warning("what became ready stays in the outbox: %s", error, extra=_where(claim, "publish_failed"))
        return verdict

    def _persist(self, claim: Claim, ending: Ending) -> tuple[str, list[outcomes.ReadyCall]]:
        """Commits, patiently: work that is done shall not be lost to a restart of Redis."""
        give_up = time.monotonic() + COMMIT_PATIENCE_S
        while True:
            try:
                return self.store.ledger.complete(
                    claim,
                    outcome=ending.outcome,
                    payload=ending.payload,
                    delay_s=ending.delay_s,
                    lengths=ending.lengths,
                    large=ending.large,
                )
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if time.monotonic() > give_up:
                    raise
                log.warning("commit waits for Redis: %s", error, extra=_where(claim, "commit_wait"))
                time.sleep(0.5)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimitReached in the block after `seconds`, in the main thread of a process; elsewhere only beats stop.

    A tool that never comes back to the interpreter is killed with its process a little later, by the beating thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_timeout(*_: Any) -> None:
    raise TimeLimitReached


class _NoResults:
    """A source for asking which results are needed."""

    def inputs(self) -> Mapping[str, Any]:
        return {}

    def result(self, call: str) -> Any:  # noqa: ARG002 (the protocol's signature)
        return None


class _Results:
    """The fetched results of one call's references, and the job's inputs."""

    def __init__(self, runner: Runner, job: str, results: Mapping[str, Any]) -> None:
        self._runner, self._job, self._results = runner, job, results

    def inputs(self) -> Mapping[str, Any]:
        return self._runner.inputs(self._job)

    def result(self, call: str) -> Any:
        return self._results.get(call)


async def _watched(coroutine: Any, context: CallContext, timeout_s: float) -> Any:
    """Awaits a tool, and cancels it when its call is cancelled or its time is over."""
    task = asyncio.ensure_future(coroutine)
    end = time.monotonic() + timeout_s
    while not task.done():
        await asyncio.wait({task}, timeout=min(0.1, max(0.0, end - time.monotonic())))
        if task.done():
            break
        if context.cancelled() or time.monotonic() >= end:
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
            raise CallCancelled() if context.cancelled() else TimeLimitReached
    return task.result()


def _failed(claim: Claim, error: ToolError) -> Ending:
    """A failure, or the wait before the next try: exponential backoff with jitter."""
    most, backoff, longest = claim.spec["retry"]
    payload = _info(claim, error)
    if error.retryable and claim.tries < most:
        delay = min(longest, backoff * 2**claim.tries) * random.uniform(0.5, 1.0)
        return Ending(outcomes.RETRY, payload, delay_s=delay)
    return Ending(outcomes.FAILED, payload)


def _timed_out(claim: Claim) -> Ending:
    """A timeout: tried again if that is harmless, else the effect is not known."""
    seconds = claim.spec["timeout_s"]
    timeout = ToolTimeout(
        f"tool `{claim.spec['tool']}` ran longer than its timeout_s of {seconds:g}",
        retryable=claim.spec["effect"] != "once",
        next="raise `timeout_s` of the step or give the tool less to do",
    )
    if claim.spec["effect"] == "once":
        return Ending(outcomes.UNKNOWN, _info(claim, timeout))
    return _failed(claim, timeout)


def _info(claim: Claim, error: ToolError) -> bytes:
    info = ErrorInfo(
        code=error.code, message=error.message, retryable=error.retryable, next=error.next,
        step=claim.step, call=claim.call, attempt=claim.attempt,
    )  # fmt: skip
    return info.model_dump_json(exclude_none=True).encode()


def _where(claim: Claim, action: str) -> dict[str, Any]:
    return {"action": action, "job_id": claim.job, "step_id": claim.step, "tool": claim.spec["tool"]}
