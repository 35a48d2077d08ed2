"""The harness that users test their tools with: what it promises, and that the real engine is behind it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import register_function, registry
from orchestrator.errors import CallCancelled, NotFound, PlanError, ToolError, ToolTimeout
from tests.support import wait_until
from workers.testing import Engine, FakeContext, call_tool, run_plan, running_engine


class Line(BaseModel):
    name: str
    price: float


@pytest.fixture(autouse=True)
def own_tools() -> Iterator[None]:
    """The tools of a user's module; they leave the registry with the test."""

    @register_function("sum_lines", effect="none")
    def sum_lines(lines: list[Line], context: ToolContext) -> float:
        for line in lines:
            context.check()
            context.log("added", name=line.name)
        return round(sum(line.price for line in lines), 2)

    @register_function("flaky", effect="none")
    def flaky(good_at: int, context: ToolContext) -> int:
        if context.attempt < good_at:
            raise ToolError("not yet", retryable=True)
        return context.attempt

    @register_function("lies", effect="none")
    def lies() -> int:
        return "no number"  # type: ignore[return-value]

    @register_function("slow", effect="none", timeout_s=0.1)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    @register_function("slow_in_python", effect="none", timeout_s=0.1)
    def slow_in_python(seconds: float) -> None:
        time.sleep(seconds)

    @register_function("pay", effect="once", timeout_s=0.1)
    async def pay() -> str:
        await asyncio.sleep(5)
        return "paid"

    yield
    for name in ("sum_lines", "flaky", "lies", "slow", "slow_in_python", "pay"):
        del registry._tools[name]


LINES = [{"name": "tea", "price": 3.5}, {"name": "cake", "price": 4.25}]


def test_a_tool_is_called_with_both_sides_checked() -> None:
    context = FakeContext()
    assert call_tool("sum_lines", context, lines=LINES) == 7.75
    assert [entry["name"] for entry in context.logs] == ["tea", "cake"]
    assert call_tool("slow", seconds=0) == "done"
    with pytest.raises(ToolError, match=r"lines\[1\]\.price") as bad_input:
        call_tool("sum_lines", lines=[LINES[0], {"name": "x", "price": "much"}])
    assert bad_input.value.code == "bad_input"
    with pytest.raises(ToolError) as bad_output:
        call_tool("lies")
    assert bad_output.value.code == "bad_output"


def test_a_tool_is_named_by_its_function_or_its_name() -> None:
    function = registry.get("sum_lines")
    assert function is not None
    assert call_tool(function.function, lines=[]) == 0
    assert call_tool("compute_tax", amount=100, tax_rate=0.08)["tax"] == 8.0
    with pytest.raises(NotFound, match="`len` is no registered tool"):
        call_tool(len)


def test_a_cancelled_context_stops_a_tool_that_looks() -> None:
    context = FakeContext(cancel_after=1)
    with pytest.raises(CallCancelled):
        call_tool("sum_lines", context, lines=LINES)
    assert [entry["name"] for entry in context.logs] == ["tea"]


def test_attempts_and_timeouts() -> None:
    with pytest.raises(ToolError, match="not yet"):
        call_tool("flaky", good_at=2)
    assert call_tool("flaky", FakeContext(attempt=2), good_at=2) == 2
    with pytest.raises(ToolTimeout):
        call_tool("slow", seconds=5)
    with pytest.raises(ToolTimeout):
        call_tool("slow_in_python", seconds=5)


def test_a_plan_runs_with_retries_and_maps() -> None:
    plan = {
        "steps": [
            {"id": "retried", "tool": "flaky", "input": {"good_at": 3}, "retry": {"max": 2, "backoff_s": 600}},
            {"id": "each", "tool": "sum_lines", "map": "input:lines", "input": {"lines": ["item"]}},
            {"id": "tax", "tool": "compute_tax", "map": "step:each", "input": {"amount": "item", "tax_rate": 0.1}},
        ],
        "inputs": {"lines": LINES},
        "final_synthesis": {"prompt_template": "first tax {{steps.tax[0].tax}}"},
    }
    result = run_plan(plan)
    assert result.status == "succeeded"
    assert result.steps["retried"] == 3
    assert [t["tax"] for t in result.steps["tax"]] == [0.35, 0.43]
    assert result.answer == "first tax 0.35"
    assert list(result.output) == ["retried", "tax"]


def test_a_plan_that_fails_says_why_and_a_bad_one_does_not_run() -> None:
    failed = run_plan({"steps": [{"id": "a", "tool": "flaky", "input": {"good_at": 99}}]})
    assert failed.status == "failed"
    assert [(e.step, e.message) for e in failed.errors] == [("a", "not yet")]
    with pytest.raises(PlanError) as bad:
        run_plan({"steps": [{"id": "a", "tool": "flakey", "input": {"good_at": 1}}]})
    assert bad.value.problems[0]["next"] == "Did you mean `flaky`?"


def test_a_once_call_of_unknown_outcome_leaves_the_job_waiting() -> None:
    result = run_plan({"steps": [{"id": "pay", "tool": "pay"}]})
    assert result.status == "waiting"
    assert result.errors[0].code == "timeout"


def test_messages_may_be_doubled_and_events_read() -> None:
    ran: list[int] = []
    with running_engine() as engine:
        own = Engine(engine.store.settings)

        @own.tool()
        def note(value: int) -> int:
            ran.append(value)
            return value

        job = own.submit([{"id": "a", "tool": "note", "input": {"value": 7}}])
        (message,) = own.mailbox.calls
        assert own.deliver(message) == "ok"
        assert own.deliver(message) == "job succeeded"
        assert ran == [7]
        assert own.result(job).output == 7
        assert [e.type for e in own.events(job)][-1] == "job.succeeded"


def test_the_server_is_gone_when_the_test_process_is_killed() -> None:
    code = (
        "import time\nfrom workers.testing import running_engine\nwith running_engine():\n  print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."})
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("valkey" in c.name() or "redis" in c.name() for c in children)
    process.kill()
    process.wait()
    wait_until(lambda: not _alive(children), description="the server ends with its parent")


def _alive(processes: list[psutil.Process]) -> list[Any]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
