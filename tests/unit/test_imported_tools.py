"""Tools that come with a schema of their own: any dialect, odd or hostile, judged alike by planner, programs and workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.imported import SchemaTool, imported_name, register_worker, risky_pattern
from orchestrator.catalog.judge import Judge, TooManySteps, found_in, matcher
from orchestrator.catalog.register import ToolRegistry
from orchestrator.errors import Conflict, PlanError, ToolError
from orchestrator.models.tool import MAX_TOOL_NAME, ToolCatalog, ToolDefinition, ToolParameter
from orchestrator.planner.arguments import prepare
from orchestrator.planner.check import check_plan
from orchestrator.programmatic_executor.arguments import ArgumentCheck
from workers.testing import FakeContext

LIVE = Path(__file__).parents[1] / "data" / "livemcp" / "tools.jsonl"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
QUICK_S = 10.0  # of work; a pattern that backtracks would take years


async def echo(arguments: dict[str, Any], _context: ToolContext) -> Any:
    return arguments


def imported(schema: dict[str, Any], output: dict[str, Any] | None = None) -> ToolDefinition:
    return ToolDefinition(name="s.t", server="s", native_name="t", json_schema=schema, output_schema=output, pool="mcp")


def of_worker(schema: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    try:
        SchemaTool(imported(schema), echo, origin="test").validate_input(arguments)
    except ToolError as error:
        return [p["path"] for p in error.problems] if error.code == "bad_input" else [error.code]
    return []


def of_planner(schema: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    plan = {"steps": [{"id": "a", "tool": "s.t", "input": arguments}]}
    try:
        check_plan(plan, ToolCatalog(tools=[imported(schema)]))
    except PlanError as error:
        return [str(p["path"]).removeprefix("steps[0].input").lstrip(".") for p in error.problems]
    return []


async def of_program(schema: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    return await ArgumentCheck(imported(schema)).problem(arguments)


PAIR = [{"type": "string"}, {"type": "integer"}]
JUDGED: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("no properties", {"type": "object"}, {"anything": 1}, []),
    ("nothing at all", {}, {"anything": 1}, []),
    ("others are taken", {"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x", "b": 1}, []),
    ("others are not", {"type": "object", "properties": {}, "additionalProperties": False}, {"b": 1}, ["b"]),
    ("others of a kind", {"type": "object", "additionalProperties": {"type": "integer"}}, {"b": "x"}, ["b"]),
    ("a true schema", {"type": "object", "properties": {"a": True}}, {"a": [1]}, []),
    ("a false schema", {"type": "object", "properties": {"a": False}}, {"a": 1}, ["a"]),
    ("required, not listed", {"type": "object", "properties": {}, "required": ["a"]}, {}, ["a"]),
    ("more than properties say", {"type": "object", "properties": {}, "minProperties": 1}, {}, [""]),
    ("either of two", {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]}, {}, ["a"]),
    ("a pair of draft-07", {"$schema": DRAFT_7, "properties": {"p": {"items": PAIR}}}, {"p": ["a", "b"]}, ["p[1]"]),
    ("a pair, undeclared", {"type": "object", "properties": {"p": {"type": "array", "items": PAIR}}}, {"p": [1, 2]}, ["p[0]"]),
    ("a pair of 2020-12", {"type": "object", "properties": {"p": {"prefixItems": PAIR}}}, {"p": ["a", "b"]}, ["p[1]"]),
    ("a bound of draft-04", {"type": "object", "properties": {"n": {"minimum": 0, "exclusiveMinimum": True}}}, {"n": 0}, ["n"]),
    ("an unknown dialect", {"$schema": "https://example.com/own", "properties": {"n": {"type": "null"}}}, {"n": 1}, ["n"]),
    ("definitions", {"type": "object", "properties": {"n": {"$ref": "#/definitions/k"}}, "definitions": {"k": {"type": "integer"}}},
     {"n": "x"}, ["n"]),
    ("$defs", {"properties": {"n": {"$ref": "#/$defs/k"}}, "$defs": {"k": {"type": "integer"}}}, {"n": "x"}, ["n"]),
    ("within itself", {"properties": {"sub": {"$ref": "#"}, "n": {"type": "integer"}}}, {"sub": {"sub": {"n": "x"}}},
     ["sub.sub.n"]),
    ("a pattern", {"type": "object", "properties": {"d": {"type": "string", "pattern": r"^\d{4}$"}}}, {"d": "12345"}, ["d"]),
    ("a pattern of another engine", {"properties": {"d": {"type": "string", "pattern": "^(?!x)"}}}, {"d": "x"}, []),
    ("a property called $schema", {"type": "object", "properties": {"$schema": {"type": "string"}}}, {"$schema": 1}, ["$schema"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "arguments", "paths"), [c[1:] for c in JUDGED], ids=[c[0] for c in JUDGED])
async def test_all_three_judge_alike(schema: dict[str, Any], arguments: dict[str, Any], paths: list[str]) -> None:
    assert of_worker(schema, arguments) == paths
    assert of_planner(schema, arguments) == paths
    assert (await of_program(schema, arguments) is not None) == bool(paths)


def test_a_reference_may_stand_where_the_schema_lists_nothing() -> None:
    catalog = ToolCatalog(tools=[imported({"type": "object", "properties": {"o": {"type": "object", "properties": {"a": {}}}}})])
    plan = {"inputs": {"v": 1}, "steps": [{"id": "a", "tool": "s.t", "input": {"more": "input:v", "o": {"b": "input:v"}}}]}
    assert check_plan(plan, catalog).plan.steps


def test_a_ref_elsewhere_is_never_fetched() -> None:
    schema = {"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    assert of_planner(schema, {"n": 1}) == ["steps[0].tool"], "no tool that a plan can be checked against"
    assert of_worker(schema, {"n": 1}) == [], "whoever offers the tool judges it"


HOSTILE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a pattern that backtracks", {"properties": {"y": {"pattern": "^(a+)+$"}}}, {"y": "a" * 5_000 + "!"}),
    ("behind another dialect", {"properties": {"z": {"$schema": DRAFT_7, "properties": {"y": {"pattern": "^(a+)+$"}}}}},
     {"z": {"y": "a" * 5_000 + "!"}}),
    ("behind a reference to itself", {"$schema": DRAFT_7, "properties": {"z": {"$ref": "#"}, "y": {"pattern": "^(a+)+$"}}},
     {"z": {"y": "a" * 5_000 + "!"}}),
    ("names that backtrack", {"patternProperties": {"^(a+)+$": {"type": "string"}}}, {"a" * 5_000 + "!": "x"}),
    ("two ways at each of many levels", {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {
        "a": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}, {"type": "string"}]}}}},
     {"x": json.loads("[" * 40 + "1" + "]" * 40)}),
    ("a circle", {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 2}}},
     {"x": 1}),
    ("anchors in a large schema", {"properties": {"x": {"items": {"$ref": "#a"}}},
      "$defs": {"a": {"$anchor": "a", "type": "integer"}, "more": {"properties": {f"p{i}": {"title": "x"} for i in range(3_000)}}}},
     {"x": list(range(6_000))}),
    ("dynamic anchors", {"properties": {"x": {"items": {"$dynamicRef": "#a"}}},
      "$defs": {"a": {"$dynamicAnchor": "a"}, "more": {"properties": {f"p{i}": {"title": "x"} for i in range(3_000)}}}},
     {"x": list(range(6_000))}),
    ("a large value that fits none of many", {"properties": {"x": {"anyOf": [{"type": "string"}] * 3_000}}},
     {"x": list(range(60_000))}),
    ("patterns that are heavy to make ready",
     {"properties": {"x": {"allOf": [{"pattern": rf"\w{{{300 + n}}}"} for n in range(100)]}}}, {"x": "a"}),
    ("wide objects in a long list", {"properties": {"x": {"items": {"properties": {f"p{i}": {} for i in range(6_000)}}}}},
     {"x": [{}] * 20_000}),
    ("many unlike values", {"properties": {"x": {"type": "array", "uniqueItems": True}}}, {"x": [[n] for n in range(6_000)]}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "arguments"), [c[1:] for c in HOSTILE], ids=[c[0] for c in HOSTILE])
@pytest.mark.parametrize("judged", [of_worker, of_planner])
def test_a_hostile_schema_holds_nobody_up(
    judged: Callable[[dict[str, Any], dict[str, Any]], list[str]], schema: dict[str, Any], arguments: dict[str, Any]
) -> None:
    clock = time.process_time()
    judged({"type": "object", **schema}, arguments)
    assert time.process_time() - clock < QUICK_S


def test_a_check_that_would_take_too_long_says_so() -> None:
    judge = Judge({"type": "object", "properties": {"x": {"type": "array", "items": {"type": "integer"}}}})
    with pytest.raises(TooManySteps):
        judge.errors({"x": list(range(1_000))}, steps=500)
    assert judge.problems({"x": list(range(1_000))}, steps=500) == [], "it is left to whoever has the schema"


CIRCLES: list[dict[str, Any]] = [
    {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
    {"allOf": [{"$ref": "#"}]},
]


@pytest.mark.parametrize("schema", CIRCLES)
@pytest.mark.parametrize("frames", range(0, 12))
def test_a_circle_of_references_crashes_nobody_however_full_the_stack_is(schema: dict[str, Any], frames: int) -> None:
    def deeper(left: int) -> list[str]:
        return deeper(left - 1) if left else of_worker({"type": "object", **schema}, {"x": 1})

    assert deeper(frames) == []
    with pytest.raises(RecursionError):
        Judge(schema).errors({"x": 1})
    assert of_planner({"type": "object", **schema}, {"x": 1}) == ["steps[0].tool"], "no tool that a plan can be checked against"


def test_choices_are_compared_as_json_and_quickly() -> None:
    judge = Judge({"properties": {"x": {"enum": [1, "a", [True], {"b": 0}, None]}}})
    right, wrong = [1, 1.0, "a", [True], {"b": 0}, None], [True, "A", [1], {"b": False}, 0, []]
    assert [judge.problems({"x": v}) for v in right] == [[]] * len(right)
    assert [[p["code"] for p in judge.problems({"x": v})] for v in wrong] == [["enum"]] * len(wrong)
    long = Judge({"items": {"enum": [[0] * 1_000 + [n] for n in range(9)]}})
    clock = time.process_time()
    assert long.problems([[0] * 1_000 + [8]] * 3_000) == []
    assert time.process_time() - clock < 1.5, "item by item in Python it takes several times as long"


@pytest.mark.parametrize("odd", [True, 1, None, ["#"], {}])
def test_a_reference_that_is_none_crashes_nobody(odd: Any) -> None:
    """Where a schema stands, a plan has no tool to be checked against; a worker lets the server judge."""
    hidden = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object", "properties": {"x": {"$ref": odd}}}
    for schema in (hidden, {**hidden, "$schema": DRAFT_7}):
        assert of_worker(schema, {"x": [1]}) == []
        assert of_planner(schema, {"x": [1]}) == ["steps[0].tool"]
    listed = {"type": "object", "properties": {"x": {"items": [{"$ref": odd}]}}}  # since 2020-12 a list here says nothing
    assert of_worker(listed, {"x": [1]}) == []
    assert of_planner(listed, {"x": [1]}) == []


def test_a_very_deep_schema_crashes_nobody() -> None:
    for depth in range(10, 120, 7):
        deep: dict[str, Any] = {"type": "string"}
        for _ in range(depth):
            deep = {"type": "object", "properties": {"a": deep}}
        assert of_worker(deep, {"a": 1}) in ([], ["a"])
        assert of_planner(deep, {"a": 1}) == ["a"]


def test_what_was_found_before_a_check_took_too_long_is_told() -> None:
    judge = Judge({"properties": {"a": {"type": "integer"}, "x": {"type": "array", "items": {"type": "integer"}}}})
    assert [p["path"] for p in judge.problems({"a": "b", "x": list(range(1_000))}, steps=500)] == ["a"]


def test_a_large_result_of_another_kind_is_refused() -> None:
    tool = SchemaTool(imported({"type": "object"}, {"type": "object"}), echo, origin="test")
    with pytest.raises(ToolError, match="is a list, but must be an object"):
        tool.validate_output(["a" * 1_000] * 30_000)


def test_anchors_and_embedded_schemas_are_found() -> None:
    anchored = {"type": "object", "properties": {"n": {"$ref": "#whole"}}, "$defs": {"n": {"$anchor": "whole", "type": "integer"}}}
    named = {
        "$id": "https://tools.test/a", "type": "object", "properties": {"n": {"$ref": "b"}},
        "$defs": {"n": {"$id": "b", "type": "integer"}},
    }  # fmt: skip
    old = {
        "$schema": DRAFT_7,
        "type": "object",
        "properties": {"n": {"$ref": "#n"}},
        "definitions": {"n": {"$id": "#n", "type": "integer"}},
    }
    for schema in (anchored, named, old):
        assert of_worker(schema, {"n": "x"}) == of_planner(schema, {"n": "x"}) == ["n"], schema
        assert of_worker(schema, {"n": 1}) == of_planner(schema, {"n": 1}) == []


@pytest.mark.parametrize(
    "pattern", [r"^[\w-]{1,64}$", r"^\p{L}{1,64}$", r"^\d{3}-\d{60}$", "^[a-z]{1,63}(\\.[a-z]{1,63}){0,9}$", "^(?<y>x)"]
)
def test_patterns_of_common_size_are_judged(pattern: str) -> None:
    assert found_in(pattern, "\u2603") is False


@pytest.mark.parametrize(
    "pattern", [r"\w{300}", r"(\p{L}{1,40} ?){1,20}!$", r"((a{100}){100}){100}", r"(?<n>\w{900})", "a" * 3_000]
)
def test_heavy_patterns_are_left_to_the_tool(pattern: str) -> None:
    assert matcher(pattern) is None


def test_every_real_schema_imports_and_is_made_ready() -> None:
    rows = [json.loads(line) for line in LIVE.read_text(encoding="utf-8").splitlines()]
    names = set()
    for row in rows:
        definition = ToolDefinition(
            name=imported_name(row["server"], row["name"]), description=row["description"], json_schema=row["schema"]
        )
        names.add(definition.name)
        assert prepare(definition).tool is definition
        assert list(row["schema"].get("properties", {})) == [p.name for p in definition.parameters]
        SchemaTool(definition, echo, origin="live")
        ArgumentCheck(definition)
    assert len(names) == len(rows) == 527


def test_the_names_of_imported_tools() -> None:
    assert imported_name("time", "get_current_time") == "time.get_current_time"
    assert imported_name("my server", "read file!") == "my_server.read_file_"
    assert imported_name("s", "a/b:c-d.e") == "s.a/b:c-d.e"
    assert imported_name("地图", "搜索²") == "s地图.搜索_"
    long = [imported_name("s", "x" * 200 + end) for end in "ab"]
    assert long[0] != long[1]
    for name in (*long, imported_name("9", "\ud800"), imported_name("_", "")):
        assert ToolDefinition(name=name).name == name
        assert len(name) <= MAX_TOOL_NAME


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*a)*", "(a|aa)+", "(a*)*", r"(\w+\s?)*", "(x+x+)+y", r"((a)\2)*", "a" * 3_000],
)  # fmt: skip
def test_patterns_that_may_backtrack_for_ever(pattern: str) -> None:
    assert risky_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d\d-\d\d$", "^[a-z0-9]+(-[a-z0-9]+)*$", r"^([\w.]+)@([\w.]+)\.\w+$", r"(?:[^/]+/)*x", r"(\d+,)*", "(a|b)*",
        r"^(?:(?:25[0-5]|2[0-4][0-9])\.){3}", "^https?://", r"^(0x)?[0-9a-f]{40}$", "(", "[^]", r"^\p{L}+$",
    ],
)  # fmt: skip
def test_patterns_that_do_not(pattern: str) -> None:
    assert not risky_pattern(pattern)


def test_what_is_wrong_is_said_by_name() -> None:
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"], "additionalProperties": False}
    tool = SchemaTool(imported(schema), echo, origin="test")
    with pytest.raises(ToolError) as caught:
        tool.validate_input({"zona": 1})
    told = {p["path"]: p["message"] for p in caught.value.problems}
    assert told == {"zone": "is missing", "zona": "is no parameter of it (did you mean `zone`?)"}
    assert "toolweaver tools show s.t" in str(caught.value)


def test_what_comes_out_is_checked_where_it_was_promised() -> None:
    promised = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = SchemaTool(imported({"type": "object"}, promised), echo, origin="test")
    assert tool.validate_output({"n": 1, "more": None}) == {"n": 1, "more": None}
    with pytest.raises(ToolError) as caught:
        tool.validate_output({"n": "x"})
    assert (caught.value.code, caught.value.path) == ("bad_output", "n")
    free = SchemaTool(imported({"type": "object"}), echo, origin="test")
    assert free.validate_output([1, "a", None]) == [1, "a", None]
    for value in (float("nan"), object()):
        with pytest.raises(ToolError, match="no JSON value"):
            free.validate_output(value)


async def test_a_worker_of_the_whole_payload_is_a_tool() -> None:
    own = ToolRegistry()
    definition = ToolDefinition(
        name="my_new_tool", type="mcp", domain="my_domain", parameters=(ToolParameter(name="param1", required=True),)
    )

    @register_worker(definition, registry=own)
    async def my_new_tool_worker(payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "success", "data": payload["param1"]}

    assert await my_new_tool_worker({"param1": 1}) == {"status": "success", "data": 1}, "the function is what it was"
    served = own.get("my_new_tool")
    assert served is not None
    with pytest.raises(ToolError, match="`param1` is missing"):
        served.validate_input({})
    arguments = served.validate_input({"param1": "x"})
    assert served.validate_output(await served.call(arguments, FakeContext())) == {"status": "success", "data": "x"}


async def test_a_worker_may_ask_for_its_context_and_must_be_async() -> None:
    own = ToolRegistry()

    @register_worker(ToolDefinition(name="who"), registry=own)
    async def who(_payload: dict[str, Any], context: ToolContext) -> str:
        return context.tenant

    served = own.get("who")
    assert served is not None
    assert await served.call({}, FakeContext(tenant="acme")) == "acme"
    with pytest.raises(TypeError, match="async def"):
        register_worker(ToolDefinition(name="x"), registry=own)(lambda payload: payload)
    with pytest.raises(TypeError, match="takes 0 parameters"):

        @register_worker(ToolDefinition(name="y"), registry=own)
        async def nothing() -> None: ...

    with pytest.raises(Conflict):

        @register_worker(ToolDefinition(name="who"), registry=own)
        async def another(_payload: dict[str, Any]) -> None: ...
