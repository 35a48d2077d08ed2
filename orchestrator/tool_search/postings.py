"""Which tools have a term, strongest first, and which terms a tool has: two tables of numbers, in memory or in a file.

A term's tools stand in groups of like weight (`LEVELS`), heaviest first, so that a query of frequent words may stop early and
still has met the best (impact-ordered postings; Lin & Trotman, "The role of index compression in score-at-a-time query
evaluation", 2017; JASS, ICTIR 2015). What it met is then scored exactly from the other table, tool by tool.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search import lexical

Ints = NDArray[np.integer]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEVELS = 16
CHUNK = 1 << 16  # tools whose postings are sorted at once: bounds the memory of a build
BLOCK = 64
GRAIN = 16.0  # lengths are whole sixteenths, so that their sum is the same in any order
MOST_COUNT = 60_000.0  # the most a float16 holds, nearly


@dataclass(frozen=True, slots=True)
class Strings:
    """Many short texts in one array of bytes."""

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]  # of text i: ends[i] to ends[i + 1]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Strings:
        """These texts, in their order."""
        kept = list(texts)
        ends = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(np.fromiter((len(t) for t in kept), np.int64, len(kept)), out=ends[1:])
        return cls(np.frombuffer(b"".join(kept), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, at: int) -> bytes:
        return self.data[self.ends[at] : self.ends[at + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), CHUNK):
            ends = self.ends[start : start + CHUNK + 1]
            part, first = self.data[ends[0] : ends[-1]].tobytes(), ends[0]
            at = (ends - first).tolist()
            yield from (part[a:b] for a, b in pairwise(at))

    def find(self, text: bytes) -> int | None:
        """Where a text stands, if they are sorted."""
        at = self.place(text)
        return at if at < len(self) and self[at] == text else None

    def place(self, text: bytes) -> int:
        """Before which one a text belongs, if they are sorted."""
        return bisect.bisect_left(range(len(self)), text, key=self.__getitem__)


@dataclass(frozen=True, slots=True)
class Forward:
    """The terms of each tool. Counts are kept as float16 and lengths in sixteenths, in every table alike: so are their scores."""

    starts: NDArray[np.int64]  # of tool i: starts[i] to starts[i + 1]
    terms: NDArray[np.int32]
    counts: NDArray[np.float16]
    lengths: NDArray[np.float32]

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[int], Sequence[float], float]]) -> Forward:
        """From (ids of terms, weighted counts, length) of each tool."""
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter((len(r[0]) for r in rows), np.int64, len(rows)), out=starts[1:])
        total = int(starts[-1])
        terms = np.fromiter((t for r in rows for t in r[0]), np.int32, total)
        counts = np.fromiter((c for r in rows for c in r[1]), np.float32, total)
        lengths = np.fromiter((r[2] for r in rows), np.float64, len(rows))
        return cls(
            starts, terms, np.minimum(counts, MOST_COUNT).astype(np.float16), (np.round(lengths * GRAIN) / GRAIN).astype(np.float32)
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def spread(self, rows: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the terms of these tools stand, one tool after the other, and where each tool begins among them."""
        sizes = self.starts[rows + 1] - self.starts[rows]
        begins = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=begins[1:])
        return np.arange(begins[-1]) + np.repeat(self.starts[rows] - begins[:-1], sizes), begins

    def take(self, rows: Ints) -> Forward:
        """The table of some tools only, in this order."""
        at, begins = self.spread(rows)
        return Forward(begins, self.terms[at], self.counts[at], self.lengths[rows])

    def joined(self, other: Forward) -> Forward:
        """The tools of both."""
        return Forward(
            np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]),
            np.concatenate([self.terms, other.terms]),
            np.concatenate([self.counts, other.counts]),
            np.concatenate([self.lengths, other.lengths]),
        )

    def frequencies(self, rows: Ints | None, terms: int) -> NDArray[np.int64]:
        """How many of these tools (None: of all) have each of so many terms."""
        found = self.terms if rows is None else self.terms[self.spread(rows)[0]]
        return np.bincount(found, minlength=terms)

    def scores(self, worth: Scores, average: float, rows: Ints | None = None) -> Scores:
        """The exact lexical score of these tools (None: of all); `worth` of each term for the query, mostly 0."""
        if rows is None:
            hit = np.flatnonzero(worth[self.terms])
            owner = np.searchsorted(self.starts, hit, side="right") - 1
            return self._summed(hit, owner, worth=worth, norms=lexical.norm(self.lengths, average), size=len(self))
        at, begins = self.spread(rows)
        kept = np.flatnonzero(worth[self.terms[at]])
        owner = np.searchsorted(begins, kept, side="right") - 1
        return self._summed(at[kept], owner, worth=worth, norms=lexical.norm(self.lengths[rows], average), size=len(rows))

    def _summed(self, at: Ints, owner: Ints, *, worth: Scores, norms: NDArray[np.floating], size: int) -> Scores:
        part = worth[self.terms[at]] * lexical.saturation(self.counts[at].astype(np.float32), norms[owner])
        return np.bincount(owner, part, minlength=size).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Inverted:
    """The tools of each term, in groups of like saturation, heaviest first; by id within a group."""

    starts: NDArray[np.int64]  # of term t: tools starts[t] to starts[t + 1]
    tools: NDArray[np.int32]
    firsts: NDArray[np.int64]  # of term t: groups firsts[t] to firsts[t + 1]
    ends: NDArray[np.int32]  # of a group: tools of its term up to its last one
    levels: NDArray[np.uint8]

    @classmethod
    def of(cls, forward: Forward, terms: int) -> Inverted:
        """From the other table; needs little more memory than what it gives."""
        average = float(forward.lengths.sum(dtype=np.float64) / max(1, len(forward)))
        sizes = np.zeros(terms * LEVELS, np.int64)
        for keys, _ in _keys(forward, average):
            sizes += np.bincount(keys, minlength=len(sizes))
        free = np.zeros(len(sizes), np.int64)  # where the next tool of each group goes
        np.cumsum(sizes[:-1], out=free[1:])
        tools = np.empty(len(forward.terms), np.int32)
        for keys, owners in _keys(forward, average):
            order = np.argsort(keys, kind="stable")
            ranked = keys[order]
            new = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
            runs = np.diff(np.append(new, len(ranked)))
            within = np.arange(len(ranked)) - np.repeat(new, runs)
            tools[free[ranked] + within] = owners[order]
            free[ranked[new]] += runs
        groups = np.flatnonzero(sizes)
        owners_of = groups // LEVELS
        starts = np.zeros(terms + 1, np.int64)
        np.cumsum(sizes.reshape(terms, LEVELS).sum(axis=1), out=starts[1:])
        ends = np.cumsum(sizes[groups]) - starts[owners_of]
        firsts = np.searchsorted(owners_of, np.arange(terms + 1)).astype(np.int64)
        return cls(starts, tools, firsts, ends.astype(np.int32), (groups % LEVELS).astype(np.uint8))

    def frequency(self, terms: Ints) -> NDArray[np.int64]:
        """How many tools have each of these terms."""
        return np.asarray(self.starts[terms + 1] - self.starts[terms])

    def add(self, terms: Ints, worth: Scores, *, into: Scores, most: int) -> int:
        """Adds up what the terms are worth to each tool, in the order of weight, until about `most` postings are used.

        Gives how many were.
        """
        firsts, groups = self.firsts[terms], self.firsts[terms + 1] - self.firsts[terms]
        owner = np.repeat(np.arange(len(terms)), groups)
        begins = np.cumsum(groups) - groups
        at = np.arange(len(owner)) + np.repeat(firsts - begins, groups)
        ends = self.ends[at].astype(np.int64)
        sizes = ends.copy()
        sizes[1:] -= np.where(owner[1:] == owner[:-1], ends[:-1], 0)
        weights = worth[owner] * _MIDDLES[self.levels[at]]
        order = np.argsort(-weights, kind="stable")
        used = np.searchsorted(np.cumsum(sizes[order]), most) + 1
        kept = np.bincount(owner[order[:used]], minlength=len(terms))
        for n, (term, groups_used) in enumerate(zip(terms.tolist(), kept.tolist(), strict=True)):
            if groups_used:
                first, start = int(begins[n]), int(self.starts[term])
                part = slice(first, first + groups_used)
                tools = self.tools[start : start + int(ends[first + groups_used - 1])]
                np.add.at(into, tools, np.repeat(weights[part], sizes[part]))
        return int(sizes[order[:used]].sum())


_MIDDLES = ((LEVELS - 1 - np.arange(LEVELS)) / LEVELS + 0.5 / LEVELS).astype(np.float32)  # level 0 is the heaviest


def _keys(forward: Forward, average: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """(term and level, tool) of each posting, some tools at a time."""
    for start in range(0, len(forward), CHUNK):
        starts = np.asarray(forward.starts[start : start + CHUNK + 1])
        part = slice(int(starts[0]), int(starts[-1]))
        sizes = np.diff(starts)
        norms = np.repeat(lexical.norm(np.asarray(forward.lengths[start : start + CHUNK], np.float32), average), sizes)
        heavy = lexical.saturation(np.asarray(forward.counts[part], np.float32), norms)
        levels = LEVELS - 1 - np.minimum((heavy * LEVELS).astype(np.int64), LEVELS - 1)
        yield (
            forward.terms[part].astype(np.int64) * LEVELS + levels,
            np.repeat(np.arange(start, start + len(sizes), dtype=np.int32), sizes),
        )


class Sums(threading.local):
    """One array of sums for each thread, zero between uses."""

    def __init__(self) -> None:
        self._sums = np.zeros(0, np.float32)

    def of(self, size: int) -> Scores:
        """At least so many zeros; whoever takes them leaves zeros behind."""
        if len(self._sums) < size:
            self._sums = np.zeros(size + size // 4 + BLOCK, np.float32)
        return self._sums


def dense(mask: Mask) -> bool:
    """Whether so many pass that it is cheaper to find some more and to leave out those that do not."""
    return 3 * int(np.count_nonzero(mask)) >= 2 * len(mask)


def strongest(scores: Scores, most: int) -> NDArray[np.int64]:
    """The places of the `most` greatest of many scores, as far as they are above 0; ascending."""
    full = len(scores) // BLOCK * BLOCK
    least = np.float32(0)
    if full // BLOCK > most:  # the best of each of many blocks: that many are at least as good as the last of these
        tops = scores[:full].reshape(BLOCK, -1).max(axis=0)
        least = np.partition(tops, len(tops) - most)[len(tops) - most]
    found = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores > 0)
    return found if len(found) <= most else np.sort(best(scores[found], most, of=found))


def best(scores: Scores, most: int, *, of: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The places (or what `of` says for them) of the greatest scores, in no order; of equal ones the first."""
    ids = np.arange(len(scores)) if of is None else of
    if len(scores) <= most:
        return ids
    least = np.partition(scores, len(scores) - most)[len(scores) - most]
    above = ids[scores > least]
    return np.concatenate([above, ids[scores == least][: most - len(above)]])
