"""Which large model the settings mean, the scripted one, the one in process, and what tokens cost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ModelError
from orchestrator.providers import prices, warm
from orchestrator.providers.choice import PROVIDERS, Choice, chosen
from orchestrator.providers.model import Block, ModelRequest, TokenCounts, Turn
from orchestrator.providers.openai_models import retry_hint, seconds
from orchestrator.providers.openai_protocols import Chat, Put, Responses
from orchestrator.providers.scripted import ScriptedModel
from orchestrator.providers.transformers_models import Generated, TransformersModel
from orchestrator.settings import Settings, load_settings

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
REQUEST = ModelRequest((Block("You add."),), (Turn("user", (Block("3 and 4"),)),), "plan")


def of(**fields: Any) -> Settings:
    return load_settings(_env_file=None, **fields)


@pytest.mark.parametrize(
    ("fields", "variable"),
    [
        ({}, "TOOLWEAVER_PLANNER_PROVIDER"),
        ({"planner_provider": "openai"}, "OPENAI_API_KEY"),
        ({"planner_provider": "anthropic"}, "ANTHROPIC_API_KEY"),
        ({"planner_provider": "gemini"}, "GOOGLE_API_KEY"),
        ({"planner_provider": "azure-openai"}, "AZURE_OPENAI_ENDPOINT"),
        ({"planner_provider": "azure-openai", "azure_openai_endpoint": "https://a.example"}, "AZURE_OPENAI_API_KEY"),
        ({"planner_provider": "openai-compatible", "planner_model": "m"}, "TOOLWEAVER_PLANNER_URL"),
        ({"planner_provider": "openai-compatible", "planner_url": "http://h/v1"}, "TOOLWEAVER_PLANNER_MODEL"),
        ({"planner_provider": "azure-foundry"}, "AZURE_SMALL_MODEL_ENDPOINT"),
        ({"planner_provider": "transformers"}, "TOOLWEAVER_PLANNER_MODEL"),
        ({"planner_provider": "scripted"}, "TOOLWEAVER_PLANNER_SCRIPT"),
    ],
)
def test_what_is_missing_is_named(fields: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError) as caught:
        warm.large_model(of(**fields))
    assert caught.value.code == "model_not_set"
    assert variable in str(caught.value.next)


def test_every_provider_with_a_vendor_has_a_default_that_the_table_knows() -> None:
    keys = {"openai_api_key": "k", "anthropic_api_key": "k", "gemini_api_key": "k", "azure_openai_api_key": "k"}
    settings = of(**keys, azure_openai_endpoint="https://a.example")
    for provider in ("openai", "azure-openai", "anthropic", "gemini"):
        choice = chosen(settings, provider=provider)
        assert choice.model
        assert prices.cost_usd(provider, choice.model, TokenCounts(1000, 100)), choice
        assert (prices.window_of(provider, choice.model) or 0) >= 128_000
    with pytest.raises(ModelError, match="no provider `psychic`"):
        chosen(settings, provider="psychic")
    assert set(PROVIDERS) >= {"ollama", "scripted"}


def test_another_provider_than_the_settings_does_not_get_their_model_address_or_key() -> None:
    fields = {"planner_provider": "openai", "planner_model": "gpt-x", "planner_url": "http://h/v1", "planner_key": "secret"}
    settings = of(**fields, anthropic_api_key="theirs")
    other = chosen(settings, provider="anthropic")
    assert (other.url, other.model != "gpt-x") == (None, True)
    assert other.key
    assert other.key.get_secret_value() == "theirs"
    same = chosen(settings, provider="openai")
    assert (same.url, same.model) == ("http://h/v1", "gpt-x")


def test_the_same_settings_give_the_same_model_and_ollama_has_its_address() -> None:
    settings = of(planner_provider="ollama")
    model = warm.large_model(settings)
    assert warm.large_model(of(planner_provider="ollama")) is model
    assert (model.where, model.provider, model.vendor) == ("http://localhost:11434/v1", "ollama", "ollama")
    assert warm.large_model(of(planner_provider="ollama", planner_window=8192)).window == 8192


def test_warm_loads_no_vendor() -> None:
    code = "import sys; import orchestrator.providers.warm; print(*(m for m in ('openai', 'anthropic', 'google.genai', 'genai_prices', 'httpx2') if m in sys.modules))"  # noqa: E501
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == ""


def script(folder: Path, content: Any) -> Path:
    file = folder / "script.json"
    file.write_text(json.dumps(content))
    return file


def test_a_script_answers_in_turn(tmp_path: Path) -> None:
    answers = [
        "Words.",
        {"sum": 7},
        {"value": {"sum": 8}, "tokens": {"input": 100, "cached": 90, "output": 3}},
        {"uses": [{"name": "add", "arguments": {"a": 1}}]},
        {"error": {"code": "model_limited", "status": 429, "retryable": True, "retry_after_s": 1.5}},
        {"text": "cut", "stop": "length"},
    ]
    model = warm.large_model(of(planner_provider="scripted", planner_script=script(tmp_path, answers)))
    request = replace(REQUEST, schema=SCHEMA)

    async def run() -> None:
        pieces: list[str] = []
        words = await model.ask(request, on_text=pieces.append)
        assert (words.text, words.value, "".join(pieces)) == ("Words.", None, "Words.")
        assert words.tokens.input_tokens == 4  # (8 + 7) characters
        assert (await model.ask(request)).value == {"sum": 7}
        third = await model.ask(request)
        assert (third.value, third.tokens) == ({"sum": 8}, TokenCounts(100, 3, 90))
        used = await model.ask(request)
        assert (used.stop, used.uses[0].name, used.uses[0].arguments) == ("tools", "add", {"a": 1})
        with pytest.raises(ModelError) as limited:
            await model.ask(request)
        assert (limited.value.code, limited.value.retryable, limited.value.retry_after_s) == ("model_limited", True, 1.5)
        assert (await model.ask(request)).stop == "length"
        with pytest.raises(ModelError) as ended:
            await model.ask(request)
        assert (ended.value.code, ended.value.sent) == ("model_script_ended", False)

    asyncio.run(run())


def test_a_script_may_begin_anew_or_be_a_function(tmp_path: Path) -> None:
    file = script(tmp_path, {"answers": ["one", "two"], "again": True})
    model = warm.large_model(of(planner_provider="scripted", planner_script=file, planner_model="any"))
    assert [asyncio.run(model.ask(REQUEST)).text for _ in range(3)] == ["one", "two", "one"]
    asked = ScriptedModel(lambda number, request: f"{number}: {request.turns[-1].blocks[0].text}")
    assert asyncio.run(asked.ask(REQUEST)).text == "1: 3 and 4"
    for wrong in ("{}", "no", '[{"delay_s": -1}]'):
        file.write_text(wrong)
        with pytest.raises(ModelError, match="no script of answers"):
            ScriptedModel.of_file(file)


def test_a_scripted_delay_keeps_the_deadline() -> None:
    model = ScriptedModel([{"text": "late", "delay_s": 60}])
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        asyncio.run(model.ask(replace(REQUEST, deadline_s=0.05)))
    assert caught.value.code == "model_timeout"
    assert time.monotonic() - started < 5


class Echo:
    """Writes the last words back: a writer as the library's is, without one."""

    window = 2048

    def __init__(self, **odd: bool) -> None:
        self.odd, self.given = odd, list[dict[str, str]]()

    def write(self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float, within_s: float) -> Generated:
        self.given = list(messages)
        return Generated(f'So: {{"sum": {len(messages)}}}', 12, 5, **self.odd)


def test_a_model_in_this_process() -> None:
    writer = Echo()
    model = TransformersModel(Choice("transformers", "any/model"), writer=writer)
    pieces: list[str] = []
    reply = asyncio.run(model.ask(replace(REQUEST, schema=SCHEMA), on_text=pieces.append))
    assert (reply.value, reply.tokens, model.window) == ({"sum": 2}, TokenCounts(12, 5), 2048)
    assert pieces == [reply.text]
    assert json.dumps(SCHEMA) in writer.given[-1]["content"]
    cut = TransformersModel(Choice("transformers", "any/model"), writer=Echo(cut=True))
    assert asyncio.run(cut.ask(replace(REQUEST, schema=SCHEMA))).stop == "length"
    late = TransformersModel(Choice("transformers", "any/model"), writer=Echo(late=True))
    with pytest.raises(ModelError, match="did not answer") as caught:
        asyncio.run(late.ask(REQUEST))
    assert caught.value.code == "model_timeout"
    with pytest.raises(ModelError, match="can call no tools"):
        asyncio.run(model.ask(replace(REQUEST, tools=({"name": "add"},))))


@pytest.mark.parametrize("make", [warm.large_model, warm.chat_model])
def test_a_missing_package_is_named_with_what_installs_it(make: Callable[[Settings], object]) -> None:
    assert find_spec("torch") is None, "this environment has torch: the test must be run where it is not"
    settings = of(planner_provider="transformers", planner_model="a/b", small_model_backend="transformers", worker_model="a/b")
    with pytest.raises(ModelError) as caught:
        make(settings)
    assert caught.value.code == "model_missing_package"
    assert caught.value.next == "pip install 'toolweaver[transformers]'"


@pytest.fixture
def own_prices() -> Iterator[None]:
    yield
    prices.use(None)


def test_what_tokens_cost_by_the_table() -> None:
    tokens = TokenCounts(1_000_000, 100_000, 500_000)
    assert prices.cost_usd("openai", "gpt-4o-2024-08-06", tokens) == pytest.approx(0.5 * 2.5 + 0.5 * 1.25 + 0.1 * 10)
    assert prices.cost_usd("azure-openai", "gpt-4o", tokens) == prices.cost_usd("openai", "gpt-4o", tokens)
    written = TokenCounts(100_000, 0, 0, 100_000)
    assert prices.cost_usd("anthropic", "claude-sonnet-4-5", written) == pytest.approx(0.1 * 3.75)
    assert prices.cost_usd("openai", "nobody-knows", tokens) is None
    assert prices.cost_usd("scripted", "gpt-4o", tokens) is None  # nobody pays for a script
    assert prices.cost_usd("openai", "gpt-4o", TokenCounts(10, 0, 500)) == pytest.approx(10 * 1.25 / 1e6)  # odd counts
    assert prices.price_source().startswith("genai-prices 0.")
    assert prices.window_of("openai", "nobody-knows") is None


@pytest.mark.usefixtures("own_prices")
def test_what_tokens_cost_by_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "source: our contract\ndate: 2026-11-01\nmodels:\n"
        "  openai/gpt-4o: {input: 1, output: 2, cached: 0.5, cache_write: 3, window: 5000}\n"
        '  "azure-openai/prod-*": {input: 4, output: 8}\n'
        "  my-local-model: {input: 0, output: 0}\n"
    )
    model = warm.large_model(of(planner_provider="ollama", prices_file=file))
    assert model.provider == "ollama"
    million = 1_000_000
    assert prices.cost_usd("openai", "gpt-4o", TokenCounts(3 * million, million, million, million)) == 1 + 2 + 0.5 + 3
    assert prices.cost_usd("azure-openai", "prod-eu", TokenCounts(million, million, million)) == 12
    deployed = ("gpt-4o-2024-08-06", "prod-eu")  # what the server calls it, and its deployment
    assert prices.cost_usd("azure-openai", deployed, TokenCounts(million, million, million)) == 12, "the file goes before the table"
    assert prices.cost_usd("azure-openai", ("gpt-4o", "test-eu"), TokenCounts(million)) == pytest.approx(2.5)
    assert prices.cost_usd("azure-openai", ("no-such", "gpt-4o"), TokenCounts(million)) == pytest.approx(2.5)
    assert prices.cost_usd("ollama", "my-local-model", TokenCounts(million, million)) == 0
    assert prices.cost_usd("openai", "gpt-4o-mini", TokenCounts(million)) == pytest.approx(0.15)  # of the table
    assert prices.window_of("openai", "gpt-4o") == 5000
    assert prices.price_source().startswith("our contract of 2026-11-01, then genai-prices")


@pytest.mark.parametrize("content", ["", "models: 1", "source: a\ndate: b\nmodels: {m: {input: -1, output: 0}}", "{", None])
@pytest.mark.usefixtures("own_prices")
def test_a_file_that_holds_no_prices(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "prices.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ModelError) as caught:
        warm.large_model(of(planner_provider="ollama", prices_file=file))
    assert caught.value.code == "model_bad_prices"


@pytest.mark.parametrize(
    ("said", "meant"),
    [("6m0s", 360.0), ("1.5s", 1.5), ("60ms", 0.06), ("1h2m3s", 3723.0), ("1d", 86400.0), ("10", 10.0), ("", None), ("soon", None)],
)
def test_durations_of_rate_limits(said: str, meant: float | None) -> None:
    assert seconds(said) == meant


def test_hints_of_a_server() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "1s"}
    assert retry_hint(spent | {"x-ratelimit-remaining-tokens": "5"}) == 2.0
    assert retry_hint(spent | {"retry-after": "9"}) == 9.0
    assert retry_hint({}) is None


@pytest.mark.parametrize(
    ("param", "message", "left_out"),
    [
        ("temperature", "Unsupported value", {"temperature"}),
        ("input[0].content[0].prompt_cache_breakpoint", "no", {"prompt_cache_breakpoint"}),
        (None, "Unknown parameter: 'prompt_cache_key'.", {"prompt_cache_key"}),
        (None, "the request is too long, and we store nothing", set()),
        ("store", "no", {"store"}),
    ],
)
def test_only_a_field_that_is_named_is_left_out(param: str | None, message: str, left_out: set[str]) -> None:
    put = Put.of("gpt-6.1-sol", vendor=True)
    request = replace(REQUEST, system=(Block("You add.", cache=True),), temperature=0.0, cache_key="k")
    body = Responses().body("gpt-6.1-sol", request, put, stream=False)
    assert put.learn(body, param=param, message=message, status=400) is bool(left_out)
    assert put.without == left_out
    again = json.dumps(Responses().body("gpt-6.1-sol", request, put, stream=False))
    assert not any(f'"{name}"' in again for name in left_out)


def test_the_older_name_of_the_limit_is_learnt_once() -> None:
    put = Put.of("phi3", vendor=False)
    body = Chat().body("phi3", REQUEST, put, stream=False)
    assert body["max_tokens"] == 4096
    assert put.learn(body, param="max_tokens", message="Use 'max_completion_tokens' instead.", status=400)
    body = Chat().body("phi3", REQUEST, put, stream=False)
    assert (body.get("max_tokens"), body["max_completion_tokens"]) == (None, 4096)
    assert not put.learn(body, param="max_completion_tokens", message="too many", status=400)


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"role": "assistant", "content": None}])
def test_an_answer_that_a_filter_took_was_paid_for(message: dict[str, Any]) -> None:
    """Azure leaves out `content` where it filtered an answer; models that think may send none."""
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    for why, stop in (("content_filter", "refused"), ("stop", "end"), ("length", "length")):
        said = Chat().read({"choices": [{"finish_reason": why, "message": message}], "usage": usage})
        assert said is not None
        assert (said.stop, said.text, said.tokens) == (stop, "", TokenCounts(5, 1))
    assert Chat().read({"choices": [{"message": message}]}) is None


def test_requests_that_were_under_way_learn_from_the_first_refusal() -> None:
    """All of them are refused for the same: each may be sent again, and the form is weakened once."""
    request = replace(REQUEST, schema=SCHEMA, temperature=0.5)
    put = Put.of("some-model", vendor=False)
    body = Chat().body("some-model", request, put, stream=False)
    for param in ("temperature", "max_tokens"):
        assert [put.learn(body, param=param, message="no", status=400) for _ in range(3)] == [True] * 3
        assert put.form == "json_schema"
    assert [put.learn(body, param="response_format", message="no", status=400) for _ in range(3)] == [True] * 3
    assert (put.form, put.limit) == ("json_object", "max_completion_tokens")
    later = Chat().body("some-model", request, put, stream=False)
    assert "temperature" not in later
    assert later["response_format"] == {"type": "json_object"}
