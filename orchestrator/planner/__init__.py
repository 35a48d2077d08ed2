"""Plans: made from a request in words, read, judged before anything runs, and worded into an answer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.planner.check import CheckedPlan, check_plan
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.synthesis import final_synthesis_text, plan_output

if TYPE_CHECKING:
    from orchestrator.planner.asked import Former, Planned, PlanRequest
    from orchestrator.planner.large import LargePlanner

__all__ = [
    "CheckedPlan",
    "Former",
    "LargePlanner",
    "PlanRequest",
    "Planned",
    "check_plan",
    "final_synthesis_text",
    "load_named",
    "named_plans",
    "plan_output",
]

_IN = {"LargePlanner": "large", "Former": "asked", "PlanRequest": "asked", "Planned": "asked"}


def __getattr__(name: str) -> Any:
    """The names that bring more along, loaded on first use: who checks a plan needs no model and no search."""
    if name not in _IN:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_IN[name]}"), name)
