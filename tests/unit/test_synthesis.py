"""The answer of a job: its output, its words, and the bundled plans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.errors import NotFound
from orchestrator.models.plan import Plan
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.synthesis import final_synthesis_text, placeholders, plan_output
from orchestrator.publisher.graph import build_graph


def plan(*ids: str, template: str | None = None, output: str | None = None, **inputs: Any) -> Plan:
    synthesis = {"final_synthesis": {"prompt_template": template}} if template is not None else {}
    steps = [{"id": i, "tool": "t", "input": inputs.get(i, {})} for i in ids]
    return Plan.model_validate({"steps": steps, "output": output} | synthesis)


def answer(template: str, steps: dict[str, Any]) -> str | None:
    return final_synthesis_text(plan("a", template=template), steps)


def test_without_a_template_there_are_no_words() -> None:
    assert final_synthesis_text(plan("a"), {"a": 1}) is None


def test_all_results_are_shown_by_step_id() -> None:
    text = answer("Summary:\n{{steps}}", {"step-1": {"text": "héllo"}, "step-2": 8.25, "step-3": "two\nlines", "step-4": None})
    assert text == 'Summary:\nstep-1:\n  {\n    "text": "héllo"\n  }\nstep-2: 8.25\nstep-3:\n  two\n  lines\nstep-4: null'


def test_one_value_is_shown_as_it_reads() -> None:
    steps = {"a": {"name": "Café", "sum": 3.5, "items": [{"x": [1, 2]}], "none": None}}
    assert answer("{{steps.a.name}} {{ steps.a.sum }} {{steps.a.items[0].x[1]}} {{steps.a.none}}", steps) == "Café 3.5 2 null"


@pytest.mark.parametrize("template", ["{{steps.b}}", "{{steps.a.x}}", "{{steps.a[0]}}", "{{steps.a.n.m}}"])
def test_what_is_not_there_reads_null(template: str) -> None:
    assert answer(template, {"a": {"n": 1}}) == "null"


def test_a_result_that_looks_like_a_template_is_not_filled_again() -> None:
    assert answer("{{steps.a}}", {"a": "{{steps.secret}}", "secret": "s"}) == "{{steps.secret}}"


def test_braces_that_are_no_placeholder_stay() -> None:
    assert answer('{"json": {{steps.a}}} {{other}} { {steps} }', {"a": 1}) == '{"json": 1} {{other}} { {steps} }'


def test_placeholders_are_told_apart_from_nonsense() -> None:
    found = {inside: str(reference) for inside, reference in placeholders("{{steps}} {{steps.a.b[0]}} {{steps.a..b}} {{x}}")}
    assert found == {"steps": "None", "steps.a.b[0]": "step:a.b[0]", "steps.a..b": "None", "x": "None"}


def output(made: Plan, steps: dict[str, Any]) -> Any:
    return plan_output(made, build_graph(made), steps)


def test_the_output_is_what_the_plan_names() -> None:
    assert output(plan("a", "b", output="step:a.x[1]"), {"a": {"x": [1, 2]}, "b": 3}) == 2


def test_an_output_that_leads_nowhere_is_none() -> None:
    assert output(plan("a", output="step:a.x"), {"a": {}}) is None
    assert output(plan("a", output="step:a.x.y"), {}) is None


def test_without_an_output_the_last_step_answers() -> None:
    assert output(plan("b", "a", b={"x": "step:a"}), {"a": 1, "b": {"y": 2}}) == {"y": 2}


def test_several_last_steps_answer_by_id_with_none_for_the_skipped() -> None:
    assert output(plan("a", "b", "c", b={"x": "step:a"}, c={"x": "step:a"}), {"a": 1, "b": 2}) == {"b": 2, "c": None}


def test_bundled_plans_are_objects_with_steps() -> None:
    assert "receipts" in named_plans()
    for name in named_plans():
        assert load_named(name)["steps"], name
        assert json.dumps(load_named(name))


@pytest.mark.parametrize(
    ("name", "move"), [("reciepts", "Did you mean `receipts`?"), ("../../secret", "There are: "), ("", "There are: ")]
)
def test_an_unknown_plan_is_refused_with_the_nearest_name(name: str, move: str) -> None:
    with pytest.raises(NotFound) as caught:
        load_named(name)
    assert move in str(caught.value)
