"""OpenAI's two protocols, responses and chat completions, as bodies to send and dicts that came: no connection, no SDK.

Servers of others speak chat completions too and know less of it. What this one does not know is `Put.without` and a weaker
`Put.form`; each is learned from a refusal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.providers.model import Block, ModelRequest, Stop, TokenCounts, ToolResult, ToolUse, Turn

Form = Literal["json_schema", "json_object", "text"]
FORMS: tuple[Form, ...] = ("json_schema", "json_object", "text")
UNREADABLE = "unreadable_arguments"  # the one argument of a call whose own are no JSON object: no tool takes it
_BREAKPOINT = {"mode": "explicit"}
_OPTIONAL = (
    "prompt_cache_breakpoint",
    "prompt_cache_key",
    "stream_options",
    "temperature",
    "tool_choice",
    "include",
    "store",
)
_LIMITS = ("max_completion_tokens", "max_tokens")
_GENERATION = re.compile(r"\bgpt-(\d+)(?:\.(\d+))?")

Body = dict[str, Any]


@dataclass
class Put:
    """How requests are put to one server: what is known of it, and what its refusals taught."""

    vendor: bool = True  # OpenAI's own models, which know all of the protocol; else any server
    form: Form = "json_schema"
    limit: str = "max_completion_tokens"
    without: set[str] = field(default_factory=set)
    formed: bool = False  # whether an answer in `form` has come

    @classmethod
    def of(cls, model: str, *, vendor: bool) -> Put:
        """What to begin with: other servers know the older name of the limit, and no field of the vendor's own."""
        if not vendor:
            return cls(False, limit="max_tokens", without={"prompt_cache_breakpoint", "prompt_cache_key", "include", "store"})
        made = cls()
        if _generation(model) < (5, 6):  # explicit marks came with it
            made.without.add("prompt_cache_breakpoint")
        if not (_generation(model) >= (5, 0) or re.match(r"o\d", model)):  # no thoughts to carry on
            made.without.add("include")
        return made

    def learn(self, body: Body, *, param: object, message: object, status: int) -> bool:
        """Whether the next request is put otherwise than the one that was refused so, whichever refusal taught it."""
        if status in (400, 422):
            for name in _OPTIONAL:
                if _has(body, name) and _names(name, param, message):
                    self.without.add(name)
                    return True
            for name in _LIMITS:
                if name in body and _names(name, param, message):
                    return name != self.limit or self._rename_limit()
        form = (body.get("response_format") or _dict(body.get("text")).get("format") or {}).get("type")
        about = re.search(r"response_format|text\.format|schema|grammar", f"{param} {message}")
        unknown = status in (400, 422, 501) and not self.vendor  # such a server may say anything
        if form is None or not (unknown or (status in (400, 422, 500) and about is not None)):
            return False
        return form != self.form or self.weaken()

    def _rename_limit(self) -> bool:
        other = _LIMITS[1 - _LIMITS.index(self.limit)]
        if other in self.without:
            return False
        self.without.add(self.limit)
        self.limit = other
        return True

    def weaken(self) -> bool:
        """Takes the next weaker form, if there is one."""
        if self.form == FORMS[-1] or self.formed:
            return False
        self.form = FORMS[FORMS.index(self.form) + 1]
        return True

    def kept(self, body: Body) -> Body:
        """The body without what the server does not take."""
        return {name: value for name, value in body.items() if name not in self.without}


def _has(body: Body, name: str) -> bool:
    return name in body or (name == "prompt_cache_breakpoint" and f'"{name}"' in json.dumps(body))


def _names(field: str, param: object, message: object) -> bool:
    """Whether an error is about that field: it is its `param`, or stands in quotes; the word alone may mean anything."""
    return str(param).rpartition(".")[2] == field or re.search(rf"""['"`.]{field}['"`]""", str(message)) is not None


def _generation(model: str) -> tuple[int, int]:
    found = _GENERATION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


@dataclass(frozen=True)
class Said:
    """An answer, read from a dict of either protocol."""

    text: str
    stop: Stop
    tokens: TokenCounts
    model: str
    uses: tuple[ToolUse, ...] = ()
    native: Any = None
    failure: Mapping[str, Any] | None = None  # the server's own, where it answered with one


class Gathering(Protocol):
    """A streamed answer while it comes."""

    @property
    def whole(self) -> Body | None:
        """The answer, once it is whole."""

    def take(self, event: Body) -> str:
        """Takes one event, and gives the text in it that is for the reader."""


class Dialogue(Protocol):
    """One of the two protocols."""

    def body(self, model: str, request: ModelRequest, put: Put, *, stream: bool) -> Body:
        """What is sent."""

    def read(self, answer: Body) -> Said | None:
        """What came; None: it is no answer of this protocol."""

    def gather(self) -> Gathering:
        """For a streamed answer."""


class Responses:
    """The Responses API. Nothing is stored at the vendor's; thoughts travel with the conversation, encrypted."""

    def body(self, model: str, request: ModelRequest, put: Put, *, stream: bool) -> Body:
        items = [_developer(request.system, put), *(i for t in request.turns for i in _items(t, put))]
        body: Body = {"model": model, "input": [i for i in items if i], "max_output_tokens": request.max_tokens}
        body |= _common(request) | {"store": False, "include": ["reasoning.encrypted_content"]}
        if request.tools:
            body["tools"] = [_flat(t) for t in request.tools]
        if stream:
            body["stream"] = True
        if request.schema is not None:
            body |= _text_form(request, put.form)
            if put.form != "json_schema":
                body["input"].append({"role": "user", "content": [{"type": "input_text", "text": asked_for(request.schema)}]})
        return put.kept(body)

    def read(self, answer: Body) -> Said | None:
        output = answer.get("output")
        if not isinstance(output, list):
            return None
        items = [i for i in output if isinstance(i, dict)]
        parts = [p for i in items if i.get("type") == "message" for p in _dicts(i.get("content"))]
        text = "".join(_text(p.get("text")) for p in parts if p.get("type") == "output_text")
        refusal = "".join(_text(p.get("refusal")) for p in parts if p.get("type") == "refusal")
        uses = tuple(_use(i.get("call_id"), i) for i in items if i.get("type") == "function_call")
        failed = answer.get("status") in ("failed", "cancelled")
        return Said(
            text=text or refusal,
            stop=self._stop(answer, refusal=refusal, uses=uses),
            tokens=self._tokens(_dict(answer.get("usage"))),
            model=_text(answer.get("model")),
            uses=uses,
            native={"responses": [i for i in items if i.get("type") != "reasoning" or i.get("encrypted_content")]},
            failure=_dict(answer.get("error")) if failed else None,
        )

    def gather(self) -> Gathering:
        return _Events()

    def _stop(self, answer: Body, *, refusal: str, uses: Sequence[ToolUse]) -> Stop:
        why = _dict(answer.get("incomplete_details")).get("reason")
        if refusal or why == "content_filter":
            return "refused"
        if answer.get("status") == "incomplete":
            return "length"
        return "tools" if uses else "end"

    def _tokens(self, usage: Body) -> TokenCounts:
        given = _dict(usage.get("input_tokens_details"))
        return TokenCounts(
            _count(usage.get("input_tokens")),
            _count(usage.get("output_tokens")),
            _count(given.get("cached_tokens")),
            _count(given.get("cache_write_tokens")),
        )


class _Events:
    """The last event of a streamed response holds all of it."""

    def __init__(self) -> None:
        self.whole: Body | None = None

    def take(self, event: Body) -> str:
        kind = event.get("type")
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self.whole = _dict(event.get("response"))
        return _text(event.get("delta")) if kind == "response.output_text.delta" else ""


class Chat:
    """Chat completions, of OpenAI and of everybody who took them over."""

    def body(self, model: str, request: ModelRequest, put: Put, *, stream: bool) -> Body:
        messages = [m for t in request.turns for m in _messages(t, put)]
        if request.system:
            messages.insert(0, {"role": "system", "content": _content(request.system, put)})
        body: Body = {"model": model, "messages": messages, put.limit: request.max_tokens} | _common(request)
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.schema is not None:
            body |= _response_format(request, put.form)
            if put.form != "json_schema":
                _add(messages, asked_for(request.schema))
        return put.kept(body)

    def read(self, answer: Body) -> Said | None:
        choices = _dicts(answer.get("choices"))
        message = choices[0].get("message") if choices else None
        if not isinstance(message, dict):
            return None
        calls = [c for c in _dicts(message.get("tool_calls")) if isinstance(c.get("function"), dict)]
        uses = tuple(_use(c.get("id"), c["function"]) for c in calls)
        refusal = _text(message.get("refusal"))
        text = _text(message.get("content"))
        if not (isinstance(message.get("content"), str) or refusal or uses or isinstance(choices[0].get("finish_reason"), str)):
            return None  # a filter leaves no content, and thoughts may leave none; a reason to end says that it is an answer
        native = {"role": "assistant", "content": text or refusal or None} | ({"tool_calls": calls} if calls else {})
        return Said(
            text=text or refusal,
            stop=self._stop(choices[0].get("finish_reason"), refusal=refusal, uses=uses),
            tokens=self._tokens(_dict(answer.get("usage"))),
            model=_text(answer.get("model")),
            uses=uses,
            native={"chat": native},
        )

    def gather(self) -> Gathering:
        return _Chunks()

    def _stop(self, why: object, *, refusal: str, uses: Sequence[ToolUse]) -> Stop:
        if refusal or why == "content_filter":
            return "refused"
        return "length" if why == "length" else "tools" if uses else "end"

    def _tokens(self, usage: Body) -> TokenCounts:
        given = _dict(usage.get("prompt_tokens_details"))
        return TokenCounts(
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _count(given.get("cached_tokens")),
            _count(given.get("cache_write_tokens")),
        )


class _Chunks:
    """A streamed completion, put together; it is whole once it said why it ended."""

    def __init__(self) -> None:
        self._frame: Body = {}
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, Body] = {}
        self._finish: str | None = None

    def take(self, event: Body) -> str:
        self._frame |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        said = ""
        for choice in _dicts(event.get("choices"))[:1]:
            delta = _dict(choice.get("delta"))
            said = _text(delta.get("content"))
            self._text.append(said)
            self._refusal.append(_text(delta.get("refusal")))
            for call in _dicts(delta.get("tool_calls")):
                self._call(call)
            self._finish = choice.get("finish_reason") or self._finish
        return said

    def _call(self, part: Body) -> None:
        index = part.get("index")
        begun = {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(index if isinstance(index, int) else len(self._calls), begun)
        function = _dict(part.get("function"))
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] += _text(function.get("name"))
        call["function"]["arguments"] += _text(function.get("arguments"))
        call |= {name: value for name, value in part.items() if name not in ("index", "id", "type", "function")}

    @property
    def whole(self) -> Body | None:
        if self._finish is None:
            return None
        message: Body = {"content": "".join(self._text), "refusal": "".join(self._refusal)}
        message["tool_calls"] = [self._calls[i] for i in sorted(self._calls)]
        return self._frame | {"choices": [{"message": message, "finish_reason": self._finish}]}


def asked_for(schema: Mapping[str, Any]) -> str:
    """What a model is told whose server takes no schema."""
    return f"Answer with one JSON object and nothing else. It must fit this JSON schema: {json.dumps(schema)}"


def _common(request: ModelRequest) -> Body:
    body: Body = {}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.tools:
        body["tools"] = [dict(t) for t in request.tools]
        body["tool_choice"] = {"auto": "auto", "any": "required", "none": "none"}[request.tool_choice]
    if request.cache_key:
        body["prompt_cache_key"] = request.cache_key
    return body


def _flat(tool: Mapping[str, Any]) -> Body:
    """A tool that was rendered for chat completions (Azure's are), as responses take it; they mean strict unless one says no."""
    function = tool.get("function")
    return {"type": "function", "strict": False, **function} if isinstance(function, Mapping) else dict(tool)


def _text_form(request: ModelRequest, form: Form) -> Body:
    if form == "json_schema":
        schema = {"type": form, "name": request.schema_name, "schema": dict(request.schema or {}), "strict": False}
        return {"text": {"format": schema}}
    return {"text": {"format": {"type": form}}} if form == "json_object" else {}


def _response_format(request: ModelRequest, form: Form) -> Body:
    if form == "json_schema":
        schema = {"name": request.schema_name, "schema": dict(request.schema or {}), "strict": False}
        return {"response_format": {"type": form, "json_schema": schema}}
    return {"response_format": {"type": form}} if form == "json_object" else {}


def _developer(blocks: Sequence[Block], put: Put) -> Body | None:
    return {"role": "developer", "content": _parts(blocks, "input_text", put)} if blocks else None


def _items(turn: Turn, put: Put) -> list[Body]:
    if turn.role == "assistant" and isinstance(turn.native, Mapping) and "responses" in turn.native:
        return list(turn.native["responses"])
    made: list[Body] = [{"type": "function_call_output", "call_id": r.id, "output": _result(r)} for r in turn.results]
    if turn.blocks:
        kind = "input_text" if turn.role == "user" else "output_text"
        made.append({"role": turn.role, "content": _parts(turn.blocks, kind, put)})
    made += [{"type": "function_call", "call_id": u.id, "name": u.name, "arguments": _arguments(u)} for u in turn.uses]
    return made


def _messages(turn: Turn, put: Put) -> list[Body]:
    if turn.role == "assistant" and isinstance(turn.native, Mapping) and "chat" in turn.native:
        return [dict(turn.native["chat"])]
    made: list[Body] = [{"role": "tool", "tool_call_id": r.id, "content": _result(r)} for r in turn.results]
    calls = [{"id": u.id, "type": "function", "function": {"name": u.name, "arguments": _arguments(u)}} for u in turn.uses]
    if turn.blocks or calls:
        message: Body = {"role": turn.role, "content": _content(turn.blocks, put) if turn.blocks else None}
        made.append(message | ({"tool_calls": calls} if calls else {}))
    return made


def _content(blocks: Sequence[Block], put: Put) -> str | list[Body]:
    """One text, which every server takes; parts only where a mark needs them."""
    if "prompt_cache_breakpoint" in put.without or not any(b.cache for b in blocks):
        return "\n\n".join(b.text for b in blocks)
    return _parts(blocks, "text", put)


def _parts(blocks: Sequence[Block], kind: str, put: Put) -> list[Body]:
    marks = "prompt_cache_breakpoint" not in put.without and kind != "output_text"
    return [
        {"type": kind, "text": b.text} | ({"prompt_cache_breakpoint": _BREAKPOINT} if b.cache and marks else {}) for b in blocks
    ]


def _add(messages: list[Body], text: str) -> None:
    """One more text for the model; some servers want users and assistants to take turns."""
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        messages[-1] = last | {"content": f"{last['content']}\n\n{text}"}
    else:
        messages.append({"role": "user", "content": text})


def _result(result: ToolResult) -> str:
    return f"The call failed: {result.text}" if result.error else result.text


def _arguments(use: ToolUse) -> str:
    return json.dumps(dict(use.arguments))


def _use(identity: object, function: Body) -> ToolUse:
    written = _text(function.get("arguments"))
    try:
        arguments = json.loads(written or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {UNREADABLE: written}
    return ToolUse(_text(identity), _text(function.get("name")), arguments)


def _dict(value: object) -> Body:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Body]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
