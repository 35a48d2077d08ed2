"""Programs on the wire: limits that stay within bounds, and results with exactly the promised fields."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from orchestrator.models import Caller, CallRecord, ProgramLimits, ProgramResult, Usage


def test_a_result_is_told_with_exactly_seven_fields() -> None:
    record = CallRecord(
        tool="get_expenses",
        type="mcp",
        parameters={"user_id": "alice"},
        timestamp=1702518000.123,
        completed_at=1702518000.323,
        duration=0.2,
        result_size=1245,
        caller=Caller(type="code_execution", execution_id="code_exec_1a2b3c4d", tool_id="tool_call_1"),
    )
    result = ProgramResult(
        output="hi\n", result=[1], tool_calls=(record,), execution_id="code_exec_1a2b3c4d", usage=Usage(cpu_s=0.1)
    )
    told = result.to_dict()
    assert set(told) == {"output", "result", "tool_calls", "execution_time", "execution_id", "error", "status"}
    assert json.loads(json.dumps(told))["tool_calls"][0] == {
        "tool": "get_expenses",
        "type": "mcp",
        "parameters": {"user_id": "alice"},
        "timestamp": 1702518000.123,
        "completed_at": 1702518000.323,
        "duration": 0.2,
        "result_size": 1245,
        "error": None,
        "caller": {"type": "code_execution", "execution_id": "code_exec_1a2b3c4d", "tool_id": "tool_call_1"},
    }


def test_the_default_limits_are_those_that_are_promised() -> None:
    limits = ProgramLimits()
    assert (limits.timeout_s, limits.calls, limits.in_flight, limits.memory_mb, limits.cpus) == (30, 100, 64, 512, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"calls": -1}, {"cpus": 0}, {"pids": 1}, {"depth": 100_000}, {"memory_mb": 1}, {"unknown": 1}],
    ids=str,
)
def test_limits_out_of_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ProgramLimits.model_validate(wrong)


def test_a_value_must_fit_into_a_frame() -> None:
    with pytest.raises(ValidationError, match="value_bytes"):
        ProgramLimits(frame_bytes=1 << 20)
    assert ProgramLimits(frame_bytes=1 << 20, value_bytes=1 << 20).value_bytes == 1 << 20


def test_a_direct_call_has_neither_execution_nor_tool_id() -> None:
    assert Caller().model_dump(exclude_none=True) == {"type": "direct"}
