"""`/v1/plans`: the bundled plans, and the check that a plan passes before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from orchestrator.api.accept import JsonOnly, digest, find_plan
from orchestrator.api.services import Api, By
from orchestrator.models.access import Caller, Policy
from orchestrator.models.plan import Plan, PlanView
from orchestrator.models.request import CheckRequest, PlanSummary
from orchestrator.models.tool import ToolDefinition
from orchestrator.planner.check import check_plan
from orchestrator.planner.named import load_named, named_plans
from orchestrator.policy.permissions import denied

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.get("")
def list_plans() -> list[PlanSummary]:
    """The bundled plans."""
    return [_summary(name, load_named(name)) for name in named_plans()]


@router.get("/{name}")
def plan(name: str) -> Plan:
    """A bundled plan."""
    return Plan.model_validate(load_named(name))


@router.post("/check", dependencies=[JsonOnly])
def check(request: CheckRequest, api: Api, by: By) -> PlanView:
    """The plan as it would run for this caller, with what should be changed in it; or all its problems. Nothing runs."""
    digest("check", request.model_dump())  # refuses what is no sound JSON
    source, _ = find_plan(request.plan)
    allowed = tools_allowed(api.policies.of(by.tenant), by)
    checked = check_plan(source, api.tools(by.tenant), inputs=request.inputs, allowed=allowed)
    return PlanView(**dict(checked.plan), warnings=checked.warnings)


def tools_allowed(policy: Policy, by: Caller) -> Callable[[ToolDefinition], str | None]:
    """For `check_plan`: why a caller may not use a tool, and who may change that; None when it may."""

    def refusal(tool: ToolDefinition) -> str | None:
        error = denied(policy, tenant=by.tenant, caller=by.called, tool=tool)
        return None if error is None else f"{error.message}. {error.next or ''}".rstrip()

    return refusal


def _summary(name: str, plan: dict[str, Any]) -> PlanSummary:
    return PlanSummary(
        name=name,
        description=plan.get("description", ""),
        steps=tuple(s["id"] for s in plan["steps"]),
        inputs=plan.get("inputs", {}),
    )
