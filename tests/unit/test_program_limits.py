"""Limits of programs: defaults, an operator's file by tool and tenant, what a step may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import RequestError, ToolError
from orchestrator.programmatic_executor.limits import LimitRules

FILE = """
default: {timeout_s: 20}
most: {timeout_s: 60}
tools: {code_exec: {timeout_s: 10}}
tenants:
  acme:
    default: {memory_mb: 1024}
    most: {memory_mb: 4096, timeout_s: 600}
    tools: {run_program: {calls: 400}}
"""


def rules(tmp_path: Path, text: str = FILE) -> LimitRules:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    return LimitRules.load(path)


def test_without_a_file_the_defaults_of_the_references_hold() -> None:
    limits = LimitRules.load(None).of("code_exec", tenant="default")
    assert (limits.timeout_s, limits.calls, limits.cpus, limits.memory_mb, limits.in_flight) == (30, 100, 1.0, 512, 64)


def test_tool_and_tenant_override_the_default(tmp_path: Path) -> None:
    made = rules(tmp_path)
    assert made.of("run_program", tenant="x").timeout_s == 20
    assert made.of("code_exec", tenant="x").timeout_s == 10
    acme = made.of("run_program", tenant="acme")
    assert (acme.memory_mb, acme.calls, acme.timeout_s) == (1024, 400, 20)


def test_a_step_may_ask_for_less_and_for_more_up_to_the_most(tmp_path: Path) -> None:
    made = rules(tmp_path)
    assert made.of("code_exec", tenant="x", asked={"timeout_s": 1}).timeout_s == 1
    assert made.of("code_exec", tenant="x", asked={"timeout_s": 60}).timeout_s == 60
    assert made.of("code_exec", tenant="acme", asked={"timeout_s": 500}).timeout_s == 500
    with pytest.raises(ToolError, match=r"timeout_s = 61; the most that it may have is 60") as caught:
        made.of("code_exec", tenant="x", asked={"timeout_s": 61})
    assert caught.value.path == "limits.timeout_s"


@pytest.mark.parametrize(("asked", "said"), [({"tiemout_s": 1}, "tiemout_s"), ({"calls": "many"}, "calls"), ({"cpus": -1}, "cpus")])
def test_what_no_limit_is_is_named(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ToolError, match=f"limit `{said}`"):
        LimitRules().of("code_exec", tenant="x", asked=asked)


@pytest.mark.parametrize(
    "text", ["default: [1]", "defualt: {}", "default: {timeout_s: no}", "a: b: c", "tools: {code_exec: {cpu: 1}}"]
)
def test_a_file_that_says_what_no_limit_is_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RequestError, match="program_limits_file"):
        rules(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        LimitRules.load(tmp_path / "nowhere.yaml")
