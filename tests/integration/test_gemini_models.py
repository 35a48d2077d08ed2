"""Gemini by Google's SDK against servers that speak its wire format: what is sent, read, and made of every failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.gemini_models import GeminiModel
from orchestrator.providers.model import Block, ModelReply, ModelRequest, TokenCounts, ToolResult, Turn
from tests import chat_server, wire
from tests.services import free_port
from tests.wire import KEY, WireServer, wire_server
from tests.wire.aimock import aimock
from tests.wire.gemini import RETRY_DELAY, parameters

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "integer"}},
    "required": ["total"],
    "additionalProperties": False,
}
OPEN: dict[str, Any] = {"type": "object", "properties": {"input": {"type": "object"}}, "required": ["input"]}
TOOL = {
    "name": "lookup",
    "description": "Looks up.",
    "parameters_json_schema": {"type": "object", "properties": {"id": {"type": "string"}}},
}
SECRET_TEXT = "what the boss earns"


def request(**changes: Any) -> ModelRequest:
    given: dict[str, Any] = {
        "system": (Block("You plan."),),
        "turns": (Turn("user", (Block(SECRET_TEXT),)),),
        "purpose": "plan",
        "deadline_s": 20,
    }
    return ModelRequest(**(given | changes))


@contextmanager
def model(turns: Sequence[wire.Turn]) -> Iterator[tuple[GeminiModel, WireServer]]:
    with wire_server("gemini", turns) as server:
        yield GeminiModel(model="gemini-test", key=SecretStr(KEY), url=server.url), server


async def asked(turn: wire.Turn, of: ModelRequest, *, stream: bool) -> tuple[ModelReply, WireServer, list[str]]:
    said: list[str] = []
    with model([turn]) as (gemini, server):
        reply = await gemini.ask(of, on_text=said.append if stream else None)
        await gemini.close()
    return reply, server, said


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both
async def test_an_answer_in_words_with_its_tokens(stream: bool) -> None:
    turn = wire.Turn(text="forty two, as always", usage=(1000, 8, 600))
    reply, server, said = await asked(turn, request(max_tokens=77, temperature=0.5), stream=stream)
    assert (reply.text, reply.stop, reply.value, reply.uses) == ("forty two, as always", "end", None, ())
    assert reply.tokens == TokenCounts(1000, 8, 600, 0)  # of the 8 two are thoughts
    assert (reply.model, reply.request_id) == ("gemini-test-001", "resp-0001")
    assert "".join(said) == (reply.text if stream else "")
    assert not stream or len(said) > 1
    body = server.seen[0]
    assert body["generationConfig"] == {"maxOutputTokens": 77, "temperature": 0.5}
    assert body["systemInstruction"] == {"parts": [{"text": "You plan."}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": SECRET_TEXT}]}]
    assert set(body) == {"contents", "systemInstruction", "generationConfig"}
    assert server.paths[0].startswith("/v1beta/models/gemini-test:")


@both
async def test_a_schema_is_asked_for_as_it_stands(stream: bool) -> None:
    reply, server, said = await asked(wire.Turn(value={"total": 3}), request(schema=CLOSED), stream=stream)
    assert reply.value == {"total": 3}
    config = server.seen[0]["generationConfig"]
    assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", CLOSED)
    assert json.loads("".join(said) or '{"total": 3}') == {"total": 3}


@both
async def test_a_schema_with_open_objects_is_said_in_words_before_everything(stream: bool) -> None:
    reply, server, _ = await asked(wire.Turn(value={"input": {"any": 1}}), request(schema=OPEN), stream=stream)
    assert reply.value == {"input": {"any": 1}}
    body = server.seen[0]
    assert body["generationConfig"]["responseMimeType"] == "application/json"
    assert "responseJsonSchema" not in body["generationConfig"]
    assert json.dumps(OPEN) in body["systemInstruction"]["parts"][0]["text"]
    assert body["systemInstruction"]["parts"][1] == {"text": "You plan."}


@both
async def test_beside_tools_the_answer_is_the_call_of_one_more(stream: bool) -> None:
    of = request(schema=CLOSED, schema_name="lookup", tools=(TOOL,))
    reply, server, _ = await asked(wire.Turn(value={"total": 3}), of, stream=stream)
    assert (reply.value, reply.stop, reply.uses) == ({"total": 3}, "end", ())
    declared = server.seen[0]["tools"][0]["functionDeclarations"]
    assert [d["name"] for d in declared] == ["lookup", "lookup_"]
    assert parameters(declared[0]) == TOOL["parameters_json_schema"]
    assert server.seen[0]["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    reply, _, _ = await asked(wire.Turn(uses=[("lookup", {"id": "a"})]), of, stream=stream)
    assert (reply.stop, reply.value, [u.name for u in reply.uses]) == ("tools", None, ["lookup"])


async def test_with_no_tool_allowed_only_the_answer_can_be_called() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/any"}, "$defs": {"any": {"type": "object"}}}
    of = request(schema=schema, tools=(TOOL,), tool_choice="none")
    reply, server, _ = await asked(wire.Turn(value=[{"a": 1}]), of, stream=False)
    assert reply.value == [{"a": 1}]
    assert server.seen[0]["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["answer"]}


@both
@pytest.mark.parametrize("schema", [CLOSED, OPEN], ids=["closed", "open"])
async def test_an_answer_that_does_not_fit_is_text_without_a_value(schema: Mapping[str, Any], stream: bool) -> None:
    reply, _, _ = await asked(wire.Turn(value={"other": []}), request(schema=schema), stream=stream)
    assert reply.value is None
    assert json.loads(reply.text) == {"other": []}


@both
@pytest.mark.parametrize(("fault", "stop"), [("length", "length"), ("refusal", "refused")])
@pytest.mark.parametrize("schema", [None, CLOSED, OPEN], ids=["words", "closed", "open"])
async def test_a_paid_answer_that_is_no_whole_one_never_raises(
    fault: wire.base.Fault, stop: str, schema: Mapping[str, Any] | None, stream: bool
) -> None:
    turn = wire.Turn(value={"total": 1, "input": {}}, uses=[("lookup", {"id": "x"})], fault=fault)
    reply, _, _ = await asked(turn, request(schema=schema, tools=(TOOL,)), stream=stream)
    assert (reply.stop, reply.value, reply.uses) == (stop, None, ())
    assert reply.tokens.output_tokens == 20


async def test_a_prompt_that_is_blocked_is_a_refusal() -> None:
    reply, _, _ = await asked(wire.Turn(fault="refusal"), request(), stream=False)
    assert (reply.stop, reply.text, reply.turn and reply.turn.native) == ("refused", "", None)


@both
async def test_a_conversation_with_tools_keeps_ids_and_signatures(stream: bool) -> None:
    turns = [wire.Turn(text="I look.", uses=[("lookup", {"id": "a"}), ("lookup", {"id": "b"})]), wire.Turn(text="done")]
    with model(turns) as (gemini, server):
        first = await gemini.ask(request(tools=(TOOL,)), on_text=(lambda _: None) if stream else None)
        assert (first.stop, first.text) == ("tools", "I look.")
        assert [u.arguments for u in first.uses] == [{"id": "a"}, {"id": "b"}]
        assert first.turn is not None
        kept = Turn("assistant", first.turn.blocks, first.turn.uses, native=json.loads(json.dumps(first.turn.native)))
        results = tuple(ToolResult(u.id, u.name, "found", error=n == 1) for n, u in enumerate(first.uses))
        of = request(tools=(TOOL,), turns=(*request().turns, kept, Turn("user", (Block("go on"),), results=results)))
        assert (await gemini.ask(of)).text == "done"  # the server refuses a call without the signature that it came with
        sent = [p["functionResponse"] for p in server.seen[1]["contents"][2]["parts"][:2]]
        assert [(r["id"], r["name"]) for r in sent] == [(u.id, "lookup") for u in first.uses]
        assert [r["response"] for r in sent] == [{"output": "found"}, {"error": "found"}]
        assert server.seen[1]["contents"][2]["parts"][2] == {"text": "go on"}
        await gemini.close()


@pytest.mark.parametrize("schema", [CLOSED, OPEN], ids=["closed", "open"])
async def test_an_answer_can_be_sent_back_for_repair(schema: Mapping[str, Any]) -> None:
    with model([wire.Turn(value={"no": 1}), wire.Turn(value={"total": 1, "input": {}})]) as (gemini, server):
        first = await gemini.ask(request(schema=schema))
        assert first.turn is not None
        again = request(schema=schema, turns=(*request().turns, first.turn, Turn("user", (Block("not so"),))))
        await gemini.ask(again)
        assert len(server.seen) == 2
        assert json.loads("".join(p["text"] for p in server.seen[1]["contents"][1]["parts"])) == {"no": 1}
        await gemini.close()


async def test_turns_of_another_vendor_are_sent_in_our_own_form() -> None:
    from_claude = Turn("assistant", (Block("yes"),), native={"anthropic": [{"type": "text", "text": "yes"}]})
    _, server, _ = await asked(
        wire.Turn(text="ok"), request(turns=(*request().turns, from_claude, Turn("user", (Block("and"),)))), stream=False
    )
    assert server.seen[0]["contents"][1] == {"role": "model", "parts": [{"text": "yes"}]}


@pytest.mark.parametrize(("choice", "sent"), [("auto", "AUTO"), ("any", "ANY"), ("none", "NONE")])
async def test_the_choice_of_tools(choice: Any, sent: str) -> None:
    _, server, _ = await asked(wire.Turn(text="ok"), request(tools=(TOOL,), tool_choice=choice), stream=False)
    assert server.seen[0]["toolConfig"] == {"functionCallingConfig": {"mode": sent}}


REFUSALS = [
    (401, "model_denied", False),
    (403, "model_denied", False),
    (404, "model_not_found", False),
    (400, "model_bad_request", False),
    (429, "model_limited", True),
    (500, "model_failed", True),
    (503, "model_failed", True),
]


@both
@pytest.mark.parametrize(("status", "code", "retryable"), REFUSALS)
async def test_refusals(status: int, code: str, retryable: bool, stream: bool) -> None:
    turn = wire.Turn(status=status, headers={"retry-after": "7"}, message=f"{KEY} {SECRET_TEXT}")
    with pytest.raises(ModelError) as caught:
        await asked(turn, request(), stream=stream)
    error = caught.value
    assert (error.code, error.retryable, error.status) == (code, retryable, status)
    assert error.retry_after_s == (7.0 if retryable else None)
    said = f"{error} {error.next}"
    assert KEY not in said
    assert SECRET_TEXT not in said


async def test_the_pause_stands_in_the_details() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(status=429, headers={RETRY_DELAY: "37.25"}), request(), stream=False)
    assert (caught.value.code, caught.value.retryable, caught.value.retry_after_s) == ("model_limited", True, 37.25)


async def test_a_quota_of_the_day_is_not_waited_for() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(status=429, code="PerDay"), request(), stream=False)
    assert (caught.value.code, caught.value.retryable) == ("model_limited", False)


async def test_a_key_that_google_does_not_know() -> None:
    with wire_server("gemini", ["never"]) as server:
        gemini = GeminiModel(model="m", key=SecretStr("AIza-wrong"), url=server.url)
        with pytest.raises(ModelError) as caught:
            await gemini.ask(request())
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("model_denied", 401, False)
    assert "AIza" not in str(caught.value)


async def test_an_error_in_the_middle_of_a_stream() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(text="half an answer", code="UNAVAILABLE"), request(), stream=True)
    assert (caught.value.code, caught.value.retryable, caught.value.status) == ("model_failed", True, 503)


FAULTS = [
    ("garbage", "model_bad_answer", False),
    ("truncated", "model_unreachable", True),
    ("drip", "model_timeout", True),
    ("silent", "model_timeout", True),
]


@both
@pytest.mark.parametrize(("fault", "code", "retryable"), FAULTS)
async def test_faults(fault: wire.base.Fault, code: str, retryable: bool, stream: bool) -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(text="x" * 200, fault=fault), request(deadline_s=1), stream=stream)
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == (code, retryable, True)


async def test_one_request_for_one_ask() -> None:
    with model([wire.Turn(status=500)]) as (gemini, server):
        with pytest.raises(ModelError):
            await gemini.ask(request())
        assert len(server.seen) == 1


async def test_nobody_there_is_not_sent() -> None:
    gemini = GeminiModel(model="m", key=SecretStr(KEY), url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ModelError) as caught:
        await gemini.ask(request())
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("model_unreachable", True, False)


async def test_a_redirect_is_not_followed() -> None:
    with wire_server("gemini", [wire.Turn(text="stolen")]) as thief:
        turn = chat_server.Turn(
            text="", status=307, headers={"Location": f"{thief.url}/v1beta/models/m:generateContent"}, body=b"{}"
        )
        with chat_server.chat_server([turn]) as server:
            gemini = GeminiModel(model="m", key=SecretStr(KEY), url=server.url)
            with pytest.raises(ModelError) as caught:
                await gemini.ask(request())
        assert (caught.value.code, thief.seen) == ("model_failed", [])


async def test_a_body_without_end_is_given_up() -> None:
    with chat_server.chat_server([chat_server.Turn(body=b" " * (17 << 20))]) as server:
        gemini = GeminiModel(model="m", key=SecretStr(KEY), url=server.url)
        with pytest.raises(ModelError, match="more than 16 MiB") as caught:
            await gemini.ask(request())
    assert caught.value.code == "model_bad_answer"


async def test_a_key_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ModelError) as caught:
        GeminiModel(model="m", key=SecretStr("AIza-ä"), url="http://localhost")
    assert caught.value.code == "model_not_set"


async def test_a_schema_that_structured_output_does_not_take_is_learned() -> None:
    refusals = [
        wire.Turn(status=400, message="The specified schema produces a constraint that has too many states for serving."),
        wire.Turn(value={"total": 1}),
    ]
    of = request(schema=CLOSED)
    with model(refusals) as (gemini, server):
        with pytest.raises(ModelError) as caught:
            await gemini.ask(of)
        assert (caught.value.code, caught.value.retryable) == ("model_bad_request", True)
        assert (await gemini.ask(of)).value == {"total": 1}
        assert "responseJsonSchema" in server.seen[0]["generationConfig"]
        assert "responseJsonSchema" not in server.seen[1]["generationConfig"]
        assert json.dumps(CLOSED) in server.seen[1]["systemInstruction"]["parts"][0]["text"]
        await gemini.close()


async def test_a_request_that_is_wrong_for_other_reasons_is_not_tried_again() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(status=400, message="prompt is too long"), request(schema=CLOSED), stream=False)
    assert (caught.value.code, caught.value.retryable) == ("model_bad_request", False)


async def test_the_environment_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.setenv(name, "another")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v1another")
    _, server, _ = await asked(wire.Turn(text="ok"), request(), stream=False)
    assert server.headers[0]["x-goog-api-key"] == KEY
    assert "another" not in json.dumps([dict(server.headers[0]), server.paths[0]])
    assert GeminiModel(model="m", key=None).where == "https://generativelanguage.googleapis.com"


async def test_the_address_may_hold_the_version() -> None:
    with wire_server("gemini", ["ok"]) as server:
        gemini = GeminiModel(model="models/m", key=SecretStr(KEY), url=f"{server.url}/v1beta/")
        assert (await gemini.ask(request())).text == "ok"
        await gemini.close()


def test_one_model_in_two_event_loops() -> None:
    with model([wire.Turn(text="ok")]) as (gemini, _):
        assert [asyncio.run(gemini.ask(request())).text for _ in range(2)] == ["ok", "ok"]


async def test_what_on_text_raises_is_its_own() -> None:
    def breaks(_: str) -> None:
        raise ValueError("mine")

    with model([wire.Turn(text="ok")]) as (gemini, _):
        with pytest.raises(ValueError, match="mine"):
            await gemini.ask(request(), on_text=breaks)
        await gemini.close()


@pytest.mark.timeout(400)
async def test_a_published_server_and_ours_are_understood_alike(tmp_path: Path) -> None:
    usage = {"usage": {"input_tokens": 12, "output_tokens": 3, "prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}
    fixtures = [
        {"match": {"userMessage": "in words"}, "response": {"content": "One two three."} | usage},
        {"match": {"userMessage": "as JSON"}, "response": {"content": '{"total": 7}'} | usage},
        {"match": {"userMessage": "by a tool"}, "response": {"toolCalls": [{"name": "lookup", "arguments": {"id": "x"}}]} | usage},
    ]
    turns = {
        "in words": wire.Turn(text="One two three.", usage=(12, 3, 0)),
        "as JSON": wire.Turn(value={"total": 7}, usage=(12, 3, 0)),
        "by a tool": wire.Turn(uses=[("lookup", {"id": "x"})], usage=(12, 3, 0)),
    }

    def ours(number: int, body: dict[str, Any]) -> wire.Turn:
        return next(turn for words, turn in turns.items() if words in json.dumps(body))

    with aimock(fixtures, tmp_path) as url, wire_server("gemini", ours) as server:
        assert await _understood(url) == await _understood(server.url)


async def _understood(url: str) -> list[Any]:
    """What is made of a server that knows three requests."""
    gemini, found = GeminiModel(model="gemini-2.5-pro", key=SecretStr(KEY), url=url), []
    for words, more in (("in words", {}), ("as JSON", {"schema": CLOSED}), ("by a tool", {"tools": (TOOL,)})):
        for stream in (False, True):
            said: list[str] = []
            of = request(turns=(Turn("user", (Block(words),)),), **more)
            reply = await gemini.ask(of, on_text=said.append if stream else None)
            assert "".join(said) == (reply.text if stream else "")
            uses = [(u.name, dict(u.arguments)) for u in reply.uses]
            found.append((stream, reply.text, reply.value, reply.stop, reply.tokens, uses))
    await gemini.close()
    return found
