"""Programs in containers against `docker run`, bare sockets, a JSON copy and a peer library: `python bench/sandbox.py`.

Everything runs in turn, round by round, within one run; goals are ratios of the same run. `docker run` has the same image,
the same flags (made from the pool's own) and the same snippet. The peer needs `pip install llm-sandbox` and is left out
without it.

- fresh: from asking the warm pool to the result; what the one before it left to remove and to refill goes on meanwhile.
- without pool: create, start, run, result. `docker run --rm` also waits for the removal; ours with it is printed beside.
- reuse: of one job, one after the other: what ends the last program and starts the next process is part of it.
- sustained: many at once. A fresh one counts when its container was made, used and removed within the time.
- a tool call: inside of a program, which sees the whole way. The bare round trip is one frame of JSON of the same size and
  its answer between the same two processes, by asyncio's streams and `json` at both ends; below it, the kernel alone.
- 10 MB: an answer of a tool that the program returns, so that it goes in and out. The copy is `json.dumps` to bytes and
  `json.loads` from them, once on the host and once in a container.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from statistics import median
from typing import Any

from common import Report, options
from sandbox_yardsticks import EXPECTED, SNIPPET, DockerRun, Peer, asyncio_echo, blocking_echo

sys.path.insert(0, str(Path(__file__).parents[1]))
from orchestrator.models.program import ProgramLimits
from orchestrator.programmatic_executor.session import Ended, Program, Session, ToolCall
from tests.sandbox.lab import BASE, IMAGE, Lab, definition, opened

BATCH = 45
SIZE = 10_000_000
MAKING = 4  # at once, as the pool does at most
PATIENCE_S = 60.0

_CALLS = """
import asyncio, time
now = time.perf_counter
await asyncio.gather(*[tool(v=n) for n in range(45)])
single, batches = [], []
for _ in range(input):
    for n in range(20):
        began = now()
        await tool(v=n)
        single.append(now() - began)
    began = now()
    await asyncio.gather(*[tool(v=n) for n in range(45)])
    batches.append(now() - began)
output = {"single": single, "batches": batches}
"""
_COPY = """
import json, time
value = await big()
began = time.perf_counter()
json.loads(json.dumps(value).encode())
output = time.perf_counter() - began
"""
VALUES: dict[str, Callable[[], Any]] = {  # made when needed: in a heap of a million objects every collection is slow
    "text": lambda: "x" * SIZE,
    "records": lambda: [
        {"id": n, "name": f"employee {n}", "amount": n * 1.25, "tags": ["travel", "meals"]} for n in range(SIZE // 80)
    ],
}


class Bench:
    """A pool, and every way to use it, timed. Samples are seconds, by name."""

    def __init__(self, lab: Lab, quick: bool) -> None:
        self.lab, self.quick = lab, quick
        self.seen: dict[str, list[float]] = defaultdict(list)
        self.ids: set[str] = set()
        self.twice = 0
        self._jobs = itertools.count(1)

    def do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs on the pool's own loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.lab.loop).result(600)

    def _note(self, id: str) -> None:
        self.twice += id in self.ids
        self.ids.add(id)

    async def calm(self) -> None:
        """Until the pool is full and nothing of it is made or removed."""
        pool, until = self.lab.pool, time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if pool.ready and pool.ready >= pool._demand.target() and not pool._making and len(pool._all) == pool.ready:
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"the pool did not come to rest: {pool.ready} ready, {len(pool._all)} in all")

    # Executions

    async def fresh(self) -> None:
        """As many as are ready, one after the other."""
        await self.calm()
        for _ in range(self.lab.pool.ready):
            began = time.perf_counter()
            async with self.lab.pool.take() as sandbox:
                _right(await Session(sandbox.sock, _program(SNIPPET), limits=ProgramLimits(), call=_nothing).run())
                self.seen["fresh"].append(time.perf_counter() - began)
                self._note(sandbox.id)

    async def no_pool(self) -> None:
        await self.calm()
        maker, shape = self.lab.pool._maker, self.lab.pool._plain
        assert maker is not None
        began = time.perf_counter()
        container = await maker.make(shape)
        assert container.channel is not None
        _right(await Session(container.channel, _program(SNIPPET), limits=ProgramLimits(), call=_nothing).run())
        self.seen["no pool"].append(time.perf_counter() - began)
        self._note(container.id)
        await container.remove()
        self.seen["no pool, removed"].append(time.perf_counter() - began)

    async def reuse(self) -> None:
        await self.calm()
        job = f"job-{next(self._jobs)}"
        for n in range(40):
            began = time.perf_counter()
            await self._reused(job)
            if n:  # the first one is a fresh one
                self.seen["reuse"].append(time.perf_counter() - began)
        await self._forget()

    async def _reused(self, job: str) -> None:
        async with self.lab.pool.take(job=job, reuse=True) as sandbox:
            _right(await Session(sandbox.sock, _program(SNIPPET), limits=ProgramLimits(), call=_nothing).run())

    async def _forget(self) -> None:
        """Removes what jobs keep; the pool itself does so after some idle seconds."""
        for kept in self.lab.pool._jobs.values():
            for _, again in kept.idle:
                await self.lab.pool._remove(await again)
            kept.idle.clear()

    # Many at once

    async def sustained(self) -> None:
        await self.calm()
        count, pool = (8 if self.quick else 24), self.lab.pool
        began = time.perf_counter()

        async def one() -> None:
            async with pool.take() as sandbox:
                _right(await Session(sandbox.sock, _program(SNIPPET), limits=ProgramLimits(), call=_nothing).run())
                self._note(sandbox.id)

        await _at_once(one, count, MAKING)
        await self.calm()
        self.seen["sustained"].append((time.perf_counter() - began) / count)

    async def burst(self) -> None:
        await self.calm()
        job, count = f"job-{next(self._jobs)}", 100 if self.quick else 300
        await _at_once(lambda: self._reused(job), 8, 4)  # its containers
        began = time.perf_counter()
        await _at_once(lambda: self._reused(job), count, 4)
        self.seen["burst"].append((time.perf_counter() - began) / count)
        await self._forget()

    # The protocol

    async def _with_tools(self, code: str, input: Any, call: Callable[[ToolCall], Awaitable[Any]], *names: str) -> Ended:
        limits = ProgramLimits(calls=1_000, timeout_s=120)
        await self.calm()
        async with self.lab.pool.take(limits=limits) as sandbox:
            ended = await Session(sandbox.sock, _program(code, input, *names), limits=limits, call=call).run()
            self._note(sandbox.id)
        assert ended.status == "success", ended
        return ended

    async def calls(self) -> None:
        ended = await self._with_tools(_CALLS, 7 if self.quick else 14, _echo, "tool")
        self.seen["call"] += ended.value["single"]
        self.seen["45 calls"] += ended.value["batches"]

    async def bare(self) -> None:
        for name, echo in (("asyncio", asyncio_echo), ("blocking", blocking_echo)):
            await self.calm()
            async with self.lab.pool.take() as sandbox:
                self.seen[name] += await echo(sandbox.sock, 300)
                self._note(sandbox.id)

    async def large(self) -> None:
        for kind, make in VALUES.items():
            value = make()

            async def big(_: ToolCall, value: Any = value) -> Any:
                return value

            host = _host_copy(value)
            copied = await self._with_tools(_COPY, None, big, "big")
            self.seen[f"copy of {kind}"].append(host + copied.value)
            await self.calm()
            async with self.lab.pool.take() as sandbox:
                program = _program("output = await big()", None, "big")
                began = time.perf_counter()
                ended = await Session(sandbox.sock, program, limits=ProgramLimits(), call=big).run()
                self.seen[f"10 MB of {kind}"].append(time.perf_counter() - began)
            assert ended.value == value, ended


async def _at_once(work: Callable[[], Awaitable[None]], count: int, most: int) -> None:
    left = iter(range(count))

    async def go_on() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(go_on())


def _host_copy(value: Any) -> float:
    began = time.perf_counter()
    json.loads(json.dumps(value).encode())
    return time.perf_counter() - began


def _right(ended: Ended) -> None:
    assert ended.value == EXPECTED, ended


async def _nothing(call: ToolCall) -> Any:
    raise AssertionError(call)


async def _echo(call: ToolCall) -> Any:
    return call.arguments["v"]


def tool(v: int) -> int:
    """Gives it back."""
    return v


def big() -> Any:
    """10 MB."""


TOOLS = {f.__name__: definition(f.__name__, f) for f in (tool, big)}


def _program(code: str, input: Any = None, *names: str) -> Program:
    from orchestrator.catalog.render.stubs import StubGenerator

    tools = {name: TOOLS[name] for name in names}
    stubs = StubGenerator(tools.values())
    id = f"code_exec_{secrets.token_hex(4)}"
    return Program(code, input, tools, id, stubs.modules(), stubs.names())


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def report(bench: Bench, peer: Peer, load: tuple[float, float]) -> Report:
    """All figures, with the goals of the issue."""
    seen, made = bench.seen, Report("sandbox")
    p50 = {name: median(values) for name, values in seen.items()}
    p95 = {name: _p95(values) for name, values in seen.items()}
    run = p50["docker run"]
    scales = {name: (1e6, "us") if p50[name] < 1e-3 else (1e3, "ms") for name in seen}
    for name, (scale, unit) in scales.items():
        best = min(seen[name]) * scale
        made.add(f"{name} p50 (n={len(seen[name])})", p50[name] * scale, unit)
        made.add(f"{name} p95 (best {best:.3g})", p95[name] * scale, unit)
    made.add("docker run / fresh, p50", run / p50["fresh"], "x", 100, least=True)
    made.add("docker run / fresh, p95", p95["docker run"] / p95["fresh"], "x", 20, least=True)
    made.add("docker run p50 / fresh p95", run / p95["fresh"], "x")
    made.add("without pool / docker run", p50["no pool"] / run, "x", 1.2)
    made.add("without pool, removed / docker run", p50["no pool, removed"] / run, "x")
    made.add("docker run / reuse", run / p50["reuse"], "x", 40, least=True)
    serial = sum(seen["docker run"]) / len(seen["docker run"])
    made.add("docker run, serial loop", 1 / serial, "/s")
    made.add("fresh containers, sustained", 1 / p50["sustained"], "/s")
    made.add("  against the serial loop", serial / p50["sustained"], "x", 1.3, least=True)
    made.add("executions of one job, sustained", 1 / p50["burst"], "/s")
    made.add("  against the serial loop", serial / p50["burst"], "x", 25, least=True)
    made.add("tool call / bare round trip (asyncio)", p50["call"] / p50["asyncio"], "x", 2)
    made.add("tool call / bare round trip (blocking)", p50["call"] / p50["blocking"], "x")
    made.add(f"{BATCH} parallel calls / one", p50["45 calls"] / p50["call"], "x", 10)
    for kind in VALUES:
        ratio = median(a / b for a, b in zip(seen[f"10 MB of {kind}"], seen[f"copy of {kind}"], strict=True))
        made.add(f"10 MB of {kind} in and out / JSON copy", ratio, "x", 2)
    if peer.why_not:
        print(f"llm-sandbox is left out: {peer.why_not}", file=sys.stderr)
    else:
        made.add("llm-sandbox (warm session) / fresh", p50["llm-sandbox"] / p50["fresh"], "x")
    made.add(f"container ids seen twice, of {len(bench.ids)}", bench.twice, "", 0)
    made.add("load before", load[0], "")
    made.add("load after", load[1], "")
    return made


def main() -> None:
    """Runs it."""
    flags = options((__doc__ or "").partition("\n")[0])
    before = os.getloadavg()[0]
    with opened(sandbox_concurrency=16) as lab:
        bench, peer, docker = Bench(lab, flags.quick), Peer(BASE), DockerRun(IMAGE)
        try:
            bench.do(lambda: _at_once(lambda: _hold(lab), 6, 6))  # a burst, so that the pool keeps some
            ours = (bench.fresh, bench.no_pool, bench.reuse)
            for at in range(flags.rounds):
                for work in (*ours, bench.no_pool, bench.calls, bench.bare, bench.burst, *ours):
                    bench.do(work)
                    bench.do(bench.calm)
                    bench.seen["docker run"].append(docker.once())
                    if not peer.why_not:
                        bench.seen["llm-sandbox"].append(peer.once())
                for work in (bench.sustained, bench.large):
                    bench.do(work)
                    bench.do(bench.calm)
                    bench.seen["docker run"].append(docker.once())
                print(f"round {at + 1}/{flags.rounds}", file=sys.stderr, flush=True)
        finally:
            peer.close()
    report(bench, peer, (before, os.getloadavg()[0])).print(flags.json)


async def _hold(lab: Lab) -> None:
    async with lab.pool.take():
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
