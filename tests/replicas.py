"""Replicas of the index service for tests, and a catalog of which every answer can be checked.

Each tool has three words of its own, which stand in no other tool and in no earlier version of it. Whoever asks for them must be
given that tool first, also while it has no vector yet, and no hit may be of a version that was not there in the generation that the
answer names.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore, generation_of
from orchestrator.models.search import IndexStatus, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.providers.minilm import MiniLM
from orchestrator.tool_search.cache import digest_of
from orchestrator.tool_search.client import IndexClient
from orchestrator.tool_search.document import document_of
from orchestrator.tool_search.embedding import vector_file
from tests.processes import Platform
from tests.services import free_port
from tests.support import wait_until

MODULE = "orchestrator.tool_search.service"
COMMON = (
    "weather", "invoice", "calendar", "translation", "payment", "camera", "garden", "railway", "ticket", "customer", "map", "road",
)  # fmt: skip
_FIRST, _VOWELS = "bdfgklmnprtvz", "aeiou"
_SYLLABLES = [c + v for c in _FIRST for v in _VOWELS]


class Replicas:
    """Replicas over the home of a platform, each under a name and at a port that stays its own."""

    def __init__(self, running: Platform) -> None:
        self.running, self.urls = running, dict[str, str]()
        self.store = CatalogStore(running.client)

    def start(self, name: str, *, command: Sequence[str] = (), **env: str) -> None:
        """Starts one; `command` goes before that of the replica."""
        port = free_port()
        self.urls[name] = f"http://127.0.0.1:{port}"
        words = [*command, sys.executable, "-m", MODULE]
        self.running.start(name, words, env={"TOOLWEAVER_INDEX_PORT": str(port), **env})

    def status(self, name: str) -> IndexStatus | None:
        """How one is; None: it does not say."""
        with IndexClient([self.urls[name]], timeout=5.0) as client:
            found = client.statuses()[self.urls[name]]
        return found if isinstance(found, IndexStatus) else None

    def wait_ready(self, name: str) -> IndexStatus:
        """Waits until one answers."""
        found = wait_until(lambda: self.status(name), description=f"{name} answers", timeout=60, every=0.05)
        assert found is not None
        return found

    def wait_equal(self, *names: str, timeout: float = 60.0) -> IndexStatus:
        """Waits until these have the store's hash of the store's latest change; gives how the first one is."""

        def look() -> IndexStatus | None:
            found = [self.status(name) for name in names or self.urls]
            latest = generation_of(self.store.version())[1]
            equal = all(s and s.generation == latest and s.catalog_hash == s.store_hash for s in found)
            return found[0] if equal else None

        found = wait_until(look, description=f"all have the store's hash\n{self.running.logs()}", timeout=timeout, every=0.1)
        assert found is not None
        assert found.catalog_hash == self.store.catalog_hash()
        return found

    def kill_beside(self, name: str) -> bool:
        """kill -9 of the process that makes vectors and bases for one; whether there was one."""
        children = psutil.Process(self.running.processes[name].pid).children()
        beside = [c for c in children if any("multiprocessing.spawn" in word for word in c.cmdline())]
        for process in beside:
            process.kill()
        return bool(beside)

    def snapshots(self) -> list[Path]:
        """The folders that count."""
        return [note.with_suffix("") for note in self.running.settings.home.glob("index/*/*.json")]


@dataclass(slots=True)
class Life:
    """A version of a tool: what it says, its own words, and between which generations it was there."""

    name: str
    version: str
    says: str
    words: str
    born: int
    died: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer, the tool that was asked for, and the newest generation that was published when it came."""

    life: Life
    answer: SearchAnswer
    latest: int


class Book:
    """Publishes tools, and knows which of them were there when."""

    def __init__(self, store: CatalogStore) -> None:
        self._store, self._lock = store, threading.Lock()
        self._made = 0
        self._of_words: dict[str, str] = {}
        self.lives: dict[tuple[str, str], list[Life]] = {}
        self.present: dict[str, Life] = {}
        self.latest = 0

    def tool(self, name: str, says: str = "") -> ToolDefinition:
        """A new version of a tool, with words that no other has; it `says` what many others do, if nothing else."""
        with self._lock:
            self._made += 1
            words = own_words(self._made)
            common = " ".join(COMMON[(self._made + n) % len(COMMON)] for n in (0, 1, 5))
            made = ToolDefinition(name=name, description=f"{says or f'Handles {common} matters'} of {words}")
            self._of_words[made.content_hash] = words
            return made

    def publish(self, source: str, tools: Sequence[ToolDefinition]) -> int:
        """Makes the tools of a source these; the generation."""
        with self._lock:
            diff = self._store.publish(source, tools)
            self.latest = generation = generation_of(self._store.version())[1]
            for name in (*diff.changed, *diff.removed):
                self.present.pop(name).died = generation
            fresh = {t.name: t for t in tools}
            for name in (*diff.added, *diff.changed):
                version = fresh[name].content_hash
                life = self.present[name] = Life(name, version, fresh[name].description, self._of_words[version], generation)
                self.lives.setdefault((name, version), []).append(life)
            return generation

    def pick(self, chance: random.Random) -> Life:
        """One of the tools that are there."""
        with self._lock:
            return chance.choice(list(self.present.values()))

    def wrong(self, seen: Seen) -> str | None:
        """What an answer should not have said.

        A replica that reads everything may know of some tools what was published meanwhile: what came by `latest` is right, too.
        """
        generation = seen.answer.generation
        for hit in seen.answer.hits:
            lives = self.lives.get((hit.name, hit.version))
            if lives is None:
                if hit.name not in BUNDLED:
                    return f"`{hit.name}` {hit.version} was never there"
            elif not any(one.born <= seen.latest and (one.died is None or one.died > generation) for one in lives):
                return f"`{hit.name}` {hit.version} was not there at {generation}: {lives}"
        life = seen.life
        steady = life.born <= generation and (life.died is None or life.died > max(generation, seen.latest))
        found = [(hit.name, hit.version) for hit in seen.answer.hits]
        if steady and (life.name, life.version) != found[0]:
            return f"`{life.words}` of `{life.name}` ({life.born} to {life.died}) found {found} at {generation}"
        return None


BUNDLED = frozenset(t.name for t in bundled_catalog().tools)


class Asking(threading.Thread):
    """Asks for the words of some tool, so many times a second, or without pause; what failed, and what was seen.

    With `whole` it asks for all that the tool says: where vectors were made beforehand, they are not of the tool's own words.
    """

    def __init__(self, client: IndexClient, book: Book, *, seed: int, rate: float | None = None, whole: bool = False) -> None:
        super().__init__(daemon=True)
        self._client, self._book, self._random = client, book, random.Random(seed)
        self._pause, self._whole = 0.0 if rate is None else 1 / rate, whole
        self._ended = threading.Event()
        self.failed: list[str] = []
        self.seen: list[Seen] = []

    def run(self) -> None:
        while not self._ended.wait(self._pause):
            life = self._book.pick(self._random)
            request = SearchRequest(queries=(life.says if self._whole else f"{life.words} matters",), k=3)
            try:
                found = self._client.search(request)
            except Exception as error:
                self.failed.append(repr(error))
            else:
                self.seen.append(Seen(life, found, self._book.latest))

    def end(self) -> None:
        """Waits for the last answer."""
        self._ended.set()
        self.join(60)


@dataclass
class Askers:
    """Some threads that ask while something happens; used as a context, it judges every answer at its end."""

    book: Book
    client: Callable[[], IndexClient]
    seed: int
    number: int = 3
    rate: float | None = 10.0
    whole: bool = False
    threads: list[Asking] = field(default_factory=list)

    def __enter__(self) -> Askers:
        for n in range(self.number):
            self.threads.append(Asking(self.client(), self.book, seed=self.seed + n, rate=self.rate, whole=self.whole))
            self.threads[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for thread in self.threads:
            thread.end()
        if kind is None:
            self.judge()

    @property
    def seen(self) -> list[Seen]:
        return [s for t in self.threads for s in t.seen]

    def judge(self) -> None:
        """No query failed, and no answer was wrong."""
        assert not (failed := [f for t in self.threads for f in t.failed]), f"seed {self.seed}: {len(failed)} failed: {failed[:3]}"
        wrong = [w for s in self.seen if (w := self.book.wrong(s))]
        assert not wrong, f"seed {self.seed}: {len(wrong)} of {len(self.seen)} are wrong: {wrong[:3]}"
        assert all(t.seen for t in self.threads), "every thread was answered"


def own_words(number: int) -> str:
    """Three words that belong to a number alone; no stemmer cuts them, and none is a word of English."""
    return " ".join(_word(number * 3 + n) for n in range(3))


def _word(number: int) -> str:
    base = len(_SYLLABLES)
    first, second, third = number % base, number // base % base, number // base**2 % base
    return f"{_SYLLABLES[third]}{_SYLLABLES[second]}{_SYLLABLES[first]}xq"


def embed_beforehand(home: Path, tools: Sequence[ToolDefinition]) -> None:
    """Gives a home the vectors of `Book.tool`s, nearly: for tests in which the time to embed thousands of them proves nothing.

    Tools of the same common words have the vector of one of them, and some noise.
    """
    rng, model = np.random.default_rng(7), MiniLM()
    texts = {t.description.partition(" of ")[0]: document_of(t).text for t in tools}
    real = dict(zip(texts, model.embed(list(texts.values())), strict=True))
    noise = rng.standard_normal((len(tools), model.dimensions), np.float32) * np.float32(0.005)
    made = np.stack([real[t.description.partition(" of ")[0]] for t in tools]) + noise
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    digests = [digest_of(model.name, document_of(t).text) for t in tools]
    vector_file(home / "index", model).put(dict(zip(digests, made, strict=True)))
