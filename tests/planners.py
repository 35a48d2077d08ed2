"""A planner process in this process: the real pool and ledger, a scripted model, and an engine that runs what is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.broker.app import make_app
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.requests import Request
from orchestrator.models.job import JobStatus, RequestMode
from orchestrator.planner.large import LargePlanner
from orchestrator.planner.service import RequestPool
from orchestrator.planner.turns import Turns
from orchestrator.providers.model import Model
from orchestrator.publisher.control import Control
from orchestrator.state.keys import all_shards
from orchestrator.tasks import Planner
from tests.engine import Engine
from tests.support import wait_until


class Planning:
    """A planner over the ledger of an engine; several may stand over one, as processes do."""

    def __init__(self, engine: Engine, model: Model | None, **settings: Any) -> None:
        self.engine, self.store = engine, engine.store
        CatalogStore(self.store.redis).announce(engine.registry.definitions())
        made = self.store.settings.model_copy(update=settings)
        self.planner = Planner(made, make_app(made))
        self.planner.publisher = engine.mailbox
        turns = Turns(
            self.planner.store,
            tools=lambda tenant: self.planner.catalog.all().seen_by(tenant),
            planner=lambda tools: LargePlanner(tool_catalog=tools, settings=made),
            model=lambda: model,
            start=self.planner._plan,
            follow=self.planner._follow,
        )
        self.pool = RequestPool(
            self.planner.store.requests, turns, concurrency=made.planner_concurrency, wake=engine.mailbox.wake_planner
        )
        self.planner.__dict__["requests"] = self.pool
        self.control = Control(self.store, engine.mailbox.app)
        self.control.publisher = engine.mailbox

    def submit(self, text: str, *, mode: RequestMode = "run", inputs: Mapping[str, Any] | None = None, **rest: Any) -> str:
        tools = rest.pop("tools", None)
        return self.control.accept_request(Request(text, mode, tools), inputs=inputs or {}, **rest)[0]

    def look(self) -> None:
        """What a wake-up does: all that is due is taken."""
        for shard in all_shards(self.store.settings.shards):
            while (job := self.store.ledger.take(shard)) is not None:
                self.planner._plan(job)

    def run(self, job: str, *, until: tuple[str, ...] = ("succeeded", "failed", "cancelled"), timeout: float = 20) -> JobStatus:
        """Plans and runs a job until it stands there."""

        def there() -> bool:
            self.look()
            self.engine.drain()
            self.engine.retry_now(job)
            return self.store.status(job) in until

        wait_until(there, description=f"{job} is {' or '.join(until)}", timeout=timeout)
        return self.store.status(job)

    def close(self) -> None:
        self.pool.close()
