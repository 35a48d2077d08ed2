"""`/health` for supervisors and load balancers, and `/` for a person who opens the address in a browser."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from orchestrator.api.checks import DECIDE
from orchestrator.api.services import Api
from orchestrator.models.request import Health, HealthCheck

router = APIRouter(tags=["health"])
VERSION = version("toolweaver")
SUMMARY = "Submits plans of tool calls as jobs, follows them live, and fetches what came out. Errors are RFC 9457 problems."

_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>ToolWeaver</title>
<body style="font-family: system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; line-height: 1.5">
<h1>ToolWeaver {VERSION}</h1>
<p>This is the HTTP API of a platform that runs plans of tool calls on pools of workers.</p>
<ul>
<li><a href="/docs">every address, to try out</a> (<a href="/openapi.json">OpenAPI</a>)</li>
<li><a href="/v1/jobs">jobs</a>, <a href="/v1/tools">tools</a>,
<a href="/v1/plans">plans</a>, <a href="/v1/workers">workers</a></li>
<li><a href="/health">health</a></li>
</ul>
</body></html>
"""


@router.get("/health", responses={503: {"model": Health, "description": "the job store does not answer, or takes no writes"}})
def health(request: Request, response: Response, api: Api) -> Health:
    """Whether the platform can take jobs: 200 when it can, though perhaps not do all of them well (`degraded`); 503 when not."""
    checks = api.health.all()
    failed = {name for name, check in checks.items() if not check.ok}
    status: Literal["ok", "degraded", "down"] = "down" if failed & DECIDE else "degraded" if failed else "ok"
    response.status_code = 503 if status == "down" else 200
    if request.state.keyed:  # anybody may ask, so nothing is told of what lies within
        checks = {name: HealthCheck(ok=check.ok) for name, check in checks.items()}
    return Health(status=status, version=VERSION, timestamp=datetime.now(UTC), checks=checks)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def index() -> str:
    return _PAGE
