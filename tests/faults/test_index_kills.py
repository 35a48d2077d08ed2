"""The index service under faults: replicas and what works beside them killed, snapshots spoiled, the store gone, the disk full.

Every answer is judged: it names a generation of the catalog, and says of it what was published, or the test fails.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.models.search import IndexStatus
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.client import IndexClient
from tests.faults.platforms import LONG
from tests.processes import SERVER, platform
from tests.replicas import Askers, Book, Replicas, embed_beforehand
from tests.support import wait_until

pytestmark = pytest.mark.chaos

SEED = int(os.environ.get("INDEX_SEED", random.SystemRandom().randrange(1 << 30)))
SOURCES, EACH = 12, 5
KILLED = pytest.mark.parametrize(
    "whole", [pytest.param(True, id="the replica"), pytest.param(False, id="the process beside", marks=pytest.mark.long)]
)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    with platform() as running:
        yield Replicas(running)


@pytest.fixture
def book(replicas: Replicas) -> Book:
    made = Book(replicas.store)
    for n in range(SOURCES):
        change(made, n)
    return made


def change(book: Book, source: int) -> None:
    """All tools of a source become other ones of the same names, but for one that goes or comes."""
    names = [f"s{source}.tool{n}" for n in range(EACH)]
    gone = f"s{source}.tool{EACH - 1}" in book.present
    book.publish(f"mcp:s{source}", [book.tool(name) for name in (names[:-1] if gone else names)])


def many(book: Book, number: int) -> list[ToolDefinition]:
    """So many tools of one source, published."""
    tools = [book.tool(f"many.tool{n}") for n in range(number)]
    book.publish("mcp:many", tools)
    return tools


def beside(folder: Path, spoil: Callable[[Path], None]) -> None:
    """Spoils the largest array of a snapshot, as a new file: whoever has the former one open goes on with that."""
    largest = max(folder.glob("*.npy"), key=lambda f: f.stat().st_size)
    draft = folder / "draft"
    shutil.copyfile(largest, draft)
    spoil(draft)
    draft.replace(largest)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 0x10
    file.write_bytes(data)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


class Strikes:
    """What is done to two replicas of one home."""

    def __init__(self, replicas: Replicas, book: Book) -> None:
        self.replicas, self.book, self.chance = replicas, book, random.Random(SEED)
        self.done: list[str] = []

    def one(self) -> None:
        """One of them, at random; and changes of the catalog beside."""
        name = self.chance.choice(("one", "two"))
        kind = self.chance.choice((self.kill, self.kill, self.kill_beside, self.spoil_and_kill))
        kind(name)
        self.done.append(f"{kind.__name__} {name}")
        change(self.book, self.chance.randrange(SOURCES))

    def kill(self, name: str) -> None:
        other = "two" if name == "one" else "one"
        self.replicas.wait_ready(other)  # both away at once is another test
        self.replicas.running.kill(name)
        change(self.book, self.chance.randrange(SOURCES))
        time.sleep(self.chance.uniform(0.0, 0.5))
        self.replicas.running.start_again(name)
        time.sleep(self.chance.uniform(0.0, 0.5))

    def kill_beside(self, name: str) -> None:
        self.replicas.wait_ready(name)
        self.replicas.kill_beside(name)

    def spoil_and_kill(self, name: str) -> None:
        for folder in self.replicas.snapshots():
            try:
                beside(folder, self.chance.choice((flip, cut)))
            except (FileNotFoundError, ValueError):  # a replica took it away meanwhile
                continue
        self.kill(name)


@pytest.mark.parametrize(("strikes", "least_s"), [(6, 0.0), pytest.param(40, 120.0, marks=pytest.mark.long)])
def test_no_answer_is_wrong_while_replicas_are_killed_and_snapshots_spoiled(
    replicas: Replicas, book: Book, strikes: int, least_s: float
) -> None:
    replicas.start("one")
    replicas.start("two")
    replicas.wait_ready("one")
    replicas.wait_ready("two")
    urls = tuple(replicas.urls.values())
    clients = [IndexClient.of(replicas.running.settings, timeout=30.0), IndexClient(urls, timeout=30.0)]
    until, made = time.monotonic() + least_s, Strikes(replicas, book)
    with ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
        askers = stack.enter_context(Askers(book, iter(clients * 2).__next__, seed=SEED, number=4))
        while len(made.done) < strikes or time.monotonic() < until:
            made.one()
        found = replicas.wait_equal("one", "two")
    assert found.size >= len(book.present)
    print(f"{len(made.done)} strikes, {len(askers.seen)} queries, seed {SEED}: {', '.join(made.done)}")


@pytest.mark.long
@pytest.mark.parametrize("spoil", [flip, cut])
def test_a_spoiled_snapshot_is_refused_and_made_anew(replicas: Replicas, book: Book, spoil: Callable[[Path], None]) -> None:
    replicas.start("one")
    wait_until(lambda: snapshot_of(replicas, "one"), description="a snapshot is written", timeout=60, every=0.1)
    running = replicas.running
    with Askers(book, lambda: IndexClient(list(replicas.urls.values()), timeout=60.0), seed=SEED, number=1):
        running.kill("one")
        spoiled = replicas.snapshots()
        for folder in spoiled:
            beside(folder, spoil)
        running.start_again("one")
        status = replicas.wait_equal("one")
        assert running.said("snapshot `.*` is refused and made anew: .*(SHA-256|bytes, not)")
        assert (status.counts["refused"], status.counts["reloads"]) == (len(spoiled), 1)
        assert not [folder for folder in spoiled if folder.exists()]
        wait_until(lambda: snapshot_of(replicas, "one"), description="another one is made", timeout=60, every=0.1)
    running.restart("one")
    status = replicas.wait_equal("one")
    assert not status.counts.get("refused"), "the new one is good"
    assert not status.counts.get("reloads")


def snapshot_of(replicas: Replicas, name: str) -> str | None:
    status = replicas.status(name)
    return status.snapshot if status else None


def test_queries_go_on_while_the_store_is_stopped_and_started(replicas: Replicas, book: Book) -> None:
    running = replicas.running
    for name in ("one", "two"):
        replicas.start(name)
        replicas.wait_ready(name)
    with Askers(book, lambda: IndexClient.of(running.settings, timeout=20.0), seed=SEED, number=2) as askers:
        wait_until(lambda: len(askers.seen) > 5, description="the clients have found the replicas, through the store", timeout=20)
        for _ in range(5 if LONG else 2):
            assert running.terminate(SERVER) == 0
            before = len(askers.seen)
            wait_until(
                lambda: [s for s in askers.seen[before:] if any("store is away" in d for d in s.answer.degraded)],  # noqa: B023
                description="answers say that the store is away", timeout=20,
            )  # fmt: skip
            running.start_server()
            change(book, 0)
            replicas.wait_equal("one", "two")
        assert replicas.status("one") is not None


@pytest.mark.long
def test_a_replica_that_starts_while_the_store_is_away_serves_its_snapshot(replicas: Replicas, book: Book) -> None:
    running = replicas.running
    replicas.start("one")
    wait_until(lambda: snapshot_of(replicas, "one"), description="a snapshot is written", timeout=60, every=0.1)
    assert running.terminate(SERVER) == 0
    running.restart("one")
    replicas.wait_ready("one")
    with Askers(book, lambda: IndexClient(list(replicas.urls.values()), timeout=20.0), seed=SEED, number=1) as askers:
        wait_until(lambda: len(askers.seen) > 5, description="it answers", timeout=20)
        running.start_server()
        change(book, 0)
        status = replicas.wait_equal("one")
    assert not status.counts.get("reloads"), "only what changed was read"


def test_a_store_that_lost_its_latest_changes_is_followed(replicas: Replicas, book: Book, tmp_path: Path) -> None:
    """As after a restore from yesterday's backup: the same catalog, at an older version."""
    running = replicas.running
    replicas.start("one")
    replicas.wait_equal("one")
    running.client.bgrewriteaof()
    wait_until(lambda: not running.client.info("persistence")["aof_rewrite_in_progress"], description="the log is rewritten")
    backup = tmp_path / "backup"
    shutil.copytree(running.data, backup)
    change(book, 1)
    change(book, 2)
    replicas.wait_equal("one")
    running.kill(SERVER)
    shutil.rmtree(running.data)
    shutil.copytree(backup, running.data)
    running.start_server()
    replicas.wait_equal("one", timeout=10)


@KILLED
@pytest.mark.long
def test_a_kill_during_a_merge_costs_only_that_merge(replicas: Replicas, book: Book, whole: bool) -> None:
    running, home = replicas.running, replicas.running.settings.home
    embed_beforehand(home, many(book, 2_500 if LONG else 1_000))
    replicas.start("one")
    replicas.wait_ready("one")
    wait_until(  # until then a tool without a vector may stand behind many whose vectors were made of another text
        lambda: (s := replicas.status("one")) and not s.backlog, description="all tools have their vectors", timeout=60
    )
    with Askers(book, lambda: IndexClient(list(replicas.urls.values()), timeout=60.0), seed=SEED, number=1, whole=True):
        wait_until(
            lambda: list(home.glob("index/*/orders/[0-9]*")) and list(home.glob("index/*/.new-*/*.npy")),
            description="a merge is at work",
            timeout=60,
            every=0.001,
        )
        if whole:
            running.kill("one")
            running.start_again("one")
        else:
            assert replicas.kill_beside("one")
            wait_until(
                lambda: (s := replicas.status("one")) and s.counts.get("merge_failed"), description="it is noticed", timeout=20
            )
        change(book, 0)
        status = replicas.wait_equal("one")
        assert not status.counts.get("errors")
        if whole or LONG:  # else it is tried again in half a minute
            wait_until(lambda: snapshot_of(replicas, "one"), description="a base is made after all", timeout=90, every=0.1)


@KILLED
@pytest.mark.long
def test_a_kill_while_tools_are_embedded_loses_no_tool_and_no_vector(replicas: Replicas, book: Book, whole: bool) -> None:
    running = replicas.running
    many(book, 400 if LONG else 150)
    replicas.start("one")
    total = replicas.wait_ready("one").size

    def half_done() -> IndexStatus | None:
        status = replicas.status("one")
        return status if status and 0 < status.backlog < total else None

    with Askers(book, lambda: IndexClient(list(replicas.urls.values()), timeout=60.0), seed=SEED, number=1, rate=5.0):
        before = wait_until(half_done, description="some have a vector, and not all", timeout=60)
        assert before is not None
        if whole:
            running.restart("one")
        else:
            assert replicas.kill_beside("one")
        change(book, 0)
        replicas.wait_equal("one")
        if whole or LONG:
            wait_until(
                lambda: (s := replicas.status("one")) and not s.backlog, description="all have a vector", timeout=120, every=0.2
            )
    assert before.backlog < total


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """The folder is on a disk of 128 KB of its own; false where that is not allowed."""
    place.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("disk", [pytest.param(True, id="disk"), pytest.param(False, id="limit", marks=pytest.mark.long)])
def test_without_room_there_are_no_snapshots_and_every_answer(replicas: Replicas, book: Book, disk: bool) -> None:
    """By a disk that is full; by a limit of the size of files where no disk can be mounted."""
    many(book, 60)
    with ExitStack() as stack:
        place = replicas.running.settings.home / "index"
        mounted = disk and stack.enter_context(small_disk(place))
        without_room(replicas, book, *(() if mounted else ("prlimit", "--fsize=50000")))
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            replicas.running.restart("one")
            wait_until(lambda: snapshot_of(replicas, "one"), description="there is room: a snapshot", timeout=90, every=0.1)
        replicas.running.kill("one")


def without_room(replicas: Replicas, book: Book, *command: str) -> None:
    """A replica that can write no snapshot answers as others do, knows all tools by meaning, and says what fails."""
    replicas.start("one", command=command)
    replicas.wait_ready("one")
    with Askers(book, lambda: IndexClient(list(replicas.urls.values()), timeout=60.0), seed=SEED, number=1):
        wait_until(
            lambda: (s := replicas.status("one")) and s.counts.get("merge_failed") and not s.backlog,
            description=f"vectors come, snapshots do not\n{replicas.running.logs()}", timeout=120, every=0.2,
        )  # fmt: skip
        change(book, 0)
        status = replicas.wait_equal("one")
        assert not status.counts.get("errors")
        assert not status.snapshot
