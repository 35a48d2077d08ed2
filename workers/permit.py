"""The last look at permissions, right before a tool runs: anything can write to a queue, so the API's look is not enough."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from orchestrator.jobs.ledger import Claim
from orchestrator.jobs.store import JobStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.permissions import denied
from orchestrator.policy.store import PolicyStore

_KEPT = 1_024


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
            RedisError: the rules cannot be read, so nothing is allowed.
        """
        policy = self._policies.of(claim.tenant)
        refusal = denied(policy, tenant=claim.tenant, caller=self._caller(claim.job), tool=tool)
        if refusal is not None:
            raise refusal

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
