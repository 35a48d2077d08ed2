"""Random plans with lost, doubled and late messages and dying workers end as a small model of the plan semantics says."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import Claim, ReadyCall, new_token
from orchestrator.models.job import CallState, JobStatus
from orchestrator.publisher.control import Control
from orchestrator.publisher.publish import follow
from orchestrator.settings import Settings
from tests.engine import Engine

FOREVER = 99
POLICIES = ["fail_fast", "skip_dependents", "continue"]


@dataclass(frozen=True)
class Made:
    """A step as the generator made it: what it waits for, and the list that it maps over (None: a plain step)."""

    id: str
    body: dict[str, Any]
    policy: str
    lists: bool = False
    root: tuple[str, ...] | None = None  # ("input",) | ("step", id) | ("whole", id)
    barrier: frozenset[str] = frozenset()
    aligned: frozenset[str] = frozenset()

    @property
    def run(self) -> bool:
        return self.body.get("on_skip") == "run"


@dataclass
class World:
    """How often which call fails before it succeeds, and what ran."""

    failing: dict[str, int] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)

    def work(self, call: str, x: Any, *, lists: bool) -> Any:
        """What the tool gives for a call: it depends on the call's id and on all that it reads."""
        self.ran[call] += 1
        if self.ran[call] <= self.failing.get(call, 0):
            raise ToolError(f"{call} fails", retryable=self.failing[call] < FOREVER)
        return answer(call, x, lists=lists)


def answer(call: str, x: Any, *, lists: bool) -> Any:
    """The value of a call that succeeds."""
    number = crc32(json.dumps([call, x]).encode())
    return (
        {"v": number % 3, "list": [number % 100 + i for i in range(number % 6)]} if lists else {"v": number % 3, "n": number % 1000}
    )


# --- plans -------------------------------------------------------------------------------------------------------------------


def make_plan(rng: random.Random) -> list[Made]:
    """A random DAG of plain steps, maps over inputs and results, aligned stages, barriers and conditions."""
    calm = rng.random() < 0.6  # most plans have no `fail_fast`, which ends the comparison early
    made: list[Made] = []
    for at in range(rng.randint(2, 9)):
        made.append(_make_step(rng, f"s{at}", made, calm=calm))
    return made


def _make_step(rng: random.Random, name: str, before: list[Made], *, calm: bool) -> Made:
    lists = rng.random() < 0.3
    policy = rng.choice(POLICIES[1:] if calm else POLICIES)
    body: dict[str, Any] = {
        "id": name,
        "tool": ("list_" if lists else "") + rng.choice(["work", "work", "once", "few"]),
        "on_error": policy,
    }
    body["retry"] = {"max": rng.randint(0, 3), "backoff_s": 0}
    if rng.random() < 0.25:
        body["on_skip"] = "run"
    body["map"], root = _make_root(rng, before)
    waits = _Waits(root, {m.id: m for m in before})
    x = [waits.reference(rng, m) for m in rng.sample(before, min(len(before), rng.randint(0, 2)))]
    if root is not None:
        x.append("item")
        waits.add_map(body["map"])
    if before and rng.random() < 0.25:
        body["when"] = {"ref": waits.reference(rng, rng.choice(before), path=".v", whole=False), "op": "ne", "value": 0}
    if before and rng.random() < 0.2:
        waits.reference(rng, extra := rng.choice(before), whole=False)
        body["depends_on"] = [extra.id]
    body["input"] = {"x": x}
    return Made(name, body, policy, lists, root, frozenset(waits.barrier), frozenset(waits.aligned))


def _make_root(rng: random.Random, before: list[Made]) -> tuple[str | None, tuple[str, ...] | None]:
    sources = [m for m in before if m.root is not None or m.lists]
    if rng.random() < 0.35:
        return None, None
    if not sources or rng.random() < 0.4:
        return "input:xs", ("input",)
    source = rng.choice(sources)
    if source.root is None:
        return f"step:{source.id}.list", ("step", source.id)
    if rng.random() < 0.25:
        return f"step:{source.id}[*]", ("whole", source.id)
    return f"step:{source.id}", source.root


@dataclass
class _Waits:
    root: tuple[str, ...] | None
    before: dict[str, Made]
    barrier: set[str] = field(default_factory=set)
    aligned: set[str] = field(default_factory=set)

    def reference(self, rng: random.Random, to: Made, *, path: str | None = None, whole: bool | None = None) -> str:
        aligned = self.root is not None and to.root == self.root
        star = to.root is not None and (rng.random() < 0.15 if whole is None else whole)
        (self.aligned if aligned and not star else self.barrier).add(to.id)
        if path is None:
            path = ".v" if rng.random() < 0.3 else ""
        listed = to.root is not None and (star or not aligned)
        return f"step:{to.id}{'[*]' if star else ''}{'' if listed else path}"

    def add_map(self, text: str) -> None:
        assert self.root is not None
        if self.root[0] != "input":
            self.barrier.add(self.root[1])
        source = text.removeprefix("step:")
        if source in self.before and self.before[source].root is not None:
            self.aligned.add(source)


# --- the model ---------------------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What the model says: the state and value of every call, and of every step."""

    steps: dict[str, str] = field(default_factory=dict)
    calls: dict[str, tuple[str, Any]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)  # effects that happened before the job was retried

    def result(self, made: Made) -> Any:
        values = [self.calls[f"{made.id}#{i}"][1] for i in range(self.totals.get(made.id, 0))]
        return values if made.root is not None else (values[0] if values else None)

    def failed(self) -> set[str]:
        return {c for c, (state, _) in self.calls.items() if state == "failed"}


def evaluate(plan: list[Made], xs: list[Any], failing: Mapping[str, int], kept: Mapping[str, Any]) -> Expected:
    """The plan semantics, step by step, without any engine. `fail_fast` is taken as `skip_dependents` here."""
    expected, by_id = Expected(kept=kept), {m.id: m for m in plan}
    for made in plan:
        _evaluate_step(made, xs, failing, expected, by_id)
    return expected


def _evaluate_step(made: Made, xs: list[Any], failing: Mapping[str, int], e: Expected, by_id: dict[str, Made]) -> None:
    bad = any(e.steps[b] != "succeeded" for b in made.barrier) or any(b not in e.totals for b in made.aligned)
    items = _items(made, xs, e, by_id)
    if (bad and not made.run) or items is None:
        e.steps[made.id] = "skipped"
        return
    e.totals[made.id] = len(items)
    states = [_evaluate_call(made, i, item, failing, e, by_id) for i, item in enumerate(items)]
    if "failed" in states:
        e.steps[made.id] = "succeeded" if made.policy == "continue" else "failed"
    else:
        e.steps[made.id] = "skipped" if made.root is None and "skipped" in states else "succeeded"


def _items(made: Made, xs: list[Any], e: Expected, by_id: dict[str, Made]) -> list[Any] | None:
    if made.root is None:
        return [None]
    if made.root[0] == "input":
        return xs
    source = e.result(by_id[made.root[1]])
    if made.root[0] == "whole":
        return list(source)
    return source["list"] if source is not None else None


def _evaluate_call(made: Made, i: int, item: Any, failing: Mapping[str, int], e: Expected, by_id: dict[str, Made]) -> str:
    call = f"{made.id}#{i}"
    # The call 0 of a step that was skipped whole stands for the step.
    e.reads[call] = {f"{b}#{n}" for b in made.barrier for n in range(e.totals.get(b, 1))} | {f"{a}#{i}" for a in made.aligned}
    state, value = "succeeded", None
    if call in e.kept:
        value = e.kept[call]
    elif _follows_nothing(made, i, e) or ("when" in made.body and _value(made.body["when"]["ref"], made, i, item, e, by_id) == 0):
        state = "skipped"
    elif failing.get(call, 0) > (made.body["retry"]["max"] if failing.get(call, 0) < FOREVER else 0):
        state = "failed"
    else:
        x = [_value(r, made, i, item, e, by_id) for r in made.body["input"]["x"]]
        value = answer(call, x, lists=made.lists)
    e.calls[call] = (state, value)
    return state


def _follows_nothing(made: Made, i: int, e: Expected) -> bool:
    return not made.run and any(e.calls[f"{a}#{i}"][0] != "succeeded" for a in made.aligned if a in e.totals)


def _value(reference: str, made: Made, i: int, item: Any, e: Expected, by_id: dict[str, Made]) -> Any:
    if reference == "item":
        source = made.body["map"].removeprefix("step:")
        return e.calls.get(f"{source}#{i}", ("", None))[1] if source in made.aligned else item
    head, _, path = reference.removeprefix("step:").partition(".")
    source = by_id[head.removesuffix("[*]")]
    if source.root is not None and source.root == made.root and not head.endswith("[*]"):
        value = e.calls.get(f"{source.id}#{i}", ("", None))[1]
    else:
        value = e.result(source)
    return value[path] if path and isinstance(value, dict) else value


def clean(call: str, e: Expected, known: dict[str, bool]) -> bool:
    """Whether a call succeeded, or was left out by its condition, and so did all that it reads."""
    if call not in known:
        known[call] = (
            False if call not in e.calls else e.calls[call][0] != "failed" and all(clean(c, e, known) for c in e.reads[call])
        )
    return known[call]


# --- the engine under fire ---------------------------------------------------------------------------------------------------


class Storm:
    """Delivers the messages of one job: in any order, doubled, late, or not at all; some claims are never completed."""

    def __init__(self, engine: Engine, job: str, rng: random.Random) -> None:
        self.engine, self.job, self.rng = engine, job, rng
        self.sent: list[ReadyCall] = []
        self.dead: list[Claim] = []
        self.abandoned: Counter[str] = Counter()

    def pass_by(self, *, steps: int = 20_000) -> None:
        """Until nothing moves any more, or for so many messages."""
        for _ in range(steps):
            if not self._move():
                return
        assert steps < 20_000, "the job never comes to rest"

    def _move(self) -> bool:
        mailbox, rng = self.engine.mailbox.calls, self.rng
        if not mailbox:
            return self._bury() or self._repair_queued() or bool(self.engine.retry_now(self.job))
        message = mailbox.pop(rng.randrange(len(mailbox)))
        self.sent.append(message)
        chance = rng.random()
        if chance < 0.05:
            return True  # lost
        if chance < 0.12 and self.abandoned[message.call] < 3:
            self._abandon(message)
        else:
            self.engine.deliver(message)
        if chance > 0.93:
            self.engine.deliver(rng.choice(self.sent))  # doubled, or an old one that comes late
        if chance > 0.98:
            self._bury()
        return True

    def _abandon(self, message: ReadyCall) -> None:
        claim = self.engine.ledger.claim(message.job, message.call, attempt=message.attempt, token=new_token(), queue=message.queue)
        if isinstance(claim, Claim):
            self.abandoned[claim.call] += 1
            self.dead.append(claim)

    def _bury(self) -> bool:
        """The leases of dead workers run out; a commit that comes after that is refused."""
        dead, self.dead = self.dead, []
        for claim in dead:
            leases = self.engine.ledger.keys(self.job).shard.leases
            member = f"{claim.job}|{claim.call}|{claim.attempt}"
            self.engine.store.redis.zadd(leases, {member: 1}, xx=True)
            repaired = self.engine.ledger.repair(self.job, kind="lost", call=claim.call, attempt=claim.attempt)
            if repaired.verdict == "asked again":  # long overdue: it may have been a jump of the clock
                self.engine.store.redis.zadd(leases, {member: self.engine.ledger.now_ms() - 1}, xx=True)
                repaired = self.engine.ledger.repair(self.job, kind="lost", call=claim.call, attempt=claim.attempt)
            follow(self.engine.ledger, self.engine.mailbox, repaired)
            if repaired.verdict == "ok":
                verdict = self.engine.ledger.complete(claim, outcome="s", payload=b'j"too late"').verdict
                assert verdict == "fenced", "a lost attempt committed"
        return bool(dead)

    def _repair_queued(self) -> bool:
        shard, found = self.engine.ledger.keys(self.job).shard, False
        for queue in self.engine.ledger.queues(self.job).names:
            for raw, score in self.engine.store.redis.zrange(shard.queued(queue), 0, -1, withscores=True):
                job, call, attempt = raw.decode().split("|")
                found = True
                repaired = self.engine.ledger.repair(job, kind="queued", call=call, attempt=int(attempt), seen=int(score))
                follow(self.engine.ledger, self.engine.mailbox, repaired)
        return found


class Case:
    """One random plan, its job and its world."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.rng = random.Random(seed)
        self.engine, self.seed = engine, seed
        engine.store.redis.flushdb()
        engine.mailbox.calls.clear()
        engine.ledger.settings = engine.ledger.settings.model_copy(update={"window_least": self.rng.randint(2, 8), "max_lost": 50})
        self.plan = make_plan(self.rng)
        self.by_id = {m.id: m for m in self.plan}
        self.xs: list[Any] = [self.rng.randrange(100) for _ in range(self.rng.choice([0, 1, 3, 7, 12]))]
        self.world = World(failing=self._failing())
        self.kept: dict[str, Any] = {}
        engine.world = self.world  # type: ignore[attr-defined]
        self.job = engine.submit([{k: v for k, v in m.body.items() if v is not None} for m in self.plan], inputs={"xs": self.xs})
        self.storm = Storm(engine, self.job, self.rng)
        self.control = Control(engine.store, engine.mailbox.app)
        self.control.publisher = engine.mailbox

    def _failing(self) -> dict[str, int]:
        how = [1, 1, 2, FOREVER]
        often = self.rng.choice([0.05, 0.1, 0.25])
        return {
            f"{m.id}#{i}": self.rng.choice(how) for m in self.plan for i in range(16) if self.rng.random() < often
        }  # fmt: skip

    def expected(self) -> Expected:
        return evaluate(self.plan, self.xs, self.world.failing, self.kept)

    def run(self) -> None:
        """To the end; unknown calls are resolved both ways as they come."""
        while True:
            self.storm.pass_by()
            unknown = self.engine.store.calls(self.job, state=CallState.UNKNOWN)
            if self.status().final or not unknown:
                return
            assert self.status() is JobStatus.WAITING, "at rest with unknown calls"
            chosen = self.rng.choice(unknown).call
            state, value = self.expected().calls[chosen]
            happened = state == "succeeded" and self.rng.random() < 0.5
            self.control.resolve(self.job, chosen, happened=happened, result=value if happened else None)

    def status(self) -> JobStatus:
        return self.engine.store.status(self.job)

    def succeeded(self) -> set[str]:
        """The calls that have a result."""
        return {c.call for c in self.engine.store.calls(self.job, state=CallState.SUCCEEDED, limit=10_000)}

    def mend_and_retry(self) -> set[str]:
        """Mends the tools and retries the job; the calls that must not run again."""
        before, known = self.expected(), dict[str, bool]()
        started = {c.call: c.state for c in self.engine.store.calls(self.job, limit=10_000)}
        kept = {c for c in self.succeeded() if clean(c, before, known)}
        done = {c for c in kept if self._whole(c, before, started) and not self._behind_an_empty_map(c.partition("#")[0], before)}
        once = sorted(c for c in self.succeeded() if self.by_id[c.partition("#")[0]].body["tool"].endswith("once"))
        self.kept = dict(zip(once, self.engine.store.values(self.job, once), strict=True))
        self.world.failing = {}
        self.world.ran.clear()
        self.control.retry(self.job)
        return done

    def _behind_an_empty_map(self, step: str, e: Expected) -> bool:
        """Whether it follows a map without calls that follows a failure: such a map has no call to keep, and runs again."""
        before = self._ancestors(step)
        return any(e.totals.get(s) == 0 and self._ancestors(s) & {c.partition("#")[0] for c in e.failed()} for s in before)

    def _ancestors(self, step: str) -> set[str]:
        near = self.by_id[step].barrier | self.by_id[step].aligned
        return set(near).union(*(self._ancestors(s) for s in near))

    def _whole(self, call: str, e: Expected, states: Mapping[str, CallState]) -> bool:
        return all(states.get(c) in (CallState.SUCCEEDED, CallState.SKIPPED) and self._whole(c, e, states) for c in e.reads[call])

    def check(self) -> None:
        """The end is what the model says, whatever happened on the way."""
        e, view, result = self.expected(), self.engine.store.view(self.job), self.engine.store.result(self.job)
        policy = {m.id: m.policy for m in self.plan}
        stopped = any(policy[c.partition("#")[0]] == "fail_fast" for c in e.failed())
        failed = stopped or "failed" in e.steps.values()
        assert view.status == (JobStatus.FAILED if failed else JobStatus.SUCCEEDED)
        if stopped:
            for call in self.succeeded():
                assert self.engine.store.values(self.job, [call]) == [e.calls[call][1]], call
        else:
            assert {s.id: s.state for s in view.steps} == e.steps
            assert result.steps == {m.id: e.result(m) for m in self.plan if m.id in e.totals}
            assert {f"{x.step}#{x.index or 0}" for x in result.errors} == e.failed()
            assert view.has_errors == bool(e.failed())
        self.check_books(stopped=stopped)
        self.check_events(stopped=stopped)

    def check_books(self, *, stopped: bool) -> None:
        """Nothing is left in any counter, set or timer."""
        self.storm.pass_by()
        raw: dict[bytes, bytes] = self.engine.store.redis.hgetall(self.engine.ledger.keys(self.job).state)
        state = {k.decode(): v.decode() for k, v in raw.items()}
        shard = self.engine.ledger.keys(self.job).shard
        outbox = [shard.queued(q) for q in self.engine.ledger.queues(self.job).names]
        sets = (*outbox, shard.leases, shard.timers, shard.parked, shard.held)
        left = {k: n for k in sets if (n := self.engine.store.redis.zcard(k))}
        assert left == {}
        assert self.engine.store.redis.hgetall(shard.load) == {}
        if not stopped:
            counters = {k: v for k, v in state.items() if k in ("left", "live") or k.startswith("w:")}
            assert {k: v for k, v in counters.items() if v != "0"} == {}
            assert [k for k in state if k.startswith("p:")] == []

    def check_events(self, *, stopped: bool) -> None:
        """Every step ends once, and nothing comes after the end."""
        events = self.engine.events(self.job)
        starts = [at for at, e in enumerate(events) if e.type == "job.running" and e.data.get("retried")]
        events = events[starts[-1] if starts else 0 :]
        assert events[-1].final
        assert sum(e.final for e in events) == 1
        ended = Counter(e.step for e in events if e.type in ("step.succeeded", "step.failed", "step.skipped"))
        assert set(ended.values()) <= {1}
        if not stopped and not starts:
            assert set(ended) == {m.id for m in self.plan}


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)
    for name, effect, lists in [
        ("work", "none", False),
        ("once", "once", False),
        ("few", "none", False),
        ("list_work", "none", True),
        ("list_once", "once", True),
        ("list_few", "none", True),
    ]:
        _add_tool(made, name, effect, lists=lists)
    return made


def _add_tool(engine: Engine, name: str, effect: str, *, lists: bool) -> None:
    @engine.tool(name=name, effect=effect, max_concurrency=2 if name.endswith("few") else None)
    def run(x: Any, context: ToolContext) -> Any:
        return engine.world.work(context.call, x, lists=lists)  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", range(6))
def test_random_plans_end_as_the_model_says(engine: Engine, block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        case = Case(engine, seed)
        case.run()
        case.check()


@pytest.mark.parametrize("block", range(4))
def test_a_mended_job_ends_as_if_nothing_had_failed(engine: Engine, block: int) -> None:
    retried = 0
    for seed in range(1_000 + block * 40, 1_000 + block * 40 + 40):
        case = Case(engine, seed)
        if case.rng.random() < 0.4:
            case.storm.pass_by(steps=case.rng.randint(1, 30))
            if not case.status().final:
                case.control.cancel(case.job)
        else:
            case.run()
        if case.status() is JobStatus.SUCCEEDED and not case.expected().failed():
            continue
        retried += 1
        done = case.mend_and_retry()
        case.run()
        case.check()
        assert not done & set(case.world.ran), "what had succeeded ran again"
    assert retried > 10
