"""Starts the worker of one pool: `python -m workers.boot --pool ocr`. After warm-up it announces its tools."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
from contextlib import suppress
from types import ModuleType
from typing import Any

import redis
from billiard.process import current_process
from celery import Celery, current_task
from celery.exceptions import Ignore
from celery.signals import worker_process_init, worker_ready, worker_shutdown

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import POOLS, Pool, task_name
from orchestrator.catalog.register import ToolRegistry, load_entry_points, load_tools, registry
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.store import JobStore
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from workers.beats import Beater, BeatTable
from workers.presence import Presence
from workers.step import Runner

log = logging.getLogger(__name__)


class Worker:
    """The main process of a pool's worker: the Celery app, the shared beats, the sign of life."""

    def __init__(self, settings: Settings, pool: Pool, *, concurrency: int, tools: ToolRegistry) -> None:
        self.settings, self.pool, self.tools = settings, pool, tools
        self.concurrency = 1 if pool.kind == "solo" else concurrency
        self.app = make_app(settings)
        self.beats = BeatTable(self.concurrency if pool.kind == "prefork" else max(64, self.concurrency))
        self.presence = Presence(pool.name, concurrency=self.concurrency, tools=[t.name for t in self.definitions()])
        self._runner: Runner | None = None
        self._beater: Beater | None = None
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

    def ready(self) -> None:
        """Announces the tools and begins to beat."""
        client = connect(self.settings)
        store = JobStore(client, self.settings)
        CatalogStore(client).announce(self.definitions())
        self._beater = Beater(self.beats, store.ledger, also=lambda: self.presence.show(store), kills=self.pool.kind == "prefork")
        self.presence.show(store)
        self._beater.start()

    def gone(self) -> None:
        """Takes the sign of life back."""
        if self._beater is not None:
            self._beater.stop()
        with suppress(redis.RedisError):  # when Redis went first, the sign of life lapses by itself
            self.presence.withdraw(JobStore(connect(self.settings, retries=0, timeout_s=2.0), self.settings))

    def definitions(self) -> list[Any]:
        """The tools of this pool."""
        return [t for t in self.tools.definitions() if t.pool == self.pool.name]

    def run(self) -> None:
        """Serves the queue until SIGTERM."""
        self.app.conf.worker_proc_alive_timeout = 120.0  # a child warms its models up first
        worker_ready.connect(lambda **_: self.ready(), weak=False)
        worker_shutdown.connect(lambda **_: self.gone(), weak=False)
        self.app.worker_main(
            ["worker", "-P", self.pool.kind, "-c", str(self.concurrency), "-Q", self.pool.name, *self._flags()]
        )  # fmt: skip

    def _flags(self) -> list[str]:
        name = f"{self.pool.name}-{os.getpid()}@%h"
        return ["-n", name, "-l", self.settings.log_level, "--without-gossip", "--without-mingle"]


def _show_failure(task: Any, what: str) -> None:
    """Flower shall count the call as failed; for Celery it is done, since the ledger decides what follows."""
    task.send_event("task-failed", exception=what, traceback="")
    raise Ignore(what)


def pool_tools(pool: str) -> ModuleType | None:
    """The bundled tools of a pool, imported; None for a pool of the user's."""
    return importlib.import_module(f"workers.{pool}.tools") if pool in POOLS else None


def main(argv: list[str] | None = None) -> None:
    """Runs the worker of one pool until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m workers.boot", description=__doc__)
    parser.add_argument("--pool", required=True, help=f"one of {', '.join(POOLS)}, or the pool of a tool of yours")
    parser.add_argument("--concurrency", type=int, help="processes; default: the setting `concurrency`")
    parser.add_argument("--tools", action="append", default=[], help="module or .py file with tools of yours; may be repeated")
    options = parser.parse_args(argv)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    pool = POOLS.get(options.pool) or Pool(options.pool)
    module = pool_tools(pool.name)
    load_entry_points()
    for spec in (*settings.tools, *options.tools):
        load_tools(spec)
    warm_up = getattr(module, "warm_up", None)
    if warm_up is not None:
        worker_process_init.connect(lambda **_: warm_up(), weak=False)
    Worker(settings, pool, concurrency=options.concurrency or settings.concurrency, tools=registry).run()


if __name__ == "__main__":
    main()
