"""One behaviour of files over several stores: a folder, a file system of fsspec, and the platform's API."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import redis

from orchestrator.errors import BackendError, LimitExceeded, NotFound, StoreFull
from orchestrator.jobs.blob_store import BlobStore
from orchestrator.jobs.blobs import Blobs, StoredBytes
from orchestrator.jobs.books import VALUE, Note
from orchestrator.models.file import digest_of
from orchestrator.settings import MIB, Settings
from orchestrator.state.keys import JobKeys, job_keys
from tests.api import running_api

A, B = "acme", "bolt"
MANY = bytes(range(256)) * 20_000  # 5 MB, several pieces


OTHER = os.environ.get("TOOLWEAVER_TEST_BLOBS")  # such as s3://bucket: the suite runs on it too
STORES = ["folder", "memory", "api", *(["other"] if OTHER else [])]


@pytest.fixture(params=STORES)
def blobs(request: pytest.FixtureRequest, settings: Settings, client: redis.Redis, tmp_path: Path) -> Iterator[Blobs]:
    """Each store; `home` is the one whose bytes lie in this process's reach."""
    settings = settings.model_copy(update={"shards": 3, "file_max_bytes": 8 * MIB})
    if request.param == "folder":
        yield Blobs(client, settings)
    elif request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        yield Blobs(client, settings.model_copy(update={"blobs": "memory://tenants/files"}))
    elif request.param == "other":
        yield Blobs(client, settings.model_copy(update={"blobs": f"{OTHER}/{secrets.token_hex(6)}"}))
    else:
        with running_api(settings) as url:
            yield Blobs(client, settings.model_copy(update={"blobs": url}))


@pytest.fixture
def beside(blobs: Blobs, client: redis.Redis) -> Blobs:
    """The same platform, as a process sees it that reaches the store itself."""
    if isinstance(blobs.bytes, StoredBytes):
        return blobs
    return Blobs(client, blobs.settings.model_copy(update={"blobs": None}))


def whole(blobs: Blobs, sha256: str, tenant: str = A, **part: Any) -> bytes:
    return b"".join(blobs.read(sha256, tenant=tenant, **part))


def places(store: Blobs) -> list[str]:
    """All bytes that lie in the store, the mark of the store aside."""
    assert isinstance(store.bytes, StoredBytes)
    fs, root = store.bytes.store._opened
    return sorted(p for p in fs.find(root) if ".store-" not in p) if fs.exists(root) else []


def later(blobs: Blobs, *, seconds: float) -> None:
    """Moves the books back in time."""
    books, ms = blobs.books, int(seconds * 1000)
    for number in range(blobs.settings.shards):
        shard = type(books.shard(A, "x"))(number)
        for key in (shard.blobs_due, shard.blobs_pending):
            for raw, score in books.redis.zrange(key, 0, -1, withscores=True):
                books.redis.zadd(key, {raw: score - ms})
        for key in books.redis.scan_iter(match=f"tw:{{s{number}}}:blob:*"):
            if key.endswith(b":jobs"):
                for raw, score in books.redis.zrange(key, 0, -1, withscores=True):
                    books.redis.zadd(key, {raw: score - ms})
            else:
                books.redis.hincrby(key, "u", -ms)


@pytest.mark.parametrize("content", [b"", b"x", MANY], ids=["empty", "one byte", "5 MB"])
def test_what_was_stored_comes_back(blobs: Blobs, content: bytes) -> None:
    file = blobs.put(content, tenant=A, note=Note("a b.bin", "image/png"))
    sha256 = hashlib.sha256(content).hexdigest()
    assert (file.ref, file.size, file.name, file.media_type) == (f"blob:sha256:{sha256}", len(content), "a b.bin", "image/png")
    assert whole(blobs, sha256) == content
    assert file.expires_at > file.created_at


def test_a_part_of_it(blobs: Blobs) -> None:
    sha256 = blobs.put(MANY, tenant=A).sha256
    assert whole(blobs, sha256, start=10, stop=20) == MANY[10:20]
    assert whole(blobs, sha256, start=3 * MIB + 1) == MANY[3 * MIB + 1 :]
    assert whole(blobs, sha256, start=5, stop=5) == b""


def test_the_same_bytes_are_stored_once(blobs: Blobs, beside: Blobs) -> None:
    first, second = (blobs.put(iter([MANY]), tenant=A, note=Note(name)) for name in ("one", "two"))
    assert first.ref == second.ref
    assert second.name == "two"
    assert len(places(beside)) == 1
    assert blobs.books.bytes_of(A) == len(MANY)
    assert [f.name for f in blobs.books.page(A).files] == ["two"]


def test_another_tenant_does_not_see_it_even_with_the_right_hash(blobs: Blobs, beside: Blobs) -> None:
    sha256 = blobs.put(b"secret", tenant=A).sha256
    with pytest.raises(NotFound):
        whole(blobs, sha256, B)
    assert blobs.books.find(B, sha256) is None
    assert blobs.books.name(B, [sha256], job="job_b") == {sha256}
    assert blobs.books.page(B).files == ()
    blobs.put(b"secret", tenant=B)  # whoever has the bytes may store them; it has a place of its own
    assert blobs.books.remove(B, sha256)
    later(beside, seconds=1)
    beside.sweep()
    assert whole(blobs, sha256, A) == b"secret"
    with pytest.raises(NotFound):
        whole(blobs, sha256, B)


def test_too_much_leaves_nothing(blobs: Blobs, beside: Blobs) -> None:
    with pytest.raises(LimitExceeded, match="8 MiB"):
        blobs.put((MANY for _ in range(3)), tenant=A)
    assert places(beside) == []
    assert blobs.books.page(A).files == ()


def test_an_error_of_the_source_leaves_nothing(blobs: Blobs, beside: Blobs) -> None:
    def source() -> Iterator[bytes]:
        yield MANY
        raise ValueError("the client went away")

    with pytest.raises(ValueError, match="went away"):
        blobs.put(source(), tenant=A)
    assert places(beside) == []


def test_many_writers_of_the_same_bytes(blobs: Blobs, beside: Blobs) -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            blobs.put(MANY, tenant=A)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert whole(blobs, hashlib.sha256(MANY).hexdigest()) == MANY
    later(beside, seconds=1)
    beside.sweep()
    assert len(places(beside)) == 1


def test_bytes_that_changed_in_the_store_are_refused(blobs: Blobs, beside: Blobs) -> None:
    file = blobs.put(MANY, tenant=A)
    assert isinstance(beside.bytes, StoredBytes)
    fs, _ = beside.bytes.store._opened
    fs.pipe_file(places(beside)[0], MANY[:-1] + b"!")
    read: list[bytes] = []
    with pytest.raises(BackendError, match=r"not those that were stored|does not move files"):
        read.extend(blobs.read(file.sha256, tenant=A))
    assert sum(map(len, read)) < len(MANY)


def test_bytes_that_are_gone_are_told(blobs: Blobs, beside: Blobs) -> None:
    file = blobs.put(b"abc", tenant=A)
    assert isinstance(beside.bytes, StoredBytes)
    beside.bytes.store.delete(blobs.books.find(A, file.sha256).place)  # type: ignore[union-attr]
    with pytest.raises(BackendError) as caught:
        whole(blobs, file.sha256)
    assert caught.value.retryable
    assert "TOOLWEAVER_BLOBS" in str(caught.value)


def test_a_file_expires_unless_a_kept_job_names_it(blobs: Blobs, beside: Blobs, client: Any) -> None:
    lone, named = (blobs.put(content, tenant=A) for content in (b"lone", b"named"))
    job = job_keys("job_1", blobs.settings.shards)
    client.hset(job.state, "st", "running")
    assert blobs.books.name(A, [named.sha256], job="job_1") == set()
    assert beside.sweep() == 0
    later(beside, seconds=86_401)
    assert beside.sweep() == 1
    with pytest.raises(NotFound):
        blobs.find(lone.sha256, tenant=A)
    assert whole(blobs, named.sha256) == b"named"
    ended(client, job)
    later(beside, seconds=3_601)
    assert beside.sweep() == 1
    assert places(beside) == []
    assert blobs.books.bytes_of(A) == 0
    assert list(client.scan_iter(match="tw:*blob:*")) == []


def ended(client: Any, job: JobKeys) -> None:
    client.delete(job.state)


def test_a_job_may_name_its_files_before_it_is_stored(blobs: Blobs, beside: Blobs) -> None:
    file = blobs.put(b"named early", tenant=A)
    blobs.books.name(A, [file.sha256], job="job_soon")
    blobs.books.remove(A, file.sha256)
    later(beside, seconds=60)
    assert beside.sweep() == 0
    assert whole(blobs, file.sha256) == b"named early"
    later(beside, seconds=700)  # the submit never came
    assert beside.sweep() == 1


def test_the_same_bytes_come_back_while_the_sweep_deletes_them(blobs: Blobs, beside: Blobs) -> None:
    """Between striking off and deleting, another upload: it has a place of its own, and the late deletion does not meet it."""
    sha256 = blobs.put(b"content", tenant=A).sha256
    assert blobs.books.remove(A, sha256)
    again = blobs.put(b"content", tenant=A)
    later(beside, seconds=1)
    assert beside.sweep() == 1
    assert whole(blobs, again.sha256) == b"content"


def test_a_sweep_that_is_always_at_work_never_meets_a_writer(blobs: Blobs, beside: Blobs) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            blobs.books.remove(A, sha256)
            beside.sweep()

    content = b"contended" * 1_000
    sha256 = hashlib.sha256(content).hexdigest()
    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for n in range(40):
            blobs.put(content, tenant=A, note=Note(kind=VALUE, job=f"job_{n}"), sha256=sha256)
            assert whole(blobs, sha256) == content
            blobs.books.redis.delete(blobs.books.shard(A, sha256).blob_jobs(A, sha256))
    finally:
        stop.set()
        thread.join()


def test_what_a_crash_left_is_swept(beside: Blobs) -> None:
    upload = beside.bytes.upload(beside.books, A, Note())
    upload.write(b"half")
    assert len(places(beside)) <= 1  # and the process dies
    later(beside, seconds=7 * 3600)
    assert beside.sweep() == 1
    assert places(beside) == []


def test_a_large_value_is_no_file_until_it_is_uploaded(blobs: Blobs) -> None:
    sha256 = hashlib.sha256(b"[1]").hexdigest()
    blobs.put(b"[1]", tenant=A, note=Note(kind=VALUE, media_type="application/json", job="job_1"), sha256=sha256)
    assert blobs.books.page(A).files == ()
    blobs.put(b"[1]", tenant=A, note=Note("list.json", "application/json"))
    assert [f.name for f in blobs.books.page(A).files] == ["list.json"]


def test_pages_of_files(blobs: Blobs) -> None:
    refs = [blobs.put(str(n).encode(), tenant=A).ref for n in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = blobs.books.page(A, limit=3, cursor=cursor)
        assert len(page.files) <= 3
        seen += [f.ref for f in page.files]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == sorted(refs)
    assert len(seen) == len(set(seen))


def test_a_purged_tenant_keeps_nothing(blobs: Blobs, beside: Blobs) -> None:
    mine = [blobs.put(str(n).encode(), tenant=A) for n in range(5)]
    other = blobs.put(b"other", tenant=B)
    assert blobs.books.expire(A) == len(mine)
    beside.sweep()
    assert [digest_of(other.ref) in p for p in places(beside)] == [True]  # type: ignore[operator]


def test_the_store_of_another_host_is_noticed(settings: Settings, client: redis.Redis, tmp_path: Path) -> None:
    Blobs(client, settings).put(b"x", tenant=A)
    foreign = Blobs(client, settings.model_copy(update={"blobs": str(tmp_path / "elsewhere")}))
    with pytest.raises(BackendError, match="is not the one that the platform uses"):
        foreign.put(b"y", tenant=A)


def test_no_secret_of_the_url_is_said(settings: Settings, client: redis.Redis) -> None:
    blobs = Blobs(client, settings.model_copy(update={"blobs": "ftp://user:hunter2@127.0.0.1:1/files?token=t0k3n"}))
    with pytest.raises(BackendError) as caught:
        blobs.put(b"x", tenant=A)
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "t0k3n" not in str(caught.value)


def test_a_store_whose_package_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(BackendError, match=r"toolweaver\[s3\]"):
        BlobStore("s3://bucket/prefix").has("x")


def test_a_full_store_says_so() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(StoreFull, match="`/dev` is full"):
        BlobStore("/dev").put(full, b"x" * MIB)
