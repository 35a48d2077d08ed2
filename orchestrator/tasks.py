"""The planner process: takes accepted jobs, publishes their first steps, and repairs what was lost.

`python -m orchestrator.tasks` runs it; several may run.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # while modules are loaded, of which nothing is garbage: looking for it took a fifth of the start

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import PLAN_JOB, PLANNER, STEP_FINISHED
from orchestrator.broker.worker import run_worker
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore
from orchestrator.errors import BackendError, ToolWeaverError
from orchestrator.jobs.ledger import Committed, NewerJob, Queues, StepRow
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import ErrorInfo
from orchestrator.models.plan import Plan
from orchestrator.monitoring.feed import Feed, use_feed
from orchestrator.publisher.compile import Compiled, compile_plan
from orchestrator.publisher.envelope import Envelopes
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.publisher.reconcile import Reconciler, start
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect, transient
from orchestrator.state.keys import METRICS

if TYPE_CHECKING:
    from orchestrator.planner.service import RequestPool

log = logging.getLogger(__name__)

PASSED_MOST = 200  # jobs that one message passes over: those of newer planners, and requests for which there is no place


class Planner:
    """Turns accepted jobs into published steps; requests in words are handed to a pool of their own."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        client = connect(settings)
        self.store = JobStore(client, settings)
        self.catalog = CatalogStore(client)
        self.bundled = bundled_catalog()
        self.publisher = Publisher(app)
        self.envelopes = Envelopes(app)
        self._compile = lru_cache(maxsize=32)(self._compile_new)
        use_feed(Feed(client, METRICS))

    @cached_property
    def requests(self) -> RequestPool:
        """Where requests in words are planned; made with the first one, since what judges plans takes long to load."""
        from orchestrator.planner.service import RequestPool  # noqa: PLC0415
        from orchestrator.planner.turns import Turns  # noqa: PLC0415

        turns = Turns.of(self.store, catalog=self.catalog, bundled=self.bundled, start=self._plan, follow=self._follow)
        most = self.store.settings.planner_concurrency
        return RequestPool(self.store.requests, turns, concurrency=most, wake=self.publisher.wake_planner)

    def close(self) -> None:
        """Gives back the requests that are being planned here."""
        if "requests" in self.__dict__:
            self.requests.close()

    def plan_job(self, job: str) -> int:
        """Starts an accepted job, how many steps it has: the one whose turn it is, since a message is only a wake-up."""
        shard = self.store.ledger.keys(job).shard
        for _ in range(PASSED_MOST):
            if (taken := self.store.ledger.take(shard)) is None:
                return 0
            try:
                steps = self._plan(taken)
            except NewerJob:  # a newer planner takes it: this message is for one that stands behind it
                log.info("left to a newer planner", extra={"action": "newer_job", "job_id": taken})
                continue
            if steps is not None:
                return steps
        self.publisher.wake_planner(job)
        return 0

    def _plan(self, job: str) -> int | None:
        """Starts a job or has it planned; None: a request for which there is no place now."""
        try:
            return self._start(job)
        except BackendError:
            raise  # what it needs is away: the reconciler wakes again
        except ToolWeaverError as error:
            return self._give_up(job, ErrorInfo(code=error.code, family=error.family, message=str(error), next=error.next))
        except Exception as error:  # a defect of ours must not leave the job waiting for ever
            if transient(error):
                raise  # the reconciler wakes the planner again
            log.exception("planning failed", extra={"action": "plan_error", "job_id": job})
            return self._give_up(
                job, ErrorInfo(code="internal", family="backend", message=f"planning failed: {type(error).__name__}: {error}")
            )

    def _start(self, job: str) -> int | None:
        accepted = self.store.accepted(job)
        if accepted is None:
            return 0
        if accepted.wants != "start":
            return 0 if self.requests.offer(job) else None
        compiled = self._compile(accepted.plan, self.catalog.version())
        lengths = compiled.lengths(accepted.inputs)
        queues = Queues(compiled.queues, accepted.priority)
        envelopes = self.envelopes.named(compiled.tools, queues.priority) if self.store.ledger.direct else {}
        started = self.store.ledger.start(
            job,
            rows=_numbered(compiled.rows, accepted.number),
            lengths=lengths,
            queues=queues,
            lanes=compiled.lanes,
            envelopes=envelopes,
            number=accepted.number,
        )
        self._follow(started)
        log.info("published", extra={"action": "publish", "job_id": job})
        return len(compiled.rows)

    def _compile_new(self, plan: bytes, _catalog: bytes | None) -> Compiled:
        """Kept by the text of the plan and the version of the catalog: jobs of one plan often come in numbers."""
        return compile_plan(
            Plan.model_validate_json(plan), catalog=self.catalog.all(self.bundled), shards=self.store.settings.shards
        )

    def _give_up(self, job: str, error: ErrorInfo) -> int:
        self._follow(self.store.ledger.fail(job, error.model_dump_json().encode()))
        return 0

    def _follow(self, committed: Committed) -> None:
        try:
            follow(self.store.ledger, self.publisher, committed)
        except OperationalError as error:
            log.warning("what became ready stays in the outbox: %s", error, extra={"action": "publish_failed"})


def _numbered(rows: Sequence[StepRow], number: int) -> Sequence[StepRow]:
    """Steps of a request's plan say which plan of it that is: its inputs are those of that plan."""
    return [replace(row, spec={**row.spec, "number": number}) for row in rows] if number else rows


def register(app: Celery, planner: Planner) -> None:
    """The planner's Celery tasks."""

    @app.task(name=PLAN_JOB)
    def plan_job(job: str) -> int:
        return planner.plan_job(job)

    @app.task(name=STEP_FINISHED)
    def step_finished(job: str, step: str) -> None:
        """Body of a step's chord: the finishing worker did its work; a message comes only when the planner is asked."""
        log.debug("step finished", extra={"action": "step_finished", "job_id": job, "step_id": step})


def main() -> None:
    """Runs a planner process until SIGTERM."""
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    app = make_app(settings)
    planner = Planner(settings, app)
    register(app, planner)
    stops: list[Any] = []

    @worker_ready.connect(weak=False)
    def _begin(**_: Any) -> None:
        stops.append(start(Reconciler(planner.store, planner.publisher)))

    @worker_shutting_down.connect(weak=False)
    def _end(**_: Any) -> None:
        planner.close()
        for stop in stops:
            stop()

    # solo: the planner's tasks are short, and the reconciler's thread must not be forked
    run_worker(app, queue=PLANNER, log_level=settings.log_level, pool="solo")


if __name__ == "__main__":
    main()
