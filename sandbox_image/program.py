"""Runs one program: its namespace, its modules, its value, its errors with its own lines; then says `done`."""

from __future__ import annotations

import _thread
import ast
import asyncio
import atexit
import contextlib
import contextvars
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import io
import itertools
import json
import linecache
import os
import random
import re
import socket
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NoReturn

from sandbox_image import bridge, loop, values

FILE = "program.py"
PULSE_S = 0.04  # output is at most this much older than what the host has
PRELOADED = ("asyncio", "json", "math", "re", "datetime")
# What programs usually import; here they are imported once, before the fork. Not hashlib: OpenSSL is megabytes in each container.
_COMMON = """
    abc array asyncio base64 bisect calendar collections collections.abc concurrent.futures contextlib copy csv dataclasses
    datetime decimal enum fractions functools graphlib heapq inspect io itertools json logging math numbers operator
    pathlib pprint queue random re statistics string struct textwrap threading time traceback types typing unicodedata uuid
    warnings weakref zoneinfo
""".split()  # noqa: SIM905
_MAX_TRACEBACK, _MAX_MESSAGE = 20_000, 4_000
_VALUE = "__toolweaver_value__"
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
# Lines of these files say nothing to who wrote a program.
_OURS = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.path.dirname(asyncio.__file__) + os.sep, "<frozen importlib")


def warm_up() -> None:
    """Does what every program's process needs before they are forked: a page that is written now is not copied by each of them."""
    for name in _COMMON:
        importlib.import_module(name)
    loop.install()
    _take_the_place_of_main()
    rehearse()


def rehearse() -> None:
    """Goes the way of a program once. In the forked process this makes its own copy of the memory that programs touch first."""
    contextvars.copy_context().run(_rehearse)


def _rehearse() -> None:
    loop.node.set(loop.Node("rehearsal"))  # the keys of the program's calls begin at one
    for code in _REHEARSAL:
        compiled = _compile(code)
        space: dict[str, Any] = {"asyncio": asyncio}
        if compiled.co_flags & inspect.CO_COROUTINE:
            _run_to_end(eval(compiled, space), loop.ProgramLoop())
        else:
            exec(compiled, space)
    json.loads(values.dumps({"a": [1, 2.5, None, "text", {"b": types.SimpleNamespace(a=1)}], "c": ValueError("x")}))
    re.findall(r"\w+", _REHEARSAL[0])
    describe(ValueError("x"))


_REHEARSAL = (
    "import json, math\ndef f(a: int = 1) -> dict:\n    return {str(x): [x] for x in range(a)}\njson.dumps(f(3))",
    "class A:\n    pass\nasync def g(n):\n    await asyncio.sleep(0)\n    return f'{n:.2f}'\nawait asyncio.gather(g(1), g(2))",
)


def serve(sock: socket.socket, *, rehearsed: bool = True) -> NoReturn:
    """The life of a program's process: be ready, get one program, run it, say how it ended. Never returns.

    A process that will wait for its program rehearses; one whose program comes at once would only lose time with it.
    """
    if sys.modules.get("toolweaver_bridge") is not bridge:
        warm_up()  # nobody did before the fork
    channel = bridge.open_channel(sock)
    channel.on_first_write = functools.partial(_start_pulse, channel)
    sys.stdout, sys.stderr = bridge.Stream(channel, "stdout"), bridge.Stream(channel, "stderr")
    if rehearsed:
        rehearse()
    channel.send(b'{"op":"ready"}')
    channel.flush()
    order = channel.next_frame()
    channel.limit(order.get("limits") or {})
    Program(channel, order).run()
    os._exit(0)


def _take_the_place_of_main() -> None:
    sys.modules["toolweaver_bridge"] = bridge
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [FILE]
    warnings.formatwarning = _warning
    sys.stdin = io.StringIO()


def _warning(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:  # noqa: ARG001
    where = FILE if _ours(filename) else f"{filename}:{lineno}"
    return f"{where}: {category.__name__}: {message}\n"


def _start_pulse(channel: bridge.Channel) -> None:
    """Starts a thread that sends output of a program that is busy. It is none of the program's: `threading` does not know it."""
    with contextlib.suppress(RuntimeError):  # too many threads: the output goes at a call, or at the end
        _thread.start_new_thread(_pulse, (channel,))


def _pulse(channel: bridge.Channel) -> None:
    while True:
        time.sleep(PULSE_S)
        if channel.unsent:
            channel.flush()


class Program:
    """One program and its order (the `exec` frame)."""

    def __init__(self, channel: bridge.Channel, order: Mapping[str, Any]) -> None:
        self._channel = channel
        self._order = order
        self._code: str = order["code"]
        self._main = sys.modules["__main__"]
        self._space = self._main.__dict__
        self._error: dict[str, Any] | None = None
        self._value: bytes = b"null"
        self._has_value = False
        self._exits = atexit._ncallbacks()
        self._threads = threading.active_count()

    def run(self) -> None:
        """Runs it and sends the last frame, whatever it does."""
        try:
            self._furnish()
            self._take_value(self._execute())
        except BaseException as error:
            self._fail(error)
        with contextlib.suppress(BaseException):
            self._end()
        self._say_done()

    def _furnish(self) -> None:
        """What the program sees."""
        order, code = self._order, self._code
        linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
        random.seed(int.from_bytes(str(order.get("seed")).encode(), "big"))  # text itself would go through a slow hash
        sys.meta_path.insert(0, Modules(order.get("modules") or {}))
        given = order.get("input")
        self._space.update({name: sys.modules[name] for name in PRELOADED})
        self._space.update(__file__=FILE, input=given, input_data=given, call_tool=call_tool, ToolError=bridge.ToolError)
        names: Mapping[str, str] = order.get("names") or {}
        for name in set(re.findall(r"\w+", code)) & names.keys():  # a stub that is not named is not compiled
            self._space[name] = getattr(importlib.import_module(names[name]), name)

    def _execute(self) -> Any:
        """The last expression's value; top-level `await` makes the whole top level a coroutine."""
        compiled = _compile(self._code)
        if compiled.co_flags & inspect.CO_COROUTINE:
            _run_to_end(eval(compiled, self._space), _new_loop())
        else:
            exec(compiled, self._space)
        value = self._space.pop(_VALUE, None)
        if inspect.iscoroutine(value):  # `main()` as the last line: what can be meant but its result?
            value = _run_to_end(value, _new_loop())
        return self._space.get("output", value)

    def _take_value(self, value: Any) -> None:
        self._has_value = "output" in self._space or value is not None
        self._value = values.dumps(value)

    def _end(self) -> None:
        """What the interpreter does at its end: threads finish, exit handlers run, forgotten coroutines are named."""
        if threading.active_count() > self._threads:
            threading._shutdown()  # type: ignore[attr-defined]
        if atexit._ncallbacks() > self._exits:
            atexit._run_exitfuncs()
        self._space.clear()

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            with contextlib.suppress(BaseException):
                self._space.pop(_VALUE, None)
                self._take_value(self._space.get("output"))
            return
        self._value, self._has_value = b"null", False
        self._error = describe(error)

    def _say_done(self) -> None:
        try:
            self._send_done()
        except values.ValueUnfit as error:
            self._fail(error)
            self._send_done()

    def _send_done(self) -> None:
        has = b"true" if self._has_value else b"false"
        tail = b',"has_value":%s,"error":%s}' % (has, values.dumps(self._error))
        self._channel.finish(b'{"op":"done","value":', self._value, tail)


def _compile(code: str) -> types.CodeType:
    tree = ast.parse(code.removeprefix("\ufeff"), FILE)
    _keep_last_value(tree)
    compiled: types.CodeType = compile(tree, FILE, "exec", _FLAGS, dont_inherit=True)
    return compiled


def _keep_last_value(tree: ast.Module) -> None:
    """Gives the last expression a name, also one beneath `if __name__ == "__main__":`."""
    body = tree.body
    while body and isinstance(body[-1], ast.If) and _is_main_guard(body[-1].test):
        body = body[-1].body
    if body and isinstance(body[-1], ast.Expr):
        last = body[-1]
        name = ast.copy_location(ast.Name(_VALUE, ast.Store()), last)
        body[-1] = ast.copy_location(ast.Assign([name], last.value), last)


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and "__name__" in ast.dump(test) and "'__main__'" in ast.dump(test)


def _run_to_end(coro: Coroutine[Any, Any, Any], runs_in: asyncio.AbstractEventLoop) -> Any:
    """Runs the top level as `asyncio.run` does, but as the root of the tree of tasks."""
    try:
        return loop.run_as_root(runs_in, coro)
    finally:
        _cancel_all(runs_in)
        runs_in.run_until_complete(runs_in.shutdown_asyncgens())
        runs_in.run_until_complete(runs_in.shutdown_default_executor())
        runs_in.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    return made


def _cancel_all(runs_in: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(runs_in)
    for task in left:
        task.cancel()
    if left:
        runs_in.run_until_complete(asyncio.gather(*left, return_exceptions=True))


async def call_tool(server: str, tool_name: str, parameters: Mapping[str, Any] | None = None, timeout: float | None = 30) -> Any:
    """Calls a tool by name; fails with `ToolError` when no answer came within `timeout` seconds (`None`: the tool's own limit)."""
    return await bridge.call_tool(server, tool_name, parameters, timeout)


# Errors


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the program's writer wants to see it: the lines of the program and of its modules, none of ours."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _ours(f.filename)]
    lines = [f.lineno for f in frames if f.filename == FILE]
    if isinstance(error, SyntaxError) and error.filename == FILE:
        lines = [error.lineno]
    message = _text(error)
    kind = type(error).__name__
    return {
        "type": kind,
        "message": message[:_MAX_MESSAGE],
        "line": lines[-1] if lines else None,
        "traceback": _without_ours(error)[-_MAX_TRACEBACK:],
    }


def _ours(filename: str) -> bool:
    return filename.startswith(_OURS)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its text cannot be made"


def _without_ours(error: BaseException) -> str:
    try:
        told = traceback.TracebackException.from_exception(error, limit=-50, compact=True)
        _strip(told)
        return "".join(told.format())
    except Exception:  # an exception class may break anything
        return f"{type(error).__name__}: {_text(error)}\n"


def _strip(told: traceback.TracebackException) -> None:
    outer = itertools.takewhile(lambda f: f.filename != FILE, told.stack)  # what led into the program
    inner = itertools.islice(told.stack, len(list(outer)), None)
    told.stack = traceback.StackSummary.from_list([f for f in inner if not _ours(f.filename)])
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _strip(other)


class Modules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Modules given as text (the stubs of tools); each is compiled when it is first imported."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._folders = {"/".join(parts[:n]) for parts in (path.split("/") for path in sources) for n in range(1, len(parts))}

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:  # noqa: ARG002
        if name.partition(".")[0] not in self._folders and f"{name}.py" not in self._sources:
            return None
        where = self._path(name)
        return importlib.util.spec_from_loader(name, self, origin=where, is_package=self.is_package(name)) if where else None

    def is_package(self, name: str) -> bool:
        return name.replace(".", "/") in self._folders

    def get_source(self, name: str) -> str:
        return self._sources.get(self._path(name) or "", "")

    def exec_module(self, module: types.ModuleType) -> None:
        where = self._path(module.__name__) or ""
        source = self.get_source(module.__name__)
        linecache.cache[where] = (len(source), None, source.splitlines(keepends=True), where)
        exec(compile(source, where, "exec", dont_inherit=True), module.__dict__)

    def _path(self, name: str) -> str | None:
        base = name.replace(".", "/")
        if base in self._folders:
            return f"{base}/__init__.py"
        return f"{base}.py" if f"{base}.py" in self._sources else None
