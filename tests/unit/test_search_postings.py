"""The two tables of words: what they find is what the formula says, tool by tool."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.tool_search import lexical, postings
from orchestrator.tool_search.postings import Forward, Inverted, Strings, best, strongest


def random_forward(tools: int, terms: int, seed: int = 1) -> Forward:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(tools):
        has = np.sort(rng.choice(terms, int(rng.integers(0, min(terms, 12))), replace=False))
        counts = rng.integers(1, 9, len(has)) / 2
        rows.append((has.tolist(), counts.tolist(), float(counts.sum())))
    return Forward.of(rows)


def by_hand(forward: Forward, worth: np.ndarray, average: float) -> list[float]:
    scores = []
    for row in range(len(forward)):
        part = slice(forward.starts[row], forward.starts[row + 1])
        norm = lexical.norm(float(forward.lengths[row]), average)
        pairs = zip(forward.terms[part].tolist(), forward.counts[part].tolist(), strict=True)
        scores.append(sum(float(worth[t]) * lexical.saturation(c, norm) for t, c in pairs))
    return scores


def test_strings_are_found_by_their_order():
    texts = sorted([b"", b"a", b"ab", b"b", "\u00fc".encode()])
    kept = Strings.of(texts)
    assert list(kept) == texts
    assert [kept.find(t) for t in texts] == list(range(5))
    assert kept.find(b"aa") is None
    assert kept.place(b"aa") == 2
    assert Strings.of([]).find(b"a") is None


def test_exact_scores_are_those_of_the_formula():
    forward = random_forward(200, 30)
    worth = np.zeros(30, np.float32)
    worth[[2, 7, 11]] = [1.5, 0.2, 3]
    average = float(forward.lengths.mean())
    expected = by_hand(forward, worth, average)
    assert forward.scores(worth, average) == pytest.approx(expected, rel=1e-5)
    some = np.array([5, 3, 190, 0])
    assert forward.scores(worth, average, some) == pytest.approx([expected[i] for i in some], rel=1e-5)
    assert forward.take(some).scores(worth, average) == pytest.approx([expected[i] for i in some], rel=1e-5)


def test_a_taken_and_joined_table_is_the_same(monkeypatch):
    forward = random_forward(50, 20)
    halves = forward.take(np.arange(20)).joined(forward.take(np.arange(20, 50)))
    for name in ("starts", "terms", "counts", "lengths"):
        assert np.array_equal(getattr(halves, name), getattr(forward, name)), name


@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_every_posting_stands_in_the_group_of_its_weight(monkeypatch, chunk):
    monkeypatch.setattr(postings, "CHUNK", chunk)
    forward = random_forward(300, 40)
    inverted = Inverted.of(forward, 41)  # a term that no tool has
    average = float(forward.lengths.mean())
    assert inverted.starts[-1] == len(forward.terms)
    for term in range(41):
        tools = inverted.tools[inverted.starts[term] : inverted.starts[term + 1]]
        expected = {row for row in range(300) if term in forward.terms[forward.starts[row] : forward.starts[row + 1]]}
        assert set(tools.tolist()) == expected
        groups = slice(inverted.firsts[term], inverted.firsts[term + 1])
        levels, ends = inverted.levels[groups].tolist(), inverted.ends[groups].tolist()
        assert levels == sorted(set(levels)), "heaviest first, each once"
        start = 0
        for level, end in zip(levels, ends, strict=True):
            group = tools[start:end].tolist()
            assert group == sorted(group)
            for row in group:
                at = forward.starts[row] + np.flatnonzero(forward.terms[forward.starts[row] : forward.starts[row + 1]] == term)[0]
                heavy = lexical.saturation(float(forward.counts[at]), lexical.norm(float(forward.lengths[row]), average))
                assert level == pytest.approx(postings.LEVELS - 1 - heavy * postings.LEVELS, abs=1.01)
            start = end


def test_without_a_bound_the_sums_are_near_the_scores():
    forward = random_forward(2_000, 60)
    inverted = Inverted.of(forward, 60)
    terms = np.array([3, 9, 30])
    worth = np.zeros(60, np.float32)
    worth[terms] = [1, 2, 0.5]
    sums = np.zeros(2_000, np.float32)
    used = inverted.add(terms, worth[terms], into=sums, most=10**9)
    assert used == inverted.frequency(terms).sum()
    exact = forward.scores(worth, float(forward.lengths.mean()))
    assert np.abs(sums - exact).max() <= worth.sum() / (2 * postings.LEVELS) + 1e-5


def test_a_bound_uses_the_heaviest_first():
    forward = random_forward(5_000, 10)
    inverted = Inverted.of(forward, 10)
    terms = np.arange(10)
    worth = np.linspace(1, 3, 10).astype(np.float32)
    full, some = np.zeros(5_000, np.float32), np.zeros(5_000, np.float32)
    every = inverted.add(terms, worth, into=full, most=10**9)
    used = inverted.add(terms, worth, into=some, most=2_000)
    assert 2_000 <= used < every
    assert (some <= full + 1e-5).all()
    assert some.max() >= 0.5 * full.max()


@pytest.mark.parametrize(("size", "most"), [(10_000, 50), (10_007, 200), (100, 200), (64 * 200, 200), (1, 1)])
def test_the_strongest_are_the_greatest(size, most):
    scores = np.maximum(np.random.default_rng(size).standard_normal(size), 0).astype(np.float32)
    found = strongest(scores, most)
    expected = np.sort(scores)[::-1][: min(most, int((scores > 0).sum()))]
    assert np.sort(scores[found])[::-1] == pytest.approx(expected)
    assert (np.diff(found) > 0).all()


def test_of_equal_scores_the_first_are_the_best():
    assert sorted(best(np.ones(10, np.float32), 3)) == [0, 1, 2]
    assert len(strongest(np.zeros(1_000, np.float32), 5)) == 0
