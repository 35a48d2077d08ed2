"""The tools that pools announced, in Redis: a pool writes its own on start, and they stay when it goes away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.state.keys import CATALOG


class CatalogStore:
    """What every process sees of the tools."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once

    def announce(self, tools: Iterable[ToolDefinition]) -> None:
        """Writes tools; one of the same name is replaced."""
        rows = {t.name: t.model_dump_json(exclude_defaults=True) for t in tools}
        if rows:
            self._redis.hset(CATALOG, mapping=rows)

    def all(self, base: ToolCatalog | None = None) -> ToolCatalog:
        """The announced tools over those of `base` (the bundled ones), by name."""
        catalog = ToolCatalog(source="announced", tools=list(base.tools) if base else [])
        rows = self._redis.hgetall(CATALOG)
        for _, raw in sorted(rows.items()):
            catalog.add_tool(ToolDefinition.model_validate_json(raw))
        return catalog

    def get(self, name: str) -> ToolDefinition | None:
        """The announced tool of that name, or None."""
        raw = self._redis.hget(CATALOG, name)
        return ToolDefinition.model_validate_json(raw) if raw else None
