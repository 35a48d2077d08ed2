"""A model behind the `/score` address of a managed online endpoint of Azure Machine Learning, as Foundry's catalogue deploys them.

Request: `{"input_data": {"input_string": [{role, content}...], "parameters": {max_new_tokens, temperature...}}}`; answer:
`{"output": "text"}`. The format knows no schema, tools, streams, token counts or reasons to stop, so that a schema is asked for in
words, a stream comes as one piece, and usage is 0: `Usage.unpriced_calls` does not see such a call. A 424 is the model's own error,
whose status Azure tells in `ms-azureml-model-error-statuscode`. Sources: learn.microsoft.com, "Troubleshoot online endpoints", HTTP
status codes; the formats that Microsoft's PyRIT (`AzureMLChatTarget`) and LangChain (`AzureMLChatOnlineEndpoint`) speak.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.exchange import Failures, PerLoop, TooLong, hint, http_client, sendable, shown
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, TokenCounts, Turn
from orchestrator.providers.openai_protocols import asked_for

_INNER = "ms-azureml-model-error-statuscode"
_MODEL_ERROR = 424


class ScoreModel:
    """The model of one deployment."""

    provider = "azure-foundry"
    vendor = "neutral"

    def __init__(self, *, url: str, key: SecretStr | None, model: str, window: int) -> None:
        """`model` is a name for people: the endpoint decides which one answers.

        Raises:
            ModelError: `model_not_set`: the address or the key can be none.
        """
        self.name, self.window, self.where = model, window, shown(url)
        secret = sendable(key)
        self._url, self._failures = url, Failures(f"`{model}` at {self.where}", secret)
        self._clients = PerLoop(lambda: http_client(headers={"authorization": f"Bearer {secret}"} if secret else {}))
        self._one_voice = False  # whether the system's words go into the first user's: some templates know no system

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; see `Model`. Tools can only be shown (`tool_choice` none), not called."""
        started = time.monotonic()
        body = self._body(request)
        try:
            async with asyncio.timeout(request.deadline_s):
                response = await self._clients.get().post(self._url, json=body, timeout=request.deadline_s)
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
            raise self._failures.too_slow(request.deadline_s) from None
        except (httpx2.HTTPError, TooLong) as error:
            raise self._failures.connection(error) from None
        text = self._text(response)
        if on_text:
            on_text(text)
        return ModelReply(
            text=text,
            tokens=TokenCounts(),
            model=self.name,
            seconds=time.monotonic() - started,
            value=_value(request, text),
            turn=Turn("assistant", (Block(text),)),
            request_id=response.headers.get("x-request-id"),
        )

    async def close(self) -> None:
        """Ends the connections of this event loop."""
        if client := self._clients.pop():
            await client.aclose()

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        if request.tools and request.tool_choice != "none":
            raise ModelError(
                f"`{self.name}` at {self.where} can call no tools: the format of /score has none",
                code="model_bad_request",
                next="Deploy the model behind /v1/chat/completions, or take another provider.",
                sent=False,
            )
        parameters: dict[str, Any] = {"max_new_tokens": request.max_tokens}
        if request.temperature is not None:
            parameters |= {"temperature": request.temperature, "do_sample": request.temperature > 0}
        return {"input_data": {"input_string": self._messages(request), "parameters": parameters}}

    def _messages(self, request: ModelRequest) -> list[dict[str, str]]:
        system = [b.text for b in request.system]
        if request.tools:
            system.append(f"The tools, as JSON: {json.dumps([dict(t) for t in request.tools])}")
        said = [{"role": t.role, "content": _words(t)} for t in request.turns]
        if request.schema is not None:
            said[-1] = said[-1] | {"content": f"{said[-1]['content']}\n\n{asked_for(request.schema)}"}
        if system and self._one_voice:
            said[0] = said[0] | {"content": "\n\n".join([*system, said[0]["content"]])}
        elif system:
            said.insert(0, {"role": "system", "content": "\n\n".join(system)})
        return said

    def _text(self, response: httpx2.Response) -> str:
        if response.status_code != httpx2.codes.OK:
            raise self._refused(response.status_code, response.headers)
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            raise self._failures.bad("something that is no JSON") from None
        text = answer.get("output") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise self._failures.bad("something that is no answer of a model")
        return text

    def _refused(self, status: int, headers: Mapping[str, str]) -> ModelError:
        inner = headers.get(_INNER, "")
        meant = int(inner) if status == _MODEL_ERROR and inner.isdigit() and len(inner) == 3 else status
        otherwise = meant in (400, _MODEL_ERROR) and not self._one_voice
        self._one_voice = self._one_voice or otherwise
        pause = 0.0 if otherwise else hint(headers) if meant == 429 or meant >= 500 else None
        return self._failures.status(meant, retryable=otherwise or None, retry_after_s=pause)


def _words(turn: Turn) -> str:
    results = [f"Result of {r.name}: {r.text}" for r in turn.results]
    return "\n\n".join([*(b.text for b in turn.blocks), *results])


def _value(request: ModelRequest, text: str) -> Any:
    try:
        return None if request.schema is None else read_answer(text, request.schema)
    except ModelError:
        return None
