"""The tools that pools announced, in Redis: a pool writes its own on start, and they stay when it goes away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.state.keys import CATALOG, CATALOG_VERSION


class CatalogStore:
    """What every process sees of the tools; what was read is kept until somebody announces something."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._version: bytes | None = None
        self._tools: list[ToolDefinition] = []

    def announce(self, tools: Iterable[ToolDefinition]) -> None:
        """Writes tools; one of the same name is replaced."""
        rows = {t.name: t.model_dump_json(exclude_defaults=True) for t in tools}
        if rows:
            pipe = self._redis.pipeline()
            pipe.hset(CATALOG, mapping=rows)
            pipe.incr(CATALOG_VERSION)
            pipe.execute()

    def withdraw(self, names: Iterable[str]) -> None:
        """Takes tools out that nobody will run again."""
        pipe = self._redis.pipeline()
        pipe.hdel(CATALOG, *names)
        pipe.incr(CATALOG_VERSION)
        pipe.execute()

    def version(self) -> bytes | None:
        """Changes with every announcement."""
        raw: bytes | None = self._redis.get(CATALOG_VERSION)
        return raw

    def all(self, base: ToolCatalog | None = None) -> ToolCatalog:
        """The announced tools over those of `base` (the bundled ones), by name."""
        version = self.version()
        if version != self._version:
            rows = self._redis.hgetall(CATALOG)
            self._tools = [ToolDefinition.model_validate_json(raw) for _, raw in sorted(rows.items())]
            self._version = version
        announced = {t.name: t for t in self._tools}
        kept = [t for t in base.tools if t.name not in announced] if base else []
        return ToolCatalog(source="announced", tools=[*kept, *self._tools])

    def get(self, name: str) -> ToolDefinition | None:
        """The announced tool of that name, or None."""
        raw = self._redis.hget(CATALOG, name)
        return ToolDefinition.model_validate_json(raw) if raw else None
