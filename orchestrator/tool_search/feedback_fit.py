"""What evidence is worth in one catalog, fitted to that catalog's own confirmed uses; kept only if it wins on uses left out.

Each confirmed request is asked as if it had never been made (leave-one-out), and once more as if its tools had never been used at
all, with a quarter of the weight: so the fit learns how far a tool without history is to be trusted, and a new tool is not buried
under known ones. The weights are those of a conditional logit with a normal prior at the usual values (MAP, by Newton's method);
the map is a ridge regression from requests to the vectors of the tools that served them, its left-out values in closed form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search.feedback import FEATURES, TINY, Evidence, Learned, Past, Vector, Without, Worth, turned
from orchestrator.tool_search.index import Index, Query

MOST_FITTED = 500
"""Requests that the weights are fitted to, the same ones everywhere (by hash); seven numbers need no more."""
LEAST = 20
"""With fewer the usual values hold."""
CANDIDATES = 60
COLD = 0.25  # the weight of asking as if the tools had never been used
RIDGE = 3.0
PRIOR = 0.02  # 1 / variance of a weight around its usual value: 7 log-odds either way are nothing unusual
ROUNDS = 30
GAIN = 0.0
PARTS = ("cosine", "aimed", "words", *FEATURES)
BY_WORDS = ("words", "alias", "known")
AT_MOST_0 = ("known",)
Array = NDArray[np.float64]


class Source(Protocol):
    """What the fit asks of the catalog."""

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], many: int, also: Sequence[str]
    ) -> tuple[Sequence[str], NDArray[np.floating]]:
        """The best tools of a search that learned nothing, and these also; and the words' score of each."""

    def vectors(self, names: Sequence[str]) -> Vector:
        """A row for each of these tools, NaN for one that is not there or has no vector yet."""


@dataclass(frozen=True)
class OfIndex:
    """The catalog as an index knows it."""

    index: Index

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], many: int, also: Sequence[str]
    ) -> tuple[Sequence[str], NDArray[np.floating]]:
        """See `Source`."""
        found = self.index.search(Query("", tuple(terms), vector), self.index.size, learned=_Wanted(tuple(also)), deep=many)
        names = [self.index.name(at) for at in found.ids.tolist()]
        kept = [n for n, name in enumerate(names) if n < many or name in also]
        return [names[n] for n in kept], found.lexical[kept]

    def vectors(self, names: Sequence[str]) -> Vector:
        """See `Source`."""
        made = np.full((len(names), self.index.dimensions), np.nan, np.float32)
        for n, name in enumerate(names):
            if (at := self.index.find(name)) is not None and (row := self._row(at)) is not None:
                made[n] = row
        return made

    def _row(self, at: int) -> NDArray[np.floating] | None:
        base, delta, late = self.index.base, self.index.delta, self.index.late
        if at >= len(base):
            return delta.vectors.matrix[at - len(base)] if delta.vectors.known[at - len(base)] else None
        if base.vectors.known[at]:
            return np.asarray(base.matrix[at], np.float32)
        place = np.flatnonzero(late.rows == at)
        return late.flat.matrix[place[0]] if len(place) else None


class _Kept:
    """A source whose vectors are asked for once."""

    def __init__(self, source: Source, dimensions: int) -> None:
        self.candidates = source.candidates
        self._source, self._dimensions = source, dimensions
        self._known: dict[str, Vector] = {}

    def vectors(self, names: Sequence[str]) -> Vector:
        """See `Source`."""
        if fresh := [n for n in names if n not in self._known]:
            self._known |= dict(zip(fresh, self._source.vectors(fresh), strict=True))
        return np.stack([self._known[n] for n in names]) if len(names) else np.zeros((0, self._dimensions), np.float32)


class _Wanted(Learned):
    """Teaches nothing; has some tools looked at."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(Past.of((), {}))
        self._names = names

    def evidence(self, vector: Vector | None, terms: Sequence[str]) -> Evidence:  # noqa: ARG002
        """No evidence, and these names."""
        return replace(super().evidence(None, ()), names=self._names, vector=vector)


def fitted(learned: Learned, source: Source) -> Learned:
    """The same uses, each kind of evidence weighted by what it is worth here. Takes up to a second; the same for the same input."""
    past, source = learned.past, _Kept(source, learned.past.dimensions)
    turn = _Turn.of(past, source)
    sample = _sample(past)
    alone = _fit(sample, past, source, None, learned.alone)
    worth = _fit([r for r in sample if past.has[r]], past, source, turn, learned.worth)
    return Learned(past, worth, alone, turn.map if worth.aimed else None)


def _sample(past: Past) -> list[int]:
    rows = [r for r, tools in enumerate(past.good) if tools]
    rows.sort(key=lambda r: hashlib.sha256(past.queries[r].encode()).digest())
    return sorted(rows[:MOST_FITTED])


@dataclass(frozen=True)
class _Turn:
    """The ridge regression from a request to what is missing to the vectors of its tools."""

    map: Vector
    rows: NDArray[np.int64]  # requests that it is of
    missing: Vector
    told: Vector
    inverse: Vector

    @classmethod
    def of(cls, past: Past, source: Source) -> _Turn:
        known = source.vectors(past.tools) if past.tools else np.zeros((0, past.dimensions), np.float32)
        there: NDArray[np.bool_] = ~np.isnan(known.sum(axis=1))
        rows = [r for r, tools in enumerate(past.good) if past.has[r] and any(there[t] for t in tools)]
        aims = [known[[t for t in past.good[r] if there[t]]].mean(axis=0) for r in rows]
        asked = past.vectors[rows]
        wanted = np.array(aims, np.float32).reshape(len(rows), past.dimensions)
        missing = wanted / np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), TINY) - asked
        inverse = np.linalg.inv(asked.T @ asked + RIDGE * np.eye(past.dimensions, dtype=np.float32)).astype(np.float32)
        made = (inverse @ (asked.T @ missing)).astype(np.float32)
        return cls(made, np.array(rows, np.int64), missing, asked @ made, inverse)

    def without(self, past: Past, row: int, rows: Sequence[int]) -> Vector:
        """The request of `row` turned by what the others say, `rows` and it left out."""
        at = np.searchsorted(self.rows, sorted({row, *rows} & set(self.rows.tolist())))
        asked = past.vectors[self.rows[at]]
        if row not in self.rows:
            return np.asarray(turned(past.vectors[row][None], self.map)[0], np.float32)
        left = np.eye(len(at), dtype=np.float32) - asked @ self.inverse @ asked.T
        errors = np.linalg.solve(left, self.missing[at] - self.told[at])
        here = int(np.searchsorted(self.rows[at], row))
        moved = past.vectors[row] + self.missing[at][here] - errors[here]
        return np.asarray(moved / max(float(np.linalg.norm(moved)), TINY), np.float32)


@dataclass(frozen=True)
class _Asked:
    """Past requests, each over its candidates, as `PARTS`; which of them were used, and how much each request counts."""

    parts: Array  # requests x candidates x parts
    there: NDArray[np.bool_]
    used: Array  # shares that add up to 1
    counts: Array


def _fit(sample: Sequence[int], past: Past, source: Source, turn: _Turn | None, usual: Worth) -> Worth:
    """The weights, or the usual ones where there is too little to go by or nothing is won."""
    if len(sample) < LEAST:
        return usual
    asked = _ask(sample, past, source, turn)
    names = PARTS[:-1] if turn is not None else BY_WORDS
    found = _signed(asked, names, usual)
    return found if _quality(asked, found) > _quality(asked, _untaught(usual)) + GAIN else _untaught(usual)


def _untaught(usual: Worth) -> Worth:
    return replace(usual, nearest=0.0, mean=0.0, alias=0.0, known=0.0)


def _signed(asked: _Asked, names: Sequence[str], usual: Worth) -> Worth:
    """Evidence for a tool never counts against it: a weight of the wrong sign is 0, and the others are fitted again."""
    free = list(names)
    worth = usual
    while True:
        worth = _newton(asked, free, worth, usual)
        wrong = [n for n in free if (getattr(worth, n) > 0 if n in AT_MOST_0 else getattr(worth, n) < 0)]
        worth = replace(worth, **dict.fromkeys(wrong, 0.0))
        if not wrong:
            return worth
        free = [n for n in free if n not in wrong]


def _newton(asked: _Asked, free: Sequence[str], start: Worth, usual: Worth) -> Worth:
    at = [PARTS.index(n) for n in free]
    x = asked.parts[..., at]
    fixed = asked.parts @ np.array([0.0 if n in free else getattr(start, n) for n in PARTS])
    middle = np.array([getattr(usual, n) for n in free])
    w = np.array([getattr(start, n) for n in free])

    def chances(w: Array) -> tuple[Array, float]:
        score = np.where(asked.there, x @ w + fixed, -np.inf)
        top = score.max(axis=1, keepdims=True)
        spread = np.exp(score - top)
        total = spread.sum(axis=1, keepdims=True)
        told = np.where(asked.used > 0, asked.used * np.where(asked.there, score, 0.0), 0.0).sum(axis=1)
        lost = float((asked.counts * (np.log(total[:, 0]) + top[:, 0] - told)).sum())
        return spread / total, lost + 0.5 * PRIOR * float(((w - middle) ** 2).sum())

    p, lost = chances(w)
    for _ in range(ROUNDS):
        slope = np.einsum("nc,ncf->f", (p - asked.used) * asked.counts[:, None], x) + PRIOR * (w - middle)
        mean = np.einsum("nc,ncf->nf", p, x)
        each = (x * np.sqrt(p * asked.counts[:, None])[..., None]).reshape(-1, len(at))
        bend = each.T @ each - (mean * asked.counts[:, None]).T @ mean + PRIOR * np.eye(len(at))
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while (tried := chances(w - size * step))[1] > lost and size > 1e-3:
            size /= 2
        if size <= 1e-3:
            break
        w, (p, lost) = w - size * step, tried
        if np.abs(size * step).max() < 1e-2:
            break
    return replace(start, **{n: round(float(v), 3) for n, v in zip(free, w, strict=True)})


def _ask(sample: Sequence[int], past: Past, source: Source, turn: _Turn | None) -> _Asked:
    found = [one for row in sample for one in _ask_one(row, past, source, turn)]
    wide = max(len(parts) for parts, _, _ in found)
    parts = np.zeros((len(found), wide, len(PARTS)))
    there = np.zeros((len(found), wide), bool)
    used = np.zeros((len(found), wide))
    for n, (own, right, _) in enumerate(found):
        parts[n, : len(own)], there[n, : len(own)], used[n, : len(own)] = own, True, right / right.sum()
    return _Asked(parts, there, used, np.array([counts for _, _, counts in found]))


def _ask_one(row: int, past: Past, source: Source, turn: _Turn | None) -> list[tuple[Array, Array, float]]:
    """A request asked without itself, and without all uses of its tools."""
    tools = frozenset(past.good[row])
    vector = past.vectors[row] if turn is not None else None
    terms = past.words[row]
    used = [past.tools[t] for t in sorted(tools)]
    names, words = source.candidates(vector, terms, CANDIDATES, used)
    if turn is not None:
        there = np.flatnonzero(~np.isnan(source.vectors(names).sum(axis=1))).tolist()
        names, words = [names[n] for n in there], words[there]
    right = np.isin(past.places(names), list(tools)).astype(np.float64)
    if not right.sum():
        return []
    found = []
    for cold, counts in ((False, 1 - COLD), (True, COLD)):
        without = Without(row, tools, cold)
        parts = np.zeros((len(names), len(PARTS)))
        parts[:, 2] = words
        if turn is not None and vector is not None:
            vectors = np.nan_to_num(source.vectors(names))
            rows = [r for t in tools for r in past.rows_of(t)] if cold else []
            parts[:, 0], parts[:, 1] = vectors @ vector, vectors @ turn.without(past, row, rows)
        at = past.places(names)
        seen = np.flatnonzero(at >= 0)
        parts[seen, 3:] = past.features(past.seen(vector, terms, without), at[seen], without)
        found.append((parts, right, counts))
    return found


def _quality(asked: _Asked, worth: Worth) -> float:
    """Mean NDCG@10 over the requests, as they count."""
    score = np.where(asked.there, asked.parts @ np.array([getattr(worth, n) for n in PARTS]), -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")[:, :10]
    hit = np.take_along_axis(asked.used > 0, order, axis=1)
    discount = 1 / np.log2(np.arange(2, 2 + order.shape[1]))
    best = np.cumsum(discount)[np.minimum((asked.used > 0).sum(axis=1), order.shape[1]) - 1]
    return float(np.average((hit * discount).sum(axis=1) / best, weights=asked.counts))
