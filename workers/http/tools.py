"""The pool `http` has no tools of its own: it serves the operations of the OpenAPI documents in the servers file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.jobs.store import JobStore


@asynccontextmanager
async def serve(store: JobStore, app: Celery) -> AsyncIterator[None]:  # noqa: ARG001 (the signature of all pools)
    """Keeps the operations of all documents callable while the block runs."""
    from orchestrator.catalog.register import registry  # noqa: PLC0415 (only who serves needs it)
    from orchestrator.catalog.store import CatalogStore  # noqa: PLC0415
    from workers.http.calls import Calls  # noqa: PLC0415
    from workers.http.documents import Documents  # noqa: PLC0415

    calls = Calls(store)
    documents = Documents(settings=store.settings, catalog=CatalogStore(store.redis), registry=registry, run=calls.run)
    await documents.start()
    try:
        yield
    finally:
        await documents.close()
        await calls.close()
