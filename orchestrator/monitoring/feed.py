"""What a process counts, on its way to the platform's counters: a change of a dict now, one round trip about once a second.

While something is counted a thread waits for it; it is sent as soon as a tenth of a second brought nothing new, after a second at
most, and when the process ends. So a process that is killed loses what it counted in its last moments, and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable

import redis

from orchestrator.models.report import RecentError
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring.metrics import (
    BINS,
    CONFIRMATIONS,
    ERRORS_MOST,
    FALLBACKS,
    JOB_COST,
    MODEL_CALLS,
    MODEL_COST,
    MODEL_SECONDS,
    MODEL_TOKENS,
    MODEL_UNPRICED,
    PLAN_REPAIRS,
    PLANS,
    REPLANS,
    SUM,
    TOOL_CALLS,
    TOOL_SEARCH_SECONDS,
    TOOL_SEARCHES,
    TOOL_SECONDS,
    TOOLS_MOST,
    Count,
    Counted,
    Key,
    Metrics,
    fine_bin,
    other_than,
)

log = logging.getLogger(__name__)

QUIET_S, FLUSH_S = 0.1, 1.0
END_S = 2.0  # that the end of a process waits for a store
KEYS_MOST = 20_000  # that wait while the store is away; more are not counted
IDLE_S = 2.0  # after which the thread ends
IDS_MOST = 10_000  # calls of models that are known to be counted


class Tally:
    """Counts and recent errors of one process, summed; threads may share it. What makes labels up is bounded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.since = time.time()
        self._fields: dict[Key, float] = {}
        self._errors: list[RecentError] = []
        self._known: dict[str, set[str]] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._ran: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, float] = {}
        self.changes = 0

    def add(self, counts: Iterable[Count], error: RecentError | None = None) -> None:
        """Counts all of it."""
        with self.lock:
            self.changes += 1
            for count in counts:
                for key, by in count.parts:
                    self._add(key, by)
            if error is not None:
                self._failed(error)

    def call(self, tool: str, outcome: str, seconds: float | None, code: str | None) -> None:
        """Counts an attempt of a call. It is a few changes of dicts, since every call pays for it; they are summed up later."""
        with self.lock:
            self.changes += 1
            called = (tool, outcome)
            self._calls[called] = self._calls.get(called, 0) + 1
            if seconds is not None:
                ran = (tool, fine_bin(seconds))
                self._ran[ran] = self._ran.get(ran, 0) + 1
                self._seconds[tool] = self._seconds.get(tool, 0.0) + seconds
            if code is not None:
                self._failed(RecentError(tool, code, time.time()))

    def _sum_up(self) -> None:
        calls, ran, seconds = self._calls, self._ran, self._seconds
        self._calls, self._ran, self._seconds = {}, {}, {}
        for (tool, outcome), n in calls.items():
            self._add((TOOL_CALLS.name, tool, outcome), float(n))
        for (tool, at), n in ran.items():
            self._add((TOOL_SECONDS.name, tool, BINS, str(at)), float(n))
        for tool, took in seconds.items():
            self._add((TOOL_SECONDS.name, tool, SUM), took)

    def _failed(self, error: RecentError) -> None:
        self._errors.insert(0, error)
        del self._errors[ERRORS_MOST:]

    def _add(self, key: Key, by: float) -> None:
        if key not in self._fields:
            key = self._bounded(key)
            if len(self._fields) >= KEYS_MOST:
                return
        self._fields[key] = self._fields.get(key, 0.0) + by

    def _bounded(self, key: Key) -> Key:
        made_up = other_than(key)
        if made_up is None:
            return key
        label, value, other = made_up
        known = self._known.setdefault(label, set())
        if value not in known and len(known) >= TOOLS_MOST:
            return other
        known.add(value)
        return key

    def counted(self) -> Counted:
        """The figures now."""
        with self.lock:
            self._sum_up()
            return Counted(dict(self._fields), tuple(self._errors), self.since)

    def taken(self) -> Counted:
        """The figures now, which are taken away."""
        with self.lock:
            self._sum_up()
            taken = Counted(self._fields, tuple(self._errors), self.since)
            self._fields, self._errors = {}, []
            return taken

    def put_back(self, counted: Counted) -> None:
        """Adds what was taken and not used."""
        with self.lock:
            for key, by in counted.fields.items():
                self._add(key, by)
            self._errors = [*self._errors, *counted.errors][:ERRORS_MOST]

    def __bool__(self) -> bool:
        return bool(self._fields or self._calls or self._errors)


class Feed:
    """Counts into the hash `key` of a store, for all processes. Nothing here raises or waits, but for `flush`."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._metrics = Metrics(client, key)
        self._sending = threading.Lock()
        self._warned = False
        self.forget()
        _FEEDS.add(self)

    def forget(self) -> None:
        """Begins anew: what waits is not sent, and belongs to the process that this one was forked from."""
        self._tally = Tally()
        self._thread: threading.Thread | None = None
        self._told: OrderedDict[str, None] = OrderedDict()

    def add(self, *counts: Count, error: RecentError | None = None) -> None:
        """Counts something."""
        if not counts and error is None:
            return
        self._tally.add(counts, error)
        if self._thread is None:
            self._start()

    def tool_call(self, tool: str, outcome: str, *, seconds: float | None = None, code: str | None = None) -> None:
        """An attempt of a call that ended; `seconds`: how long the tool ran, if it began; `code`: of what went wrong."""
        self._tally.call(tool, outcome, seconds, code)
        if self._thread is None:
            self._start()

    def model_call(self, call: ModelCall) -> None:
        """A request to a model; the same one told twice counts once."""
        with self._tally.lock:
            if call.id in self._told:
                return
            self._told[call.id] = None
            if len(self._told) > IDS_MOST:
                self._told.popitem(last=False)
        self.add(*model_counts(call))

    def search(self, by: str, *, cached: bool, seconds: float) -> None:
        """A search for tools."""
        self.add(*search_counts(by, cached, seconds))

    def flush(self) -> bool:
        """Sends what waits; whether the store has it now."""
        with self._sending:
            waiting = self._tally.taken()
            try:
                if waiting.fields or waiting.errors:
                    self._metrics.add_fields(waiting.fields, waiting.errors)
            except redis.RedisError as error:
                self._tally.put_back(waiting)
                if not self._warned and not _ENDING.is_set():
                    log.warning("figures wait for the store: %s", error, extra={"action": "metrics_wait"})
                self._warned = True
                return False
            self._warned = False
            return True

    def _start(self) -> None:
        with self._tally.lock:
            if self._thread is None and not _ENDING.is_set():
                self._thread = threading.Thread(target=self._run, name="figures", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Sends until nothing comes any more; the next count starts another thread."""
        sent, changes = time.monotonic(), -1
        while not self._over(sent):
            ending = _ENDING.wait(QUIET_S)
            quiet, changes = changes == self._tally.changes, self._tally.changes
            if self._tally and (ending or quiet or time.monotonic() - sent >= FLUSH_S):
                if not self.flush():
                    if ending:
                        return
                    _ENDING.wait(FLUSH_S)
                sent = time.monotonic()

    def _over(self, sent: float) -> bool:
        """Whether this thread may end: under the lock, so that no count comes between."""
        with self._tally.lock:
            if not self._tally and (_ENDING.is_set() or time.monotonic() - sent > IDLE_S):
                self._thread = None
                return True
            return False

    def end(self, timeout_s: float = END_S) -> None:
        """Waits for the thread to send what is left."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)


def search_counts(by: str, cached: bool, seconds: float) -> list[Count]:
    """What a search adds."""
    return [Count(TOOL_SEARCHES, (by, "true" if cached else "false")), Count(TOOL_SEARCH_SECONDS, (), seconds)]


def token_counts(
    provider: str, model: str, *, input_tokens: int, output_tokens: int, cached_tokens: int, cache_write_tokens: int = 0
) -> list[Count]:
    """What tokens add; `input_tokens` are neither those that were read from a cache nor those that were written to it."""
    kinds = {"input": input_tokens, "output": output_tokens, "cached": cached_tokens, "cache_write": cache_write_tokens}
    return [Count(MODEL_TOKENS, (provider, model, kind), float(n)) for kind, n in kinds.items() if n > 0]


def model_counts(call: ModelCall) -> list[Count]:
    """What a request to a model adds."""
    who = (call.provider, call.model)
    plain = max(0, call.input_tokens - call.cached_tokens - call.cache_write_tokens)
    made = [
        Count(MODEL_CALLS, (*who, call.purpose, "succeeded" if call.ok else call.error or "failed")),
        Count(MODEL_SECONDS, who, call.seconds),
        *token_counts(
            *who,
            input_tokens=plain,
            output_tokens=call.output_tokens,
            cached_tokens=call.cached_tokens,
            cache_write_tokens=call.cache_write_tokens,
        ),
    ]
    if call.cost_usd is not None:
        made.append(Count(MODEL_COST, who, call.cost_usd))
    elif call.input_tokens + call.output_tokens > 0:
        made.append(Count(MODEL_UNPRICED, who))
    return made


# The feed of this process, for code that is far from whoever made it.

_FEEDS: weakref.WeakSet[Feed] = weakref.WeakSet()
_ENDING = threading.Event()
_own: list[Feed] = []


def use_feed(feed: Feed) -> Feed:
    """Makes it the one that the functions below count into; without any they count nothing."""
    _own[:] = [feed]
    return feed


def record(*counts: Count) -> None:
    """Counts something of this process."""
    for feed in _own:
        feed.add(*counts)


def record_model_call(call: ModelCall) -> None:
    """Counts a request to a model, answered or not; call it once for each that was sent."""
    for feed in _own:
        feed.model_call(call)


def record_search(by: str, *, cached: bool, seconds: float) -> None:
    """Counts a search for tools; `by`: `service` or `process`, whichever answered."""
    for feed in _own:
        feed.search(by, cached=cached, seconds=seconds)


def record_fallback(what: str) -> None:
    """Counts that something was done without what it should have been done with; `what` is one of few words."""
    record(Count(FALLBACKS, (what,)))


def record_plan(source: str, *, repairs: int = 0, replan: bool = False, degraded: Iterable[str] = ()) -> None:
    """Counts a plan that was made from a request, or that none came (`source="none"`).

    Args:
        source: `model`, `template`, or `none`.
        repairs: How often the model was asked to mend it.
        replan: Whether steps of the one before had failed.
        degraded: What the planner had to do without; counted up to the first `:`.
    """
    record(
        Count(PLANS, (source,)),
        *([Count(PLAN_REPAIRS, (), float(repairs))] if repairs else []),
        *([Count(REPLANS)] if replan else []),
        *(Count(FALLBACKS, (f"planner: {what.partition(':')[0]}",)) for what in degraded),
    )


def record_job_cost(cost_usd: float) -> None:
    """Counts what a planned request cost, once, when nothing more is paid for it."""
    record(Count(JOB_COST, (), cost_usd))


def record_confirmation(verdict: str) -> None:
    """Counts that a person answered whether a plan shall run: `confirmed` or `refused`."""
    record(Count(CONFIRMATIONS, (verdict,)))


def _at_exit() -> None:
    _ENDING.set()
    until = time.monotonic() + END_S
    for feed in list(_FEEDS):
        feed.end(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    for feed in list(_FEEDS):
        feed.forget()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
