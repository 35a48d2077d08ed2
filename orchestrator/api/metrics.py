"""`/metrics` for Prometheus: figures of all tenants together, for whoever runs the platform. Guard and route ask for the scope."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from orchestrator.api.auth import METRICS_PATH, check_scope
from orchestrator.api.services import Api, By
from orchestrator.monitoring.metrics import MEDIA_TYPE

router = APIRouter(tags=["health"])


@router.get(METRICS_PATH, response_class=PlainTextResponse)
def metrics(by: By, api: Api) -> Response:
    """The platform's counters, in the text format of Prometheus."""
    check_scope(by, "admin")
    return Response(api.metrics.text(), media_type=MEDIA_TYPE)
