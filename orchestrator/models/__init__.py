"""What crosses a wire: tool, plan, job, event, program. Frozen pydantic, but for `ToolCatalog`, which is filled by `add_tool`."""

from orchestrator.models.event import Event
from orchestrator.models.job import CallState, CallView, ErrorInfo, JobPage, JobResult, JobStatus, JobView, StepView, SubmitRequest
from orchestrator.models.plan import FinalSynthesis, Plan, Reference, Retry, Step, When, find_references, parse_reference
from orchestrator.models.program import Caller, CallRecord, ProgramLimits, ProgramResult, Usage
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolExample, ToolParameter

__all__ = [
    "CallRecord",
    "CallState",
    "CallView",
    "Caller",
    "ErrorInfo",
    "Event",
    "FinalSynthesis",
    "JobPage",
    "JobResult",
    "JobStatus",
    "JobView",
    "Plan",
    "ProgramLimits",
    "ProgramResult",
    "Reference",
    "Retry",
    "Step",
    "StepView",
    "SubmitRequest",
    "ToolCatalog",
    "ToolDefinition",
    "ToolExample",
    "ToolParameter",
    "Usage",
    "When",
    "find_references",
    "parse_reference",
]
