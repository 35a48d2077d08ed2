"""The tools of an imaginary company: who works there, what each spent in a quarter, what each may spend on travel.

The answers are made up and always the same. `EXPENSES_LATENCY_S=1` lets a call take as long as one to a service would:
`get_expenses` from 0.3 to 1 of it, by person, `get_team_members` 0.2.
"""

import asyncio
import os
from datetime import date, timedelta
from random import Random
from typing import Literal

from pydantic import BaseModel

from orchestrator.catalog.register import tool
from orchestrator.errors import ToolError

Level = Literal["junior", "senior", "lead"]
Status = Literal["active", "left"]
Quarter = Literal["Q1", "Q2", "Q3", "Q4"]
Category = Literal["travel", "lodging", "meals", "software", "office"]

YEAR, ACTIVE, LEFT = 2026, 45, 3
ROWS = range(32, 41)
TRAVEL_BUDGETS: dict[Level, float] = {"junior": 1800, "senior": 2600, "lead": 3600}
FIRST = ("Aiko", "Amara", "Anders", "Bilal", "Carla", "Chidi", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Lucia")
LAST = ("Abe", "Berg", "Costa", "Eze", "Haddad", "Lopes", "Lund", "Nasser", "Novak", "Okoro", "Sato")
SPENT_ON: dict[Category, tuple[tuple[str, float, float], ...]] = {
    "travel": (("Rail ticket", 40, 180), ("Flight, economy", 120, 640), ("Taxi from the airport", 18, 75)),
    "lodging": (("Hotel, one night", 90, 240), ("Hotel, breakfast included", 110, 280)),
    "meals": (("Lunch with a customer", 18, 95), ("Dinner during a trip", 15, 60), ("Catering for a workshop", 80, 320)),
    "software": (("Licence of a design tool", 12, 60), ("Storage of backups", 5, 45)),
    "office": (("Stationery", 4, 40), ("Monitor cable and adapter", 9, 70)),
}


class Member(BaseModel):
    """A person of the company."""

    id: str
    name: str
    email: str
    department: str
    level: Level
    location: str
    manager_id: str
    status: Status
    hired_on: date


class Expense(BaseModel):
    """One line of an expense report; the amount is in EUR."""

    id: str
    date: date
    category: Category
    description: str
    amount: float
    currency: Literal["EUR"] = "EUR"
    paid_by: Literal["company card", "own money"]
    cost_centre: str
    receipt: str


class Report(BaseModel):
    """What one person spent in one quarter."""

    user_id: str
    quarter: Quarter
    expenses: list[Expense]


class Budget(BaseModel):
    """What a person of each level may spend on travel in the quarter, in EUR."""

    quarter: Quarter
    travel: dict[Level, float]


@tool(domain="hr", effect="none", timeout_s=30)
async def get_team_members(department: str | None = None, status: Status = "active") -> list[Member]:
    """The people of the company: each has `id`, `name`, `department`, `level` (junior, senior or lead), `location` and more.

    Args:
        department: Only those of it; default: all.
        status: `active`, or those who `left`.
    """
    await _takes(0.2)
    return [m for m in TEAM if m.status == status and department in (None, m.department)]


@tool(
    domain="finance",
    effect="none",
    timeout_s=30,
    examples=[{"scenario": "What one person spent in the third quarter", "input": {"user_id": "u07", "quarter": "Q3"}}],
)
async def get_expenses(user_id: str, quarter: Quarter = "Q3") -> Report:
    """Every expense of a person in a quarter: `expenses`, each with `date`, `category`, `description`, `amount` in EUR and more.

    Categories are travel, lodging, meals, software and office.

    Args:
        user_id: The `id` of a team member.
    """
    member = next((m for m in TEAM if m.id == user_id), None)
    if member is None:
        raise ToolError(f"there is no `{user_id}`", code="not_found", next="Take an `id` that `get_team_members` gives.")
    chance = Random(f"{user_id} {quarter}")
    await _takes(chance.uniform(0.3, 1))
    return Report(user_id=user_id, quarter=quarter, expenses=_expenses(member, quarter, chance))


@tool(domain="finance", effect="none", timeout_s=30)
def get_budget(quarter: Quarter = "Q3") -> Budget:
    """What each level may spend on travel in a quarter: `travel`, an amount in EUR by level."""
    return Budget(quarter=quarter, travel=TRAVEL_BUDGETS)


async def _takes(share: float) -> None:
    await asyncio.sleep(share * float(os.environ.get("EXPENSES_LATENCY_S", "0")))


def _expenses(member: Member, quarter: Quarter, chance: Random) -> list[Expense]:
    first = date(YEAR, 3 * int(quarter[1]) - 2, 1)
    days = sorted(chance.randrange(90) for _ in range(chance.choice(ROWS)))
    return [_expense(f"{member.id}-{quarter}-{n:02}", first + timedelta(day), member, chance) for n, day in enumerate(days, 1)]


def _expense(id: str, day: date, member: Member, chance: Random) -> Expense:
    weights = {"junior": (3, 2, 5, 2, 3), "senior": (4, 3, 5, 2, 1), "lead": (6, 4, 5, 1, 1)}[member.level]
    category = chance.choices(list(SPENT_ON), weights)[0]
    description, least, most = chance.choice(SPENT_ON[category])
    return Expense(
        id=id,
        date=day,
        category=category,
        description=description,
        amount=round(chance.uniform(least, most), 2),
        paid_by=chance.choice(("company card", "own money")),
        cost_centre=f"{member.department}-{member.location}".lower(),
        receipt=f"receipts/{YEAR}/{id}.pdf",
    )


def _member(number: int) -> Member:
    first, last = FIRST[number % len(FIRST)], LAST[number % len(LAST)]
    return Member(
        id=f"u{number:02}",
        name=f"{first} {last}",
        email=f"{first}.{last}@company.example".lower(),
        department=("engineering", "sales", "support")[number % 3],
        level=("junior", "senior", "senior", "junior", "lead")[number % 5],
        location=("berlin", "lisbon", "osaka", "nairobi")[number % 4],
        manager_id=f"u{number // 10 * 10 + 4:02}",
        status="active" if number <= ACTIVE else "left",
        hired_on=date(2015, 1, 12) + timedelta(days=83 * number),
    )


TEAM = [_member(number) for number in range(1, ACTIVE + LEFT + 1)]
