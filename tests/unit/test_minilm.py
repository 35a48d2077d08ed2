"""The embedder: meanings, and vectors that depend on nothing but their text."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from orchestrator.errors import ModelError
from orchestrator.providers import warm
from orchestrator.providers.embedder import Embedder
from orchestrator.settings import load_settings


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return warm.embedder()


def test_rows_of_length_one(minilm: Embedder) -> None:
    made = minilm.embed(["milk", "", "a " * 5_000, "übernachtung", "日本"])
    assert made.shape == (5, minilm.dimensions) == (5, 384)
    assert made.dtype == np.float32
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert minilm.embed([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("coffee", "espresso", "screwdriver"),
        ("a bus ticket", "public transport fare", "chicken soup"),
        ("pain killer", "ibuprofen", "garden hose"),
        ("How do I send an e-mail?", "send a message to somebody by mail", "list the files of a folder"),
    ],
)
def test_near_meanings_are_near(minilm: Embedder, text: str, near: str, far: str) -> None:
    first, second, third = minilm.embed([text, near, far])
    assert first @ second > first @ third + 0.15


def test_known_cosines(minilm: Embedder) -> None:
    """Those of the full model, as its authors' library gives them, to what int8 costs."""
    a, b, c = minilm.embed(["That is a happy person", "That is a happy dog", "Today is a sunny day"])
    assert a @ b == pytest.approx(0.695, abs=0.02)
    assert a @ c == pytest.approx(0.257, abs=0.03)


def test_a_row_does_not_depend_on_its_neighbours(minilm: Embedder) -> None:
    texts = [f"{word} {'long ' * n}text {n}" for n, word in enumerate(["tea", "paint", "taxi"] * 15)]
    alone = np.vstack([minilm.embed([text]) for text in texts])
    together = minilm.embed(texts)
    assert np.abs(alone - together).max() < 1e-5
    assert np.array_equal(minilm.embed(texts), together)


def test_one_model_a_process_and_another_after_a_fork(minilm: Embedder) -> None:
    assert warm.embedder() is minilm
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"new" if warm.embedder() is not minilm and len(warm.embedder().embed(["tea"])) else b"old")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 3) == b"new"
    assert warm.embedder() is minilm


def test_importing_the_room_loads_no_model() -> None:
    code = (
        "import sys, orchestrator.providers.warm, orchestrator.providers.chat, orchestrator.providers.embedder;"
        "print([m for m in ('onnxruntime', 'openai', 'tokenizers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "TOOLWEAVER_SMALL_MODEL_URL"),
        ({"small_model_backend": "azure"}, "AZURE_SMALL_MODEL_ENDPOINT"),
    ],
)
def test_a_model_that_is_not_set(values: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError) as caught:
        warm.chat_model(load_settings(_env_file=None, **values))
    assert caught.value.code == "model_not_set"
    assert says in str(caught.value)


def test_models_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_MODEL_BACKEND", "ollama")
    monkeypatch.setenv("WORKER_MODEL", "llama3.2")
    settings = load_settings(_env_file=None)
    assert warm.chat_model(settings).name == "`llama3.2` at http://localhost:11434/v1"
    assert warm.chat_model(settings) is warm.chat_model(load_settings(_env_file=None))
    other = load_settings(_env_file=None, small_model_url="http://127.0.0.1:1/v1", small_model_backend="openai-compatible")
    assert warm.chat_model(other).name == "`llama3.2` at http://127.0.0.1:1/v1"


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "orchestrator.providers.openai_compatible", raising=False)
    with pytest.raises(ModelError) as caught:
        warm.chat_model(load_settings(_env_file=None, small_model_url="http://127.0.0.1:2/v1"))
    assert caught.value.code == "model_missing_package"
    assert "toolweaver[openai]" in str(caught.value)
