"""One call from claim to commit: claim it, fetch what it refers to, run the tool, commit, publish what became ready."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, BinaryIO

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic_core import to_jsonable_python

from orchestrator.catalog.files import Unfetched
from orchestrator.catalog.register import ServedTool, ToolRegistry
from orchestrator.errors import (
    BackendError,
    CallCancelled,
    EffectUnknown,
    Overtaken,
    PermissionDenied,
    PolicyError,
    ToolError,
    ToolTimeout,
    ToolWeaverError,
)
from orchestrator.jobs import ledger as outcomes
from orchestrator.jobs.call_files import CallFiles
from orchestrator.jobs.ledger import Claim, Committed, Ledger, Outcome, new_token
from orchestrator.jobs.references import Scope, calls_needed, holds
from orchestrator.jobs.store import JobStore
from orchestrator.jobs.values import Stored
from orchestrator.models.job import ErrorInfo
from orchestrator.models.plan import When, parse_reference
from orchestrator.models.program import Caller
from orchestrator.monitoring.feed import Feed, use_feed
from orchestrator.publisher.compile import lengths_for
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.settings import Settings
from orchestrator.state.connection import transient
from orchestrator.state.keys import METRICS
from workers.beats import CANCEL_GRACE_S, COMMIT_PATIENCE_S, BeatTable
from workers.permit import Permits

log = logging.getLogger(__name__)

NOT_SECURED_S = 1.0
KEEP_PATIENCE_S = 10.0  # shorter than for a commit: on the loop other commits wait behind it
_OUTCOMES: dict[Outcome, str] = {
    "s": "succeeded", "f": "failed", "k": "skipped", "w": "waits for a retry", "b": "put back", "u": "unknown",
}  # fmt: skip
_COUNTED: dict[Outcome, str] = {"s": "succeeded", "f": "failed", "w": "retried", "u": "unknown"}  # others did not run


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
        return self.claim.tenant

    @property
    def idempotency_key(self) -> str:
        return f"{self.claim.job}/{self.claim.call}"

    @property
    def caller(self) -> Caller:
        return Caller.model_validate(self.claim.spec.get("caller", {"type": "direct"}))

    @property
    def settings(self) -> Settings:
        return self.store.settings

    @cached_property
    def files(self) -> CallFiles:
        return CallFiles(self.store.files.blobs, tenant=self.claim.tenant, job=self.claim.job)

    def open_file(self, ref: str) -> BinaryIO:
        return self.files.open(ref)

    def save_file(self, data: bytes | str | os.PathLike[str] | BinaryIO, *, name: str = "", media_type: str | None = None) -> str:
        return self.files.save(data, name=name, media_type=media_type)

    @property
    def made(self) -> Collection[str]:
        """The files that the call saved, by SHA-256."""
        return self.files.made if "files" in self.__dict__ else ()

    def close(self) -> None:
        """Ends what the tool was given: copies of files are deleted."""
        if "files" in self.__dict__:
            self.files.close()

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that is ready to run: its tool, and the arguments that it takes."""

    tool: ServedTool
    arguments: dict[str, Any]
    context: CallContext

    def start(self) -> Any:
        """What the tool's function gives: its value, or the coroutine of an `async def`.

        Raises:
            Parked: this process stood still for longer than the lease since it claimed the call, which is another's now.
        """
        claim, ledger = self.context.claim, self.context.store.ledger
        if time.monotonic() - claim.asked > ledger.settings.lease_s and not self._still_held(claim, ledger):
            raise Parked("the lease ran out before the tool began")
        return self.tool.call(self.arguments, self.context)

    @staticmethod
    def _still_held(claim: Claim, ledger: Ledger) -> bool:
        try:
            return ledger.beat([(claim.job, claim.call, claim.attempt)])[0]
        except redis.RedisError as error:
            raise InputsUnreadable(str(error)) from error


class TimeLimitReached(Exception):
    """The tool ran longer than its call's `timeout_s`; no tool raises this, unlike TimeoutError."""


class InputsUnreadable(Exception):
    """Redis did not give what the call refers to."""


class ResultNotKept(Exception):
    """The tool did its work, and its result could not be stored."""


class NotSecured(Exception):
    """The claim of a `once` call could not be made durable; nothing of the call ran."""


class PutBack(Exception):
    """The call cannot begin here now, and nothing of it ran: it is published again after `delay_s`, which is no try of its step."""

    def __init__(self, why: str, *, delay_s: float) -> None:
        super().__init__(why)
        self.delay_s = delay_s


class Parked(Exception):
    """The call waits for the key of its tool, or was overtaken; nothing is to be done here."""


class Stopwatch:
    """How long a tool ran; None until it has."""

    __slots__ = ("_began", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began


class Runner:
    """Runs the calls that a worker process receives."""

    def __init__(self, store: JobStore, app: Celery, *, registry: ToolRegistry, queue: str, beats: BeatTable) -> None:
        self.store = store
        self.publisher = Publisher(app)
        self.registry = registry
        self.queue = queue
        self.beats = beats
        self.feed = use_feed(Feed(store.redis, METRICS))
        self._permits = Permits(store)
        self._told: set[tuple[str, str]] = set()
        self._loop: asyncio.Runner | None = None
        self._secured = 0.0  # claims older than this are on disk

    def run(self, job: str, call: str, *, attempt: int, slot: int | None = None) -> Ran:
        """Runs one call if this message still gets it; what became of the message."""
        claim = self.store.ledger.claim(job, call, attempt=attempt, token=new_token(), queue=self.queue)
        if isinstance(claim, str):
            log.debug("message dropped: %s", claim, extra={"action": "drop", "job_id": job, "call": call})
            return Ran(claim)
        with self.beats.running(claim, timeout_s=claim.spec["timeout_s"], slot=slot) as beat:
            context = CallContext(claim, self.store, beat.refused)
            ran = Stopwatch()
            try:
                ending = self._end(claim, context, ran=ran, tool_ended=beat.ended)
            finally:
                context.close()
            beat.ended()
            if ending is None:
                return Ran("given up")
            verdict = self._commit(claim, ending)
            if verdict == "ok":
                self.count(claim, ending, ran.seconds)
            return Ran(verdict, ending)

    def count(self, claim: Claim, ending: Ending, seconds: float | None) -> None:
        """Counts an attempt whose end the ledger took; `seconds`: how long the tool ran, None if it did not begin."""
        outcome = _COUNTED.get(ending.outcome)
        if outcome is not None:
            code = None if ending.outcome == outcomes.SUCCEEDED else _code_of(ending)
            self.feed.tool_call(claim.spec["tool"], outcome, seconds=seconds, code=code)

    def _end(self, claim: Claim, context: CallContext, *, ran: Stopwatch, tool_ended: Callable[[], None]) -> Ending | None:
        """What became of the call; None when it was cancelled or overtaken, so that there is nothing to commit."""
        try:
            prepared = self.prepare(claim, context, results=self.read(claim.job, self.needed(claim)))
            if isinstance(prepared, Ending):
                return prepared
            with ran:
                value = self._call(prepared, context)
            tool_ended()
            return self.succeeded(claim, prepared.tool, value, files=context.made)
        except Exception as error:
            return self.ended_by(error, claim, cancelled=context.cancelled)

    def needed(self, claim: Claim) -> Sequence[str]:
        """The calls whose results this one reads."""
        spec = claim.spec
        tool = self.registry.get(spec["tool"])
        template = spec.get("input", {})
        fetched_later = _lazy_references(tool, template) if tool is not None else {}
        eager = {name: value for name, value in template.items() if name not in fetched_later}
        return sorted(calls_needed([eager, spec.get("when", {}).get("ref")], self._scope(claim, {})))

    def read(self, job: str, calls: Sequence[str]) -> Mapping[str, Any]:
        """The results of calls.

        Raises:
            InputsUnreadable: Redis does not answer.
        """
        try:
            return dict(zip(calls, self.store.values(job, calls), strict=True)) if calls else {}
        except redis.RedisError as error:
            raise InputsUnreadable(str(error)) from error

    def prepare(self, claim: Claim, context: CallContext, *, results: Mapping[str, Any]) -> Prepared | Ending:
        """The tool and its checked arguments, or the end of a call that does not run.

        Raises:
            ToolError: the tool is not here, or does not take this input.
            PermissionDenied: the rules forbid it.
            InputsUnreadable: Redis does not answer.
        """
        tool = self._tool(claim)
        self._secure(claim)
        scope = self._scope(claim, results)
        if "when" in claim.spec and not holds(when := When.model_validate(claim.spec["when"]), scope):
            reason = outcomes.to_json({"reason": f"`when` does not hold: {when.ref} {when.op}"})
            return Ending(outcomes.SKIPPED, reason)
        _allow_caller(claim, tool)
        self._permit(claim, tool)
        context.files.allow = partial(self._permits.allow_bytes, claim)
        arguments = tool.validate_input(self._given(claim, tool, scope), files=context.files)
        self._take_key(claim, arguments)
        return Prepared(tool, arguments, context)

    def _given(self, claim: Claim, tool: ServedTool, scope: Scope) -> dict[str, Any]:
        """The input as the tool takes it: references resolved, but for those that it fetches itself when it wants to."""
        template = claim.spec.get("input", {})
        later = _lazy_references(tool, template)
        given: dict[str, Any] = scope.resolve({name: value for name, value in template.items() if name not in later})
        return given | {name: Unfetched(partial(self._fetch, claim, reference)) for name, reference in later.items()}

    def _fetch(self, claim: Claim, reference: str) -> Any:
        needed = sorted(calls_needed(reference, self._scope(claim, {})))
        return self._scope(claim, self.read(claim.job, needed)).resolve(reference)

    def _permit(self, claim: Claim, tool: ServedTool) -> None:
        try:
            self._permits.check(claim, tool.definition)
        except redis.RedisError as error:
            raise InputsUnreadable(str(error)) from error

    def _secure(self, claim: Claim) -> None:
        """Waits until the claim of a `once` call is on disk, if the settings say so: else a power cut could forget that it began.

        Raises:
            NotSecured: the store did not say so in time; the call has not begun.
        """
        settings = self.store.settings
        if claim.spec["effect"] != "once" or not (settings.once_fsync or settings.once_replicas) or claim.at < self._secured:
            return
        begun = time.monotonic()
        try:
            secured = self.store.ledger.secure(self.store.ledger.keys(claim.job).shard)
        except redis.RedisError as error:
            raise NotSecured(str(error)) from error
        if not secured:
            raise NotSecured("the store does not say that the claim is on disk")
        self._secured = begun

    def _take_key(self, claim: Claim, arguments: Mapping[str, Any]) -> None:
        """Waits its turn among the calls of one key, not here but in the ledger.

        Raises:
            Parked: another call holds the key; this one is published again when it lets go.
        """
        if "key" not in claim.spec:
            return
        parameter, limit = claim.spec["key"]
        key = to_jsonable_python(
            arguments.get(parameter), fallback=lambda v: getattr(v, "ref", None) or repr(v)
        )  # a File by its content
        value = json.dumps(key, sort_keys=True).encode()
        asked = self.store.ledger.hold(claim, key=hashlib.sha256(value).hexdigest()[:16], limit=limit)
        self.follow(asked)
        if asked.verdict != "ok":
            raise Parked(asked.verdict)

    def _tool(self, claim: Claim) -> ServedTool:
        name, planned = claim.spec["tool"], claim.spec.get("hash")
        tool = self.registry.get(name)
        if tool is None:
            raise ToolError(
                f"this worker of queue `{self.queue}` has no tool `{name}`", code="tool_missing", retryable=True,
                next="start the worker with `--tools` and the module that defines it",
            )  # fmt: skip
        if planned is not None and (name, planned) not in self._told:
            self._told.add((name, planned))
            if planned != tool.definition.content_hash:  # a rolling upgrade: whether the input still fits decides
                log.warning(
                    "tool `%s` is not the one that was planned; it runs if its input fits", name, extra={"action": "other_tool"}
                )
        return tool

    def succeeded(self, claim: Claim, tool: ServedTool, value: Any, *, files: Collection[str] = ()) -> Ending:
        """The end of a call whose tool returned `value` and made `files`.

        Raises:
            ToolError: the value is not what the tool promises.
            BackendError: it is large, and the blob store does not take it; the tool may run again.
            ResultNotKept: likewise, but the tool must not run again.
        """
        value = tool.validate_output(value)
        stored = self._keep(claim, value, files)
        lengths = lengths_for(claim.spec.get("lens", ()), index=claim.index, result=value)
        return Ending(outcomes.SUCCEEDED, stored.field, lengths=lengths, large=stored)

    def _keep(self, claim: Claim, value: Any, files: Collection[str]) -> Stored:
        """Stores a result, patiently when its effect must not be repeated."""
        give_up = time.monotonic() + KEEP_PATIENCE_S
        while True:
            try:
                return self.store.files.keep(claim, value, files=files)
            except (BackendError, redis.ConnectionError, redis.TimeoutError) as error:
                if claim.spec["effect"] != "once" and isinstance(error, BackendError):
                    raise
                if time.monotonic() > give_up:
                    raise ResultNotKept(str(error)) from error
                log.warning("a result waits for its store: %s", error, extra=_where(claim, "keep_wait"))
                time.sleep(0.5)

    def ended_by(self, error: BaseException, claim: Claim, *, cancelled: Callable[[], bool]) -> Ending | None:
        """The end of a call that raised; None when there is nothing to commit."""
        if isinstance(error, Parked | Overtaken):
            return None
        if isinstance(error, PutBack):
            return Ending(outcomes.PUT_BACK, _info(claim, ToolError(str(error), code="put_back")), delay_s=error.delay_s)
        if isinstance(error, EffectUnknown):
            return Ending(outcomes.UNKNOWN, _info(claim, error))
        if isinstance(error, NotSecured):
            why = ToolError(f"the call has not begun: {error}", code="not_secured", retryable=True)
            return Ending(outcomes.RETRY, _info(claim, why), delay_s=NOT_SECURED_S)
        if isinstance(error, CallCancelled):
            return None if cancelled() else _failed(claim, ToolError(str(error), code="cancelled_itself"))
        if isinstance(error, TimeLimitReached):
            return None if cancelled() else _timed_out(claim)
        if isinstance(error, ToolError):
            return _failed(claim, error)
        if isinstance(error, PolicyError):  # another try would meet the same rule
            return Ending(outcomes.FAILED, _info(claim, error))
        if isinstance(error, ToolWeaverError):
            after = getattr(error, "retry_after_s", None)
            as_tools = ToolError(error.message, code=error.code, next=error.next, retryable=error.retryable, retry_after_s=after)
            return _failed(claim, as_tools)
        if isinstance(error, ResultNotKept):
            return _not_kept(claim, str(error))
        if isinstance(error, InputsUnreadable):
            log.warning("inputs of a call could not be read: %s", error, extra=_where(claim, "read_failed"))
            return None  # its lease runs out and it is tried again
        # A tool may raise anything; the step's policy decides.
        log.error("tool crashed", exc_info=error, extra=_where(claim, "tool_crashed"))
        crash = ToolError(f"{type(error).__name__}: {error}", code="tool_crashed", retryable=claim.spec["effect"] != "once")
        return _failed(claim, crash)

    def _scope(self, claim: Claim, results: Mapping[str, Any]) -> Scope:
        spec = claim.spec
        source = _Results(self, claim, results)
        return Scope(source, spec.get("modes", {}), claim.totals, claim.index, spec.get("map"))

    def inputs(self, claim: Claim) -> dict[str, Any]:
        """The inputs that the plan of a call's job has."""
        try:
            return self.store.inputs(claim.job, claim.spec.get("number", 0))
        except redis.RedisError as error:
            raise InputsUnreadable(str(error)) from error

    def _call(self, prepared: Prepared, context: CallContext) -> Any:
        timeout_s = context.claim.spec["timeout_s"]
        if not prepared.tool.is_async:
            with time_limit(timeout_s):
                return prepared.start()
        self._loop = self._loop or asyncio.Runner()
        return self._loop.run(_watched(prepared.start(), context, timeout_s))

    def _commit(self, claim: Claim, ending: Ending) -> str:
        committed = self._persist(claim, ending)
        if committed.verdict != "ok":
            log.info("outcome refused: %s", committed.verdict, extra=_where(claim, "refused"))
        self.follow(committed)
        return committed.verdict

    def follow(self, committed: Committed) -> None:
        """Publishes what a commit set free; what fails is left to the reconciler."""
        try:
            follow(self.store.ledger, self.publisher, committed)
        except (OperationalError, redis.RedisError) as error:
            log.warning("what became ready stays in the outbox: %s", error, extra={"action": "publish_failed"})

    def _persist(self, claim: Claim, ending: Ending) -> Committed:
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
            except redis.RedisError as error:
                if not transient(error) or time.monotonic() > give_up:
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


class _Results:
    """The fetched results of one call's references, and the job's inputs."""

    def __init__(self, runner: Runner, claim: Claim, results: Mapping[str, Any]) -> None:
        self._runner, self._claim, self._results = runner, claim, results

    def inputs(self) -> Mapping[str, Any]:
        return self._runner.inputs(self._claim)

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


def _allow_caller(claim: Claim, tool: ServedTool) -> None:
    """Lets a call pass that comes from where the tool may be called: a plan, or a program."""
    caller = claim.spec.get("caller", {}).get("type", "direct")
    allowed = tool.definition.allowed_callers
    if caller not in allowed:
        raise PermissionDenied(
            f"tool `{tool.definition.name}` may not be called by `{caller}`, only by `{'`, `'.join(allowed)}`",
            next="Its owner may add the caller to the tool's `allowed_callers`.",
        )


def _failed(claim: Claim, error: ToolError) -> Ending:
    """A failure, or the wait before the next try: exponential backoff with jitter, from when the error says that it makes sense.

    The step's `max_backoff_s` is the longest wait all the same: its author would rather fail than wait on.
    """
    most, backoff, longest = claim.spec["retry"]
    payload = _info(claim, error)
    if error.retryable and claim.tries < most:
        delay = min(longest, backoff * 2**claim.tries) * random.uniform(0.5, 1.0)
        return Ending(outcomes.RETRY, payload, delay_s=min(longest, max(0.0, error.retry_after_s or 0.0) + delay))
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


def _lazy_references(tool: ServedTool, template: Mapping[str, Any]) -> dict[str, str]:
    """The parameters that the tool fetches itself, and what they refer to."""
    lazy = ((name, template.get(name)) for name in tool.lazy_parameters)
    return {name: value for name, value in lazy if isinstance(value, str) and parse_reference(value) is not None}


def _not_kept(claim: Claim, why: str) -> Ending:
    """Work that is done and has no result: tried again if that is harmless."""
    lost = ToolError(
        f"tool `{claim.spec['tool']}` did its work, but its result could not be stored: {why}",
        code="result_not_kept",
        retryable=claim.spec["effect"] != "once",
        next=f"`toolweaver resolve {claim.job} {claim.call} --happened --result ...` goes on with the result that you give.",
    )
    if claim.spec["effect"] == "once":
        return Ending(outcomes.UNKNOWN, _info(claim, lost))
    return _failed(claim, lost)


def _info(claim: Claim, error: ToolWeaverError) -> bytes:
    info = ErrorInfo(
        code=error.code, message=error.message, family=error.family, retryable=error.retryable, next=error.next,
        step=claim.step.partition(".")[0], call=claim.call, attempt=claim.attempt,
    )  # fmt: skip
    return info.model_dump_json(exclude_none=True).encode()


def _code_of(ending: Ending) -> str:
    """The code of the error that ended a call; never its message, which may carry what the call was given."""
    try:
        return str(json.loads(ending.payload)["code"])
    except (ValueError, KeyError, TypeError):
        return "failed"


def _where(claim: Claim, action: str) -> dict[str, Any]:
    return {"action": action, "job_id": claim.job, "step_id": claim.step, "tool": claim.spec["tool"]}
