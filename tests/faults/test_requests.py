"""Requests in words under faults, with real processes: a provider that counts its requests, planners killed and stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest

from orchestrator.jobs.requests import Request
from orchestrator.models.job import JobStatus
from tests.faults.platforms import QUICK
from tests.faults.strikes import api_answers
from tests.processes import SERVER, Platform, platform
from tests.support import wait_until
from tests.wire import Turn, WireServer, wire_server
from tests.wire.base import Body

pytestmark = pytest.mark.chaos

LEASE_S = 2.0  # of calls; that of a planner is three times as long
PLAN: dict[str, Any] = {"steps": [{"id": "a", "tool": "work", "input": {"seconds": 0.01}}], "output": "step:a"}
BAD: dict[str, Any] = {"steps": [{"id": "a", "tool": "work", "input": {"seconds": "long"}}]}


class Provider:
    """Answers by `script`; while `open` is not set, requests that came wait."""

    def __init__(self) -> None:
        self.open, self.script = Event(), [Turn(value=PLAN)]
        self.open.set()
        self.server: WireServer | None = None

    def answer(self, number: int, _: Body) -> Turn:
        self.open.wait(30)
        return self.script[min(number, len(self.script)) - 1]

    @property
    def asked(self) -> int:
        assert self.server is not None, "it serves"
        return len(self.server.seen)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    with wire_server("openai-chat", made.answer) as server:
        made.server = server
        try:
            yield made
        finally:
            made.open.set()


@pytest.fixture
def p(provider: Provider) -> Iterator[Platform]:
    assert provider.server is not None
    with ExitStack() as stack:
        made = stack.enter_context(platform(**QUICK | {"lease_s": LEASE_S}, **provider.server.settings(), planner_retries=0))
        made.start_planner()
        made.start_worker()
        made.wait_ready()
        yield made


def submit(p: Platform, text: str = "do some work") -> str:
    return p.control.accept_request(Request(text), inputs={})[0]


def calls(p: Platform, job: str) -> int:
    usage = p.store.view(job).usage
    return usage.calls if usage else 0


def test_a_planner_that_is_killed_in_mid_call_is_followed_by_another(p: Platform, provider: Provider) -> None:
    provider.open.clear()
    job = submit(p)
    wait_until(lambda: provider.asked == 1, description="the model is asked")
    p.kill("planner")
    p.start_planner("second")
    wait_until(lambda: provider.asked == 2, description="the other planner asks, once the lease has ended")
    provider.open.set()
    view = p.wait(job)
    assert (view.status, provider.asked) == (JobStatus.SUCCEEDED, 2), "once a planner that asked, and no more"


def test_what_was_answered_before_a_kill_is_not_asked_again(p: Platform, provider: Provider) -> None:
    provider.script = [Turn(value=BAD), Turn(status=429, headers={"Retry-After": "2"}), Turn(value=PLAN)]
    job = submit(p)
    wait_until(lambda: p.store.view(job).waiting, description="the repair waits for the provider")
    p.restart("planner")
    view = p.wait(job)
    assert view.status is JobStatus.SUCCEEDED
    assert view.planned is not None
    assert view.planned.repairs == 1
    assert (provider.asked, calls(p, job)) == (3, 3)


def test_two_planners_ask_once_for_each_request(p: Platform, provider: Provider) -> None:
    p.start_planner("second")
    jobs = [submit(p, f"do some work, number {n}") for n in range(20)]
    assert {p.wait(job).status for job in jobs} == {JobStatus.SUCCEEDED}
    assert provider.asked == 20
    assert [calls(p, job) for job in jobs] == [1] * 20


def test_a_long_answer_is_waited_for_by_one_planner(p: Platform, provider: Provider) -> None:
    """Longer than the lease, which is renewed meanwhile."""
    p.start_planner("second")
    provider.open.clear()
    job = submit(p)
    wait_until(lambda: provider.asked == 1, description="the model is asked")
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 2 * p.store.requests.lease_ms / 1000, description="two leases pass", timeout=30)
    provider.open.set()
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert provider.asked == 1


def test_a_planner_that_is_stopped_gives_its_request_back_at_once(p: Platform, provider: Provider) -> None:
    provider.open.clear()
    job = submit(p)
    wait_until(lambda: provider.asked == 1, description="the model is asked")
    p.start_planner("second")
    wait_until(lambda: p.said("ready"), description="the second one is up", timeout=30)
    assert p.terminate("planner") == 0
    stopped = time.monotonic()
    wait_until(lambda: provider.asked == 2, description="the other planner asks")
    assert time.monotonic() - stopped < p.store.requests.lease_ms / 1000
    provider.open.set()
    assert p.wait(job).status is JobStatus.SUCCEEDED


def test_a_request_is_cancelled_while_the_model_thinks(p: Platform, provider: Provider) -> None:
    provider.open.clear()
    job = submit(p)
    wait_until(lambda: provider.asked == 1, description="the model is asked")
    p.control.cancel(job)
    provider.open.set()
    later = submit(p)
    assert p.wait(later).status is JobStatus.SUCCEEDED
    view = p.store.view(job)
    assert (view.status, view.steps) == (JobStatus.CANCELLED, ())
    assert provider.asked == 2


def test_a_provider_that_is_down_is_asked_again_when_it_says(p: Platform, provider: Provider) -> None:
    provider.script = [Turn(status=503, headers={"Retry-After": "1"}), Turn(value=PLAN)]
    job = submit(p)
    wait_until(lambda: p.store.view(job).waiting, description="it says why it waits")
    assert p.store.status(job) is JobStatus.PLANNING
    view = p.wait(job)
    assert view.status is JobStatus.SUCCEEDED
    assert view.usage is not None
    assert (view.usage.calls, view.usage.failed) == (2, 1)


def test_from_a_sentence_with_a_file_to_the_answer_over_http(p: Platform, provider: Provider) -> None:
    plan = {"steps": [{"id": "a", "tool": "work", "map": "input:files", "input": {"seconds": 0.01}}]}
    provider.script = [Turn(value=plan, usage=(900, 60, 512))]
    p.start_api()
    wait_until(lambda: api_answers(p), description="the API answers", timeout=60)
    job = p.api.submit("do some work for each file", files=[b"one", b"two"], mode="confirm", tools=["work"])
    assert [s.tool for s in job.wait_plan(30).steps] == ["work"]
    wait_until(lambda: job.view().status is JobStatus.WAITING, description="it waits for the confirmation")
    job.confirm()
    assert job.result(30) == [1, 1]
    usage = job.usage()
    assert (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (1, 900, 512, 60)
    assert len(job.view().request or "") > 0
    only = p.api.submit(request="work", mode="plan", files=b"one")
    assert only.result(30)["steps"][0]["tool"] == "work"


@pytest.mark.long
def test_a_store_that_is_away_when_the_answer_comes_costs_no_second_request(p: Platform, provider: Provider) -> None:
    provider.open.clear()
    job = submit(p)
    wait_until(lambda: provider.asked == 1, description="the model is asked")
    p.kill(SERVER)
    provider.open.set()
    begun, away_s = time.monotonic(), 1.2 * p.store.requests.lease_ms / 1000
    wait_until(lambda: time.monotonic() - begun > away_s, description="the store is away for longer than the lease", timeout=30)
    p.start_server()
    assert p.wait(job).status is JobStatus.SUCCEEDED
    assert (provider.asked, calls(p, job)) == (1, 1)
