"""What a text becomes for the lexical half of tool search."""

from __future__ import annotations

import time

import pytest

from orchestrator.tool_search.analysis import MAX_TERMS, counted, full_terms, terms


@pytest.mark.parametrize(
    "written", ["getHealthWorkforce", "get_health_workforce", "get-health-workforce", "GetHealthWorkforce", "get.health/workforces"]
)
def test_identifiers_are_taken_apart(written: str) -> None:
    assert terms(written) == terms("get health workforce")


def test_runs_of_capitals_and_digits_are_parts() -> None:
    assert terms("parseHTTPResponse2") == ["pars", "http", "respons", "2"]
    assert terms("AI2sql") == ["ai", "2", "sql"]


def test_endings_and_case_do_not_matter() -> None:
    assert terms("Processing INVOICES") == terms("processes invoice")


def test_a_query_does_not_ask_twice() -> None:
    assert terms("weather, weather and Weather!") == terms("weather")
    assert len(counted("weather, weather and Weather!")) == 3


def test_empty_words_count_only_when_there_is_nothing_else() -> None:
    assert terms("please tell me the weather") == terms("weather")
    assert len(terms("what is this")) == 3
    assert terms("this") == terms("This!") != []
    assert full_terms("what is this") == []


def test_scripts_without_spaces_become_pairs() -> None:
    assert terms("搜索关键词") == ["搜索", "索关", "关键", "键词"]
    assert set(terms("必应搜索")) & set(terms("使用搜索"))
    assert terms("词") == ["词"]
    assert terms("wetter北京now") == ["wetter", "北京"]  # "now" is empty


def test_accents_width_and_scripts_with_spaces() -> None:
    assert terms("Café Zürich") == terms("cafe ZURICH")
    assert terms("ｗｅａｔｈｅｒ") == terms("weather")
    assert terms("погода в Москве") == ["погода", "в", "москве"]
    assert terms("서울 날씨") == ["서울", "날씨"]


def test_accents_of_their_own_end_no_word() -> None:
    for written in ("caf\u00e9teria", "cafe\u0301teria", "\uff43\uff41fe\u0301teria"):
        assert terms(written) == counted(written) == ["cafeteria"]
    assert terms("I\u0307stanbul") == terms("\u0130stanbul") == ["istanbul"]
    assert terms("\u1112\u1161\u11ab") == terms("\ud55c")


@pytest.mark.parametrize("nothing", ["", "   ", "\n\t", "🎉🔥", "!?…", "\x00", "\ud83d"])
def test_nothing_to_look_for(nothing: str) -> None:
    assert terms(nothing) == []


def test_emoji_beside_words_are_passed_over() -> None:
    assert terms("🔥 weather 🎉") == terms("weather")


@pytest.mark.parametrize(
    "long",
    [
        "".join(f"word{n} " for n in range(12_000)),  # 100 KB and more
        "x" * 100_000,
        "aB" * 50_000,
        "搜" * 100_000,
        "é" * 100_000,
        "_" * 100_000,
        "a1" * 50_000,
    ],
)
def test_long_queries_cost_little(long: str) -> None:
    started = time.process_time()
    assert len(terms(long)) <= MAX_TERMS
    assert time.process_time() - started < 0.5


def test_of_a_long_query_both_ends_count() -> None:
    pasted = " ".join(f"line{n}" for n in range(20_000))
    found = terms(f"translate this: {pasted}. Then email it to the auditor")
    assert terms("translate")[0] in found
    assert terms("auditor")[0] in found
