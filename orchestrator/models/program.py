"""A program that calls tools: its limits, the record of each call, and what came of it. Times in seconds, sizes in bytes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

KIB = 1 << 10
MIB = 1 << 20

Status = Literal["success", "error", "timeout", "security_error"]
"""`error`: the program failed, or its sandbox did; `security_error`: the program was refused, or broke out of the protocol."""

CallerType = Literal["code_execution", "direct"]
Alert = Literal["call_limit", "timeout", "memory", "cpu", "violation"]


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class Caller(_Wire):
    """Who made a call: a program (`execution_id`, and `tool_id` counting its calls), or directly the planner or a step."""

    type: CallerType = "direct"
    execution_id: str | None = Field(default=None, description="such as `code_exec_1a2b3c4d`")
    tool_id: str | None = Field(default=None, description="`tool_call_<n>`, n from 1 in the order of the program")


class CallRecord(_Wire):
    """One call of a tool by a program, as the host saw it."""

    tool: str
    type: str = "function"
    parameters: dict[str, Any] = Field(default_factory=dict)
    timestamp: float = Field(description="when it began, seconds since 1970")
    completed_at: float | None = None
    duration: float | None = Field(default=None, description="seconds, by a clock that never jumps")
    result_size: int | None = Field(default=None, description="bytes of the result as JSON; None: there was none")
    error: str | None = None
    caller: Caller = Caller()


class Usage(_Wire):
    """What an execution used, measured by the host and never by the program."""

    cpu_s: float | None = None
    memory_peak: int | None = Field(default=None, description="bytes; None where nothing measures it")
    bytes_in: int = Field(default=0, description="bytes sent to the program")
    bytes_out: int = Field(default=0, description="bytes that the program sent")
    memory_exceeded: bool = False
    container: str = ""
    measured_by: Literal["cgroup", "engine", "none"] = "none"


class ProgramResult(_Wire):
    """What came of a program: what it printed, its value, its calls, and how it ended."""

    output: str = ""
    result: Any = None
    tool_calls: tuple[CallRecord, ...] = ()
    execution_time: float = Field(default=0.0, description="seconds of wall time, from the program's start to its end")
    execution_id: str = ""
    error: str | None = None
    status: Status = "success"
    usage: Usage | None = None
    errors: str = Field(default="", description="what it printed on stderr, such as by `logging`")
    traceback: str | None = Field(default=None, description="of the error that ended it, as Python words it")

    def to_dict(self) -> dict[str, Any]:
        """Exactly `output, result, tool_calls, execution_time, execution_id, error, status`, as plain JSON values."""
        return self.model_dump(mode="json", exclude={"usage", "errors", "traceback"})


class ProgramLimits(BaseModel):
    """What a program may use. Every limit is kept by the host or the kernel, never by the program's own process."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    timeout_s: float = Field(default=30.0, gt=0, le=3_600, description="seconds of wall time, waiting for tools included")
    calls: int = Field(default=100, ge=0, le=1_000, description="tool calls; the next one is answered with an error")
    in_flight: int = Field(default=64, ge=1, le=256, description="tool calls that run at once; more wait in order")
    memory_mb: int = Field(default=512, ge=32, le=65_536, description="MiB of memory, swap included")
    cpus: float = Field(default=1.0, ge=0.05, le=64, description="processor cores")
    pids: int = Field(default=64, ge=8, le=4_096, description="processes and threads")
    tmp_mb: int = Field(default=100, ge=1, le=4_096, description="MiB in the temporary folder; they count as memory too")
    output_bytes: int = Field(default=MIB, ge=0, le=16 * MIB, description="printed text; the rest is cut off and flagged")
    frame_bytes: int = Field(default=16 * MIB, ge=64 * KIB, le=64 * MIB, description="one message of the protocol")
    value_bytes: int = Field(
        default=16 * MIB, ge=KIB, le=64 * MIB, description="the program's value, or one tool's result, as JSON"
    )
    total_bytes: int = Field(
        default=128 * MIB, ge=MIB, le=1 << 30, description="all that a program sends, and all that tools answer it, each"
    )
    depth: int = Field(default=64, ge=4, le=200, description="lists and objects within each other in any JSON value")

    @model_validator(mode="after")
    def _bearable(self) -> Self:
        if self.value_bytes > self.frame_bytes:
            raise ValueError(f"`value_bytes` ({self.value_bytes}) must fit into a frame (`frame_bytes`: {self.frame_bytes})")
        return self
