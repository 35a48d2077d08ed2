"""Tools and catalogs as the references use them, plans and their references as they cross the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from orchestrator.models import (
    Plan,
    Reference,
    Step,
    ToolCatalog,
    ToolDefinition,
    ToolExample,
    ToolParameter,
    find_references,
    parse_reference,
)


def readme_tool() -> ToolDefinition:
    """The definition that the reference prints, word for word in its fields."""
    return ToolDefinition(
        name="receipt_ocr",
        type="mcp",
        description="Extract text from receipt images using Azure Computer Vision",
        parameters=[
            ToolParameter(name="image_url", type="string", description="URL or file path", required=True),
            ToolParameter(name="language", type="string", description="Language code", enum=["en", "es", "fr"], default="en"),
            ToolParameter(
                name="orientation",
                type="string",
                description="Image orientation",
                enum=["auto", "0", "90", "180", "270"],
                default="auto",
            ),
        ],
        examples=[
            ToolExample(
                scenario="Process typical restaurant receipt from local file",
                input={"image_url": "./receipts/restaurant_2024_01_15.jpg", "language": "en", "orientation": "auto"},
                output={"text": "RESTAURANT XYZ\nDate: 2024-01-15\nBurger $12.99\nTotal: $16.98", "confidence": 0.95},
                notes="Use auto orientation for most receipts. Specify language if known.",
            ),
            ToolExample(
                scenario="Process rotated receipt from URL",
                input={"image_url": "https://storage.example.com/img_001.jpg", "orientation": "90"},
                output={"text": "GROCERY STORE\nDate: 2024-02-01\nTotal: $8.49"},
                notes="Specify orientation (90/180/270) if consistently rotated.",
            ),
        ],
    )


def test_the_readme_catalog_runs_as_it_stands() -> None:
    catalog = ToolCatalog(source="my_tools", version="1.0")
    catalog.add_tool(
        ToolDefinition(
            name="custom_analyzer",
            type="mcp",
            description="Analyze custom data",
            parameters=[ToolParameter(name="data", type="object", description="Input data", required=True)],
        )
    )
    assert (catalog.source, catalog.version, catalog.metadata) == ("my_tools", "1.0", {})
    assert [(t.name, t.type, t.domain, t.defer_loading) for t in catalog.tools] == [("custom_analyzer", "mcp", "general", False)]


def test_a_catalog_keeps_order_and_replaces_a_tool_of_one_name() -> None:
    catalog = ToolCatalog()
    for name, text in (("a", "1"), ("b", "2"), ("a", "3")):
        catalog.add_tool(ToolDefinition(name=name, description=text))
    assert [(t.name, t.description) for t in catalog.tools] == [("a", "3"), ("b", "2")]
    assert catalog.get_tool("b") is catalog.tools[1]
    assert catalog.get_tool("c") is None


def test_examples_are_folded_into_the_description() -> None:
    made = readme_tool().to_llm_format(include_examples=True)
    assert set(made) == {"name", "description", "parameters"}
    description = made["description"]
    assert description.startswith("Extract text from receipt images using Azure Computer Vision\n\nExamples:")
    assert "1. Process typical restaurant receipt from local file" in description
    assert "2. Process rotated receipt from URL" in description
    assert '"orientation": "90"' in description
    assert '"confidence": 0.95' in description
    assert "Notes: Use auto orientation for most receipts. Specify language if known." in description


def test_examples_can_be_left_out_or_cut() -> None:
    tool = readme_tool()
    assert tool.to_llm_format(include_examples=False)["description"] == tool.description
    assert "2. " not in tool.to_llm_format(max_examples=1)["description"]


def test_parameters_are_json_schema() -> None:
    schema = readme_tool().to_llm_format()["parameters"]
    Draft202012Validator.check_schema(schema)
    assert schema == {
        "type": "object",
        "properties": {
            "image_url": {"type": "string", "description": "URL or file path"},
            "language": {"type": "string", "description": "Language code", "enum": ["en", "es", "fr"], "default": "en"},
            "orientation": {
                "type": "string",
                "description": "Image orientation",
                "enum": ["auto", "0", "90", "180", "270"],
                "default": "auto",
            },
        },
        "required": ["image_url"],
        "additionalProperties": False,
    }


def test_a_parameter_may_bring_its_own_schema_and_its_definitions() -> None:
    parameter = ToolParameter(name="x", required=True, description="An X.", json_schema={"$ref": "#/$defs/X"})
    schema = ToolDefinition(name="t", parameters=(parameter,), definitions={"X": {"type": "integer", "minimum": 2}}).input_schema
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"x": 2})
    assert not validator.is_valid({"x": 1})
    assert ToolParameter(name="y", type="any").to_schema() == {}


def test_a_catalog_converts_whole_or_by_name() -> None:
    catalog = ToolCatalog(tools=[readme_tool(), ToolDefinition(name="b")])
    assert [t["name"] for t in catalog.to_llm_format()] == ["receipt_ocr", "b"]
    assert [t["name"] for t in catalog.to_llm_format(available_tools=["b", "gone"])] == ["b"]
    assert "Examples:" not in catalog.to_llm_format(include_examples=False)[0]["description"]


def test_a_definition_crosses_the_wire() -> None:
    tool = readme_tool()
    assert ToolDefinition.model_validate_json(tool.model_dump_json()) == tool
    assert ToolCatalog.model_validate_json(ToolCatalog(tools=[tool]).model_dump_json()).tools == [tool]


def test_the_content_hash_changes_with_the_content_only() -> None:
    tool = readme_tool()
    assert tool.content_hash == readme_tool().content_hash
    assert tool.content_hash != tool.model_copy(update={"description": "other"}).content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"type": "robot"},
        {"name": ""},
        {"name": "has blank"},
        {"effect": "twice"},
        {"timeout_s": 0},
        {"surprise": 1},
        {"parameters": [{"name": "a"}, {"name": "a"}]},
        {"parameters": [{"name": "a", "type": "float"}]},
        {"examples": [{"scenario": str(n), "input": {}} for n in range(6)]},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_a_bad_definition_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolDefinition.model_validate({"name": "t"} | change)


@pytest.mark.parametrize("size", [1, 5])
def test_one_to_five_examples_of_any_pattern_are_taken(size: int) -> None:
    examples = tuple(ToolExample(scenario=f"s{n}", input={"a": n}) for n in range(size))
    assert len(ToolDefinition(name="t", examples=examples).examples) == size


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        readme_tool().name = "other"  # type: ignore[misc]


REFERENCES = {
    "step:step-1": Reference("step", "step-1"),
    "step:a.b[0].c": Reference("step", "a", ("b", 0, "c")),
    "step:a[*]": Reference("step", "a", (), whole=True),
    "step:a[*][2].x": Reference("step", "a", (2, "x"), whole=True),
    "input:images": Reference("input", "images"),
    "input:job.list[10]": Reference("input", "job", ("list", 10)),
    "item": Reference("item", ""),
    "item.total": Reference("item", "", ("total",)),
    "item[0]": Reference("item", "", (0,)),
}


@pytest.mark.parametrize(("text", "reference"), REFERENCES.items())
def test_a_reference_is_read_and_written(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text", ["", "steps:a", "a step:b", "items", "item-1", "item. Next", "Step:a", " step:a", "item.a..b", 5, None, True]
)
def test_what_is_no_reference_is_plain(text: object) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    "text", ["step:", "step:9", "step:a..b", "step:a[x]", "step:a.", "step:a.b[*]", "input:a[*]", "step: a", "input:a b"]
)
def test_what_begins_as_a_reference_and_goes_on_as_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reference"):
        parse_reference(text)


def test_references_are_found_with_their_places_and_literals_hide_theirs() -> None:
    value = {"a": ["step:x", {"b": "item.c"}], "d": {"$literal": "step:y"}, "e": {"$literal": "step:z", "f": 1}, "g": 5}
    found = [(place, str(reference)) for place, reference in find_references(value, "input")]
    assert found == [("input.a[0]", "step:x"), ("input.a[1].b", "item.c"), ("input.e.$literal", "step:z")]


def test_the_readme_plan_is_read() -> None:
    text = """{"request_id": "req-001", "steps": [{"id": "step-1", "tool": "receipt_ocr", "input": {"image_uri": "u"}},
      {"id": "step-2", "tool": "function_call", "input": {"name": "compute_tax",
       "args": {"amount": "step:step-1", "tax_rate": 0.08}}, "depends_on": ["step-1"]}],
       "final_synthesis": {"prompt_template": "Summary:\\n{{steps}}"}}"""
    plan = Plan.model_validate_json(text)
    assert plan.steps[1].depends_on == ("step-1",)
    assert plan.steps[1].on_error is None
    assert (plan.on_error, plan.output) == ("fail_fast", None)
    assert json.loads(plan.model_dump_json(exclude_unset=True)) == json.loads(text)


def test_a_step_has_the_defaults_that_are_promised() -> None:
    step = Step(id="a", tool="t")
    assert (step.input, step.depends_on, step.on_skip) == ({}, (), "skip")
    assert {step.map, step.when, step.retry, step.timeout_s, step.on_error, step.effect} == {None}
