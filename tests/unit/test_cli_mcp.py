"""The commands about servers: what they write, what they warn of, what they show of a server that lies, how they end."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.cli.doctor import tool_servers
from orchestrator.cli.server_entries import literals, shown, visible
from orchestrator.models.platform import Platform
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.servers import OpenApiConfig, ServerConfig, ToolsetTool, load_servers
from tests.unit.fake_platform import FakePlatform, fake_platform

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]
DONE, JOB_FAILED, BAD_REQUEST, UNREACHABLE = 0, 1, 2, 3
TIME = ("mcp", "add", "time", "--", sys.executable, "-m", "mcp_server_time")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in ("TOOLWEAVER_URL", "TOOLWEAVER_REDIS_URL", "REDIS_URL", "TOOLWEAVER_SERVERS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words))


def written(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "mcp.json").read_text())
    return found


def broken(home: Path, kind: str, name: str = "bad", **more: Any) -> None:
    """A server of our collection of bad ones, in the file."""
    entry = {"command": sys.executable, "args": ["-m", "tests.mcp.broken", kind], "cwd": str(ROOT), **more}
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {name: entry}}))


def test_a_command_is_written_as_other_clients_write_it(run: Run, tmp_path: Path) -> None:
    ended = run(*TIME)

    assert (ended.exit_code, ended.stdout) == (DONE, "")
    assert written(tmp_path) == {"mcpServers": {"time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]}}}
    assert (tmp_path / "mcp.json").stat().st_mode & 0o777 == 0o600
    assert "toolweaver mcp test time" in ended.stderr
    assert "toolweaver up" in ended.stderr


def test_options_of_a_server_are_written_and_read_back(run: Run, tmp_path: Path) -> None:
    run(
        "mcp", "add", "a", "--env", "MODE=fast", "--env", "A_TOKEN", "--tenant", "acme", "--timeout", "9", "--defer", "--", "python"
    )
    run(
        "mcp", "add", "b", "--url", "https://tools.example.org/mcp", "--header", "Authorization: Bearer ${B}", "--header", "X-A=1=2"
    )

    file = load_servers(tmp_path / "mcp.json")
    assert file.problems == ()
    a, b = file.servers["a"], file.servers["b"]
    assert (a.command, a.env, a.tenants, a.timeout_s) == ("python", {"MODE": "fast", "A_TOKEN": "${A_TOKEN}"}, ("acme",), 9)
    assert file.toolsets["a"].default_config.defer_loading is True
    assert (b.url, b.headers) == ("https://tools.example.org/mcp", {"Authorization": "Bearer ${B}", "X-A": "1=2"})


def test_adding_the_same_again_changes_nothing_and_another_is_refused(run: Run, tmp_path: Path) -> None:
    run(*TIME)
    before = (tmp_path / "mcp.json").read_text()

    assert "already" in run(*TIME).stderr
    refused = run("mcp", "add", "time", "--", "other")

    assert refused.exit_code == BAD_REQUEST
    assert "--force" in refused.stderr
    assert (tmp_path / "mcp.json").read_text() == before
    assert run("mcp", "add", "time", "--force", "--", "other").exit_code == DONE
    assert written(tmp_path)["mcpServers"]["time"]["command"] == "other"


def test_what_the_file_says_besides_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text('{"$schema": "x", "servers": {"other": {"command": "c", "gallery": true}}, "inputs": []}')

    run(*TIME)
    run("mcp", "remove", "other")

    assert list(written(tmp_path)) == ["$schema", "servers", "inputs"]
    assert list(written(tmp_path)["servers"]) == ["time"], "it goes where the file has its servers"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a",), "either a command or an address"),
        (("a", "--url", "https://x.org/", "--", "c"), "either a command or an address"),
        (("a", "--url", "https://x.org/", "--env", "A=1"), "--env"),
        (("a", "--header", "A=1", "--", "c"), "--header"),
        (("a", "--url", "ftp://x.org/"), "url"),
        (("9", "--", "c"), "no name of a server"),
        (("a", "--timeout", "-1", "--", "c"), "timeout_s"),
        (("a", "--openapi", "missing.yaml"), "is no file"),
        (("a", "--openapi", "https://x.org/a.json", "--defer"), "does not go with --openapi"),
        (("a", "--private", "--", "c"), "this is for OpenAPI documents"),
        (("a", "--env", "=x", "--", "c"), "NAME=VALUE"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_next_move(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ended = run("mcp", "add", *words)

    assert ended.exit_code == BAD_REQUEST
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) >= 2, "what is wrong, and what to do"
    assert not (tmp_path / "mcp.json").exists()


SECRETS = {
    "--env": ("GITHUB_TOKEN=ghp_abcdefghijklmnop", "DB_PASSWORD=hunter22", "OTHER=sk-abcdefghijklmnop"),
    "--header": ("Authorization=Bearer abcdefghijklmn", "X-Api-Key=abcdefgh"),
}


@pytest.mark.parametrize(("option", "pair"), [(o, p) for o, pairs in SECRETS.items() for p in pairs])
def test_a_secret_is_warned_about_with_the_way_to_refer_to_it_and_never_printed(run: Run, option: str, pair: str) -> None:
    name, _, secret = pair.partition("=")
    where = ("--", "python") if option == "--env" else ("--url", "https://tools.example.org/mcp")
    said = [
        run("mcp", "add", "a", option, pair, *where, "--json"),
        run("mcp", "list"),
        run("mcp", "show", "a"),
        run("mcp", "list", "--json"),
    ]

    variable = name.upper().replace("-", "_")
    assert f"{option} '{name}={'Bearer ' if 'Bearer' in secret else ''}${{{variable}}}'" in said[0].stderr
    for ended in said:
        assert ended.exit_code == DONE
        assert secret.split()[-1] not in ended.output


def test_secrets_in_a_command_or_an_address_are_found_and_hidden() -> None:
    entry = {
        "command": "npx",
        "args": ["server", "--api-key", "abcdefgh", "--token=abcdefgh", "--verbose", "--key-file", "/etc/key", "ghp_abcdefghijkl"],
        "url": "https://me:hunter2@x.org/mcp?api_key=abcdefgh&page=2",
    }
    hidden = json.dumps(shown(entry))
    for secret in ("abcdefgh", "hunter2", "ghp_"):
        assert secret not in hidden
    assert "page=2" in hidden
    assert len(list(literals(entry))) == 4


def test_references_and_ordinary_values_are_no_secrets() -> None:
    entry = {
        "command": "npx",
        "args": ["--token", "${TOKEN}", "--mode", "fast", "/srv/data"],
        "env": {"API_KEY": "${API_KEY}", "PATH_TO": "/usr/bin", "TOKEN_LIMIT": "", "AUTH": "${env:A:-}"},
        "headers": {"Authorization": "Bearer ${TOKEN}", "X-Key": "${file:/run/secrets/key}"},
        "url": "https://${USER}@x.org/mcp?api_key=${KEY}",
    }
    assert list(literals(entry)) == []
    assert shown(entry) == entry


def test_everything_invisible_is_made_visible() -> None:
    assert visible("a\u202eb\u200bc\x1b[31m\U000e0041\n\tü漢🙂") == "a<U+202E>b<U+200B>c<U+001B>[31m<U+E0041>\n\tü漢🙂"


def test_the_servers_of_another_client_are_taken_over(run: Run, tmp_path: Path) -> None:
    run(*TIME)
    theirs = {
        "mcpServers": {
            "files": {"command": "npx", "args": ["-y", "server-files", "/srv"], "autoApprove": ["read"]},
            "web": {"serverUrl": "https://x.org/mcp", "headers": {"Authorization": "Bearer abcdefghijkl"}},
            "time": {"command": "uvx", "args": ["mcp-server-time"]},
            "odd": {"args": []},
        }
    }
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))

    ended = run("mcp", "import", "theirs.json")

    assert ended.exit_code == JOB_FAILED, "one could not be read, one is another one here"
    assert set(load_servers(tmp_path / "mcp.json").servers) == {"time", "files", "web"}
    assert written(tmp_path)["mcpServers"]["files"]["autoApprove"] == ["read"]
    assert written(tmp_path)["mcpServers"]["time"]["command"] == sys.executable
    assert "abcdefghijkl" not in ended.output
    assert "odd" in ended.stdout
    assert "command" in ended.stdout
    assert run("mcp", "import", "theirs.json", "--only", "time", "--force").exit_code == DONE
    assert written(tmp_path)["mcpServers"]["time"]["command"] == "uvx"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"mcpServers": []}'])
def test_a_file_without_servers_cannot_be_imported(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "theirs.json").write_text(text)
    ended = run("mcp", "import", "theirs.json")
    assert ended.exit_code == BAD_REQUEST
    assert "theirs.json" in ended.stderr


def test_an_unknown_server_names_the_nearest_and_a_bad_entry_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text('{"mcpServers": {"time": {"command": "c"}, "odd": {"comand": "c"}}}')
    for command in ("remove", "test", "show"):
        ended = run("mcp", command, "tme")
        assert ended.exit_code == BAD_REQUEST
        assert "`time`" in ended.stderr
    assert "comand" in run("mcp", "show", "odd").stderr
    assert "comand" in run("mcp", "list").stderr
    assert "time" in run("mcp", "list").stdout


def test_a_file_that_is_no_json_is_refused_and_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text("{oops")
    for words in (("list",), ("add", "a", "--", "c"), ("test", "a"), ("remove", "a")):
        ended = run("mcp", *words)
        assert ended.exit_code == BAD_REQUEST, words
        assert "no JSON" in ended.stderr
    assert (tmp_path / "mcp.json").read_text() == "{oops"


def test_a_document_is_added_by_its_absolute_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("openapi: 3.1.0")

    ended = run("mcp", "add", "shop", "--openapi", "shop.yaml", "--base-url", "https://shop.example.org", "--timeout", "5")

    assert ended.exit_code == DONE
    assert written(tmp_path)["openapi"]["shop"] == {
        "document": str(tmp_path / "shop.yaml"), "base_url": "https://shop.example.org", "timeout_s": 5,
    }  # fmt: skip


def test_a_document_is_read_and_its_operations_shown(run: Run) -> None:
    run("mcp", "add", "own", "--openapi", str(ROOT / "examples" / "mcp" / "platform.yaml"), "--private")

    ended = run("mcp", "test", "own")

    assert ended.exit_code == DONE, ended.stderr
    assert [line.split()[:2] for line in ended.stdout.splitlines()[1:]] == [["health", "none"], ["list_jobs", "none"]]
    assert "own: OpenAPI 3.1.0, version 1, 2 tools in" in ended.stderr
    assert json.loads(run("mcp", "show", "own", "list_jobs", "--json").stdout)["tool"]["json_schema"]["properties"]["limit"]
    nothing = run("mcp", "approve", "own", "--all")
    assert (nothing.exit_code, "nothing of own is quarantined" in nothing.stderr) == (DONE, True)


def test_an_operation_that_is_held_back_is_approved_in_the_version_that_is_shown(run: Run, tmp_path: Path) -> None:
    run("mcp", "add", "shop", "--openapi", str(ROOT / "tests" / "data" / "openapi" / "shop.yaml"))
    assert "secret file" in run("mcp", "test", "shop").stderr

    ended = run("mcp", "approve", "shop", "poisoned", "--yes", "--json")

    assert ended.exit_code == DONE, ended.stderr
    version = json.loads(ended.stdout)["approved"]["poisoned"]
    assert written(tmp_path)["openapi"]["shop"]["approved"] == {"poisoned": version}
    assert "secret file" not in run("mcp", "test", "shop").stderr


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakePlatform]:
    """A platform that seems to run in this home."""
    me = psutil.Process()
    with fake_platform() as made:
        platform = Platform(
            pid=me.pid, api=made.url, redis="unix:///x", started=datetime.now(UTC), process_started=me.create_time(), pools=("mcp",)
        )
        (tmp_path / "platform.json").write_text(platform.model_dump_json())
        yield made


def state(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "stdio", "state": "up", "tools": 2, "at": 9e9, "worker": "w"} | more


def test_a_platform_that_takes_it_up_is_waited_for(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/servers"] = [[], [state("time", state="starting")], [state("time")]]

    ended = run(*TIME)

    assert ended.exit_code == DONE
    assert "time is up: 2 tools" in ended.stderr


def test_a_server_that_does_not_come_up_says_why(run: Run, fake: FakePlatform) -> None:
    fake.answers["GET /v1/servers"] = [[state("time", state="down", error="it ended with \x1b[31mexit code 1")]]

    ended = run(*TIME)

    assert "time is down: it ended with" in ended.stderr
    assert "\x1b" not in ended.stderr
    listed = run("mcp", "list")
    assert "exit code 1" in listed.stdout
    assert "\x1b" not in listed.stdout


def test_the_state_of_before_a_change_counts_for_nothing(run: Run, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cli.server_states.POOL_S", 0.3)
    monkeypatch.setenv("TOOLWEAVER_SERVER_CONNECT_S", "0.1")
    fake.answers["GET /v1/servers"] = [[state("time", at=1.0)]]
    fake.answers["GET /v1/workers"] = [[]]

    ended = run(*TIME)

    assert "is up" not in ended.stderr
    assert "toolweaver logs mcp" in ended.stderr


def test_the_list_shows_file_and_platform_side_by_side(run: Run, fake: FakePlatform, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text(
        '{"mcpServers": {"time": {"command": "c"}, "off": {"command": "c", "disabled": true}, "new": {"command": "c"}}}'
    )
    held = [{"name": "time.a", "version": "0" * 16, "reasons": ["hidden orders"]}]
    fake.answers["GET /v1/servers"] = [[state("time", protocol="2025-11-25", quarantined=held), state("elsewhere")]]

    rows = {r["name"]: r["state"] for r in json.loads(run("mcp", "list", "--json").stdout)["servers"]}

    assert rows == {"time": "up", "off": "disabled", "new": "not seen", "elsewhere": "not in the file"}
    assert "2025-11-25" in run("mcp", "list").stdout


def test_doctor_looks_at_the_file_and_each_server(run: Run, fake: FakePlatform, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text(
        '{"mcpServers": {"time": {"command": "c"}, "dead": {"command": "c"}, "new": {"command": "c"}, "odd": {}}}'
    )
    fake.answers["GET /v1/servers"] = [[state("time"), state("dead", state="down", error="gone")]]

    found = {f.name: f for f in tool_servers(load_settings(_env_file=None))}

    assert found["servers file"].level == "warn"
    assert "odd" in found["servers file"].detail
    assert found["server time"].level == "ok"
    assert found["server dead"].level == found["server new"].level == "warn"
    assert "gone" in found["server dead"].detail
    assert all(f.next for f in found.values() if f.level != "ok")


@pytest.mark.parametrize(("pool", "waits"), [("mcp", False), ("http", True), ("function", False)])
def test_a_worker_whose_pool_has_nothing_to_serve_yet_says_that_it_waits(
    run: Run, monkeypatch: pytest.MonkeyPatch, pool: str, waits: bool
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, env: became.append(words[1:]))
    run(*TIME)

    ended = run("worker", "--pool", pool)

    assert became == [["-m", "workers.boot", "--pool", pool]]
    assert ("waits for `toolweaver mcp add`" in ended.stderr) is waits


@pytest.fixture
def mcp() -> None:
    pytest.importorskip("mcp")


@pytest.mark.usefixtures("mcp")
def test_a_server_is_tried_here_and_every_tool_shown(run: Run) -> None:
    run(*TIME)

    ended = run("mcp", "test", "time")
    told = json.loads(run("mcp", "test", "time", "--json").stdout)

    assert ended.exit_code == DONE, ended.stderr
    assert [line.split()[:2] for line in ended.stdout.splitlines()[1:]] == [["convert_time", "none"], ["get_current_time", "none"]]
    assert re.search(r"time: MCP \d{4}-\d\d-\d\d, version \S+, 2 tools in \d", ended.stderr)
    assert told["ok"]
    assert [t["name"] for t in told["tools"]] == ["time.convert_time", "time.get_current_time"]
    shown_one = run("mcp", "show", "time", "get_current_time")
    assert "IANA timezone name" in shown_one.stdout
    assert run("mcp", "show", "time", "get_curent_time").exit_code == BAD_REQUEST


@pytest.mark.usefixtures("mcp")
def test_a_server_that_cannot_be_reached_ends_with_3_and_its_last_words(run: Run) -> None:
    run("mcp", "add", "dead", "--env", "A=1", "--", sys.executable, "-c", "import sys; sys.exit('no licence')")
    run("mcp", "add", "nowhere", "--url", "http://127.0.0.1:1/mcp")

    dead, nowhere = run("mcp", "test", "dead"), run("mcp", "test", "nowhere")

    assert (dead.exit_code, nowhere.exit_code) == (UNREACHABLE, UNREACHABLE)
    assert "no licence" in dead.stderr
    assert (dead.stdout, nowhere.stdout) == ("", "")
    assert run("mcp", "test", "dead", "--json").exit_code == UNREACHABLE
    assert run("mcp", "show", "dead", "any").exit_code == UNREACHABLE


@pytest.mark.usefixtures("mcp")
def test_a_secret_that_is_not_set_is_named(run: Run) -> None:
    run("mcp", "add", "web", "--url", "https://tools.example.org/mcp", "--header", "Authorization=Bearer ${NOT_SET_AT_ALL}")
    ended = run("mcp", "test", "web")
    assert ended.exit_code == UNREACHABLE
    assert "NOT_SET_AT_ALL" in ended.stderr


@pytest.mark.usefixtures("mcp")
def test_without_the_extra_the_command_that_installs_it_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*TIME)
    monkeypatch.setattr("orchestrator.cli.server_look.missing_packages", lambda extra: ["mcp>=2.3"])
    ended = run("mcp", "test", "time")
    assert ended.exit_code == BAD_REQUEST
    assert "pip install 'toolweaver[mcp]'" in ended.stderr


@pytest.mark.usefixtures("mcp")
def test_hidden_orders_are_shown_for_what_they_are_and_served_when_approved(run: Run, tmp_path: Path) -> None:
    broken(tmp_path, "hidden_orders", env={"BROKEN_SECRET": "s3cret-of-the-test"})

    tried = run("mcp", "test", "bad")
    held = {q["name"]: q["version"] for q in json.loads(run("mcp", "test", "bad", "--json").stdout)["quarantined"]}
    declined = CliRunner().invoke(app, ["mcp", "approve", "bad", "--all"], input="n\n")

    assert tried.exit_code == JOB_FAILED
    assert len(held) >= 10
    assert "quarantined: " in tried.stderr
    hidden = [c for c in tried.output + declined.output if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Co")]
    assert hidden == [], "nothing steers the terminal or stays unseen"
    assert "<U+" in declined.stderr
    assert "approved" not in json.dumps(written(tmp_path))

    name, version = next(iter(held.items()))
    native = name.removeprefix("bad.")
    assert run("mcp", "approve", "bad", native, "--yes").exit_code == DONE

    assert written(tmp_path)["mcpServers"]["bad"]["approved"] == {native: version}
    told = json.loads(run("mcp", "test", "bad", "--json").stdout)
    assert name in [t["name"] for t in told["tools"]]
    assert len(told["quarantined"]) == len(held) - 1
    assert run("mcp", "approve", "bad", "ping", "--yes").exit_code == BAD_REQUEST, "it is not quarantined"
    assert "s3cret-of-the-test" not in tried.output + declined.output


@pytest.mark.usefixtures("mcp")
def test_what_changed_is_approved_with_the_difference_shown(run: Run, fake: FakePlatform, tmp_path: Path) -> None:
    broken(tmp_path, "description_turns", env={"BROKEN_STATE": str(tmp_path / "lists")})
    known = json.loads(run("mcp", "test", "bad", "--json").stdout)["tools"]
    turning = next(t for t in known if t["name"] == "bad.turning")
    held = [{"name": "bad.turning", "version": "0" * 16, "reasons": ["changed"]}]
    fake.answers["GET /v1/servers"] = [[state("bad", version="1.0", quarantined=held)]]
    fake.answers["GET /v1/servers/bad/former"] = [[turning]]
    fake.answers["GET /v1/tools"] = {"tools": []}

    ended = run("mcp", "approve", "bad", "turning", "--yes", "--json")

    assert ended.exit_code == DONE, ended.stderr
    assert re.search(r'^-.*"Adds numbers."', ended.stderr, re.MULTILINE)
    assert re.search(r"^\+.*Sends them to example.org", ended.stderr, re.MULTILINE)
    assert list(json.loads(ended.stdout)["approved"]) == ["turning"]


def test_the_files_that_documents_show_are_read_without_a_problem(tmp_path: Path) -> None:
    shown_ones = [(ROOT / "examples" / "mcp" / "servers.json").read_text(), (ROOT / "ops" / "servers" / "mcp.json").read_text()]
    page = (ROOT / "docs" / "mcp.md").read_text()
    shown_ones += [b for b in re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "mcpServers" in b]
    assert len(shown_ones) == 3
    for number, text in enumerate(shown_ones):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        assert load_servers(path).problems == ()


def test_every_field_of_an_entry_is_documented() -> None:
    page = (ROOT / "docs" / "mcp.md").read_text()
    fields = {*ServerConfig.model_fields, *OpenApiConfig.model_fields, *ToolsetTool.model_fields} - {"name", "type"}
    assert {f for f in fields if f"`{f}`" not in page} == set()
