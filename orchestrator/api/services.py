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


def _tenant() -> str:
    """Whose jobs a request sees. It will come from the caller's key, never from the body; there is one tenant so far."""
    return "default"


Api = Annotated[Services, Depends(_services)]
Tenant = Annotated[str, Depends(_tenant)]
