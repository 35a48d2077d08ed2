"""The process beside a replica that does what takes long, at a low priority: vectors of tools, and new bases.

It is started by spawn, so that it inherits no thread and no lock, and it ends when its replica does, whatever ends that.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore, generation_of
from orchestrator.errors import ModelError
from orchestrator.providers.embedder import Embedder
from orchestrator.providers.remote import RemoteEmbedder
from orchestrator.providers.warm import embedder
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.tool_search import merge
from orchestrator.tool_search.cache import digest_of
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import Document
from orchestrator.tool_search.embedding import embedded, vector_file
from orchestrator.tool_search.follow import Follower, Known
from orchestrator.tool_search.index import DIMENSIONS
from orchestrator.tool_search.snapshot import discard

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

NICE = 5  # searches go first; vectors are made at less yet, see `_Patient`
PART = 16  # texts that are embedded between two looks at how that goes
STARVED, IMPATIENT_S = 0.1, 10.0  # of a core; so long vectors are then made at this process's own priority
_loading = threading.Lock()


class Background:
    """One process, started when it is first needed, and again when it died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Calls a function of a module there."""
        try:
            return self._started().submit(call, *args, **kwargs)
        except BrokenProcessPool:
            log.warning("the background process died; it is started again", extra={"action": "background_died"})
            self.stop()
            return self._started().submit(call, *args, **kwargs)

    def stop(self) -> None:
        """Ends it, whatever it is at: nothing of it is lost that is not made again."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
        return self._pool


def embed(settings: Settings, folder: Path, texts: Sequence[str]) -> tuple[str, NDArray[np.float16]]:
    """The model's name, and the vectors of texts: those that the folder's file keeps and new ones, which it keeps from now on.

    Raises:
        ModelError: there is no model.
    """
    model = model_of(settings)
    return model.name, embedded(_Patient(model), texts, kept=vector_file(folder, model)).astype(np.float16)


class _Patient:
    """A model that works only when a core has nothing else to do, since words find the tools meanwhile.

    A low priority is not enough: the scheduler lets whoever runs finish a slice of some milliseconds, and a search is a chain of
    short steps that each would wait for one. Where no core is ever idle that would be for ever, so it then works like others for
    a while.
    """

    _impatient_until = 0.0  # of all models of this process

    def __init__(self, model: Embedder) -> None:
        self._model, self.name, self.dimensions = model, model.name, model.dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`."""
        return np.concatenate([self._part(texts[start : start + PART]) for start in range(0, len(texts), PART)])

    def _part(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if time.monotonic() < _Patient._impatient_until:
            return self._model.embed(texts)
        made, wall_s, cpu_s = _when_idle().submit(_timed, self._model, texts).result()
        if cpu_s < STARVED * wall_s:
            _Patient._impatient_until = time.monotonic() + IMPATIENT_S
        return made


@lru_cache(maxsize=1)
def _when_idle() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="idle", initializer=_idle)


def _idle() -> None:
    """This thread, and no other, runs where nothing else wants to: a thread cannot take that back without privileges."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _timed(model: Embedder, texts: Sequence[str]) -> tuple[NDArray[np.float32], float, float]:
    wall, cpu = time.monotonic(), time.thread_time()
    made = model.embed(texts)
    return made, time.monotonic() - wall, time.thread_time() - cpu


def merged(base: Path, changed: Path, home: Path) -> Path:
    """A new base, from what `merge.order` wrote down.

    Raises:
        SnapshotFailed: no room, or it is not the catalog that it should be.
    """
    made = merge.merge(base, changed, home)
    discard(changed)
    return made


def build(settings: Settings, folder: Path, home: Path) -> tuple[Path, Known]:
    """A snapshot of everything that the store has, with the vectors that are kept already, and what is known beside it.

    Raises:
        RedisError: the store does not answer.
        SnapshotFailed: no room.
    """
    follower = Follower(CatalogStore(connect(settings, retries=2)), bundled_catalog().tools)
    version, documents, known = follower.begin()
    model = _model_or_none(settings)
    texts: dict[str, str] = {}

    def noted() -> Iterator[Document]:
        for document in documents:
            texts[text_digest(document.text)] = document.text
            yield document

    def vectors(digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        found = kept_vectors(folder, model, [texts[d] for d in digests]) if model is not None else {}
        texts.clear()
        return found

    name = model.name if model is not None else ""
    made = merge.build(noted(), home, generation=generation_of(version)[1], model=name, vectors=vectors, current=False)
    return made, replace(known(), model=name)


def kept_vectors(folder: Path, model: Embedder, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The vectors that the folder's file keeps, by the digest of their text."""
    digests = {digest_of(model.name, t): text_digest(t) for t in texts}
    return {digests[d]: v for d, v in vector_file(folder, model).get(digests).items()}


def model_of(settings: Settings) -> Embedder:
    """The model of this process, as the settings say: the packaged one, or that of another index service.

    Raises:
        ModelError: it is not there, or its vectors are no vectors of the index.
    """
    with _loading:
        model = _remote(settings.embed_url, settings.index_key) if settings.embed_url else embedder()
    if model.dimensions != DIMENSIONS:
        raise ModelError(
            f"the vectors of `{model.name}` have {model.dimensions} numbers, those of the index {DIMENSIONS}",
            next="Let TOOLWEAVER_EMBED_URL name an index service of this version, or unset it.",
        )
    return model


@lru_cache(maxsize=1)
def _remote(url: str, key: SecretStr | None) -> Embedder:
    return RemoteEmbedder(url, key=key)


def _model_or_none(settings: Settings) -> Embedder | None:
    try:
        return model_of(settings)
    except ModelError as error:
        log.warning("no model of meanings: %s", error.message, extra={"action": "encoder_absent"})
        return None


def _begin() -> None:
    os.nice(NICE)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(0)
