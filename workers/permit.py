"""The last look at permissions, right before a tool runs: anything can write to a queue, so the API's look is not enough."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from orchestrator.errors import ToolError
from orchestrator.jobs.ledger import Claim
from orchestrator.jobs.store import JobStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.limits import NO_LIMIT, check_bytes
from orchestrator.policy.permissions import denied
from orchestrator.policy.store import PolicyStore

_KEPT = 1_024
DIRECT = ("direct",)  # submitted without a key, by the owner of the machine


class Permits:
    """What the rules say about the calls of this process; who submitted a job is asked once per job."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._policies = PolicyStore(store.redis, store.settings)
        self._callers: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = Lock()

    def check(self, claim: Claim, tool: ToolDefinition) -> None:
        """Lets a call pass whose tenant and caller may use the tool.

        Raises:
            PermissionDenied: they may not.
            ToolError: the tenant does not see it, so for it there is no such tool.
            RedisError: the rules cannot be read, so nothing is allowed.
        """
        if not tool.visible_to(claim.tenant):
            raise ToolError(
                f"There is no tool `{tool.name}`.", code="unknown_tool",
                next="`toolweaver tools list` shows those that there are.",
            )  # fmt: skip
        policy = self._policies.of(claim.tenant)
        refusal = denied(policy, tenant=claim.tenant, caller=self._caller(claim.job), tool=tool)
        if refusal is not None:
            raise refusal

    def allow_bytes(self, claim: Claim) -> Callable[[int], None]:
        """A check that files of so many bytes fit into the tenant's limit; what it has already is asked once."""
        limits, tenant = self._policies.of(claim.tenant).limits, claim.tenant
        if self._caller(claim.job) == DIRECT or limits.file_bytes is None or limits.file_bytes == NO_LIMIT:
            return lambda _: None
        used = self._store.files.blobs.books.bytes_of(tenant)
        return lambda more: check_bytes(limits, used=used, more=more, tenant=tenant)

    def _caller(self, job: str) -> tuple[str, ...]:
        with self._lock:
            known = self._callers.get(job)
        if known is not None:
            return known
        found = self._store.caller(job)
        with self._lock:
            self._callers[job] = found
            if len(self._callers) > _KEPT:
                self._callers.popitem(last=False)
        return found
