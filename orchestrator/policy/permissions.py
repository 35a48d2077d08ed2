"""What a tenant's rules say about a tool and the actions that it needs. Pure: whoever asks brings the policy.

An action is `category:verb`, such as `filesystem:write`. What is dangerous, and what nobody here has heard of, is
denied until somebody allows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from orchestrator.errors import PermissionDenied
from orchestrator.models.access import Policy, Rules
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog, ToolDefinition

ANY = "*"

HARMLESS = {
    "filesystem:read": "files lie beneath `file_roots`, which the operator chose; by default there are none",
    "network:https": "fetches from public addresses; the fetching tool refuses private ones",
    "network:http": "the same, though anybody on the way can read and change it",
    "sql:read": "a reader changes nothing, and the operator chose the database",
    "code_exec:python": "a program in a container without network or files, which can only call tools that its job may use",
    "browser:extract": "reads a page that something else opened",
}
DANGEROUS = {
    "filesystem:write": "can overwrite what others rely on, and fill the disk",
    "filesystem:delete": "cannot be undone",
    "network:private": "reaches services that trust whoever is inside the network",
    "network:listen": "opens a door into the network",
    "code_exec:shell": "runs what a model or a caller wrote, with every program of the worker",
    "browser:navigate": "follows links that a page chose, with the worker's address",
    "browser:interact": "clicks and types in somebody's name",
    "sql:write": "changes data that is not ours",
    "email:send": "speaks to people in somebody's name, and cannot be taken back",
    "payment:send": "moves money",
    "process:spawn": "starts programs that outlive the call",
}
"""The dangerous actions by name and why; every action that is in neither table is denied too."""


def _harmless() -> dict[str, tuple[str, ...]]:
    grants: dict[str, tuple[str, ...]] = {}
    for action in HARMLESS:
        category, _, verb = action.partition(":")
        grants[category] = (*grants.get(category, ()), verb)
    return grants


BUILT_IN = Policy(tools=(ANY,), forbidden_tools=(), actions=_harmless())


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """Granted actions, verbs by category; `*` stands for all of either."""

    grants: Mapping[str, frozenset[str]]

    @classmethod
    def from_mapping(cls, grants: Mapping[str, Iterable[str]]) -> Self:
        """From `{"filesystem": ["read"], "network": ["https"]}`."""
        return cls({category: frozenset(verbs) for category, verbs in grants.items()})

    def allows(self, category: str, verb: str) -> bool:
        """Whether an action is granted."""
        return any({verb, ANY} & self.grants.get(c, frozenset()) for c in (category, ANY))

    def check(self, category: str, verb: str) -> None:
        """Lets a granted action pass.

        Raises:
            PermissionDenied: it is not granted.
        """
        if not self.allows(category, verb):
            raise PermissionDenied(
                f"Permission denied: {verb} not allowed",
                next=f"An admin may allow it: `toolweaver permissions set --allow {category}:{verb}`.",
            )


def needed(tool: ToolDefinition) -> tuple[str, ...]:
    """The actions that a tool needs: those that it declares, and running code for one that does so by its type."""
    runs_code = tool.type == "code_exec" and not any(a.startswith("code_exec:") for a in tool.requires)
    return (*tool.requires, "code_exec:python") if runs_code else tool.requires


def fill_in(policy: Policy | None, wider: Policy) -> Policy:
    """A policy whose open fields are those of a wider one."""
    if policy is None:
        return wider
    said = {name: value for name in Rules.model_fields if (value := getattr(policy, name)) is not None}
    limits = wider.limits.model_copy(update=policy.limits.model_dump(exclude_none=True))
    return wider.model_copy(update={**said, "limits": limits, "callers": policy.callers or wider.callers})


def denied(policy: Policy, *, tenant: str, caller: tuple[str, ...], tool: ToolDefinition) -> PermissionDenied | None:
    """Why a caller may not use a tool, None when it may. `caller` is all that it is called by: name and id of its key.

    The tenant's rules must allow it, and so must every entry of `callers` that means this caller.
    """
    return next((e for rules in rules_of(policy, caller) if (e := _denied(rules, tenant, tool)) is not None), None)


def check_steps(plan: Plan, catalog: ToolCatalog, policy: Policy, *, tenant: str, caller: tuple[str, ...]) -> None:
    """Lets a plan pass whose tools a caller may use.

    Raises:
        PermissionDenied: it may not; every step that is forbidden is a problem.
    """
    refusals = {
        f"steps[{i}].tool": refusal
        for i, step in enumerate(plan.steps)
        if (tool := catalog.get_tool(step.tool)) is not None
        and (refusal := denied(policy, tenant=tenant, caller=caller, tool=tool)) is not None
    }
    if not refusals:
        return
    problems = [{"path": path, "code": e.code, "message": e.message, "next": e.next} for path, e in refusals.items()]
    (path, first), *more = refusals.items()
    if not more:
        raise PermissionDenied(first.message, path=path, next=first.next, problems=problems)
    raise PermissionDenied(f"{first.message}; {len(refusals)} steps are forbidden.", path=path, problems=problems)


def rules_of(policy: Policy, caller: tuple[str, ...]) -> list[Rules]:
    """The rules that a caller is under, all of which must allow a tool."""
    return [policy, *(r for pattern, r in policy.callers.items() if any(fnmatchcase(c, pattern) for c in caller))]


def _denied(rules: Rules, tenant: str, tool: ToolDefinition) -> PermissionDenied | None:
    if not _tool_allowed(rules, tool.name):
        return PermissionDenied(
            f"Permission denied: tool {tool.name} not allowed",
            next=f"An admin may allow it: `toolweaver permissions set {tenant} --tool {tool.name}`.",
        )
    actions = needed(tool)
    if not actions or rules.actions is None:
        return None
    granted = PermissionSet.from_mapping(rules.actions)
    for action in actions:
        category, _, verb = action.partition(":")
        if not granted.allows(category, verb):
            return PermissionDenied(
                f"Permission denied: {verb} not allowed",
                next=f"Tool {tool.name} needs {action}; an admin may allow it: "
                f"`toolweaver permissions set {tenant} --allow {action}`.",
            )
    return None


def _tool_allowed(rules: Rules, name: str) -> bool:
    def listed(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, p) for p in patterns)

    return (rules.tools is None or listed(rules.tools)) and not listed(rules.forbidden_tools or ())
