"""The programs of the reference documents, as they stand there, where they are complete."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "references"
ENGINEERS = tuple(f"u{n:03d}" for n in range(1, 21))
Q3 = tuple(("get_expenses", {"user_id": u}) for u in ENGINEERS)  # Q3 is the tool's default
TEAM = ("get_team_members", {"department": "engineering"})

CASES = (
    Harmless(
        "r1_code_execution_step",
        A,
        "output = {'total': sum(input['values'])}",
        value={"total": 60},
        input_data={"values": [10, 20, 30]},
    ),
    Harmless(
        "r1_exceeded_with_a_limit",
        A,
        r"""
# Step 1: LLM generates orchestration code
team = await get_team_members("engineering")
expenses = await asyncio.gather(*[get_expenses(m["id"], "Q3") for m in team])
exceeded = [m["name"] for m, exp in zip(team, expenses)
            if sum(e["amount"] for e in exp) > 10000]
print(json.dumps(exceeded))  # Only 2KB result
""",
        prints="[]\n",
        tools=("get_team_members", "get_expenses"),
        calls=(TEAM, *Q3),
    ),
    Harmless(
        "r1_planner_generates_code_like",
        A,
        r"""
budget = input["budget"]
team = await get_team_members("engineering")
expenses = await asyncio.gather(*[get_expenses(m["id"], "Q3") for m in team])
exceeded = [m for m, exp in zip(team, expenses) if sum(e["amount"] for e in exp) > budget]
output = [m["id"] for m in exceeded]
""",
        value=["u014", "u017", "u020"],
        input_data={"budget": 4000},
        tools=("get_team_members", "get_expenses"),
        calls=(TEAM, *Q3),
    ),
    Harmless(
        "r1_direct_usage",
        A,
        r"""
# All tools are available as async functions
users = await get_users(department="sales")
reports = await asyncio.gather(*[generate_report(user_id=u["id"]) for u in users])

# Filter and aggregate in code (not in LLM context!)
summary = {
    "total_users": len(users),
    "reports_generated": len(reports),
    "top_performers": [r["name"] for r in reports if r["score"] > 90]
}
print(json.dumps(summary))
""",
        prints=('{"total_users": 9, "reports_generated": 9, "top_performers": ["Person 33", "Person 39", "Person 45"]}\n'),
        tools=("get_users", "generate_report"),
        calls=10,
    ),
    Harmless(
        "r2_expense_trends",
        A,
        r"""
from tools.finance import get_expenses
from tools.hr import get_team_members
import asyncio

def analyze_trends(expenses):
    trends = {}
    for e in expenses:
        month = e["date"][:7]
        trends[month] = trends.get(month, 0) + e["amount"]
    return trends

team = await get_team_members(status="active")
expenses = await asyncio.gather(*[
    get_expenses(uid) for uid in [m["id"] for m in team]
])

trends = analyze_trends([e for exp in expenses for e in exp])
print(json.dumps(trends))
""",
        prints='{"2024-07": 103815.0, "2024-08": 69210.0, "2024-09": 36105.0}\n',
        tools=("get_team_members", "get_expenses"),
        calls=46,
    ),
    Harmless(
        "r2_high_spenders",
        A,
        r"""
from tools.hr import get_team_members
from tools.finance import get_expenses
import asyncio

team = await get_team_members()
expenses = await asyncio.gather(*[
    get_expenses(u["id"]) for u in team
])

totals = [(u["name"], sum(e["amount"] for e in exp)) for u, exp in zip(team, expenses)]
high = [(name, total) for name, total in totals if total > 12000]
print(f"High spenders: {high}")
high
""",
        value=[["Person 41", 12471.0], ["Person 44", 13371.0]],
        prints="High spenders: [('Person 41', 12471.0), ('Person 44', 13371.0)]\n",
        tools=("get_team_members", "get_expenses"),
        calls=46,
    ),
    Harmless(
        "r2_call_tool_stub",
        A,
        r"""
async def get_expenses(user_id, quarter):
    parameters = {"user_id": user_id, "quarter": quarter}
    result = await call_tool(
        server="finance",
        tool_name="get_expenses",
        parameters=parameters
    )
    return result

expenses_data = await get_expenses(user_id="u020", quarter="Q3")
total = sum(e["amount"] for e in expenses_data)

# Continue code execution
if total > 5000:
    print(f"Person 20 exceeded budget!")
""",
        prints="Person 20 exceeded budget!\n",
        tools=("get_expenses",),
        calls=(("get_expenses", {"user_id": "u020"}),),
    ),
    Harmless(
        "r2_new_tool_with_optional_parameter",
        A,
        r"""
from tools.general import echo

result = await echo(
    value={"param1": "value1", "param2": "optional_value"},
)

print(f"Result: {result}")
""",
        prints="Result: {'param1': 'value1', 'param2': 'optional_value'}\n",
        tools=("echo",),
        calls=1,
    ),
)
