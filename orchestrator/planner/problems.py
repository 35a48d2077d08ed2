"""The problems of a plan, gathered so that a person gets them all at once: place, code, message, example, next move, fix."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from orchestrator.errors import PlanError

MAX_PROBLEMS = 100
MAX_NAME = 200  # characters of a name for which another one is looked for
_COMPARISONS = 50_000  # names compared for suggestions in one check; keeps a hostile plan cheap
_SIMPLE_KEY = re.compile(r"^[^.\[\]\"\s]+$")
_PART = re.compile(r'\.?([^.\[\]"]+)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]')
_SHOWN = 120  # characters of a value in an example
_LEAST_WORD = 4  # letters of a word in which a slip of the pen is certain
Fix = dict[str, Any]


@dataclass(slots=True)
class Problems:
    """What is wrong so far; `count` goes on where `found` stops at `MAX_PROBLEMS`.

    `given` names the inputs that came beside the plan: their problems do not lie in its file. `plan` is what was
    handed in, from which examples are taken.
    """

    given: frozenset[str] = frozenset()
    plan: Any = None
    found: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    _budget: int = _COMPARISONS
    _slips: int = _COMPARISONS

    def add(self, path: str, code: str, message: str, next: str, *, example: str | None = None, fix: Fix | None = None) -> None:
        """Notes a problem; the same one at the same place only once.

        `example` shows the clash by a value or a path; without one the value at `path` is shown. `fix` is one operation of
        `planner.fixes` on the plan, given only where nothing else can have been meant.
        """
        problem: dict[str, Any] = {"path": path, "code": code, "message": message, "next": next}
        if _input_name(path) in self.given:
            problem["given"] = True
        if any(problem.items() <= p.items() for p in self.found[-20:]):
            return
        self.count += 1
        if len(self.found) < MAX_PROBLEMS:
            problem["example"] = example or _literal(self.plan, path)
            self.found.append(problem | ({"fix": fix} if fix is not None and "given" not in problem else {}))

    @property
    def open(self) -> bool:
        """Whether what is found now is still told."""
        return self.count < MAX_PROBLEMS

    def nearest(self, name: str, names: Collection[str]) -> str | None:
        """The most similar of the names, while suggestions are still cheap."""
        if self.count >= MAX_PROBLEMS or self._budget < len(names) or len(name) > MAX_NAME:
            return None
        self._budget -= len(names)
        same = next((n for n in names if n.lower() == name.lower()), None)
        return same or next(iter(get_close_matches(name, names, n=1, cutoff=0.6)), None)

    def meant(self, name: str, names: Collection[str]) -> str | None:
        """`meant` of this module, while that is still cheap."""
        if not self.open or self._slips < len(names):
            return None
        self._slips -= len(names)
        return meant(name, names)

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
        raise PlanError(message, problems=self.sorted())

    def sorted(self) -> list[dict[str, Any]]:
        """What was found, in the order of the plan."""
        return sorted(self.found, key=_position)


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


def parts(path: str) -> list[str | int]:
    """The keys and indexes of a path as `join` writes it."""
    if path in ("", "$"):
        return []
    return [
        int(m[2]) if m[2] is not None else m[1] if m[1] is not None else re.sub(r"\\(.)", r"\1", m[3]) for m in _PART.finditer(path)
    ]


def at_path(value: Any, way: Iterable[str | int]) -> Any:
    """What lies at a path inside a value; None when nothing does."""
    for part in way:
        inside = isinstance(value, Mapping) if isinstance(part, str) else isinstance(value, list | tuple)
        if not inside or (part not in value if isinstance(part, str) else part >= len(value)):
            return None
        value = value[part]
    return value


def meant(name: str, names: Iterable[str]) -> str | None:
    """The one name that can have been meant: alike but for capitals and separators, or a letter is missing, doubled or swapped.

    A letter that stands for another one is no such slip: `get_user` is not `set_user`; nor is another digit.
    """
    known = list(names) if len(name) <= MAX_NAME else []
    same = [n for n in known if _plain(n) == _plain(name)]
    near = same or [n for n in known if abs(len(n) - len(name)) <= 1 and _slipped(name, n)]
    return near[0] if len(near) == 1 else None


def shown(value: Any, *, most: int = _SHOWN) -> str:
    """A value as JSON on one line, cut when long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else f"{text[:most]}…"


def sentence(text: str) -> str:
    """A text with a full stop."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


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


def _plain(name: str) -> str:
    return re.sub(r"[\s_.:/-]", "", name).casefold()


def _slipped(name: str, meant: str) -> bool:
    """Whether one word of a name has one letter more or less, or two neighbours swapped."""
    wrong, right = re.split(r"[\W_]+", name.casefold()), re.split(r"[\W_]+", meant.casefold())
    if len(wrong) != len(right):
        return False
    pairs = [(a, b) for a, b in zip(wrong, right, strict=True) if a != b]
    return len(pairs) == 1 and max(map(len, pairs[0])) >= _LEAST_WORD and _one_slip(*pairs[0])


def _one_slip(wrong: str, right: str) -> bool:
    if any(map(str.isdigit, set(wrong) ^ set(right))):
        return False
    if len(wrong) == len(right):
        at = [i for i, (a, b) in enumerate(zip(wrong, right, strict=True)) if a != b]
        return len(at) == 2 and at[1] == at[0] + 1 and wrong[at[0]] == right[at[1]] and wrong[at[1]] == right[at[0]]
    longer, shorter = (wrong, right) if len(wrong) > len(right) else (right, wrong)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def _literal(plan: Any, path: str) -> str:
    """What stands at a path, or around it when there is nothing."""
    value, here = plan, "$"
    way = parts(path)
    for at, part in enumerate(way):
        inside = isinstance(value, Mapping) if isinstance(part, str) else isinstance(value, list | tuple)
        if not inside or (part not in value if isinstance(part, str) else part >= len(value)):
            return f"`{here}` is {around(value)}: there is no `{join('', *way[at:])}`"
        value, here = value[part], join("", *way[: at + 1])
    return f"`{here}` is {around(value)}"


def around(value: Any) -> str:
    """A value for an example; of a large one only what it is made of, since it may be a megabyte."""
    if isinstance(value, Mapping) and len(value) > 12:
        return f"an object with {listed(map(str, list(value)[:9]), most=8)}"
    if isinstance(value, list | tuple) and len(value) > 12:
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return shown(value[:_SHOWN] + ("…" if len(value) > _SHOWN else ""), most=2 * _SHOWN)
    return shown(_cut(value, 2))


def _cut(value: Any, deep: int) -> Any:
    """A copy of a value, for showing it, that is small however large the value is."""
    if isinstance(value, Mapping):
        return {str(k): _cut(v, deep - 1) for k, v in list(value.items())[:12]} if deep else "…" if value else {}
    if isinstance(value, list | tuple):
        return [_cut(v, deep - 1) for v in value[:12]] if deep else "…" if value else []
    return value[:_SHOWN] if isinstance(value, str) else value
