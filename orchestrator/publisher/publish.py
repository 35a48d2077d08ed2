"""Ready calls become Celery chords, one a step: header = its calls, body = `step_finished`. The only canvas code.

The join is the ledger, so ids are made from the job, step and attempt: a refill of a map's window joins the group of
its first window, and a message that is sent twice looks the same. The body runs in place on the worker that finishes
the step (it publishes what became ready), so it travels in the header and is sent itself only to ask the planner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import groupby

from celery import Celery, chord, group
from celery.canvas import Signature

from orchestrator.broker.queues import PLAN_JOB, PLANNER, PRIORITIES, STEP_FINISHED, task_name
from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import Priority

BATCH = 500


class Publisher:
    """Sends wake-ups. Losing one is harmless: the ledger's outbox brings it back."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def publish(self, calls: Sequence[ReadyCall], *, priority: Priority = "normal") -> None:
        """Publishes calls, each step's as one chord."""
        if not calls:
            return
        with self.app.producer_or_acquire() as producer:
            batch = producer.batch(BATCH) if len(calls) > 1 and hasattr(producer, "batch") else nullcontext()
            with batch:
                for (job, step), members in groupby(calls, key=lambda c: (c.job, c.step)):
                    send_chord(self.app, job, step, members=list(members), priority=priority, producer=producer)

    def wake_planner(self, job: str) -> None:
        """Tells the planner that a job was accepted."""
        try:
            self.app.send_task(
                PLAN_JOB, (job,), queue=PLANNER, task_id=f"{job}:plan", priority=PRIORITIES["interactive"], retry=False
            )
        except self.app.connection_for_write().connection_errors as error:
            raise BackendError(
                f"The broker does not answer: {error}", next="Is the platform up? `toolweaver doctor` tells."
            ) from error


def send_chord(app: Celery, job: str, step: str, *, members: Sequence[ReadyCall], priority: Priority, producer: object) -> None:
    """One step as a Celery chord. `chord.apply_async(producer=)` drops the producer, so the header is frozen and sent."""
    gid = f"{job}:{step}"
    canvas = chord(
        group((_signature(app, c, priority) for c in members), app=app),
        app.signature(STEP_FINISHED, args=(job, step), immutable=True, queue=PLANNER, task_id=f"{gid}:finished"),
        app=app,
    )
    for header in canvas.tasks:
        header.apply_async(
            producer=producer, chord=canvas.body, group_id=gid, root_id=job, parent_id=job, add_to_parent=False, retry=False
        )


def _signature(app: Celery, c: ReadyCall, priority: Priority) -> Signature:
    return app.signature(
        task_name(c.queue),
        args=(c.job, c.call, c.attempt),
        immutable=True,
        queue=c.queue,
        task_id=f"{c.job}:{c.call}:{c.attempt}",
        shadow=c.tool,
        priority=PRIORITIES[priority],
    )


def by_job(calls: Iterable[ReadyCall]) -> dict[str, list[ReadyCall]]:
    """Calls of several jobs, job by job and step by step."""
    jobs: dict[str, list[ReadyCall]] = {}
    for call in calls:
        jobs.setdefault(call.job, []).append(call)
    return {job: sorted(members, key=lambda c: c.step) for job, members in jobs.items()}
