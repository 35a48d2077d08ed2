"""`/v1/jobs`: submit, look, follow, fetch, cancel, go on."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from orchestrator.api.accept import IdempotencyKey, JsonOnly, accept, accept_request, answer, digest, find_plan
from orchestrator.api.services import Api, By, Services, Tenant
from orchestrator.api.sse import event_stream
from orchestrator.errors import RequestError
from orchestrator.jobs.events import check_event_id
from orchestrator.jobs.files import is_named
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import CallState, JobPage, JobResult, JobStatus, JobView, SubmitRequest
from orchestrator.models.plan import Plan
from orchestrator.models.request import CallPage, ResolveRequest
from orchestrator.planner.synthesis import final_synthesis_text, plan_output, steps_read
from orchestrator.publisher.graph import build_graph

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_ASCII = r"^[\x21-\x7e]*$"
_EVENT_ID = re.compile(r"^[0-9]{1,19}(-[0-9]{1,19})?$")

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`id` resumes the stream, `event` is the type, `data` an Event; a comment every 15 s shows that it is alive",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "the job has ended and nothing follows this event"},
}


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobFilter(_Filter):
    """Which jobs, and how many a page."""

    status: JobStatus | None = None
    name: str | None = Field(default=None, max_length=256, description="name of the plan")
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, pattern=_ASCII, description="`next_cursor` of the page before")


class CallFilter(_Filter):
    """Which calls of a job, and how many a page."""

    step: str | None = Field(default=None, max_length=64)
    state: CallState | None = None
    limit: int = Field(default=100, ge=1, le=1_000)
    cursor: str | None = Field(default=None, max_length=96, pattern=_ASCII, description="`next_cursor` of the page before")


class StreamFrom(_Filter):
    """Where a stream begins and how long it lasts."""

    after: str | None = Field(default=None, max_length=64, description="like the header `Last-Event-ID`, which wins")
    for_s: float | None = Field(default=None, ge=0, le=86_400, description="end the stream after so many seconds")


@router.post(
    "", status_code=201, dependencies=[JsonOnly], responses={200: {"model": JobView, "description": "made by an earlier request"}}
)
def submit(request: SubmitRequest, response: Response, api: Api, by: By, idempotency_key: IdempotencyKey = None) -> JobView:
    """Accepts a plan, checked as a whole, or a request in words, as a job."""
    body_hash = _digest(request)  # also refuses what is no sound JSON
    idempotency = (idempotency_key, body_hash) if idempotency_key else None
    if request.plan is None:
        job, created = accept_request(api, request, by=by, idempotency=idempotency)
        return answer(response, job, created=created)
    plan, name = find_plan(request.plan)
    job, created = accept(
        api,
        plan,
        inputs=request.inputs,
        name=name,
        priority=request.priority,
        by=by,
        idempotency=idempotency,
    )
    return answer(response, job, created=created)


def _digest(request: SubmitRequest) -> str:
    """The hash of a body; of a plan it is the one that it was before there were requests."""
    return digest("/v1/jobs", request.model_dump(exclude={"request", "mode", "tools"} if request.request is None else {"plan"}))


@router.get("")
def list_jobs(filter: Annotated[JobFilter, Query()], api: Api, tenant: Tenant) -> JobPage:
    """Jobs, newest first, without their steps."""
    return api.store.list(tenant=tenant, status=filter.status, name=filter.name, limit=filter.limit, cursor=filter.cursor)


@router.get("/{job_id}")
def view(job_id: str, api: Api, tenant: Tenant) -> JobView:
    """The job as it stands, step by step."""
    return api.store.view(job_id, tenant=tenant)


@router.get("/{job_id}/plan")
def plan(job_id: str, api: Api, tenant: Tenant) -> Plan:
    """The plan that the job runs, as it was checked; 409 as long as a request has none."""
    return api.store.plan(job_id, tenant=tenant)


@router.get("/{job_id}/result")
def result(job_id: str, api: Api, tenant: Tenant) -> JobResult:
    """What came out: output, answer, the results by step and the errors. Partial while the job runs."""
    return _whole_result(api, job_id, tenant)


@router.get("/{job_id}/calls")
def calls(job_id: str, filter: Annotated[CallFilter, Query()], api: Api, tenant: Tenant) -> CallPage:
    """The calls that were released, in the order of steps and positions."""
    _check_call_cursor(filter.cursor, api.store.planned(job_id, tenant=tenant))
    found = api.store.calls(
        job_id, tenant=tenant, step=filter.step, state=filter.state, limit=filter.limit + 1, cursor=filter.cursor
    )
    page = found[: filter.limit]
    return CallPage(calls=tuple(page), next_cursor=page[-1].call if len(found) > filter.limit else None)


@router.get("/{job_id}/events", response_class=EventSourceResponse, responses=_STREAM)
async def events(
    job_id: str,
    start: Annotated[StreamFrom, Query()],
    api: Api,
    by: By,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """What happens in the job, live, up to its last event; resumes after any event."""
    after = _resume_point(last_event_id or start.after)
    if await run_in_threadpool(_nothing_follows, api.store, job_id, after=after, tenant=by.tenant):
        return Response(status_code=204)  # tells a browser, too, not to come back
    still = (lambda: api.ring.alive(by.key)) if by.limited else None
    most = await run_in_threadpool(api.limits.of, by)
    place = api.limits.stream_place(by, most=most.streams)
    return event_stream(api.events.follow(job_id, after=after), for_s=start.for_s, place=place, still=still)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, api: Api, tenant: Tenant) -> JobView:
    """Cancels the job; running cooperative calls stop. Cancelling a cancelled job changes nothing."""
    return api.control.cancel(job_id, tenant=tenant)


@router.post("/{job_id}/confirm")
def confirm(job_id: str, api: Api, tenant: Tenant) -> JobView:
    """Lets the plan of a request run that was submitted with the mode `confirm`; confirming twice is once."""
    return api.control.confirm(job_id, tenant=tenant)


@router.post("/{job_id}/retry")
def retry(job_id: str, api: Api, by: By) -> JobView:
    """Lets an ended job go on from what did not succeed; the other results stay."""
    api.store.status(job_id, tenant=by.tenant)
    with api.limits.job_place(by) as fill:
        view = api.control.retry(job_id, tenant=by.tenant)
        fill(job_id)
    return view


@router.post("/{job_id}/resolve", dependencies=[JsonOnly])
def resolve(job_id: str, request: ResolveRequest, api: Api, tenant: Tenant) -> JobView:
    """Settles a call whose outcome is unknown: it happened, or it is to be run again."""
    digest("resolve", request.result)  # refuses what is no sound JSON
    return api.control.resolve(job_id, request.call, happened=bool(request.happened), result=request.result, tenant=tenant)


def _nothing_follows(store: JobStore, job_id: str, *, after: str, tenant: str) -> bool:
    if not store.status(job_id, tenant=tenant).final:
        return False
    last = store.view(job_id, tenant=tenant).cursor
    return last is not None and _position(after) >= _position(last)


def _whole_result(api: Services, job_id: str, tenant: str) -> JobResult:
    """The output is whole whatever its size; of steps, what lies in the blob store is named, since a job may hold gigabytes."""
    found = api.store.result(job_id, tenant=tenant, large=False)
    if not found.status.final:
        return found
    plan = api.store.planned(job_id, tenant=tenant)
    if plan is None:
        return found
    if found.usage is not None and (request := api.store.request(job_id)) is not None and request.mode == "plan":
        return found.model_copy(update={"output": plan.model_dump(mode="json", exclude_defaults=True)})
    graph = build_graph(plan)
    named = any(is_named(v) or (isinstance(v, list) and any(map(is_named, v))) for v in found.steps.values())
    steps = api.store.steps_result(job_id, steps=steps_read(plan, graph)) if named else found.steps
    worded = found.answer if found.answer is not None else final_synthesis_text(plan, steps)
    return found.model_copy(update={"output": plan_output(plan, graph, steps), "answer": worded})


def _check_call_cursor(cursor: str | None, plan: Plan | None) -> None:
    step, _, index = (cursor or "").rpartition("#")
    known = plan is not None and any(s.id == step for s in plan.steps)
    if cursor is not None and not (index.isdigit() and known):
        raise RequestError(
            f"`{cursor}` is no cursor of this list.", path="cursor", next="Pass on `next_cursor` of the page before, unchanged."
        )


def _resume_point(given: str | None) -> str:
    if given and not _EVENT_ID.match(given):
        raise RequestError(
            f"`{given[:64]}` is no event's id.", path="Last-Event-ID", next="Pass back the `id` of the last event that you saw."
        )
    return check_event_id(given)


def _position(event_id: str) -> tuple[int, int]:
    time_ms, _, number = event_id.partition("-")
    return int(time_ms), int(number or 0)
