"""What tools did to the world, in a database of its own: SQLite, written by the tools, read by the tests.

It lies outside the platform, as a customer's system would. A row per body that began, a row per effect: of `once` every
effect counts, of `idempotent` the first of its key.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ENV = "TOOLWEAVER_TEST_EFFECTS"
BUSY_S = 60.0  # a paused process may hold the lock for as long as it is paused

_TABLES = """
CREATE TABLE IF NOT EXISTS bodies
    (id INTEGER PRIMARY KEY, job TEXT, call TEXT, attempt INT, effect TEXT, pid INT, began REAL, ended REAL);
CREATE TABLE IF NOT EXISTS happened (job TEXT, call TEXT, attempt INT, at REAL);
CREATE TABLE IF NOT EXISTS keyed (key TEXT PRIMARY KEY, job TEXT, call TEXT, attempt INT, at REAL);
CREATE INDEX IF NOT EXISTS by_call ON bodies (job, call);
"""


@dataclass(frozen=True, slots=True)
class Body:
    """One run of a tool's body. The times are of the machine's monotonic clock, which no fault touches."""

    job: str
    call: str
    attempt: int
    effect: str
    pid: int
    began: float
    ended: float | None

    @property
    def over(self) -> bool:
        """It ended, or nothing is left that could end it."""
        return self.ended is not None or _gone(self.pid)


class Effects:
    """One connection for each thread."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._opened = threading.local()

    @classmethod
    def of_process(cls) -> Effects:
        """The database that the platform's processes are given by environment."""
        return cls(os.environ[ENV])

    def make(self) -> None:
        """Makes the tables."""
        self._db().executescript(_TABLES)

    @contextmanager
    def body(self, *, job: str, call: str, attempt: int, effect: str) -> Iterator[None]:
        """Notes that a body began and, unless it is killed, that it ended."""
        row = self._db().execute(
            "INSERT INTO bodies (job, call, attempt, effect, pid, began) VALUES (?, ?, ?, ?, ?, ?)",
            (job, call, attempt, effect, os.getpid(), time.monotonic()),
        )
        try:
            yield
        finally:
            self._db().execute("UPDATE bodies SET ended = ? WHERE id = ?", (time.monotonic(), row.lastrowid))

    def happens(self, *, job: str, call: str, attempt: int) -> None:
        """An effect that must not happen twice; if it does, both are kept."""
        self._db().execute("INSERT INTO happened VALUES (?, ?, ?, ?)", (job, call, attempt, time.monotonic()))

    def happens_by_key(self, key: str, *, job: str, call: str, attempt: int) -> None:
        """An effect that the world does once per key."""
        self._db().execute("INSERT OR IGNORE INTO keyed VALUES (?, ?, ?, ?, ?)", (key, job, call, attempt, time.monotonic()))

    def bodies(self, job: str | None = None, call: str | None = None) -> list[Body]:
        """The runs of bodies, in the order in which they began."""
        rows = self._db().execute(
            "SELECT job, call, attempt, effect, pid, began, ended FROM bodies"
            " WHERE job = coalesce(?, job) AND call = coalesce(?, call) ORDER BY began",
            (job, call),
        )
        return [Body(*row) for row in rows]

    def attempts(self, job: str, call: str) -> list[int]:
        """The attempts whose `once` effect happened."""
        rows = self._db().execute("SELECT attempt FROM happened WHERE job = ? AND call = ? ORDER BY at", (job, call))
        return [attempt for (attempt,) in rows]

    def keyed(self, key: str) -> int:
        """How many effective rows a key has."""
        return int(self._db().execute("SELECT count(*) FROM keyed WHERE key = ?", (key,)).fetchone()[0])

    def forget(self, job: str) -> None:
        """Drops what is known of a job that was audited."""
        for table in ("bodies", "happened", "keyed"):
            self._db().execute(f"DELETE FROM {table} WHERE job = ?", (job,))

    def _db(self) -> sqlite3.Connection:
        known: tuple[int, sqlite3.Connection] | None = getattr(self._opened, "connection", None)
        if known is not None and known[0] == os.getpid():  # neither threads nor a fork may share it
            return known[1]
        made = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        self._opened.connection = os.getpid(), made
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = OFF")  # processes are killed here, not the machine
        return made


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
