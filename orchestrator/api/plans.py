"""`/v1/plans`: the bundled plans, and the check that a plan passes before it runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from orchestrator.api.accept import JsonOnly, digest, find_plan
from orchestrator.api.services import Api, Tenant
from orchestrator.models.plan import Plan, PlanView
from orchestrator.models.request import CheckRequest, PlanSummary
from orchestrator.planner.check import check_plan
from orchestrator.planner.named import load_named, named_plans

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
def check(request: CheckRequest, api: Api, tenant: Tenant) -> PlanView:
    """The plan as it would run, with what should be changed in it; all its problems at once when it has some. Nothing runs."""
    digest("check", request.model_dump())  # refuses what is no sound JSON
    source, _ = find_plan(request.plan)
    checked = check_plan(source, api.tools(tenant), inputs=request.inputs)
    return PlanView(**dict(checked.plan), warnings=checked.warnings)


def _summary(name: str, plan: dict[str, Any]) -> PlanSummary:
    return PlanSummary(
        name=name,
        description=plan.get("description", ""),
        steps=tuple(s["id"] for s in plan["steps"]),
        inputs=plan.get("inputs", {}),
    )
