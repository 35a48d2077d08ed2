"""Vectors: few are compared exactly, many through cells that hold nearly all of the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.tool_search.vectors import Cells, Flat, write_cells

SIZE = 6_000


def unit(rng: np.random.Generator, rows: int, dimensions: int = 32) -> np.ndarray:
    made = rng.standard_normal((rows, dimensions)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = unit(rng, 60)
    near = centres[rng.integers(0, 60, SIZE)] + 0.6 * unit(rng, SIZE)
    return near / np.linalg.norm(near, axis=1, keepdims=True)


def cells(matrix: np.ndarray, rows: np.ndarray, tmp_path) -> Cells:
    index = Cells.train(matrix[rows], len(rows))
    index.add_with_ids(matrix[rows], rows)
    write_cells(index, tmp_path / "cells")
    known = np.zeros(len(matrix), bool)
    known[rows] = True
    return Cells.read(tmp_path / "cells", known)


def test_flat_is_exact_and_knows_what_it_has_not(matrix):
    known = np.ones(SIZE, bool)
    known[5] = False
    flat = Flat(matrix, known)
    every = flat.all(matrix[0])
    assert every[known] == pytest.approx((matrix @ matrix[0])[known], abs=1e-5)
    assert np.isnan(every[5])
    assert set(flat.nearest(matrix[0], 10, None)) == set(np.argsort(-np.where(known, matrix @ matrix[0], -9))[:10])
    assert np.isnan(flat.cosines(matrix[0], np.array([4, 5]))).tolist() == [False, True]
    assert 5 not in flat.nearest(matrix[5], 10, None)


def test_flat_of_nothing():
    none = Flat.none(0, 32)
    assert len(none.nearest(np.zeros(32, np.float32), 10, None)) == 0
    assert len(none.cosines(np.zeros(32, np.float32), np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_cells_find_nearly_all_of_the_nearest(matrix, tmp_path, share):
    rows = np.flatnonzero(np.random.default_rng(1).random(SIZE) < share)
    found = cells(matrix, rows, tmp_path)
    assert (np.flatnonzero(found.known) == rows).all()
    hits = 0
    for query in matrix[:50]:
        exact = rows[np.argsort(-(matrix[rows] @ query))[:10]]
        hits += len(set(exact.tolist()) & set(found.nearest(query, 20, None).tolist()))
    assert hits >= 0.95 * 500


def test_cosines_of_cells_are_near_the_true_ones(matrix, tmp_path):
    rows = np.arange(0, SIZE, 2)
    found = cells(matrix, rows, tmp_path).cosines(matrix[1], np.array([0, 1, 2, 400]))
    assert np.isnan(found).tolist() == [False, True, False, False]
    assert found[[0, 2, 3]] == pytest.approx(matrix[[0, 2, 400]] @ matrix[1], abs=0.01)


@pytest.mark.parametrize("passing", [2, 60, 3_000, 5_500])
def test_a_mask_counts_before_the_nearest_are_chosen(matrix, tmp_path, passing):
    found = cells(matrix, np.arange(SIZE), tmp_path)
    mask = np.zeros(SIZE, bool)
    mask[np.random.default_rng(passing).choice(SIZE, passing, replace=False)] = True
    for query in matrix[:20]:
        nearest = found.nearest(query, 10, mask)
        assert len(nearest) == min(10, passing)
        assert mask[nearest].all()
    assert len(found.nearest(matrix[0], 10, np.zeros(SIZE, bool))) == 0


def test_cells_without_any_vector(tmp_path):
    found = Cells.read(tmp_path / "none", np.zeros(50, bool))
    assert len(found.nearest(np.zeros(32, np.float32), 5, None)) == 0
    assert np.isnan(found.cosines(np.zeros(32, np.float32), np.arange(3))).all()
