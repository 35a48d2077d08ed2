"""A large model's way of being asked, for a small model's askers: blocking, with retries, and nothing but an answer that fits."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from orchestrator.errors import ModelError
from orchestrator.providers.chat import ChatRequest, Message, Reply, Usage
from orchestrator.providers.in_time import within
from orchestrator.providers.model import Block, Model, ModelReply, ModelRequest, Turn
from orchestrator.providers.patience import Patience


class SmallModel:
    """A `ChatModel` that asks a `Model`."""

    def __init__(self, model: Model, *, timeout_s: float, retries: int = 2) -> None:
        """`timeout_s` bounds a whole request with its retries."""
        self._model, self._timeout_s, self._retries = model, timeout_s, retries

    @property
    def name(self) -> str:
        """The model and its address."""
        return f"`{self._model.name}` at {self._model.where}" if self._model.where else f"`{self._model.name}`"

    def ask(self, request: ChatRequest) -> Reply:
        """The checked answer; see `ChatModel`."""
        started = time.monotonic()
        patience = Patience(started + self._timeout_s, self._retries)
        made = patience.retried(partial(self._once, request, patience))
        tokens = made.tokens
        usage = Usage(tokens.input_tokens, tokens.output_tokens, tokens.cached_tokens)
        return Reply(made.value, usage, made.model, time.monotonic() - started)

    def _once(self, request: ChatRequest, patience: Patience) -> ModelReply:
        left_s = max(patience.left_s, 0.001)
        try:
            reply = within(left_s + 1, partial(asyncio.run, self._asked(_put(request, left_s))))
        except TimeoutError:
            raise ModelError(
                f"{self.name} did not answer within {self._timeout_s:g} s", code="model_timeout", retryable=True
            ) from None
        if reply.value is None:
            raise self._none(reply)
        return reply

    async def _asked(self, request: ModelRequest) -> ModelReply:
        try:
            return await self._model.ask(request)
        finally:
            await self._model.close()  # of this event loop

    def _none(self, reply: ModelReply) -> ModelError:
        if reply.stop == "length":
            return ModelError(f"{self.name} was cut off at the limit of tokens", code="model_cut_off", next="Ask for less at once.")
        if reply.stop == "refused":
            return ModelError(f"{self.name} refused to answer", code="model_refused")
        return ModelError(f"{self.name} answered with no JSON that fits", code="model_bad_answer")


def _put(request: ChatRequest, deadline_s: float) -> ModelRequest:
    turns = tuple(Turn("assistant" if m.role == "assistant" else "user", (Block(m.text),)) for m in _spoken(request))
    return ModelRequest(
        tuple(Block(m.text) for m in request.messages if m.role == "system"),
        turns,
        "tool",
        schema=request.schema,
        schema_name=request.name,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        deadline_s=deadline_s,
    )


def _spoken(request: ChatRequest) -> tuple[Message, ...]:
    return tuple(m for m in request.messages if m.role != "system")
