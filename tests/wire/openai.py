"""OpenAI's two wire formats, responses and chat completions, and Azure's addresses for both.

The events of a stream, the fields of usage, the headers and the errors are those of the API and of the types that its SDK
is generated from. A body is refused as the API refuses it: unknown fields, calls without results, schemas without a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from tests.wire.base import KEY, MODEL, Asked, Body, Turn, event, pieces

_RESPONSES = frozenset(ResponseCreateParamsBase.__annotations__) | {"stream"}
_CHAT = frozenset(CompletionCreateParamsBase.__annotations__) | {"stream"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Chat:
    """OpenAI itself, spoken to in chat completions. It answers both protocols, by the address of a request."""

    keepalive = b": keepalive\n\n"
    api = "chat"

    def url(self, root: str) -> str:
        return f"{root}/v1"

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "planner_provider": "openai",
            "planner_url": url,
            "openai_api_key": KEY,
            "planner_model": MODEL,
            "planner_api": self.api,
        }

    def protocol(self, asked: Asked) -> ResponsesProtocol | ChatProtocol | None:
        """The protocol of an address."""
        return {"/v1/responses": RESPONSES, "/v1/chat/completions": COMPLETIONS}.get(asked.path)

    def refuses(self, asked: Asked) -> Turn | None:
        protocol = self.protocol(asked)
        if protocol is None:
            return Turn(status=404, code=None, message=f"Invalid URL (POST {asked.path})")
        return self._unknown_key(asked.headers) or protocol.misfit(asked.body)

    def _unknown_key(self, headers: Mapping[str, str]) -> Turn | None:
        right = headers.get("authorization") == f"Bearer {KEY}"
        return None if right else Turn(status=401, code="invalid_api_key", message="Incorrect API key provided.")

    def headers(self, number: int) -> dict[str, str]:
        """What every answer carries."""
        return {
            "x-request-id": f"req_{number:08d}",
            "openai-processing-ms": "1",
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": "999",
            "x-ratelimit-reset-requests": "60ms",
            "x-ratelimit-limit-tokens": "100000",
            "x-ratelimit-remaining-tokens": "99000",
            "x-ratelimit-reset-tokens": "600ms",
        }

    def streams(self, asked: Asked) -> bool:
        return asked.body.get("stream") is True

    def answer(self, turn: Turn, asked: Asked) -> Body:
        return self._spoken(asked).answer(turn, asked)

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        return self._spoken(asked).stream(turn, asked)

    def error(self, turn: Turn, asked: Asked) -> Body:
        kind = "insufficient_quota" if turn.code == "insufficient_quota" else _KINDS.get(turn.status, "server_error")
        param = turn.message.split("'")[1] if "'" in turn.message else None
        return {"error": {"message": turn.message, "type": kind, "param": param, "code": turn.code}}

    def _spoken(self, asked: Asked) -> ResponsesProtocol | ChatProtocol:
        protocol = self.protocol(asked)
        assert protocol is not None
        return protocol


class Responses(Chat):
    """OpenAI itself, spoken to in responses."""

    api = "responses"


class Azure(Chat):
    """Azure OpenAI: the version 1 addresses, and the dated ones of deployments; a key, or a token of Entra ID."""

    api = "responses"
    token = "entra-wire-token"

    def url(self, root: str) -> str:
        return root

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "planner_provider": "azure-openai",
            "azure_openai_endpoint": url,
            "azure_openai_api_key": KEY,
            "planner_model": MODEL,
            "planner_api": self.api,
        }

    def protocol(self, asked: Asked) -> ResponsesProtocol | ChatProtocol | None:
        dated = "api-version" in asked.query
        if asked.path == "/openai/v1/responses" or (asked.path == "/openai/responses" and dated):
            return RESPONSES
        deployed = asked.path == f"/openai/deployments/{MODEL}/chat/completions"
        return COMPLETIONS if asked.path == "/openai/v1/chat/completions" or (deployed and dated) else None

    def _unknown_key(self, headers: Mapping[str, str]) -> Turn | None:
        bearer = headers.get("authorization")
        if headers.get("api-key") == KEY or bearer in (f"Bearer {KEY}", f"Bearer {self.token}"):
            return None
        return Turn(status=401, code="401", message="Access denied due to invalid subscription key or wrong API endpoint.")


class ResponsesProtocol:
    """The protocol of `/responses`."""

    def misfit(self, body: Body) -> Turn | None:
        items = body.get("input")
        calls = [i.get("call_id") for i in _dicts(items) if i.get("type") == "function_call"]
        results = [i.get("call_id") for i in _dicts(items) if i.get("type") == "function_call_output"]
        form = body.get("text", {}).get("format", {})
        return (
            _unknown(body, _RESPONSES)
            or (None if items else _bad("Missing required parameter: 'input'.", "missing_required_parameter"))
            or _unanswered(calls, results, "input")
            or (_bad_schema(form, "text.format") if form.get("type") == "json_schema" else None)
        )

    def answer(self, turn: Turn, asked: Asked) -> Body:
        cut = turn.fault == "length"
        return self._frame(asked, "incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items(turn, asked),
            "usage": self._usage(turn),
        }

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        begun = self._frame(asked, "in_progress")
        whole = self.answer(turn, asked)
        events = [("response.created", {"response": begun}), ("response.in_progress", {"response": begun})]
        for index, item in enumerate(whole["output"]):
            events += self._item_events(index, item)
        events.append((f"response.{whole['status']}", {"response": whole}))
        for number, (kind, data) in enumerate(events):
            yield event({"type": kind, "sequence_number": number, **data}, kind)

    def _frame(self, asked: Asked, status: str) -> Body:
        body = asked.body
        return {
            "id": f"resp_{asked.number:08d}",
            "object": "response",
            "created_at": 1700000000,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": f"{body['model']}-2026-11-01",
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "prompt_cache_key": body.get("prompt_cache_key"),
            "reasoning": {"effort": None, "summary": None},
            "store": body.get("store", True),
            "temperature": body.get("temperature", 1.0),
            "text": body.get("text", {"format": {"type": "text"}}),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
        }

    def _items(self, turn: Turn, asked: Asked) -> list[Body]:
        status = "incomplete" if turn.fault == "length" else "completed"
        made: list[Body] = []
        if turn.fault == "refusal" or turn.words or not turn.uses:
            part: Body = {"type": "output_text", "text": turn.words, "annotations": [], "logprobs": []}
            if turn.fault == "refusal":
                part = {"type": "refusal", "refusal": turn.words or "I cannot help with that."}
            message = {"type": "message", "id": f"msg_{asked.number}", "status": status, "role": "assistant", "content": [part]}
            made.append(message)
        for number, (name, arguments) in enumerate(turn.uses):
            call = {"type": "function_call", "id": f"fc_{asked.number}_{number}", "call_id": f"call_{asked.number}_{number}"}
            made.append(call | {"name": name, "arguments": _written(arguments), "status": status})
        return made

    def _item_events(self, index: int, item: Body) -> list[tuple[str, Body]]:
        at = {"output_index": index}
        here = at | {"item_id": item["id"]}
        if item["type"] == "function_call":
            begun = item | {"arguments": "", "status": "in_progress"}
            told = [("response.function_call_arguments.delta", here | {"delta": p}) for p in pieces(item["arguments"])]
            told.append(
                ("response.function_call_arguments.done", here | {"arguments": item["arguments"], "name": item["name"]}),
            )
        else:
            begun = item | {"content": [], "status": "in_progress"}
            told = self._part_events(here | {"content_index": 0}, item["content"][0])
        return [
            ("response.output_item.added", at | {"item": begun}),
            *told,
            ("response.output_item.done", at | {"item": item}),
        ]

    def _part_events(self, here: Body, part: Body) -> list[tuple[str, Body]]:
        field, kind = ("refusal", "refusal") if part["type"] == "refusal" else ("text", "output_text")
        more: Body = {"logprobs": []} if field == "text" else {}
        return [
            ("response.content_part.added", here | {"part": part | {field: ""}}),
            *((f"response.{kind}.delta", here | {"delta": p} | more) for p in pieces(part[field])),
            (f"response.{kind}.done", here | {field: part[field]} | more),
            ("response.content_part.done", here | {"part": part}),
        ]

    def _usage(self, turn: Turn) -> Body:
        given, made, cached = turn.usage
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": turn.written},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }


class ChatProtocol:
    """The protocol of `/chat/completions`."""

    def misfit(self, body: Body) -> Turn | None:
        messages = _dicts(body.get("messages"))
        calls = [c["id"] for m in messages for c in m.get("tool_calls") or ()]
        results = [m.get("tool_call_id") for m in messages if m.get("role") == "tool"]
        form = body.get("response_format", {})
        return (
            _unknown(body, _CHAT)
            or (None if messages else _bad("Missing required parameter: 'messages'.", "missing_required_parameter"))
            or _unanswered(calls, results, "messages")
            or (_bad_schema(form.get("json_schema", {}), "response_format") if form.get("type") == "json_schema" else None)
        )

    def answer(self, turn: Turn, asked: Asked) -> Body:
        message: Body = {"role": "assistant", "content": self._content(turn), "refusal": self._refusal(turn), "annotations": []}
        if turn.uses:
            message["tool_calls"] = self._calls(turn, asked)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(turn)}
        return self._frame(asked, "chat.completion") | {"choices": [choice], "usage": self._usage(turn)}

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        frame = self._frame(asked, "chat.completion.chunk")
        counted = asked.body.get("stream_options", {}).get("include_usage")
        for delta, finish in self._deltas(turn, asked):
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield event(frame | {"choices": [choice]} | ({"usage": None} if counted else {}))
        if counted:
            yield event(frame | {"choices": [], "usage": self._usage(turn)})
        yield event("[DONE]")

    def _deltas(self, turn: Turn, asked: Asked) -> Iterator[tuple[Body, str | None]]:
        yield {"role": "assistant", "content": "" if self._content(turn) is not None else None, "refusal": None}, None
        for part in pieces(self._content(turn) or ""):
            yield {"content": part}, None
        for part in pieces(self._refusal(turn) or ""):
            yield {"refusal": part}, None
        for index, call in enumerate(self._calls(turn, asked)):
            whole = call["function"]["arguments"]
            yield {"tool_calls": [{"index": index, **call, "function": call["function"] | {"arguments": ""}}]}, None
            for part in pieces(whole):
                yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}, None
        yield {}, self._finish(turn)

    def _frame(self, asked: Asked, kind: str) -> Body:
        return {
            "id": f"chatcmpl-{asked.number:08d}",
            "object": kind,
            "created": 1700000000,
            "model": f"{asked.body['model']}-2026-11-01",
            "service_tier": "default",
            "system_fingerprint": "fp_wire",
        }

    def _content(self, turn: Turn) -> str | None:
        return None if turn.fault == "refusal" or (turn.uses and not turn.words) else turn.words

    def _refusal(self, turn: Turn) -> str | None:
        return (turn.words or "I cannot help with that.") if turn.fault == "refusal" else None

    def _finish(self, turn: Turn) -> str:
        return "length" if turn.fault == "length" else "tool_calls" if turn.uses else "stop"

    def _calls(self, turn: Turn, asked: Asked) -> list[Body]:
        return [
            {
                "id": f"call_{asked.number}_{number}",
                "type": "function",
                "function": {"name": name, "arguments": _written(arguments)},
            }
            for number, (name, arguments) in enumerate(turn.uses)
        ]

    def _usage(self, turn: Turn) -> Body:
        given, made, cached = turn.usage
        return {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0, "cache_write_tokens": turn.written},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


RESPONSES, COMPLETIONS = ResponsesProtocol(), ChatProtocol()
_KINDS = {400: "invalid_request_error", 401: "invalid_request_error", 404: "invalid_request_error", 429: "requests"}


def _dicts(items: Any) -> list[Body]:
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def _written(arguments: Mapping[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))


def _bad(message: str, code: str | None = None) -> Turn:
    return Turn(status=400, code=code, message=message)


def _unknown(body: Body, known: frozenset[str]) -> Turn | None:
    odd = sorted(set(body) - known)
    return _bad(f"Unknown parameter: '{odd[0]}'.", "unknown_parameter") if odd else None


def _unanswered(calls: list[Any], results: list[Any], where: str) -> Turn | None:
    odd = set(calls) ^ set(results)
    return _bad(f"Calls and their outputs do not match in '{where}': {sorted(map(str, odd))}") if odd else None


def _bad_schema(form: Body, where: str) -> Turn | None:
    right = _NAME.fullmatch(str(form.get("name", ""))) and isinstance(form.get("schema"), dict)
    return None if right else _bad(f"Invalid schema for '{where}'.", "invalid_json_schema")
