"""Calls that a running call makes: made once, answered again, stopped with their maker."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import SCHEMA_VERSION, Born, Child, Claim, Committed, new_token
from orchestrator.models.job import CallState, JobStatus
from orchestrator.publisher.compile import child_of
from orchestrator.publisher.control import Control
from orchestrator.publisher.publish import follow
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from tests.engine import Engine

CHANNEL = "tw:children:test"
CALLER = {"type": "code_execution", "execution_id": "code_exec_00000000", "tool_id": "tool_call_1"}


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return engine_of(settings)


def engine_of(settings: Settings) -> Engine:
    """An engine with a program, and with tools that it may call."""
    made = Engine(settings)

    @made.tool(effect="idempotent", pool="programs")
    def program() -> Any:
        raise AssertionError("these tests play the program's worker themselves")

    @made.tool(pool="work")
    def double(value: Any) -> Any:
        return value * 2

    @made.tool(pool="work")
    def fail(value: Any = None) -> Any:
        raise ToolError(f"cannot do {value}", code="cannot")

    @made.tool(effect="once", pool="work")
    def pay(amount: int) -> int:
        return amount

    @made.tool(pool="work", concurrency_key="value")
    def one_by_one(value: Any) -> Any:
        return value

    return made


class Maker:
    """The worker of a program's call, played by hand."""

    def __init__(self, engine: Engine, job: str, call: str = "p#0") -> None:
        self.engine, self.job, self.call = engine, job, call
        message = next(c for c in engine.mailbox.calls if (c.job, c.call) == (job, call))
        engine.mailbox.calls.remove(message)
        claim = engine.ledger.claim(job, call, attempt=message.attempt, token=new_token(), queue=message.queue)
        assert isinstance(claim, Claim)
        self.claim = claim

    def spawn(self, *asked: tuple[str, str, dict[str, Any]]) -> tuple[str, list[Born]]:
        children = [self.child(*a) for a in asked]
        committed, born = self.engine.ledger.spawn(self.claim, children, channel=CHANNEL)
        follow(self.engine.ledger, self.engine.mailbox, committed)
        return committed.verdict, born

    def child(self, key: str, tool: str, arguments: dict[str, Any]) -> Child:
        found = self.engine.registry.get(tool)
        assert found is not None
        return child_of(found.definition, arguments, key=key, caller=CALLER)

    def end(self, outcome: Any = "s", payload: bytes = b"j1", **rest: Any) -> Committed:
        committed = self.engine.ledger.complete(self.claim, outcome=outcome, payload=payload, **rest)
        follow(self.engine.ledger, self.engine.mailbox, committed)
        return committed

    def answers(self, *numbers: int) -> list[tuple[str, Any, Any]]:
        names = [f"{self.claim.step}.{self.claim.index}.{n}#0" for n in numbers]
        return self.engine.store.children(self.job, names)


def begin(engine: Engine, *more: dict[str, Any]) -> tuple[str, Maker]:
    """A started job whose first step is a program that its worker has claimed; the pool of the tools is known by a step."""
    later = {"id": "z", "tool": "double", "input": {"value": 1}, "depends_on": ["p"]}
    job = engine.submit([{"id": "p", "tool": "program"}, later, *more])
    return job, Maker(engine, job)


def lose(engine: Engine, maker: Maker) -> None:
    """The worker of the program dies, and the reconciler finds out."""
    ledger = engine.ledger
    shard = ledger.keys(maker.job).shard
    ledger.redis.zadd(shard.leases, {f"{maker.job}|{maker.call}|{maker.claim.attempt}": ledger.now_ms() - 1})
    follow(ledger, engine.mailbox, ledger.repair(maker.job, kind="lost", call=maker.call, attempt=maker.claim.attempt))


def clean(engine: Engine, job: str) -> None:
    """Nothing is left of a job's places, gates and counts."""
    ledger, keys = engine.ledger, engine.ledger.keys(job)
    state = {k.decode(): v.decode() for k, v in ledger.redis.hgetall(keys.state).items()}
    assert not ledger.redis.hgetall(keys.shard.load), "gates are free again"
    assert state.get("un", "0") == "0"
    if state["st"] == "succeeded":
        assert state["live"] == "0"
        assert {v for k, v in state.items() if k.startswith("w:")} == {"0"}


def test_a_program_gets_what_its_calls_gave(engine: Engine) -> None:
    job, maker = begin(engine)
    verdict, born = maker.spawn(("0:1", "double", {"value": 4}), ("0:2", "fail", {"value": "x"}))
    assert (verdict, [b[:2] for b in born]) == ("ok", [(1, "new"), (2, "new")])
    engine.drain()
    (state, value, _), (failed, _, error) = maker.answers(1, 2)
    assert (state, value, failed) == ("s", 8, "f")
    assert (error.code, error.message) == ("cannot", "cannot do x")
    assert engine.store.view(job).status is JobStatus.RUNNING, "a child that failed is the program's affair"
    maker.end()
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    assert not engine.store.view(job).has_errors
    clean(engine, job)


def test_arguments_are_values_and_no_references(engine: Engine) -> None:
    _, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": "step:z"}), ("0:2", "double", {"value": {"$literal": 1}["$literal"]}))
    engine.drain()
    assert [value for _, value, _ in maker.answers(1, 2)] == ["step:zstep:z", 2]


def test_events_name_the_step_the_tool_and_the_maker(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": 4}), ("0:2", "fail", {}))
    engine.drain()
    told = [e for e in engine.events(job) if e.call in ("p.0.1#0", "p.0.2#0")]
    assert [(e.type, e.step) for e in told] == [
        ("call.running", "p"),
        ("call.succeeded", "p"),
        ("call.running", "p"),
        ("call.failed", "p"),
    ]
    assert told[0].data == told[1].data == {"tool": "double", "parent": "p#0"}


def test_a_rerun_is_answered_from_the_record_and_makes_only_what_is_missing(engine: Engine) -> None:
    job, maker = begin(engine)
    asked = [(f"0:{n}", "double", {"value": n}) for n in range(1, 46)]
    maker.spawn(*asked)
    for _ in range(23):
        engine.drain(limit=1)
    lose(engine, maker)
    again = Maker(engine, job)
    assert again.claim.attempt == 2
    _, born = again.spawn(*asked)
    states = [b.state for b in born]
    assert states[:23] == ["s"] * 23
    assert "new" not in states, "those on their way are waited for, not made twice"
    ran = engine.drain()
    assert ran == 22
    assert [v for _, v, _ in again.answers(*range(1, 46))] == [2 * n for n in range(1, 46)]
    again.end()
    engine.drain()
    clean(engine, job)


def test_a_rerun_that_asks_for_something_else_learns_what_it_was(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": 4}))
    engine.drain()
    lose(engine, maker)
    again = Maker(engine, job)
    _, (born,) = again.spawn(("0:1", "double", {"value": 5}))
    assert born.digest == maker.child("0:1", "double", {"value": 4}).digest
    assert engine.store.child_spec(job, "p.0.1#0")["input"] == {"value": {"$literal": 4}}
    assert not engine.mailbox.calls, "nothing was made"


def test_a_fenced_program_makes_no_calls(engine: Engine) -> None:
    _, maker = begin(engine)
    lose(engine, maker)
    verdict, born = maker.spawn(("0:1", "double", {"value": 4}))
    assert (verdict, born) == ("fenced", [])


@pytest.mark.parametrize("when", ["queued", "parked"])
def test_what_a_program_leaves_behind_is_stopped(engine: Engine, when: str) -> None:
    job, maker = begin(engine)
    maker.spawn(*((f"0:{n}", "double", {"value": n}) for n in range(4 if when == "queued" else 200)))
    maker.end()
    left = [c for c in engine.mailbox.calls if c.call.startswith("p.")]
    assert left
    assert {engine.deliver(c) for c in left} == {"already x"}
    engine.mailbox.calls = [c for c in engine.mailbox.calls if c not in left]
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    clean(engine, job)


def test_a_running_child_of_an_ended_program_is_told_by_its_beat(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": 1}), ("0:2", "pay", {"amount": 1}))
    claims = [Maker(engine, job, f"p.0.{n}#0") for n in (1, 2)]
    assert engine.ledger.beat([(job, c.call, 1) for c in claims]) == [True, True]
    maker.end()
    assert engine.ledger.beat([(job, c.call, 1) for c in claims]) == [False, False]
    assert [state for state, *_ in maker.answers(1, 2)] == ["x", "u"], "it is not known whether the payment happened"
    assert [c.end().verdict for c in claims] == ["fenced", "fenced"]
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED, "nobody waits for it"
    clean(engine, job)


def test_children_end_with_the_job(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": 1}))
    Control(engine.store, engine.mailbox.app).cancel(job)
    assert {engine.deliver(c) for c in engine.mailbox.calls} == {"job cancelled"}
    assert maker.spawn(("0:2", "double", {"value": 1}))[0] == "job cancelled"
    assert [state for state, *_ in maker.answers(1)] == ["x"]
    clean(engine, job)


@pytest.mark.parametrize("happened", [True, False])
def test_a_program_waits_until_an_unknown_effect_is_settled(engine: Engine, happened: bool) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "pay", {"amount": 7}))
    child = Maker(engine, job, "p.0.1#0")
    lose(engine, child)
    assert [state for state, *_ in maker.answers(1)] == ["u"]
    maker.end("u", b'{"code":"unknown","message":"see p.0.1#0"}')
    assert engine.store.view(job).status is JobStatus.WAITING
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.resolve(job, "p.0.1#0", happened=happened, result=7 if happened else None)
    assert engine.store.view(job).status is JobStatus.RUNNING
    again = Maker(engine, job)
    _, (born,) = again.spawn(("0:1", "pay", {"amount": 7}))
    assert born.state == ("s" if happened else "new")
    engine.drain()
    assert again.answers(1)[0][:2] == ("s", 7)
    again.end()
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    clean(engine, job)


def test_a_retry_of_the_job_makes_again_what_failed_and_keeps_what_succeeded(engine: Engine) -> None:
    job, maker = begin(engine)
    asked = [("0:1", "double", {"value": 1}), ("0:2", "fail", {}), ("0:3", "pay", {"amount": 3})]
    maker.spawn(*asked)
    engine.drain()
    maker.end("f", b'{"code":"program_failed","message":"it did"}')
    assert engine.store.view(job).status is JobStatus.FAILED
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.retry(job)
    again = Maker(engine, job)
    _, born = again.spawn(*asked)
    assert [b.state for b in born] == ["s", "new", "s"]


def test_a_tool_with_a_key_takes_turns_among_children(engine: Engine) -> None:
    job, maker = begin(engine, {"id": "y", "tool": "one_by_one", "input": {"value": 0}, "depends_on": ["p"]})
    maker.spawn(*((f"0:{n}", "one_by_one", {"value": "same"}) for n in range(3)))
    engine.drain()
    assert [s for s, *_ in maker.answers(1, 2, 3)] == ["s", "s", "s"]
    maker.end()
    engine.drain()
    clean(engine, job)


def test_calls_lists_children_after_their_maker(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "double", {"value": 1}), ("0:2", "fail", {}))
    engine.drain()
    calls = engine.store.calls(job)
    assert [(c.call, c.tool, c.parent, c.state) for c in calls] == [
        ("p#0", "program", None, CallState.RUNNING),
        ("p.0.1#0", "double", "p#0", CallState.SUCCEEDED),
        ("p.0.2#0", "fail", "p#0", CallState.FAILED),
    ]
    assert calls[2].error is not None
    assert calls[2].error.code == "cannot"
    assert [c.call for c in engine.store.calls(job, limit=1, cursor="p#0")] == ["p.0.1#0"]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_in_whatever_order_nothing_is_left_and_nothing_paid_twice(engine: Engine, seed: int) -> None:
    """Random programs whose workers die, whose children die, in any order of messages."""
    rng = random.Random(seed)
    paid: list[int] = []
    tool = engine.registry.get("pay")
    assert tool is not None

    def pay(amount: int) -> int:
        paid.append(amount)
        return amount

    object.__setattr__(tool, "function", pay)
    job, maker = begin(engine)
    tools = [("double", "value"), ("fail", "value"), ("pay", "amount"), ("one_by_one", "value")]
    asked = [(f"0:{n}", name, {argument: n}) for n in range(30) for name, argument in [rng.choice(tools)]]
    reconciler = Reconciler(engine.store, engine.mailbox)
    done = 0
    for _ in range(200):
        roll = rng.random()
        if roll < 0.1 and maker.claim.attempt < 5:
            lose(engine, maker)
            maker, done = Maker(engine, job), 0
        elif roll < 0.5 and done < len(asked):
            step = rng.randint(1, 5)
            verdict, _ = maker.spawn(*asked[done : done + step])
            assert verdict == "ok"
            done += step
        elif roll < 0.95:
            engine.drain(shuffle=rng, limit=1)
        else:
            reconciler.once()
    if rng.random() < 0.5:
        maker.spawn(*asked)
        engine.drain(shuffle=rng)
        while engine.retry_now(job):
            engine.drain(shuffle=rng)
        wanted = {"double": "s", "fail": "f", "pay": "s", "one_by_one": "s"}
        numbers = [b.number for b in maker.spawn(*asked)[1]]
        assert [s for s, *_ in maker.answers(*numbers)] == [wanted[name] for _, name, _ in asked]
    maker.end()
    while engine.drain(shuffle=rng) or engine.retry_now(job):
        pass
    assert len(paid) == len(set(paid)), "nothing is paid twice"
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    clean(engine, job)


def control(engine: Engine) -> Control:
    made = Control(engine.store, engine.mailbox.app)
    made.publisher = engine.mailbox
    return made


def test_calls_that_have_no_room_yet_are_waited_for(engine: Engine) -> None:
    _, maker = begin(engine)
    maker.spawn(*((f"0:{n}", "double", {"value": n}) for n in range(40)))
    states = [state for state, *_ in maker.answers(*range(1, 41))]
    assert set(states) == {"q", "w"}, "a call that is parked is no call that is gone"
    assert states.count("w") == 32


def test_a_call_that_is_asked_for_twice_while_it_has_no_room_is_made_once(engine: Engine) -> None:
    job, maker = begin(engine)
    asked = [(f"0:{n}", "fail", {"value": n}) for n in range(20)]
    maker.spawn(*asked)
    engine.drain()
    maker.end("f", b'{"code":"program_failed","message":"it did"}')
    control(engine).retry(job)
    again = Maker(engine, job)
    assert {b.state for b in again.spawn(*asked)[1]} == {"new"}
    lose(engine, again)
    third = Maker(engine, job)
    assert {b.state for b in third.spawn(*asked)[1]} == {"q", "w"}
    assert engine.drain() == 20
    assert [c.attempt for c in engine.store.calls(job) if c.parent] == [2] * 20
    third.end()
    engine.drain()
    clean(engine, job)


def test_two_unknown_effects_settled_at_once_let_the_program_go_on(engine: Engine) -> None:
    job, maker = begin(engine)
    asked = [("0:1", "pay", {"amount": 1}), ("0:2", "pay", {"amount": 2})]
    maker.spawn(*asked)
    for n in (1, 2):
        lose(engine, Maker(engine, job, f"p.0.{n}#0"))
    maker.end("u", b'{"code":"unknown","message":"see p.0.1#0"}')
    settle = control(engine)
    settle.resolve(job, "p.0.1#0", happened=True, result=1)
    again = Maker(engine, job)
    assert [b.state for b in again.spawn(*asked)[1]] == ["s", "u"]
    settle.resolve(job, "p.0.2#0", happened=True, result=2)  # while the program still reads that it is unknown
    assert again.end("u", b'{"code":"unknown","message":"see p.0.2#0"}').verdict == "ok"
    last = Maker(engine, job)
    assert [b.state for b in last.spawn(*asked)[1]] == ["s", "s"]
    last.end()
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    clean(engine, job)


def test_a_call_that_is_to_be_tried_again_while_its_program_waits_is_made_at_once(engine: Engine) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "pay", {"amount": 7}))
    lose(engine, Maker(engine, job, "p.0.1#0"))
    control(engine).resolve(job, "p.0.1#0", happened=False)  # before the program heard of it
    assert engine.drain() == 1
    assert maker.answers(1)[0][:2] == ("s", 7)
    maker.end()
    engine.drain()
    clean(engine, job)


@pytest.mark.parametrize("happened", [True, False])
def test_settling_what_an_ended_program_left_counts_nothing(engine: Engine, happened: bool) -> None:
    job, maker = begin(engine)
    maker.spawn(("0:1", "pay", {"amount": 1}))
    Maker(engine, job, "p.0.1#0")
    maker.end()
    control(engine).resolve(job, "p.0.1#0", happened=happened, result=1 if happened else None)
    assert engine.store.redis.hget(engine.ledger.keys(job).state, "un") in (None, b"0")
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    clean(engine, job)


def test_calls_that_waited_for_a_key_leave_their_places_to_those_of_other_programs(engine: Engine) -> None:
    other, holder = begin(engine)
    holder.spawn(("0:1", "one_by_one", {"value": "same"}))
    holding = Maker(engine, other, "p.0.1#0")
    key = hashlib.sha256(json.dumps("same").encode()).hexdigest()[:16]
    assert engine.ledger.hold(holding.claim, key=key, limit=1).verdict == "ok"

    later = {"id": "z", "tool": "double", "input": {"value": 1}, "depends_on": ["p"]}
    job = engine.submit([{"id": "p", "tool": "program", "map": "input:xs"}, later], inputs={"xs": [1, 2]})
    one, two = Maker(engine, job, "p#0"), Maker(engine, job, "p#1")
    one.spawn(*((f"0:{n}", "one_by_one", {"value": "same"}) for n in range(8)))
    engine.mailbox.calls = [c for c in engine.mailbox.calls if c.job == job]
    engine.drain()
    two.spawn(("0:1", "one_by_one", {"value": "free"}))
    assert not engine.mailbox.calls, "its lane is full of calls that wait for the key"
    one.end()
    assert engine.drain() == 1
    assert two.answers(1)[0][:2] == ("s", "free")


def test_the_record_of_an_unknown_program_survives_a_retry_of_the_job(engine: Engine) -> None:
    """A program that its step calls `once` is unknown when its worker is lost; its calls are made again when it is."""
    again = {"id": "p", "tool": "program", "effect": "once"}
    job = engine.submit([again, {"id": "z", "tool": "double", "input": {"value": 1}, "depends_on": ["p"]}])
    maker = Maker(engine, job)
    asked = [(f"0:{n}", "double", {"value": n}) for n in range(3)]
    maker.spawn(*asked)
    lose(engine, maker)
    settle = control(engine)
    settle.cancel(job)
    engine.drain()
    settle.retry(job)
    settle.resolve(job, "p#0", happened=False)
    after = Maker(engine, job)
    assert [b.state for b in after.spawn(*asked)[1]] == ["new"] * 3
    engine.drain()
    assert [s for s, *_ in after.answers(1, 2, 3)] == ["s"] * 3


def test_files_that_a_programs_calls_made_are_listed(engine: Engine) -> None:
    @engine.tool(pool="work")
    def write(text: str, context: ToolContext) -> str:
        return context.save_file(text.encode(), name=f"{text}.txt")

    job, maker = begin(engine)
    maker.spawn(*((f"0:{n}", "write", {"text": f"t{n}"}) for n in range(3)))
    engine.drain()
    maker.end()
    engine.drain()
    page = engine.store.artifacts(job, limit=2)
    rest = engine.store.artifacts(job, start=int(page.next_cursor or "0"))
    found = [(a.call, a.step, a.file.name) for a in (*page.artifacts, *rest.artifacts)]
    assert found == [(f"p.0.{n + 1}#0", "p", f"t{n}.txt") for n in range(3)]
    assert rest.next_cursor is None


def test_of_programs_in_a_large_map_only_some_tell_of_their_calls(engine: Engine) -> None:
    later = {"id": "z", "tool": "double", "input": {"value": 1}, "depends_on": ["p"]}
    job = engine.submit([{"id": "p", "tool": "program", "map": "input:xs"}, later], inputs={"xs": list(range(1000))})
    for at in (0, 1):
        maker = Maker(engine, job, f"p#{at}")
        maker.spawn(("0:1", "double", {"value": at}))
        message = next(c for c in engine.mailbox.calls if c.call == f"p.{at}.1#0")
        engine.mailbox.calls.remove(message)
        assert engine.deliver(message) == "ok"
    told = {e.call for e in engine.events(job) if e.call and e.call.startswith("p.")}
    assert told == {"p.0.1#0"}


def test_a_job_with_calls_of_calls_is_left_to_those_that_know_them(engine: Engine) -> None:
    job, maker = begin(engine)
    state = engine.ledger.keys(job).state
    engine.ledger.redis.hset(state, "v", SCHEMA_VERSION - 1)  # accepted by an older API
    maker.spawn(("0:1", "double", {"value": 1}))
    assert int(engine.ledger.redis.hget(state, "v")) == SCHEMA_VERSION
