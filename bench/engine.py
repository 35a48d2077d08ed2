"""What one step costs: we, independent Celery tasks, the Celery canvas and raw Redis, interleaved in one run.

Both sides: one prefork worker of two processes, acks_late, prefetch 1, no Celery events, one embedded server. Ours runs
with every guard, lease and event of the product, through the planner process, publishing included. The product's own
setting `ack_emulation: False` (its leases and outbox stand in for kombu's copy of unacknowledged messages) is on; the
yardstick keeps the default, since without the copy it would lose tasks. `independent_task_no_copy` shows it without.
Beside it: the store with `appendfsync always`, and RabbitMQ (quorum queues, confirms) where it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from _pytest.outcomes import Skipped
from celery import chain, chord, group

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, interleaved, median_ratio, medians, options
from ours import HERE, POLL_S, Ours

from orchestrator.models.plan import Plan
from tests.services import rabbitmq

Dag = dict[str, list[str]]


def chain_of(n: int) -> Dag:
    return {f"s{i}": [f"s{i - 1}"] if i else [] for i in range(n)}


def dense(layers: int = 10, width: int = 10) -> Dag:
    return {f"l{i}_{k}": [f"l{i - 1}_{m}" for m in range(width)] if i else [] for i in range(layers) for k in range(width)}


RECEIPT: Dag = {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"], "f": ["e"], "g": ["f"]}


def plan_of(dag: Dag) -> Plan:
    return Plan.model_validate({"steps": [{"id": s, "tool": "bench_noop", "depends_on": d} for s, d in dag.items()]})


def fan_plan(n: int) -> Plan:
    return Plan.model_validate(
        {
            "steps": [
                {"id": "list", "tool": "bench_list", "input": {"n": n}},
                {"id": "fan", "tool": "bench_noop", "map": "step:list"},
                {"id": "join", "tool": "bench_noop", "depends_on": ["fan"]},
            ]
        }
    )


class Bench(Ours):
    """The platform, the yardsticks' workers, and the four ways to run a shape; every way answers milliseconds a step."""

    def __init__(self, folder: Path, *, fsync: str = "everysec", broker_url: str | None = None) -> None:
        super().__init__(folder, fsync=fsync, broker_url=broker_url)
        os.environ["BENCH_SOCKET"] = str(self.socket)
        os.environ["BENCH_URL"] = broker_url or f"redis+socket://{self.socket}?virtual_host=1"
        import yardstick

        self.yard = yardstick
        self.on_redis = broker_url is None
        self.yard_redis = redis.Redis(unix_socket_path=str(self.socket), db=1)
        self.done = "yard:done"
        worker = [sys.executable, "-m", "celery", "--workdir", str(HERE), "-A", "yardstick", "worker", "-P", "prefork", "-c", "2"]
        flags = ["-l", "WARNING", "--without-gossip", "--without-mingle"]
        self.spawn("yard", [*worker, "-Q", "yard", *flags], {"BENCH_ACKS": "1", "BENCH_QUEUE": "yard"})
        if self.on_redis:
            self.spawn("bare", [*worker, "-Q", "bare", *flags], {"BENCH_ACKS": "0", "BENCH_QUEUE": "bare"})
        for name in ("floor1", "floor2"):
            self.spawn(name, [sys.executable, str(HERE / "yardstick.py"), "floor"])

    def warm_up(self) -> None:
        """Every way once, so that all processes are there."""
        self.wait_workers()
        for _ in range(3):
            self.run([plan_of(chain_of(5))])
            self.independent(50)
            self.canvas_chain(5)
            if self.on_redis:
                self.without_copy(50)

    def without_copy(self, n: int) -> float:
        """Independent tasks on a worker that keeps no copy of unacknowledged messages; the tasks count themselves."""
        return self._counted(n, queue="bare")

    def _counted(self, n: int, *, queue: str) -> float:
        before = int(self.yard_redis.get("yard:count") or 0)
        began = time.perf_counter()
        with self.yard.app.producer_or_acquire() as producer:
            for _ in range(n):
                self.yard.count.apply_async(producer=producer, queue=queue)
        while int(self.yard_redis.get("yard:count") or 0) - before < n:
            time.sleep(0.001)
        return (time.perf_counter() - began) * 1000 / n

    def independent(self, n: int, *, batched: bool = False) -> float:
        if not self.on_redis:  # RabbitMQ does not say what is still unacknowledged: the tasks count themselves
            return self._counted(n, queue="yard")
        began = time.perf_counter()
        with self.yard.app.producer_or_acquire() as producer:
            if batched:
                with producer.batch(500):
                    for _ in range(n):
                        self.yard.noop.apply_async(producer=producer)
            else:
                for _ in range(n):
                    self.yard.noop.apply_async(producer=producer)
        while self.yard_redis.llen("yard") or self.yard_redis.hlen("unacked"):
            time.sleep(0.001)
        return (time.perf_counter() - began) * 1000 / n

    def _signature(self) -> Any:
        return self.yard.noop.si().set(ignore_result=False)

    def _done(self) -> Any:
        return self.yard.done.si(self.done)

    def _canvas(self, works: list[Any], steps: int) -> float:
        began = time.perf_counter()
        for work in works:
            work.apply_async()
        end = time.monotonic() + 120
        while self.yard_redis.llen(self.done) < len(works):
            if time.monotonic() > end:
                raise SystemExit("the canvas hangs")
            time.sleep(POLL_S)
        took = time.perf_counter() - began
        self.done = f"yard:done:{time.monotonic_ns()}"
        return took * 1000 / steps

    def canvas_chain(self, n: int) -> float:
        return self._canvas([chain(*[self.yard.noop.si() for _ in range(n)], self._done())], n)

    def canvas_fan(self, n: int) -> float:
        return self._canvas([chord([self._signature() for _ in range(n)], self._done())], n + 2)

    def canvas_dense(self) -> float:
        parts: list[Any] = []
        for _ in range(10):  # a group that follows a group needs a task between them, or it is not joined
            parts += [group(self._signature() for _ in range(10)), self.yard.noop.si()]
        return self._canvas([chain(*parts, self._done())], 100)

    def canvas_receipts(self, n: int) -> float:
        noop = self.yard.noop
        works = [
            chain(noop.si(), group(self._signature() for _ in range(3)), noop.si(), noop.si(), noop.si(), self._done())
            for _ in range(n)
        ]
        return self._canvas(works, n * 7)

    def floor(self, kind: str, dag: Dag, jobs: int = 1) -> float:
        import json

        following: dict[str, list[str]] = {}
        for step, dependencies in dag.items():
            for d in dependencies:
                following.setdefault(d, []).append(step)
        client = redis.Redis(unix_socket_path=str(self.socket))
        client.set(f"floor:dag:{kind}", json.dumps(following))
        began = time.perf_counter()
        for n in range(jobs):
            job = f"floor:{kind}:{time.monotonic_ns()}{n}"
            client.hset(f"{job}:p", mapping={s: len(d) for s, d in dag.items() if d} | {"__left": len(dag)})
            client.lpush("floor:q", *[f"{job}|{s}" for s, d in dag.items() if not d])
        for _ in range(jobs):
            client.blpop(["floor:done"], timeout=60)
        return (time.perf_counter() - began) * 1000 / (jobs * len(dag))

    def traffic(self, run: Callable[[], float], steps: int) -> tuple[float, float]:
        """Redis commands (inside scripts too) and bytes, in and out, a step."""
        before = self._counters()
        run()
        after = self._counters()
        return (after[0] - before[0]) / steps, (after[1] - before[1]) / steps

    def _counters(self) -> tuple[float, float]:
        stats: Any = self.redis.info("commandstats")
        net: Any = self.redis.info("stats")
        quiet = ("cmdstat_info", "cmdstat_ping")
        calls = sum(v["calls"] for k, v in stats.items() if k not in quiet)
        return calls, net["total_net_input_bytes"] + net["total_net_output_bytes"]


def main() -> None:
    chosen = options(__doc__ or "", on=tuple(PLACES))
    if chosen.on is None:  # each place in a process of its own: the yardstick's app knows one broker
        sys.exit(max(subprocess.run([sys.executable, __file__, *sys.argv[1:], "--on", place]).returncode for place in PLACES))
    sizes = (100, 300, 150, 25, 200) if chosen.quick else (100, 1000, 1000, 200, 1000)
    report = Report("engine")
    try:
        PLACES[chosen.on](report, chosen.rounds, sizes)
    except Skipped as reason:
        print(f"without {chosen.on}: {reason}", file=sys.stderr)
    report.print(chosen.json)
    sys.stdout.flush()
    os._exit(0)  # Celery's results complain by the thousand when the interpreter ends


def on_redis(report: Report, rounds: int, sizes: Sizes) -> None:
    with running() as bench:
        measure(bench, report, rounds, sizes=sizes)


def on_aof_always(report: Report, rounds: int, sizes: Sizes) -> None:
    with running(fsync="always") as bench:
        measure_beside(bench, report, "aof_always", rounds, sizes=sizes)


def on_rabbitmq(report: Report, rounds: int, sizes: Sizes) -> None:
    with rabbitmq() as broker, running(broker_url=broker.url) as bench:
        measure_beside(bench, report, "rabbitmq", rounds, sizes=sizes)


Sizes = tuple[int, int, int, int, int]
PLACES = {"redis": on_redis, "aof_always": on_aof_always, "rabbitmq": on_rabbitmq}


@contextmanager
def running(**how: Any) -> Iterator[Bench]:
    """A platform and its yardsticks, warmed up."""
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        bench = Bench(Path(folder), **how)
        try:
            bench.warm_up()
            yield bench
        finally:
            bench.close()


def measure_beside(bench: Bench, report: Report, name: str, rounds: int, *, sizes: Sizes) -> None:
    """The shapes on another store or broker, against independent tasks on the same one."""
    short, _, fan, jobs, alone = sizes
    receipts = [plan_of(RECEIPT)] * jobs
    cases: dict[str, Callable[[], float]] = {
        f"chain_{short}": lambda: bench.run([plan_of(chain_of(short))]),
        f"fan_{fan}": lambda: bench.run([fan_plan(fan)], fan + 2),
        "dense_10x10": lambda: bench.run([plan_of(dense())]),
        f"receipts_{jobs}x7": lambda: bench.run(receipts),
    }
    seen = interleaved({"independent": lambda: bench.independent(alone), **cases}, rounds)
    report.add(f"{name}_independent_task", medians(seen)["independent"], "ms")
    for shape in cases:
        report.add(f"{name}_{shape}_to_independent", median_ratio(seen[shape], seen["independent"]), "ratio")


def measure(bench: Bench, report: Report, rounds: int, *, sizes: Sizes) -> None:
    short, long, fan, jobs, alone = sizes
    plans = {"chain_short": [plan_of(chain_of(short))], "chain_long": [plan_of(chain_of(long))], "dense": [plan_of(dense())]}
    receipts = [plan_of(RECEIPT)] * jobs
    fan_dag = {"list": [], **{f"f{i}": ["list"] for i in range(fan)}, "join": [f"f{i}" for i in range(fan)]}
    seen = interleaved(
        {
            "independent": lambda: bench.independent(alone),
            "no copy": lambda: bench.without_copy(alone),
            "batched": lambda: bench.independent(alone, batched=True),
            "ours chain_short": lambda: bench.run(plans["chain_short"]),
            "canvas chain_short": lambda: bench.canvas_chain(short),
            "floor chain_short": lambda: bench.floor("chain_short", chain_of(short)),
            "independent 2": lambda: bench.independent(alone),
            "ours chain_long": lambda: bench.run(plans["chain_long"]),
            "canvas chain_long": lambda: bench.canvas_chain(long),
            "floor chain_long": lambda: bench.floor("chain_long", chain_of(long)),
            "ours fan": lambda: bench.run([fan_plan(fan)], fan + 2),
            "canvas fan": lambda: bench.canvas_fan(fan),
            "floor fan": lambda: bench.floor("fan", fan_dag),
            "independent 3": lambda: bench.independent(alone),
            "ours dense": lambda: bench.run(plans["dense"]),
            "canvas dense": bench.canvas_dense,
            "floor dense": lambda: bench.floor("dense", dense()),
            "ours receipts": lambda: bench.run(receipts),
            "canvas receipts": lambda: bench.canvas_receipts(jobs),
            "floor receipts": lambda: bench.floor("receipts", RECEIPT, jobs),
        },
        rounds,
    )
    alone_ms = [sorted(three)[1] for three in zip(seen["independent"], seen["independent 2"], seen["independent 3"], strict=True)]
    middle = medians(seen)
    report.add("independent_task", sorted(alone_ms)[len(alone_ms) // 2], "ms")
    report.add("independent_task_no_copy", middle["no copy"], "ms")
    report.add("independent_task_batched", middle["batched"], "ms")
    names = {
        "chain_short": f"chain_{short}",
        "chain_long": f"chain_{long}",
        "fan": f"fan_{fan}",
        "dense": "dense_10x10",
        "receipts": f"receipts_{jobs}x7",
    }
    for shape, name in names.items():
        report.add(f"{name}_step", middle[f"ours {shape}"], "ms")
        report.add(f"{name}_to_independent", median_ratio(seen[f"ours {shape}"], alone_ms), "ratio", 1.3)
        report.add(f"{name}_to_no_copy", median_ratio(seen[f"ours {shape}"], seen["no copy"]), "ratio")
        goal = 0.7 if shape != "fan" else None
        report.add(f"{name}_to_canvas", median_ratio(seen[f"ours {shape}"], seen[f"canvas {shape}"]), "ratio", goal)
        report.add(f"{name}_to_redis_floor", median_ratio(seen[f"ours {shape}"], seen[f"floor {shape}"]), "ratio")
    report.add(f"chain_{long}_to_chain_{short}", median_ratio(seen["ours chain_long"], seen["ours chain_short"]), "ratio", 1.2)
    for name, run, steps in (
        (f"chain_{short}", lambda: bench.run(plans["chain_short"]), short),
        (f"fan_{fan}", lambda: bench.run([fan_plan(fan)], fan + 2), fan + 2),
        ("dense_10x10", lambda: bench.run(plans["dense"]), 100),
        (f"receipts_{jobs}x7", lambda: bench.run(receipts), jobs * 7),
        ("independent", lambda: bench.independent(alone), alone),
    ):
        commands, size = bench.traffic(run, steps)
        report.add(f"{name}_redis_commands", commands, "a step")
        report.add(f"{name}_redis_bytes", size, "a step")


if __name__ == "__main__":
    main()
