"""Two replicas over one home, killed and started again at random under queries: no query fails, no answer is wrong."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.search import Filters, IndexStatus, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.client import IndexClient
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until

pytestmark = pytest.mark.integration

SEED = int(os.environ.get("INDEX_SEED", random.SystemRandom().randrange(1 << 30)))
WORDS = ("weather", "invoice", "calendar", "translate", "payment", "camera", "garden", "railway")


def tools(round: int) -> list[ToolDefinition]:
    """One tool for each word, which changes with the round."""
    return [ToolDefinition(name=f"kept.{w}", description=f"Handles {w} matters, edition {round}") for w in WORDS]


@pytest.fixture
def running() -> Iterator[Platform]:
    with platform() as made:
        CatalogStore(made.client).publish("mcp:kept", tools(0))
        hidden = ToolDefinition(name="hidden.weather", description="Handles weather matters", tenants=("acme",))
        CatalogStore(made.client).publish("mcp:hidden", [hidden])
        for name in ("one", "two"):
            made.start(
                name, [sys.executable, "-m", "orchestrator.tool_search.service"], env={"TOOLWEAVER_INDEX_PORT": str(free_port())}
            )
        yield made


class Asking(threading.Thread):
    """Asks without pause; what failed or was wrong."""

    def __init__(self, client: IndexClient, seed: int) -> None:
        super().__init__(daemon=True)
        self.client, self.random = client, random.Random(seed)
        self.ended, self.count, self.wrong = threading.Event(), 0, list[str]()

    def run(self) -> None:
        while not self.ended.is_set():
            word = self.random.choice(WORDS)
            try:
                found = self.client.search(
                    SearchRequest(queries=(f"handles {word} matters",), k=3, filters=Filters(tenant="other"))
                )
            except Exception as error:
                self.wrong.append(repr(error))
                continue
            self.count += 1
            names = [hit.name for hit in found.hits]
            if names[0] != f"kept.{word}" or "hidden.weather" in names:
                self.wrong.append(f"{word}: {names}")


def strike(running: Platform, *, seconds: float) -> None:
    """Kills and starts replicas, and changes the catalog."""
    chance, store, until, round = random.Random(SEED), CatalogStore(running.client), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        round += 1
        store.publish("mcp:kept", tools(round))
        name = chance.choice(("one", "two"))
        running.kill(name)
        threading.Event().wait(chance.uniform(0.0, 0.5))
        running.start_again(name)
        wait_until(lambda: len(_ready(running)) == 2, description="both answer again", timeout=60)


def _ready(running: Platform) -> dict[str, IndexStatus]:
    with IndexClient.of(running.settings, client=running.client, timeout=5) as client:
        return {url: status for url, status in client.statuses().items() if isinstance(status, IndexStatus)}


def both_equal(running: Platform) -> bool:
    found = list(_ready(running).values())
    return len(found) == 2 and len({(s.generation, s.catalog_hash, s.store_generation, s.store_hash) for s in found}) == 1


@pytest.mark.parametrize("seconds", [10, pytest.param(120, marks=pytest.mark.long)])
def test_no_query_fails_while_replicas_are_killed(running: Platform, seconds: float) -> None:
    wait_until(lambda: len(_ready(running)) == 2, description="both answer", timeout=60)
    client = IndexClient.of(running.settings, timeout=15.0)
    threads = [Asking(client, SEED + n) for n in range(4)]
    for thread in threads:
        thread.start()
    strike(running, seconds=seconds)
    for thread in threads:
        thread.ended.set()
        thread.join(30)
    said = f"seed {SEED}, {sum(t.count for t in threads)} queries\n{running.logs()}"
    wrong = [w for t in threads for w in t.wrong]
    assert not wrong, f"{len(wrong)}: {wrong[:5]}; {said}"
    assert all(t.count for t in threads), said
    wait_until(lambda: both_equal(running), description="both have the store's hash", timeout=30)
    status = next(iter(_ready(running).values()))
    assert status.catalog_hash == status.store_hash == CatalogStore(running.client).catalog_hash()
    client.close()
