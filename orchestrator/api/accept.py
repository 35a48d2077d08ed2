"""From a request to an accepted job: the body is sound JSON, the plan is checked as a whole, then it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import Depends, Header, Response
from fastapi import Request as HttpRequest

from orchestrator.api.services import Services
from orchestrator.errors import NotFound, PermissionDenied, RequestError
from orchestrator.jobs.requests import Request
from orchestrator.models.access import Caller, Policy
from orchestrator.models.job import JobView, Priority, SubmitRequest
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.check import check_plan
from orchestrator.planner.named import load_named
from orchestrator.policy.limits import check_priority
from orchestrator.policy.permissions import check_steps, denied

MAX_DEPTH = 64

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="the same key with the same body gives the same job for a day; with another body it is a conflict",
    ),
]


class UnsupportedMediaType(RequestError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"
    http_status = 415


def _json_only(request: HttpRequest) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(
            f"The body is declared as `{kind or 'nothing'}`.", path="Content-Type", next="Send `Content-Type: application/json`."
        )


JsonOnly = Depends(_json_only)


def digest(what: str, body: Any) -> str:
    """The hash of a request, which tells a repeated one from another one under the same idempotency key.

    Raises:
        RequestError: the body holds what no JSON text can: NaN, half a character, or it is nested too deeply.
    """
    _refuse_deep(body)
    try:
        text = json.dumps([what, body], sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise RequestError(
            f"The body is no sound JSON: {error}.", next="Leave out NaN, Infinity and unpaired surrogates."
        ) from None
    return hashlib.sha256(text).hexdigest()


def _refuse_deep(body: Any) -> None:
    level, depth = [body], 0
    while level := [child for value in level for child in _children(value)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise RequestError(f"The body is nested more than {MAX_DEPTH} levels deep.", next="Flatten it.")


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def find_plan(source: Mapping[str, Any] | str) -> tuple[Mapping[str, Any], str]:
    """The plan itself and its name, "" when it has none.

    Raises:
        NotFound: there is no plan of that name.
    """
    return (load_named(source), source) if isinstance(source, str) else (source, "")


def accept(
    api: Services,
    plan: Mapping[str, Any],
    *,
    inputs: Mapping[str, Any],
    name: str,
    priority: Priority,
    by: Caller,
    idempotency: tuple[str, str] | None,
) -> tuple[JobView, bool]:
    """The job of a plan that passed the check, and whether it is new.

    Raises:
        PlanError: the plan has problems; nothing was stored.
        PermissionDenied: the caller may not use its tools.
        PolicyError: the tenant may have no more jobs, or none of this priority.
        Conflict: the idempotency key was used with another body.
    """
    if idempotency is not None and (known := api.store.repeated(idempotency, tenant=by.tenant)) is not None:
        return known, False
    catalog = api.tools(by.tenant)
    checked: Plan = check_plan(plan, catalog, inputs=inputs).plan
    policy = api.policies.of(by.tenant)
    check_permissions(checked, catalog, policy, by)
    if by.limited:
        check_priority(policy.limits, priority)
    with api.limits.new_job(by) as fill:
        job, created = _store(api, checked, inputs=inputs, name=name, priority=priority, by=by, idempotency=idempotency)
        if created:
            fill(job)
    return api.store.view(job, tenant=by.tenant), created


def check_permissions(plan: Plan, catalog: ToolCatalog, policy: Policy, by: Caller) -> None:
    """Lets a plan pass whose tools the caller may use. A worker asks again, since anything can write to a queue.

    Raises:
        PermissionDenied: it may not; every step that is forbidden is a problem.
    """
    check_steps(plan, catalog, policy, tenant=by.tenant, caller=by.called)


def accept_request(
    api: Services, request: SubmitRequest, *, by: Caller, idempotency: tuple[str, str] | None
) -> tuple[JobView, bool]:
    """The job of a request in words, and whether it is new; a planner makes its plan.

    Raises:
        NotFound: it names a tool that there is not.
        PermissionDenied: the caller may not use a tool that it names.
        PolicyError: the tenant may have no more jobs, or none of this priority.
        Conflict: the idempotency key was used with another body.
    """
    assert request.request is not None, "the model of the body lets in one of two"
    if idempotency is not None and (known := api.store.repeated(idempotency, tenant=by.tenant)) is not None:
        return known, False
    policy = api.policies.of(by.tenant)
    tools = _named_tools(request.tools, api.tools(by.tenant), policy, by) if request.tools is not None else None
    if by.limited:
        check_priority(policy.limits, request.priority)
    with api.limits.new_job(by) as fill:
        job, created = api.control.accept_request(
            Request(request.request, request.mode, tools),
            inputs=request.inputs,
            priority=request.priority,
            tenant=by.tenant,
            caller=" ".join(by.called),
            idempotency=idempotency,
        )
        if created:
            fill(job)
    return api.store.view(job, tenant=by.tenant), created


def _named_tools(names: Sequence[str], catalog: ToolCatalog, policy: Policy, by: Caller) -> tuple[str, ...]:
    """The tools of these names or aliases, each once."""
    found: dict[str, None] = {}
    for at, name in enumerate(names):
        tool = catalog.resolve(name)
        if tool is None:
            near = get_close_matches(name[:256], [t.name for t in catalog.tools], n=1)
            move = f"Did you mean `{near[0]}`?" if near else "`toolweaver tools list` shows those that there are."
            raise NotFound(f"There is no tool `{name[:256]}`.", path=f"tools[{at}]", next=move)
        refusal = denied(policy, tenant=by.tenant, caller=by.called, tool=tool)
        if refusal is not None:
            raise PermissionDenied(refusal.message, path=f"tools[{at}]", next=refusal.next)
        found[tool.name] = None
    return tuple(found)


def _store(
    api: Services,
    checked: Plan,
    *,
    inputs: Mapping[str, Any],
    name: str,
    priority: Priority,
    by: Caller,
    idempotency: tuple[str, str] | None,
) -> tuple[str, bool]:
    return api.control.accept(
        checked, inputs=inputs, name=name, priority=priority, tenant=by.tenant, caller=" ".join(by.called), idempotency=idempotency
    )


def answer(response: Response, job: JobView, *, created: bool) -> JobView:
    """201 for a new job, 200 for one that an earlier request made; its address in both."""
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job
