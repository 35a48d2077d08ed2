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
        problems: list[Problem] = [*reused_ids(data, self.request.former)]
        used = inputs_used(data)
        inputs = {k: v for k, v in self.inputs.items() if k in used}
        try:
            plan = self._check(data, inputs)
            narrowed, refused = self._narrowed(plan)
            problems += refused
            if narrowed != plan:
                plan = self._check(narrowed, inputs)
        except PlanError as error:
            return None, [*problems, *error.problems]
        return (None, problems) if problems else (plan, [])

    def _check(self, data: Plan | Mapping[str, Any], inputs: Mapping[str, Any]) -> Plan:
        return check_plan(data, self.usable.seen, inputs=inputs, allowed=self.usable.refusal).plan

    def _narrowed(self, plan: Plan) -> tuple[Plan, list[Problem]]:
        """The plan with its programs granted no other tools than those that the request names, if it names any.

        A program that is granted all of the tenant's could call the rest in ways that nobody sees in its text.
        """
        if self.usable.named is None:
            return plan, []
        steps, problems = [], []
        for at, step in enumerate(plan.steps):
            tool = self.usable.seen.resolve(step.tool)
            if tool is None or tool.type != "code_exec":
                steps.append(step)
                continue
            named = step.input.get("tools")
            if named is not None and not self._all_granted(named):
                problems.append(_not_granted(at))
            granted = self.usable.granted() if named is None else named
            steps.append(step.model_copy(update={"input": {**step.input, "tools": granted}}))
        return plan.model_copy(update={"steps": tuple(steps)}), problems

    def _all_granted(self, named: Any) -> bool:
        found = [self.usable.seen.resolve(n) if isinstance(n, str) else None for n in named] if isinstance(named, list) else [None]
        return all(tool is not None and tool.name in self.usable.granted() for tool in found)

    def _unused(self, plan: Plan) -> Iterator[str]:
        left = sorted(self.request.inputs.keys() - inputs_used(plan))
        if left:
            yield f"the plan does not use {'the input' if len(left) == 1 else 'the inputs'} {', '.join(left)}"


def _not_granted(at: int) -> Problem:
    return {
        "path": f"steps[{at}].input.tools",
        "code": "permission_denied",
        "message": "`tools` of a program must be a list of names of tools that this request may use, no reference.",
        "next": "Write the names themselves, or leave `tools` out.",
    }
