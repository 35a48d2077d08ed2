"""What admins ask for: keys, permissions, the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from orchestrator.client import calls
from orchestrator.client.transport import AsyncTransport, Transport
from orchestrator.models.access import AuditEntry, CreateKeyRequest, KeyInfo, NewKey, Policy, PolicyView
from orchestrator.models.job import Purged
from orchestrator.models.report import MetricsReport

PAGE = 500


class Access:
    """The admin's part of a `Client`, as `client.access`; every call of it needs a key with the scope `admin`.

    A `tenant` of None means the policy of all tenants that have none of their own, or the keys of all of them.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create_key(self, request: CreateKeyRequest) -> NewKey:
        """A new key, its text in `.key`, this once."""
        return self._transport.send(calls.create_key(request))

    def keys(self, tenant: str | None = None) -> list[KeyInfo]:
        """The keys, oldest first, those that ended included."""
        return list(self._transport.send(calls.keys(tenant)).keys)

    def rotate_key(self, id: str, *, grace_s: float = 3_600.0) -> NewKey:
        """A new secret for a key; the one before stays valid for `grace_s`."""
        return self._transport.send(calls.rotate_key(id, grace_s=grace_s))

    def revoke_key(self, id: str) -> KeyInfo:
        """Ends a key, within two seconds."""
        return self._transport.send(calls.revoke_key(id))

    def permissions(self, tenant: str | None = None) -> PolicyView:
        """What was set for a tenant, and what holds."""
        return self._transport.send(calls.permissions(tenant))

    def set_permissions(self, tenant: str | None, policy: Policy | None) -> PolicyView:
        """Sets a tenant's own policy; None takes it away."""
        call = calls.reset_permissions(tenant) if policy is None else calls.set_permissions(tenant, policy)
        return self._transport.send(call)

    def metrics(self) -> MetricsReport:
        """What the platform did and cost, over all processes and tenants."""
        return self._transport.send(calls.metrics_report())

    def purge(self, tenant: str) -> Purged:
        """Cancels what a tenant runs and deletes its jobs and files."""
        return self._transport.send(calls.purge(tenant))

    def audit(
        self, *, tenant: str | None = None, nobody: bool = False, limit: int | None = None, detail: bool = False
    ) -> Iterator[AuditEntry]:
        """Who did what, newest first; `nobody`: only requests without a valid key; `limit` ends after so many.

        `detail`: with the calls, output and errors of programs in `.detail`, beside their figures.
        """
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self._transport.send(calls.audit(tenant=tenant, nobody=nobody, limit=size, cursor=cursor, detail=detail))
            yield from page.entries
            left = None if left is None else left - len(page.entries)
            if (cursor := page.next_cursor) is None:
                return


class AsyncAccess:
    """The same, awaited; every method is that of `Access`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create_key(self, request: CreateKeyRequest) -> NewKey:
        """See `Access.create_key`."""
        return await self._transport.send(calls.create_key(request))

    async def keys(self, tenant: str | None = None) -> list[KeyInfo]:
        """See `Access.keys`."""
        return list((await self._transport.send(calls.keys(tenant))).keys)

    async def rotate_key(self, id: str, *, grace_s: float = 3_600.0) -> NewKey:
        """See `Access.rotate_key`."""
        return await self._transport.send(calls.rotate_key(id, grace_s=grace_s))

    async def revoke_key(self, id: str) -> KeyInfo:
        """See `Access.revoke_key`."""
        return await self._transport.send(calls.revoke_key(id))

    async def permissions(self, tenant: str | None = None) -> PolicyView:
        """See `Access.permissions`."""
        return await self._transport.send(calls.permissions(tenant))

    async def set_permissions(self, tenant: str | None, policy: Policy | None) -> PolicyView:
        """See `Access.set_permissions`."""
        call = calls.reset_permissions(tenant) if policy is None else calls.set_permissions(tenant, policy)
        return await self._transport.send(call)

    async def metrics(self) -> MetricsReport:
        """See `Access.metrics`."""
        return await self._transport.send(calls.metrics_report())

    async def purge(self, tenant: str) -> Purged:
        """See `Access.purge`."""
        return await self._transport.send(calls.purge(tenant))

    async def audit(
        self, *, tenant: str | None = None, nobody: bool = False, limit: int | None = None, detail: bool = False
    ) -> AsyncIterator[AuditEntry]:
        """See `Access.audit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self._transport.send(calls.audit(tenant=tenant, nobody=nobody, limit=size, cursor=cursor, detail=detail))
            for entry in page.entries:
                yield entry
            left = None if left is None else left - len(page.entries)
            if (cursor := page.next_cursor) is None:
                return
