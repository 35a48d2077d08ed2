"""What is searched: a base in order, the few tools that came since, and what is gone. Every change gives a new view of it.

A view answers as one built anew from the same tools would: candidates of both halves, those of the base through its tables,
and then one formula over all, with the document frequencies of the tools that are there now.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.catalog import CatalogHash
from orchestrator.models.search import Filters
from orchestrator.tool_search import lexical
from orchestrator.tool_search.base import Base, shrink
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.delta import Delta
from orchestrator.tool_search.document import Document, document_of_row
from orchestrator.tool_search.feedback import Evidence, Learned
from orchestrator.tool_search.fusion import DEFAULT, Weights, fuse
from orchestrator.tool_search.postings import Forward, Ints, Mask, Scores, best
from orchestrator.tool_search.vectors import Flat

DIMENSIONS = 384
BY_WORDS = 200  # candidates of the lexical half, and as many as are asked for if that is more
BY_MEANING = 100
FEW = 8_000  # tools that pass a filter, of which each is scored
DIGITS = 6  # of scores that are told apart: two views that add up in another order agree

Vector = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. `terms` as `analysis.terms` gives them; `vector` of length 1, or None: by words alone."""

    text: str
    terms: tuple[str, ...]
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Tools that were found, best first, one entry of each array for each.

    `cosine` is NaN for a tool without a vector yet, None without one of the query; `learned` is in the scores already.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    lexical: Scores
    cosine: Scores | None
    learned: Scores
    evidence: Evidence | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Late:
    """Vectors of tools of the base that had none when it was put in order."""

    rows: NDArray[np.int64]
    flat: Flat

    @classmethod
    def none(cls, dimensions: int) -> Late:
        """No vectors."""
        return cls(np.zeros(0, np.int64), Flat.none(0, dimensions))

    @classmethod
    def of(cls, rows: NDArray[np.int64], matrix: NDArray[np.float32]) -> Late:
        """The vectors of these rows, which ascend."""
        return cls(rows, Flat(matrix, np.ones(len(rows), bool)))


@dataclass(frozen=True, eq=False)
class Index:
    """Immutable; threads may search it. `catalog_hash` and `generation` say which catalog it is of."""

    base: Base
    delta: Delta
    dead: Mask  # tools of the base that are gone, or replaced
    late: Late
    new_terms: Mapping[str, int]
    frequencies: NDArray[np.int64]  # of each term, in the tools that are there
    length: float  # of all of them
    digest: CatalogHash
    generation: int = 0
    _masks: OrderedDict[Filters, Mask | None] = field(default_factory=OrderedDict)
    _totals: OrderedDict[Filters | None, tuple[int, int]] = field(default_factory=OrderedDict)

    @classmethod
    def empty(cls, dimensions: int = DIMENSIONS) -> Index:
        """Without tools."""
        return cls.of((), dimensions=dimensions)

    @classmethod
    def of(
        cls,
        documents: Iterable[Document],
        vectors: Mapping[str, Vector] | None = None,
        *,
        generation: int = 0,
        dimensions: int = DIMENSIONS,
    ) -> Index:
        """Of these tools, of which the last of a name counts; `vectors` by the digest of their text."""
        kept = {d.name: d for d in documents}
        base = Base.of(list(kept.values()), vectors or {}, dimensions)
        return cls.over(
            base, CatalogHash.of((d.name, d.version) for d in kept.values()), generation=generation, dimensions=dimensions
        )

    @classmethod
    def over(cls, base: Base, digest: CatalogHash, *, generation: int, dimensions: int = DIMENSIONS) -> Index:
        """A base alone."""
        return cls(
            base=base,
            delta=Delta.empty(dimensions),
            dead=np.zeros(len(base), bool),
            late=Late.none(dimensions),
            new_terms={},
            frequencies=base.frequencies,
            length=base.length,
            digest=digest,
            generation=generation,
        )

    @cached_property
    def tombstones(self) -> int:
        """How many tools of the base are gone or replaced."""
        return int(np.count_nonzero(self.dead))

    @property
    def size(self) -> int:
        """How many tools there are."""
        return len(self.base) - self.tombstones + len(self.delta)

    @property
    def catalog_hash(self) -> str:
        """See `CatalogHash`."""
        return str(self.digest)

    @cached_property
    def _missing(self) -> NDArray[np.int64]:
        """Tools of the base without a vector."""
        missing = ~self.base.vectors.known & ~self.dead if self.base.without_vector else np.zeros(0, bool)
        if len(missing):
            missing[self.late.rows] = False
        return np.flatnonzero(missing)

    @cached_property
    def backlog(self) -> int:
        """How many tools have no vector yet: they are found by words alone."""
        return len(self._missing) + int(np.count_nonzero(~self.delta.vectors.known))

    def backlog_in(self, mask: Mask | None) -> int:
        """How many of the tools that pass a mask have no vector yet."""
        if mask is None or not self.backlog:
            return self.backlog
        fresh = np.flatnonzero(~self.delta.vectors.known) + len(self.base)
        return int(np.count_nonzero(mask[self._missing])) + int(np.count_nonzero(mask[fresh]))

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        return int(self.base.matrix.shape[1])

    # tools by id

    def find(self, name: str) -> int | None:
        """The id of a tool in this view."""
        if (place := self.delta.places.get(name)) is not None:
            return len(self.base) + place
        row = self.base.find(name)
        return None if row is None or self.dead[row] else row

    def exact(self, name: str) -> tuple[int, ...]:
        """The ids of the tools that have an exact name (in lower case): their own, their native one or an alias."""
        of_base = (row for row in self.base.columns.exact(name) if not self.dead[row])
        return (*of_base, *(len(self.base) + n for n in self.delta.called.get(name, ())))

    def name(self, at: int) -> str:
        """The name of a tool."""
        return self.delta.documents[at - len(self.base)].name if at >= len(self.base) else self.base.columns.names[at].decode()

    def version(self, at: int) -> str:
        """The content hash of a tool."""
        return (
            self.delta.documents[at - len(self.base)].version if at >= len(self.base) else self.base.columns.versions[at].decode()
        )

    def row(self, at: int) -> bytes:
        """The definition of a tool, as `ToolDefinition.to_row()`."""
        return self.delta.documents[at - len(self.base)].row if at >= len(self.base) else self.base.columns.rows[at]

    def tokens(self, at: int) -> int:
        """The tokens of a tool's schema as a model sees it."""
        return self.delta.documents[at - len(self.base)].tokens if at >= len(self.base) else int(self.base.columns.tokens[at])

    @cached_property
    def _tokens(self) -> NDArray[np.int32]:
        return np.concatenate([self.base.columns.tokens, np.array([d.tokens for d in self.delta.documents], np.int32)])

    def totals(self, filters: Filters | None = None) -> tuple[int, int]:
        """How many tools pass the filters, and the tokens of all their schemas. Kept as `mask` is."""
        with contextlib.suppress(KeyError):
            return self._totals[filters]
        passing = self.mask(filters)
        tokens = int(self._tokens.sum(dtype=np.int64, where=True if passing is None else passing))
        kept = self._totals[filters] = (self.size if passing is None else int(np.count_nonzero(passing)), tokens)
        shrink(self._totals)
        return kept

    # changes

    def apply(
        self,
        upserts: Sequence[Document] = (),
        removed: Sequence[str] = (),
        *,
        generation: int,
        vectors: Mapping[str, Vector] | None = None,
    ) -> Index:
        """With tools new, changed and gone; of a name in both, the new tool is there. Those that did not change cost nothing.

        Not to be called by two threads at once. `vectors` by the digest of their text.
        """
        come = {d.name: d for d in upserts}
        come = {name: d for name, d in come.items() if self._version_of(name) != d.version}
        named = {d.name for d in upserts}
        gone = [at for name in {*come, *(n for n in removed if n not in named)} if (at := self.find(name)) is not None]
        if not come and not gone:
            return replace(self, generation=generation).with_vectors(vectors or {})
        rows = np.array(sorted(at for at in gone if at < len(self.base)), np.int64)
        places = np.array(sorted(at - len(self.base) for at in gone if at >= len(self.base)), np.int64)
        ids, new_terms = self._numbers(come.values())
        delta = self.delta.changed(places.tolist(), list(come.values()), ids=ids, vectors=vectors or {})
        added = delta.forward.take(np.arange(len(delta) - len(come), len(delta)))
        lost = self.base.forward.take(rows), self.delta.forward.take(places)
        dead = self.dead.copy()
        dead[rows] = True
        terms = len(self.base.terms) + len(new_terms)
        frequencies = np.zeros(terms, np.int64)
        frequencies[: len(self.frequencies)] = self.frequencies
        frequencies += added.frequencies(None, terms) - sum(f.frequencies(None, terms) for f in lost)
        digest = self.digest
        for at in gone:
            digest = digest.remove(self.name(at), self.version(at))
        for document in come.values():
            digest = digest.add(document.name, document.version)
        return Index(
            base=self.base,
            delta=delta,
            dead=dead,
            late=self.late,
            new_terms=new_terms,
            frequencies=frequencies,
            length=self.length + _length(added) - sum(_length(f) for f in lost),
            digest=digest,
            generation=generation,
        ).with_vectors(vectors or {})

    def _version_of(self, name: str) -> str | None:
        at = self.find(name)
        return None if at is None else self.version(at)

    def _numbers(self, documents: Iterable[Document]) -> tuple[dict[str, int], dict[str, int]]:
        """The ids of all terms of the documents, and of those that the base does not know."""
        new = dict(self.new_terms)
        ids: dict[str, int] = {}
        for term in {t for d in documents for t in d.terms}:
            known = self.base.term(term)
            ids[term] = known if known is not None else new.setdefault(term, len(self.base.terms) + len(new))
        return ids, new

    def missing_vectors(self, limit: int) -> list[tuple[str, str]]:
        """Digest and text of tools without a vector, the newest first."""
        fresh = np.flatnonzero(~self.delta.vectors.known)[::-1][:limit].tolist()
        found = {self.delta.digests[n]: self.delta.documents[n].text for n in fresh}
        for row in self._missing[: limit - len(found)].tolist():
            text = document_of_row(self.base.columns.rows[row]).text
            found[text_digest(text)] = text
        return list(found.items())

    def with_vectors(self, found: Mapping[str, Vector]) -> Index:
        """With vectors by the digest of their text; those that nobody waits for are left aside."""
        if not found or not self.backlog:
            return self
        delta, late = self.delta.with_vectors(found), self._with_late(found)
        return self if delta is self.delta and late is self.late else replace(self, delta=delta, late=late)

    def _with_late(self, found: Mapping[str, Vector]) -> Late:
        missing = self._missing
        if not len(missing):
            return self.late
        wanted = np.frombuffer(bytes.fromhex("".join(found)), np.uint8).reshape(len(found), -1)[:, :8].copy().view(np.uint64)[:, 0]
        heads = np.ascontiguousarray(self.base.columns.digests[missing, :8]).view(np.uint64)[:, 0]
        rows = [(int(r), self.base.columns.digests[r].tobytes().hex()) for r in missing[np.isin(heads, wanted)]]
        rows = [(row, digest) for row, digest in rows if digest in found]
        if not rows:
            return self.late
        matrix = np.stack([np.asarray(found[digest], np.float32) for _, digest in rows])
        every = np.concatenate([self.late.rows, np.array([row for row, _ in rows], np.int64)])
        order = np.argsort(every)
        return Late.of(every[order], np.concatenate([self.late.flat.matrix, matrix])[order])

    def rebased(self, ordered: Index, fresh: Index) -> Index:
        """This view over a new base: `fresh`, which was merged from `ordered`, an earlier state of this view."""
        gone_rows = np.flatnonzero(self.dead & ~ordered.dead)
        names = (*(self.base.columns.names[r].decode() for r in gone_rows.tolist()), *ordered.delta.places)
        removed = [name for name in names if self.find(name) is None]
        moved = fresh.apply(self.delta.documents, removed, generation=self.generation, vectors=self.delta.found)
        digests = self.base.columns.digests[self.late.rows]
        return moved.with_vectors({d.tobytes().hex(): v for d, v in zip(digests, self.late.flat.matrix, strict=True)})

    # filters

    def mask(self, filters: Filters | None) -> Mask | None:
        """Which ids pass; None: all of them. Kept for the next query with the same filters."""
        if filters is None:
            return self._living
        with contextlib.suppress(KeyError):  # one look: another thread may put it there between two
            return self._masks[filters]
        every = np.concatenate([self.base.mask(filters) & ~self.dead, self.delta.mask(filters)])
        kept = self._masks[filters] = None if every.all() else every
        shrink(self._masks)
        return kept

    @cached_property
    def _living(self) -> Mask | None:
        return np.concatenate([~self.dead, np.ones(len(self.delta), bool)]) if self.tombstones else None

    # search

    def search(
        self,
        query: Query,
        k: int,
        *,
        mask: Mask | None = None,
        weights: Weights = DEFAULT,
        learned: Learned | None = None,
        deep: int | None = None,
    ) -> Found:
        """The k best tools among those that `mask` (of this view) lets pass. Each half gives `deep` candidates, else k."""
        passing = self._living if mask is None else mask
        terms, worth = self._worth(query.terms)
        evidence = learned.evidence(query.vector, query.terms) if learned is not None else None
        vector = query.vector if evidence is None else evidence.vector  # turned towards what like requests needed
        weights = weights if evidence is None else evidence.weights(weights)
        ids, words, cosine = self._candidates(vector, terms, worth, passing, deep=k if deep is None else deep)
        ids, words, cosine = self._with(self._taught(evidence, passing), ids, words, cosine, vector, worth)
        scores = np.asarray(fuse(words, cosine, weights), np.float64)
        names = [self.name(at) for at in ids.tolist()] if evidence is not None else []
        bonus = evidence.of(names) if evidence is not None else np.zeros(len(ids), np.float32)
        scores = np.round(scores + bonus, DIGITS)
        order = self._order(ids, scores, k)
        meaning = None if cosine is None else cosine[order]
        return Found(ids[order], scores[order], words[order], meaning, bonus[order], evidence)

    def numbers(self, terms: Sequence[str]) -> dict[str, int]:
        """The terms that some tool has, with their ids."""
        return {t: number for t in terms if (number := self._number(t)) is not None}

    def matched(self, numbers: Mapping[str, int], at: int) -> tuple[str, ...]:
        """The terms (as `numbers` gives them) that a tool has, the most telling first."""
        owner = self.delta.forward if at >= len(self.base) else self.base.forward
        n = at - len(self.base) if at >= len(self.base) else at
        has = frozenset(owner.terms[owner.starts[n] : owner.starts[n + 1]].tolist())
        found = {t: self.frequencies[number] for t, number in numbers.items() if number in has}
        return tuple(sorted(found, key=lambda t: (found[t], t)))

    def _number(self, term: str) -> int | None:
        known = self.base.term(term)
        return known if known is not None else self.new_terms.get(term)

    def _worth(self, terms: Sequence[str]) -> tuple[NDArray[np.int64], Scores]:
        """The ids of the terms that some tool has, and what each of all terms is worth."""
        counts: dict[int, int] = {}
        for term in terms:
            if (number := self._number(term)) is not None and self.frequencies[number] > 0:
                counts[number] = counts.get(number, 0) + 1
        ids = np.fromiter(counts, np.int64, len(counts))
        worth = np.zeros(len(self.frequencies), np.float32)
        times = np.fromiter(counts.values(), np.float64, len(counts))
        worth[ids] = lexical.idf(self.frequencies[ids].astype(np.float64), float(self.size)) * times
        return ids, worth

    @property
    def _average(self) -> float:
        return self.length / max(1, self.size)

    def _candidates(
        self, vector: NDArray[np.float32] | None, terms: Ints, worth: Scores, passing: Mask | None, *, deep: int
    ) -> tuple[NDArray[np.int64], Scores, Scores | None]:
        """The best of each half, with both scores of each."""
        by_words, by_meaning = max(BY_WORDS, deep), max(BY_MEANING, deep)
        ids = self._pool(vector, terms, worth, passing, by_words=by_words, by_meaning=by_meaning)
        words, cosine = self._words(ids, worth), self._cosines(ids, vector)
        said = np.flatnonzero(words > 0)
        kept = best(words[said], by_words, of=said)
        if cosine is not None:
            meant = np.flatnonzero(~np.isnan(cosine))
            kept = np.union1d(kept, best(cosine[meant], by_meaning, of=meant))
        return ids[kept], words[kept], None if cosine is None else cosine[kept]

    def _pool(
        self,
        vector: NDArray[np.float32] | None,
        terms: Ints,
        worth: Scores,
        passing: Mask | None,
        *,
        by_words: int,
        by_meaning: int,
    ) -> NDArray[np.int64]:
        """The ids among which the candidates surely are (surely, as far as the base's tables can be sure)."""
        size = len(self.base)
        fresh = None if passing is None else passing[size:]
        of_delta = size + self._of_delta(vector, worth, fresh, by_words=by_words, by_meaning=by_meaning)
        mask = None if passing is None else passing[:size]
        if mask is not None and np.count_nonzero(mask) <= FEW:
            return np.concatenate([np.flatnonzero(mask), of_delta])
        known = terms[terms < len(self.base.terms)]
        rows = self.base.by_words(worth[: len(self.base.terms)], known, average=self._average, most=by_words, mask=mask)
        found = [rows, of_delta]
        if vector is not None:
            late = self.late.rows
            found += [self.base.vectors.nearest(vector, by_meaning, mask), late if mask is None else late[mask[late]]]
        return np.unique(np.concatenate(found).astype(np.int64))

    def _of_delta(
        self, vector: NDArray[np.float32] | None, worth: Scores, mask: Mask | None, *, by_words: int, by_meaning: int
    ) -> NDArray[np.int64]:
        """The best of the delta in each half: all of it is looked at."""
        said = self.delta.forward.scores(worth, self._average)
        agree = np.flatnonzero(said > 0 if mask is None else (said > 0) & mask)
        found = best(said[agree], by_words, of=agree)
        return found if vector is None else np.union1d(found, self.delta.vectors.nearest(vector, by_meaning, mask))

    def _words(self, ids: NDArray[np.int64], worth: Scores) -> Scores:
        of_base, places = self._split(ids)
        parts = [self.base.forward.scores(worth, self._average, of_base), self.delta.forward.scores(worth, self._average, places)]
        return np.concatenate(parts)

    def _cosines(self, ids: NDArray[np.int64], vector: NDArray[np.float32] | None) -> Scores | None:
        if vector is None:
            return None
        of_base, places = self._split(ids)
        found = self.base.vectors.cosines(vector, of_base)
        if len(self.late.rows):
            at = np.minimum(np.searchsorted(self.late.rows, of_base), len(self.late.rows) - 1)
            is_late = np.flatnonzero(self.late.rows[at] == of_base)
            found[is_late] = self.late.flat.cosines(vector, at[is_late])
        return np.concatenate([found, self.delta.vectors.cosines(vector, places)])

    def _split(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ascending ids as rows of the base and places in the delta."""
        middle = int(np.searchsorted(ids, len(self.base)))
        return ids[:middle], ids[middle:] - len(self.base)

    def _taught(self, evidence: Evidence | None, passing: Mask | None) -> NDArray[np.int64]:
        """Tools that past use names, if they may be found."""
        named = [at for name in evidence.names if (at := self.find(name)) is not None] if evidence is not None else []
        ids = np.array(sorted(named), np.int64)
        return ids if passing is None else ids[passing[ids]]

    def _with(
        self,
        more: NDArray[np.int64],
        ids: NDArray[np.int64],
        words: Scores,
        cosine: Scores | None,
        vector: NDArray[np.float32] | None,
        worth: Scores,
    ) -> tuple[NDArray[np.int64], Scores, Scores | None]:
        fresh = np.setdiff1d(more, ids)
        if not len(fresh):
            return ids, words, cosine
        meaning = self._cosines(fresh, vector)
        joined = None if cosine is None or meaning is None else np.concatenate([cosine, meaning])
        return np.concatenate([ids, fresh]), np.concatenate([words, self._words(fresh, worth)]), joined

    def _order(self, ids: NDArray[np.int64], scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
        """The places of the k best, best first; of equal ones by name, whatever their ids are."""
        if not len(ids) or k < 1:
            return np.zeros(0, np.int64)
        least = np.partition(scores, len(scores) - min(k, len(scores)))[len(scores) - min(k, len(scores))]
        may = np.flatnonzero(scores >= least).tolist()
        named = sorted(may, key=lambda n: (-scores[n], self.name(int(ids[n]))))
        return np.array(named[:k], np.int64)


def _length(forward: Forward) -> float:
    return float(forward.lengths.sum(dtype=np.float64))
