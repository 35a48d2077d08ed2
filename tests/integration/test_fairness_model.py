"""Random jobs of several tenants at limited and keyed tools, under faults: all end as they should, no gate is overrun."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import Claim, ReadyCall, new_token
from orchestrator.models.job import CallState, JobStatus
from orchestrator.models.plan import Plan
from orchestrator.publisher.control import Control
from orchestrator.publisher.housekeeping import Housekeeper
from orchestrator.publisher.publish import follow
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from tests.engine import Engine

SEEDS = int(os.environ.get("FAIRNESS_SEEDS", "40"))
BLOCKS = 4
LIMITS = {"t|few": 2, "t|single": 1, "t|both": 2}
KEYS_AT_ONCE = {"keyed": 2, "both": 1}
TOOLS = ["echo", "echo", "few", "single", "keyed", "both", "pay"]


@dataclass
class Town:
    """Some tenants' jobs on one engine, and all that goes wrong."""

    engine: Engine
    rng: random.Random
    jobs: dict[str, str] = field(default_factory=dict)  # with their tenants
    cancelled: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)
    dead: list[Claim] = field(default_factory=list)
    holding: list[Claim] = field(default_factory=list)
    sent: list[ReadyCall] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.engine.store.redis.flushdb()
        self.engine.mailbox.calls.clear()
        least = self.rng.randint(1, 8)
        self.engine.ledger.settings = self.engine.ledger.settings.model_copy(update={"window_least": least, "max_lost": 50})
        self.engine.town = self  # type: ignore[attr-defined]
        self.control = Control(self.engine.store, self.engine.mailbox.app)
        self.control.publisher = self.engine.mailbox
        self.look = Reconciler(self.engine.store, self.engine.mailbox)
        self.shard = self.engine.ledger.keys("any").shard
        self.least = least

    # --- what happens ---

    def submit(self) -> None:
        rng, steps = self.rng, list[dict[str, Any]]()
        for at in range(rng.randint(1, 4)):
            tool = rng.choice(TOOLS)
            step: dict[str, Any] = {"id": f"s{at}", "tool": tool, "input": {"account": rng.choice("xyz")}}
            step["retry"] = {"max": 2, "backoff_s": 0}
            if rng.random() < 0.5:
                step |= {"map": "input:xs", "input": {"account": rng.choice(["item", "x"])}}
            if at and rng.random() < 0.6:
                step["depends_on"] = [f"s{rng.randrange(at)}"]
            steps.append(step)
        xs = [rng.choice("xyz") for _ in range(rng.choice([1, 3, 6, 12]))]
        tenant = rng.choice("abc")
        plan = Plan.model_validate({"steps": steps, "on_error": rng.choice(["fail_fast", "skip_dependents", "continue"])})
        job, _ = self.engine.store.submit(plan, inputs={"xs": xs}, tenant=tenant)
        self.jobs[job] = tenant
        for step in steps:
            for i in range(20):
                if rng.random() < 0.1:
                    self.failing[f"{job}/{step['id']}#{i}"] = rng.choice([1, 1, 2, 99])
        if rng.random() < 0.9:
            self.engine.start(job, {"xs": xs})
        else:
            self.control.cancel(job, tenant=tenant)
            self.cancelled.add(job)

    def work(self, call: str) -> str:
        self.ran[call] += 1
        if self.ran[call] <= self.failing.get(call, 0):
            raise ToolError("it fails", retryable=self.failing[call] < 99)
        return call

    def step(self) -> bool:
        """One random thing; False when nothing moves any more."""
        rng, mailbox = self.rng, self.engine.mailbox.calls
        chance = rng.random()
        if chance < 0.03:
            self._cancel()
        elif chance < 0.05:
            self._retry()
        elif chance < 0.052:
            self._purge()
        elif chance < 0.08:
            self._due()
        elif chance < 0.1:
            self.look.once()
        elif chance < 0.15:
            self._end_one()
        if not mailbox:
            return self.rest()
        message = mailbox.pop(rng.randrange(len(mailbox)))
        self.sent.append(message)
        chance = rng.random()
        if chance < 0.05:
            return True  # lost
        if chance < 0.25:
            self._begin(message)
        else:
            self.engine.deliver(message)
        if chance > 0.93:
            self.engine.deliver(rng.choice(self.sent))
        return True

    def rest(self) -> bool:
        """What time alone brings: calls end or are lost, timers and grace run out, a person resolves."""
        moved = False
        while self.holding:
            self._end_one()
            moved = True
        moved = self._bury() or moved
        moved = self._due() or self._resolve() or moved
        if not moved:
            self.look.once()
            moved = bool(self.engine.mailbox.calls) or self._requeue()
        return moved

    def _begin(self, message: ReadyCall) -> None:
        """A worker claims a call, asks for its key, and works for a while or dies."""
        claim = self.engine.ledger.claim(message.job, message.call, attempt=message.attempt, token=new_token(), queue=message.queue)
        if not isinstance(claim, Claim):
            return
        tool = claim.spec["tool"]
        if tool in KEYS_AT_ONCE:
            asked = self.engine.ledger.hold(claim, key=self.rng.choice("xy"), limit=KEYS_AT_ONCE[tool])
            follow(self.engine.ledger, self.engine.mailbox, asked)
            if asked.verdict != "ok":
                return
        (self.dead if self.rng.random() < 0.3 else self.holding).append(claim)

    def _end_one(self) -> None:
        if self.holding:
            claim = self.holding.pop(self.rng.randrange(len(self.holding)))
            outcome: Any = self.rng.choice(["s", "s", "s", "w"]) if claim.tries < 2 else "s"
            done = self.engine.ledger.complete(claim, outcome=outcome, payload=b'j"held"' if outcome == "s" else b"{}")
            follow(self.engine.ledger, self.engine.mailbox, done)

    def _bury(self) -> bool:
        dead, self.dead = self.dead, []
        for claim in dead:
            member = f"{claim.job}|{claim.call}|{claim.attempt}"
            self.engine.store.redis.zadd(self.shard.leases, {member: self.engine.ledger.now_ms() - 1}, xx=True)
            repaired = self.engine.ledger.repair(claim.job, kind="lost", call=claim.call, attempt=claim.attempt)
            follow(self.engine.ledger, self.engine.mailbox, repaired)
        return bool(dead)

    def _due(self) -> bool:
        moved = False
        for raw in self.engine.store.redis.zrange(self.shard.timers, 0, -1):
            job, call, attempt = raw.decode().split("|")
            done = self.engine.ledger.repair(job, kind="due", call=call, attempt=int(attempt))
            moved = moved or done.verdict != "waits"
            follow(self.engine.ledger, self.engine.mailbox, done)
        return moved

    def _requeue(self) -> bool:
        found = False
        for raw, score in self.engine.store.redis.zrange(self.shard.queued("function"), 0, -1, withscores=True):
            job, call, attempt = raw.decode().split("|")
            done = self.engine.ledger.repair(job, kind="queued", call=call, attempt=int(attempt), seen=int(score))
            if job in self.purged:
                self.engine.store.redis.zrem(self.shard.queued("function"), raw)
            follow(self.engine.ledger, self.engine.mailbox, done)
            found = found or done.verdict == "ok"
        return found

    def _alive(self) -> list[str]:
        return [j for j in self.jobs if j not in self.purged]

    def _resolve(self) -> bool:
        for job in self._alive():
            if self.status(job) in (JobStatus.RUNNING, JobStatus.WAITING):
                for call in self.engine.store.calls(job, state=CallState.UNKNOWN, tenant=self.jobs[job]):
                    self.control.resolve(job, call.call, happened=self.rng.random() < 0.5, tenant=self.jobs[job])
                    return True
        return False

    def _cancel(self) -> None:
        if alive := self._alive():
            job = self.rng.choice(alive)
            if not self.status(job).final:
                self.control.cancel(job, tenant=self.jobs[job])
                self.cancelled.add(job)

    def _retry(self) -> None:
        for job in self._alive():
            if self.status(job) in (JobStatus.CANCELLED, JobStatus.FAILED):
                self.control.retry(job, tenant=self.jobs[job])
                self.cancelled.discard(job)
                if self.status(job) is JobStatus.PLANNING:
                    self.engine.start(job, self.engine.store.inputs(job))
                return

    def _purge(self) -> None:
        tenant = self.rng.choice("abc")
        self.control.purge(tenant)
        self.purged |= {job for job, owner in self.jobs.items() if owner == tenant}

    def status(self, job: str) -> JobStatus:
        return self.engine.store.status(job, tenant=self.jobs[job])

    # --- what must hold ---

    def load(self) -> dict[str, int]:
        raw: Any = self.engine.store.redis.hgetall(self.shard.load)
        return {k.decode(): int(v) for k, v in raw.items()}

    def check_gates(self) -> None:
        """No gate is overrun, and the loads are those of the calls."""
        load = self.load()
        over = {
            k: v for k, v in load.items() if v > (LIMITS[k] if k in LIMITS else 1_000_000 if k.startswith("t|") else self.least)
        }
        assert over == {}
        held: Any = Counter(raw.partition(b"\n")[0].split(b"|")[1].decode() + "|" + raw.partition(b"\n")[0].decode()
                            for raw in self.engine.store.redis.zrange(self.shard.held, 0, -1))  # fmt: skip
        assert {k: n for k, n in held.items() if n > KEYS_AT_ONCE[k.partition("|")[0]]} == {}

    def check_books(self) -> None:
        """The load is what the published calls of running jobs hold."""
        real = Counter[str]()
        for job in self._alive():
            if self.status(job) in (JobStatus.RUNNING, JobStatus.WAITING):
                raw: dict[bytes, bytes] = self.engine.store.redis.hgetall(self.engine.ledger.keys(job).state)
                published = [k.decode()[2:] for k, v in raw.items() if k.startswith(b"c:") and v[:1] in b"qr"]
                real[f"q|function|{self.jobs[job]}"] += len(published)
                for call in published:
                    tool = self.engine.store.plan(job, tenant=self.jobs[job]).steps[int(call[1 : call.index("#")])].tool
                    if tool in ("few", "single", "both", "keyed"):
                        real[f"t|{tool}"] += 1
        assert self.load() == {k: v for k, v in real.items() if v}

    def check_end(self) -> None:
        for job in self._alive():
            assert self.status(job).final, job
            assert (self.status(job) is JobStatus.CANCELLED) == (job in self.cancelled)
            state: dict[bytes, bytes] = self.engine.store.redis.hgetall(self.engine.ledger.keys(job).state)
            assert {k: v for k, v in state.items() if k[:2] in (b"w:", b"kw") and v != b"0"} == {}
        if self.engine.store.redis.zcard(self.shard.leases):
            for raw in self.engine.store.redis.zrange(self.shard.leases, 0, -1):  # of cancelled calls, whose workers stopped
                self.engine.store.redis.zadd(self.shard.leases, {raw: self.engine.ledger.now_ms() - 1})
                job, call, attempt = raw.decode().split("|")
                follow(
                    self.engine.ledger,
                    self.engine.mailbox,
                    self.engine.ledger.repair(job, kind="lost", call=call, attempt=int(attempt)),
                )
        Housekeeper(self.engine.store).look(self.shard)
        assert self.load() == {}
        sets = (self.shard.parked, self.shard.held, self.shard.leases, self.shard.timers, self.shard.accepted)
        left = {k: self.engine.store.redis.zrange(k, 0, -1) for k in sets if self.engine.store.redis.exists(k)}
        assert left == {}


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)
    options: list[tuple[str, Any, dict[str, Any]]] = [
        ("echo", "none", {}),
        ("pay", "once", {}),
        ("few", "none", {"max_concurrency": 2}),
        ("single", "none", {"max_concurrency": 1}),
        ("keyed", "none", {"concurrency_key": "account", "max_per_key": 2}),
        ("both", "none", {"concurrency_key": "account", "max_per_key": 1, "max_concurrency": 2}),
    ]
    for name, effect, more in options:

        @made.tool(name=name, effect=effect, **more)
        def run(account: str, context: ToolContext) -> str:
            result: str = made.town.work(f"{context.job_id}/{context.call}")  # type: ignore[attr-defined]
            return result

    return made


@pytest.mark.parametrize("block", range(BLOCKS))
def test_many_jobs_at_few_gates_all_end(engine: Engine, block: int) -> None:
    for seed in range(block, SEEDS, BLOCKS):
        town = Town(engine, random.Random(seed))
        for _ in range(town.rng.randint(2, 6)):
            town.submit()
        moves = 0
        while town.step():
            town.check_gates()
            if moves % 10 == 0:
                town.check_books()
            moves += 1
            assert moves < 5_000, f"seed {seed} never comes to rest"
        town.check_end()
