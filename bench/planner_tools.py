"""The tools of `bench/planner.py` beside the bundled ones: those of examples/expenses, users to look up, and what adds up."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.expenses.tools import get_budget, get_expenses, get_team_members
from orchestrator.catalog.register import tool

__all__ = ["get_budget", "get_expenses", "get_team_members"]
LOOKUP_S = 0.3  # as a directory on the network may take
CITIES = ("Berlin", "Lisbon", "Osaka", "Nairobi", "Lima")


@tool(domain="directory", effect="none", timeout_s=30)
async def get_user(user_id: str) -> dict[str, Any]:
    """A user's record: `id`, `name`, `city`, `plan`, `seats` and the latest sign-ins.

    Args:
        user_id: such as `u007`.
    """
    await asyncio.sleep(LOOKUP_S)
    chance = Random(user_id)
    sign_ins = [{"day": f"2026-{n:02}-11", "from": chance.choice(CITIES), "ok": True} for n in range(1, 13)]
    return {
        "id": user_id, "name": f"User {user_id[1:]}", "city": chance.choice(CITIES), "plan": chance.choice(("free", "team")),
        "seats": chance.randrange(1, 90), "sign_ins": sign_ins,
    }  # fmt: skip


@tool(domain="directory", effect="none")
def seats_by_city(users: list[dict[str, Any]]) -> dict[str, int]:
    """How many seats the users of each city have together."""
    seats: Counter[str] = Counter()
    for user in users:
        seats[user["city"]] += user["seats"]
    return dict(sorted(seats.items()))


@tool(domain="hr", effect="none", timeout_s=30)
async def first_members(number: int) -> list[Any]:
    """The first so many people of the company, as `get_team_members` gives them."""
    return (await get_team_members())[:number]


@tool(domain="finance", effect="none")
def travel_over_budget(team: list[dict[str, Any]], reports: list[dict[str, Any]], budget: dict[str, Any]) -> list[dict[str, Any]]:
    """Who spent more on travel than their level may: `name`, `spent`, `budget`. `reports` are aligned with `team`."""
    found = []
    for member, report in zip(team, reports, strict=True):
        spent = round(sum(e["amount"] for e in report["expenses"] if e["category"] == "travel"), 2)
        allowed = budget["travel"][member["level"]]
        if spent > allowed:
            found.append({"name": member["name"], "spent": spent, "budget": allowed})
    return sorted(found, key=lambda person: person["name"])


@tool(domain="finance", effect="none")
def amount_by_category(receipts: list[dict[str, Any] | None]) -> dict[str, float]:
    """What receipts cost together, by category; each is as `expense_categorizer` gives it."""
    totals: Counter[str] = Counter()
    for receipt in receipts:
        for item in receipt["items"] if receipt else ():
            totals[item["category"]] += item["amount"] or 0
    return {name: round(total, 2) for name, total in sorted(totals.items())}
