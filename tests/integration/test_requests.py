"""Jobs that begin as a sentence: planned under a lease, confirmed, planned anew, answered; and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.errors import Conflict, NotFound, ToolError
from orchestrator.jobs.ledger import TAKEN
from orchestrator.jobs.requests import Turn
from orchestrator.jobs.store import NoPlanYet
from orchestrator.models.job import JobStatus, RequestMode
from orchestrator.models.usage import ModelCall
from orchestrator.planner import service
from orchestrator.planner.turns import WAIT_MOST_S
from orchestrator.providers.model import ModelReply, ModelRequest, OnText
from orchestrator.providers.scripted import Given, ScriptedModel
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.planners import Planning
from tests.support import wait_until

pytestmark = pytest.mark.integration

ADD: dict[str, Any] = {"steps": [{"id": "sum", "tool": "add", "input": {"a": 1, "b": 2}}], "output": "step:sum"}
LIMITED: Given = {
    "error": {"code": "model_limited", "message": "too many requests", "retryable": True, "retry_after_s": 0.2, "sent": False}
}


class Gated(ScriptedModel):
    """A model that answers when it is let."""

    def __init__(self, *answers: Given) -> None:
        super().__init__(answers)
        self.open, self.came = threading.Event(), threading.Event()

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        self.came.set()
        while not await asyncio.to_thread(self.open.wait, 0.05):
            pass
        return await super().ask(request, on_text=on_text)


class World:
    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.ran: Counter[str] = Counter()


Make = Callable[..., Planning]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def engine(settings: Settings, world: World) -> Engine:
    made = Engine(settings)

    @made.tool()
    def add(a: float, b: float = 0.0) -> float:
        world.ran["add"] += 1
        return a + b

    @made.tool()
    def work(label: str, value: float = 0.0) -> float:
        world.ran[label] += 1
        if label in world.broken:
            raise ToolError(f"{label} is broken")
        return value

    @made.tool(effect="once")
    def pay(label: str) -> str:
        world.ran[label] += 1
        if label in world.broken:
            raise ToolError(f"{label} is broken")
        return label

    return made


@pytest.fixture
def planning(engine: Engine) -> Iterator[Make]:
    made: list[Planning] = []

    def make(*answers: Given, model: Any = None, **settings: Any) -> Planning:
        found = Planning(engine, model or ScriptedModel(answers), **settings)
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


def types(p: Planning, job: str) -> list[str]:
    return [e.type for e in p.engine.events(job)]


def test_a_sentence_is_planned_and_run(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    before = p.store.view(job)
    assert (before.status, before.request, before.mode, before.steps, before.planned) == (
        JobStatus.PLANNING, "add one and two", "run", (), None,
    )  # fmt: skip
    with pytest.raises(NoPlanYet, match=f"Job {job} has no plan yet"):
        p.store.plan(job)
    assert p.store.calls(job) == []
    assert p.store.result(job).steps == {}

    assert p.run(job) is JobStatus.SUCCEEDED

    view = p.store.view(job)
    assert p.engine.result(job).output == 3
    assert view.planned is not None
    assert (view.planned.source, view.planned.model, view.planned.number) == ("model", "scripted scripted", 1)
    assert view.usage is not None
    assert (view.usage.calls, view.usage.failed) == (1, 0)
    assert view.usage.input_tokens > 0
    assert p.store.result(job).usage == view.usage
    assert types(p, job)[:4] == ["job.accepted", "job.planning", "job.planned", "job.running"]
    planned = next(e for e in p.engine.events(job) if e.type == "job.planned")
    assert planned.data["steps"] == [{"id": "sum", "tool": "add"}]


def test_inputs_and_the_plans_own_defaults_reach_the_tools(planning: Make) -> None:
    plan = {"inputs": {"b": 5}, "steps": [{"id": "sum", "tool": "add", "input": {"a": "input:a", "b": "input:b"}}]}
    p = planning(plan)
    job = p.submit("add them", inputs={"a": 2})
    assert p.run(job) is JobStatus.SUCCEEDED
    assert p.engine.result(job).output == 7


def test_a_plan_waits_for_its_confirmation(planning: Make, world: World) -> None:
    p = planning(ADD)
    job = p.submit("add one and two", mode="confirm")
    with pytest.raises(NoPlanYet):
        p.control.confirm(job)
    p.run(job, until=("waiting",))
    view = p.store.view(job)
    assert (view.waiting, [s.id for s in view.steps]) == ("waits for your confirmation", ["sum"])
    p.look()
    assert world.ran == {}, "it does not run before"

    assert p.control.confirm(job).status is JobStatus.PLANNING
    assert p.control.confirm(job).status is JobStatus.PLANNING, "twice is once"
    assert p.run(job) is JobStatus.SUCCEEDED
    assert world.ran["add"] == 1
    with pytest.raises(Conflict, match="succeeded"):
        p.control.confirm(job)


def test_a_plan_that_was_not_confirmed_is_asked_for_again_after_a_retry(planning: Make, world: World) -> None:
    p = planning(ADD)
    job = p.submit("add one and two", mode="confirm")
    p.run(job, until=("waiting",))
    assert p.control.cancel(job).status is JobStatus.CANCELLED
    assert p.control.retry(job).status is JobStatus.WAITING
    p.look()
    assert world.ran == {}
    p.control.confirm(job)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_plan_only_ends_with_the_plan_and_runs_nothing(planning: Make, world: World) -> None:
    p = planning(ADD)
    job = p.submit("add one and two", mode="plan")
    assert p.run(job) is JobStatus.SUCCEEDED
    view = p.store.view(job)
    assert [s.state for s in view.steps] == ["pending"]
    assert p.store.plan(job).output == "step:sum"
    assert world.ran == {}
    with pytest.raises(Conflict):
        p.control.retry(job)
    assert types(p, job)[-2:] == ["job.planned", "job.succeeded"]


def test_a_final_error_of_the_model_fails_the_job_and_a_person_may_try_again(planning: Make) -> None:
    p = planning({"error": {"code": "model_denied", "message": "the key is not valid"}}, ADD)
    job = p.submit("add one and two")
    assert p.run(job) is JobStatus.FAILED
    error = p.store.view(job).error
    assert error is not None
    assert (error.code, error.retryable) == ("model_denied", False)
    assert p.store.view(job).usage.calls == 1  # type: ignore[union-attr]
    assert p.control.retry(job).status is JobStatus.PLANNING
    assert p.run(job) is JobStatus.SUCCEEDED
    usage = p.store.view(job).usage
    assert usage is not None
    assert (usage.calls, usage.failed) == (2, 1)


def test_a_bad_answer_is_not_remembered_beyond_a_persons_retry(planning: Make) -> None:
    p = planning('{"cannot": "there is no such tool"}', ADD)
    job = p.submit("add one and two")
    assert p.run(job) is JobStatus.FAILED
    p.control.retry(job)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_a_provider_over_its_limit_makes_the_job_wait_with_its_reason(planning: Make) -> None:
    p = planning(LIMITED, LIMITED, ADD, planner_retries=0)
    job = p.submit("add one and two")
    p.look()
    wait_until(lambda: p.store.view(job).waiting, description="it says why it waits")
    view = p.store.view(job)
    assert view.status is JobStatus.PLANNING
    assert "too many requests" in str(view.waiting)
    assert p.run(job) is JobStatus.SUCCEEDED
    waits = [e.data for e in p.engine.events(job) if e.type == "job.waiting"]
    assert waits[0]["code"] == "model_limited"
    assert waits[0]["retry_in_s"] > 0
    assert p.store.view(job).waiting is None


def test_a_provider_that_asks_for_too_much_patience_fails_the_job(planning: Make) -> None:
    error = {
        "code": "model_limited",
        "message": "the quota of today is used up",
        "retryable": True,
        "retry_after_s": 2 * WAIT_MOST_S,
    }
    p = planning({"error": error}, planner_retries=0)
    job = p.submit("add one and two")
    assert p.run(job) is JobStatus.FAILED
    found = p.store.view(job).error
    assert found is not None
    assert found.retryable
    assert f"1200 s: `toolweaver retry {job}`" in str(found.next)


def test_no_model_and_no_template_is_a_clear_error(engine: Engine) -> None:
    p = Planning(engine, None)
    try:
        job = p.submit("add one and two")
        assert p.run(job) is JobStatus.FAILED
        error = p.store.view(job).error
        assert error is not None
        assert error.code == "planning_unavailable"
        assert "PLANNER_PROVIDER" in str(error.next)
    finally:
        p.close()


def test_cancel_while_the_model_thinks(planning: Make) -> None:
    model = Gated(ADD)
    p = planning(model=model)
    job = p.submit("add one and two")
    p.look()
    wait_until(model.came.is_set, description="the model is asked")
    assert p.control.cancel(job).status is JobStatus.CANCELLED
    wait_until(lambda: not p.pool._tasks, description="nobody waits for the model any more")
    model.open.set()
    p.look()
    assert p.store.status(job) is JobStatus.CANCELLED
    assert p.store.view(job).steps == ()
    p.control.retry(job)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_only_one_of_two_planners_plans(planning: Make) -> None:
    model = Gated(ADD, ADD)
    one, two = planning(model=model), planning(model=model)
    job = one.submit("add one and two")
    one.look()
    wait_until(model.came.is_set, description="the model is asked")
    model.came.clear()
    two.pool.offer(job)
    wait_until(lambda: not two.pool._tasks, description="the second one is told that it is busy")
    assert not model.came.is_set()
    model.open.set()
    assert one.run(job) is JobStatus.SUCCEEDED
    assert model.asked == 1


def test_a_planner_that_stops_gives_its_requests_back(planning: Make) -> None:
    model = Gated(ADD, ADD)
    one, two = planning(model=model), planning(model=model)
    job = one.submit("add one and two")
    one.look()
    wait_until(model.came.is_set, description="the model is asked")
    one.close()
    model.open.set()
    assert two.run(job, timeout=2) is JobStatus.SUCCEEDED  # at once, not when the lease ends


def test_a_planner_that_was_overtaken_decides_nothing(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    requests = p.store.requests
    first = requests.begin(job, "first")
    assert isinstance(first, Turn)
    assert requests.begin(job, "second") == "busy"
    assert requests.renew([(job, "first"), (job, "second")]) == [True, False]
    p.store.redis.hset(p.store.ledger.keys(job).state, "rq_lease", 1)  # its lease has ended
    second = requests.begin(job, "second")
    assert isinstance(second, Turn)
    assert second.attempt == 2
    assert requests.wait(first, reason="x", pause_s=1, most_s=60, code="x") == "fenced"
    assert not requests.give_back(first)
    assert p.store.ledger.fail(job, b"{}", token="first").verdict == "fenced"
    assert requests.answered(first, "x").verdict == "fenced"
    assert requests.give_back(second)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_an_answer_that_came_before_a_crash_is_not_paid_for_again(planning: Make) -> None:
    bad = {"steps": [{"id": "sum", "tool": "add", "input": {"a": "much"}}]}
    first = planning(bad, LIMITED, planner_retries=0)
    job = first.submit("add one and two")
    first.look()
    wait_until(lambda: first.store.view(job).waiting, description="the repair waits for the provider")
    first.close()
    second = planning(ADD)  # it would be the first answer, were the first question asked again
    assert second.run(job) is JobStatus.SUCCEEDED
    view = second.store.view(job)
    assert view.planned is not None
    assert view.planned.repairs == 1
    assert view.usage is not None
    assert view.usage.calls == 2, "a request that was not sent costs nothing"


def test_an_answer_that_cannot_be_remembered_is_used_all_the_same(planning: Make) -> None:
    model = Gated(ADD)
    p = planning(model=model)
    job = p.submit("add one and two")
    p.look()
    wait_until(model.came.is_set, description="the model is asked")
    p.store.redis.hset(p.store.ledger.keys(job).state, "rq_replies", "no number")  # which the store refuses to count on
    model.open.set()
    assert p.run(job) is JobStatus.SUCCEEDED
    view = p.store.view(job)
    assert (view.usage and view.usage.calls, model.asked) == (1, 1)


def test_what_failed_is_planned_anew_with_what_succeeded(planning: Make, world: World) -> None:
    world.broken = {"b"}
    one = {
        "steps": [
            {"id": "a", "tool": "work", "input": {"label": "a", "value": 4}},
            {"id": "b", "tool": "work", "input": {"label": "b", "value": "step:a"}, "retry": {"max": 0}},
            {"id": "c", "tool": "add", "input": {"a": "step:b"}},
        ]
    }
    two = {"steps": [{"id": "d", "tool": "add", "input": {"a": "input:kept_a", "b": 1}}], "output": "step:d"}
    p = planning(one, two)
    job = p.submit("add them")
    assert p.run(job) is JobStatus.SUCCEEDED
    assert p.engine.result(job).output == 5
    assert world.ran == {"a": 1, "b": 1, "add": 1}
    view = p.store.view(job)
    assert view.planned is not None
    assert (view.planned.number, [s.id for s in view.steps]) == (2, ["d"])
    assert view.usage is not None
    assert view.usage.calls == 2
    anew = next(e for e in p.engine.events(job) if e.type == "job.replanning")
    assert anew.data["errors"][0]["message"] == "b is broken"
    assert not anew.final
    assert [s.id for s in p.store.former_plans(job)[0].steps] == ["a", "b", "c"]


def test_planning_anew_is_bounded_and_a_retry_goes_on_from_the_last_plan(planning: Make, world: World) -> None:
    world.broken = {"b", "c"}
    plans = [{"steps": [{"id": name, "tool": "work", "input": {"label": name}, "retry": {"max": 0}}]} for name in "bc"]
    p = planning(*plans)
    job = p.submit("work")
    assert p.run(job) is JobStatus.FAILED
    assert world.ran == {"b": 1, "c": 1}
    assert [e.message for e in p.store.result(job).errors] == ["c is broken"]
    world.broken.clear()
    p.control.retry(job)
    assert p.run(job) is JobStatus.SUCCEEDED
    assert world.ran == {"b": 1, "c": 2}


def test_an_id_of_a_former_plan_is_refused(planning: Make, world: World) -> None:
    world.broken = {"b"}
    plan = {"steps": [{"id": "b", "tool": "work", "input": {"label": "b"}, "retry": {"max": 0}}]}
    p = planning(plan, plan, planner_repairs=0)
    job = p.submit("work")
    assert p.run(job) is JobStatus.FAILED
    assert world.ran == {"b": 1}
    assert "b" in str(p.store.view(job).error)


def test_an_effect_of_a_part_that_failed_forbids_another_plan(planning: Make, world: World) -> None:
    world.broken = {"second"}
    plan = {
        "inputs": {"all": ["first", "second"]},
        "steps": [{"id": "pay", "tool": "pay", "map": "input:all", "input": {"label": "item"}, "on_error": "skip_dependents"}],
    }
    p = planning(plan, ADD)
    job = p.submit("pay them")
    assert p.run(job) is JobStatus.FAILED
    assert "job.replanning" not in types(p, job)
    assert world.ran["first"] == 1


def test_calls_of_a_former_plan_are_over(planning: Make, world: World) -> None:
    """Their messages come late: nothing of the plan that is given up runs beside the new one."""
    world.broken = {"b"}
    one = {
        "inputs": {"labels": ["x", "y"]},
        "steps": [
            {"id": "b", "tool": "work", "input": {"label": "b"}, "retry": {"max": 0}},
            {"id": "late", "tool": "work", "map": "input:labels", "input": {"label": "item"}},
        ],
    }
    two = {"steps": [{"id": "d", "tool": "work", "input": {"label": "d"}}]}
    p = planning(one, two)
    job = p.submit("work")
    p.look()
    wait_until(lambda: len(p.engine.mailbox.calls) == 3, description="the calls are published")
    late = [c for c in p.engine.mailbox.calls if c.step == "late"]
    p.engine.mailbox.calls = [c for c in p.engine.mailbox.calls if c.step == "b"]
    assert p.run(job) is JobStatus.SUCCEEDED
    assert [p.engine.deliver(c) for c in late] != ["ok", "ok"]
    assert world.ran == {"b": 1, "d": 1}
    keys = p.store.ledger.keys(job)
    assert p.store.redis.zcard(keys.shard.queued("function")) == 0
    assert p.store.redis.hgetall(keys.shard.load) == {}, "it holds no place of any gate"


def test_a_model_words_the_answer_before_the_job_ends(planning: Make) -> None:
    p = planning(ADD, "One and two are three.", synthesis="model")
    job = p.submit("add one and two")
    assert p.run(job) is JobStatus.SUCCEEDED
    found = p.store.result(job)
    assert found.answer == "One and two are three."
    assert found.usage is not None
    assert found.usage.calls == 2
    assert types(p, job)[-2:] == ["job.answering", "job.succeeded"]


def test_an_answer_that_cannot_be_worded_falls_back_to_the_template(planning: Make) -> None:
    plan = {**ADD, "final_synthesis": {"prompt_template": "It is {{steps.sum}}."}}
    p = planning(plan, {"error": {"code": "model_denied", "message": "no"}}, synthesis="model")
    job = p.submit("add one and two")
    assert p.run(job) is JobStatus.SUCCEEDED
    assert p.store.result(job).answer == "It is 3.0."


def test_a_request_sees_the_tools_of_its_tenant_and_those_that_it_names(planning: Make, engine: Engine) -> None:
    p = planning(ADD, planner_repairs=0)
    job = p.submit("add one and two", tools=("work",))
    assert p.run(job) is JobStatus.FAILED
    assert "add" in str(p.store.view(job).error)


def test_many_requests_at_once_and_plans_beside_them(planning: Make) -> None:
    model = Gated(*[ADD] * 5)
    p = planning(model=model, planner_concurrency=2)
    jobs = [p.submit("add one and two") for _ in range(5)]
    p.look()
    wait_until(model.came.is_set, description="the model is asked")
    plain = p.engine.submit([{"id": "s", "tool": "add", "input": {"a": 1}}])
    p.engine.drain()
    assert p.store.status(plain) is JobStatus.SUCCEEDED, "a plan does not wait for models"
    assert len(p.pool._tasks) == 2
    model.open.set()
    for job in jobs:
        assert p.run(job) is JobStatus.SUCCEEDED
    assert model.asked == 5


def test_the_same_key_gives_the_same_job(planning: Make) -> None:
    p = planning(ADD)
    assert p.submit("add", idempotency=("k", "h")) == p.submit("add", idempotency=("k", "h"))
    with pytest.raises(Conflict):
        p.submit("subtract", idempotency=("k", "other"))


def test_a_file_that_is_not_there_is_refused(planning: Make) -> None:
    with pytest.raises(NotFound):
        planning().submit("read it", inputs={"files": ["blob:sha256:" + "0" * 64]})


def test_requests_that_wait_for_a_place_do_not_keep_plans_waiting(planning: Make, engine: Engine) -> None:
    """A wake-up is not spent on a request for which there is no place; and the more wait, the later each is offered again."""
    model = Gated(*[ADD] * 300)
    p = planning(model=model, planner_concurrency=1)
    jobs = [p.submit("add one and two") for _ in range(300)]
    p.look()
    wait_until(model.came.is_set, description="the model is asked")
    redis, accepted = p.store.redis, p.store.ledger.keys(jobs[0]).shard.accepted
    pauses = [(score - TAKEN - p.store.ledger.now_ms()) / 1000 for _, score in redis.zrange(accepted, 0, -1, withscores=True)]
    assert sorted(pauses)[1] > 4, "but for the one that is planned, 300 by 20 ms"
    redis.zadd(accepted, dict.fromkeys(jobs, TAKEN + 1))  # all are due at once
    plain = engine.submit([{"id": "s", "tool": "add", "input": {"a": 1}}])
    for _ in range(2):  # its own message, and one that is sent once this one passed over many
        p.planner.plan_job(plain)
    assert p.store.status(plain) is JobStatus.RUNNING
    p.control.cancel(jobs[-1])
    p.store.requests.later(jobs[-1])
    assert redis.zscore(accepted, jobs[-1]) is None, "what has ended is not offered again"


def test_a_request_that_takes_its_planners_down_is_given_up(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    state = p.store.ledger.keys(job).state
    for n in range(p.store.settings.max_lost + 1):
        assert isinstance(p.store.requests.begin(job, f"planner {n}"), Turn)
        p.store.redis.hset(state, "rq_lease", 1)  # it was killed, and its lease has ended
    assert p.run(job) is JobStatus.FAILED
    error = p.store.view(job).error
    assert error is not None
    assert error.code == "poison"
    assert f"toolweaver retry {job}" in str(error.next)
    p.control.retry(job)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_a_request_that_is_given_back_is_not_lost(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    for n in range(p.store.settings.max_lost + 1):
        turn = p.store.requests.begin(job, f"planner {n}")
        assert isinstance(turn, Turn)
        assert p.store.requests.give_back(turn)
    assert p.run(job) is JobStatus.SUCCEEDED


def test_a_request_on_its_way_when_its_planner_died_is_counted_when_its_job_is_cancelled(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    p.store.requests.begin(job, "planner")
    sent = ModelCall(id="model_1", purpose="plan", provider="openai", model="m", ok=False, error="lost")
    p.store.requests.underway(job, sent)
    p.control.cancel(job)
    usage = p.store.view(job).usage
    assert (usage and usage.calls, usage and usage.failed) == (1, 1)
    p.store.requests.note_call(job, sent.model_copy(update={"ok": True, "error": None, "input_tokens": 7}))
    usage = p.store.view(job).usage
    assert (usage and usage.calls, usage and usage.failed, usage and usage.input_tokens) == (1, 0, 7), "it was alive after all"


@pytest.mark.parametrize("mode", ["run", "plan", "confirm"])
def test_a_model_s_answers_are_kept_no_longer_than_they_may_be_asked_for(planning: Make, mode: RequestMode) -> None:
    p = planning({"steps": [{"id": "sum", "tool": "add", "input": {"a": "much"}}]}, ADD, "It is three.", synthesis="model")
    job = p.submit("add one and two", mode=mode)
    p.run(job, until=("waiting", "succeeded"))
    fields = p.store.redis.hkeys(p.store.ledger.keys(job).data)
    assert b"planned" in fields
    assert not [f for f in fields if f.startswith((b"m:", b"mn:"))]


def test_a_wait_within_a_planners_turn_is_told_as_long_as_it_lasts(planning: Make) -> None:
    p = planning(ADD)
    job = p.submit("add one and two")
    turn = p.store.requests.begin(job, "planner")
    assert isinstance(turn, Turn)
    p.store.requests.say(turn, reason="the limit is used up", for_s=60)
    assert p.store.view(job).waiting == "the limit is used up; tried again in 60 s"
    p.store.requests.say(turn, reason="the limit is used up", for_s=0.01)
    wait_until(lambda: p.store.view(job).waiting is None, description="the model is asked, and nothing waits")


def test_a_pool_is_closed_by_a_thread_that_holds_it(planning: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal stops the planner wherever its thread stands."""
    monkeypatch.setattr(service, "STOP_S", 0.3)
    model = Gated(ADD, ADD)
    one, two = planning(model=model), planning(model=model)
    job = one.submit("add one and two")
    one.look()
    wait_until(model.came.is_set, description="the model is asked")

    def interrupted() -> None:
        with one.pool._lock:
            one.close()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    model.open.set()
    assert two.run(job, timeout=5) is JobStatus.SUCCEEDED
