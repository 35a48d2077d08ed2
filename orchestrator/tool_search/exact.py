"""Words and meaning of one query against every tool of a catalog, exactly: what an index answers from a part of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.document import Document
from orchestrator.tool_search.fusion import Weights, fuse
from orchestrator.tool_search.lexical import idf, norm, saturation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Halves:
    """The two halves of one query's scores, for every tool; `cosine` is None without vectors."""

    words: Floats
    meaning: Floats | None

    def fused(self, weights: Weights) -> Floats:
        """The scores that the product ranks by."""
        return np.asarray(fuse(self.words, self.meaning, weights))


class Exact:
    """All tools of a catalog that fits memory. `vectors`: a row for each document, or None: words alone."""

    def __init__(self, documents: Sequence[Document], vectors: NDArray[np.float32] | None) -> None:
        self.documents = documents
        self._vectors = vectors

    def halves(self, query: str, vector: NDArray[np.float32] | None) -> Halves:
        """What both halves say of each tool."""
        words = np.zeros(len(self.documents))
        for term, times in Counter(terms(query)).items():
            if (posting := self._postings.get(term)) is None:
                continue
            rows, counts = posting
            worth = times * idf(len(rows), len(self.documents))
            words[rows] += worth * saturation(counts, self._norms[rows])
        meaning = None if self._vectors is None or vector is None else (self._vectors @ vector).astype(np.float64)
        return Halves(words, meaning)

    @cached_property
    def _norms(self) -> Floats:
        lengths = np.array([d.length for d in self.documents])
        return np.asarray(norm(lengths, float(lengths.mean()) if len(lengths) else 0.0))

    @cached_property
    def _postings(self) -> dict[str, tuple[NDArray[np.int64], Floats]]:
        found: dict[str, tuple[list[int], list[float]]] = {}
        for row, document in enumerate(self.documents):
            for term, count in document.terms.items():
                rows, counts = found.setdefault(term, ([], []))
                rows.append(row)
                counts.append(count)
        return {term: (np.array(rows), np.array(counts)) for term, (rows, counts) in found.items()}


def order(scores: Floats, k: int | None = None) -> NDArray[np.int64]:
    """The rows from the best on, the earlier one first where two are level."""
    ranked = np.argsort(-scores, kind="stable")
    return ranked if k is None else ranked[:k]


def place(scores: Floats, row: int) -> int:
    """The place of a row in that order, from 1."""
    mine = scores[row]
    return 1 + int((scores > mine).sum()) + int((scores[:row] == mine).sum())
