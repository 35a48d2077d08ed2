"""What comes with a finding: an example of the clash, a fix where one is certain; and what is only warned of."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.errors import PlanError
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolParameter
from orchestrator.planner.check import check_plan
from orchestrator.planner.fixes import apply_fixes, fix_text, repair
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.problems import meant, parts
from tests.unit.bad_plans import BAD_PLANS
from tests.unit.sample_catalog import sample_catalog

OCR = {"id": "ocr", "tool": "receipt_ocr", "input": {"image_uri": "x"}}
PARSE = {"id": "parse", "tool": "line_item_parser", "input": {"ocr": "step:ocr"}}
ONE = {"steps": [OCR, PARSE]}


def say(id: str = "say", text: Any = "hello", **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "say", "input": {"text": text}, **rest}


def tax(id: str = "tax", amount: Any = 10, rate: Any = 0.1, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "compute_tax", "input": {"amount": amount, "tax_rate": rate}, **rest}


def called(tool: str, **input: Any) -> dict[str, Any]:
    return {"id": "a", "tool": tool, "input": input}


def first(*steps: dict[str, Any], catalog: ToolCatalog | None = None, **rest: Any) -> dict[str, Any]:
    inputs = rest.pop("given", None)
    with pytest.raises(PlanError) as caught:
        check_plan({"steps": list(steps), **rest}, catalog or sample_catalog(), inputs=inputs)
    return caught.value.problems[0]


def warnings(*steps: dict[str, Any], catalog: ToolCatalog | None = None, **rest: Any) -> list[dict[str, Any]]:
    return list(check_plan({"steps": list(steps), **rest}, catalog or sample_catalog()).warnings)


def codes(*steps: dict[str, Any], **rest: Any) -> list[str]:
    return [w["code"] for w in warnings(*steps, **rest)]


@pytest.mark.parametrize("bad", BAD_PLANS, ids=lambda b: b.name)
def test_every_finding_has_an_example_that_fits_a_line(bad: Any) -> None:
    if isinstance(bad.plan, str):
        return  # a text that is no JSON has a line and a column in place of it
    with pytest.raises(PlanError) as caught:
        check_plan(bad.plan, sample_catalog(), inputs=bad.inputs)
    for problem in caught.value.problems:
        assert 3 < len(problem["example"]) < 700, problem
        assert "\n" not in problem["example"]


@pytest.mark.parametrize(
    ("problem", "example"),
    [
        (first(OCR, tax(amount="step:ocr.text")), '`step:ocr.text` may give "a text"; `amount` of `compute_tax` takes a number'),
        (first(say("a", "step:b"), say("b", "step:a")), "`a` waits for `b`, which can only begin after `a`: `a` -> `b` -> `a`"),
        (first(tax(rate=7)), "`steps[0].input.tax_rate` is 7"),
        (first({"id": "a", "tool": "nope"}), '`steps[0].tool` is "nope"'),
        (first(say("a", "item")), '`steps[0].input.text` is "item"'),
        (first(say(text="input:xs[2]"), inputs={"xs": [1]}), "`inputs.xs` is [1]"),
    ],
)
def test_an_example_shows_the_clash(problem: dict[str, Any], example: str) -> None:
    assert problem["example"] == example


def test_an_index_beyond_a_list_of_known_length_is_refused_and_an_unknown_length_is_not() -> None:
    mapped = say("m", "item", map="input:xs")
    assert first(mapped, say(text="step:m[2].x"), inputs={"xs": ["a", "b"]})["code"] == "out_of_range"
    followed = say("n", "step:m", map="step:m")
    assert first(mapped, followed, say(text="step:n[2].x"), inputs={"xs": ["a", "b"]})["code"] == "out_of_range"
    assert check_plan({"steps": [mapped, say(text="step:m[2].x")]}, sample_catalog())


def test_a_list_of_known_length_that_the_tool_does_not_take_is_refused() -> None:
    many = ToolParameter(name="xs", type="array", required=True, json_schema={"type": "array", "maxItems": 3})
    catalog = ToolCatalog(tools=[*sample_catalog().tools, ToolDefinition(name="few", parameters=(many,), effect="none")])
    steps = [say("m", "item", map="input:xs"), {"id": "f", "tool": "few", "input": {"xs": "step:m"}}]
    assert check_plan({"steps": steps, "inputs": {"xs": ["a"] * 3}}, catalog)
    found = first(*steps, catalog=catalog, inputs={"xs": ["a"] * 4})
    assert (found["code"], found["path"]) == ("wrong_type", "steps[1].input.xs")
    assert "at least 4 elements where at most 3 are taken" in found["message"]


FIXES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"id": "a", "tool": "comptue_tax", "input": {"amount": 1, "tax_rate": 0}}, {"tool": "compute_tax"}),
    ({"id": "a", "tool": "ComputeTax", "input": {"amount": 1, "tax_rate": 0}}, {"tool": "compute_tax"}),
    ({"id": "a", "tool": "tools.compute_tax", "input": {"amount": 1, "tax_rate": 0}}, {"tool": "compute_tax"}),
    (tax("a", amount="12.5"), {"input": {"amount": 12.5, "tax_rate": 0.1}}),
    ({"id": "a", "tool": "compute_tax", "input": {"amuont": 1, "tax_rate": 0}}, {"input": {"amount": 1, "tax_rate": 0}}),
    ({"id": "a", "tool": "say", "inputs": {"text": "x"}}, {"input": {"text": "x"}}),
    (say("a", depends_on="ocr"), {"depends_on": ["ocr"]}),
    (say("a", depends_on=["step:ocr"]), {"depends_on": ["ocr"]}),
    (say("a", depends_on=["a"]), {"depends_on": []}),
    (say("a", when={"ref": "step:ocr.width", "op": "==", "value": 3}), {"when": {"ref": "step:ocr.width", "op": "eq", "value": 3}}),
    (say("a", when={"ref": "ocr.width", "op": "gt", "value": 3}), {"when": {"ref": "step:ocr.width", "op": "gt", "value": 3}}),
    (
        say("a", when={"ref": "step:ocr.width", "op": "gt", "value": "3"}),
        {"when": {"ref": "step:ocr.width", "op": "gt", "value": 3}},
    ),
    (say("a", "step:ocr.txet"), {"input": {"text": "step:ocr.text"}}),
    (say("a", "step: ocr.text"), {"input": {"text": "step:ocr.text"}}),
    (say("a", "step:ocr['text']"), {"input": {"text": "step:ocr.text"}}),
    (say("a", "step:ocr"), {"input": {"text": "step:ocr.text"}}),
    (say("a", retry={"max": 1000}), {"retry": {"max": 100}}),
    (say("a", map="input:imags"), {"map": "input:images"}),
]


@pytest.mark.parametrize(("step", "better"), FIXES)
def test_a_certain_fix_repairs_the_plan(step: dict[str, Any], better: dict[str, Any]) -> None:
    plan = {"inputs": {"images": ["x"]}, "steps": [OCR, step, say("b", "input:images[0]")]}
    made = repair(plan, lambda p: check_plan(p, sample_catalog(), inputs={}))
    for key, value in better.items():
        assert made["steps"][1][key] == value
    assert plan["steps"][1] == step, "the plan that was handed in stays as it is"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("get_user", ["set_user"]),
        ("upload", ["unload"]),
        ("compute_tax2", ["compute_tax1"]),
        ("tax", ["tux"]),
        ("merge_receipt", ["merge_items", "summarise"]),
        ("merge_receiptt", ["merge_receipt", "merge_receipttt"]),
    ],
)
def test_a_name_that_may_mean_another_thing_is_never_fixed(name: str, names: list[str]) -> None:
    assert meant(name, names) is None


def test_a_tool_that_does_something_for_good_is_never_put_in_for_another() -> None:
    text = (ToolParameter(name="text", required=True),)
    catalog = ToolCatalog(tools=[ToolDefinition(name="send_letter", effect="once", parameters=text)])
    problem = first({"id": "a", "tool": "send_leter", "input": {"text": "x"}}, catalog=catalog)
    assert "Did you mean `send_letter`?" in problem["next"]
    assert "fix" not in problem


def test_a_tool_that_takes_other_arguments_is_never_put_in() -> None:
    assert "fix" not in first({"id": "a", "tool": "compute_txa", "input": {"text": "x"}})


def test_a_value_given_beside_the_plan_has_no_fix_in_it() -> None:
    steps = [tax(amount="input:sum")]
    assert "fix" not in first(*steps, given={"sum": "3"})
    assert first(*steps, inputs={"sum": "3"})["fix"] == {"op": "replace", "path": "/inputs/sum", "value": 3}


def test_fixes_of_one_list_do_not_meet_moved_elements() -> None:
    plan = {"steps": [{"id": "a", "depends_on": ["a", "b", "a"]}]}
    ways = [{"fix": {"op": "remove", "path": f"/steps/0/depends_on/{n}"}} for n in (0, 2)]
    assert apply_fixes(plan, ways)["steps"][0]["depends_on"] == ["b"]


def test_fixes_that_do_not_fit_the_plan_are_left_out() -> None:
    odd = [
        {"op": "replace", "path": "/steps/7/tool", "value": 1}, {"op": "remove", "path": "/none"}, {"op": "remove", "path": ""},
        {"op": "move", "from": "/steps", "path": "/inputs"}, {"op": "replace", "path": "/steps/x", "value": 1},
    ]  # fmt: skip
    plan = {"steps": [{"id": "a"}], "inputs": {}}
    assert apply_fixes(plan, [{"fix": f} for f in odd]) == plan
    assert apply_fixes(plan, [{"path": "steps"}, {"fix": None}]) == plan


def test_a_pointer_escapes_what_a_pointer_must() -> None:
    problem = first(tax(amount="input:sum"), inputs={"sum": {"a/b~c.d": 1}})
    assert problem["path"] == "inputs.sum"
    assert parts('inputs["a.b"][0].c') == ["inputs", "a.b", 0, "c"]
    strict = {"id": "l", "tool": "say", "input": {"text": {"$literal": 3}}}
    assert "put" in fix_text({"op": "replace", "path": "/a~1b", "value": strict})


def test_what_cannot_be_repaired_raises_what_is_left() -> None:
    plan = {"steps": [{"id": "a", "tool": "comptue_tax", "input": {"amount": "x", "tax_rate": 0}}]}
    with pytest.raises(PlanError) as caught:
        repair(plan, lambda p: check_plan(p, sample_catalog()))
    assert [p["code"] for p in caught.value.problems] == ["wrong_type"]


def test_permissions_are_asked_of_tools_of_steps_and_of_programs() -> None:
    def allowed(tool: ToolDefinition) -> str | None:
        return "Not for you" if tool.name == "compute_tax" else None

    code = "from tools.finance import compute_tax\noutput = await compute_tax(1, 0.5)"
    for step, path in [
        ({"id": "a", "tool": "compute_tax", "input": {"amount": 1, "tax_rate": 0}}, "steps[0].tool"),
        (called("function_call", name="compute_tax", args={"amount": 1, "tax_rate": 0}), "steps[0].input.name"),
        (called("code_exec", code=code), "steps[0].input.code"),
        (called("code_exec", code=code, tools=["merge_items", "compute_tax"]), "steps[0].input.tools[1]"),
    ]:  # fmt: skip
        with pytest.raises(PlanError) as caught:
            check_plan({"steps": [step]}, bundled_catalog(), allowed=allowed)
        assert [(p["path"], p["code"], p["message"]) for p in caught.value.problems] == [
            (path, "permission_denied", "Not for you.")
        ]
    own = "def compute_tax(x):\n    return x\noutput = compute_tax(1)"
    assert check_plan({"steps": [{"id": "a", "tool": "code_exec", "input": {"code": own}}]}, bundled_catalog(), allowed=allowed)


@pytest.mark.parametrize(
    ("steps", "code", "path"),
    [
        ([OCR, PARSE, tax(amount="step:parse.total")], "may_be_null", "steps[2].input.amount"),
        ([OCR, PARSE, tax(amount="step:parse.total", when={"ref": "step:parse.merchant"})], "may_be_null", "steps[2].input.amount"),
        ([OCR, say(when={"ref": "step:ocr.width", "op": "eq", "value": "wide"})], "when_never_holds", "steps[1].when"),
        ([OCR, say(when={"ref": "step:ocr.width", "op": "in", "value": ["3"]})], "when_never_holds", "steps[1].when"),
        ([OCR, say(when={"ref": "step:ocr.width", "op": "ne", "value": "3"})], "when_always_holds", "steps[1].when"),
        ([say(text="see step:nowhere.x for more")], "reference_in_text", "steps[0].input.text"),
        ([OCR, say(text="Total: {{step:ocr.text}}")], "reference_in_text", "steps[1].input.text"),
        ([say(retry={"backoff_s": 90, "max_backoff_s": 60})], "short_wait", "steps[0].retry.backoff_s"),
    ],
)  # fmt: skip
def test_what_runs_and_is_hardly_meant_is_warned_of(steps: list[dict[str, Any]], code: str, path: str) -> None:
    found = warnings(*steps)
    assert [(w["code"], w["path"]) for w in found] == [(code, path)]
    assert found[0]["example"]
    assert found[0]["message"].endswith(".")
    assert found[0]["next"].endswith(".")


@pytest.mark.parametrize(
    "steps",
    [
        [OCR, PARSE, tax(amount="step:parse.total", when={"ref": "step:parse.total", "op": "exists"})],
        [OCR, PARSE, tax(amount="step:parse.total", when={"ref": "step:parse.total", "op": "gt", "value": 2})],
        [OCR, PARSE | {"map": "input:xs"}, tax(amount="item.total", map="step:parse", when={"ref": "step:parse.total"})],
        [OCR, say(when={"ref": "step:ocr.width", "op": "eq", "value": 3})],
        [OCR, say(when={"ref": "step:ocr.width", "op": "eq", "value": True})],  # Python says that 1 is true
        [OCR, say(when={"ref": "step:ocr.text", "op": "in", "value": ["a"]})],
        [say(text="step by step: an item. input: this"), say("b", text={"$literal": "step:nowhere.x"})],
        [say("a"), say("b", when={"ref": "step:a.maybe", "op": "eq", "value": 3})],
    ],
)
def test_what_is_meant_is_not_warned_of(steps: list[dict[str, Any]]) -> None:
    assert warnings(*steps) == []


def test_an_input_that_switches_a_step_off_is_no_reason_for_a_warning() -> None:
    assert warnings(say(when={"ref": "input:loud"}), inputs={"loud": False}) == []


def test_what_follows_a_step_that_never_runs_is_named_too() -> None:
    never = say("a", when={"ref": "step:ocr.width", "op": "eq", "value": "3"})
    found = warnings(OCR, never, say("b", "step:a.x"), say("c", "step:b.x"), say("d", "step:c.x", on_skip="run"))
    assert [(w["code"], w["path"]) for w in found] == [
        ("when_never_holds", "steps[1].when"),
        ("never_runs", "steps[2].input.text"),
        ("never_runs", "steps[3].input.text"),
    ]
    assert found[0]["fix"] == {"op": "replace", "path": "/steps/1/when/value", "value": 3}


def test_results_and_inputs_that_nothing_uses_are_named() -> None:
    found = warnings(say("a"), say("b"), output="step:b", inputs={"spare": 1})
    assert [(w["code"], w["path"]) for w in found] == [("unused_result", "steps[0]"), ("unused_input", "inputs.spare")]
    assert codes(say("a"), say("b")) == []
    assert codes(say("a"), say("b"), output="step:b", final_synthesis={"prompt_template": "{{steps}}"}) == []


def test_an_effect_that_is_said_to_be_weaker_is_warned_of() -> None:
    pay = ToolDefinition(name="pay", effect="once")
    catalog = ToolCatalog(tools=[pay])
    found = warnings({"id": "a", "tool": "pay", "effect": "none"}, catalog=catalog)
    assert [(w["code"], w["fix"]["op"]) for w in found] == [("weaker_effect", "remove")]
    assert warnings({"id": "a", "tool": "pay", "effect": "once"}, catalog=catalog) == []


def test_jobs_of_great_size_are_warned_of() -> None:
    xs = [0] * 100_000
    steps = [say(f"m{n}", {"$literal": "x"}, map="input:xs") for n in range(11)]
    assert codes(*steps, inputs={"xs": xs}) == ["large_job"]
    reads = [say("a", {"$literal": "x"}, map="input:xs"), say("b", {"$literal": "x"}, map="input:ys", depends_on=["a"])]
    assert codes(*reads, inputs={"xs": xs, "ys": xs[:200]}) == ["large_job"]


def test_a_list_that_may_hold_null_is_warned_of_where_no_null_is_taken() -> None:
    mapped = [OCR, PARSE | {"map": "step:ocr.lines", "when": {"ref": "item.confidence", "op": "gt", "value": 0.5}}]
    strict = sample_catalog()
    takes_null = {"id": "all", "tool": "summarise_receipts", "input": {"receipts": "step:parse"}}
    assert [w["code"] for w in warnings(*mapped, takes_null, catalog=strict)] == []
    rows = ToolParameter(name="rows", type="array", required=True, json_schema={"type": "array", "items": {"type": "object"}})
    catalog = ToolCatalog(tools=[*strict.tools, ToolDefinition(name="rows_only", parameters=(rows,), effect="none")])
    found = warnings(*mapped, {"id": "all", "tool": "rows_only", "input": {"rows": "step:parse"}}, catalog=catalog)
    assert [w["code"] for w in found] == ["may_be_null"]
    assert "An element of `step:parse` may be null" in found[0]["message"]


def test_a_field_that_may_be_missing_is_warned_of_when_the_schema_says_which_are_not() -> None:
    output = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    loose = output | {"required": []}
    for schema, expected in ((output, ["may_be_missing"]), (loose, [])):
        tool = ToolDefinition(name="maybe", output_schema=schema, effect="none")
        catalog = ToolCatalog(tools=[*sample_catalog().tools, tool])
        assert [w["code"] for w in warnings({"id": "m", "tool": "maybe"}, say(text="step:m.b"), catalog=catalog)] == expected


@pytest.mark.parametrize("name", named_plans())
def test_bundled_plans_have_no_warnings(name: str) -> None:
    assert check_plan(load_named(name), bundled_catalog(), inputs={}).warnings == ()
