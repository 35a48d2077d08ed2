"""A flood of 10,000 calls: what another tenant notices of it, and what lost and doubled messages do to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from tests.faults import messages
from tests.faults.load import seven_steps
from tests.processes import Platform, platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos
FLOOD, LEAST = 10_000, 8


@pytest.fixture(scope="module")
def p() -> Iterator[Platform]:
    with platform(lease_s=1.5, grace_s=1.0, reconcile_s=0.2, window_least=LEAST) as made:
        made.start_planner()
        made.start_worker("one")
        made.wait_ready()
        yield made


def submit(p: Platform, steps: list[dict[str, Any]], tenant: str) -> str:
    return p.control.accept(Plan.model_validate({"steps": steps}), inputs={}, tenant=tenant)[0]


def flood(p: Platform, calls: int, *, seconds: float = 0.01) -> str:
    """A job of one tenant: a map of so many calls."""
    plan = Plan.model_validate({"steps": [{"id": "all", "tool": "nap", "map": "input:xs", "input": {"seconds": seconds}}]})
    job: str = p.control.accept(plan, inputs={"xs": list(range(calls))}, tenant="flood")[0]
    wait_until(lambda: int(p.client.hget(p.store.ledger.keys(job).state, "k:all") or 0) > 20, description="the flood runs")
    return job


def seconds_of_a_job(p: Platform) -> float:
    job, began = submit(p, seven_steps(seconds=0.01, tools=dict.fromkeys("abcdefg", "nap")), "small"), time.monotonic()
    wait_until(lambda: p.store.status(job, tenant="small").final, description="the small job ends", timeout=60, every=0.005)
    assert p.store.status(job, tenant="small") is JobStatus.SUCCEEDED
    return time.monotonic() - began


def out(p: Platform) -> int:
    """Published calls of the flood: queued and running ones."""
    return int(p.client.hget(p.store.ledger.keys("any").shard.load, "q|function|flood") or 0)


def test_another_tenant_goes_on_and_a_cancelled_flood_drains_at_once(p: Platform) -> None:
    idle = sorted(seconds_of_a_job(p) for _ in range(3))[1]
    job = flood(p, FLOOD)
    behind = sorted(seconds_of_a_job(p) for _ in range(3))[1]
    assert p.store.status(job, tenant="flood") is JobStatus.RUNNING
    assert behind <= max(2 * idle, 1.0) * 2, "twice the promise: a test machine may be busy; bench/fairness.py measures it"
    p.control.cancel(job, tenant="flood")
    shard = p.store.ledger.keys(job).shard
    assert out(p) == 0
    wait_until(
        lambda: not p.client.zcard(shard.queued("function")) and not p.client.zcard(shard.leases),
        description="nothing of the flood is queued or runs",
        timeout=5,
    )


@pytest.mark.long
def test_lost_and_doubled_messages_under_a_flood_leave_no_call_stuck(p: Platform) -> None:
    calls = 600
    job = flood(p, calls)
    doubled: set[str] = set()
    discarded = most = strikes = 0

    def strike() -> bool:
        nonlocal discarded, most, strikes
        messages.double(p, doubled)
        most = max(most, out(p))
        if strikes < 4 and len(doubled) > 40 * (strikes + 1):
            lost = messages.discard(p)
            discarded, strikes = discarded + lost, strikes + bool(lost)
        return p.store.status(job, tenant="flood").final

    wait_until(strike, description="the flood ends", timeout=60)
    view = p.store.view(job, tenant="flood")
    assert (view.status, view.steps[0].done) == (JobStatus.SUCCEEDED, calls), p.logs()
    assert strikes == 4
    assert discarded >= strikes
    assert len(doubled) > 100
    assert 0 < most <= LEAST
    assert p.client.hgetall(p.store.ledger.keys(job).shard.load) == {}
