"""The event loop of a program: it may be run again from inside itself, names its tasks for replays, and speaks on the channel.

Models write `asyncio.run(main())` wherever it seems natural, also where a loop already runs (beneath a top-level `await`).
Such a call runs the same loop on until its own coroutine ends, so that tasks and tool calls around it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import select
import threading
from asyncio import events, tasks
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, cast

_LONGEST_WAIT_S = 24 * 3600.0


class Node:
    """A place in the tree of a program's tasks and threads: it depends on the program's text, not on time."""

    __slots__ = ("branches", "calls", "children", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls = 0
        self.children = 0
        self.branches: dict[str, int] = {}

    def child(self) -> Node:
        """The place of the next task."""
        self.children += 1
        return Node(f"{self.path}.{self.children}")

    def branch(self, kind: str) -> Node:
        """The place of the next thread; counted apart, since a pool starts its threads as time has it."""
        count = self.branches[kind] = self.branches.get(kind, 0) + 1
        return Node(f"{self.path}.{kind}{count}")

    def next_key(self) -> str:
        """What identifies the next tool call made here."""
        self.calls += 1
        return f"{self.path}:{self.calls}"


_root = Node("0")
node: contextvars.ContextVar[Node] = contextvars.ContextVar("toolweaver_node", default=_root)


class Wire(Protocol):
    """What the loop needs of the channel."""

    unsent: bool

    def fileno(self) -> int: ...
    def flush(self) -> None: ...
    def receive(self) -> None: ...


class ProgramLoop(asyncio.SelectorEventLoop):
    """A selector loop that can be re-entered; frames of one round leave together, answers wake their tasks in the same round."""

    wire: Wire | None = None
    _both: select.epoll

    # Of the base class, which promises nothing; the same from Python 3.10 to 3.13.
    _ready: Any
    _scheduled: Any
    _selector: Any
    _stopping: bool
    _timer_cancelled_count: int
    _clock_resolution: float
    _process_events: Callable[[list[Any]], None]

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_task)

    def attach(self, wire: Wire) -> None:
        """From now on the loop hears the channel and sends what it gathered before it waits.

        It waits on a set of two: the channel, and the selector with all else, which costs time only when there is something else.
        """
        self.wire = wire
        self._both = select.epoll()
        self._both.register(wire.fileno(), select.EPOLLIN)
        self._both.register(self._selector.fileno(), select.EPOLLIN)

    def close(self) -> None:
        super().close()
        if self.wire is not None:
            self.wire = None
            self._both.close()

    def run_until_complete(self, future: Generator[Any, None, Any] | Awaitable[Any]) -> Any:
        """As usual, and also while this loop or another one runs in the thread."""
        running = events._get_running_loop()
        if running is None:
            return super().run_until_complete(future)
        with _between_tasks(running):
            if running is self:
                return self._run_on(asyncio.ensure_future(cast("Awaitable[Any]", future), loop=self))
            with _between_loops(running):
                return super().run_until_complete(future)

    def _run_on(self, future: asyncio.Future[Any]) -> Any:
        while not future.done():
            self._run_once()
            if self._stopping and not future.done():
                raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def _run_once(self) -> None:
        """One round. Unlike the base class's it bears that a callback ran further rounds."""
        if self._scheduled:
            self._drop_cancelled_timers()
        if self.wire is None:
            self._process_events(self._selector.select(self._wait_s()))
        else:
            self._hear(self.wire)
        if self._scheduled:
            self._wake_timers()
        ready = self._ready
        for _ in range(len(ready)):
            if not ready:
                break
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _hear(self, wire: Wire) -> None:
        if wire.unsent:
            wire.flush()
        channel = wire.fileno()
        for fd, _ in self._both.poll(self._wait_s()):
            if fd == channel:
                wire.receive()
            else:
                self._process_events(self._selector.select(0))

    def _wait_s(self) -> float | None:
        if self._ready or self._stopping:
            return 0
        if not self._scheduled:
            return None
        return float(min(max(0.0, self._scheduled[0]._when - self.time()), _LONGEST_WAIT_S))

    def _drop_cancelled_timers(self) -> None:
        scheduled = self._scheduled
        if self._timer_cancelled_count > 100 and self._timer_cancelled_count > len(scheduled) / 2:
            for handle in scheduled:
                handle._scheduled = not handle._cancelled
            scheduled[:] = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False

    def _wake_timers(self) -> None:
        scheduled, until = self._scheduled, self.time() + self._clock_resolution
        while scheduled and scheduled[0]._when < until:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)


@contextlib.contextmanager
def _between_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """For a while no task is the loop's current one."""
    task = asyncio.current_task(loop)
    if task is None:
        yield
        return
    tasks._leave_task(loop, task)
    try:
        yield
    finally:
        tasks._enter_task(loop, task)


@contextlib.contextmanager
def _between_loops(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """For a while no loop runs in this thread."""
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(loop)


def _task(loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None, **more: Any) -> asyncio.Task[Any]:
    """Makes a task with a place of its own in the tree."""
    place = node.get().child()
    if context is not None:
        context.run(node.set, place)
        return asyncio.Task(coro, loop=loop, context=context, **more)
    before = node.set(place)
    try:
        return asyncio.Task(coro, loop=loop, **more)  # it copies this context
    finally:
        node.reset(before)


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Gives a loop to whoever asks for the current one, also after `asyncio.run`, which takes it away."""

    _loop_factory = ProgramLoop
    _local: Any

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        if self._local._loop is None:
            self.set_event_loop(self.new_event_loop())
        found: asyncio.AbstractEventLoop = self._local._loop
        return found


def install() -> None:
    """Makes this the loop of everything that runs in this process."""
    asyncio.set_event_loop_policy(_Policy())
    asyncio.SelectorEventLoop = ProgramLoop  # type: ignore[assignment]
    asyncio.run = asyncio.runners.run = _reentrant(asyncio.run)
    asyncio.as_completed = tasks.as_completed = _in_order(asyncio.as_completed)
    if hasattr(asyncio, "Runner"):
        asyncio.Runner.run = _reentrant_runner(asyncio.Runner.run)  # type: ignore[method-assign]
    threading.Thread.start = _placed_start(threading.Thread.start)  # type: ignore[assignment,method-assign]
    ThreadPoolExecutor.submit = _placed_submit(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def _reentrant(run: Callable[..., Any]) -> Callable[..., Any]:
    def run_anywhere(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        loop = events._get_running_loop()
        return run(main, **options) if loop is None else loop.run_until_complete(main)

    run_anywhere.__name__, run_anywhere.__doc__ = "run", run.__doc__
    return run_anywhere


def _reentrant_runner(run: Callable[..., Any]) -> Callable[..., Any]:
    def run_anywhere(self: Any, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        loop = events._get_running_loop()
        return run(self, coro, **options) if loop is None else loop.run_until_complete(coro)

    return run_anywhere


def _in_order(as_completed: Callable[..., Any]) -> Callable[..., Any]:
    """The original makes its tasks in the order of a set, that is of memory addresses."""

    def ordered(fs: Iterable[Any], **options: Any) -> Any:
        return as_completed([asyncio.ensure_future(f) for f in fs], **options)

    return ordered


def _placed_start(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Threads have a place in the tree too: below the one that started them."""

    def start_placed(self: threading.Thread) -> None:
        place, run = node.get().branch("t"), self.run

        def run_placed() -> None:
            node.set(place)
            run()

        self.run = run_placed  # type: ignore[method-assign]
        start(self)

    return start_placed


def _placed_submit(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """The work given to a pool of threads has its place, whichever thread takes it."""

    def submit_placed(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        place = node.get().branch("w")

        def run_placed() -> Any:
            node.set(place)
            return fn(*args, **kwargs)

        return submit(self, run_placed)

    return submit_placed


def run_as_root(loop: asyncio.AbstractEventLoop, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any]) -> Any:
    """Runs the program's own top level, which is the root of the tree, not a child of it."""
    return loop.run_until_complete(asyncio.Task(coro, loop=loop))
