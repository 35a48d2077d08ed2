"""Vectors from an index service's `/embed` (C10): its model is loaded once, whoever needs vectors."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import numpy as np
from pydantic import SecretStr, ValidationError

from orchestrator.errors import ModelError
from orchestrator.models.search import EmbedAnswer, EmbedRequest
from orchestrator.providers.embedder import Vectors

AT_ONCE = 64  # texts of one request
TIMEOUT_S = 60.0
LONGEST = 10_000  # characters; a model reads some 1,000
_AWAY = "Start that index service, or unset TOOLWEAVER_EMBED_URL, so that this process makes vectors itself."


class RemoteEmbedder:
    """The model of another process. Its name and dimensions are asked for when it is made.

    Raises:
        ModelError: it does not answer, or not with vectors.
    """

    def __init__(self, url: str, *, key: SecretStr | None = None) -> None:
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        first = self._ask(["tool"])
        self.name, self.dimensions = first.model, first.dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 for each text, in their order."""
        made = np.zeros((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), AT_ONCE):
            part = texts[start : start + AT_ONCE]
            found = self._ask(part)
            if found.model != self.name or len(found.vectors) != len(part):
                raise ModelError(f"the model of `{self._http.base_url}` is another one than before", next="Restart this process.")
            made[start : start + len(part)] = found.vectors
        return made

    def _ask(self, texts: Sequence[str]) -> EmbedAnswer:
        request = EmbedRequest(texts=tuple(t[:LONGEST] for t in texts))
        try:
            response = self._http.post("/embed", content=request.model_dump_json(), headers={"Content-Type": "application/json"})
            response.raise_for_status()
            return EmbedAnswer.model_validate_json(response.content)
        except httpx.HTTPError as error:
            raise ModelError(f"`{self._http.base_url}` makes no vectors: {error}", next=_AWAY, retryable=True) from None
        except ValidationError:
            raise ModelError(f"`{self._http.base_url}` answers something that is no vectors", next=_AWAY) from None
