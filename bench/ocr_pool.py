"""The pool `ocr` against the engine's own loop: `python bench/ocr_pool.py`.

Both read the same pictures, in as many processes, in turn within one run: the pool by jobs that are submitted to the
platform, the loop by `read_image` in processes of its own that share a list and have warmed up before the clock starts.
Prints seconds a picture, the ratio (goal: at most 1.1) and the memory of a process.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
from common import Report, interleaved, median_ratio, medians, options
from ours import Ours

from orchestrator.models.plan import Plan
from workers.ocr.engines import read_image
from workers.ocr.images import bundled_images, load_image
from workers.ocr.tools import warm_up

MIB = 1 << 20
PROCESSES = (1, 2)
GOAL = 1.1


class Loop:
    """Processes that read pictures as fast as the engine does."""

    def __init__(self, processes: int) -> None:
        self.context = mp.get_context("spawn")
        self.work: Any = self.context.Queue()
        self.done: Any = self.context.Queue()
        ready = self.context.Barrier(processes + 1)
        self.processes = [self.context.Process(target=_loop, args=(self.work, self.done, ready)) for _ in range(processes)]
        for process in self.processes:
            process.start()
        ready.wait()

    def read(self, uris: list[str]) -> float:
        """Seconds for all."""
        began = time.perf_counter()
        for uri in uris:
            self.work.put(uri)
        for _ in uris:
            self.done.get()
        return time.perf_counter() - began

    def close(self) -> None:
        for _ in self.processes:
            self.work.put(None)
        for process in self.processes:
            process.join(20)


def _loop(work: Any, done: Any, ready: Barrier) -> None:
    warm_up()
    from orchestrator.settings import load_settings

    settings = load_settings(_env_file=None)
    ready.wait()
    while (uri := work.get()) is not None:
        done.put(len(read_image(load_image(uri, settings), settings=settings).lines))


class Pool:
    """The platform with one worker of the pool `ocr`."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.platform = Ours(folder, workers=0)
        self.platform.add_worker("ocr", pool="ocr", concurrency=processes)
        self.platform.wait_workers(1)
        self.read(["bundled:notice"] * processes)

    def read(self, uris: list[str]) -> float:
        """Seconds for all: one job, a call a picture."""
        step = {"id": "ocr", "tool": "receipt_ocr", "map": "input:images", "input": {"image_url": "item"}}
        plan = Plan.model_validate({"steps": [step]})
        began = time.perf_counter()
        job, _ = self.platform.control.accept(plan, inputs={"images": uris}, tenant="default")
        self.platform.wait([job])
        return time.perf_counter() - began

    def memory(self) -> list[float]:
        """MB of each child: what it does not share with the others."""
        worker = psutil.Process(self.platform.processes["ocr"].pid)
        return [child.memory_full_info().uss / MIB for child in worker.children()]


def main() -> None:
    """Runs it."""
    flags = options(__doc__ or "")
    uris = [f"bundled:{name}" for name in bundled_images()] * (1 if flags.quick else 3)
    report = Report("ocr_pool")
    for processes in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            loop, pool = Loop(processes), Pool(Path(folder), processes)
            try:
                cases = {"pool": lambda p=pool: p.read(uris), "loop": lambda p=loop: p.read(uris)}
                seen = interleaved(cases, flags.rounds)
                memory = pool.memory()
                own = [psutil.Process(p.pid).memory_full_info().uss / MIB for p in loop.processes]
            finally:
                loop.close()
                pool.platform.close()
        middle = medians(seen)
        for name in ("pool", "loop"):
            report.add(f"{name}, {processes} process(es), a picture", middle[name] / len(uris), "s")
        report.add(f"pool / loop, {processes} process(es)", median_ratio(seen["pool"], seen["loop"]), "x", GOAL)
        report.add(f"memory of a process of the pool ({processes})", max(memory), "MB")
        report.add(f"memory of a process of the loop ({processes})", max(own), "MB")
    report.print(flags.json)


if __name__ == "__main__":
    main()
