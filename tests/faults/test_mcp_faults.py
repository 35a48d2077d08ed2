"""Servers of tools, and the worker that holds their sessions, die or misbehave in the middle of calls."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.models.job import JobStatus, JobView
from orchestrator.policy.breaker import Breakers
from orchestrator.state.keys import mcp_answer
from tests.mcp_lab import Lab, lab
from tests.services import free_port
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
EAGER = {"retry": {"max": 20, "backoff_s": 0.1, "max_backoff_s": 2.0}}
NEVER = {"retry": {"max": 0}}


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    with lab(lease_s=1.5, reconcile_s=0.2, breaker_open_s=1.5, proxied=True) as made:
        made.write(lab=made.own(), other=made.own())
        made.start_worker("one", LAB_PYTHON=sys.executable)
        made.wait_up("lab", "other")
        yield made


@pytest.fixture
def at(running: Lab) -> Lab:
    """The lab with its worker, a new one when the test before ended it."""
    if "one" not in running.p.processes:
        running.start_worker("one", LAB_PYTHON=sys.executable)
    for file in (running.notes_file, running.hangs, running.forgets):
        file.unlink(missing_ok=True)
    wait_until(lambda: running.value("lab.echo", text="well", step=EAGER) == "well", description="the server is well")
    return running


def many(at: Lab, tool: str, count: int, *, step: dict[str, Any] | None = None, **input: Any) -> str:
    """A job that maps one tool over keys."""
    made = {"id": "s", "tool": tool, "input": {"key": "item", **input}, "map": "input:xs", **(step or EAGER)}
    return at.p.submit([made], inputs={"xs": [f"{tool}-{n}" for n in range(count)]})


def server_of(at: Lab, note: str) -> int:
    """The process of the server that wrote a note."""
    line = next(line for line in reversed(at.notes_file.read_text().splitlines()) if note in line)
    return int(line.split()[0])


def settle(at: Lab, job: str) -> JobView:
    """A job that ended, or waits for somebody to say what happened."""
    wait_until(
        lambda: at.p.store.status(job).final or at.p.store.status(job) is JobStatus.WAITING,
        description=f"{job} settles",
        timeout=30,
    )
    return at.p.store.view(job)


@pytest.mark.parametrize(
    ("tool", "ends"), [("read", JobStatus.SUCCEEDED), ("put", JobStatus.SUCCEEDED), ("pay", JobStatus.WAITING)]
)
def test_a_server_killed_in_the_middle_of_a_call(at: Lab, tool: str, ends: JobStatus) -> None:
    job = at.submit(f"lab.{tool}", key="k", wait=1.0, step=EAGER)
    wait_until(lambda: at.notes(tool, "k"), description="the call is there")
    os.kill(server_of(at, f"{tool} k"), signal.SIGKILL)

    assert settle(at, job).status is ends
    if tool == "pay":
        assert at.notes("pay", "k") == [["pay", "k"]], "what happens once is not repeated silently"
        call = at.p.store.calls(job)[0]
        assert call.state == "unknown"
        at.p.control.cancel(job)
    else:
        assert at.p.store.calls(job)[0].attempt >= 2
        assert len(at.notes(tool, "k")) >= 2
    assert at.value("other.echo", text="unaffected") == "unaffected"


def test_a_server_that_ends_by_itself_is_started_again(at: Lab) -> None:
    once = at.p.folder / "died"
    assert at.value("lab.die", on=str(once), step=EAGER) == "alive"
    assert len(at.notes("started")) >= 1


def test_calls_that_come_while_a_server_starts_wait_for_it(at: Lab) -> None:
    at.value("lab.read", key="where")
    at.p.look_from_here()
    os.kill(server_of(at, "read where"), signal.SIGKILL)
    wait_until(lambda: at.p.said("was ended by SIGKILL"), description="it is missed")
    assert at.value("lab.read", key="next", step=NEVER) == "read next", "at the first try"


@pytest.mark.chaos
@pytest.mark.long
def test_a_server_that_is_away_for_a_while_costs_no_call_a_try(at: Lab) -> None:
    gate = at.p.folder / "gate"
    gate.touch()
    own = at.own()
    shell = f'test -e {gate} && exec "$0" "$@"'
    at.write(away=own | {"command": "sh", "args": ["-c", shell, own["command"], *own["args"]]})
    at.wait_up("away")
    at.value("away.read", key="before")
    gate.unlink()
    os.kill(server_of(at, "read before"), signal.SIGKILL)
    wait_until(lambda: (s := at.state("away")) and s.state == "down", description="it is missed", timeout=20)
    job = at.submit("away.pay", key="after", step=NEVER)
    wait_until(lambda: (c := at.p.store.calls(job)) and c[0].attempt >= 2, description="it was put back", timeout=30)
    gate.touch()
    assert settle(at, job).status is JobStatus.SUCCEEDED
    assert at.notes("pay", "after") == [["pay", "after"]]
    at.write(away=None)


def test_noise_on_stdout_is_passed_over(at: Lab) -> None:
    assert at.value("lab.noise", lines=50) == "loud"
    assert at.value("lab.echo", text="clear") == "clear"


def test_an_answer_that_was_not_committed_is_remembered(at: Lab) -> None:
    """The worker is killed between the server's answer and the commit: the next attempt takes the answer that was kept."""
    job = at.submit("lab.put", key="remembered", wait=1.0, step=EAGER)
    wait_until(lambda: at.notes("put", "remembered"), description="the call is there")
    servers = at.pids("one")
    at.p.proxies["redis"].delay(0.25)
    key = mcp_answer(f"{job}/s#0")
    wait_until(lambda: at.p.client.exists(key), description="the answer is kept", every=0.005)
    os.kill(at.p.processes["one"].pid, signal.SIGKILL)
    at.p.processes.pop("one").wait()
    at.p.proxies["redis"].delay(0)
    assert not at.p.store.status(job).final, "it was killed before its commit"
    wait_until(lambda: not any(map(psutil.pid_exists, servers)), description="its servers went with it", timeout=5)

    at.start_worker("one", LAB_PYTHON=sys.executable)
    assert at.p.wait(job).status is JobStatus.SUCCEEDED
    assert at.p.store.result(job).steps["s"] == "put remembered"
    assert at.p.store.calls(job)[0].attempt >= 2
    assert at.notes("put", "remembered") == [["put", "remembered"]], "it was done once"


def test_a_killed_worker_does_nothing_twice_that_must_happen_once(at: Lab) -> None:
    pays, reads = many(at, "lab.pay", 6, wait=0.6), many(at, "lab.read", 6, wait=0.6)
    wait_until(lambda: len(at.notes("pay")) == 6, description="all are there")
    servers = at.pids("one")
    os.kill(at.p.processes["one"].pid, signal.SIGKILL)
    at.p.processes.pop("one").wait()
    wait_until(lambda: not any(map(psutil.pid_exists, servers)), description="no server is left behind", timeout=5)

    at.start_worker("one", LAB_PYTHON=sys.executable)
    assert at.p.wait(reads).status is JobStatus.SUCCEEDED
    assert settle(at, pays).status is JobStatus.WAITING
    assert {c.state for c in at.p.store.calls(pays)} == {"unknown"}
    assert max(Counter(map(tuple, at.notes("pay"))).values()) == 1
    at.p.control.cancel(pays)


def test_a_server_that_hangs_is_left_alone_and_tried_again(at: Lab) -> None:
    at.write(brief=at.own(timeout_s=1.0))
    at.wait_up("brief")
    breakers = Breakers(at.p.client, at.p.settings)
    at.hangs.touch()
    hung = at.p.submit(
        [{"id": "s", "tool": "brief.echo", "input": {"text": "item"}, "map": "input:xs", "on_error": "continue", **NEVER}],
        inputs={"xs": ["a", "b", "c", "d", "e"]},
    )
    at.p.wait(hung)
    wait_until(lambda: breakers.state("mcp:brief.echo") == "OPEN", description="the circuit opens", timeout=10, every=0.01)
    begun = time.monotonic()
    refused = at.p.wait(at.submit("brief.echo", text="x", step=NEVER)).error
    assert refused is not None
    assert refused.code == "circuit_open"
    assert time.monotonic() - begun < 1.0
    assert at.value("other.total", values=[1]) == {"total": 1.0, "terms": 1}, "others are not affected"

    at.hangs.unlink()
    wait_until(lambda: at.call("brief.echo", text="x").error is None, description="it is tried and well again", timeout=20)
    wait_until(lambda: breakers.state("mcp:brief.echo") == "CLOSED", description="the circuit closes")
    at.write(brief=None)


def test_a_server_by_http_restarts_under_load(at: Lab) -> None:
    port = free_port()
    at.write(web=at.start_http("web", port))
    at.wait_up("web")
    reads, pays = many(at, "web.read", 30, wait=0.3), many(at, "web.pay", 10, wait=0.3)
    wait_until(lambda: len(at.notes("read")) >= 5 and at.notes("pay"), description="some run")
    at.p.kill("web")
    at.start_http("web", port)

    assert at.p.wait(reads).status is JobStatus.SUCCEEDED
    settle(at, pays)
    states = Counter(c.state for c in at.p.store.calls(pays))
    assert states.keys() <= {"succeeded", "unknown"}, states
    assert max(Counter(map(tuple, at.notes("pay"))).values()) == 1
    at.p.control.cancel(pays)
    at.p.kill("web")
    at.write(web=None)


def test_a_session_that_a_server_forgot_is_made_anew_and_the_call_goes_on(at: Lab) -> None:
    at.write(old=at.start_http("old", script="mcp_old_server.py"))
    at.wait_up("old")
    assert at.value("old.pay", key="a") == "paid a"
    assert len(at.notes("session")) == 1
    at.forgets.touch()
    assert at.value("old.pay", key="b", step=NEVER) == "paid b", "a call that was refused so was not begun"
    assert len(at.notes("session")) == 2
    assert at.notes("pay") == [["pay", "a"], ["pay", "b"]]
    at.p.kill("old")
    at.write(old=None)


def test_a_flood_of_notifications_holds_up_nobody(at: Lab) -> None:
    broken = {"command": sys.executable, "args": ["-m", "tests.mcp.broken"], "env": {"PYTHONPATH": str(ROOT)}}
    at.write(**{kind: {**broken, "args": [*broken["args"], kind]} for kind in ("flood", "changed_flood")})
    at.wait_up("flood", "changed_flood")
    worker = psutil.Process(at.p.processes["one"].pid)
    before = worker.memory_info().rss
    job = at.submit("flood.ping", step={"timeout_s": 20})
    slowest = 0.0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and not at.p.store.status(job).final:
        begun = time.monotonic()
        assert at.value("other.echo", text="through") == "through"
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 3
    at.p.control.cancel(job)
    assert worker.memory_info().rss - before < 100 << 20
    at.write(flood=None, changed_flood=None)


def test_two_workers_serve_the_same_and_one_that_cannot_withdraws_nothing(at: Lab) -> None:
    at.write(choosy=at.own(command="${LAB_PYTHON}"))
    at.wait_up("choosy")
    at.start_worker("two", LAB_PYTHON="/nowhere/python")
    wait_until(lambda: at.p.said("no program"), description="the other cannot start it")

    job = at.p.submit(
        [
            {
                "id": "s",
                "tool": "choosy.read",
                "input": {"key": "item"},
                "map": "input:xs",
                "retry": {"max": 30, "max_backoff_s": 0.3},
            }
        ],
        inputs={"xs": [str(n) for n in range(8)]},
    )
    assert at.p.wait(job).status is JobStatus.SUCCEEDED
    state = at.state("choosy")
    assert state is not None
    assert state.state == "up"
    assert at.catalog.get("choosy.read") is not None
    at.p.kill("two")
    at.write(choosy=None)
