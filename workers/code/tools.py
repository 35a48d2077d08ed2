"""The tools of the pool `code`: programs that a model or a person wrote, run in a container, calling tools through the queues."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from orchestrator.errors import BackendError, ToolError
from orchestrator.models.program import ProgramResult
from workers.code.request import Isolation, Request

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.jobs.store import JobStore
    from workers.code.programs import Programs

STEP_S = 3_900.0  # longer than the longest program, so that the program's own limit speaks first

Code = Annotated[str, Field(min_length=1)]

_programs: Programs | None = None


@asynccontextmanager
async def serve(store: JobStore, app: Celery) -> AsyncIterator[None]:
    """Keeps containers ready for the programs of this process while the block runs."""
    global _programs
    from workers.code.programs import Programs  # noqa: PLC0415 (needs the extra `sandbox`, which other pools have not)

    made = Programs(store, app)
    await made.start()
    _programs = made
    gc.collect()
    gc.freeze()  # what lives as long as the process is looked at no more: a full collection would hold up all programs
    try:
        yield
    finally:
        _programs = None
        await made.close()


@tool(
    pool="code", type="code_exec", effect="idempotent", domain="code", timeout_s=STEP_S, allowed_callers=("direct",),
    examples=[
        {
            "scenario": "Sum the values of an earlier step",
            "input": {"code": "output = {'total': sum(input['values'])}", "input_data": {"values": [10, 20, 30]}},
            "output": {"total": 60},
        },
        {
            "scenario": "Call a tool for each item, all at once",
            "input": {
                "code": "import asyncio\noutput = await asyncio.gather(*[compute_tax(a, 0.08) for a in input['amounts']])",
                "input_data": {"amounts": [100.0, 250.0]},
            },
        },
    ],
)  # fmt: skip
async def code_exec(
    code: Code,
    context: ToolContext,
    input_data: Any = None,
    tools: list[str] | None = None,
    limits: dict[str, Any] | None = None,
    isolation: Isolation = "fresh",
) -> Any:
    """Runs a Python program in a container and gives what it assigned to `output`, else the value of its last expression.

    The program sees `input` (and `input_data`), and calls tools as `await tool(...)`. What it prints goes into the log.

    Args:
        code: A Python program; docs/programs.md says what it may use.
        input_data: What the program sees as `input`.
        tools: The tools that it may call; default: all that programs may call.
        limits: What it may use, such as `{"timeout_s": 5, "memory_mb": 256, "calls": 20}`.
        isolation: `fresh`: in a container of its own; `job`: in one that this job used before, which starts more at once.
    """
    record = await _run(Request("code_exec", code, input_data, tools, None, limits, isolation), context)
    if record.output:
        context.log("program printed", execution_id=record.execution_id, output=record.output[:2_000])
    return _value(record)


@tool(pool="code", type="code_exec", effect="idempotent", domain="code", timeout_s=STEP_S, allowed_callers=("direct",))
async def run_program(
    code: Code,
    context: ToolContext,
    input_data: Any = None,
    tools: list[str] | None = None,
    domains: dict[str, str] | None = None,
    limits: dict[str, Any] | None = None,
    isolation: Isolation = "fresh",
    on_failure: Literal["fail", "return"] = "fail",
) -> ProgramResult:
    """Runs a Python program in a container and gives its whole record: what it printed, its value, its calls, its figures.

    Args:
        code: A Python program; docs/programs.md says what it may use.
        input_data: What the program sees as `input`.
        tools: The tools that it may call; default: all that programs may call.
        domains: By tool, the module beneath `tools` that the program imports it from, where that is not the tool's own.
        limits: What it may use, such as `{"timeout_s": 5, "memory_mb": 256, "calls": 20}`.
        isolation: `fresh`: in a container of its own; `job`: in one that this job used before, which starts more at once.
        on_failure: What a program that fails does: fails the step, or gives its record with `error` and `status`.
    """
    record = await _run(Request("run_program", code, input_data, tools, domains, limits, isolation), context)
    if on_failure == "fail":
        _value(record)
    return record


async def _run(request: Request, context: ToolContext) -> ProgramResult:
    if _programs is None:
        raise BackendError("this process runs no programs", next="Start a worker of the pool: `toolweaver worker --pool code`.")
    return await _programs.run(request, context)


def _value(record: ProgramResult) -> Any:
    """The value of a program that succeeded.

    Raises:
        ToolError: it did not; nothing is gained by another try.
    """
    if record.status == "success":
        return record.result
    codes = {"timeout": "timeout", "security_error": "security_error", "error": "program_failed"}
    printed = f" It had printed: {record.output[-500:]}" if record.output else ""
    raise ToolError(f"{record.error}", code=codes[record.status], next=f"Mend the program ({record.execution_id}).{printed}")
