"""Runs functions of a script or notebook in a thread of that process, on a private queue, while its plan runs.

No worker process can import `__main__`, so the caller serves itself. The functions take part in the engine like any
other tool: claims, beats, retries, events. They run one after the other, and `timeout_s` only stops their beats, since
a thread cannot be interrupted.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from kombu import Queue
from kombu.mixins import ConsumerMixin

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import PRIVATE
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.register import registry
from orchestrator.catalog.store import POOL_SOURCE, CatalogStore
from orchestrator.errors import RequestError
from orchestrator.jobs.store import JobStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import all_shards
from workers.beats import Beater, BeatTable
from workers.presence import Presence
from workers.step import Runner

log = logging.getLogger(__name__)


@contextmanager
def serve(settings: Settings, names: Sequence[str]) -> Iterator[None]:
    """Offers registered functions of this process to the platform's jobs for as long as the block runs.

    Raises:
        RequestError: a tool of the platform has the name of one of the functions.
    """
    queue = f"{PRIVATE}{secrets.token_hex(6)}"
    client = connect(settings)
    store, catalog = JobStore(client, settings), CatalogStore(client)
    tools = [_own(catalog, name, queue) for name in names]
    presence = Presence(queue, concurrency=1, tools=names)
    server = _Server(settings, queue, store)
    catalog.announce(tools)
    presence.show(store)
    beater = Beater(server.beats, store.ledger, also=lambda: presence.show(store))
    beater.start()
    server.start()
    try:
        yield
    finally:
        server.stop()
        beater.stop()
        catalog.withdraw(names, source=f"{POOL_SOURCE}{queue}")  # another script may have the names by now
        presence.withdraw(store)
        for shard in all_shards(settings.shards):
            client.srem(shard.queues, queue)  # nobody will look after this queue again


def _own(catalog: CatalogStore, name: str, queue: str) -> ToolDefinition:
    known = catalog.all(bundled_catalog()).get_tool(name)
    if known is not None and not known.pool.startswith(PRIVATE):
        raise RequestError(
            f"the platform has a tool `{name}` already, of pool `{known.pool}`", next="Register your function under another name."
        )
    tool = registry.get(name)
    assert tool is not None, "the caller found the name in the registry"
    return tool.definition.model_copy(update={"pool": queue})


class _Server(ConsumerMixin):
    """Takes messages of one queue, one after the other, in a thread."""

    def __init__(self, settings: Settings, queue: str, store: JobStore) -> None:
        app = make_app(settings)
        self.connection = app.connection_for_read()
        self.beats = BeatTable(1)
        self._queue = Queue(queue, auto_delete=True)
        self._runner = Runner(store, app, registry=registry, queue=queue, beats=self.beats)
        self._thread = threading.Thread(target=self.run, name=f"{queue}@{socket.gethostname()}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.should_stop = True
        self._thread.join(timeout=5)
        self.connection.release()

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: ARG002 (kombu's hook)
        """One message at a time."""
        return [Consumer(queues=[self._queue], accept=["json"], on_message=self._on_message, prefetch_count=1)]

    def _on_message(self, message: Any) -> None:
        (job, call, attempt), *_ = message.payload
        try:
            self._runner.run(job, call, attempt=int(attempt))
        except redis.RedisError as error:
            log.warning("a call was left to its lease: %s", error, extra={"action": "call_left", "job_id": job})
        finally:
            message.ack()
