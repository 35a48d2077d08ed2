"""The truth about every job: a ledger in Redis that only Lua scripts change, each comparing state and attempt first.

Redis TIME is the only clock. The sorted set of queued calls is the outbox: a call that a script releases is found
there by the reconciler if its publisher dies. `attempt` rises at every publication and fences; `tries` counts the
bodies that started and failed, and only it feeds `retry.max`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import redis

from orchestrator.broker.queues import list_name
from orchestrator.jobs.values import Stored
from orchestrator.models.job import Priority
from orchestrator.settings import Settings
from orchestrator.state.keys import JobKeys, Shard, job_keys
from orchestrator.state.scripts import Scripts

SCHEMA_VERSION = 1
LUA = Path(__file__).parent / "lua"

Outcome = Literal["s", "f", "k", "w", "u"]
SUCCEEDED: Outcome = "s"
FAILED: Outcome = "f"
SKIPPED: Outcome = "k"
RETRY: Outcome = "w"
UNKNOWN: Outcome = "u"


@dataclass(frozen=True, slots=True)
class ReadyCall:
    """A call that the ledger released: publish it once; a lost or doubled message does no harm."""

    job: str
    call: str
    attempt: int
    queue: str
    tool: str

    @property
    def step(self) -> str:
        return self.call.rpartition("#")[0]


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues of a job, and at which priority its calls stand in them."""

    names: tuple[str, ...] = ()
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class Claim:
    """A call that this worker holds: what to run, and the queues of its job."""

    job: str
    call: str
    attempt: int
    token: str
    spec: dict[str, Any]
    tries: int
    queues: Queues
    totals: dict[str, int]

    @property
    def step(self) -> str:
        return self.call.rpartition("#")[0]

    @property
    def index(self) -> int:
        return int(self.call.rpartition("#")[2])


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as it enters the ledger: `facts` are for the scripts, `spec` for the worker."""

    id: str
    dependencies: int
    facts: Mapping[str, Any]
    spec: Mapping[str, Any]


class Ledger:
    """The scripts as methods. All are safe to repeat: a second answer changes nothing."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        """`direct`, from the settings: the broker is this server, so the scripts push the messages themselves."""
        self.redis: Any = client  # redis-py types one method for its sync and async client at once
        self.settings = settings
        self.direct = settings.direct
        self._scripts = Scripts(client, LUA)

    def keys(self, job: str) -> JobKeys:
        return job_keys(job, self.settings.shards)

    def submit(self, job: str, *, fields: Mapping[str, Any], plan: bytes, inputs: bytes, tenant: str) -> bool:
        """Stores an accepted job; False when it is known already."""
        args = [json.dumps({"v": SCHEMA_VERSION, "tenant": tenant, **fields}), plan, inputs]
        return bool(self._call("submit", job, [self.keys(job).shard.index(tenant)], args))

    def start(
        self, job: str, *, rows: Sequence[StepRow], lengths: Mapping[str, int], queues: Queues, envelopes: Mapping[str, bytes]
    ) -> list[ReadyCall]:
        """Enters a planned job's steps; the calls to publish. Empty when it started already."""
        steps = [[r.id, r.dependencies, _json(r.facts), _json(r.spec)] for r in rows]
        flat = [part for row in envelopes.items() for part in row]
        answer = self._run("start", job, queues, [_json(steps), _json(lengths), _json(queues.names), *flat])
        return self._ready(job, queues, answer)

    def claim(self, job: str, call: str, *, attempt: int, token: str, queue: str) -> Claim | str:
        """The call, or the reason why this message does not get it."""
        keys, s = self.keys(job), self.settings
        answer = self._scripts.call(
            "claim",
            [keys.state, keys.events, keys.shard.leases, keys.shard.marks, keys.shard.queued(queue)],
            [job, call, attempt, token, int(s.lease_s * 1000), s.events_max, queue],
        )
        if answer[0] != b"ok":
            return str(answer[0].decode())
        totals = {answer[i].decode(): int(answer[i + 1]) for i in range(5, len(answer), 2)}
        queues = Queues(tuple(json.loads(answer[3])), cast(Priority, answer[4].decode()))
        return Claim(job, call, attempt, token, json.loads(answer[1]), int(answer[2]), queues, totals)

    def beat(self, job_calls: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Extends the leases of running calls `(job, call, attempt)`; False: cancelled or overtaken, stop it."""
        answers: dict[int, bool] = {}
        by_shard: dict[Shard, list[int]] = {}
        for at, (job, _, _) in enumerate(job_calls):
            by_shard.setdefault(self.keys(job).shard, []).append(at)
        for shard, places in by_shard.items():
            chosen = [job_calls[at] for at in places]
            keys = [shard.leases, *(self.keys(job).state for job, _, _ in chosen)]
            args: list[Any] = [int(self.settings.lease_s * 1000), *(part for row in chosen for part in row)]
            answers.update(zip(places, (bool(a) for a in self._scripts.call("beat", keys, args)), strict=True))
        return [answers[at] for at in range(len(job_calls))]

    def complete(
        self,
        claim: Claim,
        *,
        outcome: Outcome,
        payload: bytes = b"null",
        delay_s: float = 0.0,
        lengths: Mapping[str, int] | None = None,
        large: Stored | None = None,
    ) -> tuple[str, list[ReadyCall]]:
        """Commits the outcome of a call; `("ok", calls that became ready)` or the reason why it was refused."""
        large_args = [large.sha256, large.large] if large is not None else ["", b""]
        identity = [claim.call, claim.attempt, claim.token]
        args = [*identity, outcome, payload, int(delay_s * 1000), _json(lengths) if lengths else "", *large_args]
        answer = self._run("complete", claim.job, claim.queues, args)
        verdict = answer[0].decode()
        return verdict, self._ready(claim.job, claim.queues, answer[1]) if verdict == "ok" else []

    def log(self, claim: Claim, data: Mapping[str, Any]) -> None:
        """Adds a tool's own event to the job, while its call runs."""
        keys = self.keys(claim.job)
        self._scripts.call("log", [keys.state, keys.events], [claim.call, claim.attempt, self.settings.events_max, _json(data)])

    def repair(self, job: str, *, kind: str, call: str, attempt: int, seen: int = 0) -> tuple[str, list[ReadyCall]]:
        """Repairs a call that looks `lost`, `due` or `queued` too long; the calls to publish."""
        queues = self.queues(job)
        answer = self._run("repair", job, queues, [kind, call, attempt, self.settings.max_lost, seen])
        return answer[0].decode(), self._ready(job, queues, answer[1])

    def cancel(self, job: str) -> str:
        """Cancels a job; the status that it had before, "" when it is unknown."""
        return str(self._run("end", job, self.queues(job), ["cancelled", ""]).decode())

    def fail(self, job: str, error: bytes) -> str:
        """Ends a job that cannot go on; the status that it had before."""
        return str(self._run("end", job, self.queues(job), ["failed", error]).decode())

    def resolve(
        self, job: str, call: str, *, happened: bool, value: bytes, lengths: Mapping[str, int]
    ) -> tuple[str, list[ReadyCall]]:
        """Settles an unknown call; the verdict and the calls to publish."""
        queues = self.queues(job)
        args = [call, "happened" if happened else "retry", value, _json(lengths) if lengths else ""]
        answer = self._run("resolve", job, queues, args)
        return answer[0].decode(), self._ready(job, queues, answer[1])

    def retry(self, job: str, rows: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> tuple[str, list[ReadyCall]]:
        """Goes on from what did not succeed; `rows` are `(step, barriers, aligned)` in topological order."""
        queues = self.queues(job)
        answer = self._run("retry", job, queues, [_json(rows)])
        return answer[0].decode(), self._ready(job, queues, answer[1])

    def queues(self, job: str) -> Queues:
        """The queues that a started job uses."""
        names, priority = self.redis.hmget(self.keys(job).state, ["qs", "pri"])
        return Queues(tuple(json.loads(names or b"[]")), cast(Priority, (priority or b"normal").decode()))

    def now_ms(self) -> int:
        """The ledger's clock."""
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _run(self, name: str, job: str, queues: Queues, args: Sequence[Any]) -> Any:
        shard = self.keys(job).shard
        lists = [list_name(q, queues.priority) for q in queues.names] if self.direct else []
        return self._call(name, job, [*(shard.queued(q) for q in queues.names), *lists], args)

    def _call(self, name: str, job: str, more_keys: Sequence[str], args: Sequence[Any]) -> Any:
        keys, shard, s = self.keys(job), self.keys(job).shard, self.settings
        all_keys = [
            keys.state, keys.data, keys.events, keys.big, shard.leases, shard.timers, shard.marks, shard.accepted, shard.queues,
            shard.envelopes, *more_keys,
        ]  # fmt: skip
        return self._scripts.call(name, all_keys, [job, s.window, s.retention_s, s.events_max, int(self.direct), *args])

    @staticmethod
    def _ready(job: str, queues: Queues, rows: Sequence[Sequence[bytes]]) -> list[ReadyCall]:
        return [ReadyCall(job, c.decode(), int(a), queues.names[int(q)], tool.decode()) for c, a, q, tool in rows]


def new_token() -> str:
    """A token that no other claim has."""
    return secrets.token_hex(6)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def to_json(value: Any) -> bytes:
    """A small JSON value for an event or an error."""
    return json.dumps(value, ensure_ascii=False).encode()
