"""OpenAPI documents become tools: what each operation takes and gives, where its request goes, and what cannot be used."""

# ruff: noqa: E501 (schemas as they are)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Body, FastAPI, Header
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from orchestrator.errors import RequestError
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.openapi import Offer, Operation, discover_document, offer_of
from orchestrator.tool_discovery.openapi_read import MAX_DOCUMENT, Document, parsed
from orchestrator.tool_discovery.servers import OpenApiConfig


class Tree(BaseModel):
    name: str
    kids: list[Tree] = []
    note: str | None = None


SHOP = Path(__file__).parents[1] / "data" / "openapi" / "shop.yaml"


def entry(**more: Any) -> OpenApiConfig:
    return OpenApiConfig(name="shop", document=str(SHOP), **more)


def offer(data: Any = None, *, address: str | None = None, **more: Any) -> Offer:
    data = parsed(SHOP.read_bytes(), str(SHOP)) if data is None else {"openapi": "3.1.0", "info": {"version": "1"}, **data}
    return offer_of(Document(data, "", address), entry(**more))


@pytest.fixture(scope="module")
def shop() -> dict[str, Operation]:
    return {str(o.tool.native_name): o for o in offer(headers={"X-Shop-Key": "${SHOP_KEY}"}).operations}


def of_path(operation: dict[str, Any], path: str = "/x", method: str = "post", **more: Any) -> Offer:
    return offer({"servers": [{"url": "https://a.io"}], "paths": {path: {method: operation}}, **more})


def with_body(schema: Any, *, media: str = "application/json", required: bool = True, **more: Any) -> Operation:
    body = {"required": required, "content": {media: {"schema": schema}}}
    found = of_path({"operationId": "x", "requestBody": body, "responses": {}}, **more)
    assert found.report.refused == ()
    return found.operations[0]


def takes(tool: ToolDefinition, value: dict[str, Any]) -> bool:
    Draft202012Validator.check_schema(tool.input_schema)
    return Draft202012Validator(tool.input_schema).is_valid(value)


def test_each_operation_is_a_tool(shop: dict[str, Operation]) -> None:
    assert shop.keys() == {
        "listItems", "createItem", "GET /items/{id}", "replaceItem", "changeItem", "removeItem", "matrix", "login", "addPicture",
        "storePicture", "addNote", "setNotes", "GET /again",
    }  # fmt: skip
    tool = shop["listItems"].tool
    assert (tool.name, tool.server, tool.domain, tool.pool, tool.type) == ("shop.listItems", "shop", "shop", "http", "function")
    assert tool.description == "The items\n\nNewest first."
    assert tool.tags == ("items", "reading")
    assert tool.requires == ("network:https",)
    assert shop["GET /items/{id}"].tool.name == "shop.get_items_id"
    assert shop["removeItem"].tool.deprecated
    assert not tool.deprecated


def test_its_method_says_what_a_repeat_does(shop: dict[str, Operation]) -> None:
    found = {o.method: o.tool.effect for o in shop.values()}
    assert found == {"GET": "none", "POST": "once", "PUT": "idempotent", "PATCH": "once", "DELETE": "idempotent"}
    other = {o.tool.native_name: o.tool.effect for o in offer(effects={"createItem": "idempotent"}).operations}
    assert other["createItem"] == "idempotent"


def test_the_address_is_the_documents_or_the_entrys(shop: dict[str, Operation]) -> None:
    assert shop["listItems"].url == "https://eu.shop.example.org/v1/items"
    other = offer(base_url="http://10.0.0.7:8080/api?key=1")
    assert other.operations[0].url == "http://10.0.0.7:8080/api/items?key=1"
    assert other.operations[0].tool.requires == ("network:http",)


def test_secrets_are_no_parameters(shop: dict[str, Operation]) -> None:
    taken = set(shop["listItems"].tool.input_schema["properties"])
    assert "X-Trace" in taken
    assert not taken & {"Authorization", "token", "X-Shop-Key"}
    assert "SHOP_KEY" not in json.dumps([o.tool.to_row() for o in shop.values()])


def test_parameters_say_where_they_go(shop: dict[str, Operation]) -> None:
    places = {p.property: (p.where, p.style, p.explode, p.as_json, p.reserved) for p in shop["listItems"].places}
    assert places == {
        "page": ("query", "form", True, False, False),
        "tags": ("query", "form", True, False, False),
        "ids": ("query", "pipeDelimited", False, False, False),
        "words": ("query", "spaceDelimited", False, False, False),
        "flat": ("query", "form", False, False, False),
        "filter": ("query", "deepObject", False, False, False),
        "range": ("query", "form", True, False, False),
        "where": ("query", "form", True, True, False),
        "path": ("query", "form", True, False, True),
        "X-Trace": ("header", "simple", False, False, False),
        "session": ("cookie", "form", True, False, False),
    }


def test_what_3_0_says_otherwise_becomes_2020_12(shop: dict[str, Operation]) -> None:
    page = shop["listItems"].tool.input_schema["properties"]["page"]
    assert page == {"type": "integer", "exclusiveMinimum": 0, "examples": [1], "description": "Which page"}
    item = shop["createItem"].tool
    assert takes(item, {"title": "Tea", "note": None, "size": None})
    assert takes(item, {"title": "Tea", "category": {"name": "a", "parent": None}})
    assert takes(item, {"title": "Tea", "category": {"name": "a", "parent": {"name": "b", "children": [{"name": "c"}]}}})
    assert not takes(item, {"title": "Tea", "category": {"name": "a", "children": [{}]}}), "recursive ones work"
    assert not takes(item, {"title": None})
    assert not takes(item, {"title": "Tea", "size": "xl"})
    assert item.input_schema["properties"]["title"]["examples"] == ["Tea"]
    assert item.input_schema["properties"]["category"] == {"$ref": "#/$defs/Category"}
    assert item.input_schema["properties"]["picture"]["contentEncoding"] == "base64"
    assert "nullable" not in json.dumps(item.input_schema)


def test_what_goes_one_way_is_left_out_of_the_other(shop: dict[str, Operation]) -> None:
    sent, received = shop["createItem"].tool.input_schema, shop["createItem"].tool.output_schema
    assert "id" not in sent["properties"]
    assert sent["required"] == ["title"]
    assert "secret" in sent["properties"]
    assert received is not None
    item = received["$defs"]["Item"]
    assert "id" in item["properties"]
    assert "secret" not in item["properties"]
    assert "x-of-people" in item["properties"], "a property may have any name"


def test_answers_of_several_kinds_promise_nothing(shop: dict[str, Operation]) -> None:
    assert shop["replaceItem"].tool.output_schema is None
    assert shop["removeItem"].tool.output_schema is None
    assert shop["addNote"].tool.output_schema is None
    both = {"200": {"content": {"application/json": {"schema": {"type": "string"}}}},
            "202": {"content": {"application/json": {"schema": {"type": "integer"}}}}}  # fmt: skip
    found = of_path({"operationId": "x", "responses": both}).operations[0].tool
    assert found.output_schema == {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def test_a_body_is_merged_where_no_name_is_taken(shop: dict[str, Operation]) -> None:
    merged = shop["createItem"].body
    assert merged is not None
    assert (merged.whole, merged.media_type) == (None, "application/json")
    assert "title" in merged.properties
    clash = shop["changeItem"]
    assert clash.body is not None
    assert (clash.body.whole, clash.body.media_type) == ("body", "application/merge-patch+json")
    assert set(clash.tool.input_schema["required"]) == {"id", "body"}
    assert takes(clash.tool, {"id": 1, "body": {"id": 2}})


def test_a_name_that_comes_twice_says_where_it_goes(shop: dict[str, Operation]) -> None:
    assert [(p.property, p.name, p.where) for p in shop["replaceItem"].places] == [
        ("id", "id", "path"),
        ("id_query", "id", "query"),
    ]


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({"type": "array", "items": {}}, True),
        (True, True),
        ({"type": "object"}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, True),
        ({"type": "object", "properties": {"a": {}}, "oneOf": [{"required": ["a"]}, {}]}, True),
        ({"type": ["object", "null"], "properties": {"a": {}}}, True),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
    ],
)
def test_a_body_that_cannot_be_taken_apart_stays_whole(schema: Any, required: bool) -> None:
    operation = with_body(schema, required=required)
    assert operation.body is not None
    assert operation.body.whole == "body"
    assert operation.tool.input_schema["required"] == (["body"] if required else [])


def test_files_are_references(shop: dict[str, Operation]) -> None:
    form, whole = shop["addPicture"], shop["storePicture"]
    assert form.body is not None
    assert form.body.files == {"file", "others"}
    file = "blob:sha256:" + "0" * 64
    assert takes(form.tool, {"file": file, "others": [file], "about": {"title": "x"}, "count": 1})
    assert not takes(form.tool, {"file": "x.png"})
    assert form.tool.input_schema["properties"]["file"]["description"] == "The picture"
    assert whole.body is not None
    assert whole.body.files == {"body"}
    assert whole.tool.input_schema["properties"]["body"]["description"] == "The bytes"
    new = with_body({"type": "object", "properties": {"f": {"contentMediaType": "image/png"}}}, media="multipart/form-data")
    assert new.body is not None
    assert new.body.files == {"f"}
    text = shop["addNote"]
    assert takes(text.tool, {"body": "hello"})
    assert text.body is not None
    assert text.body.files == frozenset()


def test_one_bad_operation_never_breaks_the_rest() -> None:
    report = offer().report
    refused = {r.native_name: r.reason for r in report.refused}
    assert refused.keys() == {"noGap", "badReference", "outside", "badSchema", "badParameter", "badStyle", "HEAD /broken"}
    assert "`gap`, which no parameter gives" in refused["noGap"]
    assert "`#/components/parameters/None`, which the document does not have" in refused["badReference"]
    assert "outside of the document" in refused["outside"]
    assert "no valid JSON Schema at `properties.a.type`" in refused["badSchema"]
    assert "in" in refused["badParameter"]
    assert "style `matrix`" in refused["badStyle"]
    assert [q.name for q in report.quarantined] == ["shop.poisoned"]
    assert "secret file" in report.quarantined[0].reasons[0]
    assert len(report.tools) == 13
    assert any("two operations are called `listItems`" in n for n in report.notes)


def test_somebody_may_let_a_poisoned_one_pass() -> None:
    version = offer().report.quarantined[0].version
    passed = offer(approved={"poisoned": version}).report
    assert passed.quarantined == ()
    assert "shop.poisoned" in {t.name for t in passed.tools}
    assert offer(approved={"poisoned": "0" * 16}).report.quarantined


def test_headers_are_for_one_origin() -> None:
    data = {
        "servers": [{"url": "https://a.io"}],
        "paths": {"/x": {"get": {"operationId": "x", "responses": {}}, "post": {"operationId": "y", "responses": {}, "servers": [{"url": "https://b.io"}]}}},
    }  # fmt: skip
    assert [r.native_name for r in offer(data, headers={"Authorization": "x"}).report.refused] == ["y"]
    free = {o.tool.native_name: o.url for o in offer(data).operations}
    assert free == {"x": "https://a.io/x", "y": "https://b.io/x"}


def test_a_relative_address_is_beside_the_document() -> None:
    data = {"servers": [{"url": "../v2"}], "paths": {"/x": {"get": {"operationId": "x", "responses": {}}}}}
    assert offer(data, address="https://a.io/v1/docs/openapi.json").operations[0].url == "https://a.io/v1/v2/x"
    data.pop("servers")
    assert offer(data, address="https://a.io/docs/openapi.json").operations[0].url == "https://a.io/x"
    assert "set `base_url`" in str(offer(data).report.error)


def test_a_document_of_fastapi_itself() -> None:
    app = FastAPI(version="7")

    @app.post("/trees/{place}", tags=["trees"])
    async def plant(place: str, tree: Tree, loud: bool = False, x_trace: str | None = Header(None)) -> Tree:
        """Plants a tree."""
        raise NotImplementedError

    @app.put("/two")
    async def two(one: Tree, other: int = Body()) -> None:
        raise NotImplementedError

    found = offer_of(Document(app.openapi(), "", "https://a.io/openapi.json"), entry())
    assert found.report.refused == ()
    assert (found.report.version, found.report.protocol) == ("7", "OpenAPI 3.1.0")
    planted, both = (o.tool for o in found.operations)
    assert planted.description == "Plant\n\nPlants a tree."
    assert takes(planted, {"place": "here", "name": "oak", "kids": [{"name": "acorn"}], "note": None, "loud": True, "x-trace": "1"})
    assert not takes(planted, {"place": "here", "name": "oak", "kids": [{"nam": "acorn"}]})
    assert planted.output_schema is not None
    assert takes(both, {"one": {"name": "a"}, "other": 1})


def test_large_types_are_described_as_far_as_they_help() -> None:
    many = {
        f"T{n}": {
            "type": "object",
            "properties": {f"p{i}": {"$ref": f"#/components/schemas/T{(n * 7 + i) % 300}"} for i in range(20)},
        }
        for n in range(300)
    }
    answers = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/T0"}}}}}
    found = of_path({"operationId": "x", "responses": answers}, components={"schemas": many})
    assert found.report.refused == ()
    tool = found.operations[0].tool
    assert len(tool.to_row()) < 60_000
    assert tool.output_schema is not None
    Draft202012Validator.check_schema(tool.output_schema)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swagger: '2.0'", "Swagger 2.0"),
        ("openapi: 3.2.0", "OpenAPI 3.2.0"),
        ("{}", "something else"),
        ("[1, 2]", "something else"),
        ("a: b: c", "cannot be read"),
        ('{"openapi": "3.1.0", "x": ', "cannot be read"),
        ("openapi: 3.1.0\nx: !!python/object/apply:os.system [ls]", "cannot be read"),
        ("openapi: 3.1.0\nx: &x [*x]", "nested more than"),
        ("openapi: 3.1.0\na: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)), "parts"),
        ("openapi: 3.1.0\nx: .nan", "a number that JSON has not"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_said(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(text.encode(), "shop.yaml")
    assert message in str(caught.value)


def test_yaml_is_read_as_openapi_means_it() -> None:
    read = parsed(b"openapi: 3.1.0\nx: [on, no, 2020-01-01, 1:30, 012, 12, true, null]\ny: {200: a}", "x.yaml")
    assert read["x"] == ["on", "no", "2020-01-01", "1:30", "012", 12, True, None]
    assert read["y"] == {"200": "a"}


async def test_a_document_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None)
    for name, message in (("missing.yaml", "cannot be read"), ("large.yaml", f"larger than {MAX_DOCUMENT >> 20} MiB")):
        path = tmp_path / name
        if "large" in name:
            path.write_bytes(b" " * (MAX_DOCUMENT + 1))
        report = await discover_document(OpenApiConfig(name="x", document=str(path), base_url="https://a.io"), settings=settings)
        assert message in str(report.error)
        assert report.tools == ()


async def test_a_private_address_is_not_fetched_from() -> None:
    settings = load_settings(_env_file=None)
    report = await discover_document(OpenApiConfig(name="x", document="http://127.0.0.1:9/openapi.json?key=1"), settings=settings)
    assert "no public address" in str(report.error)
    assert "`private`" in str(report.error)
    assert "key=1" not in str(report.error)


async def test_a_document_in_a_file_is_discovered() -> None:
    report = await discover_document(entry(), settings=load_settings(_env_file=None))
    assert (report.error, len(report.tools), report.version, report.protocol) == (None, 13, "1.4", "OpenAPI 3.0.3")
    assert report.state("openapi").state == "up"
