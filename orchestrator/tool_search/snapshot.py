"""A catalog's tables in a folder that never changes: written beside, checked, and put in place by one rename.

`home/current` names the folder that counts. A reader holds a shared lock on the folder's manifest for as long as it uses it
(the kernel gives it back when the process dies), and a folder that somebody holds is not removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from orchestrator.errors import BackendError

FORMAT = 1
MANIFEST = "manifest.json"
CURRENT = "current"
_LOCK = ".lock"
_NEW, _GONE, _SCRATCH = ".new-", ".gone-", ".part-"
_BLOCK = 1 << 20
_YOUNG_S = 60.0
Array = NDArray[Any]


class SnapshotCorrupt(BackendError):
    """A snapshot on disk is not what was written."""

    code = "snapshot_corrupt"


class SnapshotOutdated(BackendError):
    """A snapshot on disk was written by another version of this program."""

    code = "snapshot_outdated"


class SnapshotFailed(BackendError):
    """A snapshot could not be written; the former one is still in place."""

    code = "snapshot_failed"


@dataclass(frozen=True, slots=True)
class Meta:
    """What a snapshot is of. `recipe`: of the documents' text; `model`: of the vectors, "" when there are none."""

    recipe: str
    model: str
    dimensions: int
    catalog_hash: str
    generation: int
    tools: int
    large: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """`Meta`, and the size and SHA-256 of each file."""

    meta: Meta
    files: Mapping[str, tuple[int, str]]
    format: int = FORMAT


@dataclass(frozen=True)
class Snapshot:
    """An open folder: its arrays, mapped from their files. It is not removed while this lives."""

    folder: Path
    manifest: Manifest
    arrays: Mapping[str, Array]
    _lock: IO[bytes] = field(repr=False, compare=False)

    @property
    def meta(self) -> Meta:
        """See `Meta`."""
        return self.manifest.meta

    def release(self) -> None:
        """Gives the memory of the files back that was read so far; what is read again comes from the kernel's cache."""
        for array in self.arrays.values():
            release(array)


class Writer:
    """Writes one folder. Used as a context: what is not committed leaves nothing behind.

    Raises:
        SnapshotFailed: no room, or another fault of the disk.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._name = secrets.token_hex(6)
        self.folder = home / f"{_NEW}{self._name}"
        self._files: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> Self:
        with _said(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir()
            self._held = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._held, fcntl.LOCK_EX)  # who cleans up sees that it is written; a kill gives it back
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # renamed when it was committed
        os.close(self._held)

    def put(self, name: str, array: Array) -> None:
        """Writes an array."""
        self.stream(name, array.dtype, array.shape, [array])

    def stream(self, name: str, dtype: DTypeLike, shape: tuple[int, ...], parts: Iterable[Array]) -> None:
        """Writes an array that comes in parts."""
        with _said(self._home), (self.folder / f"{name}.npy").open("wb") as file:
            hashed = _Hashed(file)
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(hashed, header)
            for part in parts:
                hashed.write(np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data)
            _flush(file)
        self._files[f"{name}.npy"] = hashed.said

    def made(self, name: str) -> None:
        """Takes a file in that somebody else wrote into the folder."""
        with _said(self._home), (self.folder / name).open("rb+") as file:
            _flush(file)
        self._files[name] = _look(self.folder / name)

    def commit(self, meta: Meta, *, current: bool = True) -> Path:
        """Puts the folder in place, and makes it the one that counts unless a newer one does. Gives where it is."""
        target = self._home / f"{meta.generation:012d}-{meta.catalog_hash[:12]}-{self._name}"
        with _said(self._home):
            with (self.folder / MANIFEST).open("wb") as file:
                file.write(_manifest_text(Manifest(meta, self._files)))
                _flush(file)
            _flush_folder(self.folder)
            self.folder.rename(target)
            _flush_folder(self._home)
            if current:
                _point(self._home, target, meta.generation)
        return target


def read(folder: Path, *, full: bool = False) -> Snapshot:
    """Opens a folder. Sizes are always checked; with `full` every byte is (about 1 s a GB).

    Raises:
        SnapshotCorrupt: it is not what was written.
        SnapshotOutdated: another version of this program wrote it.
    """
    try:
        lock = (folder / MANIFEST).open("rb")
    except OSError as error:
        raise _corrupt(folder, MANIFEST, "cannot be read") from error
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        manifest = _manifest(folder, lock.read())
        check(folder, manifest, full=full)
        return Snapshot(folder, manifest, {n[:-4]: _mapped(folder, n) for n in manifest.files if n.endswith(".npy")}, lock)
    except BaseException:
        lock.close()
        raise


def check(folder: Path, manifest: Manifest, *, full: bool) -> None:
    """Compares the files with the manifest.

    Raises:
        SnapshotCorrupt: one is missing or another.
    """
    for name, (size, digest) in manifest.files.items():
        try:
            there = (folder / name).stat().st_size
            if there != size:
                raise _corrupt(folder, name, f"has {there:,} bytes, not {size:,}")
            if full and _look(folder / name)[1] != digest:
                raise _corrupt(folder, name, "has another SHA-256 than it had when it was written")
        except OSError as error:
            raise _corrupt(folder, name, "cannot be read") from error


def current(home: Path) -> Path | None:
    """The folder that counts, if there is one."""
    try:
        name = (home / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return home / name if name and "/" not in name and (home / name).is_dir() else None


def newest(home: Path) -> list[Path]:
    """All folders, the newest generation first."""
    return sorted((p for p in home.glob("[0-9]*-*-*") if p.is_dir()), reverse=True) if home.is_dir() else []


def discard(folder: Path) -> None:
    """Takes a folder away that is of no use, such as a corrupt one; whoever has it open may go on."""
    gone = folder.with_name(f"{_GONE}{folder.name}-{secrets.token_hex(3)}")
    with contextlib.suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(home: Path, *, keep: int = 1) -> list[Path]:
    """Removes all but the newest `keep`, the one that counts and those that somebody holds; gives what was removed."""
    counts = current(home)
    removed = [p for p in newest(home)[keep:] if p != counts and _free(p)]
    for folder in removed:
        discard(folder)
    for left in (p for mark in (_NEW, _GONE, _SCRATCH) for p in home.glob(f"{mark}*") if _abandoned(p)):
        shutil.rmtree(left, ignore_errors=True)
    return removed


@contextlib.contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A folder for the parts of what is being made, gone afterwards; what a killed process left of it `sweep` removes."""
    with tempfile.TemporaryDirectory(dir=home, prefix=_SCRATCH) as name:
        held = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(held)


def release(array: Array) -> None:
    """Gives the memory of a mapped array back; of another one, nothing."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


class _Hashed:
    """A file, and the size and SHA-256 of what went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash, self._size = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        return len(data)

    @property
    def said(self) -> tuple[int, str]:
        return self._size, self._hash.hexdigest()


@contextlib.contextmanager
def _said(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SnapshotFailed(
            f"the snapshot in {home} could not be written: {error.strerror or error}; the former one is still in place",
            next="Make room on that disk, or give the index another folder.",
        ) from error


def _look(file: Path) -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            found.update(block)
            size += len(block)
    return size, found.hexdigest()


def _manifest_text(manifest: Manifest) -> bytes:
    body = json.dumps(asdict(manifest), sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "manifest": body}, indent=1).encode()


def _manifest(folder: Path, raw: bytes) -> Manifest:
    try:
        outer = json.loads(raw)
        body = outer["manifest"]
        if hashlib.sha256(body.encode()).hexdigest() != outer["sha256"]:
            raise ValueError("digest")
        said = json.loads(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(folder, MANIFEST, "is not what was written") from error
    if said["format"] != FORMAT:
        raise SnapshotOutdated(f"{folder} has format {said['format']}, this program reads {FORMAT}", next="It is made anew.")
    return Manifest(Meta(**said["meta"]), {n: (size, digest) for n, (size, digest) in said["files"].items()}, said["format"])


def _mapped(folder: Path, name: str) -> Array:
    try:
        with (folder / name).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
        mode: Literal["r"] | None = "r" if all(shape) else None  # nothing cannot be mapped
        return np.asarray(np.load(folder / name, mmap_mode=mode, allow_pickle=False))
    except ValueError as error:
        raise _corrupt(folder, name, "is no array") from error


def _corrupt(folder: Path, name: str, why: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{folder / name} {why}", path=name, next="Remove the folder: it is made anew from the catalog.")


def _point(home: Path, target: Path, generation: int) -> None:
    with (home / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        former = current(home)
        if former is not None and former.name[:12].isdigit() and int(former.name[:12]) > generation:
            return
        fresh = home / f"{CURRENT}.{target.name}"
        with fresh.open("wb") as file:
            file.write(target.name.encode())
            _flush(file)
        fresh.replace(home / CURRENT)
        _flush_folder(home)


def _free(folder: Path) -> bool:
    """Whether nobody holds a folder."""
    try:
        with (folder / MANIFEST).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def _abandoned(folder: Path) -> bool:
    """Whether nobody works on a folder any more; one of the last minute may be about to be taken hold of."""
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime > time.time() - _YOUNG_S:
            return False
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(held)
        return True
    return False


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
