"""Counters of all processes in the text format of Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.monitoring.metrics import ALL, BINS, FINE, INF, SUM, Key, Name, bounds

POWERS = range(-10, 13)  # of two: the bounds at which a fine histogram is shown, about 1 ms to an hour


def exposition(fields: Mapping[Key, float]) -> bytes:
    """All metrics, those included that were never counted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Read(fields))
    return generate_latest(registry)


class _Read(Collector):
    """What was counted, as Prometheus' own families."""

    def __init__(self, fields: Mapping[Key, float]) -> None:
        self._values: dict[str, dict[Key, float]] = defaultdict(dict)
        for (name, *parts), value in fields.items():
            self._values[name][tuple(parts)] = value

    def collect(self) -> Iterator[Metric]:
        for name in ALL:
            values = self._values.get(name.name, {})
            if name.kind == "counter":
                yield _counter(name, values)
            else:
                yield _fine(name, values) if name.fine else _histogram(name, values)


def _counter(name: Name, values: Mapping[Key, float]) -> Metric:
    family = CounterMetricFamily(name.name, name.help, labels=name.labels)
    for labels, value in sorted(values.items() if values or name.labels else [((), 0.0)]):
        family.add_metric(labels, value)
    return family


def _histogram(name: Name, values: Mapping[Key, float]) -> Metric:
    family = HistogramMetricFamily(name.name, name.help)
    counts = accumulate(values.get((bound,), 0.0) for bound in bounds(name))
    family.add_metric((), buckets=list(zip(bounds(name), counts, strict=True)), sum_value=values.get((SUM,), 0.0))
    return family


def _fine(name: Name, values: Mapping[Key, float]) -> Metric:
    family = HistogramMetricFamily(name.name, name.help, labels=name.labels)
    bins: dict[Key, dict[int, float]] = {} if name.labels else {(): {}}
    for key, value in values.items():
        if key[-2:-1] == (BINS,):
            bins.setdefault(key[:-2], {})[int(key[-1])] = value
    for labels, of in sorted(bins.items()):
        upto = [(repr(2.0**power), sum(n for at, n in of.items() if at <= power * FINE)) for power in POWERS]
        family.add_metric(labels, buckets=[*upto, (INF, sum(of.values()))], sum_value=values.get((*labels, SUM), 0.0))
    return family
