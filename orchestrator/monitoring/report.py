"""A report for a person, in the layout of the reference; what it is made of is data (`models.report`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol, TextIO

from orchestrator.models.report import MetricsReport, ToolFigures

WIDTH = 80
TOP_TOOLS = 10
_SIGNS = {"Overview": "📊", "Top Tools": "🔧", "Token Usage": "💰", "Models": "🧠", "Quality": "🧭", "Recent Errors": "🚨"}


class Monitor(Protocol):
    """What has figures: a `ToolUsageMonitor`."""

    def report(self) -> MetricsReport:
        """The figures until now."""


def print_metrics_report(monitor: Monitor | MetricsReport, file: TextIO | None = None) -> None:
    """Prints the figures of a monitor to `file`, by default to stdout: totals, tools, tokens, cost, recent errors.

    The sign before a heading is left out where the file's encoding has none; nothing is said by signs alone.
    """
    out = sys.stdout if file is None else file
    report = monitor if isinstance(monitor, MetricsReport) else monitor.report()
    signs = (getattr(out, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    out.write(report_text(report, signs=signs))
    out.flush()


def report_text(report: MetricsReport, *, signs: bool = True) -> str:
    """The report as text."""
    rule = "=" * WIDTH
    lines = [rule, "TOOL USAGE MONITORING REPORT", rule]
    sections = {
        "Overview": _overview(report),
        "Top Tools": _tools(report),
        "Token Usage": _tokens(report),
        "Models": _models(report),
        "Quality": _quality(report),
        "Recent Errors": _errors(report),
    }
    for title, rows in sections.items():
        body = list(rows)
        if body:
            lines += ["", f"{_SIGNS[title]} {title}:" if signs else f"{title}:", *(f"   {row}".rstrip() for row in body)]
    text = "\n".join(lines) + "\n"
    return text if signs else text.encode("ascii", "replace").decode()


def _overview(report: MetricsReport) -> Iterator[str]:
    more = " and others" if report.more_tools else ""
    yield _row("Total tool calls:", f"{report.tool_calls:,}")
    yield _row("Total errors:", f"{report.tool_errors:,}")
    yield _row("Overall error rate:", _percent(report.error_rate))
    yield _row("Unique tools used:", f"{report.unique_tools:,}{more}")
    yield _row("Search queries:", f"{report.searches:,}")
    yield _row("Cache hit rate:", _percent(report.cache_hit_rate))
    if report.since is not None:
        yield _row("Counted since:", f"{report.since:%Y-%m-%d %H:%M} UTC, {_scope(report)}")


def _scope(report: MetricsReport) -> str:
    return "all processes of the platform" if report.shared else "this monitor"


def _tools(report: MetricsReport) -> Iterator[str]:
    yield from (_tool(t) for t in report.tools[:TOP_TOOLS])
    if not report.tools:
        yield "No tool calls yet"
    elif len(report.tools) > TOP_TOOLS:
        yield f"... and {len(report.tools) - TOP_TOOLS} more"


def _tool(tool: ToolFigures) -> str:
    p50 = "-" if tool.p50_ms is None else _ms(tool.p50_ms)
    return f"{_plain(tool.name):<30} {tool.calls:>4,} calls  (p50: {p50}, errors: {_percent(tool.error_rate)})"


def _tokens(report: MetricsReport) -> Iterator[str]:
    yield _row("Input tokens:", f"{report.input_tokens:,}")
    yield _row("Output tokens:", f"{report.output_tokens:,}")
    yield _row("Cached tokens:", f"{report.cached_tokens:,}")
    yield _row("Cache savings:", _percent(report.cache_savings))
    if report.cost_usd is not None:
        yield _row("Cost:", _dollars(report.cost_usd))
    if report.unpriced_calls:
        yield _row("Without a price:", f"{report.unpriced_calls:,} calls, not in the cost")
    if report.cost_per_job_usd is not None:
        yield _row("Cost per request:", f"{_dollars(report.cost_per_job_usd)} on average of {report.planned_jobs:,}")


def _models(report: MetricsReport) -> Iterator[str]:
    for model in report.models:
        cost = "no price" if model.cost_usd is None else _dollars(model.cost_usd)
        name = _plain(f"{model.provider} {model.model}")
        yield f"{name:<30} {model.calls:>4,} calls  (failed: {model.failed:,}, {cost})"


def _quality(report: MetricsReport) -> Iterator[str]:
    found = report.quality
    counts = {"Plan repairs": found.plan_repairs, "Replans": found.replans}
    yield from _group("Plans from", found.plans)
    yield from (_row(f"{name}:", f"{n:,}") for name, n in counts.items() if n)
    yield from _group("Confirmations", found.confirmations)
    yield from _group("Jobs", found.jobs)
    yield from _group("Fallbacks", found.fallbacks)


def _group(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if counts:
        yield _row(f"{title}:", ", ".join(f"{_plain(name)} {n:,}" for name, n in counts.items()))


def _errors(report: MetricsReport) -> Iterator[str]:
    for error in report.recent_errors:
        yield f"{datetime.fromtimestamp(error.at, UTC):%Y-%m-%d %H:%M:%S} UTC  {_plain(error.tool):<30} {_plain(error.code)}"
    if not report.recent_errors:
        yield "No recent errors"


def _row(name: str, value: str) -> str:
    return f"{name:<20} {value}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}ms" if milliseconds >= 9.5 else f"{milliseconds:.2g}ms"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}"


def _plain(text: str) -> str:
    """Names come from whoever made tools: none of them steers a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
