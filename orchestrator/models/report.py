"""What the platform did and cost, in figures: the answer of `GET /v1/metrics/report`, and what `print_metrics_report` prints."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True)
class RecentError:
    """A call that failed: of which tool, with which code, when (Unix seconds). Neither arguments nor messages."""

    tool: str
    code: str
    at: float


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class ToolFigures(_Wire):
    """A tool: attempts of its calls that ended, how many of them did not succeed, and how long they ran."""

    name: str
    calls: int
    errors: int = 0
    p50_ms: float | None = Field(default=None, description="median, within 4.5 %; None: none began")
    p95_ms: float | None = None

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


class ModelFigures(_Wire):
    """A model: its calls, its tokens (`input_tokens` without those that were read from a cache), its cost."""

    provider: str
    model: str
    calls: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = Field(default=None, description="of the calls whose price is known; None: of none")
    unpriced_calls: int = 0
    p50_ms: float | None = None


class Quality(_Wire):
    """Signals of how good the answers are; each was counted when it happened, and is 0 where that never was."""

    plans: dict[str, int] = Field(default_factory=dict, description="plans made from requests, by source")
    plan_repairs: int = 0
    replans: int = 0
    confirmations: dict[str, int] = Field(default_factory=dict, description="by verdict")
    jobs: dict[str, int] = Field(default_factory=dict, description="jobs that ended, by status; `succeeded with errors` apart")
    fallbacks: dict[str, int] = Field(default_factory=dict, description="what something had to do without")


class MetricsReport(_Wire):
    """The figures of a platform, of all processes and tenants together; or of one monitor that counts by itself."""

    shared: bool = Field(description="whether these are the figures of a platform")
    since: datetime | None = None
    tool_calls: int = 0
    tool_errors: int = 0
    unique_tools: int = 0
    more_tools: bool = Field(default=False, description="there were more tools than are told apart; they are `other`")
    tools: tuple[ToolFigures, ...] = Field(default=(), description="most calls first")
    searches: int = 0
    searches_cached: int = 0
    search_p50_ms: float | None = None
    input_tokens: int = Field(default=0, description="without those that were read from a cache")
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    unpriced_calls: int = 0
    models: tuple[ModelFigures, ...] = ()
    planned_jobs: int = Field(default=0, description="requests whose cost was counted as a whole")
    cost_per_job_usd: float | None = Field(default=None, description="mean of those")
    quality: Quality = Quality()
    recent_errors: tuple[RecentError, ...] = Field(default=(), description="latest first")

    @property
    def error_rate(self) -> float:
        return self.tool_errors / self.tool_calls if self.tool_calls else 0.0

    @property
    def cache_hit_rate(self) -> float | None:
        """Of searches; None: there were none."""
        return self.searches_cached / self.searches if self.searches else None

    @property
    def cache_savings(self) -> float | None:
        """The part of all input tokens that was read from a provider's cache; None: there were no tokens."""
        total = self.input_tokens + self.cached_tokens
        return self.cached_tokens / total if total else None
