"""The log of confirmed uses on a real Redis: order, repeats, bounds, taking back, and that every reader ends with the same."""

from __future__ import annotations

import random
import threading

import pytest
import redis

from orchestrator.errors import LimitExceeded, RequestError
from orchestrator.tool_search.feedback_store import FeedbackStore, Log

pytestmark = pytest.mark.integration


def everything(client: redis.Redis) -> bytes:
    """All that Redis keeps, as bytes."""
    return b"".join(key + b" " + client.dump(key) for key in client.scan_iter())


def test_a_use_is_read_as_it_was_told(client: redis.Redis) -> None:
    store = FeedbackStore(client)
    id = store.add("total of an invoice ☃", ["receipt_ocr", "sum"], ok=False, tenant="acme")
    news = store.read()
    ((number, use),) = news.entries
    assert number == news.number == news.floor == 1
    assert news.anew
    assert (use.id, use.tenant, use.query, use.used, use.ok) == (id, "acme", "total of an invoice ☃", ("receipt_ocr", "sum"), False)
    assert abs(use.ts - client.time()[0]) < 60
    assert store.read(news.after).entries == ()


def test_told_again_under_its_id_it_counts_once_and_tenants_do_not_share_ids(client: redis.Redis) -> None:
    store = FeedbackStore(client)
    first = store.tell("q", ["a"], tenant="acme", id="x")
    assert store.tell("q", ["a"], tenant="acme", id="x") == first
    store.add("q", ["b"], tenant="acme ", id="x")
    store.add("q", ["c"], id="x")
    assert [(u.tenant, u.used) for _, u in store.read().entries] == [("acme", ("a",)), ("acme ", ("b",)), (None, ("c",))]


def test_nobody_takes_back_what_another_told(client: redis.Redis) -> None:
    store = FeedbackStore(client)
    id = store.add("q", ["a"], tenant="acme")
    assert store.undo(id, tenant="evil") == ()
    assert store.undo(id) == ()
    assert store.undo(all=True, tenant="evil") == ()
    assert store.undo(id, tenant="acme") == (id,)
    assert store.undo(id, tenant="acme") == ()


def test_taken_back_by_time_or_all_the_text_is_gone(client: redis.Redis) -> None:
    store = FeedbackStore(client)
    store.add("the first secret", ["a"], tenant="acme", id="1")
    since = store.tell("the second secret", ["a"], tenant="acme", id="2").ts
    store.add("the third secret", ["a"], tenant="acme", id="3")
    store.add("of another", ["a"], tenant="other", id="4")
    assert b"second secret" in everything(client)
    assert store.undo(since=since, tenant="acme") == ("2", "3")
    assert b"second secret" not in everything(client)
    assert [u.id for u in store.uses("acme")] == ["1"]
    assert store.undo(all=True, tenant="acme") == ("1",)
    assert b"secret" not in everything(client)
    assert [u.id for u in store.uses("other")] == ["4"]


def test_readers_end_with_the_same_whenever_they_read(client: redis.Redis) -> None:
    store = FeedbackStore(client, most_of_a_tenant=20, most=70)
    chance = random.Random(7)
    early, after = Log(20), ""
    for n in range(400):
        tenant = chance.choice(["a", "a", "a", "b", "c", None])
        if n % 9 == 4 and (own := store.uses(tenant)):
            store.undo(chance.choice(own).id, tenant=tenant)
        elif n % 101 == 100:
            store.undo(all=True, tenant=tenant)
        else:
            store.add(f"query {n}", ["t"], tenant=tenant)
        if n % 7 == 0:
            news = store.read(after)
            early.take(news)
            after = news.after
    early.take(store.read(after))
    late = Log(20)
    late.take(store.read())
    assert early.uses == late.uses
    counts = [sum(u.tenant == t for u in late.uses) for t in ("a", "b", "c", None)]
    assert max(counts) == 20
    assert min(counts) > 0


def test_a_flood_of_one_tenant_pushes_out_its_own_uses_alone(client: redis.Redis) -> None:
    store = FeedbackStore(client, most_of_a_tenant=10)
    store.add("mine", ["a"], tenant="quiet")
    for n in range(50):
        store.add(f"flood {n}", ["x"], tenant="loud")
    assert [u.query for u in store.uses("quiet")] == ["mine"]
    assert [u.query for u in store.uses("loud")] == [f"flood {n}" for n in range(40, 50)]


def test_a_log_of_another_epoch_is_read_anew(client: redis.Redis) -> None:
    store, log = FeedbackStore(client), Log()
    store.add("before", ["a"])
    news = store.read()
    log.take(news)
    client.flushdb()
    assert store.read(news.after).anew
    store.add("after", ["b"])
    store.add("after that", ["b"])
    assert log.take(store.read(news.after))
    assert [u.query for u in log.uses] == ["after", "after that"]


def test_what_many_tell_at_once_is_all_there_in_one_order(client: redis.Redis) -> None:
    store = FeedbackStore(client)

    def tell(who: int) -> None:
        for n in range(30):
            store.add(f"{who} {n}", ["a"], tenant=f"t{who % 2}")

    threads = [threading.Thread(target=tell, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    news = store.read()
    assert len(news.entries) == news.number == 120
    for who in range(4):
        own = [int(u.query.split()[1]) for _, u in news.entries if u.query.startswith(f"{who} ")]
        assert own == list(range(30))


def test_bounds(client: redis.Redis) -> None:
    store = FeedbackStore(client)
    assert len(store.tell("é" * 5_000, ["a"]).query.encode()) == 2_048
    assert store.tell("\ud800 lone", ["a", "a"]).used == ("a",)
    with pytest.raises(RequestError, match="query"):
        store.add(" \n", ["a"])
    with pytest.raises(RequestError, match="tool"):
        store.add("q", [])
    with pytest.raises(LimitExceeded):
        store.add("q", [f"t{n}" for n in range(65)])
    with pytest.raises(RequestError, match="take back"):
        store.undo()
    with pytest.raises(RequestError, match="take back"):
        store.undo("x", all=True)
