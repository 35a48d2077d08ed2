"""Tokens are counted without a model, whatever the text is, in bounded time."""

from __future__ import annotations

import time

import pytest

from orchestrator.tool_search.tokens import LONGEST, count_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("hello world", 2), ("Hello, world!", 4), ('{"name": "get_weather"}', 11)],
)
def test_short_texts(text: str, expected: int) -> None:
    assert count_tokens(text) == expected


def test_what_wordpiece_gives_up_on_is_not_free() -> None:
    assert count_tokens("A" * 8_000) == 2_000  # WordPiece alone says 1
    assert count_tokens("\U0001f9fe" * 10) >= 10


def test_a_long_text_is_estimated_from_its_beginning_in_little_time() -> None:
    text = "create the invoice of a customer. " * 150_000  # 5 MB
    exact_rate = count_tokens(text[:LONGEST]) / LONGEST
    began = time.process_time()
    counted = count_tokens(text)
    assert time.process_time() - began < 0.5
    assert counted == pytest.approx(exact_rate * len(text), rel=0.01)


def test_half_of_a_surrogate_pair_is_counted_too() -> None:
    assert count_tokens("name \ud800 end") >= 2
