"""Programs in a plan are judged before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.errors import PlanError
from orchestrator.planner.check import check_plan

TAX = "from tools.finance import compute_tax\noutput = await compute_tax(100, 0.08)"


def plan(code: Any, tool: str = "code_exec", **more: Any) -> dict[str, Any]:
    return {"steps": [{"id": "p", "tool": tool, "input": {"code": code, **more}}]}


@pytest.mark.parametrize(
    "given",
    [
        plan(TAX),
        plan({"$literal": TAX}, "run_program"),
        plan("input:code"),
        plan(TAX, tools=["compute_tax"]),
        plan(TAX, tools="input:tools"),
        plan(TAX, tools=["input:tool"]),
        plan(TAX.replace("finance", "money"), "run_program", domains={"compute_tax": "money"}),
        plan("output = {'total': sum(input['values'])}", input_data={"values": [10, 20, 30]}),
    ],
)
def test_a_plan_with_a_program_that_may_run_passes(given: dict[str, Any]) -> None:
    assert check_plan(given, bundled_catalog()).plan.steps


@pytest.mark.parametrize(
    ("given", "path", "code", "said", "move"),
    [
        (plan("import os"), "code", "dangerous_import", "line 1, column 1: Dangerous import detected: os", "Programs cannot touch"),
        (plan("x = (1"), "code", "syntax", "line 1, column 5: Syntax error", "Close it"),
        (
            plan("output = await compute_taxes(1, 2)"),
            "code",
            "undefined",
            "no tool or name compute_taxes",
            "Did you mean compute_tax",
        ),
        (plan(TAX, tools=["merge_items"]), "code", "no_such_tool", "compute_tax", "There are merge_items"),
        (plan(TAX, tools=["compute_taxi"]), "tools", "not_found", "There is no tool `compute_taxi`", "toolweaver tools"),
        (plan(TAX, tools=["code_exec"]), "tools", "permission_denied", "may not be called by programs", "cannot start another"),
        (plan("1\n" * 200_000), "code", "limit_exceeded", "64 KiB", ""),
    ],
    ids=["import", "syntax", "name", "not granted", "no tool", "code in code", "long"],
)
def test_a_program_that_cannot_run_is_a_problem_of_the_plan(
    given: dict[str, Any], path: str, code: str, said: str, move: str
) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(given, bundled_catalog())
    problem = caught.value.problems[0]
    assert problem["path"] == f"steps[0].input.{path}"
    assert said in problem["message"], problem
    assert move in problem["next"], problem
    assert problem["code"] == code
