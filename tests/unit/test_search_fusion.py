"""Words and meaning as one score, its chance and its reason."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.tool_search.fusion import Weights, fuse, probability, reason

WORDS = np.array([0.0, 2.5, 0.4, 1.0])
MEANING = np.array([0.7, 0.1, 0.3, 0.65])


def test_both_halves_count() -> None:
    assert fuse(WORDS, MEANING).argmax() == 3
    assert fuse(WORDS, None).argmax() == 1
    assert fuse(np.zeros(4), MEANING).argmax() == 0


def test_a_score_does_not_depend_on_the_other_candidates() -> None:
    assert fuse(WORDS, MEANING)[2] == fuse(WORDS[2:3], MEANING[2:3])[0]


def test_the_classic_mix_rescales_both() -> None:
    mixed = fuse(WORDS, MEANING, Weights.hybrid(0.3, 0.7))
    by_hand = 0.3 * WORDS / 2.5 + 0.7 * (MEANING - 0.1) / 0.6
    assert mixed == pytest.approx(by_hand)
    assert fuse(np.ones(3), np.ones(3), Weights.hybrid()) == pytest.approx(np.zeros(3))  # nothing to tell them apart


def test_weights_choose_a_half() -> None:
    assert fuse(WORDS, MEANING, Weights.hybrid(1, 0)).argmax() == 1
    assert fuse(WORDS, MEANING, Weights(lexical=0)).argmax() == 0


def test_a_tool_that_waits_for_its_vector_is_neither_favoured_nor_buried() -> None:
    scores = fuse(np.zeros(4), np.array([0.9, np.nan, 0.5, 0.1]))
    assert scores[0] > scores[1] > scores[3]
    assert np.isfinite(fuse(WORDS, np.full(4, np.nan))).all()
    assert fuse(WORDS, np.full(4, np.nan)).argmax() == 1


@pytest.mark.parametrize("of_none", [None, np.zeros(0)])
def test_no_candidates(of_none: np.ndarray | None) -> None:
    assert len(fuse(np.zeros(0), of_none)) == len(probability(np.zeros(0), meaning=of_none is not None)) == 0


@pytest.mark.parametrize("meaning", [MEANING, None])
def test_chances_keep_the_order_and_stay_within_bounds(meaning: np.ndarray | None) -> None:
    scores = fuse(WORDS, meaning)
    chances = probability(scores, meaning=meaning is not None)
    assert np.array_equal(np.argsort(-chances), np.argsort(-scores))
    assert ((chances > 0) & (chances < 1)).all()


def test_random_chances_keep_the_order() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        scores = fuse(rng.gamma(1, 1, 10), rng.uniform(-0.2, 1, 10), Weights(lexical=float(rng.uniform(0, 1))))
        assert np.array_equal(np.argsort(-probability(scores, meaning=True)), np.argsort(-scores))


def test_a_good_match_is_likely_and_nothing_in_common_is_not() -> None:
    assert probability(fuse(np.array([2.5, 0.2]), np.array([0.75, 0.2])), meaning=True)[0] > 0.8
    assert probability(fuse(np.array([0.0, 0.0]), np.array([0.05, 0.04])), meaning=True)[0] < 0.2


def test_the_best_may_stand_elsewhere() -> None:
    one = fuse(WORDS[:1], MEANING[:1])
    assert probability(one, meaning=True, top=2.0)[0] < probability(one, meaning=True)[0]


def test_reasons() -> None:
    assert reason(["invoice", "total"], 0.614) == "words: invoice, total; meaning 0.61"
    assert reason([], None) == "nothing in common"
    assert reason([], float("nan"), exact=True, learned=True) == "its name was given; used before for similar requests"


def test_a_tool_without_a_vector_is_as_near_as_its_place_by_words() -> None:
    """Eight tools came just now; the one that has the most of the query's words must not fall behind one that has few of them."""
    words = np.array([0.17, 0.0, 0.0, *[0.28] * 7, 0.76])
    meaning = np.array([0.349, 0.22, 0.05, *[np.nan] * 8])
    scores = fuse(words, meaning)
    assert scores.argmax() == 10
    assert scores[3:10].max() < scores[0]  # those that share no more than a common word do not
