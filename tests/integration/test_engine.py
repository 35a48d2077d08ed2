"""What the ledger promises: order, joins, maps, policies, conditions, retries, fencing, cancel, retry, resolve."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from orchestrator.catalog.context import ToolContext
from orchestrator.errors import CallCancelled, Conflict, ToolError
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.ledger import Claim
from orchestrator.models.job import CallState, JobStatus
from orchestrator.publisher.control import Control
from orchestrator.publisher.reconcile import Reconciler
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.support import wait_until
from workers.step import Runner


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)
    ran: list[str] = []
    made.ran = ran  # type: ignore[attr-defined]

    @made.tool()
    def echo(value: Any = None, label: str = "") -> Any:
        ran.append(label)
        return value

    @made.tool()
    def fail(value: Any = None) -> Any:
        raise ToolError(f"cannot do {value}")

    @made.tool()
    def fail_on(value: int, bad: list[int]) -> int:
        if value in bad:
            raise ToolError(f"{value} is bad")
        return value * 10

    @made.tool()
    def total(values: list[Any]) -> Any:
        return sum(v for v in values if v is not None)

    return made


def control(engine: Engine) -> Control:
    made = Control(engine.store, engine.mailbox.app)
    made.publisher = engine.mailbox
    return made


def reconciler(engine: Engine) -> Reconciler:
    return Reconciler(engine.store, engine.mailbox)


def states(view: Any) -> dict[str, str]:
    return {s.id: s.state for s in view.steps}


def types(engine: Engine, job: str) -> list[str]:
    return [e.type for e in EventReader(engine.store.settings, engine.store.redis).read(job)]


def test_a_value_walks_through_a_diamond(engine: Engine) -> None:
    view, result = engine.run(
        [
            {"id": "a", "tool": "echo", "input": {"value": {"x": [1, 2]}}},
            {"id": "b", "tool": "echo", "input": {"value": "step:a.x[1]"}},
            {"id": "c", "tool": "echo", "input": {"value": "step:a.x[0]"}},
            {"id": "d", "tool": "total", "input": {"values": ["step:b", "step:c", {"$literal": 4}]}},
        ]
    )
    assert view.status is JobStatus.SUCCEEDED
    assert result.steps["d"] == 7
    assert view.steps[0].state == "succeeded"


def test_inputs_and_literals(engine: Engine) -> None:
    _, result = engine.run(
        [{"id": "a", "tool": "echo", "input": {"value": ["input:who.name", {"$literal": "step:none"}, "item"]}}],
        inputs={"who": {"name": "Ada"}},
    )
    assert result.steps["a"] == ["Ada", "step:none", None]


def test_map_keeps_positions_and_stages_follow_without_a_barrier(engine: Engine) -> None:
    job = engine.submit(
        [
            {"id": "a", "tool": "echo", "map": "input:xs", "input": {"value": "item", "label": "a"}},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": ["item", "step:a"], "label": "b"}},
            {"id": "c", "tool": "echo", "input": {"value": "step:b", "label": "c"}},
        ],
        inputs={"xs": [10, 20, 30]},
    )
    first = next(c for c in engine.mailbox.calls if c.call == "a#2")
    engine.mailbox.calls.remove(first)
    engine.deliver(first)
    assert "b#2" in [c.call for c in engine.mailbox.calls], "b#2 is ready although a#0 and a#1 have not run"
    engine.drain(shuffle=random.Random(1))
    assert engine.store.result(job).steps["c"] == [[10, 10], [20, 20], [30, 30]]
    assert engine.store.view(job).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_map_passes_through_a_window_in_any_order(engine: Engine, seed: int) -> None:
    job = engine.submit(
        [
            {"id": "src", "tool": "echo", "input": {"value": {"n": list(range(45))}}},
            {"id": "a", "tool": "echo", "map": "step:src.n", "input": {"value": "item"}},
            {"id": "b", "tool": "echo", "map": "step:src.n", "input": {"value": "step:a"}},
            {"id": "sum", "tool": "total", "input": {"values": "step:b"}},
        ]
    )
    most = 0
    rng = random.Random(seed)
    while engine.mailbox.calls:
        most = max(most, len(engine.mailbox.calls))
        engine.drain(shuffle=rng, limit=1)
    assert engine.store.result(job).steps["sum"] == sum(range(45))
    assert most <= engine.store.settings.window_least
    assert engine.ledger.redis.hget(engine.ledger.keys(job).state, "w:0") == b"0"
    assert engine.ledger.redis.hget(engine.ledger.keys(job).state, "live") == b"0"


def test_whole_list_of_an_aligned_step(engine: Engine) -> None:
    _, result = engine.run(
        [
            {"id": "a", "tool": "echo", "map": "input:xs", "input": {"value": "item"}},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": ["item", "step:a[*]"]}},
        ],
        inputs={"xs": [1, 2]},
    )
    assert result.steps["b"] == [[1, [1, 2]], [2, [1, 2]]]


def test_map_over_the_whole_list_of_a_mapped_step_and_over_one_result(engine: Engine) -> None:
    _, result = engine.run(
        [
            {"id": "a", "tool": "echo", "map": "input:xs", "input": {"value": ["item", 5]}},
            {"id": "b", "tool": "total", "map": "step:a[*]", "input": {"values": "item"}},
            {"id": "c", "tool": "echo", "map": "step:a[1]", "input": {"value": "item"}},
        ],
        inputs={"xs": [1, 2]},
    )
    assert result.steps["b"] == [6, 7]
    assert result.steps["c"] == [2, 5]


def test_an_empty_map_is_an_empty_list(engine: Engine) -> None:
    view, result = engine.run(
        [
            {"id": "a", "tool": "echo", "map": "input:xs", "input": {"value": "item"}},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": "item"}},
            {"id": "c", "tool": "total", "input": {"values": "step:b"}},
        ],
        inputs={"xs": []},
    )
    assert view.status is JobStatus.SUCCEEDED
    assert result.steps == {"a": [], "b": [], "c": 0}


def test_a_map_over_no_list_fails_its_step_with_the_reason(engine: Engine) -> None:
    view, result = engine.run(
        [
            {"id": "a", "tool": "echo", "input": {"value": 3}},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": "item"}},
        ]
    )
    assert view.status is JobStatus.FAILED
    assert "is no list" in result.errors[0].message


def test_fail_fast_stops_everything_else(engine: Engine) -> None:
    job = engine.submit(
        [{"id": "bad", "tool": "fail"}, {"id": "other", "tool": "echo"}, {"id": "after", "tool": "echo", "depends_on": ["bad"]}]
    )
    engine.drain(limit=1)
    view = engine.store.view(job)
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    assert view.error.message == "cannot do None"
    engine.drain()
    assert engine.ran == []  # type: ignore[attr-defined]
    assert states(engine.store.view(job)) == {"bad": "failed", "other": "cancelled", "after": "cancelled"}
    assert types(engine, job)[-1] == "job.failed"


def test_skip_dependents_lets_other_branches_finish(engine: Engine) -> None:
    view, _ = engine.run(
        [
            {"id": "bad", "tool": "fail"},
            {"id": "child", "tool": "echo", "depends_on": ["bad"]},
            {"id": "other", "tool": "echo"},
            {"id": "join", "tool": "echo", "depends_on": ["child", "other"], "on_skip": "run", "input": {"value": "step:child"}},
        ],
        on_error="skip_dependents",
    )
    assert view.status is JobStatus.FAILED
    assert states(view) == {"bad": "failed", "child": "skipped", "other": "succeeded", "join": "succeeded"}


def test_continue_gives_null_and_tells_of_the_error(engine: Engine) -> None:
    view, result = engine.run(
        [
            {"id": "a", "tool": "fail_on", "map": "input:xs", "input": {"value": "item", "bad": [2]}},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": "item", "label": "b"}},
            {"id": "sum", "tool": "total", "input": {"values": "step:b"}},
            {"id": "plain", "tool": "fail"},
            {"id": "sees", "tool": "echo", "input": {"value": ["step:plain"]}},
        ],
        inputs={"xs": [1, 2, 3]},
        on_error="continue",
    )
    assert view.status is JobStatus.SUCCEEDED
    assert view.has_errors
    assert result.steps["a"] == [10, None, 30]
    assert result.steps["b"] == [10, None, 30]
    assert result.steps["sum"] == 40
    assert result.steps["sees"] == [None]
    assert [(e.step, e.index, e.message) for e in result.errors] == [("a", 1, "2 is bad"), ("plain", None, "cannot do None")]
    assert [s.skipped for s in view.steps if s.id == "b"] == [1]


def test_conditions_skip_calls_and_their_dependents(engine: Engine) -> None:
    view, result = engine.run(
        [
            {"id": "a", "tool": "echo", "input": {"value": {"n": 3}}},
            {"id": "no", "tool": "echo", "when": {"ref": "step:a.n", "op": "gt", "value": 5}},
            {"id": "yes", "tool": "echo", "when": {"ref": "step:a.n", "op": "le", "value": 3}, "input": {"value": "yes"}},
            {"id": "after", "tool": "echo", "depends_on": ["no"]},
            {"id": "join", "tool": "echo", "on_skip": "run", "input": {"value": ["step:no", "step:yes"]}},
            {"id": "odd", "tool": "echo", "map": "input:xs", "when": {"ref": "item.odd"}, "input": {"value": "item.n"}},
        ],
        inputs={"xs": [{"n": 1, "odd": True}, {"n": 2, "odd": False}]},
    )
    assert view.status is JobStatus.SUCCEEDED
    assert states(view) == {
        "a": "succeeded",
        "no": "skipped",
        "yes": "succeeded",
        "after": "skipped",
        "join": "succeeded",
        "odd": "succeeded",
    }
    assert result.steps["join"] == [None, "yes"]
    assert result.steps["odd"] == [1, None]


def test_a_retry_waits_in_the_timers_and_counts_tries(engine: Engine) -> None:
    seen: list[int] = []

    @engine.tool()
    def flaky() -> str:
        seen.append(1)
        if len(seen) < 3:
            raise ToolError("not yet", retryable=True)
        return "now"

    job = engine.submit([{"id": "a", "tool": "flaky", "retry": {"max": 2, "backoff_s": 0.01}}])
    look = reconciler(engine)
    engine.drain()
    assert engine.store.calls(job)[0].state is CallState.WAITING
    wait_until(lambda: (look.once(), engine.drain(), engine.store.status(job).final)[-1], description="the job ends")
    assert engine.store.result(job).steps["a"] == "now"
    call = engine.store.calls(job)[0]
    assert (call.attempt, call.tries) == (3, 2)
    assert types(engine, job).count("call.waiting") == 2


def test_retries_end(engine: Engine) -> None:
    @engine.tool()
    def never() -> str:
        raise ToolError("no", retryable=True)

    job = engine.submit([{"id": "a", "tool": "never", "retry": {"max": 1, "backoff_s": 0.0}}])
    look = reconciler(engine)
    wait_until(lambda: (look.once(), engine.drain(), engine.store.status(job).final)[-1], description="the job ends")
    assert engine.store.view(job).status is JobStatus.FAILED
    assert engine.store.calls(job)[0].tries == 2


def test_a_doubled_message_runs_once(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo", "input": {"label": "a"}}, {"id": "b", "tool": "echo", "depends_on": ["a"]}])
    twin = engine.mailbox.calls[0]
    assert engine.deliver(twin) == "ok"
    assert engine.deliver(twin).startswith("already")
    engine.drain()
    assert engine.ran == ["a", ""]  # type: ignore[attr-defined]
    assert engine.store.status(job) is JobStatus.SUCCEEDED


def test_a_claim_that_is_sent_again_gets_its_first_answer(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    claims = [engine.ledger.claim(job, "a#0", attempt=1, token=t, queue="function") for t in ("t1", "t1", "t2")]
    assert claims[0] == claims[1]
    assert claims[2] == "already r"


def test_a_discarded_message_is_published_again(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}, {"id": "b", "tool": "echo", "depends_on": ["a"]}])
    engine.mailbox.calls.clear()
    look = reconciler(engine)
    wait_until(lambda: (look.once(), engine.drain(), engine.store.status(job).final)[-1], description="the job ends")
    assert engine.store.calls(job)[0].attempt == 2


@pytest.mark.parametrize(("effect", "status"), [("none", "queued"), ("idempotent", "queued"), ("once", "unknown")])
def test_a_lost_worker(engine: Engine, effect: str, status: str) -> None:
    @engine.tool(effect=effect)
    def act() -> str:
        return "done"

    job = engine.submit([{"id": "a", "tool": "act"}])
    lost = engine.mailbox.calls.pop()
    held = engine.ledger.claim(job, "a#0", attempt=1, token="dead", queue="function")
    look = reconciler(engine)
    wait_until(lambda: look.once().lost, description="the lease runs out")
    assert engine.store.calls(job)[0].state == status
    assert engine.deliver(lost) != "ok", "the old message is overtaken"
    assert not isinstance(held, str)
    assert engine.ledger.complete(held, outcome="s")[0] == "fenced", "the old attempt cannot commit"
    if effect == "once":
        assert engine.store.view(job).status is JobStatus.WAITING
        return
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("happened", [True, False])
def test_resolving_an_unknown_effect(engine: Engine, happened: bool) -> None:
    @engine.tool(effect="once")
    def pay() -> dict[str, str]:
        return {"paid": "by the tool"}

    job = engine.submit([{"id": "pay", "tool": "pay"}, {"id": "after", "tool": "echo", "input": {"value": "step:pay.paid"}}])
    engine.mailbox.calls.clear()
    engine.ledger.claim(job, "pay#0", attempt=1, token="dead", queue="function")
    look = reconciler(engine)
    wait_until(lambda: look.once().lost, description="the lease runs out")
    assert [c.call for c in engine.store.view(job).unknown] == ["pay#0"]
    control(engine).resolve(job, "pay", happened=happened, result={"paid": "by hand"} if happened else None)
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    assert engine.store.result(job).steps["after"] == ("by hand" if happened else "by the tool")
    assert not engine.store.result(job).errors
    with pytest.raises(Conflict):
        control(engine).resolve(job, "pay", happened=True)


def test_a_poison_call_ends_as_failed(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    look = reconciler(engine)
    for attempt in range(1, engine.store.settings.max_lost + 1):
        engine.mailbox.calls.clear()
        engine.ledger.claim(job, "a#0", attempt=attempt, token="dead", queue="function")
        wait_until(lambda: look.once().lost, description=f"lease {attempt} runs out")
    view = engine.store.view(job)
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    assert view.error.code == "poison"


def test_beats_keep_a_call_and_cancel_reaches_the_tool(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    claim = engine.ledger.claim(job, "a#0", attempt=1, token="t", queue="function")
    assert not isinstance(claim, str)
    with engine.beats.running(claim, timeout_s=60) as beat:
        rows = [(r.job, r.call, r.attempt) for r in engine.beats.calls()]
        assert rows == [(job, "a#0", 1)]
        assert engine.ledger.beat(rows) == [True]
        control(engine).cancel(job)
        assert engine.ledger.beat(rows) == [False]
        engine.beats.refuse(engine.beats.calls()[0])
        assert beat.refused()
    assert engine.beats.calls() == []


def test_a_cancelled_job_runs_nothing_more(engine: Engine) -> None:
    job = engine.submit(
        [{"id": "a", "tool": "echo", "map": "input:xs", "input": {"value": "item"}}], inputs={"xs": list(range(30))}
    )
    engine.drain(limit=3)
    view = control(engine).cancel(job)
    assert view.status is JobStatus.CANCELLED
    engine.drain()
    assert len(engine.ran) == 3  # type: ignore[attr-defined]
    assert types(engine, job)[-1] == "job.cancelled"
    assert control(engine).cancel(job).status is JobStatus.CANCELLED


def test_a_finished_job_cannot_be_cancelled(engine: Engine) -> None:
    view, _ = engine.run([{"id": "a", "tool": "echo"}])
    with pytest.raises(Conflict, match="already succeeded"):
        control(engine).cancel(view.id)


def test_retry_of_a_job_runs_only_what_did_not_succeed(engine: Engine) -> None:
    bad = [2, 3]
    ran: list[int] = []

    @engine.tool()
    def moody(value: int) -> int:
        ran.append(value)
        if value in bad:
            raise ToolError(f"{value} is bad")
        return value * 10

    job = engine.submit(
        [
            {"id": "first", "tool": "echo", "input": {"value": 1, "label": "first"}},
            {"id": "a", "tool": "moody", "map": "input:xs", "input": {"value": "item"}, "depends_on": ["first"]},
            {"id": "b", "tool": "echo", "map": "step:a", "input": {"value": "item", "label": "b"}},
            {"id": "sum", "tool": "total", "input": {"values": "step:b"}},
        ],
        inputs={"xs": [1, 2, 3, 4]},
        on_error="continue",
    )
    engine.drain()
    assert engine.store.result(job).steps["sum"] == 50
    bad.clear()
    assert control(engine).retry(job).status is JobStatus.RUNNING
    engine.drain()
    view, result = engine.store.view(job), engine.store.result(job)
    assert view.status is JobStatus.SUCCEEDED
    assert not view.has_errors
    assert result.steps["sum"] == 100
    assert ran == [1, 2, 3, 4, 2, 3]
    assert engine.ran.count("first") == 1  # type: ignore[attr-defined]
    assert engine.ran.count("b") == 4  # type: ignore[attr-defined]
    assert not result.errors
    with pytest.raises(Conflict):
        control(engine).retry(job)


def test_retry_after_fail_fast_and_after_cancel(engine: Engine) -> None:
    bad = [True]

    @engine.tool()
    def once_bad() -> str:
        if bad:
            raise ToolError("bad")
        return "good"

    job = engine.submit([{"id": "a", "tool": "once_bad"}, {"id": "b", "tool": "echo", "input": {"value": "step:a"}}])
    engine.drain()
    bad.clear()
    control(engine).retry(job)
    control(engine).cancel(job)
    control(engine).retry(job)
    engine.drain()
    assert engine.store.result(job).steps == {"a": "good", "b": "good"}
    assert engine.store.view(job).status is JobStatus.SUCCEEDED


def test_large_values_lie_beside_the_job(engine: Engine) -> None:
    big = "x" * 200_000
    job = engine.submit(
        [{"id": "a", "tool": "echo", "input": {"value": "input:big"}}, {"id": "b", "tool": "echo", "input": {"value": ["step:a"]}}],
        inputs={"big": big},
    )
    engine.drain()
    keys = engine.ledger.keys(job)
    assert len(engine.ledger.redis.hget(keys.data, "r:a#0")) < 200  # type: ignore[arg-type]
    assert engine.ledger.redis.hlen(keys.big) == 2
    assert engine.store.result(job).steps["b"] == [big]


def test_a_result_beyond_the_limit_fails_the_call(engine: Engine) -> None:
    engine.store.settings.__dict__["result_max_bytes"] = 1_000
    view, _ = engine.run([{"id": "a", "tool": "echo", "input": {"value": "x" * 2_000}}])
    assert view.error is not None
    assert view.error.code == "result_too_large"


def test_a_bad_argument_is_named(engine: Engine) -> None:
    view, _ = engine.run([{"id": "a", "tool": "fail_on", "input": {"value": "many", "bad": []}}])
    assert view.error is not None
    assert "value" in view.error.message


def test_a_cancelled_tool_commits_nothing(engine: Engine) -> None:
    @engine.tool()
    def stopped(context: Any = None) -> str:
        raise CallCancelled()

    view, result = engine.run([{"id": "a", "tool": "stopped"}])
    assert view.status is JobStatus.FAILED, "a tool that stops although nobody asked has failed"
    assert result.errors[0].code == "cancelled_itself"


def test_a_deep_plan_is_skipped_without_recursion(engine: Engine) -> None:
    steps: list[dict[str, Any]] = [{"id": "s0", "tool": "fail"}]
    steps += [{"id": f"s{i}", "tool": "echo", "depends_on": [f"s{i - 1}"]} for i in range(1, 3_000)]
    view, _ = engine.run(steps, on_error="skip_dependents")
    assert view.status is JobStatus.FAILED
    assert {s.state for s in view.steps[1:]} == {"skipped"}


def test_finished_jobs_expire_and_running_ones_do_not(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    keys = engine.ledger.keys(job)
    assert engine.ledger.redis.ttl(keys.state) == -1
    engine.drain()
    assert 0 < int(engine.ledger.redis.ttl(keys.state)) <= engine.store.settings.retention_s  # type: ignore[arg-type]
    assert 0 < int(engine.ledger.redis.ttl(keys.data)) <= engine.store.settings.retention_s  # type: ignore[arg-type]


def test_idempotency_keys(engine: Engine) -> None:
    from orchestrator.models.plan import Plan

    plan = Plan.model_validate({"steps": [{"id": "a", "tool": "echo"}]})
    first = engine.store.submit(plan, inputs={}, idempotency=("k", "h1"))
    again = engine.store.submit(plan, inputs={}, idempotency=("k", "h1"))
    assert first == (again[0], True)
    assert again[1] is False
    with pytest.raises(Conflict):
        engine.store.submit(plan, inputs={}, idempotency=("k", "h2"))
    assert engine.store.submit(plan, inputs={}, tenant="other", idempotency=("k", "h2"))[1]


def test_listing_pages(engine: Engine) -> None:
    jobs = [engine.submit([{"id": "a", "tool": "echo"}]) for _ in range(7)]
    engine.drain(limit=3)
    page = engine.store.list(limit=3)
    seen = [j.id for j in page.jobs]
    while page.next_cursor:
        page = engine.store.list(limit=3, cursor=page.next_cursor)
        seen += [j.id for j in page.jobs]
    assert sorted(seen) == sorted(jobs)
    assert len(engine.store.list(status=JobStatus.SUCCEEDED).jobs) == 3
    assert not engine.store.list(tenant="other").jobs


async def test_following_resumes_after_any_event(engine: Engine, settings: Settings) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}, {"id": "b", "tool": "echo", "depends_on": ["a"]}])
    engine.drain()
    reader = EventReader(settings)
    whole = [e async for e in reader.follow(job)]
    assert whole[-1].type == "job.succeeded"
    for at, event in enumerate(whole[:-1]):
        rest = [e async for e in reader.follow(job, after=event.id)]
        assert [e.id for e in rest] == [e.id for e in whole[at + 1 :]]
    await reader.close()


async def test_a_trimmed_stream_says_so(engine: Engine, settings: Settings) -> None:
    job = engine.submit([{"id": "a", "tool": "echo", "map": "input:xs"}], inputs={"xs": list(range(20))})
    engine.drain()
    engine.ledger.redis.xtrim(engine.ledger.keys(job).events, maxlen=3, approximate=False)
    reader = EventReader(settings)
    seen = [e async for e in reader.follow(job)]
    assert seen[0].type == "gap"
    assert seen[0].data["status"] == "succeeded"
    assert seen[-1].type == "job.succeeded"
    await reader.close()


def test_a_queue_without_a_worker_is_said_once(engine: Engine) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    look = reconciler(engine)
    end = time.monotonic() + 10
    while "step.waiting" not in types(engine, job) and time.monotonic() < end:
        look.once()
    look.once()
    assert types(engine, job).count("step.waiting") == 1
    assert engine.store.view(job).steps[0].waiting == "no worker for queue function"


def test_a_tools_own_timeout_error_is_no_timeout_of_the_call(engine: Engine) -> None:
    @engine.tool()
    def impatient() -> None:
        raise TimeoutError("the service did not answer")

    view, result = engine.run([{"id": "a", "tool": "impatient", "retry": {"max": 0}}])
    assert view.status is JobStatus.FAILED
    assert (result.errors[0].code, result.errors[0].message) == ("tool_crashed", "TimeoutError: the service did not answer")


def test_a_job_that_cannot_be_planned_has_errors_until_it_is_retried(engine: Engine) -> None:
    from orchestrator.models.plan import Plan

    job, _ = engine.store.submit(Plan.model_validate({"steps": [{"id": "a", "tool": "echo"}]}), inputs={})
    engine.ledger.fail(job, b'{"code": "unknown_tool", "message": "There is no tool `echo` any more."}')
    view = engine.store.view(job)
    assert (view.status, view.has_errors) == (JobStatus.FAILED, True)
    assert view.error is not None
    assert view.error.code == "unknown_tool"
    control(engine).retry(job)
    engine.start(job)
    engine.drain()
    assert engine.store.view(job).status is JobStatus.SUCCEEDED
    assert not engine.store.view(job).has_errors


def test_a_worker_that_stood_still_between_claim_and_tool_runs_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease ran out meanwhile: the call is `unknown`, and a person may already have let it be tried again."""
    engine, ran = Engine(settings.model_copy(update={"lease_s": 0.2})), []

    @engine.tool(effect="once")
    def pay(context: ToolContext) -> str:
        ran.append(context.attempt)
        return "paid"

    prepare = Runner.prepare

    def slowly(self: Runner, claim: Claim, *rest: Any, **named: Any) -> Any:
        prepared = prepare(self, claim, *rest, **named)
        if claim.attempt == 1:
            end = time.monotonic() + 0.3
            wait_until(lambda: time.monotonic() > end, description="the process stands still")
            Reconciler(engine.store, engine.mailbox).once()
        return prepared

    monkeypatch.setattr(Runner, "prepare", slowly)
    job = engine.submit([{"id": "a", "tool": "pay"}])
    engine.drain()
    assert (ran, engine.store.status(job)) == ([], JobStatus.WAITING)
    control = Control(engine.store, engine.mailbox.app)
    control.publisher = engine.mailbox
    control.resolve(job, "a", happened=False)
    engine.drain()
    assert (ran, engine.store.status(job)) == ([2], JobStatus.SUCCEEDED)
