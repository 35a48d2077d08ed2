"""Heartbeats of running calls, sent by one thread of a worker's main process for all its calls.

A prefork child writes its call into a slot of shared memory and the parent beats for it: a CPU-bound tool would starve
a thread of its own. Past a call's deadline its beats stop, so that a hung tool loses its lease. A refused beat
(cancelled or overtaken) is written back into the slot, where the tool's `context.cancelled()` reads it for nothing.
A second thread hears on a channel which jobs ended before their time, and has their calls beaten for at once.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from redis.client import PubSub

from orchestrator.jobs.ledger import Claim, Ledger
from orchestrator.state.keys import ENDED

log = logging.getLogger(__name__)

KILL_AFTER_S = 5.0
CANCEL_GRACE_S = 2.0
COMMIT_PATIENCE_S = 60.0
LISTEN_S = 5.0
SLOT = 512
_HEAD = struct.Struct("<QIIdB")  # serial, pid, length of the payload (0: free), deadline (monotonic), whether the tool ended
_FENCED = struct.Struct("<Q")  # serial that was refused; written by the beating thread only
_PAYLOAD_AT = _HEAD.size + _FENCED.size
_ROOM = SLOT - _PAYLOAD_AT


@dataclass(frozen=True, slots=True)
class Running:
    """A call that is beaten for; `ended`: its tool is done and its commit goes on."""

    slot: int
    serial: int
    pid: int
    deadline: float
    ended: bool
    job: str
    call: str
    attempt: int

    @property
    def own(self) -> bool:
        """Whether it runs in this process, not in a child of a pool."""
        return self.pid == os.getpid()


class Beat:
    """The place of one running call in a table."""

    __slots__ = ("_at", "_over", "_pooled", "_table", "serial")

    def __init__(self, table: BeatTable, at: int, *, serial: int, pooled: bool) -> None:
        self._table, self._at, self.serial, self._pooled = table, at, serial, pooled
        self._over = False

    @property
    def key(self) -> tuple[int, int]:
        """What tells this call from all others of the table, at any time."""
        return self._at, self.serial

    def refused(self) -> bool:
        """Whether the call was cancelled or overtaken, or is over anyway; cheap, so that loops can poll it."""
        return self._over or self._table.is_refused(self._at, self.serial)

    def ended(self) -> None:
        """The tool is done: beats go on while its outcome is committed, and nobody kills the process for it."""
        self._table.end(self._at, time.monotonic() + COMMIT_PATIENCE_S)

    def release(self) -> None:
        """The call is over."""
        self._over = True
        self._table.clear(self._at, pooled=self._pooled)


class BeatTable:
    """Slots in memory that parent and children share; one call each.

    A child of a pool owns the slot of its number and needs no lock, which a fork might inherit locked. Threads of one
    process take a free one.
    """

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * SLOT)
        self._slots = slots
        self._free = deque(range(slots))  # its ends are atomic
        self._read_before: dict[int, Running] = {}

    @contextmanager
    def running(self, claim: Claim, *, timeout_s: float, slot: int | None = None) -> Iterator[Beat]:
        """Registers a call for beats while the block runs."""
        beat = self.take(claim, timeout_s=timeout_s, slot=slot)
        try:
            yield beat
        finally:
            beat.release()

    def take(self, claim: Claim, *, timeout_s: float, slot: int | None = None) -> Beat:
        """Registers a call for beats until it is released.

        Raises:
            ValueError: the ids of the call are longer than any that the engine gives.
            IndexError: more calls run than the table has slots.
        """
        payload = json.dumps([claim.job, claim.call, claim.attempt], ensure_ascii=False).encode()  # an id may be 256 bytes long
        if len(payload) > _ROOM:
            raise ValueError(f"the ids of a call take {len(payload)} bytes, the slot has {_ROOM}")
        at = self._free.popleft() if slot is None else slot
        serial = self._head(at)[0] + 1
        deadline = time.monotonic() + timeout_s
        _HEAD.pack_into(self._memory, at * SLOT, serial, os.getpid(), 0, deadline, False)
        start = at * SLOT + _PAYLOAD_AT
        self._memory[start : start + len(payload)] = payload
        _HEAD.pack_into(self._memory, at * SLOT, serial, os.getpid(), len(payload), deadline, False)
        return Beat(self, at, serial=serial, pooled=slot is None)

    def end(self, at: int, deadline: float) -> None:
        """Notes that the tool in a slot is done; the beats go on until `deadline`."""
        serial, pid, length, *_ = self._head(at)
        _HEAD.pack_into(self._memory, at * SLOT, serial, pid, length, deadline, True)

    def clear(self, at: int, *, pooled: bool) -> None:
        """Frees a slot."""
        serial, pid, _, deadline, ended = self._head(at)
        _HEAD.pack_into(self._memory, at * SLOT, serial, pid, 0, deadline, ended)
        if pooled:
            self._free.append(at)

    def calls(self) -> list[Running]:
        """The calls of living processes."""
        alive: dict[int, bool] = {}
        found = []
        for at in range(self._slots):
            running = self._read(at)
            if running is None:
                continue
            if running.pid not in alive:
                alive[running.pid] = running.own or _alive(running.pid)
            if alive[running.pid]:  # the slot of a dead child waits for the child that takes its number
                found.append(running)
        return found

    def refuse(self, running: Running) -> None:
        """Tells the tool of a call that it was cancelled or overtaken."""
        _FENCED.pack_into(self._memory, running.slot * SLOT + _HEAD.size, running.serial)

    def is_refused(self, at: int, serial: int) -> bool:
        """Whether the call that has this serial was refused."""
        return bool(_FENCED.unpack_from(self._memory, at * SLOT + _HEAD.size)[0] == serial)

    def _head(self, at: int) -> tuple[int, int, int, float, bool]:
        return _HEAD.unpack_from(self._memory, at * SLOT)

    def _read(self, at: int) -> Running | None:
        serial, pid, length, deadline, ended = self._head(at)
        if length == 0:
            return None
        known = self._read_before.get(at)
        if known is not None and (known.serial, known.pid, known.deadline, known.ended) == (serial, pid, deadline, bool(ended)):
            return known
        start = at * SLOT + _PAYLOAD_AT
        payload = self._memory[start : start + length]
        if self._head(at) != (serial, pid, length, deadline, ended):
            return None  # it changed while it was read; the next look has it whole
        job, call, attempt = json.loads(payload)
        running = self._read_before[at] = Running(at, serial, pid, deadline, bool(ended), job, call, attempt)
        return running


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

    With `kills`, a process that is still busy `KILL_AFTER_S` past its call's deadline is killed: its tool hangs where no
    timeout reaches it, and would hold the slot for ever. So is a child that goes on `CANCEL_GRACE_S` after its beat was
    refused; a call of this process itself is told through `on_refused` instead, once.
    """

    def __init__(
        self,
        table: BeatTable,
        ledger: Ledger,
        *,
        also: Callable[[], None],
        kills: bool = False,
        on_refused: Callable[[Running], None] | None = None,
    ) -> None:
        self._table, self._ledger, self._also, self._kills = table, ledger, also, kills
        self._on_refused = on_refused or (lambda _: None)
        self._refused: dict[tuple[int, int], float] = {}  # when, by slot and serial
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)
        self._ears = threading.Thread(target=self._listen, name="ended-jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ears.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        every = self._ledger.settings.lease_s / 3
        while not self._stop.wait(every):
            try:
                self.beat()  # first: what else is shown may be refused where a beat is not
                self._also()
            except redis.RedisError as error:
                log.warning("a beat did not get through: %s", error, extra={"action": "beat_failed"})
            except Exception:  # this loop must live: without beats every call of this worker is lost
                log.exception("beats failed once", extra={"action": "beat_error"})

    def _listen(self) -> None:
        """What is missed while Redis is away, the next round of beats finds."""
        while not self._stop.is_set():
            try:
                with self._ledger.redis.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(ENDED)
                    while not self._stop.is_set():
                        self._hear(channel)
            except redis.RedisError as error:
                log.debug("the channel of ended jobs is away: %s", error)
                self._stop.wait(1.0)
            except Exception:
                log.exception("a cancellation waits for the next beat", extra={"action": "beat_error"})
                self._stop.wait(1.0)

    def _hear(self, channel: PubSub) -> None:
        jobs = set()
        message = channel.get_message(timeout=LISTEN_S)
        while message is not None:
            jobs.add(message["data"].decode())
            message = channel.get_message(timeout=0)
        if jobs:
            self.beat(jobs)

    def beat(self, jobs: Collection[str] | None = None) -> None:
        """One round of beats, for all calls or for those of some jobs."""
        with self._one_at_a_time:
            running = self._table.calls()
            if jobs is not None:
                running = [r for r in running if r.job in jobs]
            self._kill_hung(running, whole=jobs is None)
            now = time.monotonic()
            due = [r for r in running if r.deadline > now]
            if due:
                self._extend(due)

    def _extend(self, due: Sequence[Running]) -> None:
        answers = self._ledger.beat([(r.job, r.call, r.attempt) for r in due])
        for beaten, goes_on in zip(due, answers, strict=True):
            if not goes_on and (beaten.slot, beaten.serial) not in self._refused:
                self._refused[beaten.slot, beaten.serial] = time.monotonic()
                self._table.refuse(beaten)
                if beaten.own:
                    self._on_refused(beaten)

    def _kill_hung(self, running: Sequence[Running], *, whole: bool) -> None:
        now = time.monotonic()
        if whole:
            present = {(r.slot, r.serial) for r in running}
            self._refused = {key: at for key, at in self._refused.items() if key in present}
        for r in running if self._kills else ():
            refused_at = self._refused.get((r.slot, r.serial), now)
            if r.deadline + KILL_AFTER_S < now:
                self._kill(r, "a tool hangs past its timeout")
            elif refused_at + CANCEL_GRACE_S < now and not r.own and not r.ended:
                self._kill(r, "a tool goes on although its call was cancelled or overtaken")

    def _kill(self, running: Running, why: str) -> None:
        where = {"action": "kill", "job_id": running.job, "call": running.call}
        log.error("killed pid %d: %s", running.pid, why, extra=where)
        if running.own:
            faulthandler.dump_traceback()  # where it hangs: a tool that blocks the loop
        os.kill(running.pid, signal.SIGKILL)
