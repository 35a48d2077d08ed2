"""The OpenAI-compatible provider: the vendor's SDK over real sockets, against a local server with the vendors' moods."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Sequence
from email.utils import formatdate

import pytest
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.chat import ChatRequest, Message, Reply
from orchestrator.providers.openai_compatible import OpenAICompatible
from tests.chat_server import ChatServer, Turn, chat_server, error

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
KEY = "sk-very-secret-0123456789"
PROMPT = "the prompt of a private letter"
REQUEST = ChatRequest((Message("system", "You name colours."), Message("user", PROMPT)), SCHEMA, name="colour")
RED = Turn('{"colour": "red"}')


def model(server: ChatServer, **options: float) -> OpenAICompatible:
    return OpenAICompatible(url=server.url, model="phi3", key=SecretStr(KEY), timeout_s=options.pop("timeout_s", 10), **options)  # type: ignore[arg-type]


def ask(turns: Sequence[Turn], **options: float) -> tuple[Reply, ChatServer]:
    with chat_server(turns) as server:
        return model(server, **options).ask(REQUEST), server


def failure(turns: Sequence[Turn], **options: float) -> tuple[ModelError, ChatServer]:
    with chat_server(turns) as server, pytest.raises(ModelError) as caught:
        model(server, **options).ask(REQUEST)
    return caught.value, server


def test_a_request_and_its_answer() -> None:
    usage = {
        "prompt_tokens": 40,
        "completion_tokens": 5,
        "total_tokens": 45,
        "prompt_tokens_details": {"cached_tokens": 32, "audio_tokens": 0},
    }
    reply, server = ask([Turn('{"colour": "red"}', usage=usage)])
    assert reply.value == {"colour": "red"}
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (40, 5, 32)
    assert reply.model == "phi3-2026"
    (sent,) = server.seen
    assert sent["model"] == "phi3"
    assert sent["temperature"] == 0
    assert [m["content"] for m in sent["messages"]] == ["You name colours.", PROMPT]
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True},
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_without_usage_there_are_no_tokens() -> None:
    reply, _ = ask([RED])
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (0, 0, 0)


def test_without_a_key_the_environments_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    with chat_server([RED]) as server:
        OpenAICompatible(url=server.url, model="phi3").ask(REQUEST)
    assert server.headers[0]["authorization"] == "Bearer none"
    assert "org-private" not in str(server.headers)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"colour": "red"}\n```',
        'Sure! Here it is: {"colour": "red"} Anything else?',
        '<think>{"colour": "blue"}, or not?</think>\n{"colour": "red"}',
        '{"thought": 1}\n{"colour": "red"}',
    ],
)
def test_json_is_found_in_prose(text: str) -> None:
    reply, _ = ask([Turn(text)])
    assert reply.value == {"colour": "red"}


@pytest.mark.parametrize("refusal", [error(400), error(422), error(501), Turn("I like red."), Turn('{"colour": "green"}')])
def test_a_server_that_knows_no_schema_is_asked_otherwise_and_that_is_remembered(refusal: Turn) -> None:
    with chat_server([refusal, RED, RED]) as server:
        ours = model(server, retries=0)
        assert ours.ask(REQUEST).value == {"colour": "red"}
        ours.ask(REQUEST)
    assert server.forms == ["json_schema", "json_object", "json_object"]
    assert json.dumps(SCHEMA) in server.seen[1]["messages"][-1]["content"]


def test_the_last_form_is_plain_text() -> None:
    with chat_server([error(400), error(400), Turn('```\n{"colour": "blue"}```')]) as server:
        assert model(server).ask(REQUEST).value == {"colour": "blue"}
    assert server.forms == ["json_schema", "json_object", "text"]


def test_a_form_that_failed_is_not_remembered_when_none_did() -> None:
    with chat_server([error(400), error(400), error(400), RED]) as server:
        ours = model(server)
        with pytest.raises(ModelError):
            ours.ask(REQUEST)
        ours.ask(REQUEST)
    assert server.forms[-1] == "json_schema"


def test_newer_models_name_the_limit_otherwise_and_take_no_temperature() -> None:
    turns = [
        error(400, "unsupported_parameter", param="max_tokens"),
        error(400, "unsupported_value", param="temperature"),
        RED,
        RED,
    ]
    with chat_server(turns) as server:
        ours = model(server)
        ours.ask(REQUEST)
        ours.ask(REQUEST)
    for sent in server.seen[2:]:
        assert "max_completion_tokens" in sent
        assert not {"max_tokens", "temperature"} & sent.keys()
    assert set(server.forms) == {"json_schema"}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(status: int) -> None:
    reply, server = ask([error(status, retry_after_ms="10"), RED])
    assert reply.value == {"colour": "red"}
    assert len(server.seen) == 2


def test_tries_are_bounded() -> None:
    caught, server = failure([error(503, retry_after_ms="5")], retries=2)
    assert len(server.seen) == 3
    assert caught.retryable
    assert caught.status == 503


@pytest.mark.parametrize("after", ["0.3", "date"])
def test_the_servers_hint_is_kept(after: str) -> None:
    started = time.monotonic()
    if after == "date":
        after = formatdate(time.time() + 2, usegmt=True)  # whole seconds: 1 to 2 from now
    ask([error(429, retry_after=after), RED])
    assert 0.29 <= time.monotonic() - started < 4


def test_a_hint_beyond_the_deadline_is_not_waited_for() -> None:
    started = time.monotonic()
    caught, server = failure([error(429, "rate_limit_exceeded", retry_after="30")], timeout_s=5)
    assert time.monotonic() - started < 2
    assert (caught.code, caught.retryable, caught.retry_after_s) == ("model_limited", True, 30)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (error(401, "invalid_api_key", message=f"Incorrect API key provided: {KEY}"), "model_denied"),
        (error(403), "model_denied"),
        (error(404, "model_not_found"), "model_not_found"),
        (error(429, "insufficient_quota"), "model_limited"),
        (error(500, x_should_retry="false"), "model_failed"),
        (Turn(finish="length", text='{"colour": "re'), "model_cut_off"),
        (Turn(refusal="I cannot help with that."), "model_refused"),
        (Turn(finish="content_filter", text=""), "model_refused"),
        (Turn(status=307, headers={"Location": "http://127.0.0.1:1/"}, body=b"{}"), "model_failed"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(turn: Turn, code: str) -> None:
    caught, server = failure([turn])
    assert (caught.code, caught.retryable) == (code, False)
    tries = len(server.seen)
    assert tries <= (3 if turn.status == 500 else 1)  # a server may break over a form that it does not know
    assert len(set(server.forms)) == tries


@pytest.mark.parametrize(
    "turn",
    [
        Turn(body=b'{"id": "chatcmpl-1", "choices": [{"message": {"content": "{'),
        Turn(body=b"<html>502</html>"),
        Turn(body=b"[]"),
        Turn(body=b"null"),
        Turn(body=b'{"choices": []}'),
        Turn(body=b'{"choices": [{"message": null}]}'),
        Turn(body=b'{"choices": "none"}'),
        Turn(body=b"[" * 100_000),
        Turn(text=None),
        Turn('{"colour": 3}'),
        Turn("{" * 5_000),
        Turn(body=b" " * (5 << 20)),
    ],
)
def test_garbage_is_a_bad_answer(turn: Turn) -> None:
    caught, _ = failure([turn])
    assert caught.code == "model_bad_answer"


@pytest.mark.parametrize("turn", [Turn(silent=True), Turn(drips=True)], ids=["silent", "drips"])
def test_the_deadline_holds(turn: Turn) -> None:
    started = time.monotonic()
    caught, _ = failure([turn], timeout_s=0.5)
    assert time.monotonic() - started < 2
    assert (caught.code, caught.retryable) == ("model_timeout", True)
    assert "0.5 s" in caught.message


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        ours = OpenAICompatible(url=f"http://user:{KEY}@127.0.0.1:{taken.getsockname()[1]}/v1?key={KEY}", model="phi3", retries=0)
        with pytest.raises(ModelError) as caught:
            ours.ask(REQUEST)
    assert (caught.value.code, caught.value.retryable) == ("model_unreachable", True)
    assert KEY not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    "turn",
    [
        error(401, KEY, message=f"Incorrect API key provided: {KEY}"),
        error(400, message=f"cannot parse {PROMPT}"),
        error(500, message=PROMPT),
        Turn(f"I will not answer {PROMPT} with {KEY}"),
        RED,
    ],
)
def test_keys_and_prompts_are_in_no_error_and_no_log(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with chat_server([turn]) as server:
        ours = model(server, retries=0)
        try:
            ours.ask(REQUEST)
        except ModelError as caught:
            logging.getLogger("test").exception("failed: %s %r %s", caught, caught, caught.problems)
        logging.getLogger("test").info("%r %s", ours, ours.name)
    logged = "\n".join(logging.Formatter().format(r) for r in caplog.records)
    assert KEY not in logged
    assert PROMPT not in logged


# -- servers and settings that are worse than slow


def served(*chunks: bytes, every_s: float) -> str:
    """The address of a server that answers one request by these bytes, then says nothing more."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with listening, connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(every_s)
            while connection.recv(65_536):
                pass  # what is left of the request, until the other side goes

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


ANY = ChatRequest((Message("user", "x"),), {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]})
OK, FAILED = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n", b"HTTP/1.1 500 Oops\r\nContent-Length: 999\r\n"


@pytest.mark.parametrize(
    "chunks", [(OK, *[b"X: y\r\n"] * 100), (FAILED + b"\r\n", *[b" "] * 100), (b"HTTP/1.1", b" 200 OK\r\n\r\n{")],
    ids=["heads without end", "an error that drips", "silent in the middle"],
)  # fmt: skip
def test_the_deadline_holds_whatever_drips(chunks: tuple[bytes, ...]) -> None:
    url, began = served(*chunks, every_s=0.1), time.monotonic()
    with pytest.raises(ModelError) as caught:
        OpenAICompatible(url=url, model="m", timeout_s=0.6, retries=0).ask(ANY)
    assert caught.value.code == "model_timeout"
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize("url", ["", "host:8000", "ftp://host/v1", "http://host:99999/v1", "http://[::1/v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ModelError) as caught:
        OpenAICompatible(url=url, model="m")
    assert caught.value.code == "model_not_set"


def test_a_key_that_no_header_can_hold_is_not_quoted() -> None:
    with pytest.raises(ModelError) as caught:
        OpenAICompatible(url="http://host/v1", model="m", key=SecretStr("sk-sécret"))
    assert caught.value.code == "model_not_set"
    assert "cret" not in str(caught.value)


def test_the_line_break_of_a_file_of_secrets_is_no_part_of_the_key() -> None:
    with chat_server([Turn(text='{"a": 1}')]) as server:
        OpenAICompatible(url=server.url, model="m", key=SecretStr("sk-abc\n")).ask(ANY)
        assert server.headers[0]["authorization"] == "Bearer sk-abc"


@pytest.mark.parametrize(
    "text", ['{"a": ' + "1" * 5_000 + "}", '{"a": NaN}', '{"a": Infinity}', "<think>" * 28_000, '{"a":' * 40_000]
)
def test_an_answer_made_to_break_its_reader(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        read_answer(text, ANY.schema)
    assert caught.value.code == "model_bad_answer"
    assert time.monotonic() - began < 1
