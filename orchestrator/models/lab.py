"""What the search lab found out about a user's own catalog and queries: what the command line prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Told(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class Quality(_Told):
    """Means over queries, 0 to 1: of one way to rank."""

    name: str
    ndcg: float
    mrr: float
    recall: dict[int, float]  # by k


class Miss(_Told):
    """A right tool that was not among the first `k`: `place` counts from 1, None when it cannot be found at all."""

    line: int
    query: str
    tool: str
    place: int | None = None
    by_words: int | None = None
    by_meaning: int | None = None
    instead: str | None = None  # the tool that came first
    code: Literal["absent", "deprecated", "no_words", "words", "meaning", "both", "crowded"]
    reason: str
    next: str = ""


class Fit(_Told):
    """Another weight of the words, fitted on one part of the queries and held against the default on the rest.

    `low` and `high` bound the difference of NDCG on the rest (95 %, paired bootstrap). `verdict`: `better` sets it, `same` found
    nothing better than the default, `unsure` has too little to tell.
    """

    weight: float
    default: float
    fitted_on: int
    reported_on: int
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    verdict: Literal["better", "same", "unsure"]
    said: str
    setting: str | None = None


class Tokens(_Told):
    """Tokens of schemas: all, and those of the chosen in the mean over queries."""

    all: int
    chosen: float
    saved: float


class LabReport(_Told):
    """Everything about one run. `used` queries could be judged: their right tools are in the catalog, or some of them."""

    tools: int
    queries: int
    used: int
    k: int
    catalog_hash: str
    ways: tuple[Quality, ...]
    misses: tuple[Miss, ...]
    missed: int
    asked: int
    tokens: Tokens
    fit: Fit
    degraded: tuple[str, ...] = ()
    seconds: float = 0.0


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
