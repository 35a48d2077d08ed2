"""Ready plans, no model and no key: `python examples/run_demo.py [plan.json ...]`.

It uses the platform that runs (`toolweaver up`), else one that it starts and stops again.
"""

import asyncio
import json
import sys
from pathlib import Path

from orchestrator import execute_plan, final_synthesis

HERE = Path(__file__).parent
READY = [HERE / "example_plan_mended.json", HERE / "plans" / "discount_then_tax.json"]


async def main(paths: list[Path]) -> None:
    for path in paths:
        plan = json.loads(path.read_text())
        context = await execute_plan(plan)
        print(f"{path.name}: {await final_synthesis(plan, context)}")


asyncio.run(main([Path(p) for p in sys.argv[1:]] or READY))
