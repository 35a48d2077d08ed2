"""The pool `mcp` with real servers: their tools in the catalog, calls over sessions that are kept, the file that changes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.events import EventReader
from orchestrator.models.job import JobStatus
from orchestrator.tool_discovery.connect import Listing
from orchestrator.tool_discovery.servers import ServerConfig
from tests.mcp_lab import Lab, lab
from tests.support import wait_until
from workers.mcp.shelf import Shelf, orphans, withdraw

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(lease_s=2.0) as made:
        repository = tmp_path_factory.mktemp("repository")
        for words in (
            ["init", "-q"],
            ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "First"],
        ):
            subprocess.run(["git", *words], cwd=repository, check=True)
        made.write(
            lab=made.own(),
            web=made.start_http("web"),
            time={"command": str(BIN / "mcp-server-time"), "args": ["--local-timezone", "UTC"]},
            git={"command": str(BIN / "mcp-server-git"), "args": ["--repository", str(repository)], "cwd": str(repository)},
        )
        made.start_worker("one")
        made.wait_up("lab", "web", "time", "git")
        yield made


@pytest.fixture
def at(running: Lab) -> Lab:
    """The lab with its worker, a new one when the test before ended it."""
    if "one" not in running.p.processes:
        running.start_worker("one")
    return running


def events(at: Lab, job: str) -> list[dict[str, Any]]:
    return [e.data for e in EventReader(at.p.settings).read(job) if e.type == "log"]


def test_tools_are_published_with_where_they_come_from(at: Lab) -> None:
    tools = {t.name: t for t in at.catalog.all().tools}
    assert {"time.get_current_time", "time.convert_time", "git.git_log", "lab.echo", "web.echo"} <= tools.keys()
    pay, put, read = (tools[f"lab.{n}"] for n in ("pay", "put", "read"))
    assert [t.effect for t in (pay, put, read)] == ["once", "idempotent", "none"]
    assert (pay.server, pay.native_name, pay.pool, pay.type, pay.domain) == ("lab", "pay", "mcp", "mcp", "lab")
    assert tools["lab.total"].output_schema is not None

    state = at.state("lab")
    assert state is not None
    assert (state.state, state.kind, state.version, state.error) == ("up", "stdio", "1.0", None)
    assert state.tools == len([n for n in tools if n.startswith("lab.")])
    web = at.state("web")
    assert web is not None
    assert web.kind == "http"
    assert web.protocol
    told = next(w for w in at.p.store.workers() if w.pool == "mcp")
    wait_until(
        lambda: "lab.pay" in next(w for w in at.p.store.workers() if w.id == told.id).tools, description="it tells its tools"
    )


def test_a_plan_calls_published_servers(at: Lab) -> None:
    job = at.p.submit(
        [
            {"id": "now", "tool": "time.get_current_time", "input": {"timezone": "Asia/Tokyo"}},
            {
                "id": "there",
                "tool": "time.convert_time",
                "input": {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
            },
            {"id": "log", "tool": "git.git_log", "input": {"repo_path": at.servers["git"]["cwd"]}},
            {"id": "sum", "tool": "lab.total", "input": {"values": [1, 2.5]}},
            {"id": "again", "tool": "web.echo", "input": {"text": "step:log"}},
        ]
    )
    assert at.p.wait(job).error is None
    steps = at.p.store.result(job).steps
    assert steps["sum"] == {"total": 3.5, "terms": 2}
    assert "Asia/Tokyo" in str(steps["now"])
    assert "21:00" in str(steps["there"])
    assert "First" in steps["log"]
    assert steps["again"] == steps["log"]


def test_answers_become_values_and_files(at: Lab) -> None:
    assert at.value("lab.echo", text="hello") == "hello"
    assert at.value("web.echo", text="hello") == "hello"
    assert at.value("lab.total", values=[1, 2]) == {"total": 3.0, "terms": 2}
    words, picture, sound, table = at.value("lab.mixed")["content"]
    assert words == {"type": "text", "text": "here"}
    assert (picture["type"], picture["media_type"]) == ("image", "image/png")
    assert (sound["type"], table["media_type"]) == ("audio", "application/x-table")
    for block in (picture, sound, table):
        assert block["file"].startswith("blob:sha256:")
        assert at.p.store.files.blobs.find(block["file"].rpartition(":")[2], tenant="default").file.size > 0


@pytest.mark.parametrize("server", ["lab", "web"])
def test_what_goes_wrong_is_told_as_ours(at: Lab, server: str) -> None:
    failed = at.call(f"{server}.fails", why="the moon is full").error
    assert failed is not None
    assert (failed.code, failed.family, failed.retryable) == ("tool_failed", "tool", False)
    assert "the moon is full" in failed.message
    assert len(at.call(f"{server}.fails", why="x" * 10_000).error.message) < 2_500  # type: ignore[union-attr]

    before = len(at.notes("read"))
    bad = at.call(f"{server}.read", key=7, wait="long").error
    assert bad is not None
    assert bad.code == "bad_input"
    assert len(at.notes("read")) == before, "the server was not asked"

    asked = at.p.wait(at.submit(f"{server}.ask", step={"retry": {"max": 0}})).error
    assert asked is not None
    assert asked.code in ("needs_input", "tool_failed", "server_error")


def test_progress_becomes_events_few_enough_to_be_read(at: Lab) -> None:
    for server in ("lab", "web"):
        job = at.submit(f"{server}.slow", seconds=1.0, steps=50)
        at.p.wait(job)
        told = [e for e in events(at, job) if "progress" in e]
        assert 2 <= len(told) <= 8
        assert (told[-1]["progress"], told[-1]["total"], told[-1]["message"]) == (50, 50, "step 50")


@pytest.mark.parametrize("server", ["lab", "web"])
def test_a_cancelled_call_is_cancelled_at_the_server(at: Lab, server: str) -> None:
    began, cancelled = (len(at.notes("slow", word)) for word in ("began", "cancelled"))
    job = at.submit(f"{server}.slow", seconds=60)
    wait_until(lambda: len(at.notes("slow", "began")) > began, description="the call is there")
    at.p.control.cancel(job)
    wait_until(lambda: len(at.notes("slow", "cancelled")) > cancelled, description="the server hears of it", timeout=5)
    assert at.value(f"{server}.echo", text="still there") == "still there"


@pytest.mark.parametrize("server", ["lab", "web"])
def test_calls_share_one_session_and_run_at_once(at: Lab, server: str) -> None:
    before = len(at.notes("started"))
    begun = time.monotonic()
    job = at.p.submit(
        [{"id": "s", "tool": f"{server}.read", "input": {"key": "item", "wait": 0.5}, "map": "input:xs"}],
        inputs={"xs": [str(n) for n in range(20)]},
    )
    assert at.p.wait(job).status is JobStatus.SUCCEEDED
    assert time.monotonic() - begun < 5, "one after the other they take 10 s"
    assert at.p.store.result(job).steps["s"] == [f"read {n}" for n in range(20)]
    assert len(at.notes("started")) == before


def test_a_step_has_the_servers_time_at_most_and_its_own(at: Lab) -> None:
    at.write(brief=at.own(timeout_s=0.5))
    at.wait_up("brief")
    none = {"retry": {"max": 0}}
    late = at.p.wait(at.submit("brief.read", key="k", wait=30, step=none)).error
    assert late is not None
    assert late.code in ("timeout", "server_timeout")
    paid = at.submit("brief.pay", key="late", wait=30, step=none)
    wait_until(lambda: at.p.store.status(paid) is JobStatus.WAITING, description="nobody knows whether it was paid")
    own = at.p.wait(at.submit("lab.read", key="k", wait=30, step=none | {"timeout_s": 0.4})).error
    assert own is not None
    assert own.code == "timeout"
    at.p.control.cancel(paid)
    at.write(brief=None)


def test_a_server_that_changes_its_tools_is_listed_again(at: Lab) -> None:
    assert at.value("lab.grow") == "more"
    wait_until(lambda: at.catalog.get("lab.grown"), description="the new tool is announced", timeout=8)
    assert at.value("lab.grown") == "grown"


def test_the_file_is_followed_while_it_changes(at: Lab) -> None:
    at.extra.touch()
    at.write(late=at.own())
    at.wait_up("late")
    assert at.value("late.extra") == "extra"

    whole = at.file.read_text()
    at.file.write_text(whole[:-20])
    wait_until(lambda: at.p.said("is no JSON"), description="the broken file is told")
    assert at.value("late.echo", text="as before") == "as before"
    at.file.write_text(whole)

    at.extra.unlink()
    at.write(late=at.own(timeout_s=33.0, connect_timeout_s=19.0))
    wait_until(lambda: (t := at.catalog.get("late.echo")) and t.timeout_s == 33, description="the new entry counts")
    wait_until(lambda: at.catalog.get("late.extra") is None, description="what it no longer offers is gone")

    at.write(late=None)
    wait_until(lambda: at.catalog.get("late.echo") is None and at.state("late") is None, description="it is withdrawn", timeout=8)
    assert at.value("lab.echo", text="others stay") == "others stay"


def test_no_call_notices_that_an_entry_changes(at: Lab) -> None:
    at.write(late=at.own())
    at.wait_up("late")
    pids = set(at.pids("one"))
    job = at.submit("late.pay", key="quiet", wait=3.0)
    wait_until(lambda: at.notes("pay", "quiet"), description="the call is there")
    at.write(late=at.own(timeout_s=31.0, approved={"pay": "0" * 16}))
    wait_until(lambda: (t := at.catalog.get("late.pay")) and t.timeout_s == 31, description="the new entry counts")
    assert set(at.pids("one")) == pids, "the same server"
    assert at.p.store.calls(job)[0].state == "running"

    at.write(late=at.own(env=at.env | {"MORE": "1"}))
    waiting = at.submit("late.put", key="later", step={"retry": {"max": 0}})
    assert at.p.wait(job).status is JobStatus.SUCCEEDED
    assert at.p.wait(waiting).status is JobStatus.SUCCEEDED, "it waited for the new server, which is no try"
    wait_until(lambda: set(at.pids("one")) - pids, description="the server is another one now")
    assert at.notes("pay", "quiet") == [["pay", "quiet"]]
    at.write(late=None)
    wait_until(lambda: at.state("late") is None, description="it is withdrawn", timeout=8)


def test_a_server_that_hangs_leaves_half_of_the_calls_to_the_others(at: Lab) -> None:
    steps = [{"id": "m", "tool": "lab.slow", "map": "input:keys", "input": {"seconds": 20.0}}]
    job = at.p.submit(steps, inputs={"keys": list(range(40))})  # the worker has 30 places
    wait_until(lambda: sum(c.state == "running" for c in at.p.store.calls(job)) >= 15, description="its share is taken")
    assert at.value("time.get_current_time", timezone="UTC")["timezone"] == "UTC"
    calls = at.p.store.calls(job)
    assert not [c for c in calls if c.state == "succeeded"], "they had not ended yet"
    assert {c.tries for c in calls} == {0}, "who is put back loses no try"
    at.p.control.cancel(job)
    wait_until(lambda: len(at.notes("slow", "cancelled")) >= 15, description="the server hears of it", timeout=20)


def test_a_worker_that_is_stopped_ends_its_calls_then_its_servers(at: Lab) -> None:
    pids = at.pids("one")
    assert pids
    process = at.p.processes.pop("one")
    job = at.submit("lab.slow", seconds=1.5)
    began = len(at.notes("slow", "began"))
    wait_until(lambda: [c for c in at.p.store.calls(job) if c.state == "running"], description="the call runs")
    wait_until(lambda: len(at.notes("slow", "began")) >= began, description="the server has it")
    process.terminate()
    assert process.wait(20) == 0
    assert at.p.store.result(job).steps["s"] == "1 steps"
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), description="its servers are gone", timeout=5)


def shelf(client: redis.Redis, tools: ToolRegistry) -> Shelf:
    """The tools of one server, as a worker that just started has them."""
    made = Shelf(
        ServerConfig(name="s", command="true"), None, catalog=CatalogStore(client), registry=tools, handler=lambda _: never
    )
    made.stock()
    return made


async def never(arguments: dict[str, Any], context: Any) -> None:
    raise AssertionError("nobody calls it")


def listing(*descriptions: str) -> Listing:
    return Listing(
        tuple({"name": f"t{n}", "description": d, "inputSchema": {"type": "object"}} for n, d in enumerate(descriptions))
    )


def test_a_tool_that_turns_is_held_back_and_stays_so_over_restarts(client: redis.Redis) -> None:
    tools, catalog = ToolRegistry(), CatalogStore(client)
    first = shelf(client, tools)
    first.take(listing("Adds.", "Reads."), version="1", protocol="p")
    assert tools.names() == ["s.t0", "s.t1"]
    first.take(listing("Adds. Other than before.", "Reads."), version="1", protocol="p")
    for held in (first, shelf(client, tools), shelf(client, ToolRegistry())):
        held.take(listing("Adds. Other than before.", "Reads."), version="1", protocol="p")
        assert [q.name for q in held.state.quarantined] == ["s.t0"]
        assert held.serves("s.t1")
        assert not held.serves("s.t0"), "nor is what it was before"
        assert catalog.get("s.t0") is None
    first.take(listing("Adds.", "Reads."), version="1", protocol="p")
    assert first.serves("s.t0"), "it is again what it was"
    first.take(listing("Adds more.", "Reads."), version="2", protocol="p")
    assert catalog.get("s.t0").description == "Adds more."  # type: ignore[union-attr]


def test_a_tool_that_goes_away_and_comes_back_as_another_is_held_back(client: redis.Redis) -> None:
    at, catalog = shelf(client, ToolRegistry()), CatalogStore(client)
    at.take(listing("Adds.", "Reads."), version="1", protocol="p")
    at.take(listing(), version="1", protocol="p")
    assert (catalog.all().tools, at.state.away) == ([], {"s.t0": "1", "s.t1": "1"})
    for again in (at, shelf(client, ToolRegistry())):
        again.take(listing("Adds. Other than before.", "Reads."), version="1", protocol="p")
        assert [q.name for q in again.state.quarantined] == ["s.t0"]
        again.take(listing(), version="1", protocol="p")
    at.take(listing(), version="2", protocol="p")  # such as one that first lists nothing
    at.take(listing("Adds. Other than before."), version="2", protocol="p")
    assert at.serves("s.t0"), "an upgrade, although its list was empty at first"


def test_a_server_that_left_the_file_while_nobody_looked_is_an_orphan(client: redis.Redis) -> None:
    catalog = CatalogStore(client)
    shelf(client, ToolRegistry()).take(listing("Adds."), version="1", protocol="p")
    assert orphans(catalog, set()) == [], "its worker may still be there"
    state = catalog.server_states()["s"]
    catalog.put_server_state(state.model_copy(update={"at": state.at - 60}))
    assert orphans(catalog, {"s"}) == []
    assert orphans(catalog, set()) == ["s"]
    withdraw(catalog, "s")
    assert (catalog.all().tools, catalog.server_states()) == ([], {})
