"""Programs that the check lets run, and programs that it refuses: where, in which words, with which next move."""

# ruff: noqa: E501 (a program a line)

from __future__ import annotations

import random
import threading
import time
import warnings

import pytest

from orchestrator.errors import LimitExceeded, ProgramError, SecurityError, from_problem, to_problem
from orchestrator.models.tool import ToolDefinition, ToolParameter
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.source import MAX_CODE


def tool(name: str, domain: str, *required: str, optional: tuple[str, ...] = ()) -> ToolDefinition:
    parameters = (*(ToolParameter(name=n, required=True) for n in required), *(ToolParameter(name=n) for n in optional))
    return ToolDefinition(name=name, domain=domain, parameters=parameters)


TOOLS = {
    t.name: t
    for t in (
        tool("get_expenses", "finance", "user_id", optional=("quarter",)),
        tool("get_budget", "finance", "department"),
        tool("get_team_members", "hr", optional=("status",)),
        tool("web.search", "web", "query"),
        tool("sum", "maths", "values"),
        tool("lookup", "odd", "class", "self"),
        tool("now", "general"),
    )
}

HARMLESS: dict[str, str] = {
    "nothing": "",
    "a comment": "# nothing\n",
    "preloaded": "output = json.dumps({'x': math.sqrt(4), 'd': datetime.date.today().isoformat(), 'm': bool(re.match('a', 'a'))})",
    "input": "total = input['a'] + input_data['b']\noutput = total",
    "output without assignment": "print(output)",
    "dataclasses": """
from dataclasses import dataclass, field, asdict
@dataclass(order=True)
class Item:
    name: str
    price: float = 0.0
    tags: list[str] = field(default_factory=list)
    def __post_init__(self):
        self.price = round(self.price, 2)
output = asdict(Item("a", 1.234))
""",
    "regular expressions": "p = re.compile(r'(\\d+)')\noutput = [m.group(1) for m in p.finditer('1 a 22')]",
    "datetime imported": "from datetime import datetime, timedelta\noutput = (datetime.now() + timedelta(days=1)).isoformat()",
    "datetime as module": "import datetime as dt\noutput = dt.datetime(2024, 1, 1).strftime('%Y')",
    "statistics": "import statistics as st\noutput = st.mean([1, 2, 3]), st.stdev([1, 2, 3])",
    "itertools": "from itertools import groupby, chain\noutput = [(k, list(g)) for k, g in groupby('aabb')]",
    "decimal": "from decimal import Decimal, ROUND_HALF_UP, localcontext\nwith localcontext() as c:\n    c.prec = 5\n    x = Decimal('1') / 3",
    "csv from a string": "import csv, io\nrows = list(csv.DictReader(io.StringIO('a,b\\n1,2')))\noutput = rows",
    "dunder methods": """
class Vector:
    __slots__ = ("x", "y")
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)
    def __eq__(self, o): return isinstance(o, Vector) and self.x == o.x
    def __repr__(self): return f"{self.__class__.__name__}({self.x}, {self.y})"
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __call__(self): return type(self).__name__
    def __hash__(self): return hash(self.x)
    def __enter__(self): return self
    def __exit__(self, *exc): return False
    def __getattr__(self, name): return object.__getattribute__(self, "x")
print(Vector(1, 2) + Vector(3, 4))
""",
    "decorators": """
import functools, time
def timed(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        try:
            return fn(*args, **kwargs)
        finally:
            wrapper.last = time.perf_counter() - start
    return wrapper
@timed
def f(n): return n
f(1)
print(f.__name__, f.__wrapped__)
""",
    "generators": "def gen(n):\n    for i in range(n):\n        x = yield i\n    yield from range(2)\noutput = list(gen(3))",
    "comprehensions": "m = [[1, 2], [3]]\noutput = {str(x): x for row in m for x in row if x}, {x for x in m[0]}, sum(y for y in m[0])",
    "walrus in a comprehension": "out = [y for x in range(5) if (y := x * 2) > 2]\nprint(y)",
    "walrus": "if (n := len('abc')) > 2:\n    print(n)",
    "getattr on own objects": "class A:\n    x = 1\na = A()\nfor name in ('x', 'y'):\n    print(getattr(a, name, None))\n    setattr(a, name, 2)",
    "getattr of a dunder": "class A:\n    def __add__(self, o): return 1\nop = 'add'\nprint(getattr(A(), f'__{op}__')(2))",
    "getattr on a module": "name = 'sqrt'\nprint(getattr(math, name)(4), getattr(math, 'pi'))",
    "logging": "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=logging.INFO)\nlog = logging.getLogger(__name__)\nlog.info('x %s', 1)",
    "own context manager": "from contextlib import contextmanager\n@contextmanager\ndef cm():\n    yield 1\nwith cm() as v:\n    print(v)",
    "typing": "from typing import Any, Optional, TypedDict\nclass T(TypedDict, total=False):\n    a: int\nx: Optional[Any] = None",
    "annotations that nothing evaluates": "def f(a: 'Unknown', b: list['Nope'] = None) -> 'Neither':\n    c: Missing\n    return b\nf(1)",
    "lazy annotations": "from __future__ import annotations\ndef f(x: Frame) -> Series: return x\nf(1)",
    "enum": "from enum import Enum, auto\nclass C(Enum):\n    RED = auto()\n    BLUE = auto()\n    @property\n    def low(self): return self.name.lower()\nprint(C['RED'].low)",
    "pure paths": "from pathlib import PurePath, PurePosixPath, Path\nprint(Path('a/b.txt').suffix, PurePosixPath('/etc') / 'x', Path('/etc/passwd').name)",
    "path beneath the temp folder": "from pathlib import Path\nPath('/tmp/a.txt').write_text('x')\nPath('b.txt').write_text(Path('/tmp/a.txt').read_text())",
    "glob of a path": "from pathlib import Path\nprint(sorted(Path('.').glob('*.csv')))",
    "files": "with open('out.csv', 'w') as f:\n    f.write('a,b')\nwith open('/tmp/out.csv') as f:\n    print(f.read())",
    "a file in a folder": "open('a/../b.txt', 'w').close()",
    "the null device": "open('/dev/null', 'w').write('x')",
    "a computed file name": "name = 'x'\nopen(f'{name}.txt', 'w').close()",
    "class names": "class A: pass\nprint(A().__class__.__name__, type(A()).__name__, A.__doc__, A.__module__)",
    "super": "class A:\n    def __init__(self): self.a = 1\nclass B(A):\n    def __init__(self):\n        super().__init__()\n        A.__init__(self)\n    def who(self): return __class__\nB()",
    "main guard": "import asyncio\nasync def main():\n    return 1\nif __name__ == '__main__':\n    asyncio.run(main())",
    "an own method named exec": "class Db:\n    def exec(self, q): return q\n    def open(self): return self\n    def eval(self, x): return x\n    def system(self, x): return x\n    def compile(self): return 1\nd = Db().open()\nd.exec('x'), d.eval('y'), d.system('z'), d.compile()",
    "df.eval": "class Frame:\n    def query(self, q): return self\n    def eval(self, q): return self\ndf = Frame()\ndf.query('a > 1').eval('b = a')",
    "format": "print('{0:>5} {name!r} {a.real}'.format(1, name='x', a=2))\nprint('%s' % 1)",
    "names of blocked modules": "os = 'linux'\nhttp = {'status': 200}\nsocket = [1]\nprint(os.upper(), http['status'], socket[0])\nrequests = []\nrequests.append(1)",
    "own names of blocked functions": "def compile(x): return x\ndef eval(x): return x\nexec = print\nopen = lambda p: p\nprint(compile(eval('1')), open('/etc/passwd'))\nexec('x')",
    "a parameter named like a function": "def f(eval, compile=None, input=None):\n    return eval(compile) if input() else 0",
    "match": "def f(x):\n    match x:\n        case {'a': a, **rest}: return a, rest\n        case [first, *others]: return first, others\n        case str() as s if s: return s\n        case (1 | 2) as n: return n\n        case _: return None\nprint(f([1, 2]))",
    "star args": "def f(a, /, b, *args, c=1, **kw): return a, b, args, c, kw\nfirst, *rest = [1, 2, 3]\nprint(*rest, f(*[1, 2], **{'d': 3}))",
    "global and nonlocal": "count = 0\ndef bump():\n    global count, made\n    count += 1\n    made = 1\n    inner = 0\n    def go():\n        nonlocal inner\n        inner += 1\n    go()\nbump()\nprint(made)",
    "lambdas": "add = lambda a, b=2, *c, **d: a + b\nprint(sorted([3, 1], key=lambda x: -x), (lambda: 1)())",
    "async comprehension": "async def agen():\n    for i in range(3):\n        yield i\noutput = [x async for x in agen() if x]",
    "async with": "async def f():\n    async with asyncio.TaskGroup() as tg:\n        t = tg.create_task(asyncio.sleep(0))\n    async with asyncio.timeout(5):\n        pass\nawait f()",
    "try and except star": "try:\n    raise ExceptionGroup('g', [ValueError(1)])\nexcept* ValueError as eg:\n    print(eg.exceptions)",
    "the exception's variable": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    print(e, e.__traceback__.tb_lineno)\nelse:\n    pass\nfinally:\n    print(1)",
    "urllib.parse": "import urllib.parse\nfrom urllib.parse import urlencode, urlparse\nfrom urllib import parse\nprint(urllib.parse.quote('a b'), urlencode({'a': 1}), parse.quote('x'))",
    "http status": "from http import HTTPStatus\nprint(HTTPStatus(404).phrase)",
    "import as": "import json as j, math as m\nimport collections.abc\nprint(j.dumps(m.pi), collections.abc.Mapping)",
    "shadowed names": "list = [1]\nsum = 0\nfor str in list:\n    sum += str\njson = {'a': 1}\nprint(json['a'])",
    "f-strings": 'x = 3.14159\nw = 10\nprint(f\'{x:>{w}.2f} {x!r} {x=} {{}} {"a" if x else "b"}\')',
    "star import": "from math import *\nfrom collections import *\nprint(sqrt(4), pi, Counter('aab'), some_name_of_it if False else 1)",
    "del": "x = 1\ndel x\ntry:\n    x\nexcept NameError:\n    print('gone')",
    "a name that is meant to be missing": "try:\n    undefined_thing\nexcept NameError as e:\n    print(e)",
    "any exception is fine": "try:\n    undefined_thing()\nexcept Exception as e:\n    print(type(e).__name__)",
    "missing in a function, caught where it is called": "def risky():\n    return undefined_thing\ntry:\n    risky()\nexcept NameError as e:\n    print(e)",
    "a bad call in a function, caught where it is called": "async def f():\n    await get_expenses(bogus=1)\ntry:\n    await f()\nexcept Exception as e:\n    print(e)",
    "a branch for another Python": "import sys\nif sys.version_info < (3,):\n    text = unicode\nelif sys.platform == 'win32':\n    err = WindowsError",
    "names that an enum puts there": "import enum\n@enum.global_enum\nclass C(enum.Enum):\n    RED = 1\nprint(RED)",
    "suppressed": "from contextlib import suppress\nwith suppress(NameError):\n    undefined_thing",
    "class bodies": "class A:\n    n = 3\n    items = [i for i in range(n)]\n    def f(self, k=n): return k\n    print(__qualname__)",
    "comprehension scopes": "x = 1\nprint([x for x in range(3)], x, [[y for y in range(z)] for z in range(3)])",
    "nested functions": "def outer():\n    def inner():\n        return later()\n    def later(): return value\n    value = 1\n    return inner()\nprint(outer())",
    "used before its definition": "def f(): return g()\ndef g(): return CONST\nCONST = 1\nprint(f())",
    "bound in a branch": "if input:\n    a = 1\nelse:\n    b = 2\nprint(a if input else b)",
    "globals": "x = 1\nprint('x' in globals(), globals()['x'], locals().get('x'), sorted(vars(math))[:1])\nglobals()['made'] = 2\nprint(made)",
    "vars of an object": "class A: pass\na = A()\na.b = 1\nprint(vars(a), a.__dict__)",
    "type checking only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from os import PathLike\n    import pickle\ndef f(x: 'PathLike'): return x",
    "mro of own classes": "class A: pass\nclass B(A): pass\nprint([c.__name__ for c in B.__mro__], B.__bases__, B().__class__.__bases__, A.__subclasses__())",
    "registry of subclasses": "class Base:\n    @classmethod\n    def all(cls): return [c for c in cls.__subclasses__()]\n    def up(self): return self.__class__.__mro__[1].__name__\nprint(Base.all())",
    "own type": "T = type('T', (), {'x': 1})\nprint(T().x, int.__name__, isinstance(T, type))",
    "closures": "def outer():\n    n = 0\n    def inner(): return n\n    return inner\nprint(outer().__closure__[0].cell_contents, outer.__code__.co_varnames)",
    "code that is text": "text = 'import os; eval(\"__import__\")'\nprint(text, '__builtins__', \"'''\", 'exec(')",
    "a dunder in a dict": "d = {'__globals__': 1}\nprint(len(d))",
    "threads": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n    print(list(pool.map(len, ['a'])))",
    "sys": "import sys\nprint(sys.maxsize, sys.version_info >= (3, 10), file=sys.stderr)\nsys.exit(0)",
    "sys.modules": "import sys\nprint('numpy' in sys.modules)",
    "hashes": "import hashlib, base64, uuid, struct, secrets, random, string, textwrap, heapq, bisect, copy, pprint, operator, zlib\nprint(hashlib.sha256(b'x').hexdigest())",
    "inspect": "import inspect\nprint(inspect.signature(lambda a: a), inspect.currentframe().f_code.co_name)",
    "ast.literal_eval": "import ast\nprint(ast.literal_eval('[1]'))",
    "exit": "exit(0)",
    "attributes named like modules": "class C: pass\nc = C()\nc.os = c.subprocess = C()\nc.os.path = 1\nc.subprocess.run = print\nc.subprocess.run('x')",
    "self.os": "class C:\n    def __init__(self): self.os = 'x'; self.socket = 1\n    def f(self): return self.os, self.socket\nC().f()",
    "unicode": "größe = 'ß'\n数 = 1\nprint(größe, 数, '🙂', 'a\\u2028b')",
    "a byte order mark": "\ufeffprint(1)",
    "windows line ends": "x = 1\r\nif x:\r\n    print(x)\r\n",
    "an invalid escape": "print('\\d')",
    "long sums": "x = 1\ny = " + " + ".join(["x"] * 500),
    "many elifs": "x = 3\nif x == 0:\n    pass\n" + "".join(f"elif x == {n}:\n    pass\n" for n in range(1, 150)),
    "a large literal": "data = [" + ", ".join(f"{{'id': {n}, 'v': [1, 2, (3,)]}}" for n in range(800)) + "]",
    "brackets in strings": "x = '" + "(" * 300 + "'\n# " + "[" * 300 + "\ny = '''" + "{" * 300 + "'''",
    "a tool": "e = await get_expenses('u1')\noutput = e['total']",
    "a tool by keyword": "e = (await get_expenses(user_id='u1', quarter='Q3'))['total']",
    "tools at once": "r = await asyncio.gather(*[get_expenses(u['id']) for u in await get_team_members()])",
    "a tool imported": "from tools.finance import get_expenses, get_budget\nimport tools.hr\nimport tools\nawait tools.hr.get_team_members('x')\nawait tools.finance.get_budget('x')",
    "a tool under another name": "from tools.finance import get_expenses as ge\nimport tools.finance as fin\nawait ge('u')\nawait fin.get_budget(department='d')\nfrom tools import hr, get_budget\nawait hr.get_team_members()",
    "a tool from its module": "from tools.finance.get_expenses import get_expenses\nawait get_expenses('x')",
    "all tools of a domain": "from tools.finance import *\nawait get_expenses('x')",
    "a tool as a task": "t = asyncio.create_task(get_expenses('u'))\nc = get_expenses('v')\nprint(await t, await c)\nasync with asyncio.TaskGroup() as tg:\n    tg.create_task(get_team_members())",
    "a tool in a dict": "fns = {'a': get_expenses}\nawait fns['a']('u')\nawait get_expenses(*['u'], **{'quarter': 'Q1'})",
    "a tool with a dot": "await web_search('x')\nfrom tools.web import web_search as s\nawait s(query='x')",
    "a tool named like a builtin": "print(sum([1, 2]))\nfrom tools.maths import sum_\nawait sum_(values=[1])",
    "its own name, imported": "from tools.maths import sum as add\nawait add([1])",
    "odd parameters": "await lookup(class_='a', self='b')\nawait lookup(**{'class_': 1, 'self': 2})",
    "an own function named like a tool": "def get_expenses(a, b, c, d): return [1]\nget_expenses(1, 2, 3, 4)\nprint(get_expenses(1, 2, 3, 4)[0])",
    "an own now": "import time\nnow = time.time()\nprint(now + 1)",
    "a failing tool": "try:\n    await get_expenses(nobody=1)\nexcept ToolError as e:\n    print(e.code, str(e))",
    "a missing argument, caught": "try:\n    await get_expenses()\nexcept TypeError:\n    print('ok')",
    "exceptions as values": "r = await asyncio.gather(get_expenses(), get_expenses(bogus=1), return_exceptions=True)",
    "a missing stub, caught": "try:\n    from tools.nothing import x\nexcept ImportError:\n    x = None",
    "call_tool": "r = await call_tool(server='finance', tool_name='get_expenses', parameters={'user_id': 'u'}, timeout=5)",
    "run_until_complete": "loop = asyncio.get_event_loop()\nprint(loop.run_until_complete(get_expenses('u')))",
    "async for over a tool's result": "for e in await get_team_members():\n    print(e)\nrows = [x for x in (await get_team_members())]",
    "a tool as the last expression": "x = 1\nget_expenses('u')",
    "a tool as the last expression of the guard": "if __name__ == '__main__':\n    get_expenses('u')",
    "coroutine closed": "get_expenses('u').close()",
    "own iteration protocol": "class It:\n    def __iter__(self): return self\n    def __next__(self): raise StopIteration\n    async def __aenter__(self): return self\n    async def __aexit__(self, *a): return None\nlist(It())",
    "a named tuple": "from collections import namedtuple\nfrom typing import NamedTuple\nP = namedtuple('P', 'x y')\nclass Q(NamedTuple):\n    a: int = 1\nprint(P(1, 2)._asdict(), Q().a)",
    "protocols and generics": "from typing import Protocol, TypeVar, Generic\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v: T): self.v = v\nclass P(Protocol):\n    def f(self) -> int: ...\nprint(Box[int](1).v)",
    "metaclass": "class M(type):\n    def __new__(m, n, b, d): return super().__new__(m, n, b, d)\nclass A(metaclass=M): pass\nA()",
    "descriptors": "class D:\n    def __get__(self, o, t=None): return 1\n    def __set_name__(self, o, n): self.n = n\nclass A:\n    d = D()\nprint(A().d)",
    "pattern classes": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nmatch P(1):\n    case P(x=v):\n        print(v)",
    "partial and reduce": "from functools import reduce, partial, lru_cache\n@lru_cache(maxsize=None)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint(reduce(lambda a, b: a + b, [1, 2]), partial(pow, 2)(3), fib(20))",
    "own exceptions": "class MyError(Exception):\n    def __init__(self, code): super().__init__(f'{code}'); self.code = code\ntry:\n    raise MyError(1) from None\nexcept (MyError, KeyError) as err:\n    print(err.code)",
    "mocked tools module": "import tools.finance\ntools.finance.extra = 1\nprint(tools.finance.extra)",
    "temporary files": "import tempfile, shutil, csv\nwith tempfile.TemporaryDirectory() as d:\n    print(d)\nwith tempfile.NamedTemporaryFile('w') as f:\n    csv.writer(f).writerow([1])",
    "string templates": "from string import Template\nprint(Template('$a').substitute(a=1), '{x.__class__}'.format(x=1))",
}


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_harmless_program_passes(code: str) -> None:
    check_program(code, tools=TOOLS)


DANGERS: list[tuple[str, int, int, str]] = [
    ("import os", 1, 1, "Dangerous import detected: os"),
    ("from tools.finance import get_expenses\nimport os\nos.system('rm -rf /')\nawait get_expenses(user_id='alice')", 2, 1, "Dangerous import detected: os"),
    ("import os as o", 1, 1, "Dangerous import detected: os"),
    ("import os.path", 1, 1, "Dangerous import detected: os"),
    ("from os import system", 1, 1, "Dangerous import detected: os"),
    ("from os.path import join", 1, 1, "Dangerous import detected: os"),
    ("import json, subprocess", 1, 1, "Dangerous import detected: subprocess"),
    ("def f():\n    import subprocess as s\n    return s", 2, 5, "Dangerous import detected: subprocess"),
    ("from subprocess import *", 1, 1, "Dangerous import detected: subprocess"),
    ("try:\n    import requests\nexcept ImportError:\n    requests = None", 2, 5, "Dangerous import detected: requests"),
    ("import importlib", 1, 1, "Dangerous import detected: importlib"),
    ("from importlib import import_module", 1, 1, "Dangerous import detected: importlib"),
    ("import importlib.util", 1, 1, "Dangerous import detected: importlib"),
    ("import ctypes", 1, 1, "Dangerous import detected: ctypes"),
    ("from ctypes import CDLL", 1, 1, "Dangerous import detected: ctypes"),
    ("import socket", 1, 1, "Dangerous import detected: socket"),
    ("import urllib", 1, 1, "Dangerous import detected: urllib"),
    ("import urllib.request", 1, 1, "Dangerous import detected: urllib.request"),
    ("from urllib import parse, request", 1, 1, "Dangerous import detected: urllib.request"),
    ("from urllib.request import urlopen", 1, 1, "Dangerous import detected: urllib.request"),
    ("import http.client", 1, 1, "Dangerous import detected: http.client"),
    ("from http.server import HTTPServer", 1, 1, "Dangerous import detected: http.server"),
    ("import httpx", 1, 1, "Dangerous import detected: httpx"),
    ("import aiohttp", 1, 1, "Dangerous import detected: aiohttp"),
    ("import pickle", 1, 1, "Dangerous import detected: pickle"),
    ("import marshal", 1, 1, "Dangerous import detected: marshal"),
    ("import shelve", 1, 1, "Dangerous import detected: shelve"),
    ("import glob", 1, 1, "Dangerous import detected: glob"),
    ("import posix", 1, 1, "Dangerous import detected: posix"),
    ("import ｏｓ", 1, 1, "Dangerous import detected: os"),
    ("if False:\n    import pty", 2, 5, "Dangerous import detected: pty"),
    ("from logging import os", 1, 1, "Dangerous import detected: os"),
    ("import logging\nlogging.os.system('x')", 2, 1, "Dangerous import detected: os"),
    ("import pathlib as p\nx = p.os.getcwd()", 2, 5, "Dangerous import detected: os"),
    ("json.codecs.open('x')\nasyncio.subprocess", 2, 1, "Dangerous import detected: subprocess"),
    ("import sys\nsys.modules['os'].system('x')", 2, 1, "Dangerous import detected: os"),
    ("import logging\ngetattr(logging, 'o' + 's')", 2, 1, "Dangerous import detected: os"),
    ("await asyncio.create_subprocess_shell('ls')", 1, 7, "Dangerous call detected: asyncio.create_subprocess_shell"),
    ("from asyncio import create_subprocess_exec", 1, 1, "Dangerous import detected: asyncio.create_subprocess_exec"),
    ("await asyncio.open_connection('a', 1)", 1, 7, "Dangerous call detected: asyncio.open_connection"),
    ("x = __import__('os')", 1, 5, "Dangerous call detected: __import__"),
    ("print(eval('1 + 1'))", 1, 7, "Dangerous call detected: eval"),
    ("größe = '🙂'; eval('x')", 1, 14, "Dangerous call detected: eval"),
    ("exec('x = 1')", 1, 1, "Dangerous call detected: exec"),
    ("e = exec", 1, 5, "Dangerous call detected: exec"),
    ("compile('1', 'a', 'eval')", 1, 1, "Dangerous call detected: compile"),
    ("import builtins\nbuiltins.eval('1')", 2, 1, "Dangerous call detected: builtins.eval"),
    ("from builtins import exec as e", 1, 1, "Dangerous import detected: builtins.exec"),
    ("x = __builtins__", 1, 5, "Dangerous name detected: __builtins__"),
    ("globals()['__builtins__']", 1, 1, "Dangerous attribute detected: __builtins__"),
    ("globals().get('__builtins__')", 1, 1, "Dangerous attribute detected: __builtins__"),
    ("def f(): pass\nf.__globals__['x']", 2, 1, "Dangerous attribute detected: __globals__"),
    ("().__class__.__bases__[0].__subclasses__()", 1, 1, "Dangerous attribute detected: __class__.__bases__"),
    ("''.__class__.__mro__[1]", 1, 1, "Dangerous attribute detected: __class__.__mro__"),
    ("x = 1\ny = x.__class__.__base__.__subclasses__()", 2, 5, "Dangerous attribute detected: __class__.__base__"),
    ("object.__subclasses__()", 1, 1, "Dangerous attribute detected: __subclasses__"),
    ("type(1).__base__.__subclasses__()", 1, 1, "Dangerous attribute detected: __subclasses__"),
    ("class A: pass\nA().__init__.__globals__", 2, 1, "Dangerous attribute detected: __globals__"),
    ("class A: pass\ngetattr(A(), '__globals__')", 2, 1, "Dangerous attribute detected: __globals__"),
    ("getattr(print, '__glo' + 'bals__')", 1, 1, "Dangerous attribute detected: __globals__"),
    ("n = 'class'\ngetattr((), f'__{n}__')", 2, 1, "Dangerous attribute detected: a computed dunder name"),
    ("n = 'x'\nsetattr(math, '__' + n, 1)", 2, 1, "Dangerous attribute detected: a computed dunder name"),
    ("import operator\noperator.attrgetter('__init__.__globals__')", 2, 1, "Dangerous attribute detected: __init__.__globals__"),
    ("def f(): pass\nprint('{0.__globals__}'.format(f))", 2, 7, "Dangerous attribute detected in a format string"),
    ("import inspect\ninspect.currentframe().f_back.f_globals", 2, 1, "Dangerous attribute detected: f_globals"),
    ("json.__loader__.load_module('os')", 1, 1, "Dangerous attribute detected: __loader__"),
    ("open('/etc/passwd').read()", 1, 1, "Dangerous file access detected: /etc/passwd"),
    ("with open('../x', 'w') as f:\n    pass", 1, 6, "Dangerous file access detected: ../x"),
    ("open('/tmp/../etc/shadow')", 1, 1, "Dangerous file access detected: /tmp/../etc/shadow"),
    ("open(file='/proc/self/environ')", 1, 1, "Dangerous file access detected: /proc/self/environ"),
    ("import io\nio.open('/etc/hosts')", 2, 1, "Dangerous file access detected: /etc/hosts"),
    ("from pathlib import Path\nPath('/etc/passwd').read_text()", 2, 1, "Dangerous file access detected: /etc/passwd"),
    ("import pathlib\nfor p in pathlib.Path('/').glob('*'):\n    pass", 2, 10, "Dangerous file access detected: /"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "line", "column", "message"), DANGERS)
def test_a_dangerous_program_is_refused(code: str, line: int, column: int, message: str) -> None:
    with pytest.raises(SecurityError) as caught:
        check_program(code, tools=TOOLS)
    first = caught.value.problems[0]
    assert caught.value.message == message
    assert (first["line"], first["column"], first["message"]) == (line, column, message)
    assert first["next"]


MISTAKES: list[tuple[str, int, int, str, str]] = [
    ("x = 1\n\nawait get_expense('u')", 3, 7, "There is no tool or name get_expense at line 3.", "Did you mean get_expenses?"),
    ("from tools.finance import get_expence", 1, 27, "There is no tool or name get_expence at line 1.", "Did you mean get_expenses?"),
    ("from tools.finance import (\n    get_budget,\n    get_expence,\n)", 3, 5, "There is no tool or name get_expence at line 3.", "Did you mean get_expenses?"),
    ("from tools.fin import x", 1, 1, "There is no module tools.fin at line 1.", "Did you mean tools.finance?"),
    ("import tools.nothing", 1, 1, "There is no module tools.nothing at line 1.", "There are tools.finance, tools.general, tools.hr"),
    ("import tools.finance.get_expence", 1, 1, "There is no tool or name get_expence at line 1.", "Did you mean get_expenses?"),
    ("from tools.hr import get_expenses", 1, 22, "There is no tool or name get_expenses in tools.hr at line 1.", "Write `from tools.finance import get_expenses`."),
    ("from tools import get_expence", 1, 19, "There is no tool or name get_expence at line 1.", "Did you mean get_expenses?"),
    ("import tools.finance as fin\nawait fin.get_expence('u')", 2, 11, "There is no tool or name get_expence at line 2.", "Did you mean get_expenses?"),
    ("import tools\nawait tools.hr.get_teams()", 2, 16, "There is no tool or name get_teams at line 2.", "Did you mean get_team_members?"),
    ("try:\n    await get_expense('u')\nexcept Exception:\n    pass", 2, 11, "There is no tool or name get_expense at line 2.", "Did you mean get_expenses?"),
    ("async def f():\n    return await get_expense('u')\ntry:\n    await f()\nexcept Exception:\n    pass", 2, 18, "There is no tool or name get_expense at line 2.", "Did you mean get_expenses?"),
    ("def f():\n    return totl\ntotal = 1\nf()", 2, 12, "There is no tool or name totl at line 2.", "Did you mean total?"),
    ("def f():\n    hidden_value = 1\nprint(hidden_value)", 3, 7, "There is no tool or name hidden_value at line 3.", "Define or import it first. There are get_budget"),
    ("prnt('x')", 1, 1, "There is no tool or name prnt at line 1.", "Did you mean print?"),
    ("x = [q for q in range(3)]\nprint(q)", 2, 7, "There is no tool or name q at line 2.", "Define or import it first."),
    ("print(statistics.mean([1]))", 1, 7, "There is no tool or name statistics at line 1.", "Add `import statistics`."),
    ("d = defaultdict(list)", 1, 5, "There is no tool or name defaultdict at line 1.", "Add `from collections import defaultdict`."),
    ("x = np.array([1])", 1, 5, "There is no tool or name np at line 1.", "Add `import numpy as np`."),
    ("os.getcwd()", 1, 1, "There is no tool or name os at line 1.", "Programs cannot touch the system."),
    ("name = input('Who? ')", 1, 8, "`input` is the value given to the program, not a function, at line 1.", "Use `input` itself"),
    ("get_expenses('u')\nx = 1", 1, 1, "Tool get_expenses is async: write `await get_expenses(...)` at line 1.", "Without await"),
    ("if input:\n    get_expenses('u')\nelse:\n    get_team_members()\n    x = 1", 4, 5, "Tool get_team_members is async: write `await get_team_members(...)` at line 4.", "Without await"),
    ("def f():\n    get_expenses('u')\nf()", 2, 5, "Tool get_expenses is async: write `await get_expenses(...)` at line 2.", "Without await"),
    ("x = get_expenses('u')['total']", 1, 5, "Tool get_expenses is async: write `await get_expenses(...)` at line 1.", "Without await"),
    ("x = get_expenses('u').get('total')", 1, 5, "Tool get_expenses is async: write `await get_expenses(...)` at line 1.", "Without await"),
    ("for e in get_team_members():\n    pass", 1, 10, "Tool get_team_members is async: write `await get_team_members(...)` at line 1.", "Without await"),
    ("import tools.hr as hr\nx = [m for m in hr.get_team_members()]", 2, 17, "Tool get_team_members is async: write `await get_team_members(...)` at line 2.", "Without await"),
    ("await get_expenses()", 1, 7, "get_expenses needs user_id at line 1.", "Its parameters are get_expenses(user_id, quarter=...)."),
    ("await get_expenses('u', quartr='Q1')", 1, 25, "get_expenses has no parameter quartr at line 1.", "Did you mean quarter?"),
    ("await get_expenses('u', year=2024)", 1, 25, "get_expenses has no parameter year at line 1.", "Its parameters are get_expenses(user_id, quarter=...)."),
    ("await get_expenses('u', 'Q1', 3)", 1, 7, "get_expenses takes 2 arguments at most, not 3 at line 1.", "Its parameters are"),
    ("from tools.hr import get_team_members as g\nawait g(state='x')", 2, 9, "get_team_members has no parameter state at line 2.", "Did you mean status?"),
    ("await web_search(q='x')", 1, 18, "web_search has no parameter q at line 1.", "Its parameters are web_search(query)."),
    ("def f(:\n    pass", 1, 7, "Syntax error: invalid syntax at line 1.", "Mend this line."),
    ("x = (1,\ny = 2", 1, 5, "Syntax error: '(' was never closed at line 1.", "Close it."),
    ("print 'x'", 1, 1, "Syntax error: Missing parentheses in call to 'print'. Did you mean print(...)? at line 1.", "Programs are Python 3"),
    ("x = 'abc", 1, 5, "Syntax error: unterminated string literal (detected at line 1) at line 1.", "End the string on its line"),
    ("if x:\npass", 2, 1, "Syntax error: expected an indented block after 'if' statement on line 1 at line 2.", "Indent the lines"),
    ("x = 1\nreturn x", 2, 1, "Syntax error: 'return' outside function at line 2.", "Assign the value to `output` instead."),
    ("def f():\n    await g()", 2, 5, "Syntax error: 'await' outside async function at line 2.", "Make the function around it `async def`"),
    ("break", 1, 1, "Syntax error: 'break' outside loop at line 1.", "Mend this line."),
    ("nonlocal x", 1, 1, "Syntax error: nonlocal declaration not allowed at module level at line 1.", "Mend this line."),
    ("x = 1\ny = '\0'", 2, 6, "The program contains a null byte.", "Write it as plain UTF-8 text."),
    ("x = '\ud800'", 1, 6, "The program contains half of a character.", "Write it as plain UTF-8 text."),
    ("x = 1\n" + "(" * 150 + ")" * 150, 2, 101, "The program is nested too deeply.", "Split the expression"),
    ("x = " + "-" * 20000 + "1", 1, 1, "The program is nested too deeply.", "Split the expression"),
    ("x = 1" + " + 1" * 16000, 1, 1, "The program is nested too deeply.", "Split the expression"),
    ("x = a" + ".b" * 20000, 1, 1, "The program is nested too deeply.", "Split the expression"),
    ("x = " + "lambda: " * 8000 + "1", 1, 1, "The program is nested too deeply.", "Split the expression"),
    ("".join(f"{' ' * n}if 1:\n" for n in range(200)), 101, 1, "The program is nested too deeply.", "Split the expression"),
    ("# -*- coding: utf-7 -*-\n+AGk-mport os", 2, 12, "Syntax error: invalid syntax at line 2.", "Mend this line."),
]  # fmt: skip


@pytest.mark.parametrize(("code", "line", "column", "message", "move"), MISTAKES)
def test_a_mistake_is_refused_with_the_next_move(code: str, line: int, column: int, message: str, move: str) -> None:
    with pytest.raises(ProgramError) as caught:
        check_program(code, tools=TOOLS)
    first = caught.value.problems[0]
    assert caught.value.message == first["message"] == message
    assert (first["line"], first["column"]) == (line, column)
    assert move in first["next"]
    assert len(caught.value.problems) == 1


def test_every_problem_comes_at_once_and_dangers_come_first() -> None:
    code = "x = get_expense('u')\nimport os\nprint(missing_thing)\nimport pickle as p\n"
    with pytest.raises(SecurityError) as caught:
        check_program(code, tools=TOOLS)
    assert caught.value.message == "Dangerous import detected: os"
    assert [(p["line"], p["code"]) for p in caught.value.problems] == [
        (2, "dangerous_import"),
        (1, "undefined"),
        (3, "undefined"),
        (4, "dangerous_import"),
    ]
    assert str(caught.value).splitlines()[0] == "Dangerous import detected: os"


def test_a_refusal_shows_the_line_and_a_caret() -> None:
    with pytest.raises(ProgramError) as caught:
        check_program("def f():\n\treturn get_expense('u')\n", tools=TOOLS)
    assert str(caught.value) == (
        "There is no tool or name get_expense at line 2. Did you mean get_expenses?\n"
        "  line 2, column 9\n"
        "     return get_expense('u')\n"
        "            ^"
    )


def test_a_long_line_is_cut_around_the_place() -> None:
    with pytest.raises(ProgramError) as caught:
        check_program(f"x = '{'a' * 5000}' + missing_thing + '{'b' * 5000}'", tools=TOOLS)
    text, caret = caught.value.problems[0]["source"].split("\n")
    assert len(text) <= 120
    assert text[caret.index("^") :].startswith("missing_thing")


def test_control_characters_do_not_reach_a_terminal() -> None:
    with pytest.raises(ProgramError) as caught:
        check_program("x = '\x1b[2J\x07' + missing_thing", tools=TOOLS)
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)


def test_the_printed_form_is_that_of_the_reference_and_survives_the_wire() -> None:
    with pytest.raises(SecurityError) as caught:
        check_program("import os", tools={})
    error = caught.value
    assert f"{type(error).__name__}: {error}" == (
        "SecurityError: Dangerous import detected: os\n"
        "  line 1, column 1: Programs cannot touch the system. "
        "For paths use `pathlib.PurePosixPath`, for files `open` in the working folder.\n"
        "    import os\n"
        "    ^"
    )
    again = from_problem(to_problem(error))
    assert isinstance(again, SecurityError)
    assert (again.code, again.message, again.problems) == ("security_error", error.message, error.problems)


def test_without_tools_the_next_move_says_so() -> None:
    with pytest.raises(ProgramError, match=r"This program has no tools\."):
        check_program("from tools.finance import get_expenses", tools={})


def test_a_program_that_is_too_long_is_refused_at_once() -> None:
    start = time.perf_counter()
    with pytest.raises(LimitExceeded, match="longer than 64 KiB"):
        check_program("x = 1\n" * 2_000_000, tools=TOOLS)
    with pytest.raises(LimitExceeded):
        check_program("#" + "ß" * (MAX_CODE // 2), tools=TOOLS)
    assert time.perf_counter() - start < 1


HOSTILE: dict[str, str] = {
    "names": "a," * (MAX_CODE // 2 - 1),
    "statements": "a\n" * (MAX_CODE // 2 - 1),
    "calls": "get_expense()\n" * 15_000,
    "a long chain": "x" + ".a()" * 2_000,
    "attributes": "().__class__.__base__\n" * 10_000,
    "imports": "import os\n" * 20_000,
    "strings": "'" * (MAX_CODE - 1),
    "escapes": "'" + "\\" * (MAX_CODE - 2),
    "triple quotes": "'''" + '"' * (MAX_CODE - 10),
    "strings of half a line": "'\n" * (MAX_CODE // 2 - 1),
    "f-strings": "f'{a}'" * 30_000,
    "a long name": "a" * (MAX_CODE - 1),
    "many long names": "\n".join(f"get_expenses_{'x' * 60}{n}" for n in range(3_000)),
    "functions": "".join(f"def f{n}(a, b=x{n}): return y{n}\n" for n in range(7_000)),
    "scopes in scopes": "".join(f"{' ' * n}def f{n}(): \n" for n in range(90)) + " " * 90 + "missing\n",
    "comprehensions": "[" + "a for a in b " * 10_000 + "]",
    "a large integer": "x = " + "9" * 200_000,
    "a power": "x = 9 ** 9 ** 9 ** 9",
    "a shift": "x = 1 << (1 << 60), 'a' * (1 << 60), ((1,) * 1000) * 100_000_000",
    "line joins": "\\\n" * (MAX_CODE // 2 - 1),
    "form feeds": "\f" * (MAX_CODE - 1),
    "a byte order mark": "\ufeffx = missing_thing",
    "opening brackets": "(" * (MAX_CODE - 1),
    "dictionaries in errors": "{a:" * 60 + " b c",
    "nested calls with errors": "f(x=" * 90 + " a b",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_judged_quickly_and_breaks_nothing(code: str) -> None:
    found: list[BaseException | None] = []
    start = time.perf_counter()
    thread = threading.Thread(target=lambda: found.append(refusal(code)))  # less stack than the main thread may have
    thread.start()
    thread.join()
    assert found, "the check raised something that is no refusal"
    assert found[0] is None or len(str(found[0])) < 20_000
    assert time.perf_counter() - start < 10


def test_random_text_is_refused_or_passes_but_never_breaks_the_check() -> None:
    words = [w for code in HARMLESS.values() for w in code.replace("(", " ( ").replace(".", " . ").split(" ") if w]
    draw = random.Random(7)
    for _ in range(1500):
        refusal(" ".join(draw.choices(words, k=draw.randint(1, 12))))
        refusal("".join(chr(draw.choice((draw.randrange(128), draw.randrange(0x3000)))) for _ in range(draw.randint(1, 40))))


def refusal(code: str) -> BaseException | None:
    try:
        check_program(code, tools=TOOLS)
    except (SecurityError, ProgramError, LimitExceeded) as error:
        return error
    return None


def test_a_program_of_200_lines_takes_a_few_milliseconds() -> None:
    whole = [c for c in HARMLESS.values() if c.strip("# nothig\n") and len(c) < 1500 and not refusal(in_function(c))]
    program = ""
    while program.count("\n") < 200:
        program += in_function(whole.pop())
    took = []
    for _ in range(5):
        start = time.perf_counter()
        check_program(program, tools=TOOLS)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1  # some 10 ms on a quiet machine


def in_function(code: str) -> str:
    return "async def f():\n    " + code.strip().replace("\r\n", "\n").replace("\n", "\n    ") + "\n"


def test_warnings_of_a_program_are_not_the_hosts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_program("x = '\\d' if 1 is 1 else 2", tools={})
