"""Six published MCP servers, of both generations of the protocol: discovered, cached, diffed, and called in every way there is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.catalog.store import CatalogStore
from orchestrator.hybrid_dispatcher.single import call_tool
from orchestrator.jobs.events import EventReader
from orchestrator.models.catalog import ServerState
from orchestrator.models.event import Event
from orchestrator.models.tool import ToolCatalog
from orchestrator.settings import Settings, load_settings
from tests.mcp.lab import NPM, PYPI, SERVERS, RealServers, real_servers, web_page, write_servers
from tests.processes import Platform, platform
from tests.support import wait_until

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240), pytest.mark.xdist_group("real_servers")]

HANDSHAKE, MODERN = "2025-11-25", "2026-07-28"
TOOLS = {"everything": 13, "web": 13, "filesystem": 14, "memory": 9, "time": 2, "git": 12, "fetch": 1}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealServers:
    return real_servers(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def web(real: RealServers) -> Iterator[str]:
    with real.everything_over_http() as url:
        yield url


@pytest.fixture(scope="module")
def all_of_them(real: RealServers, web: str) -> dict[str, dict[str, Any]]:
    """The six, and one of them over HTTP too."""
    return real.entries() | {"web": {"url": web}}


# Discovery


def discover(settings: Settings, **how: Any) -> ToolCatalog:
    from orchestrator.tool_discovery.orchestrator import ToolDiscoveryOrchestrator

    return asyncio.run(ToolDiscoveryOrchestrator(settings=settings).discover_all(**how))


def of(catalog: ToolCatalog, server: str) -> set[str]:
    return {t.name for t in catalog.tools if t.server == server}


def state(catalog: ToolCatalog, server: str) -> ServerState:
    told = catalog.metadata["servers"][server]
    return told if isinstance(told, ServerState) else ServerState.model_validate({"name": server} | dict(told))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, all_of_them: dict[str, dict[str, Any]]) -> Settings:
    """Settings of a home in which nothing was discovered yet."""
    home = tmp_path_factory.mktemp("home")
    write_servers(home / "mcp.json", all_of_them)
    return load_settings(_env_file=None, home=home, redis_url=f"unix://{home}/none.sock")


@pytest.fixture(scope="module")
def cold(place: Settings) -> ToolCatalog:
    return discover(place)


def test_all_are_discovered_and_none_of_their_tools_is_held_back(cold: ToolCatalog) -> None:
    assert {name: len(of(cold, name)) for name in TOOLS} == TOOLS
    assert cold.metadata["cache_hit"] is False
    for name in TOOLS:
        told = state(cold, name)
        assert (told.error, told.quarantined, told.refused) == (None, (), ()), f"{name}: {told}"


def test_both_generations_of_the_protocol_are_spoken(cold: ToolCatalog) -> None:
    assert {name: state(cold, name).protocol for name in (*SERVERS, "web")} == (
        dict.fromkeys((*NPM, "web"), HANDSHAKE) | dict.fromkeys(PYPI, MODERN)
    )


def test_the_hints_become_effects_and_schemas_stay_whole(cold: ToolCatalog) -> None:
    effects = {
        name: tool.effect
        for name in ("time.convert_time", "filesystem.write_file", "git.git_commit")
        if (tool := cold.get_tool(name))
    }
    assert effects == {"time.convert_time": "none", "filesystem.write_file": "idempotent", "git.git_commit": "once"}
    edit = cold.get_tool("filesystem.edit_file")
    assert edit is not None
    assert edit.input_schema["properties"]["edits"]["items"]["required"] == ["oldText", "newText"]
    assert edit.output_schema is not None
    assert (edit.type, edit.pool, edit.domain, edit.native_name) == ("mcp", "mcp", "filesystem", "edit_file")


def test_a_second_look_comes_from_the_cache(cold: ToolCatalog, place: Settings) -> None:
    again = discover(place)

    assert again.metadata["cache_hit"] is True
    assert [t.to_row() for t in again.tools] == [t.to_row() for t in cold.tools]
    assert again.metadata["discovery_time_ms"] < 100, "no server can start and answer in that time"


def test_a_change_is_told_as_a_diff(cold: ToolCatalog, place: Settings, all_of_them: dict[str, dict[str, Any]]) -> None:
    """One server has other arguments, which its descriptions tell of; one is gone, one is new."""
    changed = {k: v for k, v in all_of_them.items() if k != "memory"}
    changed["time"] = changed["time"] | {"args": ["--local-timezone", "Asia/Tokyo"]}
    changed["clock"] = all_of_them["time"]
    write_servers(place.servers_path, changed)

    after = discover(place)

    assert after.metadata["cache_hit"] is False
    assert set(after.metadata["removed"]) == of(cold, "memory")
    assert set(after.metadata["added"]) == {"clock.get_current_time", "clock.convert_time"}
    assert set(after.metadata["changed"]) == {"time.get_current_time", "time.convert_time"}
    told = after.get_tool("time.get_current_time")
    assert told is not None
    assert "Asia/Tokyo" in json.dumps(told.input_schema)


# Calls


@dataclass
class Served:
    """A platform whose pool serves all of them."""

    p: Platform
    real: RealServers

    @cached_property
    def catalog(self) -> CatalogStore:
        return CatalogStore(self.p.client)

    def run(self, *steps: dict[str, Any], **plan: Any) -> dict[str, Any]:
        """The results of a plan's steps."""
        job = self.p.submit(list(steps), **plan)
        view = self.p.wait(job, timeout=30)
        assert view.status == "succeeded", view.error
        return self.p.store.result(job).steps

    def one(self, tool: str, **given: Any) -> Any:
        return self.run({"id": "s", "tool": tool, "input": given})["s"]

    def fails(self, tool: str, **given: Any) -> str:
        """The message of a call that fails."""
        view = self.p.wait(self.p.submit([{"id": "s", "tool": tool, "input": given}]), timeout=30)
        assert (view.status, view.error is not None) == ("failed", True)
        assert view.error is not None
        return view.error.message

    def events(self, job: str) -> list[Event]:
        return EventReader(self.p.settings, self.p.client).read(job)

    def servers(self, words: str) -> set[int]:
        """The processes of a server."""
        family = psutil.Process(self.p.processes["pool"].pid).children(recursive=True)
        return {p.pid for p in family if words in " ".join(p.cmdline())}

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"TOOLWEAVER_URL": self.url, "TOOLWEAVER_HOME": str(self.p.folder)}
        command = [sys.executable, "-m", "orchestrator.cli", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.p.env['TOOLWEAVER_API_PORT']}"


@pytest.fixture(scope="module")
def served(real: RealServers, all_of_them: dict[str, dict[str, Any]]) -> Iterator[Served]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True)))
        path = write_servers(folder / "mcp.json", all_of_them)
        p = stack.enter_context(platform(folder=folder, servers_file=path))
        made = Served(p, real)
        p.start_planner()
        p.start_worker("pool", pool="mcp", concurrency=50)
        p.start_api()
        wanted = set(TOOLS)
        wait_until(
            lambda: {n for n, s in made.catalog.server_states().items() if s.state == "up"} >= wanted,
            description="all servers are up", timeout=60,
        )  # fmt: skip
        wait_until(lambda: _answers(made.url), description="the API answers", timeout=30)
        yield made


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_pool_tells_how_the_servers_are(served: Served) -> None:
    states = served.catalog.server_states()
    assert {name: states[name].tools for name in TOOLS} == TOOLS
    assert {states[name].protocol for name in NPM} == {HANDSHAKE}
    assert {states[name].protocol for name in PYPI} == {MODERN}
    assert (states["web"].kind, states["time"].kind) == ("http", "stdio")


def test_a_plan_calls_tools_of_many_servers(served: Served) -> None:
    """Results of one go to the next, whoever serves it."""
    path = f"{served.real.files}/sum.txt"
    done = served.run(
        {"id": "now", "tool": "time.get_current_time", "input": {"timezone": "Europe/Berlin"}},
        {"id": "sum", "tool": "everything.get-sum", "input": {"a": 2, "b": 3}},
        {"id": "echo", "tool": "web.echo", "input": {"message": "step:now.timezone"}},
        {"id": "write", "tool": "filesystem.write_file", "input": {"path": path, "content": "step:sum"}},
        {"id": "read", "tool": "filesystem.read_text_file", "input": {"path": path}, "depends_on": ["write"]},
    )
    assert done["now"]["timezone"] == "Europe/Berlin"
    assert "5" in done["sum"]
    assert done["echo"] == "Echo: Europe/Berlin"
    assert done["sum"] in json.dumps(done["read"])


async def test_a_tool_is_called_directly(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_URL", served.url)
    given = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}

    converted = await call_tool("time", "time.convert_time", given)

    assert converted["time_difference"] == "+9.0h"


def test_a_tool_is_called_by_cli(served: Served) -> None:
    ran = served.cli("tools", "run", "time.get_current_time", "--input", '{"timezone": "Europe/Berlin"}')
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["timezone"] == "Europe/Berlin"

    wrong = served.cli("tools", "run", "time.get_current_time", "--arg", "timezone=Nowhere/Town")
    assert wrong.returncode == 1
    assert "Nowhere/Town" in wrong.stderr


def test_what_does_not_fit_a_tools_schema_never_reaches_the_server(served: Served) -> None:
    from orchestrator.errors import PlanError

    with pytest.raises(PlanError, match="`message`, which is missing"):
        served.p.api.submit({"steps": [{"id": "s", "tool": "everything.echo", "input": {"mesage": "hello"}}]})


def test_structured_content_is_the_result(served: Served) -> None:
    for server in ("everything", "web"):
        weather = served.one(f"{server}.get-structured-content", location="Chicago")
        assert weather == {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82}


def test_an_image_becomes_a_file(served: Served, tmp_path: Path) -> None:
    job = served.p.submit([{"id": "s", "tool": "everything.get-tiny-image", "input": {}}])
    assert served.p.wait(job).status == "succeeded"
    blocks = served.p.store.result(job).steps["s"]["content"]

    image = next(b for b in blocks if b["type"] == "image")

    assert image["media_type"] == "image/png"
    kept = served.p.api.download(image["file"], tmp_path / "image.png")
    assert kept is not None
    assert kept.read_bytes().startswith(PNG)
    assert any("MCP" in b.get("text", "") for b in blocks)


def test_progress_comes_as_events(served: Served) -> None:
    for server in ("everything", "web"):
        job = served.p.submit(
            [{"id": "s", "tool": f"{server}.trigger-long-running-operation", "input": {"duration": 1.5, "steps": 3}}]
        )
        assert served.p.wait(job).status == "succeeded"
        told = [e.data for e in served.events(job) if e.type == "log" and "progress" in e.data]
        assert [(d["progress"], d["total"]) for d in told][-1] == (3, 3)


def test_a_long_call_is_cancelled_and_the_session_stays(served: Served) -> None:
    before = served.servers("mcp-server-everything")
    job = served.p.submit(
        [{"id": "s", "tool": "everything.trigger-long-running-operation", "input": {"duration": 60, "steps": 600}}]
    )
    wait_until(lambda: any("progress" in e.data for e in served.events(job)), description="it has begun")
    began = time.monotonic()

    served.p.control.cancel(job)

    assert served.p.wait(job).status == "cancelled"
    assert time.monotonic() - began < 3
    assert served.one("everything.echo", message="still here") == "Echo: still here"
    assert before == served.servers("mcp-server-everything") != set()


def test_files_outside_the_root_are_out_of_reach(served: Served) -> None:
    inside = served.one("filesystem.read_text_file", path=f"{served.real.files}/hello.txt")
    assert "hello from inside" in json.dumps(inside)

    for path in (served.real.files.parent / "secret.txt", f"{served.real.files}/../secret.txt", "/etc/passwd"):
        assert "outside allowed directories" in served.fails("filesystem.read_text_file", path=str(path))


def test_git_works_on_the_repository(served: Served) -> None:
    where = {"repo_path": str(served.real.repository)}
    served.one("git.git_add", files=["a.txt"], **where)
    served.one("git.git_commit", message="The second commit", **where)

    log = served.one("git.git_log", **where)

    assert "The second commit" in json.dumps(log)
    assert "The first commit" in json.dumps(log)
    elsewhere = served.fails("git.git_status", repo_path=str(served.real.files))
    assert "repo" in elsewhere.lower() or "outside" in elsewhere.lower()


def test_a_server_remembers_between_calls(served: Served) -> None:
    before = served.servers("mcp-server-memory")
    ada = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
    served.one("memory.create_entities", entities=[ada])
    served.one("memory.add_observations", observations=[{"entityName": "Ada", "contents": ["lived in London"]}])

    found = served.one("memory.search_nodes", query="Ada")

    assert found["entities"][0]["observations"] == ["wrote the first program", "lived in London"]
    assert before == served.servers("mcp-server-memory") != set(), "one process answered all calls"


def test_a_page_is_fetched(served: Served) -> None:
    with web_page() as url:
        assert "The quick brown fox." in json.dumps(served.one("fetch.fetch", url=url, raw=True))


def test_a_server_that_is_killed_is_started_again(served: Served) -> None:
    before = served.servers("mcp-server-time")
    for pid in before:
        psutil.Process(pid).kill()

    assert served.one("time.get_current_time", timezone="UTC")["timezone"] == "UTC"
    assert not before & served.servers("mcp-server-time")


def test_the_servers_have_the_least_environment(served: Served) -> None:
    env = json.loads(served.one("everything.get-env"))
    assert {k for k in env if k.startswith("TOOLWEAVER")} == set()
    assert "PATH" in env


def test_many_calls_at_once_keep_their_answers_apart(served: Served) -> None:
    many = [str(n) for n in range(100)]
    step = {"id": "s", "tool": "everything.echo", "map": "input:words", "input": {"message": "item"}}
    assert served.run(step, inputs={"words": many})["s"] == [f"Echo: {w}" for w in many]
