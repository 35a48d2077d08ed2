"""What confirmed use teaches: near requests lift their tools, silence does not bury, tenants are apart, and undo undoes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import document_of_row
from orchestrator.tool_search.feedback import MOST_OF_A_TOOL, MOST_OWN, Learned, Lessons, Use
from orchestrator.tool_search.feedback_fit import OfIndex, fitted
from orchestrator.tool_search.fusion import DEFAULT, Weights
from orchestrator.tool_search.index import Index, Query

WIDTH = 384
LETTERS = [a + b for a in "bcdfghjk" for b in "lmnpq"]


def vector(text: str) -> NDArray[np.float32]:
    """A bag of words as a vector: each word a direction of its own, the same everywhere."""
    seeds = [int.from_bytes(hashlib.sha256(w.encode()).digest()[:4], "big") for w in text.lower().split()]
    made = np.sum([np.random.default_rng(s).standard_normal(WIDTH) for s in seeds], axis=0)
    return np.asarray(made / np.linalg.norm(made), np.float32)


def use(query: str, *used: str, ok: bool = True, tenant: str | None = None) -> Use:
    return Use(query, 0.0, tenant, query, used, ok)


def lessons(*uses: Use) -> Lessons:
    return Lessons.of(uses, {u.query: vector(u.query) for u in uses})


def learned(*uses: Use, tenant: str | None = None) -> Learned:
    found = lessons(*uses).seen_by(tenant)
    assert found is not None
    return found


def bonus(of: Learned, query: str, *names: str, by_words: bool = False) -> list[float]:
    return of.evidence(None if by_words else vector(query), terms(query)).of(names).tolist()


def index(tools: dict[str, str]) -> Index:
    rows = [json.dumps({"name": n, "description": d, "parameters": []}).encode() for n, d in tools.items()]
    documents = [document_of_row(row) for row in rows]
    return Index.of(documents, {text_digest(d.text): vector(d.text) for d in documents})


def ranked(of: Index, query: str, what: Learned | None, k: int = 10) -> list[str]:
    found = of.search(Query(query, tuple(terms(query)), vector(query)), k, learned=what)
    return [of.name(at) for at in found.ids.tolist()]


OFFICE = index({
    "receipt_ocr": "reads text from a picture of a receipt",
    "mail_send": "sends a message to a person",
    "weather_get": "forecast of rain and wind for a city",
    "ledger_add": "books an amount on an account",
})  # fmt: skip


def test_a_near_request_lifts_its_tool_and_no_other() -> None:
    of = learned(use("put the bistro bill on expenses", "ledger_add"))
    ledger, mail = bonus(of, "put the bistro bill on my expenses", "ledger_add", "mail_send")
    assert ledger > 0.05
    assert mail == 0


def test_what_has_nothing_in_common_says_nothing() -> None:
    of = learned(use("put the bistro bill on expenses", "ledger_add"))
    assert bonus(of, "rain tomorrow", "ledger_add", "weather_get") == [0, 0]


def test_a_tool_that_no_half_found_comes_in_by_its_past() -> None:
    crowd = index({f"tool{n}": f"handles rain of kind {n}" for n in range(300)} | {"other": "zzz"})
    query = "how is rain"
    assert "other" not in ranked(crowd, query, None)
    assert "other" in ranked(crowd, query, learned(use(query, "other")))


def test_without_an_encoder_the_words_teach() -> None:
    of = learned(use("bistro bill", "ledger_add"))
    ledger, mail = bonus(of, "the bill of the bistro", "ledger_add", "mail_send", by_words=True)
    assert ledger > 0.1
    assert mail == 0
    unread = Lessons.of([use("bistro bill", "ledger_add")], {}).seen_by(None)
    assert unread is not None
    assert bonus(unread, "bistro bill", "ledger_add")[0] > 0


@pytest.mark.parametrize("by_words", [False, True])
def test_a_use_that_failed_lowers_the_pair(by_words: bool) -> None:
    of = learned(use("bistro bill", "mail_send", ok=False))
    assert bonus(of, "bistro bill", "mail_send", by_words=by_words)[0] < 0
    assert of.evidence(vector("bistro bill"), terms("bistro bill")).reason("mail_send") == ""


def test_what_was_said_last_of_a_pair_counts() -> None:
    of = learned(use("bistro bill", "ledger_add"), use("bistro bill", "ledger_add", ok=False))
    assert bonus(of, "bistro bill", "ledger_add")[0] < 0


def test_taken_back_the_ranking_is_what_it_was_to_the_last_digit() -> None:
    first = [use(f"book bill {n} on account", "ledger_add") for n in range(30)]
    query = Query("bill of the bistro", tuple(terms("bill of the bistro")), vector("bill of the bistro"))
    before = OFFICE.search(query, 4, learned=fitted(learned(*first), OfIndex(OFFICE)))
    wrong = fitted(learned(*first, *(use(f"bill bistro {n}", "weather_get") for n in range(30))), OfIndex(OFFICE))
    between = OFFICE.search(query, 4, learned=wrong)
    after = OFFICE.search(query, 4, learned=fitted(learned(*first), OfIndex(OFFICE)))
    assert between.scores.tolist() != before.scores.tolist()
    assert (after.ids.tolist(), after.scores.tolist()) == (before.ids.tolist(), before.scores.tolist())


def test_tenants_learn_from_their_own_and_the_shared() -> None:
    found = lessons(
        use("bistro bill", "ledger_add"), use("bistro bill", "mail_send", tenant="a"), use("bistro bill", "weather_get", tenant="b")
    )
    seen = {t: found.seen_by(t) for t in (None, "a", "b", "nobody")}
    three = ("ledger_add", "mail_send", "weather_get")
    assert {t: [b > 0 for b in bonus(of, "bistro bill", *three)] for t, of in seen.items() if of} == {
        None: [True, False, False], "a": [True, True, False], "b": [True, False, True], "nobody": [True, False, False],
    }  # fmt: skip
    assert lessons(use("bistro bill", "mail_send", tenant="a")).seen_by("b") is None


def test_a_flood_of_one_tenant_changes_nothing_for_another() -> None:
    shared = [use(f"book bill {n}", "ledger_add") for n in range(5)]
    flood = [use(f"book bill {n % 50} {n}", "mail_send", tenant="loud") for n in range(MOST_OWN + 100)]
    flood += [use(f"book bill {n}", "ledger_add", ok=False, tenant="loud") for n in range(50)]
    found = Lessons.of([*shared, *flood], {u.query: vector(u.query) for u in shared})
    alone = learned(*shared)
    quiet = found.seen_by("quiet")
    assert quiet is not None
    assert bonus(quiet, "book bill 3", "ledger_add", "mail_send") == bonus(alone, "book bill 3", "ledger_add", "mail_send")
    loud = found.seen_by("loud")
    assert loud is not None
    assert loud.past.counts.max() == MOST_OF_A_TOOL


def test_a_reason_counts_and_never_quotes() -> None:
    of = learned(use("pay secret bistro bill", "ledger_add"), use("pay the bistro bill", "ledger_add"))
    said = of.evidence(vector("pay bistro bill"), terms("pay bistro bill")).reason("ledger_add")
    assert said == "used before for similar requests (2)"
    assert of.evidence(vector("pay bistro bill"), terms("pay bistro bill")).reason("mail_send") == ""


def test_a_mix_that_was_chosen_stays() -> None:
    of = learned(use("bistro bill", "ledger_add"))
    evidence = of.evidence(vector("bistro"), terms("bistro"))
    assert evidence.weights(Weights.hybrid()) == Weights.hybrid()
    assert evidence.weights(DEFAULT).lexical == pytest.approx(DEFAULT.lexical)


def world(seed: int = 0) -> tuple[Index, list[tuple[str, str]]]:
    """40 tools whose users call things by other words than their makers; and 400 requests."""
    chance = np.random.default_rng(seed)
    catalog = index({f"t{n}": f"maker{LETTERS[n]} formal{n % 7} noun{LETTERS[n % 5]}" for n in range(40)})
    asked = []
    for _ in range(400):
        n = int(chance.integers(30))  # ten are never used
        noise = " ".join(f"noise{LETTERS[w]}" for w in chance.integers(40, size=2))
        asked.append((f"slang{LETTERS[n]} argot{LETTERS[n]} {noise} noun{LETTERS[n % 5]}", f"t{n}"))
    return catalog, asked


def hits(catalog: Index, asked: Sequence[tuple[str, str]], what: Learned | None) -> float:
    return float(np.mean([ranked(catalog, query, what, 1) == [wanted] for query, wanted in asked]))


def test_half_of_the_requests_teach_the_other_half() -> None:
    catalog, asked = world()
    told = fitted(learned(*(use(q, t) for q, t in asked[:200])), OfIndex(catalog))
    assert hits(catalog, asked[200:], None) < 0.5
    assert hits(catalog, asked[200:], told) > 0.9


def test_a_third_of_wrong_uses_leaves_most_of_it() -> None:
    catalog, asked = world()
    chance = np.random.default_rng(1)
    noisy = [use(q, f"t{chance.integers(30)}" if chance.random() < 0.33 else t) for q, t in asked[:200]]
    assert hits(catalog, asked[200:], fitted(learned(*noisy), OfIndex(catalog))) > 0.75


def test_a_tool_nobody_used_yet_is_still_found_by_its_own_words() -> None:
    catalog, asked = world()
    told = fitted(learned(*(use(q, t) for q, t in asked)), OfIndex(catalog))
    for n in range(30, 40):
        assert ranked(catalog, f"maker{LETTERS[n]} formal{n % 7}", told, 1) == [f"t{n}"]


def test_before_the_encoder_has_read_them_the_words_are_fitted() -> None:
    catalog, asked = world()
    unread = Lessons.of([use(q, t) for q, t in asked[:200]], {}).seen_by(None)
    assert unread is not None
    told = fitted(unread, OfIndex(catalog))
    assert told.alone != unread.alone
    assert hits(catalog, asked[200:], told) > hits(catalog, asked[200:], None)


def test_too_few_uses_fit_nothing() -> None:
    few = learned(*(use(f"bill {n}", "ledger_add") for n in range(10)))
    assert fitted(few, OfIndex(OFFICE)).worth == few.worth


def test_twenty_thousand_uses_are_looked_through_in_a_fraction_of_a_millisecond() -> None:
    chance = np.random.default_rng(0)
    topics = chance.standard_normal((300, WIDTH)).astype(np.float32)
    made = topics[chance.integers(300, size=20_000)] + 0.7 * chance.standard_normal((20_000, WIDTH)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    uses = [use(f"word{n % 997} word{n % 89} {n}", f"t{n % 700}", tenant="a" if n % 2 else None) for n in range(20_000)]
    of = Lessons.of(uses, {u.query: v for u, v in zip(uses, made, strict=True)}).seen_by("a")
    assert of is not None
    names = [f"t{n}" for n in range(200)]
    of.evidence(made[0], ("word1",)).of(names)  # what is kept ready is made once
    taken = []
    for n in range(200):
        query = terms(uses[n].query)
        started = time.thread_time()
        of.evidence(made[n], query).of(names)
        taken.append(time.thread_time() - started)
    assert np.median(taken) < 0.002  # 0.3 ms on a quiet core; machines of tests are not
