"""What hundreds of calls that wait cost on one worker process: they end in T seconds, and a little for each of them.

The goal for N calls of T seconds is T + 1.5 x N x what an independent Celery task costs in the same run (as in
`bench/engine.py`, with its two processes). The async worker is one process on one loop; claims, leases, events and
publishing included. Beside it: memory, and a prefork pool of as many slots as fit into the same memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, interleaved, median_ratio, medians, options
from engine import Bench

from orchestrator.models.plan import Plan

SLOTS = 500
GOAL = 1.5
MANY = ((300, 0.1), (500, 1.0))
MIB = 1 << 20
WORKER = "async"


def waits(n: int, seconds: float, *, tool: str) -> Plan:
    """A map of n calls that each wait."""
    step = {"id": "wait", "tool": tool, "map": "input:xs", "input": {"seconds": seconds}}
    return Plan.model_validate({"inputs": {"xs": list(range(n))}, "steps": [step]})


class AsyncBench(Bench):
    """The platform and the yardstick of `bench/engine.py`, and one async worker."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.add_worker(WORKER, pool="async", concurrency=SLOTS)

    def warm_up(self) -> None:
        self.wait_workers(2)
        for _ in range(3):
            self.seconds(50, 0.01)
            self.independent(50)

    def seconds(self, n: int, wait_s: float, *, tool: str = "bench_wait") -> float:
        """How long n calls take that each wait."""
        return self.run([waits(n, wait_s, tool=tool)], steps=1) / 1000

    def prefork(self, slots: int) -> str:
        """The name of a prefork worker that took the place of the one before."""
        for name in [n for n in self.processes if n.startswith(("worker", "prefork"))]:
            self.end(name)
        name = f"prefork{slots}"
        self.add_worker(name, concurrency=slots)
        self.wait_workers(2)
        self.seconds(4 * slots, 0.01, tool="bench_sleep")
        return name

    def end(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        process.wait(20)


def memory(process: subprocess.Popen[bytes]) -> float:
    """MiB of a process and its children, a page that n of them share counted as an n-th in each (PSS)."""
    root = psutil.Process(process.pid)
    return float(sum(p.memory_full_info().pss for p in [root, *root.children(recursive=True)])) / MIB


def main() -> None:
    chosen = options(__doc__ or "")
    report = Report("async")
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        bench = AsyncBench(Path(folder))
        try:
            bench.wait_workers(2)
            idle = memory(bench.processes[WORKER])
            bench.warm_up()
            measure(bench, report, chosen.rounds, alone=200 if chosen.quick else 1000)
            compare(bench, report, idle=idle)
        finally:
            bench.close()
    report.print(chosen.json)
    sys.stdout.flush()
    os._exit(0)  # Celery's results complain by the thousand when the interpreter ends


def measure(bench: AsyncBench, report: Report, rounds: int, *, alone: int) -> None:
    cases: dict[str, Callable[[], float]] = {}
    for n, wait_s in MANY:
        cases[f"independent {n}"] = partial(bench.independent, alone)
        cases[f"waits {n}"] = partial(bench.seconds, n, wait_s)
    seen = interleaved(cases, rounds)
    middle = medians(seen)
    for n, wait_s in MANY:
        name, task_ms = f"{n}_calls_of_{wait_s:g}s", middle[f"independent {n}"]
        seen["over"] = [(s - wait_s) * 1000 / n for s in seen[f"waits {n}"]]
        report.add(f"{name}_independent_task", task_ms, "ms")
        report.add(name, middle[f"waits {n}"], "s", goal=round(wait_s + GOAL * n * task_ms / 1000, 3))
        report.add(f"{name}_cost_of_a_call", medians(seen)["over"], "ms")
        report.add(f"{name}_call_to_independent", median_ratio(seen["over"], seen[f"independent {n}"]), "ratio", goal=GOAL)


def compare(bench: AsyncBench, report: Report, *, idle: float) -> None:
    """The same calls on processes: as many as the memory of the async worker after its work pays for."""
    worked = memory(bench.processes[WORKER])
    report.add("async_worker_idle", idle, "MiB")
    report.add(f"async_worker_after_{SLOTS}_at_once", worked, "MiB")
    with_one = memory(bench.processes[bench.prefork(1)])
    with_three = memory(bench.processes[bench.prefork(3)])
    a_slot = (with_three - with_one) / 2
    fit = max(1, int(1 + (worked - with_one) / a_slot))
    report.add("prefork_worker_of_1", with_one, "MiB")
    report.add("prefork_worker_each_slot_more", a_slot, "MiB")
    report.add("prefork_slots_in_the_same_memory", fit, "slots")
    bench.prefork(fit)
    n, wait_s = MANY[0]
    report.add(f"prefork_{fit}_slots_{n}_calls_of_{wait_s:g}s", bench.seconds(n, wait_s, tool="bench_sleep"), "s")


if __name__ == "__main__":
    main()
