"""Starts the worker of one pool: `python -m workers.boot --pool ocr`. After warm-up it announces its tools."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # while modules are loaded, of which nothing is garbage: looking for it took a fifth of the start

import argparse
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from types import ModuleType
from typing import Any, get_args

import redis
from billiard.process import current_process
from celery import Celery, current_task
from celery.exceptions import Ignore
from celery.signals import worker_process_init, worker_ready, worker_shutdown

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import POOLS, Pool, PoolKind, task_name
from orchestrator.broker.worker import run_worker
from orchestrator.catalog.register import ToolRegistry, load_entry_points, load_tools, registry
from orchestrator.catalog.store import POOL_SOURCE, CatalogStore, NameTaken
from orchestrator.errors import RequestError
from orchestrator.jobs.store import JobStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from workers import prefork_pool
from workers.able import refusal
from workers.aio_pool import AsyncPool
from workers.beats import Beater, BeatTable
from workers.drain import Drain
from workers.presence import Presence
from workers.step import Runner

log = logging.getLogger(__name__)

MOST_TOLD = 500

Service = Callable[[JobStore, Celery], AbstractAsyncContextManager[None]]
"""What the tools of an async pool need, kept for as long as its worker runs: `serve` of the pool's module."""


class Worker:
    """The main process of a pool's worker: the Celery app, the shared beats, the sign of life."""

    def __init__(
        self, settings: Settings, pool: Pool, *, concurrency: int, tools: ToolRegistry, service: Service | None = None
    ) -> None:
        self.settings, self.pool, self.tools = settings, pool, tools
        self.concurrency = 1 if pool.kind == "solo" else concurrency
        self.app = make_app(settings)
        self.app.conf.worker_concurrency = self.concurrency  # a pool's service may want to know
        # After a reconnect a few more calls may run than there are slots: those of before, and new ones.
        self.beats = BeatTable(self.concurrency if pool.kind == "prefork" else 2 * self.concurrency + 64)
        self.presence = Presence(pool.name, concurrency=self.concurrency, tools=[t.name for t in self.definitions()])
        self._runner: Runner | None = None
        self._beater: Beater | None = None
        self._async: AsyncPool | None = None
        self._drain = Drain(settings.drain_s, withdraw=self._withdraw)
        if pool.kind == "async":
            entered = service(self.runner().store, self.app) if service is not None else None
            self._async = AsyncPool(self.app, self.runner(), events=settings.task_events, service=entered)
        self._add_task(self.app)

    def runner(self) -> Runner:
        """The runner of this process; a forked child makes its own, with its own connection."""
        if self._runner is None:
            store = JobStore(connect(self.settings), self.settings)
            self._runner = Runner(store, self.app, registry=self.tools, queue=self.pool.name, beats=self.beats)
        return self._runner

    def _add_task(self, app: Celery) -> None:
        prefork = self.pool.kind == "prefork"

        @app.task(name=task_name(self.pool.name))
        def call(job: str, call: str, attempt: int | str) -> str:
            slot = getattr(current_process(), "index", None) if prefork else None
            ran = self.runner().run(job, call, attempt=int(attempt), slot=slot)
            if ran.failed and self.settings.task_events:
                _show_failure(current_task, str(ran))
            return str(ran)

        if self._async is not None:
            call.Strategy = self._async.strategy  # type: ignore[assignment]  # a name or, as here, what the name stands for

    def ready(self) -> None:
        """Announces the tools and begins to beat."""
        client = connect(self.settings)
        store = JobStore(client, self.settings)
        self._announce(CatalogStore(client))
        self._beater = Beater(
            self.beats,
            store.ledger,
            also=lambda: self.presence.show(store, tools=self._names()),
            kills=self.pool.kind in ("prefork", "async"),
            on_refused=self._async.calls.refuse if self._async is not None else None,
        )
        self.presence.show(store)
        self._beater.start()
        self._drain.install()

    def _announce(self, catalog: CatalogStore) -> None:
        """Adds the tools: other workers of the pool may have been started with other ones."""
        try:
            catalog.publish(f"{POOL_SOURCE}{self.pool.name}", self.definitions(), replace=False)
        except NameTaken as error:
            log.error("some tools are not announced: %s", error, extra={"action": "name_taken"})

    def gone(self) -> None:
        """Ends the beats, and takes the sign of life back."""
        if self._beater is not None:
            self._beater.stop()
        self._withdraw()

    def _withdraw(self) -> None:
        with suppress(redis.RedisError):  # when Redis went first, the sign of life lapses by itself
            self.presence.withdraw(JobStore(connect(self.settings, retries=0, timeout_s=2.0), self.settings))

    def definitions(self) -> list[ToolDefinition]:
        """The pool's own tools. Those of servers come and go: whoever holds their sessions publishes them, under other names."""
        return [t for t in self._served() if t.server is None]

    def _served(self) -> list[ToolDefinition]:
        known = (self.tools.get(name) for name in self.tools.names())  # the loop may add and remove some meanwhile
        return [t.definition for t in known if t is not None and t.definition.pool == self.pool.name]

    def _names(self) -> list[str]:
        """What it serves now, if that is not too much to be told every few seconds."""
        return [t.name for t in self._served()][:MOST_TOLD]

    def run(self) -> None:
        """Serves the queue until SIGTERM."""
        self.app.conf.worker_proc_alive_timeout = 120.0  # a child warms its models up first
        worker_ready.connect(lambda **_: self.ready(), weak=False)
        worker_shutdown.connect(lambda **_: self.gone(), weak=False)
        kind = {"prefork": prefork_pool.NAME, "async": None}.get(self.pool.kind, self.pool.kind)
        run_worker(self.app, queue=self.pool.name, log_level=self.settings.log_level, pool=kind)


def _show_failure(task: Any, what: str) -> None:
    """Flower shall count the call as failed; for Celery it is done, since the ledger decides what follows."""
    task.send_event("task-failed", exception=what, traceback="")
    raise Ignore(what)


def pool_tools(pool: str) -> ModuleType | None:
    """The bundled tools of a pool, imported; None when there are none."""
    bundled = pool in POOLS and importlib.util.find_spec(f"workers.{pool}") is not None
    return importlib.import_module(f"workers.{pool}.tools") if bundled else None


def pool_of(name: str, *, kind: PoolKind | None, tools: ToolRegistry) -> Pool:
    """The pool of that name; one of the user's is async when all its tools are.

    Raises:
        RequestError: it is to be async, and some of its tools are not.
    """
    own = [tool for n in tools.names() if (tool := tools.get(n)) is not None and tool.definition.pool == name]
    blocking = [t.definition.name for t in own if not t.is_async]
    guessed: PoolKind = "async" if own and not blocking else "prefork"
    pool = POOLS.get(name) or Pool(name, kind=guessed)
    pool = replace(pool, kind=kind or pool.kind)
    if pool.kind == "async" and blocking:
        raise RequestError(
            f"pool `{name}` cannot be async: `{'`, `'.join(blocking)}` would hold up all its calls",
            next="Write `async def`, or put what is a `def` into another pool.",
        )
    return pool


def main(argv: list[str] | None = None) -> int:
    """Runs the worker of one pool until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m workers.boot", description=__doc__)
    parser.add_argument("--pool", required=True, help=f"one of {', '.join(POOLS)}, or the pool of a tool of yours")
    parser.add_argument("--kind", choices=get_args(PoolKind), help="default: async when all tools of the pool are, else prefork")
    parser.add_argument(
        "--concurrency",
        type=int,
        help="processes, or calls at once when async; default: the setting `concurrency` or `async_concurrency`",
    )
    parser.add_argument("--tools", action="append", default=[], help="module or .py file with tools of yours; may be repeated")
    options = parser.parse_args(argv)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if (refused := refusal(options.pool, settings)) is not None:
        sys.stderr.write(f"{refused[0]}\n")
        return refused[1]
    module = pool_tools(options.pool)
    load_entry_points()
    for spec in (*settings.tools, *options.tools):
        load_tools(spec)
    try:
        pool = pool_of(options.pool, kind=options.kind, tools=registry)
    except RequestError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    warm_up = getattr(module, "warm_up", None)
    if warm_up is not None:
        worker_process_init.connect(lambda **_: warm_up(), weak=False)
    default = settings.async_concurrency if pool.kind == "async" else settings.concurrency
    if pool.name == "code":
        default = settings.sandbox_concurrency
    service = getattr(module, "serve", None)
    Worker(settings, pool, concurrency=options.concurrency or default, tools=registry, service=service).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
