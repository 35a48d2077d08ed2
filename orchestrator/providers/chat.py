"""What a chat model is asked and what it answers, whoever serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be answered by a value that fits `schema`."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] = field(hash=False)
    name: str = "answer"  # of the schema: letters, digits, `_` and `-`
    max_tokens: int = 1024
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the server counted them; 0 where it does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input, read from the server's prompt cache


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose `value` fits the schema of the request."""

    value: Any
    usage: Usage
    model: str  # the name that the server gives
    seconds: float  # with all retries


class ChatModel(Protocol):
    """A model that answers by JSON schema."""

    @property
    def name(self) -> str:
        """The model, and where it is; without secrets."""

    def ask(self, request: ChatRequest) -> Reply:
        """The checked answer, within the deadline that the model was made with.

        Raises:
            ModelError: there is none; `retryable` says whether the same request may succeed later.
        """
