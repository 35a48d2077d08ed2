"""Puts `program.py` into the plan: `python examples/expenses/plan.py` writes `plan.json` anew."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def plan() -> dict[str, Any]:
    """The budgets by a call, then a program that asks for everybody's expenses and keeps what matters."""
    return {
        "description": "Who spent more on travel than their level may, and what everybody spent by category.",
        "inputs": {"quarter": "Q3"},
        "steps": [
            {"id": "budget", "tool": "get_budget", "input": {"quarter": "input:quarter"}},
            {
                "id": "expenses",
                "tool": "code_exec",
                "input": {
                    "code": (HERE / "program.py").read_text(),
                    "input_data": {"quarter": "input:quarter", "budget": "step:budget"},
                    "tools": ["get_team_members", "get_expenses"],
                },
            },
        ],
        "output": "step:expenses",
    }


if __name__ == "__main__":
    (HERE / "plan.json").write_text(json.dumps(plan(), indent=2, ensure_ascii=False) + "\n")
