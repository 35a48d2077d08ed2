"""Tools that programs of tests call; what they do is noted in Redis, so that a test can count it."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from orchestrator.errors import ToolError
from orchestrator.state.connection import connect


def note(context: ToolContext, what: str) -> None:
    connect(context.settings).rpush(f"test:{context.job_id}", what)


@tool(effect="none", domain="finance")
async def get_expenses(user_id: str, context: ToolContext, quarter: str = "Q3", wait_s: float = 0.0) -> dict[str, Any]:
    """The expenses of a person."""
    note(context, f"expenses {user_id}")
    try:
        await asyncio.sleep(wait_s)
    except asyncio.CancelledError:
        note(context, "cancelled")
        raise
    return {"user_id": user_id, "quarter": quarter, "total": 100 * len(user_id), "caller": context.caller.model_dump()}


@tool(effect="none", domain="hr")
def get_team_members(count: int) -> list[dict[str, Any]]:
    """The members of a team; runs in a process of the pool `function`."""
    return [{"id": f"emp_{n}"} for n in range(count)]


@tool(effect="none", domain="finance")
async def refuse(why: str) -> None:
    """Fails."""
    raise ToolError(f"refused: {why}", code="refused")


@tool(effect="once", domain="finance")
async def pay(amount: int, context: ToolContext, wait_s: float = 0.0) -> int:
    """Pays."""
    note(context, f"paid {amount}")
    await asyncio.sleep(wait_s)
    return amount


@tool(effect="none", domain="finance", allowed_callers=("direct",))
async def for_plans_only() -> int:
    """Not for programs."""
    return 1


@tool(effect="none", domain="files", requires=("filesystem:delete",))
async def wipe() -> int:
    """Needs a permission."""
    return 1
