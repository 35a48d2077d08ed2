"""How many jobs and programs an hour may have: exact under many at once, in all windows or none, a job with its program once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orchestrator.errors import RateLimited
from orchestrator.models.access import Caller, Limits, Policy
from orchestrator.policy.rates import JobRates
from orchestrator.policy.store import PolicyStore
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import started_by
from tests.integration.test_tenancy import ADD, Tenants, bearer, serving
from tests.support import wait_until

pytestmark = pytest.mark.integration

ALICE, BOB = Caller(tenant="acme", key="a1", name="alice"), Caller(tenant="acme", key="b2", name="bob")
EVE = Caller(tenant="other", key="e3", name="eve")
RATES = {"rate_user_per_hour": 3, "rate_tenant_per_hour": 5, "rate_global_per_hour": 7}


def rates(settings: Settings, *, window_s: float = 3_600.0, **changes: int) -> JobRates:
    return JobRates(connect(settings), settings.model_copy(update={**RATES, **changes}), window_s=window_s)


def taken(of: JobRates, caller: Caller, tries: int) -> int:
    """How many of so many jobs were let in."""
    let_in = 0
    for _ in range(tries):
        try:
            of.take(caller)
        except RateLimited:
            continue
        let_in += 1
    return let_in


def counted(client: Any, *whom: str) -> list[int]:
    return [client.zcard(started_by(name)) for name in whom]


def test_a_key_a_tenant_and_all_have_a_limit_each(settings: Settings, client: Any) -> None:
    of = rates(settings)
    assert taken(of, ALICE, 5) == 3
    assert taken(of, BOB, 5) == 2, "the tenant has five"
    assert taken(of, EVE, 5) == 2, "all have seven"
    assert counted(client, "user:a1", "tenant:acme", "user:b2", "tenant:other", "all") == [3, 5, 2, 2, 7], "none counts in part"


@pytest.mark.parametrize(
    ("changes", "says", "move"),
    [
        ({"rate_user_per_hour": 1}, "This key may start 1 jobs", "permissions set acme --limit user_jobs_per_hour="),
        ({"rate_tenant_per_hour": 1}, "This tenant may start 1 jobs", "permissions set acme --limit jobs_per_hour="),
        ({"rate_global_per_hour": 1}, "All tenants together may start 1 jobs", "TOOLWEAVER_RATE_GLOBAL_PER_HOUR"),
    ],
)
def test_a_refusal_says_whose_limit_it_is_and_when_to_come_again(
    settings: Settings, changes: dict[str, int], says: str, move: str
) -> None:
    of = rates(settings, **changes)
    of.take(ALICE)
    with pytest.raises(RateLimited, match=says) as caught:
        of.take(ALICE)
    assert move in (caught.value.next or "")
    assert 3_590 < caught.value.retry_after_s <= 3_600


def test_minus_one_is_no_limit_and_zero_lets_nothing_in(settings: Settings, client: Any) -> None:
    free = rates(settings, rate_user_per_hour=-1, rate_tenant_per_hour=-1, rate_global_per_hour=-1)
    assert taken(free, ALICE, 50) == 50
    assert counted(client, "user:a1", "tenant:acme", "all") == [0, 0, 0]
    with pytest.raises(RateLimited):
        rates(settings, rate_user_per_hour=0).take(ALICE)


def test_who_needs_no_key_has_no_rate(settings: Settings, client: Any) -> None:
    of = rates(settings, rate_user_per_hour=0, rate_tenant_per_hour=0, rate_global_per_hour=0)
    assert taken(of, Caller(), 20) == 20
    of.take_program(tenant="default", called=("direct",), job="job_1", call="p#0")
    assert client.keys("tw:{rates}:*") == []


def test_a_tenants_own_limits_come_from_its_policy(settings: Settings, client: Any) -> None:
    PolicyStore(client, settings).put("acme", Policy(limits=Limits(user_jobs_per_hour=1, jobs_per_hour=2)))
    of = rates(settings)
    assert [taken(of, ALICE, 3), taken(of, BOB, 3), taken(of, EVE, 4)] == [1, 1, 3]


def test_the_window_slides(settings: Settings) -> None:
    of = rates(settings, window_s=1.0, rate_user_per_hour=2)
    begun = time.monotonic()
    assert taken(of, ALICE, 3) == 2
    with pytest.raises(RateLimited) as caught:
        of.take(ALICE)
    assert 0 < caught.value.retry_after_s <= 1.0
    wait_until(lambda: taken(of, ALICE, 1), description="the first left the window", timeout=5)
    assert time.monotonic() - begun >= 0.99


def test_a_job_that_was_not_made_does_not_count(settings: Settings, client: Any) -> None:
    of = rates(settings)
    with pytest.raises(ZeroDivisionError), of.job(ALICE):
        raise ZeroDivisionError
    with of.job(ALICE):
        pass
    assert counted(client, "user:a1", "tenant:acme", "all") == [0, 0, 0]
    with of.job(ALICE) as made:
        made()
    assert counted(client, "user:a1", "tenant:acme", "all") == [1, 1, 1]


def test_a_job_stands_for_its_first_program_and_each_program_counts_once(settings: Settings, client: Any) -> None:
    of = rates(settings)
    of.take(ALICE)
    for call in ("p#0", "p#0", "p#1", "p#1", "p#0"):  # calls that run again are the same programs
        of.take_program(tenant="acme", called=("a1", "alice"), job="job_1", call=call)
    assert counted(client, "user:a1") == [2]
    of.take_program(tenant="acme", called=("a1", "alice"), job="job_1", call="p#2")
    with pytest.raises(RateLimited):
        of.take_program(tenant="acme", called=("a1", "alice"), job="job_1", call="p#3")
    of.take_program(tenant="acme", called=("a1", "alice"), job="job_1", call="p#1")  # has its place


@pytest.fixture
def tenants(settings: Settings) -> Iterator[Tenants]:
    with ExitStack() as stack:
        yield Tenants(stack.enter_context(serving(settings)), stack)


def test_jobs_of_an_hour_have_a_limit_and_only_new_ones_count(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(user_jobs_per_hour=2))
    body = {"plan": ADD, "inputs": {}}
    once = {"Idempotency-Key": "once"}
    made = [tenants.http.post("/v1/jobs", json=body, headers=once) for _ in range(3)]
    assert [a.status_code for a in made] == [201, 200, 200], "a repeat is no new job"
    assert tenants.http.post("/v1/jobs", json={"plan": {"steps": []}}).status_code == 422, "nor is a plan with problems"
    job = made[0].json()["id"]
    tenants.mallory.job(job).cancel()
    assert tenants.http.post(f"/v1/jobs/{job}/retry").status_code == 200, "nor is a retry"
    assert tenants.http.post("/v1/tools/add/run", json={"input": {"a": 1}}).status_code == 201

    for path, json_body in (("/v1/jobs", body), ("/v1/tools/add/run", {"input": {"a": 1}})):
        refused = tenants.http.post(path, json=json_body)
        assert refused.status_code == 429
        assert (refused.json()["code"], refused.json()["path"]) == ("rate_limited", "user_jobs_per_hour")
        assert 3_000 < int(refused.headers["retry-after"]) <= 3_600
        assert "This key may start 2 jobs" in refused.json()["detail"]
    assert tenants.http.post("/v1/jobs", json=body, headers=once).status_code == 200, "the same key gives the same job"
    other = tenants.served.key("mallory")
    assert tenants.http.post("/v1/jobs", json=body, headers=bearer(other)).status_code == 201, "another key has its own"
    tenants.acme.submit(ADD)
    assert "limited" in {e.verdict for e in tenants.served.audit(tenant="mallory")}


def take_many(url: str, name: str, ready: Any) -> None:
    """A process whose threads take jobs for two keys."""
    settings = load_settings(_env_file=None, redis_url=url, **{"rate_user_per_hour": 40, "rate_tenant_per_hour": 60})
    of, client = JobRates(connect(settings), settings), connect(settings)
    ready.wait(60)
    threads = [
        threading.Thread(target=lambda c=caller: client.incrby(f"taken {c.key}", taken(of, c, 15)))  # type: ignore[misc]
        for caller in (ALICE, BOB) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.rpush("done", name)


@pytest.mark.timeout(120)
def test_many_processes_and_threads_do_not_slip_past_a_limit(settings: Settings, client: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(4)
    processes = [spawn.Process(target=take_many, args=(settings.store_url, str(n), ready), daemon=True) for n in range(4)]
    try:
        for process in processes:
            process.start()
        wait_until(lambda: client.llen("done") == 4, description="all have tried", timeout=90)
    finally:
        for process in processes:
            process.kill()
            process.join()
    got = Counter({key: int(client.get(f"taken {key}")) for key in ("a1", "b2")})
    assert got.total() == 60, "480 tried, and the tenant has sixty"
    assert max(got.values()) <= 40
    assert counted(client, "user:a1", "user:b2", "tenant:acme", "all") == [got["a1"], got["b2"], 60, 60]
