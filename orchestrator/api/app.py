"""The HTTP API as one FastAPI app: routes, guard, problems, and an OpenAPI document that says what is true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from orchestrator.api import access, files, health, jobs, metrics, plans, servers, tools
from orchestrator.api.auth import needed_scope
from orchestrator.api.guard import BODY_S, MAX_BODY_BYTES, Guard
from orchestrator.api.problems import MEDIA_TYPE, Problem, install_problem_handlers
from orchestrator.api.services import Services, build_services
from orchestrator.settings import Settings

_PROBLEM = {
    "description": "A problem (RFC 9457): what is wrong, where, and the next move",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def create_app(
    settings: Settings,
    *,
    build: Callable[[Settings], Services] = build_services,
    max_body: int = MAX_BODY_BYTES,
    body_s: float = BODY_S,
) -> FastAPI:
    """The app of one process; it connects when it starts and gives everything back when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = services = build(settings)
        try:
            yield
        finally:
            await services.close()

    # The pages of FastAPI itself load Swagger from a CDN, which fails without the internet.
    app = FastAPIOffline(
        docs_url="/docs", redoc_url=None, title="ToolWeaver", version=health.VERSION, description=health.SUMMARY, lifespan=lifespan
    )
    for room in (jobs, tools, servers, plans, files, access, metrics, health):
        app.include_router(room.router)
    install_problem_handlers(app)
    app.add_middleware(Guard, settings=settings, max_body=max_body, body_s=body_s)
    _describe_problems(app)
    return app


def _first_sentence(text: str | None) -> str:
    """A handler's docstring heads its entry of the page, in place of the function's bare name."""
    return (text or "").partition("\n")[0].partition(". ")[0].partition("; ")[0].rstrip(".")


def _describe_problems(app: FastAPI) -> None:
    """Puts our problem in the place of FastAPI's own validation error, which is never sent."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "tw_..."}}
            for address, path in schema["paths"].items():
                for method, operation in path.items():
                    if needed_scope(method.upper(), address) is not None:
                        operation["security"] = [{"key": []}, {}]  # the empty one: where no key is needed
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = _PROBLEM
                    operation["summary"] = _first_sentence(operation.get("description")) or operation["summary"]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to amend the document
