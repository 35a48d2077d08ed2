"""What crosses a wire: tool, plan, job, event. Frozen pydantic, but for `ToolCatalog`, which is filled by `add_tool`."""

from orchestrator.models.event import Event
from orchestrator.models.job import CallState, CallView, ErrorInfo, JobPage, JobResult, JobStatus, JobView, StepView, SubmitRequest
from orchestrator.models.plan import FinalSynthesis, Plan, Reference, Retry, Step, When, find_references, parse_reference
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolExample, ToolParameter

__all__ = [
    "CallState",
    "CallView",
    "ErrorInfo",
    "Event",
    "FinalSynthesis",
    "JobPage",
    "JobResult",
    "JobStatus",
    "JobView",
    "Plan",
    "Reference",
    "Retry",
    "Step",
    "StepView",
    "SubmitRequest",
    "ToolCatalog",
    "ToolDefinition",
    "ToolExample",
    "ToolParameter",
    "When",
    "find_references",
    "parse_reference",
]
