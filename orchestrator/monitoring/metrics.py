"""Counters that all processes share: one hash in Redis, changed atomically, rendered in the text format of Prometheus.

A field of the hash is a JSON list: the name of a metric, its labels' values, and of a histogram the part that it is.
No tenant is a label, and names of tools are bounded, so that the hash stays small whatever anybody runs.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOOLS_MOST = 200  # names of tools that one metric tells apart; all others count as `other`
OTHER, UNKNOWN_TOOL = "other", "unknown"
_INF = "+Inf"


@dataclass(frozen=True, slots=True)
class Name:
    """A metric as it is called everywhere; a counter's name gets `_total` when it is shown."""

    name: str
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


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
ALL = (PROGRAM_EXECUTIONS, PROGRAM_ALERTS, PROGRAM_CALLS, PROGRAM_SECONDS, PROGRAM_CPU_SECONDS, CIRCUIT_CHANGES)
_MANY = (PROGRAM_CALLS, CIRCUIT_CHANGES)  # the first label of these names tools


@dataclass(frozen=True, slots=True)
class Count:
    """Something to be counted: `by` more of a counter, or one observation of a histogram."""

    name: Name
    labels: tuple[str, ...] = ()
    by: float = 1.0


class Metrics:
    """The counters in the hash `key`. An increment that is sent twice over a cut connection may count twice."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._key = key
        self._tools: dict[Name, set[str]] = {}

    def add(self, counts: Iterable[Count]) -> None:
        """Counts all of it at once, in one round trip.

        Raises:
            redis.RedisError: the store did not take it.
        """
        fields = _summed(self._bounded(c) for c in counts)
        if not fields:
            return
        pipe = self._redis.pipeline(transaction=True)
        for name, by in fields.items():
            pipe.hincrbyfloat(self._key, name, by)
        pipe.execute()

    def text(self) -> bytes:
        """All metrics, those included that were never counted, in the text format of Prometheus.

        Raises:
            redis.RedisError: the store does not answer.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Read(self._redis.hgetall(self._key)))
        return generate_latest(registry)

    def _bounded(self, count: Count) -> Count:
        if count.name not in _MANY:
            return count
        if count.name not in self._tools:  # what others told apart before stays apart
            fields = map(json.loads, self._redis.hkeys(self._key))
            self._tools[count.name] = {labels[0] for name, *labels in fields if name == count.name.name}
        known = self._tools[count.name]
        tool, *others = count.labels
        if tool not in known and len(known) >= TOOLS_MOST:
            return Count(count.name, (OTHER, *others), count.by)
        known.add(tool)
        return count


class _Read(Collector):
    """What was read from the hash, as Prometheus' own families."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        for field, value in fields.items():
            name, *parts = json.loads(field)
            self._values.setdefault(name, {})[tuple(parts)] = float(value)

    def collect(self) -> Iterator[Metric]:
        for name in ALL:
            values = self._values.get(name.name, {})
            yield _histogram(name, values) if name.kind == "histogram" else _counter(name, values)


def _counter(name: Name, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name.name, name.help, labels=name.labels)
    for labels, value in sorted(values.items() if values or name.labels else [((), 0.0)]):
        family.add_metric(labels, value)
    return family


def _histogram(name: Name, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = HistogramMetricFamily(name.name, name.help)
    bounds = _bounds(name)
    counts = accumulate(values.get((bound,), 0.0) for bound in bounds)
    family.add_metric((), buckets=list(zip(bounds, counts, strict=True)), sum_value=values.get(("sum",), 0.0))
    return family


def _bounds(name: Name) -> Sequence[str]:
    return [*map(repr, name.buckets), _INF]


def _summed(counts: Iterable[Count]) -> dict[str, float]:
    fields: dict[str, float] = {}
    for count in counts:
        for parts, by in _parts(count):
            field = json.dumps([count.name.name, *parts])
            fields[field] = fields.get(field, 0.0) + by
    return fields


def _parts(count: Count) -> Sequence[tuple[tuple[str, ...], float]]:
    """What is added to which fields: of a histogram to the one bucket that the value falls into, and to the sum."""
    if count.name.kind == "counter":
        return [(count.labels, count.by)]
    bound = _bounds(count.name)[bisect_left(count.name.buckets, count.by)]
    return [((bound,), 1.0), (("sum",), count.by)]
