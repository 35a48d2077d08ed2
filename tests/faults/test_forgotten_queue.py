"""A quorum queue that RabbitMQ forgot how to serve is put anew; one that takes nothing because the broker takes nothing is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from orchestrator.broker import rabbitmq as transport
from orchestrator.broker import renew
from orchestrator.broker.app import make_app
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import JobStatus
from orchestrator.publisher.publish import Publisher
from orchestrator.settings import load_settings
from tests.faults.platforms import QUICK
from tests.processes import Platform
from tests.services import RabbitService, rabbitmq
from tests.support import wait_until

pytestmark = pytest.mark.chaos
CALL = ReadyCall("job_x", "a#0", 1, "function", "work")


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitService]:
    with rabbitmq() as running:
        yield running


@pytest.fixture
def rabbit(node: RabbitService) -> RabbitService:
    """The node, with a virtual host of its own for each test."""
    return replace(node, url=node.vhost())


@pytest.fixture
def publisher(rabbit: RabbitService, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """One that loses patience after a second, not after 25."""
    monkeypatch.setattr(renew, "SILENT_S", 0.5)
    monkeypatch.setattr(transport, "CONFIRM_S", 1.0)
    return Publisher(make_app(load_settings(_env_file=None, redis_url="redis://127.0.0.1:1/0", broker_url=rabbit.url)))


def member(rabbit: RabbitService) -> str:
    """The queue's only one, as RabbitMQ names it."""
    return f'{{list_to_atom("{rabbit.url.rpartition("/")[2]}_function"), node()}}'


def has_leader(rabbit: RabbitService) -> bool:
    return "true" in rabbit.control("eval", f"element(1, ra:members({member(rabbit)}, 1000)) =:= ok.")


def test_a_queue_forgotten_by_a_killed_broker_is_put_anew(rabbit: RabbitService, publisher: Publisher) -> None:
    publisher.publish([CALL])
    rabbit.kill()
    rabbit.start()
    assert not has_leader(rabbit), "it was killed before it wrote whose files are whose"
    with pytest.raises(OperationalError, match="`function`"):
        publisher.publish([CALL])
    publisher.publish([CALL])
    assert has_leader(rabbit)
    wait_until(lambda: publisher.waiting("function") == 1, description="the message lies in the new queue")


@pytest.mark.long
def test_a_settled_queue_survives_a_kill_with_its_messages(rabbit: RabbitService, publisher: Publisher) -> None:
    publisher.publish([CALL])
    rabbit.settle()
    rabbit.kill()
    rabbit.start()
    wait_until(lambda: has_leader(rabbit), description="the queue has a leader")
    publisher.publish([CALL])
    wait_until(lambda: publisher.waiting("function") == 2, description="the message of before and this one are there")


@pytest.mark.long
def test_no_queue_is_deleted_while_the_broker_takes_nothing_at_all(rabbit: RabbitService, publisher: Publisher) -> None:
    publisher.publish([CALL])
    rabbit.control("set_vm_memory_high_watermark", "0.000001")
    try:
        for _ in range(3):
            with suppress(OperationalError):
                publisher.publish([CALL])
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.4")
    assert publisher.waiting("function") >= 1
    assert "function.trial" in rabbit.queues(rabbit.url), "it was put to the test whether a new queue takes messages"


@pytest.mark.long
def test_workers_of_a_queue_that_was_put_anew_listen_to_it(rabbit: RabbitService) -> None:
    """Its member falls silent while they listen: RabbitMQ does not tell them that their queue was deleted."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:
        p = Platform(Path(folder), broker="rabbitmq", rabbit=rabbit, **QUICK)
        try:
            p.start_server()
            p.start_planner()
            p.start_worker()
            p.wait_ready()
            assert p.wait(p.submit([{"id": "a", "tool": "work"}])).status is JobStatus.SUCCEEDED
            rabbit.control("eval", f"ok = sys:suspend({member(rabbit)}).")
            assert p.wait(p.submit([{"id": "a", "tool": "work"}]), timeout=120).status is JobStatus.SUCCEEDED, p.logs()
            assert p.said("it is deleted and declared anew")
        finally:
            p.stop()
