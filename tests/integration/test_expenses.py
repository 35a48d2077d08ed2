"""The expense program of `examples/expenses` on real pools, the programs of the documents, and what the benchmark counts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.programs import NAMES, Cost, Way, cost, shown, work
from examples.expenses import tools
from examples.expenses.plan import HERE, plan
from orchestrator.errors import BackendError
from orchestrator.jobs.events import EventReader
from orchestrator.models.job import JobStatus
from tests.integration.test_docs import BLOCKS
from tests.processes import Platform, platform
from tests.sandbox.lab import IMAGE, prepare

pytestmark = pytest.mark.integration

PROGRAMS = [b for b in BLOCKS if b.language == "python" and b.info.startswith("norun (a program;")]
SCRIPTS = [b for b in BLOCKS if b.language == "python" and b.info.startswith("norun (it needs Docker; tests run it")]


@pytest.fixture(scope="module")
def p() -> Iterator[Platform]:
    """The pools of the plan; a call takes up to half a second."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")
    with platform(tools=str(HERE / "tools.py"), sandbox_image=IMAGE) as running:
        running.env["EXPENSES_LATENCY_S"] = "0.5"
        running.start_planner()
        for pool, slots in (("function", 1), ("async", 100), ("code", 2)):
            running.start_worker(pool, pool=pool, concurrency=slots)
            running.wait_announced(pool)
        running.start_api()
        yield running


def expected(quarter: tools.Quarter) -> dict[str, Any]:
    """The same answer without program, container and calls."""
    team = asyncio.run(tools.get_team_members())
    spent: dict[str, dict[str, float]] = {m.name: defaultdict(float) for m in team}
    for member in team:
        for expense in asyncio.run(tools.get_expenses(member.id, quarter)).expenses:
            spent[member.name][expense.category] += expense.amount
    over = {m.name: round(spent[m.name]["travel"], 2) for m in team if spent[m.name]["travel"] > tools.TRAVEL_BUDGETS[m.level]}
    return {"over": over, "totals": {c: round(sum(by[c] for by in spent.values()), 2) for c in sorted(tools.SPENT_ON)}}


def test_the_plan_holds_the_program() -> None:
    kept = json.loads((HERE / "plan.json").read_text())
    assert kept == plan(), "run `python examples/expenses/plan.py`"


@pytest.mark.parametrize("quarter", ["Q3", "Q1"])
def test_the_answer_is_that_of_a_plain_loop(p: Platform, quarter: tools.Quarter) -> None:
    answer = _ran(p, plan() | {"inputs": {"quarter": quarter}})[1]["expenses"]
    want = expected(quarter)
    assert {person["name"]: person["spent"] for person in answer["over_travel_budget"]} == want["over"]
    assert answer["totals"] == want["totals"]
    assert want["over"], "somebody spent too much, or the example shows nothing"


def test_46_calls_run_in_their_pools_at_the_same_time(p: Platform) -> None:
    job, _ = _ran(p, plan())
    calls = [c for c in p.store.calls(job, limit=100) if c.parent is not None]
    assert Counter(c.tool for c in calls) == {"get_expenses": 45, "get_team_members": 1}
    assert {c.parent for c in calls} == {"expenses#0"}
    seconds = _seconds(p, job)
    assert len(seconds) == 46
    view = p.store.view(job)
    assert view.started_at is not None
    assert view.finished_at is not None
    assert (view.finished_at - view.started_at).total_seconds() < sum(seconds) / 4


def test_a_person_who_left_is_an_error_that_a_program_can_catch(p: Platform) -> None:
    code = "try:\n    await get_expenses('u99')\nexcept ToolError as error:\n    output = [error.code, str(error)]"
    value = _ran(p, {"steps": [{"id": "p", "tool": "code_exec", "input": {"code": code}}]})[1]["p"]
    assert value == ["not_found", "there is no `u99` Take an `id` that `get_team_members` gives."]


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in PROGRAMS])
def test_a_program_of_the_documents_runs(p: Platform, block: Any) -> None:
    step = {"id": "p", "tool": "code_exec", "input": {"code": {"$literal": block.text}, "input_data": {"quarter": "Q3"}}}
    assert _ran(p, {"steps": [step]})[1]["p"]


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in SCRIPTS])
def test_a_script_of_the_documents_runs(p: Platform, block: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(block.text)
    env = p.env | {"TOOLWEAVER_URL": f"http://127.0.0.1:{p.env['TOOLWEAVER_API_PORT']}"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=90)
    assert done.stdout == block.output, done.stderr


def test_the_documents_show_programs() -> None:
    assert (len(PROGRAMS), len(SCRIPTS)) == (2, 2)


def test_every_turn_reads_all_before_it() -> None:
    way = Way("aaaa", [("b", "cc"), ("d", "ee")], "f")
    assert cost(way, len) == Cost(turns=3, read=4 + 7 + 10, written=3, most=10)


def test_what_is_counted_is_what_the_calls_give(p: Platform) -> None:
    text = json.dumps(plan()).replace('"code_exec"', '"run_program"')
    record = _ran(p, json.loads(text))[1]["expenses"]
    done = asyncio.run(work(stubs=shown(), printed=record["output"], answer=record["result"]))
    assert [c["tool"] for c in record["tool_calls"]] == [NAMES[0]] + [NAMES[1]] * 45
    assert [c["result_size"] for c in record["tool_calls"]] == [len(gets.encode()) for _, gets in [done.team, *done.reports]]
    ways = {name: cost(way, len) for name, way in done.ways().items()}
    assert (ways["one_by_one"].turns, ways["at_once"].turns, ways["program"].turns) == (47, 3, 2)
    assert ways["one_by_one"].most > 45 * 7_000
    assert ways["program"].both < ways["at_once"].both / 20 < ways["one_by_one"].both / 400


def _ran(p: Platform, made: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    job = p.submit(made["steps"], inputs=made.get("inputs", {}))
    view = p.wait(job, timeout=60)
    assert view.status is JobStatus.SUCCEEDED, view.error
    return job, p.store.result(job).steps


def _seconds(p: Platform, job: str) -> list[float]:
    """How long each call of the program ran."""
    began, took = {}, []
    for event in EventReader(p.settings, p.client).read(job):
        if "parent" in event.data and event.type == "call.running":
            began[event.call] = event.ts
        elif event.type == "call.succeeded" and event.call in began:
            took.append((event.ts - began[event.call]).total_seconds())
    return took
