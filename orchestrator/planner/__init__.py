"""Plans: read, judged before anything runs, and worded into an answer."""

from orchestrator.planner.check import CheckedPlan, check_plan
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.synthesis import final_synthesis_text, plan_output

__all__ = ["CheckedPlan", "check_plan", "final_synthesis_text", "load_named", "named_plans", "plan_output"]
