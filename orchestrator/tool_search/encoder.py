"""The encoder of queries: a thread beside the search, which batches what comes at once and is waited for no longer than a deadline.

Absent or late, it fails nothing: whoever asked gets no vector and is told why, and searches by words alone. What it finds after
the deadline is kept, so that the next equal query has it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ToolWeaverError
from orchestrator.providers.embedder import Embedder
from orchestrator.tool_search.cache import LRU, DistributedCache, digest_of

Vector = NDArray[np.float32]
log = logging.getLogger(__name__)

BATCH = 16
CHARACTERS = 600  # of a batch, some 150 tokens: what the model takes at once, so that the first is not kept waiting for the last
RECENT = 0.2  # of the latest batch, in the mean of what a text takes
HOPE = 0.5  # of a deadline: with more than that before it, a text is not taken in; who waits in vain waits longest
WAITING = 64  # texts: of more, none is taken in, so that those that wait are served while somebody waits
JOIN_S = 2.0
KEPT = 10_000  # vectors of queries in this process: 15 MB, whatever the length of their texts
TTL_S = 3_600  # in the store, where a query takes a kilobyte of what jobs need too
AGAIN_S = 30.0  # an encoder that could not be loaded is tried again after so long
LATE, ABSENT = "meaning: the encoder was late", "meaning: the encoder is absent"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of queries in their order, None for each that there is none of; `degraded` says why, where one is missing."""

    vectors: tuple[Vector | None, ...]
    degraded: str | None = None


@dataclass(slots=True)
class _Wanted:
    text: str
    future: asyncio.Future[Vector]
    loop: asyncio.AbstractEventLoop
    until: float  # monotonic; nobody waits after it
    query: bool


class Encoder:
    """Vectors of queries, for the coroutines of one process. `load` makes the model, in the thread, when the first text comes."""

    def __init__(self, load: Callable[[], Embedder], *, shared: DistributedCache | None = None) -> None:
        self._load, self._shared = load, shared
        self._model: Embedder | None = None
        self._failed: tuple[str, float] | None = None
        self._kept: LRU[Vector] = LRU(KEPT)
        self._wanted: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._started, self._ended = False, False
        self._unshared: Set[str] = frozenset()  # queries that the store does not have yet
        self._serving, self._each_s = 0, 0.0  # texts that are embedded now; what one took lately

    @property
    def name(self) -> str | None:
        """The model; None: it is not loaded."""
        return self._model.name if self._model is not None else None

    @property
    def absent(self) -> str | None:
        """Why there is no model; None: there is one, or nobody has asked yet."""
        return self._failed[0] if self._failed else None

    def start(self) -> None:
        """Loads the model now, rather than for the first query."""
        self._begin()

    def stop(self) -> None:
        """Ends the thread, once it has done what it is at: the model's own threads do not bear an end in the midst of it."""
        self._ended = True
        self._wanted.put(None)
        if self._started:
            self._thread.join(JOIN_S)

    def knows(self, texts: Iterable[str]) -> bool:
        """Whether this process keeps the vectors of all of them."""
        return all(self._kept.get(_key(t)) is not None for t in texts)

    async def encode(self, texts: Sequence[str], *, deadline_s: float, queries: bool = True) -> Encoded:
        """The vectors of texts, as far as they are there within the deadline; of `queries` they are kept."""
        known = {t: v for t in texts if (v := self._kept.get(_key(t))) is not None}
        missing = [t for t in dict.fromkeys(texts) if t not in known]
        if not missing:
            return Encoded(tuple(known[t] for t in texts))
        if self._out():
            return Encoded(tuple(known.get(t) for t in texts), f"{ABSENT} ({self.absent})")
        if deadline_s <= 0 or self._wanted.qsize() > WAITING or self._ahead_s() > HOPE * deadline_s:
            return Encoded(tuple(known.get(t) for t in texts), LATE)
        futures = {t: self._ask(t, deadline_s, query=queries) for t in missing}
        done, late = await asyncio.wait(futures.values(), timeout=deadline_s)
        failed = [f for f in done if f.cancelled() or f.exception() is not None]
        known |= {t: f.result() for t, f in futures.items() if f in done and f not in failed}
        why = f"{ABSENT} ({self.absent or 'it failed'})" if failed else LATE if late else None
        return Encoded(tuple(known.get(t) for t in texts), why)

    def _ahead_s(self) -> float:
        """What those take that came before. As many are served with a short queue as with a long one."""
        return (self._wanted.qsize() + self._serving) * self._each_s

    def _out(self) -> bool:
        return self._failed is not None and time.monotonic() < self._failed[1]

    def _ask(self, text: str, deadline_s: float, *, query: bool) -> asyncio.Future[Vector]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Vector] = loop.create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody may be waiting any more
        self._wanted.put(_Wanted(text, future, loop, time.monotonic() + deadline_s, query))
        self._begin()
        return future

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._thread.start()

    def _run(self) -> None:
        self._ready()
        while not self._ended and (first := self._wanted.get()) is not None:
            batch = self._worth_it(_and_what_waits(first, self._wanted))
            began, self._serving = time.monotonic(), len(batch)
            self._serve(batch)
            self._noted(time.monotonic() - began)

    def _noted(self, took_s: float) -> None:
        if self._serving:
            self._each_s += RECENT * (took_s / self._serving - self._each_s)
        self._serving = 0

    def _worth_it(self, batch: list[_Wanted]) -> list[_Wanted]:
        """Those that somebody still waits for; when nobody does, all: an equal query may come."""
        now = time.monotonic()
        awaited = [w for w in batch if w.until > now]
        return awaited if awaited or not self._wanted.empty() else batch

    def _ready(self) -> Embedder | None:
        if self._model is None and not self._out():
            try:
                self._model, self._failed = self._load(), None
            except Exception as error:  # whatever a model's packages raise, searches go on without it
                why = error.message if isinstance(error, ToolWeaverError) else str(error) or type(error).__name__
                self._failed = (why, time.monotonic() + AGAIN_S)
                log.warning("no encoder, searches go by words alone: %s", why, extra={"action": "encoder_absent"})
        return self._model

    def _serve(self, batch: Sequence[_Wanted]) -> None:
        model = self._ready()
        found: dict[str, Vector] = {}
        why = self.absent or "no model"
        if model is not None:
            try:
                found = self._vectors(model, list(dict.fromkeys(w.text for w in batch)), {w.text for w in batch if w.query})
            except Exception as error:
                log.exception("the encoder failed", extra={"action": "encoder_failed"})
                why = f"it failed: {error}"
        for wanted in batch:
            _tell(wanted, found.get(wanted.text), why)
        if model is not None:  # now that nobody waits for it
            self._share(model, found)

    def _vectors(self, model: Embedder, texts: list[str], queries: set[str]) -> dict[str, Vector]:
        shared = self._shared.get_many([_shared_key(model, t) for t in texts]) if self._shared else [None] * len(texts)
        found = {t: v for t, v in zip(texts, shared, strict=True) if isinstance(v, np.ndarray) and v.shape == (model.dimensions,)}
        if missing := [t for t in texts if t not in found]:
            made = zip(missing, model.embed(missing), strict=True)
            found |= {t: v.astype(np.float16).astype(np.float32) for t, v in made}  # as others will read it
            self._unshared = queries.intersection(missing)
        for text in found.keys() & queries:
            self._kept.set(_key(text), found[text])
        return found

    def _share(self, model: Embedder, found: Mapping[str, Vector]) -> None:
        fresh, self._unshared = self._unshared, frozenset()
        for text in fresh:
            if self._shared:
                self._shared.set(_shared_key(model, text), found[text], TTL_S)


def _shared_key(model: Embedder, text: str) -> str:
    return f"query:{digest_of(model.name, text)}"


def _key(text: str) -> str:
    return digest_of("", text)


def _and_what_waits(first: _Wanted, wanted: queue.SimpleQueue[_Wanted | None]) -> list[_Wanted]:
    """A batch of what is asked for now, as far as it is worth taking together."""
    batch = [first]
    while len(batch) < BATCH and sum(len(w.text) for w in batch) < CHARACTERS:
        try:
            more = wanted.get_nowait()
        except queue.Empty:
            break
        if more is None:  # the end: it comes after this batch
            wanted.put(None)
            break
        batch.append(more)
    return batch


def _tell(wanted: _Wanted, vector: Vector | None, why: str) -> None:
    def settle() -> None:
        if wanted.future.done():
            return
        if vector is not None:
            wanted.future.set_result(vector)
        else:
            wanted.future.set_exception(RuntimeError(why))

    try:
        wanted.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # its loop has ended
        return
