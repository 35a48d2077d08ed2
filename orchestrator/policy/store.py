"""The policies of all tenants in Redis, read again when somebody changed one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis

from orchestrator.models.access import Limits, Policy, PolicyView
from orchestrator.policy.permissions import BUILT_IN, fill_in
from orchestrator.settings import Settings
from orchestrator.state.keys import POLICIES, POLICIES_VERSION

DEFAULT = "*"  # no tenant can have this id
_KEPT = 4_096
FRESH_S = 1.0  # a change is seen everywhere after this


class PolicyStore:
    """Policies as one process sees them: it looks once a second whether there is a newer version."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        limits = Limits(
            requests=settings.limit_requests,
            jobs=settings.limit_jobs,
            streams=settings.limit_streams,
            file_bytes=settings.tenant_blob_bytes,
            user_jobs_per_hour=settings.rate_user_per_hour,
            jobs_per_hour=settings.rate_tenant_per_hour,
            priority="interactive",
        )
        self._base = BUILT_IN.model_copy(update={"limits": limits})
        self._until = 0.0
        self._version: bytes | None = b"never read"
        self._own: Mapping[str, Policy] = {}
        self._filled: dict[str | None, Policy] = {}

    def of(self, tenant: str) -> Policy:
        """The policy that holds for a tenant: its own, then the default one, then the built-in one."""
        return self._fill(tenant, self._read())

    def view(self, tenant: str | None) -> PolicyView:
        """What was set for a tenant (None: for all that have nothing of their own), and what holds. Always fresh."""
        self._until = 0.0
        own = self._read()
        return PolicyView(tenant=tenant, own=own.get(tenant or DEFAULT), effective=self._fill(tenant, own))

    def put(self, tenant: str | None, policy: Policy | None) -> None:
        """Sets a tenant's own policy; None takes it away."""
        pipe = self._redis.pipeline()
        if policy is None:
            pipe.hdel(POLICIES, tenant or DEFAULT)
        else:
            pipe.hset(POLICIES, tenant or DEFAULT, policy.model_dump_json(exclude_none=True))
        pipe.incr(POLICIES_VERSION)
        pipe.execute()
        self._until = 0.0

    def _fill(self, tenant: str | None, own: Mapping[str, Policy]) -> Policy:
        known = self._filled.get(tenant)
        if known is None:
            wide = fill_in(own.get(DEFAULT), self._base)
            known = fill_in(own.get(tenant), wide) if tenant is not None else wide
            if len(self._filled) < _KEPT:
                self._filled[tenant] = known
        return known

    def _read(self) -> Mapping[str, Policy]:
        now = time.monotonic()
        if now < self._until:
            return self._own
        version = self._redis.get(POLICIES_VERSION)
        if version != self._version:
            rows = self._redis.hgetall(POLICIES)
            self._own = {k.decode(): Policy.model_validate_json(raw) for k, raw in rows.items()}
            self._filled = {}
            self._version = version
        self._until = now + FRESH_S
        return self._own
