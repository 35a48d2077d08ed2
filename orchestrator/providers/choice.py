"""Which large model the settings mean: provider, model, address and key, before anything of a vendor is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.settings import Settings

Provider = Literal[
    "openai",
    "azure-openai",
    "anthropic",
    "gemini",
    "openai-compatible",
    "ollama",
    "azure-foundry",
    "transformers",
    "scripted",
]
PROVIDERS: tuple[str, ...] = get_args(Provider)
OLLAMA = "http://localhost:11434/v1"
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GOOGLE_API_KEY"}


@dataclass(frozen=True)
class Choice:
    """One large model; whoever has an equal one has the same."""

    provider: str
    model: str
    url: str | None = None
    key: SecretStr | None = None
    api: Literal["responses", "chat"] = "chat"
    window: int | None = None
    entra: bool = False
    api_version: str | None = None
    script: Path | None = None


def chosen(settings: Settings, *, provider: str | None = None) -> Choice:
    """The model of the settings. With another `provider` than theirs, what they say of model, address and key is not meant.

    Raises:
        ModelError: `model_not_set`: something is missing; `next` names the variable to set.
    """
    name = provider or settings.planner_provider
    if name not in PROVIDERS:
        what = f"there is no provider `{name}` of large models" if name else "no large model is set"
        raise _not_set(what, f"Set TOOLWEAVER_PLANNER_PROVIDER to one of {', '.join(PROVIDERS)}.")
    meant = settings.planner_provider in (None, name)
    own = settings if meant else settings.model_copy(update=_UNSAID)
    made = Choice(name, own.planner_model or _default(name), own.planner_url, own.planner_key, window=own.planner_window)
    return _COMPLETED[name](made, own)


_UNSAID = {"planner_model": None, "planner_url": None, "planner_key": None, "planner_window": None}


def _vendor(made: Choice, settings: Settings) -> Choice:
    keys = {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key, "gemini": settings.gemini_api_key}
    key = made.key or keys[made.provider]
    if key is None and made.url is None:
        raise _not_set(f"no key of `{made.provider}` is set", f"Set {_KEYS[made.provider]}.")
    api = settings.planner_api if made.provider == "openai" else "chat"
    return Choice(made.provider, made.model, made.url, key, api=api, window=made.window)


def _azure(made: Choice, settings: Settings) -> Choice:
    url, key = made.url or settings.azure_openai_endpoint, made.key or settings.azure_openai_api_key
    if url is None:
        raise _not_set("no address of Azure OpenAI is set", "Set AZURE_OPENAI_ENDPOINT, such as https://name.openai.azure.com/.")
    if key is None and not settings.azure_openai_use_ad:
        raise _not_set("no key of Azure OpenAI is set", "Set AZURE_OPENAI_API_KEY, or AZURE_OPENAI_USE_AD=true after `az login`.")
    return Choice(
        made.provider,
        made.model,
        url.rstrip("/").removesuffix("/openai/v1"),
        None if settings.azure_openai_use_ad else key,
        api=settings.planner_api,
        window=made.window,
        entra=settings.azure_openai_use_ad,
        api_version=settings.azure_openai_api_version,
    )


def _compatible(made: Choice, _: Settings) -> Choice:
    url = made.url or (OLLAMA if made.provider == "ollama" else None)
    if url is None:
        raise _not_set("no address of the large model is set", "Set TOOLWEAVER_PLANNER_URL, such as http://host:8000/v1.")
    return Choice(made.provider, _named(made), url, made.key, window=made.window)


def _foundry(made: Choice, settings: Settings) -> Choice:
    url, key = made.url or settings.azure_foundry_endpoint, made.key or settings.azure_foundry_key
    if url is None:
        raise _not_set("no address of Azure AI Foundry is set", "Set AZURE_SMALL_MODEL_ENDPOINT.")
    return Choice(made.provider, made.model, url, key, window=made.window)


def _transformers(made: Choice, _: Settings) -> Choice:
    return Choice(made.provider, _named(made), window=made.window)


def _scripted(made: Choice, settings: Settings) -> Choice:
    if settings.planner_script is None:
        raise _not_set("no script of answers is set", "Set TOOLWEAVER_PLANNER_SCRIPT to a JSON file with a list of answers.")
    return Choice(made.provider, made.model, window=made.window, script=settings.planner_script)


_COMPLETED = {
    "openai": _vendor,
    "anthropic": _vendor,
    "gemini": _vendor,
    "azure-openai": _azure,
    "openai-compatible": _compatible,
    "ollama": _compatible,
    "azure-foundry": _foundry,
    "transformers": _transformers,
    "scripted": _scripted,
}


def _named(made: Choice) -> str:
    if not made.model:
        raise _not_set(f"no model of `{made.provider}` is set", "Set TOOLWEAVER_PLANNER_MODEL to its name.")
    return made.model


@lru_cache(maxsize=1)
def _defaults() -> dict[str, str]:
    text = files("orchestrator.providers").joinpath("data/models.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["models"])


def _default(provider: str) -> str:
    """A current model of the provider; "" where only the user can say."""
    return _defaults().get(provider, "")


def _not_set(what: str, move: str) -> ModelError:
    return ModelError(what, code="model_not_set", next=move, sent=False)
