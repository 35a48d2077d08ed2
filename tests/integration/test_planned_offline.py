"""A sentence and some pictures, no model at all: the plan of a template runs on the bundled tools, and the answer is in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalog.register import registry
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.large import LargePlanner
from orchestrator.planner.synthesis import final_synthesis_text
from orchestrator.settings import Settings
from workers.testing import Engine

pytestmark = pytest.mark.integration
PICTURES = ["bundled:grocery", "bundled:cafe", "bundled:notice"]


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("process these receipts and tell me what we spent on food", "You spent "),
        ("process these receipts and tell me how much we spent in total", "You spent "),
        ("process these receipts and show me the spending by category", "food: "),
        ("list these receipts with date, merchant and total", ""),
    ],
)
async def test_the_sentence_is_planned_run_and_answered(settings: Settings, tmp_path: Path, sentence: str, answer: str) -> None:
    inputs = {"files": PICTURES}
    offline = settings.model_copy(update={"home": tmp_path, "planner_provider": None})
    planned = await LargePlanner(settings=offline).make_plan(PlanRequest(sentence, inputs))
    assert planned.source == "template"
    result = Engine(settings, registry).run_plan(planned.plan, inputs)
    assert (result.status, result.has_errors) == ("succeeded", False)
    text = final_synthesis_text(planned.plan, result.steps)
    assert text is not None
    assert answer in text
    assert "1 picture is no receipt." in text
    if "food" in sentence:
        receipts = [r for r in result.steps["merge"] if r is not None]
        food = {r["currency"]: c["total"] for r in receipts for c in r["categories"] if c["category"] == "food"}
        assert len(food) == 2
        assert all(f"{total:.2f} {currency}" in text for currency, total in food.items())
