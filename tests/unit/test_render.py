"""527 real tools and the bundled ones in every vendor's format: the SDKs' own types take them, names and arguments come back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from anthropic.lib._parse._transform import transform_schema
from anthropic.types import ToolParam
from google.genai import types as gemini
from jsonschema import Draft202012Validator
from ollama import Tool as OllamaTool
from openai.lib._pydantic import _ensure_strict_json_schema
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import ConfigDict, TypeAdapter, with_config

from orchestrator.catalog import render_tools
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.render.vendors import Rendered, VendorName
from orchestrator.errors import NotFound, RequestError
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolExample, ToolParameter
from tests.livemcp import livemcp

VENDORS = get_args(VendorName)
NAMES = {
    "openai": r"[a-zA-Z0-9_-]{1,64}",
    "openai-chat": r"[a-zA-Z0-9_-]{1,64}",
    "azure": r"[a-zA-Z0-9_-]{1,64}",
    "anthropic": r"[a-zA-Z0-9_-]{1,128}",
    "gemini": r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}",
    "ollama": r"[a-zA-Z0-9_-]{1,64}",
    "neutral": r".{1,128}",
}
FUNCTIONS = {"openai": FunctionToolParam, "openai-chat": ChatCompletionFunctionToolParam, "anthropic": ToolParam}
FUNCTIONS["azure"] = FUNCTIONS["openai-chat"]


def all_tools() -> list[ToolDefinition]:
    return [*livemcp(), *bundled_catalog().tools]


def functions(rendered: Rendered) -> list[dict[str, Any]]:
    """Each function by `name`, `description` and `schema`, whatever the vendor calls them."""
    listed = rendered.tools[0]["function_declarations"] if rendered.vendor == "gemini" else rendered.tools
    flat = [t.get("function", t) for t in listed]
    words = ("parameters", "input_schema", "parameters_json_schema")
    return [{**t, "schema": next((t[w] for w in words if w in t), {"type": "object", "properties": {}})} for t in flat]


def keys_of(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every keyword at every place where a schema stands."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        yield key, value
        if key in ("properties", "$defs"):
            for s in value.values():
                yield from keys_of(s)
        elif isinstance(value, list) and key in ("anyOf", "allOf", "oneOf", "prefixItems"):
            for s in value:
                yield from keys_of(s)
        else:
            yield from keys_of(value) if key in ("items", "additionalProperties", "not") else ()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("vendor", VENDORS)
def test_every_tool_is_offered_under_a_name_that_leads_back(vendor: VendorName, strict: bool) -> None:
    tools = all_tools()
    rendered = render_tools(tools, vendor, strict=strict)
    shown = functions(rendered)
    assert len(shown) == len(tools) == len({t["name"] for t in shown})
    assert all(re.fullmatch(NAMES[vendor], t["name"]) for t in shown)
    assert {rendered.names.to_catalog(t["name"]) for t in shown} == {t.name for t in tools}
    assert all(rendered.names.to_vendor(rendered.names.to_catalog(t["name"])) == t["name"] for t in shown)
    assert [rendered.names.to_catalog(t["name"]) for t in shown] == sorted(t.name for t in tools)
    assert not rendered.left_out


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("vendor", [v for v in VENDORS if v != "neutral"])
def test_every_schema_is_one_of_2020_12_with_an_object_at_its_root(vendor: VendorName, strict: bool) -> None:
    for tool in functions(render_tools(all_tools(), vendor, strict=strict)):
        schema = tool["schema"]
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert not {"anyOf", "oneOf", "allOf", "enum", "not", "$ref", "$schema"} & schema.keys()
        refs = [v for k, v in keys_of(schema) if k == "$ref"]
        assert all(r.removeprefix("#/$defs/") in schema["$defs"] for r in refs)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("vendor", list(FUNCTIONS))
def test_the_sdks_types_take_every_tool_and_know_every_field(vendor: VendorName, strict: bool) -> None:
    known = TypeAdapter(with_config(ConfigDict(extra="forbid"))(FUNCTIONS[vendor]))
    for tool in render_tools(all_tools(), vendor, strict=strict).tools:
        known.validate_python(tool)
    with pytest.raises(ValueError, match="inventd"):  # the check would see an invented field
        known.validate_python({**tool, "inventd": True})


def test_gemini_and_ollama_types_take_every_tool() -> None:
    (tool,) = render_tools(all_tools(), "gemini").tools
    declarations = gemini.Tool.model_validate(tool).function_declarations or []
    assert len(declarations) == len(all_tools())
    for declaration in declarations:
        gemini.JSONSchema.model_validate(declaration.parameters_json_schema or {})  # forbids what the API does not read
    for shown in render_tools(all_tools(), "ollama").tools:
        parsed = OllamaTool.model_validate(shown)
        assert parsed.function
        assert set(parsed.function.parameters.properties or {}) == set(shown["function"]["parameters"]["properties"])


def test_strict_schemas_are_left_alone_by_the_makers_of_strict_schemas() -> None:
    """What the SDKs would still change is not in their strict form."""
    tools = all_tools()
    for vendor in ("openai", "openai-chat", "azure"):
        strict = [t for t in functions(render_tools(tools, vendor, strict=True)) if t.get("strict")]
        assert len(strict) > 480
        for tool in strict:
            same = json.loads(json.dumps(tool["schema"]))
            assert _ensure_strict_json_schema(same, path=(), root=same) == tool["schema"]
    single = [t for tool in tools for t in render_tools([tool], "anthropic", strict=True).tools if t.get("strict")]
    assert len(single) > 480
    for tool in single:
        assert transform_schema(tool["input_schema"]) == tool["input_schema"]


def test_openai_strict_schemas_keep_the_documented_rules() -> None:
    for vendor, (formats, words) in {"openai": (True, True), "azure": (False, False)}.items():
        for tool in functions(render_tools(all_tools(), vendor, strict=True)):  # type: ignore[arg-type]
            if tool.get("strict"):
                assert broken_rules(tool["schema"], formats=formats, words=words) == []


def broken_rules(schema: Any, *, formats: bool, words: bool) -> list[str]:
    """The documented rules of strict schemas, written down apart from the product's code."""
    allowed = {"type", "description", "title", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const"}
    allowed |= {"$ref", "$defs"} | ({"format"} if formats else set())
    allowed |= {"pattern", "multipleOf", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"} if words else set()
    allowed |= {"minItems", "maxItems"} if words else set()
    broken = [f"keyword {k}" for k in schema.keys() - allowed]
    if "$ref" in schema and len(schema) > 1:
        broken.append("$ref with others beside it")
    if "$ref" not in schema and "anyOf" not in schema and "type" not in schema:
        broken.append("no type")
    kinds = schema.get("type") if isinstance(schema.get("type"), list) else [schema.get("type")]
    if "object" in kinds:
        if schema.get("additionalProperties") is not False:
            broken.append("open object")
        if sorted(schema.get("required", [])) != sorted(schema.get("properties", {"": 0})):
            broken.append("not all required")
    if "array" in kinds and not schema.get("items"):
        broken.append("array without items")
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", [])]
    inner += [schema["items"]] if "items" in schema else []
    return broken + [b for s in inner for b in broken_rules(s, formats=formats, words=words)]


def test_the_checker_of_rules_sees_what_breaks_them() -> None:
    good = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    assert broken_rules(good, formats=True, words=True) == []
    for change in (
        {"additionalProperties": True}, {"required": []}, {"minProperties": 1}, {"properties": {"a": {}}},
        {"properties": {"a": {"type": "array"}}}, {"properties": {"a": {"type": "string", "default": "x"}}},
    ):  # fmt: skip
        assert broken_rules({**good, **change}, formats=True, words=True), change


def test_anthropics_strict_tools_of_one_request_stay_within_its_grammar() -> None:
    strict = [t["input_schema"] for t in render_tools(all_tools(), "anthropic", strict=True).tools if t.get("strict")]
    assert 0 < len(strict) <= 20
    assert sum(optional(s) for s in strict) <= 24
    assert sum(k == "anyOf" for s in strict for k, _ in keys_of(s)) <= 16


def optional(schema: Mapping[str, Any]) -> int:
    return sum(
        len(s["properties"]) - len(s.get("required", []))
        for s in [schema, *(v for k, v in keys_of(schema) if k == "items" and isinstance(v, dict))]
        if "properties" in s
    )


def value_of(schema: Any, root: Mapping[str, Any], *, whole: bool, depth: int = 0) -> Any:
    """A value that fits the schema: with all properties, or with the required ones alone."""
    if not isinstance(schema, dict) or depth > 6:
        return "x"
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].split("/")[1:]:
            found = found[part]
        return value_of(found, root, whole=whole, depth=depth + 1)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "anyOf" in schema:
        return value_of(schema["anyOf"][0], root, whole=whole, depth=depth + 1)
    kind = schema["type"][0] if isinstance(schema.get("type"), list) else schema.get("type")
    if kind == "object" or "properties" in schema:
        needed = [n for n in schema.get("properties", {}) if whole or n in schema.get("required", [])]
        return {n: value_of(schema["properties"][n], root, whole=whole and depth < 4, depth=depth + 1) for n in needed}
    if kind == "array":
        return [value_of(schema.get("items", {}), root, whole=whole, depth=depth + 1)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return min(low, schema.get("maximum", low)) if "minimum" not in schema else low
    text = {"uri": "http://a.b/c", "ipv4": "1.2.3.4", "ipv6": "::1"}.get(
        schema.get("format", ""), "x" * max(1, schema.get("minLength", 1))
    )
    return {"string": text, "boolean": True, "null": None}.get(str(kind), "x")


def samples() -> list[tuple[ToolDefinition, dict[str, Any]]]:
    """Arguments of every real tool that its own schema takes, whole and least."""
    found = []
    for tool in livemcp():
        for whole in (True, False):
            value = value_of(tool.input_schema, tool.input_schema, whole=whole)
            if Draft202012Validator(tool.input_schema).is_valid(value):
                found.append((tool, value))
    return found


def test_what_a_tool_takes_its_rendered_schema_takes() -> None:
    given = samples()
    assert len(given) > 1000
    for vendor in ("openai", "openai-chat", "azure", "anthropic", "gemini", "ollama"):
        rendered = render_tools(livemcp(), vendor)
        schemas = {rendered.names.to_catalog(f["name"]): f["schema"] for f in functions(rendered)}
        for tool, value in given:
            assert Draft202012Validator(schemas[tool.name]).is_valid(value), (vendor, tool.name)
            assert rendered.arguments(rendered.names.to_vendor(tool.name), value) == (tool.name, value)


def filled(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """The value as a model must give it under a strict schema: null for what is not given."""
    if not isinstance(schema, dict):
        return value
    if "$ref" in schema:
        return filled(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        tried = [filled(value, s, root) for s in schema["anyOf"]]
        fits = [
            t
            for t, s in zip(tried, schema["anyOf"], strict=True)
            if Draft202012Validator({**s, "$defs": root.get("$defs", {})}).is_valid(t)
        ]
        return fits[0] if fits else value
    if isinstance(value, list):
        return [filled(v, schema.get("items"), root) for v in value]
    if isinstance(value, dict) and "properties" in schema:
        return {n: filled(value[n], s, root) if n in value else None for n, s in schema["properties"].items()}
    return value


def test_arguments_of_strict_tools_come_back_as_the_tool_takes_them() -> None:
    for vendor in ("openai", "azure"):
        rendered = render_tools(livemcp(), vendor, strict=True)  # type: ignore[arg-type]
        schemas = {rendered.names.to_catalog(f["name"]): f["schema"] for f in functions(rendered) if f.get("strict")}
        tried = 0
        for tool, value in samples():
            if tool.name in schemas:
                given = filled(value, schemas[tool.name], schemas[tool.name])
                if Draft202012Validator(schemas[tool.name]).is_valid(given):  # not: it uses names that the schema does not name
                    tried += 1
                    assert rendered.arguments(rendered.names.to_vendor(tool.name), given) == (tool.name, value)
        assert tried > 950


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_same_tools_give_the_same_bytes(vendor: VendorName) -> None:
    tools = all_tools()
    once = render_tools(tools, vendor, strict=True)
    again = render_tools(ToolCatalog(tools=tools[::-1]), vendor, strict=True)
    assert json.dumps(once.tools) == json.dumps(again.tools)
    assert once.notes == again.notes


def test_the_definitions_are_not_touched() -> None:
    tools = [t.model_copy(deep=True) for t in livemcp()]
    before = [t.to_row() for t in tools]
    for vendor in VENDORS:
        for shown in functions(render_tools(tools, vendor, strict=True)) if vendor != "neutral" else ():
            for key, value in keys_of(shown["schema"]):
                if isinstance(value, list) and key in ("enum", "required"):
                    value.append("changed by the one who rendered")
    assert [t.to_row() for t in tools] == before


def test_ten_tools_take_few_milliseconds() -> None:
    tools = livemcp()[:10]
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        render_tools(tools, "anthropic", strict=True)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) <= 0.005


PET = ToolDefinition(
    name="pets.find", description="Finds pets.", domain="pets",
    parameters=(
        ToolParameter(name="kind", required=True, enum=("cat", "dog")), ToolParameter(name="age", type="integer", default=3),
    ),
    examples=(
        ToolExample(scenario="all cats", input={"kind": "cat"}, output=["Tom"]),
        ToolExample(scenario="old dogs", input={"kind": "dog", "age": 9}),
    ),
)  # fmt: skip


def test_examples_are_native_where_there_is_a_field_and_folded_elsewhere() -> None:
    (tool,) = render_tools([PET], "anthropic").tools
    assert tool["input_examples"] == [{"kind": "cat"}, {"kind": "dog", "age": 9}]
    assert tool["description"] == "Finds pets."
    for vendor in ("openai", "openai-chat", "azure", "gemini", "ollama", "neutral"):
        (shown,) = functions(render_tools([PET], vendor))  # type: ignore[arg-type]
        assert shown["description"] == PET.to_llm_format()["description"]
        (bare,) = functions(render_tools([PET], vendor, include_examples=False))  # type: ignore[arg-type]
        assert bare["description"] == "Finds pets."
    assert "input_examples" not in render_tools([PET], "anthropic", include_examples=False).tools[0]


def test_an_example_that_does_not_fit_is_folded_since_the_api_would_refuse_it() -> None:
    wrong = PET.model_copy(update={"examples": (ToolExample(scenario="a cow", input={"kind": "cow"}),)})
    rendered = render_tools([wrong], "anthropic")
    assert "input_examples" not in rendered.tools[0]
    assert "a cow" in rendered.tools[0]["description"]
    assert "does not fit" in rendered.notes["pets.find"][0]


def test_chat_descriptions_end_within_their_length_examples_first() -> None:
    talkative = PET.model_copy(update={"description": "x" * 950})
    (tool,) = functions(render_tools([talkative], "azure"))
    assert "all cats" in tool["description"]
    assert "old dogs" not in tool["description"]
    rendered = render_tools([PET.model_copy(update={"description": "y" * 5000})], "openai-chat")
    assert len(functions(rendered)[0]["description"]) == 1024
    assert any("cut" in n for n in rendered.notes["pets.find"])
    assert len(functions(render_tools([PET.model_copy(update={"description": "y" * 5000})], "openai"))[0]["description"]) > 5000


def test_deferral_and_callers_where_they_are_native() -> None:
    deferred = PET.model_copy(update={"defer_loading": True, "name": "a"})
    for vendor in ("openai", "anthropic"):
        assert render_tools([deferred], vendor).tools[0]["defer_loading"] is True  # type: ignore[arg-type]
    assert any("defer_loading" in n for n in render_tools([deferred], "gemini").notes["a"])
    tools = [deferred, PET, PET.model_copy(update={"name": "z", "defer_loading": True})]
    cached = render_tools(tools, "anthropic", cache_control=True).tools
    assert [("cache_control" in t, "defer_loading" in t) for t in cached] == [(False, True), (True, False), (False, True)]
    hosted = render_tools([PET], "anthropic", hosted_programs=True).tools[0]
    assert hosted["allowed_callers"] == ["direct", "code_execution_20260521"]
    TypeAdapter(ToolParam).validate_python(hosted)
    hosted = render_tools([PET], "openai", hosted_programs=True).tools[0]
    assert hosted["allowed_callers"] == ["direct", "programmatic"]
    TypeAdapter(FunctionToolParam).validate_python(hosted)
    assert "allowed_callers" not in render_tools([PET], "anthropic").tools[0]


def test_what_is_left_out_and_why() -> None:
    old = PET.model_copy(update={"name": "old", "deprecated": "use pets.find", "aliases": ("older",)})
    inner = PET.model_copy(update={"name": "inner", "allowed_callers": ("code_execution",)})
    rendered = render_tools([PET, old, inner], "openai")
    assert [t["name"] for t in rendered.tools] == ["pets_find"]
    assert rendered.left_out == {"old": "deprecated: use pets.find", "inner": "only programs may call it"}
    assert [t["name"] for t in render_tools([PET, old], "openai", available_tools=["old"]).tools] == ["old"]
    assert [t["name"] for t in render_tools([PET, old], "openai", available_tools=["older"]).tools] == ["old"]
    assert [t["name"] for t in render_tools([PET, inner], "openai", hosted_programs=True).tools] == ["inner", "pets_find"]
    assert render_tools([], "gemini").tools == []


def test_more_tools_than_a_request_takes_are_warned_of() -> None:
    assert "128" in render_tools(livemcp(), "azure").warnings[0]
    assert render_tools(livemcp(), "anthropic").warnings == ()
    assert render_tools(livemcp()[:128], "azure").warnings == ()


def test_unknown_vendors_and_tools_are_named() -> None:
    with pytest.raises(RequestError, match="no vendor `mistral`"):
        render_tools([PET], "mistral")  # type: ignore[arg-type]
    rendered = render_tools([PET], "openai")
    with pytest.raises(NotFound, match="Did you mean `pets_find`"):
        rendered.arguments("pet_find", {})


def test_neutral_is_to_llm_format() -> None:
    catalog = ToolCatalog(tools=[PET, *livemcp()])
    assert sorted(render_tools(catalog, "neutral").tools, key=lambda t: t["name"]) == sorted(
        catalog.to_llm_format(), key=lambda t: t["name"]
    )
