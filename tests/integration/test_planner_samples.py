"""The samples of the reference document that use a planner, as they stand: only variables are set, Azure is a local server.

They hold `await` outside of functions, as notebooks do, and are run so. The reference's order of fallbacks is a test of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ModelError
from orchestrator.planner import LargePlanner, Planned, PlanRequest
from orchestrator.planner.asked import PlanningUnavailable
from orchestrator.providers.scripted import ScriptedModel
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_search.client import IndexClient
from tests.services import free_port
from tests.wire import KEY, WireServer, wire_server

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

DEFAULT_AND_CUSTOM_CATALOG = """
from orchestrator.models import ToolCatalog, ToolDefinition, ToolParameter
from orchestrator.planner import LargePlanner

# Option 1: Use default catalog (backward compatible)
planner = LargePlanner(provider="azure-openai")
plan = await planner.generate_plan("Process receipt...")

# Option 2: Custom catalog
catalog = ToolCatalog(source="my_tools", version="1.0")
catalog.add_tool(ToolDefinition(
    name="custom_analyzer",
    type="mcp",
    description="Analyze custom data",
    parameters=[
        ToolParameter(name="data", type="object", description="Input data", required=True)
    ]
))

planner = LargePlanner(provider="azure-openai", tool_catalog=catalog)
plan = await planner.generate_plan("Analyze this data...")
"""

DISCOVERED_CATALOG = """
from orchestrator.tool_discovery import ToolDiscoveryOrchestrator
from orchestrator.planner import LargePlanner

# Discover tools from all sources (MCP, functions, code execution)
orchestrator = ToolDiscoveryOrchestrator(
    enable_cache=True,  # Cache results for 24 hours
    cache_ttl=86400
)

catalog = await orchestrator.discover_all()

print(f"Discovered {len(catalog.tools)} tools:")
for tool in catalog.tools:
    print(f"  - {tool.name} ({tool.type}): {tool.description}")

# Use discovered catalog with planner
planner = LargePlanner(provider="azure-openai", tool_catalog=catalog)
plan = await planner.generate_plan("Process receipt...")
"""

SEMANTIC_SEARCH = """
from orchestrator.planner import LargePlanner

# Enable semantic search (default: auto-activates for 20+ tools)
planner = LargePlanner(
    provider="azure-openai",
    use_tool_search=True,      # Enable semantic search
    search_threshold=20         # Activate when tools > 20
)

# With 30 tools, planner automatically:
# 1. Runs hybrid BM25 + embedding search
# 2. Selects 10 most relevant tools
# 3. Passes only relevant tools to LLM
# 4. Logs: "30 tools → 10 relevant (~66.7% token reduction)"

plan = await planner.generate_plan("Process receipt and categorize items")
"""

PROGRAMMATIC = """
from orchestrator.planner import LargePlanner

# Enable programmatic calling (default: enabled)
planner = LargePlanner(
    provider="azure-openai",
    use_programmatic_calling=True  # LLM can generate orchestration code
)

# Complex query that needs multiple tool calls
plan = await planner.generate_plan(
    "Get all engineering team members, fetch their Q3 expenses, "
    "and tell me who exceeded their travel budget"
)

# Planner generates code like:
# team = await get_team_members("engineering")
# expenses = await asyncio.gather(*[get_expenses(m["id"], "Q3") for m in team])
# exceeded = [m for m, exp in zip(team, expenses) if sum(e["amount"] for e in exp) > budget]

# Execute the plan
from orchestrator import execute_plan
result = await execute_plan(plan)
"""

END_TO_END = """
import asyncio
from orchestrator.tool_discovery import ToolDiscoveryOrchestrator
from orchestrator.planner import LargePlanner

async def main():
    # Step 1: Discover all available tools
    discovery = ToolDiscoveryOrchestrator(enable_cache=True)
    catalog = await discovery.discover_all()

    print(f" Discovered {len(catalog.tools)} tools in {catalog.metadata['discovery_time_ms']:.2f}ms")

    # Step 2: Initialize planner with automatic semantic search
    planner = LargePlanner(
        provider="azure-openai",
        tool_catalog=catalog,
        use_tool_search=True,       # Auto-activates for 20+ tools
        search_threshold=20
    )

    # Step 3: Generate plan (semantic search happens automatically)
    plan = await planner.generate_plan(
        "Process this receipt: extract text, parse items, categorize as food/beverage/other"
    )

    # If catalog has 30 tools, logs:
    # "Semantic search: 30 tools → 10 relevant (~66.7% token reduction, ~3,000 tokens saved)"

    print(f" Generated plan with {len(plan.steps)} steps")
    for step in plan.steps:
        print(f"  - Step {step.id}: {step.tool}")

    # Step 4: Execute plan (existing orchestrator code)
    from orchestrator import execute_plan, final_synthesis
    context = await execute_plan(plan)
    result = await final_synthesis(plan, context)

    print(f" Result: {result}")

asyncio.run(main())
"""

RECEIPT: dict[str, Any] = {
    "steps": [
        {"id": "text", "tool": "receipt_ocr", "input": {"image_uri": "bundled:grocery"}},
        {"id": "items", "tool": "line_item_parser", "input": {"ocr": "step:text"}},
        {"id": "kinds", "tool": "expense_categorizer", "input": {"items": "step:items.items"}},
    ],
    "final_synthesis": {"prompt_template": "{{steps.kinds}}"},
}
ANALYSIS: dict[str, Any] = {"steps": [{"id": "one", "tool": "custom_analyzer", "input": {"data": {"rows": [1, 2]}}}]}
PROGRAM: dict[str, Any] = {
    "steps": [
        {
            "id": "exceeded",
            "tool": "code_exec",
            "input": {
                "code": "import asyncio\n"
                "sums = await asyncio.gather(*(compute_item_statistics(items=e['items']) for e in input))\n"
                "output = [e['name'] for e, s in zip(input, sums) if s['total'] > 1000]\n",
                "input_data": [
                    {"name": "Alice", "items": [{"description": "flight", "amount": 1200.0}]},
                    {"name": "Bob", "items": [{"description": "train", "amount": 80.0}]},
                ],
                "tools": ["compute_item_statistics"],
            },
        }
    ],
    "output": "step:exceeded",
}
AS_A_NOTEBOOK = """
import ast, asyncio, inspect, sys
code = compile(open(sys.argv[1]).read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
async def cell():
    await eval(code, names)
asyncio.run(cell()) if code.co_flags & inspect.CO_COROUTINE else exec(code, names)
plan = names.get("plan")
print("TOOLS", *(s.tool for s in plan.steps) if plan else ())
print("RESULT", names.get("result"))
"""


@pytest.fixture
def run(shell: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Runs a sample as a notebook would, with Azure's variables set to a local server's; what it prints."""

    def run(sample: str, wire: WireServer) -> str:
        path = tmp_path / "sample.py"
        path.write_text(sample)
        azure = {"AZURE_OPENAI_ENDPOINT": f"{wire.root}/", "AZURE_OPENAI_API_KEY": KEY}
        done = subprocess.run(
            [sys.executable, "-c", AS_A_NOTEBOOK, str(path)],
            env=shell | azure, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def by_tools(_: int, body: Mapping[str, Any]) -> dict[str, Any]:
    return ANALYSIS if "custom_analyzer" in json.dumps(body) else RECEIPT


def test_a_default_catalog_and_one_of_ones_own(run: Callable[..., str]) -> None:
    with wire_server("azure-openai", by_tools) as wire:
        assert "TOOLS custom_analyzer\n" in run(DEFAULT_AND_CUSTOM_CATALOG, wire)
    first, second = map(json.dumps, wire.seen)
    assert "receipt_ocr" in first
    assert "custom_analyzer" not in first
    assert "receipt_ocr" not in second


def test_a_discovered_catalog(run: Callable[..., str]) -> None:
    with wire_server("azure-openai", [RECEIPT]) as wire:
        printed = run(DISCOVERED_CATALOG, wire)
    assert "  - receipt_ocr (" in printed
    assert "TOOLS receipt_ocr line_item_parser expense_categorizer\n" in printed
    assert len(wire.seen) == 1


def test_search_of_tools(run: Callable[..., str]) -> None:
    with wire_server("azure-openai", [RECEIPT]) as wire:
        assert "TOOLS receipt_ocr line_item_parser expense_categorizer\n" in run(SEMANTIC_SEARCH, wire)


def test_a_plan_that_is_a_program(run: Callable[..., str], shell: dict[str, str]) -> None:
    if "TEST_NO_SANDBOX" in shell:
        pytest.skip(shell["TEST_NO_SANDBOX"])
    with wire_server("azure-openai", [PROGRAM]) as wire:
        printed = run(PROGRAMMATIC, wire)
    assert "TOOLS code_exec\n" in printed
    assert "'Alice'" in printed
    assert "'Bob'" not in printed
    assert "# Programs" in json.dumps(wire.seen[0])


def test_from_discovery_to_an_answer(run: Callable[..., str]) -> None:
    with wire_server("azure-openai", [RECEIPT]) as wire:
        printed = run(END_TO_END, wire)
    assert " Generated plan with 3 steps\n  - Step text: receipt_ocr\n" in printed
    result = json.loads(printed.partition(" Result: ")[2].partition("\nTOOLS")[0])
    assert {i["category"] for i in result["items"]} == {"food", "beverage", "household"}


DEMO = "Process this receipt and categorize items"


def demo(shell: dict[str, str], sentence: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "run_planner_demo.py"), sentence]
    return subprocess.run(command, env=shell | variables, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_demo_with_a_provider(shell: dict[str, str]) -> None:
    with wire_server("azure-openai", [RECEIPT]) as wire:
        azure = {"PLANNER_PROVIDER": "azure-openai", "AZURE_OPENAI_ENDPOINT": f"{wire.root}/", "AZURE_OPENAI_API_KEY": KEY}
        done = demo(shell, DEMO, **azure)
    assert done.returncode == 0, done.stderr
    assert "planned by a model:\n  text: receipt_ocr\n" in done.stdout
    assert "Sourdough Bread" in done.stdout
    assert len(wire.seen) == 1


def test_the_demo_offline(shell: dict[str, str]) -> None:
    done = demo(shell, DEMO)
    assert done.returncode == 0, done.stderr
    assert "planned by the template receipts_categories:\n" in done.stdout
    assert "food: 11.37 USD" in done.stdout


def test_the_demo_says_why_not(shell: dict[str, str]) -> None:
    done = demo(shell, "Sing me a song")
    assert done.returncode == 1
    assert "No model is set that makes plans, and no plan template fits the request." in done.stderr
    assert "Set PLANNER_PROVIDER" in done.stderr


# --- the reference's order: search, all tools, a template, an error that says when to come again


SEARCHED: dict[str, Any] = {"index_urls": f"http://127.0.0.1:{free_port()}", "search_threshold": 1, "planner_retries": 0}
AWAY = {"error": {"code": "model_unreachable", "message": "gone", "retryable": True, "sent": False}}
FOOD = "process these receipts and tell me what we spent on food"


async def planned(settings: Settings, answer: Mapping[str, Any], text: str) -> Planned:
    made = LargePlanner(ScriptedModel([answer]), settings=settings, index=IndexClient.of(settings, timeout=0.5))
    return await made.make_plan(PlanRequest(text, {"files": ["bundled:cafe"]}))


async def test_the_order_of_fallbacks(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, home=tmp_path, **SEARCHED)
    by_model = await planned(settings, RECEIPT, FOOD)
    assert (by_model.source, by_model.shown) == ("model", by_model.of)
    assert by_model.degraded == ("the index service: no replica answered",)
    by_template = await planned(settings, AWAY, FOOD)
    assert (by_template.source, by_template.template) == ("template", "receipts_by_category")
    with pytest.raises(PlanningUnavailable) as refused:
        await planned(settings, AWAY, "sing me a song")
    assert (refused.value.retryable, refused.value.retry_after_s) == (True, 60)
    assert isinstance(refused.value.__cause__, ModelError)
