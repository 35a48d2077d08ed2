"""Every request of the API, said once: what is sent and how the answer is read. Both clients send these.

A `Call` is plain data, so that the synchronous and the asynchronous client differ only in how they wait.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from orchestrator.client.files import Source
from orchestrator.client.plans import PlanSource, asked, plan_body
from orchestrator.errors import RequestError
from orchestrator.models.access import AuditPage, CreateKeyRequest, KeyInfo, KeyPage, NewKey, Policy, PolicyView
from orchestrator.models.catalog import ServerState
from orchestrator.models.file import ArtifactPage, FilePage, FileRef
from orchestrator.models.job import CallState, JobPage, JobResult, JobStatus, JobView, Priority, Purged, RequestMode
from orchestrator.models.plan import Plan, PlanView
from orchestrator.models.report import MetricsReport
from orchestrator.models.request import CallPage, Health, PlanSummary
from orchestrator.models.search import FeedbackEntry, FeedbackPage, FeedbackRequest, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.models.worker import WorkerInfo

T = TypeVar("T")
FILES = "files"  # the input that files are given as


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request: `repeatable` when a second one does no harm, so that it may be sent again after a cut."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    source: Source | None = None  # bytes that are sent as they are
    accepts: frozenset[int] = frozenset()  # statuses that are no error here although they look like one

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `httpx.Client.build_request`; what is None is not sent."""
        params = {k: v for k, v in self.params.items() if v is not None}
        body = {"json": self.body} if self.body is not None else {}
        return {"method": self.method, "url": self.path, "params": params, "headers": dict(self.headers), **body}


def _read(kind: type[T]) -> Callable[[httpx.Response], T]:
    adapter = TypeAdapter(kind)
    return lambda response: adapter.validate_json(response.content)


_JOB, _RESULT, _PAGE, _CALLS = _read(JobView), _read(JobResult), _read(JobPage), _read(CallPage)
_PLAN, _PLANS, _CATALOG, _TOOL = _read(Plan), _read(list[PlanSummary]), _read(ToolCatalog), _read(ToolDefinition)
_FILE, _FILES, _ARTIFACTS = _read(FileRef), _read(FilePage), _read(ArtifactPage)
_TOOLS = _read(list[ToolDefinition])
_WORKERS, _SERVERS, _HEALTH = _read(list[WorkerInfo]), _read(list[ServerState]), _read(Health)


def submit(
    plan: PlanSource | None,
    *,
    request: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
    idempotency_key: str | None = None,
    priority: Priority = "normal",
    mode: RequestMode = "run",
    tools: Sequence[str] | None = None,
) -> Call[JobView]:
    """A new job; `files` are references. The key makes a repeated request find the first one's job, so there always is one."""
    given = dict(inputs or {})
    if files and FILES in given:
        raise RequestError("the files are the input `files`, which is given too", path=FILES, next="Leave one of them out.")
    body = asked(plan, request) | {"inputs": given | ({FILES: list(files)} if files else {}), "priority": priority}
    if mode != "run" or tools is not None:
        if "request" not in body:
            raise RequestError(
                "`mode` and `tools` belong to a request in words", path="mode", next="A plan names its tools itself."
            )
        body |= {"mode": mode} | ({"tools": list(tools)} if tools is not None else {})
    return Call("POST", "/v1/jobs", _JOB, body=body, headers=_key(idempotency_key))


def confirm(job_id: str) -> Call[JobView]:
    """Lets the plan of a request run; confirming twice is once."""
    return Call("POST", _job(job_id, "confirm"), _JOB)


def check(plan: PlanSource, *, inputs: Mapping[str, Any] | None = None) -> Call[PlanView]:
    """The plan as the platform would run it."""
    body = {"plan": plan_body(plan), "inputs": dict(inputs) if inputs is not None else None}
    return Call("POST", "/v1/plans/check", _read(PlanView), body=body)


def run_tool(
    name: str, input: Mapping[str, Any], *, idempotency_key: str | None = None, priority: Priority = "interactive"
) -> Call[JobView]:
    """A job of one call."""
    body = {"input": dict(input), "priority": priority}
    return Call("POST", f"/v1/tools/{_part(name)}/run", _JOB, body=body, headers=_key(idempotency_key))


def tools() -> Call[ToolCatalog]:
    return Call("GET", "/v1/tools", _CATALOG)


def search_tools(request: SearchRequest) -> Call[SearchAnswer]:
    """The tools that fit some queries."""
    return Call("POST", "/v1/tools/search", _read(SearchAnswer), body=request.model_dump(mode="json", exclude_defaults=True))


def searching(request: SearchRequest | str) -> SearchRequest:
    """The request; a text is one query."""
    if isinstance(request, SearchRequest):
        return request
    return SearchRequest(queries=(request,))


def use_of(query: str, used: Sequence[str], *, ok: bool) -> FeedbackRequest:
    """What is told of a query's tools.

    Raises:
        RequestError: there is no query or no tool, or one of them cannot be.
    """
    try:
        return FeedbackRequest(query=query, used=tuple(used), ok=ok)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise RequestError(f"{first['msg']}", path=where, next="Give a query and the names of the tools that were used.") from None


def tell_use(told: FeedbackRequest) -> Call[FeedbackEntry]:
    """Which tools were used for a query; told twice, it would count twice."""
    body = told.model_dump(mode="json", exclude_defaults=True, exclude={"tenant", "id"})
    return Call("POST", "/v1/tools/feedback", _read(FeedbackEntry), body=body, repeatable=False)


def told_uses(*, limit: int) -> Call[FeedbackPage]:
    """What was told, newest first."""
    return Call("GET", "/v1/tools/feedback", _read(FeedbackPage), params={"limit": limit})


def untell_use(id: str) -> Call[FeedbackEntry]:
    """Takes back what was told. Not sent twice, since the second one would not find it."""
    return Call("DELETE", f"/v1/tools/feedback/{_part(id)}", _read(FeedbackEntry), repeatable=False)


def tool(name: str) -> Call[ToolDefinition]:
    return Call("GET", f"/v1/tools/{_part(name)}", _TOOL)


def plans() -> Call[list[PlanSummary]]:
    return Call("GET", "/v1/plans", _PLANS)


def named_plan(name: str) -> Call[Plan]:
    return Call("GET", f"/v1/plans/{_part(name)}", _PLAN)


def workers() -> Call[list[WorkerInfo]]:
    return Call("GET", "/v1/workers", _WORKERS)


def servers() -> Call[list[ServerState]]:
    return Call("GET", "/v1/servers", _SERVERS)


def former_tools(server: str) -> Call[list[ToolDefinition]]:
    """The versions that were served before, of a server's quarantined tools."""
    return Call("GET", f"/v1/servers/{_part(server)}/former", _TOOLS)


def health() -> Call[Health]:
    return Call("GET", "/health", _HEALTH, accepts=frozenset({503}))


def metrics_report() -> Call[MetricsReport]:
    return Call("GET", "/v1/metrics/report", _read(MetricsReport))


def jobs(*, status: JobStatus | str | None, name: str | None, limit: int, cursor: str | None) -> Call[JobPage]:
    """One page of jobs, newest first."""
    params = {"status": str(status) if status else None, "name": name, "limit": limit, "cursor": cursor}
    return Call("GET", "/v1/jobs", _PAGE, params=params)


def view(job_id: str) -> Call[JobView]:
    return Call("GET", _job(job_id), _JOB)


def result(job_id: str) -> Call[JobResult]:
    return Call("GET", _job(job_id, "result"), _RESULT)


def job_plan(job_id: str) -> Call[Plan]:
    return Call("GET", _job(job_id, "plan"), _PLAN)


def job_calls(job_id: str, *, step: str | None, state: CallState | str | None, limit: int, cursor: str | None) -> Call[CallPage]:
    """One page of a job's calls."""
    params = {"step": step, "state": str(state) if state else None, "limit": limit, "cursor": cursor}
    return Call("GET", _job(job_id, "calls"), _CALLS, params=params)


def cancel(job_id: str) -> Call[JobView]:
    """Cancels a job; cancelling twice is once."""
    return Call("POST", _job(job_id, "cancel"), _JOB)


def retry(job_id: str) -> Call[JobView]:
    """Goes on from what did not succeed; not sent twice, since the second one would meet a running job."""
    return Call("POST", _job(job_id, "retry"), _JOB, repeatable=False)


def resolve(job_id: str, call: str, *, happened: bool, result: Any = None) -> Call[JobView]:
    """Settles a call whose outcome is unknown."""
    body = {"call": call, "happened": happened, "result": result}
    return Call("POST", _job(job_id, "resolve"), _JOB, body=body, repeatable=False)


def create_key(request: CreateKeyRequest) -> Call[NewKey]:
    """A new key; not sent twice, since the second one would be another key."""
    return Call("POST", "/v1/keys", _read(NewKey), body=request.model_dump(mode="json"), repeatable=False)


def keys(tenant: str | None) -> Call[KeyPage]:
    return Call("GET", "/v1/keys", _read(KeyPage), params={"tenant": tenant})


def rotate_key(id: str, *, grace_s: float) -> Call[NewKey]:
    """A new secret for a key."""
    return Call("POST", f"/v1/keys/{_part(id)}/rotate", _read(NewKey), body={"grace_s": grace_s}, repeatable=False)


def revoke_key(id: str) -> Call[KeyInfo]:
    return Call("POST", f"/v1/keys/{_part(id)}/revoke", _read(KeyInfo))


def permissions(tenant: str | None) -> Call[PolicyView]:
    """A tenant's policy, or that of all who have none."""
    return Call("GET", _permissions(tenant), _read(PolicyView))


def set_permissions(tenant: str | None, policy: Policy) -> Call[PolicyView]:
    return Call("PUT", _permissions(tenant), _read(PolicyView), body=policy.model_dump(mode="json", exclude_none=True))


def reset_permissions(tenant: str | None) -> Call[PolicyView]:
    return Call("DELETE", _permissions(tenant), _read(PolicyView))


def audit(*, tenant: str | None, nobody: bool, limit: int, cursor: str | None, detail: bool = False) -> Call[AuditPage]:
    """One page of the audit log, newest first."""
    params = {"tenant": tenant, "nobody": nobody or None, "limit": limit, "cursor": cursor, "detail": detail or None}
    return Call("GET", "/v1/audit", _read(AuditPage), params=params)


def purge(tenant: str) -> Call[Purged]:
    """All jobs and files of a tenant, deleted."""
    return Call("DELETE", f"/v1/tenants/{_part(tenant)}", _read(Purged))


def _permissions(tenant: str | None) -> str:
    return "/v1/permissions" if tenant is None else f"/v1/permissions/{_part(tenant)}"


def upload(source: Source) -> Call[FileRef]:
    """Stores a file."""
    return Call(
        "POST",
        "/v1/files",
        _FILE,
        params={"name": source.name},
        source=source,
        headers=source.headers,
        repeatable=source.repeatable,
    )


def files(*, limit: int, cursor: str | None) -> Call[FilePage]:
    """One page of files, newest first."""
    return Call("GET", "/v1/files", _FILES, params={"limit": limit, "cursor": cursor})


def remove_file(ref: str) -> Call[bool]:
    """Removes a file; whether it is gone at once. Not sent twice, since the second one would not find it."""
    return Call("DELETE", f"/v1/files/{_part(ref)}", lambda response: response.status_code == 204, repeatable=False)


def job_artifacts(job_id: str, *, cursor: str | None) -> Call[ArtifactPage]:
    """One page of the files that a job made."""
    return Call("GET", _job(job_id, "artifacts"), _ARTIFACTS, params={"limit": 500, "cursor": cursor})


def events_path(job_id: str) -> str:
    """Where the events of a job are streamed."""
    return _job(job_id, "events")


def _job(job_id: str, what: str = "") -> str:
    return f"/v1/jobs/{_part(job_id)}" + (f"/{what}" if what else "")


def _part(name: str) -> str:
    return quote(name, safe="") or "-"  # an empty name must not become another address


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": given if given is not None else uuid.uuid4().hex}
