"""Anthropic's Messages API on the wire, version 2026-10-21, as the SDK 2.12 reads it; and what the API refuses.

The forms are those of the SDK's own types and of the API's reference; refusals are those that a client of ours could run into:
fields that it does not know, too many cache marks, empty text, a result without its use, an open object in structured output, a
choice at the root of a tool's input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsBase

from tests.wire.base import KEY, MODEL, Asked, Body, Turn, event, pieces

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_LAST_MARKS = 4
_KNOWN = frozenset(MessageCreateParamsBase.__annotations__) | {"stream"}


class Anthropic:
    """The dialect. A turn with a `code` and the status 200 breaks off with that error in the middle of its stream."""

    keepalive = event({"type": "ping"}, "ping")

    def url(self, root: str) -> str:
        return root

    def settings(self, url: str) -> dict[str, Any]:
        return {"planner_provider": "anthropic", "planner_url": url, "anthropic_api_key": KEY, "planner_model": MODEL}

    def refuses(self, asked: Asked) -> Turn | None:
        if asked.path != "/v1/messages":
            return Turn(status=404, message="Not found")
        if KEY not in (asked.headers.get("authorization", "").removeprefix("Bearer "), asked.headers.get("x-api-key")):
            return Turn(status=401, message="invalid x-api-key")
        if "anthropic-version" not in asked.headers:
            return Turn(status=400, message="anthropic-version: header is required")
        wrong = _wrong(asked.body)
        return Turn(status=400, message=wrong) if wrong else None

    def headers(self, number: int) -> dict[str, str]:
        """What every answer carries."""
        return {"request-id": f"req_{number:04}", "anthropic-organization-id": "org-wire", **_limits(number)}

    def streams(self, asked: Asked) -> bool:
        return asked.body.get("stream") is True

    def answer(self, turn: Turn, asked: Asked) -> Body:
        content = list(_content(turn, asked))
        return {**_message(turn, asked), "content": content, "stop_reason": _stop(turn, content), "stop_details": _details(turn)}

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        content = list(_content(turn, asked))
        start = {**_message(turn, asked), "content": [], "stop_reason": None, "stop_details": None}
        start["usage"] = {**start["usage"], "output_tokens": 1}
        yield _named({"type": "message_start", "message": start})
        yield self.keepalive
        for index, block in enumerate(content):
            yield from _block(index, block, cut=turn.fault == "length")
        if turn.code:
            yield _named({"type": "error", **_error(turn.code, turn.message)})
            return
        delta = {"stop_reason": _stop(turn, content), "stop_sequence": None, "stop_details": _details(turn)}
        yield _named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": turn.usage[1]}})
        yield _named({"type": "message_stop"})

    def error(self, turn: Turn, asked: Asked) -> Body:
        kind = turn.code or _ERRORS.get(turn.status, "api_error")
        return {"type": "error", **_error(kind, turn.message), "request_id": f"req_{asked.number:04}"}


def _limits(number: int) -> dict[str, str]:
    full = "2026-10-21T12:00:00Z"
    of = {"requests": (1000, 1000 - number), "input-tokens": (100_000, 99_000), "output-tokens": (20_000, 19_000)}
    rows = [(kind, {"limit": most, "remaining": left, "reset": full}) for kind, (most, left) in of.items()]
    return {f"anthropic-ratelimit-{kind}-{name}": str(value) for kind, row in rows for name, value in row.items()}


def _error(kind: str, message: str) -> Body:
    return {"error": {"type": kind, "message": message}}


def _named(data: Body) -> bytes:
    return event(data, data["type"])


def _message(turn: Turn, asked: Asked) -> Body:
    inputs, outputs, cached = turn.usage
    return {
        "id": f"msg_{asked.number:04}",
        "type": "message",
        "role": "assistant",
        "model": f"{asked.body['model']}-20261021",
        "stop_sequence": None,
        "usage": {
            "input_tokens": inputs - cached - turn.written,
            "cache_creation_input_tokens": turn.written,
            "cache_read_input_tokens": cached,
            "cache_creation": {"ephemeral_5m_input_tokens": turn.written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": outputs,
            "service_tier": "standard",
        },
    }


def _content(turn: Turn, asked: Asked) -> Iterator[Body]:
    """Thoughts where the request allows them, text, then calls; the answer is the input of a tool that must be called."""
    tool = _forced(asked.body)
    if asked.body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        yield {"type": "thinking", "thinking": "Let me see.", "signature": f"sig_{asked.number:04}"}
    if turn.fault == "refusal":
        return
    given = _object(turn) if tool and not turn.uses else None
    if tool and given is not None:
        wrapped = list(tool["input_schema"].get("properties", {})) == ["value"]
        yield _use(asked, 0, tool["name"], {"value": given} if wrapped else given)
    elif turn.words:
        yield {"type": "text", "text": turn.words}
    for at, (name, arguments) in enumerate(turn.uses):
        yield _use(asked, at, name, dict(arguments))


def _use(asked: Asked, at: int, name: str, arguments: Any) -> Body:
    return {"type": "tool_use", "id": f"toolu_{asked.number:04}{at:02}", "name": name, "input": arguments}


def _object(turn: Turn) -> Any:
    if turn.text is None:
        return turn.value
    try:
        return json.loads(turn.text)
    except ValueError:
        return None


def _forced(body: Body) -> Body | None:
    """The tool that must be called; of several the last."""
    choice, tools = body.get("tool_choice", {}), body.get("tools", [])
    if choice.get("type") == "any":
        return tools[-1] if tools else None
    return next((t for t in tools if t.get("name") == choice.get("name")), None) if choice.get("type") == "tool" else None


def _stop(turn: Turn, content: list[Body]) -> str:
    if turn.fault in ("refusal", "length"):
        return "refusal" if turn.fault == "refusal" else "max_tokens"
    return "tool_use" if any(b["type"] == "tool_use" for b in content) else "end_turn"


def _details(turn: Turn) -> Body | None:
    return {"type": "refusal", "category": None, "explanation": None} if turn.fault == "refusal" else None


def _block(index: int, block: Body, *, cut: bool) -> Iterator[bytes]:
    empties: dict[str, Body] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
    yield _named({"type": "content_block_start", "index": index, "content_block": {**block, **empties[block["type"]]}})
    for delta in _deltas(block, cut=cut):
        yield _named({"type": "content_block_delta", "index": index, "delta": delta})
    yield _named({"type": "content_block_stop", "index": index})


def _deltas(block: Body, *, cut: bool) -> Iterator[Body]:
    if block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "text":
        yield from ({"type": "text_delta", "text": p} for p in pieces(block["text"]))
    else:
        whole = json.dumps(block["input"])
        yield {"type": "input_json_delta", "partial_json": ""}
        yield from ({"type": "input_json_delta", "partial_json": p} for p in pieces(whole[: len(whole) // 2] if cut else whole, 24))


def _wrong(body: Body) -> str | None:
    """What the API says of a body that it refuses."""
    if unknown := sorted(set(body) - _KNOWN):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(body.get("model"), str) or not isinstance(body.get("max_tokens"), int):
        return "model, max_tokens: Field required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    if messages[0]["role"] != "user" or any(m["role"] not in ("user", "assistant") for m in messages):
        return 'messages: Unexpected role. Allowed roles are "user" or "assistant"; the first is "user"'
    return _wrong_text(body) or _wrong_marks(body) or _wrong_results(messages) or _wrong_tools(body) or _wrong_format(body)


def _blocks(body: Body) -> list[Body]:
    system = body.get("system", [])
    parts: list[Any] = [] if isinstance(system, str) else list(system)
    return [*parts, *(b for m in body["messages"] if not isinstance(m["content"], str) for b in m["content"])]


def _wrong_text(body: Body) -> str | None:
    empty = any(b["type"] == "text" and not b["text"] for b in _blocks(body))
    return "messages: text content blocks must be non-empty" if empty else None


def _wrong_marks(body: Body) -> str | None:
    tools = body.get("tools", [])
    found = sum("cache_control" in part for part in [*tools, *_blocks(body)])
    if any("cache_control" in t and t.get("defer_loading") for t in tools):
        return "tools: defer_loading and cache_control cannot be used together"
    return f"A maximum of {_LAST_MARKS} blocks with cache_control may be provided. Found {found}." if found > _LAST_MARKS else None


def _wrong_results(messages: list[Body]) -> str | None:
    """Every use is followed at once by its result, and no result stands without one."""
    open_uses: set[str] = set()
    for number, message in enumerate(messages):
        content = message["content"] if isinstance(message["content"], list) else []
        results = {b["tool_use_id"] for b in content if b["type"] == "tool_result"}
        if results != open_uses:
            return f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after, or the reverse"
        open_uses = {b["id"] for b in content if b["type"] == "tool_use"}
    return "messages: `tool_use` ids were found without `tool_result` blocks at the end" if open_uses else None


def _wrong_tools(body: Body) -> str | None:
    tools = body.get("tools", [])
    if body.get("tool_choice") and not tools:
        return "tool_choice may only be specified while providing tools"
    names = [t.get("name") for t in tools]
    if len(set(names)) < len(names):
        return "tools: Tool names must be unique."
    for number, tool in enumerate(tools):
        schema = tool.get("input_schema", {})
        if schema.get("type") != "object" or not {"anyOf", "oneOf", "allOf"}.isdisjoint(schema):
            return f"tools.{number}.custom.input_schema.type: Input should be 'object'"
    return None


def _wrong_format(body: Body) -> str | None:
    format_ = body.get("output_config", {}).get("format")
    if format_ is None:
        return None
    opened = any(s.get("type") == "object" and s.get("additionalProperties") is not False for s in _schemas(format_["schema"]))
    return (
        "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false" if opened else None
    )


def _schemas(value: Any) -> Iterator[Body]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _schemas(part)
    elif isinstance(value, list):
        for part in value:
            yield from _schemas(part)
