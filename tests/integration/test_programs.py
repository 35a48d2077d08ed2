"""Programs in real containers on a real platform: their calls go through the queues and are recorded, answered again, stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.jobs.events import EventReader
from orchestrator.models.access import Limits, Policy
from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from orchestrator.policy.store import PolicyStore
from tests.integration.conftest import with_code
from tests.processes import Platform
from tests.support import wait_until

TOOLS = Path(__file__).parents[1] / "program_tools.py"

FAN = """
import asyncio
from tools.finance import get_expenses
from tools.hr import get_team_members

team = await get_team_members(count=input["count"])
found = await asyncio.gather(*[get_expenses(m["id"], wait_s=input.get("wait_s", 0)) for m in team])
print(f"{len(found)} people")
output = {"total": sum(f["total"] for f in found)}
"""


@pytest.fixture
def p(programs_platform: Platform) -> Platform:
    """The platform with a worker of the pool `code`, a new one when the test before ended it."""
    return with_code(programs_platform)


def program(code: str, tool: str = "run_program", **more: Any) -> dict[str, Any]:
    return {"id": "p", "tool": tool, "input": {"code": {"$literal": code}, **more}}


def ran(p: Platform, *steps: dict[str, Any], timeout: float = 60) -> Any:
    job = p.submit(list(steps))
    view = p.wait(job, timeout=timeout)
    assert view.status is JobStatus.SUCCEEDED, view.error
    return p.store.result(job).steps["p"]


def failed(p: Platform, *steps: dict[str, Any]) -> Any:
    job = p.submit(list(steps))
    view = p.wait(job)
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    return view.error


def notes(p: Platform, job: str) -> list[str]:
    return [row.decode() for row in p.client.lrange(f"test:{job}", 0, -1)]


def test_code_exec_gives_what_the_program_assigned(p: Platform) -> None:
    code = "output = {'total': sum(input['values'])}"
    assert ran(p, program(code, "code_exec", input_data={"values": [10, 20, 30]})) == {"total": 60}


def test_a_program_reads_earlier_steps_and_later_steps_read_it(p: Platform) -> None:
    first = {"id": "team", "tool": "get_team_members", "input": {"count": 3}}
    middle = program("output = [m['id'] for m in input]", "code_exec", input_data="step:team")
    last = {"id": "each", "tool": "get_expenses", "map": "step:p", "input": {"user_id": "item"}}
    job = p.submit([first, middle, last])
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert [e["user_id"] for e in p.store.result(job).steps["each"]] == ["emp_0", "emp_1", "emp_2"]


def test_a_record_has_exactly_the_fields_of_the_references(p: Platform) -> None:
    job = p.submit([program(FAN, input_data={"count": 45})])
    assert p.wait(job).status is JobStatus.SUCCEEDED
    record = p.store.result(job).steps["p"]
    assert set(record) == {
        "output", "result", "tool_calls", "execution_time", "execution_id", "error", "status", "usage", "errors",
        "traceback",
    }  # fmt: skip
    assert (record["output"], record["status"], record["error"]) == ("45 people\n", "success", None)
    assert record["result"] == {"total": sum(100 * len(f"emp_{n}") for n in range(45))}
    calls = record["tool_calls"]
    assert len(calls) == 46
    assert set(calls[0]) == {
        "tool", "type", "parameters", "timestamp", "completed_at", "duration", "result_size", "error", "caller",
    }  # fmt: skip
    assert calls[5]["caller"] == {"type": "code_execution", "execution_id": record["execution_id"], "tool_id": "tool_call_6"}
    assert record["usage"]["measured_by"] == "cgroup"
    assert record["usage"]["memory_peak"] > 1 << 20
    assert record["usage"]["cpu_s"] > 0


def test_each_call_is_a_call_of_the_ledger_with_its_caller(p: Platform) -> None:
    job = p.submit([program("output = await get_expenses('x')", "code_exec")])
    p.wait(job)
    calls = p.store.calls(job)
    assert [(c.call, c.tool, c.parent) for c in calls] == [("p#0", "code_exec", None), ("p.0.1#0", "get_expenses", "p#0")]
    caller = p.store.result(job).steps["p"]["caller"]
    assert caller["type"] == "code_execution"
    assert caller["execution_id"].startswith("code_exec_")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("await refuse('no money')", "refused: no money"),
        ("await for_plans_only()", "for_plans_only"),
        ("await get_expenses(user_id=5)", "user_id"),
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("import os", "SecurityError: Dangerous import detected: os"),
        ("await get_expense('x')", "get_expenses"),
        ("while True: pass", "ran longer than 2 s"),
        ("import sys; sys.exit(3)", "3"),
        ("x = bytearray(900_000_000)", "memory"),
    ],
    ids=lambda v: v[:24].replace(" ", "_"),
)
def test_what_goes_wrong_fails_the_step_and_says_why(p: Platform, code: str, said: str) -> None:
    error = failed(p, program(code, "code_exec", limits={"timeout_s": 2}))
    assert said.lower() in error.message.lower()
    assert error.next


def test_a_failed_program_may_be_returned_as_a_record(p: Platform) -> None:
    code = "import logging\nlogging.warning('careful')\nprint('before')\ndef f():\n    return 1 / 0\nf()"
    record = ran(p, program(code, on_failure="return"))
    assert record["errors"] == "WARNING:root:careful\n"
    assert "line 5, in f" in record["traceback"]
    assert (record["status"], record["output"]) == ("error", "before\n")
    assert record["error"].startswith("ZeroDivisionError")
    refused = ran(p, program("import os", on_failure="return"))
    assert refused["status"] == "security_error"
    assert refused["error"].startswith("SecurityError: Dangerous import detected: os")


def test_a_program_in_the_jobs_container_uses_it_again(p: Platform) -> None:
    steps = [
        {
            "id": "p",
            "tool": "run_program",
            "map": "input:xs",
            "input": {"code": "input_data * 2", "input_data": "item", "isolation": "job"},
        },
    ]
    job = p.submit(steps, inputs={"xs": list(range(12))})
    assert p.wait(job).status is JobStatus.SUCCEEDED
    records = p.store.result(job).steps["p"]
    assert [r["result"] for r in records] == [2 * n for n in range(12)]
    containers = {r["usage"]["container"] for r in records}
    assert len(containers) < 12
    fresh = ran(p, {"id": "p", "tool": "run_program", "input": {"code": "1"}})
    assert fresh["usage"]["container"] not in containers


def test_a_cancelled_program_takes_its_calls_with_it(p: Platform) -> None:
    code = "import asyncio\nawait asyncio.gather(*[get_expenses(str(n), wait_s=60) for n in range(5)])"
    job = p.submit([program(code)])
    wait_until(lambda: len(notes(p, job)) == 5, description="the calls run")
    container = wait_until(lambda: container_of(p, job), description="the program says where it runs")
    p.control.cancel(job)
    wait_until(lambda: container not in docker("ps", "-aq", "--no-trunc"), description="the container is removed", timeout=15)
    wait_until(lambda: "cancelled" in notes(p, job), description="its calls stop")


def test_what_a_program_does_not_wait_for_is_stopped(p: Platform) -> None:
    code = "import asyncio\nt = asyncio.create_task(get_expenses('x', wait_s=60))\nawait asyncio.sleep(0.3)\noutput = 1"
    job = p.submit([program(code, "code_exec")])
    assert p.wait(job, timeout=20).status is JobStatus.SUCCEEDED
    assert [c.state for c in p.store.calls(job)][1:] == ["cancelled"]


def test_after_the_worker_died_recorded_calls_are_not_made_again(p: Platform) -> None:
    code = """
import asyncio
first = await asyncio.gather(*[get_expenses(f"a{n}") for n in range(23)])
later = await asyncio.gather(*[get_expenses(f"b{n}", wait_s=3) for n in range(22)])
output = sum(x["total"] for x in first + later)
"""
    job = p.submit([program(code, "code_exec")])
    wait_until(lambda: len(notes(p, job)) == 45, description="all calls have begun", timeout=30)
    p.kill("code")
    p.start_again("code")
    assert p.wait(job, timeout=60).status is JobStatus.SUCCEEDED
    seen = notes(p, job)
    assert sorted(seen) == sorted(set(seen)), "nothing was called twice"
    assert len(seen) == 45
    assert next(c.attempt for c in p.store.calls(job)) == 2


def test_after_its_container_died_a_program_goes_on_from_its_record(p: Platform) -> None:
    code = """
import asyncio
first = await asyncio.gather(*[get_expenses(f"a{n}") for n in range(23)])
await asyncio.sleep(1.5)
later = await asyncio.gather(*[get_expenses(f"b{n}") for n in range(22)])
output = len(first + later)
"""
    job = p.submit([program(code, "run_program")])
    wait_until(lambda: len(notes(p, job)) == 23, description="the first calls were made", timeout=30)
    container = wait_until(lambda: container_of(p, job), description="the program says where it runs")
    docker("kill", container)
    assert p.wait(job, timeout=60).status is JobStatus.SUCCEEDED
    record = p.store.result(job).steps["p"]
    assert record["result"] == 45
    assert record["usage"]["container"] != container
    seen = notes(p, job)
    assert len(seen) == 45
    assert len(set(seen)) == 45


def container_of(p: Platform, job: str) -> str | None:
    events = EventReader(p.settings, p.client).read(job)
    return next((e.data["container"] for e in events if e.type == "log" and "container" in e.data), None)


def test_a_rerun_that_diverges_names_the_first_difference(p: Platform) -> None:
    code = """
import asyncio, time
await get_expenses(f"at {time.time_ns()}")
await asyncio.sleep(2)
"""
    job = p.submit([program(code, "code_exec")])
    wait_until(lambda: len(notes(p, job)) == 1, description="the call was made", timeout=30)
    wait_until(lambda: p.store.calls(job)[1].state == "succeeded", description="and answered")
    docker("kill", wait_until(lambda: container_of(p, job), description="the program says where it runs"))
    view = p.wait(job, timeout=60)
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    assert view.error.code == "diverged"
    assert "get_expenses(user_id='at " in view.error.message
    assert view.error.message.count("get_expenses(") == 2
    assert len(notes(p, job)) == 1


def test_a_payment_that_may_have_happened_waits_for_a_person(p: Platform) -> None:
    job = p.submit([program("output = await pay(7, wait_s=30)", "code_exec")])
    wait_until(lambda: notes(p, job) == ["paid 7"], description="the payment begins", timeout=30)
    p.restart("aio")
    wait_until(lambda: p.store.status(job) is JobStatus.WAITING, description="the job waits", timeout=30)
    unknown = [c.call for c in p.store.view(job).unknown]
    assert unknown == ["p#0", "p.0.1#0"]
    p.control.resolve(job, "p.0.1#0", happened=True, result=7)
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert p.store.result(job).steps["p"] == 7
    assert notes(p, job) == ["paid 7"]


def test_a_tool_that_the_job_may_not_use_is_refused_to_its_program(p: Platform) -> None:
    record = ran(p, program("await wipe()", on_failure="return"))
    assert record["status"] == "error"
    assert "Permission denied: delete not allowed" in record["error"]


def docker(*words: str) -> str:
    return subprocess.run(("docker", *words), capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def test_programs_beyond_the_rate_of_a_key_wait_and_say_so(p: Platform) -> None:
    PolicyStore(p.client, p.settings).put("rated", Policy(limits=Limits(user_jobs_per_hour=1)))
    each = {**program("output = input", "code_exec", input_data="item"), "map": "input:numbers"}
    made = Plan.model_validate({"steps": [each]})
    job, _ = p.control.accept(made, inputs={"numbers": [1, 2, 3]}, tenant="rated", caller="k1 alice")

    def said() -> list[str]:
        events = EventReader(p.settings, p.client).read(job)
        return [str(e.data.get("message")) for e in events if e.type == "log"]

    def succeeded() -> int:
        return sum(c.state == "succeeded" for c in p.store.calls(job, tenant="rated"))

    wait_until(lambda: any("a program waits: This key may start 1 jobs" in s for s in said()), description="it says why it waits")
    wait_until(lambda: succeeded() == 2, description="the job stands for one program, and the rate lets one more run")
    assert p.store.status(job, tenant="rated") is JobStatus.RUNNING, "what waits does not fail"
    p.control.cancel(job, tenant="rated")
