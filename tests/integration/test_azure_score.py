"""Endpoints of Azure AI Foundry, as a large model and as the small one: `/score` in its own format, and chat completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from orchestrator.errors import ModelError
from orchestrator.providers import warm
from orchestrator.providers.chat import ChatRequest, Message
from orchestrator.providers.model import Block, ModelRequest, ToolResult, Turn
from orchestrator.settings import Settings, load_settings
from tests.wire import KEY, MODEL, wire_server
from tests.wire import Turn as Answer

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
REQUEST = ModelRequest((Block("You add."),), (Turn("user", (Block("3 and 4"),)),), "plan", deadline_s=10, max_tokens=50)
SMALL = ChatRequest((Message("system", "You add."), Message("user", "3 and 4")), SCHEMA)


@dataclass
class Endpoint:
    """A running `/score`: what came, and the answers in turn as (status, headers, body)."""

    answers: Sequence[tuple[int, Mapping[str, str], Any]]
    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def settings(self, **more: Any) -> Settings:
        fields = {"planner_provider": "azure-foundry", "azure_foundry_endpoint": self.url, "azure_foundry_key": KEY}
        return load_settings(_env_file=None, **{**fields, **more})


@contextmanager
def endpoint(*answers: tuple[int, Mapping[str, str], Any]) -> Iterator[Endpoint]:
    made = Endpoint(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            made.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            made.keys.append(self.headers.get("Authorization"))
            status, headers, body = answers[min(len(made.seen), len(answers)) - 1]
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/score"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def says(text: str) -> tuple[int, dict[str, str], Any]:
    return 200, {"x-request-id": "r-1"}, {"output": text}


def test_the_format_of_score() -> None:
    with endpoint(says('It is {"sum": 7}.')) as server:
        model = warm.large_model(server.settings())
        reply = asyncio.run(model.ask(replace(REQUEST, schema=SCHEMA, temperature=0.0)))
    assert (reply.value, reply.text, reply.request_id) == ({"sum": 7}, 'It is {"sum": 7}.', "r-1")
    assert reply.tokens.input_tokens == 0  # the format counts none
    sent = server.seen[0]["input_data"]
    assert sent["parameters"] == {"max_new_tokens": 50, "temperature": 0.0, "do_sample": False}
    assert [m["role"] for m in sent["input_string"]] == ["system", "user"]
    assert json.dumps(SCHEMA) in sent["input_string"][1]["content"]
    assert server.keys == [f"Bearer {KEY}"]
    assert (model.provider, model.vendor) == ("azure-foundry", "neutral")


def test_a_stream_comes_as_one_piece_and_tools_are_shown_only() -> None:
    tools = ({"name": "add"},)
    with endpoint(says("Seven.")) as server:
        model = warm.large_model(server.settings())
        pieces: list[str] = []
        asyncio.run(model.ask(replace(REQUEST, tools=tools, tool_choice="none"), on_text=pieces.append))
        assert pieces == ["Seven."]
        assert '{"name": "add"}' in server.seen[0]["input_data"]["input_string"][0]["content"]
        with pytest.raises(ModelError, match="can call no tools") as caught:
            asyncio.run(model.ask(replace(REQUEST, tools=tools)))
        assert (caught.value.sent, len(server.seen)) == (False, 1)
        more = (*REQUEST.turns, Turn("assistant", (Block("Add."),)), Turn("user", results=(ToolResult("1", "add", "7"),)))
        asyncio.run(model.ask(replace(REQUEST, turns=more)))
        assert "Result of add: 7" in json.dumps(server.seen[1])


def test_a_template_that_knows_no_system_gets_one_voice_the_next_time() -> None:
    refused = (424, {"ms-azureml-model-error-statuscode": "400", "ms-azureml-model-error-reason": "no system"}, {})
    with endpoint(refused, says("Seven.")) as server:
        model = warm.large_model(server.settings())
        with pytest.raises(ModelError) as caught:
            asyncio.run(model.ask(REQUEST))
        assert (caught.value.status, caught.value.retryable) == (400, True)
        assert asyncio.run(model.ask(REQUEST)).text == "Seven."
    assert server.seen[1]["input_data"]["input_string"] == [{"role": "user", "content": "You add.\n\n3 and 4"}]


@pytest.mark.parametrize(
    ("status", "headers", "code", "retryable", "pause"),
    [
        (429, {"retry-after": "3"}, "model_limited", True, 3.0),
        (424, {"ms-azureml-model-error-statuscode": "503"}, "model_failed", True, None),
        (401, {}, "model_denied", False, None),
        (307, {"location": "http://127.0.0.1:1/"}, "model_failed", False, None),
    ],
)
def test_refusals(status: int, headers: dict[str, str], code: str, retryable: bool, pause: float | None) -> None:
    with endpoint((status, headers, {"error": KEY})) as server, pytest.raises(ModelError) as caught:
        asyncio.run(warm.large_model(server.settings()).ask(REQUEST))
    error = caught.value
    assert (error.code, error.retryable, error.retry_after_s) == (code, retryable, pause)
    assert KEY not in str(error)


@pytest.mark.parametrize("body", [b"<html>", {"output": 5}, [], b"\xff"])
def test_something_else(body: Any) -> None:
    with endpoint((200, {}, body)) as server, pytest.raises(ModelError) as caught:
        asyncio.run(warm.large_model(server.settings()).ask(REQUEST))
    assert caught.value.code == "model_bad_answer"


def test_the_small_model_of_the_backend_azure() -> None:
    with endpoint((503, {"retry-after-ms": "10"}, {}), says('{"sum": 7}')) as server:
        settings = server.settings(planner_provider=None, small_model_backend="azure", worker_model="phi3")
        model = warm.chat_model(settings)
        assert model.name == f"`phi3` at {server.url}"
        reply = model.ask(SMALL)
        assert reply.value == {"sum": 7}
        assert len(server.seen) == 2
        assert server.seen[0]["input_data"]["parameters"]["temperature"] == 0.0


def test_the_small_model_says_what_is_wrong() -> None:
    with endpoint(says("Seven, I think.")) as server, pytest.raises(ModelError, match="no JSON that fits") as caught:
        warm.chat_model(server.settings(small_model_backend="azure", worker_model="phi3")).ask(SMALL)
    assert caught.value.code == "model_bad_answer"
    with pytest.raises(ModelError, match="no small model is set") as caught:
        warm.chat_model(load_settings(_env_file=None, small_model_backend="azure"))
    assert "AZURE_SMALL_MODEL_ENDPOINT" in str(caught.value.next)


@pytest.mark.parametrize("ends", ["/v1/chat/completions", "/v1", "/", "/v1/chat/completions?api-version=2024-05-01-preview"])
def test_chat_completions_of_a_foundry_endpoint(ends: str) -> None:
    with wire_server("openai-chat", [Answer(value={"sum": 7}, usage=(40, 5, 8))]) as server:
        fields = {"planner_provider": "azure-foundry", "azure_foundry_endpoint": f"{server.root}{ends}", "azure_foundry_key": KEY}
        model = warm.large_model(load_settings(_env_file=None, planner_model=MODEL, **fields))
        reply = asyncio.run(model.ask(replace(REQUEST, schema=SCHEMA)))
        small = warm.chat_model(load_settings(_env_file=None, small_model_backend="azure", worker_model=MODEL, **fields))
        assert small.ask(SMALL).value == {"sum": 7}
    assert (reply.value, reply.tokens.cached_tokens) == ({"sum": 7}, 8)
    assert server.headers[0]["api-key"] == KEY
    assert ("api-version" in server.paths[0]) == ("api-version" in ends)
