"""What the platform on one machine consists of, and where it listens."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.broker.queues import POOLS
from orchestrator.errors import BackendError, RequestError
from orchestrator.local import parts
from orchestrator.local.home import Home
from orchestrator.models.platform import running_platform
from orchestrator.settings import load_settings


def test_a_pool_whose_packages_are_missing_is_left_out_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "missing_packages", lambda extra: ["rapidocr"] if extra == "ocr" else [])

    able, lines = parts.check_pools(["function", "ocr"])

    assert able == ["function"]
    assert lines == ["pool ocr is not started: rapidocr not installed; run `pip install 'toolweaver[ocr]'`"]


def test_pools_of_servers_start_when_the_file_names_something_for_them(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, home=tmp_path)
    others = set(POOLS) - {"mcp", "http"}
    assert set(parts.usual_pools(settings)) == others, "a newcomer's platform starts nothing more than before"

    (tmp_path / "mcp.json").write_text(
        '{"mcpServers": {"time": {"command": "python"}, "off": {"url": "https://a/", "disabled": true}}}'
    )
    assert set(parts.usual_pools(settings)) == others | {"mcp"}

    (tmp_path / "mcp.json").write_text(
        '{"mcpServers": {"off": {"command": "python", "disabled": true}}, "openapi": {"a": {"document": "a"}}}'
    )
    assert set(parts.usual_pools(settings)) == others | {"http"}

    (tmp_path / "mcp.json").write_text("no json")
    assert set(parts.usual_pools(settings)) == others


def test_an_unknown_pool_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="there is no pool `orc`") as caught:
        parts.check_pools(["orc"])

    assert caught.value.next is not None
    assert "Did you mean `ocr`?" in caught.value.next


def test_a_busy_port_moves_on() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]

        assert parts.free_port("127.0.0.1", port) > port


def test_two_platforms_that_start_at_once_get_different_ports() -> None:
    """The first has not begun to listen when the second one looks."""
    first = parts.free_port("127.0.0.1", 18_400)
    code = f"from orchestrator.local import parts; print(parts.free_port('127.0.0.1', {first}))"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(second) > first


def test_no_free_port_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PORTS_TRIED", 1)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()

        with pytest.raises(BackendError, match="no port") as caught:
            parts.free_port("127.0.0.1", busy.getsockname()[1])

    assert "TOOLWEAVER_API_PORT" in str(caught.value)


def test_every_part_gets_what_was_settled_once(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, home=tmp_path, tools="a.py,b")

    env = parts.environment(Home(tmp_path), settings, redis_url="unix:///short.sock?db=0", api_port=8401)

    assert env["TOOLWEAVER_REDIS_URL"] == "unix:///short.sock?db=0"
    assert env["TOOLWEAVER_URL"] == "http://127.0.0.1:8401"
    assert env["TOOLWEAVER_TOOLS"] == "a.py,b"
    assert env["TOOLWEAVER_HOME"] == str(tmp_path)


def test_ctrl_c_waits_less_for_running_calls_than_a_stopped_worker_elsewhere(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, home=tmp_path)
    assert parts.drain_s(settings) < settings.drain_s
    assert parts.drain_s(load_settings(_env_file=None, home=tmp_path, drain_s=30)) == 30
    assert parts.pool_part("function", 30).grace_s > 30, "the worker gives up before it is killed"


def test_pools_stop_before_the_planner_and_the_server_last(tmp_path: Path) -> None:
    stages = [parts.server_part(Home(tmp_path)).stage, parts.planner_part().stage, *(parts.pool_part(p).stage for p in POOLS)]

    assert stages == sorted(stages)
    assert stages[0] < stages[1] < stages[2]


def test_a_platform_file_of_a_killed_supervisor_counts_for_nothing(tmp_path: Path) -> None:
    text = (
        '{"pid": 1, "api": "http://127.0.0.1:1", "redis": "unix:///x", "started": "2026-01-01T00:00:00Z", "process_started": 1.0}'
    )
    (tmp_path / "platform.json").write_text(text)

    assert running_platform(tmp_path) is None


@pytest.mark.parametrize("text", ["", "no json", "{}"])
def test_a_broken_platform_file_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "platform.json").write_text(text)

    assert running_platform(tmp_path) is None
