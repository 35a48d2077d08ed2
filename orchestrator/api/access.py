"""`/v1/keys`, `/v1/permissions`, `/v1/tenants`, `/v1/audit`: for admins, across all tenants. Guard and routes ask for the scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.accept import JsonOnly
from orchestrator.api.auth import check_scope
from orchestrator.api.services import Api, By
from orchestrator.models.access import (
    AuditPage,
    CreateKeyRequest,
    KeyInfo,
    KeyPage,
    NewKey,
    Policy,
    PolicyView,
    RotateKeyRequest,
    Tenant,
)
from orchestrator.models.job import Purged


def _admin(by: By) -> None:
    check_scope(by, "admin")


router = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(_admin)])

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]
_SECRET = {"Cache-Control": "no-store"}  # an answer that holds a key


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeyFilter(_Filter):
    """Whose keys."""

    tenant: Tenant | None = None


class AuditFilter(_Filter):
    """Whose entries, and how many a page."""

    tenant: Tenant | None = Field(default=None)
    nobody: bool = Field(default=False, description="only requests without a valid key")
    limit: int = Field(default=100, ge=1, le=1_000)
    cursor: str | None = Field(default=None, max_length=128, description="`next_cursor` of the page before")
    detail: bool = Field(default=False, description="with the calls, output and errors of programs; pages are shorter")


@router.post("/keys", status_code=201, dependencies=[JsonOnly])
def create_key(request: CreateKeyRequest, response: Response, api: Api) -> NewKey:
    """A new key. Its text is in the answer, this once."""
    made = api.keys.create(request)
    response.headers.update({"Location": f"/v1/keys/{made.id}", **_SECRET})
    return made


@router.get("/keys")
def list_keys(filter: Annotated[KeyFilter, Query()], api: Api) -> KeyPage:
    """The keys, those that ended included; never their secrets."""
    return KeyPage(keys=tuple(api.keys.list(filter.tenant)))


@router.get("/keys/{key_id}")
def show_key(key_id: KeyId, api: Api) -> KeyInfo:
    """One key; never its secret."""
    return api.keys.info(key_id)


@router.post("/keys/{key_id}/rotate", dependencies=[JsonOnly])
def rotate_key(key_id: KeyId, request: RotateKeyRequest, response: Response, api: Api) -> NewKey:
    """A new secret for a key. The one before stays valid for a while, so that its users can change over."""
    response.headers.update(_SECRET)
    return api.keys.rotate(key_id, grace_s=request.grace_s)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: KeyId, api: Api) -> KeyInfo:
    """Ends a key within two seconds, open streams of events included. Revoking twice is once."""
    return api.keys.revoke(key_id)


@router.get("/permissions")
def show_default_permissions(api: Api) -> PolicyView:
    """The policy of all tenants that set nothing of their own."""
    return api.policies.view(None)


@router.put("/permissions", dependencies=[JsonOnly])
def set_default_permissions(policy: Policy, api: Api) -> PolicyView:
    """Sets the policy of all tenants that set nothing of their own."""
    api.policies.put(None, policy)
    return api.policies.view(None)


@router.delete("/permissions")
def reset_default_permissions(api: Api) -> PolicyView:
    """Goes back to the built-in policy."""
    api.policies.put(None, None)
    return api.policies.view(None)


@router.get("/permissions/{tenant}")
def show_permissions(tenant: Tenant, api: Api) -> PolicyView:
    """A tenant's policy: what was set for it, and what holds."""
    return api.policies.view(tenant)


@router.put("/permissions/{tenant}", dependencies=[JsonOnly])
def set_permissions(tenant: Tenant, policy: Policy, api: Api) -> PolicyView:
    """Sets a tenant's own policy; what it leaves open stands as the default policy has it."""
    api.policies.put(tenant, policy)
    return api.policies.view(tenant)


@router.delete("/permissions/{tenant}")
def reset_permissions(tenant: Tenant, api: Api) -> PolicyView:
    """Takes a tenant's own policy away."""
    api.policies.put(tenant, None)
    return api.policies.view(tenant)


@router.delete("/tenants/{tenant}")
def purge_tenant(tenant: Tenant, api: Api) -> Purged:
    """Cancels what a tenant runs and deletes its jobs and files; its keys, permissions and audit log stay."""
    return api.control.purge(tenant)


@router.get("/audit")
def audit(filter: Annotated[AuditFilter, Query()], api: Api) -> AuditPage:
    """Who did what when, newest first."""
    tenant = "-" if filter.nobody else filter.tenant
    return api.audit.page(tenant=tenant, limit=filter.limit, cursor=filter.cursor, detail=filter.detail)
