"""What each fault does to a platform, once. A strike answers how often it hit something; `around` a load some are prepared."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import httpx
import psutil

from orchestrator.errors import ToolWeaverError
from orchestrator.models.job import JobStatus
from orchestrator.state.keys import all_shards
from tests.faults import clocks, messages
from tests.faults.load import Load, pass_time
from tests.faults.platforms import LONG
from tests.processes import SERVER, Platform
from tests.support import wait_until

Strike = Callable[[Load], int]


def worker_killed(load: Load) -> int:
    load.wait_busy()
    load.p.restart("one")
    return 1


def async_worker_killed(load: Load) -> int:
    """With all the calls of its loop."""
    _wait_busy_loop(load)
    load.p.restart("loop")
    return 1


def _wait_busy_loop(load: Load) -> None:
    pid = load.p.processes["loop"].pid
    wait_until(lambda: any(b.pid == pid for b in load.running()) or load.ended(), description="the loop is busy", timeout=60)


def child_killed(load: Load) -> int:
    load.wait_busy()
    return int(load.p.kill_child(load.rng.choice(load.victims)))


def planner_killed(load: Load) -> int:
    """Both; what is submitted meanwhile waits for them."""
    for name in ("planner", "planner2"):
        load.p.kill(name)
    load.submit(2)
    for name in ("planner", "planner2"):
        load.p.start_planner(name)
    return 2


def leader_killed(load: Load) -> int:
    """The planner whose reconciler leads; the other one takes over."""
    shard = all_shards(load.p.settings.shards)[0]
    leader: Any = wait_until(lambda: load.p.client.get(shard.leader), description="a reconciler leads")
    name = load.p.name_of(int(leader.decode().split(":")[1]))
    if name is None:  # one that was killed before leads by the rest of its time
        return 0
    load.p.restart(name)
    return 1


def everything_killed(load: Load) -> int:
    pass_time(1.2)  # the append-only file is written through once a second
    names = [name for name in load.p.processes if name != SERVER]
    for name in (*names, SERVER):
        load.p.kill(name)
    load.p.start_server()
    for name in names:
        load.p.start_again(name)
    return 1 + len(names)


def worker_paused(load: Load) -> int:
    """Past the leases of its calls; then it goes on as if nothing had been."""
    load.wait_busy()
    return _paused(load, "one")


def async_worker_paused(load: Load) -> int:
    """Past the leases of all the calls of its loop."""
    _wait_busy_loop(load)
    return _paused(load, "loop")


def _paused(load: Load, name: str, *, whole: bool = True) -> int:
    load.p.pause(name, whole=whole)
    pass_time(2 * load.p.settings.lease_s)
    load.p.resume(name)
    return 1


def child_paused(load: Load) -> int:
    """Its parent beats on for it: the call is late, not lost."""
    load.wait_busy()
    return _paused(load, "two", whole=False)


def steps_kill_themselves(load: Load) -> int:
    """Step `d` of every job is a tool that kills its process at its first attempt."""
    return len(load.jobs)


def messages_discarded(load: Load) -> int:
    return messages.discard(load.p)


@contextmanager
def doubling(load: Load) -> Iterator[Strike]:
    """Each message once; no body may begin twice."""
    seen: set[str] = set()
    yield lambda _: messages.double(load.p, seen)
    assert load.repeats() == 0, "a doubled message began a second body"


def server_killed(load: Load) -> int:
    load.wait_busy()
    load.p.restart_server()
    return 1


def quiet_server_killed(load: Load) -> int:
    """kill -9 a second after the last write was asked for: so much `everysec` promises."""
    load.wait_busy()
    workers = [n for n in load.p.processes if n != SERVER]
    for name in workers:
        load.p.pause(name)
    pass_time(1.2)
    load.p.kill(SERVER)
    for name in workers:
        load.p.resume(name)
    load.p.start_server()
    return 1


@contextmanager
def always_synced(load: Load) -> Iterator[None]:
    load.p.client.config_set("appendfsync", "always")
    load.p.server_options["appendfsync"] = "always"
    try:
        yield
    finally:
        load.p.server_options["appendfsync"] = "everysec"
        load.p.client.config_set("appendfsync", "everysec")


def broker_killed(load: Load) -> int:
    assert load.p.rabbit is not None
    load.wait_busy()
    load.p.rabbit.kill()
    load.p.rabbit.start()
    return 1


def connections_cut(load: Load) -> int:
    return sum(proxy.cut() for proxy in load.p.proxies.values())


def network_swallows(load: Load) -> int:
    """For longer than a lease; then the connections come back with all that was sent, or break."""
    load.wait_busy()
    hit = sum(proxy.connections for proxy in load.p.proxies.values())
    for proxy in load.p.proxies.values():
        proxy.swallow()
    pass_time(1.5 * load.p.settings.lease_s)
    deliver = load.rng.random() < 0.5
    for proxy in load.p.proxies.values():
        proxy.restore(deliver=deliver)
    return hit


@contextmanager
def slow_network(load: Load) -> Iterator[None]:
    for proxy in load.p.proxies.values():
        proxy.delay(0.01)
    try:
        yield
    finally:
        for proxy in load.p.proxies.values():
            proxy.delay(0)


def nothing_more(load: Load) -> int:
    """The fault is there all the time."""
    return 1


@contextmanager
def unprepared(load: Load) -> Iterator[None]:
    """Nothing to prepare."""
    yield


@contextmanager
def skewed_worker(load: Load) -> Iterator[None]:
    """A third worker joins, whose clock is two hours ahead; it takes its share."""
    p = load.p
    p.start_worker("skewed", env=clocks.ahead("+2h", path=p.env["PYTHONPATH"]))
    worker = p.wait_announced("skewed")
    assert worker.since.timestamp() - time.time() > 3600, "its clock is wrong"
    yield
    children = {c.pid for c in psutil.Process(p.processes["skewed"].pid).children(recursive=True)}
    p.kill("skewed")
    assert {b.pid for b in p.effects.bodies()} & children, "it ran calls"


@contextmanager
def clock_jumps(load: Load) -> Iterator[Strike]:
    """The host of Redis is set an hour ahead, and back: no lease runs out by that, and no call is repeated."""
    with _server_with_a_bad_clock(load) as turn:

        def strike(_: Load) -> int:
            for hours in (1, 0):
                load.wait_busy()
                turn(hours)
                pass_time(2 * load.p.settings.reconcile_s)
            return 2

        yield strike
    assert (load.unknown, load.repeats()) == (0, 0), "a jump of the clock is no loss of a worker"


@contextmanager
def clock_jumps_and_a_worker_dies(load: Load) -> Iterator[Strike]:
    """What was leased, queued and due by the wrong clock is not given up for an hour when the clock is set right."""
    with _server_with_a_bad_clock(load) as turn:

        def strike(_: Load) -> int:
            turn(1)
            pass_time(load.p.settings.lease_s)
            load.wait_busy()
            turn(0)
            load.p.restart("one")
            return 1

        yield strike


@contextmanager
def _server_with_a_bad_clock(load: Load) -> Iterator[Callable[[int], None]]:
    p, place = load.p, load.p.folder / "faketime"

    def turn(hours: int) -> None:
        clocks.turn(place, f"+{hours}h")
        wait_until(partial(_is_ahead, load, hours), description=f"the clock goes {hours} h wrong")

    p.server_env = dict(clocks.from_file(place))
    p.restart_server()
    try:
        yield turn
    finally:
        p.server_env = {}
        p.restart_server()


def _is_ahead(load: Load, hours: int) -> bool:
    return round((load.p.store.ledger.now_ms() / 1000 - time.time()) / 3600) == hours


def disk_fills_up(load: Load) -> int:
    """The server's disk is full for longer than a lease: what runs waits, what comes is refused, nothing is lost."""
    load.wait_busy()
    with _ballast(load):
        wait_until(lambda: _refused(load), description="submissions are answered 503", timeout=30, every=0.2)
        pass_time(1.5 * load.p.settings.lease_s)
    wait_until(lambda: not _refused(load), description="submissions are taken again", timeout=30, every=0.2)
    return 1


@contextmanager
def _ballast(load: Load) -> Iterator[None]:
    place = load.p.data / "ballast"
    try:
        with place.open("wb") as ballast:
            for piece in (1 << 24, 1 << 16, 1 << 12):
                _write_until_full(ballast.fileno(), piece)
        yield
    finally:
        place.unlink()


def _write_until_full(file: int, piece: int) -> None:
    with suppress(OSError):  # ENOSPC
        while True:
            os.posix_fallocate(file, os.fstat(file).st_size, piece)


def redis_fills_up(load: Load) -> int:
    """No memory for more: submissions are refused, and every job that runs ends all the same, a long call of `once` among them."""
    p = load.p
    wait_until(
        lambda: all(p.store.status(job) is not JobStatus.PLANNING for job in load.jobs), description="all jobs run", timeout=60
    )
    long = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 3 * p.settings.lease_s}}])
    p.wait_body(long, "a#0")
    used = int(p.client.info("memory")["used_memory"])
    p.client.config_set("maxmemory", used // 2)
    try:
        assert _refused(load), "a submission is answered 503"
        load.finish(timeout=120)
        assert p.wait(long).status is JobStatus.SUCCEEDED, "it kept its lease"
    finally:
        p.client.config_set("maxmemory", 0)
    assert not _refused(load)
    return 1


def _refused(load: Load) -> bool:
    """Submits one more through the API; whether it said 503 and when to come again."""
    body = {"plan": {"steps": load.steps}}
    answer = httpx.post(f"{load.p.api.url}/v1/jobs", json=body, timeout=30)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        assert int(answer.headers["Retry-After"]) >= 1
        return True
    assert answer.status_code == httpx.codes.CREATED, answer.text
    load.jobs.append(answer.json()["id"])
    return False


@contextmanager
def with_api(load: Load) -> Iterator[None]:
    load.p.start_api()
    wait_until(lambda: api_answers(load.p), description="the API answers", timeout=60)
    try:
        yield
    finally:
        load.p.kill("api")


def api_answers(p: Platform) -> bool:
    try:
        return bool(p.api.health())
    except ToolWeaverError:
        return False


@contextmanager
def client_of_a_dying_api(load: Load) -> Iterator[Strike]:
    """A client submits with idempotency keys and follows events while the API is killed again and again."""
    with with_api(load):
        client = _Client(load, jobs=20 if LONG else 3)
        client.start()
        try:
            yield api_killed
        finally:
            client.join(timeout=240)
        client.check()


def api_killed(load: Load) -> int:
    load.p.restart("api")
    return 1


class _Client(threading.Thread):
    """Submits job after job under a key each, and reads the events of each to the last."""

    def __init__(self, load: Load, *, jobs: int) -> None:
        super().__init__(name="client", daemon=True)
        self._load, self._keys = load, [f"{load.p.folder.name}-{len(load.jobs)}-{n}" for n in range(jobs)]
        self._made: dict[str, str] = {}
        self._error: BaseException | None = None
        self._read: dict[str, list[str]] = {}

    def run(self) -> None:
        try:
            for key in self._keys:
                self._made[key] = job = self._submit(key)
                self._load.jobs.append(job)
                self._read[job] = [e.type for e in self._load.p.api.job(job).events(timeout=120)]
        except BaseException as error:  # told to the test, in its own thread
            self._error = error

    def _submit(self, key: str) -> str:
        """Until it is accepted: the client of the library gives up after a while, a user comes back."""
        while True:
            try:
                return self._load.p.api.submit({"steps": self._load.steps}, idempotency_key=key).id
            except ToolWeaverError as error:
                if not error.retryable:
                    raise

    def check(self) -> None:
        """Each key made one job, and each event came once."""
        assert self._error is None, self._error
        assert not self.is_alive()
        assert len(set(self._made.values())) == len(self._keys)
        assert {key: self._submit(key) for key in self._keys} == self._made
        for job, read in self._read.items():
            assert read[0] == "job.accepted"
            assert read[-1] == "job.succeeded"
            told = [e.type for e in self._load.p.api.job(job).events(timeout=30)]
            assert read == told, "a cut stream goes on where it broke"
