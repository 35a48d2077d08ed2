"""An MCP server of the SDK for benchmarks: `echo`, which does next to nothing, and as many tools more as it is told to have."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

READS = types.ToolAnnotations(read_only_hint=True)
WORDS = ("orders", "invoices", "tickets", "repositories", "flights", "articles", "customers", "payments")


def schema(n: int) -> dict[str, Any]:
    """As real ones are: a few parameters, each with a sentence or two."""
    what = WORDS[n % len(WORDS)]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": f"What the {what} must contain. Words are joined by AND."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10, "description": f"How many {what} at most."},
            "sort": {"type": "string", "enum": ["newest", "oldest", "relevance"], "description": "In which order they come."},
            "filters": {
                "type": "array",
                "items": {"type": "object", "properties": {"field": {"type": "string"}, "value": {"type": ["string", "number"]}}},
                "description": "Further conditions; all must hold.",
            },
        },
        "required": ["query"],
    }


def tools(count: int) -> list[types.Tool]:
    """`echo` and `count - 1` more."""
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    echo = types.Tool(name="echo", description="Gives back its number.", input_schema=number, annotations=READS)
    more = (
        types.Tool(
            name=f"search_{WORDS[n % len(WORDS)]}_{n}",
            description=f"Searches the {WORDS[n % len(WORDS)]} of account {n} and gives the best ones, each with its id and title.",
            input_schema=schema(n),
            annotations=READS,
        )
        for n in range(1, count)
    )
    return [echo, *more]


def main(count: int) -> None:
    known = tools(count)

    async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=known)

    async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=str((params.arguments or {}).get("n")))])

    async def serve() -> None:
        server: Server[Any] = Server("bench", version="1.0", on_list_tools=list_tools, on_call_tool=call_tool)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
