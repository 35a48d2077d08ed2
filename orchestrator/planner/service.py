"""The planner's pool for requests in words: some are planned at once on a loop of their own, each under a lease that is renewed.

Nothing here waits for a model in the thread of the caller, so that plans which need none go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import redis

from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import NewerJob, new_token
from orchestrator.jobs.requests import Requests, Turn

log = logging.getLogger(__name__)

WAITING_MOST = 1_000  # jobs that are known here to wait for a place; of others the ledger reminds
STOP_S = 5.0
THREADS_BESIDE = 4  # for what tasks do with the store


class Serves(Protocol):
    """What is done in a turn: `Turns`."""

    async def serve(self, turn: Turn) -> None:
        """Sees to it that the job has its plan or its answer, waits, or has failed."""


class RequestPool:
    """Plans up to `concurrency` requests at once."""

    def __init__(self, requests: Requests, serves: Serves, *, concurrency: int, wake: Callable[[str], None]) -> None:
        """`wake` tells some planner of a job that this one gave back."""
        self._requests, self._serves, self._most, self._wake = requests, serves, concurrency, wake
        self._lock = threading.RLock()  # a signal may have the thread that holds it close the pool
        self._tasks: dict[str, asyncio.Task[None] | None] = {}
        self._turns: dict[str, Turn] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._stopping = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(concurrency + THREADS_BESIDE, thread_name_prefix="request"))
        self._threads = [
            threading.Thread(target=self._run, name="requests", daemon=True),
            threading.Thread(target=self._renew, name="request leases", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, job: str) -> bool:
        """Plans a job: now, or (False) when one of those that are planned now is done, here or elsewhere."""
        placed = self._placed(job)
        if placed:
            self._loop.call_soon_threadsafe(self._begin, job)
        else:
            self._requests.later(job)
        return placed

    def _placed(self, job: str) -> bool:
        """Whether a job has a place now that it had not; else it may wait for one here."""
        with self._lock:
            if self._stopping.is_set() or job in self._tasks:
                return False
            if len(self._tasks) >= self._most:
                if len(self._waiting) < WAITING_MOST:
                    self._waiting[job] = None
                return False
            self._waiting.pop(job, None)
            self._tasks[job] = None
            return True

    def close(self) -> None:
        """Stops: what is being planned is given back, so that another planner takes it at once."""
        with self._lock:
            self._stopping.set()
            self._waiting.clear()
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(STOP_S)
        for turn in list(self._turns.values()):
            self._give_back(turn)
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join(STOP_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self, job: str) -> None:
        self._tasks[job] = self._loop.create_task(self._serve(job))

    async def _cancel_all(self) -> None:
        tasks = [t for t in self._tasks.values() if t is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, job: str) -> None:
        try:
            turn = await asyncio.to_thread(self._take, job)
            if turn is not None:
                await self._serves.serve(turn)
                self._turns.pop(job, None)
        except asyncio.CancelledError:
            return  # the job was cancelled or taken over; or this process stops, and `close` gives it back
        except (redis.RedisError, BackendError) as error:  # the lease ends, and it is planned again
            log.warning("a request is left to its lease: %s", error, extra={"action": "plan_left", "job_id": job})
            self._turns.pop(job, None)
        except Exception:
            log.exception("a request could not be planned", extra={"action": "plan_error", "job_id": job})
            self._turns.pop(job, None)
        finally:
            self._done(job)

    def _take(self, job: str) -> Turn | None:
        try:
            turn = self._requests.begin(job, new_token())
        except NewerJob:
            log.info("left to a newer planner", extra={"action": "newer_job", "job_id": job})
            return None
        if isinstance(turn, str):
            log.info("not planned here: %s", turn, extra={"action": "not_planned", "job_id": job})
            return None
        self._turns[job] = turn
        return turn

    def _done(self, job: str) -> None:
        with self._lock:
            self._tasks.pop(job, None)
            if self._stopping.is_set() or not self._waiting:
                return
            following, _ = self._waiting.popitem(last=False)
            self._tasks[following] = None
        self._begin(following)

    def _renew(self) -> None:
        while not self._stopping.wait(self._requests.lease_ms / 4_000):
            turns = list(self._turns.values())
            try:
                going_on = self._requests.renew([(t.job, t.token) for t in turns]) if turns else []
            except redis.RedisError as error:
                log.warning("leases of requests wait for the store: %s", error, extra={"action": "renew_wait"})
                continue
            for turn, goes_on in zip(turns, going_on, strict=True):
                if not goes_on and self._turns.get(turn.job) is turn:
                    self._loop.call_soon_threadsafe(self._stop, turn)

    def _stop(self, turn: Turn) -> None:
        """A request that is not ours any more: the model's answer is waited for no longer."""
        task = self._tasks.get(turn.job)
        if self._turns.get(turn.job) is turn and task is not None:
            self._turns.pop(turn.job)
            task.cancel()

    def _give_back(self, turn: Turn) -> None:
        try:
            if self._requests.give_back(turn):
                self._wake(turn.job)
        except (redis.RedisError, BackendError) as error:
            log.warning("a request is left to its lease: %s", error, extra={"action": "plan_left", "job_id": turn.job})
