"""The samples of the reference document, as they stand there: names, fields and formats are kept.

Its example plan hands a whole OCR result to a tool that takes a number. The checker's message is what is expected of it;
a mended plan stands beside it and runs to its end.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.errors import PlanError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RECEIPT = ROOT / "workers" / "ocr" / "data" / "grocery.png"
PICTURE = "/receipts/2024-12-receipt.jpg"

EXAMPLE_PLAN = """
{
  "request_id": "req-001",
  "steps": [
    {
      "id": "step-1",
      "tool": "receipt_ocr",
      "input": {"image_uri": "https://example.com/receipts/2024-12-receipt.jpg"}
    },
    {
      "id": "step-2",
      "tool": "function_call",
      "input": {
        "name": "compute_tax",
        "args": {"amount": "step:step-1", "tax_rate": 0.08}
      },
      "depends_on": ["step-1"]
    }
  ],
  "final_synthesis": {
    "prompt_template": "Summary:\\n{{steps}}"
  }
}
"""

CUSTOM_CATALOG = """
from orchestrator.models import ToolCatalog, ToolDefinition, ToolParameter

catalog = ToolCatalog(source="my_tools", version="1.0")
catalog.add_tool(ToolDefinition(
    name="custom_analyzer",
    type="mcp",
    description="Analyze custom data",
    parameters=[
        ToolParameter(name="data", type="object", description="Input data", required=True)
    ]
))
"""

TOOL_WITH_EXAMPLES = r"""
from orchestrator.models import ToolDefinition, ToolParameter, ToolExample

# Create tool with examples
receipt_ocr_tool = ToolDefinition(
    name="receipt_ocr",
    type="mcp",
    description="Extract text from receipt images using Azure Computer Vision",
    parameters=[
        ToolParameter(name="image_url", type="string", description="URL or file path", required=True),
        ToolParameter(name="language", type="string", description="Language code",
                     enum=["en", "es", "fr"], default="en"),
        ToolParameter(name="orientation", type="string", description="Image orientation",
                     enum=["auto", "0", "90", "180", "270"], default="auto")
    ],
    examples=[
        ToolExample(
            scenario="Process typical restaurant receipt from local file",
            input={
                "image_url": "./receipts/restaurant_2024_01_15.jpg",
                "language": "en",
                "orientation": "auto"
            },
            output={
                "text": "RESTAURANT XYZ\nDate: 2024-01-15\nBurger $12.99\nTotal: $16.98",
                "confidence": 0.95
            },
            notes="Use auto orientation for most receipts. Specify language if known."
        ),
        ToolExample(
            scenario="Process rotated receipt from URL",
            input={
                "image_url": "https://storage.example.com/img_001.jpg",
                "orientation": "90"
            },
            output={"text": "GROCERY STORE\nDate: 2024-02-01\nTotal: $8.49"},
            notes="Specify orientation (90/180/270) if consistently rotated."
        )
    ]
)

# Examples automatically included in LLM format
llm_format = receipt_ocr_tool.to_llm_format(include_examples=True)
# Description now includes examples with scenarios, showing format patterns!
"""

CUSTOM_FUNCTION = '''
from orchestrator.hybrid_dispatcher import register_function

@register_function("my_function")
def my_function(arg1: str, arg2: int) -> dict:
    """Your custom logic here."""
    return {"result": arg1 * arg2}
'''

USAGE = """
import asyncio
from orchestrator import execute_plan, final_synthesis

async def main():
    plan = {...}  # Your execution plan
    context = await execute_plan(plan)
    result = await final_synthesis(plan, context)
    print(result)

asyncio.run(main())
"""

FUNCTION_CALL = """
{
  "tool": "function_call",
  "input": {
    "name": "compute_tax",
    "args": {"amount": 100.0, "tax_rate": 0.08}
  }
}
"""


def names_of(sample: str) -> dict[str, Any]:
    """What a sample leaves behind when it is run."""
    names: dict[str, Any] = {"__name__": "sample"}
    exec(sample, names)
    return names


def printed(script: str, shell: dict[str, str], folder: Path) -> str:
    """What a sample prints when it is a script of its own."""
    path = folder / "sample.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, str(path)], env=shell, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def client(shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("TOOLWEAVER_HOME", shell["TOOLWEAVER_HOME"])
    with Client() as made:
        yield made


@contextmanager
def picture_server() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that answers for the image: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = RECEIPT.read_bytes() if self.path == PICTURE else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_catalog_of_ones_own() -> None:
    catalog = names_of(CUSTOM_CATALOG)["catalog"]
    assert (catalog.source, catalog.version) == ("my_tools", "1.0")
    assert [t.name for t in catalog.tools] == ["custom_analyzer"]
    (shown,) = json.loads(json.dumps(catalog.to_llm_format(include_examples=True)))
    assert shown["parameters"]["properties"]["data"] == {"type": "object", "description": "Input data"}
    assert shown["parameters"]["required"] == ["data"]
    assert catalog.to_llm_format(available_tools=["other"]) == []


def test_a_tool_with_examples() -> None:
    shown = names_of(TOOL_WITH_EXAMPLES)
    llm_format, tool = shown["llm_format"], shown["receipt_ocr_tool"]
    for text in ("Process typical restaurant receipt", '"orientation": "90"', "Burger $12.99", "if consistently rotated."):
        assert text in llm_format["description"]
    assert tool.to_llm_format(include_examples=False)["description"] == tool.description
    assert llm_format["parameters"]["properties"]["language"] == {
        "type": "string",
        "description": "Language code",
        "enum": ["en", "es", "fr"],
        "default": "en",
    }


def test_a_function_of_ones_own_in_a_script(shell: dict[str, str], tmp_path: Path) -> None:
    plan = {"steps": [{"id": "one", "tool": "function_call", "input": {"name": "my_function", "args": {"arg1": "ab", "arg2": 2}}}]}
    script = CUSTOM_FUNCTION + USAGE.replace("{...}", repr(plan))
    assert json.loads(printed(script, shell, tmp_path).partition(":")[2]) == {"result": "abab"}


def test_the_usage(shell: dict[str, str], tmp_path: Path) -> None:
    plan = json.loads((ROOT / "examples" / "example_plan_mended.json").read_text())
    told = printed(USAGE.replace("{...}", repr(plan)), shell, tmp_path)
    assert told.startswith("Summary:\n")
    assert '"tax": 2.78' in told


def test_a_function_call(client: Client) -> None:
    job = client.submit({"steps": [{"id": "tax", **json.loads(FUNCTION_CALL)}]})
    assert job.result(timeout=60)["tax"] == 8.0


def test_the_built_in_functions_and_workers_have_their_names(client: Client) -> None:
    functions = ["compute_tax", "merge_items", "apply_discount", "filter_items_by_category", "compute_item_statistics"]
    workers = ["receipt_ocr", "line_item_parser", "expense_categorizer"]
    assert {*functions, *workers} <= {t.name for t in client.tools()}


def test_the_example_plan_gets_a_message_and_its_picture_is_not_fetched(client: Client) -> None:
    assert json.loads((ROOT / "examples" / "example_plan.json").read_text()) == json.loads(EXAMPLE_PLAN)
    with picture_server() as (address, asked):
        plan = json.loads(EXAMPLE_PLAN.replace("https://example.com", address))
        with pytest.raises(PlanError) as refused:
            client.submit(plan)
    (problem,) = refused.value.problems
    assert (problem["path"], problem["code"]) == ("steps[1].input.args.amount", "wrong_type")
    assert "the whole result of `receipt_ocr`" in problem["message"]
    assert "`amount` of `compute_tax` takes a number" in problem["message"]
    assert "step:step-1.confidence" in problem["next"]
    assert asked == []


def test_the_mended_plan_runs_to_its_end(client: Client) -> None:
    plan = json.loads((ROOT / "examples" / "example_plan_mended.json").read_text())
    with picture_server() as (address, asked):
        details = client.submit(plan, inputs={"image": address + PICTURE}).wait(timeout=60)
    assert details.status == "succeeded"
    assert asked == [PICTURE]
    assert details.steps["parse"]["merchant"] == "HARVEST LANE MARKET"
    assert details.steps["step-2"] == {"amount": 34.8, "tax_rate": 0.08, "tax": 2.78, "total": 37.58}
    assert details.answer is not None
    assert details.answer.startswith("Summary:")


def test_plan_and_synthesis_in_one_event_loop(shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_HOME", shell["TOOLWEAVER_HOME"])
    from orchestrator import execute_plan, final_synthesis

    async def two() -> list[str]:
        plan = {"steps": [{"id": "tax", **json.loads(FUNCTION_CALL)}], "final_synthesis": {"prompt_template": "{{steps.tax.tax}}"}}
        contexts = await asyncio.gather(execute_plan(plan), execute_plan(plan))
        return [await final_synthesis(plan, c) for c in contexts]

    assert asyncio.run(two()) == ["8.0", "8.0"]
