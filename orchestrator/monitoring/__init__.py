"""What an operator watches: the figures of all processes, every name once; and the monitor that counts and reports them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["MetricsReport", "ToolUsageMonitor", "print_metrics_report"]

if TYPE_CHECKING:
    from orchestrator.models.report import MetricsReport
    from orchestrator.monitoring.monitor import ToolUsageMonitor
    from orchestrator.monitoring.report import print_metrics_report

_IN = {
    "MetricsReport": "orchestrator.models.report",
    "ToolUsageMonitor": "orchestrator.monitoring.monitor",
    "print_metrics_report": "orchestrator.monitoring.report",
}


def __getattr__(name: str) -> Any:
    """The public names, loaded on first use: who prints a report needs no store."""
    if name not in _IN:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(_IN[name]), name)
