"""Claude by the vendor's SDK against servers that speak its wire format: what is sent, read, and made of every failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.anthropic_models import AnthropicModel
from orchestrator.providers.model import Block, ModelReply, ModelRequest, TokenCounts, ToolResult, Turn
from tests import chat_server, wire
from tests.services import free_port
from tests.wire import KEY, WireServer, wire_server
from tests.wire.aimock import aimock

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "integer"}},
    "required": ["total"],
    "additionalProperties": False,
}
OPEN: dict[str, Any] = {"type": "object", "properties": {"input": {"type": "object"}}, "required": ["input"]}
TOOL = {"name": "lookup", "description": "Looks up.", "input_schema": {"type": "object", "properties": {"id": {"type": "string"}}}}
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
def model(turns: Sequence[wire.Turn]) -> Iterator[tuple[AnthropicModel, WireServer]]:
    with wire_server("anthropic", turns) as server:
        yield AnthropicModel(model="claude-test", key=SecretStr(KEY), url=server.url), server


async def asked(turn: wire.Turn, of: ModelRequest, *, stream: bool) -> tuple[ModelReply, WireServer, list[str]]:
    said: list[str] = []
    with model([turn]) as (claude, server):
        reply = await claude.ask(of, on_text=said.append if stream else None)
        await claude.close()
    return reply, server, said


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both
async def test_an_answer_in_words_with_its_tokens(stream: bool) -> None:
    turn = wire.Turn(text="forty two, as always", usage=(1000, 7, 600), written=300)
    reply, server, said = await asked(turn, request(max_tokens=77, temperature=0.5), stream=stream)
    assert (reply.text, reply.stop, reply.value, reply.uses) == ("forty two, as always", "end", None, ())
    assert reply.tokens == TokenCounts(1000, 7, 600, 300)
    assert reply.model == "claude-test-20261021"
    assert reply.request_id == "req_0001"
    assert "".join(said) == (reply.text if stream else "")
    assert not stream or len(said) > 1
    body = server.seen[0]
    assert (body["model"], body["max_tokens"]) == ("claude-test", 77)
    assert "temperature" not in body
    assert body["system"] == [{"type": "text", "text": "You plan."}]
    assert "tools" not in body
    assert "tool_choice" not in body


@both
async def test_a_schema_that_the_api_takes_is_asked_for_as_it_stands(stream: bool) -> None:
    reply, server, said = await asked(wire.Turn(value={"total": 3}), request(schema=CLOSED), stream=stream)
    assert reply.value == {"total": 3}
    assert server.seen[0]["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    assert json.loads("".join(said) or '{"total": 3}') == {"total": 3}


@both
async def test_a_schema_with_open_objects_is_the_input_of_a_tool(stream: bool) -> None:
    reply, server, said = await asked(
        wire.Turn(value={"input": {"any": 1}}), request(schema=OPEN, schema_name="plan"), stream=stream
    )
    assert reply.value == {"input": {"any": 1}}
    assert (reply.stop, reply.uses) == ("end", ())
    body = server.seen[0]
    assert body["tool_choice"] == {"type": "tool", "name": "plan"}
    assert [t["input_schema"] for t in body["tools"]] == [OPEN]
    assert json.loads("".join(said) or "null") == ({"input": {"any": 1}} if stream else None)


async def test_a_list_is_wrapped_for_the_tool_and_unwrapped_for_us() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/any"}, "$defs": {"any": {"type": "object"}}}
    reply, server, _ = await asked(wire.Turn(value=[{"a": 1}]), request(schema=schema), stream=False)
    assert reply.value == [{"a": 1}]
    assert server.seen[0]["tools"][0]["input_schema"]["$defs"] == schema["$defs"]


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


@both
async def test_a_conversation_with_tools_keeps_ids_and_signed_thoughts(stream: bool) -> None:
    turns = [wire.Turn(text="I look.", uses=[("lookup", {"id": "a"}), ("lookup", {"id": "b"})]), wire.Turn(text="done")]
    with model(turns) as (claude, server):
        first = await claude.ask(request(tools=(TOOL,)), on_text=(lambda _: None) if stream else None)
        assert first.stop == "tools"
        assert [u.arguments for u in first.uses] == [{"id": "a"}, {"id": "b"}]
        assert first.turn is not None
        results = tuple(ToolResult(u.id, u.name, "found", error=n == 1) for n, u in enumerate(first.uses))
        signed = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
        native = Turn(
            "assistant", first.turn.blocks, first.turn.uses, native={"anthropic": [signed, *first.turn.native["anthropic"]]}
        )
        asked_again = request(tools=(TOOL,), turns=(*request().turns, native, Turn("user", (Block("go on"),), results=results)))
        assert (await claude.ask(asked_again)).text == "done"
        sent = server.seen[1]["messages"]
        assert sent[1]["content"][0] == signed
        assert [b["id"] for b in sent[1]["content"] if b["type"] == "tool_use"] == [u.id for u in first.uses]
        assert [(b["tool_use_id"], b.get("is_error", False)) for b in sent[2]["content"][:2]] == [
            (first.uses[0].id, False),
            (first.uses[1].id, True),
        ]
        assert sent[2]["content"][2] == {"type": "text", "text": "go on"}
        await claude.close()


@pytest.mark.parametrize("schema", [CLOSED, OPEN], ids=["closed", "open"])
async def test_an_answer_can_be_sent_back_for_repair(schema: Mapping[str, Any]) -> None:
    with model([wire.Turn(value={"no": 1}), wire.Turn(value={"total": 1, "input": {}})]) as (claude, server):
        first = await claude.ask(request(schema=schema))
        assert first.turn is not None
        again = request(schema=schema, turns=(*request().turns, first.turn, Turn("user", (Block("not so"),))))
        await claude.ask(again)
        assert len(server.seen) == 2
        assert json.loads(server.seen[1]["messages"][1]["content"][0]["text"]) == {"no": 1}
        await claude.close()


async def test_turns_of_another_vendor_are_sent_in_our_own_form() -> None:
    from_gemini = Turn("assistant", (Block("yes"),), native={"gemini": [{"text": "yes"}]})
    _, server, _ = await asked(
        wire.Turn(text="ok"), request(turns=(*request().turns, from_gemini, Turn("user", (Block("and"),)))), stream=False
    )
    assert server.seen[0]["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}


async def test_at_most_four_cache_marks_and_the_last_ones_win() -> None:
    marked = {**TOOL, "cache_control": {"type": "ephemeral"}}
    system = tuple(Block(f"part {n}", cache=n != 2) for n in range(4))
    turns = (Turn("user", (Block("q", cache=True), Block("r"))),)
    _, server, _ = await asked(wire.Turn(text="ok"), request(tools=(marked,), system=system, turns=turns), stream=False)
    body = server.seen[0]
    assert "cache_control" not in body["tools"][0]
    assert ["cache_control" in b for b in body["system"]] == [True, True, False, True]
    assert ["cache_control" in b for b in body["messages"][0]["content"]] == [True, False]
    assert marked["cache_control"] == {"type": "ephemeral"}  # the caller's own is left alone


@pytest.mark.parametrize(("choice", "sent"), [("auto", "auto"), ("any", "any"), ("none", "none")])
async def test_the_choice_of_tools(choice: Any, sent: str) -> None:
    _, server, _ = await asked(wire.Turn(text="ok"), request(tools=(TOOL,), tool_choice=choice), stream=False)
    assert server.seen[0]["tool_choice"] == {"type": sent}


REFUSALS = [
    (401, "model_denied", False),
    (402, "model_denied", False),
    (403, "model_denied", False),
    (404, "model_not_found", False),
    (413, "model_bad_request", False),
    (429, "model_limited", True),
    (500, "model_failed", True),
    (529, "model_failed", True),
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


async def test_a_limit_says_when_it_is_full_again_though_no_pause_is_named() -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 40))
    headers = {"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": moment}
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(status=429, headers=headers), request(), stream=False)
    assert caught.value.retry_after_s is not None
    assert 30 < caught.value.retry_after_s < 41


async def test_an_error_in_the_middle_of_a_stream() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(text="half an answer", code="overloaded_error"), request(), stream=True)
    assert (caught.value.code, caught.value.retryable, caught.value.status) == ("model_failed", True, 529)


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
    with model([wire.Turn(status=500)]) as (claude, server):
        with pytest.raises(ModelError):
            await claude.ask(request())
        assert len(server.seen) == 1


async def test_nobody_there_is_not_sent() -> None:
    claude = AnthropicModel(model="m", key=SecretStr(KEY), url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ModelError) as caught:
        await claude.ask(request())
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("model_unreachable", True, False)


async def test_a_redirect_is_not_followed() -> None:
    with wire_server("anthropic", [wire.Turn(text="stolen")]) as thief:
        turn = chat_server.Turn(text="", status=307, headers={"Location": f"{thief.url}/v1/messages"}, body=b"{}")
        with chat_server.chat_server([turn]) as server:
            claude = AnthropicModel(model="m", key=SecretStr(KEY), url=server.url)
            with pytest.raises(ModelError) as caught:
                await claude.ask(request())
        assert (caught.value.code, thief.seen) == ("model_failed", [])


async def test_a_body_without_end_is_given_up() -> None:
    with chat_server.chat_server([chat_server.Turn(body=b" " * (17 << 20))]) as server:
        claude = AnthropicModel(model="m", key=SecretStr(KEY), url=server.url)
        with pytest.raises(ModelError, match="more than 16 MiB") as caught:
            await claude.ask(request())
    assert caught.value.code == "model_bad_answer"


async def test_a_key_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ModelError) as caught:
        AnthropicModel(model="m", key=SecretStr("sk-ä"), url="http://localhost")
    assert caught.value.code == "model_not_set"


async def test_a_schema_that_structured_output_does_not_take_is_learned() -> None:
    refusals = [
        wire.Turn(status=400, message="output_config.format: Schema is too complex"),
        wire.Turn(value={"total": 1}),
    ]
    of = request(schema=CLOSED)
    with model(refusals) as (claude, server):
        with pytest.raises(ModelError) as caught:
            await claude.ask(of)
        assert (caught.value.code, caught.value.retryable) == ("model_bad_request", True)
        assert (await claude.ask(of)).value == {"total": 1}
        assert "output_config" not in server.seen[1]
        assert server.seen[1]["tool_choice"]["type"] == "tool"
        await claude.close()


async def test_a_request_that_is_wrong_for_other_reasons_is_not_tried_again() -> None:
    with pytest.raises(ModelError) as caught:
        await asked(wire.Turn(status=400, message="prompt is too long"), request(schema=CLOSED), stream=False)
    assert (caught.value.code, caught.value.retryable) == ("model_bad_request", False)


async def test_the_environment_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-another")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-another")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: another\nAuthorization: Bearer another\nX-Leak: another")
    _, server, _ = await asked(wire.Turn(text="ok"), request(), stream=False)
    sent = server.headers[0]
    assert sent["authorization"] == f"Bearer {KEY}"
    assert "another" not in json.dumps(dict(sent))
    assert not {"x-leak", "x-api-key"} & set(sent)
    assert AnthropicModel(model="m", key=None).where == "https://api.anthropic.com"


def test_one_model_in_two_event_loops() -> None:
    with model([wire.Turn(text="ok")]) as (claude, _):
        assert [asyncio.run(claude.ask(request())).text for _ in range(2)] == ["ok", "ok"]


async def test_what_on_text_raises_is_its_own() -> None:
    def breaks(_: str) -> None:
        raise ValueError("mine")

    with model([wire.Turn(text="ok")]) as (claude, _):
        with pytest.raises(ValueError, match="mine"):
            await claude.ask(request(), on_text=breaks)
        await claude.close()


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

    with aimock(fixtures, tmp_path) as url, wire_server("anthropic", ours) as server:
        assert await _understood(url) == await _understood(server.url)


async def _understood(url: str) -> list[Any]:
    """What is made of a server that knows three requests."""
    claude, found = AnthropicModel(model="claude-haiku-4-5", key=SecretStr(KEY), url=url), []
    for words, more in (("in words", {}), ("as JSON", {"schema": CLOSED}), ("by a tool", {"tools": (TOOL,)})):
        for stream in (False, True):
            said: list[str] = []
            of = request(turns=(Turn("user", (Block(words),)),), **more)
            reply = await claude.ask(of, on_text=said.append if stream else None)
            assert "".join(said) == (reply.text if stream else "")
            uses = [(u.name, dict(u.arguments)) for u in reply.uses]
            found.append((stream, reply.text, reply.value, reply.stop, reply.tokens, uses))
    await claude.close()
    return found
