"""Catalogs by name, alias and tenant; definitions as rows; what is told about servers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from orchestrator.errors import NotFound, PlanError
from orchestrator.models.catalog import Diff, ServerState
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.check import check_plan
from orchestrator.programmatic_executor.granted import callable_by_programs, with_aliases
from orchestrator.publisher.compile import compile_plan

SCHEMA = {"type": "object", "properties": {"zone": {"type": "string"}, "at": {"type": "number"}}, "required": ["zone"]}


def tool(name: str, **more: Any) -> ToolDefinition:
    return ToolDefinition.model_validate({"name": name, **more})


def one_step(name: str, /, **input: Any) -> dict[str, Any]:
    return {"steps": [{"id": "a", "tool": name, "input": input}]}


def problems(plan: dict[str, Any], catalog: ToolCatalog) -> list[tuple[str, str]]:
    with pytest.raises(PlanError) as caught:
        check_plan(plan, catalog)
    return [(p["code"], p["next"]) for p in caught.value.problems]


CATALOG = ToolCatalog(
    tools=[
        tool("time.now", aliases=("now", "clock"), json_schema=SCHEMA, pool="mcp"),
        tool("time.later", aliases=("clock", "old"), pool="mcp", deprecated="use `time.now`"),
        tool("old", pool="mcp"),
        tool("mine", tenants=("acme",), aliases=("ours",)),
    ]
)


def test_a_row_is_the_whole_definition_and_keeps_the_schema_as_it_was() -> None:
    schema = {"required": ["z"], "type": "object", "properties": {"z": {"type": "string"}, "a": {"default": 1.0, "enum": [2, 1]}}}
    made = tool("s.t", json_schema=schema, server="s", native_name="t", tags=["x"], tenants=["b", "a"])
    back = ToolDefinition.model_validate_json(made.to_row())
    assert back == made
    assert json.dumps(back.input_schema) == json.dumps(schema)
    assert "parameters" not in json.loads(made.to_row()), "they are a view of the schema"
    assert [p.name for p in back.parameters] == ["z", "a"]


def test_parameters_are_a_view_of_the_schema_whatever_else_was_said() -> None:
    made = tool("s.t", json_schema=SCHEMA, parameters=[{"name": "other"}])
    assert [p.name for p in made.parameters] == ["zone", "at"]
    assert ToolDefinition.model_validate_json(made.to_row()) == made


def test_the_version_is_of_the_content_not_of_the_order_of_keys() -> None:
    one = tool("s.t", json_schema={"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}})
    other = tool("s.t", json_schema={"properties": {"b": {"type": "string"}, "a": {"type": "string"}}, "type": "object"})
    assert one.content_hash == other.content_hash
    assert one.content_hash != tool("s.t", json_schema=SCHEMA).content_hash
    listed = [tool("s.t", json_schema={"type": "object", "required": r}).content_hash for r in (["a", "b"], ["b", "a"])]
    assert listed[0] != listed[1], "the order of a list is content"


def test_a_catalog_whose_list_was_changed_finds_its_tools_all_the_same() -> None:
    catalog = ToolCatalog(tools=[tool("a"), tool("b")])
    assert catalog.get_tool("b") is catalog.tools[1]
    catalog.tools.insert(0, tool("c"))
    assert [catalog.get_tool(n) for n in "abc"] == [catalog.tools[1], catalog.tools[2], catalog.tools[0]]
    catalog.tools = [tool("d")]
    assert catalog.get_tool("a") is None
    catalog.tools[0] = tool("e")
    assert (catalog.get_tool("d"), catalog.get_tool("e")) == (None, catalog.tools[0])
    catalog.add_tool(tool("e", description="new"))
    assert [(t.name, t.description) for t in catalog.tools] == [("e", "new")]


def test_two_tools_of_one_name_in_a_list_the_first_is_found() -> None:
    catalog = ToolCatalog(tools=[tool("a", description="first"), tool("a"), tool("b")])
    assert catalog.get_tool("a") is catalog.tools[0]
    catalog.add_tool(tool("a", description="new"))
    assert [t.description for t in catalog.tools] == ["new", "", ""]


def test_looking_tools_up_does_not_make_catalogs_differ() -> None:
    one, other = ToolCatalog(tools=[tool("a")]), ToolCatalog(tools=[tool("a")])
    assert one.get_tool("a") is not None
    assert one == other
    copied = one.model_copy(update={"tools": [*one.tools, tool("b")]})
    copied.add_tool(tool("c"))
    assert (one.get_tool("c"), copied.get_tool("b")) == (None, copied.tools[1])


def test_a_name_is_before_an_alias_and_an_alias_of_two_is_nobodys() -> None:
    found = {name: CATALOG.resolve(name) for name in ("time.now", "now", "old", "clock", "nothing")}
    assert {n: t and t.name for n, t in found.items()} == {
        "time.now": "time.now", "now": "time.now", "old": "old", "clock": None, "nothing": None,
    }  # fmt: skip
    assert [t.name for t in CATALOG.claimants("clock")] == ["time.now", "time.later"]


def test_a_tenant_sees_what_is_for_all_and_what_is_its_own() -> None:
    assert CATALOG.seen_by("acme") is CATALOG
    others = CATALOG.seen_by("other")
    assert [t.name for t in others.tools] == ["time.now", "time.later", "old"]
    assert others.resolve("ours") is None
    assert tool("x", tenants=()).visible_to("acme") is False, "for nobody"


def test_a_deprecated_tool_is_offered_to_a_model_only_when_named() -> None:
    assert [t["name"] for t in CATALOG.to_llm_format()] == ["time.now", "old", "mine"]
    assert [t["name"] for t in CATALOG.to_llm_format(available_tools=["time.later"])] == ["time.later"]


def test_a_plan_that_names_an_alias_holds_the_real_name() -> None:
    checked = check_plan(one_step("now", zone="CET"), CATALOG)
    assert [s.tool for s in checked.plan.steps] == ["time.now"]
    assert compile_plan(checked.plan, catalog=CATALOG).tools == (("mcp", "time.now"),)
    called = check_plan(one_step("function_call", name="now", args={"zone": "CET"}), CATALOG)
    assert [s.tool for s in called.plan.steps] == ["time.now"]
    assert check_plan(checked.plan, CATALOG).plan == checked.plan


def test_an_alias_of_two_tools_is_said() -> None:
    assert problems(one_step("clock"), CATALOG) == [("ambiguous_tool", "Name the one that is meant: `time.now` or `time.later`.")]


def test_a_tool_of_another_tenant_is_not_there() -> None:
    check_plan(one_step("mine"), CATALOG.seen_by("acme"))
    hidden = problems(one_step("mine"), CATALOG.seen_by("other"))
    assert hidden == problems(one_step("gone"), CATALOG.seen_by("other"))
    assert hidden[0][0] == "unknown_tool"


def test_a_deprecated_tool_runs_with_a_warning() -> None:
    checked = check_plan(one_step("time.later"), CATALOG)
    assert [(w["path"], w["code"], w["next"]) for w in checked.warnings] == [("steps[0].tool", "deprecated_tool", "use `time.now`")]
    assert check_plan(one_step("old"), CATALOG).warnings == ()


def test_programs_are_granted_tools_by_alias() -> None:
    granted = callable_by_programs(CATALOG, ["now", "time.now"])
    assert list(granted) == ["time.now"], "stubs are made once"
    assert {name: t.name for name, t in with_aliases(granted).items()} == dict.fromkeys(("time.now", "now", "clock"), "time.now")
    assert "clock" not in with_aliases(callable_by_programs(CATALOG)), "two claim it"
    assert with_aliases(callable_by_programs(CATALOG))["old"].name == "old"
    with pytest.raises(NotFound):
        callable_by_programs(CATALOG, ["clock"])


def test_the_pools_of_programs_are_those_of_the_tools_that_aliases_name() -> None:
    catalog = ToolCatalog(tools=[*CATALOG.tools, tool("run", type="code_exec", pool="code")])
    for named in (["now"], {"$literal": ["now"]}):
        plan = Plan.model_validate(one_step("run", code="1", tools=named))
        assert compile_plan(plan, catalog=catalog).queues == ("code", "mcp")


def test_the_pools_of_programs_hold_whatever_a_name_may_mean_to_a_tenant() -> None:
    hidden = [tool("theirs", pool="theirs", aliases=("now",), tenants=("other",)), tool("clock", pool="exact", tenants=("other",))]
    catalog = ToolCatalog(tools=[*CATALOG.tools, *hidden, tool("run", type="code_exec", pool="code")])
    plan = Plan.model_validate(one_step("run", code="1", tools=["now", "clock"]))
    assert catalog.seen_by("acme").resolve("now") == CATALOG.resolve("now")
    assert {"mcp", "theirs", "exact"} <= set(compile_plan(plan, catalog=catalog).queues)


def test_a_lookup_answers_as_the_catalog_does() -> None:
    lookup = CATALOG.lookup()
    for name in ("time.now", "now", "old", "clock", "nothing", "mine"):
        assert lookup.resolve(name) is CATALOG.resolve(name), name


def test_many_names_in_a_large_catalog_are_found_at_once() -> None:
    catalog = ToolCatalog(tools=[tool(f"t{i}", aliases=(f"other{i}",)) for i in range(10_000)])
    clock = time.process_time()
    assert len(callable_by_programs(catalog, [f"other{i}" for i in range(5_000)])) == 5_000
    assert time.process_time() - clock < 5, "a look at all tools for each name takes several times as long"


def test_a_tool_of_very_many_parameters_is_read_at_once() -> None:
    clock = time.process_time()
    assert len(tool("wide", json_schema={"properties": {f"p{i}": {} for i in range(20_000)}}).parameters) == 20_000
    assert time.process_time() - clock < 2.5


def test_a_difference_is_false_when_there_is_none() -> None:
    assert not Diff()
    assert Diff(removed=("a",))


def test_the_state_of_a_newer_worker_can_be_read() -> None:
    read = ServerState.model_validate_json('{"name": "time", "state": "up", "of_a_later_version": 1}')
    assert (read.name, read.state, read.kind) == ("time", "up", "stdio")
