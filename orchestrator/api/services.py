"""What a request handler works with: built once at the start of the process, handed to each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import redis
from fastapi import Depends, Request

from orchestrator.api.auth import Door
from orchestrator.api.checks import HealthChecks
from orchestrator.broker.app import make_app
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.store import JobStore
from orchestrator.models.access import Caller
from orchestrator.models.job import JobStatus
from orchestrator.models.tool import ToolCatalog
from orchestrator.monitoring.feed import Feed, use_feed
from orchestrator.monitoring.metrics import Metrics
from orchestrator.policy.audit import AuditLog
from orchestrator.policy.keys import KeyRing, KeyStore
from orchestrator.policy.limits import LimitKeeper
from orchestrator.policy.rates import JobRates
from orchestrator.policy.store import PolicyStore
from orchestrator.publisher.control import Control
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
from orchestrator.tool_search.client import IndexClient

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
    keys: KeyStore
    ring: KeyRing
    door: Door
    policies: PolicyStore
    limits: LimitKeeper
    audit: AuditLog
    metrics: Metrics
    index: IndexClient
    health: HealthChecks

    def tools(self, tenant: str) -> ToolCatalog:
        """The bundled tools and those that were published, as far as a tenant sees them; the others are not there for it."""
        return self.catalog.all(bundled_catalog()).seen_by(tenant)

    async def close(self) -> None:
        """Gives all connections back."""
        await self.events.close()
        self.health.close()
        self.index.close()
        self.store.redis.close()
        self.probe.close()


def build_services(settings: Settings) -> Services:
    """Connects to the store and the broker; nothing is sent before the first request."""
    client = connect(settings, retries=RETRIES, timeout_s=5.0)
    store = JobStore(client, settings)
    keys, policies = KeyStore(client), PolicyStore(client, settings)
    ring = KeyRing(keys)
    probe = connect(settings, retries=0, timeout_s=2.0)
    use_feed(Feed(client, METRICS))
    return Services(
        settings=settings,
        store=store,
        control=Control(store, make_app(settings)),
        catalog=CatalogStore(client),
        events=EventReader(settings, client),
        probe=probe,
        keys=keys,
        ring=ring,
        door=Door(settings, ring),
        policies=policies,
        limits=LimitKeeper(
            client, policies, ended=lambda jobs: _ended(store, jobs), rates=JobRates(client, settings, policies=policies)
        ),
        audit=AuditLog(client, settings),
        metrics=Metrics(client, METRICS),
        index=IndexClient.of(settings),
        health=HealthChecks(settings, probe),
    )


def _ended(store: JobStore, jobs: Sequence[str]) -> list[bool]:
    """Of each job, whether it has ended or is gone."""
    pipe = store.redis.pipeline(transaction=False)
    for job in jobs:
        pipe.hget(store.ledger.keys(job).state, "st")
    return [status is None or JobStatus(status.decode()).final for status in pipe.execute()] if jobs else []


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
