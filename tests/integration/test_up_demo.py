"""`up` and `demo` as a person starts them: real processes, from the first picture to nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.models.platform import MARK, Platform, running_platform
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
TOOLWEAVER = (sys.executable, "-m", "orchestrator.cli")
START_S = 90.0


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home; every process of it must be gone at the end of the test, and is ended if it is not."""
    with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "home"
        yield path
        left = {p: " ".join(p.cmdline()) for p in processes(path)}
        for process in left:
            process.kill()
        assert not left, f"left behind: {list(left.values())}"


def processes(home: Path) -> list[psutil.Process]:
    """The processes that carry this home in their environment."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _is_of(p, home)]


def _is_of(process: psutil.Process, home: Path) -> bool:
    try:
        env = process.environ()
        return process.status() != psutil.STATUS_ZOMBIE and (
            env.get("TOOLWEAVER_HOME") == str(home) or env.get(MARK, "").endswith(f"@{home}")
        )
    except psutil.Error:
        return False


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_") and k != "REDIS_URL"}
    return kept | {"TOOLWEAVER_HOME": str(home), "TOOLWEAVER_CONCURRENCY": "1"} | more


def start(home: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TOOLWEAVER, *words], env=environment(home, **env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def call(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOOLWEAVER, *words], env=environment(home, **env), text=True, capture_output=True, timeout=180, check=False
    )


def up(home: Path, *words: str, **env: str) -> tuple[subprocess.Popen[str], Platform]:
    """A running platform of the function pool, ready."""
    process = start(home, "up", "--json", "--no-flower", "--pools", "function", *words, **env)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"up did not come up: {process.communicate()[1]}")
    return process, Platform.model_validate_json(line)


def finish(process: subprocess.Popen[str], signum: int = signal.SIGTERM, *, timeout: float = 15) -> tuple[int, str, str]:
    process.send_signal(signum)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_a_platform_serves_heals_stops_in_time_and_survives_restarts_and_kill_9(home: Path) -> None:
    """Three starts over one home: a platform that is stopped, one whose supervisor is killed, and the one after it."""
    process, platform = up(home)
    _says_where_it_answers_and_runs_a_tool(home, platform)
    before = _jobs(home)
    assert list(before.values()) == ["succeeded"] * 2
    _a_second_one_is_refused(home, platform)
    _killed_parts_come_back(home, platform)
    code, _, said = finish(process, timeout=10)
    assert (code, said.strip().splitlines()[-1]) == (0, "stopped (SIGTERM)")
    assert not (home / "platform.json").exists()
    assert processes(home) == []

    process, platform = up(home)
    assert _jobs(home).items() >= before.items(), "jobs survive a restart"
    _kill_9_of_the_supervisor_leaves_nothing(home, process, platform)

    process, _ = up(home)
    assert call(home, "tools", "list", "--json").returncode == 0
    assert finish(process, signal.SIGINT)[0] == 0


def _says_where_it_answers_and_runs_a_tool(home: Path, platform: Platform) -> None:
    assert httpx.get(f"{platform.api}/health", trust_env=False).status_code == 200
    assert platform.pools == ("function",)
    assert running_platform(home) == platform

    ran = call(home, "tools", "run", "compute_tax", "--input", '{"amount": 100, "tax_rate": 0.08}')
    assert (ran.returncode, json.loads(ran.stdout)["tax"]) == (0, 8.0), ran.stderr
    submitted = call(
        home, "submit", _plan(home, {"id": "a", "tool": "compute_tax", "input": {"amount": 1, "tax_rate": 1}}), "--wait"
    )
    assert submitted.returncode == 0, submitted.stderr


def _jobs(home: Path) -> dict[str, str]:
    """The status of each job, by its id."""
    return {j["id"]: j["status"] for j in json.loads(call(home, "jobs", "--json").stdout)}


def _a_second_one_is_refused(home: Path, platform: Platform) -> None:
    second = call(home, "up", "--json")

    assert second.returncode == 2
    assert f"pid {platform.pid}" in second.stderr


def _killed_parts_come_back(home: Path, platform: Platform) -> None:
    parts = {p: " ".join(p.cmdline()) for p in psutil.Process(platform.pid).children()}
    victims = [
        p
        for p, line in parts.items()
        if any(n in line for n in ("orchestrator.tasks", "valkey-server", "orchestrator.api", "workers.boot"))
    ]
    assert len(victims) == 4

    for victim in victims:
        victim.kill()

    ran = wait_until(lambda: _tax(home), description="the platform answers again", timeout=60)

    assert json.loads(ran)["tax"] == 8.0


def _kill_9_of_the_supervisor_leaves_nothing(home: Path, process: subprocess.Popen[str], platform: Platform) -> None:
    children = psutil.Process(platform.pid).children(recursive=True)
    assert len(children) >= 5, "server, API, planner, the pool and its child"

    os.kill(platform.pid, signal.SIGKILL)
    process.communicate(timeout=10)

    wait_until(lambda: not processes(home), description="everything that the supervisor started is gone")
    assert running_platform(home) is None, "the stale file counts for nothing"


@pytest.mark.long
def test_a_busy_port_moves_on_and_says_so(home: Path) -> None:
    first, platform = up(home)
    port = httpx.URL(platform.api).port
    other = home.parent / "other"
    second, moved = up(other, TOOLWEAVER_API_PORT=str(port))

    assert httpx.URL(moved.api).port != port
    _, _, said = finish(second)
    assert f"port {port} is busy" in said
    finish(first)
    assert processes(other) == []


def test_demo_from_pictures_to_an_answer_piped(home: Path) -> None:
    ended = call(home, "demo")

    assert ended.returncode == 0, ended.stderr
    assert "4 pictures" in ended.stdout
    path = Path(ended.stdout.strip().splitlines()[-1].split(maxsplit=1)[1])
    assert path.parent == home / "results"
    saved = json.loads(path.read_text())
    assert saved["status"] == "succeeded"
    assert len({row["source"] for row in saved["output"]["rows"]}) >= 4
    assert all(row["merchant"] for row in saved["output"]["rows"] if row["state"] == "ok")
    progress = ended.stderr.splitlines()
    assert any(line.startswith("ocr 4/4") for line in progress), ended.stderr
    assert not [line for line in progress if "\x1b" in line], "no control characters in a pipe"
    assert processes(home) == []


@pytest.mark.long
def test_up_prints_a_table_and_demo_reuses_it_and_leaves_it_running(home: Path, tmp_path: Path) -> None:
    process = start(home, "up")
    assert process.stdout is not None
    table = "".join(takewhile(lambda line: not line.startswith("ready;"), process.stdout))
    platform = running_platform(home)
    assert platform is not None
    assert platform.flower is not None
    for address in (platform.api, platform.flower, platform.redis):
        assert address in table
    wait_until(lambda: _answers(f"{platform.flower}/workers"), description="Flower shows its page", timeout=30)

    ended = call(home, "demo", "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["output"]["pictures"] >= 4
    assert f"using the platform at {platform.api}" in ended.stderr
    _demo_on_pictures_of_ones_own(home, tmp_path)
    assert running_platform(home) == platform
    finish(process)


def _demo_on_pictures_of_ones_own(home: Path, folder: Path) -> None:
    picture = folder / "shop with a space.png"
    picture.write_bytes((Path(__file__).parents[2] / "workers" / "ocr" / "data" / "grocery.png").read_bytes())
    broken = folder / "broken.png"
    broken.write_text("no picture")

    ended = call(home, "demo", "--images", str(picture), str(broken), "--json")

    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert [row["state"] for row in result["output"]["rows"]] == ["ok", "failed"]
    assert [(e["step"], e["index"]) for e in result["errors"]] == [("ocr", 1)]


@pytest.mark.parametrize("said", ["starting the platform", pytest.param("ocr 0/4", marks=pytest.mark.long)])
def test_ctrl_c_stops_the_demo_and_everything_it_started(home: Path, said: str) -> None:
    process = start(home, "demo")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(said):
            break
    else:
        pytest.fail(f"never said `{said}`")

    code, out, _ = finish(process, signal.SIGINT, timeout=25)

    assert (code, out) == (130, "")
    assert processes(home) == []


@pytest.mark.long
def test_kill_9_of_the_demo_leaves_nothing(home: Path) -> None:
    process = start(home, "demo")
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("ready at"))

    process.kill()
    process.communicate()

    wait_until(lambda: not processes(home), description="the platform of a killed demo is gone", timeout=30)


def _plan(home: Path, *steps: dict[str, Any]) -> str:
    path = home.parent / "plan.json"
    path.write_text(json.dumps({"steps": steps}))
    return str(path)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, follow_redirects=True).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _tax(home: Path) -> str:
    ran = call(home, "tools", "run", "compute_tax", "--input", '{"amount": 100, "tax_rate": 0.08}')
    return ran.stdout if ran.returncode == 0 else ""
