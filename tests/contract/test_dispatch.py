"""One behaviour, three ways to send messages: pushed by the ledger, published through Redis, published through RabbitMQ.

What each of them bears when something breaks is `tests/faults`.
"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.models.job import JobStatus
from tests.faults.load import Load
from tests.faults.platforms import Platforms
from tests.processes import BROKERS, Platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture(params=BROKERS, scope="module")
def p(request: pytest.FixtureRequest, platforms: Platforms) -> Platform:
    made = platforms.get(request.param)
    assert made.settings.direct == (request.param == "direct")
    return made


def test_jobs_of_seven_steps(p: Platform) -> None:
    load = Load(p)
    load.submit(10)
    load.finish()
    load.audit()
    assert (load.repeats(), load.unknown) == (0, 0)


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


def test_a_failed_call_is_tried_again_later(p: Platform) -> None:
    step = {"id": "a", "tool": "fails_at_first", "input": {"times": 2}, "retry": {"max": 2, "backoff_s": 0.1}}
    job = p.submit([step])
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert p.store.result(job).steps["a"] == 3


def test_a_cancelled_flood_leaves_room_at_once(p: Platform) -> None:
    flood = p.submit([{"id": "a", "tool": "work", "map": "input:xs", "input": {"seconds": "item"}}], inputs={"xs": [30.0] * 300})
    wait_until(lambda: len(p.effects.bodies(flood)) >= 4, description="every slot is taken")
    p.control.cancel(flood)
    after = Load(p)
    after.submit(1)
    after.finish(timeout=15)
    after.audit()
    running: Any = [b for b in p.effects.bodies(flood) if b.ended is None]
    assert running == [], "its calls stopped"
