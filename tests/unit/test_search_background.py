"""Vectors of tools are made where a core has nothing else to do, and also where none ever has."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.providers.embedder import Vectors
from orchestrator.providers.minilm import MiniLM
from orchestrator.tool_search import background
from orchestrator.tool_search.background import PART, STARVED, _Patient


class Watched:
    """A model that tells in which thread, at which policy, it made how many rows; `slow_s`: it gets no core for so long."""

    name, dimensions = "watched/1", 2

    def __init__(self, *, slow_s: float = 0.0) -> None:
        self.slow_s, self.made = slow_s, list[tuple[str, int, int]]()

    def embed(self, texts: Sequence[str]) -> Vectors:
        policy = os.sched_getscheduler(0) if sys.platform == "linux" else 0
        self.made.append((threading.current_thread().name, policy, len(texts)))
        threading.Event().wait(self.slow_s)
        return np.array([[len(t), 1] for t in texts], np.float32)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Patient, "_impatient_until", 0.0)


def test_the_rows_are_those_of_the_model() -> None:
    texts = [f"tool {n} reads {'very ' * (n % 7)}long records" for n in range(2 * PART + 3)]
    model = MiniLM()
    assert np.allclose(_Patient(model).embed(texts), model.embed(texts), atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
def test_only_the_thread_that_makes_vectors_is_put_behind_everything() -> None:
    model = Watched()
    background._when_idle().submit(_Patient(model)._model.embed, ["a"]).result()
    assert model.made[0][1] == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_where_no_core_is_ever_idle_it_works_like_others_for_a_while() -> None:
    model = Watched(slow_s=0.05)  # of which it computes nothing: less than STARVED of a core
    texts = ["x" * n for n in range(3 * PART)]
    found = _Patient(model).embed(texts)
    assert found[:, 0].tolist() == [float(n) for n in range(3 * PART)]
    assert [n for _, _, n in model.made] == [PART] * 3
    threads = [name for name, _, _ in model.made]
    assert threads[0].startswith("idle"), f"the first part waits for an idle core; {STARVED} of one is enough"
    assert threads[1:] == [threading.current_thread().name] * 2
