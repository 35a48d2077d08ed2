"""The servers file: usual keys, one bad entry beside good ones, secrets by reference, changes that lose nothing."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import RequestError
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.servers import change_servers, load_servers, resolve_secrets, used_pools


def write(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mcp.json"


def test_a_file_that_is_not_there_names_nothing(path: Path) -> None:
    file = load_servers(path)
    assert (file.servers, file.openapi, file.problems) == ({}, {}, ())


def test_the_usual_shape(path: Path) -> None:
    entries = {
        "time": {"command": "python", "args": ["-m", "mcp_server_time"], "env": {"A": "b"}, "autoApprove": ["x"]},
        "web": {"url": "https://tools.example.org/mcp", "type": "http", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "off": {"command": "x", "disabled": True},
    }
    file = load_servers(write(path, {"mcpServers": entries, "openapi": {"pets": {"document": "pets.yaml"}}}))
    assert not file.problems
    assert file.servers["time"].args == ("-m", "mcp_server_time")
    assert file.servers["web"].kind == "http"
    assert list(file.enabled()) == ["time", "web"]
    assert file.openapi["pets"].document == str(path.parent / "pets.yaml")


@pytest.mark.parametrize("key", ["url", "serverUrl", "httpUrl"])
def test_spellings_of_other_clients(path: Path, key: str) -> None:
    file = load_servers(write(path, {"servers": {"web": {key: "http://127.0.0.1/mcp", "type": "streamableHttp"}}}))
    assert file.servers["web"].url == "http://127.0.0.1/mcp"


def test_a_bad_entry_is_a_problem_and_the_others_load(path: Path) -> None:
    entries = {
        "good": {"command": "x"},
        "typo": {"comand": "x"},
        "none": 3,
        "both": {"command": "x", "url": "http://h"},
        "": {"command": "x"},
    }
    file = load_servers(write(path, {"mcpServers": entries}))
    assert list(file.servers) == ["good"]
    said = "\n".join(map(str, file.problems))
    assert "mcpServers.typo.comand: is no key that is known Did you mean `command`?" in said
    assert "mcpServers.both: a server has either a `command` or a `url`" in said
    assert "mcpServers.none" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"mcpServers": []}'])
def test_a_broken_file_has_a_problem(path: Path, text: str) -> None:
    file = load_servers(write(path, text))
    assert file.problems
    assert not file.servers


def test_names_that_would_clash_are_told(path: Path) -> None:
    file = load_servers(write(path, {"mcpServers": {"a b": {"command": "x"}, "a_b": {"command": "y"}}}))
    assert "a_b" in str(file.problems[0])


def test_a_tool_overrides_its_server(path: Path) -> None:
    toolset = {
        "type": "mcp_toolset", "mcp_server_name": "drive", "default_config": {"defer_loading": True, "timeout_s": 5},
        "configs": {"search_files": {"defer_loading": False}},
    }  # fmt: skip
    file = load_servers(write(path, {"mcpServers": {"drive": {"command": "x"}}, "toolsets": [toolset]}))
    drive = file.toolsets["drive"]
    assert (drive.of("search_files").defer_loading, drive.of("search_files").timeout_s) == (False, 5)
    assert drive.of("other").defer_loading is True


def test_a_toolset_of_no_server_is_told(path: Path) -> None:
    file = load_servers(write(path, {"mcpServers": {"time": {"command": "x"}}, "toolsets": [{"mcp_server_name": "tine"}]}))
    assert str(file.problems[0]).endswith("there is no server `tine` Did you mean `time`?")


def test_secrets_come_from_the_environment_and_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0ken")
    (tmp_path / "secret").write_text("from a file\n")
    found: set[str] = set()
    text = f"${{TOKEN}} ${{env:TOKEN}} ${{NONE:-else}} ${{NONE:-}} ${{file:{tmp_path}/secret}} $HOME"
    assert resolve_secrets(text, found=found) == "t0ken t0ken else  from a file $HOME"
    assert found == {"t0ken", "else", "from a file"}


@pytest.mark.parametrize("text", ["${NONE_OF_THESE}", "${input:key}", "${file:/none/of/these}"])
def test_a_secret_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(RequestError, match=r"NONE_OF_THESE|input:key|/none/of/these"):
        resolve_secrets(text)


def test_a_change_keeps_the_rest_and_its_order(path: Path) -> None:
    write(path, {"theirs": {"z": 1}, "mcpServers": {"b": {"command": "b"}, "a": {"command": "a"}}})
    change_servers(path, lambda data: data["mcpServers"].update(c={"command": "c"}))
    data = json.loads(path.read_text())
    assert list(data) == ["theirs", "mcpServers"]
    assert list(data["mcpServers"]) == ["b", "a", "c"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_json_is_not_overwritten(path: Path) -> None:
    write(path, "{ nearly")
    with pytest.raises(RequestError, match="no JSON"):
        change_servers(path, lambda data: data.clear())
    assert path.read_text() == "{ nearly"


def test_the_home_that_a_first_entry_makes_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "home" / "mcp.json"
    change_servers(path, lambda data: data.update(mcpServers={}))
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mcp.json").mkdir()
    (problem,) = load_servers(tmp_path / "mcp.json").problems
    assert str(problem).count(str(tmp_path)) == 1
    assert "TOOLWEAVER_SERVERS_FILE" in str(problem)


def test_changes_at_once_lose_nothing(path: Path) -> None:
    def add(n: int) -> None:
        change_servers(path, lambda data: data.setdefault("mcpServers", {}).update({f"s{n}": {"command": "x"}}))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_servers(path).servers) == 12


def test_the_pools_that_a_file_needs(path: Path) -> None:
    settings = load_settings(home=path.parent, servers_file=path)
    assert used_pools(settings) == frozenset()
    write(path, {"mcpServers": {"a": {"command": "x", "disabled": True}}, "openapi": {"p": {"document": "p.json"}}})
    assert used_pools(settings) == frozenset({"http"})
    change_servers(path, lambda data: data["mcpServers"].update(b={"command": "x"}))
    assert used_pools(settings) == frozenset({"http", "mcp"})
