"""What programs may use: the defaults, and what an operator's file says of a tool, of a tenant, or of both.

The file is YAML or JSON:

    default: {timeout_s: 30}
    most: {timeout_s: 300, memory_mb: 1024}
    tools: {code_exec: {timeout_s: 10}}
    tenants:
      acme:
        default: {memory_mb: 1024}
        most: {memory_mb: 4096}
        tools: {run_program: {calls: 500}}

`default` holds where a step asks for nothing, `most` is what a step may ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import RequestError, ToolError
from orchestrator.models.program import MIB, ProgramLimits

MOST = {
    "timeout_s": 300.0, "calls": 500, "in_flight": 64, "memory_mb": 1024, "cpus": 2.0, "pids": 128, "tmp_mb": 256,
    "output_bytes": 4 * MIB, "frame_bytes": 16 * MIB, "value_bytes": 16 * MIB, "total_bytes": 256 * MIB, "depth": 64,
}  # fmt: skip


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    default: dict[str, Any] = {}
    most: dict[str, Any] = {}
    tools: dict[str, dict[str, Any]] = {}


class LimitRules(_Rules):
    """The limits of programs, by tool and tenant."""

    tenants: dict[str, _Rules] = {}

    @classmethod
    def load(cls, path: Path | None) -> LimitRules:
        """The rules of a file; the defaults without one.

        Raises:
            RequestError: the file cannot be read, or says what no limit is.
        """
        if path is None:
            return cls()
        try:
            rules = cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            rules._check()
        except (OSError, yaml.YAMLError, ValidationError, ToolError) as error:
            raise RequestError(
                f"the limits of programs cannot be read from `{path}`: {_first_line(error)}",
                path="program_limits_file", next="docs/programs.md says what such a file may hold.",
            ) from None  # fmt: skip
        return rules

    def of(self, tool: str, *, tenant: str, asked: Mapping[str, Any] | None = None) -> ProgramLimits:
        """The limits of an execution; `asked` is what its step wants.

        Raises:
            ToolError: the step asks for more than it may, or for what no limit is.
        """
        own = self.tenants.get(tenant, _Rules())
        limits = {**self.default, **self.tools.get(tool, {}), **own.default, **own.tools.get(tool, {})}
        highest = {n: max(v, limits.get(n, 0)) for n, v in {**MOST, **self.most, **own.most}.items()}
        wanted = dict(asked or {})
        _refuse_more(wanted, highest)
        made = _made({**limits, **wanted})
        _refuse_more({n: getattr(made, n) for n in wanted}, highest)  # "65536" is a number only now
        return made

    def _check(self) -> None:
        """Every combination makes sense on its own."""
        for rules in (self, *self.tenants.values()):
            for part in (rules.default, rules.most, *rules.tools.values()):
                _made({**MOST, **part})


def _refuse_more(asked: Mapping[str, Any], highest: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if name in highest and isinstance(value, int | float) and value > highest[name]:
            raise ToolError(
                f"the program asks for {name} = {value}; the most that it may have is {highest[name]}",
                code="limit_too_high", path=f"limits.{name}",
                next="Ask for less, or have the operator raise `most` in `program_limits_file`.",
            )  # fmt: skip


def _made(values: Mapping[str, Any]) -> ProgramLimits:
    try:
        return ProgramLimits.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(p) for p in problem["loc"])
        raise ToolError(
            f"limit `{where}`: {problem['msg']}", code="bad_limit", path=f"limits.{where}",
            next=f"The limits are {', '.join(ProgramLimits.model_fields)}.",
        ) from None  # fmt: skip


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
