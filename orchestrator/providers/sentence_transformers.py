"""Any model of `sentence-transformers`, by its name or its folder: the extra `sentence-transformers`, with PyTorch, some 1.5 GB.

A name is looked for on this machine, then fetched from where that package fetches models; a folder needs no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers

from orchestrator.errors import ModelError
from orchestrator.providers.embedder import Vectors

BATCH = 32
FETCH = "https://www.sbert.net/docs/sentence_transformer/pretrained_models.html"


class SentenceTransformers:
    """A model, loaded, on the processor.

    Raises:
        ModelError: `model_not_found`: neither here nor to be fetched, or no model of this kind.
    """

    def __init__(self, model: str) -> None:
        path = Path(model).expanduser()
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(str(path) if path.is_dir() else model, device="cpu")
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"the embedding model `{model}` cannot be loaded: {str(error).strip().partition(chr(10))[0][:300]}",
                code="model_not_found",
                next=f"Give the folder of a model, or a name of {FETCH} where it can be fetched.",
            ) from None
        self.dimensions = int(self._model.encode([""], show_progress_bar=False).shape[1])
        self.name = f"{path.name}/st-{_mark(self._model)}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 for each text."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        found = self._model.encode(list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.ascontiguousarray(found, np.float32)


def _mark(model: Any) -> str:
    """Tells models of one name apart: by some of every weight, and how far they read."""
    said = hashlib.sha256(str(model.max_seq_length).encode())
    for weights in model.parameters():
        said.update(weights.detach().flatten()[:8].float().numpy().tobytes())
    return said.hexdigest()[:8]
