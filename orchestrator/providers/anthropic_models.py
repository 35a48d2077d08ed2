"""Claude over Anthropic's Messages API, by its SDK: blocks to cache are marked, and usage is counted as everywhere here.

A schema that the API's structured output takes as it stands is asked for so. That form knows no open objects (it closes them), so
any other schema becomes the input of one tool that the model must call; what the model is told of it is the same. A temperature is
not sent: neither the API of 2026-10-21 nor its SDK knows one.
"""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answer_tool import ABOUT, AnswerTool, fitting, key_of
from orchestrator.providers.exchange import Failures, PerLoop, TooLong, hint, http_client, sendable, shown
from orchestrator.providers.model import Block, ModelReply, ModelRequest, OnText, Stop, TokenCounts, ToolUse, Turn

URL = "https://api.anthropic.com"
WINDOW = 200_000  # tokens of every model since Claude 2.1; some take more
MOST_MARKS = 4  # cache breakpoints that one request may have
_MARK = {"type": "ephemeral"}
_STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tools",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # of a vendor's own tool that takes long: what is there is not the whole
    "refusal": "refused",
}
_STATUS_OF = {  # of an error that comes within a stream, whose status says 200
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_BROKEN = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, AssertionError, RecursionError)
"""What the SDK raises on an answer that is none."""


@dataclass(frozen=True)
class _Ask:
    """A request in Anthropic's words; the input of `tool` is the answer."""

    body: dict[str, Any]
    tool: AnswerTool | None = None


class AnthropicModel:
    """One model at one address."""

    vendor = "anthropic"
    provider = "anthropic"

    def __init__(self, *, model: str, key: SecretStr | None, url: str | None = None, window: int | None = None) -> None:
        """Nothing is read from the environment: no address, no token, no header.

        Raises:
            ModelError: `model_not_set`: the address or the key can be none.
        """
        address, secret = url or URL, sendable(key) or "none"
        self.name, self.where, self.window = model, shown(address), window or WINDOW
        self._failures = Failures(f"`{model}` at {self.where}", secret)
        self._clients = PerLoop(lambda: _client(address, secret))
        self._formless: set[str] = set()  # schemas that structured output did not take

    async def ask(self, request: ModelRequest, *, on_text: OnText | None = None) -> ModelReply:
        """The answer to one request; see `Model`. A refusal of how it was put is retryable: the next try is put otherwise."""
        started = time.monotonic()
        ask = self._put(request)
        async with self._within(request):
            if on_text is None:
                message, request_id = await self._whole(ask, request)
            else:
                message, request_id = await self._streamed(ask, request, on_text)
        return _reply(request, ask, message, time.monotonic() - started, request_id)

    async def close(self) -> None:
        """Ends the connections of this event loop."""
        if client := self._clients.pop():
            await client.close()

    async def _whole(self, ask: _Ask, request: ModelRequest) -> tuple[Message, str | None]:
        came = await self._clients.get().messages.with_raw_response.create(**ask.body, timeout=request.deadline_s)
        try:
            message = await came.parse()
        except _BROKEN:
            raise self._failures.bad("something that is no JSON") from None
        return self._checked(message), came.request_id

    async def _streamed(self, ask: _Ask, request: ModelRequest, on_text: OnText) -> tuple[Message, str | None]:
        began = False
        asked = self._clients.get().messages.stream(**ask.body, timeout=request.deadline_s)
        async with asked as stream, aclosing(self._events(stream)) as events:
            async for event in events:
                began = began or event.type == "message_start"
                if event.type == "message_stop":
                    return self._checked(event.message), stream.request_id
                if piece := _piece(event, stream, ask):
                    on_text(piece)
        raise self._failures.cut_off() if began else self._failures.bad("a stream of something else")

    async def _events(self, stream: Any) -> AsyncGenerator[Any]:
        """The stream's events; what `on_text` raises does not come by here."""
        events = aiter(stream)
        while True:
            try:
                event = await anext(events)
            except StopAsyncIteration:
                return
            except _BROKEN:
                raise self._failures.bad("a stream of something else") from None
            yield event

    def _checked(self, message: Any) -> Message:
        if not isinstance(message, Message) or not isinstance(message.content, list) or not message.stop_reason:
            raise self._failures.bad("something that is no message")
        return message

    @asynccontextmanager
    async def _within(self, request: ModelRequest) -> AsyncIterator[None]:
        """The whole exchange in its time, and the SDK's errors as ours."""
        try:
            async with asyncio.timeout(request.deadline_s):
                yield
        except TimeoutError:
            raise self._failures.too_slow(request.deadline_s) from None
        except anthropic.APIStatusError as error:
            raise self._refused(error, request) from None
        except anthropic.APIConnectionError as error:
            raise self._broken(error.__cause__, request) from None
        except (httpx2.HTTPError, TooLong) as error:
            raise self._broken(error, request) from None

    def _broken(self, why: BaseException | None, request: ModelRequest) -> ModelError:
        late = isinstance(why, httpx2.ReadTimeout | httpx2.WriteTimeout)
        return self._failures.too_slow(request.deadline_s) if late else self._failures.connection(why)

    def _refused(self, error: anthropic.APIStatusError, request: ModelRequest) -> ModelError:
        status = error.status_code if error.status_code >= 300 else _STATUS_OF.get(str(error.type), 500)
        headers = error.response.headers
        return self._failures.status(
            status,
            error.type,
            retry_after_s=_hint(headers) if status == 429 or status >= 500 else None,
            retryable=False
            if headers.get("x-should-retry") == "false"
            else (status == 400 and self._learn(error, request)) or None,
        )

    def _learn(self, error: anthropic.APIStatusError, request: ModelRequest) -> bool:
        """Whether the next try of the same request is put otherwise than the one that was refused."""
        said = str(error.api_message or "")
        if request.schema is not None and self._takes(request.schema) and re.search(r"output_(?:config|format)|schema", said):
            self._formless.add(key_of(request.schema))
            return True
        return False

    def _takes(self, schema: Mapping[str, Any]) -> bool:
        return key_of(schema) not in self._formless and _closed(schema)

    def _put(self, request: ModelRequest) -> _Ask:
        tools = [copy.deepcopy(dict(t)) for t in request.tools]
        body: dict[str, Any] = {"model": self.name, "max_tokens": request.max_tokens}
        if system := [_text(b) for b in request.system if b.text]:
            body["system"] = system
        body["messages"] = [_message(t) for t in request.turns]
        ask = _Ask(body)
        choice: dict[str, Any] = {"type": request.tool_choice}
        if request.schema is not None and self._takes(request.schema):
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(request.schema)}}
        elif request.schema is not None:
            tool = AnswerTool.of(request.schema, request.schema_name, [t.get("name", "") for t in tools])
            ask = _Ask(body, tool)
            choice = {"type": "any"} if tools and request.tool_choice != "none" else {"type": "tool", "name": tool.name}
            tools.append({"name": tool.name, "description": ABOUT, "input_schema": tool.parameters})
        if tools:
            body["tools"], body["tool_choice"] = tools, choice
        _few_marks(tools, body.get("system", []), body["messages"])
        return ask


def _piece(event: Any, stream: Any, ask: _Ask) -> str:
    """What the event adds to the answer's text; the input of the answer's tool is its text too."""
    if event.type == "text":
        return str(event.text)
    if event.type != "content_block_delta" or event.delta.type != "input_json_delta":
        return ""
    of = stream.current_message_snapshot.content[event.index]
    plain = ask.tool and not ask.tool.wrapped and of.type == "tool_use" and of.name == ask.tool.name
    return str(event.delta.partial_json) if plain else ""


def _client(url: str, key: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=url,
        api_key=key,
        max_retries=0,
        open_telemetry=False,  # the environment could have it write prompts into traces
        http_client=http_client(headers={"authorization": f"Bearer {key}"}),
    )


def _text(block: Block) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "text", "text": block.text}
    return {**made, "cache_control": _MARK} if block.cache else made


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "assistant" and isinstance(turn.native, Mapping) and "anthropic" in turn.native:
        return {"role": "assistant", "content": copy.deepcopy(turn.native["anthropic"])}
    results = [
        {"type": "tool_result", "tool_use_id": r.id, "content": r.text, **({"is_error": True} if r.error else {})}
        for r in turn.results
    ]
    uses = [{"type": "tool_use", "id": u.id, "name": u.name, "input": dict(u.arguments)} for u in turn.uses]
    return {"role": turn.role, "content": [*results, *(_text(b) for b in turn.blocks if b.text), *uses]}


def _few_marks(tools: Sequence[Any], system: Sequence[Any], messages: Sequence[Any]) -> None:
    """Takes off all marks but the last ones that a request may have, in the order in which the prompt is put together."""
    marked = [p for p in [*tools, *system, *(b for m in messages for b in m["content"])] if p.get("cache_control")]
    for part in marked[:-MOST_MARKS]:
        del part["cache_control"]


def _closed(schema: Mapping[str, Any]) -> bool:
    """Whether structured output takes the schema as it stands; the SDK's own rules leave it as it is then."""
    try:
        return bool(anthropic.transform_schema(copy.deepcopy(dict(schema))) == schema)
    except _BROKEN:
        return False


def _reply(request: ModelRequest, ask: _Ask, message: Message, seconds: float, request_id: str | None) -> ModelReply:
    content = [_plain(block) for block in message.content]
    stop: Stop = _STOPS.get(str(message.stop_reason), "end")
    if ask.tool:
        content = _with_answer(content, ask.tool, cut=stop == "length")
    if stop in ("length", "refused"):  # a call that was cut off is none
        content = [b for b in content if b.get("type") != "tool_use"]
    text = "".join(b["text"] for b in content if b.get("type") == "text" and isinstance(b.get("text"), str))
    uses = tuple(ToolUse(b["id"], b["name"], b.get("input") or {}) for b in content if b.get("type") == "tool_use")
    if stop == "tools" and not uses:
        stop = "end"
    turn = Turn("assistant", (Block(text),) if text else (), uses, native={"anthropic": content} if content else None)
    return ModelReply(
        text=text,
        tokens=_tokens(message),
        model=str(message.model or ask.body["model"]),
        seconds=seconds,
        stop=stop,
        value=fitting(text, request.schema) if stop == "end" else None,
        uses=uses,
        turn=turn,
        request_id=request_id,
    )


def _plain(block: Any) -> dict[str, Any]:
    """A block as it came, which the API takes back."""
    made: dict[str, Any] = block.to_dict(mode="json")
    made.pop("parsed_output", None)
    return made


def _with_answer(content: list[dict[str, Any]], tool: AnswerTool, *, cut: bool) -> list[dict[str, Any]]:
    """The call of the answer's tool as JSON text: a call that nobody answers would be refused when the turn is sent back."""
    answers = [b for b in content if b.get("type") == "tool_use" and b.get("name") == tool.name]
    if not answers:
        return content
    rest = [b for b in content if b not in answers and b.get("type") != "text"]  # words beside an answer are none of it
    calls = [b for b in rest if b.get("type") == "tool_use"]
    said = {"type": "text", "text": tool.text(answers[0].get("input"), cut=cut)}
    return [*(b for b in rest if b not in calls), said, *calls]


def _tokens(message: Message) -> TokenCounts:
    usage = message.usage
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    return TokenCounts(_count(usage, "input_tokens") + read + written, _count(usage, "output_tokens"), read, written)


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _hint(headers: httpx2.Headers) -> float | None:
    """The server's pause: `retry-after`, else until the last of the spent limits is full again."""
    if (pause := hint(headers)) is not None:
        return pause
    spent = [n for n, v in headers.items() if n.startswith("anthropic-ratelimit-") and n.endswith("-remaining") and v == "0"]
    ends = [_seconds_to(headers.get(n.removesuffix("remaining") + "reset", "")) for n in spent]
    return max((e for e in ends if e is not None), default=None)


def _seconds_to(moment: str) -> float | None:
    try:
        return max(datetime.fromisoformat(moment).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
