"""What a person may do with a job from outside: submit, cancel, retry, resolve. Each change is followed by its wake-ups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery

from orchestrator.errors import BackendError, Conflict, NotFound, RequestError
from orchestrator.jobs.ledger import Committed
from orchestrator.jobs.requests import Request
from orchestrator.jobs.store import JobStore, NoPlanYet
from orchestrator.models.job import JobStatus, JobView, Priority, Purged
from orchestrator.models.plan import Plan
from orchestrator.monitoring.feed import record_confirmation
from orchestrator.publisher.compile import lengths_for
from orchestrator.publisher.graph import build_graph
from orchestrator.publisher.housekeeping import purge_tenant
from orchestrator.publisher.publish import Publisher, follow


class Control:
    """The store's changes together with the messages that they cause."""

    def __init__(self, store: JobStore, app: Celery) -> None:
        self.store = store
        self.publisher = Publisher(app)

    def accept(
        self,
        plan: Plan,
        *,
        inputs: Mapping[str, Any],
        name: str = "",
        priority: Priority = "normal",
        tenant: str = "default",
        caller: str = "direct",
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[str, bool]:
        """Accepts a checked plan and wakes the planner; the job's id, and whether it is new.

        Raises:
            Conflict: the idempotency key was used with another body.
        """
        job, created = self.store.submit(
            plan, inputs=inputs, name=name, priority=priority, tenant=tenant, caller=caller, idempotency=idempotency
        )
        if created:
            self._wake(job)
        return job, created

    def accept_request(
        self,
        request: Request,
        *,
        inputs: Mapping[str, Any],
        priority: Priority = "normal",
        tenant: str = "default",
        caller: str = "direct",
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[str, bool]:
        """Accepts a request in words and wakes the planner; the job's id, and whether it is new.

        Raises:
            Conflict: the idempotency key was used with another body.
        """
        job, created = self.store.submit_request(
            request, inputs=inputs, priority=priority, tenant=tenant, caller=caller, idempotency=idempotency
        )
        if created:
            self._wake(job)
        return job, created

    def confirm(self, job_id: str, *, tenant: str = "default") -> JobView:
        """Lets the plan of a request run that waits for it; confirming twice is once.

        Raises:
            NotFound: there is none of that id for this tenant.
            Conflict: the job does not wait for a confirmation.
        """
        status = self.store.status(job_id, tenant=tenant)
        verdict = self.store.requests.confirm(job_id)
        if verdict == "no plan":
            raise NoPlanYet(
                f"Job {job_id} has no plan yet.",
                next="Follow its events; one that was submitted with the mode `confirm` says when it waits.",
            )
        if verdict not in ("ok", "again"):
            raise Conflict(
                f"Job {job_id} is {status}; only a request that was submitted with the mode `confirm` waits for a confirmation."
            )
        if verdict == "ok":
            record_confirmation("confirmed")
            self._wake(job_id)
        return self.store.view(job_id, tenant=tenant)

    def cancel(self, job_id: str, *, tenant: str = "default") -> JobView:
        """Cancels a job; running cooperative calls stop. Cancelling a cancelled job changes nothing.

        Raises:
            NotFound: there is none of that id for this tenant.
            Conflict: the job has ended otherwise.
        """
        self.store.status(job_id, tenant=tenant)
        ended = self.store.ledger.cancel(job_id)
        if ended.verdict in (JobStatus.SUCCEEDED, JobStatus.FAILED):
            raise Conflict(f"Job {job_id} has already {ended.verdict}; there is nothing to cancel.")
        self._follow(ended)
        return self.store.view(job_id, tenant=tenant)

    def retry(self, job_id: str, *, tenant: str = "default") -> JobView:
        """Lets an ended job go on from the calls that did not succeed; the others keep their results.

        Raises:
            Conflict: the job has not ended, or all of it succeeded.
        """
        plan = self.store.planned(job_id, tenant=tenant)
        rows = [(n, node.barrier, node.aligned) for n, node in build_graph(plan).nodes.items()] if plan is not None else []
        retried = self.store.ledger.retry(job_id, rows)
        if retried.verdict.startswith("job "):
            raise Conflict(
                f"Job {job_id} is {retried.verdict[4:]}; only a failed or cancelled job, or one with errors, is retried."
            )
        if retried.verdict == "plan":
            self._wake(job_id)
        self._follow(retried)
        return self.store.view(job_id, tenant=tenant)

    def purge(self, tenant: str) -> Purged:
        """Deletes all of a tenant's jobs and files (see `purge_tenant`)."""
        return purge_tenant(self.store, self.publisher, tenant)

    def resolve(self, job_id: str, call: str, *, happened: bool, result: Any = None, tenant: str = "default") -> JobView:
        """Says whether the effect of an `unknown` call happened (its result is then `result`) or shall be tried again.

        Raises:
            NotFound: the job has no such call.
            Conflict: the call is not unknown.
        """
        plan = self.store.plan(job_id, tenant=tenant)
        step = call.rpartition("#")[0] or call
        call = call if "#" in call else f"{call}#0"
        if step.partition(".")[0] not in {s.id for s in plan.steps} or not call.rpartition("#")[2].isdigit():
            raise NotFound(f"Job {job_id} has no call `{call}`.", path="call", next="`toolweaver status` lists the unknown calls.")
        if not happened and result is not None:
            raise RequestError("A call that is tried again brings its own result.", path="result", next="Leave `result` out.")
        raw = self.store.redis.hget(self.store.ledger.keys(job_id).state, f"x:{step}")
        takes: Sequence[Sequence[Any]] = json.loads(raw).get("lens", []) if raw else []
        lengths = lengths_for(takes, index=int(call.rpartition("#")[2]), result=result)
        value = self.store.stored_value(result)
        resolved = self.store.ledger.resolve(job_id, call, happened=happened, value=value, lengths=lengths)
        if resolved.verdict != "ok":
            raise Conflict(f"Call `{call}` of {job_id} is not unknown ({resolved.verdict}).", path="call")
        self._follow(resolved)
        return self.store.view(job_id, tenant=tenant)

    def _wake(self, job: str) -> None:
        try:
            self.publisher.wake_planner(job)
        except BackendError:
            return  # the job is stored; the reconciler wakes the planner when the broker is back

    def _follow(self, committed: Committed) -> None:
        follow(self.store.ledger, self.publisher, committed)
