"""The bundled tools, known before any worker is up: read from `manifest.json`, which `python -m workers.manifest` writes."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from orchestrator.models.tool import ToolCatalog, ToolDefinition


def bundled_catalog() -> ToolCatalog:
    """A catalog of the bundled tools, the caller's own to add to."""
    return ToolCatalog(source="bundled", tools=list(_tools()))


@lru_cache(maxsize=1)
def _tools() -> tuple[ToolDefinition, ...]:
    text = files("orchestrator.catalog").joinpath("manifest.json").read_text(encoding="utf-8")
    return tuple(ToolCatalog.model_validate_json(text).tools)
