"""RabbitMQ by one URL, Redis by TLS with a user of few rights, and what each process does when its server goes and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from orchestrator.broker import rabbitmq as transport
from orchestrator.broker.app import make_app
from orchestrator.broker.ping import answers
from orchestrator.client import Client
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from orchestrator.publisher.publish import Publisher
from orchestrator.settings import Settings, load_settings
from orchestrator.state.keys import CATALOG_VERSION
from orchestrator.tasks import Planner
from tests.integration.test_inline import SCRIPT
from tests.processes import Platform
from tests.services import RabbitService, RedisService, free_port, redis_server
from tests.support import wait_until

pytestmark = pytest.mark.chaos
QUICK = {"lease_s": 1.0, "grace_s": 0.8, "reconcile_s": 0.1}
USERS = Path(__file__).parents[2] / "ops" / "redis-users.conf"
PASSWORD = "pass:word/with@signs"
QUOTED = "pass%3Aword%2Fwith%40signs"
DIAMOND = [
    {"id": "a", "tool": "work"},
    {"id": "b", "tool": "nap", "map": "input:xs", "input": {"seconds": "item"}, "depends_on": ["a"]},
    {"id": "c", "tool": "work_idempotent", "depends_on": ["a"]},
    {"id": "d", "tool": "work", "depends_on": ["b", "c"]},
]


@pytest.fixture(scope="module")
def node(rabbit_node: RabbitService) -> RabbitService:
    """One RabbitMQ; each platform has a virtual host of its own."""
    return rabbit_node


@contextmanager
def over_rabbitmq(node: RabbitService, *, workers: int = 1) -> Iterator[Platform]:
    """A platform of real processes with a planner and workers over a new virtual host."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder, ExitStack() as stack:
        p = Platform(Path(folder), broker="rabbitmq", rabbit=replace(node, url=node.vhost()), **QUICK)
        stack.callback(p.stop)
        p.start_server()
        p.start_planner()
        for n in range(workers):
            p.start_worker(f"worker{n}")
        p.wait_ready(workers=workers)
        yield p


@pytest.fixture(scope="module")
def p(node: RabbitService) -> Iterator[Platform]:
    with over_rabbitmq(node, workers=2) as made:
        yield made


def diamond(p: Platform, items: int = 5, seconds: float = 0.01) -> str:
    return p.submit(DIAMOND, inputs={"xs": [seconds] * items})


def repairs(p: Platform) -> int:
    """Calls that the reconciler published again since the last look."""
    return sum(int(m[1]) for m in p.said(r"queued=(\d+)"))


def app_of(p: Platform) -> Celery:
    return make_app(p.settings)


def publisher_to(url: str) -> Publisher:
    return Publisher(make_app(settings_of(url)))


def settings_of(url: str) -> Settings:
    return load_settings(_env_file=None, redis_url="redis://127.0.0.1:1/0", broker_url=url)


def calls(count: int, queue: str = "function") -> list[ReadyCall]:
    return [ReadyCall("job_x", f"a#{n}", 1, queue, "work") for n in range(count)]


# --- RabbitMQ ------------------------------------------------------------------------------------------------------------


def test_every_queue_is_a_quorum_queue_and_none_is_for_delays(p: Platform, node: RabbitService) -> None:
    p.start_worker("own", pool="mine_alone", concurrency=1)
    try:
        p.wait_announced("own")
        queues = node.queues(p.settings.broker_url or "")
    finally:
        p.kill("own")
    kinds = {name: row["type"] for name, row in queues.items() if "pidbox" not in name and "celeryev" not in name}
    assert {"planner", "function", "mine_alone"} <= kinds.keys()
    assert set(kinds.values()) == {"quorum"}
    assert not [name for name in queues if name.startswith("celery_delayed")]


def test_a_long_backlog_is_not_published_again(p: Platform) -> None:
    """RabbitMQ does not count what workers hold; a rule that took such a queue for empty published everything twice."""
    p.look_from_here()
    waited = [p.submit([{"id": "a", "tool": "nap", "map": "input:xs", "input": {"seconds": "item"}}], inputs={"xs": [0.05] * 50})
              for _ in range(4)]  # fmt: skip
    slow = p.submit([{"id": "a", "tool": "nap", "map": "input:xs", "input": {"seconds": "item"}}], inputs={"xs": [2.0] * 4})
    for job in (*waited, slow):
        assert p.wait(job).status is JobStatus.SUCCEEDED, p.logs()
    assert repairs(p) == 0


@pytest.mark.long  # in short: "messages discarded" and "kill -9 RabbitMQ" of tests/faults/test_faults.py
def test_a_lost_message_comes_back_within_the_grace_time(node: RabbitService) -> None:
    with over_rabbitmq(node) as p:
        p.kill("worker0")
        job = p.submit([{"id": "a", "tool": "work"}])

        def lost() -> int:
            with app_of(p).connection_for_write() as connection, connection.channel() as channel:
                return int(channel.queue_purge("function"))

        wait_until(lost, description="the message is in the broker, and then it is not")
        p.start_worker("late")
        assert p.wait(job, timeout=10).status is JobStatus.SUCCEEDED
        assert repairs(p) >= 1


def test_functions_of_a_script_are_served_on_a_queue_that_goes_with_it(p: Platform, node: RabbitService, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run([sys.executable, str(script)], env=p.env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "done in this process\n", ran.stderr
    wait_until(
        lambda: not [name for name in node.queues(p.settings.broker_url or "") if name.startswith("private-")],
        description="the private queue is gone",
    )


@pytest.mark.long
def test_a_restart_of_the_broker_under_load(p: Platform, node: RabbitService) -> None:
    jobs = [diamond(p, items=20) for _ in range(8)]
    node.restart()
    for job in jobs:
        assert p.wait(job).status is JobStatus.SUCCEEDED, p.logs()
    node.stop_app()
    accepted = diamond(p)  # the job is stored; the planner is told when the broker is back
    node.start_app()
    assert p.wait(accepted).status is JobStatus.SUCCEEDED, p.logs()
    assert p.dead() == []


@pytest.mark.long
def test_a_call_that_outlives_the_consumer_timeout(node: RabbitService) -> None:
    """RabbitMQ closes the channel of who holds a message for too long: the call goes on, and the worker takes more."""
    set_env = "[application:set_env(rabbit, K, V) || {K, V} <- [{consumer_timeout, %s}, {channel_tick_interval, %s}]]."
    node.control("eval", set_env % (500, 100))
    try:
        with over_rabbitmq(node) as p:
            long = p.submit([{"id": "a", "tool": "work_once", "input": {"seconds": 2}}])
            view = p.wait(long, timeout=30)
            assert view.status is JobStatus.SUCCEEDED, p.logs()
            assert p.said("delivery acknowledgement on channel"), "the channel was closed meanwhile"
            assert [c.attempt for c in p.store.calls(long)] == [1]
            assert p.wait(diamond(p), timeout=30).status is JobStatus.SUCCEEDED, p.logs()
    finally:
        node.control("eval", set_env % (1_800_000, 60_000))


def test_a_publisher_meets_a_broker_that_went(node: RabbitService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONFIRM_S", 0.5)
    publisher = publisher_to(node.vhost())
    publisher.publish(calls(3))
    node.stop_app()
    with pytest.raises(OperationalError, match="The broker does not answer"):
        publisher.publish(calls(3))
    with pytest.raises(BackendError, match="The broker does not answer"):
        publisher.wake_planner("job_x")
    node.start_app()
    publisher.publish(calls(3))  # over a new connection: the pool's is dead
    assert publisher.waiting("function") == 6
    node.pause()
    try:
        with pytest.raises(OperationalError, match="timed out"):
            publisher.publish(calls(1))  # the broker took it and does not say so
    finally:
        node.resume()
    publisher.publish(calls(1))
    assert publisher.waiting("function") >= 7
    assert publisher.waiting("no_such_queue") == 0


def test_a_publisher_meets_a_redis_that_went() -> None:
    with redis_server() as server:
        publisher = publisher_to(server.url)
        publisher.publish(calls(3))
        server.stop()
        with pytest.raises(OperationalError, match="The broker does not answer"):
            publisher.publish(calls(3))
        with pytest.raises(OperationalError, match="The broker does not answer"):
            publisher.waiting("function")
        server.start()
        publisher.publish(calls(3))
        assert publisher.waiting("function") == 6


def test_rabbitmq_by_tls(node: RabbitService) -> None:
    url = node.over_tls(node.vhost())
    publisher = publisher_to(url)
    publisher.publish(calls(2))
    assert publisher.waiting("function") == 2
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        make_app(settings_of(url.partition("?")[0])).connection_for_write().transport.establish_connection()


# --- Redis by TLS, as a user of few rights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisService]:
    users = USERS.read_text().replace("change-me", PASSWORD).splitlines()
    with redis_server(tls=True, users=users, user=f"toolweaver:{QUOTED}") as running:
        yield running


@pytest.fixture(scope="module")
def far(guarded: RedisService) -> Iterator[Platform]:
    """A whole platform over that Redis: planner, worker, API, Flower."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder, ExitStack() as stack:
        p = Platform(Path(folder), **QUICK)
        stack.callback(p.stop)
        p.settings = load_settings(_env_file=None, home=Path(folder), redis_url=guarded.url, **QUICK)
        p.env["TOOLWEAVER_REDIS_URL"] = guarded.url
        p.start_planner()
        p.start_worker("one")
        p.start_api()
        p.env["FLOWER"] = str(free_port())
        p.start("flower", [sys.executable, "-m", "orchestrator.local.flower", "127.0.0.1", p.env["FLOWER"]])
        p.wait_ready()
        wait_until(lambda: is_up(p.api), description="the API answers")
        yield p


def is_up(api: Client) -> bool:
    try:
        return bool(api.tools())
    except BackendError:
        return False


def test_the_whole_platform_by_tls_with_few_rights(far: Platform, guarded: RedisService, tmp_path: Path) -> None:
    done = far.api.submit({"steps": DIAMOND}, inputs={"xs": [0.01] * 30}).result(timeout=60)
    assert done is not None
    assert answers(far.settings, timeout_s=5)
    flower = f"http://127.0.0.1:{far.env['FLOWER']}/workers?json=1"
    wait_until(lambda: "function-" in httpx.get(flower).text, description="Flower sees the worker by its events", timeout=30)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run([sys.executable, str(script)], env=far.env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "done in this process\n", ran.stderr
    denied = [(e["reason"], e["object"]) for e in guarded.client().acl_log()]
    assert denied == []


def test_the_password_is_nowhere_to_be_read(far: Platform) -> None:
    far.api.submit({"steps": [{"id": "a", "tool": "work"}]}).result(timeout=30)
    config = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "config"], env=far.env, capture_output=True, text=True, check=True
    ).stdout
    health = httpx.get(f"http://127.0.0.1:{far.env['TOOLWEAVER_API_PORT']}/health").text
    commands = [" ".join(psutil.Process(process.pid).cmdline()) for process in far.processes.values()]
    logs = "".join(log.read_text() for log in far.folder.glob("*.log"))
    assert "rediss://toolweaver:" in logs, "the banner shows the address"
    for where in (config, health, logs, *commands):
        assert PASSWORD not in where
        assert QUOTED not in where


def test_a_wrong_password_is_said_without_it(guarded: RedisService, tmp_path: Path) -> None:
    env = os.environ | {"TOOLWEAVER_REDIS_URL": guarded.url.replace(QUOTED, "hunter22"), "TOOLWEAVER_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-m", "orchestrator.broker.ping"], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "the broker does not answer" in ran.stderr
    assert "hunter22" not in ran.stderr + ran.stdout


def test_a_certificate_of_somebody_else_is_refused(guarded: RedisService, tmp_path: Path) -> None:
    env = os.environ | {"TOOLWEAVER_REDIS_URL": guarded.url.partition("?")[0], "TOOLWEAVER_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-m", "orchestrator.broker.ping"], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "certificate verify failed" in ran.stderr


# --- a Redis that goes and comes back --------------------------------------------------------------------------------------


def test_everybody_comes_back_after_an_outage(far: Platform, guarded: RedisService) -> None:
    """Planner, worker, API and a client that follows a job: none is restarted, none is told."""
    job = far.api.submit({"steps": DIAMOND}, inputs={"xs": [0.2] * 20})
    seen: list[str] = []
    follower = threading.Thread(target=lambda: seen.extend(e.type for e in job.events()), daemon=True)
    follower.start()
    wait_until(lambda: "step.succeeded" in seen, description="the follower sees the job run")
    guarded.restart(2.0)
    assert job.result(timeout=60) is not None
    follower.join(timeout=20)
    assert seen[-1] == "job.succeeded", seen
    guarded.pause()
    threading.Timer(1.5, guarded.resume).start()
    assert far.api.submit({"steps": [{"id": "a", "tool": "work"}]}).result(timeout=60) is not None
    assert far.dead() == []


def test_a_job_whose_planning_meets_a_lasting_error_fails(settings: Settings, client: redis.Redis) -> None:
    """An outage is waited out; an error that trying again does not mend must not be met for ever."""
    planner = Planner(settings, make_app(settings))
    job, _ = planner.store.submit(Plan.model_validate({"steps": [{"id": "a", "tool": "work"}]}), inputs={})
    client.lpush(CATALOG_VERSION, "a list where a number belongs")
    planner.plan_job(job)
    view = planner.store.view(job)
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    assert "WRONGTYPE" in view.error.message


def test_a_job_is_planned_after_an_outage(settings: Settings, client: redis.Redis) -> None:
    planner = Planner(settings, make_app(settings))
    job, _ = planner.store.submit(Plan.model_validate({"steps": [{"id": "a", "tool": "categorize_items"}]}), inputs={})
    client.config_set("maxmemory", 1)
    try:
        with suppress(redis.exceptions.OutOfMemoryError):
            planner.plan_job(job)
        assert planner.store.status(job) is not JobStatus.FAILED
    finally:
        client.config_set("maxmemory", 0)
    planner.plan_job(job)
    assert planner.store.view(job).steps[0].id == "a"
