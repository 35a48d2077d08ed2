"""The rules of a mutant as the platform asks them, and the tools as its tenant sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.api.plans import tools_allowed
from orchestrator.models.access import Caller, Policy
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.policy.permissions import BUILT_IN, fill_in
from tests.planner.lab import TENANT, catalog

_SEEN: list[ToolCatalog] = []


def allowed_by(rules: Mapping[str, Any] | None) -> Callable[[ToolDefinition], str | None] | None:
    """What `check_plan` asks; None when a mutant is not about rights."""
    if rules is None:
        return None
    return tools_allowed(fill_in(Policy.model_validate(rules), BUILT_IN), Caller(tenant=TENANT))


def seen() -> ToolCatalog:
    """One catalog for all checks, as in a process."""
    if not _SEEN:
        _SEEN.append(catalog())
    return _SEEN[0]
