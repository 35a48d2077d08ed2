"""What a large model is asked and what it answers, whichever vendor serves it: one Protocol for planning, synthesis and chat.

A provider makes exactly one request to its server for one `ask`, so that each can be counted and limited; who asks decides on
retries (`policy.model_guard`). What was paid for is never an error: an answer that is cut off, refused or no JSON is a reply that
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.models.usage import Purpose

Stop = Literal["end", "tools", "length", "refused"]
OnText = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of text. With `cache`, all up to its end is worth keeping in the provider's prompt cache."""

    text: str
    cache: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool that the model asks for, in the vendor's spelling (`Rendered.arguments` gives ours)."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What became of a `ToolUse`, for the model."""

    id: str
    name: str
    text: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation: text, calls that an assistant asked for, or the results of calls (role `user`).

    `native` is what the vendor's answer was, in its own form: sent back as it came, since some vendors sign parts of it.
    """

    role: Literal["user", "assistant"]
    blocks: tuple[Block, ...] = ()
    uses: tuple[ToolUse, ...] = ()
    results: tuple[ToolResult, ...] = ()
    native: Any = field(default=None, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request. `tools` are rendered for the model's `vendor` (`catalog.render`); with `schema` the answer is one JSON value."""

    system: tuple[Block, ...]
    turns: tuple[Turn, ...]
    purpose: Purpose
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    schema_name: str = "answer"  # letters, digits, `_` and `-`
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    tool_choice: Literal["auto", "any", "none"] = "auto"
    max_tokens: int = 4096
    temperature: float | None = None  # None: the model's own
    deadline_s: float = 120.0  # of the whole request
    cache_key: str | None = None  # requests with the same one share a prefix


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens as the server counted them, 0 where it does not say; `input_tokens` include the cached and the written ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelReply:
    """An answer. `value` is the JSON value that fits the request's schema; None where none was asked for, or none came."""

    text: str
    tokens: TokenCounts
    model: str  # as the server names it
    seconds: float
    stop: Stop = "end"
    value: Any = None
    uses: tuple[ToolUse, ...] = ()
    turn: Turn | None = None  # to go on with
    request_id: str | None = None  # of the vendor, for its support


class Model(Protocol):
    """A model of one vendor."""

    @property
    def provider(self) -> str:
        """The provider, as `planner_provider` names it."""

    @property
    def name(self) -> str:
        """The model."""

    @property
    def where(self) -> str:
        """The address of the server, without secrets; "" for one in this process."""

    @property
    def vendor(self) -> str:
        """For whom its tools are rendered, as `catalog.render` names vendors."""

    @property
    def window(self) -> int:
        """Tokens that a request and its answer may have together; a prudent guess where nobody says."""

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; with `on_text` it is streamed, and each piece handed on as it comes.

        Raises:
            ModelError: none came. `retryable`: the same request may succeed later, `retry_after_s`: not before, as the server says.
        """

    async def close(self) -> None:
        """Ends its connections."""


class Around:
    """A model around another one, as which it passes in all but `ask`: that is said by who inherits."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def provider(self) -> str:
        """That of the model within, as are the next four."""
        return self.model.provider

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def where(self) -> str:
        return self.model.where

    @property
    def vendor(self) -> str:
        return self.model.vendor

    @property
    def window(self) -> int:
        return self.model.window

    async def close(self) -> None:
        """Ends the connections of the model within."""
        await self.model.close()
