"""Catalogs of real tools for the tests of search."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolParameter

DATA = Path(__file__).parents[1] / "data"


@lru_cache(maxsize=1)
def livemcp() -> tuple[ToolDefinition, ...]:
    """The 527 real MCP tools, under names of ours."""
    rows = [json.loads(line) for line in (DATA / "livemcp" / "tools.jsonl").read_text(encoding="utf-8").splitlines()]
    return tuple({t.name: t for t in map(_tool, rows)}.values())


def _tool(row: dict[str, object]) -> ToolDefinition:
    name = "".join(c if c.isalnum() or c in "_.-" else "_" for c in f"{row['server']}.{row['name']}")
    schema = row.get("schema")
    return ToolDefinition(
        name=(name if name[0].isascii() and name[0].isalpha() else f"s{name}")[:128],
        description=str(row["description"]),
        json_schema=schema if isinstance(schema, dict) else {"type": "object"},
        server=str(row["server"]),
        native_name=str(row["name"]),
    )


def tool(name: str, description: str = "", *parameters: str, **more: object) -> ToolDefinition:
    """A small tool."""
    made = tuple(ToolParameter(name=p) for p in parameters)
    return ToolDefinition.model_validate({"name": name, "description": description, "parameters": made, **more})


def catalog(count: int = 120) -> ToolCatalog:
    """Real tools, and three about receipts among them."""
    own = (
        tool("receipt_ocr", "Reads the text of a photographed receipt.", "image_uri"),
        tool("line_item_parser", "Finds the line items, taxes and total in the text of a receipt.", "ocr"),
        tool("expense_categorizer", "Sorts line items into categories of expenses.", "items"),
    )
    return ToolCatalog(tools=[*livemcp()[: count - 3], *own])
