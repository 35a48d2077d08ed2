"""`/v1/tools` and `/v1/workers`: what can be called, one call of it, and who runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParam

from orchestrator.api.accept import IdempotencyKey, JsonOnly, accept, answer, digest
from orchestrator.api.services import Api, By, Services, Tenant
from orchestrator.errors import NotFound, PermissionDenied, PlanError, RequestError
from orchestrator.models.job import JobView
from orchestrator.models.plan import parse_reference
from orchestrator.models.request import RunToolRequest
from orchestrator.models.search import FeedbackEntry, FeedbackPage, FeedbackRequest, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.models.worker import WorkerInfo
from orchestrator.planner.problems import listed
from orchestrator.tool_search.allowed import allowed

router = APIRouter(prefix="/v1", tags=["tools"])
STEP = "call"
MOST_PATTERNS = 32  # of a caller: each is held against the names of all tools


@router.get("/tools")
def list_tools(api: Api, tenant: Tenant) -> ToolCatalog:
    """The tools that the caller's plans may use."""
    return api.tools(tenant)


@router.post("/tools/search", dependencies=[JsonOnly])
def search_tools(request: SearchRequest, api: Api, by: By) -> SearchAnswer:
    """The tools that fit some queries best, of those that the caller may use; `degraded` says what the search had to do without.

    The caller's key decides the tenant, whatever `filters` says.
    """
    own = sum(map(len, request.filters.allowed)) + len(request.filters.forbidden)
    if own > MOST_PATTERNS:
        raise RequestError(f"The filters have {own} patterns; the limit is {MOST_PATTERNS}.", path="filters", next="Give `names`.")
    filters = allowed(request.filters, api.policies.of(by.tenant), tenant=by.tenant, caller=by.called)
    return api.index.search(request.model_copy(update={"filters": filters}))


@router.post("/tools/feedback", status_code=201, dependencies=[JsonOnly])
def tell_use(request: FeedbackRequest, api: Api, by: By) -> FeedbackEntry:
    """Notes which tools were used for a query, and whether they did what was wanted: similar queries of this tenant find them."""
    used = [_find(api, name, by.tenant).name for name in request.used]  # a name that is misspelt would teach nothing
    return api.index.feedback(request.query, used, request.ok, tenant=by.tenant, id=request.id)


@router.get("/tools/feedback")
def told_uses(api: Api, by: By, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> FeedbackPage:
    """What was told, newest first."""
    return api.index.told(tenant=by.tenant, limit=limit)


@router.delete("/tools/feedback/{id}")
def untell_use(id: Annotated[str, PathParam(pattern=r"^[\w-]{1,64}$")], api: Api, by: By) -> FeedbackEntry:
    """Takes back what was told."""
    return api.index.undo(id, tenant=by.tenant)


@router.get("/tools/{name:path}")
def tool(name: str, api: Api, tenant: Tenant) -> ToolDefinition:
    """One tool, by its name or an alias: its parameters, its effect, the pool that runs it."""
    return _find(api, name, tenant)


@router.post(
    "/tools/{name:path}/run",
    status_code=201,
    dependencies=[JsonOnly],
    responses={200: {"model": JobView, "description": "made by an earlier request"}},
)
def run_tool(
    name: str, request: RunToolRequest, response: Response, api: Api, by: By, idempotency_key: IdempotencyKey = None
) -> JobView:
    """A job of one call of the tool."""
    body_hash = digest(f"/v1/tools/{name}/run", request.model_dump())
    idempotency = (idempotency_key, body_hash) if idempotency_key else None
    if idempotency is not None and (known := api.store.repeated(idempotency, tenant=by.tenant)) is not None:
        return answer(response, known, created=False)  # whatever became of the tool since
    name = _find(api, name, by.tenant).name
    try:
        job, created = accept(
            api, _one_step(name, request), inputs={}, name="", priority=request.priority, by=by, idempotency=idempotency
        )
    except PlanError as error:
        raise _about_the_input(error, name) from None
    except PermissionDenied as error:  # there is one step, and the caller does not know of it
        raise PermissionDenied(error.message, path="name", next=error.next) from None
    return answer(response, job, created=created)


@router.get("/workers")
def workers(api: Api, by: By) -> list[WorkerInfo]:
    """The workers that are alive, by pool. Only an admin learns of hosts, processes, and tools that its tenant does not see."""
    found = [WorkerInfo.model_validate(w, from_attributes=True) for w in api.store.workers()]
    if "admin" in by.scopes:
        return found
    seen = frozenset(t.name for t in api.tools(by.tenant).tools)
    return [_outline(w, seen) for w in found]


def _outline(worker: WorkerInfo, seen: Collection[str]) -> WorkerInfo:
    name = hashlib.sha256(worker.id.encode()).hexdigest()[:12]
    tools = tuple(t for t in worker.tools if t in seen)
    return worker.model_copy(update={"id": name, "host": "", "pid": 0, "tools": tools})


def _find(api: Services, name: str, tenant: str) -> ToolDefinition:
    catalog = api.tools(tenant)
    found = catalog.resolve(name)
    if found is None and (claimants := catalog.claimants(name)):
        raise NotFound(
            f"`{name[:256]}` is another name of several tools.", path="name",
            next=f"Name the one that is meant: {listed((t.name for t in claimants), last='or')}.",
        )  # fmt: skip
    if found is None:
        near = get_close_matches(name[:256], [t.name for t in catalog.tools], n=1)
        move = f"Did you mean `{near[0]}`?" if near else "`toolweaver tools list` shows those that there are."
        raise NotFound(f"There is no tool `{name[:256]}`.", path="name", next=move)
    return found


def _one_step(name: str, request: RunToolRequest) -> dict[str, Any]:
    step: dict[str, Any] = {"id": STEP, "tool": name, "input": _literal(request.input)}
    if request.timeout_s is not None:
        step["timeout_s"] = request.timeout_s
    return {"steps": [step], "output": f"step:{STEP}"}


def _literal(value: Any) -> Any:
    """The value with everything escaped that a plan would take for a reference."""
    if isinstance(value, dict):
        return {"$literal": value} if set(value) == {"$literal"} else {k: _literal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_literal(v) for v in value]
    return {"$literal": value} if _looks_like_reference(value) else value


def _looks_like_reference(value: Any) -> bool:
    try:
        return parse_reference(value) is not None
    except ValueError:
        return True


def _about_the_input(error: PlanError, name: str) -> PlanError:
    """The problems of the plan that we made, as problems of the input that the caller gave."""
    problems = [p | {"path": str(p.get("path", "$")).removeprefix("steps[0].")} for p in error.problems]
    return PlanError(f"The input does not fit the tool `{name}`; nothing was run.", problems=problems)
