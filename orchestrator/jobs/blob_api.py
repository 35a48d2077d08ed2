"""Bytes through the API: for a worker on a host that does not reach the platform's store.

A worker serves all tenants, so it shows a ticket that it put into Redis: whoever can write there may act for any tenant.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from typing import IO, Any

import httpx

from orchestrator.errors import BackendError, LimitExceeded, StoreFull, ToolWeaverError, from_problem
from orchestrator.jobs.books import BlobBooks, Booked, Note
from orchestrator.models.file import digest_of, reference
from orchestrator.settings import MIB, Settings

CHUNK = 1 * MIB
IN_MEMORY = 8 * MIB
PATIENCE_S = 60.0
TICKET_HEADER = "X-ToolWeaver-Ticket"


class BlobApi:
    """The API of the platform as a place of bytes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        url = httpx.URL(settings.blob_url)
        self.where = str(url.copy_with(userinfo=b"", query=None))

    @cached_property
    def _http(self) -> httpx.Client:
        key = self._settings.api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        transport = httpx.HTTPTransport(retries=2)
        return httpx.Client(base_url=self._settings.blob_url, timeout=PATIENCE_S, headers=headers, transport=transport)

    def upload(self, books: BlobBooks, tenant: str, note: Note) -> _ApiUpload:
        return _ApiUpload(self, books, tenant, note)

    def send(self, books: BlobBooks, tenant: str, *, body: IO[bytes], size: int, note: Note) -> str:
        """Posts a file; its hash as the API found it."""
        headers = self._ticket(books, tenant) | {"Content-Type": note.media_type, "Content-Length": str(size)}
        with self._errors():
            response = self._http.post(
                "/v1/files", params={"name": note.name, "kind": note.kind}, content=_pieces(body), headers=headers
            )
            self._check(response)
        return digest_of(str(response.json()["ref"])) or ""

    def read(self, books: BlobBooks, tenant: str, booked: Booked, *, start: int, stop: int | None) -> Iterator[bytes]:
        """Gets a file, or a part of it."""
        headers = self._ticket(books, tenant)
        if stop is not None and stop <= start:
            return
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._errors(), self._http.stream("GET", f"/v1/files/{booked.file.ref}", headers=headers) as response:
            if not response.is_success:
                response.read()
                self._check(response)
            yield from response.iter_raw(CHUNK)

    def sweep(self, books: BlobBooks, limit: int) -> int:  # noqa: ARG002 (the protocol's signature)
        return 0  # a process beside the store does it

    def _ticket(self, books: BlobBooks, tenant: str) -> dict[str, str]:
        return {TICKET_HEADER: books.ticket(tenant), "Accept-Encoding": "identity"}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, OSError) as error:
            raise BackendError(
                f"the API at `{self.where}` does not move files: {type(error).__name__}: {error}",
                next="Look whether it runs, and at TOOLWEAVER_BLOBS of this process.",
            ) from None

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        error = _problem(response)
        if isinstance(error, StoreFull | LimitExceeded):
            raise error
        raise BackendError(
            f"the API at `{self.where}` refused to move a file: {error.message if error else response.status_code}",
            next=(error.next if error else None) or "Look at TOOLWEAVER_BLOBS and TOOLWEAVER_API_KEY of this process.",
        )


class _ApiUpload:
    """Bytes that are kept aside until all are there, since their hash may show that they need not be sent."""

    def __init__(self, api: BlobApi, books: BlobBooks, tenant: str, note: Note) -> None:
        self._api, self._books, self._tenant, self._note = api, books, tenant, note
        self._body = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (closed by commit or abort)

    def write(self, chunk: bytes) -> None:
        self._body.write(chunk)

    def commit(self, sha256: str, size: int) -> None:
        while not self._booked(sha256, size):
            self._body.seek(0)
            arrived = self._api.send(self._books, self._tenant, body=self._body, size=size, note=self._note)
            if arrived != sha256:
                raise BackendError(f"`{reference(sha256)}` arrived at `{self._api.where}` as other bytes", next="Send it again.")
        self._body.close()

    def abort(self) -> None:
        self._body.close()

    def _booked(self, sha256: str, size: int) -> bool:
        place = self._books.hold(self._tenant, sha256)
        return bool(place and self._books.add(self._tenant, sha256, place, size, self._note))


def _pieces(body: IO[bytes]) -> Iterator[bytes]:
    while piece := body.read(CHUNK):
        yield piece


def _problem(response: httpx.Response) -> ToolWeaverError | None:
    try:
        body: Any = response.json()
    except ValueError:
        return None
    return from_problem(body) if isinstance(body, dict) and "code" in body else None
