"""Another weight of the words: fitted on one part of the queries, judged on the rest, refused where too little is known to tell."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.lab import Fit

WEIGHTS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
LEAST = 30  # queries of the rest; an interval of fewer says nothing
RESAMPLES = 2_000
LEVEL = 0.95
SETTING = "TOOLWEAVER_SEARCH_LEXICAL_WEIGHT"
Scores = NDArray[np.float64]
_WORD = re.compile(r"\w+")


def parts(queries: Sequence[str]) -> NDArray[np.bool_]:
    """Which queries the weight is fitted on: about half, by their text, so that the same request is never in both parts."""
    digests = (hashlib.sha256(_key(q).encode("utf-8", "replace")).digest() for q in queries)
    return np.fromiter((d[0] % 2 == 0 for d in digests), np.bool_, len(queries))


def fit(scores: Mapping[float, Scores], queries: Sequence[str], *, default: float) -> Fit:
    """What to set, if anything. A request that is there several times counts once: it tells no more than once.

    Args:
        scores: NDCG of each query by weight of the words; the default is among the weights.
        queries: their texts.
        default: the weight that is set now.
    """
    scores, queries = _once(scores, queries)
    first = parts(queries)
    weight = _best({w: float(s[first].mean()) for w, s in scores.items()}, default) if first.any() else default
    rest = ~first
    told = {"weight": weight, "default": default, "fitted_on": int(first.sum()), "reported_on": int(rest.sum())}
    if told["reported_on"] < LEAST or told["fitted_on"] < LEAST:
        said = f"too little to choose: {len(queries)} different queries, and each of the two parts needs {LEAST}; the default stays"
        return Fit.model_validate({**told, "weight": default, "verdict": "unsure", "said": said})
    if weight == default:
        return Fit.model_validate({**told, "verdict": "same", "said": "no other weight was better on the queries it was fitted on"})
    gain = scores[weight][rest] - scores[default][rest]
    low, high = interval(gain)
    return Fit.model_validate({**told, "difference": float(gain.mean()), "low": low, "high": high, **_verdict(weight, low, high)})


def interval(differences: Scores) -> tuple[float, float]:
    """Bounds of the mean of paired differences: percentile bootstrap (Efron & Tibshirani, 1993), the same at every run."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def _once(scores: Mapping[float, Scores], queries: Sequence[str]) -> tuple[dict[float, Scores], list[str]]:
    """Each request with the mean of its scores."""
    places: dict[str, int] = {}
    at = np.array([places.setdefault(_key(q), len(places)) for q in queries], np.int64)
    return {w: np.bincount(at, s) / np.bincount(at) for w, s in scores.items()}, list(places)


def _key(query: str) -> str:
    """What two spellings of one request share: its words."""
    return " ".join(_WORD.findall(query.casefold())) or query.strip()


def _best(means: Mapping[float, float], default: float) -> float:
    return max(means, key=lambda w: (round(means[w], 9), -abs(w - default)))


def _verdict(weight: float, low: float, high: float) -> dict[str, str]:
    if low > 0:
        return {"verdict": "better", "setting": f"{SETTING}={weight:g}", "said": "better on queries that it was not fitted on"}
    if high < 0:
        return {"verdict": "same", "said": "worse on the queries that it was not fitted on: the default stays"}
    return {
        "verdict": "unsure",
        "said": "the interval includes 0: too little to choose, so the default stays; more queries would tell",
    }
