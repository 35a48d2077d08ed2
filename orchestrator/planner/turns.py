"""One turn of a planner with a request: the plan is made, checked once more and stored, or the job waits, or it fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis

from orchestrator.catalog.store import CatalogStore
from orchestrator.errors import BackendError, PlanError, ToolWeaverError
from orchestrator.jobs.ledger import Committed
from orchestrator.jobs.requests import Request, Turn
from orchestrator.jobs.store import JobStore
from orchestrator.models.file import FileRef, digests_in
from orchestrator.models.job import ErrorInfo, Planning
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring.feed import record_job_cost, record_model_call, record_plan
from orchestrator.planner.asked import KEPT, Former, Planned, PlanRequest
from orchestrator.planner.check import check_plan
from orchestrator.planner.remembered import RememberingModel, write_down
from orchestrator.planner.replan import inputs_used, kept_inputs
from orchestrator.planner.synthesis import steps_read
from orchestrator.planner.underway import UnderwayModel
from orchestrator.planner.wording import model_synthesis
from orchestrator.policy.breaker import Breakers
from orchestrator.policy.model_guard import GuardedModel
from orchestrator.policy.permissions import check_steps
from orchestrator.policy.provider_limits import ProviderLimits
from orchestrator.policy.store import PolicyStore
from orchestrator.providers.model import Model
from orchestrator.providers.warm import large_model, prices
from orchestrator.publisher.graph import build_graph
from orchestrator.state.connection import transient

log = logging.getLogger(__name__)

WAIT_MOST_S = 600.0  # that a request waits in all for a provider, before it fails
PAUSE_LEAST_S, PAUSE_MOST_S = 2.0, 60.0
KEPT_MAX = 16 << 20  # bytes of results that a new plan is handed
_SAID = 5  # problems of a plan that an error tells
Start = Callable[[str], object]
"""Publishes the first steps of a job that has its plan."""

Follow = Callable[[Committed], None]
"""Lets in what a change set free, also while the broker is away."""


class MakesPlans(Protocol):
    """What makes a plan of a request: `LargePlanner`."""

    async def make_plan(self, request: PlanRequest, *, model: Model | None = None) -> Planned:
        """See `LargePlanner.make_plan`."""


class Turns:
    """What one planner process does with the requests whose turn it has."""

    def __init__(
        self,
        store: JobStore,
        *,
        tools: Callable[[str], ToolCatalog],
        planner: Callable[[ToolCatalog], MakesPlans],
        model: Callable[[], Model | None],
        start: Start,
        follow: Follow,
    ) -> None:
        """`tools`: those that a tenant sees. `model`: None where none is set."""
        self.store, self.requests, self.settings = store, store.requests, store.settings
        self._tools, self._planner, self._model, self._start, self._follow = tools, planner, model, start, follow
        self._policies = PolicyStore(store.redis, store.settings)
        self._limits = ProviderLimits.of(store.settings, store.redis)
        self._breakers = Breakers(store.redis, store.settings)

    @classmethod
    def of(cls, store: JobStore, *, catalog: CatalogStore, bundled: ToolCatalog, start: Start, follow: Follow) -> Turns:
        """With the model and the index service that the settings name."""
        # Late, since what searches takes a third of a second to load.
        from orchestrator.planner.large import LargePlanner  # noqa: PLC0415
        from orchestrator.tool_search.client import IndexClient  # noqa: PLC0415

        settings, index = store.settings, IndexClient.of(store.settings)
        return cls(
            store,
            tools=lambda tenant: catalog.all(bundled).seen_by(tenant),
            planner=lambda tools: LargePlanner(tool_catalog=tools, settings=settings, index=index),
            model=lambda: large_model(settings) if settings.planner_provider is not None else None,
            start=start,
            follow=follow,
        )

    async def serve(self, turn: Turn) -> None:
        """Makes what is wanted; an error ends in the job, unless the store is away: then another planner takes it up."""
        if turn.lost >= self.settings.max_lost:
            await asyncio.to_thread(self._give_up, turn)
            return
        try:
            await (self._plan(turn) if turn.wanted == "plan" else self._answer(turn))
        except ToolWeaverError as error:
            await asyncio.to_thread(self._unmade, turn, error)
        except Exception as error:  # a defect of ours must not leave the job waiting for ever
            if transient(error):
                log.warning("a request is left to its lease: %s", error, extra=_where(turn, "plan_left"))
                return
            log.exception("planning failed", extra=_where(turn, "plan_error"))
            message = f"planning failed: {type(error).__name__}: {error}"
            await asyncio.to_thread(self._fail, turn, ErrorInfo(code="internal", family="backend", message=message))

    # --- the plan

    async def _plan(self, turn: Turn) -> None:
        asked = await asyncio.to_thread(self._asked, turn)
        tools = await asyncio.to_thread(self._tools, asked.tenant)
        async with _Asking(self, turn) as asking:
            model = await asyncio.to_thread(self._guarded, turn, asking)
            made = await self._planner(tools).make_plan(asked, model=model)
        await write_down(self._keep, turn, asked, made, model)

    def _asked(self, turn: Turn) -> PlanRequest:
        job = turn.job
        request, accepted = self.store.request(job), self.store.accepted(job)
        if request is None or accepted is None:
            raise PlanError(f"Job {job} is not to be planned any more.")
        tenant = self.store.tenant(job)
        kept = {name: value for name, value in accepted.inputs.items() if name.startswith(KEPT)}
        inputs = self.store.given(job) | (kept if accepted.number else {})
        return PlanRequest(
            request.text,
            inputs,
            tenant=tenant,
            caller=self.store.caller(job),
            policy=self._policies.of(tenant),
            available_tools=request.tools,
            former=self._former(job, tenant) if accepted.number else None,
            files=self._files(inputs, tenant),
        )

    def _files(self, inputs: Any, tenant: str) -> dict[str, FileRef]:
        named = sorted(digests_in(json.dumps(inputs, ensure_ascii=False).encode()))
        found = [booked.file for sha256 in named if (booked := self.store.files.blobs.books.find(tenant, sha256)) is not None]
        return {file.ref: file for file in found}

    def _former(self, job: str, tenant: str) -> Former:
        view, done = self.store.view(job, tenant=tenant), self.store.result(job, tenant=tenant)
        succeeded = {s.id for s in view.steps if s.state == "succeeded"}
        results = {name: value for name, value in done.steps.items() if name in succeeded}
        number = len(self.store.former_plans(job)) + 1
        return Former(self.store.plan(job, tenant=tenant), results, done.errors, number)

    def _keep(self, turn: Turn, asked: PlanRequest, made: Planned, model: Model | None) -> None:
        plan, inputs = self._checked(turn, asked, made)
        number = asked.former.number + 1 if asked.former is not None else 1
        facts = _facts(made, model, number=number)
        replans = self.settings.planner_replans if made.source == "model" else 0
        worded = self.settings.synthesis == "model" and model is not None
        kept = self.requests.planned(turn, plan, inputs=inputs, made=facts, replans=replans, worded=worded)
        log.info("planned: %s", kept.verdict, extra=_where(turn, "planned"))
        if kept.verdict not in ("start", "waits", "ends"):
            return
        record_plan(made.source, repairs=made.repairs, replan=number > 1, degraded=made.degraded)
        if number == 1 and not (worded and kept.verdict != "ends"):
            self._tell_cost(turn.job)
        self._follow(kept)
        if kept.verdict == "start":
            self._start(turn.job)

    def _checked(self, turn: Turn, asked: PlanRequest, made: Planned) -> tuple[Plan, bytes]:
        """The plan, checked as one that a person submits, and the inputs that it has, as they are stored.

        Raises:
            PlanError: it has problems, or a step has the id of a former one.
            PermissionDenied: it uses what the submitter may not use.
        """
        former = self.store.former_plans(turn.job)
        kept = kept_inputs(made.plan, asked.former) if asked.former is not None else {}
        given = {**asked.inputs, **kept}
        tools = self._tools(asked.tenant)
        used = inputs_used(made.plan)
        plan = check_plan(made.plan, tools, inputs={name: value for name, value in given.items() if name in used}).plan
        assert asked.policy is not None, "the request was made with one"
        _refuse_others(plan, asked.available_tools)
        check_steps(plan, tools, asked.policy, tenant=asked.tenant, caller=asked.caller)
        before = [*former, *([asked.former.plan] if asked.former is not None else [])]
        _refuse_used_ids(plan, before)
        values = json.dumps({**plan.inputs, **given}, ensure_ascii=False).encode()
        if kept and len(values) > KEPT_MAX:
            raise PlanError(f"The results that the new plan would go on with are {len(values) >> 20} MiB, too many to hand on.")
        text = plan.model_dump_json(exclude_defaults=True).encode()
        return plan, self.store.files.submitted(turn.job, plan=text, inputs=values, tenant=asked.tenant)

    # --- the answer

    async def _answer(self, turn: Turn) -> None:
        try:
            text = await self._worded(turn)
        except Exception as error:  # whatever it is, the job is done and has its template
            if transient(error):
                raise
            log.warning("the answer is worded by the template: %s", error, extra=_where(turn, "answer_failed"))
            text = None
        await asyncio.to_thread(self._end, turn, text)

    def _end(self, turn: Turn, text: str | None) -> None:
        ended = self.requests.answered(turn, text)
        self._follow(ended)
        if ended.verdict == "ok":
            self._tell_cost(turn.job)

    async def _worded(self, turn: Turn) -> str | None:
        request, plan, results = await asyncio.to_thread(self._done, turn.job)
        async with _Asking(self, turn) as asking:
            model = await asyncio.to_thread(self._guarded, turn, asking)
            if model is None:
                return None
            return await model_synthesis(model, request.text, plan, results)

    def _done(self, job: str) -> tuple[Request, Plan, dict[str, Any]]:
        request, plan = self.store.request(job), self.store.plan(job, tenant=self.store.tenant(job))
        assert request is not None, "only a request is answered in words"
        return request, plan, self.store.steps_result(job, steps=steps_read(plan, build_graph(plan)))

    # --- models and errors

    def _guarded(self, turn: Turn, asking: _Asking) -> Model | None:
        """The model under its limits and breaker; each call is counted for the job, and its answer remembered.

        Raises:
            ModelError: it cannot be made of the settings.
        """
        found = self._model()
        if found is None:
            return None
        underway = UnderwayModel(found, self.requests, turn)
        guarded = GuardedModel(
            underway,
            limits=self._limits,
            breakers=self._breakers,
            retries=self.settings.planner_retries,
            on_call=lambda call: asking.note(underway.named(call)),
            on_wait=asking.say,
            price=lambda provider, name, tokens: prices().cost_usd(provider, name, tokens),
            ticket=turn.job,
        )
        return RememberingModel(guarded, self.requests, turn)

    def _unmade(self, turn: Turn, error: ToolWeaverError) -> None:
        if not (isinstance(error, BackendError) and error.retryable):
            self._fail(turn, error_info(error))
            return
        after = getattr(error, "retry_after_s", None) or 0.0
        pause_s = max(after, min(PAUSE_MOST_S, PAUSE_LEAST_S * 2**turn.pauses))
        verdict = self.requests.wait(turn, reason=error.message, pause_s=pause_s, most_s=WAIT_MOST_S, code=error.code)
        log.info("no plan now: %s", error.message, extra=_where(turn, "plan_waits"))
        if verdict == "over":
            self._fail(turn, _too_long(error, turn.job, pause_s))

    def _fail(self, turn: Turn, error: ErrorInfo) -> None:
        failed = self.store.ledger.fail(turn.job, error.model_dump_json().encode(), token=turn.token)
        if failed.verdict != "planning":
            return
        record_plan("none")
        self._tell_cost(turn.job)
        self._follow(failed)
        if self.settings.planner_provider is not None:
            self._limits.leave(self.settings.planner_provider, turn.job)

    def _give_up(self, turn: Turn) -> None:
        """What takes its planners down takes the requests beside it down too, and may be paid for each time."""
        if turn.wanted == "answer":
            self._end(turn, None)
            return
        said = f"{turn.lost} planner processes were lost while they planned it; it is not planned again"
        move = f"Look at the planner's log for a crash or the out-of-memory killer; then `toolweaver retry {turn.job}`."
        self._fail(turn, ErrorInfo(code="poison", family="backend", message=said, next=move))

    def _tell_cost(self, job: str) -> None:
        cost = self.requests.usage(job).cost_usd
        if cost is not None:
            record_job_cost(cost)


class _Asking:
    """What is told of a model's calls while a request is planned. What the store does not take now is told at the end."""

    def __init__(self, turns: Turns, turn: Turn) -> None:
        self._turns, self._turn = turns, turn
        self._untold: list[ModelCall] = []
        self._said: set[asyncio.Future[None]] = set()

    def note(self, call: ModelCall) -> None:
        """A call that was sent: counted for the job at once, before its answer is used."""
        record_model_call(call)
        try:
            self._turns.requests.note_call(self._turn.job, call)
        except redis.RedisError as error:
            log.warning("a model's call is counted later: %s", error, extra=_where(self._turn, "usage_waits"))
            self._untold.append(call)

    def say(self, reason: str, seconds: float) -> None:
        """Why a request to the model waits."""
        said = asyncio.ensure_future(asyncio.to_thread(self._say, reason, seconds))
        self._said.add(said)
        said.add_done_callback(self._said.discard)

    def _say(self, reason: str, seconds: float) -> None:
        try:
            self._turns.requests.say(self._turn, reason=reason, for_s=seconds)
        except redis.RedisError:
            return  # it is only news

    async def __aenter__(self) -> _Asking:
        return self

    async def __aexit__(self, *_: object) -> None:
        untold, self._untold = self._untold, []
        for call in untold:
            await write_down(self._turns.requests.note_call, self._turn.job, call)
        if self._said:
            await asyncio.wait(self._said)


def error_info(error: ToolWeaverError) -> ErrorInfo:
    """An error as a job tells it, with a few of the problems that it names."""
    lines = [f"{p.get('path', '$')}: {p.get('message', '')}" for p in error.problems[:_SAID]]
    more = [f"and {len(error.problems) - _SAID} more"] if len(error.problems) > _SAID else []
    message = "\n".join([error.message, *lines, *more])
    return ErrorInfo(code=error.code, family=error.family, message=message, next=error.next, retryable=error.retryable)


def _too_long(error: ToolWeaverError, job: str, pause_s: float) -> ErrorInfo:
    said = f"{error.message} It was tried for {WAIT_MOST_S / 60:g} minutes" if pause_s <= PAUSE_MOST_S else error.message
    move = f"Try again in {pause_s:.0f} s: `toolweaver retry {job}`."
    return ErrorInfo(code=error.code, family=error.family, message=said, next=move, retryable=True)


def _facts(made: Planned, model: Model | None, *, number: int) -> Planning:
    return Planning(
        source=made.source,
        model=f"{model.provider} {model.name}" if made.source == "model" and model is not None else None,
        template=made.template,
        repairs=made.repairs,
        shown=made.shown,
        of=made.of,
        searched=made.searched,
        degraded=made.degraded,
        notes=made.notes,
        reused=made.reused,
        number=number,
    )


def _refuse_others(plan: Plan, names: Sequence[str] | None) -> None:
    """Who submitted the request may have named the tools that it may use."""
    others = [s.tool for s in plan.steps if names is not None and s.tool not in names]
    if others:
        raise PlanError(f"The plan uses the tool `{others[0]}`, which is not among those that the request may use.")


def _refuse_used_ids(plan: Plan, former: Sequence[Plan]) -> None:
    """What a former plan's steps did stands under their ids."""
    used = {s.id for p in former for s in p.steps}
    problems = [
        {"path": f"steps[{at}].id", "code": "duplicate_id", "message": f"A former plan of this job has a step `{s.id}`."}
        for at, s in enumerate(plan.steps)
        if s.id in used
    ]
    if problems:
        raise PlanError("The new plan uses ids of steps that were planned before.", problems=problems)


def _where(turn: Turn, action: str) -> dict[str, str]:
    return {"action": action, "job_id": turn.job}
