"""Counters made into a report: sums, shares, medians."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from orchestrator.models.report import MetricsReport, ModelFigures, Quality, ToolFigures
from orchestrator.monitoring.metrics import (
    BINS,
    CONFIRMATIONS,
    FALLBACKS,
    JOB_COST,
    JOBS_ENDED,
    MODEL_CALLS,
    MODEL_COST,
    MODEL_SECONDS,
    MODEL_TOKENS,
    MODEL_UNPRICED,
    OTHER,
    PLAN_REPAIRS,
    PLANS,
    REPLANS,
    SUM,
    TOOL_CALLS,
    TOOL_SEARCH_SECONDS,
    TOOL_SEARCHES,
    TOOL_SECONDS,
    Counted,
    Key,
    Name,
    quantile,
)

NOT_PLAIN = ("cached", "output")  # kinds of tokens that are no input that was paid in full


def report_of(counted: Counted, *, shared: bool) -> MetricsReport:
    """The report of figures."""
    got = _Figures(counted.fields)
    tools, models = _tools(got), _models(got)
    tokens = got.by(MODEL_TOKENS, 2)
    jobs = got.observed(JOB_COST)
    costs = got.of(MODEL_COST)
    searches = got.by(TOOL_SEARCHES, 1)
    return MetricsReport(
        shared=shared,
        since=datetime.fromtimestamp(counted.since, UTC) if counted.since else None,
        tool_calls=sum(t.calls for t in tools),
        tool_errors=sum(t.errors for t in tools),
        unique_tools=sum(t.name != OTHER for t in tools),
        more_tools=any(t.name == OTHER for t in tools),
        tools=tools,
        searches=int(sum(searches.values())),
        searches_cached=int(searches.get("true", 0)),
        search_p50_ms=_ms(got.bins(TOOL_SEARCH_SECONDS).get((), {}), 0.5),
        input_tokens=_plain(tokens),
        output_tokens=int(tokens.get("output", 0)),
        cached_tokens=int(tokens.get("cached", 0)),
        cost_usd=round(sum(costs.values()), 9) if costs else None,
        unpriced_calls=sum(m.unpriced_calls for m in models),
        models=models,
        planned_jobs=jobs[0],
        cost_per_job_usd=round(jobs[1] / jobs[0], 9) if jobs[0] else None,
        quality=_quality(got),
        recent_errors=counted.errors,
    )


class _Figures:
    """The fields of the counters, by metric."""

    def __init__(self, fields: Mapping[Key, float]) -> None:
        self._fields: dict[str, dict[Key, float]] = defaultdict(dict)
        for (name, *parts), value in fields.items():
            self._fields[name][tuple(parts)] = value

    def of(self, name: Name) -> Mapping[Key, float]:
        return self._fields.get(name.name, {})

    def by(self, name: Name, at: int) -> dict[str, float]:
        """The sums of a counter by the value of one label."""
        return _sums((key[at], value) for key, value in self.of(name).items())

    def bins(self, name: Name) -> dict[Key, dict[int, float]]:
        """The bins of a fine histogram, by its labels' values."""
        found: dict[Key, dict[int, float]] = defaultdict(dict)
        for key, value in self.of(name).items():
            if key[-2:-1] == (BINS,):
                found[key[:-2]][int(key[-1])] = value
        return found

    def observed(self, name: Name) -> tuple[int, float]:
        """How many values a histogram has, and their sum."""
        values = self.of(name)
        return int(sum(v for key, v in values.items() if key != (SUM,))), values.get((SUM,), 0.0)


def _tools(got: _Figures) -> tuple[ToolFigures, ...]:
    bins = got.bins(TOOL_SECONDS)
    calls = got.by(TOOL_CALLS, 0)
    good = _sums((key[0], n) for key, n in got.of(TOOL_CALLS).items() if key[1] == "succeeded")
    made = (
        ToolFigures(
            name=name,
            calls=int(n),
            errors=int(n - good.get(name, 0)),
            p50_ms=_ms(bins.get((name,), {}), 0.5),
            p95_ms=_ms(bins.get((name,), {}), 0.95),
        )
        for name, n in calls.items()
    )
    return tuple(sorted(made, key=lambda t: (-t.calls, t.name)))


def _models(got: _Figures) -> tuple[ModelFigures, ...]:
    names = (MODEL_CALLS, MODEL_TOKENS, MODEL_COST, MODEL_UNPRICED)
    every = sorted({key[:2] for name in names for key in got.of(name)})
    bins = got.bins(MODEL_SECONDS)
    return tuple(_model(got, who, bins.get(who, {})) for who in every if any(who))


def _model(got: _Figures, who: Key, bins: Mapping[int, float]) -> ModelFigures:
    calls = _sums((key[3], n) for key, n in got.of(MODEL_CALLS).items() if key[:2] == who)
    tokens = _sums((key[2], n) for key, n in got.of(MODEL_TOKENS).items() if key[:2] == who)
    cost = got.of(MODEL_COST).get(who)
    total = int(sum(calls.values()))
    return ModelFigures(
        provider=who[0],
        model=who[1],
        calls=total,
        failed=total - int(calls.get("succeeded", 0)),
        input_tokens=_plain(tokens),
        output_tokens=int(tokens.get("output", 0)),
        cached_tokens=int(tokens.get("cached", 0)),
        cost_usd=None if cost is None else round(cost, 9),
        unpriced_calls=int(got.of(MODEL_UNPRICED).get(who, 0)),
        p50_ms=_ms(bins, 0.5),
    )


def _quality(got: _Figures) -> Quality:
    ended = ((f"{key[0]} with errors" if key[1] == "true" else key[0], n) for key, n in got.of(JOBS_ENDED).items())
    return Quality(
        plans=_whole(got.by(PLANS, 0)),
        plan_repairs=int(sum(got.of(PLAN_REPAIRS).values())),
        replans=int(sum(got.of(REPLANS).values())),
        confirmations=_whole(got.by(CONFIRMATIONS, 0)),
        jobs=_whole(_sums(ended)),
        fallbacks=_whole(got.by(FALLBACKS, 0)),
    )


def _plain(tokens: Mapping[str, float]) -> int:
    return int(sum(n for kind, n in tokens.items() if kind not in NOT_PLAIN))


def _ms(bins: Mapping[int, float], share: float) -> float | None:
    seconds = quantile(bins, share)
    return None if seconds is None else round(1000 * seconds, 3)


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in pairs:
        found[name] = found.get(name, 0.0) + value
    return found


def _whole(values: Mapping[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in sorted(values.items())}
