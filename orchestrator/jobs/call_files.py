"""The files of one call: read at most once, into a folder that is gone with the call; made for the job, and kept as long as it."""

from __future__ import annotations

import contextlib
import mimetypes
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from orchestrator.errors import LimitExceeded, NotFound, ToolError
from orchestrator.jobs.blobs import Allow, Blobs
from orchestrator.jobs.books import Note
from orchestrator.models.file import FileRef, clean_media_type, clean_name, digest_of
from orchestrator.settings import MIB

CHUNK = 1 * MIB
_PREFIX = "toolweaver-call-"
_LEFT_S = 6 * 3600  # a folder of a process that is gone is deleted after this


class CallFiles:
    """What a running tool reads and makes: `made` are SHA-256; `allow` gives the check of sizes that a limit asks for."""

    def __init__(self, blobs: Blobs, *, tenant: str, job: str) -> None:
        self._blobs, self._tenant, self._job = blobs, tenant, job
        self._folder: Path | None = None
        self._fetched: dict[str, Path] = {}
        self.made: set[str] = set()
        self.allow: Callable[[], Allow] = lambda: bool

    def info(self, ref: str) -> FileRef:
        """What is known of a file.

        Raises:
            ToolError: `not_found`: the tenant has no such file.
        """
        sha256 = digest_of(ref)
        if sha256 is None:
            raise ToolError(f"`{ref[:100]}` is no reference to a file", code="bad_reference", next="Write it as `blob:sha256:...`.")
        try:
            return self._blobs.find(sha256, tenant=self._tenant).file
        except NotFound as error:
            raise ToolError(f"there is no file `{ref}`", code="not_found", next=error.next) from None

    def fetch(self, ref: str) -> Path:
        """A copy on this machine under the file's own name, checked against its hash.

        Raises:
            ToolError: `not_found`, or this machine has no room for it.
            BackendError: the blob store does not give it.
        """
        info = self.info(ref)
        if ref not in self._fetched:
            folder = self._own_folder() / info.sha256
            folder.mkdir(exist_ok=True)
            path = folder / (info.name or "file")
            with _room_for(info), path.open("wb") as copy:
                for piece in self._blobs.read(info.sha256, tenant=self._tenant):
                    copy.write(piece)
            self._fetched[ref] = path
        return self._fetched[ref]

    def open(self, ref: str) -> BinaryIO:
        """The file for reading and seeking."""
        return self.fetch(ref).open("rb")

    def save(self, data: bytes | str | os.PathLike[str] | BinaryIO, *, name: str, media_type: str | None) -> str:
        """Stores what a tool made: bytes, the file at a path, or an open file; its reference.

        Raises:
            ToolError: `too_large`, or there is no file at the path.
            BackendError: the blob store does not take it.
        """
        if not name and isinstance(data, str | os.PathLike):
            name = os.path.basename(data)
        name = clean_name(name)
        kind = clean_media_type(media_type or mimetypes.guess_type(name)[0])
        note = Note(name=name, media_type=kind, job=self._job)
        try:
            file = self._blobs.put(_pieces(data), tenant=self._tenant, note=note, allow=self.allow())
        except LimitExceeded as error:
            raise ToolError(error.message, code="too_large", next=error.next) from None
        self.made.add(file.sha256)
        return file.ref

    def close(self) -> None:
        """Deletes the copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._fetched.clear()

    def _own_folder(self) -> Path:
        if self._folder is None:
            _delete_left_folders()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        return self._folder


def _pieces(data: bytes | str | os.PathLike[str] | BinaryIO) -> Iterator[bytes]:
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
    elif isinstance(data, str | os.PathLike):
        try:
            with open(data, "rb") as file:
                yield from _pieces(file)
        except OSError as error:
            raise ToolError(
                f"`{os.fspath(data)}` cannot be read: {error.strerror}", code="not_found", next="Pass the path of a file, or bytes."
            ) from None
    else:
        while piece := data.read(CHUNK):
            yield piece


@contextlib.contextmanager
def _room_for(info: FileRef) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(
            f"`{info.ref}` ({info.size:,} bytes) cannot be copied to `{tempfile.gettempdir()}`: {error.strerror}",
            code="no_room",
            retryable=True,
            next="Free space on the worker's disk, or set TMPDIR to a larger one.",
        ) from None


def _delete_left_folders() -> None:
    """Those of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and time.time() - folder.stat().st_mtime > _LEFT_S:
                shutil.rmtree(folder, ignore_errors=True)
