"""What a planner is asked, and what it gives: a request in words becomes a plan that passed the check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.errors import BackendError, PlanError
from orchestrator.models.access import Policy
from orchestrator.models.file import FileRef
from orchestrator.models.job import ErrorInfo
from orchestrator.models.plan import Plan

RETRY_S = 60.0  # when nobody knows better: what R3 tells its callers
KEPT = "kept_"


@dataclass(frozen=True, slots=True)
class Former:
    """A plan of the same request that did not come through.

    `results` are those of its steps that succeeded, by id: the new plan has them as inputs `kept_<step>`. `number` counts the
    plans that were tried, from 1.
    """

    plan: Plan
    results: Mapping[str, Any] = field(default_factory=dict, hash=False)
    errors: tuple[ErrorInfo, ...] = ()
    number: int = 1


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A request in words, with who asks and what they may use.

    `inputs` are the job's; `files` says what is known of those of them that are uploaded files, by reference. `available_tools`
    (names or aliases) narrows what a plan may use. Requests of one `conversation` are shown what was found for the earlier ones
    too, in the same order, so that providers' prompt caches hit.
    """

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tenant: str = "default"
    caller: tuple[str, ...] = ("direct",)
    policy: Policy | None = None
    available_tools: tuple[str, ...] | None = None
    former: Former | None = None
    files: Mapping[str, FileRef] = field(default_factory=dict, hash=False)
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that passed the check, and how it came to be.

    `shown` tools of `of` that might be used were in the prompt; `searched`: they were chosen by search. `degraded` names what was
    not as it should be, such as an index service that is down; `notes` what a reader may want to know. `reused`: no model was
    asked.
    """

    plan: Plan
    source: Literal["model", "template"]
    template: str | None = None
    repairs: int = 0
    shown: int = 0
    of: int = 0
    searched: bool = False
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reused: bool = False


class PlanningUnavailable(BackendError):
    """No plan can be made now: no model answers, and no template fits."""

    code = "planning_unavailable"

    def __init__(self, message: str | None = None, *, retryable: bool = True, retry_after_s: float = RETRY_S, **rest: Any) -> None:
        super().__init__(message, **rest)
        self._retryable, self.retry_after_s = retryable, retry_after_s

    @property
    def retryable(self) -> bool:
        """False where waiting helps nobody: no model is set."""
        return self._retryable


class CannotPlan(PlanError):
    """The model says that the tools cannot do what is asked."""

    code = "cannot_plan"
