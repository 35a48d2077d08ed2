"""The pool `mcp` has no tools of its own: it serves those of the servers in the servers file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.jobs.store import JobStore


@asynccontextmanager
async def serve(store: JobStore, app: Celery) -> AsyncIterator[None]:
    """Keeps sessions with all servers while the block runs."""
    from orchestrator.catalog.register import registry  # noqa: PLC0415 (what it loads is of the extra `mcp`)
    from orchestrator.catalog.store import CatalogStore  # noqa: PLC0415
    from workers.mcp.calls import Calls  # noqa: PLC0415
    from workers.mcp.sessions import Sessions  # noqa: PLC0415

    calls = Calls(store)
    slots = app.conf.worker_concurrency or store.settings.async_concurrency
    sessions = Sessions(settings=store.settings, catalog=CatalogStore(store.redis), registry=registry, run=calls.run, slots=slots)
    await sessions.start()
    try:
        yield
    finally:
        await sessions.close()
        await calls.close()
