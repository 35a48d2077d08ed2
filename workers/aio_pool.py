"""Celery's side of the async pool: a strategy that turns a message into a call without a trace around it, and its acks.

Celery keeps what it is good at: the broker's connection, prefetch, reconnects, heartbeats, events. Everything here runs
in its main thread; the calls themselves are `workers.aio`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from celery import Celery
from celery.concurrency.base import BasePool
from celery.exceptions import InvalidTaskError
from celery.worker import state

from workers.aio import NOT_BEGUN, AsyncRunner, Message
from workers.step import Ran, Runner

log = logging.getLogger(__name__)

TELL_S = 0.1


@dataclass(eq=False)
class Delivery:
    """One message, as Celery's own books of running tasks know it (`inspect active`, the numbers in Flower)."""

    id: str
    name: str
    job: str
    call: str
    attempt: int
    ack: Callable[..., Any]
    began: float = field(default_factory=time.time)
    told: bool = False

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 (Celery's signature)
        """What `inspect active` shows."""
        args = [self.job, self.call, self.attempt]
        return {"id": self.id, "name": self.name, "args": args, "kwargs": {}, "time_start": self.began, "acknowledged": False}


class AsyncPool:
    """The calls of one worker process between Celery's consumer and the loop."""

    def __init__(
        self, app: Celery, runner: Runner, *, events: bool, service: AbstractAsyncContextManager[None] | None = None
    ) -> None:
        """`service` is entered on the loop before the first call, and left after the last."""
        self._service = service
        self.calls = AsyncRunner(runner, started=self._started, ended=self._ended)
        self._events = events
        self._consumer: Any = None
        self._open: set[Delivery] = set()
        self._untold: list[tuple[str, dict[str, Any]]] = []
        self._news: SimpleQueue[tuple[bool, Sequence[Any]]] = SimpleQueue()
        app.conf.worker_pool = self._pool_class()

    def strategy(self, task: Any, app: Celery, consumer: Any) -> Callable[..., None]:  # noqa: ARG002 (Celery's hook)
        """What is done with each message; Celery asks again after every reconnect."""
        self._consumer = consumer
        take, opened = self.calls.take, self._open.add

        def received(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:  # noqa: ARG001 (Celery's signature)
            delivery = _delivery(message, ack)
            opened(delivery)
            state.task_reserved(delivery)
            take(delivery)

        return received

    def _pool_class(self) -> type[BasePool]:
        ours = self

        class Pool(BasePool):
            """Celery's handle on the pool."""

            def on_start(self) -> None:
                ours.calls.start()
                if ours._service is not None:
                    ours.calls.serve(ours._service)

            def on_close(self) -> None:
                ours.calls.close()

            def on_stop(self) -> None:
                ours.drain()

        return Pool

    def drain(self) -> None:
        """Waits for the calls that run, and settles them while Celery's own loop stands still."""
        while self._open:
            try:
                self._settle(*self._news.get(timeout=0.5))
            except Empty:
                continue
        self._tell_all()
        if self._events and self._consumer.event_dispatcher:
            self._consumer.event_dispatcher.flush()
        self.calls.stop()

    def _started(self, messages: Sequence[Message]) -> None:
        if self._events:
            self._hand_over(False, messages)

    def _ended(self, rans: Sequence[tuple[Message, Ran]]) -> None:
        self._hand_over(True, rans)

    def _hand_over(self, ended: bool, what: Sequence[Any]) -> None:
        """From the threads of the calls to Celery's."""
        self._news.put((ended, what))
        self._consumer.hub.call_soon(self._settle_all)

    def _settle_all(self) -> None:
        while True:
            try:
                self._settle(*self._news.get_nowait())
            except Empty:
                return

    def _settle(self, ended: bool, what: Sequence[Any]) -> None:
        if ended:
            for delivery, ran in what:
                self._settled(delivery, ran)
            return
        for delivery in what:
            state.task_accepted(delivery)
            self._tell_received(delivery)
            self._tell("task-started", delivery)

    def _settled(self, delivery: Delivery, ran: Ran) -> None:
        self._open.discard(delivery)
        state.task_ready(delivery)
        if ran.verdict == NOT_BEGUN:
            return  # not acknowledged: the broker keeps it for others
        delivery.ack(log, self._consumer.connection_errors)
        if not self._events:
            return
        self._tell_received(delivery)
        if ran.failed:
            self._tell("task-failed", delivery, exception=str(ran), traceback="")
        else:
            self._tell("task-succeeded", delivery, result=repr(str(ran)), runtime=time.time() - delivery.began)

    def _tell_received(self, delivery: Delivery) -> None:
        if not delivery.told:
            delivery.told = True
            more = {"parent_id": delivery.job, "root_id": delivery.job, "retries": 0, "eta": None, "expires": None, "kwargs": "{}"}
            args = repr((delivery.job, delivery.call, delivery.attempt))
            self._tell("task-received", delivery, name=delivery.name, args=args, timestamp=delivery.began, **more)

    def _tell(self, kind: str, delivery: Delivery, **more: Any) -> None:
        """Notes an event. Celery would publish it at once, which costs as much as a call; here it is ten times a second."""
        if not self._untold:
            self._consumer.hub.call_later(TELL_S, self._tell_all)
        self._untold.append((kind, {"uuid": delivery.id, "timestamp": time.time(), **more}))

    def _tell_all(self) -> None:
        untold, self._untold = self._untold, []
        eventer = self._consumer.event_dispatcher
        if eventer and eventer.enabled:
            for kind, fields in untold:
                eventer.send(kind, **fields)


def _delivery(message: Any, ack: Any) -> Delivery:
    """The call of a message by its id, which says it all: the body, ten times as long, is not even decoded."""
    try:
        headers = message.headers
        job, call, attempt = headers["id"].rsplit(":", 2)
        return Delivery(headers["id"], headers.get("shadow") or headers["task"], job, call, int(attempt), ack)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidTaskError(f"no message of ours: {error}") from error
