"""How well the words of a query and a tool agree: BM25F, the formula that every index of this room computes.

A term's weighted count over the fields saturates with the tool's weighted length (Robertson, Zaragoza & Taylor, "Simple BM25
extension to multiple weighted fields", CIKM 2004), and rare terms count more. K1 and B are Lucene's defaults.
"""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

K1 = 1.2
B = 0.75


@overload
def norm(length: float, average: float) -> float: ...
@overload
def norm(length: Floats, average: float) -> Floats: ...
def norm(length: float | Floats, average: float) -> float | Floats:
    """What a term's count is weighed against: more in a longer tool. `average` is the mean length of the catalog."""
    return K1 * (1 - B + B * length / average) if average > 0 else length * 0 + K1


@overload
def saturation(tf: float, norm: float) -> float: ...
@overload
def saturation(tf: Floats, norm: float | Floats) -> Floats: ...
def saturation(tf: float | Floats, norm: float | Floats) -> float | Floats:
    """A weighted count as a number below 1: the second mention says less than the first."""
    return tf / (tf + norm)


@overload
def idf(df: float, n: float) -> float: ...
@overload
def idf(df: Floats, n: float) -> Floats: ...
def idf(df: float | Floats, n: float) -> float | Floats:
    """What a term is worth that `df` of `n` tools have, 0 to 1: as a share of what one would be that no tool has.

    Lucene's form of Robertson & Sparck Jones' weight, which is never below 0, over its greatest value, the logarithm of
    2n + 2: so a term that says all is worth the same among 30 tools and among a million, and so is a cosine beside it.
    """
    most = math.log(2 * n + 2)
    if isinstance(df, np.ndarray):
        return np.log1p((n - df + 0.5) / (df + 0.5)) / most
    return math.log1p((n - df + 0.5) / (df + 0.5)) / most
