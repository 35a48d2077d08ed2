"""From a sentence to an answer: `python examples/run_planner_demo.py "Process this receipt and categorize items" [picture ...]`.

The model that PLANNER_PROVIDER names makes the plan; without one, or while none answers, a plan template does if it fits the
sentence. The plan runs on the platform that runs (`toolweaver up`), else on one that is started and stopped again.
"""

import asyncio
import sys

from orchestrator import execute_plan, final_synthesis
from orchestrator.errors import ToolWeaverError
from orchestrator.planner import LargePlanner, PlanRequest

SENTENCE = "Process this receipt and categorize items"


async def main(sentence: str, pictures: list[str]) -> None:
    inputs = {"files": pictures}
    made = await LargePlanner().make_plan(PlanRequest(sentence, inputs))
    print("planned by", "a model:" if made.source == "model" else f"the template {made.template}:")
    for step in made.plan.steps:
        print(f"  {step.id}: {step.tool}")
    used = made.plan.model_dump_json()
    context = await execute_plan(made.plan, {name: value for name, value in inputs.items() if f'"input:{name}' in used})
    print(await final_synthesis(made.plan, context))


given = sys.argv[1:] or [SENTENCE]
try:
    asyncio.run(main(given[0], given[1:] or ["bundled:grocery"]))
except ToolWeaverError as error:
    sys.exit(f"{error.message}\n{error.next or ''}".rstrip())
