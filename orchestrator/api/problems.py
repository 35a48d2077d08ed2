"""Every error as an RFC 9457 problem, whoever raised it: our classes, FastAPI's validation, routing, the store, a bug."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from orchestrator.errors import BackendError, NotFound, RateLimited, RequestError, ToolWeaverError, to_problem
from orchestrator.state.connection import transient

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Problem(BaseModel):
    """An RFC 9457 problem: what is wrong, where, and the next move."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="names the kind of error; stable")
    family: str = Field(description="who acts: `request`, `plan`, `tool`, `policy`, `backend`")
    path: str | None = Field(default=None, description="where in the request")
    next: str | None = Field(default=None, description="the next move")
    retryable: bool = Field(default=False, description="whether the same request may succeed later")
    problems: list[dict[str, Any]] = Field(default_factory=list, description="all that is wrong: `path, code, message, next`")


def problem_response(error: ToolWeaverError, *, status: int | None = None, code: str | None = None) -> JSONResponse:
    """The response of an error; `status` and `code` say it more closely than its class."""
    problem = to_problem(error)
    problem |= {"status": status or problem["status"], "code": code or problem["code"]}
    return JSONResponse(problem, status_code=problem["status"], media_type=MEDIA_TYPE, headers=_headers(error, problem["status"]))


def _headers(error: ToolWeaverError, status: int) -> dict[str, str]:
    if isinstance(error, RateLimited):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {"WWW-Authenticate": 'Bearer realm="toolweaver"'} if status == HTTPStatus.UNAUTHORIZED else {}


def install_problem_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem."""
    _answer(app, ToolWeaverError, lambda _, error: problem_response(error))
    _answer(app, RequestValidationError, lambda _, error: _invalid(error))
    _answer(app, HTTPException, _routing)
    _answer(app, RecursionError, lambda *_: problem_response(RequestError("The body is nested too deeply.", next="Flatten it.")))
    _answer(app, RedisError, lambda request, e: problem_response(store_away(e)) if transient(e) else _bug(request, e))
    _answer(app, Exception, _bug)


def store_away(error: Exception) -> BackendError:
    """What a caller is told when Redis does not answer."""
    log.warning("the store does not answer: %s", error, extra={"action": "store_away"})
    return BackendError(
        "The job store does not answer.", next="Try again in a moment; `toolweaver doctor` looks at what the platform needs."
    )


def _answer(app: FastAPI, kind: type[Exception], respond: Callable[[Request, Any], JSONResponse]) -> None:
    async def handle(request: Request, error: Exception) -> JSONResponse:
        return respond(request, error)

    app.add_exception_handler(kind, handle)


def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", exc_info=error, extra={"action": "api_bug", "path": request.url.path})
    return problem_response(
        ToolWeaverError("The API met an error that it did not expect.", next="Its log has the details; please report them."),
        code="bug",
    )


def _routing(request: Request, error: HTTPException) -> JSONResponse:
    status = HTTPStatus(error.status_code)
    where = f"{request.method} {request.url.path}"
    if status is HTTPStatus.NOT_FOUND:
        return problem_response(NotFound(f"There is nothing at `{where}`.", next="`/docs` lists every address."))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed(request))
        response = problem_response(
            RequestError(f"`{where}` is not possible.", next=f"Use {allowed} here."), status=status, code="method_not_allowed"
        )
        response.headers["Allow"] = allowed
        return response
    return problem_response(RequestError(str(error.detail)), status=status)


def _allowed(request: Request) -> list[str]:
    """What the address can do; the router itself names only the methods of the first route that it meets."""
    routes = request.app.routes
    return [m for m in _METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]


def _invalid(error: RequestValidationError) -> JSONResponse:
    found = error.errors()
    broken = next((e for e in found if e["type"] == "json_invalid"), None)
    if broken is not None:
        return problem_response(_bad_json(broken), code="bad_json")
    problems = [_one(e) for e in found]
    first = problems[0]
    message = first["message"] if len(problems) == 1 else f"The request has {len(problems)} problems."
    invalid = RequestError(message, path=first["path"], next=first["next"], problems=problems)
    return problem_response(invalid, status=HTTPStatus.UNPROCESSABLE_ENTITY, code="invalid_request")


def _bad_json(error: dict[str, Any]) -> RequestError:
    at = error["loc"][-1] if isinstance(error["loc"][-1], int) else 0
    why = error.get("ctx", {}).get("error", "it cannot be read")
    return RequestError(f"The body is no JSON: {why}, at character {at}.", next="Send one JSON object; `/docs` shows its fields.")


def _one(error: dict[str, Any]) -> dict[str, Any]:
    where, *rest = error["loc"]
    path = _path(rest) or ("$" if where == "body" else where)
    kind = error["type"]
    if kind == "missing" and where == "body" and not rest:
        return _said(
            path, kind, "The request has no body.", "Send one JSON object with the header `Content-Type: application/json`."
        )
    if kind == "missing":
        return _said(path, kind, f"`{path}` is missing.", f"Add `{path}`.")
    if kind == "extra_forbidden":
        return _said(path, kind, f"There is no `{path}` here.", "Take it away; `/docs` lists what there is.")
    message = error["msg"].removeprefix("Value error, ")
    given = f"; it is {error['input']!r:.80}" if isinstance(error.get("input"), str | int | float | bool | None) else ""
    return _said(path, kind, f"{message}{given}.", "Give a value of that kind; `/docs` describes it.")


def _said(path: str, code: str, message: str, move: str) -> dict[str, Any]:
    return {"path": path, "code": code, "message": message, "next": move}


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).removeprefix(".")
