"""The snapshots of a home: which there are for which catalog, which of them can be trusted, and what is known beside each.

`index/<epoch>/` holds the folders of one catalog; a store that was emptied begins another. Replicas of one home share them: each
folder appears by one rename and never changes, and a note beside it says which version of the catalog it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import ToolWeaverError
from orchestrator.tool_search import snapshot
from orchestrator.tool_search.document import RECIPE
from orchestrator.tool_search.follow import Known
from orchestrator.tool_search.index import Index

log = logging.getLogger(__name__)

KEPT = 2  # folders of a catalog


class Shelf:
    """The snapshots below one folder. `refused` is called for each that cannot be used."""

    def __init__(self, folder: Path, *, open: Callable[[Path], Index], refused: Callable[[Path], None]) -> None:
        self.folder = folder
        self._open, self._refused = open, refused

    def home_of(self, epoch: str) -> Path:
        """Where the snapshots of a catalog lie."""
        return self.folder / (epoch or "none")

    def newest(self, epoch: str | None = None) -> tuple[Path, Index, Known] | None:
        """The newest good snapshot of a catalog, or of any; those that are not good are named in the log and taken away."""
        for folder in self._folders(epoch):
            found = self.read(folder)
            if found is not None:
                return (folder, *found)
        return None

    def read(self, folder: Path) -> tuple[Index, Known] | None:
        """A snapshot with what is known beside it; None: it is refused."""
        try:
            known, expected = _noted(folder)
            index = self._open(folder)
            if known.hash_of(index) != expected:
                raise ValueError(f"its tools have the hash {known.hash_of(index)[:16]}, not {expected[:16]}")
        except Exception as error:  # whatever is wrong with it, it can be made anew
            self._refuse(folder, error)
            return None
        return index, known

    def note(self, folder: Path, index_hash: str, known: Known) -> None:
        """Says beside a folder which catalog it is of: from now on it counts."""
        said = {
            "recipe": RECIPE, "version": (known.version or b"").decode(), "hash": index_hash,
            "unreadable": dict(known.unreadable), "stand_ins": dict(known.stand_ins), "model": known.model,
        }  # fmt: skip
        draft = _note_of(folder).with_suffix(f".{os.getpid()}.tmp")
        with draft.open("w") as file:
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(_note_of(folder))

    def drop(self, epoch: str) -> None:
        """Takes all snapshots of a catalog away."""
        for note in self.home_of(epoch).glob("*.json"):
            note.unlink(missing_ok=True)
            snapshot.discard(note.with_suffix(""))

    def sweep(self, epoch: str) -> None:
        """Takes away what is not needed any more: older folders of this catalog, and other catalogs."""
        home = self.home_of(epoch)
        snapshot.sweep(home, keep=KEPT)
        for note in home.glob("*.json"):
            if not note.with_suffix("").is_dir():
                note.unlink(missing_ok=True)
        for other in self.folder.iterdir():
            if other.is_dir() and other != home:
                shutil.rmtree(other, ignore_errors=True)

    @contextlib.contextmanager
    def merging(self, epoch: str) -> Iterator[bool]:
        """Whether this replica is the one that makes the next base; the kernel gives the lock back when it dies."""
        home = self.home_of(epoch)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (home / "merge.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            snapshot.sweep(home / "orders", keep=0)  # of replicas that were killed at it
            yield True

    def _folders(self, epoch: str | None) -> list[Path]:
        homes = [self.home_of(epoch)] if epoch is not None else [p for p in self.folder.glob("*") if p.is_dir()]
        noted = [note for home in homes for note in home.glob("*.json")]
        newest = sorted(noted, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
        return [note.with_suffix("") for note in newest]

    def _refuse(self, folder: Path, error: Exception) -> None:
        why = error.message if isinstance(error, ToolWeaverError) else str(error)
        log.warning("the snapshot `%s` is refused and made anew: %s", folder, why, extra={"action": "snapshot_refused"})
        _note_of(folder).unlink(missing_ok=True)
        snapshot.discard(folder)
        self._refused(folder)


def _note_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _noted(folder: Path) -> tuple[Known, str]:
    said = json.loads(_note_of(folder).read_text(encoding="utf-8"))
    if said["recipe"] != RECIPE:
        raise ValueError(f"it was made by recipe {said['recipe']}, this program has {RECIPE}")
    return Known(said["version"].encode() or None, said["unreadable"], said["stand_ins"], said["model"]), said["hash"]
