"""A model whose answers are remembered for a job: who plans it again after a crash gets them again, and pays for none twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import redis
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from orchestrator.jobs.requests import Requests, Turn
from orchestrator.providers import model as models
from orchestrator.providers.model import Around, Block, Model, ModelReply, ModelRequest, OnText, TokenCounts, ToolResult, ToolUse
from orchestrator.state.connection import transient

log = logging.getLogger(__name__)
T = TypeVar("T")

KEEP_S = 60.0  # that paid work waits for a store that is away


async def write_down(work: Callable[..., T], *given: Any) -> T:
    """Runs, in a thread, what writes down work that was paid for; again while the store is away, since another would pay again."""
    tries = AsyncRetrying(
        retry=retry_if_exception(transient), wait=wait_exponential(0.2, max=2), stop=stop_after_delay(KEEP_S), reraise=True
    )
    return await tries(asyncio.to_thread, work, *given)


class RememberingModel(Around):
    """A `Model` around another one, for one planner's turn with a request.

    What was asked is known by its text, not by its deadline. Once a person has the request tried again, everything is asked anew.
    """

    def __init__(self, model: Model, requests: Requests, turn: Turn) -> None:
        super().__init__(model)
        self._requests, self._turn = requests, turn

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The remembered answer, else that of the model."""
        question = digest(request, f"{self._turn.generation} {self.provider} {self.name}")
        known = await asyncio.to_thread(self._requests.reply, self._turn.job, question)
        if known is not None:
            reply = read_reply(known)
            if on_text is not None:
                on_text(reply.text)
            return reply
        reply = await self.model.ask(request, on_text=on_text)
        # Not given up half way: what was paid for is kept, also when this process is told to stop just now.
        await asyncio.shield(self._keep(question, reply))
        return reply

    async def _keep(self, question: str, reply: ModelReply) -> None:
        try:
            await write_down(self._requests.keep_reply, self._turn.job, question, reply_text(reply))
        except redis.RedisError as error:  # the answer is here, so planning goes on with it
            log.warning("an answer is not remembered: %s", error, extra={"action": "reply_lost", "job_id": self._turn.job})


def digest(request: ModelRequest, scope: str) -> str:
    """What tells one question from another; what a vendor signed, and how long it may take, is left out."""
    said = {
        "scope": scope,
        "system": [b.text for b in request.system],
        "turns": [_turn(t) for t in request.turns],
        "purpose": request.purpose,
        "schema": request.schema,
        "tools": request.tools,
        "choice": request.tool_choice,
        "most": request.max_tokens,
        "temperature": request.temperature,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]


def reply_text(reply: ModelReply) -> bytes:
    """An answer as JSON."""
    found = asdict(reply)
    found["turn"] = (_turn(reply.turn) | _native(reply.turn)) if reply.turn is not None else None
    return json.dumps(found, ensure_ascii=False, default=str).encode()


def read_reply(raw: bytes) -> ModelReply:
    """The answer that `reply_text` wrote."""
    found: dict[str, Any] = json.loads(raw)
    turn = found.pop("turn")
    tokens, uses = TokenCounts(**found.pop("tokens")), tuple(ToolUse(**u) for u in found.pop("uses"))
    return ModelReply(tokens=tokens, uses=uses, turn=_read_turn(turn) if turn is not None else None, **found)


def _turn(turn: models.Turn) -> dict[str, Any]:
    return {
        "role": turn.role,
        "blocks": [asdict(b) for b in turn.blocks],
        "uses": [asdict(u) for u in turn.uses],
        "results": [asdict(r) for r in turn.results],
    }


def _native(turn: models.Turn) -> dict[str, Any]:
    try:
        json.dumps(turn.native)
    except (TypeError, ValueError):
        return {}
    return {"native": turn.native}


def _read_turn(found: Mapping[str, Any]) -> models.Turn:
    return models.Turn(
        role=found["role"],
        blocks=tuple(Block(**b) for b in found["blocks"]),
        uses=tuple(ToolUse(**u) for u in found["uses"]),
        results=tuple(ToolResult(**r) for r in found["results"]),
        native=found.get("native"),
    )
