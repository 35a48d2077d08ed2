"""Bad plans, each with every problem that it must get: place, code, a fragment of the message and of the next move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Expected = tuple[str, str, str]  # path, code, fragment of "message next"


@dataclass(frozen=True)
class BadPlan:
    """`plan` is data, or the text of a file; `inputs` are given with it."""

    name: str
    plan: Any
    expected: tuple[Expected, ...]
    inputs: dict[str, Any] | None = None


def ocr(id: str = "ocr", **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "receipt_ocr", "input": {"image_uri": "input:image"}} | rest


def tax(id: str = "tax", amount: Any = 10, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "compute_tax", "input": {"amount": amount, "tax_rate": 0.1}} | rest


def say(id: str = "say", text: Any = "hello", **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "say", "input": {"text": text}} | rest


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def steps(*items: Any, **rest: Any) -> dict[str, Any]:
    return {"steps": list(items), **rest}


def bad(name: str, plan: Any, *expected: Expected, inputs: dict[str, Any] | None = None) -> BadPlan:
    return BadPlan(name, plan, expected, inputs)


README_PLAN: dict[str, Any] = {
    "request_id": "req-001",
    "steps": [
        {"id": "step-1", "tool": "receipt_ocr", "input": {"image_uri": "https://example.com/receipts/2024-12-receipt.jpg"}},
        {
            "id": "step-2",
            "tool": "function_call",
            "input": {"name": "compute_tax", "args": {"amount": "step:step-1", "tax_rate": 0.08}},
            "depends_on": ["step-1"],
        },
    ],
    "final_synthesis": {"prompt_template": "Summary:\n{{steps}}"},
}
MAPPED = ocr(map="input:images", input={"image_uri": "item"})
PARSED = {"id": "parse", "tool": "line_item_parser", "map": "step:ocr", "input": {"ocr": "item"}}

FORM = [
    bad("a list", [1, 2], ("$", "not_an_object", "A plan is a JSON object, this is a list")),
    bad("text", '"receipts"', ("$", "not_an_object", "this is text")),
    bad("no JSON", '{"steps": [', ("$", "bad_json", "This is no JSON: Expecting value")),
    bad("a key twice", '{"steps": [{"id": "a", "id": "b", "tool": "now"}]}', ("$", "bad_json", "`id` stands twice")),
    bad(
        "NaN",
        '{"steps": [{"id": "a", "tool": "say", "input": {"text": NaN}}]}',
        ("steps[0].input.text", "not_json", "JSON has no number `nan`"),
    ),
    bad("empty object", {}, ("steps", "missing_field", "`steps` is missing in the plan.")),
    bad("no steps", {"steps": []}, ("steps", "missing_field", "The plan has no steps.")),
    bad("steps is an object", {"steps": {"a": tax()}}, ("steps", "wrong_type", "`steps` is an object, but must be a list")),
    bad("a step is text", steps("ocr"), ("steps[0]", "wrong_type", "A step is an object, this is text")),
    bad(
        "id and tool missing",
        steps({"input": {}}),
        ("steps[0].id", "missing_field", "`id` is missing in the step."),
        ("steps[0].tool", "missing_field", "the name of a tool"),
    ),
    bad("unknown field of the plan", steps(tax(), step=[]), ("step", "unknown_field", "Did you mean `steps`?")),
    bad("unknown field of a step", steps(tax(inputs={})), ("steps[0].inputs", "unknown_field", "Did you mean `input`?")),
    bad(
        "unknown field of retry",
        steps(tax(retry={"maxx": 1})),
        ("steps[0].retry.maxx", "unknown_field", "`maxx` is no field of `retry`. Did you mean `max`?"),
    ),
    bad("id with a blank", steps(tax("my step")), ("steps[0].id", "bad_id", "`my step` is no id. An id begins with a letter")),
    bad("id is a number", steps(tax(7)), ("steps[0].id", "wrong_type", "`id` is `7`, but must be text")),  # type: ignore[arg-type]
    bad(
        "id twice", steps(tax("a"), now := {"id": "a", "tool": "now"}), ("steps[1].id", "duplicate_id", "`a` is taken by steps[0]")
    ),
    bad(
        "id three times", steps(now, now, now), ("steps[1].id", "duplicate_id", ""), ("steps[2].id", "duplicate_id", "by steps[0]")
    ),
    bad("input is a list", steps(tax(input=[1])), ("steps[0].input", "wrong_type", "`input` is a list, but must be an object")),
    bad("depends_on is text", steps(tax("a"), tax("b", depends_on="a")), ("steps[1].depends_on", "wrong_type", 'Write `["a"]`.')),
    bad(
        "depends_on a reference",
        steps(tax("a"), tax("b", depends_on=["step:a"])),
        ("steps[1].depends_on[0]", "bad_id", "Write `a`."),
    ),
    bad(
        "too many retries", steps(tax(retry={"max": 1000})), ("steps[0].retry.max", "bad_value", "`1000`, but must be at most 100")
    ),
    bad(
        "retry in words",
        steps(tax(retry={"max": "often"})),
        ("steps[0].retry.max", "wrong_type", "`often`, but must be a whole number"),
    ),
    bad("timeout of nothing", steps(tax(timeout_s=0)), ("steps[0].timeout_s", "bad_value", "more than 0")),
    bad("policy misspelt", steps(tax(on_error="contnue")), ("steps[0].on_error", "bad_value", "Did you mean `continue`?")),
    bad("operator misspelt", steps(tax(when={"ref": "input:x", "op": "=="})), ("steps[0].when.op", "bad_value", "must be `eq`")),
    bad("too deep", steps(say(text=nested(80))), ("steps[0].input.text" + "[0]" * 60, "too_deep", "deeper than 64 levels")),
    bad(
        "too many steps",
        steps(*[{"id": f"s{n}", "tool": "now"} for n in range(5_001)]),
        ("steps", "limit_exceeded", "the limit is 5000"),
    ),
    bad("too many bytes", steps(say(text="x" * (1 << 20))), ("$", "limit_exceeded", "the limit is 1048576 (bytes of a plan)")),
]

TOOLS = [
    bad("tool misspelt", steps(ocr(tool="reciept_ocr")), ("steps[0].tool", "unknown_tool", "Did you mean `receipt_ocr`?")),
    bad("tool like nothing", steps({"id": "a", "tool": "zzz"}), ("steps[0].tool", "unknown_tool", "`toolweaver tools list` shows")),
    bad(
        "code",
        steps({"id": "a", "tool": "code_exec", "input": {"code": "output = 1"}}),
        ("steps[0].tool", "no_code_pool", "No pool of this platform runs code."),
    ),
    bad(
        "only from code", steps({"id": "a", "tool": "from_code_only"}), ("steps[0].tool", "caller_refused", "`code_execution` only")
    ),
    bad(
        "function misspelt",
        steps({"id": "a", "tool": "function_call", "input": {"name": "compute_taxes", "args": {}}}),
        ("steps[0].input.name", "unknown_tool", "Did you mean `compute_tax`?"),
    ),
    bad(
        "function without a name",
        steps({"id": "a", "tool": "function_call"}),
        ("steps[0].input.name", "missing_argument", "needs `name`"),
    ),
    bad(
        "function with stray and wrong args",
        steps({"id": "a", "tool": "function_call", "input": {"name": "now", "arg": 1, "args": "step:b"}}),
        ("steps[0].input.arg", "unknown_argument", "Did you mean `args`?"),
        ("steps[0].input.args", "wrong_type", "`args` is text (`step:b`), but must be an object"),
    ),
    bad(
        "function by number",
        steps({"id": "a", "tool": "function_call", "input": {"name": 3}}),
        ("steps[0].input.name", "wrong_type", ""),
    ),
]

ARGUMENTS = [
    bad(
        "argument missing",
        steps(ocr(input={})),
        ("steps[0].input.image_uri", "missing_argument", "Add `image_uri`: text (Where the picture lies)"),
    ),
    bad(
        "argument misspelt",
        steps(ocr(input={"image_url": "x"})),
        ("steps[0].input.image_uri", "missing_argument", "`receipt_ocr` needs `image_uri`"),
        ("steps[0].input.image_url", "unknown_argument", "Did you mean `image_uri`?"),
    ),
    bad(
        "argument of a tool without any",
        steps({"id": "a", "tool": "now", "input": {"x": 1}}),
        ("steps[0].input.x", "unknown_argument", "takes no arguments"),
    ),
    bad(
        "number as text",
        steps(tax(amount="12.5")),
        ("steps[0].input.amount", "wrong_type", "is text (`12.5`), but must be a number. Write it without quotes."),
    ),
    bad("number as flag", steps(tax(amount=True)), ("steps[0].input.amount", "wrong_type", "is `true`, but must be a number")),
    bad(
        "out of bounds",
        steps(tax(input={"amount": 1, "tax_rate": 19})),
        ("steps[0].input.tax_rate", "bad_value", "is `19`, but must be at most 1"),
    ),
    bad(
        "none of the options",
        steps(ocr(), PARSED | {"map": None, "input": {"ocr": "step:ocr", "currency": "EURO"}}),
        ("steps[1].input.currency", "bad_value", "must be `EUR`, `USD` or `GBP`. Did you mean `EUR`?"),
    ),
    bad(
        "nested field wrong and missing",
        steps(
            {
                "id": "a",
                "tool": "expense_categorizer",
                "input": {"items": [{"description": "x", "amount": "y"}, {"description": "z"}]},
            }
        ),
        ("steps[0].input.items[0].amount", "wrong_type", "`items[0].amount` of `expense_categorizer` is text"),
        ("steps[0].input.items[1].amount", "missing_argument", "needs `amount`"),
    ),
    bad(
        "optional of the wrong type",
        steps({"id": "a", "tool": "first_items", "input": {"items": [], "limit": "three"}}),
        ("steps[0].input.limit", "wrong_type", "is text (`three`), but must be a whole number or null"),
    ),
    bad(
        "optional out of bounds",
        steps({"id": "a", "tool": "first_items", "input": {"items": [], "limit": 0}}),
        ("steps[0].input.limit", "bad_value", "is `0`, but must be at least 1"),
    ),
    bad(
        "literal beside others",
        steps(say(text={"$literal": "x", "y": 1})),
        ("steps[0].input.text", "bad_literal", "stands alone"),
        ("steps[0].input.text", "wrong_type", "is an object, but must be text"),
    ),
    bad(
        "literal of the wrong type",
        steps(tax(amount={"$literal": "step:x"})),
        ("steps[0].input.amount", "wrong_type", "must be a number"),
    ),
]

REFERENCES = [
    bad(
        "unknown step",
        steps(ocr(), tax(amount="step:orc.confidence")),
        ("steps[1].input.amount", "unknown_step", "Did you mean `ocr`?"),
    ),
    bad("reference that is none", steps(say(text="step:a..b")), ("steps[0].input.text", "bad_reference", '{"$literal": "..."}')),
    bad("reference in prose", steps(say(text="step: buy milk")), ("steps[0].input.text", "bad_reference", "begins as a reference")),
    bad("itself", steps(tax(amount="step:tax")), ("steps[0].input.amount", "self_reference", "`tax` refers to itself")),
    bad("depends on itself", steps(tax(depends_on=["tax"])), ("steps[0].depends_on[0]", "self_reference", "")),
    bad(
        "depends on an unknown step",
        steps(tax(depends_on=["ocr"])),
        ("steps[0].depends_on[0]", "unknown_step", "no step `ocr`. Add the step"),
    ),
    bad(
        "item outside a map",
        steps(tax(amount="item.total")),
        ("steps[0].input.amount", "item_outside_map", "the step has no `map`"),
    ),
    bad(
        "unknown field",
        steps(ocr(), tax(amount="step:ocr.confidenc")),
        ("steps[1].input.amount", "no_such_field", "Did you mean `step:ocr.confidence`?"),
    ),
    bad(
        "field like nothing",
        steps(ocr(), tax(amount="step:ocr.zzz")),
        ("steps[1].input.amount", "no_such_field", "Its fields are `text`, `lines`"),
    ),
    bad(
        "field of text",
        steps(ocr(), say(text="step:ocr.text.size")),
        ("steps[1].input.text", "no_such_field", "`step:ocr.text` is text and has no field `size`"),
    ),
    bad(
        "element of an object",
        steps(ocr(), say(text="step:ocr[0]")),
        ("steps[1].input.text", "no_such_field", "which has no elements"),
    ),
    bad(
        "field of a list",
        steps(ocr(), say(text="step:ocr.lines.text")),
        ("steps[1].input.text", "no_such_field", "such as `step:ocr.lines[0].text`"),
    ),
    bad(
        "field through a reference of the schema",
        steps({"id": "t", "tool": "tree", "input": {"text": "x"}}, say(text="step:t.root.parent.parent.nam")),
        ("steps[1].input.text", "no_such_field", "Did you mean `step:t.root.parent.parent.name`?"),
    ),
    bad(
        "R1's example: a whole OCR result where a number belongs",
        README_PLAN,
        ("steps[1].input.args.amount", "wrong_type", "`step:step-1` is the whole result of `receipt_ocr`, an object with `text`"),
    ),
    bad(
        "text for a number",
        steps(ocr(), tax(amount="step:ocr.text")),
        ("steps[1].input.amount", "wrong_type", "`amount` of `compute_tax` takes a number"),
    ),
    bad("a number for text", steps(tax(), say(text="step:tax")), ("steps[1].input.text", "wrong_type", "Nothing in it is text")),
    bad(
        "a result that lacks what the object needs",
        steps(
            ocr(),
            {"id": "p", "tool": "line_item_parser", "input": {"ocr": "step:ocr"}},
            {"id": "q", "tool": "line_item_parser", "input": {"ocr": "step:p"}},
        ),
        ("steps[2].input.ocr", "wrong_type", "there is no `text`, which is required"),
    ),
    bad(
        "a list of the wrong things",
        steps(ocr(), {"id": "c", "tool": "expense_categorizer", "input": {"items": "step:ocr.lines"}}),
        ("steps[1].input.items", "wrong_type", "there is no `description`"),
    ),
    bad(
        "deep inside an argument",
        steps(
            ocr(),
            {"id": "c", "tool": "expense_categorizer", "input": {"items": [{"description": "x", "amount": "step:ocr.lines"}]}},
        ),
        ("steps[1].input.items[0].amount", "wrong_type", "`items[0].amount` of `expense_categorizer` takes a number"),
    ),
    bad("a list for one", steps(ocr(), tax(amount="step:ocr.lines")), ("steps[1].input.amount", "wrong_type", "a list of objects")),
]

MAPS = [
    bad("map in words", steps(ocr(map="images", input={"image_uri": "item"})), ("steps[0].map", "bad_map", "Write `input:<name>`")),
    bad("map by a bare id", steps(MAPPED, PARSED | {"map": "ocr"}), ("steps[1].map", "bad_map", "Write `step:ocr`.")),
    bad("map over item", steps(MAPPED | {"map": "item.pages"}), ("steps[0].map", "bad_map", "maps do not nest")),
    bad(
        "map over an object",
        steps(ocr(), say(text="item", map="step:ocr")),
        ("steps[1].map", "map_not_list", "Lists in it: `step:ocr.lines`"),
    ),
    bad(
        "map over an unknown step",
        steps(MAPPED, PARSED | {"map": "step:orc"}),
        ("steps[1].map", "unknown_step", "Did you mean `ocr`?"),
    ),
    bad(
        "map over an unknown field",
        steps(ocr(), say(text="item.text", map="step:ocr.line")),
        ("steps[1].map", "no_such_field", "`step:ocr.lines`"),
    ),
    bad(
        "map over a field of a map",
        steps(MAPPED, PARSED, say(text="item", map="step:parse.items")),
        ("steps[2].map", "no_such_field", "a list has no field `items`"),
    ),
    bad(
        "field of an element",
        steps(MAPPED, PARSED, tax(amount="item.totl", map="step:parse")),
        ("steps[2].input.amount", "no_such_field", "Did you mean `item.total`?"),
    ),
    bad(
        "an element of the wrong type",
        steps(MAPPED, tax(amount="item", map="step:ocr")),
        ("steps[1].input.amount", "wrong_type", "`item` is the whole result of `receipt_ocr`"),
    ),
    bad(
        "all results where one belongs",
        steps(MAPPED, PARSED | {"map": None, "input": {"ocr": "step:ocr"}}),
        ("steps[1].input.ocr", "wrong_type", 'run this step once per element: `"map": "step:ocr"`'),
    ),
    bad(
        "a field of all results",
        steps(MAPPED, say(text="step:ocr.text")),
        ("steps[1].input.text", "no_such_field", "`step:ocr[0].text`, or map this step over `step:ocr`"),
    ),
    bad(
        "one result where all belong",
        steps(MAPPED, PARSED, {"id": "s", "tool": "summarise_receipts", "map": "step:parse", "input": {"receipts": "item"}}),
        (
            "steps[2].input.receipts",
            "wrong_type",
            'takes a list of objects or null. A list is taken here: write `["item"]`, or `step:parse[*]` for all of them',
        ),
    ),
]

WHOLE = [
    bad("two in a circle", steps(say("a", "step:b"), say("b", "step:a")), ("steps[0].input.text", "cycle", "`a` -> `b` -> `a`")),
    bad(
        "a circle through depends_on, map and when",
        steps(
            say("a", depends_on=["b"]),
            say("b", map="step:c.x"),
            {"id": "c", "tool": "say", "input": {"text": "x"}, "when": {"ref": "step:a"}},
        ),
        (
            "steps[0].depends_on[0]",
            "cycle",
            "`a` -> `b` -> `c` -> `a`. Take one of these references away: `steps[0].depends_on[0]`, `steps[1].map` or",
        ),
    ),
    bad(
        "two circles",
        steps(say("a", "step:b"), say("b", "step:a"), say("c", "step:d"), say("d", "step:c")),
        ("steps[0].input.text", "cycle", "`a` -> `b`"),
        ("steps[2].input.text", "cycle", "`c` -> `d`"),
    ),
    bad(
        "condition in words",
        steps(say(when={"ref": "total > 3"})),
        ("steps[0].when.ref", "bad_reference", "`ref` takes a reference"),
    ),
    bad(
        "condition on an unknown field",
        steps(ocr(), say(when={"ref": "step:ocr.confidance"})),
        ("steps[1].when.ref", "no_such_field", "`step:ocr.confidence`"),
    ),
    bad(
        "condition compares apples",
        steps(ocr(), say(when={"ref": "step:ocr.text", "op": "gt", "value": 3})),
        ("steps[1].when.ref", "wrong_type", "cannot compare"),
    ),
    bad(
        "condition compares with nothing",
        steps(ocr(), say(when={"ref": "step:ocr.confidence", "op": "lt"})),
        ("steps[1].when.value", "bad_value", "`value` is null"),
    ),
    bad(
        "condition in a number",
        steps(ocr(), say(when={"ref": "step:ocr.text", "op": "in", "value": 3})),
        ("steps[1].when.value", "bad_value", "looks in a list"),
    ),
    bad("output of no step", steps(tax(), output="step:taxes"), ("output", "unknown_step", "Did you mean `tax`?")),
    bad("output by a bare id", steps(tax(), output="tax"), ("output", "bad_reference", "Write `step:tax`.")),
    bad(
        "output of an unknown field",
        steps(ocr(), output="step:ocr.txt"),
        ("output", "no_such_field", "Did you mean `step:ocr.text`?"),
    ),
    bad(
        "answer from no step",
        steps(ocr(), final_synthesis={"prompt_template": "{{steps}} {{steps.orc.text}} {{steps.ocr.tex}} {{ocr}}"}),
        ("final_synthesis.prompt_template", "unknown_step", "Did you mean `ocr`?"),
        ("final_synthesis.prompt_template", "no_such_field", "Did you mean `step:ocr.text`?"),
        ("final_synthesis.prompt_template", "bad_placeholder", "`{{ocr}}` is no placeholder"),
    ),
    bad(
        "answer misspelt",
        steps(tax(), final_synthesis={"template": "x"}),
        ("final_synthesis.prompt_template", "missing_field", "text in which `{{steps}}`"),
        ("final_synthesis.template", "unknown_field", "`prompt_template`"),
    ),
]

INPUTS = [
    bad(
        "input missing",
        steps(ocr()),
        ("inputs.image", "missing_input", "Input `image` is used by the plan and has no value"),
        inputs={},
    ),
    bad(
        "input misspelt",
        steps(ocr()),
        ("inputs.image", "missing_input", "Did you mean `imgae`?"),
        ("inputs.imgae", "unknown_input", "Did you mean `image`?"),
        inputs={"imgae": "x"},
    ),
    bad(
        "input of the wrong type",
        steps(ocr()),
        ("inputs.image", "bad_input", "must be text: it becomes `image_uri` of `receipt_ocr` (steps[0].input.image_uri)"),
        inputs={"image": 5},
    ),
    bad(
        "default of the wrong type",
        steps(tax(amount="input:sum"), inputs={"sum": "much"}),
        ("inputs.sum", "bad_input", "is text (`much`), but must be a number"),
    ),
    bad(
        "map over no list",
        steps(MAPPED),
        (
            "inputs.images",
            "map_not_list",
            "must be a list, for steps[0].map runs over it, but it is text (`x.png`). Put the value into a list",
        ),
        inputs={"images": "x.png"},
    ),
    bad(
        "elements of the wrong type",
        steps(MAPPED),
        ("inputs.images[1]", "bad_input", "is a whole number (`1`), but must be text"),
        ("inputs.images[3]", "bad_input", "is null, but must be text"),
        inputs={"images": ["a", 1, "b", None]},
    ),
    bad(
        "elements without the field",
        steps(ocr(map="input:pictures", input={"image_uri": "item.uri"})),
        ("inputs.pictures[1]", "no_such_field", "there is no `.uri` in an object. Did you mean `url`?"),
        inputs={"pictures": [{"uri": "a"}, {"url": "b"}]},
    ),
    bad(
        "path into an input",
        steps(ocr(input={"image_uri": "input:job.image[2]"})),
        ("inputs.job.image", "out_of_range", "leads nowhere"),
        inputs={"job": {"image": ["a"]}},
    ),
    bad(
        "too many elements",
        steps(MAPPED),
        ("inputs.images", "limit_exceeded", "has 100001 elements; the limit is 100000"),
        inputs={"images": ["x"] * 100_001},
    ),
    bad(
        "input that is no JSON",
        steps(ocr()),
        ("inputs.image", "not_json", "A Python `bytes` is no JSON value"),
        inputs={"image": b"x"},
    ),
]

SEVERAL = [
    bad(
        "everything at once",
        {
            "request_id": 5,
            "stepps": [],
            "inputs": {"images": "one.png"},
            "steps": [
                {"id": "ocr", "tool": "receipt_ocr", "map": "input:images", "input": {"image_uri": "item", "dpi": 300}},
                {"id": "9lives", "tool": "nowhere", "input": {"x": "step:ocr.nothing"}},
                {"id": "tax", "tool": "compute_tax", "input": {"amount": "step:ocr", "tax_rate": 7}, "retry": {"max": -1}},
                {"id": "tax", "tool": "say", "input": {"text": "step:after"}},
            ],
            "output": "step:summary",
        },
        ("request_id", "wrong_type", "`request_id` is `5`, but must be text"),
        ("stepps", "unknown_field", "Did you mean `steps`?"),
        ("inputs.images", "map_not_list", "but it is text (`one.png`)"),
        ("steps[0].input.dpi", "unknown_argument", "It takes `image_uri`"),
        ("steps[1].id", "bad_id", "`9lives` is no id"),
        ("steps[1].tool", "unknown_tool", "There is no tool `nowhere`"),
        ("steps[1].input.x", "no_such_field", "a list has no field `nothing`"),
        ("steps[2].retry.max", "bad_value", "at least 0"),
        ("steps[2].input.amount", "wrong_type", "the list of all results of map step `ocr`"),
        ("steps[2].input.tax_rate", "bad_value", "at most 1"),
        ("steps[3].id", "duplicate_id", "taken by steps[2]"),
        ("steps[3].input.text", "unknown_step", "no step `after`"),
        ("output", "unknown_step", "no step `summary`"),
    ),
]

BAD_PLANS = [*FORM, *TOOLS, *ARGUMENTS, *REFERENCES, *MAPS, *WHOLE, *INPUTS, *SEVERAL]
