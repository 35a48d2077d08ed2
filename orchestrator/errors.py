"""Every error a caller can meet: five families by who acts, one root, plain data that crosses the wire.

The docstring of a class is its default message. `next` says the next move; `path` says where in the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ToolWeaverError(Exception):
    """Something went wrong in ToolWeaver."""

    family: ClassVar[str] = "error"
    code: str = "error"
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str | None = None,
        *,
        path: str | None = None,
        next: str | None = None,
        problems: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.message = message or (self.__doc__ or self.code).strip().splitlines()[0]
        self.path = path
        self.next = next
        self.problems = [dict(p) for p in problems]
        super().__init__(self.message)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return False

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        move = f" {self.next}" if self.next else ""
        return f"{where}{self.message}{move}"


class RequestError(ToolWeaverError):
    """The request cannot be served as it stands; the caller mends it."""

    family = "request"
    code = "bad_request"
    http_status = 400


class NotFound(RequestError):
    """There is no such thing."""

    code = "not_found"
    http_status = 404


class Conflict(RequestError):
    """The request contradicts the state of the thing that it names."""

    code = "conflict"
    http_status = 409


class LimitExceeded(RequestError):
    """The request is larger than a limit allows."""

    code = "limit_exceeded"
    http_status = 413


class PlanError(ToolWeaverError):
    """The plan has problems; nothing of it was published. See `problems`."""

    family = "plan"
    code = "bad_plan"
    http_status = 422

    def __str__(self) -> str:
        lines = [f"  {p.get('path', '$')}: {p.get('message', '')} {p.get('next') or ''}".rstrip() for p in self.problems]
        return "\n".join([self.message, *lines])


class ProgramError(RequestError):
    """The program cannot run as it stands; nothing of it ran. See `problems`."""

    code = "bad_program"
    http_status = 422

    def __str__(self) -> str:
        return _in_program(self, f"{self.message} {self.next or ''}".rstrip(), "")


class ToolError(ToolWeaverError):
    """A tool failed; the step's policy decides what follows."""

    family = "tool"
    code = "tool_failed"
    http_status = 502

    def __init__(
        self,
        message: str | None = None,
        *,
        retryable: bool = False,
        code: str | None = None,
        retry_after_s: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self._retryable, self.retry_after_s = retryable, retry_after_s
        if code is not None:
            self.code = code

    @property
    def retryable(self) -> bool:
        return self._retryable


class ToolTimeout(ToolError):
    """The call ran longer than its `timeout_s`."""

    code = "timeout"


class CircuitBreakerOpenError(ToolError):
    """What this needs failed again and again, so it is not called for a while; `retry_after_s` says for how long."""

    code = "circuit_open"
    http_status = 503

    def __init__(
        self, message: str | None = None, *, retryable: bool = True, retry_after_s: float | None = None, **rest: Any
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_s=retry_after_s, **rest)


class EffectUnknown(ToolError):
    """It is not known whether an effect happened; whoever depends on it waits until a person has settled it."""

    code = "unknown"


class PolicyError(ToolWeaverError):
    """A rule forbids this: denied, limited or over budget."""

    family = "policy"
    code = "denied"
    http_status = 403


class SecurityError(PolicyError):
    """The program uses what programs may not; nothing of it ran. See `problems`."""

    code = "security_error"

    def __str__(self) -> str:
        return _in_program(self, self.message, self.next or "")


class Unauthorized(PolicyError):
    """The request carries no key that is valid."""

    code = "unauthorized"
    http_status = 401


class PermissionDenied(PolicyError):
    """A permission forbids this; an admin may grant it."""

    code = "permission_denied"


class MissingScope(PermissionDenied):
    """The key has not the scope that this needs."""

    code = "missing_scope"


class RateLimited(PolicyError):
    """There were too many requests; `retry_after_s` says when the next one may come."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        return True


class QuotaExceeded(PolicyError):
    """A tenant holds as much of something as it may: jobs, streams, bytes. It gives some back, or an admin raises the limit."""

    code = "quota_exceeded"
    http_status = 429


class BackendError(ToolWeaverError):
    """A service that the platform needs did not answer; the operator acts."""

    family = "backend"
    code = "backend_unavailable"
    http_status = 503

    @property
    def retryable(self) -> bool:
        return True


class StoreFull(BackendError):
    """The blob store has no room left."""

    code = "store_full"
    http_status = 507


class ModelError(BackendError):
    """The model did not answer."""

    code = "model_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        retryable: bool = False,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        sent: bool = True,
        **rest: Any,
    ) -> None:
        """`sent`: the request may have reached the server, so that it may be paid for."""
        super().__init__(message, **rest)
        self._retryable, self.status, self.retry_after_s, self.sent = retryable, status, retry_after_s, sent
        if code is not None:
            self.code = code

    @property
    def retryable(self) -> bool:
        return self._retryable


class JobFailed(ToolWeaverError):
    """The job did not succeed; `result` holds what was done."""

    family = "job"
    code = "job_failed"
    http_status = 200

    def __init__(self, message: str | None = None, *, result: Any = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.result = result


class JobCancelled(JobFailed):
    """The job was cancelled; `result` holds what was done."""

    code = "job_cancelled"


class CallCancelled(ToolWeaverError):
    """This call was cancelled or overtaken by a later attempt; stop and clean up."""

    family = "control"
    code = "call_cancelled"


class Overtaken(CallCancelled):
    """This call was overtaken, or its job ended: what it does counts no more."""

    code = "call_overtaken"


def _in_program(error: ToolWeaverError, first: str, move: str) -> str:
    """The first line is of the first problem alone; below it the place, source and caret of each."""
    lines = [first]
    for n, p in enumerate(error.problems):
        said = f"{p.get('message', '')} {p.get('next') or ''}" if n else move
        lines += [f"  {p.get('path', '$')}: {said}".rstrip(": "), *(f"    {s}" for s in str(p.get("source") or "").splitlines())]
    return "\n".join(lines)


def _all(cls: type[ToolWeaverError]) -> dict[str, type[ToolWeaverError]]:
    """The classes by their codes; one that has the code of its parent is that parent to others."""
    subs = {code: c for sub in cls.__subclasses__() for code, c in _all(sub).items()}
    return (subs | {cls.code: cls}) if "code" in vars(cls) else ({cls.code: cls} | subs)


_BY_FAMILY = {c.family: c for c in (RequestError, PlanError, ToolError, PolicyError, BackendError)}


def to_problem(error: ToolWeaverError) -> dict[str, Any]:
    """The error as an RFC 9457 problem: `title, status, detail` and `code, family, path, next, retryable, problems`."""
    return {
        "type": "about:blank",
        "title": type(error).__name__,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "family": error.family,
        "path": error.path,
        "next": error.next,
        "retryable": error.retryable,
        "problems": error.problems,
    }


def from_problem(problem: Mapping[str, Any]) -> ToolWeaverError:
    """The same class that the server raised, rebuilt from its RFC 9457 problem."""
    fallback = _BY_FAMILY.get(str(problem.get("family")), ToolWeaverError)
    cls: type[ToolWeaverError] = _all(ToolWeaverError).get(str(problem.get("code")), fallback)
    rest: dict[str, Any] = {"retryable": bool(problem.get("retryable"))} if issubclass(cls, ToolError | ModelError) else {}
    detail = problem.get("detail") or problem.get("title")
    error = cls(
        str(detail) if detail else None,
        path=problem.get("path"),
        next=problem.get("next"),
        problems=problem.get("problems") or (),
        **rest,
    )
    error.code = str(problem.get("code") or error.code)  # finer than the class, such as `method_not_allowed`
    return error
