"""How models write: odd comments, tabs, line ends, unicode names, type hints everywhere."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "habits"


def tabs(code: str) -> str:
    """The program indented by tabs."""
    return code.replace("    ", "\t")


def crlf(code: str) -> str:
    """The program with the line ends of Windows."""
    return code.replace("\n", "\r\n")


LOOP = r'''
def total(rows):
    result = 0
    for row in rows:
        if row > 1:
            result += row
    return result

text = """first
second"""
total([1, 2, 3]), len(text)
'''

CASES = (
    Harmless("tabs", A, tabs(LOOP), value=[5, 12]),
    Harmless("crlf_line_ends", A, crlf(LOOP), value=[5, 12]),
    Harmless("two_space_indents", A, LOOP.replace("    ", "  "), value=[5, 12]),
    Harmless("trailing_blank_lines_and_spaces", A, "\n\n   \nx = 1   \n\n\nx + 1   \n\n\n   \n\t\n", value=2),
    Harmless("no_newline_at_the_end_of_a_block", A, "def f():\n    return 3\nif True:\n    output = f()", value=3),
    Harmless("a_byte_order_mark", A, "\ufeffx = 2\nx * 2", value=4),
    Harmless("coding_line_and_shebang", A, "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n'ä'", value="ä"),
    Harmless(
        "comments_and_docstrings_in_odd_places",
        A,
        r'''
"""Module docstring: calculates things.

Usage: nothing.
"""
# Step 1: set up
values = [  # the inputs
    1,  # one
    2,
    # three is left out on purpose
]


class Thing:
    """A thing."""

    # no body


def helper(
    a,  # first
    b=2,  # second
):
    """Adds."""
    # comment before the return
    return (
        a
        # plus
        + b
    )
    # unreachable comment


if values:  # always
    # only a comment, then code
    result = helper(values[0])
# Step 2: the result
(
    # the answer
    result
)
# The end.
''',
        value=3,
    ),
    Harmless(
        "unicode_identifiers",
        A,
        r"""
größe = 3
π = math.pi
名前 = "太郎"
Δx, naïve = 0.5, True

def fläche(radius_µm: float) -> float:
    return π * radius_µm ** 2

class Конфиг:
    язык = "ru"

{"größe": größe, "area": round(fläche(2), 3), "名前": 名前, "язык": Конфиг.язык, "Δ": Δx, "naïve": naïve}
""",
        value={"größe": 3, "area": 12.566, "名前": "太郎", "язык": "ru", "Δ": 0.5, "naïve": True},
    ),
    Harmless(
        "emoji_output",
        A,
        r"""
status = {"api": True, "db": False}
for name, ok in status.items():
    print(f"{'✅' if ok else '❌'} {name:<5}→ {'läuft' if ok else 'kaputt'}")
print("🎉" * 3, "\N{SNOWMAN}", "\U0001F680", "é" == "é")
len("👍")
""",
        value=1,
        prints="✅ api  → läuft\n❌ db   → kaputt\n🎉🎉🎉 ☃ 🚀 True\n",
    ),
    Harmless(
        "type_hints_everywhere",
        A,
        r"""
from __future__ import annotations
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Optional, ParamSpec, TypeVar, Annotated

P = ParamSpec("P")
R = TypeVar("R")
Number = int | float
Scores = dict[str, list[Number]]

def log_calls(fn: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    async def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        calls.append(fn.__name__)
        return await fn(*args, **kwargs)
    return inner

calls: list[str] = []
best: Optional[tuple[str, float]] = None
limit: Annotated[int, "upper bound"] = 100
unset: int

@log_calls
async def score(user: dict[str, Any], /, *, bonus: Number = 0) -> tuple[str, Number]:
    report: dict[str, Any] = await generate_report(user_id=user["id"])
    return user["name"], min(report["score"] + bonus, limit)

async def main(departments: Sequence[str]) -> Iterable[tuple[str, Number]]:
    users: list[dict[str, Any]] = [u for d in departments for u in await get_users(d)]
    results: list[tuple[str, Number]] = list(await asyncio.gather(*(score(u, bonus=1) for u in users)))
    return sorted(results, key=lambda r: -r[1])[:2]

top: list[tuple[str, Number]] = list(await main(["finance"]))
top, len(calls)
""",
        value=[[["Person 44", 89], ["Person 38", 87]], 8],
        tools=("get_users", "generate_report"),
        calls=9,
    ),
    Harmless(
        "line_continuations_and_brackets",
        A,
        r"""
total = 1 + \
    2 + \
    3
message = ("a long "
           "implicit "
           f"join {total}")
assert total == 6 and \
    message.startswith("a"), \
    "never"
result = (
    [1, 2, 3]
    .__len__()
)
if (total > 5 and
        result == 3): message += "!"
message; message.upper()
""",
        value="A LONG IMPLICIT JOIN 6!",
    ),
    Harmless(
        "raw_bytes_and_odd_literals",
        A,
        r'''
values = [0b1010, 0o17, 0xFF, 1_000_000, 1e-3, .5, 5., 1j.imag, r"\d\n", b"\x41".decode(), rb"\x".decode(), "\x41\u00e9\t",
          'it''s', """q"uote"""]
values
''',
        value=[10, 15, 255, 1000000, 0.001, 0.5, 5.0, 1.0, "\\d\\n", "A", "\\x", "Aé\t", "its", 'q"uote'],
    ),
    Harmless(
        "a_name_of_a_builtin_used_as_variable",
        A,
        r"""
list_ = [3, 1]
id, type, max_value = 7, "admin", max(list_)
dict = {"a": 1}
sum = 0
for min in list_:
    sum += min
file, str_, hash, filter = "x.txt", "s", "#", lambda x: x
{"id": id, "type": type, "dict": dict, "sum": sum, "max": max_value, "f": filter(file)}
""",
        value={"id": 7, "type": "admin", "dict": {"a": 1}, "sum": 4, "max": 3, "f": "x.txt"},
    ),
    Harmless(
        "names_that_sound_like_ours",
        A,
        r"""
# A model does not know which names the runner uses
value, result, error, code, frame, done, loop, key = 1, 2, 3, 4, 5, 6, 7, 8
main = lambda: value + result
tool, args, call, send, recv, bridge, runner, session = range(8)
__version__ = "1.0"
_private = main()
__all__ = ["main"]
(_private, sum([error, code, frame, done, loop, key]), session, __version__, __name__)
""",
        value=[3, 33, 7, "1.0", "__main__"],
    ),
    Harmless(
        "a_tool_name_shadowed_on_purpose",
        A,
        r'''
real = get_weather

async def get_weather(city: str) -> str:
    """A wrapper under the same name."""
    data = await real(city)
    return f"{data['city']} {data['condition']}"

await get_weather("Oslo")
''',
        value="Oslo cloudy",
        tools=("get_weather",),
        calls=1,
    ),
    Harmless(
        "main_guard_sync",
        A,
        r"""
def main() -> int:
    print("running")
    return 0

if __name__ == "__main__":
    code = main()
    print("exit code:", code)
""",
        prints="running\nexit code: 0\n",
    ),
    Harmless(
        "main_guard_with_output",
        A,
        r"""
def solve(xs):
    return sorted(set(xs))

if __name__ == '__main__':
    output = solve([3, 1, 3])
""",
        value=[1, 3],
    ),
    Harmless(
        "await_main_at_the_end",
        A,
        r"""
async def main():
    stock = await check_stock("mouse")
    return {"stock": stock}

await main()
""",
        value={"stock": 250},
        tools=("check_stock",),
        calls=1,
    ),
    Harmless(
        "top_level_await_in_every_place",
        A,
        r"""
if await check_stock("mouse") > 100:
    label = f"plenty: {await check_stock('mouse')}"
values = [await check_stock(n) for n in ("dock", "laptop")]
lookup = {n: await check_stock(n) for n in ("keyboard",)}
while await check_stock("monitor") > 0:
    pass
try:
    total = sum(values) + (await check_stock("dock")) * 2
finally:
    extra = await echo("cleanup")
async with asyncio.Lock():
    pass
for c in await echo(["x", "y"]):
    last = c
label, values, lookup, total, extra, last, (await echo(1)) + (await echo(2)), not await echo(False)
""",
        value=["plenty: 250", [3, 12], {"keyboard": 85}, 21, "cleanup", "y", 3, True],
        tools=("check_stock", "echo"),
        calls=12,
    ),
    Harmless(
        "assertions_as_self_tests",
        A,
        r'''
def roman(n: int) -> str:
    table = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
             (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    out = ""
    for v, s in table:
        count, n = divmod(n, v)
        out += s * count
    return out

assert roman(4) == "IV"
assert roman(1994) == "MCMXCIV", f"got {roman(1994)}"
import doctest
def add(a, b):
    """
    >>> add(1, 2)
    3
    """
    return a + b
print("All tests passed!")
roman(2024)
''',
        value="MMXXIV",
        prints="All tests passed!\n",
    ),
    Harmless(
        "unittest_of_its_own_code",
        A,
        r"""
import io
import unittest

def slug(s):
    return "-".join(s.lower().split())

class TestSlug(unittest.TestCase):
    def test_simple(self):
        self.assertEqual(slug("Hello World"), "hello-world")

    def test_empty(self):
        with self.subTest("empty"):
            self.assertFalse(slug(""))

suite = unittest.defaultTestLoader.loadTestsFromTestCase(TestSlug)
result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
[result.testsRun, len(result.failures), result.wasSuccessful()]
""",
        value=[2, 0, True],
    ),
    Harmless(
        "progress_with_carriage_returns",
        A,
        r"""
import sys
for i in range(3):
    print(f"\rstep {i + 1}/3", end="", flush=True)
print()
sys.stdout.write("\x1b[32mgreen\x1b[0m\n")
print("a\x00b\x07".replace("\x00", "0").replace("\x07", "7"))
sys.stdout.isatty()
""",
        value=False,
        prints="\rstep 1/3\rstep 2/3\rstep 3/3\n\x1b[32mgreen\x1b[0m\na0b7\n",
    ),
    Harmless(
        "a_generic_error_handler_around_it_all",
        A,
        r"""
import sys
import traceback

def process(item):
    return 10 / item

def main():
    results, errors = [], []
    for item in (5, 0, "x"):
        try:
            results.append(process(item))
        except (ZeroDivisionError, TypeError) as e:
            where = traceback.extract_tb(e.__traceback__)[-1].name
            errors.append({"item": item, "error": f"{type(e).__name__}: {e}", "where": where})
    return {"results": results, "errors": errors}

try:
    output = main()
except Exception:
    traceback.print_exc()
    raise
""",
        value={
            "results": [2.0],
            "errors": [
                {"item": 0, "error": "ZeroDivisionError: division by zero", "where": "process"},
                {"item": "x", "error": "TypeError: unsupported operand type(s) for /: 'int' and 'str'", "where": "process"},
            ],
        },
    ),
    Harmless(
        "exit_with_code_zero_is_caught",
        A,
        r"""
import sys

def main(argv):
    if not argv:
        print("nothing to do")
        return 0
    return 1

try:
    sys.exit(main([]))
except SystemExit as done:
    status = done.code
status
""",
        value=0,
        prints="nothing to do\n",
    ),
    Harmless("semicolons_and_one_liners", A, "import math; r = 2; area = math.pi * r ** 2; print(f'{area:.2f}')", prints="12.57\n"),
    Harmless("very_long_line", A, "values = [" + ", ".join(str(i) for i in range(3000)) + "]\nsum(values)", value=4498500),
    Harmless(
        "many_small_functions",
        A,
        "\n".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(300)) + "\nsum(f(0) for f in [f1, f150, f299])",
        value=450,
    ),
    Harmless(
        "deep_but_legal_nesting",
        A,
        "".join("    " * i + f"for i{i} in range(1):\n" for i in range(15)) + "    " * 15 + "hits = i0 + i14\nhits",
        value=0,
    ),
    Harmless(
        "sys_exit_of_main",
        A,
        r"""
import sys

def main() -> int:
    print("all good")
    return 0

if __name__ == "__main__":
    sys.exit(main())
""",
        prints="all good\n",
    ),
    Harmless(
        "exit_early_with_an_output",
        A,
        r"""
import sys

output = {"rows": 0}
if not input_data:
    print("no rows")
    sys.exit()
output["rows"] = len(input_data)
""",
        value={"rows": 0},
        prints="no rows\n",
        input_data=[],
    ),
    Harmless(
        "doctest_testmod",
        A,
        r"""
def median(xs):
    """
        + "'''"
        + r"""
    >>> median([3, 1, 2])
    2
    >>> median([])
    Traceback (most recent call last):
        ...
    ValueError: empty
    """
        + "'''"
        + r"""
    if not xs:
        raise ValueError("empty")
    return sorted(xs)[len(xs) // 2]

if __name__ == "__main__":
    import doctest
    results = doctest.testmod(verbose=False)
    print(f"{results.attempted} tests, {results.failed} failed")
""",
        prints="2 tests, 0 failed\n",
    ),
    Harmless(
        "unittest_main_without_exit",
        A,
        r"""
import unittest

def add(a, b):
    return a + b

class TestAdd(unittest.TestCase):
    def setUp(self):
        self.base = 10

    def test_add(self):
        self.assertEqual(add(self.base, 5), 15)

    def test_raises(self):
        with self.assertRaises(TypeError):
            add(1, "x")

program = unittest.main(argv=["first-arg-is-ignored"], exit=False, verbosity=0)
program.result.testsRun, program.result.wasSuccessful()
""",
        value=[2, True],
    ),
    Harmless(
        "future_annotations_and_type_hints_at_run_time",
        A,
        r"""
from __future__ import annotations
from dataclasses import dataclass, fields
from typing import ClassVar, Optional, get_type_hints
import typing

@dataclass
class Node:
    value: int
    next: Optional[Node] = None
    count: ClassVar[int] = 0

hints = get_type_hints(Node)
def convert(cls, raw):
    kinds = get_type_hints(cls)
    return cls(**{f.name: kinds[f.name](raw[f.name]) for f in fields(cls) if f.name in raw})
[sorted(hints), hints["value"] is int, Node.__annotations__["value"], convert(Node, {"value": "7"}).value,
 typing.get_args(hints["next"])[0] is Node]
""",
        value=[["count", "next", "value"], True, "int", 7, True],
    ),
    Harmless(
        "annotations_are_objects_without_the_future",
        A,
        r"""
from dataclasses import dataclass, fields
from functools import singledispatch
import inspect

@dataclass
class Row:
    name: str
    price: float = 0.0

types = {f.name: f.type for f in fields(Row)}
row = Row(**{k: types[k](v) for k, v in {"name": 5, "price": "2.5"}.items()})

@singledispatch
def show(x):
    return "any"

def local():
    class Inner: pass
    @show.register
    def _(x: Inner):
        return "inner"
    return show(Inner())

def route(path: str, limit: int = 10) -> dict: ...
args = {n: p.annotation(v) for (n, p), v in zip(inspect.signature(route).parameters.items(), [1, "5"])}
[row.name, row.price, local(), args]
""",
        value=["5", 2.5, "inner", {"path": "1", "limit": 5}],
    ),
    Harmless(
        "warnings_ignored_and_timestamps_printed",
        A,
        r"""
import warnings
warnings.filterwarnings("ignore")
from datetime import datetime

def log(msg, level="INFO"):
    stamp = datetime.now().strftime("%H:%M:%S")
    lines.append(f"[{level}] {msg}")
    return len(stamp)

lines = []
sizes = [log("start"), log("end", level="DEBUG")]
warnings.warn("hidden")
sizes, lines
""",
        value=[[8, 8], ["[INFO] start", "[DEBUG] end"]],
    ),
    Harmless(
        "atexit_says_goodbye",
        A,
        "import atexit\n\natexit.register(print, 'bye')\nprint('hello')\n",
        prints="hello\nbye\n",
    ),
    Harmless(
        "stdout_reconfigured_for_utf8",
        A,
        r"""
import sys

if sys.stdout.encoding.lower() != "utf-8":
    print("odd encoding")
sys.stdout.reconfigure(encoding="utf-8")
print("→ naïve café ✓")
""",
        prints="→ naïve café ✓\n",
    ),
    Harmless(
        "stdout_replaced_and_written_to_in_all_ways",
        A,
        r"""
import io
import json
import sys

sys.stdout.buffer.write(b"raw\n")
sys.stdout.flush()
old, sys.stdout = sys.stdout, io.StringIO()
try:
    print("hidden")
    captured = sys.stdout.getvalue()
finally:
    sys.stdout = old
json.dump({"a": 1}, sys.stdout)
sys.stdout.writelines(["\n", "end\n"])
print("x", file=sys.stdout, flush=True)
captured, sys.stdout.writable()
""",
        value=["hidden\n", True],
        prints='raw\n{"a": 1}\nend\nx\n',
    ),
    Harmless(
        "arguments_of_a_command_line_that_is_not_there",
        A,
        r"""
import argparse
import sys

parser = argparse.ArgumentParser(description="Report")
parser.add_argument("--top", type=int, default=3)
parser.add_argument("names", nargs="*", default=["all"])
args = parser.parse_args()
first = sys.argv[1] if len(sys.argv) > 1 else "none"
args.top, args.names, first
""",
        value=[3, ["all"], "none"],
    ),
    Harmless(
        "stdin_is_empty",
        A,
        "import sys\n\ndata = sys.stdin.read()\n[data or 'nothing', [line for line in sys.stdin]]",
        value=["nothing", []],
    ),
    Harmless("exit_builtin", A, "print('before')\nexit()\nprint('after')", prints="before\n"),
    Harmless(
        "source_of_its_own_function",
        A,
        "import inspect\n\ndef f(x):\n    return x + 1\n\ninspect.getsource(f)",
        value="def f(x):\n    return x + 1\n",
    ),
    Harmless(
        "name_of_its_own_file",
        A,
        "from pathlib import Path\n\nPath(__file__).suffix, type(__file__).__name__",
        value=[".py", "str"],
    ),
    Harmless(
        "classes_made_by_functions",
        A,
        r"""
from collections import namedtuple
from dataclasses import make_dataclass, asdict
from enum import Enum
from typing import NamedTuple, TypedDict

Color = Enum("Color", "RED GREEN")
Point = make_dataclass("Point", ["x", ("y", int, 0)])
Row = NamedTuple("Row", [("a", int)])
Options = TypedDict("Options", {"verbose": bool})
Pair = namedtuple("Pair", "left right")
[Color.GREEN.value, asdict(Point(1)), Row(2).a, Options(verbose=True), Pair(1, 2)._replace(left=5).left, Color.__module__]
""",
        value=[2, {"x": 1, "y": 0}, 2, {"verbose": True}, 5, "__main__"],
    ),
    Harmless(
        "a_hundred_megabytes_at_once",
        A,
        "data = bytearray(100_000_000)\ndata[-1] = 7\nlen(data), sum(data[-3:])",
        value=[100000000, 7],
    ),
    Harmless(
        "locale_as_far_as_there_is_one",
        A,
        r"""
import locale

try:
    locale.setlocale(locale.LC_ALL, "en_US.UTF-8")
except locale.Error:
    locale.setlocale(locale.LC_ALL, "")
f"{1234567.891:,.2f}"
""",
        value="1,234,567.89",
    ),
)
