"""A model in this process, by Transformers (extra `transformers`, with PyTorch, some 1.5 GB), and JSON out of its words.

It answers one request at a time, in a thread. There is no structured output: a schema is asked for in words, and the answer is
searched for a value that fits. A name is looked for on this machine, then fetched from where that package fetches models.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.choice import Choice
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, TokenCounts, Turn
from orchestrator.providers.openai_protocols import asked_for

WINDOW = 4_096  # a guess, where the model's own configuration does not say


@dataclass(frozen=True)
class Generated:
    """What a model wrote. `cut`: it came to the limit of tokens; `late`: to the end of the time."""

    text: str
    input_tokens: int
    output_tokens: int
    cut: bool = False
    late: bool = False


class Writer(Protocol):
    """A loaded model: the seam to the library."""

    @property
    def window(self) -> int:
        """Tokens of its context."""

    def write(self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float, within_s: float) -> Generated:
        """Goes on with the conversation. Blocks, no longer than about `within_s`."""


class TransformersModel:
    """One model of this process."""

    provider = "transformers"
    vendor = "neutral"
    where = ""

    def __init__(self, choice: Choice, *, writer: Writer | None = None) -> None:
        """Loads the model, which may take minutes.

        Raises:
            ModelError: `model_missing_package`; `model_not_found`: it is neither here nor to be fetched.
        """
        self.name = choice.model
        self._writer = writer or loaded(choice.model)
        self.window = choice.window or self._writer.window
        self._turn = threading.Lock()

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; see `Model`. Tools can only be shown (`tool_choice` none), not called."""
        started = time.monotonic()
        messages = self._messages(request)
        made = await asyncio.to_thread(self._written, messages, request, started + request.deadline_s)
        if made.late:
            raise ModelError(f"`{self.name}` did not answer within {request.deadline_s:g} s", code="model_timeout", retryable=True)
        if on_text:
            on_text(made.text)
        return ModelReply(
            text=made.text,
            tokens=TokenCounts(made.input_tokens, made.output_tokens),
            model=self.name,
            seconds=time.monotonic() - started,
            stop="length" if made.cut else "end",
            value=None if made.cut else _value(request, made.text),
            turn=Turn("assistant", (Block(made.text),)),
        )

    async def close(self) -> None:
        """There is nothing to end."""

    def _written(self, messages: Sequence[dict[str, str]], request: ModelRequest, end: float) -> Generated:
        if not self._turn.acquire(timeout=max(end - time.monotonic(), 0)):
            return Generated("", 0, 0, late=True)
        try:
            left_s = max(end - time.monotonic(), 0.001)
            temperature = request.temperature or 0.0
            return self._writer.write(messages, max_tokens=request.max_tokens, temperature=temperature, within_s=left_s)
        finally:
            self._turn.release()

    def _messages(self, request: ModelRequest) -> list[dict[str, str]]:
        if request.tools and request.tool_choice != "none":
            raise ModelError(
                f"`{self.name}` can call no tools here", code="model_bad_request", next="Take another provider.", sent=False
            )
        system = [b.text for b in request.system]
        if request.tools:
            system.append(f"The tools, as JSON: {json.dumps([dict(t) for t in request.tools])}")
        said = [{"role": t.role, "content": _words(t)} for t in request.turns]
        if request.schema is not None:
            said[-1] = said[-1] | {"content": f"{said[-1]['content']}\n\n{asked_for(request.schema)}"}
        return [{"role": "system", "content": "\n\n".join(system)}, *said] if system else said


def loaded(model: str) -> Writer:
    """The model by the library.

    Raises:
        ModelError: see `TransformersModel`.
    """
    try:
        from orchestrator.providers.transformers_writer import TransformersWriter  # noqa: PLC0415  # loads PyTorch
    except ImportError as error:
        raise ModelError(
            f"the package `{error.name}` is not installed",
            code="model_missing_package",
            next="pip install 'toolweaver[transformers]'",
            sent=False,
        ) from None
    return TransformersWriter(model)


def _words(turn: Turn) -> str:
    results = [f"Result of {r.name}: {r.text}" for r in turn.results]
    return "\n\n".join([*(b.text for b in turn.blocks), *results])


def _value(request: ModelRequest, text: str) -> Any:
    try:
        return None if request.schema is None else read_answer(text, request.schema)
    except ModelError:
        return None
