"""What caches of searches keep, in which form, and that what they cannot give or read is a miss."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis

from orchestrator.tool_search.cache import LRU, DistributedCache, VectorFile, digest_of


def vector(seed: int, size: int = 8) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    made = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made), np.float32)


def test_the_latest_used_values_are_kept() -> None:
    kept: LRU[int] = LRU(2)
    kept.set("a", 1)
    kept.set("b", 2)
    assert kept.get("a") == 1
    kept.set("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (1, None, 3, 2)


def test_vectors_stand_in_a_file_that_others_read(tmp_path: Path) -> None:
    first, second = VectorFile(tmp_path / "v.sqlite", dimensions=8), VectorFile(tmp_path / "v.sqlite", dimensions=8)
    first.put({"a": vector(1), "b": vector(2)})
    found = second.get(["a", "b", "c"])
    assert set(found) == {"a", "b"}
    assert np.allclose(found["a"], vector(1), atol=1e-3)
    assert len(second) == 2
    second.clear()
    assert first.get(["a"]) == {}


def test_many_vectors_and_threads(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "v.sqlite", dimensions=8)
    threads = [threading.Thread(target=file.put, args=({f"{t}-{n}": vector(n) for n in range(600)},)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.get(f"{t}-{n}" for t in range(4) for n in range(600))) == 2_400


def test_a_file_that_is_damaged_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"this is no database, but it is long enough to be taken for one" * 50)
    file = VectorFile(path, dimensions=8)
    file.put({"a": vector(1)})
    assert set(file.get(["a"])) == {"a"}
    assert (tmp_path / "v.sqlite.bad").exists()


def test_vectors_of_another_length_are_not_given(tmp_path: Path) -> None:
    VectorFile(tmp_path / "v.sqlite", dimensions=4).put({"a": vector(1, 4)})
    assert VectorFile(tmp_path / "v.sqlite", dimensions=8).get(["a"]) == {}


def test_a_text_has_another_digest_for_each_model() -> None:
    assert digest_of("m1", "text") != digest_of("m2", "text")
    assert digest_of("m", "half \ud800 of a pair") == digest_of("m", "half \ud800 of a pair")


def test_without_redis_everything_is_a_miss_and_nothing_fails() -> None:
    cache = DistributedCache(client=redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.1))
    cache.set("a", {"b": 1})
    assert cache.get("a") is None
    assert cache.get_many(["a", "b"]) == [None, None]
    assert cache.invalidate("*") == 0


def test_what_is_no_plain_value_is_refused() -> None:
    cache = DistributedCache(client=redis.Redis(host="127.0.0.1", port=1))
    with pytest.raises(TypeError):
        cache.set("a", object())
    with pytest.raises(TypeError):
        cache.set("a", np.zeros((2, 2)))


def test_a_file_that_another_process_is_making_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.sqlite"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda where, timeout: connect(where, timeout=min(timeout, 0.05)))
    with closing(connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE made (by TEXT)")
        late = VectorFile(path, dimensions=8)
        late.put({"a": vector(1)})
        assert late.get(["a"]) == {}
        other.commit()
    assert not list(tmp_path.glob("*.bad"))
    again = VectorFile(path, dimensions=8)
    again.put({"a": vector(1)})
    assert set(again.get(["a"])) == {"a"}
