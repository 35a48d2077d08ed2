"""Programs run from Python alone, without a platform: each in a hardened container of its own, which needs Docker and nothing else.

    with CodeExecutor(timeout=5) as executor:
        print(executor.execute("print(6 * 7)").stdout)

The containers are those of the pool `code`, with the same walls, leases and guard. There are no tools here.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from orchestrator.errors import BackendError, RequestError, ToolError, ToolWeaverError
from orchestrator.models.program import ProgramLimits, Status, Usage
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.session import Ended, Program, ProgramFailure, Session, ToolCall
from orchestrator.settings import Settings, load_settings
from workers.code.container import OURS, ContainerLost, Kind, Volume
from workers.code.courtesy import Rules
from workers.code.engine import SOCKET, Engine
from workers.code.image import require_any
from workers.code.pool import Sandbox, SandboxPool
from workers.code.volumes import volumes_of

WARM = 2  # containers kept ready at most
END_S = 5.0  # for executions that still run when everything is closed
_MODULE = re.compile(r"No module named '(\w{1,80})[\w.]*'")
_PACKAGES = {
    "PIL": "pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip
_ARGUMENTS = {"timeout_s": "timeout", "memory_mb": "max_memory_mb", "cpus": "max_cpu_percent"}


@dataclass(frozen=True, slots=True)
class CodeResult:
    """What came of a program. Only `stdout`, `stderr`, `result`, and the words of `error` are the program's own."""

    stdout: str = ""
    stderr: str = ""
    result: Any = None
    """What it assigned to `output`, else the value of its last expression, as plain JSON values."""
    error: str | None = None
    """Why it did not succeed, in a line or a few; None: it did."""
    traceback: str | None = None
    status: Status = "success"
    """`success`; `error`; `timeout`; `security_error`: it was refused, or broke the protocol of its sandbox."""
    exit_status: int | None = None
    """As of a process: 0, 1 after an exception, minus the signal that ended it; None when it was refused or stopped."""
    execution_time_ms: float = 0.0
    """Milliseconds of wall time from the program's start to its end, the wait for a container not included."""
    memory_exceeded: bool = False
    truncated: bool = False
    """It printed more than was kept (1 MiB)."""
    usage: Usage | None = field(default=None, repr=False)
    """CPU seconds, peak of memory and bytes, from the container's cgroup; None when nothing ran."""

    @property
    def success(self) -> bool:
        """Whether it ran to its end without an error."""
        return self.status == "success"

    @property
    def timeout(self) -> bool:
        """Whether it was stopped for its time."""
        return self.status == "timeout"


class _Executor:
    """A small pool of its own, from the first use until `close`, the end of `with`, of its last reference or of the process."""

    def __init__(self, limits: ProgramLimits, *, settings: Settings | None, image: str | None = None, kind: Kind = OURS) -> None:
        known = settings or load_settings()
        named = {"sandbox_image": image or known.sandbox_image, "sandbox_warm_max": min(WARM, known.sandbox_warm_max)}
        self._settings = known.model_copy(update=named)
        self._limits, self._kind = limits, kind
        self._lock = threading.Lock()
        self._room: _Room | None = None
        self._closed = False

    def _run(self, code: str, input_data: Any = None, volumes: tuple[Volume, ...] = ()) -> CodeResult:
        work = self._begin(code, input_data, volumes)
        try:
            return work.result()
        except BaseException:  # such as Ctrl-C: the program ends too
            work.cancel()
            raise

    async def _arun(self, code: str, input_data: Any = None, volumes: tuple[Volume, ...] = ()) -> CodeResult:
        return await asyncio.wrap_future(self._begin(code, input_data, volumes))

    def _begin(self, code: str, input_data: Any, volumes: tuple[Volume, ...]) -> Future[CodeResult]:
        order = _Order(Program(code, input_data, {}, f"code_exec_{secrets.token_hex(4)}"), self._limits, volumes, self._missing)
        with self._lock:
            if self._closed:
                raise RequestError("this executor was closed", next="Make a new one.")
            if self._room is None or self._room.pid != os.getpid():  # a fork has its own
                self._room = _Room(self._settings, self._kind, self._limits)
                weakref.finalize(self, self._room.leave).atexit = False
            return self._room.submit(order)

    def close(self) -> None:
        """Removes its containers. It cannot be used afterwards; what still runs fails."""
        with self._lock:
            self._closed, room, self._room = True, self._room, None
        if room is not None:
            room.close()

    async def aclose(self) -> None:
        """The same, awaited."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def _missing(self) -> Callable[[str], str]:
        """What to do about a library that the image has not; must not hold this executor."""
        raise NotImplementedError


class CodeExecutor(_Executor):
    """Runs Python programs that nobody vouches for, each in a fresh container without network, files or rights.

    Needs Docker and the image of `toolweaver sandbox build`; libraries are part of the image. A program that fails is no
    exception: the result says so. Methods may be called from any thread, and from a coroutine too, where `aexecute` and
    `aexecute_safe` do not block its loop.
    """

    def __init__(
        self,
        language: str = "python",
        timeout: float = 30.0,
        max_memory_mb: int = 512,
        sandbox: bool = True,
        allowed_imports: Collection[str] | None = None,
        blocked_functions: Collection[str] | None = None,
        network_access: bool = False,
        filesystem_access: bool = False,
        max_execution_time: float | None = None,
        max_cpu_percent: float = 50.0,
        *,
        settings: Settings | None = None,
    ) -> None:
        """
        Args:
            language: `python`.
            timeout: Seconds of wall time.
            max_memory_mb: MiB, files in the program's `/tmp` included.
            sandbox: There is no way without one.
            allowed_imports: Modules that programs may import; default: all. Looked for in their text, as a courtesy.
            blocked_functions: Such as `eval` or `os.system`; looked for in their text likewise.
            network_access: There is none here.
            filesystem_access: There is none here but for the program's own, empty `/tmp`.
            max_execution_time: Another name for `timeout`, and goes before it.
            max_cpu_percent: Of one core; 200 are two.
            settings: Default: those of the environment (`TOOLWEAVER_SANDBOX_IMAGE`, `DOCKER_HOST`, ...).

        Raises:
            RequestError: something is asked for that there is not; the message says what to do instead.
        """
        _refuse_what_there_is_not(language, sandbox=sandbox, network=network_access, files=filesystem_access)
        seconds = timeout if max_execution_time is None else max_execution_time
        super().__init__(_limits(seconds, max_memory_mb, max_cpu_percent), settings=settings)
        self._rules = Rules.of(allowed_imports, blocked_functions)

    def execute(self, code: str, input_data: Any = None) -> CodeResult:
        """What comes of a program.

        Args:
            code: Python; it may `await` at its top level.
            input_data: What it sees as `input` and `input_data`; plain JSON values.

        Raises:
            RequestError: the input is no JSON or too large, or the executor was closed.
            BackendError: there is no engine or no image, or the container was lost.
        """
        return self._refusal(code) or self._run(code, input_data)

    def execute_safe(self, code: str, input_data: Any = None) -> CodeResult:
        """The same, with the check of programs before it: what the container would refuse is told with line and next move."""
        return self._refusal(code, whole=True) or self._run(code, input_data)

    def execute_with_limits(self, code: str, input_data: Any = None) -> CodeResult:
        """The same as `execute`: nothing here runs without its limits."""
        return self.execute(code, input_data)

    async def aexecute(self, code: str, input_data: Any = None) -> CodeResult:
        """`execute`, awaited."""
        return self._refusal(code) or await self._arun(code, input_data)

    async def aexecute_safe(self, code: str, input_data: Any = None) -> CodeResult:
        """`execute_safe`, awaited."""
        return self._refusal(code, whole=True) or await self._arun(code, input_data)

    def _refusal(self, code: str, *, whole: bool = False) -> CodeResult | None:
        try:
            if whole:
                check_program(code, tools={})
            self._rules.check(code)
        except ToolWeaverError as error:
            kind: Status = "security_error" if error.code == "security_error" else "error"
            return CodeResult(error=f"{type(error).__name__}: {error}", status=kind)
        return None

    @property
    def _missing(self) -> Callable[[str], str]:
        image = self._settings.sandbox_image
        build = "Add it: `toolweaver sandbox build --libraries"
        return lambda name: f"The image `{image}` has no `{name}`. {build} {_PACKAGES.get(name, name)}`; docs/sandbox.md says more."


class DockerExecutor(_Executor):
    """Runs Python programs in containers of an image of your own: for the owner of the machine, never for what others ask for.

    The image needs Python 3.10 or newer as `python3` and must be there; nothing is pulled. Our runner is mounted into it
    read-only, and the walls are those of `CodeExecutor`: user 65534, no rights, read-only root, limits, seccomp.

    What weakens them is yours to choose. A network lets a program reach whatever that network reaches, the machine's own
    services and a cloud's metadata included, and send away what it has read. A volume shows all of its files that the user
    65534 may read, and a unix socket in it can be connected to; a writable one can be filled, and holds what you find there
    afterwards: believe none of it, run none of it. What the image holds, its environment included, is no secret.
    """

    def __init__(
        self,
        image: str = "python:3.11-slim",
        network_mode: str = "none",
        read_only: bool = True,
        *,
        timeout: float = 30.0,
        max_memory_mb: int = 512,
        max_cpu_percent: float = 100.0,
        settings: Settings | None = None,
    ) -> None:
        """
        Args:
            image: An image that the engine has.
            network_mode: `none`, `bridge`, or the name of a network of the engine; programs can only be clients in it.
            read_only: Whether programs may only read volumes. The image itself is always read-only.
            timeout: Seconds of wall time.
            max_memory_mb: MiB, files in the program's `/tmp` included.
            max_cpu_percent: Of one core; 200 are two.
            settings: Default: those of the environment.

        Raises:
            RequestError: the network is the machine's or another container's own, or a limit cannot be.
        """
        if network_mode == "host" or network_mode.startswith(("container:", "ns:")) or not network_mode:
            raise RequestError(
                f"network_mode `{network_mode}` would put programs into somebody else's network",
                path="network_mode",
                next="Take `none`, `bridge`, or make a network for them: `docker network create NAME`.",
            )
        kind = Kind(foreign=True, network=network_mode)
        super().__init__(_limits(timeout, max_memory_mb, max_cpu_percent), settings=settings, image=image, kind=kind)
        self.image, self.network_mode, self.read_only = image, network_mode, read_only

    def execute(self, code: str, volumes: Mapping[str, str] | None = None, input_data: Any = None) -> CodeResult:
        """What comes of a program.

        Args:
            code: Python; it may `await` at its top level.
            volumes: `{path on this machine: path in the container}`, absolute and there. It takes a container made for it.
            input_data: What it sees as `input` and `input_data`; plain JSON values.

        Raises:
            RequestError: a volume may not be shown or is not there, the input is no JSON, or the executor was closed.
            BackendError: there is no engine, no such image, or it cannot run programs.
        """
        return self._run(code, input_data, self._volumes(volumes))

    async def aexecute(self, code: str, volumes: Mapping[str, str] | None = None, input_data: Any = None) -> CodeResult:
        """`execute`, awaited."""
        return await self._arun(code, input_data, self._volumes(volumes))

    def _volumes(self, given: Mapping[str, str] | None) -> tuple[Volume, ...]:
        host = self._settings.docker_host or SOCKET
        return volumes_of(given, writable=not self.read_only, place=self._settings.sandbox_folder, engine=host)

    @property
    def _missing(self) -> Callable[[str], str]:
        image = self._settings.sandbox_image
        return lambda name: f"The image `{image}` has no `{name}`. Take one that has, such as one built `FROM {image}` with it."


def _refuse_what_there_is_not(language: str, *, sandbox: bool, network: bool, files: bool) -> None:
    if language.lower() not in ("python", "python3", "py"):
        raise RequestError(
            f"there is no executor for `{language}` yet", path="language", next='Take "python"; other languages come later.'
        )
    if not sandbox:
        raise RequestError(
            "programs are never run in our own processes: nobody vouches for them, and nothing there would hold them",
            path="sandbox",
            next="Leave `sandbox` as it is; code of your own that you trust needs no executor.",
        )
    if network:
        raise RequestError(
            "programs have no network here: it would reach this machine's own services too",
            path="network_access",
            next='Fetch beforehand and pass `input_data`, or take `DockerExecutor(network_mode="bridge")` and read what it risks.',
        )
    if files:
        raise RequestError(
            "programs see no files of this machine here; each has an empty `/tmp` of its own",
            path="filesystem_access",
            next="Pass `input_data`, or take `DockerExecutor().execute(code, volumes={...})`.",
        )


def _limits(timeout: float, memory_mb: int, percent: float) -> ProgramLimits:
    try:
        return ProgramLimits(timeout_s=timeout, memory_mb=memory_mb, cpus=percent / 100)
    except ValidationError as error:
        problem = error.errors()[0]
        name = _ARGUMENTS.get(str(problem["loc"][0]) if problem["loc"] else "", "limits")
        raise RequestError(
            f"`{name}` cannot be so: {problem['msg']}", path=name, next="Percent count as hundredths of a core."
        ) from None


@dataclass(frozen=True, slots=True)
class _Order:
    """One execution."""

    program: Program
    limits: ProgramLimits
    volumes: tuple[Volume, ...]
    missing: Callable[[str], str]


class _Room:
    """A pool on a loop of its own, in a thread of its own: whoever calls may have a loop or none."""

    def __init__(self, settings: Settings, kind: Kind, limits: ProgramLimits) -> None:
        self.pid = os.getpid()
        self._new_pool: Callable[[], SandboxPool] = lambda: SandboxPool(settings, kind=kind, limits=limits)
        self._preflight = settings.sandbox_image if kind.foreign else None
        self._loop = asyncio.new_event_loop()
        self._starting: asyncio.Task[SandboxPool] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._gate = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._serve, name="code executor", daemon=True)
        self._thread.start()
        _open_rooms.add(self)

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            with self._gate:
                self._over = True
            self._loop.run_until_complete(self._end_running())  # who came in the last moment is told so
            self._loop.close()
            _open_rooms.discard(self)

    def submit(self, order: _Order) -> Future[CodeResult]:
        """Begins an execution, from any thread; it has the context of the caller, so that figures reach who measures."""
        with self._gate:
            if self._over:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(self._counted(order), self._loop)

    def leave(self) -> None:
        """Begins to close everything and waits for nothing: the garbage collector may call this in the midst of anything."""
        if self.pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._begin_to_leave)

    def close(self) -> None:
        """Closes everything, and returns when it is."""
        self.leave()
        if self.pid == os.getpid():
            self._thread.join()

    def _begin_to_leave(self) -> None:
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            await self._end_running()
            if self._starting is not None:
                with contextlib.suppress(BackendError):
                    await (await self._starting).close()
        finally:
            self._loop.call_soon(self._loop.stop)

    async def _end_running(self) -> None:
        await asyncio.sleep(0)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=END_S)

    async def _counted(self, order: _Order) -> CodeResult:
        task = asyncio.current_task()
        assert task is not None, "this is a task"
        self._running.add(task)
        try:
            if self._leaving is not None:
                raise _closed()
            return await self._execute(order)
        except asyncio.CancelledError:
            if self._leaving is None:
                raise
            raise _closed() from None
        finally:
            self._running.discard(task)

    async def _pool(self) -> SandboxPool:
        """The pool, started by whoever asks first. One that does not start is tried again by the next."""
        if self._starting is None:
            self._starting = self._loop.create_task(self._start(), context=Context())
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except BackendError:
            if self._starting is starting:
                self._starting = None
            raise

    async def _start(self) -> SandboxPool:
        pool = self._new_pool()
        if self._preflight is None:
            await pool.start()
            return pool
        await _require(pool, self._preflight)
        try:
            await pool.start()
        except BackendError as error:
            raise BackendError(
                f"programs cannot run in `{self._preflight}`: {error.message}",
                next="It needs Python 3.10 or newer as `python3`, and must declare no volumes; `network_mode` must be there.",
            ) from error
        return pool

    async def _execute(self, order: _Order) -> CodeResult:
        pool = await self._pool()
        async with pool.take(limits=order.limits, volumes=order.volumes) as sandbox:
            ended = await Session(sandbox.sock, order.program, limits=order.limits, call=_no_tools).run()
            usage = await sandbox.figures(bytes_in=ended.bytes_in, bytes_out=ended.bytes_out)
            code = await _exit_status(sandbox, ended, usage)
        return _result(ended, usage=usage, code=code, order=order)


def _closed() -> BackendError:
    return BackendError("the executor was closed before the program had ended", next="Close it when nothing runs any more.")


_open_rooms: set[_Room] = set()


def _close_all() -> None:
    for room in list(_open_rooms):
        room.close()


# Before the pools of threads end, which the engine's calls need: `atexit` comes after that.
_at_exit: Callable[[Callable[[], None]], Any] = getattr(threading, "_register_atexit", atexit.register)
_at_exit(_close_all)


async def _require(pool: SandboxPool, image: str) -> None:
    """Tells a missing engine or image in its own words."""
    engine = Engine(pool.owner.host)
    try:
        await engine.run(require_any, engine, image)
    finally:
        await asyncio.to_thread(engine.close)


async def _no_tools(call: ToolCall) -> Any:
    raise ToolError(f"there is no tool `{call.tool.name}` here", code="unknown_tool")


async def _exit_status(sandbox: Sandbox, ended: Ended, usage: Usage) -> int | None:
    """How the program's process ended.

    Raises:
        ContainerLost: it did not end by itself.
    """
    if not ended.closed:
        return 0 if ended.status == "success" else _exit_code(ended.error) if ended.status == "error" else None
    code = await sandbox.exited()
    if code is None and not usage.memory_exceeded:
        raise ContainerLost(f"the program's container was lost: {sandbox.fault or 'its process went away'}", next="Run it again.")
    return code


def _exit_code(error: ProgramFailure | None) -> int:
    said = error.message if error is not None and error.type == "SystemExit" else ""
    return int(said) & 0xFF if re.fullmatch(r"-?\d{1,9}", said) else 1


def _result(ended: Ended, *, usage: Usage, code: int | None, order: _Order) -> CodeResult:
    memory = usage.memory_exceeded or "memory" in ended.alerts
    return CodeResult(
        stdout=ended.output,
        stderr=ended.errors,
        result=ended.value,
        error=_error(ended, order, code, memory=usage.memory_exceeded),
        traceback=ended.error.traceback if ended.error is not None else None,
        status="error" if ended.closed else ended.status,
        exit_status=code,
        execution_time_ms=round(1_000 * ended.duration, 3),
        memory_exceeded=memory,
        truncated=ended.truncated,
        usage=usage,
    )


def _error(ended: Ended, order: _Order, code: int | None, *, memory: bool) -> str | None:
    if ended.closed and memory:
        return f"MemoryError: the program used more than its {order.limits.memory_mb} MiB (`max_memory_mb`)"
    if ended.closed:
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"ProcessEnded: the program's process ended before the program had ({how})"
    if ended.error is None:
        return None
    found = _MODULE.search(ended.error.message) if ended.error.type == "ModuleNotFoundError" else None
    if found and found[1] not in sys.stdlib_module_names | {"tools"}:
        return f"{ended.error}. {order.missing(found[1])}"
    return str(ended.error)
