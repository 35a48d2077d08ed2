"""527 tools of 70 published MCP servers as imported definitions."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from orchestrator.catalog.imported import imported_name
from orchestrator.models.tool import ToolDefinition

TOOLS = Path(__file__).parent / "data" / "livemcp" / "tools.jsonl"


@lru_cache(maxsize=1)
def livemcp() -> tuple[ToolDefinition, ...]:
    """Every tool under the name `<server>.<its name there>`."""
    rows = [json.loads(line) for line in TOOLS.read_text("utf-8").splitlines()]
    return tuple(
        ToolDefinition(
            name=imported_name(row["server"], row["name"]), type="mcp", pool="mcp", domain=row["server"], server=row["server"],
            native_name=row["name"], description=row["description"] or "", json_schema=row["schema"],
        )
        for row in rows
    )  # fmt: skip
