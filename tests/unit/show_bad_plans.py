"""Prints every bad plan's messages as a user would see them: `python -m tests.unit.show_bad_plans [part of a name]`."""

from __future__ import annotations

import json
import sys

from orchestrator.errors import PlanError
from orchestrator.planner.check import check_plan
from orchestrator.planner.locate import read_text, render_problem
from tests.unit.bad_plans import BAD_PLANS, BadPlan
from tests.unit.sample_catalog import sample_catalog


def main() -> None:
    wanted = " ".join(sys.argv[1:])
    for bad in BAD_PLANS:
        if wanted in bad.name:
            print(f"\n=== {bad.name}\n")
            print(shown(bad))


def shown(bad: BadPlan) -> str:
    """The problems of a plan, each beneath its line."""
    text = bad.plan if isinstance(bad.plan, str) else json.dumps(bad.plan, indent=2, ensure_ascii=False)
    try:
        check_plan(read_text(text), sample_catalog(), inputs=bad.inputs)
    except PlanError as error:
        return "\n\n".join([error.message, *(render_problem(text, "plan.json", p) for p in error.problems)])
    return "this plan is good"


if __name__ == "__main__":
    main()
