"""Every bad plan gets exactly its problems, all at once, each with place, message and next move."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import PlanError, from_problem, to_problem
from orchestrator.planner.check import check_plan
from orchestrator.planner.locate import read_text
from tests.unit.bad_plans import BAD_PLANS, BadPlan
from tests.unit.sample_catalog import sample_catalog


def problems_of(bad: BadPlan) -> list[dict[str, Any]]:
    with pytest.raises(PlanError) as caught:
        check_plan(read_text(bad.plan) if isinstance(bad.plan, str) else bad.plan, sample_catalog(), inputs=bad.inputs)
    return caught.value.problems


def test_the_table_is_as_large_as_promised_and_names_each_plan_once() -> None:
    assert len(BAD_PLANS) >= 45
    assert len({b.name for b in BAD_PLANS}) == len(BAD_PLANS)


@pytest.mark.parametrize("bad", BAD_PLANS, ids=lambda b: b.name)
def test_a_bad_plan_gets_exactly_its_problems(bad: BadPlan) -> None:
    found = problems_of(bad)
    assert sorted((p["path"], p["code"]) for p in found) == sorted((path, code) for path, code, _ in bad.expected)
    for path, code, fragment in bad.expected:
        texts = [f"{p['message']} {p['next']}" for p in found if (p["path"], p["code"]) == (path, code)]
        assert any(fragment in text for text in texts), texts


@pytest.mark.parametrize("bad", BAD_PLANS, ids=lambda b: b.name)
def test_every_message_is_a_short_sentence_with_a_next_move(bad: BadPlan) -> None:
    for problem in problems_of(bad):
        for text in (problem["message"], problem["next"]):
            assert text.endswith((".", "?")), text
            assert ".." not in text.replace("..`", "").replace("...", "").replace("a..b", ""), text
            assert 5 < len(text) < 400, text


def test_the_problems_cross_the_wire_unchanged() -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(BAD_PLANS[-1].plan, sample_catalog())
    arrived = from_problem(to_problem(caught.value))
    assert isinstance(arrived, PlanError)
    assert arrived.problems == caught.value.problems
    assert str(arrived) == str(caught.value)
    assert len(str(arrived).splitlines()) == 1 + len(BAD_PLANS[-1].expected)
