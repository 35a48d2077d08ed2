"""Values that are too large for messages and for Redis, and files of tools, through the real ledger, runner and workers."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import BaseModel

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import File, Lazy
from orchestrator.errors import NotFound, ToolError
from orchestrator.jobs.blobs import StoredBytes
from orchestrator.jobs.books import Note
from orchestrator.models.file import digest_of, reference
from orchestrator.models.job import CallState, JobStatus
from orchestrator.settings import MIB, Settings
from tests.engine import Engine
from tests.processes import platform
from workers import step as runner
from workers.testing import FakeContext, call_tool

pytestmark = pytest.mark.integration

TOOLS = Path(__file__).parents[1] / "file_tools.py"
UNKNOWN = reference("0" * 64)


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return Engine(settings.model_copy(update={"broker_url": None, "blob_bytes": 100_000, "inline_bytes": 1_000}))


def blobs_on_disk(engine: Engine) -> list[Path]:
    folder = engine.store.settings.home / "blobs"
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".store-")]


def big(engine: Engine, job: str) -> int:
    return engine.store.redis.hlen(engine.ledger.keys(job).big)


# Tiers


@pytest.mark.parametrize(("size", "beside", "in_store"), [(10, 0, 0), (50_000, 1, 0), (300_000, 0, 1)])
def test_a_value_lies_where_its_size_says(engine: Engine, size: int, beside: int, in_store: int) -> None:
    @engine.tool()
    def make(n: int) -> str:
        return "x" * n

    @engine.tool()
    def length(text: str) -> int:
        return len(text)

    view, result = engine.run(
        [{"id": "a", "tool": "make", "input": {"n": size}}, {"id": "b", "tool": "length", "input": {"text": "step:a"}}]
    )
    assert view.status is JobStatus.SUCCEEDED
    assert result.steps == {"a": "x" * size, "b": size}
    assert big(engine, view.id) == beside
    assert len(blobs_on_disk(engine)) == in_store
    field = engine.store.redis.hget(engine.ledger.keys(view.id).data, "r:a#0")
    assert field[:1] == (b"f" if in_store else b"b" if beside else b"j")
    assert len(field) < 200


def test_large_values_go_with_their_job(engine: Engine) -> None:
    @engine.tool()
    def make(n: int) -> str:
        return "x" * n

    view, _ = engine.run([{"id": "a", "tool": "make", "input": {"n": 300_000}}])
    engine.store.files.blobs.sweep()
    assert len(blobs_on_disk(engine)) == 1
    keys = engine.ledger.keys(view.id)
    books = engine.store.files.blobs.books
    [value] = [digest_of(reference(p.name.partition("-")[0])) for p in blobs_on_disk(engine)]
    assert value is not None
    engine.store.redis.delete(keys.state, keys.data)  # its retention is over
    job_names = books.shard("default", value).blob_jobs("default", value)
    engine.store.redis.zadd(job_names, {view.id: 0})  # named long ago
    assert books.remove("default", value)  # what the sweep does when the upload's lifetime is over
    assert engine.store.files.blobs.sweep() == 1
    assert blobs_on_disk(engine) == []


def test_large_inputs_lie_in_the_store_too(engine: Engine) -> None:
    @engine.tool()
    def length(text: str) -> int:
        return len(text)

    texts = [str(n) * 60_000 for n in range(4)]
    view, result = engine.run(
        [{"id": "s", "tool": "length", "map": "input:texts", "input": {"text": "item"}}], inputs={"texts": texts}
    )
    assert result.steps["s"] == [60_000] * 4
    assert len(engine.store.redis.hget(engine.ledger.keys(view.id).data, "inputs")) < 200
    assert engine.store.accepted(view.id) is None
    assert engine.store.inputs(view.id) == {"texts": texts}


def test_a_map_reads_its_large_list_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    @engine.tool()
    def rows(n: int) -> dict[str, Any]:
        return {"rows": [{"id": i, "text": "x" * 1_000} for i in range(n)]}

    @engine.tool()
    def id_of(row: dict[str, Any]) -> int:
        return int(row["id"])

    reads = []
    whole = StoredBytes.read
    monkeypatch.setattr(StoredBytes, "read", lambda *a, **k: reads.append(1) or whole(*a, **k))  # counts, and reads
    view, result = engine.run(
        [
            {"id": "a", "tool": "rows", "input": {"n": 300}},
            {"id": "b", "tool": "id_of", "map": "step:a.rows", "input": {"row": "item"}},
        ]
    )
    assert view.status is JobStatus.SUCCEEDED
    assert result.steps["b"] == list(range(300))
    assert len(reads) == 1


def test_what_is_kept_is_bounded_by_bytes(settings: Settings) -> None:
    engine = Engine(settings.model_copy(update={"broker_url": None, "inline_bytes": 100, "kept_bytes": 10_000}))

    @engine.tool()
    def make(n: int) -> str:
        return "x" * n

    for n in range(20):
        engine.run([{"id": "a", "tool": "make", "input": {"n": 2_000 + n}}])
        engine.store.values(engine.run([{"id": "a", "tool": "make", "input": {"n": 3_000 + n}}])[0].id, ["a#0"])
    assert engine.store.files._kept._sizes <= 10_000


def test_a_value_that_is_lost_is_said_and_tried_again(engine: Engine) -> None:
    @engine.tool()
    def make(n: int) -> str:
        return "x" * n

    @engine.tool()
    def length(text: str) -> int:
        return len(text)

    job = engine.submit(
        [
            {"id": "a", "tool": "make", "input": {"n": 300_000}},
            {"id": "b", "tool": "length", "input": {"text": "step:a"}, "retry": {"max": 1, "backoff_s": 0}},
        ]
    )
    engine.deliver(engine.mailbox.calls.pop())
    [path] = blobs_on_disk(engine)
    away = path.rename(path.with_name("away"))
    engine.drain()
    [call] = [c for c in engine.store.calls(job) if c.call == "b#0"]
    assert (call.state, call.tries) == (CallState.WAITING, 1)
    away.rename(path)
    engine.retry_now(job)
    engine.drain()
    assert engine.store.result(job).steps["b"] == 300_000


def test_an_effect_whose_result_cannot_be_stored_is_unknown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    paid = []

    @engine.tool(effect="once")
    def pay() -> str:
        paid.append(1)
        return "r" * 300_000

    monkeypatch.setattr(runner, "KEEP_PATIENCE_S", 0.0)
    (engine.store.settings.home / "blobs").parent.mkdir(parents=True, exist_ok=True)
    (engine.store.settings.home / "blobs").write_text("in the way")  # the store cannot be opened
    view, _ = engine.run([{"id": "p", "tool": "pay", "retry": {"max": 3, "backoff_s": 0}}])
    assert view.status is JobStatus.WAITING
    assert view.unknown[0].error is not None
    assert "did its work" in view.unknown[0].error.message
    assert "blob store" in view.unknown[0].error.message
    assert paid == [1]


# Lazy


class Row(BaseModel):
    id: int


def test_a_lazy_value_is_fetched_when_it_is_asked_for_and_checked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    @engine.tool()
    def rows(n: int) -> dict[str, Any]:
        return {"rows": [{"id": i} for i in range(n)], "pad": "x" * 300_000}

    @engine.tool()
    def count(rows: Lazy[list[Row]], wanted: bool) -> int:
        if not wanted:
            return -1
        assert rows.load() is rows.load()
        return sum(row.id for row in rows.load())

    reads = []
    whole = StoredBytes.read
    monkeypatch.setattr(StoredBytes, "read", lambda *a, **k: reads.append(1) or whole(*a, **k))  # counts, and reads
    plan = [
        {"id": "a", "tool": "rows", "input": {"n": 4}},
        {"id": "no", "tool": "count", "input": {"rows": "step:a.rows", "wanted": False}},
    ]
    job = engine.submit(plan)
    engine.drain()
    assert reads == []
    assert engine.store.values(job, ["no#0"]) == [-1]
    plan[1]["input"] = {"rows": "step:a.rows", "wanted": True}
    job = engine.submit(plan)
    engine.drain()
    assert engine.store.values(job, ["no#0"]) == [6]
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([{"id": 1}, {"id": 2}], 3),
        ("input:rows", 7),
        ("step:a.nothing", "there is nothing at `.nothing`"),
        ("step:a", "Input should be a valid list"),
        ("text", "rows"),
    ],
)
def test_what_a_lazy_parameter_may_be_given(engine: Engine, given: Any, wanted: Any) -> None:
    @engine.tool()
    def make() -> dict[str, Any]:
        return {"rows": []}

    @engine.tool()
    def count(rows: Lazy[list[Row]]) -> int:
        return sum(row.id for row in rows.load())

    steps = [{"id": "a", "tool": "make"}, {"id": "b", "tool": "count", "input": {"rows": given}}]
    view, result = engine.run(steps, inputs={"rows": [{"id": 7}]})
    if isinstance(wanted, int):
        assert result.steps["b"] == wanted
    else:
        assert view.status is JobStatus.FAILED
        assert wanted in result.errors[0].message


def test_the_schema_of_a_lazy_value_is_that_of_the_value(engine: Engine) -> None:
    @engine.tool()
    def count(rows: Lazy[list[Row]], file: File) -> int:
        """Counts."""
        return len(rows.load())

    tool = engine.registry.get("count")
    assert tool is not None
    schema = tool.definition.input_schema
    assert schema["properties"]["rows"]["type"] == "array"
    assert schema["properties"]["file"]["type"] == "string"
    assert schema["properties"]["file"]["format"] == "toolweaver-file"
    assert tool.lazy_parameters == {"rows"}


# Files of tools


def upload(engine: Engine, data: bytes, *, name: str = "", tenant: str = "default") -> str:
    return engine.store.files.blobs.put(data, tenant=tenant, note=Note(name, "text/plain")).ref


def test_a_tool_reads_files_and_makes_them(engine: Engine) -> None:
    paths: list[Path] = []

    @engine.tool()
    def shout(text: File, more: list[File], context: ToolContext, one: File | None = None) -> dict[str, Any]:
        paths.append(text.path())
        assert text.path().name == text.name == "a.txt"
        assert (text.size, text.media_type) == (5, "text/plain")
        with text.open() as opened:
            opened.seek(1)
            assert opened.read() == b"ello"
        joined = b"".join(f.read() for f in (text, *more))
        ref = context.save_file(joined.upper(), name="loud.txt")
        with context.open_file(ref) as again:
            assert again.read() == joined.upper()
        return {"made": ref, "taken": text.ref, "one": one is None}

    a, b = upload(engine, b"hello", name="a.txt"), upload(engine, b" world")
    view, result = engine.run([{"id": "s", "tool": "shout", "input": {"text": "input:a", "more": [b, b]}}], inputs={"a": a})
    assert view.status is JobStatus.SUCCEEDED, result.errors
    made = result.steps["s"]["made"]
    assert b"".join(engine.store.files.blobs.read(digest_of(made) or "", tenant="default")) == b"HELLO WORLD WORLD"
    assert not paths[0].exists(), "copies are gone with the call"
    [artifact] = engine.store.artifacts(view.id).artifacts
    assert (artifact.call, artifact.step, artifact.file.ref, artifact.file.name) == ("s#0", "s", made, "loud.txt")
    assert artifact.file.media_type == "text/plain"


def test_a_file_that_the_tenant_does_not_have_ends_the_call_before_the_tool_runs(engine: Engine) -> None:
    ran = []

    @engine.tool(effect="once")
    def read(file: File) -> int:
        ran.append(1)
        return file.size

    foreign = upload(engine, b"of another tenant", tenant="bolt")
    for ref in (UNKNOWN, foreign):
        with pytest.raises(NotFound, match=ref):
            engine.submit([{"id": "s", "tool": "read", "input": {"file": ref}}])
    gone = upload(engine, b"soon gone")
    job = engine.submit([{"id": "s", "tool": "read", "input": {"file": gone}}])
    engine.store.redis.delete(engine.store.files.blobs.books.shard("default", gone[12:]).blob("default", gone[12:]))
    engine.drain()
    [error] = engine.store.result(job).errors
    assert (error.code, gone in error.message) == ("not_found", True)
    assert ran == []


def test_a_foreign_reference_in_a_result_gives_no_access(engine: Engine) -> None:
    foreign = upload(engine, b"of another tenant", tenant="bolt")

    @engine.tool()
    def guess() -> str:
        return foreign

    @engine.tool()
    def read(file: File) -> int:
        return file.size

    view, result = engine.run([{"id": "g", "tool": "guess"}, {"id": "r", "tool": "read", "input": {"file": "step:g"}}])
    assert view.status is JobStatus.FAILED
    assert result.errors[0].code == "not_found"
    assert engine.store.artifacts(view.id).artifacts == ()


def test_only_the_attempt_that_counts_has_artifacts(engine: Engine) -> None:
    @engine.tool()
    def save(context: ToolContext) -> str:
        ref = context.save_file(f"attempt {context.attempt}".encode(), name=f"{context.attempt}.txt")
        if context.attempt == 1:
            raise ToolError("not yet", retryable=True)
        return ref

    view, _ = engine.run([{"id": "s", "tool": "save", "retry": {"max": 1, "backoff_s": 0}}])
    engine.retry_now(view.id)
    engine.drain()
    assert [a.file.name for a in engine.store.artifacts(view.id).artifacts] == ["2.txt"]


def test_artifacts_of_a_map_come_in_pages(engine: Engine) -> None:
    @engine.tool()
    def save(n: int, context: ToolContext) -> str:
        return context.save_file(str(n).encode(), name=f"{n}.txt")

    view, _ = engine.run([{"id": "s", "tool": "save", "map": "input:ns", "input": {"n": "item"}}], inputs={"ns": list(range(7))})
    seen: list[str] = []
    start = 0
    while True:
        page = engine.store.artifacts(view.id, limit=3, start=start)
        seen += [a.file.name for a in page.artifacts]
        if page.next_cursor is None:
            break
        start = int(page.next_cursor)
    assert seen == [f"{n}.txt" for n in range(7)]


def test_a_file_at_a_path_and_one_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"png")

    @engine.tool()
    def save(path: str, context: ToolContext) -> str:
        return context.save_file(Path(path))

    view, result = engine.run([{"id": "s", "tool": "save", "input": {"path": str(tmp_path / "plot.png")}}])
    file = engine.store.files.blobs.find(digest_of(result.steps["s"]) or "", tenant="default").file
    assert (file.name, file.media_type, file.size) == ("plot.png", "image/png", 3)
    view, result = engine.run([{"id": "s", "tool": "save", "input": {"path": str(tmp_path / "missing")}}])
    assert view.status is JobStatus.FAILED
    assert "missing" in result.errors[0].message


def test_the_harness_for_tools_has_files(engine: Engine) -> None:
    from tests import file_tools

    context = FakeContext()
    ref = context.save_file(b"hello", name="a.txt")
    made = call_tool(file_tools.shout, context, text=ref)
    assert context.open_file(made).read() == b"HELLO"
    assert context.files.made[-1].name == "LOUD a.txt"
    with pytest.raises(ToolError, match="no file"):
        call_tool(file_tools.shout, text=UNKNOWN)
    with pytest.raises(ToolError, match="`text`"):
        call_tool(file_tools.shout, text="a.txt")


# All of it, with processes


class Watched:
    """Notes the size of every message on the broker, and of every value that Redis is given, as Redis itself sees them."""

    def __init__(self, client: redis.Redis) -> None:
        self.messages: list[int] = []
        self.largest = 0
        self._monitor: Any = client.monitor()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        with self._monitor as monitor:
            for seen in monitor.listen():
                command: str = seen["command"]
                self.largest = max(self.largest, len(command))
                if command.upper().startswith(("LPUSH ", "RPUSH ")):
                    self.messages.append(len(command))
                if "the end of the watch" in command:
                    return

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)


@pytest.mark.parametrize(
    ("broker", "size"),
    [("published", 10_000_000), ("direct", 10_000_000), pytest.param("published", 50_000_000, marks=pytest.mark.long)],
)
def test_values_of_many_mb_through_ten_steps(broker: Any, size: int) -> None:
    """No message is larger than 4 KB, and Redis grows with none of the values."""
    steps: list[dict[str, Any]] = [{"id": "s0", "tool": "grow", "input": {"bytes": size}}]
    steps += [{"id": f"s{n}", "tool": "turn", "input": {"value": f"step:s{n - 1}"}} for n in range(1, 8)]
    steps += [
        {"id": "sum", "tool": "measure", "input": {"value": "step:s7"}},
        {"id": "peek", "tool": "peek", "input": {"value": "step:s7"}},
    ]
    with platform(broker=broker) as p:
        p.start_planner()
        p.start("worker", [sys.executable, "-m", "workers.boot", "--pool", "function", "--concurrency", "1", "--tools", str(TOOLS)])
        p.wait_ready()
        memory = p.client.info("memory")["used_memory"]
        with Watched(p.client) as watched:
            job = p.submit(steps, output="step:sum")
            view = p.wait(job, timeout=120)
            p.client.echo("the end of the watch")
        assert view.status is JobStatus.SUCCEEDED, p.logs()
        result = p.store.result(job)
        rows = result.steps["s0"]["rows"]
        turned = rows[7:] + rows[:7]
        assert result.steps["sum"]["sha256"] == hashlib.sha256(json.dumps(turned).encode()).hexdigest()
        assert result.steps["peek"]["rows"] is None
        assert len(rows) * len(rows[0]) > 0.98 * size
        assert len(watched.messages) >= 10
        assert max(watched.messages) <= 4_096
        assert watched.largest < 200_000, "no value goes through Redis"  # a script, at most
        grown = p.client.info("memory")["used_memory"] - memory
        assert grown < 2 * MIB, grown
        print(f"messages {len(watched.messages)}, largest {max(watched.messages)} bytes; Redis grew by {grown} bytes")


def test_a_worker_without_the_store_uses_the_api() -> None:
    """Its home is elsewhere, so its own folder would be the wrong store, which it notices; through the API it is right."""
    with platform(blob_bytes=100_000) as p:
        p.start_planner()
        p.start_api()
        address = f"http://127.0.0.1:{p.env['TOOLWEAVER_API_PORT']}"
        command = [sys.executable, "-m", "workers.boot", "--pool", "function", "--concurrency", "1", "--tools", str(TOOLS)]
        elsewhere = p.folder / "elsewhere"
        p.start("worker", command, env={"TOOLWEAVER_HOME": str(elsewhere), "TOOLWEAVER_BLOBS": address})
        p.wait_ready()
        text = p.store.files.blobs.put(b"hello", tenant="default")
        steps: list[dict[str, Any]] = [
            {"id": "a", "tool": "grow", "input": {"bytes": 300_000}},
            {"id": "b", "tool": "measure", "input": {"value": "step:a"}},
            {"id": "c", "tool": "shout", "input": {"text": text.ref}},
        ]
        view = p.wait(p.submit(steps))
        assert view.status is JobStatus.SUCCEEDED, p.logs()
        made = p.store.result(view.id).steps
        assert b"".join(p.store.files.blobs.read(digest_of(made["c"]) or "", tenant="default")) == b"HELLO"
        assert len(made["a"]["rows"]) == made["b"]["rows"]
        assert not (elsewhere / "blobs").exists()

        p.start("wrong", command, env={"TOOLWEAVER_HOME": str(elsewhere)})
        p.wait_ready(workers=2)
        p.kill("worker")
        view = p.wait(p.submit(steps[:1]))
        assert view.status is JobStatus.FAILED
        assert view.error is not None
        assert "is not the one that the platform uses" in view.error.message
