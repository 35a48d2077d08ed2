"""Who may use the platform, and how much: keys, callers, policies, limits, and the entries of the audit log."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from orchestrator.models.job import Priority

TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
Tenant = Annotated[str, StringConstraints(pattern=rf"^{TENANT.pattern}$", max_length=63)]
Name = Annotated[str, StringConstraints(pattern=r"^[\w.@-]+$", max_length=64)]
ToolPattern = Annotated[str, StringConstraints(pattern=r"^[\w.:/*?-]+$", max_length=128)]
Category = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31}|\*)$")]
Verb = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31}|\*)$")]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}:[a-z][a-z0-9_]{0,31}$")]

Scope = Literal["read", "write", "admin", "worker"]
"""`read`: look at the tenant's jobs and files; `write`: change them; `admin`: keys, permissions and audit of all tenants;
`worker`: fetch and store the values of any tenant's jobs, for workers that reach the blob store through the API."""

MAX_KEY_DAYS = 3_660
_MANY = 256


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class _Body(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class Caller(_Wire):
    """Who makes a request: a tenant, through one of its keys; `key` is empty where no keys are in use."""

    tenant: str = "default"
    key: str = ""
    name: str = ""
    scopes: frozenset[Scope] = frozenset(("read", "write", "admin", "worker"))
    address: str = ""

    @property
    def called(self) -> tuple[str, ...]:
        """What rules may call it by: the id and the name of its key; `direct` where there is none."""
        return tuple(dict.fromkeys((self.key, self.name))) if self.key else ("direct",)

    @property
    def limited(self) -> bool:
        """Whether limits hold: those who need no key are the owner of the machine."""
        return bool(self.key)


class KeyInfo(_Wire):
    """What is known of a key; never its secret."""

    id: str
    tenant: str
    name: str = ""
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None = None
    used: datetime | None = Field(default=None, description="last use, to the minute")
    revoked: datetime | None = None
    old_until: datetime | None = Field(default=None, description="until then the secret from before the rotation is valid too")
    valid: bool = True


class NewKey(KeyInfo):
    """A key that was just made, with its text: it is told this once, and nobody can look it up again."""

    key: str = Field(repr=False)


class KeyPage(_Wire):
    """The keys, oldest first."""

    keys: tuple[KeyInfo, ...]


class CreateKeyRequest(_Body):
    """Body of `POST /v1/keys`."""

    tenant: Tenant = "default"
    name: Name = "key"
    scopes: tuple[Scope, ...] = Field(default=("read", "write"), min_length=1, max_length=4)
    expires_s: float | None = Field(
        default=None, gt=0, le=MAX_KEY_DAYS * 86_400, description="seconds until it ends; default: never"
    )


class RotateKeyRequest(_Body):
    """Body of `POST /v1/keys/{id}/rotate`."""

    grace_s: float = Field(default=3_600.0, ge=0, le=30 * 86_400, description="how long the old secret stays valid")


class Limits(_Body):
    """What a tenant may use; a field that is not set stands as the settings say. 0 allows nothing, -1 everything."""

    requests: int | None = Field(default=None, ge=-1, le=10_000_000, description="requests a minute")
    jobs: int | None = Field(default=None, ge=-1, le=10_000_000, description="jobs that have not ended")
    streams: int | None = Field(default=None, ge=-1, le=1_000_000, description="open streams of events, in each process of the API")
    file_bytes: int | None = Field(default=None, ge=-1, le=1 << 60, description="bytes of stored files")
    user_jobs_per_hour: int | None = Field(
        default=None, ge=-1, le=1_000_000, description="jobs and programs that one key may start an hour"
    )
    jobs_per_hour: int | None = Field(default=None, ge=-1, le=1_000_000, description="the same for all keys of the tenant together")
    priority: Priority | None = Field(default=None, description="highest priority that its jobs may have")


class Rules(_Body):
    """Which tools and which actions are allowed. What is not said stands as the next wider rules have it."""

    tools: tuple[ToolPattern, ...] | None = Field(default=None, max_length=_MANY, description="patterns such as `receipt_*`")
    forbidden_tools: tuple[ToolPattern, ...] | None = Field(default=None, max_length=_MANY, description="these win over `tools`")
    actions: dict[Category, tuple[Verb, ...]] | None = Field(
        default=None, max_length=_MANY, description='such as `{"filesystem": ["read"], "network": ["https"]}`'
    )


class Policy(Rules):
    """The rules of a tenant, or of all tenants that have none; `callers` narrow it for some keys, by name or id."""

    callers: dict[ToolPattern, Rules] = Field(default_factory=dict, max_length=_MANY)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _bearable(self) -> Self:
        if len(self.model_dump_json()) > 64 * 1024:
            raise ValueError("a policy has at most 64 KiB")
        return self


class PolicyView(_Wire):
    """A tenant's policy: what was set for it, and what holds when the defaults are filled in."""

    tenant: str | None = Field(default=None, description="none: the policy of all tenants that set nothing of their own")
    own: Policy | None = None
    effective: Policy


class AuditEntry(_Wire):
    """Who did what when, and how it ended. Never a body of a request, never a secret of ours.

    What a program did is `program.run` of `<job>/<call>`: its figures are in `detail`, and for the latest ones, when
    asked for, its calls with their clipped parameters, its output and its error.
    """

    id: str
    ts: datetime
    tenant: str = Field(description="`-` where the request had no valid key")
    key: str = ""
    name: str = ""
    address: str = ""
    action: str = Field(description="such as `jobs.cancel`")
    object: str = ""
    verdict: str = Field(description="`ok`, or why not: `unauthorized`, `denied`, `not_found`, `limited` ...")
    status: int = 0
    detail: dict[str, Any] | None = Field(default=None, description="of `program.run`: its figures, and what it did")


class AuditPage(_Wire):
    """A page of the audit log, newest first."""

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None = None
