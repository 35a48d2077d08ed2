"""Files and large values of tenants: bytes in a store, books in Redis, and one door to both."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from types import TracebackType
from typing import BinaryIO, Protocol, Self, cast

import redis

from orchestrator.errors import BackendError, LimitExceeded, NotFound
from orchestrator.jobs.blob_store import BlobStore
from orchestrator.jobs.books import FILE, WRITE_WITHIN_S, BlobBooks, Booked, Note
from orchestrator.models.file import FileRef, reference
from orchestrator.settings import MIB, Settings
from orchestrator.state.keys import BLOB_STORE

Allow = Callable[[int], object]


class Bytes(Protocol):
    """Where the bytes lie: a store that this process reaches, or the API of a platform that reaches it."""

    where: str

    def upload(self, books: BlobBooks, tenant: str, note: Note) -> Upload:
        """Takes new bytes."""

    def read(self, books: BlobBooks, tenant: str, booked: Booked, *, start: int, stop: int | None) -> Iterator[bytes]:
        """Gives the bytes that were booked."""

    def sweep(self, books: BlobBooks, limit: int) -> int:
        """Deletes what no book names; how many places."""


class Upload(Protocol):
    """Bytes on their way in; what is not committed leaves nothing behind."""

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""

    def commit(self, sha256: str, size: int) -> None:
        """All bytes are there: they are stored and booked."""

    def abort(self) -> None:
        """Drops them."""


class Blobs:
    """A tenant's files by their content's SHA-256; nobody sees those of another tenant, even with the right hash."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.settings = settings
        self.books = BlobBooks(client, settings)
        remote = settings.blob_url.startswith(("http://", "https://"))
        self.bytes: Bytes = _through_api(settings) if remote else StoredBytes(BlobStore(settings.blob_url))

    def put(
        self,
        chunks: Iterable[bytes] | bytes,
        *,
        tenant: str,
        note: Note | None = None,
        sha256: str | None = None,
        allow: Allow = bool,
    ) -> FileRef:
        """Stores bytes; those that the tenant has already are not stored twice. `sha256` is their hash, if it is known.

        Raises:
            LimitExceeded: they are more than a limit allows.
            StoreFull: the store has no room left.
            BackendError: it does not answer.
        """
        note = note or Note()
        if sha256 is not None and self.books.add_known(tenant, sha256, note):
            return self.find(sha256, tenant=tenant).file
        with self.incoming(tenant=tenant, note=note, allow=allow) as incoming:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                incoming.write(chunk)
            return incoming.commit()

    def incoming(self, *, tenant: str, note: Note, allow: Allow = bool) -> Incoming:
        """Bytes that arrive piece by piece; `allow` is asked for every size and raises when it is too much."""
        return Incoming(self, tenant, note, allow=allow)

    def find(self, sha256: str, *, tenant: str) -> Booked:
        """What is known of a file.

        Raises:
            NotFound: the tenant has none of that content.
        """
        booked = self.books.find(tenant, sha256)
        if booked is None:
            raise not_found(reference(sha256))
        return booked

    def read(self, sha256: str, *, tenant: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes, or a part of them, in pieces; the last piece of a whole file comes only when its hash is right.

        Raises:
            NotFound: the tenant has none of that content.
            BackendError: the store does not give them, or gives others.
        """
        booked = self.find(sha256, tenant=tenant)
        pieces = self.bytes.read(self.books, tenant, booked, start=start, stop=stop)
        return pieces if start or stop is not None else _verified(pieces, booked, self.bytes.where)

    def sweep(self, limit: int = 100) -> int:
        """Deletes what nobody names any more, with bounded work; how many places. Only where the store is reached itself."""
        return self.bytes.sweep(self.books, limit)


class Incoming:
    """Bytes that arrive: counted, hashed, written on. Left without `commit`, nothing of them stays."""

    def __init__(self, blobs: Blobs, tenant: str, note: Note, *, allow: Allow) -> None:
        self._blobs, self._tenant, self._note = blobs, tenant, note
        self._allow = allow
        self._hash = hashlib.sha256()
        self._upload: Upload | None = None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises:
            LimitExceeded: there are more than a limit allows.
        """
        self.size += len(chunk)
        self.check(self.size)
        self._hash.update(chunk)
        self._begun().write(chunk)

    def check(self, size: int) -> None:
        """Refuses so many bytes, before or while they come, when a limit forbids them."""
        settings = self._blobs.settings
        most = settings.file_max_bytes if self._note.kind == FILE else settings.result_max_bytes
        if size > most:
            raise LimitExceeded(
                f"The file is larger than {most / MIB:g} MiB (`file_max_bytes`).", path="$", next="Send it in parts."
            )
        self._allow(size)

    def commit(self) -> FileRef:
        """The file, stored and booked."""
        sha256 = self._hash.hexdigest()
        self._begun().commit(sha256, self.size)
        self._upload = None
        return self._blobs.find(sha256, tenant=self._tenant).file

    def _begun(self) -> Upload:
        if self._upload is None:
            self._upload = self._blobs.bytes.upload(self._blobs.books, self._tenant, self._note)
        return self._upload

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._upload is not None:
            self._upload.abort()


class StoredBytes:
    """Bytes in a store that this process reaches."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.where = store.where
        self._is_shared = False

    def upload(self, books: BlobBooks, tenant: str, note: Note) -> Upload:
        self._check_shared(books)
        return _StoreUpload(self.store, books, tenant, note)

    def read(self, books: BlobBooks, tenant: str, booked: Booked, *, start: int, stop: int | None) -> Iterator[bytes]:  # noqa: ARG002
        self._check_shared(books)
        return self.store.read(booked.place, start, stop)

    def sweep(self, books: BlobBooks, limit: int) -> int:
        if not books.redis.exists(BLOB_STORE):
            return 0  # nobody has stored anything yet
        self._check_shared(books)
        return books.sweep(limit, delete=self.store.delete)

    def _check_shared(self, books: BlobBooks) -> None:
        """A worker of another host whose folder is not the platform's would store bytes that nobody finds.

        Raises:
            BackendError: this process has another store than those that stored before.
        """
        if self._is_shared:
            return
        known = books.redis.get(BLOB_STORE) or self._introduce(books)
        marker = f".store-{bytes(known).decode()}"
        if not self.store.has(marker):  # it was written before its name was told
            raise BackendError(
                f"the blob store `{self.where}` of this process is not the one that the platform uses",
                next="Let TOOLWEAVER_BLOBS name the shared store or the address of the API; see `docs/files.md`.",
            )
        self._is_shared = True

    def _introduce(self, books: BlobBooks) -> bytes:
        """The first process marks its store, then tells the others; of two at once one wins."""
        mine = secrets.token_hex(8)
        marker = f".store-{mine}"
        self.store.finish(self.store.write(marker))
        if not books.redis.set(BLOB_STORE, mine, nx=True):
            self.store.delete(marker)
        return bytes(books.redis.get(BLOB_STORE) or b"")


class _StoreUpload:
    """Bytes under a temporary name, which is renamed when the hash is known."""

    def __init__(self, store: BlobStore, books: BlobBooks, tenant: str, note: Note) -> None:
        self._store, self._books, self._tenant, self._note = store, books, tenant, note
        self._place = books.begin(tenant)
        self._file: BinaryIO = store.write(self._place)

    def write(self, chunk: bytes) -> None:
        self._store.put(self._file, chunk)

    def commit(self, sha256: str, size: int) -> None:
        self._store.finish(self._file)
        if self._books.add_known(self._tenant, sha256, self._note):
            self.abort()
            return
        mine = self._books.new_place(self._tenant, sha256)
        self._books.expect(self._tenant, sha256, mine)
        self._store.move(self._place, mine)
        counts = self._books.add(self._tenant, sha256, mine, size, self._note)
        if not counts:
            raise BackendError(f"storing a file took longer than {WRITE_WITHIN_S // 3600} hours", next="Send it again.")
        if counts != mine:  # somebody else was first
            self._remove(mine, sha256)
        self._books.dropped(self._tenant, self._place)

    def abort(self) -> None:
        self._store.discard(self._file, self._place)
        with contextlib.suppress(redis.RedisError):  # the sweep looks at it again
            self._books.dropped(self._tenant, self._place)

    def _remove(self, place: str, sha256: str) -> None:
        with contextlib.suppress(BackendError, redis.RedisError):  # the sweep tries again
            self._store.delete(place)
            self._books.dropped(self._tenant, place, sha256=sha256)


def _through_api(settings: Settings) -> Bytes:
    """Loaded here: most processes reach the store themselves, and need no HTTP client for it."""
    return cast(Bytes, import_module("orchestrator.jobs.blob_api").BlobApi(settings))


def not_found(ref: str) -> NotFound:
    """There is no such file for this tenant; whether another one has it is not said."""
    return NotFound(f"There is no file `{ref}`.", path="ref", next="Upload it with `toolweaver files upload`; files expire.")


def _verified(pieces: Iterator[bytes], booked: Booked, where: str) -> Iterator[bytes]:
    found, size = hashlib.sha256(), 0
    held: bytes | None = None
    for piece in pieces:
        found.update(piece)
        size += len(piece)
        if held is not None:
            yield held
        held = piece
    if found.hexdigest() != booked.file.sha256:
        raise BackendError(
            f"the blob store `{where}` gave {size:,} bytes of `{booked.file.ref}` that are not those that were stored "
            f"({booked.file.size:,} bytes)",
            next="Upload the file again, and look at the store.",
        )
    if held is not None:
        yield held
