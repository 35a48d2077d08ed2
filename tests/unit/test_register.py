"""Functions as tools: schemas, checked input and output, the registry, loading."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import RegisteredTool, ToolRegistry, load_tools, register_function, registry
from orchestrator.errors import Conflict, NotFound, RequestError, ToolError
from orchestrator.hybrid_dispatcher import register_function as handed_on


class Thing(BaseModel):
    name: str
    price: float | None = None


def sample(
    things: list[Thing],
    kind: Literal["a", "b"],
    context: ToolContext,
    *,
    json: date | None = None,
    _n: int = 3,
    anything: Any = None,
) -> dict[str, Thing]:
    """Counts things.

    In a long line.

    Args:
        things: What is counted.
        kind: One of two.
    """
    return {"first": things[0]}


def plain(x: int):  # type: ignore[no-untyped-def]
    return x


def made(function: Any, **options: Any) -> RegisteredTool:
    own = ToolRegistry()
    register_function(registry=own, **options)(function)
    found = own.get(own.names()[0])
    assert found is not None
    return found


def test_the_schema_comes_from_hints_and_docstring() -> None:
    tool = made(sample)
    schema = tool.definition.input_schema
    Draft202012Validator.check_schema(schema)
    assert tool.definition.name == "sample"
    assert tool.definition.description == "Counts things.\n\nIn a long line."
    assert set(schema["properties"]) == {"things", "kind", "json", "_n", "anything"}
    assert schema["required"] == ["things", "kind"]
    assert schema["properties"]["things"]["description"] == "What is counted."
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]
    assert schema["properties"]["_n"]["default"] == 3
    assert schema["$defs"]["Thing"]["required"] == ["name"]
    assert tool.definition.output_schema is not None
    assert tool.definition.output_schema["additionalProperties"] == {"$ref": "#/$defs/Thing"}
    assert tool.context_parameter == "context"


def test_the_schema_accepts_what_the_tool_accepts_and_refuses_the_rest() -> None:
    checker = Draft202012Validator(made(sample).definition.input_schema)
    assert checker.is_valid({"things": [{"name": "x", "price": None}], "kind": "a", "json": "2026-01-02"})
    assert not checker.is_valid({"things": [{"price": 1}], "kind": "a"})
    assert not checker.is_valid({"things": [], "kind": "a", "other": 1})


def test_input_becomes_typed_arguments_and_defaults_stay_with_the_function() -> None:
    given = made(sample).validate_input({"things": [{"name": "x"}], "kind": "a", "json": "2026-01-02", "_n": 4})
    assert given == {"things": [Thing(name="x")], "kind": "a", "json": date(2026, 1, 2), "_n": 4}


def test_bad_input_names_every_field() -> None:
    with pytest.raises(ToolError) as caught:
        made(sample).validate_input({"thing": [], "kind": "c", "json": "never"})
    error = caught.value
    assert (error.code, error.retryable) == ("bad_input", False)
    assert {p["path"] for p in error.problems} == {"things", "thing", "kind", "json"}
    assert "did you mean `things`?" in str(error)
    assert "`things`: is missing" in str(error)


def test_nested_places_are_paths() -> None:
    with pytest.raises(ToolError) as caught:
        made(sample).validate_input({"things": [{"name": "x"}, {"name": 3}], "kind": "a"})
    assert caught.value.path == "things[1].name"


def test_output_is_json_and_checked() -> None:
    tool = made(sample)
    assert tool.validate_output({"first": Thing(name="x", price=1.5)}) == {"first": {"name": "x", "price": 1.5}}
    with pytest.raises(ToolError, match="first"):
        tool.validate_output({"first": 3})


@pytest.mark.parametrize("value", [object(), float("nan"), {"x": float("inf")}])
def test_output_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(ToolError) as caught:
        made(plain).validate_output(value)
    assert caught.value.code == "bad_output"


def test_an_unannotated_result_may_be_any_json() -> None:
    assert made(plain).returns is None
    assert made(plain).validate_output([Thing(name="x")]) == [{"name": "x", "price": None}]


def test_async_functions_are_known() -> None:
    async def wait(x: int) -> int:
        return x

    assert made(wait).is_async
    assert not made(sample).is_async


def test_the_decorator_returns_the_function_and_sets_what_it_is_told() -> None:
    own = ToolRegistry()

    def double(x: int) -> int:
        return 2 * x

    options = {"domain": "maths", "pool": "ocr", "timeout_s": 5, "examples": [{"scenario": "two", "input": {"x": 1}}]}
    assert handed_on("twice", effect="idempotent", registry=own, **options)(double) is double
    tool = own.get("twice")
    assert tool is not None
    assert (tool.definition.effect, tool.definition.pool, tool.definition.domain, tool.definition.timeout_s) == (
        "idempotent",
        "ocr",
        "maths",
        5,
    )
    assert tool.definition.examples[0].scenario == "two"
    assert made(sample).definition.effect == "once"


def test_two_functions_under_one_name_are_refused_and_a_reload_is_not() -> None:
    own = ToolRegistry()
    register_function("same", registry=own)(plain)
    register_function("same", registry=own)(plain)
    with pytest.raises(Conflict, match=r"`same`.*plain.*sample"):
        register_function("same", registry=own)(sample)


def test_signatures_without_a_json_form_are_refused() -> None:
    def many(*values: int) -> int:
        return sum(values)

    def odd(value: ToolRegistry) -> int:
        return 1

    with pytest.raises(TypeError, match=r"\*values"):
        made(many)
    with pytest.raises(TypeError, match="odd"):
        made(odd)
    with pytest.raises(TypeError, match="parentheses"):
        register_function(plain)  # type: ignore[arg-type]


def test_a_file_of_tools_is_loaded_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from pydantic import BaseModel\n"
        "from orchestrator.hybrid_dispatcher import register_function\n"
        "class In(BaseModel):\n    x: int\n"
        "@register_function('tool_of_mine')\ndef mine(value: In) -> int:\n    return value.x\n"
    )
    load_tools(str(file))
    load_tools(str(file))
    tool = registry.get("tool_of_mine")
    assert tool is not None
    assert tool.function(**tool.validate_input({"value": {"x": 3}})) == 3


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_package_anywhere\n")
    before = set(sys.modules)
    with pytest.raises(NotFound, match=r"missing\.py"):
        load_tools(str(tmp_path / "missing.py"))
    with pytest.raises(RequestError, match="no_such_package_anywhere"):
        load_tools(str(tmp_path / "broken.py"))
    with pytest.raises(NotFound, match=r"no_such\.module"):
        load_tools("no_such.module")
    assert not [m for m in set(sys.modules) - before if "broken" in m]
