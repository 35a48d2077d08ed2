"""One behaviour, two ways to send messages: pushed by the ledger (the broker is its Redis), or published through Celery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.models.job import JobStatus
from tests.integration.test_faults import FAST, all_ended, assert_whole, keep_doing, submit_all, waiting_messages
from tests.processes import Platform, platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture(params=["direct", "published"], scope="module")
def p(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform(**FAST, window=8, broker_db=0 if request.param == "direct" else 1) as made:
        assert made.settings.direct == (request.param == "direct")
        made.start_planner()
        made.start_worker("one")
        made.start_worker("two", concurrency=1)
        made.wait_ready(workers=2)
        yield made


def test_jobs_of_seven_steps(p: Platform) -> None:
    jobs = submit_all(p, jobs=10)
    wait_until(lambda: all_ended(p, jobs), description="all jobs end", timeout=60)
    assert_whole(p, jobs)


def test_a_wide_map_in_stages_and_its_join(p: Platform) -> None:
    seconds = [0.001 * (i % 3) for i in range(60)]
    job = p.submit(
        [
            {"id": "first", "tool": "work", "map": "input:xs", "input": {"seconds": "item"}},
            {
                "id": "second",
                "tool": "nap",
                "map": "step:first",
                "when": {"ref": "item"},
                "input": {"seconds": 0},
                "depends_on": ["zero"],
            },
            {"id": "zero", "tool": "work", "input": {"seconds": 0}},
            {"id": "join", "tool": "nap", "input": {"seconds": 0}, "depends_on": ["second"]},
        ],
        inputs={"xs": seconds},
    )
    view = p.wait(job)
    assert view.status is JobStatus.SUCCEEDED, p.logs()
    assert [(s.id, s.done) for s in view.steps] == [("first", 60), ("second", 60), ("zero", 1), ("join", 1)]
    assert p.store.result(job).steps["second"] == [0] * 60


def test_discarded_messages_come_back(p: Platform) -> None:
    jobs = submit_all(p, jobs=15)
    client: Any = p.broker
    discarded = 0

    def fault() -> None:
        nonlocal discarded
        for name, messages in waiting_messages(p):
            discarded += len(messages)
            client.delete(name)

    keep_doing(p, jobs, fault, every=0.5, times=3)
    assert discarded > 0
    assert_whole(p, jobs)


def test_a_killed_worker_loses_nothing(p: Platform) -> None:
    jobs = submit_all(p, jobs=15)

    def fault() -> None:
        p.kill("one")
        p.start_worker("one")

    keep_doing(p, jobs, fault, every=1.0, times=1)
    assert_whole(p, jobs)
