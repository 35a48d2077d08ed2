"""What an answer, or the lack of one, means: the server's error as the class that it raised, or when to try again."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx

from orchestrator.errors import BackendError, RateLimited, ToolWeaverError, from_problem

TRIES = 3
LONGEST_PAUSE_S = 5.0


def problem_in(response: httpx.Response, address: str) -> ToolWeaverError | None:
    """The error that a response carries, None when it is a success. Its body must have been read."""
    if response.is_success:
        return None
    problem = _json_object(response)
    if "code" in problem:
        return from_problem(problem)
    return BackendError(
        f"`{address}` answered {response.status_code} and no problem document; it seems to be no ToolWeaver API",
        next="Check TOOLWEAVER_URL; `toolweaver up` starts a platform.",
    )


def unreachable(error: httpx.TransportError, address: str) -> BackendError:
    """No answer came from the API."""
    why = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return BackendError(f"`{address}` did not answer in time ({why})", next="Try again, or give the client a longer `timeout`.")
    return BackendError(
        f"nothing answers at `{address}` ({why})", next="Start a platform with `toolweaver up`, or set TOOLWEAVER_URL."
    )


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling from 0.1, with jitter."""
    return float(min(0.1 * 2 ** min(failures, 10), LONGEST_PAUSE_S) * random.uniform(0.5, 1.0))


class Attempts:
    """The tries of one request: each failure is either worth a pause and another try, or is raised."""

    def __init__(self, address: str, *, repeatable: bool) -> None:
        self._address = address
        self._repeatable = repeatable
        self._failures = 0

    def after_cut(self, error: httpx.TransportError) -> float:
        """Seconds to pause before the next try.

        Raises:
            BackendError: there have been enough, or the request may have been served and must not be sent twice.
        """
        self._failures += 1
        nothing_was_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        if self._failures < TRIES and (self._repeatable or nothing_was_sent):
            return backoff(self._failures)
        raise unreachable(error, self._address) from error

    def after_answer(self, response: httpx.Response, accepts: frozenset[int]) -> float | None:
        """None when the answer stands, else seconds to pause: the backend is away for a moment, or we ask too often.

        Raises:
            ToolWeaverError: the error that the server raised.
        """
        error = None if response.status_code in accepts else problem_in(response, self._address)
        if error is None:
            return None
        self._failures += 1
        passing = response.status_code == httpx.codes.SERVICE_UNAVAILABLE or isinstance(error, RateLimited)
        if passing and self._repeatable and self._failures < TRIES:
            return retry_after(response)
        raise error


def retry_after(response: httpx.Response) -> float:
    """The pause that the server asks for, within reason."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), LONGEST_PAUSE_S) if asked.isdigit() else 1.0


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
