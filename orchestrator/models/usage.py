"""What models cost: each call with its tokens and its money, and their sums for a job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["plan", "repair", "replan", "synthesis", "chat", "tool"]


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class ModelCall(_Wire):
    """One request to a model that was sent, answered or not; a retry is a call of its own.

    Tokens are the server's own counts, 0 where it did not say. `input_tokens` are all of the input, `cached_tokens` the part of
    them that was read from the provider's prompt cache, `cache_write_tokens` the part that was written to it.
    """

    id: str = Field(description="unique; the same call reported twice counts once")
    purpose: Purpose
    provider: str
    model: str
    ok: bool = True
    error: str | None = Field(default=None, description="code of the error, such as `model_limited`")
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = Field(default=None, description="None: no price of this model is known")
    seconds: float = 0.0
    at: float = Field(default=0.0, description="when it was answered, seconds since 1970")


class ModelUsage(_Wire):
    """The calls of one model in sum."""

    provider: str
    model: str
    calls: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = Field(default=None, description="of the calls whose price is known; None: of none")
    unpriced_calls: int = Field(default=0, description="calls that used tokens and whose price is not known")


class Usage(ModelUsage):
    """All calls of a job in sum, and by model."""

    provider: str = ""
    model: str = ""
    models: tuple[ModelUsage, ...] = ()

    @classmethod
    def of(cls, calls: Iterable[ModelCall]) -> Usage:
        """The sums of calls; of calls with the same id the last one counts."""
        by_model: dict[tuple[str, str], list[ModelCall]] = {}
        unique = {call.id: call for call in calls}
        for call in unique.values():
            by_model.setdefault((call.provider, call.model), []).append(call)
        rows = tuple(ModelUsage(provider=p, model=m, **_sums(of)) for (p, m), of in sorted(by_model.items()))
        return cls(models=rows, **_sums(unique.values()))


def _sums(calls: Iterable[ModelCall]) -> dict[str, Any]:
    every = list(calls)
    priced = [c.cost_usd for c in every if c.cost_usd is not None]
    counts = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens")
    return {
        "calls": len(every),
        "failed": sum(not c.ok for c in every),
        **{name: sum(getattr(c, name) for c in every) for name in counts},
        "cost_usd": round(sum(priced), 9) if priced else None,
        "unpriced_calls": sum(c.cost_usd is None and c.input_tokens + c.output_tokens > 0 for c in every),
    }
