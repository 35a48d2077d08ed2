"""Two readings of one picture made into the better one, piece by piece, by the evidence of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.ocr.pieces import Piece, Reading

POOR = 0.93  # mean confidence below which a picture is read again
SURE = 0.6  # what only the second reading sees must be at least so certain
SHARED = 0.5  # of the smaller box: two pieces show the same print


def better(first: Reading, again: Reading) -> tuple[Reading, tuple[str, ...]]:
    """The first reading with what a second one of the same page read better; and a note."""
    pieces = [*first.pieces, *again.pieces]
    hulls = _hulls(pieces)
    stays = np.arange(len(pieces)) < len(first.pieces)
    changed = 0
    for n, piece in enumerate(again.pieces, len(first.pieces)):
        over = np.flatnonzero(stays & (_shared(hulls, hulls[n]) > SHARED))
        same = [pieces[k] for k in over]
        if (not same and piece.confidence >= SURE) or (same and _evidence([piece]) > _evidence(same) and _surer(piece, same)):
            stays[over], stays[n] = False, True
            changed += 1
    if not changed:
        return first, ()
    kept = [pieces[k] for k in np.flatnonzero(stays)]
    note = f"the print is poor: read a second time from a cleaned picture, which gave {changed} of {len(kept)} pieces"
    return replace(first, pieces=kept), (note,)


def _evidence(pieces: Sequence[Piece]) -> float:
    return sum(p.confidence * len(p.text) for p in pieces)


def _surer(piece: Piece, same: Sequence[Piece]) -> bool:
    return piece.confidence > min(p.confidence for p in same)


def _hulls(pieces: Sequence[Piece]) -> NDArray[Any]:
    """Left, top, right and bottom of each: their upright hulls, which are enough for one page's tilt."""
    corners = np.array([p.corners for p in pieces], np.float64).reshape(-1, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _shared(hulls: NDArray[Any], one: NDArray[Any]) -> NDArray[Any]:
    """What each shares with one of them, as a part of the smaller of both."""
    low, high = np.maximum(hulls[:, :2], one[:2]), np.minimum(hulls[:, 2:], one[2:])
    smaller = np.minimum(np.prod(hulls[:, 2:] - hulls[:, :2], axis=1), np.prod(one[2:] - one[:2]))
    share: NDArray[Any] = np.prod(np.maximum(high - low, 0.0), axis=1) / np.maximum(1.0, smaller)
    return share
