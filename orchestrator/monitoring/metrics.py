"""What all processes count together: one hash in Redis, changed atomically, shown in the text format of Prometheus and as a report.

A field of the hash is a JSON list: the name of a metric, its labels' values, and of a histogram the part that it is; a name with
an `@` before it is our own book-keeping. No tenant is a label, and names of tools are bounded, so that the hash stays small
whatever anybody runs.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Literal

import redis

from orchestrator.models.report import RecentError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOOLS_MOST = 200  # names of tools that are told apart, and as many of anything else; all others count as `other`
ERRORS_MOST = 20  # recent errors that are kept
OTHER, UNKNOWN_TOOL = "other", "unknown"
INF = "+Inf"
FINE = 8  # bins between two powers of two: a value read from one is right within 4.5 %
FINE_LEAST, FINE_MOST = -20 * FINE, 17 * FINE  # 1 microsecond to 36 hours
BINS, SUM = "bin", "sum"
SINCE, ERRORS = "@since", "@errors"
_AT_ONCE = 1_000  # fields of one script, which holds up everybody else

Key = tuple[str, ...]
"""A field of the hash: a metric's name, its labels' values, the part of a histogram."""


@dataclass(frozen=True, slots=True)
class Name:
    """A metric as it is called everywhere; a counter's name gets `_total` when it is shown.

    A `fine` histogram is kept in bins of one eighth of a power of two (as Prometheus' native histograms of schema 3), so that
    quantiles can be read from it; it is shown by powers of two.
    """

    name: str
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    fine: bool = False

    @property
    def bounded(self) -> int | None:
        """The place of the label whose values anybody may make up."""
        return next((at for at, label in enumerate(self.labels) if label in _UNBOUNDED), None)


_UNBOUNDED = ("tool", "circuit", "model", "what")


PROGRAM_EXECUTIONS = Name(
    "toolweaver_program_executions", "counter",
    "Programs that ended, by status; `stopped` are those whose record is not known.", ("status",),
)  # fmt: skip
PROGRAM_ALERTS = Name(
    "toolweaver_program_alerts", "counter", "Programs that met a limit, or broke a rule (`violation`).",
    ("alert",),
)  # fmt: skip
PROGRAM_CALLS = Name("toolweaver_program_calls", "counter", "Calls of tools by programs.", ("tool", "success"))
PROGRAM_SECONDS = Name(
    "toolweaver_program_seconds", "histogram", "Wall time of programs, in seconds.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0),
)  # fmt: skip
PROGRAM_CPU_SECONDS = Name(
    "toolweaver_program_cpu_seconds", "counter", "Processor time of programs, in seconds, measured by the host."
)
CIRCUIT_CHANGES = Name(
    "toolweaver_circuit_changes", "counter", "Changes of circuit breakers, by the state that they went to.", ("circuit", "state")
)
TOOL_CALLS = Name(
    "toolweaver_tool_calls", "counter",
    "Attempts of tool calls that ended, by outcome: succeeded, failed, retried (failed, and tried again), unknown.",
    ("tool", "outcome"),
)  # fmt: skip
TOOL_SECONDS = Name("toolweaver_tool_seconds", "histogram", "Time that tools ran, in seconds.", ("tool",), fine=True)
TOOL_SEARCHES = Name(
    "toolweaver_tool_searches", "counter", "Searches for tools, by who answered and whether the answer was kept.", ("by", "cached")
)
TOOL_SEARCH_SECONDS = Name("toolweaver_tool_search_seconds", "histogram", "Time of searches for tools, in seconds.", fine=True)
MODEL_CALLS = Name(
    "toolweaver_model_calls", "counter", "Requests to models that were sent, by outcome: succeeded, or the error's code.",
    ("provider", "model", "purpose", "outcome"),
)  # fmt: skip
MODEL_SECONDS = Name(
    "toolweaver_model_seconds", "histogram", "Time of requests to models, in seconds.", ("provider", "model"), fine=True
)
MODEL_TOKENS = Name(
    "toolweaver_model_tokens", "counter",
    "Tokens of models, each counted under one kind: input (neither read from nor written to a cache), cached, cache_write, output.",
    ("provider", "model", "kind"),
)  # fmt: skip
MODEL_COST = Name("toolweaver_model_cost_dollars", "counter", "What models cost, in dollars.", ("provider", "model"))
MODEL_UNPRICED = Name(
    "toolweaver_model_calls_unpriced", "counter", "Requests that used tokens and whose price is not known.", ("provider", "model")
)
JOB_COST = Name(
    "toolweaver_job_cost_dollars", "histogram", "What a request cost that was planned, with all its calls of models, in dollars.",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)  # fmt: skip
JOBS_ENDED = Name(
    "toolweaver_jobs_ended", "counter", "Jobs that ended, by status and whether errors were tolerated.", ("status", "errors")
)
PLANS = Name(
    "toolweaver_plans", "counter", "Plans that were made from requests, by source: model, template, or none came.", ("source",)
)
PLAN_REPAIRS = Name("toolweaver_plan_repairs", "counter", "Times that a model was asked to mend its plan.")
REPLANS = Name("toolweaver_replans", "counter", "Times that a request was planned anew, since steps of it had failed.")
CONFIRMATIONS = Name("toolweaver_confirmations", "counter", "Plans that a person was asked about, by verdict.", ("verdict",))
FALLBACKS = Name(
    "toolweaver_fallbacks", "counter", "Times that something was done without what it should have been done with.", ("what",)
)
ALL = (
    PROGRAM_EXECUTIONS, PROGRAM_ALERTS, PROGRAM_CALLS, PROGRAM_SECONDS, PROGRAM_CPU_SECONDS, CIRCUIT_CHANGES,
    TOOL_CALLS, TOOL_SECONDS, TOOL_SEARCHES, TOOL_SEARCH_SECONDS, MODEL_CALLS, MODEL_SECONDS, MODEL_TOKENS, MODEL_COST,
    MODEL_UNPRICED, JOB_COST, JOBS_ENDED, PLANS, PLAN_REPAIRS, REPLANS, CONFIRMATIONS, FALLBACKS,
)  # fmt: skip
BY_NAME: Mapping[str, Name] = {name.name: name for name in ALL}


@dataclass(frozen=True, slots=True)
class Count:
    """Something to be counted: `by` more of a counter, or one observation of a histogram."""

    name: Name
    labels: tuple[str, ...] = ()
    by: float = 1.0

    @property
    def parts(self) -> Sequence[tuple[Key, float]]:
        """What is added to which fields: of a histogram to the one bucket that the value falls into, and to the sum."""
        at = (self.name.name, *self.labels)
        if self.name.kind == "counter":
            return [(at, self.by)]
        if self.name.fine:
            return [((*at, BINS, str(fine_bin(self.by))), 1.0), ((*at, SUM), self.by)]
        return [((*at, bounds(self.name)[bisect_left(self.name.buckets, self.by)]), 1.0), ((*at, SUM), self.by)]


class Metrics:
    """The counters in the hash `key`. An increment that is sent twice over a cut connection may count twice."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._key = key
        self._script: Any = None

    def add(self, counts: Iterable[Count], errors: Sequence[RecentError] = ()) -> None:
        """Counts all of it in one round trip, and notes what failed.

        Raises:
            redis.RedisError: the store did not take it.
        """
        self.add_fields(summed(counts), errors)

    def add_fields(self, fields: Mapping[Key, float], errors: Sequence[RecentError] = ()) -> None:
        """The same for what was summed before; a thousand fields at a time, each thousand atomically.

        Raises:
            redis.RedisError: the store did not take it, or not all of it.
        """
        if self._script is None:
            self._script = self._redis.register_script(resources.files(__package__).joinpath("lua/count.lua").read_text("utf-8"))
        rows = [_row(key, by) for key, by in fields.items()]
        told = json.dumps([asdict(e) for e in errors]) if errors else ""
        for start in range(0, max(len(rows), bool(told)), _AT_ONCE):
            some = [part for row in rows[start : start + _AT_ONCE] for part in row]
            self._script(keys=[self._key], args=[told if start == 0 else "", ERRORS_MOST, *some])

    def read(self) -> Counted:
        """All that was counted.

        Raises:
            redis.RedisError: the store does not answer.
        """
        fields: dict[Key, float] = {}
        own: dict[str, bytes] = {}
        for field, value in self._redis.hgetall(self._key).items():
            name, *parts = json.loads(field)
            if not name.startswith("@"):
                fields[(name, *parts)] = float(value)
            elif not parts:
                own[name] = value
        errors = tuple(RecentError(**e) for e in json.loads(own.get(ERRORS, b"[]")))
        return Counted(fields, errors, float(own[SINCE]) if SINCE in own else None)

    def text(self) -> bytes:
        """All metrics, those included that were never counted, in the text format of Prometheus.

        Raises:
            redis.RedisError: the store does not answer.
        """
        from orchestrator.monitoring.exposition import exposition  # noqa: PLC0415  # its package is for who shows, not who counts

        return exposition(self.read().fields)


@dataclass(frozen=True, slots=True)
class Counted:
    """Figures at one moment, the latest errors first, and since when they are counted (Unix seconds)."""

    fields: Mapping[Key, float]
    errors: tuple[RecentError, ...] = ()
    since: float | None = None


def summed(counts: Iterable[Count]) -> dict[Key, float]:
    """The fields that counts change, and by how much."""
    fields: dict[Key, float] = {}
    for count in counts:
        for key, by in count.parts:
            fields[key] = fields.get(key, 0.0) + by
    return fields


def bounds(name: Name) -> Sequence[str]:
    """The upper bounds of a histogram's buckets, as they are written."""
    return [*map(repr, name.buckets), INF]


def fine_bin(value: float) -> int:
    """The bin of a fine histogram that a value falls into: bin n holds what is above 2^((n-1)/8) and up to 2^(n/8)."""
    if value <= 0:
        return FINE_LEAST
    return max(FINE_LEAST, min(FINE_MOST, math.ceil(math.log2(value) * FINE - 1e-9)))


def quantile(bins: Mapping[int, float], share: float) -> float | None:
    """The value that `share` of the values do not exceed, within 4.5 %; None: there are no values."""
    rank, seen = share * sum(bins.values()), 0.0
    for at in sorted(bins):
        seen += bins[at]
        if seen >= rank and seen > 0:
            return float(2 ** ((at - 0.5) / FINE))
    return None


def other_than(key: Key) -> tuple[str, str, Key] | None:
    """Of a field with a label that anybody may make up: the label, its value, and the field of all that are not told apart."""
    at = BY_NAME[key[0]].bounded
    if at is None or key[at + 1] == OTHER:
        return None
    return BY_NAME[key[0]].labels[at], key[at + 1], (*key[: at + 1], OTHER, *key[at + 2 :])


def _row(key: Key, by: float) -> tuple[str, str, str, str, str, int]:
    """Arguments of the script: the field, how much, and for a bounded one the other field, what marks its value, and the limit."""
    field, amount = json.dumps(key), repr(by)
    bounded = other_than(key)
    if bounded is None:
        return field, amount, "", "", "", 0
    label, value, other = bounded
    return field, amount, json.dumps(other), json.dumps(["@" + label, value]), json.dumps(["@" + label]), TOOLS_MOST
