"""Tests of the tools and of a plan, in one process: `pytest examples/test_my_tools.py`."""

import pytest

from examples.my_tool import split_bill
from examples.pool_tool import count_words
from orchestrator.errors import CallCancelled, ToolError
from workers.testing import FakeContext, call_tool, run_plan


def test_a_tool() -> None:
    assert call_tool(split_bill, total=90, people=3) == 33.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ToolError, match="people"):
        call_tool(split_bill, total=90, people="three")


def test_what_it_logs() -> None:
    context = FakeContext()
    assert call_tool(count_words, context, lines=["to be or", "not to be"])["total"] == 6
    assert [entry["line"] for entry in context.logs] == [1, 2]


def test_it_stops_when_cancelled() -> None:
    context = FakeContext(cancel_after=1)
    with pytest.raises(CallCancelled):
        call_tool(count_words, context, lines=["one", "two", "three"])
    assert len(context.logs) == 1


def test_a_plan() -> None:
    plan = {
        "steps": [
            {"id": "each", "tool": "split_bill", "map": "input:bills", "input": {"total": "item", "people": 2, "tip": 0}},
            {"id": "taxed", "tool": "compute_tax", "map": "step:each", "input": {"amount": "item", "tax_rate": 0.1}},
        ]
    }
    result = run_plan(plan, {"bills": [10, 30]})
    assert result.status == "succeeded"
    assert [t["total"] for t in result.output] == [5.5, 16.5]
