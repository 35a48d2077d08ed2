"""The inspection passes on the real container, and fails by name as soon as one wall is taken away; then nothing runs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError
from orchestrator.local import parts
from tests.sandbox.lab import IMAGE, sandbox_settings
from workers.code import pool as pools
from workers.code.container import MIB, Maker, Shape, hardening
from workers.code.engine import Engine
from workers.code.image import require_image
from workers.code.inspection import Check, look
from workers.code.leases import OWNER, Owner

Harden = Callable[[Shape, str], dict[str, Any]]
NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture(scope="module")
def engine(sandbox_image: None) -> Iterator[Engine]:
    made = Engine.of(sandbox_settings())
    yield made
    made.close()


@pytest.fixture(scope="module")
def owner(engine: Engine) -> Iterator[Owner]:
    with tempfile.TemporaryDirectory(prefix="tw-i-") as folder:
        made = Owner(Path(folder) / "s", engine.host)
        made.begin()
        yield made
        made.end()


async def inspected(engine: Engine, owner: Owner, harden: Harden = hardening, **more: Any) -> dict[str, Check]:
    maker = Maker(engine, owner, require_image(engine, IMAGE).id, 20.0, harden=harden, **more)
    container = await maker.make(Shape.of(None))
    try:
        return {c.flag: c for c in await look(container)}
    finally:
        await container.remove()


def without(**changed: Any) -> Harden:
    """The walls, some of them changed; None takes one away."""

    def harden(shape: Shape, seccomp: str) -> dict[str, Any]:
        return {k: v for k, v in (hardening(shape, seccomp) | changed).items() if v is not None}

    return harden


def security(keep: str) -> Harden:
    """Only one of the security options."""

    def harden(shape: Shape, seccomp: str) -> dict[str, Any]:
        whole = hardening(shape, seccomp)
        return whole | {"security_opt": [o for o in whole["security_opt"] if o.startswith(keep)]}

    return harden


def unconfined(shape: Shape, seccomp: str) -> dict[str, Any]:
    return hardening(shape, seccomp) | {"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}


async def test_every_wall_of_the_real_container_stands(engine: Engine, owner: Owner) -> None:
    checks = await inspected(engine, owner)
    assert [c for c in checks.values() if not c.ok] == []
    assert len(checks) > 50


TMP = "rw,nosuid,nodev,size=100m,nr_inodes=16384,mode=1777"


@pytest.mark.parametrize(
    ("harden", "flags"),
    [
        pytest.param(unconfined, {"seccomp (2: filter)", "attempt: network socket", "kinds of sockets"}, id="seccomp unconfined"),
        pytest.param(security("no-new"), {"attempt: vsock"}, id="the engine's own seccomp profile"),
        pytest.param(without(security_opt=["seccomp=unconfined"]), {"no new privileges"}, id="new privileges"),
        pytest.param(without(read_only=False), {"mount /"}, id="root can be written"),
        pytest.param(without(cap_drop=None), {"capabilities (CapBnd)"}, id="capabilities"),
        pytest.param(without(network_mode="host"), {"network"}, id="host's network"),
        pytest.param(without(ipc_mode="shareable"), {"host's memory segments"}, id="memory segments of others"),
        pytest.param(without(cgroupns="host"), {"namespace cgroup"}, id="host's cgroups"),
        pytest.param(without(pids_limit=None), {"processes"}, id="any number of processes"),
        pytest.param(without(mem_limit=None, memswap_limit=None), {"memory"}, id="any amount of memory"),
        pytest.param(without(mem_limit=1024 * MIB, memswap_limit=1024 * MIB), {"memory"}, id="more memory"),
        pytest.param(without(nano_cpus=None), {"cores"}, id="all cores"),
        pytest.param(without(tmpfs={"/tmp": f"exec,{TMP}"}), {"mount /tmp", "attempt: program in /tmp"}, id="programs in /tmp"),
        pytest.param(
            without(tmpfs={"/tmp": "noexec,nosuid,nodev,mode=1777"}), {"mount /tmp", "files in /tmp"}, id="/tmp of any size"
        ),
        pytest.param(without(tmpfs={"/tmp": f"noexec,{TMP}", "/srv": "size=1m"}), {"other places to write"}, id="more to write"),
        pytest.param(without(ulimits=[{"Name": "core", "Soft": 0, "Hard": 0}]), {"open files"}, id="open files"),
        pytest.param(without(log_config={"Type": "json-file"}), {"log"}, id="a log on the engine's disk"),
        pytest.param(without(auto_remove=False), {"removed at its end"}, id="stays at its end"),
    ],
)
async def test_a_wall_that_is_taken_away_is_named(engine: Engine, owner: Owner, harden: Harden, flags: set[str]) -> None:
    checks = await inspected(engine, owner, harden)
    assert flags <= {c.flag for c in checks.values() if not c.ok}


async def test_another_user_is_named(engine: Engine, owner: Owner) -> None:
    checks = await inspected(engine, owner, user="1000:1000")
    assert {"user", "group"} <= {c.flag for c in checks.values() if not c.ok}


async def test_swap_beside_the_memory_is_named(engine: Engine, owner: Owner) -> None:
    checks = await inspected(engine, owner, without(memswap_limit=-1))
    swap = checks.get("memory and swap") or checks["swap"]
    assert not swap.ok or "the machine has none" in swap.found


async def test_a_pool_does_not_start_when_a_wall_is_missing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(pools, "Maker", functools.partial(Maker, harden=without(read_only=False)))
    with tempfile.TemporaryDirectory(prefix="tw-i-") as folder:
        pool = pools.SandboxPool(sandbox_settings(sandbox_dir=Path(folder) / "s"))
        with pytest.raises(BackendError, match="programs are not run here: mount / is rw, wanted ro") as caught:
            await pool.start()
        assert "toolweaver sandbox check" in str(caught.value)
        assert engine.containers(f"{OWNER}={pool.owner.id}") == []


# The commands


def toolweaver(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "orchestrator.cli", *words)
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_the_table(engine: Engine) -> None:
    ended = toolweaver("sandbox", "check", TOOLWEAVER_SANDBOX_IMAGE=IMAGE)
    assert ended.returncode == 0, ended.stderr
    assert "ok    no new privileges" in ended.stdout
    assert "walls stand" in ended.stderr


def test_a_base_that_cannot_be_had_is_said_with_the_next_move(engine: Engine) -> None:
    base = "127.0.0.1:1/nothing:at-all"
    ended = toolweaver("sandbox", "build", "--base", base, "--tag", "toolweaver-sandbox:never")
    assert ended.returncode == 3
    assert f"the base image `{base}` cannot be had" in ended.stderr
    assert "ops/sandbox-base.sh" in ended.stderr


def test_without_an_engine_the_commands_end_with_3_and_the_next_move() -> None:
    for words in (("sandbox", "check"), ("sandbox", "build")):
        ended = toolweaver(*words, DOCKER_HOST=NOWHERE)
        assert ended.returncode == 3, ended.stderr
        assert "there is no Docker engine" in ended.stderr
        assert "Install and start Docker" in ended.stderr


def test_without_an_engine_a_worker_of_the_pool_says_so_and_ends() -> None:
    ended = toolweaver("worker", "--pool", "code", DOCKER_HOST=NOWHERE, TOOLWEAVER_REDIS_URL="redis://127.0.0.1:1")
    assert ended.returncode == 3, ended.stderr
    assert "pool code is not started: there is no Docker engine" in ended.stderr
    assert "install and start Docker" in ended.stderr


def test_without_an_engine_the_platform_comes_up_without_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    able, lines = parts.check_pools(["function", "code"])
    assert able == ["function"]
    (line,) = lines
    assert line.startswith("pool code is not started: there is no Docker engine")
    assert "install and start Docker" in line


def test_without_the_packages_the_pool_says_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "missing_packages", lambda extra: ["docker>=7"] if extra == "sandbox" else [])
    able, lines = parts.check_pools(["function", "code"])
    assert able == ["function"]
    assert lines == ["pool code is not started: docker>=7 not installed; run `pip install 'toolweaver[sandbox]'`"]
