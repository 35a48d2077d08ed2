"""Models that are spoken to as OpenAI's are, by its SDK: OpenAI, Azure OpenAI, Ollama, and any server of the same protocol.

One `ask` is one request. Where a server refuses how it was put (a form of answer, a field that it does not know), the error is
retryable and the next request is put otherwise: nothing of a refused one is paid.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
import openai
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.exchange import Failures, PerLoop, TooLong, hint, http_client, sendable, shown
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, Turn
from orchestrator.providers.openai_protocols import Chat, Dialogue, Put, Responses, Said

Api = Literal["responses", "chat"]
Token = Callable[[], Awaitable[str]]
OPENAI = "https://api.openai.com/v1"
_BROKEN = (ValueError, TypeError, AttributeError, LookupError, RecursionError)  # what the SDK raises on an answer that is none
_STATUS_OF = {  # of a failure that comes in an answer or in a stream, whose status says 200
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "internal_error": 500,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


@dataclass(frozen=True)
class Place:
    """Where a model is, and who asks: a key, or for Entra ID a function that gives a token for each request.

    With `api_version` the address is that of an Azure resource, and its dated API is spoken; else `url` is that of the protocol.
    `query` goes with every request. `api_key`: the key is sent in the header of that name too, which some of Azure's servers want.
    """

    url: str
    key: SecretStr | None = None
    token: Token | None = None
    api_version: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    api_key: bool = False

    def client(self, secret: str) -> openai.AsyncOpenAI:
        """A client for the running event loop; nothing of it comes from the environment."""
        if self.api_version is not None:
            http = http_client(headers={} if self.token else {"api-key": secret})
            auth: dict[str, Any] = {"azure_ad_token_provider": self.token} if self.token else {"api_key": secret}
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self.url, api_version=self.api_version, max_retries=0, http_client=http, **auth
            )
        headers = {} if self.token else {"authorization": f"Bearer {secret}"} | ({"api-key": secret} if self.api_key else {})
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.token or secret,
            max_retries=0,
            default_query=dict(self.query),
            http_client=http_client(headers=headers),
        )


class OpenAIModel:
    """One model at one place."""

    def __init__(
        self, *, provider: str, vendor: str, model: str, place: Place, api: Api, window: int, own: bool | None = None
    ) -> None:
        """`own`: the models are OpenAI's own, which know all of the protocol; by default those of `openai` and `azure-openai` are.

        Raises:
            ModelError: `model_not_set`: the address or the key can be none.
        """
        self.provider, self.vendor, self.name, self.window = provider, vendor, model, window
        self.where = shown(place.url)
        secret = sendable(place.key) or "none"  # never the SDK's default, which is OpenAI's key
        self._failures = Failures(f"`{model}` at {self.where}", secret)
        self._clients = PerLoop(lambda: place.client(secret))
        self._dialogue: Dialogue = Responses() if api == "responses" else Chat()
        self._api = api
        self._put = Put.of(model, vendor=provider in ("openai", "azure-openai") if own is None else own)

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; see `Model`."""
        started = time.monotonic()
        body = self._dialogue.body(self.name, request, self._put, stream=on_text is not None)
        async with self._within(request, body):
            if on_text is None:
                answer, request_id = await self._whole(body, request)
            else:
                answer, request_id = await self._streamed(body, request, on_text)
        return self._reply(request, self._read(answer), time.monotonic() - started, request_id)

    async def close(self) -> None:
        """Ends the connections of this event loop."""
        if client := self._clients.pop():
            await client.close()

    async def _whole(self, body: Mapping[str, Any], request: ModelRequest) -> tuple[Any, str | None]:
        raw = await self._resource().with_raw_response.create(**body, timeout=request.deadline_s)
        try:
            return raw.http_response.json(), raw.headers.get("x-request-id")
        except _BROKEN:
            raise self._failures.bad("something that is no JSON") from None

    async def _streamed(self, body: Mapping[str, Any], request: ModelRequest, on_text: OnText) -> tuple[Any, str | None]:
        gathering = self._dialogue.gather()
        async with await self._resource().create(**body, timeout=request.deadline_s) as stream:
            async with aclosing(self._events(stream)) as events:
                async for event in events:
                    if text := gathering.take(event):
                        on_text(text)
            request_id = stream.response.headers.get("x-request-id")
        if gathering.whole is None:
            raise self._failures.cut_off()
        return gathering.whole, request_id

    async def _events(self, stream: Any) -> AsyncGenerator[dict[str, Any]]:
        """The stream's events as dicts; what `on_text` raises does not come by here."""
        events = aiter(stream)
        while True:
            try:
                event = (await anext(events)).to_dict(mode="json")
            except StopAsyncIteration:
                return
            except _BROKEN:
                raise self._failures.bad("a stream of something else") from None
            yield event

    def _resource(self) -> Any:
        client = self._clients.get()
        return client.responses if self._api == "responses" else client.chat.completions

    @asynccontextmanager
    async def _within(self, request: ModelRequest, body: dict[str, Any]) -> AsyncIterator[None]:
        """The whole exchange in its time, and the SDK's errors as ours."""
        try:
            async with asyncio.timeout(request.deadline_s):
                yield
        except (TimeoutError, openai.APITimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise self._late(error, request) from None
        except openai.APIStatusError as error:
            raise self._refused(error, body) from None
        except (openai.APIConnectionError, httpx2.HTTPError, TooLong) as error:
            raise self._failures.connection(error.__cause__ if isinstance(error, openai.APIError) else error) from None
        except openai.APIError as error:  # an error within a stream
            raise self._failed({"code": error.code or error.type}) from None

    def _late(self, error: BaseException, request: ModelRequest) -> ModelError:
        why = error.__cause__
        if isinstance(why, httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return self._failures.connection(why)
        return self._failures.too_slow(request.deadline_s)

    def _refused(self, error: openai.APIStatusError, body: dict[str, Any]) -> ModelError:
        headers, status = error.response.headers, error.status_code
        otherwise = self._put.learn(body, param=error.param, message=error.message, status=status)
        spent = "quota" in str(error.code) or "quota" in str(error.type)
        final = spent or headers.get("x-should-retry") == "false"
        pause = 0.0 if otherwise else retry_hint(headers) if status == 429 or status >= 500 else None
        return self._failures.status(
            status, error.code, retryable=True if otherwise else False if final else None, retry_after_s=pause
        )

    def _failed(self, failure: Mapping[str, Any]) -> ModelError:
        word = str(failure.get("code") or "")
        return self._failures.status(_STATUS_OF.get(word, 500), word, retryable=False if "quota" in word else None)

    def _read(self, answer: Any) -> Said:
        said = self._dialogue.read(answer) if isinstance(answer, dict) else None
        if said is None:
            raise self._failures.bad("something that is no answer of a model")
        if said.failure is not None:
            raise self._failed(said.failure)
        return said

    def _reply(self, request: ModelRequest, said: Said, seconds: float, request_id: str | None) -> ModelReply:
        value = _value(request, said) if said.stop != "refused" else None
        if value is not None:
            self._put.formed = True
        elif request.schema is not None and said.stop == "end" and not self._put.vendor:
            self._put.weaken()  # a server that does not know the form may ignore it
        blocks = (Block(said.text),) if said.text else ()
        return ModelReply(
            text=said.text,
            tokens=said.tokens,
            model=said.model or self.name,
            seconds=seconds,
            stop=said.stop,
            value=value,
            uses=said.uses,
            turn=Turn("assistant", blocks, said.uses, native=said.native),
            request_id=request_id,
        )


def _value(request: ModelRequest, said: Said) -> Any:
    if request.schema is None or said.stop == "length":
        return None
    try:
        return read_answer(said.text, request.schema)
    except ModelError:
        return None


def retry_hint(headers: Mapping[str, str]) -> float | None:
    """The server's pause in seconds: `retry-after-ms`, `retry-after`, else until the last of the spent limits is full again."""
    if (pause := hint(headers)) is not None:
        return pause
    ends = {n: seconds(v) for n, v in headers.items() if n.startswith("x-ratelimit-reset-")}
    spent = [e for n, e in ends.items() if headers.get(n.replace("reset", "remaining"), "0") == "0"]
    return max((e for e in spent if e is not None), default=None)


def seconds(duration: str) -> float | None:
    """`6m0s`, `1.5s`, `60ms` or `10` in seconds; None: it is no duration."""
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", duration):
        return float(duration)
    found = _DURATION.fullmatch(duration.strip()[:40])
    if found is None or not any(found.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), (86_400, 3_600, 60, 1, 0.001), strict=True))
