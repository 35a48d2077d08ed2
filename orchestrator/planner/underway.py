"""A model whose requests are noted before they go out: one that a crash cut off may have been paid for, and is counted too."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

import redis

from orchestrator.errors import ModelError
from orchestrator.jobs.requests import Requests, Turn
from orchestrator.models.usage import ModelCall
from orchestrator.providers.model import Around, Model, ModelReply, ModelRequest, OnText

LOST = "lost"
log = logging.getLogger(__name__)


class UnderwayModel(Around):
    """A `Model` around another one, for one planner's turn with a request, which asks one thing after the other."""

    def __init__(self, model: Model, requests: Requests, turn: Turn) -> None:
        super().__init__(model)
        self._requests, self._turn = requests, turn
        self._id = ""

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer of the model; the request is noted meanwhile."""
        self._id = f"model_{secrets.token_hex(8)}"
        lost = ModelCall(
            id=self._id, purpose=request.purpose, provider=self.provider, model=self.name, ok=False, error=LOST, at=time.time()
        )
        await asyncio.to_thread(self._note, lost)
        try:
            return await self.model.ask(request, on_text=on_text)
        except ModelError as error:
            if not error.sent:
                await asyncio.to_thread(self._note, None)
            raise

    def named(self, call: ModelCall) -> ModelCall:
        """What became of the request, under the id that it was noted by: both are one."""
        return call.model_copy(update={"id": self._id})

    def _note(self, call: ModelCall | None) -> None:
        try:
            self._requests.underway(self._turn.job, call)
        except redis.RedisError as error:
            log.warning("a request to a model is not noted: %s", error, extra={"action": "usage_waits", "job_id": self._turn.job})
