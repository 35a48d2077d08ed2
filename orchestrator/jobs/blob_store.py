"""The bytes themselves, on any file system that fsspec knows: a folder, S3 and its like. Which bytes count, the books say."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from orchestrator.errors import BackendError, StoreFull, ToolWeaverError
from orchestrator.settings import MIB

CHUNK = 1 * MIB
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_REASON = 300


class BlobStore:
    """Places beneath one URL; places are made by the books."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.where = shown(url)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system and the folder on it; opened with the first use, so that a forked child has its own."""
        from fsspec.core import url_to_fs  # noqa: PLC0415  # a tenth of a second, in every process: for the few with large values

        with self._errors("be opened"):
            fs, root = url_to_fs(self._url, use_listings_cache=False)
            if _is_folder(fs):
                os.makedirs(root, mode=0o700, exist_ok=True)
            return fs, str(root).rstrip("/")

    def write(self, place: str) -> BinaryIO:
        """A new file at a place, to be closed by `finish` or `discard`."""
        fs, path = self._at(place)
        with self._errors("be written"):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return cast(BinaryIO, fs.open(path, "wb"))

    def put(self, file: BinaryIO, chunk: bytes) -> None:
        """Writes on."""
        with self._errors("be written"):
            file.write(chunk)

    def finish(self, file: BinaryIO) -> None:
        """Ends a file: its bytes outlive a crash of the machine."""
        with self._errors("be written"):
            if _is_folder(self._opened[0]):
                file.flush()
                os.fsync(file.fileno())
            file.close()

    def discard(self, file: BinaryIO, place: str) -> None:
        """Drops a file that is not finished; nothing of it stays."""
        with contextlib.suppress(Exception):  # such as the error because of which it is dropped
            from fsspec.spec import AbstractBufferedFile  # noqa: PLC0415  # it is loaded, since there is a file

            if isinstance(file, AbstractBufferedFile):  # `close` would complete what was uploaded so far
                file.discard()
                file.closed = True
            else:
                file.close()
        with contextlib.suppress(BackendError):  # the sweep tries again
            self.delete(place)

    def move(self, source: str, target: str) -> None:
        """Renames a finished file."""
        fs, path = self._at(target)
        with self._errors("be written"):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.mv(self._at(source)[1], path)

    def read(self, place: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in pieces.

        Raises:
            BackendError: the store does not give them.
        """
        fs, path = self._at(place)
        with self._errors("be read"):
            file = fs.open(path, "rb", **({} if _is_folder(fs) else {"block_size": 8 * CHUNK}))
        with contextlib.closing(file):
            with self._errors("be read"):
                file.seek(start)
            left = None if stop is None else stop - start
            while left is None or left > 0:
                with self._errors("be read"):
                    piece: bytes = file.read(CHUNK if left is None else min(CHUNK, left))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def delete(self, place: str) -> None:
        """Nothing lies at the place afterwards."""
        fs, path = self._at(place)
        with self._errors("be cleaned up"), contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    def has(self, place: str) -> bool:
        """Whether something lies there."""
        fs, path = self._at(place)
        with self._errors("be read"):
            return bool(fs.exists(path))

    def _at(self, place: str) -> tuple[Any, str]:
        fs, root = self._opened
        return fs, f"{root}/{place}"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Whatever a file system raises, as what an operator can act on."""
        try:
            yield
        except ToolWeaverError:
            raise
        except ImportError as error:
            raise BackendError(
                f"the blob store `{self.where}` needs a package that is not installed: {error}",
                next='For S3: `pip install "toolweaver[s3]"`.',
            ) from None
        except Exception as error:  # each file system of fsspec has classes of its own
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise StoreFull(
                    f"the blob store `{self.where}` is full",
                    next="Free some space: `toolweaver files list` and `files rm`, or let TOOLWEAVER_BLOBS name a larger store.",
                ) from None
            raise BackendError(
                f"the blob store `{self.where}` cannot {what}: {self._reason(error)}",
                next="Look at the store, and at TOOLWEAVER_BLOBS of this process.",
            ) from None

    def _reason(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}".replace(self._url, self.where)
        password = _password(self._url)
        return (text.replace(password, "***") if password else text)[:_LONGEST_REASON]


def _is_folder(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def shown(url: str) -> str:
    """A URL as messages show it: without credentials, query and fragment."""
    if "://" not in url:
        return url
    protocol, _, rest = url.partition("://")
    return f"{protocol}://{re.sub(r'^[^/?#]*@', '', rest)}".partition("?")[0].partition("#")[0]


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None
