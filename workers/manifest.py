"""Writes the manifest of the bundled tools: `python -m workers.manifest`, after a change of a bundled tool."""

from __future__ import annotations

import json
from pathlib import Path

import workers.code.tools
import workers.function.tools
import workers.ocr.tools
import workers.small_model.tools
from orchestrator.catalog import manifest
from orchestrator.catalog.register import registry
from orchestrator.models.tool import ToolCatalog

POOLS = (workers.ocr.tools, workers.small_model.tools, workers.function.tools, workers.code.tools)
PATH = Path(manifest.__file__).with_name("manifest.json")


def manifest_text() -> str:
    """The manifest as it must stand in the package: the tools of the bundled pools, by name."""
    modules = tuple(f"{m.__name__}." for m in POOLS)
    bundled = [t.definition for n in sorted(registry.names()) if (t := registry.get(n)) and t.origin.startswith(modules)]
    catalog = ToolCatalog(source="bundled", tools=bundled)
    return json.dumps(catalog.model_dump(mode="json", exclude_defaults=True), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(manifest_text(), encoding="utf-8")
