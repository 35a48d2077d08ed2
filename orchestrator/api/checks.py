"""The checks behind `/health`: each looks at a real thing, all at once, none longer than its deadline, none more often than needed.

A look is kept for some seconds, so that a load balancer that asks every second costs nobody anything; the vendor of a model is
asked every half minute at most, without a key, for nothing that it charges for. A look that has not come back is not begun again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import redis

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.store import JobStore
from orchestrator.models.request import HealthCheck
from orchestrator.models.search import IndexStatus
from orchestrator.policy.breaker import Breakers
from orchestrator.settings import Settings
from orchestrator.state.keys import HEALTH, cached
from orchestrator.tool_search.client import IndexClient, live_replicas

DEADLINE_S = 2.0
KEPT_S, VENDOR_KEPT_S = 3.0, 30.0
MARK_S = 60  # after which what a check wrote ends by itself
DECIDE = frozenset(("store", "database"))
"""The checks without which no job can be taken: one of them that fails makes 503. Any other makes `degraded`."""

VENDORS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1/models",
    "anthropic": "https://api.anthropic.com/v1/models",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models",
    "ollama": "http://localhost:11434/",
}
IN_PROCESS = ("transformers", "scripted")
_DOWN = (502, 503, 504)


@dataclass(slots=True)
class _Look:
    """The last look of one check: under way, or what it found and when."""

    found: HealthCheck | None = None
    at: float = float("-inf")
    running: Future[HealthCheck] | None = None


class HealthChecks:
    """The checks of one process of the API. `probe` is a client that gives up soon."""

    def __init__(self, settings: Settings, probe: redis.Redis, *, vendor_kept_s: float = VENDOR_KEPT_S) -> None:
        self._settings, self._redis = settings, probe
        self._store, self._catalog, self._breakers = JobStore(probe, settings), CatalogStore(probe), Breakers(probe, settings)
        self._http = httpx.Client(timeout=DEADLINE_S, follow_redirects=False)
        self._checks: dict[str, tuple[Callable[[], HealthCheck], float]] = {
            "store": (self.store, 0.0),
            "database": (self.database, 0.0),
            "cache": (self.cache, KEPT_S),
            "discovery": (self.discovery, KEPT_S),
            "workers": (self.workers, 0.0),
            "embedding_model": (self.embedding_model, KEPT_S),
            "llm_api": (self.llm_api, vendor_kept_s),
        }
        self._looks = {name: _Look() for name in self._checks}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2 * len(self._checks), thread_name_prefix="health")

    def close(self) -> None:
        """Ends its connections; a look that is under way is left to itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def all(self) -> dict[str, HealthCheck]:
        """What each check finds, within the deadline of one."""
        until = time.monotonic() + DEADLINE_S
        with self._lock:
            begun = {name: self._begin(name) for name in self._checks}
        return {name: self._end(name, running, until) for name, running in begun.items()}

    def _begin(self, name: str) -> Future[HealthCheck] | None:
        look, (check, kept_s) = self._looks[name], self._checks[name]
        if look.running is None and time.monotonic() - look.at >= kept_s:
            look.running = self._pool.submit(self._look, look, check)
        return look.running

    def _look(self, look: _Look, check: Callable[[], HealthCheck]) -> HealthCheck:
        found = _safe(check)
        with self._lock:
            look.found, look.at, look.running = found, time.monotonic(), None
        return found

    def _end(self, name: str, running: Future[HealthCheck] | None, until: float) -> HealthCheck:
        look = self._looks[name]
        if running is not None:
            try:
                return running.result(max(0.0, until - time.monotonic()))
            except LateError:
                return HealthCheck(ok=False, detail=f"no answer within {DEADLINE_S:g} s")
        assert look.found is not None, "what is not looked at was found before"
        return look.found

    # Each check: what is really asked.

    def store(self) -> HealthCheck:
        """Redis answers a PING."""
        self._redis.ping()
        return HealthCheck(ok=True, detail="answers")

    def database(self) -> HealthCheck:
        """Redis takes a write: a full disk or memory, or a replica that was not promoted, refuse it."""
        self._redis.set(HEALTH, "1", ex=MARK_S)
        return HealthCheck(ok=True, detail="takes writes; jobs, results and the catalog are in the store")

    def cache(self) -> HealthCheck:
        """What is written beneath the keys of the cache is read again."""
        mark = secrets.token_hex(8)
        key = cached("health:" + mark)
        self._redis.set(key, mark, ex=MARK_S)
        same = self._redis.getdel(key) == mark.encode()
        return HealthCheck(ok=same, detail="gives back what is written; it is in the store" if same else "lost what was written")

    def discovery(self) -> HealthCheck:
        """The catalog can be read and has tools; which servers of tools are down is told, and no failure."""
        tools = len(self._catalog.all(bundled_catalog()).tools)
        servers = self._catalog.server_states().values()
        down = sorted(s.name for s in servers if s.state == "down")
        told = f"{tools} tools" + (f"; {len(servers) - len(down)} of {len(servers)} servers of tools answer" if servers else "")
        return HealthCheck(ok=tools > 0, detail=told + (f", down: {', '.join(down)}" if down else ""))

    def workers(self) -> HealthCheck:
        """Pools show signs of life."""
        pools = Counter(w.pool for w in self._store.workers())
        detail = ", ".join(f"{pool} {count}" for pool, count in sorted(pools.items())) or "no worker; jobs wait until one comes"
        return HealthCheck(ok=bool(pools), detail=detail)

    def embedding_model(self) -> HealthCheck:
        """A replica of the index service answers, and has its encoder."""
        urls = self._settings.index_urls or live_replicas(self._redis)
        if not urls:
            return _not_configured("no index service runs; searches are made in the process that asks. `toolweaver up` starts one.")
        with IndexClient(urls, key=self._settings.index_key, timeout=DEADLINE_S - 0.3) as client:
            found = client.statuses()
        status = max((s for s in found.values() if isinstance(s, IndexStatus)), key=lambda s: s.encoder is not None, default=None)
        if status is None:
            return HealthCheck(ok=False, detail="; ".join(f"{url}: {why}" for url, why in found.items()))
        absent = next((d for d in status.degraded if d.startswith("meaning")), None)
        if status.encoder is None or absent:
            return HealthCheck(ok=False, detail=f"searches go by words alone: {absent or 'the encoder is not loaded'}")
        return HealthCheck(ok=True, detail=f"{status.encoder}; {status.size} tools, {status.backlog} not embedded yet")

    def llm_api(self) -> HealthCheck:
        """The servers of the models answer HTTP, whatever they say, and no breaker stands open. No key and no request is sent."""
        models = model_addresses(self._settings)
        if not models:
            return _not_configured("requests are planned by templates; TOOLWEAVER_PLANNER_PROVIDER names a provider.")
        found = [self._model(name, url) for name, url in models.items()]
        return HealthCheck(ok=all(f.ok for f in found), detail="; ".join(f.detail for f in found))

    def _model(self, name: str, url: str | None) -> HealthCheck:
        if url is None:
            return HealthCheck(ok=True, detail=f"{name}: in this platform's own processes")
        if not url:
            return HealthCheck(ok=False, detail=f"{name}: its address is not set")
        if self._breakers.state(f"model:{name}") == "OPEN":
            return HealthCheck(
                ok=False, detail=f"{name}: failed {self._breakers.failures(f'model:{name}')} times; left alone for now"
            )
        where = urlsplit(url).hostname
        try:
            with self._http.stream("GET", url) as answer:
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return HealthCheck(ok=False, detail=f"{name}: {where} does not answer ({type(error).__name__})")
        if status in _DOWN:
            return HealthCheck(ok=False, detail=f"{name}: {where} answers {status}")
        return HealthCheck(ok=True, detail=f"{name}: {where} answers")


def model_addresses(settings: Settings) -> dict[str, str | None]:
    """Where the models are that the settings name, by provider; None: in a process of ours, "": not set."""
    found: dict[str, str | None] = {}
    provider = settings.planner_provider
    if provider in IN_PROCESS:
        found[provider] = None
    elif provider is not None:
        own = {"azure-openai": settings.azure_openai_endpoint, "azure-foundry": settings.azure_foundry_endpoint}
        found[provider] = settings.planner_url or own.get(provider) or VENDORS.get(provider, "")
    if settings.use_small_model:
        usual = {"ollama": VENDORS["ollama"], "azure": settings.azure_foundry_endpoint, "transformers": None}
        found["small model"] = settings.small_model_url or usual.get(settings.small_model_backend, "")
    return found


def _not_configured(why: str) -> HealthCheck:
    return HealthCheck(ok=True, configured=False, detail=f"not configured: {why}")


def _safe(check: Callable[[], HealthCheck]) -> HealthCheck:
    try:
        return check()
    except Exception as error:  # a check that cannot be made is one that fails, and no error of `/health`
        return HealthCheck(ok=False, detail=f"{type(error).__name__}: {error}")
