"""The weights that the settings name: one place for the index service, the library and the lab."""

from __future__ import annotations

from orchestrator.settings import Settings
from orchestrator.tool_search.fusion import DEFAULT, Weights


def weights_of(settings: Settings) -> Weights:
    """The product's mix, with the weight of the words that is set, if one is."""
    return DEFAULT if settings.search_lexical_weight is None else Weights(lexical=settings.search_lexical_weight)
