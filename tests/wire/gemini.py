"""Gemini's API on the wire, version v1beta, as google-genai 3.4 reads it; and what the API refuses.

Refusals are those that a client of ours could run into: a key that is none (which comes as a 400), fewer responses than calls, a
call sent back without the signature it came with, JSON asked for beside functions, contents without parts.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from tests.wire.base import KEY, MODEL, Asked, Body, Turn, event, pieces

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_PATH = re.compile(r"/v1beta/models/([^/:]+):(generateContent|streamGenerateContent)")
_GOOGLE = "type.googleapis.com/google.rpc."
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
RETRY_DELAY = "x-wire-retry-delay"  # a header of a turn: seconds that the error's RetryInfo says, without a `retry-after`


class Gemini:
    """The dialect.

    A turn with a `code` and the status 200 breaks off with that error in the middle of its stream. A refusal without words is one
    of the prompt, with words one of the answer. A fourth of the output tokens are thoughts. `code` "PerDay" is a quota of a day.
    """

    keepalive = b"\n"

    def url(self, root: str) -> str:
        return root

    def settings(self, url: str) -> dict[str, Any]:
        return {"planner_provider": "gemini", "planner_url": url, "gemini_api_key": KEY, "planner_model": MODEL}

    def refuses(self, asked: Asked) -> Turn | None:
        if not _PATH.fullmatch(asked.path):
            return Turn(status=404, message="no such method")
        if asked.headers.get("x-goog-api-key") != KEY:
            return Turn(status=400, code="API_KEY_INVALID", message="API key not valid. Please pass a valid API key.")
        wrong = _wrong(asked.body)
        return Turn(status=400, message=wrong) if wrong else None

    def headers(self, number: int) -> dict[str, str]:
        """What every answer carries."""
        return {"server-timing": f"gfet4t7; dur={number}", "x-content-type-options": "nosniff"}

    def streams(self, asked: Asked) -> bool:
        return asked.path.endswith(":streamGenerateContent") and asked.query.get("alt") == "sse"

    def answer(self, turn: Turn, asked: Asked) -> Body:
        return _piece(turn, asked, list(_parts(turn, asked)), _finish(turn))

    def stream(self, turn: Turn, asked: Asked) -> Iterator[bytes]:
        parts = [piece for part in _parts(turn, asked) for piece in _split(part)]
        for part in parts:
            yield event(_piece(turn, asked, [part], None))
        yield event(self.error(turn, asked) if turn.code else _piece(turn, asked, [], _finish(turn)))

    def error(self, turn: Turn, asked: Asked) -> Body:
        status = 503 if turn.status == 200 else turn.status
        word = _STATUS.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": turn.message, "status": word, "details": list(_details(turn))}}


def _details(turn: Turn) -> Iterator[Body]:
    if turn.code == "API_KEY_INVALID":
        yield {"@type": f"{_GOOGLE}ErrorInfo", "reason": turn.code, "domain": "googleapis.com"}
    if turn.status == 429:
        span = "PerDay" if turn.code == "PerDay" else "PerMinute"
        violation = {"quotaId": f"GenerateRequests{span}PerProjectPerModel-FreeTier", "quotaValue": "10"}
        yield {"@type": f"{_GOOGLE}QuotaFailure", "violations": [violation]}
    if delay := turn.headers.get(RETRY_DELAY) or turn.headers.get("retry-after"):
        yield {"@type": f"{_GOOGLE}RetryInfo", "retryDelay": f"{delay}s"}


def _piece(turn: Turn, asked: Asked, parts: list[Body], finish: str | None) -> Body:
    inputs, outputs, cached = turn.usage
    thoughts = outputs // 4
    usage: Body = {
        "promptTokenCount": inputs,
        "candidatesTokenCount": outputs - thoughts,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": inputs + outputs,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": inputs}],
    }
    if cached:
        usage |= {"cachedContentTokenCount": cached, "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": cached}]}
    found = _PATH.fullmatch(asked.path)
    made: Body = {
        "usageMetadata": usage,
        "modelVersion": f"{found[1] if found else ''}-001",
        "responseId": f"resp-{asked.number:04}",
    }
    if finish == "PROMPT":
        return {"promptFeedback": {"blockReason": "SAFETY"}, **made}
    candidate: Body = {"content": {"parts": parts, "role": "model"}, "index": 0} if parts else {"index": 0}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], **made}


def _finish(turn: Turn) -> str:
    if turn.fault == "refusal":
        return "SAFETY" if turn.words else "PROMPT"
    return "MAX_TOKENS" if turn.fault == "length" else "STOP"


def _parts(turn: Turn, asked: Asked) -> Iterator[Body]:
    """Text, then calls; the answer is the call of a function that must be called. The first call is signed."""
    if turn.fault == "refusal":
        return
    calls = [(name, dict(arguments)) for name, arguments in turn.uses]
    forced, given = _forced(asked.body), _object(turn)
    if forced and given is not None and not calls:
        wrapped = list(parameters(forced).get("properties", {})) == ["value"]
        calls = [(forced["name"], {"value": given} if wrapped else given)]
    elif turn.words:
        yield {"text": turn.words}
    for at, (name, arguments) in enumerate(calls):
        call = {"functionCall": {"id": f"call_{asked.number:04}{at:02}", "name": name, "args": arguments}}
        yield call if at else {**call, "thoughtSignature": _signature(asked.number)}


def _signature(number: int) -> str:
    return base64.b64encode(f"signed {number}?>~".encode()).decode()


def _split(part: Body) -> list[Body]:
    return [{"text": p} for p in pieces(part["text"])] if "text" in part else [part]


def _object(turn: Turn) -> Any:
    if turn.text is None:
        return turn.value
    try:
        return json.loads(turn.text)
    except ValueError:
        return None


def _declared(body: Body) -> list[Body]:
    return [d for tool in body.get("tools", []) for d in tool.get("functionDeclarations", [])]


def parameters(declared: Body) -> Body:
    """A function's schema; the API takes either spelling of its fields, and the SDK sends this one in snake case."""
    return declared.get("parametersJsonSchema") or declared.get("parameters_json_schema") or {}


def _forced(body: Body) -> Body | None:
    """The function that must be called; of several the last."""
    config = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if config.get("mode") != "ANY":
        return None
    allowed = config.get("allowedFunctionNames") or [d["name"] for d in _declared(body)]
    return next((d for d in reversed(_declared(body)) if d["name"] in allowed), None)


def _wrong(body: Body) -> str | None:
    """What the API says of a body that it refuses."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        return "GenerateContentRequest.contents: contents is not specified"
    if any(c.get("role") not in ("user", "model") for c in contents):
        return "Please use a valid role: user, model."
    if any(not c.get("parts") for c in contents):
        return "GenerateContentRequest.contents: contents.parts must not be empty."
    names = [d.get("name", "") for d in _declared(body)]
    if len(set(names)) < len(names) or not all(_NAME.fullmatch(n) for n in names):
        return "GenerateContentRequest.tools.function_declarations.name: Invalid or duplicate function name."
    if names and body.get("generationConfig", {}).get("responseMimeType") == "application/json":
        return "Function calling with a response mime type: 'application/json' is unsupported"
    return _wrong_calls(contents)


def _wrong_calls(contents: list[Body]) -> str | None:
    expected = 0
    for content in contents:
        calls = [p for p in content["parts"] if "functionCall" in p]
        if sum("functionResponse" in p for p in content["parts"]) != expected:
            return "Please ensure that the number of function response parts is equal to that of the function call parts."
        number = calls[0]["functionCall"].get("id", "") if calls else ""
        if number.startswith("call_") and calls[0].get("thoughtSignature", "").translate(_PLAIN) != _signature(int(number[5:9])):
            return "Function call is missing a thought_signature in functionCall parts."
        expected = len(calls)
    return None


_PLAIN = str.maketrans("-_", "+/")  # base64 of either alphabet is taken
