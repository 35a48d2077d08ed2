"""Calls that a running call makes, such as those of a program: each goes through the ledger and the queues like any other.

A child is known to its maker by a key. A maker that runs again, because its worker or its container died, asks for the
same keys again: what has ended is answered from the ledger, what still runs is waited for, only the rest is called.
The worker that ends a child says so on a channel of the maker's process; as the channel is only a hint, what is
waited for is also looked at now and then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from celery import Celery
from redis.client import PubSub

from orchestrator.errors import EffectUnknown, Overtaken, ToolError
from orchestrator.jobs.ledger import Born, Child, Claim
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import ErrorInfo
from orchestrator.models.tool import ToolDefinition
from orchestrator.publisher.compile import child_of
from orchestrator.publisher.envelope import Envelopes, envelope_name
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.state.connection import connect, transient
from orchestrator.state.keys import CHILDREN

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at what is waited for, in case a hint was lost
LISTEN_S = 5.0
PATIENCE_S = 60.0  # with a store that is away, as for commits
BATCH = 64


class NotMade(ToolError):
    """It is not known whether a program's call was made. Run again, the program finds it under its key, or makes it then."""

    code = "call_not_made"

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True, next="The program runs again, and what its calls gave is not asked for again.")


class Diverged(ToolError):
    """A program that ran again made other calls than the first time."""

    code = "diverged"


@dataclass(eq=False, slots=True)
class _Asked:
    """A child on its way: asked for, then waited for until it has ended."""

    claim: Claim
    child: Child
    future: asyncio.Future[Any]
    arguments: Mapping[str, Any]
    call: str = ""
    begun: float = field(default_factory=time.monotonic)


class Children:
    """The children of the calls that run in one process, on one event loop."""

    def __init__(self, store: JobStore, app: Celery) -> None:
        self.store = store
        self._app = app
        self._publisher = Publisher(app)
        self._envelopes = Envelopes(app)
        self._channel = f"{CHILDREN}{secrets.token_hex(8)}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: list[_Asked] = []
        self._waiting: dict[tuple[str, str], list[_Asked]] = {}
        self._ended: set[tuple[str, str]] = set()
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawn")
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawning = self._fetching = self._closed = False
        self._ears = threading.Thread(target=self._listen, name="children", daemon=True)

    def start(self) -> None:
        """Begins to listen; call it on the loop that makes the calls."""
        self._loop = asyncio.get_running_loop()
        self._ears.start()
        self._keep(self._look_around())

    def close(self) -> None:
        """Stops listening; what is waited for stays in the ledger."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._spawner.shutdown(wait=False, cancel_futures=True)
        self._fetcher.shutdown(wait=False, cancel_futures=True)

    async def call(
        self,
        claim: Claim,
        tool: ToolDefinition,
        arguments: Mapping[str, Any],
        *,
        key: str,
        caller: Mapping[str, Any],
        timeout_s: float | None = None,
    ) -> Any:
        """What a tool gives that the running call `claim` calls.

        Raises:
            ToolError: the tool failed, with the code and message that it failed with.
            Overtaken: the running call may make no calls any more.
            NotMade: the store did not say whether the call was made; asking under another key could make it twice.
            Diverged: an earlier attempt of it called something else under this key.
            EffectUnknown: the tool's effect may or may not have happened.
        """
        assert self._loop is not None, "start() comes first"
        child = child_of(tool, arguments, key=key, caller=caller, timeout_s=timeout_s, shards=self.store.settings.shards)
        asked = _Asked(claim, child, self._loop.create_future(), arguments)
        self._new.append(asked)
        if not self._spawning:
            self._spawning = True
            self._keep(self._spawn_all())
        try:
            return await asked.future
        finally:
            self._forget(asked)

    # Making: batches, since a program that gathers asks for many at once.

    async def _spawn_all(self) -> None:
        try:
            await asyncio.sleep(0)  # the rest of a gather
            while self._new:
                asked, self._new = self._new, []
                for group in _by_claim(asked):
                    await self._spawn(group)
        finally:
            self._spawning = False

    async def _spawn(self, group: Sequence[_Asked]) -> None:
        assert self._loop is not None
        try:
            verdict, born = await self._loop.run_in_executor(self._spawner, self._spawned, group)
        except Exception as error:
            _fail(group, NotMade(f"it is not known whether a call of the program was made: {error}"))
            return
        if verdict != "ok":
            _fail(group, Overtaken(f"The program makes no more calls: {verdict}."))
            return
        for asked, made in zip(group, born, strict=True):
            self._note(asked, made)

    def _spawned(self, group: Sequence[_Asked]) -> tuple[str, Sequence[Born]]:
        """Runs in a thread: makes the calls, patiently while the store is away, and publishes them."""
        claim = group[0].claim
        children = [self._with_envelope(a) for a in group]
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                committed, born = self.store.ledger.spawn(claim, children, channel=self._channel)
                break
            except redis.RedisError as error:
                if not transient(error) or time.monotonic() > give_up or self._closed:
                    raise
                time.sleep(0.2)
        try:
            follow(self.store.ledger, self._publisher, committed)
        except Exception as error:  # whatever it is: the calls are made, and the reconciler publishes them
            log.warning("calls of a program stay in the outbox: %s", error, extra={"action": "publish_failed"})
        return committed.verdict, born

    def _with_envelope(self, asked: _Asked) -> Child:
        child, priority = asked.child, asked.claim.queues.priority
        name = f"{envelope_name(child.queue, child.facts['tool'])}/{priority}"
        text = self._envelopes.make(child.queue, child.facts["tool"], priority) if self.store.ledger.direct else b""
        return replace(child, envelope=(name, text))

    def _note(self, asked: _Asked, made: Born) -> None:
        if asked.future.done():
            return  # nobody waits any more; the call stops with its maker
        claim, tool = asked.claim, asked.child.facts["tool"]
        if made.state == "no queue":
            asked.future.set_exception(
                ToolError(
                    f"tool `{tool}` belongs to pool `{asked.child.queue}`, which was not known when the job was planned",
                    code="no_queue", next="Submit the job again, or name the tool in the step's `tools`.",
                )
            )  # fmt: skip
            return
        asked.call = f"{claim.step}.{claim.index}.{made.number}#0"
        if made.digest != asked.child.digest:
            self._keep(self._tell_difference(asked))
            return
        self._waiting.setdefault((claim.job, asked.call), []).append(asked)
        if made.state not in ("new", "q", "r", "w"):
            self._heard(claim.job, asked.call)

    async def _tell_difference(self, asked: _Asked) -> None:
        assert self._loop is not None
        error = await self._loop.run_in_executor(self._fetcher, self._difference, asked)
        if not asked.future.done():
            asked.future.set_exception(error)

    def _difference(self, asked: _Asked) -> Exception:
        claim = asked.claim
        try:
            before = self.store.child_spec(claim.job, asked.call)
        except redis.RedisError as error:
            return ToolError(f"the call could not be looked up: {error}", retryable=True)
        was = _worded(before["tool"], {k: v["$literal"] for k, v in before["input"].items()})
        now = _worded(asked.child.facts["tool"], asked.arguments)
        return Diverged(
            f"the program ran again and made another call than the first time: {now} instead of {was} (call {asked.call})",
            next="A program whose calls depend on the clock, on chance or on the order of answers cannot be replayed: "
            "take such values from its input. `toolweaver submit` the job again to start it from nothing.",
        )

    # Waiting.

    def _heard(self, job: str, call: str) -> None:
        """A child may have ended."""
        if (job, call) in self._waiting:
            self._ended.add((job, call))
            if not self._fetching:
                self._fetching = True
                self._keep(self._fetch_all())

    async def _fetch_all(self) -> None:
        assert self._loop is not None
        try:
            while self._ended:
                ended, self._ended = self._ended, set()
                for job in {job for job, _ in ended}:
                    calls = sorted(call for j, call in ended if j == job)
                    for low in range(0, len(calls), BATCH):
                        await self._fetch(job, calls[low : low + BATCH])
        finally:
            self._fetching = False

    async def _fetch(self, job: str, calls: Sequence[str]) -> None:
        assert self._loop is not None
        try:
            answers = await self._loop.run_in_executor(self._fetcher, self.store.children, job, calls)
        except Exception as error:  # it is looked at again
            if len(calls) > 1 and not transient(error):  # such as one value that is gone: the others have their answers
                for call in calls:
                    await self._fetch(job, [call])
                return
            log.warning("answers of a program's calls could not be read: %s", error, extra={"action": "read_failed", "job_id": job})
            return
        for call, (state, value, why) in zip(calls, answers, strict=True):
            for asked in self._waiting.get((job, call), ()):
                if not asked.future.done():
                    _settle(asked, state, value, why)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for job, call in list(self._waiting):
                self._heard(job, call)

    def _forget(self, asked: _Asked) -> None:
        place = (asked.claim.job, asked.call)
        others = [a for a in self._waiting.get(place, ()) if a is not asked]
        if others:
            self._waiting[place] = others
        else:
            self._waiting.pop(place, None)

    def _listen(self) -> None:
        """A thread: hands what the channel says to the loop; connects again for as long as it takes."""
        assert self._loop is not None
        client: Any = connect(self.store.settings, retries=0, timeout_s=LISTEN_S)
        while not self._closed:
            try:
                with client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(self._channel)
                    self._hear(channel)
            except redis.RedisError as error:
                log.debug("the channel of children is away: %s", error)
                time.sleep(0.2)
            except RuntimeError:  # the loop is closed
                return

    def _hear(self, channel: PubSub) -> None:
        assert self._loop is not None
        while not self._closed:
            message = channel.get_message(timeout=LISTEN_S / 2)
            if message is not None:
                job, _, call = bytes(message["data"]).decode().partition("|")
                self._loop.call_soon_threadsafe(self._heard, job, call)

    def _keep(self, coroutine: Any) -> None:
        assert self._loop is not None
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _by_claim(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """Batches of the same claim, in order."""
    groups: dict[tuple[str, str, int], list[_Asked]] = {}
    for one in asked:
        groups.setdefault((one.claim.job, one.claim.call, one.claim.attempt), []).append(one)
    return [group[low : low + BATCH] for group in groups.values() for low in range(0, len(group), BATCH)]


def _fail(group: Sequence[_Asked], error: Exception) -> None:
    for asked in group:
        if not asked.future.done():
            asked.future.set_exception(error)


def _settle(asked: _Asked, state: str, value: Any, error: ErrorInfo | None) -> None:
    if state == "s":
        asked.future.set_result(value)
    elif state == "f":
        known = error or ErrorInfo(code="tool_failed", message=f"tool `{asked.child.facts['tool']}` failed")
        asked.future.set_exception(ToolError(known.message, code=known.code, next=known.next, retryable=known.retryable))
    elif state == "u":
        asked.future.set_exception(
            EffectUnknown(
                f"call {asked.call} of tool `{asked.child.facts['tool']}` may or may not have had its effect",
                next=f"Find out, then `toolweaver resolve {asked.claim.job} '{asked.call}' --happened` or `--retry`.",
            )
        )
    elif state in ("x", ""):
        asked.future.set_exception(Overtaken("The program's calls were stopped."))


def _worded(tool: str, arguments: Mapping[str, Any]) -> str:
    """A call in words, shortened: `get_expenses(user_id='e7', quarter='Q3')`."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{tool}({text[:200]}{'...' if len(text) > 200 else ''})"
