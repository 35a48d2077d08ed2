"""A provider's limits over processes: never passed in any window, used all the same, fair, and what a pause or an outage does."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.errors import RequestError
from orchestrator.policy.provider_limits import LUA, Most, Place, ProviderLimits, Wait, read_limits
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import provider_window
from orchestrator.state.scripts import Scripts
from tests.support import wait_until

pytestmark = pytest.mark.integration

MINUTE = 60.0

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))  # as `python bench/provider_limits.py` has it
bench = importlib.import_module("provider_limits")


def limits(client: redis.Redis, *, window_s: float = MINUTE, **most: int) -> ProviderLimits:
    return ProviderLimits(client, Most(**most), window_s=window_s)


def placed(answer: Place | Wait) -> Place:
    assert isinstance(answer, Place)
    return answer


def waits(answer: Place | Wait) -> Wait:
    assert isinstance(answer, Wait)
    return answer


@pytest.mark.parametrize("most", [Most(requests=120), pytest.param(Most(tokens=30_000), marks=pytest.mark.long)])
def test_many_processes_never_pass_a_limit_and_use_it(most: Most) -> None:
    trial = bench.Trial(most, window_s=3.0, slack_s=1.5, windows=2, processes=4, callers=8)
    verdict = bench.hold(trial)
    assert verdict.peak <= (most.requests or most.tokens or 0)
    assert verdict.share > 0.6  # the benchmark asks for 0.9 of a machine that has nothing else to do
    assert verdict.fewest > 0, "nobody starves"


def test_the_judge_finds_what_passes_a_limit() -> None:
    assert bench.peak([0.0, 0.5, 1.0, 1.4, 1.5], [1, 1, 1, 1, 1], 1.0) == 3
    assert bench.peak([0.0, 0.999, 1.0], [5, 7, 1], 1.0) == 12
    seen = [bench.Arrival(at, "0.0", 100) for at in (0.0, 0.5, 1.5)]
    verdict = bench.judge(seen, bench.Trial(Most(tokens=100), window_s=1.0, windows=2, processes=1, callers=2))
    assert (verdict.peak, verdict.share, verdict.fewest) == (200, 1.5, 0.0)


def test_a_place_counts_until_one_window_after_its_request_ended(client: Any) -> None:
    of = limits(client, requests=1, window_s=1.0)
    begun = time.monotonic()
    of.settle(placed(of.reserve("a", tokens=1)), 1)
    ended = time.monotonic()
    assert 0.9 < waits(of.reserve("a", tokens=1, ticket="next")).seconds <= 1.01
    wait_until(lambda: isinstance(of.reserve("a", tokens=1, ticket="next"), Place), description="the place lapsed", every=0.005)
    assert time.monotonic() - begun >= 1.0
    assert time.monotonic() - ended < 1.5


def test_a_reservation_of_who_died_lapses_by_itself(client: Any) -> None:
    of = limits(client, requests=1, window_s=0.4)
    placed(of.reserve("a", tokens=1))  # and nobody settles it
    wait_until(lambda: isinstance(of.reserve("a", tokens=1, ticket="next"), Place), description="the place lapsed", timeout=3)
    assert int(client.hget(provider_window("a")[2], "r")) == 1


def test_tokens_that_were_not_used_are_given_back_and_more_than_reserved_counts_later(client: Any) -> None:
    of = limits(client, tokens=1_000)
    first = placed(of.reserve("a", tokens=900))
    refused = waits(of.reserve("a", tokens=900, ticket="next"))
    assert (refused.reason, refused.again_s < refused.seconds) == ("tokens", True), "an open place may give tokens back soon"
    of.settle(first, 100)
    second = placed(of.reserve("a", tokens=900, ticket="next"))
    of.settle(second, 5_000)
    owes = waits(of.reserve("a", tokens=1))
    assert owes.seconds > 55
    assert owes.again_s == owes.seconds
    of.settle(second, 1)  # what was settled is settled
    waits(of.reserve("a", tokens=1))


def test_tokens_beyond_a_place_that_lapsed_count_from_now_on(client: Any) -> None:
    of = limits(client, tokens=100, window_s=0.4)
    slow = placed(of.reserve("a", tokens=10))
    wait_until(lambda: not of.in_time(slow), description="the place is stale")
    wait_until(lambda: isinstance(of.reserve("a", tokens=100, ticket="all"), Place), description="the place lapsed")
    of.settle(slow, 60)
    used = waits(of.reserve("a", tokens=100))
    assert used.reason == "tokens"


def test_what_was_never_sent_takes_no_place(client: Any) -> None:
    of = limits(client, requests=1, tokens=10)
    of.release(placed(of.reserve("a", tokens=10)))
    placed(of.reserve("a", tokens=10))


def test_a_request_larger_than_the_limit_goes_alone(client: Any) -> None:
    of = limits(client, tokens=100)
    whole = placed(of.reserve("a", tokens=100_000))
    waits(of.reserve("a", tokens=1, ticket="small"))
    of.leave("a", "small")
    of.release(whole)
    small = placed(of.reserve("a", tokens=1))
    waits(of.reserve("a", tokens=100_000, ticket="large"))
    of.release(small)
    placed(of.reserve("a", tokens=100_000, ticket="large"))


def test_who_waits_is_not_passed_by_those_who_come_later(client: Any) -> None:
    of = limits(client, tokens=100)
    first, second = placed(of.reserve("a", tokens=60)), placed(of.reserve("a", tokens=30))
    waits(of.reserve("a", tokens=90, ticket="large"))
    waits(of.reserve("a", tokens=10, ticket="small"))  # it would fit, and the large one would wait for ever
    of.release(second)
    waits(of.reserve("a", tokens=10, ticket="small"))
    of.release(first)
    placed(of.reserve("a", tokens=10, ticket="small"))  # it leaves the large one enough
    placed(of.reserve("a", tokens=90, ticket="large"))


def test_who_gives_up_or_does_not_come_back_holds_up_nobody(client: Any) -> None:
    of = limits(client, tokens=100, window_s=3.0)
    first = placed(of.reserve("a", tokens=100))
    waits(of.reserve("a", tokens=100, ticket="gone"))
    waits(of.reserve("a", tokens=50, ticket="left"))
    of.leave("a", "left")
    of.release(first)
    waits(of.reserve("a", tokens=100, ticket="next"))
    wait_until(lambda: isinstance(of.reserve("a", tokens=100, ticket="next"), Place), description="the ticket lapsed", timeout=5)


def test_a_pause_holds_for_all_and_for_that_provider_alone(client: Any, settings: Settings) -> None:
    of, other = limits(client), limits(connect(settings))
    of.pause("a", 30.0)
    of.pause("a", 5.0)  # a shorter one ends no longer one
    paused = waits(other.reserve("a", tokens=1))
    assert paused.reason == "paused"
    assert 29 < paused.seconds <= 30
    placed(other.reserve("b", tokens=1))
    of.pause("b", 1e9)
    assert waits(other.reserve("b", tokens=1)).seconds <= 600


def test_a_script_that_is_sent_again_takes_one_place(client: Any) -> None:
    scripts, keys = Scripts(client, LUA), provider_window("a")
    args = ["id", "id", 10, 2, 100, 60_000, 3_000, 5_000, 0]
    assert scripts.call("provider_reserve", keys, args) == scripts.call("provider_reserve", keys, args) == []
    assert client.hgetall(keys[2])[b"r"] == b"1"


def test_without_limits_and_without_redis_everything_passes(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert all(placed(limits(client).reserve("a", tokens=10**9)).kept for _ in range(50))
    away = limits(redis.Redis(port=1, socket_connect_timeout=0.2), requests=1)
    with caplog.at_level(logging.WARNING):
        places = [placed(away.reserve("a", tokens=1)) for _ in range(3)]
        for place in places:
            away.settle(place, 1)
    assert not any(place.kept for place in places)
    assert [r.__dict__["action"] for r in caplog.records] == ["limits_away"], "said once"


def test_settings_say_the_limits_of_all_and_of_each(client: Any) -> None:
    made = load_settings(
        _env_file=None, provider_requests_per_minute=7, provider_limits="openai=500/200000, anthropic=50/-,ollama=-/9"
    )
    of = ProviderLimits.of(made, client)
    assert of.most("gemini") == Most(7, None)
    assert (of.most("openai"), of.most("anthropic"), of.most("ollama")) == (Most(500, 200_000), Most(50), Most(None, 9))


@pytest.mark.parametrize("text", ["openai", "openai=x", "=5/5", "openai=0/1", "openai=1/-5", "openai=1/2/3"])
def test_a_limit_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(RequestError, match="openai=500/200000") as caught:
        read_limits((text,))
    assert f"`{text}`" in caught.value.message
