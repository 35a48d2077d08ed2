"""What was found or embedded once is kept: in this process, in Redis for all processes, and vectors of tools in a file of the home.

Nothing here fails a search: what a cache cannot give is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import redis
from numpy.typing import NDArray

from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import cached

T = TypeVar("T")
Vector = NDArray[np.float32]
log = logging.getLogger(__name__)

TTL_S = 3_600
ANSWER_S = 0.25  # Redis that takes longer is not waited for: computing is faster
AWAY_S = 2.0  # after an error nobody asks it for so long
_JSON, _BYTES, _VECTOR = b"j", b"b", b"v"
_MANY = 500  # parameters of one statement of SQLite


class LRU(Generic[T]):
    """The latest `most` values of this process, by key; threads may share it."""

    def __init__(self, most: int) -> None:
        self._most, self._kept, self._lock = most, OrderedDict[str, T](), threading.Lock()

    def get(self, key: str) -> T | None:
        """The value, which counts as used; None: it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def set(self, key: str, value: T) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class DistributedCache:
    """What several processes share for a while, in Redis: JSON values, bytes, and vectors as float16; never pickles.

    A Redis that is away or slow is a miss, and is left alone for two seconds.
    """

    def __init__(self, redis_url: str = "redis://localhost:6379", *, client: redis.Redis | None = None) -> None:
        made = client or redis.Redis.from_url(redis_url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
        self._redis: Any = made  # redis-py types one method for its sync and async client at once
        self._away_until = 0.0

    @classmethod
    def of(cls, settings: Settings) -> DistributedCache:
        """The cache in the platform's store."""
        return cls(client=connect(settings, retries=0, timeout_s=ANSWER_S))

    def get(self, key: str) -> Any | None:
        """The value; None: it is not there, it has ended, or it cannot be read."""
        return _unpacked(self._ask(lambda: self._redis.get(cached(key))))

    def get_many(self, keys: Sequence[str]) -> list[Any | None]:
        """The values in one round trip, None for each that is not there."""
        found = self._ask(lambda: self._redis.mget([cached(k) for k in keys])) if keys else []
        return [_unpacked(raw) for raw in found] if found else [None] * len(keys)

    def set(self, key: str, value: Any, ttl: int = TTL_S) -> None:
        """Keeps a value for `ttl` seconds.

        Raises:
            TypeError: it is neither JSON, nor bytes, nor a vector of floats.
        """
        packed = _packed(value)
        self._ask(lambda: self._redis.set(cached(key), packed, ex=ttl))

    def invalidate(self, pattern: str) -> int:
        """Forgets all keys that fit a pattern such as `search:*`; how many there were. The store is asked even if it was away."""
        try:
            return self._drop(cached(pattern))
        except redis.RedisError as error:
            log.warning("what is cached could not be forgotten, it ends by itself: %s", error, extra={"action": "cache_away"})
            return 0

    def _drop(self, pattern: str) -> int:
        count, page = 0, list[bytes]()
        for key in self._redis.scan_iter(match=pattern, count=1_000):
            page.append(key)
            if len(page) == _MANY:
                count += self._redis.unlink(*page)
                page = []
        return count + (self._redis.unlink(*page) if page else 0)

    def _ask(self, call: Any) -> Any:
        if time.monotonic() < self._away_until:
            return None
        try:
            return call()
        except redis.RedisError as error:
            self._away_until = time.monotonic() + AWAY_S
            log.debug("the shared cache is away: %s", error, extra={"action": "cache_away"})
            return None


class VectorFile:
    """The vectors of texts by their digest, in an SQLite file that processes share; any of them may be killed at any moment.

    A text is embedded once and never again, whatever tool or version it stands in (C5). A file that is damaged is set aside.
    """

    def __init__(self, path: Path, *, dimensions: int) -> None:
        self._path, self._bytes = path, 2 * dimensions
        self._local = threading.local()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._make()
        except sqlite3.OperationalError as error:  # such as locked, or no room: the file is good, though not to be used now
            log.warning("`%s` cannot be opened: %s", path, error, extra={"action": "vectors_away"})
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self._make()

    def get(self, digests: Iterable[str]) -> dict[str, Vector]:
        """The vectors that are known, by digest."""
        wanted = list(digests)
        found: dict[str, Vector] = {}
        try:
            for start in range(0, len(wanted), _MANY):
                part = wanted[start : start + _MANY]
                marks = ",".join("?" * len(part))
                rows = self._connection().execute(f"SELECT digest, vector FROM vectors WHERE digest IN ({marks})", part)
                found |= {d: _floats(raw) for d, raw in rows if len(raw) == self._bytes}
        except sqlite3.DatabaseError as error:
            log.warning("`%s` cannot be read: %s", self._path, error, extra={"action": "vectors_away"})
        return found

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keeps vectors; what cannot be written now is embedded again some day."""
        rows = [(digest, np.asarray(v, np.float16).tobytes()) for digest, v in vectors.items()]
        try:
            with self._connection() as db:
                db.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.DatabaseError as error:
            log.warning("`%s` cannot be written: %s", self._path, error, extra={"action": "vectors_unwritten"})

    def clear(self) -> None:
        """Forgets all vectors."""
        with self._connection() as db:
            db.execute("DELETE FROM vectors")

    def __len__(self) -> int:
        return int(self._connection().execute("SELECT count(*) FROM vectors").fetchone()[0])

    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "db", None)
        if made is None:
            made = self._local.db = sqlite3.connect(self._path, timeout=10.0)
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the latest vectors, and damages nothing
        return made

    def _make(self) -> None:
        with self._connection() as db:
            db.execute("CREATE TABLE IF NOT EXISTS vectors (digest TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")

    def _set_aside(self, error: Exception) -> None:
        if (db := getattr(self._local, "db", None)) is not None:
            db.close()
            del self._local.db
        log.warning("`%s` is no file of vectors (%s): it is set aside", self._path, error, extra={"action": "vectors_bad"})
        for part in ("-wal", "-shm"):
            self._path.with_name(self._path.name + part).unlink(missing_ok=True)
        self._path.replace(self._path.with_name(self._path.name + ".bad"))


def digest_of(model: str, text: str) -> str:
    """What a vector is known by: the model that made it, and the text that it is of."""
    return hashlib.sha256(f"{model}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _packed(value: Any) -> bytes:
    if isinstance(value, bytes):
        return _BYTES + value
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or value.ndim != 1:
            raise TypeError(f"only vectors of floats are kept, not an array of {value.dtype} with {value.ndim} dimensions")
        return _VECTOR + value.astype(np.float16).tobytes()
    return _JSON + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _unpacked(raw: bytes | None) -> Any | None:
    if not raw:
        return None
    kind, body = raw[:1], raw[1:]
    try:
        return body if kind == _BYTES else _floats(body) if kind == _VECTOR else json.loads(body) if kind == _JSON else None
    except ValueError:  # somebody else's value
        return None


def _floats(raw: bytes) -> Vector:
    return np.frombuffer(raw, np.float16).astype(np.float32)
