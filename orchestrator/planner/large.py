"""From a sentence to a checked plan: tools are found, a large model is asked once, its plan is checked and mended.

Where no model is set or none answers, a plan template that certainly fits takes its place; else the error says when to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.errors import ModelError, PlanError, RequestError
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.asked import RETRY_S, CannotPlan, Planned, PlanningUnavailable, PlanRequest
from orchestrator.planner.find import Found, Search, Usable, find_tools
from orchestrator.planner.judge import Judge
from orchestrator.planner.parse import parse
from orchestrator.planner.prompt import SCHEMA, cache_key, instructions, question, system
from orchestrator.planner.repair import asked_again
from orchestrator.planner.templates import Match, examples, match_templates
from orchestrator.policy.model_guard import GuardedModel
from orchestrator.providers import warm
from orchestrator.providers.model import Model, ModelReply, ModelRequest
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_search.client import IndexClient
from orchestrator.tool_search.tokens import count_tokens

log = logging.getLogger(__name__)

WAITING = ("model_limited", "model_paused")  # the request waits for it
AWAY = (*WAITING, "model_unreachable", "model_timeout", "model_failed")
_SLACK = 1.15  # tokenizers differ; the estimate leans to too many
_LEAST_ANSWER = 256


class LargePlanner:
    """Makes plans with a large model: `await LargePlanner(provider="openai").generate_plan("...")`.

    Args:
        provider: whose model, as the setting `planner_provider` names them, or a model; default: the settings'. Without any only
            requests that fit a plan template can be planned.
        tool_catalog: what may be used; default: the bundled tools.
        use_tool_search: False shows all tools that fit the model's window; otherwise they are searched when they fill more than
            `search_share` of it.
        search_threshold: they are searched when there are more than this many, whatever their tokens.
        use_programmatic_calling: plans may hold programs that call tools.
        settings: default: those of the environment.
        model: the same as a model for `provider`.
        index: the index service; without it this process searches.

    A model that it makes of a name is asked again after failures that cost nothing (`planner_retries`); one that is given is
    guarded by who gives it. Tasks may share a planner.
    """

    def __init__(
        self,
        provider: str | Model | None = None,
        tool_catalog: ToolCatalog | None = None,
        use_tool_search: bool | None = None,
        search_threshold: int | None = None,
        use_programmatic_calling: bool = True,
        *,
        settings: Settings | None = None,
        model: Model | None = None,
        index: IndexClient | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self.catalog = tool_catalog if tool_catalog is not None else bundled_catalog()
        self.index, self.programs = index, use_programmatic_calling
        self._search_on, self._threshold = use_tool_search is not False, search_threshold
        self._provider = provider if isinstance(provider, str) else self.settings.planner_provider
        self._model = model or (provider if not isinstance(provider, str) else None)

    async def generate_plan(
        self, text: str, *, inputs: Mapping[str, Any] | None = None, available_tools: Sequence[str] | None = None
    ) -> Plan:
        """A plan for a request in words, ready for `execute_plan`, which takes those of the inputs that the plan uses.

        Raises:
            As `make_plan`.
        """
        names = tuple(available_tools) if available_tools is not None else None
        return (await self.make_plan(PlanRequest(text, dict(inputs or {}), available_tools=names))).plan

    async def make_plan(self, request: PlanRequest, *, model: Model | None = None) -> Planned:
        """A plan that passed the check, and how it came to be. `model`: asked instead of the planner's own.

        Raises:
            PlanError: no plan of the model's passed the check; `CannotPlan` when it says that there can be none.
            ModelError: the model refused, or its server did; retryable ones with `retry_after_s` where one waits for a limit.
            PlanningUnavailable: no model answers, or none is set, and no template fits.
            RequestError: there is nothing to plan, or nothing to plan with.
        """
        usable = self._usable(request)
        model = model or self._large()
        if model is None:
            return await self._without_model(request, usable)
        try:
            return await self._with_model(model, request, usable)
        except ModelError as error:
            if not (error.retryable or error.code in AWAY):
                raise
            return await self._instead(request, usable, error, model)

    def _large(self) -> Model | None:
        if self._model is None and self._provider is not None:
            made = warm.large_model(self.settings, provider=self._provider)
            self._model = GuardedModel(made, limits=None, breakers=None, retries=self.settings.planner_retries)
        return self._model

    def _usable(self, request: PlanRequest) -> Usable:
        if not request.text.strip():
            raise RequestError("The request is empty.", path="request", next="Say in a sentence what is to be done.")
        usable = Usable(self.catalog, request, programs=self.programs)
        if not usable.offered().tools:
            raise RequestError(
                "There are no tools that this request may use.",
                path="available_tools" if request.available_tools is not None else None,
                next="Start a worker, which announces its tools, or ask an admin: `toolweaver tools list` shows what there is.",
            )
        return usable

    async def _with_model(self, model: Model, request: PlanRequest, usable: Usable) -> Planned:
        found, asked = await asyncio.to_thread(self._asked, model, request, usable)
        judge = Judge(usable, request)
        for repairs in range(self.settings.planner_repairs + 1):
            reply = await model.ask(asked)
            verdict = await asyncio.to_thread(_judged, reply, judge, model)
            if verdict.plan is not None:
                return _planned(verdict.plan, verdict.notes, found, repairs=repairs)
            log.info("a plan was refused", extra={"action": "plan_refused", "repairs": repairs, "problems": len(verdict.problems)})
            asked = asked_again(asked, reply, verdict.problems)
        raise _given_up(verdict, model, repairs=self.settings.planner_repairs)

    def _asked(self, model: Model, request: PlanRequest, usable: Usable) -> tuple[Found, ModelRequest]:
        turn = question(request)
        fixed = round(_SLACK * (count_tokens(instructions(programs=self.programs)) + count_tokens(turn.blocks[0].text)))
        most = max(_LEAST_ANSWER, min(self.settings.planner_max_tokens, model.window // 2))
        room = max(0, round((model.window - most - fixed) / _SLACK))
        search = Search(self.settings, model.window, room, on=self._search_on, threshold=self._threshold, index=self.index)
        found = find_tools(request, usable, search)
        programs = self.programs and any(t.type == "code_exec" for t in found.always)
        if not found.shown:
            raise RequestError(
                f"No tool fits into the window of {model.name}: {model.window} tokens, of which {fixed} are needed already.",
                next="Choose a model with a larger window, or set TOOLWEAVER_PLANNER_WINDOW if it has one.",
            )
        asked = ModelRequest(
            system=system(found.always, found.found, programs=programs, batches=found.batches),
            turns=(turn,),
            purpose="replan" if request.former is not None else "plan",
            schema=SCHEMA,
            schema_name="plan",
            max_tokens=most,
            deadline_s=self.settings.planner_timeout_s,
            cache_key=cache_key(found.always, programs=programs, more=request.conversation or ""),
        )
        return found, asked

    async def _without_model(self, request: PlanRequest, usable: Usable) -> Planned:
        match = await asyncio.to_thread(self._matched, request, usable)
        if match.plan is not None:
            return _from_template(match)
        raise PlanningUnavailable(
            "No model is set that makes plans, and no plan template fits the request." + _near(match),
            retryable=False,
            next=f"Set PLANNER_PROVIDER (openai, azure-openai, anthropic, gemini, ollama ...) and its key, {self._offers()}",
        )

    async def _instead(self, request: PlanRequest, usable: Usable, error: ModelError, model: Model) -> Planned:
        """What to do while the model is away: a template, or to come again."""
        match = await asyncio.to_thread(self._matched, request, usable)
        if match.plan is not None:
            return _from_template(match, degraded=(f"the model {model.name} of {model.provider}: {error.code}",))
        if error.code in WAITING or not error.retryable:
            raise error
        pause_s = RETRY_S if error.retry_after_s is None else error.retry_after_s
        raise PlanningUnavailable(
            f"The model {model.name} of {model.provider} makes no plans now ({error.code}), and no plan template fits the request."
            + _near(match),
            next=f"Try again in {pause_s:.0f} s, {self._offers()}",
            retry_after_s=pause_s,
        ) from error

    def _matched(self, request: PlanRequest, usable: Usable) -> Match:
        match = match_templates(request, usable.tools(), home=self.settings.home)
        if match.plan is None:
            return match
        judged = Judge(usable, request).judge(match.plan)
        if judged.plan is None:
            why = str(judged.problems[0].get("message", ""))
            return replace(match, plan=None, near=f"template {match.name}: {why}")
        return replace(match, plan=judged.plan.model_dump(mode="json", exclude_unset=True))

    def _offers(self) -> str:
        shown = "; ".join(f'"{text}"' for text in examples(home=self.settings.home))
        return f"or ask for something that there is a template for: {shown}." if shown else "or submit a plan of your own."


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What became of an answer; `answered` says that there was a plan in it."""

    plan: Plan | None
    problems: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    answered: bool = True


def _judged(reply: ModelReply, judge: Judge, model: Model) -> _Verdict:
    answer = parse(reply)
    if answer.data is not None:
        judged = judge.judge(answer.data)
        return _Verdict(judged.plan, judged.problems, judged.notes)
    if answer.cannot is not None:
        raise CannotPlan(
            f'The model says that the tools cannot do this: "{answer.cannot}"',
            next="Ask for something else, or add the tools that are missing.",
        )
    if reply.stop == "refused":
        raise ModelError(
            f"The model {model.name} refused to make a plan.",
            code="model_refused",
            next="Word the request in another way, or write the plan yourself: docs/reference/plan.md.",
        )
    assert answer.problem is not None
    return _Verdict(None, (answer.problem,), answered=False)


def _given_up(verdict: _Verdict, model: Model, *, repairs: int) -> Exception:
    tries = f"{repairs} repair{'s' if repairs != 1 else ''}"
    if not verdict.answered:
        problem = verdict.problems[0]
        code = "model_cut_off" if problem["code"] == "cut_off" else "model_bad_answer"
        move = "Raise TOOLWEAVER_PLANNER_MAX_TOKENS." if code == "model_cut_off" else "Ask again, or choose another model."
        return ModelError(f"The model {model.name} gave no plan, after {tries}: {problem['message']}", code=code, next=move)
    return PlanError(
        f"The plan of the model {model.name} has problems that {tries} did not mend; nothing of it was published.",
        problems=verdict.problems,
        next="Word the request in more detail, choose another model, or write the plan yourself: docs/reference/plan.md.",
    )


def _planned(plan: Plan, notes: tuple[str, ...], found: Found, *, repairs: int) -> Planned:
    return Planned(
        plan,
        "model",
        repairs=repairs,
        shown=found.shown,
        of=found.of,
        searched=found.searched,
        degraded=found.degraded,
        notes=notes,
    )


def _from_template(match: Match, *, degraded: tuple[str, ...] = ()) -> Planned:
    plan = Plan.model_validate(match.plan)
    return Planned(plan, "template", template=match.name, degraded=degraded, notes=match.notes, reused=True)


def _near(match: Match) -> str:
    return f" Nearest: {match.near}." if match.near else ""
