"""The vectors of tools: all compared exactly while they are few, the nearest of some cells of the space when they are many.

Many: FAISS IVF with 8-bit scalar quantisation. At a million tools 48 of 2,048 cells hold .98 of the true ten nearest, at 1 ms.
The cosine of a candidate is read from the same codes, so that no file of vectors is touched by a search.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search.postings import Ints, Mask, Scores, best, dense

faiss: Any = _faiss  # its stubs know half of it
Matrix = NDArray[np.float32]

CELLS_MOST = 2_048
CELLS_PROBED = 48
CODES_READ = 25_000  # where those hold fewer, more cells are looked into
TRAINED_PER_CELL = 40
ROUNDS = 6  # of k-means: more find no better cells
SEED = 1234
BATCH = 50_000
CELLS_FILE = "cells.faiss"


class Vectors(Protocol):
    """Vectors of tools by their row; a tool may have none yet."""

    @property
    def known(self) -> Mask:
        """Which tools have one."""

    def nearest(self, query: Matrix, most: int, mask: Mask | None) -> NDArray[np.int64]:
        """The rows nearest to a query among those that the mask lets pass, in no order."""

    def cosines(self, query: Matrix, rows: Ints) -> Scores:
        """The cosine of each row; NaN where there is no vector."""


@dataclass(frozen=True, slots=True)
class Flat:
    """Few vectors, as they are."""

    matrix: Matrix
    known: Mask

    @classmethod
    def none(cls, rows: int, dimensions: int) -> Flat:
        """Of tools that have no vector yet."""
        return cls(np.zeros((rows, dimensions), np.float32), np.zeros(rows, bool))

    def all(self, query: Matrix) -> Scores:
        """The cosine of every row."""
        found = np.empty(len(self.matrix), np.float32)
        if len(found) and self.matrix.shape[1]:  # faiss, since BLAS would start threads for it
            asked = np.ascontiguousarray(query, np.float32)
            pointers = [faiss.swig_ptr(a) for a in (found, asked, self.matrix)]
            faiss.fvec_inner_products_ny(*pointers, self.matrix.shape[1], len(found))
            found[~self.known] = np.nan
        else:
            found.fill(np.nan)
        return found

    def nearest(self, query: Matrix, most: int, mask: Mask | None) -> NDArray[np.int64]:
        """See `Vectors`."""
        rows = np.flatnonzero(self.known if mask is None else self.known & mask)
        return best(self.all(query)[rows], most, of=rows)

    def cosines(self, query: Matrix, rows: Ints) -> Scores:
        """See `Vectors`."""
        return np.where(self.known[rows], self.matrix[rows] @ query, np.float32(np.nan)) if len(rows) else np.zeros(0, np.float32)


class _Codes:
    """The codes of a FAISS index with cells, read where they are: ten times as fast as its `reconstruct_batch`."""

    def __init__(self, index: Any, size: int) -> None:
        self._index = index  # owns the memory
        lists, width = index.invlists, index.code_size
        starts = np.array([int(lists.get_codes(n)) for n in range(index.nlist)], np.int64)
        sizes = np.array([lists.list_size(n) for n in range(index.nlist)], np.int64)
        first = int(starts[sizes > 0].min())
        spanned = int((starts + sizes * width)[sizes > 0].max()) - first
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * spanned).from_address(first))
        self._windows = np.lib.stride_tricks.as_strided(memory, (spanned - width + 1, width), (1, 1), writeable=False)
        self._at, self._cell = np.zeros(size, np.int64), np.zeros(size, np.int32)
        for n in np.flatnonzero(sizes).tolist():
            rows = faiss.rev_swig_ptr(lists.get_ids(n), int(sizes[n]))
            self._at[rows] = starts[n] - first + np.arange(sizes[n]) * width
            self._cell[rows] = n
        low, span = faiss.vector_to_array(index.sq.trained).reshape(2, -1)
        self._low, self._step = low + span / 510, span / 255  # a code stands for the middle of its step
        self._centres = index.quantizer.reconstruct_n(0, index.nlist)

    def products(self, query: Matrix, rows: Ints) -> Scores:
        """Of the query and the vector of each of these tools, which have one."""
        found: Scores = self._windows[self._at[rows]].astype(np.float32) @ (self._step * query)
        found += (self._centres @ query)[self._cell[rows]] + self._low @ query
        return found


class Cells:
    """Many vectors in cells, as codes of 8 bits a dimension."""

    def __init__(self, index: Any, known: Mask) -> None:
        """`index`: FAISS's, whose ids are the rows of the tools that have a vector; None where no tool has."""
        self._index, self.known, self._number = index, known, int(np.count_nonzero(known))
        self._codes = _Codes(index, len(known)) if index is not None else None

    @classmethod
    def read(cls, file: Path, known: Mask) -> Cells:
        """From a file, which stays where it is: what is never probed is never read."""
        if not known.any():
            return cls(None, known)
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0  # it starts 32 threads a search
        return cls(index, known)

    @classmethod
    def train(cls, sample: Matrix, size: int) -> Any:
        """An empty FAISS index with cells for so many vectors, the same for the same sample."""
        cells = max(1, min(CELLS_MOST, int(2 * size**0.5), len(sample)))
        dimensions = sample.shape[1]
        quantizer = faiss.IndexFlatIP(dimensions)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dimensions, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed, index.cp.niter, index.cp.spherical, index.cp.min_points_per_centroid = SEED, ROUNDS, True, 1
        index.train(sample)
        return index

    def nearest(self, query: Matrix, most: int, mask: Mask | None) -> NDArray[np.int64]:
        """See `Vectors`."""
        left = self._number if mask is None else int(np.count_nonzero(mask))
        if self._index is None or not left:
            return np.zeros(0, np.int64)
        if mask is not None and dense(mask):
            found = self._search(query, 2 * most, None, left)
            kept = found[mask[found]]
            if len(kept) >= most:
                return kept[:most]  # the nearest first
        return self._search(query, most, mask, left)

    def _search(self, query: Matrix, most: int, mask: Mask | None, left: int) -> NDArray[np.int64]:
        cells = max(CELLS_PROBED, CODES_READ * self._index.nlist // self._number)
        wider = max(1.0, self._number / (5 * left)) ** 0.8  # few pass, and the nearest of them are further away
        probed = min(self._index.nlist, int(cells * wider))
        bits = np.packbits(np.zeros(0, bool) if mask is None else mask, bitorder="little")  # lives until the search is over
        selector = None if mask is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        how = faiss.SearchParametersIVF(nprobe=probed, sel=selector)
        _, found = self._index.search(np.ascontiguousarray(query[None], np.float32), min(most, self._number), params=how)
        rows: NDArray[np.int64] = found[0][found[0] >= 0]
        return rows

    def cosines(self, query: Matrix, rows: Ints) -> Scores:
        """See `Vectors`."""
        found = np.full(len(rows), np.nan, np.float32)
        there = np.flatnonzero(self.known[rows])
        if self._codes is not None and len(there):
            found[there] = self._codes.products(query, rows[there])
        return found


def write_cells(index: Any, file: Path) -> None:
    """Writes a FAISS index.

    Raises:
        OSError: no room.
    """
    try:
        faiss.write_index(index, str(file))
    except RuntimeError as error:
        raise OSError(errno.EIO, f"the cells of vectors could not be written: {error}") from error


def sample_of(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Which vectors the cells are found with: spread evenly, always the same."""
    wanted = min(len(rows), CELLS_MOST * TRAINED_PER_CELL)
    return rows[np.linspace(0, len(rows) - 1, wanted).astype(np.int64)]


def batches(rows: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """The rows, some at a time."""
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
