"""A model that answers from a list, in turn: for working offline, for tests, and for measuring with simulated delays and tokens.

It meets no network and costs nothing. Answers are texts, JSON values, or objects with some of the fields of `Answer`; a file
(setting `planner_script`) holds a list of them, or `{"answers": [...], "again": true}` to begin anew after the last.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, Stop, TokenCounts, ToolUse, Turn

WINDOW = 128_000
CHARACTERS = 4  # of a token, about, in English and JSON
_PIECE = 16  # characters that are streamed at once


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Use(_Part):
    """A call of a tool that the model asks for."""

    name: str
    arguments: dict[str, Any] = {}


class Tokens(_Part):
    """Counts to pretend; by default of the characters of the request and the answer."""

    input: int | None = Field(default=None, ge=0)
    output: int | None = Field(default=None, ge=0)
    cached: int = Field(default=0, ge=0)
    cache_write: int = Field(default=0, ge=0)


class Failure(_Part):
    """An error to raise instead of an answer."""

    code: str = "model_failed"
    message: str = "the script says so"
    status: int | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    sent: bool = True


class Answer(_Part):
    """One answer: `text`, or `value` as JSON text, or `error`; after `delay_s` seconds."""

    text: str | None = None
    value: Any = None
    uses: tuple[Use, ...] = ()
    tokens: Tokens = Tokens()
    delay_s: float = Field(default=0.0, ge=0)
    stop: Stop | None = None
    error: Failure | None = None

    @property
    def words(self) -> str:
        """The text."""
        return self.text if self.text is not None else "" if self.value is None else json.dumps(self.value)


Given = Answer | str | Mapping[str, Any]
Script = Sequence[Given] | Callable[[int, ModelRequest], Given]


class ScriptedModel:
    """The answers of a list, or of a function of (number of the request from 1, request)."""

    provider = "scripted"
    vendor = "neutral"
    where = ""

    def __init__(self, answers: Script, *, model: str = "scripted", window: int | None = None, again: bool = False) -> None:
        self.name, self.window = model, window or WINDOW
        self._answers, self._again = answers if callable(answers) else tuple(answers), again
        self._asked, self._lock = 0, threading.Lock()

    @classmethod
    def of_file(cls, file: Path, *, model: str = "scripted", window: int | None = None) -> ScriptedModel:
        """The answers of a file.

        Raises:
            ModelError: `model_not_set`: it cannot be read.
        """
        try:
            data = json.loads(file.expanduser().read_text(encoding="utf-8"))
            again = isinstance(data, dict) and bool(data.get("again"))
            answers = data["answers"] if isinstance(data, dict) else data
            return cls([_answer(a) for a in answers], model=model, window=window, again=again)
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            raise ModelError(
                f"`{file}` is no script of answers",
                code="model_not_set",
                next="Write a JSON list of answers, and set TOOLWEAVER_PLANNER_SCRIPT to the file.",
                sent=False,
            ) from None

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The next answer of the script; `model_script_ended` when there is none."""
        started = time.monotonic()
        answer = self._next(request)
        await self._wait(answer.delay_s, request.deadline_s)
        if answer.error:
            raise _error(answer.error)
        for at in range(0, len(answer.words) if on_text else 0, _PIECE):
            if on_text:
                on_text(answer.words[at : at + _PIECE])
        return self._reply(request, answer, time.monotonic() - started)

    async def close(self) -> None:
        """There is nothing to end."""

    @property
    def asked(self) -> int:
        """How many requests came."""
        return self._asked

    def _next(self, request: ModelRequest) -> Answer:
        with self._lock:
            self._asked += 1
            number = self._asked
        if callable(self._answers):
            return _answer(self._answers(number, request))
        at = (number - 1) % len(self._answers) if self._again and self._answers else number - 1
        if at >= len(self._answers):
            raise ModelError(
                f"the script has no answer to request {number}", code="model_script_ended", next="Add answers to it.", sent=False
            )
        return _answer(self._answers[at])

    async def _wait(self, delay_s: float, deadline_s: float) -> None:
        await asyncio.sleep(min(delay_s, deadline_s))
        if delay_s > deadline_s:
            raise ModelError(f"`{self.name}` did not answer within {deadline_s:g} s", code="model_timeout", retryable=True)

    def _reply(self, request: ModelRequest, answer: Answer, seconds: float) -> ModelReply:
        uses = tuple(ToolUse(f"call_{self._asked}_{n}", u.name, u.arguments) for n, u in enumerate(answer.uses))
        blocks = (Block(answer.words),) if answer.words else ()
        stop: Stop = answer.stop or ("tools" if uses else "end")
        return ModelReply(
            text=answer.words,
            tokens=_tokens(request, answer),
            model=self.name,
            seconds=seconds,
            stop=stop,
            value=_value(request, answer.words) if stop in ("end", "tools") else None,
            uses=uses,
            turn=Turn("assistant", blocks, uses),
        )


def _answer(given: Given) -> Answer:
    if isinstance(given, Answer):
        return given
    if isinstance(given, str):
        return Answer(text=given)
    if given and set(given) <= set(Answer.model_fields):
        return Answer.model_validate(given)
    return Answer(value=dict(given))


def _error(failure: Failure) -> ModelError:
    return ModelError(
        failure.message,
        code=failure.code,
        status=failure.status,
        retryable=failure.retryable,
        retry_after_s=failure.retry_after_s,
        sent=failure.sent,
    )


def _value(request: ModelRequest, text: str) -> Any:
    try:
        return None if request.schema is None else read_answer(text, request.schema)
    except ModelError:
        return None


def _tokens(request: ModelRequest, answer: Answer) -> TokenCounts:
    said = answer.tokens
    given = _size(request) if said.input is None else said.input
    made = -(-len(answer.words + json.dumps([u.model_dump() for u in answer.uses])) // CHARACTERS)
    return TokenCounts(given, made if said.output is None else said.output, min(said.cached, given), said.cache_write)


def _size(request: ModelRequest) -> int:
    texts = [b.text for b in request.system]
    texts += [json.dumps(dict(t)) for t in request.tools]
    for turn in request.turns:
        texts += [b.text for b in turn.blocks]
        texts += [r.text for r in turn.results]
        texts += [json.dumps(dict(u.arguments)) for u in turn.uses]
    return -(-sum(map(len, texts)) // CHARACTERS)
