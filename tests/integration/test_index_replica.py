"""One replica from within: an empty store, feedback that is older than it, its lease while many changes come, odd notes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_search import replica as module
from orchestrator.tool_search.client import live_replicas
from orchestrator.tool_search.feedback_store import FeedbackStore
from orchestrator.tool_search.replica import Replica, View
from orchestrator.tool_search.shelf import Shelf
from tests.support import wait_until

pytestmark = pytest.mark.integration

URL = "http://127.0.0.1:1"


def tools(name: str, number: int) -> list[ToolDefinition]:
    return [ToolDefinition(name=f"{name}.t{n}", description=f"Does thing {n} of zork{n} and blop{n % 97}") for n in range(number)]


@pytest.fixture
def replica(settings: Settings) -> Iterator[Replica]:
    made = Replica(settings, url=URL)
    yield made
    made.stop()


def ready(replica: Replica) -> View:
    found = wait_until(lambda: replica.view, description="the replica knows the catalog", timeout=60)
    assert found is not None
    return found


def test_a_store_without_tools_is_read_once(replica: Replica, client: redis.Redis) -> None:
    replica.start()
    ready(replica)
    until = time.monotonic() + 6 * module.LOOK_S
    wait_until(lambda: time.monotonic() > until, description="some looks at the store")
    assert replica.counts["reloads"] == 1


def test_what_was_told_before_a_large_catalog_is_built_is_learned(
    replica: Replica, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW", 20)
    CatalogStore(client).publish("mcp:a", tools("a", 60))
    FeedbackStore(client).tell("make me happy", ["a.t7"], True, "default")
    replica.start()
    assert ready(replica).known.epoch, "it was built beside"
    learned = wait_until(lambda: replica.view and replica.view.learned_by("default"), description="it is learned", timeout=20)
    assert learned is not None


def test_the_lease_holds_while_many_changes_are_taken_over(
    replica: Replica, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LEASE_S", 0.5), ("RENEW_S", 0.1)):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr("orchestrator.tool_search.follow.BREATH_S", 0.05)  # so that they take long: 60 steps
    replica.start()
    ready(replica)
    wait_until(lambda: live_replicas(client) == (URL,), description="it announces itself")
    CatalogStore(client).publish("mcp:b", tools("b", 3_000))
    seen: list[tuple[str, ...]] = []

    def look() -> bool:
        seen.append(live_replicas(client))
        return ready(replica).index.find("b.t2999") is not None

    wait_until(look, description="they are taken over", timeout=60)
    assert set(seen) == {(URL,)}
    assert len(seen) > 10


@pytest.mark.parametrize("said", ["[]", '{"recipe": null}', '{"recipe": "1", "version": null}', '{"version": 7', "\x00"])
def test_a_note_that_is_damaged_is_refused_as_any_snapshot(settings: Settings, said: str) -> None:
    home = settings.home / "index" / "epoch"
    home.mkdir(parents=True)
    (home / "snap.json").write_text(said)
    refused: list[Path] = []
    shelf = Shelf(settings.home / "index", open=lambda _: pytest.fail("it is not opened"), refused=refused.append)
    assert shelf.newest() is None
    assert len(refused) == 1
    assert not list(home.glob("*.json"))


def test_answers_are_kept_apart_by_model_and_by_the_tools_of_the_program(replica: Replica) -> None:
    replica.start()
    view = ready(replica)
    other_model = replace(view, known=replace(view.known, model="another"))
    other_program = replace(view, index=view.index.apply([], ["receipt_ocr"], generation=view.generation))
    assert json.dumps(view.known.stand_ins), "the bundled tools stand in, and not in the store's hash"
    assert other_program.index.size < view.index.size
    assert len({v.state_for("default") for v in (view, other_model, other_program)}) == 3
