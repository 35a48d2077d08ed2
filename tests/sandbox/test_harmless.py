"""Harmless programs run: none is refused by the check, and each does in the container what it does in plain Python."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.models.program import ProgramResult
from orchestrator.models.tool import ToolDefinition
from orchestrator.programmatic_executor.check import check_program
from tests.sandbox import lab as laboratory
from tests.sandbox.harmless import AREAS, PROGRAMS
from tests.sandbox.harmless.case import Harmless
from tests.sandbox.harmless.compare import differences
from tests.sandbox.harmless.tools import domain_of, tools_for
from tests.sandbox.lab import Lab

AT_ONCE = 4
FRESH = 24
"""So many programs get a container of their own, some of each area; the others share a few, a process each."""


def definition(name: str, function: Callable[..., Any]) -> ToolDefinition:
    """The tool, in its domain."""
    registry = ToolRegistry()
    register_function(name, domain=domain_of(name), effect="none", registry=registry)(function)
    (made,) = registry.definitions()
    return made


@pytest.fixture(scope="module", autouse=True)
def _domains() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "definition", definition)
        yield


def in_turn() -> list[Harmless]:
    """All programs, one of each area after the other."""
    by_area = [[p for p in PROGRAMS if p.area == area] for area in AREAS]
    return [p for turn in itertools.zip_longest(*by_area) for p in turn if p]


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(PROGRAMS) >= 110
    assert len({p.name for p in PROGRAMS}) == len(PROGRAMS)
    assert {p.area for p in PROGRAMS} == set(AREAS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: f"{p.area}-{p.name}")
def test_the_check_lets_it_through(program: Harmless) -> None:
    tools = tools_for(program.tools)
    check_program(program.code, tools={name: definition(name, tool) for name, tool in tools.items()})


async def test_they_run_in_fresh_containers(lab: Lab) -> None:
    wrong = await run_all(lab, in_turn()[:FRESH], lambda _: {})
    assert not wrong, report(wrong)


async def test_they_run_after_one_another_in_the_container_of_a_job(lab: Lab) -> None:
    wrong = await run_all(lab, in_turn()[FRESH:], lambda lane: {"job": f"harmless-{lane}", "reuse": True})
    assert not wrong, report(wrong)


async def run_all(lab: Lab, programs: list[Harmless], how: Callable[[int], dict[str, Any]]) -> dict[str, list[str]]:
    """What differs, by program; several run at once."""
    wrong: dict[str, list[str]] = {}
    waiting = iter(programs)

    async def run_lane(lane: int) -> None:
        for program in waiting:
            if said := await run(lab, program, how(lane)):
                wrong[f"{program.area}/{program.name}"] = said

    await asyncio.gather(*map(run_lane, range(AT_ONCE)))
    return wrong


async def run(lab: Lab, program: Harmless, how: dict[str, Any]) -> list[str]:
    """What differs."""
    result = await lab.run(program.code, tools=tools_for(program.tools), input_data=program.input_data, **how)
    return judge(program, result)


def judge(program: Harmless, result: ProgramResult) -> list[str]:
    """What came of it, against what should have."""
    if result.status != "success" or result.error:
        return [f"{result.status}: {result.error}", f"printed {result.output!r}"]
    calls = [(c.tool, c.parameters) for c in result.tool_calls]
    return differences(program, result.result, result.output, calls)


def report(wrong: dict[str, list[str]]) -> str:
    """The failures, to be read."""
    return "\n".join(f"{name}: {line}" for name, lines in wrong.items() for line in lines)
