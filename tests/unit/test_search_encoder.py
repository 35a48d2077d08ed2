"""The encoder of queries: batches, deadlines, and a search that goes on without it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ModelError
from orchestrator.providers.embedder import Vectors
from orchestrator.providers.minilm import MiniLM
from orchestrator.tool_search.encoder import ABSENT, CHARACTERS, LATE, Encoded, Encoder


class Gated:
    """A model that works when it is let to, and tells what it was given."""

    name, dimensions = "gated/1", 4

    def __init__(self) -> None:
        self.gate, self.batches = threading.Event(), list[list[str]]()
        self.broken = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        assert self.gate.wait(20), "nobody opened the gate"
        self.batches.append(list(texts))
        if self.broken:
            raise ValueError("no")
        return np.stack([np.full(4, len(t) % 7, np.float32) for t in texts])


def run(encoder: Encoder, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        return asyncio.run(body())
    finally:
        encoder.stop()


def test_the_packaged_model_makes_vectors_once() -> None:
    encoder = Encoder(MiniLM)

    async def body() -> tuple[Encoded, Encoded]:
        first = await encoder.encode(["weather", "mail", "weather"], deadline_s=30)
        return first, await encoder.encode(["mail"], deadline_s=0)

    first, again = run(encoder, body)
    assert first.degraded is None
    assert [v.shape for v in first.vectors] == [(384,)] * 3
    assert np.array_equal(first.vectors[0], first.vectors[2])
    assert np.array_equal(again.vectors[0], first.vectors[1]), "it was kept: no deadline is too short"


def test_who_waits_too_long_goes_on_without_and_the_next_one_has_it() -> None:
    model = Gated()
    encoder = Encoder(lambda: model)

    async def body() -> tuple[Encoded, Encoded]:
        late = await encoder.encode(["a"], deadline_s=0.02)
        model.gate.set()
        return late, await encoder.encode(["a"], deadline_s=10)

    late, then = run(encoder, body)
    assert late == Encoded((None,), LATE)
    assert then.degraded is None
    assert then.vectors[0] is not None
    assert sum(batch.count("a") for batch in model.batches) <= 2


def test_what_comes_at_once_is_one_batch() -> None:
    model = Gated()
    encoder = Encoder(lambda: model)

    async def body() -> list[Encoded]:
        asked = [asyncio.create_task(encoder.encode([f"text {n}"], deadline_s=20)) for n in range(9)]
        await asyncio.sleep(0)
        await asyncio.to_thread(model.gate.set)
        return list(await asyncio.gather(*asked))

    answers = run(encoder, body)
    assert all(a.degraded is None for a in answers)
    assert len(model.batches) <= 3


def test_without_a_model_searches_go_on_and_say_why() -> None:
    tried = []

    def load() -> Gated:
        tried.append(1)
        raise ModelError("the package `onnxruntime` is not installed")

    encoder = Encoder(load)

    async def body() -> list[Encoded]:
        return [await encoder.encode([text], deadline_s=10) for text in "abc"]

    answers = run(encoder, body)
    assert all(a.vectors == (None,) for a in answers)
    assert answers[0].degraded == f"{ABSENT} (the package `onnxruntime` is not installed)"
    assert len(tried) == 1, "it is not tried again for each query"


def test_a_model_that_fails_once_is_asked_again() -> None:
    model = Gated()
    model.broken = True
    model.gate.set()
    encoder = Encoder(lambda: model)

    async def body() -> tuple[Encoded, Encoded]:
        failed = await encoder.encode(["a"], deadline_s=10)
        model.broken = False
        return failed, await encoder.encode(["a"], deadline_s=10)

    failed, then = run(encoder, body)
    assert failed.vectors == (None,)
    assert failed.degraded is not None
    assert failed.degraded.startswith(ABSENT)
    assert then.degraded is None


@pytest.mark.parametrize("texts", [(), ("",)])
def test_nothing_and_an_empty_text(texts: tuple[str, ...]) -> None:
    encoder = Encoder(MiniLM)
    found = run(encoder, lambda: encoder.encode(texts, deadline_s=30))
    assert len(found.vectors) == len(texts)
    assert all(v is not None and np.isfinite(v).all() for v in found.vectors)


def test_texts_that_are_no_queries_are_not_kept() -> None:
    model = Gated()
    model.gate.set()
    encoder = Encoder(lambda: model)

    async def body() -> tuple[Encoded, bool, bool]:
        long = await encoder.encode(["x" * 100_000], deadline_s=20, queries=False)
        await encoder.encode(["mail"], deadline_s=20)
        return long, encoder.knows(["x" * 100_000]), encoder.knows(["mail"])

    long, knows_long, knows_query = run(encoder, body)
    assert long.vectors[0] is not None
    assert (knows_long, knows_query) == (False, True)


def test_who_comes_behind_more_than_can_be_served_in_time_goes_by_words_at_once() -> None:
    model = Gated()
    model.gate.set()
    encoder = Encoder(lambda: model)

    async def body() -> tuple[Encoded, Encoded, Encoded]:
        await encoder.encode(["first"], deadline_s=20)
        encoder._each_s = 1.0  # a text takes a second, as measured
        model.gate.clear()
        before = [asyncio.create_task(encoder.encode([f"text {n}"], deadline_s=20)) for n in range(3)]
        await asyncio.sleep(0)
        refused = await encoder.encode(["in vain"], deadline_s=4)
        taken = asyncio.create_task(encoder.encode(["in time"], deadline_s=20))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*before)
        return refused, await taken, await encoder.encode(["later"], deadline_s=20)

    refused, taken, later = run(encoder, body)
    assert refused == Encoded((None,), LATE)
    assert taken.degraded is later.degraded is None
    assert not any("in vain" in batch for batch in model.batches), "nobody waited for it"


def test_long_texts_are_not_taken_together() -> None:
    model = Gated()
    encoder = Encoder(lambda: model)

    async def body() -> list[Encoded]:
        asked = [asyncio.create_task(encoder.encode([f"{n}" + CHARACTERS * "x"], deadline_s=20)) for n in range(4)]
        await asyncio.sleep(0)
        await asyncio.to_thread(model.gate.set)
        return list(await asyncio.gather(*asked))

    assert all(a.degraded is None for a in run(encoder, body))
    assert [len(batch) for batch in model.batches] == [1] * 4
