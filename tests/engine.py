"""The engine without processes: real ledger, real runner; messages wait in a list until the test delivers them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

from orchestrator.broker.app import make_app
from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.jobs.ledger import Queues, ReadyCall
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import JobResult, JobView
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.publisher.compile import compile_plan
from orchestrator.publisher.publish import Publisher
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from workers.beats import BeatTable
from workers.step import Runner


class Mailbox(Publisher):
    """Keeps what would be published."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.calls: list[ReadyCall] = []

    def publish(self, calls: Any, *, priority: Any = "normal") -> None:
        self.calls += calls

    def wake_planner(self, job: str) -> None:
        return None


class Engine:
    """Submits plans of registered tools and delivers their calls in any order."""

    def __init__(self, settings: Settings) -> None:
        self.registry = ToolRegistry()
        app = make_app(settings)
        settings = settings.model_copy(update={"broker_url": "memory://"})  # so that messages come to the mailbox
        self.store = JobStore(connect(settings), settings)
        self.ledger = self.store.ledger
        self.mailbox = Mailbox(app)
        self.beats = BeatTable(8)
        self.runner = Runner(self.store, self.mailbox.app, registry=self.registry, queue="function", beats=self.beats)
        self.runner.publisher = self.mailbox

    def tool(self, effect: str = "none", **options: Any) -> Callable[[Any], Any]:
        return register_function(effect=effect, registry=self.registry, **options)  # type: ignore[arg-type]

    def submit(self, steps: list[dict[str, Any]], *, inputs: Mapping[str, Any] | None = None, **plan: Any) -> str:
        made = Plan.model_validate({"steps": steps, **plan})
        job, _ = self.store.submit(made, inputs=inputs or {})
        self.start(job, inputs or {})
        return job

    def start(self, job: str, inputs: Mapping[str, Any] | None = None) -> None:
        catalog = ToolCatalog(tools=self.registry.definitions())
        compiled = compile_plan(self.store.plan(job), catalog=catalog, inputs=inputs or {})
        calls = self.ledger.start(job, rows=compiled.rows, lengths=compiled.lengths, queues=Queues(compiled.queues), envelopes={})
        self.mailbox.publish(calls)

    def deliver(self, call: ReadyCall) -> str:
        return self.runner.run(call.job, call.call, attempt=call.attempt)

    def drain(self, *, shuffle: random.Random | None = None, limit: int = 100_000) -> int:
        """Delivers messages until there are none; how many there were."""
        delivered = 0
        while self.mailbox.calls and delivered < limit:
            at = shuffle.randrange(len(self.mailbox.calls)) if shuffle else 0
            self.deliver(self.mailbox.calls.pop(at))
            delivered += 1
        return delivered

    def run(self, steps: list[dict[str, Any]], **rest: Any) -> tuple[JobView, JobResult]:
        job = self.submit(steps, **rest)
        self.drain()
        return self.store.view(job), self.store.result(job)
