"""What is known of jobs: accepted, looked at, listed. Changes of state go through the ledger."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, cast

import redis

from orchestrator.errors import Conflict, NotFound, RequestError
from orchestrator.jobs.files import JobFiles
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.listing import ROW, JobRow, newest, parse_cursor
from orchestrator.jobs.requests import Request, Requests
from orchestrator.jobs.values import encode
from orchestrator.models.file import Artifact, ArtifactPage
from orchestrator.models.job import (
    FINAL_STATUSES,
    CallState,
    CallView,
    ErrorInfo,
    JobPage,
    JobResult,
    JobStatus,
    JobView,
    Planning,
    Priority,
    StepState,
    StepView,
)
from orchestrator.models.plan import Plan, Step
from orchestrator.models.worker import WorkerInfo
from orchestrator.settings import Settings
from orchestrator.state.keys import WORKERS, WORKERS_INFO, tenant_shard

_STATES = {
    "q": CallState.QUEUED,
    "n": CallState.QUEUED,
    "r": CallState.RUNNING,
    "w": CallState.WAITING,
    "s": CallState.SUCCEEDED,
    "f": CallState.FAILED,
    "k": CallState.SKIPPED,
    "u": CallState.UNKNOWN,
    "x": CallState.CANCELLED,
}
_STEP_STATES: dict[str, StepState] = {"r": "running", "s": "succeeded", "f": "failed", "k": "skipped"}
_CHUNK = 2_000
_BEGINNING = 200  # characters of a request that lists show


class NoPlanYet(Conflict):
    """The job has no plan yet."""

    code = "no_plan_yet"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that waits for the planner: the text of its plan, its inputs with the plan's defaults.

    `wants`: its plan is to `start`; a request wants a `plan`, or its `answer` in words. `number` counts the plans of a request.
    """

    plan: bytes
    inputs: dict[str, Any]
    priority: Priority
    wants: Literal["start", "plan", "answer"] = "start"
    number: int = 0


class JobStore:
    """Jobs of all tenants; each method sees only those of the tenant that it is given."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.redis: Any = client  # redis-py types one method for its sync and async client at once
        self.settings = settings
        self.ledger = Ledger(client, settings)
        self.requests = Requests(self.ledger)
        self._plans = lru_cache(maxsize=256)(self._load_plan)
        self.files = JobFiles(client, settings)

    def submit(
        self,
        plan: Plan,
        *,
        inputs: Mapping[str, Any],
        name: str = "",
        priority: Priority = "normal",
        tenant: str = "default",
        caller: str = "direct",
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[str, bool]:
        """Accepts a checked plan; its job's id, and whether it is new. `caller`: what rules call the submitter by, with blanks.

        `idempotency` is a key and the hash of the request's body: the same pair gives the same job.

        Raises:
            Conflict: the key was used with another body.
            NotFound: plan or inputs name a file that the tenant does not have.
        """
        job = f"job_{secrets.token_hex(8)}"
        if idempotency is not None:
            job = self._reserve(tenant, idempotency, job)
        fields = {"name": name, "rid": plan.request_id or "", "pri": priority, "by": caller}
        data = plan.model_dump_json(exclude_defaults=True).encode()
        values = json.dumps({**plan.inputs, **inputs}, ensure_ascii=False).encode()
        values = self.files.submitted(job, plan=data, inputs=values, tenant=tenant)
        return job, self.ledger.submit(job, fields=fields, plan=data, inputs=values, tenant=tenant)

    def submit_request(
        self,
        request: Request,
        *,
        inputs: Mapping[str, Any],
        priority: Priority = "normal",
        tenant: str = "default",
        caller: str = "direct",
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[str, bool]:
        """Accepts a request in words, of which a planner makes the plan; see `submit`.

        Raises:
            Conflict: the key was used with another body.
            NotFound: the inputs name a file that the tenant does not have.
        """
        job = f"job_{secrets.token_hex(8)}"
        if idempotency is not None:
            job = self._reserve(tenant, idempotency, job)
        beginning = " ".join(request.text.split())[:_BEGINNING]
        fields = {"name": "", "rid": "", "pri": priority, "by": caller, "rq": "p", "md": request.mode, "rq_text": beginning}
        values = json.dumps(inputs, ensure_ascii=False).encode()
        values = self.files.submitted(job, plan=b"", inputs=values, tenant=tenant)
        return job, self.ledger.submit(job, fields=fields, plan=b"", inputs=values, tenant=tenant, request=request.stored())

    def repeated(self, idempotency: tuple[str, str], *, tenant: str) -> JobView | None:
        """The job that an earlier request of the same key and body made; None when there is none.

        Raises:
            Conflict: the key was used with another body.
        """
        job = self._reserved(tenant, idempotency)
        try:
            return self.view(job, tenant=tenant) if job is not None else None
        except NotFound:  # reserved by a request that did not come to its end
            return None

    def _reserve(self, tenant: str, idempotency: tuple[str, str], job: str) -> str:
        key, body = idempotency
        mine = f"{job} {body}"
        # Two steps, each repeatable: a crash between them leaves a reserved id that the next submit of the key fills.
        if self.redis.set(self._place(tenant, key), mine, nx=True, ex=self.settings.idempotency_s):
            return job
        return self._reserved(tenant, idempotency) or job  # none: it expired just now

    def _place(self, tenant: str, key: str) -> str:
        return tenant_shard(tenant, key, self.settings.shards).idempotency(tenant, key)

    def _reserved(self, tenant: str, idempotency: tuple[str, str]) -> str | None:
        key, body = idempotency
        known = self.redis.get(self._place(tenant, key))
        if known is None:
            return None
        known_job, _, known_body = bytes(known).decode().partition(" ")
        if known_body != body:
            raise Conflict(
                f"The idempotency key `{key}` was used for {known_job} with another body.", next="Use a new key for a new request."
            )
        return known_job

    def view(self, job_id: str, *, tenant: str = "default") -> JobView:
        """The job as it stands.

        Raises:
            NotFound: there is none of that id for this tenant.
        """
        last = self.redis.xrevrange(self.ledger.keys(job_id).events, count=1)  # first: the view includes at least this
        meta = self._meta(job_id, tenant)
        plan = self._plan_of(meta)
        steps = tuple(self._steps(job_id, plan, meta)) if plan is not None else ()
        unknown = tuple(self.calls(job_id, tenant=tenant, state=CallState.UNKNOWN)) if meta.number("un") else ()
        return JobView(
            **(meta.summary() | (self._asked(meta) if meta.asked else {})),
            steps=steps,
            unknown=unknown,
            error=self._job_error(job_id, plan, steps, meta),
            cursor=last[0][0].decode() if last else None,
        )

    def _asked(self, meta: JobRow) -> dict[str, Any]:
        """What a view tells of a request besides its row."""
        request, planned = self.redis.hmget(self.ledger.keys(meta.id).data, ["request", "planned"])
        return {
            "request": Request.read(request).text if request is not None else meta.text("rq_text"),
            "planned": Planning.model_validate_json(planned) if planned is not None else None,
            "waiting": meta.waiting(self.ledger.now_ms()),
            "usage": self.requests.usage(meta.id),
        }

    def status(self, job_id: str, *, tenant: str = "default") -> JobStatus:
        """Where the job stands.

        Raises:
            NotFound: there is none of that id for this tenant.
        """
        return self._meta(job_id, tenant).status

    def tenant(self, job_id: str) -> str:
        """Whose job it is; for processes that serve all tenants."""
        return self._text(job_id, "tenant") or "default"

    def caller(self, job_id: str) -> tuple[str, ...]:
        """What rules call the submitter of a job by: id and name of a key, or `direct`."""
        return tuple(self._text(job_id, "by").split()) or ("direct",)

    def priority(self, job_id: str) -> Priority:
        """The job's priority; for processes that serve all tenants."""
        return cast(Priority, self._text(job_id, "pri") or "normal")

    def plan(self, job_id: str, *, tenant: str = "default") -> Plan:
        """The plan that the job runs, as it was checked.

        Raises:
            NotFound: there is no job of that id for this tenant.
            NoPlanYet: it is a request that was not planned yet.
        """
        meta = self._meta(job_id, tenant)
        plan = self._plan_of(meta)
        if plan is not None:
            return plan
        move = "It ended before it was planned." if meta.status.final else f"Wait for the event `job.planned` of {job_id}."
        raise NoPlanYet(f"Job {job_id} has no plan yet.", next=move)

    def planned(self, job_id: str, *, tenant: str = "default") -> Plan | None:
        """The same; None when it has no plan yet."""
        return self._plan_of(self._meta(job_id, tenant))

    def former_plans(self, job_id: str) -> list[Plan]:
        """The plans of a request that did not come through, the first one first."""
        keys = self.ledger.keys(job_id)
        count = int(self.redis.hget(keys.state, "pv") or 0)
        rows = self._hmget(keys.data, [f"plan:{n}" for n in range(1, count + 1)])
        return [Plan.model_validate_json(raw) for raw in rows if raw is not None]

    def given(self, job_id: str) -> dict[str, Any]:
        """The inputs of a request as they were given, without what a plan of it added."""
        given, inputs = self.redis.hmget(self.ledger.keys(job_id).data, ["given", "inputs"])
        return self.files.read_inputs(job_id, given or inputs or b"{}")

    def request(self, job_id: str) -> Request | None:
        """What was asked in words; None when the job began as a plan."""
        raw = self.redis.hget(self.ledger.keys(job_id).data, "request")
        return Request.read(raw) if raw is not None else None

    def accepted(self, job_id: str) -> Accepted | None:
        """What the planner needs of an accepted job, in one round trip; None when it is planned already."""
        keys = self.ledger.keys(job_id)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(keys.state, ["st", "pri", "rq", "pv"])
        pipe.hmget(keys.data, ["plan", "inputs"])
        (status, priority, wanted, number), (plan, inputs) = pipe.execute()
        if status != b"planning" and not (status == b"running" and wanted == b"a"):
            return None
        return Accepted(
            bytes(plan or b""),
            self.files.read_inputs(job_id, inputs or b"{}"),
            cast(Priority, (priority or b"normal").decode()),
            "plan" if wanted == b"p" else "answer" if wanted == b"a" else "start",
            int(number or 0),
        )

    def inputs(self, job_id: str, number: int = 0) -> dict[str, Any]:
        """The job's inputs with the defaults of its plan, which has that number."""
        return self.files.inputs(job_id, number)

    def steps_result(self, job_id: str, *, steps: Collection[str] | None = None, large: bool = True) -> dict[str, Any]:
        """The results by step id, as far as there are any; a map's keep their positions.

        Without `large`, a value that lies in the blob store is only named: `{"$blob": "blob:sha256:...", "size": ...}`.
        """
        plan = self._plan(job_id)
        if plan is None:
            return {}
        chosen = [s for s in plan.steps if steps is None or s.id in steps]
        totals = self._hmget(self.ledger.keys(job_id).state, [f"n:{s.id}" for s in chosen])
        wanted = {s.id: int(n) for s, n in zip(chosen, totals, strict=True) if n is not None}
        calls = [f"{step}#{i}" for step, n in wanted.items() for i in range(n)]
        fields = self._hmget(self.ledger.keys(job_id).data, [f"r:{c}" for c in calls])
        decoded = self.files.decoded(job_id, fields) if large else self.files.decoded_small(job_id, fields)
        values = dict(zip(calls, decoded, strict=True))
        mapped = {s.id for s in chosen if s.map is not None}
        return {
            step: [values[f"{step}#{i}"] for i in range(n)] if step in mapped else values.get(f"{step}#0")
            for step, n in wanted.items()
        }

    def result(self, job_id: str, *, tenant: str = "default", large: bool = True) -> JobResult:
        """What came out so far: results by step and errors; `output` and `answer` are left to the planner's rules.

        `large` as for `steps_result`.
        """
        meta = self._meta(job_id, tenant)
        return JobResult(
            job_id=job_id,
            status=meta.status,
            has_errors=meta.has_errors,
            steps=self.steps_result(job_id, large=large),
            errors=tuple(self._errors(job_id, self._plan_of(meta))),
            answer=self._worded(meta),
            usage=self.requests.usage(job_id) if meta.asked else None,
        )

    def _worded(self, meta: JobRow) -> str | None:
        """The answer that a model worded, if one did."""
        raw = self.redis.hget(self.ledger.keys(meta.id).data, "answer") if meta.text("rq") == "e" else None
        return bytes(raw).decode() if raw is not None else None

    def values(self, job_id: str, calls: Sequence[str]) -> Sequence[Any]:
        """The results of calls, None where there is none."""
        return self.files.decoded(job_id, self._hmget(self.ledger.keys(job_id).data, [f"r:{c}" for c in calls]))

    def children(self, job_id: str, calls: Sequence[str]) -> list[tuple[str, Any, ErrorInfo | None]]:
        """Of calls that a call made: the letter of its state ("" when there is none), its value, its error."""
        keys = self.ledger.keys(job_id)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(keys.state, ["st", *(f"c:{c}" for c in calls)])
        pipe.hmget(keys.data, [f"r:{c}" for c in calls])
        pipe.hmget(keys.data, [f"e:{c}" for c in calls])
        (status, *states), values, errors = pipe.execute()
        letters = [(s or b"").decode()[:1] for s in states]
        if status is None or JobStatus(status.decode()).final:  # what has not ended is stopped with the job
            letters = [letter if letter in "sf" else "x" for letter in letters]
        decoded = self.files.decoded(job_id, [v if s == "s" else None for s, v in zip(letters, values, strict=True)])
        known = [ErrorInfo.model_validate_json(e) if e is not None else None for e in errors]
        return list(zip(letters, decoded, known, strict=True))

    def child_spec(self, job_id: str, call: str) -> dict[str, Any]:
        """What a call that a call made runs: its tool, and its input."""
        raw = self.redis.hget(self.ledger.keys(job_id).state, f"x:{call.rpartition('#')[0]}")
        found: dict[str, Any] = json.loads(raw or b'{"tool": "?", "input": {}}')
        return found

    def artifacts(self, job_id: str, *, tenant: str = "default", start: int = 0, limit: int = 50) -> ArtifactPage:
        """A page of the files that the job's calls made, from its call number `start` on."""
        self._meta(job_id, tenant)
        names = islice(self._calls_then_theirs(job_id), start, None)
        found: list[Artifact] = []
        at = start
        while chunk := list(islice(names, _CHUNK)):
            for made in self.files.artifacts(job_id, chunk, tenant=tenant):
                if len(found) >= limit and made.call != found[-1].call:
                    return ArtifactPage(artifacts=tuple(found), next_cursor=str(at + chunk.index(made.call)))
                found.append(made)
            at += len(chunk)
        return ArtifactPage(artifacts=tuple(found))

    def _calls_then_theirs(self, job_id: str) -> Iterator[str]:
        """The calls of the plan in order, then those that they made: what is made meanwhile moves no place of the plan's."""
        plan = self._plan(job_id)
        steps = plan.steps if plan is not None else ()
        totals = self._hmget(self.ledger.keys(job_id).state, [f"n:{s.id}" for s in steps])
        planned = [(s.id, int(n or 0)) for s, n in zip(steps, totals, strict=True)]
        yield from (f"{step}#{i}" for step, n in planned for i in range(n))
        makers = (f"{step}#{i}" for step, n in planned for i in range(n))
        while chunk := list(islice(makers, _CHUNK)):
            counts = self._hmget(self.ledger.keys(job_id).state, [f"cn:{call}" for call in chunk])
            for call, count in zip(chunk, counts, strict=True):
                yield from (f"{call.replace('#', '.')}.{n}#0" for n in range(1, int(count or 0) + 1))

    def calls(
        self,
        job_id: str,
        *,
        tenant: str = "default",
        step: str | None = None,
        state: CallState | None = None,
        limit: int = 1_000,
        cursor: str | None = None,
    ) -> Sequence[CallView]:
        """The calls that were released, in the order of steps and positions, each followed by those that it made itself.

        They begin after `cursor` (a call's id).
        """
        meta = self._meta(job_id, tenant)
        plan = self._plan_of(meta)
        steps = [s for s in (plan.steps if plan is not None else ()) if step is None or s.id == step]
        if step is not None and not steps:
            raise NotFound(f"Job {job_id} has no step `{step}`.", path="step")
        found: list[CallView] = []
        skipping = cursor is not None
        for call, raw, one, child in self._with_children(job_id, steps):
            if skipping:
                skipping = call != cursor
                continue
            view = self._call_view(call, raw, one, final=meta.status in FINAL_STATUSES, child=child)
            if state is None or view.state == state:
                found.append(view)
            if len(found) == limit:
                break
        errors = self._hmget(self.ledger.keys(job_id).data, [f"e:{c.call}" for c in found])
        return [
            c.model_copy(update={"error": self._error(e, c.step, c.index if c.index is not None else None)}) if e else c
            for c, e in zip(found, errors, strict=True)
        ]

    def list(
        self,
        *,
        tenant: str = "default",
        status: JobStatus | None = None,
        name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """A page of jobs, newest first, without their steps.

        Raises:
            RequestError: the cursor is none of ours.
        """
        found: list[JobView] = []
        last: str | None = None
        for score, job in newest(self.redis, tenant, parse_cursor(cursor), shards=self.settings.shards):
            meta = self._find(job, tenant)
            if meta is None:
                continue
            if (status is None or meta.status == status) and (name is None or meta.text("name") == name):
                if len(found) == limit:
                    return JobPage(jobs=tuple(found), next_cursor=last)
                found.append(JobView(**meta.summary()))
                last = f"{score}-{job}"
        return JobPage(jobs=tuple(found))

    def workers(self) -> Sequence[WorkerInfo]:
        """The workers that are alive, by pool."""
        now = self.ledger.now_ms()
        alive = {w.decode() for w in self.redis.zrangebyscore(WORKERS, now, "+inf")}
        infos = self.redis.hgetall(WORKERS_INFO)
        rows = [WorkerInfo.model_validate_json(v) for k, v in infos.items() if k.decode() in alive]
        return sorted(rows, key=lambda w: (w.pool, w.id))

    def stored_value(self, value: Any) -> bytes:
        """A small value in the form in which results are kept.

        Raises:
            RequestError: it is larger than what stands inline.
        """
        stored = encode(value, self.settings)
        if stored.sha256 or stored.blob:
            raise RequestError(f"A result given by hand is at most {self.settings.inline_bytes} bytes.", path="result")
        return stored.field

    def _text(self, job_id: str, field: str) -> str:
        raw = self.redis.hget(self.ledger.keys(job_id).state, field)
        return bytes(raw).decode() if raw is not None else ""

    def _plan_of(self, meta: JobRow) -> Plan | None:
        return self._numbered(meta.id, meta.number("pv"), asked=meta.asked)

    def _plan(self, job_id: str) -> Plan | None:
        """The job's plan; None when a request has none yet."""
        raw, asked = self.redis.hmget(self.ledger.keys(job_id).state, ["pv", "rq"])
        return self._numbered(job_id, int(raw or 0), asked=asked is not None)

    def _numbered(self, job_id: str, number: int, *, asked: bool) -> Plan | None:
        return None if asked and number == 0 else self._plans(job_id, number)

    def _load_plan(self, job_id: str, _number: int) -> Plan:
        """Kept by the number too: a request that is planned anew gets another plan."""
        raw = self.redis.hget(self.ledger.keys(job_id).data, "plan")
        if raw is None:
            raise NotFound(f"There is no job `{job_id}`.")
        return Plan.model_validate_json(raw)

    def _find(self, job_id: str, tenant: str) -> JobRow | None:
        raw = self._hmget(self.ledger.keys(job_id).state, ROW)
        fields = {k: v for k, v in zip(ROW, raw, strict=True) if v is not None}
        if "st" not in fields or fields["tenant"].decode() != tenant:
            return None
        return JobRow(job_id, JobStatus(fields["st"].decode()), fields)

    def _meta(self, job_id: str, tenant: str) -> JobRow:
        meta = self._find(job_id, tenant)
        if meta is None:
            raise NotFound(f"There is no job `{job_id}`.", next="`toolweaver jobs` lists those that there are.")
        return meta

    def _steps(self, job_id: str, plan: Plan, meta: JobRow) -> Iterator[StepView]:
        names = ["qs", *(f"{p}:{s.id}" for s in plan.steps for p in "tnkfzs")]
        got = dict(zip(names, self._hmget(self.ledger.keys(job_id).state, names), strict=True))
        queues = json.loads(got["qs"] or b"[]")
        idle = self._idle_queues(job_id, queues)
        running = self._running(job_id, [s for s in plan.steps if got[f"t:{s.id}"] == b"r"])
        for s in plan.steps:
            number = {p: int(got[f"{p}:{s.id}"] or 0) for p in "kfz"}
            state: StepState = _STEP_STATES.get((got[f"t:{s.id}"] or b"").decode(), "pending")
            if state in ("running", "pending") and meta.status in FINAL_STATUSES and meta.text("md") != "plan":
                state = "cancelled"
            facts = json.loads(got[f"s:{s.id}"] or b"{}")
            queue = queues[facts["q"]] if facts else ""
            total = int(raw) if (raw := got[f"n:{s.id}"]) is not None else (None if s.map else 1)
            yield StepView(
                id=s.id,
                tool=s.tool,
                queue=queue,
                state=state,
                total=total,
                done=number["k"],
                failed=number["f"],
                skipped=number["z"],
                running=running.get(s.id, 0) if state == "running" else 0,
                waiting=f"no worker for queue {queue}" if state == "running" and queue in idle else None,
            )

    def _idle_queues(self, job_id: str, queues: Sequence[str]) -> set[str]:
        said = self._hmget(self.ledger.keys(job_id).state, [f"nw:{i}" for i in range(len(queues))])
        served = {w.queue for w in self.workers()} if any(said) else set()
        return {q for q, flag in zip(queues, said, strict=True) if flag and q not in served}

    def _running(self, job_id: str, steps: Sequence[Step]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _, raw, step in self._call_rows(job_id, steps):
            counts[step.id] = counts.get(step.id, 0) + raw.startswith("r")
        return counts

    def _call_rows(self, job_id: str, steps: Iterable[Step]) -> Iterator[tuple[str, str, Step]]:
        state = self.ledger.keys(job_id).state
        steps = list(steps)
        for step, total in zip(steps, self._hmget(state, [f"n:{s.id}" for s in steps]), strict=True):
            for low in range(0, int(total or 0), _CHUNK):
                names = [f"{step.id}#{i}" for i in range(low, min(low + _CHUNK, int(total or 0)))]
                for call, raw in zip(names, self._hmget(state, [f"c:{n}" for n in names]), strict=True):
                    if raw is not None:
                        yield call, raw.decode(), step

    def _with_children(self, job_id: str, steps: Iterable[Step]) -> Iterator[tuple[str, str, Step, Mapping[str, Any]]]:
        """The rows of calls, each followed by those of the calls that it made; of these also what the ledger knows of them."""
        state = self.ledger.keys(job_id).state
        rows = self._call_rows(job_id, steps)
        while chunk := list(islice(rows, _CHUNK)):
            counts = self._hmget(state, [f"cn:{call}" for call, _, _ in chunk])
            for (call, raw, step), count in zip(chunk, counts, strict=True):
                yield call, raw, step, {}
                base = call.replace("#", ".")
                for low in range(1, int(count or 0) + 1, _CHUNK):
                    names = [f"{base}.{n}" for n in range(low, min(low + _CHUNK, int(count or 0) + 1))]
                    states = self._hmget(state, [f"c:{n}#0" for n in names])
                    facts = self._hmget(state, [f"s:{n}" for n in names])
                    for name, letter, known in zip(names, states, facts, strict=True):
                        if letter is not None and known is not None:
                            yield f"{name}#0", letter.decode(), step, json.loads(known)

    @staticmethod
    def _call_view(call: str, raw: str, step: Step, *, final: bool, child: Mapping[str, Any]) -> CallView:
        letter, attempt, tries, *_ = raw.split("|")
        state = _STATES[letter]
        if final and state in (CallState.QUEUED, CallState.RUNNING, CallState.WAITING):
            state = CallState.CANCELLED
        parent = child.get("par")
        index = int((parent or call).rpartition("#")[2]) if step.map is not None else None
        tool = child.get("tool", step.tool)
        return CallView(
            call=call, step=step.id, tool=tool, parent=parent, index=index, state=state, attempt=int(attempt), tries=int(tries)
        )

    def _errors(self, job_id: str, plan: Plan | None) -> Iterator[ErrorInfo]:
        state, data = self.ledger.keys(job_id).state, self.ledger.keys(job_id).data
        job_error = self.redis.hget(data, "error")
        if job_error is not None:
            yield ErrorInfo.model_validate_json(job_error)
        if plan is None:
            return
        for step, total in zip(plan.steps, self._hmget(state, [f"n:{s.id}" for s in plan.steps]), strict=True):
            names = [f"{step.id}#{i}" for i in range(max(1, int(total or 0)))]
            for low in range(0, len(names), _CHUNK):
                chunk = names[low : low + _CHUNK]
                for call, raw in zip(chunk, self._hmget(data, [f"e:{n}" for n in chunk]), strict=True):
                    if raw is not None:
                        yield self._error(raw, step.id, int(call.rpartition("#")[2]) if step.map is not None else None)

    @staticmethod
    def _error(raw: bytes, step: str, index: int | None) -> ErrorInfo:
        return ErrorInfo.model_validate_json(raw).model_copy(update={"step": step, "index": index})

    def _job_error(self, job_id: str, plan: Plan | None, steps: Sequence[StepView], meta: JobRow) -> ErrorInfo | None:
        if meta.status is not JobStatus.FAILED:
            return None
        raw = self.redis.hget(self.ledger.keys(job_id).data, "error")
        if raw is not None:
            return ErrorInfo.model_validate_json(raw)
        if plan is None:
            return None
        failed = {s.id for s in steps if s.state == "failed"}
        return next(self._errors(job_id, plan.model_copy(update={"steps": tuple(s for s in plan.steps if s.id in failed)})), None)

    def _hmget(self, key: str, fields: Sequence[str]) -> Sequence[bytes | None]:
        return tuple(self.redis.hmget(key, fields)) if fields else ()
