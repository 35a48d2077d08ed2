"""Where models are that speak OpenAI's protocols: at OpenAI, at Azure with a key or by Entra ID, or at any address."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from orchestrator.errors import ModelError
from orchestrator.providers.azure_score import ScoreModel
from orchestrator.providers.choice import Choice
from orchestrator.providers.model import Model
from orchestrator.providers.openai_models import OPENAI, OpenAIModel, Place, Token

WINDOW = 128_000  # of OpenAI's models since 2024, where the table of prices does not know the model's own
WINDOW_ELSEWHERE = 16_384  # a guess; servers of one's own are often started with less than the model could
_SCOPE = "https://cognitiveservices.azure.com/.default"
_VENDORS = {"azure-openai": "azure", "ollama": "ollama"}


def large(choice: Choice, window: int | None) -> Model:
    """The chosen model.

    Raises:
        ModelError: `model_not_set`: its address or key can be none; `model_missing_package`: azure-identity.
    """
    if choice.provider == "azure-foundry":
        return foundry(choice, window)
    own = choice.provider in ("openai", "azure-openai")
    return OpenAIModel(
        provider=choice.provider,
        vendor=_VENDORS.get(choice.provider) or ("openai" if choice.api == "responses" else "openai-chat"),
        model=choice.model,
        place=azure(choice) if choice.provider == "azure-openai" else Place(choice.url or OPENAI, choice.key),
        api=choice.api,
        window=window or (WINDOW if own else WINDOW_ELSEWHERE),
    )


def foundry(choice: Choice, window: int | None) -> Model:
    """The model behind an endpoint of Azure AI Foundry: `.../score`, or chat completions, their address whole or up to `/v1`."""
    parts = urlsplit(str(choice.url))
    path = parts.path.rstrip("/")
    if path.endswith("/score"):
        return ScoreModel(url=str(choice.url), key=choice.key, model=choice.model, window=window or WINDOW_ELSEWHERE)
    base = urlunsplit(parts._replace(path=path.removesuffix("/chat/completions") or "/v1", query="", fragment=""))
    return OpenAIModel(
        provider=choice.provider,
        vendor="openai-chat",
        model=choice.model,
        place=Place(base, choice.key, query=tuple(parse_qsl(parts.query)), api_key=True),
        api="chat",
        window=window or WINDOW_ELSEWHERE,
    )


def azure(choice: Choice) -> Place:
    """A resource of Azure OpenAI: by its version 1 API, or by the dated one that is asked for."""
    url, token = str(choice.url), entra_token() if choice.entra else None
    if choice.api_version:
        return Place(url, choice.key, token, api_version=choice.api_version)
    return Place(f"{url}/openai/v1", choice.key, token)


@lru_cache(maxsize=1)
def entra_token() -> Token:
    """Gives a token of Entra ID, kept until shortly before it ends; found as Azure's tools find it (`az login`, managed identity).

    Raises:
        ModelError: `model_missing_package`; when called `model_denied`: nobody is signed in.
    """
    try:
        identity: Any = import_module("azure.identity")
    except ImportError:
        raise ModelError(
            "the package `azure.identity` is not installed",
            code="model_missing_package",
            next="pip install 'toolweaver[azure-openai]'",
            sent=False,
        ) from None
    refused = import_module("azure.core.exceptions").AzureError
    ask = identity.get_bearer_token_provider(identity.DefaultAzureCredential(), _SCOPE)

    async def token() -> str:
        try:
            return str(await asyncio.to_thread(ask))
        except refused:  # what it says names accounts and machines
            raise ModelError(
                "Entra ID gives no token for Azure OpenAI",
                code="model_denied",
                next="Sign in by `az login`, or give this machine a managed identity that may use the resource.",
                sent=False,
            ) from None

    return token
