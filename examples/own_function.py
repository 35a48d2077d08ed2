"""A function of this script as a tool: it runs here, in a thread, as part of the engine; no worker has to know it."""

import asyncio

from orchestrator import execute_plan
from orchestrator.hybrid_dispatcher import register_function


@register_function("my_function", effect="none")
def my_function(arg1: str, arg2: int) -> dict[str, str]:
    """Repeats a text."""
    return {"result": arg1 * arg2}


plan = {"steps": [{"id": "say", "tool": "my_function", "input": {"arg1": "ab", "arg2": 3}}]}

if __name__ == "__main__":
    print(asyncio.run(execute_plan(plan)))
