"""A job: what a person asked for, how far it is, and what came out."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.models.usage import Usage


class JobStatus(StrEnum):
    """Where a job stands; `waiting` means that it waits for a person."""

    PLANNING = "planning"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class CallState(StrEnum):
    """Where one call of a tool stands; `waiting`: for a retry; `unknown`: a `once` effect that may have happened."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


StepState = Literal["pending", "running", "succeeded", "failed", "skipped", "cancelled"]
Priority = Literal["interactive", "normal", "batch"]
RequestMode = Literal["run", "confirm", "plan"]
MAX_REQUEST = 20_000
MAX_TOOLS = 1_000


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class ErrorInfo(_Wire):
    """What went wrong in one call, as it crosses the wire."""

    code: str
    message: str
    family: str = "tool"
    retryable: bool = False
    next: str | None = None
    step: str | None = None
    call: str | None = None
    index: int | None = Field(default=None, description="position in the map; None for a plain step")
    attempt: int | None = None


class StepView(_Wire):
    """One step of a job: its state and how many of its calls stand where."""

    id: str
    tool: str
    queue: str
    state: StepState
    total: int | None = Field(default=None, description="number of calls; None until the list of a map is known")
    done: int = Field(default=0, description="calls that ended, however")
    failed: int = 0
    skipped: int = 0
    running: int = 0
    waiting: str | None = Field(default=None, description="why nothing moves, such as `no worker for queue ocr`")


class CallView(_Wire):
    """One call of a tool: `(job, call, attempt)`; `tries` counts bodies that started and failed."""

    call: str
    step: str
    tool: str = ""
    parent: str | None = Field(default=None, description="the call that made this one, such as that of a program")
    index: int | None = None
    state: CallState
    attempt: int
    tries: int = 0
    error: ErrorInfo | None = None


class Planning(_Wire):
    """How the plan of a request was made: `shown` tools of `of` were in the prompt; `degraded` says what was not as usual."""

    source: Literal["model", "template"]
    model: str | None = Field(default=None, description="provider and model, when a model made it")
    template: str | None = None
    repairs: int = Field(default=0, description="how often the model mended what the check had found")
    shown: int = 0
    of: int = 0
    searched: bool = Field(default=False, description="the tools were chosen by search")
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reused: bool = Field(default=False, description="no model was asked for it")
    number: int = Field(default=1, description="2 and more: it was planned anew after steps failed")


class JobView(_Wire):
    """A job as it stands now."""

    id: str
    status: JobStatus
    has_errors: bool = False
    tenant: str = "default"
    name: str = Field(default="", description="name of the plan, when a named one was submitted")
    request_id: str | None = None
    priority: Priority = "normal"
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: tuple[StepView, ...] = ()
    unknown: tuple[CallView, ...] = Field(default=(), description="calls that wait for `resolve`")
    error: ErrorInfo | None = None
    cursor: str | None = Field(default=None, description="id of the newest event that this view includes")
    request: str | None = Field(default=None, description="what was asked in words; in lists its beginning")
    mode: RequestMode | None = Field(default=None, description="of a request: what is done with its plan")
    waiting: str | None = Field(default=None, description="why nothing moves, such as `waits for your confirmation`")
    planned: Planning | None = Field(default=None, description="of a request: how its plan was made")
    usage: Usage | None = Field(default=None, description="of a request: what calls of models it cost so far")


class JobPage(_Wire):
    """A page of jobs, newest first; `next_cursor` fetches the following one."""

    jobs: tuple[JobView, ...]
    next_cursor: str | None = None


class Purged(_Wire):
    """What a purge took away."""

    tenant: str
    jobs: int
    cancelled: int = Field(description="of these, jobs that still ran")
    files: int = Field(description="files and large values whose lifetime it ended")


class JobResult(_Wire):
    """What came out of a job, whole or partial.

    `output` is what the plan's `output` names (default: the value of its last step, or a dict by id of its last
    steps); `answer` is the worded answer of `final_synthesis`; `steps` are the results by step id. The results of a
    map keep their positions: a failed or skipped item is None, and `errors` says why. Of a request, `usage` is what
    its calls of models came to.
    """

    job_id: str
    status: JobStatus
    has_errors: bool = False
    output: Any = None
    answer: str | None = None
    steps: dict[str, Any] = Field(default_factory=dict)
    errors: tuple[ErrorInfo, ...] = ()
    usage: Usage | None = None


class SubmitRequest(BaseModel):
    """Body of `POST /v1/jobs`: a plan, the name of one, or a request in words that is to be planned; and its inputs."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"plan": "receipts", "inputs": {"images": ["bundled:grocery", "bundled:cafe"]}},
                {"request": "process these receipts and tell me what we spent on food", "inputs": {"files": ["bundled:cafe"]}},
            ]
        },
    )

    plan: dict[str, Any] | str | None = Field(default=None, description="a plan, or the name of a bundled one such as `receipts`")
    request: str | None = Field(
        default=None, min_length=1, max_length=MAX_REQUEST, description="what to do, in words: a plan is made of it"
    )
    inputs: dict[str, Any] = Field(
        default_factory=dict, description="of a request: what its plan may use, by name; files as `files`"
    )
    priority: Priority = "normal"
    mode: RequestMode = Field(
        default="run",
        description="of a request: `run` its plan at once, wait for a person to `confirm` it, or make the `plan` only",
    )
    tools: tuple[str, ...] | None = Field(
        default=None, max_length=MAX_TOOLS, description="of a request: the tools that its plan may use; default: all"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.plan is None) == (self.request is None):
            raise ValueError("Give either `plan` (a plan, or the name of one) or `request` (what to do, in words)")
        if self.request is not None and not self.request.strip():
            raise ValueError("`request` is blank")
        if self.request is None and (self.mode != "run" or self.tools is not None):
            raise ValueError("`mode` and `tools` belong to a `request`; a plan names its tools itself")
        return self
