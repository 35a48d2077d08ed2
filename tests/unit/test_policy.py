"""Permissions, keys and limits, as far as they need no store."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.access import duration
from orchestrator.client import Client
from orchestrator.errors import PermissionDenied, PolicyError, QuotaExceeded, RequestError, Unauthorized, from_problem, to_problem
from orchestrator.models.access import CreateKeyRequest, Limits, NewKey, Policy, Rules
from orchestrator.models.tool import ToolDefinition
from orchestrator.policy.keys import digest, split_key
from orchestrator.policy.limits import burst, check_bytes, check_priority, within
from orchestrator.policy.permissions import BUILT_IN, DANGEROUS, HARMLESS, PermissionSet, denied, fill_in, needed
from orchestrator.settings import Settings

REFERENCE = {"filesystem": ["read"], "network": ["https"], "code_exec": ["python"], "browser": ["navigate", "extract"]}


def tool(name: str = "t", **fields: Any) -> ToolDefinition:
    return ToolDefinition(name=name, **fields)


def verdict(policy: Policy, *, caller: tuple[str, ...] = ("direct",), **fields: Any) -> str | None:
    error = denied(fill_in(policy, BUILT_IN), tenant="acme", caller=caller, tool=tool(**fields))
    return error.message if error else None


def test_the_references_permissions_read_as_they_stand() -> None:
    permissions = PermissionSet.from_mapping(REFERENCE)

    permissions.check("filesystem", "read")
    permissions.check("browser", "navigate")
    with pytest.raises(PermissionDenied) as caught:
        permissions.check("filesystem", "write")
    assert caught.value.message == "Permission denied: write not allowed"
    assert caught.value.code == "permission_denied"
    assert "filesystem:write" in (caught.value.next or "")


@pytest.mark.parametrize(
    ("grants", "action", "allowed"),
    [
        ({"filesystem": ["*"]}, "filesystem:write", True),
        ({"*": ["read"]}, "sql:read", True),
        ({"*": ["read"]}, "sql:write", False),
        ({"*": ["*"]}, "payment:send", True),
        ({"filesystem": []}, "filesystem:read", False),
        ({}, "filesystem:read", False),
        ({"file": ["*"]}, "filesystem:read", False),
    ],
)
def test_what_is_granted(grants: dict[str, list[str]], action: str, allowed: bool) -> None:
    category, _, verb = action.partition(":")
    assert PermissionSet.from_mapping(grants).allows(category, verb) is allowed


@pytest.mark.parametrize("action", HARMLESS)
def test_harmless_actions_are_allowed_by_default(action: str) -> None:
    assert verdict(Policy(), requires=(action,)) is None


@pytest.mark.parametrize("action", [*DANGEROUS, "unheard:of", "filesystem:chmod"])
def test_dangerous_and_unheard_of_actions_are_denied_by_default(action: str) -> None:
    assert verdict(Policy(), requires=(action,)) == f"Permission denied: {action.partition(':')[2]} not allowed"


def test_the_two_tables_do_not_meet_and_say_why() -> None:
    assert not HARMLESS.keys() & DANGEROUS.keys()
    assert all({**HARMLESS, **DANGEROUS}.values())


def test_a_tool_that_runs_code_needs_that_permission_whether_it_says_so_or_not() -> None:
    assert needed(tool(type="code_exec")) == ("code_exec:python",)
    assert needed(tool(type="code_exec", requires=("code_exec:shell",))) == ("code_exec:shell",)
    assert verdict(Policy(), type="code_exec") is None, "a program in a container does no harm by itself"
    assert verdict(Policy(), type="code_exec", requires=("code_exec:shell",)) == "Permission denied: shell not allowed"
    assert verdict(Policy(actions={}), type="code_exec") == "Permission denied: python not allowed"
    assert verdict(Policy(actions={"code_exec": ("python",)}), type="code_exec") is None


def test_a_tool_that_needs_nothing_is_allowed() -> None:
    assert verdict(Policy()) is None
    assert verdict(Policy(actions={})) is None


@pytest.mark.parametrize(
    ("rules", "name", "allowed"),
    [
        ({"tools": ("receipt_*",)}, "receipt_ocr", True),
        ({"tools": ("receipt_*",)}, "pay", False),
        ({"tools": ()}, "pay", False),
        ({"forbidden_tools": ("pay*",)}, "payout", False),
        ({"tools": ("*",), "forbidden_tools": ("pay",)}, "pay", False),
        ({"tools": ("Pay",)}, "pay", False),
    ],
)
def test_tools_by_name(rules: dict[str, Any], name: str, allowed: bool) -> None:
    assert (verdict(Policy(**rules), name=name) is None) is allowed


def test_a_callers_rules_narrow_those_of_its_tenant_and_never_widen_them() -> None:
    policy = Policy(
        forbidden_tools=("pay",),
        callers={"night*": Rules(tools=("add",)), "0123456789ab": Rules(tools=("*",), actions={"filesystem": ("write",)})},
    )

    assert verdict(policy, caller=("k", "nightly"), name="add") is None
    assert verdict(policy, caller=("k", "nightly"), name="mul") == "Permission denied: tool mul not allowed"
    assert verdict(policy, caller=("k", "daily"), name="mul") is None
    assert verdict(policy, caller=("0123456789ab", "x"), name="pay") is not None
    assert verdict(policy, caller=("0123456789ab", "x"), requires=("filesystem:write",)) is not None


def test_what_a_policy_leaves_open_stands_as_the_wider_one_has_it() -> None:
    wide = fill_in(Policy(tools=("a*",), limits=Limits(jobs=5)), BUILT_IN)
    narrow = fill_in(Policy(forbidden_tools=("ab",), limits=Limits(requests=7)), wide)

    assert (narrow.tools, narrow.forbidden_tools, narrow.actions) == (("a*",), ("ab",), BUILT_IN.actions)
    assert (narrow.limits.jobs, narrow.limits.requests) == (5, 7)
    assert fill_in(None, wide) == wide
    assert fill_in(Policy(actions={}), BUILT_IN).actions == {}, "nothing allowed is not the same as nothing said"


@pytest.mark.parametrize(
    "text",
    ["", "tw_", "tw_0123456789ab_", f"tw_0123456789ab_{'x' * 42}", f"tw_0123456789aB_{'x' * 43}", f"tw_0123456789ab_{'x' * 43}\n",
     f"TW_0123456789ab_{'x' * 43}", f"tw_0123456789ab_{'é' * 43}"],
)  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    assert split_key(text) is None


def test_a_key_is_its_id_and_its_secret() -> None:
    assert split_key(f"tw_0123456789ab_{'_-' * 21}x") == ("0123456789ab", "_-" * 21 + "x")
    assert digest("secret") != "secret"


def test_a_new_keys_text_is_not_in_its_repr() -> None:
    made = NewKey.model_validate({"id": "i", "tenant": "t", "scopes": ["read"], "created": "2026-01-01T00:00:00Z", "key": "tw_i_s"})
    assert "tw_i_s" not in repr(made) + str(made)
    assert "tw_i_s" in made.model_dump_json()


@pytest.mark.parametrize(("used", "most", "fits"), [(0, 1, True), (1, 1, False), (0, 0, False), (9, -1, True), (9, None, True)])
def test_one_more_within_a_limit(used: int, most: int | None, fits: bool) -> None:
    assert within(used, most) is fits


def test_bytes_and_priorities_have_limits() -> None:
    check_bytes(Limits(file_bytes=10), used=4, more=6, tenant="acme")
    check_bytes(Limits(file_bytes=-1), used=4, more=1 << 40, tenant="acme")
    check_bytes(Limits(), used=4, more=1 << 40, tenant="acme")
    with pytest.raises(QuotaExceeded, match="acme"):
        check_bytes(Limits(file_bytes=10), used=4, more=7, tenant="acme")
    check_priority(Limits(priority="normal"), "batch")
    check_priority(Limits(), "interactive")
    with pytest.raises(PolicyError, match="`normal`"):
        check_priority(Limits(priority="normal"), "interactive")
    assert (burst(6), burst(6_000)) == (10, 1_000)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, option="--expires") == seconds


@pytest.mark.parametrize("text", ["", "d", "1w", "-1d", "1.5h", "٣d", "9" * 12])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(RequestError):
        duration(text, option="--expires")


def test_the_clients_key_is_not_shown_and_has_the_form_of_one() -> None:
    settings = Settings(_env_file=None, url="http://127.0.0.1:9", api_key="tw_hunter2_hunter2")  # type: ignore[call-arg, arg-type]
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(RequestError) as caught:
        Client("http://127.0.0.1:9", api_key="tw_hunter2\r\nX-Evil: 1")
    assert "hunter2" not in str(caught.value)


def test_errors_of_access_cross_the_wire_as_they_are() -> None:
    for error in (Unauthorized(next="bring a key"), PermissionDenied("Permission denied: write not allowed")):
        assert type(from_problem(to_problem(error))) is type(error)


def test_scopes_of_a_request_are_known_ones() -> None:
    with pytest.raises(ValueError, match="scopes"):
        CreateKeyRequest(scopes=("root",))  # type: ignore[arg-type]
