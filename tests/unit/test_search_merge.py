"""A merged base is, byte by byte, the one that a build from scratch gives, and it reads no text again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.models.search import Filters
from orchestrator.tool_search import base, merge, postings, snapshot
from orchestrator.tool_search.index import Index
from orchestrator.tool_search.snapshot import SnapshotCorrupt, SnapshotFailed
from tests.unit.test_search_index import DIMENSIONS, check_same, query, random_document, vectors


def built(documents, home: Path, *, generation: int = 1, known=None, **rest) -> Path:
    have = vectors(documents) if known is None else known
    return merge.build(
        documents,
        home,
        generation=generation,
        model="m",
        dimensions=DIMENSIONS,
        vectors=lambda digests: {d: have[d] for d in digests if d in have},
        **rest,
    )


def files(folder: Path) -> dict[str, tuple[int, str]]:
    return dict(snapshot.read(folder, full=True).manifest.files)


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch) -> str:
    """A large base is one of more tools than are scored exactly; here that many are few."""
    if request.param == "large":
        for module in (base, merge):
            monkeypatch.setattr(module, "EXACT_MOST", 50)
        monkeypatch.setattr(postings, "CHUNK", 64)
        monkeypatch.setattr(merge, "CHUNK", 64)
    return str(request.param)


def test_a_snapshot_answers_as_the_view_in_memory(tmp_path, size):
    rng = random.Random(1)
    documents = [random_document(rng, n) for n in range(300)]
    index = merge.open_index(built(documents, tmp_path), full=True)
    assert index.base.folder is not None
    assert (index.base.inverted is not None) == (size == "large")
    check_same_ranks(index, Index.of(documents, vectors(documents), dimensions=DIMENSIONS), rng, exact=size == "small")


def check_same_ranks(index: Index, fresh: Index, rng: random.Random, *, exact: bool) -> None:
    """Cosines of a large base are read from codes of 8 bits."""
    if exact:
        return check_same(index, fresh, rng)
    assert (index.size, index.catalog_hash, index.backlog) == (fresh.size, fresh.catalog_hash, fresh.backlog)
    for text in ("invoice total", "weather forecast city"):
        for meaning in (True, False):
            found, expected = index.search(query(text, meaning=meaning), 10), fresh.search(query(text, meaning=meaning), 10)
            assert found.scores == pytest.approx(expected.scores, abs=0.02 if meaning else 2e-5)
    return None


@pytest.mark.parametrize("seed", range(3))
def test_a_merge_gives_what_a_build_from_scratch_does(tmp_path, size, seed):
    rng = random.Random(seed)
    kept = {d.name: d for d in (random_document(rng, n) for n in range(200))}
    known = vectors(rng.sample(sorted(kept.values(), key=lambda d: d.name), 120))
    index = merge.open_index(built(kept.values(), tmp_path, known=known))
    come = list({d.name: d for d in (random_document(rng, rng.randrange(260)) for _ in range(50))}.values())
    gone = rng.sample(sorted(kept), 30)
    kept = {n: d for n, d in kept.items() if n not in gone} | {d.name: d for d in come}
    known |= vectors(list(kept.values())[::2])
    index = index.apply(come, gone, generation=2, vectors=known).with_vectors(known)
    if size == "small":
        index = index.apply(come[:3], [come[4].name], generation=3).apply([come[4]], generation=4)  # there and back
        index = index.with_vectors(known)
    merged = merge.merge(*merge.order(index, tmp_path, model="m"), tmp_path)
    there = {index.name(i) for i in range(len(index.base) + len(index.delta)) if not (i < len(index.base) and index.dead[i])}
    assert there == set(kept)
    scratch = built(list(kept.values()), tmp_path / "scratch", generation=index.generation, known=known)
    assert files(merged) == files(scratch)
    assert snapshot.read(merged).meta == snapshot.read(scratch).meta
    assert snapshot.current(tmp_path) == merged
    fresh = merge.open_index(merged)
    assert (fresh.catalog_hash, fresh.generation, fresh.backlog) == (index.catalog_hash, index.generation, index.backlog)


def test_a_base_in_memory_is_merged_too(tmp_path):
    rng = random.Random(5)
    documents = [random_document(rng, n) for n in range(80)]
    index = Index.of(documents[:50], vectors(documents), dimensions=DIMENSIONS)
    index = index.apply(documents[50:], [documents[0].name], generation=3)
    merged = merge.merge(*merge.order(index, tmp_path, model="m"), tmp_path)
    assert files(merged) == files(built(documents[1:], tmp_path / "x", known=vectors(documents[:50])))


def test_parts_are_put_together_and_the_last_of_a_name_counts(tmp_path, monkeypatch, size):
    rng = random.Random(6)
    documents = [random_document(rng, rng.randrange(150)) for _ in range(400)]
    last = list({d.name: d for d in documents}.values())
    whole = built(last, tmp_path / "whole")
    monkeypatch.setattr(merge, "PART", 37)
    parts = built(iter(documents), tmp_path / "parts", known=vectors(documents))
    assert files(parts) == files(whole)
    assert {p.name for p in (tmp_path / "parts").iterdir()} == {parts.name, "current", ".lock"}


def test_nothing_is_a_catalog_too(tmp_path):
    index = merge.open_index(built([], tmp_path))
    assert (index.size, index.catalog_hash) == (0, "0" * 64)
    grown = index.apply([random_document(random.Random(2), 1)], generation=2)
    merged = merge.open_index(merge.merge(*merge.order(grown, tmp_path, model="m"), tmp_path))
    assert merged.size == 1
    bare = merge.open_index(merge.merge(*merge.order(merged.apply([], ["tool_001"], generation=3), tmp_path, model="m"), tmp_path))
    assert (bare.size, bare.catalog_hash) == (0, "0" * 64)


def test_what_came_while_it_was_merged_is_over_the_new_base(tmp_path):
    rng = random.Random(9)
    documents = [random_document(rng, n) for n in range(120)]
    ordered = merge.open_index(built(documents[:60], tmp_path)).apply(documents[60:90], ["tool_003"], generation=2)
    order = merge.order(ordered, tmp_path, model="m")
    now = ordered.apply([*documents[90:], random_document(rng, 5)], ["tool_007", "tool_070"], generation=3)
    now = now.apply([documents[3]], ["tool_008"], generation=4).with_vectors(vectors(documents[80:]))
    moved = now.rebased(ordered, merge.open_index(merge.merge(*order, tmp_path)))
    assert moved.generation == 4
    assert len(moved.delta) < len(now.delta)
    check_same(moved, now, rng)


def test_a_corrupt_base_is_not_merged(tmp_path):
    rng = random.Random(3)
    documents = [random_document(rng, n) for n in range(30)]
    folder = built(documents, tmp_path)
    order = merge.order(merge.open_index(folder).apply(documents[:3], ["tool_009"], generation=2), tmp_path, model="m")
    file = folder / "rows_data.npy"
    raw = bytearray(file.read_bytes())
    raw[500] ^= 4
    file.write_bytes(raw)
    with pytest.raises(SnapshotCorrupt, match=r"rows_data\.npy has another SHA-256"):
        merge.merge(*order, tmp_path)
    assert snapshot.current(tmp_path) == folder


def test_a_merge_that_lost_a_tool_is_not_taken(tmp_path):
    rng = random.Random(4)
    documents = [random_document(rng, n) for n in range(30)]
    folder = built(documents, tmp_path)
    other = built(documents[1:], tmp_path / "other")
    changed = merge.order(merge.open_index(other).apply([], ["tool_001"], generation=2), tmp_path / "other", model="m")[1]
    with pytest.raises(SnapshotFailed, match="the former snapshot is still in place"):
        merge.merge(folder, changed, tmp_path)
    assert snapshot.current(tmp_path) == folder


FULL_DISK = """
import resource, sys
from pathlib import Path
from orchestrator.tool_search import merge
from orchestrator.tool_search.snapshot import SnapshotFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    merge.merge(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
except SnapshotFailed as error:
    print(error)
"""


def test_a_merge_on_a_full_disk_leaves_the_former_one(tmp_path):
    rng = random.Random(3)
    folder = built([random_document(rng, n) for n in range(300)], tmp_path)
    before = {p.name for p in tmp_path.iterdir()}
    order = merge.order(merge.open_index(folder).apply([], ["tool_009"], generation=2), tmp_path, model="m")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, (*order, tmp_path))], capture_output=True, text=True, check=True, timeout=60
    )
    assert "the former one is still in place" in done.stdout
    assert snapshot.current(tmp_path) == folder
    assert {p.name for p in tmp_path.iterdir()} == before | {"orders"}


def test_masks_of_a_large_base_from_a_file(tmp_path, size):
    rng = random.Random(12)
    documents = [random_document(rng, n) for n in range(200)]
    index = merge.open_index(built(documents, tmp_path)).apply([], [documents[4].name], generation=2)
    for filters in (Filters(tenant="t1", tags=("a",)), Filters(names=("tool_011", "tool_004"))):
        mask = index.mask(filters)
        passing = [d.name for d in documents if filters.admits_group(**d.group._asdict()) and filters.admits_name(d.name)]
        expected = set(passing) - {"tool_004"}
        assert {index.name(i) for i in np.flatnonzero(mask)} == expected
        assert {index.name(i) for i in index.search(query("invoice total"), 200, mask=mask).ids} <= expected
