"""A plan: the DAG of tool calls that answers a request, and the references that join its steps.

A reference is a whole string: `step:<id>.path[0]`, `input:<name>.path`, `item.path` (inside a map);
`{"$literal": value}` escapes a value that only looks like one. A reference adds the dependency.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ID_PATTERN = r"^[A-Za-z][\w-]*$"  # a length in the pattern would compile into 8 MiB in every process
MAX_ID = 64
MAX_STEPS = 5_000
MAX_MAP = 100_000
MAX_PLAN_BYTES = 1 << 20

Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=MAX_ID)]
OnError = Literal["fail_fast", "skip_dependents", "continue"]
Effect = Literal["none", "idempotent", "once"]
Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "exists", "truthy", "falsy"]

_HEAD = re.compile(r"^(?:(step|input):([A-Za-z][\w-]{0,63})|(item))(?=$|[.\[])")
_PART = re.compile(r"\.(?!\s)([^.\[\]]+)|\[(\d+)\]|\[(\*)\]")


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class Retry(_Wire):
    """How often and how patiently a failed call is tried again: exponential backoff with jitter."""

    max: int = Field(default=2, ge=0, le=100, description="further tries after the first")
    backoff_s: float = Field(default=0.5, ge=0, le=3600, description="wait before the first retry; doubles each time")
    max_backoff_s: float = Field(default=60.0, ge=0, le=86_400, description="the longest wait")


class When(_Wire):
    """A condition on a value: the call is skipped when it does not hold. Data, never code."""

    ref: str
    op: Operator = "truthy"
    value: Any = None


class Step(_Wire):
    """One step of a plan: a tool and its input, run once, or once per item of `map`."""

    id: Id
    tool: str = Field(min_length=1, max_length=256)
    input: dict[str, Any] = Field(default_factory=dict)
    depends_on: tuple[Id, ...] = ()
    map: str | None = Field(default=None, description="reference to a list; the step runs once per item")
    when: When | None = None
    retry: Retry | None = None
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    on_error: OnError | None = Field(default=None, description="default: the plan's `on_error`")
    on_skip: Literal["skip", "run"] = Field(default="skip", description="`run`: run although something it depends on was skipped")
    effect: Effect | None = Field(default=None, description="default: what the tool declares")


class FinalSynthesis(_Wire):
    """How the answer is worded: `{{steps}}` stands for the results by step id, `{{steps.<id>.path}}` for one value."""

    prompt_template: str


class Plan(_Wire):
    """A DAG of tool calls in the wire format of `docs/reference/plan.md`."""

    request_id: str | None = Field(default=None, max_length=256)
    description: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict, description="default values of `input:<name>`")
    steps: tuple[Step, ...] = Field(min_length=1)
    on_error: OnError = "fail_fast"
    output: str | None = Field(default=None, description="reference to the answer; default: the results of the last steps")
    final_synthesis: FinalSynthesis | None = None


class PlanView(Plan):
    """A plan as it would run, and what should be changed in it all the same, such as a tool that is deprecated."""

    warnings: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: `kind` of source, its `name` ("" for `item`), and the `path` of keys and indexes.

    `whole` marks `step:<id>[*]`: the whole list of a map step where the aligned item would be meant otherwise.
    """

    kind: Literal["step", "input", "item"]
    name: str
    path: tuple[str | int, ...] = ()
    whole: bool = False

    def __str__(self) -> str:
        head = "item" if self.kind == "item" else f"{self.kind}:{self.name}"
        star = "[*]" if self.whole else ""
        return head + star + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)


def parse_reference(text: object) -> Reference | None:
    """The reference that a string is, or None when it is plain text.

    Raises:
        ValueError: it begins as a reference and goes on as none (`step:a..b`, `step:a[x]`, `step:`).
    """
    if not isinstance(text, str):
        return None
    head = _HEAD.match(text)
    if head is None:
        if re.match(r"^(step|input):", text):
            raise ValueError(f"`{text}` is not a reference; write `step:<id>.field[0]` or `input:<name>`")
        return None
    path: list[str | int] = []
    whole, at = False, head.end()
    if head[3] and at < len(text) and not _PART.match(text, at):
        return None  # prose such as "item. Next"
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            if head[3]:
                return None
            raise ValueError(f"`{text}` is not a reference: `{text[at:]}` is no `.field` or `[index]`")
        if part[3]:
            if whole or path or head[1] != "step":
                raise ValueError(f"`{text}` is not a reference: `[*]` follows a step's id directly")
            whole = True
        else:
            path.append(part[1] if part[1] is not None else int(part[2]))
        at = part.end()
    kind: Literal["step", "input", "item"] = "item" if head[3] else ("step" if head[1] == "step" else "input")
    return Reference(kind, head[2] or "", tuple(path), whole)


def find_references(value: Any, path: str = "") -> Iterator[tuple[str, Reference]]:
    """Every reference inside a JSON value with its place, such as `("input.image_uri", Reference(...))`.

    Raises:
        ValueError: a string begins as a reference and goes on as none.
    """
    if isinstance(value, dict):
        if set(value) == {"$literal"}:
            return
        for key, inner in value.items():
            yield from find_references(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_references(inner, f"{path}[{index}]")
    else:
        reference = parse_reference(value)
        if reference is not None:
            yield path, reference
