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
from orchestrator.planner.problems import join
from orchestrator.planner.replan import inputs_of, inputs_used, reused_ids
from orchestrator.planner.steps import CODE_EXEC, FUNCTION_CALL

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
        self.tools = usable.tools()
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
        refused: list[Problem] = [*self._refusals(data), *reused_ids(data, self.request.former)]
        places = {p["path"] for p in refused}
        used = inputs_used(data)
        try:
            checked = check_plan(data, self.tools, inputs={k: v for k, v in self.inputs.items() if k in used})
        except PlanError as error:
            return None, [*refused, *(p for p in error.problems if p.get("path") not in places)]
        if refused:
            return None, list(refused)
        return checked.plan, []

    def _refusals(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for place, name in _tools_named(data):
            tool = self.usable.seen.resolve(name)
            why = self.usable.refusal(tool) if tool is not None else None
            if why is not None:
                move = 'Use another tool, or answer {"cannot": "..."} when none will do.'
                yield {"path": place, "code": "permission_denied", "message": f"{why}.", "next": move}

    def _unused(self, plan: Plan) -> Iterator[str]:
        left = sorted(self.request.inputs.keys() - inputs_used(plan))
        if left:
            yield f"the plan does not use {'the input' if len(left) == 1 else 'the inputs'} {', '.join(left)}"


def _tools_named(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a plan names tools: in its steps, in `function_call`, in the list of a program."""
    steps = data.get("steps")
    for n, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        if not isinstance(step, Mapping):
            continue
        place, name, given = f"steps[{n}]", step.get("tool"), step.get("input")
        arguments = given if isinstance(given, Mapping) else {}
        if name == FUNCTION_CALL:
            name, place = arguments.get("name"), join(f"{place}.input", "name")
        else:
            place = f"{place}.tool"
        if isinstance(name, str):
            yield place, name
        if name in (CODE_EXEC, "run_program") and isinstance(arguments.get("tools"), list):
            at = f"steps[{n}].input"
            yield from ((join(at, "tools", i), t) for i, t in enumerate(arguments["tools"]) if isinstance(t, str))
