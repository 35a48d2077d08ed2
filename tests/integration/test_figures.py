"""The figures of a platform: all processes count into one place, exactly, bounded, and a monitor anywhere tells of all of them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from orchestrator.errors import ToolError
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring import ToolUsageMonitor
from orchestrator.monitoring import feed as feed_room
from orchestrator.monitoring.feed import (
    Feed,
    record_confirmation,
    record_fallback,
    record_job_cost,
    record_model_call,
    record_plan,
    record_search,
    use_feed,
)
from orchestrator.monitoring.metrics import TOOL_CALLS, Count, Metrics
from orchestrator.providers.scripted import ScriptedModel
from orchestrator.publisher.publish import follow
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
from tests.engine import Engine
from tests.planners import Planning
from tests.support import wait_until

pytestmark = pytest.mark.integration

COUNTS = """
import sys
from orchestrator.monitoring.feed import Feed
from orchestrator.settings import load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
feed = Feed(connect(load_settings()), METRICS)
for n in range(1000):
    feed.tool_call(f"tool_{sys.argv[1]}_{n % 60}", "succeeded", seconds=0.01)
"""


@pytest.fixture
def engine(settings: Settings, client: redis.Redis) -> Iterator[Engine]:
    made = Engine(settings)

    @made.tool()
    def good(n: int) -> int:
        return n

    @made.tool()
    def bad(secret: str) -> int:
        raise ToolError(f"cannot use {secret}", code="no_use")

    @made.tool()
    def once_more(n: int) -> int:
        tries.append(n)
        if len(tries) == 1:
            raise ToolError("not now", code="busy", retryable=True)
        return n

    tries: list[int] = []
    yield made
    feed_room._own.clear()


def monitor(client: redis.Redis) -> ToolUsageMonitor:
    return ToolUsageMonitor(client=client)


def test_the_ends_of_calls_are_counted_by_whoever_ran_them(engine: Engine, client: redis.Redis) -> None:
    engine.run_plan({"steps": [{"id": "list", "tool": "good", "input": {"n": 1}}], "output": "step:list"})
    engine.run_plan({"steps": [{"id": "b", "tool": "bad", "input": {"secret": "hunter2"}}]})
    engine.run_plan({"steps": [{"id": "r", "tool": "once_more", "input": {"n": 1}, "retry": {"max": 2, "backoff_s": 0.01}}]})
    wait_until(lambda: monitor(client).report().tool_calls == 4, description="the figures are sent")

    report = monitor(client).report()
    assert {t.name: (t.calls, t.errors) for t in report.tools} == {"good": (1, 0), "bad": (1, 1), "once_more": (2, 1)}
    assert all(t.p50_ms is not None and t.p50_ms < 1_000 for t in report.tools)
    assert [(e.tool, e.code) for e in report.recent_errors] == [("once_more", "busy"), ("bad", "no_use")]
    assert "hunter2" not in str(client.hgetall(METRICS))
    assert report.shared


def test_skipped_calls_are_none(engine: Engine, client: redis.Redis) -> None:
    engine.run_plan(
        {
            "steps": [
                {"id": "a", "tool": "good", "input": {"n": 1}},
                {"id": "b", "tool": "good", "input": {"n": 1}, "when": {"ref": "step:a", "op": "eq", "value": 2}},
            ]
        }
    )
    wait_until(lambda: monitor(client).report().tool_calls > 0, description="the figures are sent")
    assert monitor(client).report().tool_calls == 1


def test_processes_add_up_and_are_bounded_together(settings: Settings, client: redis.Redis) -> None:
    env = {"TOOLWEAVER_REDIS_URL": str(settings.redis_url), "TOOLWEAVER_HOME": str(settings.home)}
    children = [subprocess.Popen([sys.executable, "-c", COUNTS, str(n)], env={**env, "PATH": "/usr/bin"}) for n in range(4)]
    assert [c.wait(60) for c in children] == [0, 0, 0, 0], "and each sent what it had when it ended"
    report = monitor(client).report()
    assert report.tool_calls == 4_000
    assert report.unique_tools == 200, "of 240 names"
    assert 600 < next(t.calls for t in report.tools if t.name == "other") < 700, "40 names, 16 or 17 calls each"


def test_a_store_that_is_away_costs_nothing(settings: Settings) -> None:
    away = redis.Redis.from_url(f"unix://{settings.home}/none.sock")
    feed = Feed(away, METRICS)
    for _ in range(100):
        feed.tool_call("t", "succeeded", seconds=0.1)
    assert not feed.flush()
    assert feed._tally.counted().fields[(TOOL_CALLS.name, "t", "succeeded")] == 100, "it waits"


def test_what_waited_is_sent_when_the_store_is_back(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(client, METRICS)
    with monkeypatch.context() as patched:
        patched.setattr(feed._metrics, "add_fields", lambda *_: (_ for _ in ()).throw(redis.ConnectionError("away")))
        feed.tool_call("t", "failed", seconds=0.1, code="x")
        assert not feed.flush()
    feed.tool_call("t", "succeeded", seconds=0.1)
    wait_until(lambda: monitor(client).report().tool_calls == 2, description="both are there", timeout=10)
    assert len(monitor(client).report().recent_errors) == 1


def test_the_thread_ends_and_comes_back(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_room, "IDLE_S", 0.2)
    feed = Feed(client, METRICS)
    for n in (1, 2):
        feed.tool_call("t", "succeeded")
        wait_until(lambda n=n: monitor(client).report().tool_calls == n, description="it is sent")  # type: ignore[misc]
        wait_until(lambda: feed._thread is None, description="the thread ends")


def test_threads_of_a_process_lose_nothing(client: redis.Redis) -> None:
    feed = Feed(client, METRICS)
    threads = [
        threading.Thread(target=lambda: [feed.tool_call("t", "succeeded", seconds=0.1) for _ in range(3_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: monitor(client).report().tool_calls == 12_000, description="all are sent")


def test_a_model_call_counts_once(client: redis.Redis) -> None:
    feed = use_feed(Feed(client, METRICS))
    call = ModelCall(id="a", purpose="plan", provider="openai", model="m", input_tokens=10, output_tokens=1, cost_usd=0.25)
    for _ in range(3):
        record_model_call(call)
    record_model_call(call.model_copy(update={"id": "b"}))
    record_plan("model", repairs=2, replan=True, degraded=("search: the index service is away",))
    record_plan("template")
    record_job_cost(0.5)
    record_confirmation("refused")
    record_fallback("small model")
    record_search("process", cached=False, seconds=0.01)
    assert feed.flush()
    report = monitor(client).report()
    assert (report.cost_usd, report.models[0].calls, report.planned_jobs, report.cost_per_job_usd) == (0.5, 2, 1, 0.5)
    assert report.quality.model_dump() == {
        "plans": {"model": 1, "template": 1}, "plan_repairs": 2, "replans": 1, "confirmations": {"refused": 1}, "jobs": {},
        "fallbacks": {"planner: search": 1, "small model": 1},
    }  # fmt: skip
    assert report.searches == 1
    text = Metrics(client, METRICS).text().decode()
    assert 'toolweaver_model_cost_dollars_total{model="m",provider="openai"} 0.5' in text
    assert 'toolweaver_job_cost_dollars_bucket{le="1.0"} 1.0' in text


def test_a_fine_histogram_is_shown_by_powers_of_two(client: redis.Redis) -> None:
    feed = Feed(client, METRICS)
    for seconds in (0.25, 0.26, 3.0, 1e6):
        feed.tool_call("t", "succeeded", seconds=seconds)
    feed.flush()
    text = Metrics(client, METRICS).text().decode()
    lines = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("toolweaver_tool_seconds")}
    shown = {k.split('le="')[1].split('"')[0]: v for k, v in lines.items() if "_bucket" in k}
    assert (shown["0.125"], shown["0.25"], shown["0.5"], shown["4.0"], shown["4096.0"], shown["+Inf"]) == (0, 1, 2, 3, 3, 4)
    assert lines['toolweaver_tool_seconds_count{tool="t"}'] == 4


def test_two_monitors_share_their_figures(client: redis.Redis, settings: Settings) -> None:
    first, second = ToolUsageMonitor(client=client), ToolUsageMonitor(client=connect(settings))
    first.log_tool_call("t", False, 0.1, "boom")
    first.log_search_query("q", num_results=1, latency=0.1, cache_hit=True)
    first.log_token_usage(input_tokens=1, output_tokens=2, cached_tokens=3)
    first.close()
    report = second.report()
    assert (report.tool_calls, report.searches, report.cached_tokens, len(report.recent_errors)) == (1, 1, 3, 1)


def test_many_labels_are_sent_in_parts(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.monitoring.metrics._AT_ONCE", 7)
    Metrics(client, METRICS).add([Count(TOOL_CALLS, (f"t{n}", "succeeded")) for n in range(50)])
    assert monitor(client).report().unique_tools == 50


def test_the_ends_of_jobs_are_counted_once(engine: Engine, client: redis.Redis) -> None:
    good = {"id": "a", "tool": "good", "input": {"n": 1}}
    bad = {"id": "b", "tool": "bad", "input": {"secret": "x"}}
    engine.run_plan({"steps": [good]})
    engine.run_plan({"steps": [good, {**good, "id": "c", "map": "input:many"}], "inputs": {"many": [1, 2, 3]}})
    engine.run_plan({"steps": [bad]})
    engine.run_plan({"steps": [good, bad], "on_error": "continue"})
    cancelled = engine.submit([good])
    follow(engine.ledger, engine.mailbox, engine.ledger.cancel(cancelled))
    follow(engine.ledger, engine.mailbox, engine.ledger.cancel(cancelled))
    wait_until(lambda: sum(monitor(client).report().quality.jobs.values()) == 5, description="all are counted")
    assert monitor(client).report().quality.jobs == {
        "cancelled": 1,
        "failed with errors": 1,
        "succeeded": 2,
        "succeeded with errors": 1,
    }


def test_what_people_say_to_plans_is_counted(engine: Engine, client: redis.Redis) -> None:
    plan: dict[str, Any] = {"steps": [{"id": "a", "tool": "good", "input": {"n": 1}}]}
    planning = Planning(engine, ScriptedModel([plan, plan]))
    use_feed(Feed(client, METRICS))
    try:
        yes, no = (planning.submit("do something good", mode="confirm") for _ in range(2))
        for job in (yes, no):
            planning.run(job, until=("waiting",))
        for _ in range(2):
            planning.control.confirm(yes)
            planning.control.cancel(no)
    finally:
        planning.close()
    wait_until(lambda: len(monitor(client).report().quality.confirmations) == 2, description="both are counted")
    quality = monitor(client).report().quality
    assert quality.confirmations == {"confirmed": 1, "refused": 1}
    assert quality.plans == {"model": 2}
    assert quality.jobs == {"cancelled": 1}
