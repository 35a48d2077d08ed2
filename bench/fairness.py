"""What a flood of one tenant costs another: a job of seven steps, alone and behind 10,000 calls, on one worker of two slots.

Two floods: one map of 10,000 items, and jobs of seven steps that come to as many calls. Then the flood is cancelled, and
the time is taken until no call of it is queued or running.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
from common import Report, options
from ours import Ours

from orchestrator.models.plan import Plan

RECEIPT = {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"], "f": ["e"], "g": ["f"]}
SECONDS = 0.01


def seven_steps() -> Plan:
    steps = [{"id": s, "tool": "bench_sleep", "input": {"seconds": SECONDS}, "depends_on": d} for s, d in RECEIPT.items()]
    return Plan.model_validate({"steps": steps})


def wide(n: int) -> Plan:
    return Plan.model_validate(
        {
            "steps": [
                {"id": "list", "tool": "bench_list", "input": {"n": n}},
                {"id": "all", "tool": "bench_sleep", "map": "step:list", "input": {"seconds": SECONDS}},
            ]
        }
    )


def job_s(ours: Ours, tenant: str, times: int) -> float:
    """Seconds of a seven-step job: the median of some, one after the other."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ours.wait([ours.submit(seven_steps(), tenant=tenant)])
        took.append(time.perf_counter() - began)
    return median(took)


def drained_s(ours: Ours, jobs: Sequence[str], tenant: str) -> float:
    """Seconds from the first cancel until nothing of the jobs is queued or running."""
    shard = ours.store.ledger.keys("any").shard
    began = time.perf_counter()
    for job in jobs:
        if not ours.store.status(job, tenant=tenant).final:
            ours.control.cancel(job, tenant=tenant)
    while ours.redis.zcard(shard.leases) or ours.redis.hlen(shard.load):
        time.sleep(0.005)
    return time.perf_counter() - began


def measure(ours: Ours, report: Report, *, calls: int, times: int) -> None:
    idle = job_s(ours, "small", times)
    report.add("seven_steps_alone", idle * 1000, "ms")
    floods: dict[str, Callable[[], list[str]]] = {
        f"map_of_{calls}": lambda: [ours.submit(wide(calls), tenant="flood")],
        f"{calls // 7}_jobs": lambda: [ours.submit(seven_steps(), tenant="flood") for _ in range(calls // 7)],
    }
    for name, flood in floods.items():
        jobs = flood()
        behind = job_s(ours, "small", times)
        report.add(f"seven_steps_behind_{name}", behind * 1000, "ms", max(2 * idle, 1.0) * 1000)
        report.add(f"cancelled_{name}_drained", drained_s(ours, jobs, "flood") * 1000, "ms")


def main() -> None:
    chosen = options(__doc__ or "")
    report = Report("fairness")
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        ours = Ours(Path(folder))
        try:
            ours.wait_workers()
            measure(ours, report, calls=2_000 if chosen.quick else 10_000, times=chosen.rounds)
        finally:
            ours.close()
    report.print(chosen.json)


if __name__ == "__main__":
    main()
