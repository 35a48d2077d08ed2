"""The language itself: classes, closures, generators, matching, formats."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "language"

CASES = (
    Harmless(
        "closures_and_nonlocal",
        A,
        r"""
def make_account(balance=0):
    history = []

    def deposit(amount):
        nonlocal balance
        balance += amount
        history.append(("deposit", amount))
        return balance

    def withdraw(amount):
        nonlocal balance
        if amount > balance:
            raise ValueError(f"insufficient funds: {balance} < {amount}")
        balance -= amount
        history.append(("withdraw", amount))
        return balance

    return deposit, withdraw, history

deposit, withdraw, history = make_account(100)
deposit(50)
withdraw(30)
try:
    withdraw(1000)
except ValueError as err:
    print(err)
adders = [lambda x, n=n: x + n for n in range(3)]
history, [f(10) for f in adders]
""",
        value=[[["deposit", 50], ["withdraw", 30]], [10, 11, 12]],
        prints="insufficient funds: 120 < 1000\n",
    ),
    Harmless(
        "global_counter",
        A,
        r"""
counter = 0
CACHE = {}

def bump(by=1):
    global counter
    counter += by
    CACHE[counter] = True

for _ in range(5):
    bump()
bump(by=10)
counter, sorted(CACHE)
""",
        value=[15, [1, 2, 3, 4, 5, 15]],
    ),
    Harmless(
        "decorators_with_arguments",
        A,
        r'''
import functools
import time

def timed(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = fn(*args, **kwargs)
        wrapper.elapsed = time.perf_counter() - start
        return result
    return wrapper

def repeat(times=2, *, sep=","):
    def decorator(fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            return sep.join(str(fn(*args, **kwargs)) for _ in range(times))
        return wrapper
    return decorator

class CountCalls:
    def __init__(self, fn):
        functools.update_wrapper(self, fn)
        self.fn, self.calls = fn, 0

    def __call__(self, *args):
        self.calls += 1
        return self.fn(*args)

@timed
@repeat(times=3, sep="-")
def greet(name: str) -> str:
    """Says hello."""
    return f"hi {name}"

@CountCalls
def square(x):
    return x * x

[greet("bo"), greet.__name__, greet.__doc__, greet.elapsed >= 0, [square(i) for i in range(4)], square.calls]
''',
        value=["hi bo-hi bo-hi bo", "greet", "Says hello.", True, [0, 1, 4, 9], 4],
    ),
    Harmless(
        "registry_metaclass_and_init_subclass",
        A,
        r"""
class Registry(type):
    plugins = {}

    def __new__(mcls, name, bases, ns, **kwargs):
        cls = super().__new__(mcls, name, bases, ns)
        if bases:
            mcls.plugins[kwargs.get("key", name.lower())] = cls
        return cls

    def __init__(cls, name, bases, ns, **kwargs):
        super().__init__(name, bases, ns)

class Plugin(metaclass=Registry):
    def run(self): return type(self).__name__

class Csv(Plugin, key="csv"): pass
class JsonPlugin(Plugin): pass

class Base:
    children = []
    def __init_subclass__(cls, /, tag=None, **kw):
        super().__init_subclass__(**kw)
        cls.tag = tag
        Base.children.append(cls.__name__)

class Child(Base, tag="c"): pass
Dynamic = type("Dynamic", (Base,), {"x": 1})
[sorted(Registry.plugins), Registry.plugins["csv"]().run(), Base.children, Child.tag, Dynamic.x, Child.__mro__[1].__name__]
""",
        value=[["csv", "jsonplugin"], "Csv", ["Child", "Dynamic"], "c", 1, "Base"],
    ),
    Harmless(
        "descriptors_and_properties",
        A,
        r"""
class Positive:
    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, obj, objtype=None):
        return self if obj is None else getattr(obj, self.name)

    def __set__(self, obj, value):
        if value <= 0:
            raise ValueError(f"{self.name[1:]} must be positive, got {value}")
        setattr(obj, self.name, value)

class Item:
    price = Positive()
    quantity = Positive()

    def __init__(self, price, quantity):
        self.price, self.quantity = price, quantity

    @property
    def total(self):
        return self.price * self.quantity

    @total.setter
    def total(self, value):
        self.price = value / self.quantity

item = Item(2.5, 4)
item.total = 20
errors = []
for bad in (0, -3):
    try:
        item.quantity = bad
    except ValueError as exc:
        errors.append(str(exc))
[item.price, item.total, errors]
""",
        value=[5.0, 20.0, ["quantity must be positive, got 0", "quantity must be positive, got -3"]],
    ),
    Harmless(
        "slots_and_attribute_access",
        A,
        r"""
class Point:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

class Config:
    def __init__(self, **values):
        for key, value in values.items():
            setattr(self, key, value)

    def __getattr__(self, name):
        return f"<no {name}>"

p = Point(1, 2)
try:
    p.z = 3
except AttributeError:
    slots = True
cfg = Config(host="h", port=1)
fields = {name: getattr(cfg, name) for name in ("host", "port", "missing")}
attr = "x"
[slots, getattr(p, attr), hasattr(p, "z"), fields, vars(cfg), sorted(k for k in dir(p) if not k.startswith("_")),
 cfg.__dict__["port"]]
""",
        value=[
            True,
            1,
            False,
            {"host": "h", "port": 1, "missing": "<no missing>"},
            {"host": "h", "port": 1},
            ["x", "y"],
            1,
        ],
    ),
    Harmless(
        "operator_overloading_vector",
        A,
        r"""
from __future__ import annotations
import math

class Vector:
    def __init__(self, *xs: float) -> None:
        self.xs = tuple(xs)

    def __repr__(self): return f"Vector{self.xs}"
    def __eq__(self, o): return isinstance(o, Vector) and self.xs == o.xs
    def __hash__(self): return hash(self.xs)
    def __add__(self, o: Vector) -> Vector: return Vector(*(a + b for a, b in zip(self.xs, o.xs)))
    def __mul__(self, k): return Vector(*(a * k for a in self.xs))
    __rmul__ = __mul__
    def __matmul__(self, o): return sum(a * b for a, b in zip(self.xs, o.xs))
    def __neg__(self): return self * -1
    def __abs__(self): return math.sqrt(self @ self)
    def __bool__(self): return any(self.xs)
    def __len__(self): return len(self.xs)
    def __getitem__(self, i): return self.xs[i]
    def __contains__(self, x): return x in self.xs
    def __iter__(self): return iter(self.xs)
    def __call__(self, f): return Vector(*map(f, self.xs))
    def __format__(self, spec): return "(" + ", ".join(format(x, spec or "g") for x in self.xs) + ")"

v, w = Vector(3, 4), Vector(1, 2)
x, y = v
print(repr(v + w), f"{2 * v:.1f}", v @ w, abs(v), -w)
[abs(v) == 5, len({v, Vector(3, 4)}), bool(Vector(0, 0)), 4 in v, v[-1], x + y, list(v(lambda n: n ** 2))]
""",
        value=[True, 1, False, True, 4, 7, [9, 16]],
        prints="Vector(4, 6) (6.0, 8.0) 11 5.0 Vector(-1, -2)\n",
    ),
    Harmless(
        "context_manager_class",
        A,
        r"""
class Transaction:
    def __init__(self, store):
        self.store = store

    def __enter__(self):
        self.backup = dict(self.store)
        return self.store

    def __exit__(self, exc_type, exc, tb):
        if exc_type is not None:
            self.store.clear()
            self.store.update(self.backup)
            print(f"rolled back: {exc_type.__name__}({exc})")
        return exc_type is KeyError

db = {"a": 1}
with Transaction(db) as t:
    t["b"] = 2
with Transaction(db) as t, Transaction({}) as other:
    t["c"] = 3
    raise KeyError("nope")
db
""",
        value={"a": 1, "b": 2, "c": 3},
        prints="rolled back: KeyError('nope')\n",
    ),
    Harmless(
        "generators_send_throw_yield_from",
        A,
        r"""
def averager():
    total, count, average = 0.0, 0, None
    while True:
        try:
            value = yield average
        except ValueError:
            total, count, average = 0.0, 0, None
            continue
        if value is None:
            return {"count": count, "average": average}
        total += value
        count += 1
        average = total / count

def delegate(results):
    while True:
        results.append((yield from averager()))

results = []
g = delegate(results)
next(g)
seen = [g.send(v) for v in (10, 20, 60)]
g.send(None)
g.send(5)
g.throw(ValueError)
seen.append(g.send(7))
g.close()

def flatten(items):
    for item in items:
        if isinstance(item, list):
            yield from flatten(item)
        else:
            yield item

seen, results, list(flatten([1, [2, [3, [4]], 5]]))
""",
        value=[[10.0, 15.0, 30.0, 7.0], [{"count": 3, "average": 30.0}], [1, 2, 3, 4, 5]],
    ),
    Harmless(
        "walrus_and_comprehensions",
        A,
        r"""
data = ["12", "x", "7", "", "30"]
numbers = [n for s in data if s.isdigit() and (n := int(s)) > 10]
pos = 0
chunks = []
text = "abcdefghij"
while chunk := text[pos:pos + 4]:
    chunks.append(chunk)
    pos += 4
if (total := sum(numbers)) > 40:
    label = f"big {total}"
matrix = [[r * 3 + c for c in range(3)] for r in range(2)]
transposed = [list(col) for col in zip(*matrix)]
squares = {n: n * n for n in range(4) if n % 2}
unique = {w.lower() for w in "A a B b c".split()}
lazy = sum(x for row in matrix for x in row if x % 2 == 0)
[numbers, chunks, label, transposed, {str(k): v for k, v in squares.items()}, sorted(unique), lazy]
""",
        value=[
            [12, 30],
            ["abcd", "efgh", "ij"],
            "big 42",
            [[0, 3], [1, 4], [2, 5]],
            {"1": 1, "3": 9},
            ["a", "b", "c"],
            6,
        ],
    ),
    Harmless(
        "match_statements",
        A,
        r"""
from dataclasses import dataclass
from enum import Enum

class Kind(Enum):
    CIRCLE = 1
    SQUARE = 2

@dataclass
class Shape:
    kind: Kind
    size: float

class Pair:
    __match_args__ = ("left", "right")
    def __init__(self, left, right): self.left, self.right = left, right

def handle(event):
    match event:
        case {"type": "click", "pos": [x, y], **rest}:
            return f"click {x},{y} {sorted(rest)}"
        case {"type": "key", "key": ("q" | "Q") as key}:
            return f"quit {key}"
        case [first, *others] if len(others) >= 2:
            return f"list {first} +{len(others)}"
        case Shape(kind=Kind.CIRCLE, size=s):
            return f"circle {s}"
        case Shape(size=s):
            return f"other {s}"
        case Pair(0, right):
            return f"pair 0 {right}"
        case str() | bytes():
            return "text"
        case int(n) | float(n) if n < 0:
            return "negative"
        case None | True | False:
            return "constant"
        case _:
            return "unknown"

events = [
    {"type": "click", "pos": [1, 2], "button": "left"}, {"type": "key", "key": "Q"}, [1, 2, 3], Shape(Kind.CIRCLE, 2.5),
    Shape(Kind.SQUARE, 3), Pair(0, "r"), "hello", -4, None, 17, [],
]
match = [handle(e) for e in events]  # soft keywords are names too
case = len(match)
match, case
""",
        value=[
            [
                "click 1,2 ['button']",
                "quit Q",
                "list 1 +2",
                "circle 2.5",
                "other 3",
                "pair 0 r",
                "text",
                "negative",
                "constant",
                "unknown",
                "unknown",
            ],
            11,
        ],
    ),
    Harmless(
        "f_strings_with_formats",
        A,
        r"""
from datetime import date

name, amount, ratio, n = "Ann", 1234567.891, 0.12345, 255
width, prec = 12, 1
print(f"{name:>10}|{name:<6}|{name:^7}|{name!r:*^9}")
print(f"{amount:,.2f} {amount:.3e} {amount:_.0f} {ratio:.1%} {n:#x} {n:08b} {n:+d}")
print(f"{amount:{width}.{prec}f} {date(2024, 3, 9):%d %b %Y} {n=} {name.lower()=}")
print(f"{'nested ' + f'{n:o}'} {{braces}} {[x for x in range(3)]} {'yes' if n else 'no'}")
print("%s has %5.1f%% of %d" % (name, ratio * 100, n), "{0}-{1:>4}-{key}".format(1, 2, key="k"), "{:,}".format(10**6))
"${:,.2f}".format(amount)
""",
        value="$1,234,567.89",
        prints=(
            "       Ann|Ann   |  Ann  |**'Ann'**\n1,234,567.89 1.235e+06 1_234_568 12.3% 0xff 11111111 +255\n"
            "   1234567.9 09 Mar 2024 n=255 name.lower()='ann'\nnested 377 {braces} [0, 1, 2] yes\n"
            "Ann has  12.3% of 255 1-   2-k 1,000,000\n"
        ),
    ),
    Harmless(
        "star_unpacking",
        A,
        r"""
first, *middle, last = range(6)
(a, b), *rest = [(1, 2), 3, 4]
merged = {**{"x": 1, "y": 2}, "y": 3, **dict(z=4)}

def f(a, /, b, *args, c=10, **kwargs):
    return [a, b, args, c, kwargs]

def only_kw(*, sep, end="!"):
    return sep + end

args, kw = [1, 2, 3], {"c": 4, "d": 5}
combined = [*args, *"xy", *{9}]
x, y = 1, 2
x, y = y, x
head, *_ = "hello"
[middle, last, rest, merged, f(*args, **kw), f(1, b=2), only_kw(sep=";"), combined, (x, y), head]
""",
        value=[
            [1, 2, 3, 4],
            5,
            [3, 4],
            {"x": 1, "y": 3, "z": 4},
            [1, 2, [3], 4, {"d": 5}],
            [1, 2, [], 10, {}],
            ";!",
            [1, 2, 3, "x", "y", 9],
            [2, 1],
            "h",
        ],
    ),
    Harmless(
        "sorting_with_keys",
        A,
        r"""
people = [("Bob", 30, 1.5), ("alice", 25, 2.0), ("Carl", 30, 1.0), ("dave", 25, 2.0)]
by_age_then_name = sorted(people, key=lambda p: (-p[1], p[0].lower()))
order = {"high": 0, "medium": 1, "low": 2}
tasks = ["low", "high", "medium", "high"]
tasks.sort(key=order.__getitem__)
versions = sorted(["1.10.0", "1.9.3", "1.2"], key=lambda v: [int(x) for x in v.split(".")], reverse=True)
natural = sorted(["f10", "f2", "f1"], key=lambda s: (s[0], int(s[1:])))
ranked = {n: i for i, (n, *_r) in enumerate(sorted(people, key=lambda p: p[2]), start=1)}
[[p[0] for p in by_age_then_name], tasks, versions, natural, ranked, max(people, key=lambda p: p[2])[0],
 sorted("bca", reverse=True)]
""",
        value=[
            ["Bob", "Carl", "alice", "dave"],
            ["high", "high", "medium", "low"],
            ["1.10.0", "1.9.3", "1.2"],
            ["f1", "f2", "f10"],
            {"Carl": 1, "Bob": 2, "alice": 3, "dave": 4},
            "alice",
            ["c", "b", "a"],
        ],
    ),
    Harmless(
        "recursion_permutations_hanoi_queens",
        A,
        r"""
import sys
sys.setrecursionlimit(5000)

def permutations(items):
    if len(items) <= 1:
        return [items]
    return [[x] + p for i, x in enumerate(items) for p in permutations(items[:i] + items[i + 1:])]

def hanoi(n, a="A", b="B", c="C"):
    return 0 if n == 0 else hanoi(n - 1, a, c, b) + 1 + hanoi(n - 1, c, b, a)

def queens(n, row=0, cols=frozenset(), d1=frozenset(), d2=frozenset()):
    if row == n:
        return 1
    return sum(
        queens(n, row + 1, cols | {c}, d1 | {row + c}, d2 | {row - c})
        for c in range(n) if c not in cols and row + c not in d1 and row - c not in d2
    )

def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)

len(permutations([1, 2, 3, 4])), hanoi(8), queens(6), depth(2000)
""",
        value=[24, 255, 4, 2000],
    ),
    Harmless(
        "exceptions_chaining_else_finally",
        A,
        r"""
class AppError(Exception):
    def __init__(self, message, *, code=500):
        super().__init__(message)
        self.code = code

class NotFoundError(AppError):
    pass

def load(key, store):
    try:
        value = store[key]
    except KeyError as exc:
        raise NotFoundError(f"no {key}", code=404) from exc
    else:
        return value
    finally:
        trail.append(key)

trail, seen = [], []
for key in ("a", "zz"):
    try:
        seen.append(load(key, {"a": 1}))
    except AppError as e:
        seen.append([str(e), e.code, type(e.__cause__).__name__, isinstance(e, NotFoundError)])
        e.add_note("while loading")
        seen.append(e.__notes__)

def risky():
    try:
        return "try"
    finally:
        trail.append("finally")

try:
    assert 1 + 1 == 3, "math is broken"
except AssertionError as e:
    seen.append(e.args[0])
seen, risky(), trail
""",
        value=[
            [1, ["no zz", 404, "KeyError", True], ["while loading"], "math is broken"],
            "try",
            ["a", "zz", "finally"],
        ],
    ),
    Harmless(
        "exception_groups_except_star",
        A,
        r"""
def validate(rows):
    problems = []
    for i, row in enumerate(rows):
        try:
            if row < 0:
                raise ValueError(f"row {i}: negative")
            10 / row
        except (ValueError, ZeroDivisionError) as e:
            problems.append(e)
    if problems:
        raise ExceptionGroup("validation", problems)

caught = {}
try:
    validate([5, -1, 0, -2])
except* ValueError as group:
    caught["value"] = [str(e) for e in group.exceptions]
except* ZeroDivisionError as group:
    caught["zero"] = len(group.exceptions)
caught
""",
        value={"value": ["row 1: negative", "row 3: negative"], "zero": 1},
    ),
    Harmless(
        "iterators_and_sequences_of_our_own",
        A,
        r"""
from collections.abc import Iterator, Mapping, MutableSequence

class Countdown:
    def __init__(self, start): self.start = start
    def __iter__(self): return CountdownIterator(self.start)
    def __reversed__(self): return iter(range(1, self.start + 1))
    def __len__(self): return self.start

class CountdownIterator(Iterator):
    def __init__(self, n): self.n = n
    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n + 1

class CaseInsensitive(Mapping):
    def __init__(self, data): self._d = {k.lower(): v for k, v in data.items()}
    def __getitem__(self, k): return self._d[k.lower()]
    def __iter__(self): return iter(self._d)
    def __len__(self): return len(self._d)

class Default(dict):
    def __missing__(self, key):
        self[key] = value = key.upper()
        return value

h = CaseInsensitive({"Content-Type": "json"})
d = Default()
lines = iter(["a", "b", "END", "c"])
[list(Countdown(3)), list(reversed(Countdown(3))), h["CONTENT-TYPE"], "x" in h, h.get("x", 0), d["k"], dict(d),
 list(iter(lambda: next(lines), "END")), len(Countdown(4))]
""",
        value=[[3, 2, 1], [1, 2, 3], "json", False, 0, "K", {"k": "K"}, ["a", "b"], 4],
    ),
    Harmless(
        "inheritance_mixins_super",
        A,
        r"""
import json

class JsonMixin:
    def to_json(self):
        return json.dumps(self.__dict__, sort_keys=True)

class Comparable:
    def key(self): raise NotImplementedError
    def __lt__(self, other): return self.key() < other.key()

class Animal:
    population = 0
    def __init__(self, name, **kwargs):
        super().__init__(**kwargs)
        self.name = name
        type(self).population += 1

    @classmethod
    def create(cls, *names): return [cls(n) for n in names]

    @staticmethod
    def kingdom(): return "animalia"

class Dog(JsonMixin, Comparable, Animal):
    def __init__(self, name, tricks=()):
        super().__init__(name)
        self.tricks = list(tricks)
    def key(self): return self.name
    def __str__(self): return f"Dog({self.name})"

dogs = Dog.create("Rex", "Ace")
[str(min(dogs)), dogs[0].to_json(), Dog.population, Animal.population, Dog.kingdom(), [c.__name__ for c in Dog.__mro__],
 issubclass(Dog, Animal), dogs[0].__class__.__name__, Dog.create.__func__.__name__]
""",
        value=[
            "Dog(Ace)",
            '{"name": "Rex", "tricks": []}',
            2,
            0,
            "animalia",
            ["Dog", "JsonMixin", "Comparable", "Animal", "object"],
            True,
            "Dog",
            "create",
        ],
    ),
    Harmless(
        "matrix_code_in_pure_python",
        A,
        r"""
def matmul(a, b):
    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]

def identity(n):
    return [[1 if i == j else 0 for j in range(n)] for i in range(n)]

def power(m, k):
    result = identity(len(m))
    while k:
        if k & 1:
            result = matmul(result, m)
        m = matmul(m, m)
        k >>= 1
    return result

def det(m):
    if len(m) == 1:
        return m[0][0]
    return sum((-1) ** j * m[0][j] * det([r[:j] + r[j + 1:] for r in m[1:]]) for j in range(len(m)))

def solve(a, b):
    n = len(a)
    m = [list(map(float, row)) + [float(v)] for row, v in zip(a, b)]
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(m[r][i]))
        m[i], m[p] = m[p], m[i]
        for r in range(n):
            if r != i:
                k = m[r][i] / m[i][i]
                m[r] = [x - k * y for x, y in zip(m[r], m[i])]
    return [round(m[i][n] / m[i][i], 6) for i in range(n)]

spiral = lambda m: m and [*m[0], *spiral([list(r) for r in zip(*m[1:])][::-1])]
[power([[1, 1], [1, 0]], 30)[0][1], det([[2, 0, 1], [1, 3, 2], [1, 1, 4]]), solve([[2, 1], [1, 3]], [3, 5]),
 spiral([[1, 2, 3], [4, 5, 6], [7, 8, 9]])]
""",
        value=[832040, 18, [0.8, 1.4], [1, 2, 3, 6, 9, 8, 7, 4, 5]],
    ),
    Harmless(
        "builtins_tour",
        A,
        r"""
nums = [3, -1, 4, 1, -5]
print(*sorted(nums, key=abs), sep=" < ", end=" done\n")
[
    all(n < 10 for n in nums), any(n > 3 for n in nums), abs(min(nums)), list(enumerate("ab", 1)), dict(zip("ab", (1, 2))),
    list(map(str, filter(lambda n: n > 0, nums))), round(3.14159, 2), bin(10), hex(255), oct(8), chr(9731), ord("a"),
    list(reversed(nums)), sum(nums, 100), pow(3, 4, 5), slice(1, 3).indices(5), callable(print), isinstance(True, int),
    bytes([65, 66]).decode(), format(0.5, ".0%"), id(nums) == id(nums), hash(1) == 1, type(3.0).__name__, repr("q"), ascii("é"),
    int("ff", 16), float("1e-3"), complex(1, 2).imag, bool([]), str(None), frozenset([1, 1]) == {1}, next(iter([]), "none"),
    bytearray(b"xy")[0], "%.2f" % 2.5, ..., NotImplemented is None,
][:-2]
""",
        value=[
            True,
            True,
            5,
            [[1, "a"], [2, "b"]],
            {"a": 1, "b": 2},
            ["3", "4", "1"],
            3.14,
            "0b1010",
            "0xff",
            "0o10",
            "☃",
            97,
            [-5, 1, 4, -1, 3],
            102,
            1,
            [1, 3, 1],
            True,
            True,
            "AB",
            "50%",
            True,
            True,
            "float",
            "'q'",
            "'\\xe9'",
            255,
            0.001,
            2.0,
            False,
            "None",
            True,
            "none",
            120,
            "2.50",
        ],
        prints="-1 < 1 < 3 < 4 < -5 done\n",
    ),
    Harmless(
        "loops_else_break_del_is",
        A,
        r"""
def primes(limit):
    found = []
    for n in range(2, limit):
        for d in found:
            if d * d > n:
                found.append(n)
                break
            if n % d == 0:
                break
        else:
            found.append(n)
    return found

i, steps = 27, 0
while i != 1:
    i = 3 * i + 1 if i % 2 else i // 2
    steps += 1
else:
    finished = True

data = {"a": 1, "b": 2, "c": 3}
del data["b"]
items = [0, 1, 2, 3, 4, 5]
del items[1:3]
items[1:1] = [7, 8]
a = b = []
b += [1]
for skip in range(3):
    if skip == 1:
        continue
    pass
primes(40), steps, finished, data, items[::-1], a is b, a is not None, 0 < len(items) <= 6, not data.get("z")
""",
        value=[
            [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37],
            111,
            True,
            {"a": 1, "c": 3},
            [5, 4, 3, 8, 7, 0],
            True,
            True,
            True,
            True,
        ],
    ),
    Harmless(
        "string_methods",
        A,
        r"""
s = "  Hello, World! hello again  "
t = s.strip()
table = str.maketrans({"l": "1", "o": "0", "!": None})
caesar = lambda text, k: "".join(
    chr((ord(c) - b + k) % 26 + b) if c.isalpha() and (b := 97 if c.islower() else 65) else c for c in text
)
[
    t.lower().count("hello"), t.partition(", ")[2], t.translate(table), t.replace("hello", "bye").title(), t.find("zzz"),
    "a,b,,c".split(","), "x=1".removeprefix("x="), "-".join("abc"), "tab\tsep".expandtabs(4), "42".zfill(5), "É".casefold(),
    "racecar" == "racecar"[::-1], t.swapcase()[:5], "one two".split(maxsplit=1), "a\nb\r\nc".splitlines(), "abc".center(9, "*"),
    caesar("Hello, World!", 3), caesar(caesar("abc", 5), -5), "ab" * 2, "b" in "abc", "snake_case_name".split("_"),
    "".join(w.capitalize() for w in "snake_case".split("_")), "%05.1f" % 3.14159, "a".isidentifier(), "Ω".encode("utf-8").hex(),
]
""",
        value=[
            2,
            "World! hello again",
            "He110, W0r1d he110 again",
            "Hello, World! Bye Again",
            -1,
            ["a", "b", "", "c"],
            "1",
            "a-b-c",
            "tab sep",
            "00042",
            "é",
            True,
            "hELLO",
            ["one", "two"],
            ["a", "b", "c"],
            "***abc***",
            "Khoor, Zruog!",
            "abc",
            "abab",
            True,
            ["snake", "case", "name"],
            "SnakeCase",
            "003.1",
            True,
            "cea9",
        ],
    ),
    Harmless(
        "linked_structures_and_algorithms",
        A,
        r"""
from __future__ import annotations
from collections import deque
from dataclasses import dataclass
from typing import Optional
import heapq

@dataclass
class Node:
    key: int
    left: Optional[Node] = None
    right: Optional[Node] = None

def insert(root, key):
    if root is None:
        return Node(key)
    if key < root.key:
        root.left = insert(root.left, key)
    else:
        root.right = insert(root.right, key)
    return root

def inorder(node):
    if node:
        yield from inorder(node.left)
        yield node.key
        yield from inorder(node.right)

def bfs(grid, start, goal):
    queue, seen = deque([(start, 0)]), {start}
    while queue:
        (r, c), d = queue.popleft()
        if (r, c) == goal:
            return d
        for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            p = (r + dr, c + dc)
            if 0 <= p[0] < len(grid) and 0 <= p[1] < len(grid[0]) and grid[p[0]][p[1]] != "#" and p not in seen:
                seen.add(p)
                queue.append((p, d + 1))
    return -1

def dijkstra(graph, src):
    dist, heap = {src: 0}, [(0, src)]
    while heap:
        d, u = heapq.heappop(heap)
        if d > dist[u]:
            continue
        for v, w in graph[u].items():
            if (nd := d + w) < dist.get(v, float("inf")):
                dist[v] = nd
                heapq.heappush(heap, (nd, v))
    return dist

def lcs(a, b):
    dp = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            dp[i + 1][j + 1] = dp[i][j] + 1 if x == y else max(dp[i][j + 1], dp[i + 1][j])
    return dp[-1][-1]

root = None
for k in [5, 2, 8, 1, 9, 3]:
    root = insert(root, k)
grid = ["..#.", ".#..", "...."]
output = {
    "sorted": list(inorder(root)),
    "bfs": bfs(grid, (0, 0), (0, 3)),
    "dijkstra": dijkstra({"a": {"b": 4, "c": 1}, "b": {}, "c": {"b": 2}}, "a"),
    "lcs": lcs("AGGTAB", "GXTXAYB"),
}
""",
        value={"sorted": [1, 2, 3, 5, 8, 9], "bfs": 7, "dijkstra": {"a": 0, "b": 3, "c": 1}, "lcs": 4},
    ),
    Harmless(
        "words_that_only_look_dangerous",
        A,
        r'''
# import os; os.system("rm -rf /")   <- a comment, nothing more
import re

class Query:
    """Runs eval, exec, compile and open as methods of its own."""
    def eval(self, x): return x + 1
    def exec(self, x): return x * 2
    def compile(self): return "compiled"
    def open(self): return self
    def system(self): return "sys"

q = Query()
os_name = "linux"
subprocess_count = 3
socket = {"import": "os", "__import__": 1, "exec": [1]}
text = "To fix it, call os.system('ls') or eval(code); see subprocess and ctypes."
imported = [w for w in ("os", "pickle", "socket") if w in text]
[q.eval(1), q.exec(2), q.compile(), q.open().system(), os_name, subprocess_count, socket["exec"], imported,
 re.compile("eval").findall(text)]
''',
        value=[2, 4, "compiled", "sys", "linux", 3, [1], ["os"], ["eval"]],
    ),
    Harmless(
        "introspection_of_own_objects",
        A,
        r'''
class Base:
    x: int = 1
    y: str = "b"

    def greet(self, who="you"):
        """Greets."""
        return f"hi {who}"

class Sub(Base):
    pass

obj = Sub()
for name, value in {"x": 5, "extra": [1]}.items():
    setattr(obj, name, value)
method = getattr(obj, "greet")
commands = {n: getattr(obj, n) for n in dir(obj) if not n.startswith("_") and callable(getattr(obj, n))}
delattr(obj, "extra")
[
    obj.__dict__, method("me"), sorted(commands), getattr(obj, "nope", "default"), hasattr(obj, "extra"),
    Base.__annotations__["x"] is int,
    obj.greet.__doc__, type(obj).__name__, isinstance(obj, (str, Base)), [c.__name__ for c in Base.__subclasses__()],
    Sub.__bases__[0].__name__, Base.greet.__defaults__, obj.__module__, method.__self__ is obj, Base.greet.__code__.co_argcount,
]
''',
        value=[
            {"x": 5},
            "hi me",
            ["greet"],
            "default",
            False,
            True,
            "Greets.",
            "Sub",
            True,
            ["Sub"],
            "Base",
            ["you"],
            "__main__",
            True,
            2,
        ],
    ),
    Harmless(
        "globals_locals_in_a_template",
        A,
        r"""
title, total = "Report", 3

def render(template):
    kind = "short"
    return template.format(**globals(), **locals())

line = render("{title}: {total} ({kind})")
"total" in globals(), line
""",
        value=[True, "Report: 3 (short)"],
    ),
    Harmless(
        "lambdas_and_higher_order",
        A,
        r"""
from functools import reduce
compose = lambda *fns: reduce(lambda f, g: lambda x: g(f(x)), fns)
pipeline = compose(str.strip, str.lower, lambda s: s.replace(" ", "_"), lambda s: s[:8])
curry = lambda f: lambda a: lambda b: f(a, b)
Y = lambda f: (lambda x: x(x))(lambda y: f(lambda v: y(y)(v)))
fact = Y(lambda self: lambda n: 1 if n == 0 else n * self(n - 1))
dispatch = {"sum": sum, "max": max, "span": lambda xs: max(xs) - min(xs)}
[pipeline("  Hello Big World "), curry(pow)(2)(5), fact(6), {k: f([3, 9, 4]) for k, f in dispatch.items()}]
""",
        value=["hello_bi", 32, 720, {"sum": 16, "max": 9, "span": 6}],
    ),
)
