"""An event: one thing that happened in a job, in order; the last one is `job.succeeded`, `job.failed` or `job.cancelled`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FINAL_EVENTS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


class Event(BaseModel):
    """`{v, id, type, job_id, step, call, attempt, ts, data}`; `id` resumes the stream after this event.

    Types: `job.accepted job.running job.waiting job.succeeded job.failed job.cancelled`, of a request in words also
    `job.planning job.planned job.confirmed job.replanning job.answering`,
    `step.running step.waiting step.progress step.succeeded step.failed step.skipped`,
    `call.running call.waiting call.succeeded call.failed call.skipped call.unknown call.cancelled`, `log`, `alert`
    (a program met a limit or did what it may not: `data` has `alert`, `execution_id` and `message`), and `gap`
    (events before this point were trimmed; `data` is the job's view now).
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    v: int = 1
    id: str = Field(description="stream id; pass it back to resume")
    type: str
    job_id: str
    step: str | None = None
    call: str | None = None
    attempt: int | None = None
    ts: datetime
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.type in FINAL_EVENTS
