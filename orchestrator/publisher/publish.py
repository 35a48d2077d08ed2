"""Ready calls become Celery chords, one a step: header = its calls, body = `step_finished`. The only canvas code.

The join is the ledger, so ids are made from the job, step and attempt: a refill of a map's window joins the group of
its first window, and a message that is sent twice looks the same. The body runs in place on the worker that finishes
the step (it publishes what became ready), so it travels in the header and is sent itself only to ask the planner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from itertools import groupby
from typing import Any

from celery import Celery, chord, group
from celery.canvas import Signature
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # its stubs are older

from orchestrator.broker.queues import LEVELS, PLAN_JOB, PLANNER, PRIORITIES, PRIVATE, STEP_FINISHED, list_name, task_name
from orchestrator.broker.rabbitmq import Unconfirmed
from orchestrator.broker.renew import Silence, renew
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import Committed, Ledger, NewerJob, ReadyCall
from orchestrator.monitoring.feed import record, record_confirmation
from orchestrator.monitoring.metrics import JOBS_ENDED, Count

BATCH = 500
MOVES = 8  # from gate to gate, which let nothing in


class Publisher:
    """Sends wake-ups. Losing one is harmless: the ledger's outbox brings it back."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        connection: Any = app.connection_for_write()
        errors = (*connection.connection_errors, *connection.channel_errors)
        self._away: tuple[type[Exception], ...] = (*errors, OperationalError, BatchPublishError)
        self._silence = Silence()

    def publish(self, calls: Sequence[ReadyCall]) -> None:
        """Publishes calls, each step's as one chord."""
        if not calls:
            return

        def send(producer: Any) -> None:
            for (job, step), members in groupby(sorted(calls, key=_step_of), key=_step_of):
                send_chord(self.app, job, step, members=list(members), producer=producer)

        self._send(send, {c.queue for c in calls})

    def wake_planner(self, job: str) -> None:
        """Tells the planner that a job was accepted."""
        message: Any = {"queue": PLANNER, "task_id": f"{job}:plan", "priority": PRIORITIES["interactive"], "retry": False}
        try:
            self._send(lambda producer: self.app.send_task(PLAN_JOB, (job,), producer=producer, **message), {PLANNER})
        except OperationalError as error:
            raise BackendError(str(error), next="Is the platform up? `toolweaver doctor` tells.") from error

    def waiting(self, queue: str) -> int:
        """Messages of a queue in the broker; on RabbitMQ those that no worker has taken yet.

        Raises:
            OperationalError: the broker does not answer.
        """
        try:
            with self.app.pool.acquire(block=True) as connection:
                return _count(connection, queue)
        except self._away as error:
            raise OperationalError(f"The broker does not answer: {error}") from error

    def _send(self, send: Callable[[Any], object], queues: Set[str]) -> None:
        """Sends in one batch over a connection of the pool; if that one died while nobody used it, over a new one.

        A queue that was silent for long is put anew, and sent to once more.

        Raises:
            OperationalError: the broker does not answer.
        """
        try:
            self._send_twice(send)
        except self._away as error:
            raise OperationalError(f"The broker does not answer: {error}") from error
        self._silence.heard(queues)

    def _send_twice(self, send: Callable[[Any], object]) -> None:
        try:
            self._send_once(send)
        except self._away:
            try:
                self._send_once(send)
            except Unconfirmed as error:
                if not [renew(self.app, queue) for queue in self._silence.lasting(error.queues)]:
                    raise
                self._send_once(send)
            except self._away:
                self._silence.heard()
                raise

    def _send_once(self, send: Callable[[Any], object]) -> None:
        pool: Any = self.app.producer_pool
        with pool.acquire(block=True) as producer, producer.batch(BATCH):
            send(producer)


def _count(connection: Any, queue: str) -> int:
    default: Any = connection.default_channel
    if hasattr(
        default, "conn_or_acquire"
    ):  # Redis: one list a level. `client` may have a BRPOP of a consumer open, so one beside it
        with default.conn_or_acquire() as client:
            return sum(int(client.llen(list_name(queue, level))) for level in LEVELS)
    with connection.channel() as channel:  # of its own, since the broker closes it when there is no such queue
        try:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except connection.channel_errors:
            return 0


def _step_of(call: ReadyCall) -> tuple[str, str]:
    return call.job, call.step


def send_chord(app: Celery, job: str, step: str, *, members: Sequence[ReadyCall], producer: object) -> None:
    """One step as a Celery chord. `chord.apply_async(producer=)` drops the producer, so the header is frozen and sent."""
    gid = f"{job}:{step}"
    canvas = chord(
        group((_signature(app, c) for c in members), app=app),
        app.signature(STEP_FINISHED, args=(job, step), immutable=True, queue=PLANNER, task_id=f"{gid}:finished"),
        app=app,
    )
    for header in canvas.tasks:
        header.apply_async(
            producer=producer, chord=canvas.body, group_id=gid, root_id=job, parent_id=job, add_to_parent=False, retry=False
        )


def _signature(app: Celery, c: ReadyCall) -> Signature:
    return app.signature(
        task_name(c.queue),
        args=(c.job, c.call, c.attempt),
        immutable=True,
        queue=c.queue,
        task_id=f"{c.job}:{c.call}:{c.attempt}",
        shadow=c.tool,
        declare=[] if c.queue.startswith(PRIVATE) else None,  # whoever serves it declared it, to be gone with it
        priority=c.level,
    )


def follow(ledger: Ledger, publisher: Publisher, committed: Committed) -> None:
    """Publishes what a change set free, and gives what was parked its turn, one after the other.

    What is not followed because a process dies, a server is away or the job is of a newer version, the reconciler finds; so it
    does when one change would only move many from a gate with room to one that is full.
    """
    if committed.over:
        record(Count(JOBS_ENDED, (committed.over.rstrip("!?"), "true" if "!" in committed.over else "false")))
    if "?" in committed.over:
        record_confirmation("refused")
    publisher.publish(committed.ready)
    parked, moved = list(committed.parked), 0
    while parked and moved < MOVES:
        try:
            released = ledger.release(parked.pop())
        except NewerJob:
            continue
        moved += released.verdict == "moved"
        publisher.publish(released.ready)
        parked += released.parked
