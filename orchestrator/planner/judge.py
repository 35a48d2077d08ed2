"""The verdict on a plan that a model wrote: the check that every plan passes, and what this request may use.

What is refused here stays refused, whatever any text in the prompt said: the model has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import PlanError
from orchestrator.models.plan import Plan
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.check import check_plan
from orchestrator.planner.find import Usable
from orchestrator.planner.fixes import apply_fixes, fix_text
from orchestrator.planner.replan import inputs_of, inputs_used, reused_ids

_ROUNDS = 3  # of certain fixes
Problem = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """A plan that may run, or all that is wrong with it; `notes` name what was mended and what was not used."""

    plan: Plan | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


class Judge:
    """Judges plans for one request."""

    def __init__(self, usable: Usable, request: PlanRequest) -> None:
        self.usable, self.request = usable, request
        self.inputs = inputs_of(request)

    def judge(self, data: Mapping[str, Any]) -> Judged:
        """The plan as it would run; fixes that are certain are made first, which costs no call of a model."""
        notes: list[str] = []
        for _ in range(_ROUNDS):
            plan, problems = self._checked(data)
            if plan is not None:
                return Judged(plan, notes=(*notes, *self._unused(plan)))
            mended = apply_fixes(data, problems)
            if mended == data:
                break
            notes += [f"mended: {fix_text(p['fix'])}" for p in problems if p.get("fix")]
            data = mended
        return Judged(None, tuple(problems))

    def _checked(self, data: Mapping[str, Any]) -> tuple[Plan | None, list[Problem]]:
        reused: list[Problem] = [*reused_ids(data, self.request.former)]
        used = inputs_used(data)
        inputs = {k: v for k, v in self.inputs.items() if k in used}
        try:
            checked = check_plan(data, self.usable.seen, inputs=inputs, allowed=self.usable.refusal)
        except PlanError as error:
            return None, [*reused, *error.problems]
        if reused:
            return None, reused
        return checked.plan, []

    def _unused(self, plan: Plan) -> Iterator[str]:
        left = sorted(self.request.inputs.keys() - inputs_used(plan))
        if left:
            yield f"the plan does not use {'the input' if len(left) == 1 else 'the inputs'} {', '.join(left)}"
