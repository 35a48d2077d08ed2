"""Requests to the small model, each counted with its tokens, answered or not."""

from __future__ import annotations

import time
from uuid import uuid4

from orchestrator.errors import ModelError
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring.feed import record_model_call
from orchestrator.providers.chat import ChatModel, ChatRequest, Reply

FALLBACK = "small model"
"""What the figures call it when rules, examples and words decide in its place."""

_PROVIDER, _UNKNOWN = "small model", "unknown"
_NOT_SENT = ("model_not_set", "model_missing_package")


def counted(model: ChatModel, request: ChatRequest) -> Reply:
    """The model's answer. With the model's own retries it counts as one request, since it does not tell of them.

    Raises:
        ModelError: there is none.
    """
    began = time.monotonic()
    try:
        reply = model.ask(request)
    except ModelError as error:
        if error.code not in _NOT_SENT:
            _count(model=_UNKNOWN, ok=False, error=error.code, seconds=time.monotonic() - began)
        raise
    used = reply.usage
    _count(
        model=reply.model, seconds=reply.seconds, input_tokens=used.input_tokens, output_tokens=used.output_tokens,
        cached_tokens=used.cached_tokens,
    )  # fmt: skip
    return reply


def _count(**fields: object) -> None:
    call = {"id": uuid4().hex, "purpose": "tool", "provider": _PROVIDER, "at": time.time(), **fields}
    record_model_call(ModelCall.model_validate(call))
