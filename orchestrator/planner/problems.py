"""The problems of a plan, gathered so that a person gets them all at once: place, code, message, next move."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import PlanError

MAX_PROBLEMS = 100
_COMPARISONS = 50_000  # names compared for suggestions in one check; keeps a hostile plan cheap
_SIMPLE_KEY = re.compile(r"^[^.\[\]\"\s]+$")


@dataclass(slots=True)
class Problems:
    """What is wrong so far; `count` goes on where `found` stops at `MAX_PROBLEMS`.

    `given` names the inputs that came beside the plan: their problems do not lie in its file.
    """

    given: frozenset[str] = frozenset()
    found: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    _budget: int = _COMPARISONS

    def add(self, path: str, code: str, message: str, next: str) -> None:
        """Notes a problem; the same one at the same place only once."""
        problem: dict[str, Any] = {"path": path, "code": code, "message": message, "next": next}
        if _input_name(path) in self.given:
            problem["given"] = True
        if problem in self.found[-20:]:
            return
        self.count += 1
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(problem)

    def nearest(self, name: str, names: Collection[str]) -> str | None:
        """The most similar of the names, while suggestions are still cheap."""
        if self.count >= MAX_PROBLEMS or self._budget < len(names) or len(name) > 200:
            return None
        self._budget -= len(names)
        same = next((n for n in names if n.lower() == name.lower()), None)
        return same or next(iter(get_close_matches(name, names, n=1, cutoff=0.6)), None)

    def suggest(self, name: str, names: Collection[str], *, otherwise: str) -> str:
        """A next move: the nearest name, or what to do when none is near."""
        near = self.nearest(name, names)
        return f"Did you mean `{near}`?" if near else otherwise

    def raise_any(self) -> None:
        """Ends the check here when something was found.

        Raises:
            PlanError: with every problem in the order of the plan.
        """
        if not self.found:
            return
        more = f" The first {MAX_PROBLEMS} follow." if self.count > len(self.found) else ""
        number = "a problem" if self.count == 1 else f"{self.count} problems"
        message = f"The plan has {number}; nothing of it was published.{more}"
        raise PlanError(message, problems=sorted(self.found, key=_position))


def join(place: str, *parts: str | int) -> str:
    """A path with further keys and indexes: `join("steps[1]", "input", "a.b", 0)` is `steps[1].input["a.b"][0]`."""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        elif _SIMPLE_KEY.match(part):
            place += f".{part}" if place else part
        else:
            place += '["' + part.replace("\\", "\\\\").replace('"', '\\"') + '"]'
    return place


def listed(names: Iterable[str], *, most: int = 8, last: str = "and") -> str:
    """Names for a sentence: `a`, `b` and `c`; the tail of a long list is only counted."""
    shown = [f"`{n}`" for n in names]
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {last} {shown[-1]}" if shown else "none"


def clip(value: object, *, most: int = 60) -> str:
    """A value quoted for a message, cut when long."""
    text = str(value)
    return f"`{text}`" if len(text) <= most else f"`{text[:most]}…`"


def _input_name(path: str) -> str | None:
    found = re.match(r"inputs\.([^.\[]+)", path)
    return found[1] if found else None


def _position(problem: Mapping[str, Any]) -> tuple[int, int]:
    at = re.match(r"steps\[(\d+)\]", problem["path"])
    return (0, 0) if problem["path"] == "$" else (1, int(at[1])) if at else (2, 0)
