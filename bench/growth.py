"""How the cost of a step grows: with worker processes, jobs in flight, the width of a map; and what a job weighs in Redis.

A flat line is the goal: the ratio is that of the largest size to the smallest one that is not dominated by the start of a job.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, options
from engine import RECEIPT, fan_plan, plan_of
from ours import Ours


def by_workers(report: Report, jobs: int) -> None:
    """1 to 4 worker processes of one slot each; beyond the machine's cores they only share them."""
    for workers in (1, 2, 3, 4):
        with tempfile.TemporaryDirectory(prefix="twb-") as folder:
            ours = Ours(Path(folder), workers=workers, concurrency=1)
            try:
                ours.wait_workers(workers)
                ours.run([plan_of(RECEIPT)] * 10)
                report.add(f"step_with_{workers}_worker_processes", ours.run([plan_of(RECEIPT)] * jobs), "ms")
            finally:
                ours.close()


def by_jobs(ours: Ours, report: Report, sizes: tuple[int, ...]) -> None:
    """All jobs at once; Redis is weighed when the last one has ended, since it keeps them for a while."""
    cost = {}
    for jobs in sizes:
        empty = ours.redis.info("memory")["used_memory"]
        shard = ours.store.ledger.keys("any").shard
        cost[jobs] = ours.run([plan_of(RECEIPT)] * jobs)
        report.add(f"step_with_{jobs}_jobs_in_flight", cost[jobs], "ms")
        full = ours.redis.info("memory")["used_memory"]
        report.add(f"redis_bytes_a_finished_job_of_{jobs}", (full - empty) / jobs, "B")
        assert ours.redis.hgetall(shard.load) == {}
    report.add(f"jobs_{sizes[-1]}_to_{sizes[1]}", cost[sizes[-1]] / cost[sizes[1]], "ratio", 1.3)


def by_width(ours: Ours, report: Report, sizes: tuple[int, ...]) -> None:
    """One map; its items are `null`, so what is weighed is the ledger itself."""
    cost = {}
    for width in sizes:
        empty = ours.redis.info("memory")["used_memory"]
        cost[width] = ours.run([fan_plan(width)], width + 2)
        report.add(f"step_of_a_map_of_{width}", cost[width], "ms")
        report.add(f"redis_bytes_a_call_of_a_map_of_{width}", (ours.redis.info("memory")["used_memory"] - empty) / width, "B")
    report.add(f"map_{sizes[-1]}_to_{sizes[1]}", cost[sizes[-1]] / cost[sizes[1]], "ratio", 1.3)


def main() -> None:
    chosen = options(__doc__ or "")
    most = slice(3) if chosen.quick else slice(4)
    jobs, widths = (10, 100, 1_000, 10_000)[most], (100, 1_000, 10_000, 100_000)[most]
    report = Report("growth")
    by_workers(report, 50 if chosen.quick else 200)
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        ours = Ours(Path(folder))
        try:
            ours.wait_workers()
            by_jobs(ours, report, jobs)
            by_width(ours, report, widths)
        finally:
            ours.close()
    report.print(chosen.json)


if __name__ == "__main__":
    main()
