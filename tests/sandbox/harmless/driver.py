"""Runs harmless programs in plain CPython, to see that the corpus itself is right; knows nothing of our runner.

`python -m tests.sandbox.harmless.driver [name ...]` runs each program in a process of its own and says what differs.
Only for programs that one has read: nothing is contained here.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import contextlib
import dataclasses
import datetime
import decimal
import enum
import inspect
import io
import json
import linecache
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import PurePath
from typing import Any

from orchestrator.errors import ToolError
from tests.sandbox.harmless import PROGRAMS
from tests.sandbox.harmless.case import Harmless
from tests.sandbox.harmless.compare import differences
from tests.sandbox.harmless.tools import Tool, domain_of, tools_for

FILE = "program.py"


class World:
    """The names that a program sees, and the calls that it made."""

    def __init__(self, program: Harmless) -> None:
        self.program = program
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.names = {name: self._proxy(name, tool) for name, tool in tools_for(program.tools).items()}

    def _proxy(self, name: str, tool: Tool) -> Any:
        async def proxy(*args: Any, **kwargs: Any) -> Any:
            given = plain(inspect.signature(tool).bind(*args, **kwargs).arguments)
            self.calls.append((name, given))
            await asyncio.sleep(0)
            result = tool(**given)
            return json.loads(json.dumps(await result if inspect.isawaitable(result) else result))

        proxy.__name__ = proxy.__qualname__ = name
        proxy.__doc__ = tool.__doc__
        proxy.__signature__ = inspect.signature(tool)  # type: ignore[attr-defined]
        return proxy

    async def call_tool(self, server: str, tool_name: str, parameters: Any = None, timeout: float = 30) -> Any:
        return await asyncio.wait_for(self.names[tool_name](**(parameters or {})), timeout)

    def modules(self) -> None:
        tools = types.ModuleType("tools")
        tools.__path__ = []
        sys.modules["tools"] = tools
        for name, proxy in self.names.items():
            domain = domain_of(name)
            module = sys.modules.setdefault(f"tools.{domain}", types.ModuleType(f"tools.{domain}"))
            leaf = sys.modules[f"tools.{domain}.{name}"] = types.ModuleType(f"tools.{domain}.{name}")
            for owner, shown, value in ((tools, domain, module), (tools, name, proxy), (module, name, proxy), (leaf, name, proxy)):
                setattr(owner, shown, value)

    def space(self) -> dict[str, Any]:
        data = json.loads(json.dumps(self.program.input_data))
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        main.__dict__.update(
            {"asyncio": asyncio, "json": json, "math": math, "re": re, "datetime": datetime},
            ToolError=ToolError, call_tool=self.call_tool, input=data, input_data=data, __file__=FILE, **self.names,
        )  # fmt: skip
        return main.__dict__


def nested(coroutine: Any, **_: Any) -> Any:
    """`asyncio.run` where a loop runs already: on a loop of its own, in a thread of its own."""
    box: list[Any] = []

    def body() -> None:
        try:
            box.append((True, REAL_RUN(coroutine)))
        except BaseException as error:
            box.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    fine, got = box[0]
    if not fine:
        raise got
    return got


REAL_RUN = asyncio.run


def execute(program: Harmless) -> tuple[Any, list[Any]]:
    """The value and the calls of a program."""
    world = World(program)
    world.modules()
    space = world.space()
    tree = ast.parse(program.code.encode())  # as Python reads a file: a byte order mark is no syntax error
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("__last__", ast.Store())], last.value), last)
        ast.fix_missing_locations(tree)
    linecache.cache[FILE] = (len(program.code), None, program.code.splitlines(keepends=True), FILE)
    code = compile(tree, FILE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    try:
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run = nested  # type: ignore[assignment]
            REAL_RUN(eval(code, space))
        else:
            asyncio.set_event_loop(asyncio.new_event_loop())
            eval(code, space)
    except SystemExit as leave:
        if leave.code:
            raise
    return (space["output"] if "output" in space else space.get("__last__")), world.calls


def plain(value: Any) -> Any:
    """A value as JSON."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return [plain(v) for v in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, decimal.Decimal):
        return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    return repr(value)


def child(name: str) -> None:
    """Runs one program of this process and writes what came of it, as JSON."""
    program = next(p for p in PROGRAMS if p.name == name)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    sys.argv = [FILE]
    seen: dict[str, Any] = {"error": None, "value": None, "calls": []}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        os.chdir(folder)
        try:
            value, seen["calls"] = execute(program)
            seen["value"] = plain(value)
        except BaseException:
            seen["error"] = traceback.format_exc()
        for thread in threading.enumerate():  # as Python does at its end
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        os.chdir("/")
        said.flush()
    print(json.dumps({**seen, "stdout": said.buffer.getvalue().decode()}))


def main(names: list[str]) -> int:
    """Runs the programs of those names (all by default); says what differs."""
    bad = 0
    for program in [p for p in PROGRAMS if not names or p.name in names]:
        command = [sys.executable, "-m", "tests.sandbox.harmless.driver", "--child", program.name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        try:
            seen = json.loads(done.stdout)
        except ValueError:
            seen = {"error": done.stderr, "value": None, "calls": [], "stdout": done.stdout}
        wrong = [seen["error"]] if seen["error"] else differences(program, seen["value"], seen["stdout"], seen["calls"])
        bad += bool(wrong)
        for line in wrong:
            print(f"{program.area}/{program.name}: {line}")
    print(f"{len(PROGRAMS)} programs, {bad} wrong")
    return min(bad, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
