"""Every fault of the table, while jobs of seven steps run. `CHAOS_JOBS=200` is the long form, over every broker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.faults import report
from tests.faults.load import Load, pass_time
from tests.faults.platforms import LONG, Platforms
from tests.faults.strikes import Strike
from tests.faults.table import FAULTS, Fault
from tests.processes import BROKERS, Broker

JOBS = int(os.environ.get("CHAOS_JOBS", "5"))
SECONDS = 0.03 if LONG else 0.08  # few jobs must last until the fault strikes

pytestmark = pytest.mark.chaos
CASES = [(broker, fault) for broker in BROKERS for fault in FAULTS if broker in (fault.brokers if LONG else fault.short)]


@pytest.fixture(scope="module", autouse=True)
def _ended(platforms: Platforms) -> Iterator[None]:
    """No platform stays idle beside the tests that follow."""
    yield
    platforms.close()


@pytest.mark.parametrize(("broker", "fault"), CASES, ids=[f"{broker}: {fault.name}" for broker, fault in CASES])
def test_fault(broker: Broker, fault: Fault, platforms: Platforms) -> None:
    if why_not := fault.needs():
        pytest.skip(why_not)
    load = Load(platforms.get(broker), seconds=fault.seconds or SECONDS, tools=fault.tools)
    try:
        report.add(run(fault, load))
    except BaseException:
        platforms.forget(broker)  # what it left behind must not fail the next one
        raise


def run(fault: Fault, load: Load) -> report.Row:
    """Jobs, the fault, the end of the jobs, the audit."""
    load.p.look_from_here()
    began = time.monotonic()
    with fault.around(load) as prepared:
        load.submit(JOBS)
        hits = strike(fault, load, prepared or fault.strike)
        load.finish()
    seconds = time.monotonic() - began
    assert hits > 0, "the fault hit nothing"
    load.audit()
    repairs = sum(int(m[1]) for m in load.p.said(r"(?:lost|queued|planner)=(\d+)"))
    return report.Row(
        fault.name, load.p.broker, len(load.jobs), hits, load.repeats(), len(load.p.said("outcome refused")), repairs,
        load.unknown, max(load.next_attempts(), default=None), seconds,
    )  # fmt: skip


def strike(fault: Fault, load: Load, what: Strike) -> int:
    """Strikes while jobs run, in the short form once; how often something was hit."""
    hits = 0
    for _ in range(fault.times if LONG else 1):
        load.strikes.append(time.monotonic())
        hits += what(load)
        pass_time(fault.every if LONG else 0)
        if load.ended():
            break
    return hits if hits or load.ended() else hits + _once_more(load, what)


def _once_more(load: Load, what: Strike) -> int:
    """Some faults meet nothing at first, such as a queue that is empty just then."""
    hit = 0
    while not hit and not load.ended():
        hit = what(load)
    return hit
