"""A view of the tools answers as one built anew from the same tools, whatever came and went before."""

from __future__ import annotations

import gc
import json
import random
import weakref

import numpy as np
import pytest

from orchestrator.models.search import Filters
from orchestrator.tool_search import base
from orchestrator.tool_search import index as index_module
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import Document, document_of_row
from orchestrator.tool_search.index import Index, Query

WORDS = ["invoice", "receipt", "total", "scan", "photo", "weather", "city", "forecast", "train", "ticket", "hotel", "room"]
WORDS += ["book", "mail", "send", "list", "open", "read", "file"]
DIMENSIONS = 16


def document(name: str, description: str, **rest: object) -> Document:
    return document_of_row(json.dumps({"name": name, "description": description, **rest}).encode())


def random_document(rng: random.Random, number: int) -> Document:
    said = " ".join(rng.choices(WORDS, k=rng.randint(0, 9)))
    tenants, tags = rng.choice([None, None, ["t1"], ["t2"]]), [rng.choice("ab")]
    return document(f"tool_{number:03}", said, server=f"server{number % 3}", tags=tags, tenants=tenants)


def vector(text: str) -> np.ndarray:
    made = np.random.default_rng(abs(hash(text)) % 2**32).standard_normal(DIMENSIONS).astype(np.float32)
    return made / np.linalg.norm(made)


def vectors(documents) -> dict[str, np.ndarray]:
    return {text_digest(d.text): vector(d.text) for d in documents}


def query(text: str, *, meaning: bool = True) -> Query:
    return Query(text, tuple(terms(text)), vector(text) if meaning else None)


def check_same(index: Index, fresh: Index, rng: random.Random) -> None:
    assert (index.size, index.catalog_hash, index.backlog) == (fresh.size, fresh.catalog_hash, fresh.backlog)
    for meaning in (True, False):
        for filters in (None, Filters(), Filters(tenant="t1", tags=("a",)), Filters(servers=("server1",), forbidden=("tool_0*",))):
            asked = query(" ".join(rng.choices(WORDS, k=rng.randint(1, 5))), meaning=meaning)
            found = index.search(asked, 10, mask=index.mask(filters))
            expected = fresh.search(asked, 10, mask=fresh.mask(filters))
            ours = {index.name(i): s for i, s in zip(found.ids.tolist(), found.scores.tolist(), strict=True)}
            theirs = {fresh.name(i): s for i, s in zip(expected.ids.tolist(), expected.scores.tolist(), strict=True)}
            assert ours == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("seed", range(6))
def test_after_random_changes_it_answers_as_one_built_anew(seed):
    rng = random.Random(seed)
    kept = {d.name: d for d in (random_document(rng, n) for n in range(rng.choice([0, 5, 60])))}
    known = vectors(kept.values())
    index = Index.of(kept.values(), known, dimensions=DIMENSIONS)
    for generation in range(1, 12):
        come = [random_document(rng, rng.randrange(90)) for _ in range(rng.randint(0, 12))]
        gone = [*rng.sample(sorted(kept), min(len(kept), rng.randint(0, 9))), "nobody"]
        fresh_vectors = vectors(rng.sample(come, len(come) // 2))
        known |= fresh_vectors
        index = index.apply(come, gone, generation=generation, vectors=fresh_vectors)
        for name in gone:
            kept.pop(name, None)
        kept |= {d.name: d for d in come}
        if rng.random() < 0.5:  # the encoder catches up
            late = {digest: vector(text) for digest, text in index.missing_vectors(1_000)}
            known |= late
            index = index.with_vectors(late)
        fresh = Index.of(kept.values(), known, dimensions=DIMENSIONS)
        index = index.with_vectors(known)
        assert index.generation == generation
        check_same(index, fresh, rng)


def test_words_whose_tools_are_gone_count_no_more():
    index = Index.of([document("a_tool", "zebra"), document("b_tool", "horse")], dimensions=DIMENSIONS)
    index = index.apply([document("c_tool", "quagga")], ["a_tool"], generation=2)
    assert len(index.search(query("zebra", meaning=False), 5)) == 0
    assert [index.name(i) for i in index.search(query("quagga", meaning=False), 5).ids] == ["c_tool"]
    index = index.apply([], ["c_tool"], generation=3)
    assert len(index.search(query("quagga", meaning=False), 5)) == 0
    assert index.size == 1


def test_a_view_stays_as_it_was_when_there_is_a_newer_one():
    first = Index.of([document("a_tool", "zebra")], dimensions=DIMENSIONS)
    second = first.apply([document("a_tool", "horse")], generation=2)
    assert [first.name(i) for i in first.search(query("zebra", meaning=False), 5).ids] == ["a_tool"]
    assert len(second.search(query("zebra", meaning=False), 5)) == 0
    assert first.catalog_hash != second.catalog_hash
    assert second.apply([document("a_tool", "zebra")], generation=3).catalog_hash == first.catalog_hash


def test_what_did_not_change_costs_nothing():
    index = Index.of([document("a_tool", "zebra")], dimensions=DIMENSIONS)
    again = index.apply([document("a_tool", "zebra")], ["nobody"], generation=9)
    assert again.delta is index.delta
    assert (again.generation, again.tombstones) == (9, 0)


def test_of_a_name_that_goes_and_comes_the_new_tool_is_there():
    index = Index.of([document("a_tool", "zebra")], dimensions=DIMENSIONS)
    index = index.apply([document("a_tool", "horse")], ["a_tool"], generation=2)
    assert json.loads(index.row(index.find("a_tool")))["description"] == "horse"


def test_empty():
    index = Index.empty(DIMENSIONS)
    assert (index.size, index.catalog_hash, index.backlog) == (0, "0" * 64, 0)
    assert len(index.search(query("anything"), 10)) == 0
    assert len(index.search(query(""), 10)) == 0
    assert index.find("a") is None
    assert index.totals(Filters()) == (0, 0)


def test_tools_by_id_in_base_and_delta():
    index = Index.of([document("Mail.send", "Send mail", aliases=["send_mail"], native_name="Send")], dimensions=DIMENSIONS)
    index = index.apply([document("other.send", "Send", aliases=["SEND_MAIL"])], generation=1)
    first, second = index.find("Mail.send"), index.find("other.send")
    assert index.exact("send_mail") == (first, second)
    assert index.exact("mail.send") == (first,)
    assert index.exact("send") == (first,)
    assert index.exact("nobody") == ()
    assert index.find("mail.send") is None, "a name's case counts"
    for at, name in ((first, "Mail.send"), (second, "other.send")):
        assert index.name(at) == name
        assert json.loads(index.row(at))["name"] == name
        assert index.version(at) == document_of_row(index.row(at)).version
        assert index.tokens(at) == document_of_row(index.row(at)).tokens
    assert index.totals() == (2, index.tokens(first) + index.tokens(second))
    assert set(index.matched(index.numbers(query("please send mail and more").terms), first)) == {"send", "mail"}


FILTERS = [
    Filters(),
    Filters(tenant=None),
    Filters(tenant="t2", deprecated=True),
    Filters(names=("tool_003", "*", "tool_070", "nobody")),
    Filters(allowed=(("tool_00*", "tool_05?"), ("*3", "tool_01?", "tool_070"))),
    Filters(allowed=(("*",),), forbidden=("tool_01*", "*5")),
    Filters(tags=("a",), servers=("server0", "server2"), requires=()),
]


@pytest.mark.parametrize("filters", FILTERS)
def test_a_mask_lets_pass_what_the_filters_do(filters):
    rng = random.Random(4)
    documents = [random_document(rng, n) for n in range(100)]
    index = Index.of(documents[:60], dimensions=DIMENSIONS).apply(documents[40:], ["tool_010"], generation=1)
    there = {d.name: d for d in documents if d.name != "tool_010"}
    expected = {
        n for n, d in there.items() if filters.admits_group(**d.group._asdict()) and (not filters.by_name or filters.admits_name(n))
    }
    mask = index.mask(filters)
    every = range(len(index.base) + len(index.delta))
    assert {index.name(i) for i in every if mask is None or mask[i]} == expected
    assert index.mask(filters) is mask, "kept"
    assert {index.name(i) for i in index.search(query("invoice total mail"), 100, mask=mask).ids} <= expected


def test_a_filter_that_all_pass_is_none():
    assert Index.of([document("a", "b")], dimensions=DIMENSIONS).mask(Filters()) is None


def test_what_has_no_vector_yet_is_found_by_its_words_and_asked_for():
    documents = [document(f"tool_{n}", f"{WORDS[n]} thing") for n in range(6)]
    index = Index.of(documents[:4], vectors(documents[:2]), dimensions=DIMENSIONS).apply(documents[4:], generation=1)
    assert index.backlog == 4
    assert {text for _, text in index.missing_vectors(10)} == {d.text for d in documents[2:]}
    assert [text for _, text in index.missing_vectors(1)] == [documents[5].text], "the newest first"
    found = index.search(query(WORDS[3]), 3)
    assert index.name(found.ids[list(np.isnan(found.cosine)).index(True)]) in {d.name for d in documents[2:]}
    half = index.with_vectors(vectors(documents[2:5]))
    assert half.backlog == 1
    full = half.with_vectors(vectors(documents))
    assert (full.backlog, full.missing_vectors(10)) == (0, [])
    assert full.with_vectors(vectors(documents)) is full
    asked = query(documents[3].text)
    by_text = Query("", (), asked.vector)
    assert [full.name(i) for i in full.search(by_text, 1).ids] == ["tool_3"]
    assert index.backlog == 4, "a view stays as it was"


def test_a_text_of_two_tools_is_encoded_once():
    twins = [document("tool", "same"), document("tool", "same", server="other")]
    assert text_digest(twins[0].text) == text_digest(twins[1].text)
    index = Index.of([twins[0]], vectors([twins[0]]), dimensions=DIMENSIONS).apply([twins[1]], generation=1)
    assert index.with_vectors(vectors([twins[1]])).backlog == 0


def test_a_large_base_answers_as_a_small_one(monkeypatch):
    rng = random.Random(8)
    documents = [random_document(rng, n) for n in range(900)]
    exact = Index.of(documents, vectors(documents), dimensions=DIMENSIONS)
    monkeypatch.setattr(base, "EXACT_MOST", 100)
    large = Index.of(documents, vectors(documents), dimensions=DIMENSIONS)
    assert large.base.inverted is not None
    assert exact.base.inverted is None
    check_same(large, exact, rng)
    gone = [d.name for d in documents[::7]]
    check_same(large.apply([], gone, generation=1), exact.apply([], gone, generation=1), rng)


@pytest.mark.parametrize("many", [0, 10_000], ids=["large", "small"])
@pytest.mark.parametrize("where", ["base", "delta"])
def test_as_many_are_found_as_are_asked_for(monkeypatch, many, where):
    monkeypatch.setattr(base, "EXACT_MOST", many)
    monkeypatch.setattr(index_module, "FEW", 0)
    tools = [document(f"read_{n:04}", "reads a file") for n in range(1_500)]
    index = Index.of(tools if where == "base" else (), dimensions=DIMENSIONS)
    index = index.apply(tools if where == "delta" else (), generation=1)

    assert [len(index.search(query("read", meaning=False), k)) for k in (10, 500, 1_000)] == [10, 500, 1_000]
    known = index.with_vectors(vectors(tools))
    assert len(known.search(query("read"), 1_000)) == 1_000
    assert len(known.search(query("zzz"), 1_000)) == 1_000  # by meaning alone


def test_a_base_that_was_replaced_gives_its_memory_back_at_once():
    index = Index.of([document("a_tool", "zebra")], dimensions=DIMENSIONS)
    index.search(query("zebra"), 5, mask=index.mask(Filters(tenant="t1")))
    former = weakref.ref(index.base)
    gc.disable()
    try:
        index = Index.of([document("a_tool", "horse")], dimensions=DIMENSIONS)
        assert former() is None
    finally:
        gc.enable()
