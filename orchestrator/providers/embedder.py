"""What turns texts into vectors whose cosine says how near their meanings are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """A model of meanings."""

    @property
    def name(self) -> str:
        """The model and its version: vectors of different names are not comparable."""

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 for each text, in their order; the same row whatever texts stand beside it."""
