"""A new base from a former one and what changed since, or from nothing: in another process, without reading any text again.

The order of the tools and the numbers of the terms depend on nothing but the tools, so that a merged base is the one that
a build from scratch gives. Columns go from file to file some tools at a time: a million need no gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.catalog import CatalogHash
from orchestrator.tool_search.base import EXACT_MOST, Base, opened
from orchestrator.tool_search.columns import DIGEST, group_json, text_digest
from orchestrator.tool_search.document import RECIPE, Document
from orchestrator.tool_search.index import DIMENSIONS, Index, Late
from orchestrator.tool_search.postings import CHUNK, Forward, Inverted, Strings
from orchestrator.tool_search.snapshot import Meta, SnapshotFailed, Writer, read, release, scratch
from orchestrator.tool_search.vectors import CELLS_FILE, Cells, batches, sample_of, write_cells

PART = 50_000  # documents that a build from scratch holds at once
VectorsOf = Callable[[Sequence[str]], Mapping[str, NDArray[np.floating]]]


def order(index: Index, home: Path, *, model: str) -> tuple[Path, Path]:
    """Writes down what `merge` needs of a view: the folder of its base, and one of what changed since."""
    meta = Meta(RECIPE, model, index.dimensions, index.catalog_hash, index.generation, index.size, False)
    base = index.base.folder or _write(home, [Source.whole(index.base)], meta, current=False)
    changed = [Source.whole(Base.of(index.delta.documents, index.delta.found, index.dimensions))]
    with Writer(home / "orders") as writer:
        _tables(writer, Plan.of(changed), large=False)
        writer.put("dead", index.dead)
        writer.put("late_rows", index.late.rows)
        writer.put("late_matrix", index.late.flat.matrix)
        return base, writer.commit(meta, current=False)


def merge(base: Path, changed: Path, home: Path) -> Path:
    """The new folder, which counts from now on.

    Raises:
        SnapshotCorrupt: one of the two is not what was written.
        SnapshotFailed: no room; the former folder still counts.
    """
    former, order = read(base, full=True), read(changed, full=True)
    arrays = order.arrays
    late = Late.of(arrays["late_rows"], arrays["late_matrix"])
    sources = [Source(opened(former), np.flatnonzero(~arrays["dead"]), late), Source.whole(opened(order))]
    return _write(home, sources, order.meta)


def build(
    documents: Iterable[Document],
    home: Path,
    *,
    generation: int,
    model: str = "",
    vectors: VectorsOf | None = None,
    dimensions: int = DIMENSIONS,
    current: bool = True,
) -> Path:
    """A snapshot from scratch; of documents of one name the last counts. `vectors` gives those of some digests of texts."""
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        parts: list[Source] = []
        source = iter(documents)
        while some := list({d.name: d for d in islice(source, PART)}.values()):
            found = vectors([text_digest(d.text) for d in some]) if vectors else {}
            part = Source.whole(Base.of(some, found, dimensions))
            parts.append(part if len(some) < PART else _kept(part, stack, home, dimensions=dimensions))
        meta = Meta(RECIPE, model, dimensions, "", generation, 0, False)
        return _write(home, parts or [Source.whole(Base.of((), {}, dimensions))], meta, current=current)


def open_index(folder: Path, *, full: bool = False) -> Index:
    """The view of a snapshot.

    Raises:
        SnapshotCorrupt: it is not what was written; with `full` every byte is compared.
    """
    snapshot = read(folder, full=full)
    meta = snapshot.meta
    return Index.over(opened(snapshot), CatalogHash.read(meta.catalog_hash), generation=meta.generation, dimensions=meta.dimensions)


def _kept(part: Source, stack: ExitStack, home: Path, *, dimensions: int) -> Source:
    """A part in files, so that it takes no memory."""
    folder = stack.enter_context(scratch(home))
    with Writer(folder) as writer:
        _tables(writer, Plan.of([part]), large=False)
        path = writer.commit(Meta(RECIPE, "", dimensions, "", 0, len(part.rows), False), current=False)
    return Source.whole(opened(read(path)))


def _write(home: Path, sources: Sequence[Source], meta: Meta, *, current: bool = True) -> Path:
    plan = Plan.of(sources)
    digest = str(CatalogHash.of(plan.versions()))
    if meta.catalog_hash and current and digest != meta.catalog_hash:
        raise SnapshotFailed(
            f"the merged catalog has the hash {digest[:12]}, not {meta.catalog_hash[:12]}; the former snapshot is still in place",
            next="The index is made anew from the catalog.",
        )
    large = len(plan) > EXACT_MOST
    with Writer(home) as writer:
        _tables(writer, plan, large=large)
        if large:
            _large(writer)
        made = Meta(meta.recipe, meta.model, meta.dimensions, digest, meta.generation, len(plan), large)
        return writer.commit(made, current=current)


@dataclass(frozen=True)
class Source:
    """Tools of a base that go into a new one, and vectors that came late."""

    base: Base
    rows: NDArray[np.int64]
    late: Late

    @classmethod
    def whole(cls, base: Base) -> Source:
        """All tools of a base."""
        return cls(base, np.arange(len(base)), Late.none(base.dimensions))

    def frequencies(self) -> NDArray[np.int64]:
        """Of each term, in these tools."""
        gone = np.ones(len(self.base), bool)
        gone[self.rows] = False
        return self.base.frequencies - self.base.forward.frequencies(np.flatnonzero(gone), len(self.base.terms))

    def known(self) -> NDArray[np.bool_]:
        """Which tools of the base have a vector by now."""
        found = self.base.vectors.known.copy()
        found[self.late.rows] = True
        return found

    def matrix(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Their vectors, zeros where there are none."""
        found: NDArray[np.float32] = self.base.matrix[rows].astype(np.float32)
        if len(self.late.rows):
            at = np.minimum(np.searchsorted(self.late.rows, rows), len(self.late.rows) - 1)
            late = np.flatnonzero(self.late.rows[at] == rows)
            found[late] = self.late.flat.matrix[at[late]]
        return found


@dataclass(frozen=True)
class Plan:
    """From where each tool of the new base comes, in the order of names."""

    sources: Sequence[Source]
    source_of: NDArray[np.int32]
    row_of: NDArray[np.int64]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Plan:
        """Of a name that several sources have, the last counts."""
        names = [name for s in sources for name in _chosen(s.base.columns.names, s.rows)]
        whence = np.repeat(np.arange(len(sources), dtype=np.int32), [len(s.rows) for s in sources])
        rows = np.concatenate([s.rows for s in sources]).astype(np.int64)
        order = sorted(range(len(names)), key=names.__getitem__)  # stable: the last source of a name stands last
        last = [at for n, at in enumerate(order) if n + 1 == len(order) or names[order[n + 1]] != names[at]]
        chosen = np.array(last, np.int64)
        return cls(sources, whence[chosen], rows[chosen])

    def __len__(self) -> int:
        return len(self.row_of)

    def release(self) -> None:
        """Gives the memory of the sources' files back: a merge looks at all of them once for each column."""
        for source in self.sources:
            source.base.release()

    def versions(self) -> Iterator[tuple[str, str]]:
        """Name and version of each tool."""
        for names, versions in zip(self._texts(lambda b: b.columns.names), self._texts(lambda b: b.columns.versions), strict=True):
            yield names.decode(), versions.decode()

    def _texts(self, column: Callable[[Base], Strings]) -> Iterator[bytes]:
        columns = [column(s.base) for s in self.sources]
        for whence, row in zip(self.source_of.tolist(), self.row_of.tolist(), strict=True):
            yield columns[whence][row]

    def chunks(self) -> Iterator[list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]]:
        """(source, places in the chunk, rows) of some tools at a time."""
        for start in range(0, len(self), CHUNK):
            whence, rows = self.source_of[start : start + CHUNK], self.row_of[start : start + CHUNK]
            yield [(n, places, rows[places]) for n in np.unique(whence).tolist() for places in [np.flatnonzero(whence == n)]]

    def fixed(self, of: Callable[[int, NDArray[np.int64]], NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """A column of numbers; `of` gives those of some rows of a source."""
        for chunk in self.chunks():
            parts = [(places, of(n, rows)) for n, places, rows in chunk]
            size = sum(len(p) for p, _ in parts)
            made = np.empty((size, *parts[0][1].shape[1:]), parts[0][1].dtype)
            for places, values in parts:
                made[places] = values
            yield made
            self.release()

    def whole(self, of: Callable[[int, NDArray[np.int64]], NDArray[Any]], dtype: Any) -> NDArray[Any]:
        """As `fixed`, all at once."""
        return np.concatenate([np.zeros(0, dtype), *self.fixed(of)])

    def texts(self, column: Callable[[Base], Strings]) -> Iterator[NDArray[np.uint8]]:
        """The bytes of a column of texts; rows that stand together in a source are copied together."""
        columns = [column(s.base) for s in self.sources]
        for start in range(0, len(self), CHUNK):
            whence, rows = self.source_of[start : start + CHUNK], self.row_of[start : start + CHUNK]
            broken = np.flatnonzero((np.diff(whence) != 0) | (np.diff(rows) != 1)) + 1
            runs = zip([0, *broken.tolist()], [*broken.tolist(), len(rows)], strict=True)
            parts = []
            for first, end in runs:
                texts = columns[int(whence[first])]
                parts.append(texts.data[texts.ends[rows[first]] : texts.ends[rows[end - 1] + 1]])
            yield np.concatenate(parts)
            self.release()


def _chosen(names: Strings, rows: NDArray[np.int64]) -> list[bytes]:
    every = list(names)
    return every if len(rows) == len(every) else [every[r] for r in rows.tolist()]


def _tables(writer: Writer, plan: Plan, *, large: bool) -> None:
    _write_words(writer, plan)
    _write_columns(writer, plan)
    _write_vectors(writer, plan, large=large)


def _write_words(writer: Writer, plan: Plan) -> None:
    known = [[t for t, f in zip(s.base.terms, s.frequencies().tolist(), strict=True) if f > 0] for s in plan.sources]
    terms = sorted(set().union(*known))
    ids = {t: n for n, t in enumerate(terms)}
    maps = [np.array([ids.get(t, -1) for t in s.base.terms], np.int32) for s in plan.sources]
    _put_strings(writer, "terms", Strings.of(terms))
    forwards = [s.base.forward for s in plan.sources]
    sizes = plan.whole(lambda n, rows: forwards[n].starts[rows + 1] - forwards[n].starts[rows], np.int64)
    starts = _summed(sizes)
    writer.put("forward_starts", starts)
    writer.stream(
        "forward_terms", np.int32, (int(starts[-1]),), _ragged(plan, lambda n, at: maps[n][forwards[n].terms[at]], np.int32)
    )
    writer.stream("forward_counts", np.float16, (int(starts[-1]),), _ragged(plan, lambda n, at: forwards[n].counts[at], np.float16))
    writer.stream("forward_lengths", np.float32, (len(plan),), plan.fixed(lambda n, rows: forwards[n].lengths[rows]))


def _ragged(plan: Plan, of: Callable[[int, NDArray[np.int64]], NDArray[Any]], dtype: Any) -> Iterator[NDArray[Any]]:
    """A column with many numbers for each tool."""
    for chunk in plan.chunks():
        spreads = [(n, places, *plan.sources[n].base.forward.spread(rows)) for n, places, rows in chunk]
        sizes = np.zeros(sum(len(p) for _, p, _, _ in spreads), np.int64)
        for _, places, _, begins in spreads:
            sizes[places] = np.diff(begins)
        starts = _summed(sizes)
        made = np.empty(int(starts[-1]), dtype)
        for n, places, at, begins in spreads:
            made[np.arange(len(at)) + np.repeat(starts[places] - begins[:-1], np.diff(begins))] = of(n, at)
        yield made
        plan.release()


def _write_columns(writer: Writer, plan: Plan) -> None:
    columns = [s.base.columns for s in plan.sources]
    for name in ("names", "versions", "rows", "called"):
        _stream_strings(writer, plan, name)
    writer.stream("digests", np.uint8, (len(plan), DIGEST), plan.fixed(lambda n, rows: columns[n].digests[rows]))
    writer.stream("tokens", np.int32, (len(plan),), plan.fixed(lambda n, rows: columns[n].tokens[rows]))
    used = [np.unique(c.group_of[s.rows]).tolist() for c, s in zip(columns, plan.sources, strict=True)]
    groups = sorted({group_json(c.groups[g]) for c, u in zip(columns, used, strict=True) for g in u})
    numbers = {g: n for n, g in enumerate(groups)}
    maps = [np.array([numbers.get(group_json(g), -1) for g in c.groups], np.int32) for c in columns]
    writer.stream("group_of", np.int32, (len(plan),), plan.fixed(lambda n, rows: maps[n][columns[n].group_of[rows]]))
    _put_strings(writer, "groups", Strings.of(groups))
    _write_hashes(writer, plan)


def _write_hashes(writer: Writer, plan: Plan) -> None:
    hashes, hashed = [], []
    for n, source in enumerate(plan.sources):
        new = np.full(len(source.base), -1, np.int32)
        places = np.flatnonzero(plan.source_of == n)
        new[plan.row_of[places]] = places
        row = new[source.base.columns.hashed]
        hashes.append(source.base.columns.hashes[row >= 0])
        hashed.append(row[row >= 0])
    every, rows = np.concatenate(hashes), np.concatenate(hashed)
    sequence = np.lexsort((rows, every))
    writer.put("hashes", every[sequence])
    writer.put("hashed", rows[sequence])


def _write_vectors(writer: Writer, plan: Plan, *, large: bool) -> None:
    known = [s.known() for s in plan.sources]
    writer.stream("known", np.bool_, (len(plan),), plan.fixed(lambda n, rows: known[n][rows]))
    kind = np.float16 if large else np.float32
    shape = (len(plan), plan.sources[0].base.dimensions)
    writer.stream("vectors", kind, shape, (m.astype(kind) for m in plan.fixed(lambda n, rows: plan.sources[n].matrix(rows))))


def _large(writer: Writer) -> None:
    """The tables that only a large base needs, from those that are written."""
    arrays = {f.stem: np.load(f, mmap_mode="r") for f in writer.folder.glob("*.npy")}
    forward = Forward(*(np.asarray(arrays[f"forward_{n}"]) for n in ("starts", "terms", "counts", "lengths")))
    inverted = Inverted.of(forward, len(arrays["terms_ends"]) - 1)
    for name in ("starts", "tools", "firsts", "ends", "levels"):
        writer.put(f"inverted_{name}", getattr(inverted, name))
    del inverted
    for array in arrays.values():
        release(array)
    rows = np.flatnonzero(arrays["known"]).astype(np.int32)
    if len(rows):
        index = Cells.train(_read(arrays["vectors"], sample_of(rows)), len(rows))
        for some in batches(rows):
            index.add_with_ids(_read(arrays["vectors"], some), some.astype(np.int64))
            release(arrays["vectors"])
        write_cells(index, writer.folder / CELLS_FILE)
        writer.made(CELLS_FILE)


def _read(vectors: NDArray[Any], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors[rows], np.float32)


def _stream_strings(writer: Writer, plan: Plan, name: str) -> None:
    columns: list[Strings] = [getattr(s.base.columns, name) for s in plan.sources]
    ends = _summed(plan.whole(lambda n, rows: columns[n].ends[rows + 1] - columns[n].ends[rows], np.int64))
    writer.put(f"{name}_ends", ends)
    writer.stream(f"{name}_data", np.uint8, (int(ends[-1]),), plan.texts(lambda b: getattr(b.columns, name)))


def _put_strings(writer: Writer, name: str, strings: Strings) -> None:
    writer.put(f"{name}_ends", strings.ends)
    writer.put(f"{name}_data", strings.data)


def _summed(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=found[1:])
    return found
