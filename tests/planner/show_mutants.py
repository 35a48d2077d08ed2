"""Prints what is said of every broken plan: `python -m tests.planner.show_mutants [kind]`; `good`: of every good one."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.errors import PlanError
from orchestrator.planner.check import check_plan
from orchestrator.planner.fixes import fix_text
from tests.planner.good_plans import BASES
from tests.planner.lab import facts
from tests.planner.mutants import broken, good
from tests.planner.rights import allowed_by, seen


def main() -> None:
    wanted = " ".join(sys.argv[1:])
    mutants = good(BASES, facts()) if wanted == "good" else [m for m in broken(BASES, facts()) if wanted in m.kind]
    for mutant in mutants:
        try:
            found = check_plan(mutant.plan, seen(), inputs=mutant.inputs, allowed=allowed_by(mutant.rules)).warnings
            head = "" if wanted == "good" else "MISSED "
        except PlanError as error:
            found, head = tuple(error.problems), "REFUSED " if wanted == "good" else ""
        if found or head:
            print(f"\n{head}[{mutant.kind}] {mutant.base}: {mutant.what[:150]}")
        for problem in found:
            print(shown(problem))


def shown(problem: dict[str, Any]) -> str:
    fix = f"\n      fix  {fix_text(problem['fix'])}" if "fix" in problem else ""
    told = (problem["message"], f"e.g. {problem['example']}", problem["next"])
    return "\n      ".join((f"  {problem['code']} at {problem['path']}", *told))[:1500] + fix[:300]


if __name__ == "__main__":
    main()
