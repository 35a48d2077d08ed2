"""Gemini over its own API, by Google's SDK: parts are sent back as they came, since the model signs its thoughts and calls.

A schema is asked for as `response_json_schema`, unless it has objects without named properties: of those the API makes `{}`, or
refuses them, so such a schema is said in words beside the plain JSON mode. Beside tools, where older models take none, a schema
becomes the parameters of one more function that the model may call, and its call is the answer.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answer_tool import ABOUT, AnswerTool, fitting, key_of
from orchestrator.providers.exchange import Failures, PerLoop, TooLong, hint, http_client, sendable, shown
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, Stop, TokenCounts, ToolUse, Turn

URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1beta"
WINDOW = 1_000_000  # tokens of every model since Gemini 1.5
_REFUSED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"}
    | {"IMAGE_RECITATION", "ESCALATION", "PUP_LIMITED_DISABLED", "MODEL_ARMOR"}
)
_CUT = frozenset({"MAX_TOKENS", "CONTINUATION"})
_OURS = "tw-"  # begins the id of a call that came without one
_BROKEN = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, RecursionError)
"""What the SDK raises on an answer that is none; `UnknownApiResponseError` is a ValueError."""


@dataclass(frozen=True)
class _Ask:
    """A request in Gemini's words; the call of `tool` is the answer."""

    contents: list[types.Content]
    config: types.GenerateContentConfig
    tool: AnswerTool | None = None


@dataclass
class _Answer:
    """What came, in one piece or in many."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    blocked: bool = False
    usage: types.GenerateContentResponseUsageMetadata | None = None
    model: str | None = None
    id: str | None = None

    def add(self, came: types.GenerateContentResponse) -> str:
        """Takes in one piece and says its text."""
        self.blocked = self.blocked or bool(came.prompt_feedback and came.prompt_feedback.block_reason)
        self.usage, self.model, self.id = (
            came.usage_metadata or self.usage,
            came.model_version or self.model,
            came.response_id or self.id,
        )
        if not came.candidates:
            return ""
        first = came.candidates[0]
        self.finish = _word(first.finish_reason) or self.finish
        parts = [p.model_dump(mode="json", exclude_none=True) for p in (first.content and first.content.parts) or ()]
        self.parts += parts
        return _text_of(parts)

    @property
    def whole(self) -> bool:
        """Whether the model came to an end."""
        return self.blocked or self.finish is not None


class GeminiModel:
    """One model at one address."""

    vendor = "gemini"
    provider = "gemini"

    def __init__(self, *, model: str, key: SecretStr | None, url: str | None = None, window: int | None = None) -> None:
        """The address may end in the API's version. Nothing is read from the environment: no address, no key, no project.

        Raises:
            ModelError: `model_not_set`: the address or the key can be none.
        """
        root, version = _parted(url or URL)
        secret = sendable(key) or "none"
        self.name, self.where, self.window = model.removeprefix("models/"), shown(url or URL), window or WINDOW
        self._failures = Failures(f"`{self.name}` at {self.where}", secret)
        self._clients = PerLoop(lambda: _client(root, version, secret))
        self._formless: set[str] = set()  # schemas that the API did not take

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; see `Model`. A refusal of its schema is retryable: the next try says the schema in words."""
        started = time.monotonic()
        ask = self._put(request)
        async with self._within(request):
            answer = await (self._whole(ask) if on_text is None else self._streamed(ask, on_text))
        return _reply(request, ask, answer, time.monotonic() - started, self.name)

    async def close(self) -> None:
        """Ends the connections of this event loop."""
        if client := self._clients.pop():
            await client.aio.aclose()
            client.close()

    async def _whole(self, ask: _Ask) -> _Answer:
        answer = _Answer()
        try:
            came = await self._clients.get().aio.models.generate_content(model=self.name, contents=ask.contents, config=ask.config)
            answer.add(came)
        except _BROKEN:
            raise self._failures.bad("something that is no JSON of Gemini's") from None
        if not answer.whole:
            raise self._failures.bad("something that is no answer of Gemini's")
        return answer

    async def _streamed(self, ask: _Ask, on_text: OnText) -> _Answer:
        answer = _Answer()
        async with aclosing(self._pieces(ask, answer)) as pieces:
            async for piece in pieces:
                on_text(piece) if piece else None
        if not answer.whole:
            raise self._failures.cut_off() if answer.parts or answer.usage else self._failures.bad("a stream of something else")
        return answer

    async def _pieces(self, ask: _Ask, answer: _Answer) -> AsyncGenerator[str]:
        """The stream's texts; what `on_text` raises does not come by here."""
        try:
            stream: Any = await self._clients.get().aio.models.generate_content_stream(
                model=self.name, contents=ask.contents, config=ask.config
            )
        except _BROKEN:
            raise self._failures.bad("a stream of something else") from None
        async with aclosing(stream):
            while True:
                try:
                    piece = answer.add(await anext(stream))
                except StopAsyncIteration:
                    return
                except errors.APIError as error:  # its frames would hold the connection's generators open
                    raise error.with_traceback(None) from None
                except _BROKEN as error:
                    error.__traceback__ = None
                    raise self._failures.bad("a stream of something else") from None
                yield piece

    @asynccontextmanager
    async def _within(self, request: ModelRequest) -> AsyncIterator[None]:
        """The whole exchange in its time, and the SDK's errors as ours."""
        try:
            async with asyncio.timeout(request.deadline_s):
                yield
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
            raise self._failures.too_slow(request.deadline_s) from None
        except errors.APIError as error:
            raise self._refused(error, request) from None
        except (httpx2.HTTPError, TooLong) as error:
            raise self._failures.connection(error) from None

    def _refused(self, error: errors.APIError, request: ModelRequest) -> ModelError:
        status = error.code if isinstance(error.code, int) and error.code >= 300 else 500
        details = _details(error)
        word: object = error.status
        if any(d.get("reason") == "API_KEY_INVALID" for d in details):  # which comes as a 400
            status, word = 401, "API_KEY_INVALID"
        headers = getattr(error.response, "headers", None) or {}
        return self._failures.status(
            status,
            word,
            retry_after_s=_pause(details, headers) if status == 429 or status >= 500 else None,
            retryable=False if _spent_for_today(details) else (status == 400 and self._learn(error, request)) or None,
        )

    def _learn(self, error: errors.APIError, request: ModelRequest) -> bool:
        """Whether the next try of the same request is put otherwise than the one that was refused."""
        if request.schema is None or request.tools or not self._takes(request.schema):
            return False
        if not re.search(r"schema|too many states|response_mime_type", str(error.message or ""), re.I):
            return False
        self._formless.add(key_of(request.schema))
        return True

    def _takes(self, schema: Mapping[str, Any]) -> bool:
        return key_of(schema) not in self._formless and not _open(schema)

    def _put(self, request: ModelRequest) -> _Ask:
        contents = [_content(t) for t in request.turns]
        config = types.GenerateContentConfig(
            http_options=types.HttpOptions(timeout=max(int(request.deadline_s * 1000), 1)),
            max_output_tokens=request.max_tokens,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            automatic_continuation=False,  # it would send, and pay, further requests
        )
        if system := [types.Part(text=b.text) for b in request.system if b.text]:
            config.system_instruction = types.Content(parts=system)
        if request.temperature is not None:
            config.temperature = request.temperature
        declared = [types.FunctionDeclaration.model_validate(t) for t in request.tools]
        tool, mode = None, request.tool_choice
        if request.schema is not None and declared:
            tool, mode = AnswerTool.of(request.schema, request.schema_name, [d.name or "" for d in declared]), "any"
            declared.append(types.FunctionDeclaration(name=tool.name, description=ABOUT, parameters_json_schema=tool.parameters))
        elif request.schema is not None:
            self._ask_json(request.schema, config)
        if declared:
            only = [tool.name] if tool and request.tool_choice == "none" else None
            config.tools = [types.Tool(function_declarations=declared)]
            calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode(mode.upper()), allowed_function_names=only)
            config.tool_config = types.ToolConfig(function_calling_config=calling)
        return _Ask(contents, config, tool)

    def _ask_json(self, schema: Mapping[str, Any], config: types.GenerateContentConfig) -> None:
        config.response_mime_type = "application/json"
        if self._takes(schema):
            config.response_json_schema = copy.deepcopy(dict(schema))
            return
        words = f"Answer with one JSON value and nothing else. It must fit this JSON schema: {json.dumps(schema)}\n\n"
        system = config.system_instruction
        said = (system.parts or []) if isinstance(system, types.Content) else []
        config.system_instruction = types.Content(parts=[types.Part(text=words), *said])


def _client(url: str, version: str, key: str) -> genai.Client:
    return genai.Client(
        vertexai=False,
        api_key=key,
        http_options=types.HttpOptions(
            base_url=url,
            api_version=version,
            httpx_async_client=http_client(headers={"x-goog-api-key": key}),
            httpx_client=httpx2.Client(follow_redirects=False),  # never used; the SDK would make one that follows redirects
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )


def _parted(url: str) -> tuple[str, str]:
    """The address and the version of the API, which may be its last part."""
    found = re.fullmatch(r"(.*?)/(v\d+(?:alpha|beta)?\d*)/?", url)
    return (found[1], found[2]) if found else (url.rstrip("/"), API_VERSION)


def _open(schema: Any) -> bool:
    """Whether some object in it has properties that the schema does not name."""
    if isinstance(schema, Mapping):
        bare = schema.get("type") == "object" and not schema.get("properties") and not schema.get("additionalProperties")
        return bare or any(_open(part) for part in schema.values())
    return isinstance(schema, list | tuple) and any(_open(part) for part in schema)


def _content(turn: Turn) -> types.Content:
    if turn.role == "assistant" and isinstance(turn.native, Mapping) and "gemini" in turn.native:
        return types.Content(role="model", parts=[types.Part.model_validate_json(json.dumps(p)) for p in turn.native["gemini"]])
    results = [
        types.FunctionResponse(id=_theirs(r.id), name=r.name, response={"error" if r.error else "output": r.text})
        for r in turn.results
    ]
    uses = [types.FunctionCall(id=_theirs(u.id), name=u.name, args=dict(u.arguments)) for u in turn.uses]
    parts = [
        *(types.Part(function_response=r) for r in results),
        *(types.Part(text=b.text) for b in turn.blocks if b.text),
        *(types.Part(function_call=u) for u in uses),
    ]
    return types.Content(role="model" if turn.role == "assistant" else "user", parts=parts)


def _theirs(id_: str) -> str | None:
    return None if id_.startswith(_OURS) else id_


def _word(reason: Any) -> str | None:
    return str(getattr(reason, "value", reason)) if reason else None


def _text_of(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(p["text"] for p in parts if isinstance(p.get("text"), str) and not p.get("thought"))


def _reply(request: ModelRequest, ask: _Ask, answer: _Answer, seconds: float, model: str) -> ModelReply:
    stop, parts = _stop(answer), answer.parts
    if ask.tool:
        parts = _with_answer(parts, ask.tool, cut=stop == "length")
    if stop in ("length", "refused"):  # a call that was cut off is none
        parts = [p for p in parts if "function_call" not in p]
    uses = tuple(_use(p["function_call"], at, answer) for at, p in enumerate(parts) if "function_call" in p)
    if stop == "end" and uses:
        stop = "tools"
    text = _text_of(parts)
    turn = Turn("assistant", (Block(text),) if text else (), uses, native={"gemini": parts} if parts else None)
    return ModelReply(
        text=text,
        tokens=_tokens(answer.usage),
        model=answer.model or model,
        seconds=seconds,
        stop=stop,
        value=fitting(text, request.schema) if stop == "end" else None,
        uses=uses,
        turn=turn,
        request_id=answer.id,
    )


def _stop(answer: _Answer) -> Stop:
    if answer.blocked or answer.finish in _REFUSED:
        return "refused"
    return "length" if answer.finish in _CUT else "end"


def _with_answer(parts: list[dict[str, Any]], tool: AnswerTool, *, cut: bool) -> list[dict[str, Any]]:
    """The call of the answer's function as JSON text: a call that nobody answers would be refused when the turn is sent back."""
    answers = [p for p in parts if p.get("function_call", {}).get("name") == tool.name]
    if not answers:
        return parts
    calls = [p for p in parts if "function_call" in p and p not in answers]
    return [{"text": tool.text(answers[0]["function_call"].get("args") or {}, cut=cut)}, *calls]


def _use(call: Mapping[str, Any], at: int, answer: _Answer) -> ToolUse:
    return ToolUse(call.get("id") or f"{_OURS}{answer.id or 0}-{at}", call.get("name") or "", call.get("args") or {})


def _tokens(usage: types.GenerateContentResponseUsageMetadata | None) -> TokenCounts:
    """Thoughts are paid for as output; what built-in tools brought into the prompt as input."""
    if usage is None:
        return TokenCounts()
    return TokenCounts(
        (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
        usage.cached_content_token_count or 0,
    )


def _details(error: errors.APIError) -> list[Mapping[str, Any]]:
    body = error.details.get("error", error.details) if isinstance(error.details, Mapping) else {}
    found = body.get("details") if isinstance(body, Mapping) else None
    return [d for d in found if isinstance(d, Mapping)] if isinstance(found, list) else []


def _pause(details: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> float | None:
    """The server's pause: a `google.rpc.RetryInfo` such as `37.5s`, else `retry-after`."""
    said = next((str(d.get("retryDelay")) for d in details if str(d.get("@type")).endswith("google.rpc.RetryInfo")), "")
    return float(said[:-1]) if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?s", said) else hint(headers)


def _spent_for_today(details: Iterable[Mapping[str, Any]]) -> bool:
    """A quota of a day will not come back by waiting a little."""
    broken = [v for d in details if str(d.get("@type")).endswith("google.rpc.QuotaFailure") for v in d.get("violations") or ()]
    return any("PerDay" in str(v.get("quotaId")) for v in broken if isinstance(v, Mapping))
