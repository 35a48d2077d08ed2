"""`MCPClientShim` on a platform of real processes, and the references' flow of a new tool: worker, definition, stub, use."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import AsyncClient
from orchestrator.errors import (
    BackendError,
    CircuitBreakerOpenError,
    Conflict,
    JobFailed,
    NotFound,
    PlanError,
    RequestError,
    ToolTimeout,
)
from orchestrator.hybrid_dispatcher import MCPClientShim
from orchestrator.models.job import JobStatus
from tests.processes import Platform, platform
from tests.sandbox.lab import IMAGE, prepare

# Step 1 to 3 of the flow; `some_external_service` is what the reference leaves open.
WORKERS = '''
from orchestrator.catalog.imported import register_worker
from orchestrator.models import ToolCatalog, ToolDefinition, ToolParameter

catalog = ToolCatalog(source="myapp", version="1.0")

catalog.add_tool(ToolDefinition(
    name="my_new_tool",
    type="mcp",
    description="Does something useful",
    domain="my_domain",
    parameters=[
        ToolParameter(
            name="param1",
            type="string",
            description="First parameter",
            required=True
        ),
        ToolParameter(
            name="param2",
            type="string",
            description="Optional parameter",
            required=False
        )
    ]
))


async def some_external_service(param1, param2):
    return [param1, param2]


@register_worker(catalog.get_tool("my_new_tool"))
async def my_new_tool_worker(payload):
    """MCP worker implementation"""
    param1 = payload["param1"]
    param2 = payload.get("param2")

    # Implementation (API call, DB query, etc.)
    result = await some_external_service(param1, param2)

    return {"status": "success", "data": result}
'''

# What else the shim is tried on.
MORE = '''
import asyncio

from orchestrator.catalog.register import register_function
from orchestrator.errors import CircuitBreakerOpenError, ToolError
from orchestrator.state.connection import connect
from orchestrator.catalog.context import ToolContext


@register_function(effect="none", domain="finance")
async def get_expenses(user_id: str, quarter: str = "Q3") -> dict:
    """The expenses of a person."""
    return {"user_id": user_id, "quarter": quarter, "total": 15000.0}


@register_function(effect="none", timeout_s=60)
async def slow(seconds: float, context: ToolContext) -> int:
    """Takes its time; how often it ran."""
    ran = connect(context.settings).incr("test:slow")
    await asyncio.sleep(seconds)
    return ran


@register_function(effect="none")
async def fails() -> None:
    """Fails."""
    raise ToolError("no such account")


@register_function(effect="none")
async def behind_a_circuit(retry_after_s: float) -> None:
    """What it needs is down."""
    raise CircuitBreakerOpenError("`mcp:bank` failed 5 times in a row", retry_after_s=retry_after_s)
'''

# Step 4 and 5, in a script of its own.
USE = '''
import asyncio, json
from workers_file import catalog
from orchestrator.programmatic_executor import ProgrammaticToolExecutor

executor = ProgrammaticToolExecutor(
    catalog,
    enable_stubs=True
)

CODE = """
from tools.my_domain import my_new_tool

result = await my_new_tool(
    param1="value1",
    param2="optional_value"
)

print(f"Result: {result}")
"""

if __name__ == "__main__":
    print(json.dumps(asyncio.run(executor.execute(CODE))))
'''

MOST_SCRIPT_S = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a person has their files."""
    made = tmp_path_factory.mktemp("mine")
    (made / "workers_file.py").write_text(WORKERS)
    (made / "more.py").write_text(MORE)
    (made / "use.py").write_text(USE)
    return made


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Platform]:
    try:
        prepare()
    except BackendError:
        sandbox: dict[str, Any] = {}
    else:
        sandbox = {"sandbox_image": IMAGE}
    tools = ",".join(str(folder / f) for f in ("workers_file.py", "more.py"))
    with platform(tools=tools, **sandbox) as p:
        p.start_planner()
        p.start_worker("functions", concurrency=1)
        p.start_worker("aio", pool="async", concurrency=20)
        p.start_api()
        for name in ("functions", "aio"):
            p.wait_announced(name)
        if sandbox:
            p.start_worker("code", pool="code", concurrency=2)
            p.wait_announced("code")
        yield p


@pytest.fixture
async def client(running: Platform) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}") as made:
        yield made


@pytest.fixture
async def shim(client: AsyncClient) -> AsyncIterator[MCPClientShim]:
    async with MCPClientShim(client) as made:
        yield made


async def test_the_map_is_what_the_pools_announced(shim: MCPClientShim, client: AsyncClient) -> None:
    assert list(shim.tool_map) == [t.name for t in await client.tools()]
    tool = shim.tool_map["my_new_tool"]
    assert (tool.definition.domain, tool.definition.type) == ("my_domain", "mcp")
    assert (tool.__name__, tool.__doc__) == ("my_new_tool", "Does something useful")
    assert "my_new_tool" in shim.tool_map
    assert "nothing" not in shim.tool_map
    with pytest.raises(KeyError, match="did you mean `my_new_tool`"):
        shim.tool_map["my_new_tol"]


async def test_a_tool_of_the_map_is_called_with_its_payload(shim: MCPClientShim) -> None:
    found = await shim.tool_map["get_expenses"]({"user_id": "alice", "quarter": "Q3"})
    assert found == {"user_id": "alice", "quarter": "Q3", "total": 15000.0}
    assert await shim.call_tool("my_new_tool", {"param1": "a"}) == {"status": "success", "data": ["a", None]}


async def test_the_map_cannot_be_written(shim: MCPClientShim) -> None:
    tools: Any = shim.tool_map
    with pytest.raises(TypeError, match=r"cannot be written; register a tool with `@register_function`"):
        tools["another"] = print
    with pytest.raises(TypeError, match="cannot be written"):
        del tools["my_new_tool"]
    with pytest.raises(TypeError):
        tools |= {"another": print}
    whole: Any = shim
    with pytest.raises(AttributeError):
        whole.tool_map = {}
    assert "my_new_tool" in tools


async def end_of_newest(client: AsyncClient) -> JobStatus:
    (newest,) = [job async for job in client.jobs(limit=1)]
    return (await client.job(newest.id).wait(20)).status


async def test_a_key_makes_one_call_of_many(shim: MCPClientShim, running: Platform) -> None:
    running.client.delete("test:slow")
    first, second = await asyncio.gather(*(shim.call_tool("slow", {"seconds": 0.3}, idempotency_key="k1") for _ in range(2)))
    assert (first, second, await shim.call_tool("slow", {"seconds": 0.3}, idempotency_key="k1")) == (1, 1, 1)
    with pytest.raises(Conflict):
        await shim.call_tool("slow", {"seconds": 0.4}, idempotency_key="k1")
    assert await shim.call_tool("slow", {"seconds": 0}) == 2


async def test_without_a_key_a_late_call_is_cancelled_and_with_one_it_goes_on(shim: MCPClientShim, client: AsyncClient) -> None:
    with pytest.raises(ToolTimeout, match=r"took longer than 0\.3 s and was cancelled"):
        await shim.call_tool("slow", {"seconds": 30}, timeout=0.3)
    assert await end_of_newest(client) is JobStatus.CANCELLED
    with pytest.raises(ToolTimeout, match=r"goes on Ask again with the same idempotency key\."):
        await shim.call_tool("slow", {"seconds": 1.0}, timeout=0.3, idempotency_key="k2")
    assert await shim.call_tool("slow", {"seconds": 1.0}, idempotency_key="k2") > 0


async def test_an_open_circuit_is_said_as_such(shim: MCPClientShim, client: AsyncClient) -> None:
    with pytest.raises(CircuitBreakerOpenError, match="`mcp:bank` failed 5 times in a row") as refused:
        await shim.call_tool("behind_a_circuit", {"retry_after_s": 50.0}, timeout=20)
    assert 50 <= (refused.value.retry_after_s or 0) <= 60  # and not after 20 s: nobody waits for what is not tried
    assert await end_of_newest(client) is JobStatus.CANCELLED
    with pytest.raises(CircuitBreakerOpenError):
        await shim.call_tool("behind_a_circuit", {"retry_after_s": 0.1}, timeout=20)  # every try met it


async def test_what_is_wrong_is_said(shim: MCPClientShim) -> None:
    with pytest.raises(NotFound, match="There is no tool `my_new_tol`"):
        await shim.call_tool("my_new_tol", {})
    with pytest.raises(PlanError, match="param1"):
        await shim.call_tool("my_new_tool", {"param2": "b"})
    with pytest.raises(JobFailed, match="no such account"):
        await shim.call_tool("fails")


async def test_a_map_that_was_never_read_says_how(client: AsyncClient) -> None:
    with pytest.raises(RequestError, match=r"await shim\.refresh\(\)"):
        MCPClientShim(client).tool_map  # noqa: B018 (it raises)


def run(script: Path, running: Platform) -> str:
    """What a script says that uses the running platform."""
    env = running.env | {"TOOLWEAVER_URL": f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}"}
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=MOST_SCRIPT_S, cwd=script.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_client_it_finds_the_platform_in_use(running: Platform, folder: Path) -> None:
    script = folder / "plain.py"
    script.write_text(
        "import asyncio\n"
        "from orchestrator.hybrid_dispatcher import MCPClientShim\n"
        "shim = MCPClientShim()\n"
        "print('my_new_tool' in shim.tool_map)\n"
        "async def main():\n"
        "    print('fails' in MCPClientShim().tool_map)\n"
        "    print(await shim.tool_map['my_new_tool']({'param1': 'a', 'param2': 'b'}))\n"
        "    print((await MCPClientShim().call_tool('get_expenses', {'user_id': 'ada'}))['total'])\n"
        "asyncio.run(main())\n"
    )
    assert run(script, running).splitlines() == ["True", "True", "{'status': 'success', 'data': ['a', 'b']}", "15000.0"]


def test_the_references_registration_flow(running: Platform, folder: Path) -> None:
    if "code" not in running.processes:
        pytest.skip("no sandbox here")
    said = json.loads(run(folder / "use.py", running))
    assert said["status"] == "success", said["error"]
    assert said["output"] == "Result: {'status': 'success', 'data': ['value1', 'optional_value']}\n"
    assert [(c["tool"], c["parameters"]) for c in said["tool_calls"]] == [
        ("my_new_tool", {"param1": "value1", "param2": "optional_value"})
    ]
    written = folder / "stubs" / "tools" / "my_domain"
    assert {f.name for f in written.iterdir()} == {"__init__.py", "my_new_tool.py"}
    stub = (written / "my_new_tool.py").read_text()
    assert stub.startswith("# AUTO-GENERATED - DO NOT EDIT")
    assert 'async def my_new_tool(param1: str, param2: str | None = None) -> Any:\n    """Does something useful' in stub
