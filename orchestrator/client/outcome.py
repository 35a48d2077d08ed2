"""What a finished job gives to the one who waited for it: its output, or the error that says why there is none."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from orchestrator.errors import JobCancelled, JobFailed
from orchestrator.models.job import ErrorInfo, JobResult, JobStatus


def outcome(result: JobResult, as_: Any = None) -> Any:
    """The output of a job that succeeded, as the type `as_` when one is given.

    Raises:
        JobFailed: it failed; `.result` is the JobResult with what was done.
        JobCancelled: it was cancelled; likewise.
        pydantic.ValidationError: the output does not fit `as_`.
    """
    if result.status is JobStatus.CANCELLED:
        raise JobCancelled(f"job {result.job_id} was cancelled", result=result)
    if result.status is JobStatus.FAILED:
        raise JobFailed(_why(result), result=result, next=_next(result))
    return result.output if as_ is None else TypeAdapter(as_).validate_python(result.output)


def _why(result: JobResult) -> str:
    text = f"job {result.job_id} failed"
    if result.errors:
        text += f": {_place(result.errors[0])}{result.errors[0].message}"
    more = len(result.errors) - 1
    return text + (f" (and {more} more, see `.result.errors`)" if more > 0 else "")


def _place(error: ErrorInfo) -> str:
    if error.step is None:
        return ""
    return f"step `{error.step}`" + (f" item {error.index}" if error.index is not None else "") + ": "


def _next(result: JobResult) -> str:
    own = result.errors[0].next if result.errors else None
    return own or f"Mend the cause, then `toolweaver retry {result.job_id}` goes on from the failed calls."
