"""`ProgrammaticToolExecutor` as a script uses it: on a running platform, with tools of the platform and of the script itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import with_code
from tests.processes import Platform

TOOLS = Path(__file__).parents[1] / "program_tools.py"

SCRIPT = '''
import asyncio, json
from orchestrator.hybrid_dispatcher import register_function
from orchestrator.models import ToolCatalog, ToolDefinition, ToolParameter
from orchestrator.programmatic_executor import ProgrammaticToolExecutor


@register_function("my_new_tool", effect="none")
def my_new_tool(param1: str, param2: str = "two") -> dict:
    """Does something useful."""
    return {"status": "success", "data": param1 + param2}


catalog = ToolCatalog(source="myapp", version="1.0")
catalog.add_tool(ToolDefinition(
    name="my_new_tool", type="mcp", description="Does something useful", domain="my_domain",
    parameters=[
        ToolParameter(name="param1", type="string", description="First parameter", required=True),
        ToolParameter(name="param2", type="string", description="Optional parameter", required=False),
    ],
))
catalog.add_tool(ToolDefinition(
    name="get_expenses", domain="money", parameters=[ToolParameter(name="user_id", type="string", required=True)],
))
told = []
executor = ProgrammaticToolExecutor(catalog, enable_stubs=True, on_tool_call=lambda *news: told.append(news))

CODE = """
import asyncio
from tools.my_domain import my_new_tool
from tools.money import get_expenses

result = await my_new_tool(param1="value1", param2="optional_value")
print(f"Result: {result}")
found = await asyncio.gather(*[get_expenses(f"e{n}") for n in range(5)], return_exceptions=True)
try:
    await get_expenses("x", tip=3)
except TypeError as error:
    print("no such argument")
[result["data"], len(found)]
"""


async def main():
    ok = await executor.execute(CODE)
    bad = await executor.execute("import os")
    late = await ProgrammaticToolExecutor(catalog, limits={"timeout_s": 1}).execute("while True: pass")
    print(json.dumps({"ok": ok, "bad": bad, "late": late, "told": told, "stubs": sorted(executor.stubs)}))


if __name__ == "__main__":
    asyncio.run(main())
'''


@pytest.fixture
def running(programs_platform: Platform) -> Platform:
    return with_code(programs_platform)


def test_a_script_runs_programs_with_tools_of_its_own_and_of_the_platform(running: Platform, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = running.env | {"TOOLWEAVER_URL": f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=90, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    ok, bad, late = said["ok"], said["bad"], said["late"]
    fields = {"output", "result", "tool_calls", "execution_time", "execution_id", "error", "status"}
    assert set(ok) == set(bad) == set(late) == fields
    assert ok["status"] == "success", ok["error"]
    assert ok["result"] == ["value1optional_value", 5]
    assert ok["output"].splitlines() == ["Result: {'status': 'success', 'data': 'value1optional_value'}", "no such argument"]
    assert len(ok["tool_calls"]) == 6
    assert (bad["status"], late["status"]) == ("security_error", "timeout")
    assert [name for name, *_ in said["told"]] == ["my_new_tool"] + ["get_expenses"] * 5
    assert all(success and latency > 0 and error is None for _, success, latency, error in said["told"])
    assert "tools/my_domain/my_new_tool.py" in said["stubs"]


def test_a_tool_that_nobody_offers_is_named(running: Platform, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from orchestrator.models import ToolCatalog, ToolDefinition\n"
        "from orchestrator.programmatic_executor import ProgrammaticToolExecutor\n"
        "catalog = ToolCatalog(tools=[ToolDefinition(name='nobody_has_this')])\n"
        "asyncio.run(ProgrammaticToolExecutor(catalog).execute('1'))\n"
    )
    env = running.env | {"TOOLWEAVER_URL": f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert "There is no tool `nobody_has_this`" in done.stderr
    assert os.environ.get("HOME", "/nowhere") not in done.stderr.splitlines()[-1]


def test_one_tool_is_called_by_server_and_name(running: Platform, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from orchestrator.errors import NotFound, ToolTimeout\n"
        "from orchestrator.hybrid_dispatcher import call_tool, register_function\n"
        "\n"
        "@register_function('twice', effect='none')\n"
        "def twice(n: int) -> int:\n"
        "    return 2 * n\n"
        "\n"
        "async def main():\n"
        "    print((await call_tool('finance', 'get_expenses', {'user_id': 'ada'}))['total'])\n"
        "    print(await call_tool('function', 'twice', {'n': 21}))\n"
        "    for server, name, given, seconds in (('hr', 'get_expenses', {'user_id': 'a'}, 30), ('finance', 'nothing', {}, 30),"
        " ('finance', 'get_expenses', {'user_id': 'a', 'wait_s': 60}, 1)):\n"
        "        try:\n"
        "            await call_tool(server, name, given, timeout=seconds)\n"
        "        except (NotFound, ToolTimeout) as error:\n"
        "            print(error)\n"
        "\n"
        "asyncio.run(main())\n"
    )
    env = running.env | {"TOOLWEAVER_URL": f"http://127.0.0.1:{running.env['TOOLWEAVER_API_PORT']}"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth, fifth = done.stdout.splitlines()
    assert (first, second) == ("300", "42")
    assert third == "Server `hr` has no tool `get_expenses`. It belongs to `finance`."
    assert "There is no tool `nothing`" in fourth
    assert fifth.startswith("tool `get_expenses` took longer than 1 s and was cancelled")
