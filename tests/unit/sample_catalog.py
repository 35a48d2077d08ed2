"""A small catalog for tests of plans: the receipt tools with honest schemas, made from models like the real ones."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolParameter


class Line(BaseModel):
    text: str
    confidence: float
    box: list[tuple[float, float]]


class Ocr(BaseModel):
    text: str
    lines: list[Line]
    confidence: float
    width: int
    height: int


class Entry(BaseModel):
    description: str
    quantity: float = 1
    amount: float


class Receipt(BaseModel):
    is_receipt: bool
    merchant: str | None
    items: list[Entry]
    total: float | None
    problems: list[str]


class Category(BaseModel):
    name: str
    parent: Category | None = None


class Tree(BaseModel):
    root: Category


def output(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema(mode="serialization")


def nested(name: str, kind: Any, description: str = "") -> tuple[ToolParameter, dict[str, Any]]:
    schema = TypeAdapter(kind).json_schema()
    definitions = schema.pop("$defs", {})
    return ToolParameter(
        name=name, type=schema.get("type", "object"), required=True, json_schema=schema, description=description
    ), definitions


def tool(name: str, parameters: list[ToolParameter], returns: Any = None, **rest: Any) -> ToolDefinition:
    schema = None if returns is None else output(returns)
    return ToolDefinition(name=name, parameters=tuple(parameters), output_schema=schema, effect="none", **rest)


def number(name: str, **more: Any) -> ToolParameter:
    return ToolParameter(name=name, type="number", required=True, **more)


def sample_catalog() -> ToolCatalog:
    ocr, ocr_definitions = nested("ocr", Ocr, "What receipt_ocr answered.")
    items, item_definitions = nested("items", list[Entry], "The lines of a receipt.")
    receipts, receipt_definitions = nested("receipts", list[Receipt | None])
    rate = {"type": "number", "minimum": 0, "maximum": 1}
    picture = ToolParameter(name="image_uri", type="string", required=True, description="Where the picture lies.")
    currency = ToolParameter(name="currency", type="string", enum=("EUR", "USD", "GBP"))
    limit = ToolParameter(name="limit", json_schema={"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    return ToolCatalog(
        tools=[
            tool("receipt_ocr", [picture], Ocr, pool="ocr", type="mcp"),
            tool("line_item_parser", [ocr, currency], Receipt, pool="small_model", definitions=ocr_definitions),
            tool("expense_categorizer", [items], dict[str, float], pool="small_model", definitions=item_definitions),
            tool("compute_tax", [number("amount"), number("tax_rate", json_schema=rate)], float),
            tool("summarise_receipts", [receipts], definitions=receipt_definitions),
            tool("first_items", [items, limit], list[Entry], definitions=item_definitions),
            tool("say", [ToolParameter(name="text", required=True), ToolParameter(name="data", type="any")]),
            tool("tree", [ToolParameter(name="text", required=True)], Tree),
            tool("now", [], str),
            tool("from_code_only", [], allowed_callers=("code_execution",)),
        ]
    )
