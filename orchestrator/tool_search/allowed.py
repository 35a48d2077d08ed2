"""A tenant's rules as filters of a search: what a caller may not use is left out before anything is ranked."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orchestrator.models.access import Policy
from orchestrator.models.search import Filters
from orchestrator.policy.permissions import ANY, rules_of


def allowed(filters: Filters, policy: Policy, *, tenant: str, caller: tuple[str, ...] = ()) -> Filters:
    """The filters, narrowed to what a tenant sees and its rules allow; `caller` is all that it is called by (see `denied`)."""
    rules = rules_of(policy, caller)
    patterns = tuple(r.tools for r in rules if r.tools is not None and ANY not in r.tools)
    grants = [_grants(r.actions) for r in rules if r.actions is not None]
    wanted = [filters.requires] if filters.requires is not None else []
    return filters.model_copy(
        update={
            "tenant": tenant,
            "allowed": (*filters.allowed, *patterns),
            "forbidden": (*filters.forbidden, *(p for r in rules for p in r.forbidden_tools or ())),
            "requires": _common([*wanted, *grants]) if wanted or grants else None,
        }
    )


def _grants(actions: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(f"{category}:{verb}" for category, verbs in actions.items() for verb in verbs)


def _common(all_of: Iterable[Collection[str]]) -> tuple[str, ...]:
    """What every list of grants allows."""
    first, *others = all_of
    common = set(first)
    for grants in others:
        common = {met for a in common for b in grants if (met := _meet(a, b)) is not None}
    return tuple(sorted(common))


def _meet(one: str, other: str) -> str | None:
    """What both of two grants allow, such as `files:read` of `files:*` and `*:read`."""
    parts = [a if a == b or b == ANY else b if a == ANY else None for a, b in zip(one.split(":"), other.split(":"), strict=True)]
    return None if None in parts else ":".join(p for p in parts if p is not None)
