"""Two readings of one picture made into the better one, piece by piece, by the evidence of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workers.ocr.pieces import Piece, Reading

POOR = 0.93  # mean confidence below which a picture is read again
SURE = 0.6  # what only the second reading sees must be at least so certain
SHARED = 0.5  # of the smaller box: two pieces show the same print


def better(first: Reading, again: Reading) -> tuple[Reading, tuple[str, ...]]:
    """The first reading with what a second one of the same page read better; and a note."""
    kept: list[Piece] = list(first.pieces)
    changed = 0
    for piece in again.pieces:
        same = [p for p in kept if _shared(p, piece) > SHARED]
        if (not same and piece.confidence >= SURE) or (same and _evidence([piece]) > _evidence(same) and _surer(piece, same)):
            kept = [p for p in kept if p not in same] + [piece]
            changed += 1
    if not changed:
        return first, ()
    note = f"the print is poor: read a second time from a cleaned picture, which gave {changed} of {len(kept)} pieces"
    return replace(first, pieces=kept), (note,)


def _evidence(pieces: Sequence[Piece]) -> float:
    return sum(p.confidence * len(p.text) for p in pieces)


def _surer(piece: Piece, same: Sequence[Piece]) -> bool:
    return piece.confidence > min(p.confidence for p in same)


def _shared(one: Piece, other: Piece) -> float:
    """What two pieces share, as a part of the smaller one; by their upright hulls, which is enough for one page's tilt."""
    a, b = np.asarray(one.corners), np.asarray(other.corners)
    low, high = np.maximum(a.min(axis=0), b.min(axis=0)), np.minimum(a.max(axis=0), b.max(axis=0))
    area = float(np.prod(np.maximum(high - low, 0.0)))
    return area / max(1.0, float(min(np.prod(np.ptp(a, axis=0)), np.prod(np.ptp(b, axis=0)))))
