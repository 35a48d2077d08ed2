"""Random histories of programs in a map: workers and calls lost, jobs cancelled and retried, effects settled, in any order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import JobStatus
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.integration.test_children import Maker, clean, control, engine_of, lose

PROGRAMS = 3


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return engine_of(settings.model_copy(update={"window_least": 2}))  # so that most calls have to wait for room


class History:
    """One job whose programs and messages are in the hands of a random choice."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.rng = engine, random.Random(seed)
        self.control = control(engine)
        self.paid: list[int] = []
        self.again = 0  # payments that somebody said did not happen
        self.makers: dict[str, Maker] = {}
        self.spawned: set[str] = set()  # makers that asked for all their calls
        self._watch_payments()
        later = {"id": "z", "tool": "double", "input": {"value": 1}, "depends_on": ["p"]}
        steps = [{"id": "p", "tool": "program", "map": "input:xs", "retry": {"max": 50, "backoff_s": 0}}, later]
        self.job = engine.submit(steps, inputs={"xs": list(range(PROGRAMS))})
        self.asked = {f"p#{at}": self._program(at) for at in range(PROGRAMS)}

    def _watch_payments(self) -> None:
        def pay(amount: int) -> int:
            self.paid.append(amount)
            return amount

        tool = self.engine.registry.get("pay")
        assert tool is not None
        object.__setattr__(tool, "function", pay)

    def _program(self, at: int) -> list[tuple[str, str, dict[str, Any]]]:
        tools = [("double", "value"), ("fail", "value"), ("pay", "amount"), ("one_by_one", "value")]
        chosen = [self.rng.choice(tools) for _ in range(self.rng.randint(1, 14))]
        return [
            (f"0:{n}", name, {argument: n % 2 if name == "one_by_one" else 100 * at + n})
            for n, (name, argument) in enumerate(chosen)
        ]

    # What may happen.

    def claim(self) -> None:
        for message in [c for c in self.engine.mailbox.calls if c.queue == "programs"]:
            if self._take(message):
                self.makers[message.call] = Maker(self.engine, self.job, message.call)
                self.spawned.discard(message.call)

    def _take(self, message: ReadyCall) -> bool:
        """Whether a message gets its call; those of other attempts are dropped, so that it is the one that is found."""
        calls = self.engine.mailbox.calls
        known = self.engine.ledger.redis.hget(self.engine.ledger.keys(self.job).state, f"c:{message.call}") or b""
        if not known.startswith(b"q|%d|" % message.attempt) or self.status.final:
            calls.remove(message)
            return False
        calls[:] = [c for c in calls if c.call != message.call or c.attempt == message.attempt]
        return True

    def deliver(self) -> None:
        calls = self.engine.mailbox.calls
        others = [c for c in calls if c.queue != "programs"]
        if others:
            call = self.rng.choice(others)
            if self.rng.random() < 0.9:
                calls.remove(call)
            self.engine.deliver(call)

    def spawn(self) -> None:
        if self.makers:
            maker = self.rng.choice(list(self.makers.values()))
            asked = self.asked[maker.call]
            if maker.spawn(*asked[: self.rng.randint(1, len(asked))])[0] != "ok":
                del self.makers[maker.call]

    def end(self) -> None:
        if self.makers:
            maker = self.rng.choice(list(self.makers.values()))
            states = [s for s, *_ in maker.answers(*range(1, len(self.asked[maker.call]) + 1))]
            if "u" in states:
                maker.end("u", b'{"code":"unknown","message":"see its calls"}')
            else:
                outcome = self.rng.choice(["w", "w", "f"])
                maker.end(outcome, b'{"code":"x","message":"y"}')
            del self.makers[maker.call]

    def lose_program(self) -> None:
        if self.makers and (maker := self.rng.choice(list(self.makers.values()))).claim.attempt < 4:
            lose(self.engine, maker)
            del self.makers[maker.call]

    def lose_call(self) -> None:
        calls = [c for c in self.engine.mailbox.calls if c.queue != "programs"]
        if calls and self.status is JobStatus.RUNNING:
            message = self.rng.choice(calls)
            if message.attempt < 3 and self._take(message):
                lose(self.engine, Maker(self.engine, self.job, message.call))

    def settle(self) -> None:
        unknown = [c for c in self.engine.store.view(self.job).unknown if c.parent] if not self.status.final else []
        if unknown:
            call = self.rng.choice(unknown)
            happened = self.rng.random() < 0.5
            self.again += not happened
            self.control.resolve(self.job, call.call, happened=happened, result=1 if happened else None)

    def due(self) -> None:
        self.engine.retry_now(self.job)

    def cancel(self) -> None:
        if not self.status.final and self.rng.random() < 0.2:
            self.control.cancel(self.job)

    def retry(self) -> None:
        view = self.engine.store.view(self.job)
        if view.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            self.control.retry(self.job)

    @property
    def status(self) -> JobStatus:
        return self.engine.store.status(self.job)

    def happen(self, times: int) -> None:
        usual = [self.claim, self.deliver, self.deliver, self.deliver, self.spawn, self.spawn, self.due, self.settle]
        rare = [self.end, self.lose_program, self.lose_call, self.cancel, self.retry]
        for _ in range(times):
            self.rng.choice(usual if self.rng.random() < 0.8 else rare)()

    def finish(self) -> None:
        """Everything works from now on, and each program waits for its calls."""
        for _ in range(400):
            self.retry()
            if self.status is JobStatus.SUCCEEDED:
                return
            self.claim()
            while any(c.queue != "programs" for c in self.engine.mailbox.calls):
                self.deliver()
            self.due()
            self.settle()
            for maker in list(self.makers.values()):
                self._go_on(maker)
        raise AssertionError(f"it hangs: {self.engine.store.calls(self.job)}")

    def _go_on(self, maker: Maker) -> None:
        if maker.call not in self.spawned and maker.spawn(*self.asked[maker.call])[0] != "ok":
            del self.makers[maker.call]
            return
        self.spawned.add(maker.call)
        keys = [f"ck:{maker.call}|{key}" for key, _, _ in self.asked[maker.call]]
        known = self.engine.ledger.redis.hmget(self.engine.ledger.keys(self.job).state, keys)
        states = [s for s, *_ in maker.answers(*(int(k.partition(b"|")[0]) for k in known))]
        if "u" in states:
            maker.end("u", b'{"code":"unknown","message":"see its calls"}')
        elif "x" in states or "" in states:
            raise AssertionError(f"a program that runs is told that its calls were stopped: {states}")
        elif set(states) <= {"s", "f"}:
            maker.end()
        else:
            return
        del self.makers[maker.call]


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_every_program_ends_and_nothing_is_left(engine: Engine, seed: int) -> None:
    history = History(engine, seed)
    history.happen(300)
    history.finish()
    state = {k.decode(): v.decode() for k, v in engine.ledger.redis.hgetall(engine.ledger.keys(history.job).state).items()}
    assert {k: v for k, v in state.items() if k in ("live", "un") and v != "0"} == {}
    assert len(history.paid) <= len(set(history.paid)) + history.again
    shard = engine.ledger.keys(history.job).shard
    engine.retry_now(history.job)
    assert not engine.ledger.redis.zrange(shard.timers, 0, -1)
    assert not engine.ledger.redis.zrange(shard.parked, 0, -1)
    clean(engine, history.job)
