"""`/metrics` for Prometheus, and the same figures as a report. They are of all tenants together, names of tools
included, so that they are for whoever runs the platform: guard and route ask for the scope.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from orchestrator.api.auth import METRICS_PATH, check_scope
from orchestrator.api.services import Api, By
from orchestrator.models.report import MetricsReport
from orchestrator.monitoring.figures import report_of
from orchestrator.monitoring.metrics import MEDIA_TYPE

router = APIRouter(tags=["health"])


@router.get(METRICS_PATH, response_class=PlainTextResponse)
def metrics(by: By, api: Api) -> Response:
    """The platform's counters, in the text format of Prometheus."""
    check_scope(by, "admin")
    return Response(api.metrics.text(), media_type=MEDIA_TYPE)


@router.get("/v1/metrics/report")
def report(by: By, api: Api) -> MetricsReport:
    """Tool calls, searches, tokens, cost, quality and recent errors, over all processes and tenants; needs the scope `admin`."""
    check_scope(by, "admin")
    return report_of(api.metrics.read(), shared=True)
