"""A laboratory for programs: the real image, a real pool, the host's real session; tools are functions of the test.

    result = await lab.run("output = await double(n=21)", tools={"double": double})

Nothing here is on the product's side of the wall: the session, the pool and the image are the product's own.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.errors import BackendError
from orchestrator.models.program import ProgramLimits, ProgramResult
from orchestrator.models.tool import ToolDefinition
from orchestrator.programmatic_executor.session import Ended, Program, Session, ToolCall
from orchestrator.settings import Settings, load_settings
from workers.code.engine import Engine
from workers.code.image import build, require_image, version
from workers.code.leases import OWNER
from workers.code.pool import Sandbox, SandboxPool

T = TypeVar("T")
Tool = Callable[..., Any]

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("TEST_SANDBOX_BASE", "toolweaver-sandbox-base:local")
IMAGE = os.environ.get("TEST_SANDBOX_IMAGE", f"toolweaver-sandbox:test-{version()}")  # two checkouts do not fight over it
EXIT_CODE_S = 2.0
NO_TOOLS: Mapping[str, Tool] = MappingProxyType({})


def sandbox_settings(**more: Any) -> Settings:
    """Settings of a pool of the test image, with a folder of its own."""
    return load_settings(_env_file=None, **({"sandbox_image": IMAGE} | more))


def prepare(say: Callable[[str], None] = lambda _: None) -> None:
    """Builds base and image where they are missing or old; once, whoever asks first.

    Raises:
        BackendError: there is no engine, or the image cannot be built.
    """
    with (Path(tempfile.gettempdir()) / f"toolweaver-lab-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = Engine.of(sandbox_settings())
        try:
            engine.about()
            with suppress(BackendError):
                require_image(engine, IMAGE)
                return
            if engine.image(BASE) is None:
                _make_base()
            for line in build(engine, tag=IMAGE, base=BASE):
                say(line)
        finally:
            engine.close()


def _make_base() -> None:
    made = subprocess.run([ROOT / "ops" / "sandbox-base.sh", BASE], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise BackendError(f"ops/sandbox-base.sh failed: {made.stderr.strip()[-500:]}")


class Lab:
    """A pool on a loop of its own in a thread, so that tests with loops of their own share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="lab", daemon=True)
        self.used: set[str] = set()  # ids of all containers that were handed out
        self.folders: dict[str, Path] = {}
        self.seconds: list[float] = []  # of each execution, from the program's start to its end
        self.pool: SandboxPool

    def open(self) -> None:
        """Starts the pool.

        Raises:
            BackendError: as SandboxPool.start.
        """
        self._thread.start()

        async def start() -> SandboxPool:
            pool = SandboxPool(self.settings)
            await pool.start()
            return pool

        self.pool = self._do(start())

    def close(self) -> None:
        """Removes everything."""
        try:
            if hasattr(self, "pool"):
                self._do(self.pool.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(10)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(180)

    async def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits something on the pool's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def run(
        self,
        code: str,
        *,
        tools: Mapping[str, Tool] = NO_TOOLS,
        input_data: Any = None,
        limits: ProgramLimits | None = None,
        job: str | None = None,
        reuse: bool = False,
        on_output: Callable[[str, str], None] | None = None,
    ) -> ProgramResult:
        """What comes of a program. Its tools run on the caller's loop; those that are no coroutines in a thread."""
        caller = asyncio.get_running_loop()

        async def call(made: ToolCall) -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_answer(tools[made.tool.name], made), caller))

        definitions = {name: definition(name, function) for name, function in tools.items()}
        return await self.on_loop(
            self._execute(code, definitions, call, input_data, limits or ProgramLimits(), job, reuse, on_output)
        )

    async def _execute(
        self,
        code: str,
        tools: dict[str, ToolDefinition],
        call: Callable[[ToolCall], Coroutine[Any, Any, Any]],
        input_data: Any,
        limits: ProgramLimits,
        job: str | None,
        reuse: bool,
        on_output: Callable[[str, str], None] | None,
    ) -> ProgramResult:
        stubs = StubGenerator(tools.values())
        program = Program(
            code=code,
            input_data=input_data,
            tools=tools,
            execution_id=f"code_exec_{secrets.token_hex(4)}",
            modules=stubs.modules(),
            names=stubs.names(),
        )
        async with self.pool.take(limits=limits, job=job, reuse=reuse) as sandbox:
            self._note(sandbox)
            began = time.monotonic()
            ended = await Session(sandbox.sock, program, limits=limits, call=call, on_output=on_output).run()
            seconds = time.monotonic() - began
            self.seconds.append(seconds)
            usage = await sandbox.figures(bytes_in=ended.bytes_in, bytes_out=ended.bytes_out)
            if ended.status == "security_error":
                sandbox.condemn("it broke the protocol")
            why = await _why_closed(sandbox, ended) if ended.closed else None
            if usage.memory_exceeded:
                why = why and f"memory exceeded: {why}"
        return ProgramResult(
            output=ended.output,
            result=ended.value,
            tool_calls=tuple(ended.records),
            execution_time=seconds,
            execution_id=program.execution_id,
            error=why or (str(ended.error) if ended.error is not None else None),
            status="error" if why is not None and ended.status == "success" else ended.status,
            usage=usage,
        )

    def _note(self, sandbox: Sandbox) -> None:
        self.used.add(sandbox.id)
        self.folders[sandbox.id] = sandbox.folder

    def leftovers(self) -> list[str]:
        """What is left of executions that ended: containers, processes, folders. Those that a job may use again do not count."""
        gone = self.used - self.pool.held
        engine = Engine.of(self.settings)
        try:
            listed = {c.id: c.state for c in engine.containers(f"{OWNER}={self.pool.owner.id}")}
        finally:
            engine.close()
        return [
            *(f"container {id[:12]} ({listed[id]})" for id in sorted(gone & listed.keys())),
            *(f"folder {self.folders[id]}" for id in sorted(gone) if self.folders[id].exists()),
            *(f"process {pid} of {id[:12]}" for pid, id in _processes(gone)),
        ]


def definition(name: str, function: Tool) -> ToolDefinition:
    """The tool that a function of a test is."""
    registry = ToolRegistry()
    register_function(name, pool=None, effect="none", domain="lab", registry=registry)(function)
    (made,) = registry.definitions()
    return made


async def _answer(function: Tool, call: ToolCall) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(**call.arguments)
    return await asyncio.to_thread(function, **call.arguments)


async def _why_closed(sandbox: Sandbox, ended: Ended) -> str:
    code = await sandbox.exited(within_s=EXIT_CODE_S)
    return f"closed before it was done: exit code {code}, container: {sandbox.fault or 'alive'} ({ended.status})"


def _processes(containers: set[str]) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            groups = (folder / "cgroup").read_text()
            for id in containers:
                if id in groups:
                    yield int(folder.name), id


@contextmanager
def opened(**settings: Any) -> Iterator[Lab]:
    """A lab of its own, its image built."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="tw-lab-") as folder:
        lab = Lab(sandbox_settings(sandbox_dir=Path(folder) / "s", **settings))
        try:
            lab.open()
            yield lab
        finally:
            lab.close()
