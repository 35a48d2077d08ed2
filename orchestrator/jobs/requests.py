"""Jobs that begin as a request in words: planned by one process at a time under a lease, confirmed, and answered in words.

Who plans a request holds a token; what comes later under an older token changes nothing. The lease is renewed while the model
thinks. Calls of models are counted when they happen, and their answers remembered, so that a planner that takes over after a
crash pays for none twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.jobs.ledger import PLANNING_LEASE_MS, TAKEN, Committed, Ledger
from orchestrator.models.job import Planning, RequestMode
from orchestrator.models.plan import Plan
from orchestrator.models.usage import ModelCall, Usage

REPLIES_KEPT = 32
REPLY_MAX = 256 * 1024  # bytes of JSON; a larger answer is not remembered
_STEPS_TOLD = 200
_OFFERS_MS = 20  # between two offers of requests for which a planner has no place
_CHUNK = 1_000

Wanted = Literal["plan", "answer"]
_WANTED: Mapping[bytes, Wanted] = {b"p": "plan", b"a": "answer"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the text, what to do with its plan, and the tools that the plan may use (None: all)."""

    text: str
    mode: RequestMode = "run"
    tools: tuple[str, ...] | None = None

    def stored(self) -> bytes:
        """As it stands in the job."""
        found: dict[str, Any] = {"text": self.text, "mode": self.mode}
        return json.dumps(found | ({"tools": self.tools} if self.tools is not None else {}), ensure_ascii=False).encode()

    @classmethod
    def read(cls, raw: bytes) -> Request:
        found = json.loads(raw)
        tools = found.get("tools")
        return cls(found["text"], found["mode"], tuple(tools) if tools is not None else None)


@dataclass(frozen=True, slots=True)
class Turn:
    """A planner's turn with a request: which attempt, how many pauses there were, how often a person had it tried again, and how
    many planners were lost with it."""

    job: str
    token: str
    wanted: Wanted
    attempt: int
    pauses: int
    generation: int
    lost: int = 0


class Requests:
    """The scripts of requests as methods. All are safe to repeat."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.redis: Any = ledger.redis
        self.lease_ms = int(3_000 * ledger.settings.lease_s)

    def begin(self, job: str, token: str) -> Turn | str:
        """This process's turn with a request, or why it gets none: "busy" (another one plans it), or "job <status>"."""
        answer = self.ledger.ask("ask_begin", job, [token, self.lease_ms, TAKEN])
        if answer[0] != b"ok":
            return str(answer[0].decode())
        _, wanted, *counts = answer
        return Turn(job, token, _WANTED[wanted], *map(int, counts))

    def later(self, job: str) -> None:
        """Puts off a request for which there is no place here now; with thousands that wait, each is offered again in minutes."""
        args = [job, PLANNING_LEASE_MS, _OFFERS_MS, TAKEN]
        self.ledger.scripts.call("ask_later", [self.ledger.keys(job).shard.accepted], args)

    def renew(self, turns: Sequence[tuple[str, str]]) -> list[bool]:
        """Goes on with requests `(job, token)`; False: it was cancelled, or another process plans it."""
        keys = [self.ledger.keys(job) for job, _ in turns]
        each = [
            ([k.state, k.shard.accepted], [job, token, self.lease_ms, TAKEN]) for k, (job, token) in zip(keys, turns, strict=True)
        ]
        answers = self.ledger.scripts.call_many("ask_renew", each)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [bool(answer) for answer in answers]

    def planned(self, turn: Turn, plan: Plan, *, inputs: bytes, made: Planning, replans: int, worded: bool) -> Committed:
        """Gives a request its plan: "start" it now, it "waits" for a person, it "ends" with the plan, or why it was refused."""
        steps = [{"id": s.id, "tool": s.tool} for s in plan.steps[:_STEPS_TOLD]]
        told = made.model_dump(mode="json", exclude_defaults=True) | {"steps": steps, "total": len(plan.steps)}
        args = [
            turn.token, plan.model_dump_json(exclude_defaults=True), inputs, made.model_dump_json(), _text(told),
            replans, int(worded), PLANNING_LEASE_MS, TAKEN,
        ]  # fmt: skip
        return self.ledger.change("ask_planned", turn.job, args)

    def wait(self, turn: Turn, *, reason: str, pause_s: float, most_s: float, code: str) -> str:
        """Offers a request again after a pause: "waits"; "over" when that would be more than `most_s` in all; or why not."""
        pause_ms = max(1, int(pause_s * 1000))
        told = _text({"reason": reason, "code": code, "retry_in_s": round(pause_s, 1)})
        answer = self.ledger.ask("ask_wait", turn.job, [turn.token, pause_ms, reason, int(most_s * 1000), told, TAKEN])
        return str(answer[0].decode())

    def say(self, turn: Turn, *, reason: str, for_s: float) -> None:
        """Says why a request that goes on takes long."""
        told = _text({"reason": reason, "retry_in_s": round(for_s, 1)})
        self.ledger.ask("ask_say", turn.job, [turn.token, reason, max(1, int(for_s * 1000)), told])

    def give_back(self, turn: Turn) -> bool:
        """Lets another process take a request at once; False when it is not ours any more."""
        return bool(self.ledger.ask("ask_back", turn.job, [turn.token])[0] == b"ok")

    def confirm(self, job: str) -> str:
        """A person confirms the plan: "ok", "again", or why not: "no plan", "job <status>"."""
        return str(self.ledger.ask("ask_confirm", job, [])[0].decode())

    def answered(self, turn: Turn, answer: str | None) -> Committed:
        """Ends a request whose answer was to be worded; None: the plan's template words it."""
        return self.ledger.change("ask_answered", turn.job, [turn.token, answer or ""])

    def note_call(self, job: str, call: ModelCall) -> bool:
        """Counts a call of a model for a job; False when it was counted before."""
        keys = self.ledger.keys(job)
        args = [call.id, call.model_dump_json(exclude_defaults=True)]
        return bool(self.ledger.scripts.call("ask_call", [keys.state, keys.data], args))

    def underway(self, job: str, call: ModelCall | None) -> None:
        """Notes a request to a model that goes out now; None: it did not. Whoever plans the job after a crash counts it as lost."""
        data = self.ledger.keys(job).data
        if call is None:
            self.redis.hdel(data, "sent", "sent_id")
        elif self.redis.exists(data):
            self.redis.hset(data, mapping={"sent_id": call.id, "sent": call.model_dump_json(exclude_defaults=True)})

    def usage(self, job: str) -> Usage:
        """What the models' calls for a job come to."""
        keys = self.ledger.keys(job)
        count = int(self.redis.hget(keys.state, "rq_calls") or 0)
        calls = []
        for low in range(1, count + 1, _CHUNK):
            rows = self.redis.hmget(keys.data, [f"u:{n}" for n in range(low, min(low + _CHUNK, count + 1))])
            calls += [ModelCall.model_validate_json(raw) for raw in rows if raw is not None]
        return Usage.of(calls)

    def reply(self, job: str, digest: str) -> bytes | None:
        """What a model answered to the same question before."""
        raw = self.redis.hget(self.ledger.keys(job).data, f"m:{digest}")
        return bytes(raw) if raw is not None else None

    def keep_reply(self, job: str, digest: str, reply: bytes) -> None:
        """Remembers an answer, unless it is large; of many the latest."""
        if len(reply) <= REPLY_MAX:
            keys = self.ledger.keys(job)
            self.ledger.scripts.call("ask_reply", [keys.state, keys.data], [digest, reply, REPLIES_KEPT])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
