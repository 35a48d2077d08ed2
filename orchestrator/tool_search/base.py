"""The tools as they were when they were last put in order: tables that never change, in memory or in the files of a snapshot."""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.search import Filters
from orchestrator.tool_search.columns import Columns, group_of_json, text_digest
from orchestrator.tool_search.document import Document
from orchestrator.tool_search.postings import Forward, Ints, Inverted, Mask, Scores, Strings, Sums, best, dense, strongest
from orchestrator.tool_search.snapshot import Snapshot
from orchestrator.tool_search.vectors import CELLS_FILE, Cells, Flat, Vectors

EXACT_MOST = 20_000  # tools whose words are all scored exactly; of more, the strongest postings choose who is
POSTINGS_MOST = 400_000  # of a query, in a large base
SCORED = 500  # tools that these choose, and twice as many as are wanted if that is more
MASKS_KEPT = 32
TERMS_KEPT = 100_000
_WILD = re.compile(r"[*?\[]")


class Base:
    """Tools in the order of their names' bytes. Threads may share it."""

    def __init__(
        self,
        *,
        terms: Strings,
        forward: Forward,
        inverted: Inverted | None,
        columns: Columns,
        vectors: Vectors,
        matrix: NDArray[np.floating],
        folder: Path | None = None,
        held: Snapshot | None = None,
    ) -> None:
        self.terms, self.forward, self.inverted, self.columns, self.vectors = terms, forward, inverted, columns, vectors
        self.folder, self.dimensions, self._held = folder, matrix.shape[1], held
        self.matrix = matrix  # as stored: what merges read, and searches do not
        self.frequencies = np.diff(inverted.starts) if inverted is not None else forward.frequencies(None, len(terms))
        self.length = float(forward.lengths.sum(dtype=np.float64))
        self.without_vector = len(columns) - int(np.count_nonzero(vectors.known))
        self._numbers: dict[str, int | None] = {}
        self._sums = Sums()
        self._masks: OrderedDict[Filters, Mask] = OrderedDict()

    @classmethod
    def of(cls, documents: Sequence[Document], vectors: Mapping[str, NDArray[np.floating]], dimensions: int) -> Base:
        """Of tools of different names; for many, see `merge`."""
        ordered = sorted(documents, key=lambda d: d.name.encode())
        known = sorted({t for d in ordered for t in d.terms}, key=_bytes)
        ids = {t: n for n, t in enumerate(known)}
        forward = Forward.of([numbered(d, ids) for d in ordered])
        terms = Strings.of(map(_bytes, known))
        inverted = Inverted.of(forward, len(terms)) if len(ordered) > EXACT_MOST else None
        flat, columns = flat_of(ordered, vectors, dimensions), Columns.of(ordered)
        return cls(terms=terms, forward=forward, inverted=inverted, columns=columns, vectors=flat, matrix=flat.matrix)

    def __len__(self) -> int:
        return len(self.columns)

    def release(self) -> None:
        """Gives the memory of its files back that was read so far."""
        if self._held is not None:
            self._held.release()

    def term(self, term: str) -> int | None:
        """The number of a term; kept, without a cycle that would hold the memory of a base that was replaced."""
        with contextlib.suppress(KeyError):
            return self._numbers[term]
        if len(self._numbers) >= TERMS_KEPT:
            self._numbers = {}
        found = self._numbers[term] = self.terms.find(_bytes(term))
        return found

    def find(self, name: str) -> int | None:
        """The row of a tool."""
        wanted = name.encode("utf-8", "surrogatepass")
        return next((row for row in self.columns.exact(name.lower()) if self.columns.names[row] == wanted), None)

    def by_words(self, worth: Scores, terms: Ints, *, average: float, most: int, mask: Mask | None) -> NDArray[np.int64]:
        """Among which tools those are that agree most with the query's words; each of them is to be scored yet."""
        if self.inverted is not None:
            return self._strongest(worth, terms, mask, scored=max(SCORED, 2 * most))
        scores = self.forward.scores(worth, average)
        rows = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask)
        return best(scores[rows], most, of=rows)

    def _strongest(self, worth: Scores, terms: Ints, mask: Mask | None, *, scored: int) -> NDArray[np.int64]:
        assert self.inverted is not None
        sums = self._sums.of(len(self))[: len(self)]
        try:
            self.inverted.add(terms, worth[terms], into=sums, most=POSTINGS_MOST)
            if mask is not None and dense(mask):
                found = strongest(sums, 2 * scored)
                kept = found[mask[found]]
                if len(kept) >= scored or len(found) < 2 * scored:
                    return kept
            if mask is not None:
                np.multiply(sums, mask, out=sums)
            return strongest(sums, scored)
        finally:
            sums.fill(0)

    def mask(self, filters: Filters) -> Mask:
        """Which tools pass; kept for the next query with the same filters."""
        kept = self._masks.get(filters)
        if kept is None:
            kept = self._masks[filters] = self._passing(filters)
            shrink(self._masks)
        return kept

    def _passing(self, filters: Filters) -> Mask:
        admitted = np.array([filters.admits_group(**g._asdict()) for g in self.columns.groups], bool)
        passing: Mask = admitted[self.columns.group_of]
        if filters.names is not None:
            passing &= self._rows(self.find(name) for name in filters.names)
        for patterns in filters.allowed:
            passing &= self._named(patterns)
        return passing & ~self._named(filters.forbidden) if filters.forbidden else passing

    def _named(self, patterns: Sequence[str]) -> Mask:
        """Which tools one of the patterns means: the names are in order, so that few patterns need a look at all of them."""
        found = self._rows(self.find(p) for p in patterns if not _WILD.search(p))
        rest = []
        for pattern in filter(_WILD.search, patterns):
            head = _WILD.split(pattern)[0]
            if pattern == f"{head}*":
                found[self.columns.names.place(head.encode()) : self.columns.names.place(head.encode() + b"\xff")] = True
            else:
                rest.append(translate(pattern))
        if rest:
            matches = re.compile("|".join(rest)).match
            found |= np.fromiter((matches(n.decode()) is not None for n in self.columns.names), bool, len(self))
        return found

    def _rows(self, rows: Iterable[int | None]) -> Mask:
        found = np.zeros(len(self), bool)
        found[[row for row in rows if row is not None]] = True
        return found


def admits_names(filters: Filters) -> Callable[[str], bool]:
    """`filters.admits_name`, for many names: each list of patterns is one expression, and names are looked up."""
    names = None if filters.names is None else frozenset(filters.names)
    allowed = [_any_of(patterns) for patterns in filters.allowed]
    forbidden = _any_of(filters.forbidden)
    return lambda name: (names is None or name in names) and all(a(name) for a in allowed) and not forbidden(name)


def _any_of(patterns: Sequence[str]) -> Callable[[str], object]:
    plain = frozenset(p for p in patterns if not _WILD.search(p))
    wild = [translate(p) for p in patterns if p not in plain]
    matches = re.compile("|".join(wild)).match if wild else lambda _: None
    return lambda name: name in plain or matches(name)


def shrink(masks: OrderedDict[Any, Any]) -> None:
    """Forgets the oldest; others may do so at the same time."""
    while len(masks) > MASKS_KEPT:
        with contextlib.suppress(KeyError):
            masks.popitem(last=False)


def opened(snapshot: Snapshot) -> Base:
    """The base in a snapshot, which is held for as long as the base lives."""
    a, large = snapshot.arrays, snapshot.meta.large
    known, stored = a["known"], a["vectors"]
    return Base(
        terms=_strings(a, "terms"),
        forward=Forward(*(a[f"forward_{n}"] for n in ("starts", "terms", "counts", "lengths"))),
        inverted=Inverted(*(a[f"inverted_{n}"] for n in ("starts", "tools", "firsts", "ends", "levels"))) if large else None,
        columns=_columns(a),
        vectors=Cells.read(snapshot.folder / CELLS_FILE, known) if large else Flat(stored, known),
        matrix=stored,
        folder=snapshot.folder,
        held=snapshot,
    )


def _columns(a: Mapping[str, NDArray[Any]]) -> Columns:
    return Columns(
        names=_strings(a, "names"),
        versions=_strings(a, "versions"),
        rows=_strings(a, "rows"),
        called=_strings(a, "called"),
        digests=a["digests"],
        group_of=a["group_of"],
        tokens=a["tokens"],
        hashes=a["hashes"],
        hashed=a["hashed"],
        groups=tuple(group_of_json(g) for g in _strings(a, "groups")),
    )


def _strings(a: Mapping[str, NDArray[Any]], name: str) -> Strings:
    return Strings(a[f"{name}_data"], a[f"{name}_ends"])


def numbered(document: Document, ids: Mapping[str, int]) -> tuple[Sequence[int], Sequence[float], float]:
    """A document's row of the forward table, in the order of the terms' ids."""
    pairs = sorted((ids[t], c) for t, c in document.terms.items())
    return [t for t, _ in pairs], [c for _, c in pairs], document.length


def flat_of(documents: Sequence[Document], vectors: Mapping[str, NDArray[np.floating]], dimensions: int) -> Flat:
    """The vectors of documents as far as there are any."""
    found = Flat.none(len(documents), dimensions)
    for row, document in enumerate(documents):
        if (vector := vectors.get(text_digest(document.text))) is not None:
            found.matrix[row], found.known[row] = vector, True
    return found


def _bytes(term: str) -> bytes:
    return term.encode("utf-8", "surrogatepass")
