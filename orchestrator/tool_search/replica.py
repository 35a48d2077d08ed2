"""What one replica knows, and the thread that keeps it fresh: the catalog's changes, vectors as they come, new bases.

Readers take `view`, one reference to things that never change; only the thread replaces it. What takes long is done by the process
beside (`background`), and what it made is taken over between two looks at the store.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore, generation_of
from orchestrator.errors import BackendError, NotFound, ToolWeaverError
from orchestrator.models.search import FeedbackEntry, FeedbackPage, FeedbackRequest, Filters, IndexStatus
from orchestrator.monitoring.search import SearchMetrics
from orchestrator.providers.embedder import Embedder
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import INDEX_REPLICAS
from orchestrator.tool_search import background, merge
from orchestrator.tool_search.background import Background, model_of
from orchestrator.tool_search.document import RECIPE
from orchestrator.tool_search.feedback import Learned, Lessons, Use
from orchestrator.tool_search.feedback_fit import OfIndex, fitted
from orchestrator.tool_search.feedback_store import FeedbackStore, Log
from orchestrator.tool_search.follow import Follower, Known
from orchestrator.tool_search.index import Index
from orchestrator.tool_search.shelf import Shelf

log = logging.getLogger(__name__)

LOOK_S = 0.15  # between two looks at the store
LEASE_S, RENEW_S = 5.0, 1.0  # of the address that clients find
FEW = 3_000  # tools that are read into memory at once; more are made a snapshot by the process beside
DELTA_LEAST, DELTA_SHARE, DEAD_SHARE = 500, 0.02, 0.05  # a base is made anew beyond this
QUIET_S = 2.0  # a catalog without a snapshot gets its first one after so long without a change
AUDIT_S = 15.0  # between two comparisons of the hash with the store's
TEXTS_LEAST, TEXTS_MOST = 32, 4_096  # that the process beside embeds at once
QUICK_S, SLOW_S = 0.5, 2.0
AGAIN_S = 30.0  # before what failed in the process beside is tried again
NOBODY = ""  # no tenant has this name
QUERIES_AT_ONCE = 256  # of what was told, that the process beside embeds
RECENT = 8  # requests that a new base is warmed up with
NAMED = 256  # names and patterns that such a request may have


class Starting(BackendError):
    """This replica has not read the catalog yet."""

    code = "index_starting"


@dataclass(frozen=True, slots=True)
class View:
    """What a search sees: replaced as one."""

    index: Index
    known: Known
    catalog_hash: str
    lessons: Lessons | None = None
    feedback: int = 0
    untaught: int = 0  # queries of the lessons that have no vector yet
    fitted: Mapping[str | None, str] = field(default_factory=dict)  # for which catalog the lessons of a tenant were fitted

    @property
    def generation(self) -> int:
        return self.known.generation

    def learned_by(self, tenant: str | None) -> Learned | None:
        """What a tenant's searches have learned."""
        return self.lessons.seen_by(tenant) if self.lessons is not None else None

    def state_for(self, tenant: str | None) -> str:
        """All of it that decides an answer, in a few words: what answers are kept by."""
        fitted = self.fitted.get(_owner(self.lessons, tenant), "") if self.lessons is not None else ""
        tools = f"{RECIPE} {self.catalog_hash} {self.index.catalog_hash} {self.generation} {self.index.backlog} {self.known.model}"
        return f"{tools} {self.feedback} {self.untaught} {fitted}"


@dataclass(frozen=True, slots=True)
class Job:
    """Something that the process beside does, and what is done with what it gives."""

    future: Future[Any]
    take: Callable[[Any], None]


class Replica:
    """One replica. With a `snapshot` it serves that folder and asks no store for anything.

    Raises:
        SnapshotCorrupt: that folder is not what was written.
    """

    def __init__(
        self, settings: Settings, *, url: str = "", snapshot: Path | None = None, metrics: SearchMetrics | None = None
    ) -> None:
        self.id = secrets.token_hex(4)
        self.view: View | None = None
        self.metrics = metrics or SearchMetrics()
        self.counts: Counter[str] = Counter()
        self._settings, self._url, self._fixed = settings, url, snapshot
        self._redis: Any = connect(settings, retries=0, timeout_s=2.0)
        self._store = CatalogStore(self._redis)
        self._follower = Follower(self._store, bundled_catalog().tools)
        self._folder = settings.home / "index"
        self._shelf = Shelf(self._folder, open=lambda f: merge.open_index(f, full=True), refused=lambda _: self._note("refused"))
        self._feedback = FeedbackStore(self._redis)
        self._told, self._told_to = Log(), ""
        self._queries: dict[str, NDArray[np.float32]] = {}  # vectors of what was told
        self._background = Background()
        self._teacher = ThreadPoolExecutor(1, thread_name_prefix="teacher")
        self._jobs: dict[str, Job] = {}
        self._later: dict[str, float] = {}  # what failed is tried again then
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self._announcer = threading.Thread(target=self._announce, name="announcer", daemon=True)
        self._model: Embedder | None = None
        self._away = False
        self._leased = False
        self._changed = self._taught = self._audited = 0.0
        self._texts = TEXTS_LEAST
        self._based: Path | None = None
        self._began = time.monotonic()
        self._recent: deque[Filters] = deque(maxlen=RECENT)
        if snapshot is not None:
            index = merge.open_index(snapshot, full=True)
            self.view = View(index, Known(b"fixed:%d:0" % index.generation), index.catalog_hash)

    def start(self) -> None:
        """Begins to follow the catalog."""
        if self._fixed is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._thread.start()
            self._announcer.start()

    def stop(self) -> None:
        """Ends, and takes its address back; nothing waits for it."""
        self._ended.set()
        self._wake.set()
        for thread in (self._thread, self._announcer):
            if thread.is_alive():
                thread.join(2.0)
        self._background.stop()
        self._teacher.shutdown(wait=False, cancel_futures=True)
        if self._fixed is None and self._url:
            with suppress(redis.RedisError):
                self._redis.zrem(INDEX_REPLICAS, self._url)

    def look_now(self) -> None:
        """Does not wait for the next look at the store."""
        self._wake.set()

    def embedder(self) -> Embedder:
        """The model for queries: the one that the tools' vectors are of."""
        self._model = model_of(self._settings)
        return self._model

    def degraded(self) -> tuple[str, ...]:
        """What answers must do without now."""
        return ("catalog: the store is away",) if self._away else ()

    def asked(self, filters: Filters) -> None:
        """Remembers what searches are filtered by: the next view is ready for it. Long lists would hold the changes up."""
        named = len(filters.names or ()) + len(filters.forbidden) + sum(map(len, filters.allowed))
        if named <= NAMED and filters not in self._recent:
            self._recent.append(filters)

    def status(self) -> IndexStatus:
        """How it is, beside what the store says."""
        view = self.view
        if view is None:
            raise Starting(next="Try again in a moment, or ask another replica.")
        generation, store_hash = self._of_store()
        index = view.index
        return IndexStatus(
            replica=self.id, url=self._url, generation=view.generation, catalog_hash=view.catalog_hash, size=index.size,
            store_generation=generation, store_hash=store_hash, backlog=index.backlog, delta=len(index.delta),
            tombstones=index.tombstones, feedback=view.feedback, snapshot=str(self._based or self._fixed or "") or None,
            degraded=self.degraded(), counts=dict(self.counts), uptime_s=round(time.monotonic() - self._began, 3),
        )  # fmt: skip

    def _of_store(self) -> tuple[int | None, str | None]:
        """The store's generation and hash, of one moment; None where it does not answer."""
        if self._fixed is not None:
            return None, None
        try:
            for _ in range(5):
                before = self._store.version()
                found = self._store.catalog_hash()
                if self._store.version() == before:
                    return generation_of(before)[1], found
        except redis.RedisError:
            return None, None
        return None, None

    # the thread

    def _run(self) -> None:
        while not self._ended.is_set():
            self._turn(self._with_store)
            self._turn(self._beside)
            self._wake.wait(LOOK_S)
            self._wake.clear()

    def _turn(self, what: Callable[[], None]) -> None:
        try:
            what()
        except redis.RedisError as error:
            self._store_away(error)
        except Exception:
            self._note("errors")
            log.exception("a turn of the index failed; it goes on", extra={"action": "index_error"})
            self._ended.wait(1.0)

    def _with_store(self) -> None:
        """Everything that asks the store."""
        if self.view is None:
            self._begin()
        elif not self._follower.fresh(self.view.known):
            self._follow(self.view)
        self._hear()
        if self._away:
            self._away = False
            log.info("the store is back", extra={"action": "store_back"})
        self._audit()

    def _store_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning("the store is away; searches go on with what is known: %s", error, extra={"action": "store_away"})
        if self.view is None and (found := self._shelf.newest()) is not None:
            self._take(found[1], found[2], based=found[0])

    def _begin(self) -> None:
        """The newest snapshot of the catalog that the store has, and what changed since; without one, everything."""
        if "build" in self._jobs or not self._due("build"):
            return
        version = self._store.version()
        found = self._shelf.newest(generation_of(version)[0])
        if found is not None:
            folder, index, known = found
            followed = self._follower.follow(index, known)
            if followed is not None:
                log.info("the snapshot `%s` is taken up", folder, extra={"action": "snapshot_opened"})
                self._take(*followed, based=folder)
                return
        self._reload("no snapshot of this catalog is usable")

    def _follow(self, view: View) -> None:
        followed = self._follower.follow(view.index, view.known)
        if followed is None:
            self._reload("the store begins anew, or forgot what changed since")
            return
        self._changed = time.monotonic()
        self._note("changes")
        self._take(*followed)

    def _reload(self, why: str) -> None:
        """Reads everything: in this process when it is little, else in the one beside, while the former view goes on."""
        if "build" in self._jobs or not self._due("build"):
            return
        version, documents, known = self._follower.begin()
        first = list(islice(documents, FEW + 1))
        log.info("the whole catalog is read: %s", why, extra={"action": "index_reload"})
        self._note("reloads")
        if len(first) > FEW:
            home = self._shelf.home_of(generation_of(version)[0])
            self._submit("build", self._background.submit(background.build, self._settings, self._folder, home), self._built)
            return
        index = Index.of(first, generation=generation_of(version)[1])
        self._changed = time.monotonic()
        self._take(index, known(), based=None, anew=True)

    def _built(self, made: tuple[Path, Known]) -> None:
        folder, known = made
        index = merge.open_index(folder)
        self._shelf.note(folder, known.hash_of(index), known)
        self._adopt(folder)
        self._shelf.sweep(known.epoch)

    def _announce(self) -> None:
        """Renews the lease of the address, also while many changes are taken over or a large base is opened."""
        while not self._ended.wait(RENEW_S if self._leased else LOOK_S):
            try:
                self._renew()
            except redis.RedisError:  # the other thread says it
                continue
            except Exception:
                log.exception("the address could not be announced; it is tried again", extra={"action": "index_error"})

    def _renew(self) -> None:
        """Says where this replica answers, for a few seconds."""
        if not self._url or self.view is None:
            return
        seconds, micros = self._redis.time()
        pipe = self._redis.pipeline()
        pipe.zadd(INDEX_REPLICAS, {self._url: seconds + micros / 1e6 + LEASE_S})
        pipe.zremrangebyscore(INDEX_REPLICAS, "-inf", seconds - 60)
        pipe.execute()
        self._leased = True

    def _audit(self) -> None:
        """Compares the hash with the store's, once things are quiet; another one means that something was missed."""
        view, now = self.view, time.monotonic()
        if view is None or now - self._changed < QUIET_S or now - self._audited < AUDIT_S:
            return
        self._audited = now
        generation, store_hash = self._of_store()
        if generation == view.generation and store_hash is not None and store_hash != view.catalog_hash:
            log.error(
                "the catalog's hash is %s, the store's %s at change %d", view.catalog_hash[:16], store_hash[:16], view.generation,
                extra={"action": "hash_mismatch"},
            )  # fmt: skip
            self._note("mismatches")
            self._reload("the hash is not the store's")

    # what confirmed use teaches

    def tell(self, told: FeedbackRequest) -> FeedbackEntry:
        """Takes down which tools were used for a query.

        Raises:
            RequestError: it is not what can be learned from.
            redis.RedisError: the store does not answer.
        """
        use = self._feedback.tell(told.query, told.used, told.ok, told.tenant, id=told.id)
        self._wake.set()
        return _entry(use)

    def untell(self, id: str, *, tenant: str) -> FeedbackEntry:
        """Takes back what was told; gives what it was.

        Raises:
            NotFound: the tenant told nothing of that id.
            redis.RedisError: the store does not answer.
        """
        use = next((u for u in self._feedback.uses(tenant) if u.id == id), None)
        if use is None or not self._feedback.undo(id, tenant=tenant):
            raise NotFound(
                f"There is no feedback `{id[:64]}`.",
                path="id",
                next="List what was told: `toolweaver search feedback`, or GET /feedback.",
            )
        self._wake.set()
        return _entry(use)

    def told(self, *, tenant: str, limit: int) -> FeedbackPage:
        """What a tenant told, newest first.

        Raises:
            redis.RedisError: the store does not answer.
        """
        uses = self._feedback.uses(tenant)
        return FeedbackPage(entries=tuple(_entry(u) for u in uses[::-1][:limit]), total=len(uses))

    def _hear(self) -> None:
        """Reads what was told since, and learns it; before there are tools, nothing is read: it would not be learned then."""
        if self.view is None:
            return
        news = self._feedback.read(self._told_to)
        fresh = news.after != self._told_to
        self._told_to = news.after
        if self._told.take(news) or fresh:
            self._learn(news.number)

    def _learn(self, number: int) -> None:
        view = self.view
        if view is None:
            return
        queries = {u.query for u in self._told.uses}
        self._queries = {q: v for q, v in self._queries.items() if q in queries}
        lessons = Lessons.of(self._told.uses, self._queries) if queries else None
        if lessons is not None:
            for filters in tuple(self._recent):
                lessons.seen_by(filters.tenant)  # made here, so that no search has to
        self._taught = time.monotonic()
        untaught = len(queries - self._queries.keys())
        self._put(replace(view, lessons=lessons, feedback=number, untaught=untaught, fitted={}))

    def _fit(self, view: View) -> None:
        """Weighs what was told for tenants that ask, once things are quiet: by what it is worth in this catalog."""
        lessons, now = view.lessons, time.monotonic()
        if lessons is None or "fit" in self._jobs or not self._due("fit"):
            return
        if view.untaught or view.index.backlog or now - max(self._changed, self._taught) < QUIET_S:
            return
        owners = dict.fromkeys(_owner(lessons, f.tenant) for f in self._recent)
        owner = next((o for o in owners if o in lessons.tenants and view.fitted.get(o) != view.catalog_hash), NOBODY)
        learned = lessons.seen_by(owner) if owner != NOBODY else None
        if learned is None:
            return

        def take(better: Learned) -> None:
            if self.view is not None and self.view.lessons is lessons:
                lessons.keep(owner, better)
                self._put(replace(self.view, fitted={**self.view.fitted, owner: view.catalog_hash}))

        self._submit("fit", self._teacher.submit(fitted, learned, OfIndex(view.index)), take)

    def _embed_queries(self, view: View) -> None:
        if not view.untaught or "queries" in self._jobs or not self._due("queries"):
            return
        wanted = list(dict.fromkeys(u.query for u in self._told.uses if u.query not in self._queries))[:QUERIES_AT_ONCE]

        def take(made: tuple[str, NDArray[np.float16]]) -> None:
            self._queries |= {q: v.astype(np.float32) for q, v in zip(wanted, made[1], strict=True)}
            self._learn(view.feedback if self.view is None else self.view.feedback)

        self._submit("queries", self._background.submit(background.embed, self._settings, self._folder, wanted), take)

    # what goes on beside

    def _beside(self) -> None:
        """Takes over what the process beside has made, and gives it what is to be done."""
        for name in [n for n, job in self._jobs.items() if job.future.done()]:
            job = self._jobs.pop(name)
            try:
                job.take(job.future.result())
            except redis.RedisError:
                raise
            except Exception as error:  # also a process that was killed
                self._failed(name, error)
        if self.view is not None:
            self._embed_queries(self.view)
            self._fit(self.view)
            self._embed(self.view.index)
            self._merge(self.view)

    def _embed(self, index: Index) -> None:
        if "embed" in self._jobs or not index.backlog or not self._due("embed"):
            return
        missing = index.missing_vectors(self._texts)
        began = time.monotonic()

        def take(made: tuple[str, NDArray[np.float16]]) -> None:
            self._texts = _paced(self._texts, time.monotonic() - began)
            self._with_vectors(made[0], {d: v.astype(np.float32) for (d, _), v in zip(missing, made[1], strict=True)})

        texts = [text for _, text in missing]
        self._submit("embed", self._background.submit(background.embed, self._settings, self._folder, texts), take)

    def _with_vectors(self, model: str, found: dict[str, NDArray[np.float32]]) -> None:
        view = self.view
        if view is None:
            return
        if view.known.model not in ("", model):
            self._shelf.drop(view.known.epoch)
            self._reload(f"its vectors are of `{view.known.model}`, this is `{model}`")
        elif view.known.model:
            self._put(replace(view, index=view.index.with_vectors(found)))
        else:
            self._put(replace(view, index=view.index.with_vectors(found), known=replace(view.known, model=model)))

    def _merge(self, view: View) -> None:
        if self._jobs.keys() & {"merge", "build"} or not self._due("merge") or not self._worth_merging(view):
            return
        home = self._shelf.home_of(view.known.epoch)
        lock = ExitStack()
        try:
            if not lock.enter_context(self._shelf.merging(view.known.epoch)):
                lock.close()
                self._later["merge"] = time.monotonic() + QUIET_S
                return  # another replica of this home is at it
            base, changed = merge.order(view.index, home, model=view.known.model)
        except (BackendError, OSError) as error:  # such as a disk that is full: changes are followed all the same
            lock.close()
            self._failed("merge", error)
            return

        def take(folder: Path) -> None:
            self._shelf.note(folder, view.catalog_hash, view.known)
            now = self.view
            if now is not None and now.index.base is view.index.base:  # else everything was read anew meanwhile
                self._based = folder
                self._put(replace(now, index=now.index.rebased(view.index, merge.open_index(folder))))
                self._note("merges")
            self._shelf.sweep(view.known.epoch)

        future = self._background.submit(background.merged, base, changed, home)
        future.add_done_callback(lambda _: lock.close())
        self._submit("merge", future, take)

    def _worth_merging(self, view: View) -> bool:
        index, quiet = view.index, time.monotonic() - self._changed > QUIET_S
        if self._based is None:
            return quiet and index.size > 0 and not index.backlog
        changed = len(index.delta) + len(index.late.rows)
        return changed > max(DELTA_LEAST, DELTA_SHARE * index.size) or index.tombstones > max(DELTA_LEAST, DEAD_SHARE * index.size)

    def _adopt(self, folder: Path) -> None:
        """A new base, brought up to date, in the place of the view."""
        read = self._shelf.read(folder)
        followed = self._follower.follow(*read) if read is not None else None
        if followed is None:
            return
        index, known = followed
        model = self._model
        if model is not None and model.name == known.model:
            index = index.with_vectors(
                background.kept_vectors(self._folder, model, [t for _, t in index.missing_vectors(TEXTS_MOST)])
            )
        self._take(index, known, based=folder)

    # helpers

    def _take(self, index: Index, known: Known, *, based: Path | None = None, anew: bool = False) -> None:
        former = self.view
        if based is not None or anew:
            self._based = based
        made = View(index, known, known.hash_of(index))
        if former is not None:
            made = replace(former, index=index, known=known, catalog_hash=made.catalog_hash)
        self._put(made)

    def _put(self, view: View) -> None:
        for filters in tuple(self._recent):  # what the first search would have to make
            view.index.totals(filters)
        self.view = view
        self._note("swaps")
        self.metrics.generation.set(view.generation)
        self.metrics.size.set(view.index.size)
        self.metrics.backlog.set(view.index.backlog)

    def _submit(self, name: str, future: Future[Any], take: Callable[[Any], None]) -> None:
        self._jobs[name] = Job(future, take)
        future.add_done_callback(lambda _: self._wake.set())

    def _due(self, name: str) -> bool:
        return time.monotonic() >= self._later.get(name, 0.0)

    def _failed(self, name: str, error: Exception) -> None:
        self._later[name] = time.monotonic() + AGAIN_S
        self._note(f"{name}_failed")
        log.warning("%s failed and is tried again: %s", name, _said(error), extra={"action": f"{name}_failed"})

    def _note(self, event: str) -> None:
        self.counts[event] += 1
        self.metrics.events.labels(event).inc()


def _owner(lessons: Lessons, tenant: str | None) -> str | None:
    """Whose lessons a tenant's searches go by: its own, or else the shared ones."""
    return tenant if tenant in lessons.tenants else None


def _entry(use: Use) -> FeedbackEntry:
    return FeedbackEntry(id=use.id, at=use.ts, query=use.query, used=use.used, ok=use.ok, tenant=use.tenant or "default")


def _paced(texts: int, took_s: float) -> int:
    """How many texts at once come next: many while they are quick, since they are known already."""
    if took_s < QUICK_S:
        return min(TEXTS_MOST, 2 * texts)
    return max(TEXTS_LEAST, texts // 2) if took_s > SLOW_S else texts


def _said(error: Exception) -> str:
    return error.message if isinstance(error, ToolWeaverError) else str(error) or type(error).__name__
