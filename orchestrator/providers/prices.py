"""What a model's tokens cost, by a table that is data: the one that genai-prices ships, and before it a file of the user's.

Nothing is fetched: the table is as old as the installed package, and `price_source` says how old. A file of one's own (setting
`prices_file`, YAML or JSON) is for contracts, deployments and models that the table does not know:

    source: our contract with the vendor
    date: 2026-11-01
    models:
      openai/gpt-6.1-sol: {input: 1.8, output: 9, cached: 0.1, cache_write: 2.25, window: 400000}
      "azure-openai/prod-*": {input: 2, output: 10}
      my-local-model: {input: 0, output: 0}

Prices are US dollars for a million tokens. A model is named alone or behind its provider, `*` stands for any letters, and the first
entry that fits counts. Without `cached` or `cache_write`, such tokens cost what input costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ModelError
from orchestrator.providers.model import TokenCounts

MILLION = 1_000_000
_IN_TABLE = {"openai": "openai", "azure-openai": "azure", "anthropic": "anthropic", "gemini": "google", "azure-foundry": "azure"}
_file: Path | None = None


class Price(BaseModel):
    """What one model costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    cache_write: float | None = Field(default=None, ge=0)
    window: int | None = Field(default=None, ge=1)

    def cost(self, tokens: TokenCounts) -> float:
        """Of these tokens, in dollars."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_write is None else self.cache_write
        plain = tokens.input_tokens - tokens.cached_tokens - tokens.cache_write_tokens
        sums = plain * self.input + tokens.cached_tokens * cached + tokens.cache_write_tokens * written
        return (sums + tokens.output_tokens * self.output) / MILLION


class PriceFile(BaseModel):
    """A user's own prices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    date: str = Field(coerce_numbers_to_str=True)
    models: dict[str, Price]

    def price(self, provider: str, models: Sequence[str]) -> Price | None:
        """The first entry that fits one of the names by which a model goes."""
        names = [name for model in models for name in (f"{provider}/{model}", model)]
        return next((p for pattern, p in self.models.items() if any(fnmatchcase(n, pattern) for n in names)), None)


def use(file: Path | None) -> None:
    """From now on this process counts with that file before the table.

    Raises:
        ModelError: `model_bad_prices`: it cannot be read.
    """
    global _file
    if file is not None:
        read(file)
    _file = file


def cost_usd(provider: str, model: str | Sequence[str], tokens: TokenCounts) -> float | None:
    """What a call cost, in US dollars at the list price; None where no price of the model is known.

    `model`: one name, or several by which it goes, the surest first, such as what the server calls it and a deployment's own name.
    A user's file goes before the table for each of them.
    """
    models, fitting = [model] if isinstance(model, str) else model, _fitting(tokens)
    if own := _own(provider, models):
        return own.cost(fitting)
    found = next((row for name in models if (row := _model(provider, name)) is not None), None)
    if found is None:
        return None
    row, vendor = found
    try:
        return float(row.calc_price(_usage(fitting), vendor, genai_request_timestamp=datetime.now(UTC)).total_price)
    except (ValueError, LookupError):
        return None


def price_source() -> str:
    """Where prices come from, with version and date, for people."""
    table = _table()
    said = (
        f"genai-prices {version('genai-prices')}, entries to {_newest()}" if table else "no price table (pip install genai-prices)"
    )
    return f"{_read(_file).source} of {_read(_file).date}, then {said}" if _file else said


def window_of(provider: str, model: str) -> int | None:
    """Tokens of the model's context, if the tables know it."""
    own = _own(provider, [model])
    if own and own.window:
        return own.window
    found = _model(provider, model)
    return found[0].context_window if found else None


def read(file: Path) -> PriceFile:
    """A user's file.

    Raises:
        ModelError: `model_bad_prices`: it is not there, or is none.
    """
    try:
        return _read(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(str(part) for part in first["loc"]) if first else ""
        why = f"`{where}`: {first['msg']}" if first else str(error).partition("\n")[0]
        raise ModelError(
            f"the prices in {file} cannot be read: {why}",
            code="model_bad_prices",
            next="Write it as docs/models.md shows, or unset TOOLWEAVER_PRICES_FILE.",
            sent=False,
        ) from None


@lru_cache(maxsize=2)
def _read(file: Path) -> PriceFile:
    data = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    if isinstance(data, dict) and "date" in data:
        data["date"] = str(data["date"])  # YAML makes a date of it
    return PriceFile.model_validate(data)


def _own(provider: str, models: Sequence[str]) -> Price | None:
    return _read(_file).price(provider, models) if _file else None


def _fitting(tokens: TokenCounts) -> TokenCounts:
    """Counts that are no sum of each other, as a server may send them, made one."""
    cached = min(tokens.cached_tokens, tokens.input_tokens)
    written = min(tokens.cache_write_tokens, tokens.input_tokens - cached)
    return TokenCounts(tokens.input_tokens, tokens.output_tokens, cached, written)


def _usage(tokens: TokenCounts) -> Any:
    return import_module("genai_prices").Usage(
        input_tokens=tokens.input_tokens,
        output_tokens=tokens.output_tokens,
        cache_read_tokens=tokens.cached_tokens,
        cache_write_tokens=tokens.cache_write_tokens,
    )


def _model(provider: str, model: str) -> tuple[Any, Any] | None:
    """The table's row of a model, and its vendor's."""
    table, vendor = _table(), _IN_TABLE.get(provider)
    if table is None or vendor is None:
        return None
    try:
        found = table.find_provider_model(model, None, vendor, None)
    except LookupError:
        return None
    return found[1], found[0]


@lru_cache(maxsize=1)
def _table() -> Any | None:
    """A snapshot of our own, which nobody in this process updates over the network."""
    try:
        snapshots, data = import_module("genai_prices.data_snapshot"), import_module("genai_prices.data")
    except ImportError:
        return None
    return snapshots.DataSnapshot(providers=data.providers, from_auto_update=False)


@lru_cache(maxsize=1)
def _newest() -> str:
    """The last day that an entry of the table says it was looked at; the package carries no date of its own."""
    table = _table()
    comments = [m.price_comments or "" for p in table.providers for m in p.models] if table else []
    days = {day for text in comments for day in re.findall(r"verified on (20\d\d-\d\d-\d\d)", text)}
    return max(days, default="an unknown day")
