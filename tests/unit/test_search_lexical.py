"""BM25F as every index computes it."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.tool_search.lexical import idf, norm, saturation


def test_the_second_mention_says_less() -> None:
    once, twice, often = (saturation(tf, norm(10, 10)) for tf in (1.0, 2.0, 1_000.0))
    assert 0 < once < twice < 2 * once
    assert often < 1


def test_a_mention_in_a_long_tool_says_less() -> None:
    assert saturation(1.0, norm(100, 10)) < saturation(1.0, norm(10, 10)) < saturation(1.0, norm(1, 10))


def test_rare_terms_count_more_and_none_below_nothing() -> None:
    worth = idf(np.array([0.0, 1, 10, 99, 100]), 100)
    assert worth[0] == pytest.approx(1)
    assert np.all(np.diff(worth) < 0)
    assert worth[-1] > 0


@pytest.mark.parametrize("n", [0, 1, 30, 1_000_000])
def test_a_term_that_nobody_has_is_worth_one_in_any_catalog(n: int) -> None:
    assert idf(0, n) == pytest.approx(1)


def test_numbers_and_arrays_agree() -> None:
    assert idf(np.array([3.0]), 40)[0] == idf(3.0, 40)
    assert norm(np.array([3.0]), 4.0)[0] == norm(3.0, 4.0)
    assert norm(0.0, 0.0) > 0  # a catalog without words
    assert norm(np.array([0.0, 2.0]), 0.0).min() > 0
