"""`/health` for supervisors and load balancers, and `/` for a person who opens the address in a browser."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from redis.exceptions import RedisError

from orchestrator.api.services import Api, Services
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


@router.get("/health", responses={503: {"model": Health, "description": "the job store does not answer"}})
def health(request: Request, response: Response, api: Api) -> Health:
    """Whether the platform can take jobs: 200 when it can, though perhaps without workers (`degraded`); 503 when not."""
    store = _store(api)
    workers = _workers(api) if store.ok else HealthCheck(ok=False, detail="not known without the store")
    response.status_code = 200 if store.ok else 503
    status: Literal["ok", "degraded", "down"] = "down" if not store.ok else "ok" if workers.ok else "degraded"
    checks = {"store": store, "workers": workers}
    if request.state.keyed:  # anybody may ask, so nothing is told of what lies within
        checks = {name: HealthCheck(ok=check.ok) for name, check in checks.items()}
    return Health(status=status, version=VERSION, timestamp=datetime.now(UTC), checks=checks)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def index() -> str:
    return _PAGE


def _store(api: Services) -> HealthCheck:
    try:
        api.probe.ping()
    except RedisError as error:
        return HealthCheck(ok=False, detail=f"{type(error).__name__}: {error}")
    return HealthCheck(ok=True, detail="answers")


def _workers(api: Services) -> HealthCheck:
    pools = Counter(w.pool for w in api.store.workers())
    detail = ", ".join(f"{pool} {count}" for pool, count in sorted(pools.items())) or "no worker; jobs wait until one comes"
    return HealthCheck(ok=bool(pools), detail=detail)
