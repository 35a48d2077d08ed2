"""Files on their way: an upload is read anew for each try; a download goes on where a cut ended it, and is verified."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mimetypes
import os
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from io import IOBase
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import httpx

from orchestrator.client.answers import Attempts
from orchestrator.errors import BackendError, NotFound, RequestError
from orchestrator.models.file import UNTYPED, Artifact, FileRef, clean_name, digest_of

PIECE = 1 << 20

Upload = str | os.PathLike[str] | bytes | BinaryIO


@dataclass(frozen=True)
class Source:
    """The bytes of an upload, readable more than once."""

    data: Path | bytes | BinaryIO
    name: str
    media_type: str
    start: int = 0

    @property
    def repeatable(self) -> bool:
        """Whether they can be sent again; storing the same bytes twice is storing them once."""
        return isinstance(self.data, Path | bytes) or self.data.seekable()

    @property
    def headers(self) -> dict[str, str]:
        """Type, and length where it is known."""
        size = self._size()
        return {"Content-Type": self.media_type} | ({"Content-Length": str(size)} if size is not None else {})

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the beginning."""
        if isinstance(self.data, bytes):
            yield self.data
        elif isinstance(self.data, Path):
            with self.data.open("rb") as file:
                yield from _read(file)
        else:
            if self.data.seekable():
                self.data.seek(self.start)
            yield from _read(self.data)

    async def async_pieces(self) -> AsyncIterator[bytes]:
        """The same, read in a thread."""
        pieces = self.pieces()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def _size(self) -> int | None:
        if isinstance(self.data, bytes):
            return len(self.data)
        if isinstance(self.data, Path):
            return self.data.stat().st_size
        if not self.data.seekable():
            return None
        end = self.data.seek(0, os.SEEK_END)
        self.data.seek(self.start)
        return end - self.start


def source_of(data: Upload, *, name: str | None, media_type: str | None) -> Source:
    """What is to be uploaded: the file at a path, bytes, or an open binary file.

    Raises:
        NotFound: there is no file at the path.
        RequestError: it is a folder, or an open text file.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if path.is_dir():
            raise RequestError(f"`{path}` is a folder", path="file", next="Upload its files one by one, or an archive of it.")
        if not path.is_file():
            raise NotFound(f"there is no file `{path}`", path="file", next="Check the path.")
        return Source(path, clean_name(name or path.name), media_type or _guessed(name or path.name))
    if isinstance(data, bytes | bytearray | memoryview):
        return Source(bytes(data), clean_name(name or ""), media_type or _guessed(name or ""))
    own = str(getattr(data, "name", "") or "")
    if hasattr(data, "encoding"):
        raise RequestError(f"`{own or data}` is open as text", path="file", next='Open it with mode "rb".')
    start = data.tell() if data.seekable() else 0
    return Source(data, clean_name(name or own), media_type or _guessed(name or own), start)


def listed(files: Iterable[Upload | FileRef] | Upload | FileRef) -> list[Upload | FileRef]:
    """The files; a single one is a list of one."""
    if isinstance(files, str | os.PathLike | bytes | FileRef | IOBase):
        return [files]  # type: ignore[list-item]  # IOBase is what open files are made of
    return list(files)


def named(file: Upload | FileRef) -> str | None:
    """The reference of a file that is on the platform already; None of one that is to be uploaded."""
    if isinstance(file, FileRef):
        return file.ref
    return file if isinstance(file, str) and file.startswith(("blob:", "bundled:")) else None


class Arriving:
    """A file on its way here: where it goes on after a cut, and whether it is the one that was asked for."""

    def __init__(self, ref: str, to: str | os.PathLike[str] | BinaryIO, *, address: str) -> None:
        sha256 = digest_of(ref)
        if sha256 is None:
            raise RequestError(f"`{ref[:100]}` is no reference to a file", path="ref", next="Write it as `blob:sha256:...`.")
        self.ref, self._sha256, self._address = ref, sha256, address
        self._attempts = Attempts(address, repeatable=True)
        self._hash = hashlib.sha256()
        self._got = 0
        self._target = Path(to) if isinstance(to, str | os.PathLike) else None
        self._part: Path | None = None
        self._out: BinaryIO | None = None if isinstance(to, str | os.PathLike) else to

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/v1/files/{self.ref}"

    @property
    def headers(self) -> dict[str, str]:
        """What is still missing."""
        plain = {"Accept-Encoding": "identity"}
        return plain | {"Range": f"bytes={self._got}-"} if self._got else plain

    def opened(self, response: httpx.Response) -> float | None:
        """None when bytes follow, else seconds to wait before the next try.

        Raises:
            ToolWeaverError: what the server raised.
        """
        pause = self._attempts.after_answer(response, frozenset({416} if self._got else ()))
        if pause is None and response.status_code == httpx.codes.OK and self._got:
            raise BackendError(f"`{self._address}` cannot go on with a file that broke off", next="Download it again.")
        if pause is None and self._out is None:
            self._open(response)
        return pause

    def write(self, piece: bytes) -> None:
        """Takes the next bytes."""
        assert self._out is not None, "the file was opened"
        self._out.write(piece)
        self._hash.update(piece)
        self._got += len(piece)

    def cut(self, error: httpx.TransportError) -> float:
        """Seconds to wait before it goes on."""
        return self._attempts.after_cut(error)

    def finish(self) -> Path | None:
        """The file in its place, None when it went into an open one.

        Raises:
            BackendError: these are not the bytes that the reference names.
        """
        if self._hash.hexdigest() != self._sha256:
            raise BackendError(
                f"`{self._address}` sent {self._got:,} bytes that are not those of `{self.ref}`", next="Download it again."
            )
        if self._part is None or self._target is None or self._out is None:
            return None
        self._out.close()
        self._part.replace(self._target)
        self._part = None
        return self._target

    def _open(self, response: httpx.Response) -> None:
        assert self._target is not None, "a file that is open already is not opened"
        if self._target.is_dir():
            self._target /= _said_name(response) or self._sha256
        self._part = self._target.with_name(f".{self._target.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            self._out = self._part.open("wb")
        except OSError as error:
            self._part = None
            raise RequestError(f"`{self._target}` cannot be written: {error.strerror}", path="to", next="Check the path.") from None

    def close(self) -> None:
        """Leaves no half file behind."""
        if self._part is not None:
            if self._out is not None:
                self._out.close()
            with contextlib.suppress(OSError):
                self._part.unlink()


def placed(artifacts: Iterable[Artifact], folder: Path) -> Iterator[tuple[FileRef, Path]]:
    """Each file and its place in a folder: under its own name, and where that is taken, with the call before it."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for artifact in artifacts:
        name = artifact.file.name or artifact.file.sha256[:16]
        if name in taken:
            name = f"{artifact.call.replace('#', '-')}-{name}"
        if name in taken:
            name = f"{artifact.file.sha256[:16]}-{name}"
        taken.add(name)
        yield artifact.file, folder / name


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _guessed(name: str) -> str:
    return mimetypes.guess_type(name)[0] or UNTYPED


def _said_name(response: httpx.Response) -> str:
    quoted = response.headers.get("content-disposition", "").partition("filename*=UTF-8''")[2]
    return clean_name(unquote(quoted))
