"""Retry of a job: what is kept, what runs again, and that an effect which may have happened is never repeated silently."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import Claim, new_token
from orchestrator.models.job import CallState, JobStatus
from orchestrator.publisher.control import Control
from orchestrator.settings import Settings
from tests.engine import Engine


class World:
    """Which steps fail now, and what ran."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.ran: Counter[str] = Counter()

    def work(self, call: str, x: Any) -> Any:
        self.ran[call] += 1
        if call in self.broken:
            raise ToolError(f"{call} is broken")
        return x


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def engine(settings: Settings, world: World) -> Engine:
    made = Engine(settings)

    @made.tool(name="work")
    def work(x: Any, context: ToolContext) -> Any:
        return world.work(context.call, x)

    @made.tool(name="pay", effect="once")
    def pay(x: Any, context: ToolContext) -> Any:
        return world.work(context.call, x)

    return made


def step(name: str, x: Any = None, *, tool: str = "work", **rest: Any) -> dict[str, Any]:
    return {"id": name, "tool": tool, "input": {"x": x}, **rest}


def retry(engine: Engine, job: str) -> JobStatus:
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.retry(job)
    engine.drain()
    return engine.store.status(job)


def begin(engine: Engine, call: str) -> Claim:
    """Claims a call as a worker does that does not come to its end."""
    at = next(i for i, c in enumerate(engine.mailbox.calls) if c.call == call)
    message = engine.mailbox.calls.pop(at)
    claim = engine.ledger.claim(message.job, call, attempt=message.attempt, token=new_token(), queue=message.queue)
    assert isinstance(claim, Claim)
    return claim


def test_an_effect_that_ran_when_the_job_failed_waits_for_resolve(engine: Engine, world: World) -> None:
    world.broken = {"bad#0"}
    job = engine.submit([step("pay", 1, tool="pay"), step("bad", 2)])
    begin(engine, "pay#0")
    engine.drain()
    assert engine.store.status(job) is JobStatus.FAILED
    world.broken = set()
    assert retry(engine, job) is JobStatus.WAITING
    assert world.ran["pay#0"] == 0, "nobody said that it may run again"
    (unknown,) = engine.store.view(job).unknown
    assert unknown.call == "pay#0"
    assert unknown.error is not None
    assert "resolve" in (unknown.error.next or "")


def test_an_effect_that_came_too_late_for_its_job_is_kept_for_the_retry(engine: Engine, world: World) -> None:
    world.broken = {"bad#0"}
    job = engine.submit([step("pay", 1, tool="pay"), step("bad", 2)])
    claim = begin(engine, "pay#0")
    engine.drain()
    verdict = engine.ledger.complete(claim, outcome="s", payload=b'j"paid"').verdict
    assert verdict == "job failed"
    world.broken = set()
    assert retry(engine, job) is JobStatus.SUCCEEDED
    assert engine.store.result(job).steps == {"pay": "paid", "bad": 2}
    assert world.ran["pay#0"] == 0


def test_an_unknown_effect_stays_unknown_over_a_retry(engine: Engine, world: World) -> None:
    world.broken = {"bad#0"}
    job = engine.submit([step("pay", 1, tool="pay"), step("bad", 2)])
    engine.ledger.complete(begin(engine, "pay#0"), outcome="u", payload=b'{"code":"timeout","message":"?"}')
    engine.drain()
    world.broken = set()
    assert retry(engine, job) is JobStatus.WAITING
    assert [c.call for c in engine.store.calls(job, state=CallState.UNKNOWN)] == ["pay#0"]
    calls = engine.ledger.resolve(job, "pay#0", happened=False, value=b"jnull", lengths={}).ready
    engine.mailbox.publish(calls)
    engine.drain()
    assert engine.store.status(job) is JobStatus.SUCCEEDED
    assert world.ran["pay#0"] == 1


def test_an_unknown_effect_is_resolved_before_its_step_begins_again(engine: Engine, world: World) -> None:
    """Resolved while what it follows runs again, the call is counted once, when its step begins."""
    world.broken = {"a#0"}
    steps = [
        step("a", on_error="continue"),
        step("pay", ["step:a", "item"], tool="pay", map="input:xs", on_error="continue"),
        step("z", "step:pay"),
    ]
    job = engine.submit(steps, inputs={"xs": [1, 2]})
    engine.deliver(engine.mailbox.calls.pop())
    engine.ledger.complete(begin(engine, "pay#0"), outcome="u", payload=b'{"code":"timeout","message":"?"}')
    engine.ledger.cancel(job)
    engine.mailbox.calls.clear()
    world.broken = set()
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.retry(job)
    control.resolve(job, "pay#0", happened=True, result="paid")
    engine.drain()
    assert engine.store.status(job) is JobStatus.SUCCEEDED
    assert engine.store.result(job).steps["z"] == ["paid", [None, 2]]


def test_items_that_ended_before_their_follower_began_do_not_hang_it(engine: Engine, world: World) -> None:
    world.broken = {"gate#0"}
    steps = [step("a", "item", map="input:xs"), step("gate"), step("b", ["step:gate", "item"], map="step:a")]
    job = engine.submit(steps, inputs={"xs": [1, 2]})
    engine.mailbox.calls.sort(key=lambda c: c.call)  # the gate comes last
    engine.drain()
    assert engine.store.status(job) is JobStatus.FAILED
    world.broken = set()
    assert retry(engine, job) is JobStatus.SUCCEEDED
    assert engine.store.result(job).steps["b"] == [[None, 1], [None, 2]]


def test_a_list_of_the_first_run_does_not_serve_the_second(engine: Engine, world: World) -> None:
    world.broken = {"a#0", "z#0"}
    steps = [
        step("a", on_error="continue"),
        step("list", {"items": [1, 2], "a": "step:a"}, on_error="continue"),
        step("each", "item", map="step:list.items"),
        step("z"),
    ]
    job = engine.submit([*steps], on_error="skip_dependents")
    engine.drain()
    world.broken = {"list#0"}
    assert retry(engine, job) is JobStatus.SUCCEEDED
    assert {s.id: s.state for s in engine.store.view(job).steps}["each"] == "skipped"
    assert world.ran["each#0"] == 1, "there is no list this time"


def test_what_ran_without_a_skipped_step_runs_again_with_it(engine: Engine, world: World) -> None:
    world.broken = {"a#0"}
    steps = [
        step("a"),
        step("b", ["step:a", "item"], map="input:xs"),
        step("c", "step:b", map="step:b", on_skip="run"),
    ]
    job = engine.submit(steps, on_error="skip_dependents", inputs={"xs": [1]})
    engine.drain()
    assert engine.store.result(job).steps["c"] == [None]
    world.broken = set()
    assert retry(engine, job) is JobStatus.SUCCEEDED
    assert engine.store.result(job).steps["c"] == [[None, 1]]


def test_what_follows_a_condition_that_did_not_hold_is_kept(engine: Engine, world: World) -> None:
    world.broken = {"bad#0"}
    steps = [
        step("few", "item", map="input:xs", when={"ref": "item", "op": "gt", "value": 1}),
        step("sum", "step:few"),
        step("never", when={"ref": "input:xs", "op": "falsy"}),
        step("after", "step:never"),
        step("anyway", "step:after", on_skip="run"),
        step("bad"),
    ]
    job = engine.submit(steps, on_error="skip_dependents", inputs={"xs": [1, 2]})
    engine.drain()
    world.broken = set()
    world.ran.clear()
    assert retry(engine, job) is JobStatus.SUCCEEDED
    assert dict(world.ran) == {"bad#0": 1}


def test_the_error_of_a_job_that_could_not_be_planned_is_gone_after_its_retry(engine: Engine) -> None:
    plan = engine.store.plan(engine.submit([step("a", 1)]))
    engine.mailbox.calls.clear()
    job, _ = engine.store.submit(plan, inputs={})
    engine.ledger.fail(job, b'{"code":"internal","message":"planning failed"}')
    assert retry(engine, job) is JobStatus.PLANNING
    assert engine.store.view(job).finished_at is None
    engine.start(job)
    engine.drain()
    result = engine.store.result(job)
    assert result.status is JobStatus.SUCCEEDED
    assert result.errors == ()
