"""Following the events of a job across cuts: where the reader is, and what an end of the stream means. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
from httpx_sse import ServerSentEvent

from orchestrator.client.answers import backoff, problem_in, unreachable
from orchestrator.errors import BackendError, RequestError
from orchestrator.models.event import Event

PATIENCE_S = 60.0
SILENCE_S = 40.0  # the server sends a heartbeat every 15 s


class Follow:
    """One reader's place in a job's events; both clients drive it.

    Loop: connect with `headers` and `params`, hand the response to `opened`, each message to `read`, then tell
    `closed` or `cut` how it ended; until `done`. Every event comes once, however often the connection is lost.
    """

    def __init__(self, job_id: str, address: str, *, after: str | None = None, timeout: float | None = None) -> None:
        self.job_id = job_id
        self.done = False
        self._address = address
        self._after = after
        self._last_was_final = False
        self._failures = 0
        self._seen_alive = time.monotonic()
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout if timeout is not None else None

    @property
    def headers(self) -> Mapping[str, str]:
        base = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        return base | ({"Last-Event-ID": self._after} if self._after else {})

    @property
    def params(self) -> Mapping[str, str]:
        """The server ends the stream at our deadline, so that a silent job cannot hold us longer."""
        return {"for_s": f"{self._left():.3f}"} if self._deadline is not None else {}

    def timeout(self, connect: float) -> httpx.Timeout:
        """How long to wait for the connection and, once it stands, for the next line."""
        silence = SILENCE_S if self._deadline is None else min(SILENCE_S, self._left() + 1.0)
        return httpx.Timeout(connect, read=silence)

    def opened(self, response: httpx.Response) -> bool:
        """Whether events follow; False when there are none left. A refusal's body must have been read.

        Raises:
            ToolWeaverError: what the server refuses with, but for a backend that is away: that is a `cut`.
        """
        error = problem_in(response, self._address)
        if error is not None:
            raise error
        self.done = response.status_code == httpx.codes.NO_CONTENT
        if not self.done and not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise RequestError(f"`{self._address}` does not stream events", next="Check TOOLWEAVER_URL.")
        self._seen_alive = time.monotonic()
        return not self.done

    def read(self, message: ServerSentEvent) -> Event | None:
        """The event of a message; None when it carries none or was seen before."""
        if not message.data:
            return None
        event = Event.model_validate_json(message.data)
        new = self._after is None or _order(event.id) > _order(self._after)
        if new:
            self._after = event.id
        elif event.type != "gap":  # its id is not its own: it stands for what was trimmed
            return None
        self._last_was_final = event.final  # a job that was retried has a final event in the middle
        self._failures = 0
        return event

    def closed(self) -> float:
        """The server ended the stream: all was said, or it stops and another one will go on. Seconds to pause.

        Raises:
            TimeoutError: the time is over.
        """
        self.done = self._last_was_final
        return 0.0 if self.done else self._pause()

    def cut(self, error: httpx.TransportError | BackendError) -> float:
        """The connection was lost, or the backend is away. Seconds to pause before the next one.

        Raises:
            TimeoutError: the time is over.
            BackendError: nothing answered for a minute.
        """
        pause = self._pause()
        if time.monotonic() - self._seen_alive > PATIENCE_S:
            raise error if isinstance(error, BackendError) else unreachable(error, self._address) from error
        return pause

    def _pause(self) -> float:
        if self._deadline is not None and self._left() <= 0:
            again = f"wait again, or `toolweaver events {self.job_id}`"
            raise TimeoutError(f"job {self.job_id} has not ended within {self._timeout:g} s; it goes on: {again}")
        self._failures += 1
        return min(backoff(self._failures), self._left())

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic()) if self._deadline is not None else float("inf")


def _order(event_id: str) -> tuple[int, int]:
    time_ms, _, number = event_id.partition("-")
    return int(time_ms), int(number or 0)
