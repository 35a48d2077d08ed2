"""What the HTTP API is asked and answers beside jobs: bodies of requests, pages, its health."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.models.job import CallView, Priority


class _Request(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class CheckRequest(_Request):
    """Body of `POST /v1/plans/check`."""

    plan: dict[str, Any] | str = Field(description="a plan, or the name of a bundled one")
    inputs: dict[str, Any] | None = Field(default=None, description="checked too, when given")


class RunToolRequest(_Request):
    """Body of `POST /v1/tools/{name}/run`; strings that look like references are taken as they stand."""

    input: dict[str, Any] = Field(default_factory=dict)
    priority: Priority = "interactive"
    timeout_s: float | None = Field(default=None, gt=0, le=86_400, description="default: the tool's own")


class ResolveRequest(_Request):
    """Body of `POST /v1/jobs/{id}/resolve`: what a person found out about a call whose outcome is unknown."""

    call: str = Field(min_length=1, max_length=256)
    happened: bool | None = Field(default=None, description="true: the call did its work, `result` is its result")
    retry: bool | None = Field(default=None, description="true: it did not happen, run it again")
    result: Any = None

    @model_validator(mode="after")
    def _one_verdict(self) -> ResolveRequest:
        if (self.happened is None) == (self.retry is None) or self.retry is False:
            raise ValueError("say either `happened: true`, `happened: false` or `retry: true`")
        if self.result is not None and not self.happened:
            raise ValueError("`result` goes with `happened: true`")
        return self


class CallPage(_Answer):
    """A page of calls in the order of steps and positions; `next_cursor` fetches the following one."""

    calls: tuple[CallView, ...]
    next_cursor: str | None = None


class PlanSummary(_Answer):
    """A bundled plan: its name, what it does, the inputs that it takes with their defaults."""

    name: str
    description: str = ""
    steps: tuple[str, ...] = ()
    inputs: dict[str, Any] = Field(default_factory=dict)


class HealthCheck(_Answer):
    """One thing that the platform needs, or could have: what is not configured is no failure, and says so."""

    ok: bool
    configured: bool = True
    detail: str = ""


class Health(_Answer):
    """Whether the platform can take jobs: `down` without its store or when that takes no writes, `degraded` when any other check
    fails.
    """

    status: Literal["ok", "degraded", "down"]
    version: str
    timestamp: datetime
    checks: dict[str, HealthCheck]
