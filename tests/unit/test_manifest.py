"""The bundled tools: the manifest is current, the receipts plan fits them, and schemas tell what tools give."""

from __future__ import annotations

import json
from importlib.resources import files

from jsonschema import Draft202012Validator

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.planner.check import check_plan
from workers.manifest import PATH, manifest_text
from workers.ocr.images import bundled_images


def test_the_manifest_is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == manifest_text(), "run `python -m workers.manifest`"


def test_every_bundled_tool_is_described_and_has_valid_schemas() -> None:
    catalog = bundled_catalog()
    assert len(catalog.tools) >= 10
    for tool in catalog.tools:
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.output_schema or tool.name == "code_exec", tool.name  # whose value is any value
        Draft202012Validator.check_schema(tool.output_schema or {})
        assert tool.description, tool.name
        assert all(p.description for p in tool.parameters), tool.name
        assert tool.effect == ("idempotent" if tool.pool == "code" else "none"), tool.name
        for example in tool.examples:
            Draft202012Validator(tool.input_schema).validate(example.input)


def test_a_catalog_is_the_callers_own() -> None:
    bundled_catalog().tools.clear()
    assert bundled_catalog().tools


def test_the_receipts_plan_fits_the_bundled_tools_and_images() -> None:
    plan = json.loads(files("orchestrator.plans").joinpath("receipts.json").read_text(encoding="utf-8"))
    checked = check_plan(plan, bundled_catalog())
    assert checked.graph.leaves == ("summary",)
    images = plan["inputs"]["images"]
    assert len(set(images)) >= 4
    assert {i.removeprefix("bundled:") for i in images} <= set(bundled_images())
