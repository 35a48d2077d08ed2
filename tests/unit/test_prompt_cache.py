"""The simulated prompt caches on bodies made by hand, with words for tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.prompt_cache_rules import RULES, Cache, Piece, Rule, Verdict, prompt

BLOCKS = Rule("b", "openai", "m", "blocks", 8, 4, 300, "made up", "2026-11-21")
MARKS = Rule("m", "anthropic", "m", "marks", 4, 1, 300, "made up", "2026-11-21", marks=2, lookback=2)


def words(text: str) -> list[int]:
    return [hash(w) for w in text.split()]


def text(count: int, of: str = "w") -> str:
    return " ".join(f"{of}{n}" for n in range(count))


def test_blocks_are_whole_and_have_a_least_length() -> None:
    cache = Cache(BLOCKS, words)
    assert cache.ask([Piece(text(11)), Piece("first")], 0) == Verdict(12, 0, 0)
    assert cache.ask([Piece(text(11)), Piece("second")], 1) == Verdict(12, 8, 0)
    assert cache.ask([Piece(text(7)), Piece("x")], 2) == Verdict(8, 0, 0)


def test_one_word_at_the_top_spoils_all_after_it() -> None:
    cache = Cache(BLOCKS, words)
    cache.ask([Piece("12:00"), Piece(text(40))], 0)
    assert cache.ask([Piece("12:01"), Piece(text(40))], 1).hit == 0


def test_use_keeps_an_entry_alive_and_idleness_ends_it() -> None:
    cache = Cache(BLOCKS, words)
    for now, hit in ((0, 0), (299, 12), (598, 12), (899, 0)):
        assert cache.ask([Piece(text(12))], now).hit == hit


def test_a_mark_is_found_as_a_whole_and_what_is_behind_it_is_written() -> None:
    cache = Cache(MARKS, words)
    assert cache.ask([Piece(text(6), mark=True), Piece(text(5, "t"), mark=True), Piece("q")], 0) == Verdict(12, 0, 11)
    assert cache.ask([Piece(text(6), mark=True), Piece(text(5, "t"), mark=True), Piece("r")], 1) == Verdict(12, 11, 0)
    assert cache.ask([Piece(text(6), mark=True), Piece(text(9, "t"), mark=True), Piece("s")], 2) == Verdict(16, 6, 9)


def test_without_marks_nothing_is_kept() -> None:
    cache = Cache(MARKS, words)
    for now in range(2):
        assert cache.ask([Piece(text(50))], now) == Verdict(50, 0, 0)


def test_a_short_beginning_is_silently_not_kept() -> None:
    cache = Cache(MARKS, words)
    for now in range(2):
        assert cache.ask([Piece(text(3), mark=True), Piece("q")], now) == Verdict(4, 0, 0)


@pytest.mark.parametrize(("between", "hit"), [(1, 6), (2, 6), (3, 0)])
def test_an_older_mark_is_found_some_blocks_back(between: int, hit: int) -> None:
    cache = Cache(MARKS, words)
    cache.ask([Piece(text(6), mark=True)], 0)
    added = [Piece(f"a{n}", mark=n == between - 1) for n in range(between)]
    assert cache.ask([Piece(text(6)), *added], 1).hit == hit


def test_only_the_last_marks_are_written() -> None:
    cache = Cache(replace(MARKS, lookback=0), words)
    cache.ask([Piece(text(6), mark=True), Piece("b b", mark=True), Piece("c c", mark=True)], 0)
    assert cache.ask([Piece(text(6), mark=True), Piece("x")], 1).hit == 0


def test_an_implicit_mark_is_the_end_of_the_prompt() -> None:
    cache = Cache(replace(MARKS, implicit_mark=True), words)
    assert cache.ask([Piece(text(6)), Piece("q")], 0) == Verdict(7, 0, 7)
    assert cache.ask([Piece(text(6)), Piece("q")], 1).hit == 7
    assert cache.ask([Piece(text(6)), Piece("r")], 2).hit == 0  # no falling back to what no mark ends


MARK = {"cache_control": {"type": "ephemeral"}}
BODIES: list[dict[str, Any]] = [
    {
        "tools": [{"name": "t", **MARK}],
        "system": [{"type": "text", "text": "s", **MARK}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
    },
    {
        "tools": [{"name": "t", **MARK}],
        "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "s", "prompt_cache_breakpoint": {}}]},
            {"role": "user", "content": "q"},
        ],
    },
]


@pytest.mark.parametrize("body", BODIES, ids=["anthropic", "openai"])
def test_a_body_is_put_together_as_the_vendor_does_and_marks_are_no_words_of_it(body: dict[str, Any]) -> None:
    assert prompt(body) == [Piece('{"name": "t"}', True), Piece("s", True), Piece("q")]


def test_a_body_of_gemini_begins_with_its_instruction() -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "q"}]}],
        "tools": [{"functionDeclarations": [{"name": "t"}]}],
        "systemInstruction": {"parts": [{"text": "s"}]},
    }
    assert prompt(body) == [Piece("s"), Piece('{"name": "t"}'), Piece("q")]


def test_a_schema_is_a_part_of_the_prompt() -> None:
    body = {"text": {"format": {"type": "json_schema"}}, "input": [{"role": "user", "content": "q"}]}
    assert prompt(body) == [Piece('{"type": "json_schema"}'), Piece("q")]


def test_every_rule_has_its_source_and_date() -> None:
    assert {r.provider for r in RULES} == {"openai", "anthropic", "gemini"}
    assert all(r.source and r.date for r in RULES)
