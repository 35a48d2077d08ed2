"""What programs call, by each way to send messages: fans wider than the window, maps of programs, shards, a worker that dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError
from orchestrator.models.job import JobStatus
from tests.processes import BROKERS, Platform, platform
from tests.sandbox.lab import IMAGE, prepare
from tests.support import wait_until

pytestmark = pytest.mark.chaos

TOOLS = Path(__file__).parents[1] / "program_tools.py"
LONG = "CHAOS_JOBS" in os.environ
WAYS = BROKERS if LONG else ("direct", "rabbitmq")
FAN = 60 if LONG else 40  # the window is of 8


@pytest.fixture(params=WAYS, scope="module")
def p(request: pytest.FixtureRequest) -> Iterator[Platform]:
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")
    node = request.getfixturevalue("rabbit_node") if request.param == "rabbitmq" else None
    with platform(
        broker=request.param, node=node, tools=str(TOOLS), lease_s=1.5, grace_s=1.0, sandbox_image=IMAGE, shards=2
    ) as made:
        assert made.settings.direct == (request.param == "direct")
        made.start_planner()
        made.start_worker("functions", pool="function", concurrency=1)
        made.start_worker("aio", pool="async", concurrency=2)  # windows of 8 calls in each shard
        made.start_worker("code", pool="code", concurrency=4)
        made.wait_announced("code")
        yield made


def record(p: Platform, job: str) -> Any:
    view = p.wait(job, timeout=60)
    assert view.status is JobStatus.SUCCEEDED, view.error
    return p.store.result(job).steps["p"]


def step(code: str, **more: Any) -> dict[str, Any]:
    return {"id": "p", "tool": "code_exec", "input": {"code": {"$literal": code}}, **more}


def notes(p: Platform, job: str) -> list[str]:
    return [row.decode() for row in p.client.lrange(f"test:{job}", 0, -1)]


def test_a_fan_wider_than_the_window(p: Platform) -> None:
    """The last of these calls wait longer for room than a look at them takes to come."""
    code = "import asyncio\noutput = len(await asyncio.gather(*[get_expenses(str(n), wait_s=0.1) for n in range(FAN)]))".replace(
        "FAN", str(FAN)
    )
    jobs = [p.submit([step(code)]) for _ in range(3)]  # of both shards
    assert [record(p, job) for job in jobs] == [FAN, FAN, FAN]
    for job in jobs:
        assert len(notes(p, job)) == FAN
        assert all(c.attempt == 1 for c in p.store.calls(job)), "nothing was made twice"


def test_a_map_of_programs_that_call_tools_of_two_pools(p: Platform) -> None:
    code = "team = await get_team_members(count=3)\noutput = [(await get_expenses(m['id']))['user_id'] for m in team]"
    job = p.submit([step(code, map="input:xs")], inputs={"xs": list(range(12))})
    assert record(p, job) == [["emp_0", "emp_1", "emp_2"]] * 12


def test_a_program_whose_worker_dies_in_a_fan(p: Platform) -> None:
    code = "import asyncio\noutput = len(await asyncio.gather(*[get_expenses(str(n), wait_s=0.2) for n in range(30)]))"
    job = p.submit([step(code)])
    wait_until(lambda: len(notes(p, job)) >= 4, description="some calls have begun", timeout=30)
    p.kill("code")
    p.start_again("code")
    assert record(p, job) == 30
    assert len(notes(p, job)) == 30
