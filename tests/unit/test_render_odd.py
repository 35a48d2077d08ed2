"""Odd tools, made by hand: every vendor's form of them is still one that it takes, and names and arguments come back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.genai import types as gemini
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from orchestrator.catalog import render_tools
from orchestrator.catalog.render.schemas import Notes, modern, object_root
from orchestrator.models.tool import ToolDefinition, ToolExample
from tests.unit.test_render import FUNCTIONS, NAMES, VENDORS, broken_rules, functions

RECURSIVE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/definitions/Node", "description": "the root"}},
    "required": ["tree"],
    "definitions": {
        "Node": {"type": "object", "properties": {"value": {"type": "string"}, "next": {"$ref": "#/definitions/Node"}}},
        "Unused": {"type": "string"},
    },
}
BOMB: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {"d40": {"type": "string"}}}
BOMB["$defs"] |= {f"d{n}": {"type": "object", "properties": {x: {"$ref": f"#/$defs/d{n + 1}"} for x in "ab"}} for n in range(40)}
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(400):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
LONG = [f"choice {n} {'x' * 60}" for n in range(300)]
SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {},
    "no properties": {"type": "object"},
    "anything": {"type": "object", "additionalProperties": True},
    "booleans": {"type": "object", "properties": {"any": True, "none": False, "list": {"type": "array", "items": True}}},
    "nested anyOf": {
        "type": "object",
        "properties": {
            "a": {
                "anyOf": [{"anyOf": [{"type": "string"}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}]}, {"type": "boolean"}]
            }
        },
    },
    "recursive": RECURSIVE,
    "root reference": {"$ref": "#/$defs/Args", "$defs": {"Args": {"type": "object", "properties": {"a": {"type": "string"}}}}},
    "parts of parts": {
        "allOf": [{"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]}, {"$ref": "#/$defs/Dog"}],
        "$defs": {
            "Dog": {"allOf": [{"$ref": "#/$defs/Animal"}, {"properties": {"d": {"type": "integer"}}}]},
            "Animal": {"properties": {"b": {"type": "string"}}, "required": ["b"], "allOf": [{"$ref": "#/$defs/Dog"}]},
        },
    },
    "choices of parts": {
        "anyOf": [
            {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]},
            {"oneOf": [{"properties": {"b": {"type": "integer"}}}, {"properties": {"a": {"type": "integer"}}}]},
        ]
    },
    "very many choices": {"anyOf": [{"properties": {"p": {"const": n}}, "required": [f"p{n}"]} for n in range(900)]},
    "keywords of other kinds": {
        "dependencies": 1,
        "dependentRequired": [],
        "examples": False,
        "deprecated": "yes",
        "readOnly": 1,
        "properties": {"a": {"multipleOf": 0, "dependencies": {"b": [1, "c"]}, "examples": {"x": 1}}},
    },
    "parts that double": {
        "allOf": [{"$ref": "#/$defs/e0"}],
        "$defs": {f"e{n}": {"allOf": [{"$ref": f"#/$defs/e{n + 1}"}] * 2, "properties": {f"p{n}": {}}} for n in range(30)},
    },
    "refers to its root": {"type": "object", "properties": {"more": {"$ref": "#"}}},
    "refers into itself": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}},
    "refers nowhere": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/No"}, "b": {"$ref": "http://a.b/c"}, "c": {"$ref": 7}},
    },
    "loop of references": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
    "bomb of references": BOMB,
    "deep": DEEP,
    "odd names": {
        "type": "object",
        "properties": {
            n: {"type": "string"} for n in ("user.name", "user name", "filter[id]", "é", "x" * 100, "1st", "$a", "", "a b", "a_b")
        },
        "required": ["user name", "filter[id]"],
    },
    "words of ours": {
        "type": "object",
        "properties": {n: {"type": "string"} for n in ("self", "class", "call_tool", "properties", "$ref")},
    },
    "long choices": {"type": "object", "properties": {"a": {"type": "string", "enum": LONG}}},
    "tuple of draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"p": {"type": "array", "items": [{"type": "number"}, {"type": "string"}], "additionalItems": False}},
    },
    "bounds of draft 4": {"type": "object", "properties": {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}},
    "openapi": {"type": "object", "properties": {"a": {"type": "string", "nullable": True, "enum": ["x"]}, "b": {"example": 1}}},
    "choice at the root": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "url": {"type": "string"}},
        "oneOf": [{"required": ["id"]}, {"required": ["url"]}],
    },
    "kinds at the root": {
        "anyOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "string"}}, "required": ["kind", "x"]},
            {"type": "object", "properties": {"kind": {"const": "b"}, "y": {"type": "integer"}}, "required": ["kind", "y"]},
        ]
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer"}}},
        ],
        "properties": {"c": {"allOf": [{"type": "string"}, {"minLength": 2}], "description": "two or more"}},
    },
    "conditions": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "if": {"required": ["a"]},
        "then": {"minProperties": 2},
        "not": {"required": ["z"]},
        "dependencies": {"a": ["b"]},
    },
    "mixed choices": {
        "type": "object",
        "properties": {"a": {"enum": ["x", 1, None, True, 2.5]}, "b": {"const": None}, "c": {"enum": [{}]}},
    },
    "type lists": {
        "type": "object",
        "properties": {"a": {"type": ["string", "array", "null"], "items": {"type": "string"}, "maxLength": 3}},
    },
    "bare arrays": {"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "array", "items": {"type": "array"}}}},
    "malformed": {
        "type": "object",
        "properties": {
            "a": {"type": "text", "enum": [], "minLength": "3", "required": True, "pattern": 5, "properties": [1], "anyOf": {}}
        },
        "required": "a",
        "default": float("nan"),
    },
    "no object": {"type": "array", "items": {"type": "string"}},
    "map": {"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "string"}}}},
    "patterns": {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": r"^(?!x).*$"}, "b": {"type": "string", "pattern": "^a+$"}},
    },
    "many items": {
        "type": "object",
        "properties": {n: {"type": "array", "items": {"type": "string"}, "maxItems": 500} for n in "abc"},
    },
}


def tool(name: str, schema: dict[str, Any], **more: Any) -> ToolDefinition:
    return ToolDefinition(name=name, json_schema=schema, **{"description": "d", **more})


def odd_tools() -> list[ToolDefinition]:
    return [tool(f"odd.t{n}", schema, description=title) for n, (title, schema) in enumerate(SCHEMAS.items())]


TITLES = {t.name: t.description for t in odd_tools()}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("vendor", [v for v in VENDORS if v != "neutral"])
def test_odd_schemas_become_ones_that_the_vendor_takes(vendor: Any, strict: bool) -> None:
    rendered = render_tools(odd_tools(), vendor, strict=strict)
    json.dumps(rendered.tools, allow_nan=False).encode()
    shown = functions(rendered)
    assert len(shown) == len(SCHEMAS)
    for one in (s for s in shown if s["description"] != "bomb of references"):  # it is looked at below
        schema = one["schema"]
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object", one["description"]
        assert not {"anyOf", "oneOf", "allOf", "enum", "not", "if", "$ref", "$schema"} & schema.keys()
        Draft202012Validator(schema).is_valid({"a": {"a": ["x"]}})  # every reference leads somewhere
        if one.get("strict") and vendor != "anthropic":
            assert broken_rules(schema, formats=vendor != "azure", words=vendor != "azure") == [], one["description"]
    if vendor in FUNCTIONS:
        for one in rendered.tools:
            TypeAdapter(FUNCTIONS[vendor]).validate_python(one)
    if vendor == "gemini":
        for declaration in gemini.Tool.model_validate(rendered.tools[0]).function_declarations or []:
            gemini.JSONSchema.model_validate(declaration.parameters_json_schema or {})


def shown(vendor: Any, title: str, **more: Any) -> dict[str, Any]:
    return functions(render_tools([tool("t", SCHEMAS[title])], vendor, **more))[0]


def test_what_cannot_be_strict_is_offered_all_the_same_and_says_why() -> None:
    rendered = render_tools(odd_tools(), "openai", strict=True)
    loose = {TITLES[n]: notes for n, notes in rendered.notes.items() if any(x.startswith("not strict") for x in notes)}
    assert {"anything", "map", "booleans", "long choices", "bare arrays", "deep"} <= set(loose)
    assert {"recursive", "nested anyOf", "root reference", "odd names", "empty", "choice at the root"}.isdisjoint(loose)
    assert any("it has more than" in n or "characters" in n for n in loose["long choices"])


def test_a_tool_for_the_vendors_programs_is_not_strict_at_anthropic() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    both = [tool("direct", plain, allowed_callers=("direct",)), tool("programs", plain)]
    rendered = render_tools(both, "anthropic", strict=True, hosted_programs=True)
    assert [(t["name"], t.get("strict", False), "allowed_callers" in t) for t in rendered.tools] == [
        ("direct", True, False), ("programs", False, True),
    ]  # fmt: skip
    assert "programs may call it" in rendered.notes["programs"][0]
    assert all(t["strict"] for t in render_tools(both, "anthropic", strict=True).tools)


def test_a_tool_for_the_vendors_programs_has_no_schema_that_refers_to_itself() -> None:
    for title in ("recursive", "refers to its root"):
        alone, hosted = (render_tools([tool("t", SCHEMAS[title])], "anthropic", hosted_programs=h) for h in (False, True))
        assert "$ref" in json.dumps(alone.tools)
        assert "$ref" not in json.dumps(hosted.tools)
        assert any("refers to itself" in n for n in hosted.notes["t"])


def test_what_a_tool_gives_is_told_as_carefully_as_what_it_takes() -> None:
    given = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"n": {"default": float("nan")}}}
    rendered = render_tools([tool("t", {}, output_schema=given)], "openai", hosted_programs=True)
    assert rendered.tools[0]["output_schema"] == {"type": "object", "properties": {"n": {}}}


def test_references_stay_where_they_are_taken_and_are_written_out_elsewhere() -> None:
    openai = shown("openai", "recursive", strict=True)["schema"]
    assert set(openai["$defs"]) == {"Node"}
    assert openai["properties"]["tree"] == {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "the root"}
    for vendor in ("gemini", "ollama"):
        schema = shown(vendor, "recursive")["schema"]
        assert "$ref" not in json.dumps(schema)
        within = schema["properties"]["tree"]["properties"]["next"]
        assert within == {"type": "object", "description": "again as described for Node"}
    rendered = render_tools([tool("t", RECURSIVE)], "gemini")
    assert any("refers to itself" in n for n in rendered.notes["t"])
    assert not render_tools([tool("t", RECURSIVE)], "anthropic", strict=True).tools[0].get("strict")


def test_a_bomb_of_references_stays_small() -> None:
    for vendor in ("gemini", "ollama"):
        rendered = render_tools([tool("t", BOMB)], vendor)  # type: ignore[arg-type]
        assert len(json.dumps(rendered.tools)) < 2_000_000
        assert any("cut" in n for n in rendered.notes["t"])


def test_choices_at_the_root_are_told_in_words() -> None:
    schema = shown("anthropic", "choice at the root")["schema"]
    assert set(schema["properties"]) == {"id", "url"}
    assert schema["description"] == "Exactly one of these is needed: `id`; `url`."
    schema = shown("anthropic", "kinds at the root")["schema"]
    assert set(schema["properties"]) == {"kind", "x", "y"}
    assert schema["required"] == ["kind"]
    assert schema["properties"]["kind"] == {"anyOf": [{"const": "a"}, {"const": "b"}]}
    assert shown("openai", "allOf")["schema"]["required"] == ["a"]


def test_parts_within_parts_at_the_root_are_the_tools() -> None:
    for vendor in ("openai", "anthropic", "gemini", "ollama"):
        schema = shown(vendor, "parts of parts")["schema"]
        assert set(schema["properties"]) == {"a", "b", "d"}
        assert set(schema["required"]) == {"a", "b"}
        schema = shown(vendor, "choices of parts")["schema"]
        assert set(schema["properties"]) == {"a", "b"}
        assert [s["type"] for s in schema["properties"]["a"]["anyOf"]] == ["string", "integer"]
        assert "`a`" in schema["description"]


def test_older_drafts_become_the_newest() -> None:
    assert shown("anthropic", "tuple of draft 7")["schema"]["properties"]["p"]["prefixItems"] == [
        {"type": "number"},
        {"type": "string"},
    ]
    assert shown("openai", "tuple of draft 7")["schema"]["properties"]["p"]["items"] == {
        "anyOf": [{"type": "number"}, {"type": "string"}]
    }
    assert shown("openai", "bounds of draft 4")["schema"]["properties"]["a"]["exclusiveMinimum"] == 1
    assert shown("anthropic", "openapi")["schema"]["properties"]["a"] == {"type": ["string", "null"], "enum": ["x", None]}
    assert shown("anthropic", "conditions")["schema"]["dependentRequired"] == {"a": ["b"]}


def test_properties_get_names_that_the_vendor_takes_and_their_own_back() -> None:
    names = list(SCHEMAS["odd names"]["properties"])
    for vendor, pattern in (("anthropic", r"[a-zA-Z0-9_.-]{1,64}"), ("gemini", r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")):
        example = ToolExample(scenario="s", input={"user name": "u", "filter[id]": "f"})
        rendered = render_tools([tool("t", SCHEMAS["odd names"], examples=(example,))], vendor)  # type: ignore[arg-type]
        schema = functions(rendered)[0]["schema"]
        assert len(schema["properties"]) == len(names)
        assert all(re.fullmatch(pattern, n) for n in schema["properties"])
        assert set(schema["required"]) <= set(schema["properties"])
        given = {new: str(n) for n, new in enumerate(schema["properties"])}
        assert rendered.arguments("t", given) == ("t", {name: str(n) for n, name in enumerate(names)})
        said = json.dumps(rendered.tools[0].get("input_examples") or functions(rendered)[0]["description"])
        assert "user_name" in said
        assert "user name" not in said
    assert list(shown("openai", "odd names")["schema"]["properties"]) == names


def test_names_that_meet_are_kept_apart_and_do_not_depend_on_their_order() -> None:
    names = ["a.b", "a/b", "a:b", "a_b", "a" * 128, "a" * 127 + "b", "x.y"]
    tools = [tool(n, {}) for n in names]
    for vendor in VENDORS:
        rendered = render_tools(tools, vendor)
        offered = [rendered.names.to_vendor(n) for n in names]
        assert len(set(offered)) == len(names)
        assert all(re.fullmatch(NAMES[vendor], n) for n in offered)
        assert [rendered.names.to_catalog(n) for n in offered] == names
        assert [render_tools(tools[::-1], vendor).names.to_vendor(n) for n in names] == offered
    openai = render_tools(tools, "openai").names
    assert openai.to_vendor("a_b") == "a_b"
    assert openai.to_vendor("x.y") == "x_y"
    assert re.fullmatch(r"a_b_[0-9a-f]{8}", openai.to_vendor("a.b"))


def test_a_tool_cannot_take_the_name_that_another_gets() -> None:
    made = render_tools([tool("a.b", {}), tool("a/b", {})], "anthropic").names.to_vendor("a.b")
    names = ["a.b", "a/b", made, made.replace("_", ".", 1)]
    for order in (names, names[::-1]):
        rendered = render_tools([tool(n, {}) for n in order], "anthropic").names
        assert rendered.to_vendor(made) == made
        assert [rendered.to_catalog(rendered.to_vendor(n)) for n in names] == names


def test_names_with_letters_of_other_scripts() -> None:
    rendered = render_tools([tool("suche.größe", {}), tool("suche.grö\u00dfen名", {})], "openai")
    assert [rendered.names.to_vendor(n) for n in ("suche.größe", "suche.größen名")] == ["suche_gr__e", "suche_gr__en_"]


def test_emoji_and_control_characters_in_words() -> None:
    words = "a \"\"\" b ''' \x00\x1b[31m\x07 🎉 \ud800 \\ \u202e end\r\nline"
    schema = {"type": "object", "properties": {"🎉": {"type": "string", "description": words}}}
    for vendor in VENDORS:
        rendered = render_tools([tool("t", schema, description=words.replace("\ud800", "?"))], vendor)
        if vendor != "neutral":
            text = json.dumps(rendered.tools, ensure_ascii=False)
            text.encode()
            assert "\\u0000" not in text
            assert "\\u001b" not in text
            assert "🎉" in text


def test_nulls_that_the_tool_itself_asks_for_are_kept() -> None:
    schema = {
        "type": "object",
        "properties": {
            "must": {"type": ["string", "null"]},
            "may": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
            "either": {
                "anyOf": [
                    {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind"]},
                    {
                        "type": "object",
                        "properties": {"kind": {"const": "b"}, "x": {"type": ["integer", "null"]}},
                        "required": ["kind", "x"],
                    },
                ]
            },
        },
        "required": ["must", "either"],
        "$defs": {"Item": {"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "string"}}, "required": ["n"]}},
    }
    rendered = render_tools([tool("t", schema)], "openai", strict=True)
    assert rendered.tools[0]["strict"] is True
    given = {"must": None, "may": None, "items": [{"n": 1, "m": None}], "either": {"kind": "a", "x": None}}
    Draft202012Validator(rendered.tools[0]["parameters"]).validate(given)
    assert rendered.arguments("t", given) == ("t", {"must": None, "items": [{"n": 1}], "either": {"kind": "a"}})
    given["either"] = {"kind": "b", "x": None}
    assert rendered.arguments("t", given)[1]["either"] == {"kind": "b", "x": None}


def test_what_strict_mode_has_no_word_for_is_said_in_the_description() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 2, "default": "xx", "description": "A word."}}}
    (given,) = render_tools([tool("t", schema)], "openai", strict=True).tools
    assert given["parameters"]["properties"]["a"] == {
        "type": ["string", "null"],
        "description": 'A word.\nminLength: 2\ndefault: "xx"',
    }
    rendered = render_tools([tool("t", schema, strict=True), tool("u", schema)], "openai")
    assert [t["strict"] for t in rendered.tools] == [True, False]
    assert [n.split(":")[0] for n in rendered.notes["t"]] == ["minLength", "default"]


def test_geminis_unions_stand_alone() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "string"}], "description": "A", "default": None}},
    }
    (declaration,) = functions(render_tools([tool("t", schema)], "gemini"))
    assert declaration["schema"]["properties"]["a"] == {
        "anyOf": [{"type": "null"}, {"type": "string", "description": "A", "default": None}]
    }
    assert "maxItems: 500" in json.dumps(shown("gemini", "many items"))
    assert "parameters_json_schema" not in render_tools([tool("t", {})], "gemini").tools[0]["function_declarations"][0]


def test_modern_schemas_are_copies() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x"], "default": {"deep": [1]}}}, "required": ["a"]}
    notes: Notes = {}
    out = object_root(modern(schema, notes), notes)
    out["properties"]["a"]["enum"].append("y")
    out["properties"]["a"]["default"]["deep"].append(2)
    out["required"].append("b")
    assert schema["properties"] == {"a": {"enum": ["x"], "default": {"deep": [1]}}}
    assert schema["required"] == ["a"]
    assert notes == {}
