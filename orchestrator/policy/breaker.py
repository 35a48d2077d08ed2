"""Circuit breakers: what keeps failing is left alone for a while, then one call tries it for all processes.

A circuit is CLOSED until so many calls in a row failed. Then it is OPEN and refuses calls; when its time is over it is
HALF_OPEN: one call probes, and its end closes the circuit or opens it again. Circuits lie in Redis, where all processes
share them, or in this process. While Redis is away every call passes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

import redis

from orchestrator.errors import CircuitBreakerOpenError
from orchestrator.monitoring.metrics import CIRCUIT_CHANGES, Count, Metrics
from orchestrator.settings import Settings
from orchestrator.state.connection import transient
from orchestrator.state.keys import METRICS, breaker
from orchestrator.state.scripts import Scripts

LUA = Path(__file__).parent / "lua"
KEPT_S = 86_400.0  # a circuit that nobody used for so long is forgotten
AWAY_S = 1.0  # after Redis failed to answer it is not asked again for so long
PROBED_S = 1.0  # who is refused while another probes may come back after so long
REASON_MOST = 300

P = ParamSpec("P")
R = TypeVar("R")
State = Literal["CLOSED", "OPEN", "HALF_OPEN"]
_Outcome = Literal["succeeded", "failed", "neutral"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """When a circuit opens, and for how long."""

    failures: int = 5
    open_s: float = 60.0

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_s <= 0:
            raise ValueError("a circuit breaker needs a failure_threshold of 1 at least, and a timeout above 0 s")

    @property
    def kept_s(self) -> float:
        return max(KEPT_S, 2 * self.open_s)


@dataclass(frozen=True, slots=True)
class Passed:
    """A call that may go: the generation of each of its circuits, and those that it probes."""

    generations: tuple[int, ...]
    probed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not go: the circuit that refuses it, for how long, after how many failures and which was the last."""

    name: str
    wait_s: float
    failures: int
    probing: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a circuit is like now."""

    state: State
    failures: int


@dataclass(frozen=True, slots=True)
class End:
    """What became of a call, as far as one circuit goes. `generation` is the one in which it was let pass."""

    name: str
    generation: int
    outcome: _Outcome


class Circuits(Protocol):
    """Where circuits are kept; each method is one atomic step."""

    def admit(self, names: Sequence[str], *, token: str, lease_s: float, rules: Rules) -> Passed | Refused:
        """Lets a call pass all circuits, or none."""

    def report(self, ends: Sequence[End], *, token: str, reason: str, rules: Rules) -> list[tuple[str, State]]:
        """Takes the end of a call; the circuits that changed."""

    def look(self, name: str) -> Look:
        """What a circuit is like now."""


@dataclass(slots=True)
class _Circuit:
    """A circuit of this process; the scripts keep the same fields in Redis."""

    generation: int = 0
    failures: int = 0
    reason: str = ""
    until: float | None = None  # None: closed
    probe: str | None = None
    lease: float = 0.0

    def refusal(self, name: str, *, token: str, now: float) -> Refused | None:
        """Why a call may not pass, None when it may."""
        if self.until is not None and self.until > now:
            return Refused(name, self.until - now, self.failures, probing=False, reason=self.reason)
        if self.probe not in (None, token) and self.lease > now:
            return Refused(name, self.lease - now, self.failures, probing=True, reason=self.reason)
        return None

    def end(self, outcome: _Outcome, *, reason: str, rules: Rules, now: float) -> State | None:
        """Takes the end of a call of this generation; the state that it led to, if it is another."""
        was_open, self.probe = self.until is not None, None
        if outcome == "failed":
            self.failures, self.reason = self.failures + 1, reason
            if was_open or self.failures >= rules.failures:
                self.until, self.generation = now + rules.open_s, self.generation + 1
                return "OPEN"
        elif outcome == "succeeded":
            self.failures = 0
            if was_open:
                self.until, self.generation = None, self.generation + 1
                return "CLOSED"
        return None


class OwnCircuits:
    """The circuits of this process alone."""

    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}
        self._lock = threading.Lock()

    def admit(self, names: Sequence[str], *, token: str, lease_s: float, rules: Rules) -> Passed | Refused:  # noqa: ARG002 (of the seam)
        with self._lock:
            now = time.monotonic()
            asked = {name: self._circuits.get(name, _Circuit()) for name in names}
            for name, circuit in asked.items():
                if (refusal := circuit.refusal(name, token=token, now=now)) is not None:
                    return refusal
            probed = {name: c for name, c in asked.items() if c.until is not None}
            for circuit in probed.values():
                circuit.probe, circuit.lease = token, now + lease_s
            return Passed(tuple(c.generation for c in asked.values()), tuple(probed))

    def report(self, ends: Sequence[End], *, token: str, reason: str, rules: Rules) -> list[tuple[str, State]]:
        with self._lock:
            changed = [(e.name, self._end(e, token=token, reason=reason, rules=rules)) for e in ends]
            return [(name, state) for name, state in changed if state is not None]

    def look(self, name: str) -> Look:
        with self._lock:
            circuit = self._circuits.get(name, _Circuit())
            return Look(_state(circuit.until, time.monotonic()), circuit.failures)

    def _end(self, end: End, *, token: str, reason: str, rules: Rules) -> State | None:
        circuit = self._circuits.setdefault(end.name, _Circuit())
        if circuit.generation != end.generation or (circuit.until is not None and circuit.probe != token):
            return None  # it was let pass before the circuit changed
        return circuit.end(end.outcome, reason=reason, rules=rules, now=time.monotonic())


class SharedCircuits:
    """The circuits of all processes, in Redis and by its clock."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, LUA)

    def admit(self, names: Sequence[str], *, token: str, lease_s: float, rules: Rules) -> Passed | Refused:
        args = [token, _ms(lease_s), _ms(rules.kept_s)]
        first, *rest = self._scripts.call("breaker_admit", [breaker(n) for n in names], args)
        if first:
            wait, failures, probing, reason = rest
            return Refused(names[first - 1], wait / 1000, failures, bool(probing), (reason or b"").decode(errors="replace"))
        probed, *generations = rest
        return Passed(tuple(map(int, generations)), tuple(names[int(n) - 1] for n in probed.split(b",") if n))

    def report(self, ends: Sequence[End], *, token: str, reason: str, rules: Rules) -> list[tuple[str, State]]:
        each = [part for end in ends for part in (end.outcome, end.generation)]
        args = [token, rules.failures, _ms(rules.open_s), _ms(rules.kept_s), reason, *each]
        states = self._scripts.call("breaker_report", [breaker(e.name) for e in ends], args)
        return [(end.name, state.decode()) for end, state in zip(ends, states, strict=True) if state]

    def look(self, name: str) -> Look:
        pipe = self._redis.pipeline(transaction=True)
        pipe.time()
        pipe.hmget(breaker(name), "u", "n")
        (seconds, micros), (until, failures) = pipe.execute()
        return Look(_state(int(until) / 1000 if until else None, seconds + micros / 1e6), int(failures or 0))


class Gate:
    """Circuits under one set of rules: asks before a call, and is told its end."""

    def __init__(self, client: redis.Redis | None, rules: Rules) -> None:
        self.rules = rules
        self._circuits: Circuits = OwnCircuits() if client is None else SharedCircuits(client)
        self._metrics = Metrics(client, METRICS) if client is not None else None
        self._away_until = float("-inf")

    def admit(self, names: Sequence[str], *, lease_s: float | None = None) -> Permit:
        """Lets a call pass that needs all of these, such as a server and a tool of it.

        Args:
            lease_s: Seconds after which another call may probe although this one's probe has not ended; at least what
                the call may take. Default: as long as a circuit stays open.

        Raises:
            CircuitBreakerOpenError: one of them is open, or half open and probed by another call.
        """
        names, token = tuple(dict.fromkeys(names)), secrets.token_hex(8)
        answer = self._asked(names, token, lease_s if lease_s is not None else self.rules.open_s)
        if isinstance(answer, Refused):
            raise _refusal(answer)
        if answer is None:
            return Permit(None, (), (), token)
        self._tell([(name, "HALF_OPEN") for name in answer.probed], "its time is over; one call probes")
        return Permit(self, names, answer.generations, token)

    def state(self, name: str) -> State:
        """What a circuit is like now.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return self._circuits.look(name).state

    def failures(self, name: str) -> int:
        """How many calls failed in a row.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return self._circuits.look(name).failures

    def report(self, ends: Sequence[End], *, token: str, reason: str) -> None:
        """What `Permit` tells; it is lost while Redis is away."""
        try:
            changed = self._circuits.report(ends, token=token, reason=reason, rules=self.rules)
        except redis.RedisError as error:
            self._is_away(error)
        else:
            self._tell(changed, reason or "the probe succeeded")

    def _asked(self, names: Sequence[str], token: str, lease_s: float) -> Passed | Refused | None:
        if not names or time.monotonic() < self._away_until:
            return None
        try:
            return self._circuits.admit(names, token=token, lease_s=lease_s, rules=self.rules)
        except redis.RedisError as error:
            self._is_away(error)
            return None

    def _is_away(self, error: redis.RedisError) -> None:
        if not transient(error):
            raise error
        self._away_until = time.monotonic() + AWAY_S
        log.warning("circuit breakers let every call pass, the store is away: %s", error, extra={"action": "circuits_away"})

    def _tell(self, changed: Sequence[tuple[str, State]], why: str) -> None:
        for name, state in changed:
            level = logging.WARNING if state == "OPEN" else logging.INFO
            log.log(level, "circuit `%s` is %s: %s", name, state, why, extra={"action": "circuit", "circuit": name, "state": state})
        if changed and self._metrics is not None:
            try:
                self._metrics.add(Count(CIRCUIT_CHANGES, change) for change in changed)
            except redis.RedisError as error:
                log.warning("a change of a circuit was not counted: %s", error, extra={"action": "metrics_lost"})


class Breakers(Gate):
    """The circuits of a platform by name, such as `mcp:time` and `mcp:time.get_current_time`. Blocks for one round trip."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client, Rules(settings.breaker_failures, settings.breaker_open_s))


class Permit:
    """A call that may go. Tell its end once, in whichever way; what is told later says nothing."""

    def __init__(self, gate: Gate | None, names: tuple[str, ...], generations: tuple[int, ...], token: str) -> None:
        self._gate = gate  # None: the circuits were not asked
        self._circuits = dict(zip(names, generations, strict=True))
        self._token = token

    def succeeded(self) -> None:
        """What was called answered, whatever it said."""
        self._end(dict.fromkeys(self._circuits, "succeeded"), "")

    def failed(self, reason: str, *, of: Collection[str] | None = None) -> None:
        """What was called did not do its part. `reason` is logged and shown to those who are refused: no secrets.

        Args:
            of: The circuits that it counts for; to the others it says nothing. Default: all.
        """
        self._end({name: "failed" if of is None or name in of else "neutral" for name in self._circuits}, reason[:REASON_MOST])

    def neutral(self) -> None:
        """The end says nothing about what was called: it was cancelled, or never sent. Another call may probe."""
        self._end(dict.fromkeys(self._circuits, "neutral"), "")

    def _end(self, outcomes: dict[str, _Outcome], reason: str) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            ends = [End(name, self._circuits[name], outcome) for name, outcome in outcomes.items()]
            gate.report(ends, token=self._token, reason=reason)


class CircuitBreaker:
    """One circuit around calls of an async function.

    Args:
        failure_threshold: Failures in a row that open it.
        timeout: Seconds after which one call probes.
        name: What messages call it; all processes with this name and the same Redis share the circuit.
        client: Redis; default: the circuit is this object's own.
        probe_s: Seconds that a probe may take before another call may try, since its process may have died. Default: `timeout`.
        ignore: Errors that say nothing about what is called, such as those of a wrong request.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        timeout: float = 60.0,
        *,
        name: str = "default",
        client: redis.Redis | None = None,
        probe_s: float | None = None,
        ignore: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        self._gate = Gate(client, Rules(failure_threshold, timeout))
        self._blocks = client is not None
        self.failure_threshold, self.timeout, self.name = failure_threshold, timeout, name
        self._probe_s, self._ignore = probe_s, ignore

    @property
    def state(self) -> State:
        """CLOSED, OPEN, or HALF_OPEN: the time is over, so the next call probes or one does already."""
        return self._gate.state(self.name)

    @property
    def failure_count(self) -> int:
        """How many calls failed in a row."""
        return self._gate.failures(self.name)

    async def call(self, func: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `func(*args, **kwargs)` gives; its exceptions pass through and count.

        Raises:
            CircuitBreakerOpenError: the function was not called.
        """
        permit = await self._step(lambda: self._gate.admit((self.name,), lease_s=self._probe_s))
        try:
            result = await func(*args, **kwargs)
        except self._ignore:
            await self._step(permit.neutral)
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            await self._step(lambda: permit.failed(reason))
            raise
        except BaseException:  # cancelled: also the report must not wait
            permit.neutral()
            raise
        await self._step(permit.succeeded)
        return result

    async def _step(self, step: Callable[[], R]) -> R:
        return await asyncio.to_thread(step) if self._blocks else step()


def _refusal(refused: Refused) -> CircuitBreakerOpenError:
    wait = min(refused.wait_s, PROBED_S) if refused.probing else refused.wait_s
    times = f"failed {refused.failures} times in a row" if refused.failures > 1 else "failed"
    until = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + refused.wait_s))
    now = "one call tries it now" if refused.probing else f"it is not called until {until}"
    last = f" (the last time: {refused.reason})" if refused.reason else ""
    return CircuitBreakerOpenError(
        f"`{refused.name}` {times}{last}; {now}", retry_after_s=wait, next=f"Try again in {max(wait, 0.1):.1f} s."
    )


def _state(until: float | None, now: float) -> State:
    if until is None:
        return "CLOSED"
    return "OPEN" if until > now else "HALF_OPEN"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
