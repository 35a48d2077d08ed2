"""What a replica of the index service shows to Prometheus: figures of one process, every name once. No tenant is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class SearchMetrics:
    """The metrics of one replica."""

    def __init__(self) -> None:
        made = self._registry = CollectorRegistry()
        self.seconds = Histogram("toolweaver_search_seconds", "Time of searches, in seconds.", buckets=SECONDS, registry=made)
        self.searches = Counter("toolweaver_searches", "Searches, by how they ended.", ("status",), registry=made)
        self.degraded = Counter("toolweaver_search_degraded", "Answers that lacked something.", ("what",), registry=made)
        self.events = Counter(
            "toolweaver_index_events",
            "Changes of the index: swap, merge, reload, refused (a snapshot) ...",
            ("event",),
            registry=made,
        )
        self.generation = Gauge("toolweaver_index_generation", "The catalog's change that is known.", registry=made)
        self.size = Gauge("toolweaver_index_tools", "Tools that are known.", registry=made)
        self.backlog = Gauge("toolweaver_index_backlog", "Tools that are not found by meaning yet.", registry=made)

    def text(self) -> bytes:
        """All metrics, in the text format of Prometheus."""
        return generate_latest(self._registry)
