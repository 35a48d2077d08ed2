"""Hostile programs in the real container: none gets out, learns a secret, stays, or hurts anybody. HOSTILE=all runs every variant.

The programs are given to the container as they are, past the check that would refuse most of them: the container is the wall.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.models.program import KIB, MIB, ProgramResult
from tests.sandbox.hostile import PROGRAMS, quick
from tests.sandbox.hostile.harness import Neighbour, Outcome, Secrets, Watch, descriptors, memory, run_all, run_one
from tests.sandbox.hostile.program import CANARY, PRELUDE, Hostile
from tests.sandbox.lab import Lab
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.xdist_group("hostile")]

CHOSEN = PROGRAMS if os.environ.get("HOSTILE") == "all" else quick()
GRACE_S = 3.0
GONE_S = 2.0
GROWTH = 64 * MIB
ROUNDS = 5  # a bomb that is not held slows a neighbour in each; other tests beside this one do not
BOMBS = ("fork_bomb", "memory_of_many_processes", "spin_in_c_threads", "tmp_of_many_files", "stdout_flood")
SECRET = re.compile(CANARY + "[0-9a-f]{16}")
FAR = 32 * MIB
CLUMSY = re.compile(
    r"^(NameError|TypeError|AttributeError|SyntaxError|IndentationError|UnboundLocalError|LookupError|ImportError)\b"
)


@dataclass(slots=True)
class Batch:
    """All outcomes, and what the host looked like before and after."""

    outcomes: dict[str, Outcome]
    visits: int
    growth: int
    peak: int
    more_descriptors: int
    left: list[str]


@pytest.fixture(scope="module")
def batch(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    """Every program was run once, some at a time."""
    with Secrets(tmp_path_factory.mktemp("planted")) as planted:
        asyncio.run(run_all(lab, CHOSEN[:3], planted))  # what is loaded once is loaded
        files = _descriptors(lab)
        with Watch() as watch:
            outcomes = asyncio.run(run_all(lab, CHOSEN, planted))
        left = _left(lab)
        gc.collect()
        yield Batch(outcomes, planted.visits, memory() - watch.before, watch.peak - watch.before, _descriptors(lab) - files, left)


def _descriptors(lab: Lab) -> int:
    """Those of this process, but for the two lines to each container of the pool, which may be larger or smaller than before."""
    return descriptors() - 2 * (lab.pool.ready + len(lab.pool.held))


def _left(lab: Lab) -> list[str]:
    try:
        wait_until(lambda: not lab.leftovers(), description="containers, processes and files are gone", timeout=GONE_S)
    except AssertionError:
        return lab.leftovers()
    return []


@pytest.mark.parametrize("program", CHOSEN, ids=lambda program: f"{program.area}-{program.name}")
def test_a_hostile_program_gets_nowhere(batch: Batch, program: Hostile) -> None:
    outcome = batch.outcomes[program.name]
    assert outcome.problem is None
    assert _breaches(outcome) == []
    assert not SECRET.search(_everything(outcome)), f"a planted secret came out: {SECRET.findall(_everything(outcome))}"
    for result in outcome.results:
        _check_result(program, result)
    for toolbox in outcome.toolboxes:
        assert (toolbox.late, toolbox.running, toolbox.paid) == (0, 0, []), "a tool ran after the end, or against its schema"
        assert toolbox.invoked <= program.bounds().calls
        assert toolbox.peak <= program.bounds().in_flight
    _check_held(program, outcome)
    if program.value is not ...:
        assert outcome.results[-1].result == program.value


def _check_held(program: Hostile, outcome: Outcome) -> None:
    told = [(r.status, r.error, r.output[-300:]) for r in outcome.results]
    if program.beside is not None:
        assert "HELD" in outcome.results[0].output, told
    if program.held:
        due = ["held()" in text.removeprefix(PRELUDE) for text in program.texts()]
        assert all("HELD" in result.output for result, is_due in zip(outcome.results, due, strict=True) if is_due), told


def _breaches(outcome: Outcome) -> list[str]:
    printed = [line for result in outcome.results for line in result.output.splitlines() if "BREACH" in line]
    return printed + [f"value {result.result}" for result in outcome.results if result.result == "BREACH"]


def _everything(outcome: Outcome) -> str:
    return "".join(repr(result) for result in outcome.results)


def _check_result(program: Hostile, result: ProgramResult) -> None:
    limits = program.bounds()
    assert result.status in program.status, result.error
    assert result.execution_time <= limits.timeout_s + GRACE_S
    assert program.area != "forgery" or not CLUMSY.match(result.error or ""), "the attack fell over its own feet"
    assert _is_plain(result.result), "a value is plain JSON"
    assert len(json.dumps(result.result)) <= FAR
    assert len(result.output.encode()) <= limits.output_bytes + KIB
    assert len((result.error or "").encode()) <= 64 * KIB
    for record in result.tool_calls:
        assert record.tool in program.tools or record.error is not None
        assert (record.caller.type, record.caller.execution_id) == ("code_execution", result.execution_id)
        assert record.timestamp > 1e9
        assert (record.duration or 0) >= 0
        assert (record.result_size or 0) >= 0
        assert _is_plain(record.parameters)


def _is_plain(value: Any) -> bool:
    """Only what JSON has, in exactly Python's own types, without what UTF-8 or JSON cannot say."""
    rest = [value]
    while rest:
        part = rest.pop()
        if type(part) is dict:
            rest += part.keys()
            rest += part.values()
        elif type(part) is list:
            rest += part
        elif type(part) is str:
            part.encode()  # half a pair of UTF-16 cannot be stored anywhere
        elif type(part) is float:
            if not math.isfinite(part):
                return False
        elif part is not None and type(part) not in (bool, int):
            return False
    return True


def test_nobody_reached_the_host(batch: Batch) -> None:
    assert batch.visits == 0


def test_nothing_is_left(batch: Batch) -> None:
    assert batch.left == []


def test_the_orchestrating_process_stays_small(batch: Batch) -> None:
    assert batch.growth < GROWTH, f"it grew by {batch.growth >> 20} MiB (at most {batch.peak >> 20})"
    assert batch.more_descriptors <= 8


def test_tools_in_flight_were_cancelled(batch: Batch) -> None:
    used = [toolbox for outcome in batch.outcomes.values() for toolbox in outcome.toolboxes]
    assert max(toolbox.peak for toolbox in used) > 32, "no program ever had many calls in flight: nothing was shown"
    assert sum(toolbox.running for toolbox in used) == 0


@pytest.mark.long
def test_a_neighbour_feels_little_of_bombs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One bomb at a time, each on its one core of the machine's. Quiet or not is measured anew while other processes are noisy."""
    bombs = [program for program in PROGRAMS if program.name in BOMBS]
    assert len(bombs) == len(BOMBS)
    measured = []
    with Secrets(tmp_path_factory.mktemp("neighbour")) as planted:
        for _ in range(ROUNDS):
            quiet, during = asyncio.run(_p95(lab, bombs, planted))
            measured.append(f"{quiet * 1e3:.1f} -> {during * 1e3:.1f} ms")
            if during <= 2 * quiet:
                return
    pytest.fail(f"a neighbour's p95 more than doubled, every time: {measured}")


async def _p95(lab: Lab, bombs: list[Hostile], planted: Secrets) -> tuple[float, float]:
    async def drop() -> None:
        for bomb in bombs:
            await run_one(lab, bomb, planted)

    quiet = await Neighbour().p95(asyncio.sleep(3))
    return quiet, await Neighbour().p95(drop())
