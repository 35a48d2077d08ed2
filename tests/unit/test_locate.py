"""From a path to a line, a column and a caret."""

from __future__ import annotations

import pytest

from orchestrator.errors import PlanError
from orchestrator.planner.locate import locate, read_text, render_problem

PLAN = """{
  "request_id": "r",
  "steps": [
    {"id": "ocr", "tool": "receipt_ocr", "input": {"image_uri": "input:image"}},
    {
      "id": "tax",
      "tool": "compute_tax",
      "input": {"amount": "step:ocr", "a.b": [1, {"deep": true}]}
    }
  ]
}
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", (1, 1)),
        ("", (1, 1)),
        ("request_id", (2, 17)),
        ("steps", (3, 12)),
        ("steps[0]", (4, 5)),
        ("steps[0].input.image_uri", (4, 65)),
        ("steps[1].input.amount", (8, 27)),
        ('steps[1].input["a.b"][1].deep', (8, 59)),
    ],
)
def test_a_path_is_found(path: str, expected: tuple[int, int]) -> None:
    line, column, source = locate(PLAN, path)
    assert (line, column) == expected
    assert source == PLAN.splitlines()[line - 1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("steps[1].input.tax_rate", (8, 16)),
        ("steps[7].input", (3, 12)),
        ("steps[0].retry.max", (4, 5)),
        ("inputs.images[3]", (1, 1)),
        ("request_id.deeper", (2, 17)),
        ("???[[", (1, 1)),
    ],
)
def test_what_is_missing_is_found_at_what_should_hold_it(path: str, expected: tuple[int, int]) -> None:
    assert locate(PLAN, path)[:2] == expected


def test_the_name_of_a_field_can_be_asked_for() -> None:
    assert locate(PLAN, "steps[1].input.amount", key=True)[:2] == (8, 17)


@pytest.mark.parametrize(
    "text",
    [
        '{\n\t"steps": [\n\t\t{"id": "a"}\n\t]\n}',
        '{"steps":\r\n[\r\n  {"id": "a"}]}',
        '\n\n{"steps":[{"id":"a"}]}',
        "steps:\n  - id: a\n",
    ],
)
def test_tabs_other_line_ends_tight_json_and_yaml_are_found_too(text: str) -> None:
    line, column, source = locate(text, "steps[0].id")
    assert line == 1 + next(n for n, s in enumerate(text.splitlines()) if "id" in s)
    assert source[column - 1 :].startswith(('"a"', "a"))


@pytest.mark.parametrize("text", ["", "{", '{"a": }', "\x00", "[" * 100_000, '{"steps": [}', "plain words"])
def test_a_text_that_is_no_plan_has_its_beginning_as_place(text: str) -> None:
    assert locate(text, "steps[0].id")[:2] == (1, 1)


def test_escapes_and_slashes_do_not_disturb() -> None:
    text = '{"a": "\\u00e9\\/\\ud83d\\ude00", "steps": [1]}'
    assert locate(text, "steps[0]")[:2] == (1, text.index("[1]") + 2)


def test_a_problem_is_shown_with_a_caret_beneath_the_value() -> None:
    problem = {"path": "steps[1].input.amount", "code": "wrong_type", "message": "An object.", "next": "Name a field."}
    assert render_problem(PLAN, "plan.json", problem).splitlines() == [
        "plan.json:8:27  steps[1].input.amount",
        '    "input": {"amount": "step:ocr", "a.b": [1, {"deep": true}]}',
        "                        ^^^^^^^^^^",
        "  An object.",
        "  Name a field.",
    ]


def test_an_unknown_field_has_the_caret_beneath_its_name() -> None:
    problem = {"path": "request_id", "code": "unknown_field", "message": "No."}
    assert render_problem(PLAN, "p", problem).splitlines()[1:3] == ['    "request_id": "r",', "    ^^^^^^^^^^^^"]


def test_a_long_line_is_cut_around_the_place() -> None:
    text = '{"description": "' + "x" * 5_000 + '", "steps": [{"id": "needle"}], "request_id": "' + "y" * 5_000 + '"}'
    _, shown, caret, _ = render_problem(text, "p", {"path": "steps[0].id", "message": "m"}).splitlines()
    assert len(shown) < 120
    assert shown[caret.index("^") :].startswith('"needle"')
    assert caret.count("^") == len('"needle"')


def test_the_caret_stands_right_after_wide_letters_and_tabs() -> None:
    text = '{\t"名前": "x", "steps": 5}'
    _, shown, caret, _ = render_problem(text, "p", {"path": "steps", "message": "m"}).splitlines()
    assert caret.index("^") == shown.index("5") + 2  # two letters of two columns


def test_text_that_is_no_json_is_refused_with_line_and_column() -> None:
    text = '{\n  "steps": [\n    {"id": "a",}\n  ]\n}'
    with pytest.raises(PlanError) as caught:
        read_text(text)
    (problem,) = caught.value.problems
    assert (problem["path"], problem["code"], problem["line"]) == ("$", "bad_json", 3)
    assert "^" in render_problem(text, "p", problem).splitlines()[2]


def test_a_key_that_stands_twice_is_refused_where_it_stands_again() -> None:
    text = '{\n  "steps": [{"id": "a", "tool": "t",\n "id": "b"}]\n}'
    with pytest.raises(PlanError) as caught:
        read_text(text)
    (problem,) = caught.value.problems
    assert (problem["line"], problem["column"]) == (3, 2)
    assert "`id` stands twice" in problem["message"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5_000 + "}", ""])
def test_hostile_text_is_refused_like_any_other(text: str) -> None:
    with pytest.raises(PlanError, match="line 1"):
        read_text(text)


def test_good_text_is_read() -> None:
    assert read_text(PLAN)["steps"][0]["id"] == "ocr"


def test_a_problem_of_a_value_given_beside_the_plan_has_no_line_in_its_file() -> None:
    problem = {"path": "inputs.image", "code": "bad_input", "message": "Wrong.", "next": "Mend.", "given": True}
    assert render_problem(PLAN, "plan.json", problem) == "inputs.image  (an input that comes with the plan)\n  Wrong.\n  Mend."
