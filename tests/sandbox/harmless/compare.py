"""What came of a program against what should have come of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from tests.sandbox.harmless.case import Harmless
from tests.sandbox.harmless.tools import tools_for


def differences(program: Harmless, value: Any, stdout: str, calls: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """Each thing that differs, said in a line; empty if all is as it should be."""
    made = [(name, given(name, arguments)) for name, arguments in calls]
    said: list[str] = []
    if not same(value, program.value):
        said.append(f"value {value!r}, expected {program.value!r}")
    if program.prints is not None and stdout != program.prints:
        said.append(f"printed {stdout!r}, expected {program.prints!r}")
    if isinstance(program.calls, int) and len(made) != program.calls:
        said.append(f"{len(made)} calls, expected {program.calls}")
    if isinstance(program.calls, tuple) and made != list(program.calls):
        said.append(f"calls {made!r}, expected {list(program.calls)!r}")
    return said


def given(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that are not the tool's defaults: a stub may send those or leave them out."""
    defaults = {p.name: p.default for p in inspect.signature(tools_for([name])[name]).parameters.values()}
    return {k: v for k, v in arguments.items() if v != defaults[k]}


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1 here, and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
