"""The bundled tools, known before any worker is up: read from `manifest.json`, which `python -m workers.manifest` writes."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from orchestrator.models.tool import ToolCatalog


def bundled_catalog() -> ToolCatalog:
    """A catalog of the bundled tools, the caller's own to add to."""
    return ToolCatalog.model_validate_json(_text())


@lru_cache(maxsize=1)
def _text() -> str:
    return files("orchestrator.catalog").joinpath("manifest.json").read_text(encoding="utf-8")
