"""Heartbeats of running calls, sent by one thread of a worker's main process for all its calls.

A prefork child writes its call into a slot of shared memory and the parent beats for it: a CPU-bound tool would starve
a thread of its own. Past a call's deadline its beats stop, so that a hung tool loses its lease. A refused beat
(cancelled or overtaken) is written back into the slot, where the tool's `context.cancelled()` reads it for nothing.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from orchestrator.jobs.ledger import Claim, Ledger

log = logging.getLogger(__name__)

KILL_AFTER_S = 5.0
SLOT = 512
_HEAD = struct.Struct("<QIId")  # serial, pid, length of the payload (0: free), deadline on the monotonic clock
_FENCED = struct.Struct("<Q")  # serial that was refused; written by the beating thread only
_PAYLOAD_AT = _HEAD.size + _FENCED.size
_ROOM = SLOT - _PAYLOAD_AT


@dataclass(frozen=True, slots=True)
class Running:
    """A call that is beaten for."""

    slot: int
    serial: int
    pid: int
    deadline: float
    job: str
    call: str
    attempt: int


class BeatTable:
    """Slots in memory that parent and children share; one call each."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * SLOT)
        self._slots = slots
        self._free = threading.Lock()

    @contextmanager
    def running(self, claim: Claim, *, timeout_s: float, slot: int | None = None) -> Iterator[Callable[[], bool]]:
        """Registers a call for beats while the block runs; gives a function that says whether it was refused."""
        with self._free:
            at = self._take(claim, timeout_s, slot)
        serial = self._head(at)[0]
        try:
            yield lambda: _FENCED.unpack_from(self._memory, at * SLOT + _HEAD.size)[0] == serial
        finally:
            self._clear(at)

    def calls(self) -> list[Running]:
        """The calls of living processes; slots of dead ones are freed."""
        found = []
        for at in range(self._slots):
            running = self._read(at)
            if running is None:
                continue
            if _alive(running.pid):
                found.append(running)
            else:
                self._clear(at)
        return found

    def refuse(self, running: Running) -> None:
        """Tells the tool of a call that it was cancelled or overtaken."""
        _FENCED.pack_into(self._memory, running.slot * SLOT + _HEAD.size, running.serial)

    def _take(self, claim: Claim, timeout_s: float, slot: int | None) -> int:
        at = slot if slot is not None else next(i for i in range(self._slots) if self._head(i)[2] == 0)
        payload = json.dumps([claim.job, claim.call, claim.attempt], ensure_ascii=False).encode()  # an id may be 256 bytes long
        if len(payload) > _ROOM:
            raise ValueError(f"the ids of a call take {len(payload)} bytes, the slot has {_ROOM}")
        serial = self._head(at)[0] + 1
        deadline = time.monotonic() + timeout_s
        _HEAD.pack_into(self._memory, at * SLOT, serial, os.getpid(), 0, deadline)
        start = at * SLOT + _PAYLOAD_AT
        self._memory[start : start + len(payload)] = payload
        _HEAD.pack_into(self._memory, at * SLOT, serial, os.getpid(), len(payload), deadline)
        return at

    def _head(self, at: int) -> tuple[int, int, int, float]:
        return _HEAD.unpack_from(self._memory, at * SLOT)

    def _read(self, at: int) -> Running | None:
        serial, pid, length, deadline = self._head(at)
        if length == 0:
            return None
        start = at * SLOT + _PAYLOAD_AT
        payload = self._memory[start : start + length]
        if self._head(at) != (serial, pid, length, deadline):
            return None  # it changed while it was read; the next look has it whole
        job, call, attempt = json.loads(payload)
        return Running(at, serial, pid, deadline, job, call, attempt)

    def _clear(self, at: int) -> None:
        serial, pid, _, deadline = self._head(at)
        _HEAD.pack_into(self._memory, at * SLOT, serial, pid, 0, deadline)


def _alive(pid: int) -> bool:
    """Whether a process runs; a killed child that nobody reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
    except OSError:  # no /proc on this system
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True


class Beater:
    """The thread: beats for every call of the table and calls `also` (the worker's sign of life) each round.

    With `kills`, a child that is still busy `KILL_AFTER_S` past its call's deadline is killed: its tool hangs in native
    code, where no timeout reaches it, and would hold the slot for ever.
    """

    def __init__(self, table: BeatTable, ledger: Ledger, *, also: Callable[[], None], kills: bool = False) -> None:
        self._table, self._ledger, self._also, self._kills = table, ledger, also, kills
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        every = self._ledger.settings.lease_s / 3
        while not self._stop.wait(every):
            try:
                self._also()
                self.beat()
            except redis.RedisError as error:
                log.warning("a beat did not get through: %s", error, extra={"action": "beat_failed"})
            except Exception:  # this loop must live: without beats every call of this worker is lost
                log.exception("beats failed once", extra={"action": "beat_error"})

    def beat(self) -> None:
        """One round of beats."""
        now = time.monotonic()
        running = self._table.calls()
        due = [r for r in running if r.deadline > now]
        for hung in (r for r in running if self._kills and r.deadline + KILL_AFTER_S < now):
            log.error("killed pid %d: a tool hangs past its timeout", hung.pid, extra={"action": "kill", "job_id": hung.job})
            os.kill(hung.pid, signal.SIGKILL)
        if not due:
            return
        answers = self._ledger.beat([(r.job, r.call, r.attempt) for r in due])
        for beaten, goes_on in zip(due, answers, strict=True):
            if not goes_on:
                self._table.refuse(beaten)
