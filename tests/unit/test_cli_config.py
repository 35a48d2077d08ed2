"""`config` and `doctor`: where settings come from, what is wrong here."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import doctor
from orchestrator.cli.app import app
from orchestrator.models.platform import MARK
from tests.support import wait_until

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in ("TOOLWEAVER_URL", "TOOLWEAVER_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words))


def setting(run: Run, name: str) -> dict[str, str]:
    found = json.loads(run("config", "--json").stdout)
    return next(s for s in found if s["name"] == name)


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("TOOLWEAVER_WINDOW=8\ntoolweaver_concurrency=3\nREDIS_URL=redis://file/0\n")
    monkeypatch.setenv("TOOLWEAVER_WINDOW", "16")

    found = {n: setting(run, n) for n in ("window", "concurrency", "redis_url", "lease_s")}

    assert {n: (s["value"], s["source"]) for n, s in found.items()} == {
        "window": ("16.0", "environment"),
        "concurrency": ("3", ".env"),
        "redis_url": ("redis://file/0", ".env"),
        "lease_s": ("3.0", "default"),
    }
    assert found["redis_url"]["variable"] == "REDIS_URL"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@host/0", "redis://:***@host/0"),
        ("redis://me:hunter2@host:6379/1", "redis://me:***@host:6379/1"),
        ("redis://me:a/b:c@host/1", "redis://me:***@host/1"),
        ("unix:///s.sock?db=0&password=hunter2", "unix:///s.sock?db=0&password=***"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_passwords_are_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch, url: str, shown: str) -> None:
    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", url)

    assert setting(run, "redis_url")["value"] == shown
    assert "hunter2" not in run("config").stdout + run("doctor").stdout


def test_a_setting_that_cannot_be_read_says_which(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_WINDOW", "many")

    ended = run("config")

    assert ended.exit_code == 2
    assert "window" in ended.stderr


def findings(run: Run) -> dict[str, dict[str, str]]:
    return {f["name"]: f for f in json.loads(run("doctor", "--json").stdout)}


def test_a_healthy_machine_has_nothing_broken(run: Run) -> None:
    found = findings(run)

    assert not [f for f in found.values() if f["level"] == "fail"]
    assert {"python", "extra ocr", "home", "disk", "server", "platform", "api_port", "flower_port", "orphans"} <= set(found)


def test_whatever_is_wrong_has_a_next_move(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path / "a file" / "home"))
    monkeypatch.setenv("TOOLWEAVER_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(doctor, "server_binary", lambda: None)
    monkeypatch.setattr(doctor, "missing_packages", lambda _: ["rapidocr>=3.10"])
    monkeypatch.setattr(doctor, "DISK_FREE", 1 << 60)

    found = findings(run)

    assert {n for n, f in found.items() if f["level"] == "fail"} == {"home", "server", "platform"}
    assert {"extra ocr", "disk"} <= {n for n, f in found.items() if f["level"] == "warn"}
    assert all(f["next"] for f in found.values() if f["level"] != "ok")
    assert run("doctor").exit_code == 2


def test_a_busy_port_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        monkeypatch.setenv("TOOLWEAVER_API_PORT", str(busy.getsockname()[1]))

        assert findings(run)["api_port"]["level"] == "warn"


def test_a_home_that_is_open_to_others_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)

    assert "chmod 700" in findings(run)["home"]["next"]


def test_processes_of_a_killed_supervisor_are_found(run: Run, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    code = "import signal; print(1, flush=True); signal.pause()"
    orphan = subprocess.Popen([sys.executable, "-c", code], env={MARK: f"{dead.pid}@{tmp_path / 'home'}"}, stdout=subprocess.PIPE)
    try:
        found = wait_until(
            lambda: [f for f in [findings(run)["orphans"]] if f["level"] == "warn"], description="the orphan is seen"
        )
        assert str(orphan.pid) in found[0]["next"]
    finally:
        orphan.kill()
        orphan.wait()
