"""Snapshots: whole or not there; what is on disk is what was written, or it is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from orchestrator.tool_search import snapshot
from orchestrator.tool_search.snapshot import (
    Meta,
    SnapshotCorrupt,
    SnapshotFailed,
    SnapshotOutdated,
    Writer,
    current,
    read,
    scratch,
    sweep,
)


def meta(generation: int = 1, digest: str = "ab" * 32) -> Meta:
    return Meta("1", "model", 4, digest, generation, 3, False)


def written(home, generation: int = 1, **rest):
    with Writer(home) as writer:
        writer.put("numbers", np.arange(1_000))
        writer.put("none", np.zeros((0, 4), np.float32))
        writer.stream("parts", np.float16, (4, 2), [np.ones((1, 2)), np.zeros((3, 2))])
        return writer.commit(meta(generation), **rest)


def test_what_was_written_is_read(tmp_path):
    folder = written(tmp_path / "home")
    assert current(tmp_path / "home") == folder
    found = read(folder, full=True)
    assert found.meta == meta()
    assert np.array_equal(found.arrays["numbers"], np.arange(1_000))
    assert found.arrays["none"].shape == (0, 4)
    assert found.arrays["parts"].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    assert not found.arrays["numbers"].flags.writeable


def test_a_flipped_bit_anywhere_is_refused_and_the_file_named(tmp_path):
    folder = written(tmp_path)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(SnapshotCorrupt) as refused:
                read(folder, full=True)
            assert file.name in refused.value.message
            assert refused.value.next
        file.write_bytes(whole)
    read(folder, full=True)


def test_a_file_that_is_cut_or_gone_is_refused_without_a_look_at_every_byte(tmp_path):
    folder = written(tmp_path)
    file = folder / "numbers.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(SnapshotCorrupt, match=r"numbers\.npy has .* bytes, not"):
        read(folder)
    file.unlink()
    with pytest.raises(SnapshotCorrupt, match=r"numbers\.npy cannot be read"):
        read(folder)
    with pytest.raises(SnapshotCorrupt, match="manifest"):
        read(tmp_path / "nothing")


def test_another_format_is_told_apart_from_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "FORMAT", 999)
    with Writer(tmp_path) as writer:
        monkeypatch.undo()
        folder = writer.commit(meta())
    with (folder / "manifest.json").open() as file:
        assert json.loads(json.load(file)["manifest"])["format"] == 1
    monkeypatch.setattr(snapshot, "FORMAT", 2)
    with pytest.raises(SnapshotOutdated):
        read(folder)


def test_what_is_not_committed_leaves_nothing(tmp_path):
    home = tmp_path / "home"
    former = written(home)
    with Writer(home) as writer:
        writer.put("numbers", np.arange(10))
        assert writer.folder.is_dir()
    assert current(home) == former
    assert {p.name for p in home.iterdir()} == {former.name, "current", ".lock"}


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from orchestrator.tool_search.snapshot import Meta, SnapshotFailed, Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Writer(Path(sys.argv[1])) as writer:
        writer.put("large", np.arange(1_000_000))
        writer.commit(Meta("1", "", 4, "cd" * 32, 2, 0, False))
except SnapshotFailed as error:
    print(error)
"""


def test_a_full_disk_leaves_the_former_one_in_place(tmp_path):
    former = written(tmp_path)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    assert "File too large; the former one is still in place" in done.stdout
    assert "Make room" in done.stdout
    assert current(tmp_path) == former
    assert {p.name for p in tmp_path.iterdir()} == {former.name, "current", ".lock"}
    read(former, full=True)


def test_an_older_generation_does_not_take_the_place_of_a_newer_one(tmp_path):
    newer = written(tmp_path, 7)
    older = written(tmp_path, 6)
    assert current(tmp_path) == newer
    assert older.is_dir()
    assert written(tmp_path, 8, current=False).is_dir()
    assert current(tmp_path) == newer


def test_many_writers_at_once_each_write_a_whole_one(tmp_path):
    folders = []
    threads = [threading.Thread(target=lambda g=g: folders.append(written(tmp_path, g))) for g in (1, 5, 3, 5, 2, 4, 5, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8
    for folder in folders:
        read(folder, full=True)
    assert read(current(tmp_path)).meta.generation == 5


def test_a_folder_that_somebody_reads_is_kept(tmp_path):
    old, held, new = written(tmp_path, 1), written(tmp_path, 2), written(tmp_path, 3)
    reading = read(held)
    assert sweep(tmp_path) == [old]
    assert held.is_dir()
    assert current(tmp_path) == new
    assert reading.arrays["numbers"][5] == 5
    del reading
    assert sweep(tmp_path) == [held]
    assert snapshot.newest(tmp_path) == [new]


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from orchestrator.tool_search.snapshot import Writer
with Writer(Path(sys.argv[1])) as writer:
    writer.put("numbers", np.arange(1_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_and_what_is_written_is_not(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.glob(".new-*")
    with Writer(tmp_path) as writer:
        sweep(tmp_path)
        assert left.is_dir(), "it may be a writer's that just began"
        for folder in (left, writer.folder):
            os.utime(folder, (0, 0))
        sweep(tmp_path)
        assert not left.exists()
        assert writer.folder.is_dir()


KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from orchestrator.tool_search.snapshot import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "part.npy").write_bytes(bytes(1_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_build_left_is_removed_and_what_is_built_is_not(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_BUILD, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    with scratch(tmp_path) as working:
        for folder in (left, working):
            os.utime(folder, (0, 0))
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [working]
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_one_is_discarded_while_another_still_reads_it(tmp_path):
    folder = written(tmp_path)
    reading = read(folder)
    snapshot.discard(folder)
    assert not folder.exists()
    assert current(tmp_path) is None
    assert reading.arrays["numbers"].sum() == 499_500


def test_a_home_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotFailed, match="could not be written"), Writer(tmp_path / "file"):
        pass
