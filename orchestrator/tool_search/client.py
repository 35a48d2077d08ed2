"""Asks the index service: the replicas in turn, another one when one is away, too busy or behind, within a time that is bounded.

Every request may be sent again: a search changes nothing, and feedback carries an id of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx
import redis
from pydantic import BaseModel, SecretStr, ValidationError

from orchestrator.errors import BackendError, from_problem
from orchestrator.models.search import (
    QUERY_CHARS,
    EmbedAnswer,
    EmbedRequest,
    FeedbackEntry,
    FeedbackPage,
    FeedbackRequest,
    IndexStatus,
    SearchAnswer,
    SearchRequest,
)
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import INDEX_REPLICAS

A = TypeVar("A", bound=BaseModel)
Urls = Sequence[str] | Callable[[], Sequence[str]]

TIMEOUT_S = 5.0  # of a request with all its attempts
ATTEMPT_S = 2.0  # of one attempt
CONNECT_S = 0.5
BAD_S = 2.0  # a replica that failed is asked last for so long
LOOK_S = 1.0  # between two looks at which replicas there are
PAUSE_S, PAUSE_MAX_S = 0.05, 0.5  # when all have failed
UNKNOWN_S = 1.0  # that one is waited for while none is known: it may just be starting
ELSEWHERE = frozenset((425, 429, 500, 502, 503, 504))  # answers that another replica, or the same one later, may not give
START_IT = "Start one: `toolweaver up`, or `python -m orchestrator.tool_search.service`; TOOLWEAVER_INDEX_URLS names others."


class IndexUnavailable(BackendError):
    """No replica of the index service answers."""

    code = "index_unavailable"


class Announced:
    """The replicas that announce themselves in the store, as read at most once a second; the last known while it is away."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._redis: Any = client or connect(settings, retries=0, timeout_s=1.0)
        self._urls: tuple[str, ...] = ()
        self._look = 0.0

    @property
    def due(self) -> bool:
        """Whether the next call asks the store."""
        return time.monotonic() >= self._look

    def __call__(self) -> Sequence[str]:
        if self.due:
            self._look = time.monotonic() + (LOOK_S if self._urls else PAUSE_S)
            try:
                self._urls = live_replicas(self._redis)
            except redis.RedisError:
                return self._urls
        return self._urls


def live_replicas(client: Any) -> tuple[str, ...]:
    """The addresses of the replicas whose lease has not ended, by the store's clock.

    Raises:
        redis.RedisError: the store does not answer.
    """
    seconds, micros = client.time()
    found = client.zrangebyscore(INDEX_REPLICAS, seconds + micros / 1e6, "+inf")
    return tuple(sorted(raw.decode() for raw in found))


class IndexClient:
    """A client that waits; threads may share it. `urls`: the replicas, or what names them.

    Every method raises `IndexUnavailable` when no replica answers in time, and what a replica refuses as the error that it is.
    """

    def __init__(self, urls: Urls, *, key: SecretStr | None = None, timeout: float = TIMEOUT_S) -> None:
        self._turn, self._timeout = _Turn(urls), timeout
        self._http = httpx.Client(headers=_headers(key), timeout=_limits(timeout), trust_env=False)

    @classmethod
    def of(cls, settings: Settings, *, client: redis.Redis | None = None, timeout: float = TIMEOUT_S) -> Self:
        """The client that the settings mean: of `index_urls`, else of the replicas that announce themselves."""
        return cls(settings.index_urls or Announced(settings, client), key=settings.index_key, timeout=timeout)

    def search(self, request: SearchRequest) -> SearchAnswer:
        """The tools for some queries; a replica that is older than `min_generation` is passed over."""
        return self._send("POST", "/search", SearchAnswer, request, more_s=_waits(request))

    def embed(self, texts: Sequence[str]) -> EmbedAnswer:
        """The vectors of texts."""
        return self._send("POST", "/embed", EmbedAnswer, EmbedRequest(texts=tuple(texts)), attempt_s=self._timeout)

    def feedback(
        self, query: str, used: Sequence[str], ok: bool = True, *, tenant: str = "default", id: str | None = None
    ) -> FeedbackEntry:
        """Tells which tools were used for a query, and whether they did what was wanted; under one id once, however often."""
        return self._send("POST", "/feedback", FeedbackEntry, _feedback(query, used, ok=ok, tenant=tenant, id=id))

    def undo(self, id: str, *, tenant: str = "default") -> FeedbackEntry:
        """Takes back what was told."""
        return self._send("DELETE", f"/feedback/{id}?tenant={tenant}", FeedbackEntry)

    def told(self, *, tenant: str = "default", limit: int = 100) -> FeedbackPage:
        """What was told, newest first."""
        return self._send("GET", f"/feedback?tenant={tenant}&limit={limit}", FeedbackPage)

    def status(self) -> IndexStatus:
        """How one of the replicas is."""
        return self._send("GET", "/status", IndexStatus)

    def statuses(self) -> dict[str, IndexStatus | str]:
        """How each replica is, by its address; why not, where it does not say."""
        found: dict[str, IndexStatus | str] = {}
        for url in self._turn.urls():
            try:
                found[url] = _read(self._http.get(f"{url}/status"), IndexStatus)
            except (httpx.HTTPError, _Elsewhere, BackendError) as error:
                found[url] = str(error) or type(error).__name__
        return found

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(
        self,
        method: str,
        path: str,
        answer: type[A],
        body: BaseModel | None = None,
        *,
        attempt_s: float = ATTEMPT_S,
        more_s: float = 0.0,
    ) -> A:
        content = None if body is None else body.model_dump_json(exclude_defaults=True)
        tries = _Tries(self._turn, self._timeout + more_s, attempt_s=attempt_s + more_s)
        while (attempt := tries.next()) is not None:
            time.sleep(attempt.pause_s)
            try:
                answered = self._http.request(method, attempt.url + path, content=content, timeout=attempt.limits)
                return _read(answered, answer)
            except (httpx.TransportError, _Elsewhere) as error:
                tries.failed(attempt.url, error)
        raise tries.given_up()


class AsyncIndexClient:
    """The same, awaited; every method is that of `IndexClient`."""

    def __init__(self, urls: Urls, *, key: SecretStr | None = None, timeout: float = TIMEOUT_S) -> None:
        self._turn, self._timeout = _Turn(urls), timeout
        self._http = httpx.AsyncClient(headers=_headers(key), timeout=_limits(timeout), trust_env=False)

    @classmethod
    def of(cls, settings: Settings, *, client: redis.Redis | None = None, timeout: float = TIMEOUT_S) -> Self:
        """See `IndexClient.of`."""
        return cls(settings.index_urls or Announced(settings, client), key=settings.index_key, timeout=timeout)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """See `IndexClient.search`."""
        return await self._send("POST", "/search", SearchAnswer, request, more_s=_waits(request))

    async def embed(self, texts: Sequence[str]) -> EmbedAnswer:
        """See `IndexClient.embed`."""
        return await self._send("POST", "/embed", EmbedAnswer, EmbedRequest(texts=tuple(texts)), attempt_s=self._timeout)

    async def feedback(
        self, query: str, used: Sequence[str], ok: bool = True, *, tenant: str = "default", id: str | None = None
    ) -> FeedbackEntry:
        """See `IndexClient.feedback`."""
        return await self._send("POST", "/feedback", FeedbackEntry, _feedback(query, used, ok=ok, tenant=tenant, id=id))

    async def undo(self, id: str, *, tenant: str = "default") -> FeedbackEntry:
        """See `IndexClient.undo`."""
        return await self._send("DELETE", f"/feedback/{id}?tenant={tenant}", FeedbackEntry)

    async def told(self, *, tenant: str = "default", limit: int = 100) -> FeedbackPage:
        """See `IndexClient.told`."""
        return await self._send("GET", f"/feedback?tenant={tenant}&limit={limit}", FeedbackPage)

    async def status(self) -> IndexStatus:
        """See `IndexClient.status`."""
        return await self._send("GET", "/status", IndexStatus)

    async def close(self) -> None:
        """Gives the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(
        self,
        method: str,
        path: str,
        answer: type[A],
        body: BaseModel | None = None,
        *,
        attempt_s: float = ATTEMPT_S,
        more_s: float = 0.0,
    ) -> A:
        content = None if body is None else body.model_dump_json(exclude_defaults=True)
        tries = _Tries(self._turn, self._timeout + more_s, attempt_s=attempt_s + more_s)
        while (attempt := await asyncio.to_thread(tries.next) if self._turn.asks_the_store else tries.next()) is not None:
            if attempt.pause_s:
                await asyncio.sleep(attempt.pause_s)
            try:
                answered = await self._http.request(method, attempt.url + path, content=content, timeout=attempt.limits)
                return _read(answered, answer)
            except (httpx.TransportError, _Elsewhere) as error:
                tries.failed(attempt.url, error)
        raise tries.given_up()


class _Elsewhere(Exception):
    """An answer that another replica may not give."""


class _Turn:
    """Whose turn it is: the replicas one after the other, those last that failed a moment ago."""

    def __init__(self, urls: Urls) -> None:
        self._urls: Callable[[], Sequence[str]] = urls if callable(urls) else lambda: urls
        self._bad: dict[str, float] = {}
        self._next, self._lock = secrets.randbelow(1_000), threading.Lock()

    @property
    def looks_for_more(self) -> bool:
        """Whether there may be other replicas a moment later."""
        return isinstance(self._urls, Announced)

    @property
    def asks_the_store(self) -> bool:
        """Whether the next look at the replicas may take a while."""
        return isinstance(self._urls, Announced) and self._urls.due

    def urls(self) -> list[str]:
        return [url.rstrip("/") for url in self._urls()]

    def order(self) -> list[str]:
        urls, now = self.urls(), time.monotonic()
        with self._lock:
            self._next += 1
            start = self._next % max(1, len(urls))
            return sorted(urls[start:] + urls[:start], key=lambda url: self._bad.get(url, 0.0) > now)

    def failed(self, url: str) -> None:
        with self._lock:
            self._bad[url] = time.monotonic() + BAD_S


@dataclass(frozen=True, slots=True)
class _Attempt:
    url: str
    limits: httpx.Timeout
    pause_s: float


class _Tries:
    """The attempts of one request: every replica once, then all again after a pause, until the time is over."""

    def __init__(self, turn: _Turn, timeout_s: float, *, attempt_s: float) -> None:
        self._turn, self._attempt_s, self._timeout_s = turn, attempt_s, timeout_s
        self._until = time.monotonic() + timeout_s
        self._round: list[str] = []
        self._pause, self._why = 0.0, dict[str, str]()

    def next(self) -> _Attempt | None:
        """The next attempt; None: the time is over, or there is nobody to ask."""
        pause = 0.0
        if not self._round:
            pause, self._pause = self._pause, min(PAUSE_MAX_S, max(PAUSE_S, 2 * self._pause))
            self._round = self._turn.order()
            unknown_until = min(self._until, time.monotonic() + UNKNOWN_S)
            while not self._round and self._turn.looks_for_more and time.monotonic() < unknown_until:
                time.sleep(PAUSE_S)
                self._round = self._turn.order()
        left = self._until - time.monotonic() - pause
        if not self._round or left <= 0:
            return None
        return _Attempt(self._round.pop(0), _limits(min(self._attempt_s, left)), pause)

    def failed(self, url: str, error: Exception) -> None:
        self._turn.failed(url)
        self._why[url] = str(error) or type(error).__name__

    def given_up(self) -> IndexUnavailable:
        if not self._why:
            return IndexUnavailable("No replica of the index service is known.", next=START_IT)
        told = "; ".join(f"{url}: {why}" for url, why in self._why.items())
        return IndexUnavailable(f"No replica of the index service answered within {self._timeout_s:g} s: {told}", next=START_IT)


def _waits(request: SearchRequest) -> float:
    """How much longer than usual an answer may take, since the request says that the encoder is to be waited for."""
    return (request.deadline_ms or 0) / 1000


def _limits(left_s: float) -> httpx.Timeout:
    return httpx.Timeout(max(0.01, left_s), connect=max(0.01, min(CONNECT_S, left_s)))


def _headers(key: SecretStr | None) -> Mapping[str, str]:
    sent = {"Content-Type": "application/json"}
    return sent | {"Authorization": f"Bearer {key.get_secret_value()}"} if key else sent


def _read(response: httpx.Response, answer: type[A]) -> A:
    if response.status_code in ELSEWHERE:
        raise _Elsewhere(f"{response.status_code} {_problem(response).get('detail', '')}".strip())
    if response.is_error:
        raise from_problem(_problem(response))
    try:
        return answer.model_validate_json(response.content)
    except ValidationError:  # something else has its port, or it is of another version
        raise _Elsewhere(f"{response.status_code}, and no {answer.__name__}") from None


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        said = response.json()
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"detail": f"the index service answered {response.status_code}"}


def _feedback(query: str, used: Sequence[str], *, ok: bool, tenant: str, id: str | None) -> FeedbackRequest:
    return FeedbackRequest(query=query[:QUERY_CHARS], used=tuple(used), ok=ok, tenant=tenant, id=id or secrets.token_hex(8))
