"""The vectors of all examples: they ship for the bundled file, and are kept in the state folder for a user's.

`python -m workers.small_model.vectors` writes those that ship, after a change of `prototypes.yaml`, `wording.py` or
`abbreviations.json`. Vectors are rounded to 8 bits before they are used, so that kept ones and fresh ones are the same.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.providers import warm
from orchestrator.providers.embedder import Embedder, Vectors
from workers.small_model.prototypes import bundled

SHIPPED = "prototypes_vectors.npz"
_Rounded = NDArray[np.int8]
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # of a damaged archive


def example_vectors(texts: Sequence[str], embedder: Embedder, *, cache: Path | None = None) -> Vectors:
    """One row of length 1 for each text; `cache` is a folder for those that do not ship."""
    key = key_of(texts, embedder)
    with as_file(files("workers.small_model").joinpath(SHIPPED)) as shipped:
        rounded = _read(shipped, key)
    if rounded is None and cache is not None:
        rounded = _read(cache / f"{key}.npz", key)
    if rounded is None:
        rounded = round_vectors(embedder.embed(texts))
        if cache is not None:
            _keep(cache / f"{key}.npz", packed(rounded, key))
    rows = rounded.astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def key_of(texts: Sequence[str], embedder: Embedder) -> str:
    """What the vectors depend on, as a short name."""
    return hashlib.sha256("\n".join((embedder.name, *texts)).encode()).hexdigest()[:24]


def round_vectors(vectors: Vectors) -> _Rounded:
    """The directions in 8 bits; a cosine moves by less than 0.005."""
    most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0), 1e-9)
    return np.asarray(np.rint(vectors / most * 127), np.int8)


def packed(rounded: _Rounded, key: str) -> bytes:
    """The bytes of the file."""
    made = BytesIO()
    np.savez_compressed(made, vectors=rounded, key=np.array(key))
    return made.getvalue()


def _read(path: Path, key: str) -> _Rounded | None:
    with suppress(*_UNREADABLE), np.load(path, allow_pickle=False) as kept:
        if str(kept["key"]) == key:
            return np.asarray(kept["vectors"], np.int8)
    return None


def _keep(path: Path, data: bytes) -> None:
    """Whole or not at all; a folder that cannot be written costs the next process the same seconds, and no more."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.replace(path)


if __name__ == "__main__":
    _texts = [text for text, _ in bundled().examples]
    _embedder = warm.embedder()
    Path(str(files("workers.small_model").joinpath(SHIPPED))).write_bytes(
        packed(round_vectors(_embedder.embed(_texts)), key_of(_texts, _embedder))
    )
