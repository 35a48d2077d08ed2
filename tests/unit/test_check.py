"""What a good plan becomes, what the check leaves open, and how it grows with the plan."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.errors import PlanError
from orchestrator.models.plan import Plan, Reference
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolParameter
from orchestrator.planner.check import CheckedPlan, check_plan
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.problems import MAX_PROBLEMS
from tests.unit.bad_plans import README_PLAN
from tests.unit.sample_catalog import sample_catalog

RECEIPTS: dict[str, Any] = {
    "inputs": {"images": ["bundled:a", "bundled:b"]},
    "on_error": "continue",
    "steps": [
        {"id": "ocr", "tool": "receipt_ocr", "map": "input:images", "input": {"image_uri": "item"}},
        {"id": "parse", "tool": "line_item_parser", "map": "step:ocr", "input": {"ocr": "item"}},
        {"id": "categorise", "tool": "expense_categorizer", "map": "step:parse", "input": {"items": "item.items"}},
        {"id": "tax", "tool": "compute_tax", "map": "step:parse", "input": {"amount": "item.total", "tax_rate": 0.08}},
        {
            "id": "merge",
            "tool": "say",
            "map": "step:parse",
            "input": {"text": "item.merchant", "data": ["step:categorise", "step:tax"]},
        },
        {"id": "summary", "tool": "summarise_receipts", "input": {"receipts": "step:parse"}, "depends_on": ["merge"]},
    ],
    "output": "step:summary",
    "final_synthesis": {"prompt_template": "{{steps.summary.total}} of {{steps.parse[0].merchant}}\n{{steps}}"},
}


def check(
    *steps: dict[str, Any], catalog: ToolCatalog | None = None, inputs: dict[str, Any] | None = None, **rest: Any
) -> CheckedPlan:
    return check_plan({"steps": list(steps), **rest}, catalog or sample_catalog(), inputs=inputs)


def problems(*steps: dict[str, Any], **rest: Any) -> list[tuple[str, str]]:
    with pytest.raises(PlanError) as caught:
        check(*steps, **rest)
    return [(p["path"], p["code"]) for p in caught.value.problems]


def test_the_receipts_plan_is_good_and_its_maps_are_aligned() -> None:
    checked = check_plan(RECEIPTS, sample_catalog())
    merge = checked.graph.nodes["merge"]
    assert merge.root == Reference("input", "images")
    assert set(merge.aligned) == {"parse", "categorise", "tax"}
    assert merge.barrier == ()
    assert set(checked.graph.nodes["summary"].barrier) == {"parse", "merge"}
    assert checked.required_inputs == ()


def test_a_checked_plan_is_good_again_and_stays_the_same() -> None:
    once = check_plan(RECEIPTS, sample_catalog())
    assert check_plan(once.plan, sample_catalog()).plan == once.plan
    assert check_plan(Plan.model_validate(RECEIPTS), sample_catalog()).plan == once.plan


def test_a_plan_that_was_handed_in_is_not_changed() -> None:
    plan = {"steps": [{"id": "a", "tool": "function_call", "input": {"name": "now"}}]}
    check_plan(plan, sample_catalog())
    assert plan == {"steps": [{"id": "a", "tool": "function_call", "input": {"name": "now"}}]}


def test_a_function_call_becomes_a_call_of_the_function() -> None:
    step = {"id": "a", "tool": "function_call", "input": {"name": "compute_tax", "args": {"amount": 1, "tax_rate": 0.5}}}
    made = check(step).plan.steps[0]
    assert (made.tool, made.input) == ("compute_tax", {"amount": 1, "tax_rate": 0.5})


def test_r1_example_plan_gets_the_one_problem_where_the_user_wrote_it() -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(README_PLAN, sample_catalog(), inputs={})
    (problem,) = caught.value.problems
    assert problem["path"] == "steps[1].input.args.amount"
    assert problem["message"] == (
        "`step:step-1` is the whole result of `receipt_ocr`, an object with `text`, `lines`, `confidence`, `width` and `height`;"
        " `amount` of `compute_tax` takes a number."
    )
    assert problem["next"] == (
        "Name a field of it that is a number: `step:step-1.confidence`, `step:step-1.width` or `step:step-1.height`."
    )


def test_r1_example_plan_is_good_once_it_names_a_number() -> None:
    first, second = README_PLAN["steps"]
    mended = second | {"input": {"name": "compute_tax", "args": {"amount": "step:step-1.confidence", "tax_rate": 0.08}}}
    assert check_plan(README_PLAN | {"steps": [first, mended]}, sample_catalog()).graph.leaves == ("step-2",)


def test_inputs_are_left_open_when_none_are_given_and_named_as_required() -> None:
    step = {"id": "a", "tool": "receipt_ocr", "input": {"image_uri": "input:image"}}
    assert check(step).required_inputs == ("image",)
    assert check(step, inputs={"image": "x.png"}).required_inputs == ("image",)


def test_a_default_serves_when_no_value_is_given_and_a_value_wins_over_it() -> None:
    plan = {"inputs": {"image": "x.png"}, "steps": [{"id": "a", "tool": "receipt_ocr", "input": {"image_uri": "input:image"}}]}
    assert check_plan(plan, sample_catalog(), inputs={}).required_inputs == ()
    with pytest.raises(PlanError) as caught:
        check_plan(plan, sample_catalog(), inputs={"image": 3})
    assert [(p["path"], p["code"], p["given"]) for p in caught.value.problems] == [("inputs.image", "bad_input", True)]


def test_a_tool_without_an_output_schema_may_be_referred_to_at_will() -> None:
    say = {"id": "a", "tool": "say", "input": {"text": "x"}}
    assert check(say, {"id": "b", "tool": "compute_tax", "input": {"amount": "step:a.deep[3].er", "tax_rate": "step:a"}})


def test_null_and_an_optional_field_may_stand_where_their_other_kind_fits() -> None:
    ocr = {"id": "ocr", "tool": "receipt_ocr", "input": {"image_uri": "x"}}
    parse = {"id": "parse", "tool": "line_item_parser", "input": {"ocr": "step:ocr"}}
    assert check(ocr, parse, {"id": "t", "tool": "compute_tax", "input": {"amount": "step:parse.total", "tax_rate": 0}})


def test_schemas_that_refer_to_themselves_end() -> None:
    tree = {"id": "t", "tool": "tree", "input": {"text": "x"}}
    deep = "step:t.root" + ".parent" * 40 + ".name"
    assert check(tree, {"id": "s", "tool": "say", "input": {"text": deep, "data": "step:t"}})


def test_a_literal_is_taken_as_it_stands() -> None:
    made = check({"id": "a", "tool": "say", "input": {"text": {"$literal": "step:nowhere"}}})
    assert made.graph.nodes["a"].barrier == ()
    assert made.plan.steps[0].input == {"text": {"$literal": "step:nowhere"}}


def test_prose_that_begins_like_an_item_is_plain_text() -> None:
    assert check({"id": "a", "tool": "say", "input": {"text": "item. Next"}})
    assert check({"id": "a", "tool": "say", "input": {"text": "items", "data": ["steps:", "stepwise"]}})


def test_exists_is_the_condition_for_a_field_that_may_be_missing_in_the_value() -> None:
    say = {"id": "a", "tool": "say", "input": {"text": "x"}}
    assert check(say, say | {"id": "b", "when": {"ref": "step:a.maybe", "op": "exists"}})


def test_a_whole_list_fits_where_the_parameter_takes_a_list_of_such() -> None:
    ocr = {"id": "ocr", "tool": "receipt_ocr", "map": "input:xs", "input": {"image_uri": "item"}}
    parse = {"id": "parse", "tool": "line_item_parser", "map": "step:ocr", "input": {"ocr": "item"}}
    both = {"id": "all", "tool": "summarise_receipts", "map": "step:parse", "input": {"receipts": "step:parse[*]"}}
    assert check(ocr, parse, both).graph.nodes["all"].barrier == ("parse",)


def test_elements_of_lists_that_are_fields_are_known() -> None:
    ocr = {"id": "ocr", "tool": "receipt_ocr", "input": {"image_uri": "x"}}
    assert check(ocr, {"id": "s", "tool": "say", "map": "step:ocr.lines", "input": {"text": "item.text"}})
    wrong = {"id": "s", "tool": "say", "map": "step:ocr.lines", "input": {"text": "item.confidence"}}
    assert problems(ocr, wrong) == [("steps[1].input.text", "wrong_type")]


def test_a_tool_whose_schema_cannot_be_read_is_named_and_nothing_is_fetched() -> None:
    for schema in ({"type": "nonsense"}, {"$ref": "#/$defs/gone"}, {"$ref": "http://localhost:1/schema.json"}):
        broken = ToolDefinition(name="broken", parameters=(ToolParameter(name="x", json_schema=schema),))
        found = problems({"id": "a", "tool": "broken", "input": {"x": 1}}, catalog=ToolCatalog(tools=[broken]))
        assert found == [("steps[0].tool", "bad_tool_schema")], schema


def test_function_call_and_code_exec_are_ordinary_names_when_the_catalog_has_them() -> None:
    catalog = ToolCatalog(tools=[ToolDefinition(name=n, type="code_exec") for n in ("code_exec", "function_call")])
    plan = check({"id": "a", "tool": "code_exec"}, {"id": "b", "tool": "function_call"}, catalog=catalog).plan
    assert [s.tool for s in plan.steps] == ["code_exec", "function_call"]


def test_problems_beyond_the_limit_are_counted() -> None:
    steps = [{"id": f"s{n}", "tool": "compute_tax", "input": {"amount": f"step:t{n}", "tax_rate": 9}} for n in range(500)]
    with pytest.raises(PlanError, match=f"1000 problems.*first {MAX_PROBLEMS}") as caught:
        check(*steps)
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_problems_come_in_the_order_of_the_plan() -> None:
    steps = [{"id": f"s{n}", "tool": "nowhere"} for n in range(12)]
    assert problems(*steps) == [(f"steps[{n}].tool", "unknown_tool") for n in range(12)]


def random_plan(rng: random.Random, size: int) -> dict[str, Any]:
    """Steps that each refer to some before them, shuffled."""
    steps = []
    for n in range(size):
        before = [f"step:s{rng.randrange(n)}" for _ in range(rng.randint(0, min(n, 4)))]
        late = [f"s{rng.randrange(n)}" for _ in range(rng.randint(0, min(n, 2)))]
        steps.append({"id": f"s{n}", "tool": "say", "input": {"text": "x", "data": before}, "depends_on": late})
    rng.shuffle(steps)
    return {"steps": steps}


@pytest.mark.parametrize("seed", range(30))
def test_any_dag_is_good_and_comes_in_an_order_that_can_run(seed: int) -> None:
    rng = random.Random(seed)
    plan = random_plan(rng, rng.randint(1, 200))
    graph = check_plan(plan, sample_catalog()).graph
    place = {name: at for at, name in enumerate(graph.nodes)}
    assert len(place) == len(plan["steps"])
    for name, node in graph.nodes.items():
        assert all(place[b] < place[name] for b in node.barrier)
        assert all(name in graph.successors[b] for b in node.barrier)
        assert (name in graph.leaves) == (not graph.successors[name])


@pytest.mark.parametrize("seed", range(30))
def test_an_edge_back_makes_a_circle_that_is_found(seed: int) -> None:
    rng = random.Random(seed)
    chain = [{"id": f"s{n}", "tool": "say", "input": {"text": f"step:s{n - 1}" if n else "x"}} for n in range(rng.randint(2, 200))]
    first, last = sorted(rng.sample(range(len(chain)), 2))
    chain[first]["depends_on"] = [f"s{last}"]
    rng.shuffle(chain)
    assert {code for _, code in problems(*chain)} == {"cycle"}


def test_a_chain_of_five_thousand_steps_takes_about_as_long_a_step_as_a_short_one() -> None:
    costs = {}
    for size in (500, 5_000):
        steps = [{"id": f"s{n}", "tool": "say", "input": {"text": f"step:s{n - 1}" if n else "x"}} for n in range(size)]
        start = time.perf_counter()
        assert check(*steps).graph.leaves == (f"s{size - 1}",)
        costs[size] = (time.perf_counter() - start) / size
    print({size: f"{cost * 1e6:.0f} us a step" for size, cost in costs.items()})
    assert costs[5_000] < 5 * costs[500]  # a quadratic check would be at ten


def test_a_large_hostile_plan_is_refused_in_bounded_time() -> None:
    steps = [{"id": f"step-number-{n}", "tool": f"tool-{n}", "input": {"x": f"step:step-numbre-{n}"}} for n in range(5_000)]
    start = time.perf_counter()
    assert len(problems(*steps)) == MAX_PROBLEMS
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("name", named_plans())
def test_bundled_plans_are_good_with_the_bundled_tools_alone(name: str) -> None:
    checked = check_plan(load_named(name), bundled_catalog(), inputs={})
    assert checked.required_inputs == ()


def test_the_bundled_tools_say_the_same_about_r1_example_plan() -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(README_PLAN, bundled_catalog(), inputs={})
    assert [(p["path"], p["code"]) for p in caught.value.problems] == [("steps[1].input.args.amount", "wrong_type")]
