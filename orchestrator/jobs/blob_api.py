"""Bytes through the API: for a worker on a host that does not reach the platform's store.

A worker serves all tenants, so it uses addresses of its own (`/v1/blobs/<tenant>`), for which its key needs the scope `worker`.
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

    def send(self, tenant: str, *, body: IO[bytes], size: int, note: Note) -> str:
        """Posts a file; its hash as the API found it."""
        headers = {"Content-Type": note.media_type, "Content-Length": str(size)}
        with self._errors():
            response = self._http.post(
                f"/v1/blobs/{tenant}",
                params={"name": note.name, "kind": note.kind, "job": note.job},
                content=_pieces(body),
                headers=headers,
            )
            self._check(response)
        return digest_of(str(response.json()["ref"])) or ""

    def read(self, books: BlobBooks, tenant: str, booked: Booked, *, start: int, stop: int | None) -> Iterator[bytes]:  # noqa: ARG002
        """Gets a file, or a part of it."""
        headers = {"Accept-Encoding": "identity"}
        if stop is not None and stop <= start:
            return
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._errors(), self._http.stream("GET", f"/v1/blobs/{tenant}/{booked.file.sha256}", headers=headers) as response:
            if not response.is_success:
                response.read()
                self._check(response)
            yield from response.iter_raw(CHUNK)

    def sweep(self, books: BlobBooks, limit: int) -> int:  # noqa: ARG002 (the protocol's signature)
        return 0  # a process beside the store does it

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
        while not self._books.add_known(self._tenant, sha256, self._note):
            self._body.seek(0)
            arrived = self._api.send(self._tenant, body=self._body, size=size, note=self._note)
            if arrived != sha256:
                raise BackendError(f"`{reference(sha256)}` arrived at `{self._api.where}` as other bytes", next="Send it again.")
        self._body.close()

    def abort(self) -> None:
        self._body.close()


def _pieces(body: IO[bytes]) -> Iterator[bytes]:
    while piece := body.read(CHUNK):
        yield piece


def _problem(response: httpx.Response) -> ToolWeaverError | None:
    try:
        body: Any = response.json()
    except ValueError:
        return None
    return from_problem(body) if isinstance(body, dict) and "code" in body else None
