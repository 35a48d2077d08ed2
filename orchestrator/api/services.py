"""What a request handler works with: built once at the start of the process, handed to each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import redis
from fastapi import Depends, Request

from orchestrator.broker.app import make_app
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.store import JobStore
from orchestrator.models.access import Caller
from orchestrator.models.tool import ToolCatalog
from orchestrator.publisher.control import Control
from orchestrator.settings import Settings
from orchestrator.state.connection import connect

RETRIES = 1  # a client that waits is told soon that the store is away, and comes back by itself


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms below, as one process of the API uses them."""

    settings: Settings
    store: JobStore
    control: Control
    catalog: CatalogStore
    events: EventReader
    probe: redis.Redis

    def tools(self) -> ToolCatalog:
        """The bundled tools and those that pools announced."""
        return self.catalog.all(bundled_catalog())

    async def close(self) -> None:
        """Gives all connections back."""
        await self.events.close()
        self.store.redis.close()
        self.probe.close()


def build_services(settings: Settings) -> Services:
    """Connects to the store and the broker; nothing is sent before the first request."""
    client = connect(settings, retries=RETRIES, timeout_s=5.0)
    store = JobStore(client, settings)
    return Services(
        settings=settings,
        store=store,
        control=Control(store, make_app(settings)),
        catalog=CatalogStore(client),
        events=EventReader(settings, client),
        probe=connect(settings, retries=0, timeout_s=2.0),
    )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> Caller:
    """Who asks, as the key of the request says; the guard put it there before the body was read."""
    caller: Caller = request.state.caller
    return caller


def _tenant(request: Request) -> str:
    return _caller(request).tenant


Api = Annotated[Services, Depends(_services)]
By = Annotated[Caller, Depends(_caller)]
Tenant = Annotated[str, Depends(_tenant)]
"""Whose jobs and files a request sees: from the caller's key, never from the body."""
