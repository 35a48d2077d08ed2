"""The truth about every job: a ledger in Redis that only Lua scripts change, each comparing state and attempt first.

Redis TIME is the only clock. The sorted set of queued calls is the outbox: a call that a script releases is found
there by the reconciler if its publisher dies. `attempt` rises at every publication and fences; `tries` counts the
bodies that started and failed, and only it feeds `retry.max`.

Calls are published within windows: of a job, of a tenant in a queue, of a tool whose concurrency is limited. What does
not fit is parked; whoever frees a place is told what to release (`Committed.parked`), and the reconciler looks as well.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import redis

from orchestrator.broker.queues import PRIORITIES, list_name
from orchestrator.errors import BackendError
from orchestrator.jobs.values import Stored
from orchestrator.models.job import Priority
from orchestrator.settings import Settings
from orchestrator.state.keys import JobKeys, Shard, job_keys
from orchestrator.state.scripts import Scripts

SCHEMA_VERSION = 4  # of the ledger's fields; scripts leave a job of a newer one to newer workers
PLANNING_LEASE_MS = 2_000
TAKEN = 10_000_000_000_000  # added to the score of an accepted job that a planner took: when its lease ends
_SECURE_MS = 5_000
KEY_WAIT_MS = 10_000  # a call that waits for a key asks again so often, in case nobody tells it
LUA = Path(__file__).parent / "lua"

Lane = tuple[int, str, int]  # place of the queue; tool and how many calls of it run at once, if that is limited
Outcome = Literal["s", "f", "k", "w", "b", "u"]
Told = Literal["log", "alert"]
SUCCEEDED: Outcome = "s"
FAILED: Outcome = "f"
SKIPPED: Outcome = "k"
RETRY: Outcome = "w"
PUT_BACK: Outcome = "b"
UNKNOWN: Outcome = "u"


@dataclass(frozen=True, slots=True)
class ReadyCall:
    """A call that the ledger released: publish it once; a lost or doubled message does no harm."""

    job: str
    call: str
    attempt: int
    queue: str
    tool: str
    level: int = 1

    @property
    def step(self) -> str:
        return self.call.rpartition("#")[0]


class Committed(NamedTuple):
    """What came of a change: the verdict ("ok", or why it was refused), calls to publish, and what to `release` then.

    `over`: how the job ended by this change, with a `!` behind it when it has errors and a `?` when a person refused
    its plan; "" when it did not.
    """

    verdict: str
    ready: Sequence[ReadyCall] = ()
    parked: Sequence[str] = ()
    over: str = ""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A message that asks for its call."""

    job: str
    call: str
    attempt: int
    token: str
    at: float = field(default_factory=time.monotonic, compare=False)  # when it was made, on this process's clock


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
    tenant: str = "default"
    asked: float = field(default=0.0, compare=False)  # when the claim was sent, on this process's clock,
    at: float = field(default_factory=time.monotonic, compare=False)  # and when it was answered

    @property
    def step(self) -> str:
        return self.call.rpartition("#")[0]

    @property
    def index(self) -> int:
        return int(self.call.rpartition("#")[2])


@dataclass(frozen=True, slots=True)
class Completion:
    """The outcome of a call, to be committed: its value or error, and the delay before the next try."""

    claim: Claim
    outcome: Outcome
    payload: bytes = b"null"
    delay_s: float = 0.0
    lengths: Mapping[str, int] | None = None
    large: Stored | None = None


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as it enters the ledger: `facts` are for the scripts, `spec` for the worker."""

    id: str
    dependencies: int
    facts: Mapping[str, Any]
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Child:
    """A call that a running call makes. Its maker knows it by `key`; `digest` says what is called with what.

    `limit`: calls of its tool that may run at once, if that is limited. `envelope`: name and text, see `publisher/envelope.py`.
    """

    key: str
    digest: str
    queue: str
    facts: Mapping[str, Any]
    spec: Mapping[str, Any]
    limit: int | None = None
    envelope: tuple[str, bytes] = ("", b"")


class Born(NamedTuple):
    """What became of a child: its number among those of its maker, its state ("new": released now), the digest that is recorded."""

    number: int
    state: str
    digest: str


class NewerJob(BackendError):
    """The job was made by a newer version; processes of that version take care of it."""

    code = "newer_job"


class Ledger:
    """The scripts as methods. All are safe to repeat: a second answer changes nothing."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        """`direct`, from the settings: the broker is this server, so the scripts push the messages themselves."""
        self.redis: Any = client  # redis-py types one method for its sync and async client at once
        self.settings = settings
        self.direct = settings.direct
        self._scripts = Scripts(client, LUA)

    @property
    def scripts(self) -> Scripts:
        """The scripts by name."""
        return self._scripts

    def keys(self, job: str) -> JobKeys:
        return job_keys(job, self.settings.shards)

    def submit(self, job: str, *, fields: Mapping[str, Any], plan: bytes, inputs: bytes, tenant: str, request: bytes = b"") -> bool:
        """Stores an accepted job: its plan, or the request that it is to be made of. False when it is known already."""
        args = [json.dumps({"v": SCHEMA_VERSION, "tenant": tenant, **fields}), plan, inputs, request]
        shard = self.keys(job).shard
        return bool(self._call("submit", job, [shard.index(tenant), shard.tenants], args))

    def take(self, shard: Shard) -> str | None:
        """The accepted job that is to be planned next, fairly among tenants; None when none waits."""
        return self._scripts.call("take", [shard.accepted], [PLANNING_LEASE_MS, TAKEN]).decode() or None

    def start(
        self,
        job: str,
        *,
        rows: Sequence[StepRow],
        lengths: Mapping[str, int],
        queues: Queues,
        lanes: Sequence[Lane],
        envelopes: Mapping[str, bytes],
        number: int = 0,
    ) -> Committed:
        """Enters the steps of a job's plan (its `number`, 0 when the job began as a plan). Refused when it started already."""
        steps = [[r.id, r.dependencies, _json(r.facts), _json(r.spec)] for r in rows]
        flat = [part for row in envelopes.items() for part in row]
        return self._run("start", job, queues, [_json(steps), _json(lengths), _json(queues.names), _json(lanes), number, *flat])

    def claim(self, job: str, call: str, *, attempt: int, token: str, queue: str) -> Claim | str:
        """The call, or the reason why this message does not get it."""
        request = ClaimRequest(job, call, attempt, token)
        return _claim(request, self._scripts.call("claim", *self._claim(request, queue)))

    def claim_many(self, requests: Sequence[ClaimRequest], *, queue: str) -> list[Claim | str | Exception]:
        """`claim` for many messages in one round trip; what went wrong with one does not touch the others."""
        answers = self._scripts.call_many("claim", [self._claim(r, queue) for r in requests])
        return [a if isinstance(a, Exception) else _claim(r, a) for r, a in zip(requests, answers, strict=True)]

    def _claim(self, r: ClaimRequest, queue: str) -> tuple[list[str], list[Any]]:
        keys, s = self.keys(r.job), self.settings
        return (
            [keys.state, keys.events, keys.shard.leases, keys.shard.marks, keys.shard.queued(queue)],
            [r.job, r.call, r.attempt, r.token, int(s.lease_s * 1000), s.events_max, queue, SCHEMA_VERSION],
        )

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
    ) -> Committed:
        """Commits the outcome of a call."""
        done = Completion(claim, outcome, payload, delay_s, lengths, large)
        return self._committed(claim.job, claim.queues, self._scripts.call("complete", *self._complete(done)))

    def complete_many(self, completions: Sequence[Completion]) -> list[Committed | Exception]:
        """`complete` for many calls in one round trip; what went wrong with one does not touch the others."""
        answers = self._scripts.call_many("complete", [self._complete(c) for c in completions])
        return [
            a if isinstance(a, Exception) else self._committed(c.claim.job, c.claim.queues, a)
            for c, a in zip(completions, answers, strict=True)
        ]

    def _complete(self, c: Completion) -> tuple[list[str], list[Any]]:
        large_args = [c.large.sha256, c.large.large] if c.large is not None else ["", b""]
        identity = [c.claim.call, c.claim.attempt, c.claim.token]
        args = [*identity, c.outcome, c.payload, int(c.delay_s * 1000), _json(c.lengths) if c.lengths else "", *large_args]
        return self._arguments(c.claim.job, self._queue_keys(c.claim.job, c.claim.queues), args)

    def spawn(self, claim: Claim, children: Sequence[Child], *, channel: str) -> tuple[Committed, list[Born]]:
        """Makes calls on behalf of a running one; those that it made before, in an earlier attempt, are only looked up.

        `channel` is told `job|call` when one ends. The verdict is "ok", or why the call may make none ("fenced", "job cancelled").
        """
        args: list[Any] = [claim.call, claim.attempt, claim.token, channel]
        for c in children:
            limit = "" if c.limit is None else c.limit
            args += [c.key, c.digest, c.queue, limit, _json(c.facts), _json(c.spec), *c.envelope]
        answer = self._call("spawn", claim.job, self._queue_keys(claim.job, claim.queues), args)
        born = [Born(int(n), state.decode(), digest.decode()) for n, state, digest in answer[3]]
        return self._committed(claim.job, claim.queues, answer), born

    def hold(self, claim: Claim, *, key: str, limit: int) -> Committed:
        """Takes a key of the call's tool, of which at most `limit` calls hold one at once; "parked": it waits, stop here."""
        gate = f"k|{claim.spec['tool']}|{key}"
        args = [claim.call, claim.attempt, claim.token, gate, limit, KEY_WAIT_MS]
        return self._run("hold", claim.job, claim.queues, args)

    def secure(self, shard: Shard) -> bool:
        """Whether all that this process wrote before is on the store's disk and replicas, as the settings ask.

        `WAITAOF` (Redis 7.2, Valkey) waits for the writes of its own connection; the log is sequential, so one write there
        stands for all before it.

        Raises:
            redis.ResponseError: the server knows no WAITAOF, or keeps no append-only file.
        """
        s = self.settings
        pipe = self.redis.pipeline(transaction=False)
        pipe.set(shard.fence, 1)
        pipe.execute_command("WAITAOF", int(s.once_fsync), s.once_replicas, _SECURE_MS)
        _, (local, replicas) = pipe.execute()
        return bool(local >= int(s.once_fsync) and replicas >= s.once_replicas)

    def release(self, entry: str) -> Committed:
        """Gives something parked, of any job, its turn. Publish what it answers, then release what follows."""
        job = entry.split("\n")[2]
        return self._run("release", job, self.queues(job), [entry])

    def log(self, claim: Claim, data: Mapping[str, Any], *, type: Told = "log", sampled: bool = False) -> bool:
        """Adds a tool's own event to the job, or an alert about it; False when its call runs no more.

        `sampled`: of a large map only some calls tell it, as with `call.running`.
        """
        keys = self.keys(claim.job)
        args = [claim.call, claim.attempt, self.settings.events_max, _json(data), type, int(sampled)]
        return bool(self._scripts.call("log", [keys.state, keys.events], args))

    def repair(self, job: str, *, kind: str, call: str, attempt: int, seen: int = 0) -> Committed:
        """Repairs a call that looks `lost`, `due`, `queued` too long, or `aged` behind others."""
        s = self.settings
        return self._run(
            "repair", job, self.queues(job), [kind, call, attempt, s.max_lost, seen, int(s.lease_s * 1000), KEY_WAIT_MS]
        )

    def cancel(self, job: str) -> Committed:
        """Cancels a job; the verdict is the status that it had before, "" when it is unknown."""
        return self._run("end", job, self.queues(job), ["cancelled", "", ""])

    def fail(self, job: str, error: bytes, *, token: str = "") -> Committed:
        """Ends a job that cannot go on; the verdict is the status that it had before.

        With the `token` of a planner: "fenced" when another one plans it now.
        """
        return self._run("end", job, self.queues(job), ["failed", error, token])

    def change(self, name: str, job: str, args: Sequence[Any]) -> Committed:
        """Runs a script that changes a job, by its name: see `jobs/requests.py`."""
        return self._run(name, job, self.queues(job), args)

    def ask(self, name: str, job: str, args: Sequence[Any]) -> Sequence[Any]:
        """The same for one that sets no call free; its answer as it comes."""
        answer: Sequence[Any] = self._call(name, job, [], args)
        return answer

    def resolve(self, job: str, call: str, *, happened: bool, value: bytes, lengths: Mapping[str, int]) -> Committed:
        """Settles an unknown call."""
        args = [call, "happened" if happened else "retry", value, _json(lengths) if lengths else ""]
        return self._run("resolve", job, self.queues(job), args)

    def retry(self, job: str, rows: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> Committed:
        """Goes on from what did not succeed; `rows` are `(step, barriers, aligned)` in topological order."""
        return self._run("retry", job, self.queues(job), [_json(rows)])

    def queues(self, job: str) -> Queues:
        """The queues that a started job uses."""
        names, priority = self.redis.hmget(self.keys(job).state, ["qs", "pri"])
        return Queues(tuple(json.loads(names or b"[]")), cast(Priority, (priority or b"normal").decode()))

    def now_ms(self) -> int:
        """The ledger's clock."""
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _run(self, name: str, job: str, queues: Queues, args: Sequence[Any]) -> Committed:
        return self._committed(job, queues, self._call(name, job, self._queue_keys(job, queues), args))

    def _queue_keys(self, job: str, queues: Queues) -> list[str]:
        """Of each queue the set of queued calls, and where the scripts push messages: front, light and heavy list."""
        shard, names = self.keys(job).shard, queues.names
        keys = [shard.queued(q) for q in names]
        if self.direct:
            level = PRIORITIES[queues.priority]
            keys += [list_name(q, at) for at in (0, level, level + len(PRIORITIES)) for q in names]
        return keys

    def _call(self, name: str, job: str, more_keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return self._scripts.call(name, *self._arguments(job, more_keys, args))
        except redis.ResponseError as error:
            if str(error).startswith("SCHEMA"):
                raise NewerJob(f"Job {job} was made by a newer version of ToolWeaver than this process.") from None
            raise

    def _arguments(self, job: str, more_keys: Sequence[str], args: Sequence[Any]) -> tuple[list[str], list[Any]]:
        keys, shard, s = self.keys(job), self.keys(job).shard, self.settings
        all_keys = [
            keys.state, keys.data, keys.events, keys.big, shard.leases, shard.timers, shard.marks, shard.accepted, shard.queues,
            shard.envelopes, shard.load, shard.slots, shard.parked, shard.held, *more_keys,
        ]  # fmt: skip
        windows = f"{s.window:g} {s.tenant_window:g} {s.window_least}"
        return all_keys, [job, windows, s.retention_s, s.events_max, int(self.direct), *args]

    @staticmethod
    def _committed(job: str, queues: Queues, answer: Sequence[Any]) -> Committed:
        verdict, ready, parked, over = (*answer, *((), (), b"")[len(answer) - 1 :])[:4]
        return Committed(
            verdict.decode(),
            [ReadyCall(job, c.decode(), int(a), queues.names[int(q)], tool.decode(), int(level)) for c, a, q, tool, level in ready],
            [entry.decode() for entry in parked],
            over.decode() if isinstance(over, bytes) else "",  # calls that were spawned stand there too
        )


def _claim(r: ClaimRequest, answer: Sequence[Any]) -> Claim | str:
    if answer[0] != b"ok":
        return str(answer[0].decode())
    totals = {answer[i].decode(): int(answer[i + 1]) for i in range(6, len(answer), 2)}
    queues = Queues(tuple(json.loads(answer[3])), cast(Priority, answer[4].decode()))
    tenant = answer[5].decode()
    return Claim(r.job, r.call, r.attempt, r.token, json.loads(answer[1]), int(answer[2]), queues, totals, tenant, asked=r.at)


def new_token() -> str:
    """A token that no other claim has."""
    return secrets.token_hex(6)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def to_json(value: Any) -> bytes:
    """A small JSON value for an event or an error."""
    return json.dumps(value, ensure_ascii=False).encode()
