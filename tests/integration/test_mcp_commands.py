"""Servers as a person has them: `up`, `mcp add` beside it, a call, a plan, a dead one, `remove`; all with real processes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.client import Client
from orchestrator.models.platform import Platform, running_platform
from tests.integration.test_up_demo import call, finish, processes, start
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
pytest.importorskip("mcp")
ROOT = Path(__file__).parents[2]
TIME = ("mcp", "add", "time", "--", sys.executable, "-m", "mcp_server_time")
NOW = ("tools", "run", "time.get_current_time", "--input", '{"timezone": "Europe/Berlin"}')


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Path, Platform]]:
    """A platform that was started before anybody named a server."""
    with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        process = start(home, "up", "--json", "--no-flower")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        try:
            yield home, Platform.model_validate_json(line)
            programs = servers(process.pid)
            assert programs
        finally:
            finish(process, timeout=60)
        assert processes(home) == []
        assert not [p for p in programs if p.is_running()], "servers end with the platform"


def servers(supervisor: int) -> list[psutil.Process]:
    """The servers that a platform runs; they carry nothing of its environment, so they are known by their command."""
    return [p for p in psutil.Process(supervisor).children(recursive=True) if "mcp_server_time" in " ".join(p.cmdline())]


def test_a_server_that_is_added_to_a_running_platform_is_served_at_once(started: tuple[Path, Platform]) -> None:
    home, platform = started
    assert "mcp" not in platform.pools

    added = call(home, *TIME)
    assert added.returncode == 0
    assert "time is up: 2 tools" in added.stderr, added.stderr

    now = json.loads(call(home, *NOW).stdout)
    assert now["timezone"] == "Europe/Berlin"
    running = running_platform(home)
    assert running is not None
    assert "mcp" in running.pools


def test_a_plan_of_the_examples_uses_it(started: tuple[Path, Platform]) -> None:
    home, _ = started
    assert call(home, *TIME).returncode == 0

    made = call(home, "submit", str(ROOT / "examples" / "mcp" / "plan.json"), "--wait")

    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert [m["target"]["timezone"] for m in answer] == ["Europe/Berlin", "Asia/Tokyo", "America/New_York"]
    assert answer[0]["target"]["datetime"][11:16] == "15:00"


def test_list_and_doctor_tell_of_it_and_one_that_is_dead_harms_nobody(started: tuple[Path, Platform]) -> None:
    home, _ = started
    assert call(home, *TIME).returncode == 0

    dead = call(home, "mcp", "add", "dead", "--", sys.executable, "-c", "import sys; sys.exit('no licence')")

    assert "dead is down" in dead.stderr
    assert "no licence" in dead.stderr
    listed = {r["name"]: r["state"] for r in json.loads(call(home, "mcp", "list", "--json").stdout)["servers"]}
    assert listed == {"time": "up", "dead": "down"}
    found = {f["name"]: f["level"] for f in json.loads(call(home, "doctor", "--json").stdout)}
    assert (found["server time"], found["server dead"]) == ("ok", "warn")
    assert call(home, *NOW).returncode == 0
    assert call(home, "mcp", "remove", "dead").returncode == 0


@pytest.mark.long
def test_a_server_that_is_removed_is_withdrawn_within_seconds(started: tuple[Path, Platform]) -> None:
    home, platform = started
    assert call(home, *TIME).returncode == 0
    programs = servers(platform.pid)
    assert programs

    call(home, "mcp", "remove", "time")

    with Client(platform.api) as client:
        wait_until(lambda: not [t for t in client.tools() if t.server == "time"], description="its tools are gone", timeout=10)
        wait_until(lambda: client.servers() == [], description="its state is gone", timeout=10)
    wait_until(lambda: not [p for p in programs if p.is_running()], description="its program ended", timeout=15)
    gone = call(home, *NOW)
    assert gone.returncode == 2
    assert "time.get_current_time" in gone.stderr
    assert call(home, *TIME).returncode == 0, "and it comes back; it is to end with the platform"
