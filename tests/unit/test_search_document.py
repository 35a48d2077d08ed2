"""A tool as search sees it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from orchestrator.models.tool import ToolDefinition, ToolParameter
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.document import MAX_TEXT, Document, document_of, document_of_row
from orchestrator.tool_search.tokens import count_tokens

WEATHER = ToolDefinition(
    name="getWeather",
    description="The forecast of a city.",
    parameters=(ToolParameter(name="city", description="where", required=True), ToolParameter(name="days", type="integer")),
    domain="climate",
    tags=("meteo",),
    aliases=("old_weather",),
)


def weight(document: Document, word: str) -> float:
    (term,) = terms(word)
    return document.terms.get(term, 0.0)


def test_fields_weigh_differently() -> None:
    document = document_of(WEATHER)
    assert weight(document, "weather") > weight(document, "forecast") > weight(document, "days") > 0
    assert weight(document, "city") > weight(document, "forecast")  # description and parameter
    assert weight(document, "climate") == weight(document, "meteo") == weight(document, "forecast")
    assert document.length == pytest.approx(sum(document.terms.values()))


def test_what_the_document_says_of_its_tool() -> None:
    document = document_of(WEATHER)
    assert document.version == WEATHER.content_hash
    assert document.names == ("getweather", "old_weather")
    assert document.text == "getWeather: The forecast of a city."
    assert ToolDefinition.model_validate_json(document.row) == WEATHER
    assert document == document_of_row(WEATHER.to_row().encode())


def test_tokens_are_those_of_the_tool_as_a_model_sees_it() -> None:
    imported = ToolDefinition(name="a", json_schema={"type": "object", "properties": {"größe_x": {"type": "number", "default": 1}}})
    for tool in (WEATHER, imported, ToolDefinition(name="b", description="搜索 🎉 naïve don't")):
        shown = json.dumps(tool.to_llm_format(), separators=(",", ":"), ensure_ascii=False)
        assert document_of(tool).tokens == count_tokens(shown)


def test_groups_are_shared_by_tools_that_filters_cannot_tell_apart() -> None:
    tool = WEATHER.model_copy(update={"tenants": ("a",), "requires": ("network:https",), "server": "s", "deprecated": "old"})
    group = document_of(tool).group
    assert group == document_of(tool.model_copy(update={"name": "other"})).group
    assert hash(group) is not None
    assert (group.tenants, group.requires, group.server, group.pool) == (("a",), ("network:https",), "s", "function")
    assert group.deprecated
    assert group.tags == ("meteo",)
    assert document_of(WEATHER).group.tenants is None


def test_a_tool_without_a_description_is_found_by_its_name() -> None:
    document = document_of(ToolDefinition(name="whatIsThis"))
    assert set(document.terms) == set(terms("what is this"))  # a name of empty words keeps them
    assert document.text == "whatIsThis: "


def test_parameters_of_an_imported_schema_are_found() -> None:
    schema = {"type": "object", "properties": {"shoeSize": {"description": "in Paris points"}, "odd": True}}
    document = document_of(ToolDefinition(name="buy", json_schema=schema))
    assert weight(document, "shoe") > 0
    assert weight(document, "Paris") > 0
    assert weight(document, "odd") > 0


def test_odd_schemas_do_not_stop_it() -> None:
    odd: tuple[dict[str, Any], ...] = (
        {"properties": []},
        {"properties": {"a": None, "": {}}},
        {"properties": {"a": {"description": 5}}},
        {},
    )
    for schema in odd:
        assert document_of(ToolDefinition(name="odd", json_schema=schema)).length > 0


@pytest.mark.parametrize(
    "tool",
    [
        ToolDefinition(name="long", description="wörter und Words " * 300_000),  # 5 MB
        ToolDefinition(name="one_word", description="x" * 5_000_000),
        ToolDefinition(name="wide", parameters=tuple(ToolParameter(name=f"p{n}", description="size " * 500) for n in range(500))),
    ],
    ids=["long", "one word", "wide"],
)
def test_huge_tools_cost_little(tool: ToolDefinition) -> None:
    row = tool.to_row().encode()
    started = time.process_time()
    document = document_of_row(row)
    assert time.process_time() - started < 1.0
    assert len(document.text) <= MAX_TEXT
    assert len(document.terms) < 1_000
    assert document.tokens > 100_000


def test_a_usual_tool_costs_little() -> None:
    rows = [WEATHER.model_copy(update={"name": f"getWeather{n % 50}"}).to_row().encode() for n in range(2_000)]
    started = time.process_time()
    for row in rows:
        document_of_row(row)
    assert (time.process_time() - started) / len(rows) < 300e-6  # some 50 on a free core; a build of a million rests on it
