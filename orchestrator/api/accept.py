"""From a request to an accepted job: the body is sound JSON, the plan is checked as a whole, then it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from orchestrator.api.services import Services
from orchestrator.errors import PermissionDenied, RequestError
from orchestrator.models.access import Caller, Policy
from orchestrator.models.job import JobView, Priority
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.check import check_plan
from orchestrator.planner.named import load_named
from orchestrator.policy.limits import check_priority
from orchestrator.policy.permissions import denied

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


def _json_only(request: Request) -> None:
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
    refusals = {
        f"steps[{i}].tool": refusal
        for i, step in enumerate(plan.steps)
        if (tool := catalog.get_tool(step.tool)) is not None
        and (refusal := denied(policy, tenant=by.tenant, caller=by.called, tool=tool)) is not None
    }
    if not refusals:
        return
    problems = [{"path": path, "code": e.code, "message": e.message, "next": e.next} for path, e in refusals.items()]
    (path, first), *more = refusals.items()
    if not more:
        raise PermissionDenied(first.message, path=path, next=first.next, problems=problems)
    raise PermissionDenied(f"{first.message}; {len(refusals)} steps are forbidden.", path=path, problems=problems)


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
