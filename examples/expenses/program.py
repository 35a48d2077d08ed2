import asyncio

from tools.finance import get_expenses
from tools.hr import get_team_members

quarter, budget = input["quarter"], input["budget"]["travel"]

team = await get_team_members()
reports = await asyncio.gather(*(get_expenses(member["id"], quarter) for member in team))

totals = {}
over_budget = []
for member, report in zip(team, reports, strict=True):
    spent = {}
    for expense in report["expenses"]:
        spent[expense["category"]] = spent.get(expense["category"], 0) + expense["amount"]
    for category, amount in spent.items():
        totals[category] = totals.get(category, 0) + amount
    allowed = budget[member["level"]]
    if spent.get("travel", 0) > allowed:
        over_budget.append({"name": member["name"], "spent": round(spent["travel"], 2), "budget": allowed})

print(f"{sum(len(report['expenses']) for report in reports)} expenses of {len(team)} people")
output = {
    "over_travel_budget": sorted(over_budget, key=lambda person: person["budget"] - person["spent"]),
    "totals": {category: round(totals[category], 2) for category in sorted(totals)},
}
