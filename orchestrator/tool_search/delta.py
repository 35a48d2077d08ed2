"""The tools that came or changed since the base was put in order: few, so that all of them are looked at by every query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.search import Filters
from orchestrator.tool_search.base import admits_names, numbered
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import Document
from orchestrator.tool_search.postings import Forward, Mask
from orchestrator.tool_search.vectors import Flat

Found = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Delta:
    """Tools in the order in which they came. `digests`: of their texts."""

    documents: tuple[Document, ...]
    digests: tuple[str, ...]
    forward: Forward
    vectors: Flat
    places: Mapping[str, int] = field(init=False)
    called: Mapping[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {d.name: n for n, d in enumerate(self.documents)})
        called: dict[str, tuple[int, ...]] = {}
        for n, document in enumerate(self.documents):
            for name in document.names:
                called[name] = (*called.get(name, ()), n)
        object.__setattr__(self, "called", called)

    @classmethod
    def empty(cls, dimensions: int) -> Delta:
        """No tools."""
        return cls((), (), Forward.of([]), Flat.none(0, dimensions))

    def __len__(self) -> int:
        return len(self.documents)

    def changed(self, gone: Iterable[int], come: Sequence[Document], *, ids: Mapping[str, int], vectors: Found) -> Delta:
        """Without some tools, and with others behind; `ids` of all their terms."""
        lost = set(gone)
        kept = np.array([n for n in range(len(self)) if n not in lost], np.int64)
        added = Delta((), (), Forward.of([numbered(d, ids) for d in come]), self.vectors)
        return Delta(
            documents=(*(self.documents[n] for n in kept), *come),
            digests=(*(self.digests[n] for n in kept), *(text_digest(d.text) for d in come)),
            forward=self.forward.take(kept).joined(added.forward),
            vectors=Flat(
                np.concatenate([self.vectors.matrix[kept], np.zeros((len(come), self.vectors.matrix.shape[1]), np.float32)]),
                np.concatenate([self.vectors.known[kept], np.zeros(len(come), bool)]),
            ),
        ).with_vectors(vectors)

    def with_vectors(self, found: Found) -> Delta:
        """With vectors, by the digest of their text, for those that have none."""
        rows = [n for n in np.flatnonzero(~self.vectors.known).tolist() if self.digests[n] in found] if found else []
        if not rows:
            return self
        matrix, known = self.vectors.matrix.copy(), self.vectors.known.copy()
        for n in rows:
            matrix[n], known[n] = found[self.digests[n]], True
        return replace(self, vectors=Flat(matrix, known))

    @property
    def found(self) -> dict[str, NDArray[np.float32]]:
        """The vectors that are known, by the digest of their text."""
        return {self.digests[n]: self.vectors.matrix[n] for n in np.flatnonzero(self.vectors.known).tolist()}

    def mask(self, filters: Filters) -> Mask:
        """Which tools pass."""
        groups = {g: filters.admits_group(**g._asdict()) for g in {d.group for d in self.documents}}
        admits = admits_names(filters) if filters.by_name else None
        passing = (groups[d.group] and (admits is None or admits(d.name)) for d in self.documents)
        return np.fromiter(passing, bool, len(self))
