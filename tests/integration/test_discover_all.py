"""Connections to real servers of both protocols, and all of them found at once beside ones that are no good."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.errors import RequestError, ToolError
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_discovery import ToolDiscoveryOrchestrator
from orchestrator.tool_discovery.connect import Connection, ServerTimeout, ServerUnreachable, connect
from orchestrator.tool_discovery.servers import ServerConfig
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OLD = """
import json, os, sys, time
def send(**m): print(json.dumps({"jsonrpc": "2.0", **m}), flush=True)
tools = [{"name": n, "description": n, "inputSchema": {"type": "object"}} for n in ("echo", "slow", "die", "ask", "fail")]
told = open(os.environ["TOLD"], "a", buffering=1) if "TOLD" in os.environ else None
for line in sys.stdin:
    m = json.loads(line)
    if told: told.write(line)
    method, ident, p = m.get("method"), m.get("id"), m.get("params") or {}
    if method == "initialize":
        send(id=ident, result={"protocolVersion": "2025-03-26", "capabilities": {"tools": {"listChanged": True}},
                               "serverInfo": {"name": "old", "version": "1"}})
    elif method == "server/discover" and os.environ.get("TOUCHY"):
        sys.exit("what?")
    elif method == "tools/list":
        send(id=ident, result={"tools": tools})
    elif method == "tools/call" and p["name"] == "echo":
        for n in range(3):
            send(method="notifications/progress", params={"progressToken": p["_meta"]["progressToken"], "progress": n, "total": 3})
        given = p["arguments"]
        send(id=ident, result={"content": [{"type": "text", "text": json.dumps(given)}], "structuredContent": given})
    elif method == "tools/call" and p["name"] == "die":
        print("my key is", os.environ["API_KEY"], file=sys.stderr, flush=True)
        os._exit(7)
    elif method == "tools/call" and p["name"] == "fail":
        send(id=ident, error={"code": -32602, "message": "no such thing"})
    elif method == "ping":
        send(id=ident, result={})
    elif ident is not None and method != "tools/call":
        send(id=ident, error={"code": -32601, "message": "unknown method"})
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, redis_url=f"unix://{tmp_path}/none.sock", server_connect_s=30)


def old(tmp_path: Path, **env: str) -> ServerConfig:
    (tmp_path / "old.py").write_text(OLD)
    return ServerConfig(
        name="old", command=sys.executable, args=(str(tmp_path / "old.py"),), env={"API_KEY": "s3cr3t-v4lue", **env}
    )


def time_server() -> ServerConfig:
    return ServerConfig(name="time", command=sys.executable, args=("-m", "mcp_server_time"))


@asynccontextmanager
async def modern_over_http() -> AsyncIterator[ServerConfig]:
    """A server of the SDK by streamable HTTP."""
    from mcp.server import MCPServer

    server = MCPServer("http-lab", version="3")

    @server.tool()
    def double(n: int) -> int:
        """Doubles."""
        return 2 * n

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = asyncio.create_task(server.run_streamable_http_async(host="127.0.0.1", port=port))
    try:
        await asyncio.to_thread(wait_until, lambda: _listens(port), description="the server listens")
        yield ServerConfig(name="web", url=f"http://127.0.0.1:{port}/mcp", headers={"Authorization": "Bearer abcdefgh"})
    finally:
        serving.cancel()
        await asyncio.wait({serving}, timeout=5)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_server_of_today_over_stdio(settings: Settings) -> None:
    async with connect(time_server(), settings=settings) as c:
        assert (c.protocol, c.server_name) == ("2026-07-28", "mcp-time")
        listing = await c.list_tools()
        assert sorted(t["name"] for t in listing.tools) == ["convert_time", "get_current_time"]
        result = await c.call("get_current_time", {"timezone": "UTC"}, timeout_s=20)
        assert result.structured["timezone"] == "UTC"
        assert not result.is_error
        await c.ping()
        assert c.alive
    assert c.closed.is_set()


async def test_a_server_of_today_over_http(settings: Settings) -> None:
    async with modern_over_http() as config, connect(config, settings=settings) as c:
        assert c.protocol == "2026-07-28"
        assert [t["name"] for t in (await c.list_tools()).tools] == ["double"]
        assert (await c.call("double", {"n": 4}, timeout_s=20)).text == "8"
        await c.ping()


async def test_an_old_server(settings: Settings, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(*said: Any) -> None:
        seen.append(said)

    async with connect(old(tmp_path), settings=settings) as c:
        assert (c.protocol, c.server_version) == ("2025-03-26", "1")
        result = await c.call("echo", {"a": [1]}, timeout_s=20, on_progress=progress)
        assert (result.structured, result.has_structured) == ({"a": [1]}, True)
        with pytest.raises(ToolError, match="no such thing") as caught:
            await c.call("fail", {}, timeout_s=20)
        assert caught.value.code == "bad_input"
    assert seen[-1] == (2.0, 3.0, None)


async def test_an_old_server_that_dies_of_new_questions(settings: Settings, tmp_path: Path) -> None:
    async with connect(old(tmp_path, TOUCHY="1"), settings=settings) as c:
        assert c.protocol == "2025-03-26"


async def test_a_call_that_takes_too_long_is_taken_back(settings: Settings, tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with connect(old(tmp_path, TOLD=str(told)), settings=settings) as c:
        started = time.monotonic()
        with pytest.raises(ServerTimeout, match=r"did not answer a call of `slow` within 0\.3 s"):
            await c.call("slow", {}, timeout_s=0.3)
        assert time.monotonic() - started < 3
        task = asyncio.create_task(c.call("slow", {}, timeout_s=60))
        await _told(told, lambda said: said.count('"slow"') == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _told(told, lambda said: said.count("notifications/cancelled") == 2)
        assert c.alive


async def _told(path: Path, found: Any) -> None:
    await asyncio.to_thread(wait_until, lambda: found(path.read_text()), description=f"the server is told: {path}", timeout=20)


async def test_a_server_that_dies_says_why_and_no_secret(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "old.log"
    async with connect(old(tmp_path), settings=settings, log=log) as c:
        with pytest.raises(ServerUnreachable, match="ended with exit status 7") as caught:
            await c.call("die", {}, timeout_s=20)
        assert caught.value.sent
        assert "my key is ***" in str(caught.value)
        assert not c.alive
        with pytest.raises(ServerUnreachable) as again:
            await c.call("echo", {}, timeout_s=20)
        assert not again.value.sent
    assert log.read_text() == "my key is ***\n"


async def test_secrets_that_stand_in_a_command_are_kept_out_of_messages(settings: Settings) -> None:
    words = ("--api-key", "sk-first-one", "--token=sk-second-one", "-e", "DB_PASSWORD=sk-third-one", "--name", "plain-words")
    script = "import sys; sys.exit(' '.join(sys.argv[1:]))"
    with pytest.raises(ServerUnreachable, match=r"--api-key [*]{3} --token=[*]{3} -e DB_PASSWORD=[*]{3} --name plain-words"):
        async with connect(ServerConfig(name="s", command=sys.executable, args=("-c", script, *words)), settings=settings):
            pass


async def test_half_a_character_is_no_reason_to_wait(settings: Settings, tmp_path: Path) -> None:
    half = OLD.replace("json.dumps(given)", "'half \\ud800'").replace('p["_meta"]["progressToken"]', "0")
    (tmp_path / "half.py").write_text(half)
    config = old(tmp_path).model_copy(update={"args": (str(tmp_path / "half.py"),)})
    async with connect(config, settings=settings) as c:
        assert (await c.call("echo", {}, timeout_s=20)).text == "half ?"


async def test_a_server_has_the_least_environment(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_FOR_SERVERS", "x")
    async with connect(old(tmp_path), settings=settings):
        (child,) = [p for p in _descendants() if "old.py" in " ".join(p.cmdline()) and "launch.py" not in " ".join(p.cmdline())]
        assert "NOT_FOR_SERVERS" not in child.environ()
        assert child.environ()["API_KEY"] == "s3cr3t-v4lue"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import sys; sys.exit('no config')", r"ended with exit status 1. It said:\nno config"),
        ("import time; time.sleep(100)", r"did not answer within 3 s"),
        ("import sys; [sys.stdout.write('x' * 1_000_000) for _ in range(100)]", "more than 16 MiB"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
async def test_servers_that_cannot_be_had(settings: Settings, script: str, why: str) -> None:
    config = ServerConfig(name="bad", command=sys.executable, args=("-c", script), connect_timeout_s=3)
    started = time.monotonic()
    with pytest.raises(ServerUnreachable, match=why):
        async with connect(config, settings=settings):
            pass
    assert time.monotonic() - started < 8


async def test_a_program_or_a_secret_that_is_not_there(settings: Settings) -> None:
    with pytest.raises(ServerUnreachable, match="there is no program `none-such`"):
        async with connect(ServerConfig(name="a", command="none-such"), settings=settings):
            pass
    with pytest.raises(RequestError, match="NONE_SUCH is not set"):
        async with connect(ServerConfig(name="a", command="x", env={"A": "${NONE_SUCH}"}), settings=settings):
            pass
    with pytest.raises(ServerUnreachable, match="cannot be reached"):
        async with connect(ServerConfig(name="a", url="http://127.0.0.1:9/mcp"), settings=settings):
            pass


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    signal.pause()
exec(open(sys.argv[1]).read())
signal.pause()
"""


async def test_nothing_is_left_of_a_server_that_will_not_go(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    old(tmp_path)
    config = ServerConfig(name="s", command=sys.executable, args=(str(tmp_path / "stubborn.py"), str(tmp_path / "old.py")))
    others = set(_descendants())
    async with connect(config, settings=settings):
        assert len(set(_descendants()) - others) >= 2
    wait_until(lambda: not set(_descendants()) - others, description="all processes are gone")


HOLDER = """
import asyncio, sys
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.connect import connect
from orchestrator.tool_discovery.servers import ServerConfig
async def main():
    async with connect(ServerConfig(name="old", command=sys.argv[1], args=(sys.argv[2],)), settings=load_settings()):
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_servers_end_with_whoever_is_killed(settings: Settings, tmp_path: Path) -> None:
    old(tmp_path)
    holder = psutil.Popen(
        [sys.executable, "-c", HOLDER, sys.executable, str(tmp_path / "old.py")],
        stdout=-1,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"up\n"
    servers = holder.children(recursive=True)
    assert len(servers) == 2
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    wait_until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in servers), description="no server is left"
    )


async def test_many_calls_at_once(settings: Settings, tmp_path: Path) -> None:
    async def echo(c: Connection, n: int) -> Any:
        return (await c.call("echo", {"n": n}, timeout_s=30, on_progress=_nothing)).structured["n"]

    async with connect(old(tmp_path), settings=settings) as c:
        assert await asyncio.gather(*(echo(c, n) for n in range(100))) == list(range(100))


async def _nothing(*_: Any) -> None:
    """Progress that nobody wants."""


async def test_good_servers_are_found_beside_bad_ones(settings: Settings, tmp_path: Path) -> None:
    config = old(tmp_path)
    entries = {
        "old": {"command": config.command, "args": list(config.args)},
        "time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]},
        "dead": {"command": "false"},
        "hangs": {"command": "sleep", "args": ["100"], "connect_timeout_s": 5},
        "off": {"command": "false", "disabled": True},
    }
    toolset = {"type": "mcp_toolset", "mcp_server_name": "time", "default_config": {"defer_loading": True}}
    settings.servers_path.write_text(json.dumps({"mcpServers": entries, "toolsets": [toolset]}))
    discovery = ToolDiscoveryOrchestrator(settings=settings)
    catalog = await discovery.discover_all()
    servers = catalog.metadata["servers"]
    assert {name: s["state"] for name, s in servers.items()} == {"old": "up", "time": "up", "dead": "down", "hangs": "down"}
    assert "did not answer within 5 s" in servers["hangs"]["error"]
    assert catalog.metadata["tools_by_source"]["mcp:old"] == 5
    tool = catalog.get_tool("time.get_current_time")
    assert tool is not None
    assert (tool.defer_loading, tool.effect) == (True, "none")
    assert (await discovery.discover_all()).metadata["cache_hit"] is True


async def test_only_what_changed_is_asked_again_and_a_turned_tool_is_held_back(settings: Settings, tmp_path: Path) -> None:
    config = old(tmp_path)
    entry = {"command": config.command, "args": list(config.args), "env": {"TOLD": str(tmp_path / "told")}}
    settings.servers_path.write_text(json.dumps({"mcpServers": {"old": entry}}))
    discovery = ToolDiscoveryOrchestrator(settings=settings)
    await discovery.discover_all()
    starts = (tmp_path / "told").read_text().count('"initialize"')
    settings.servers_path.write_text(json.dumps({"mcpServers": {"old": entry, "dead": {"command": "false"}}}))
    catalog = await discovery.discover_all()
    assert catalog.metadata["servers"]["dead"]["state"] == "down"
    assert (tmp_path / "told").read_text().count('"initialize"') == starts
    (tmp_path / "old.py").write_text(OLD.replace('"description": n', '"description": n + "!"'))
    for _ in range(2):  # it stays so
        catalog = await discovery.discover_all(refresh=True)
        assert catalog.metadata["tools_by_source"]["mcp:old"] == 0
    held = catalog.metadata["servers"]["old"]["quarantined"]
    assert [q["name"] for q in held] == [f"old.{n}" for n in ("echo", "slow", "die", "ask", "fail")]
    there = (tmp_path / "old.py").read_text()
    (tmp_path / "old.py").write_text(there.replace('"tools": tools', '"tools": []'))
    assert (await discovery.discover_all(refresh=True)).metadata["servers"]["old"]["quarantined"] == []
    (tmp_path / "old.py").write_text(there)
    assert (await discovery.discover_all(refresh=True)).metadata["servers"]["old"]["quarantined"] == held, "it was not forgotten"
    approved = {q["name"].removeprefix("old."): q["version"] for q in held}
    settings.servers_path.write_text(json.dumps({"mcpServers": {"old": entry | {"approved": approved}}}))
    assert (await discovery.discover_all()).metadata["tools_by_source"]["mcp:old"] == 5
