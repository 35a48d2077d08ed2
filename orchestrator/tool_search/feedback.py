"""What confirmed use teaches: past requests near this one vote for the tools that served them, and silence says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
MOST_ADDED = 50  # tools that evidence names for one query
NEAR, WIDTH, UNKNOWN, WEIGHT = 0.5, 0.1, 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Use:
    """A confirmed use: for this query these tools were used, and it went well or not. Of no tenant: everybody learns from it."""

    id: str
    ts: float  # seconds since 1970
    tenant: str | None
    query: str
    used: tuple[str, ...]
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What past uses say about one query: of these tools, strongest first, so much is added to the fused score."""

    names: tuple[str, ...]
    bonus: Vector
    counts: tuple[int, ...]  # similar requests that each was used for
    _at: Mapping[str, int]

    def adjust(self, names: Sequence[str], scores: NDArray[np.floating]) -> Vector:
        """The scores of these candidates with what is known of them; of others nothing is known, and theirs stay."""
        return np.asarray(scores, np.float32) + self.of(names)

    def of(self, names: Sequence[str]) -> Vector:
        """What is added for each of these candidates."""
        if not self.names:
            return np.zeros(len(names), np.float32)
        return np.fromiter((self.bonus[at] if (at := self._at.get(n)) is not None else 0.0 for n in names), np.float32, len(names))

    def reason(self, name: str) -> str:
        """A few words for the hit, "" when nothing speaks for the tool; never anybody's request."""
        at = self._at.get(name)
        if at is None or self.bonus[at] <= 0:
            return ""
        return f"used before for similar requests ({self.counts[at]})"


class Learned:
    """What one tenant's and the shared uses teach; immutable, and the same wherever the same uses are known."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = tuple(parts)

    def evidence(self, vector: Vector | None, terms: Sequence[str]) -> Evidence:
        """What speaks for and against tools, for a query of this vector (None: no encoder) and these terms."""
        votes: dict[str, float] = {}
        counts: dict[str, int] = {}
        mass = UNKNOWN
        for part in self._parts:
            for near, used, sign in part.near(vector):
                mass += near
                for name in used:
                    votes[name] = votes.get(name, 0.0) + sign * near
                    counts[name] = counts.get(name, 0) + (sign > 0)
        strongest = sorted(votes, key=lambda n: (-votes[n], n))[:MOST_ADDED]
        bonus = np.array([WEIGHT * votes[n] / mass for n in strongest], np.float32)
        return Evidence(tuple(strongest), bonus, tuple(counts[n] for n in strongest), {n: at for at, n in enumerate(strongest)})


class Lessons:
    """Uses of all tenants; `seen_by` gives what one of them learns from."""

    def __init__(self, parts: Mapping[str | None, _Part]) -> None:
        self._parts = dict(parts)

    @classmethod
    def of(cls, uses: Sequence[Use], vectors: Mapping[str, Vector]) -> Lessons:
        """From live uses in the order of the log, and the vectors of their queries by text, as far as there are any yet."""
        by_tenant: dict[str | None, list[Use]] = {}
        for use in uses:
            by_tenant.setdefault(use.tenant, []).append(use)
        return cls({tenant: _Part.of(own, vectors) for tenant, own in by_tenant.items()})

    def seen_by(self, tenant: str | None) -> Learned | None:
        """None: nothing to learn from."""
        parts = [self._parts[t] for t in dict.fromkeys((None, tenant)) if t in self._parts]
        return Learned(parts) if parts else None


@dataclass(frozen=True, slots=True)
class _Part:
    """Uses of one tenant, or the shared ones."""

    rows: Vector
    used: tuple[tuple[str, ...], ...]
    signs: tuple[int, ...]

    @classmethod
    def of(cls, uses: Sequence[Use], vectors: Mapping[str, Vector]) -> _Part:
        known = [u for u in uses if u.query in vectors]
        rows = np.stack([vectors[u.query] for u in known]) if known else np.zeros((0, 0), np.float32)
        return cls(np.asarray(rows, np.float32), tuple(u.used for u in known), tuple(1 if u.ok else -1 for u in known))

    def near(self, vector: Vector | None) -> list[tuple[float, tuple[str, ...], int]]:
        if vector is None or not len(self.used):
            return []
        likeness = self.rows @ vector
        at = np.flatnonzero(likeness > NEAR)
        return [(float(np.exp((likeness[i] - 1) / WIDTH)), self.used[i], self.signs[i]) for i in at]
