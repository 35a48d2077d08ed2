"""The warm pool with real containers: fresh each time, kept within a job only, gone afterwards, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError
from orchestrator.models.program import ProgramLimits
from tests.sandbox.engine_proxy import EngineProxy
from tests.sandbox.lab import IMAGE, Lab, opened, sandbox_settings
from tests.support import wait_until
from workers.code import container as containers
from workers.code import leases
from workers.code import pool as pools
from workers.code.demand import Demand
from workers.code.engine import Engine, Listed
from workers.code.figures import ResourceError, ResourceMonitor
from workers.code.image import require_image
from workers.code.leases import OWNER, PLACE, Owner, place_name, sweep
from workers.code.pool import SandboxPool

LEASE_S = 2.0
BUSY = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until:\n    pass\n"


@pytest.fixture(scope="module")
def engine(sandbox_image: None) -> Iterator[Engine]:
    made = Engine.of(sandbox_settings())
    yield made
    made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for sockets, whose path is short."""
    with tempfile.TemporaryDirectory(prefix="tw-s-") as folder:
        yield Path(folder) / "s"


def owned(engine: Engine, owner: str) -> list[str]:
    return [c.id for c in engine.containers(f"{OWNER}={owner}")]


def states(engine: Engine, owner: str) -> list[str]:
    return [c.state for c in engine.containers(f"{OWNER}={owner}")]


def nothing_left(lab: Lab, *, within_s: float = 10.0) -> None:
    wait_until(lambda: not lab.leftovers(), description="nothing is left", timeout=within_s)


# Fresh


async def test_every_execution_has_a_container_that_was_never_used_and_nothing_of_it_stays(lab: Lab) -> None:
    before = len(lab.used)
    results = [await lab.run(f"output = {n} * 2") for n in range(6)]
    assert [r.result for r in results] == [0, 2, 4, 6, 8, 10]
    assert len({r.usage.container for r in results if r.usage}) == 6
    assert len(lab.used) == before + 6
    nothing_left(lab)


async def test_a_burst_is_served_beyond_what_is_ready(lab: Lab) -> None:
    results = await asyncio.gather(*(lab.run(f"output = {n}") for n in range(8)))
    assert [r.result for r in results] == list(range(8))
    assert len({r.usage.container for r in results if r.usage}) == 8
    nothing_left(lab, within_s=20)


async def test_what_one_execution_writes_the_next_does_not_see(lab: Lab) -> None:
    await lab.run("open('/tmp/secret', 'w').write('x')")
    seen = await lab.run("import os\noutput = sorted(os.listdir('/tmp'))")
    assert seen.result in ([], None) or "secret" not in seen.result


# Kept within a job


async def test_a_job_that_asks_for_it_gets_its_container_again_cleaned(lab: Lab) -> None:
    first = await lab.run("open('/tmp/mine', 'w').write('x')\noutput = 1", job="a", reuse=True)
    again = await lab.run("import pathlib\noutput = pathlib.Path('/tmp/mine').exists()", job="a", reuse=True)
    assert first.usage is not None
    assert again.usage is not None
    assert again.usage.container == first.usage.container
    assert again.result is False


async def test_a_container_is_never_given_to_another_job_or_other_limits_or_a_fresh_execution(lab: Lab) -> None:
    async def where(**how: Any) -> str:
        result = await lab.run("output = 1", **how)
        assert result.usage is not None
        return result.usage.container

    mine = await where(job="b", reuse=True)
    others = [
        await where(job="c", reuse=True),
        await where(job="b", reuse=True, limits=ProgramLimits(memory_mb=128)),
        await where(job="b"),
        await where(),
    ]
    assert mine not in others
    assert len(set(others)) == len(others)
    assert await where(job="b", reuse=True) == mine


async def test_a_burst_within_a_job_uses_a_few_containers_one_execution_at_a_time(lab: Lab) -> None:
    results = await asyncio.gather(*(lab.run(f"output = {n}", job="burst", reuse=True) for n in range(12)))
    assert [r.result for r in results] == list(range(12))
    assert len({r.usage.container for r in results if r.usage}) <= pools.PER_JOB


async def test_an_execution_that_was_condemned_or_raised_leaves_its_container_to_nobody(lab: Lab) -> None:
    async def fail(seen: list[str]) -> float:
        async with lab.pool.take(job="d", reuse=True) as sandbox:
            seen.append(sandbox.id)
            return 1 / 0

    async def ids() -> list[str]:
        seen: list[str] = []
        async with lab.pool.take(job="d", reuse=True) as sandbox:
            seen.append(sandbox.id)
            sandbox.condemn("of this test")
        with pytest.raises(ZeroDivisionError):
            await fail(seen)
        async with lab.pool.take(job="d", reuse=True) as sandbox:
            seen.append(sandbox.id)
        return seen

    seen = await lab.on_loop(ids())
    assert len(set(seen)) == 3


async def test_a_jobs_container_that_is_idle_is_removed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_S", 0.2)
    await lab.run("output = 1", job="idle", reuse=True)
    wait_until(lambda: not lab.pool.held, description="no job holds a container")
    nothing_left(lab)


# Limits and figures


async def test_limits_are_set_at_hand_out(lab: Lab, engine: Engine) -> None:
    async def limits() -> tuple[dict[str, Any], str]:
        wanted = ProgramLimits(memory_mb=128, cpus=0.5, pids=32)
        async with lab.pool.take(limits=wanted) as sandbox:
            return engine.inspect(sandbox.id)["HostConfig"], str(sandbox._container.meter.cgroup.number("pids", "pids.max"))

    host, pids = await lab.on_loop(limits())
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (128 << 20, 128 << 20, 500_000_000, 32)
    assert pids in ("32", "None")  # None: version 2, where the file lies elsewhere


async def test_another_size_of_the_temporary_folder_gets_a_container_made_for_it(lab: Lab) -> None:
    code = "import os\nout = os.statvfs('/tmp')\noutput = out.f_blocks * out.f_frsize"
    assert (await lab.run(code, limits=ProgramLimits(tmp_mb=7))).result == 7 << 20
    nothing_left(lab)


async def test_figures_are_the_kernels_own(lab: Lab) -> None:
    result = await lab.run(BUSY + "x = bytearray(64 << 20)\noutput = 1")
    assert result.usage is not None
    assert result.usage.measured_by == "cgroup"
    assert result.usage.cpu_s is not None
    assert 0.25 < result.usage.cpu_s < 3
    assert result.usage.memory_peak is not None
    assert 64 << 20 < result.usage.memory_peak < 200 << 20
    assert not result.usage.memory_exceeded


async def test_figures_of_a_container_that_is_used_again_are_of_one_execution(lab: Lab) -> None:
    await lab.run(BUSY + "output = 1", job="figures", reuse=True)
    idle = await lab.run("output = 1", job="figures", reuse=True)
    assert idle.usage is not None
    assert idle.usage.cpu_s is not None
    assert idle.usage.cpu_s < 0.25


async def test_too_much_memory_is_told_and_the_host_lives(lab: Lab) -> None:
    result = await lab.run(
        "x = bytearray(400 << 20)\nx[::4096] = b'x' * len(x[::4096])\noutput = 1", limits=ProgramLimits(memory_mb=64)
    )
    assert result.status == "error"
    assert result.usage is not None
    assert result.usage.memory_exceeded
    nothing_left(lab)


async def test_a_resource_monitor_raises_on_what_the_container_used(lab: Lab) -> None:
    async def burn() -> Any:
        async with lab.pool.take() as sandbox:
            return await sandbox.figures()

    async def watched(monitor: ResourceMonitor) -> Any:
        return await monitor.monitor_execution(burn)

    assert (await lab.on_loop(watched(ResourceMonitor()))).container
    with pytest.raises(ResourceError, match="Memory limit exceeded"):
        await lab.on_loop(watched(ResourceMonitor(memory_limit=1 << 20)))


# Faults


async def test_a_killed_container_is_not_handed_out(lab: Lab, engine: Engine) -> None:
    wait_until(lambda: lab.pool.ready, description="one is ready")
    for container in list(lab.pool._warm):
        engine.remove(container.id)
    result = await lab.run("output = 'alive'")
    assert result.result == "alive"
    nothing_left(lab)


async def test_a_container_that_is_killed_while_it_runs_says_so(lab: Lab, engine: Engine) -> None:
    async def kill() -> str | None:
        async with lab.pool.take() as sandbox:
            await asyncio.to_thread(engine.remove, sandbox.id)
            assert await sandbox.exited(within_s=5.0) is None
            return sandbox.fault

    assert await lab.on_loop(kill()) is not None


async def test_no_engine_is_said_with_the_next_move(place: Path) -> None:
    pool = SandboxPool(sandbox_settings(sandbox_dir=place), engine=Engine(f"unix://{place}/nobody.sock"))
    with pytest.raises(BackendError, match="there is no Docker engine") as caught:
        await pool.start()
    assert "DOCKER_HOST" in str(caught.value)
    assert caught.value.retryable


async def test_an_unknown_image_is_said_with_the_next_move(sandbox_image: None, place: Path) -> None:
    pool = SandboxPool(sandbox_settings(sandbox_dir=place, sandbox_image="toolweaver-nothing:at-all"))
    with pytest.raises(BackendError, match="the engine has no image `toolweaver-nothing:at-all`") as caught:
        await pool.start()
    assert "toolweaver sandbox build" in str(caught.value)


def test_an_image_of_another_version_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.code import image

    assert require_image(engine, IMAGE).id
    monkeypatch.setattr(image, "version", lambda: "0123456789abcdef")
    with pytest.raises(BackendError, match=r"wanted is 0123456789abcdef.*Run `toolweaver sandbox build`"):
        require_image(engine, IMAGE)


async def test_an_engine_that_goes_away_is_told_soon_and_the_pool_heals(
    sandbox_image: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "TAKE_S", 5.0)
    place.mkdir(mode=0o711)
    proxy = EngineProxy(place / "engine.sock", engine=Engine.of(sandbox_settings()).host)
    pool = SandboxPool(sandbox_settings(sandbox_dir=place, sandbox_warm_max=1), engine=Engine(proxy.host))
    try:
        await pool.start()
        proxy.cut()
        began = time.monotonic()
        with pytest.raises(BackendError, match="no sandbox can be had"):
            await _take_until_none_is_left(pool)
        assert time.monotonic() - began < 15
        proxy.restore()
        ids = await asyncio.wait_for(_take_in_the_end(pool), 30)
        assert ids
    finally:
        await pool.close()
        proxy.close()


async def _take_until_none_is_left(pool: SandboxPool) -> None:
    for _ in range(20):
        async with pool.take():
            pass


async def _take_in_the_end(pool: SandboxPool) -> str:
    while True:
        try:
            async with pool.take() as sandbox:
                return sandbox.id
        except BackendError:
            await asyncio.sleep(0.1)


async def test_old_containers_are_replaced(sandbox_image: None, place: Path) -> None:
    pool = SandboxPool(sandbox_settings(sandbox_dir=place, sandbox_max_age_s=1))
    await pool.start()
    try:
        first = await asyncio.to_thread(_ready_id, pool, "")
        await asyncio.to_thread(_ready_id, pool, first)
    finally:
        await pool.close()


def _ready_id(pool: SandboxPool, other_than: str) -> str:
    return wait_until(lambda: next((c.id for c in list(pool._warm) if c.id != other_than), ""), description="a new one is ready")


async def test_a_closed_pool_leaves_nothing(sandbox_image: None, engine: Engine, place: Path) -> None:
    pool = SandboxPool(sandbox_settings(sandbox_dir=place))
    await pool.start()
    taken = asyncio.Event()

    async def hold() -> None:
        async with pool.take():
            taken.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await taken.wait()
    guard = pool.owner.guard_pid
    await pool.close()
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    assert owned(engine, pool.owner.id) == []
    assert list(place.iterdir()) == []
    assert guard is not None
    assert not _runs(guard)


# Leases


@pytest.mark.chaos
@pytest.mark.parametrize("guarded", [True, False], ids=["the pool", "the pool and its guard"])
def test_containers_of_a_killed_pool_are_gone_within_their_lease(engine: Engine, place: Path, guarded: bool) -> None:
    holder, told = _holder(place)
    assert told["container"] in owned(engine, told["owner"])
    if not guarded:
        os.kill(told["guard"], signal.SIGKILL)
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    if guarded:
        wait_until(lambda: not states(engine, told["owner"]), description="no container is left", timeout=LEASE_S + 10)
        wait_until(lambda: list(place.iterdir()) == [], description="no folder is left", timeout=20)
        return
    # One that was created and not yet started runs nothing; the next pool, or one that is there, removes it.
    wait_until(lambda: set(states(engine, told["owner"])) <= {"created"}, description="none runs", timeout=LEASE_S + 10)
    sweep(engine, place)
    assert states(engine, told["owner"]) == []


@pytest.mark.chaos
def test_containers_of_a_pool_that_hangs_end_with_their_lease(engine: Engine, place: Path) -> None:
    holder, told = _holder(place)
    try:
        os.kill(holder.pid, signal.SIGSTOP)
        wait_until(lambda: set(states(engine, told["owner"])) <= {"created"}, description="none runs", timeout=LEASE_S + 10)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_a_sweep_removes_what_dead_owners_left_in_any_state_and_nothing_of_the_living(engine: Engine, place: Path) -> None:
    dead, living = Owner(place, engine.host), Owner(place, engine.host)
    dead.begin()
    living.begin()
    try:
        image = require_image(engine, IMAGE).id
        left = engine.create(image, name=f"tw-test-{dead.id}", labels=dead.labels, command=["x"])
        kept = engine.create(image, name=f"tw-test-{living.id}", labels=living.labels, command=["x"])
        other = engine.create(
            image, name=f"tw-other-{dead.id}", labels={OWNER: dead.id, PLACE: place_name(place / "other")}, command=["x"]
        )
        (place / "not-ours").mkdir()
        os.close(dead._lock)  # as when its process ends
        assert sweep(engine, place) == [left]
        assert owned(engine, living.id) == [kept]
        assert owned(engine, dead.id) == [other]
        assert (place / "not-ours").is_dir()
        assert not dead.folder.exists()
        assert living.folder.is_dir()
    finally:
        for id in (*owned(engine, living.id), *owned(engine, dead.id)):
            engine.remove(id)
        dead._lock = None
        dead.end()
        living.end()


@pytest.mark.parametrize(
    ("state", "age_s", "machine", "goes"),
    [
        ("created", 1000, "", True),
        ("exited", 1000, "", True),
        ("created", 10, "", False),
        ("running", 1000, "", False),
        ("created", 1000, "another-", False),
    ],
)
def test_what_was_never_started_goes_in_the_end_whoever_made_it(state: str, age_s: float, machine: str, goes: bool) -> None:
    labels = {OWNER: "000000000000", PLACE: machine + place_name(Path("/gone"))}
    assert leases._forgotten(Listed("x", labels, time.time() - age_s, state)) is goes


def _holder(place: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    command = [sys.executable, "-m", "tests.sandbox.holder", str(place), str(LEASE_S)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout is not None
    return holder, json.loads(holder.stdout.readline())


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# How many are kept ready


def test_as_many_are_kept_ready_as_came_at_once_lately() -> None:
    now = 100.0
    demand = Demand(most=6, make_s=0.5, clock=lambda: now)
    assert demand.target() == 1
    for _ in range(4):
        demand.arrived()
    assert demand.target() == 4
    now += 600
    assert demand.target() == 1


def test_a_steady_flow_is_met_by_what_is_made_meanwhile() -> None:
    now = 100.0
    demand = Demand(most=6, make_s=1.0, clock=lambda: now)
    for _ in range(300):
        now += 0.5
        demand.arrived()
    assert 3 <= demand.target() <= 6
    for _ in range(50):
        demand.arrived()
    assert demand.target() == 6


def test_the_frame_of_a_container_is_bounded() -> None:
    assert containers.CONTROL_BYTES <= 1 << 16


def test_two_labs_do_not_sweep_each_other(lab: Lab, engine: Engine) -> None:
    with opened() as other:
        assert owned(engine, lab.pool.owner.id)
        assert other.pool.owner.id != lab.pool.owner.id
    wait_until(lambda: owned(engine, lab.pool.owner.id), description="the first lab's containers live")
