"""The index service: one process of it is a replica that answers over HTTP. `python -m orchestrator.tool_search.service`.

Searches never wait for changes: each works on the view that stood when it began, and one thread makes the next view beside.
"""

from __future__ import annotations

import gc
import os

if __name__ == "__main__":
    # Read when numpy is loaded. A second thread does nothing but spin for sums that are as short as a search's.
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(library, "1")
    gc.disable()  # while modules are loaded, of which nothing is garbage: looking for it took a fifth of the start

import argparse
import asyncio
import hashlib
import json
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import redis
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.errors import BackendError, NotFound, RequestError, ToolWeaverError
from orchestrator.loaded import settle
from orchestrator.models.access import TENANT
from orchestrator.models.search import EmbedAnswer, EmbedRequest, FeedbackRequest, SearchAnswer, SearchRequest
from orchestrator.monitoring.feed import Feed
from orchestrator.monitoring.metrics import FALLBACKS, Count
from orchestrator.monitoring.search import SearchMetrics
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
from orchestrator.tool_search.answer import Asked, answer, asked
from orchestrator.tool_search.cache import LRU, DistributedCache
from orchestrator.tool_search.door import Door, body_of, check_key, problem_response
from orchestrator.tool_search.encoder import BATCH, Encoded, Encoder
from orchestrator.tool_search.fusion import Weights
from orchestrator.tool_search.replica import Replica, Starting, View
from orchestrator.tool_search.weights import weights_of

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")
log = logging.getLogger(__name__)

PORTS_TRIED = 50
STOP_WITHIN_S = 3
SEARCHERS = 2  # threads: numpy lets go of the interpreter while it works, though not for long
SWITCH_S = 0.001  # between threads: a search waits no longer for the thread that makes the next view
ANSWERS_KEPT = 2_000
HITS_KEPT, TOKENS_KEPT = 50, 20_000  # of an answer that is kept: others are rare, and would fill the memory and the store
ANSWERS_TTL_S = 600
SHARED_BYTES = 16 << 10  # of an answer in the store, whose memory is that of the jobs
EMBED_S = 30.0  # of a batch of texts that `/embed` is asked for
CATCH_UP_S = 0.3  # that a search waits for the generation that it asks for
EXIT = {RequestError: 2, BackendError: 3}


class Behind(BackendError):
    """This replica knows an older catalog than the request asks for."""

    code = "index_behind"
    http_status = 425


class Service:
    """What the handlers of one replica work with."""

    def __init__(self, settings: Settings, replica: Replica, encoder: Encoder, *, shared: DistributedCache | None) -> None:
        self.settings, self.replica, self.encoder = settings, replica, encoder
        self.weights = weights_of(settings)
        self.metrics: SearchMetrics = replica.metrics
        self._shared = shared
        self._answers: LRU[SearchAnswer] = LRU(ANSWERS_KEPT)
        self._pool = ThreadPoolExecutor(SEARCHERS, thread_name_prefix="search")
        self._feed = Feed(connect(settings, retries=1, timeout_s=2.0), METRICS) if shared is not None else None
        self.embedding = asyncio.Lock()  # one batch of `/embed` at a time: the texts of searches come between

    def close(self) -> None:
        self.encoder.stop()
        self.replica.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """The answer to a request, kept or made.

        Raises:
            Starting: nothing is known yet.
            Behind: of the generation that is asked for.
        """
        began = time.perf_counter()
        view = await self._view(request)
        self.replica.asked(request.filters)
        key = _key(view, request, self.weights)
        kept = self._answers.get(key)
        if kept is not None:
            found = kept.model_copy(update={"cached": True, "degraded": self.replica.degraded()})
        else:
            found = await self._made(request, view, key)
        took = time.perf_counter() - began
        self._count(found, took)
        return found.model_copy(update={"took_ms": round(1000 * took, 3), "replica": self.replica.id})

    async def in_thread(self, call: Callable[[], T]) -> T:
        """What a call gives that may take a while."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _view(self, request: SearchRequest) -> View:
        wanted = request.min_generation or 0
        view = self.replica.view
        until = time.monotonic() + CATCH_UP_S
        while (view is None or view.generation < wanted) and time.monotonic() < until:
            self.replica.look_now()
            await asyncio.sleep(0.01)
            view = self.replica.view
        if view is None:
            raise Starting(next="Try again in a moment, or ask another replica.")
        if view.generation < wanted:
            raise Behind(
                f"This replica knows change {view.generation} of the catalog, not {wanted} yet.", next="Ask another, or again."
            )
        return view

    async def _made(self, request: SearchRequest, view: View, key: str) -> SearchAnswer:
        said = asked(request)
        new = not self.encoder.knows(q for q in said.queries if q)  # else to search is quicker than to ask the store
        known = await self.in_thread(lambda: self._shared_answer(key)) if new else None
        if known is not None:
            self._answers.set(key, known)
            return known.model_copy(update={"cached": True, "degraded": self.replica.degraded()})
        encoded = await self._encoded(request, said)
        missing = tuple(d for d in (encoded.degraded,) if d)
        found = await self.in_thread(lambda: self._answered(request, view, encoded, missing))
        if not missing and _light(request, found):
            kept = found.model_copy(update={"degraded": ()})
            self._answers.set(key, kept)
            if new:
                self._pool.submit(self._share, key, kept)
        return found

    async def _encoded(self, request: SearchRequest, said: Asked) -> Encoded:
        deadline_ms = self.settings.index_deadline_ms if request.deadline_ms is None else request.deadline_ms
        texts = [q for q in said.queries if q]
        found = await self.encoder.encode(texts, deadline_s=deadline_ms / 1000)
        by_text = dict(zip(texts, found.vectors, strict=True))
        return Encoded(tuple(by_text.get(q) for q in said.queries), found.degraded)

    def _answered(self, request: SearchRequest, view: View, encoded: Encoded, missing: tuple[str, ...]) -> SearchAnswer:
        learned = view.learned_by(request.filters.tenant)
        degraded = (*missing, *self.replica.degraded())
        found = answer(view.index, request, encoded.vectors, learned=learned, weights=self.weights, degraded=degraded)
        return found.model_copy(update={"catalog_hash": view.catalog_hash, "generation": view.generation})

    def _shared_answer(self, key: str) -> SearchAnswer | None:
        raw = self._shared.get(key) if self._shared is not None else None
        try:
            return SearchAnswer.model_validate(raw) if raw is not None else None
        except ValidationError:
            return None

    def _share(self, key: str, found: SearchAnswer) -> None:
        packed = found.model_dump(mode="json", exclude_defaults=True)
        if self._shared is not None and len(json.dumps(packed)) <= SHARED_BYTES:
            self._shared.set(key, packed, ANSWERS_TTL_S)

    def _count(self, found: SearchAnswer, took_s: float) -> None:
        self.metrics.seconds.observe(took_s)
        self.metrics.searches.labels("cached" if found.cached else "made").inc()
        if self._feed is not None:
            self._feed.search("service", cached=found.cached, seconds=took_s)
            self._feed.add(*(Count(FALLBACKS, (f"search: {what.partition(':')[0]}",)) for what in found.degraded))
        for what in found.degraded:
            self.metrics.degraded.labels(what.partition(":")[0]).inc()


def _light(request: SearchRequest, found: SearchAnswer) -> bool:
    """Whether an answer may be kept."""
    return len(found.hits) <= HITS_KEPT and (request.detail != "schema" or found.tokens <= TOKENS_KEPT)


def _key(view: View, request: SearchRequest, weights: Weights) -> str:
    """What an answer is kept by: everything that decides it."""
    asked_for = request.model_dump_json(exclude={"min_generation", "deadline_ms"})
    said = f"{view.state_for(request.filters.tenant)} {weights} {asked_for}"
    return f"search:{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()}"


# handlers


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _body(request: Request, kind: type[B]) -> B:
    return kind.model_validate_json(await body_of(request))


async def search(request: Request) -> Response:
    """The tools that fit some queries best."""
    found = await _service(request).search(await _body(request, SearchRequest))
    return _json(found)


async def embed(request: Request) -> Response:
    """The vectors of texts (C10)."""
    wanted = await _body(request, EmbedRequest)
    service = _service(request)
    rows: list[tuple[float, ...]] = []
    for start in range(0, len(wanted.texts), BATCH):
        async with service.embedding:
            found = await service.encoder.encode(wanted.texts[start : start + BATCH], deadline_s=EMBED_S, queries=False)
        if found.degraded is not None:
            raise BackendError(
                f"Not all texts could be embedded; {found.degraded}.", next="Try again, or look at the service's log."
            )
        rows += [tuple(v.tolist()) for v in found.vectors if v is not None]
    return _json(EmbedAnswer(model=service.encoder.name or "", dimensions=len(rows[0]), vectors=tuple(rows)))


async def feedback(request: Request) -> Response:
    """Takes down which tools were used for a query."""
    told = await _body(request, FeedbackRequest)
    service = _service(request)
    return _json(await service.in_thread(lambda: service.replica.tell(told)), status=201)


async def undo(request: Request) -> Response:
    """Takes back what was told."""
    service, id, tenant = _service(request), request.path_params["id"], _tenant(request)
    return _json(await service.in_thread(lambda: service.replica.untell(id, tenant=tenant)))


async def told(request: Request) -> Response:
    """What was told, newest first."""
    service, tenant = _service(request), _tenant(request)
    limit = request.query_params.get("limit", "100")
    most = min(int(limit), 1_000) if re.fullmatch("[0-9]{1,9}", limit) else 100
    return _json(await service.in_thread(lambda: service.replica.told(tenant=tenant, limit=most)))


async def status(request: Request) -> Response:
    """How this replica is; its hash and the store's."""
    service = _service(request)
    found = await service.in_thread(service.replica.status)
    encoder = service.encoder.name
    degraded = (*found.degraded, *((f"meaning: {service.encoder.absent}",) if service.encoder.absent else ()))
    return _json(
        found.model_copy(update={"encoder": encoder, "degraded": degraded, "memory_bytes": psutil.Process().memory_info().rss})
    )


async def health(request: Request) -> Response:
    """200 when searches are answered, though perhaps `degraded`."""
    replica = _service(request).replica
    if replica.view is None:
        return JSONResponse({"status": "starting"}, status_code=503)
    return JSONResponse({"status": "degraded" if replica.degraded() else "ok", "size": replica.view.index.size})


async def metrics(request: Request) -> Response:
    """The figures of this replica, in the text format of Prometheus."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def ping(_: Request) -> Response:
    """Does nothing, to be timed."""
    return PlainTextResponse("pong")


def _tenant(request: Request) -> str:
    tenant = request.query_params.get("tenant", "default")
    if TENANT.fullmatch(tenant) is None:
        raise RequestError(f"`{tenant[:64]}` is no tenant.", path="tenant", next="Lower-case letters, digits, `-` and `_`.")
    return tenant


def _json(found: BaseModel, *, status: int = 200) -> Response:
    return Response(found.model_dump_json(), status_code=status, media_type="application/json")


# problems


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ToolWeaverError), "this handler is installed for no other"
    return problem_response(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError), "this handler is installed for no other"
    problems = [_one(e["loc"], e["msg"]) for e in error.errors(include_input=False, include_url=False)[:20]]
    first = problems[0]
    invalid = RequestError(first["message"], path=first["path"], next="See `orchestrator.models.search`.", problems=problems)
    return problem_response(invalid, status=422, code="invalid_request")


def _one(loc: Sequence[str | int], message: str) -> dict[str, str]:
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).removeprefix(".")
    return {"path": path or "$", "message": message.removeprefix("Value error, ")}


async def _routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "this handler is installed for no other"
    where = f"{request.method} {request.url.path}"
    missing = NotFound(f"There is nothing at `{where}`.", next="POST /search, /embed, /feedback; GET /status, /health, /metrics.")
    return problem_response(missing, status=error.status_code)


async def _store_away(_: Request, error: Exception) -> Response:
    log.warning("the store does not answer: %s", error, extra={"action": "store_away"})
    return problem_response(BackendError("The store does not answer.", next="Try again in a moment."))


async def _bug(request: Request, error: Exception) -> Response:
    log.error("unexpected error", exc_info=error, extra={"action": "index_bug", "path": request.url.path})
    return problem_response(
        ToolWeaverError("The index service met an error that it did not expect.", next="See its log."), code="bug"
    )


ROUTES = [
    Route("/search", search, methods=["POST"]),
    Route("/embed", embed, methods=["POST"]),
    Route("/feedback", feedback, methods=["POST"]),
    Route("/feedback", told, methods=["GET"]),
    Route("/feedback/{id}", undo, methods=["DELETE"]),
    Route("/status", status),
    Route("/health", health),
    Route("/metrics", metrics),
    Route("/ping", ping),
]
PROBLEMS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ToolWeaverError: _problem, ValidationError: _invalid, HTTPException: _routing, redis.RedisError: _store_away, Exception: _bug,
}  # fmt: skip


def create_app(settings: Settings, build: Callable[[], Service]) -> Starlette:
    """The app of one replica; it begins to read the catalog when it starts."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = service = build()
        service.replica.start()
        service.encoder.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    return Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(Door, settings=settings)],
        exception_handlers=PROBLEMS,
    )


# the process


def listen(host: str, first: int) -> socket.socket:
    """A listening socket at the first free port from `first` on; at any free port for 0.

    Raises:
        BackendError: none of the next ones is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, min(first + PORTS_TRIED, 65536)) if first else (0,):
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns Nagle off only where it says so
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError:
            listener.close()
            continue
        return listener
    raise BackendError(
        f"cannot listen on {host}:{first} or the {PORTS_TRIED} ports behind", next="Set TOOLWEAVER_INDEX_PORT to a free one."
    )


def address_of(settings: Settings, listener: socket.socket) -> str:
    """Where clients reach what listens."""
    host, port = listener.getsockname()[:2]
    if settings.index_address:
        return settings.index_address.rstrip("/")
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, *, snapshot: Path | None = None) -> None:
    """Serves until a signal comes.

    Raises:
        RequestError: it would be open to others than this machine's users.
        BackendError: no port is free, or the snapshot cannot be read.
    """
    check_key(settings)
    sys.setswitchinterval(SWITCH_S)
    listener = listen(settings.index_host, settings.index_port)
    url = address_of(settings, listener)
    log.info("the index answers at %s", url, extra={"action": "index_start", "url": url})

    def build() -> Service:
        replica = Replica(settings, url=url, snapshot=snapshot, metrics=SearchMetrics())
        shared = DistributedCache.of(settings) if snapshot is None else None
        return Service(settings, replica, Encoder(replica.embedder, shared=shared), shared=shared)

    config = uvicorn.Config(
        create_app(settings, build), log_level=settings.log_level.lower(), access_log=False, server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S, lifespan="on", proxy_headers=False, timeout_keep_alive=75,
    )  # fmt: skip
    settle()
    uvicorn.Server(config).run(sockets=[listener])


def main(words: Sequence[str] | None = None) -> int:
    """Runs the process; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.tool_search.service", description=__doc__)
    parser.add_argument("--snapshot", type=Path, default=None, help="serve this folder, which nobody changes, without a store")
    options = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # before uvicorn listens to signals, and when it hands them on
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
        serve(settings, snapshot=options.snapshot)
    except ToolWeaverError as error:
        sys.stderr.write(f"toolweaver index: {error}\n")
        return next((code for kind, code in EXIT.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
