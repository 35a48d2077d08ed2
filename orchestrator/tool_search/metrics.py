"""How good a ranking is, by what should have been found: NDCG, recall and reciprocal rank, each for one query."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def ndcg(ranked: Sequence[str], wanted: Collection[str], k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first k, 0 to 1, a hit being worth 1 (Järvelin & Kekäläinen, 2002)."""
    best = _discounts(min(k, len(wanted))).sum()
    return float((_hits(ranked, wanted, k) * _discounts(min(k, len(ranked)))).sum() / best) if best else 0.0


def recall(ranked: Sequence[str], wanted: Collection[str], k: int = 10) -> float:
    """The share of what was wanted that stands among the first k."""
    return float(_hits(ranked, wanted, k).sum() / len(wanted)) if wanted else 0.0


def mrr(ranked: Sequence[str], wanted: Collection[str], k: int | None = None) -> float:
    """1 over the place of the first that was wanted, 0 when none is there; the mean over queries is MRR."""
    hits = np.flatnonzero(_hits(ranked, wanted, len(ranked) if k is None else k))
    return float(1 / (hits[0] + 1)) if len(hits) else 0.0


def _hits(ranked: Sequence[str], wanted: Collection[str], k: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([name in wanted for name in ranked[:k]], dtype=np.float64)


def _discounts(k: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 1 / np.log2(np.arange(k, dtype=np.float64) + 2)
