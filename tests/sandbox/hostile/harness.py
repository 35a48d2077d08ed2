"""Runs hostile programs in the real container, some at a time, beside a job whose secrets they must not find."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from orchestrator.models.program import ProgramLimits, ProgramResult
from tests.sandbox.hostile.program import CANARY, PRELUDE, Hostile
from tests.sandbox.hostile.toolbox import Toolbox
from tests.sandbox.lab import Lab

AT_ONCE = 4
VICTIM = "kept = await vault()\nmine = input_data['secret']\nwhile True:\n    await asyncio.sleep(0.05)\n"


def canary() -> str:
    """A secret that no program can guess."""
    return CANARY + secrets.token_hex(8)


@dataclass(slots=True)
class Outcome:
    """What came of one hostile program: its results in order, and what its tools saw."""

    results: list[ProgramResult] = field(default_factory=list)
    toolboxes: list[Toolbox] = field(default_factory=list)
    problem: str | None = None


class Secrets:
    """What is planted on the host: a variable, a file, a server on every address, and the values of another job."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "planted-secret"
        self.file.write_text(canary())
        self.other_job = canary()
        os.environ["TOOLWEAVER_TEST_PLANTED"] = canary()
        self.visits = 0
        self._server = socket.create_server(("0.0.0.0", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("TOOLWEAVER_TEST_PLANTED", None)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._server.accept()
                self.visits += 1
                end.sendall(canary().encode())
                end.close()

    def known(self) -> dict[str, Any]:
        """What an attacker may know: where things are, never what they say."""
        addresses = {"127.0.0.1", *_own_addresses()}
        return {"host_file": str(self.file), "addresses": sorted(addresses), "port": self._server.getsockname()[1]}


def _own_addresses() -> Iterator[str]:
    text = Path("/proc/net/fib_trie").read_text()
    yield from re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text)


async def run_all(lab: Lab, programs: Iterable[Hostile], planted: Secrets) -> dict[str, Outcome]:
    """Every program's outcome, by name; a few run at once."""
    turns = asyncio.Semaphore(AT_ONCE)
    outcomes: dict[str, Outcome] = {}

    async def one(program: Hostile) -> None:
        async with turns:
            outcomes[program.name] = await run_one(lab, program, planted)

    async with _victim(lab, planted):
        await asyncio.gather(*(one(program) for program in programs))
    await asyncio.sleep(0.2)  # a tool that would still be called is called now
    return outcomes


async def run_one(lab: Lab, program: Hostile, planted: Secrets) -> Outcome:
    """One program, and what follows it or runs beside it."""
    outcome = Outcome()
    try:
        if program.beside is not None:
            await _pair(lab, program, planted, outcome)
        else:
            job = f"hostile-{program.name}"
            for n, text in enumerate(program.texts()):
                await _execute(lab, program, planted, outcome, code=text, job=job if program.same_job else f"{job}-{n}")
    except Exception as error:  # the promise is that a program never does this to its caller
        outcome.problem = f"{type(error).__name__}: {error}"
    return outcome


async def _execute(
    lab: Lab, program: Hostile, planted: Secrets, outcome: Outcome, *, code: str, job: str, toolbox: Toolbox | None = None
) -> None:
    toolbox = toolbox or Toolbox(planted.other_job)
    outcome.toolboxes.append(toolbox)
    result = await lab.run(
        code,
        tools=toolbox.grant(program.tools),
        input_data=planted.known(),
        limits=program.bounds(),
        job=job,
        reuse=program.same_job,
    )
    toolbox.ended = True
    outcome.results.append(_slim(result))


def _slim(result: ProgramResult) -> ProgramResult:
    """Without a very large value, so that what the process holds is the product's: of a list or text only the first part."""
    if isinstance(result.result, (list, str)) and len(result.result) > 10_000:
        return result.model_copy(update={"result": result.result[:10_000]})
    return result


async def _pair(lab: Lab, program: Hostile, planted: Secrets, outcome: Outcome) -> None:
    toolbox = Toolbox(planted.other_job)
    (holder,) = program.texts()
    held = asyncio.ensure_future(_execute(lab, program, planted, outcome, code=holder, job="holder", toolbox=toolbox))
    armed = asyncio.ensure_future(toolbox.is_armed.wait())
    await asyncio.wait({held, armed}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    armed.cancel()
    if not toolbox.is_armed.is_set():
        outcome.problem = "the program never held anything: the one beside it was not run"
    else:
        await _execute(lab, program, planted, outcome, code=PRELUDE + (program.beside or ""), job="finder")
    await held


@contextlib.asynccontextmanager
async def _victim(lab: Lab, planted: Secrets) -> AsyncIterator[None]:
    """Another job in a container of its own, that holds secrets as long as hostile programs run."""
    limits = ProgramLimits(timeout_s=600)
    tools = Toolbox(planted.other_job).grant(("vault",))
    running = asyncio.ensure_future(
        lab.run(VICTIM, tools=tools, input_data={"secret": planted.other_job}, limits=limits, job="victim")
    )
    try:
        yield
        assert not running.done(), f"the job beside was hurt: {running.result()}"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def memory() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """The most memory that this process ever held while it ran, sampled a hundred times a second."""

    def __init__(self) -> None:
        self.before, self.peak = memory(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, memory())


PROBE = """
import json, sys, threading, time
took, stop = [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    began = time.perf_counter()
    sum(i * i for i in range(60_000))
    took.append(time.perf_counter() - began)
    time.sleep(0.005)
print(json.dumps(took))
"""


class Neighbour:
    """A process on the host that does a little work again and again, and measures how long it takes."""

    async def p95(self, work: Any) -> float:
        """The 95th percentile in seconds of its work while `work` is awaited."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROBE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            await work
        finally:
            out, _ = await process.communicate(b"")
        took = sorted(json.loads(out))
        return float(took[int(len(took) * 0.95)])
