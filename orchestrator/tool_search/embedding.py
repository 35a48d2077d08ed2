"""Vectors of many texts: those that are kept are read, the others are made and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.providers.embedder import Embedder
from orchestrator.tool_search.cache import VectorFile, digest_of

log = logging.getLogger(__name__)

AT_ONCE = 64
Progress = Callable[[int, int], None]


def vector_file(folder: Path, model: Embedder) -> VectorFile:
    """The file of a model's vectors in a folder: those of another model would not be comparable."""
    return VectorFile(folder / f"vectors-{_plain(model.name)}.sqlite", dimensions=model.dimensions)


def vectors_in(folder: Path, model: Embedder) -> VectorFile | None:
    """As `vector_file`; None where the folder cannot be made: every vector is then made again, which is told once."""
    try:
        return vector_file(folder, model)
    except OSError as error:
        log.warning("no vectors are kept in `%s`: %s", folder, error.strerror or error, extra={"action": "vectors_away"})
        return None


def embedded(
    model: Embedder, texts: Sequence[str], *, kept: VectorFile | None = None, progress: Progress | None = None
) -> NDArray[np.float32]:
    """A row for each text. `progress` hears how many of those that are not kept are made, and of how many."""
    digests = [digest_of(model.name, t) for t in texts]
    found = kept.get(dict.fromkeys(digests)) if kept is not None else {}
    missing = {d: t for d, t in zip(digests, texts, strict=True) if d not in found}
    wanted = list(missing)
    for start in range(0, len(wanted), AT_ONCE):
        part = wanted[start : start + AT_ONCE]
        made = dict(zip(part, model.embed([missing[d] for d in part]), strict=True))
        found |= made
        if kept is not None:
            kept.put(made)
        if progress is not None:
            progress(min(start + AT_ONCE, len(wanted)), len(wanted))
    return np.stack([found[d] for d in digests]) if digests else np.zeros((0, model.dimensions), np.float32)


def _plain(name: str) -> str:
    """A file's name for a model's: another one for every model."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:64]
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
