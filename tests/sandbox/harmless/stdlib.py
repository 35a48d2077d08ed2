"""The harmless part of the standard library, as models use it."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "stdlib"

CASES = (
    Harmless(
        "dataclasses_order_and_replace",
        A,
        r"""
from dataclasses import dataclass, field, asdict, replace
from typing import List

@dataclass(order=True)
class Task:
    priority: int
    name: str = field(compare=False)
    tags: List[str] = field(default_factory=list, compare=False)

tasks = [Task(3, "write"), Task(1, "plan", ["urgent"]), Task(2, "test")]
tasks.sort()
tasks[0] = replace(tasks[0], name="PLAN")
[asdict(t) for t in tasks]
""",
        value=[
            {"priority": 1, "name": "PLAN", "tags": ["urgent"]},
            {"priority": 2, "name": "test", "tags": []},
            {"priority": 3, "name": "write", "tags": []},
        ],
    ),
    Harmless(
        "dataclass_frozen_post_init",
        A,
        r"""
from dataclasses import dataclass, FrozenInstanceError, fields, KW_ONLY

@dataclass(frozen=True, slots=True)
class Money:
    amount: float
    _: KW_ONLY
    currency: str = "USD"

    def __post_init__(self):
        object.__setattr__(self, "amount", round(self.amount, 2))

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + other.amount, currency=self.currency)

total = Money(10.004) + Money(2.499)
try:
    total.amount = 0
except FrozenInstanceError as e:
    print(f"frozen: {type(e).__name__}")
print([f.name for f in fields(Money)])
total.amount
""",
        value=12.5,
        prints="frozen: FrozenInstanceError\n['amount', 'currency']\n",
    ),
    Harmless(
        "re_named_groups_and_sub",
        A,
        r"""
import re

text = "Contact: alice@example.com, bob.smith@corp.co.uk; phone +1 (555) 010-9999"
pattern = re.compile(r"(?P<user>[\w.]+)@(?P<host>[\w.]+\w)", re.IGNORECASE)
emails = [m.groupdict() for m in pattern.finditer(text)]
masked = re.sub(r"\d(?=\d{2})", "*", re.sub(r"[^\d]", "", text))
parts = re.split(r"[,;]\s*", text)
{"emails": emails, "masked": masked, "parts": len(parts), "full": bool(re.fullmatch(r"\d{3}", "123"))}
""",
        value={
            "emails": [{"user": "alice", "host": "example.com"}, {"user": "bob.smith", "host": "corp.co.uk"}],
            "masked": "*********99",
            "parts": 3,
            "full": True,
        },
    ),
    Harmless(
        "re_compile_tokenizer",
        A,
        r"""
import re
from collections import namedtuple

Token = namedtuple("Token", ["kind", "text"])
SPEC = [("NUM", r"\d+(?:\.\d+)?"), ("OP", r"[-+*/()]"), ("WS", r"\s+")]
lexer = re.compile("|".join(f"(?P<{k}>{p})" for k, p in SPEC))

def tokenize(src):
    for m in lexer.finditer(src):
        if m.lastgroup != "WS":
            yield Token(m.lastgroup, m.group())

def expr(ts):
    value = term(ts)
    while ts and ts[0].text in "+-":
        op = ts.pop(0).text
        value = value + term(ts) if op == "+" else value - term(ts)
    return value

def term(ts):
    value = factor(ts)
    while ts and ts[0].text in "*/":
        op = ts.pop(0).text
        value = value * factor(ts) if op == "*" else value / factor(ts)
    return value

def factor(ts):
    tok = ts.pop(0)
    if tok.text == "(":
        value = expr(ts)
        ts.pop(0)
        return value
    if tok.text == "-":
        return -factor(ts)
    return float(tok.text)

expr(list(tokenize("2 * (3 + 4.5) - -6 / 3")))
""",
        value=17.0,
    ),
    Harmless(
        "datetime_timedelta_arithmetic",
        A,
        r"""
from datetime import datetime, timedelta, date

start = datetime(2024, 1, 31, 9, 30)
deadline = start + timedelta(days=30, hours=5, minutes=45)
delta = deadline - start
weekdays = [(date(2024, 2, 26) + timedelta(days=i)).strftime("%a") for i in range(7)]
parsed = datetime.strptime("15/03/2024 18:05", "%d/%m/%Y %H:%M")
output = {
    "deadline": deadline.isoformat(),
    "hours": delta.total_seconds() / 3600,
    "weekdays": weekdays,
    "parsed": parsed.strftime("%B %d, %Y"),
    "quarter": (parsed.month - 1) // 3 + 1,
    "iso_week": parsed.isocalendar()[1],
    "leap": (date(2024, 3, 1) - date(2024, 2, 28)).days,
}
""",
        value={
            "deadline": "2024-03-01T15:15:00",
            "hours": 725.75,
            "weekdays": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
            "parsed": "March 15, 2024",
            "quarter": 1,
            "iso_week": 11,
            "leap": 2,
        },
    ),
    Harmless(
        "datetime_module_preloaded",
        A,
        r"""
# `datetime` is there without an import
d = datetime.datetime(2024, 5, 17, 12, 0, tzinfo=datetime.timezone.utc)
later = d + datetime.timedelta(weeks=2)
print(later.date())
int(d.timestamp())
""",
        value=1715947200,
        prints="2024-05-31\n",
    ),
    Harmless(
        "datetime_timezones_fixed",
        A,
        r"""
from datetime import datetime, timezone, timedelta

tokyo = timezone(timedelta(hours=9), "JST")
meeting = datetime(2024, 7, 1, 22, 30, tzinfo=timezone.utc)
local = meeting.astimezone(tokyo)
back = datetime.fromisoformat("2024-07-02T07:30:00+09:00")
[local.isoformat(), local.tzname(), back == meeting, (back - meeting).total_seconds()]
""",
        value=["2024-07-02T07:30:00+09:00", "JST", True, 0.0],
    ),
    Harmless(
        "zoneinfo_new_york",
        A,
        r"""
from datetime import datetime
from zoneinfo import ZoneInfo

ny = ZoneInfo("America/New_York")
summer = datetime(2024, 7, 4, 12, 0, tzinfo=ny)
winter = datetime(2024, 12, 25, 12, 0, tzinfo=ny)
offsets = [d.utcoffset().total_seconds() / 3600 for d in (summer, winter)]
berlin = summer.astimezone(ZoneInfo("Europe/Berlin"))
{"offsets": offsets, "berlin": berlin.strftime("%H:%M %Z")}
""",
        value={"offsets": [-4.0, -5.0], "berlin": "18:00 CEST"},
    ),
    Harmless(
        "statistics_summary",
        A,
        r"""
import statistics

data = [12, 15, 11, 19, 22, 15, 30, 8]
output = {
    "mean": statistics.mean(data),
    "median": statistics.median(data),
    "mode": statistics.mode(data),
    "stdev": round(statistics.stdev(data), 4),
    "pstdev": round(statistics.pstdev(data), 4),
    "quartiles": statistics.quantiles(data, n=4),
    "fmean": statistics.fmean(data),
}
""",
        value={
            "mean": 16.5,
            "median": 15.0,
            "mode": 15,
            "stdev": 7.0305,
            "pstdev": 6.5765,
            "quartiles": [11.25, 15.0, 21.25],
            "fmean": 16.5,
        },
    ),
    Harmless(
        "itertools_tour",
        A,
        r"""
import itertools as it
from itertools import groupby, accumulate, chain, pairwise

words = sorted(["apple", "avocado", "banana", "blueberry", "cherry"], key=lambda w: w[0])
result = {
    "groups": {k: list(g) for k, g in groupby(words, key=lambda w: w[0])},
    "running": list(accumulate([3, 1, 4, 1, 5], max)),
    "pairs": list(pairwise("abcd")),
    "product": ["".join(p) for p in it.product("ab", repeat=2)],
    "combos": len(list(it.combinations(range(6), 3))),
    "perms": list(it.islice(it.permutations("xyz"), 2)),
    "flat": list(chain.from_iterable([[1], [2, 3]])),
    "zip": list(it.zip_longest([1, 2], "a", fillvalue="-")),
    "cycle": list(it.islice(it.cycle("AB"), 5)),
    "take": list(it.takewhile(lambda n: n < 10, it.count(7))),
    "star": list(it.starmap(pow, [(2, 3), (3, 2)])),
}
result
""",
        value={
            "groups": {"a": ["apple", "avocado"], "b": ["banana", "blueberry"], "c": ["cherry"]},
            "running": [3, 3, 4, 4, 5],
            "pairs": [["a", "b"], ["b", "c"], ["c", "d"]],
            "product": ["aa", "ab", "ba", "bb"],
            "combos": 20,
            "perms": [["x", "y", "z"], ["x", "z", "y"]],
            "flat": [1, 2, 3],
            "zip": [[1, "a"], [2, "-"]],
            "cycle": ["A", "B", "A", "B", "A"],
            "take": [7, 8, 9],
            "star": [8, 9],
        },
    ),
    Harmless(
        "functools_lru_cache_fibonacci",
        A,
        r"""
from functools import lru_cache

@lru_cache(maxsize=None)
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)

print(fib(90))
info = fib.cache_info()
(info.hits, info.misses)
""",
        value=[88, 91],
        prints="2880067194370816120\n",
    ),
    Harmless(
        "functools_reduce_partial_cached_property",
        A,
        r"""
import functools
from functools import cached_property, partial, reduce

class Dataset:
    loads = 0

    def __init__(self, rows):
        self.rows = rows

    @cached_property
    def total(self):
        Dataset.loads += 1
        return reduce(lambda a, b: a + b, self.rows, 0)

ds = Dataset([1, 2, 3, 4])
totals = [ds.total, ds.total]
parse_binary = partial(int, base=2)
ordered = sorted(["10", "9", "2"], key=functools.cmp_to_key(lambda a, b: int(a) - int(b)))
[totals, Dataset.loads, parse_binary("1011"), ordered]
""",
        value=[[10, 10], 1, 11, ["2", "9", "10"]],
    ),
    Harmless(
        "functools_singledispatch",
        A,
        r"""
from functools import singledispatch, singledispatchmethod, total_ordering, wraps

@singledispatch
def describe(value):
    return f"object {value!r}"

@describe.register
def _(value: int):
    return f"int {value}"

@describe.register(list)
def _(value):
    return "list of " + ", ".join(describe(v) for v in value)

class Formatter:
    @singledispatchmethod
    def fmt(self, arg):
        return str(arg)

    @fmt.register
    def _(self, arg: float):
        return f"{arg:.1f}"

@total_ordering
class Version:
    def __init__(self, s):
        self.parts = tuple(map(int, s.split(".")))
    def __eq__(self, other):
        return self.parts == other.parts
    def __lt__(self, other):
        return self.parts < other.parts

[describe([1, "a"]), Formatter().fmt(2.345), Version("1.10") >= Version("1.9")]
""",
        value=["list of int 1, object 'a'", "2.3", True],
    ),
    Harmless(
        "collections_tour",
        A,
        r"""
from collections import Counter, defaultdict, deque, OrderedDict, ChainMap, namedtuple

words = "the quick brown fox jumps over the lazy dog the end".split()
counts = Counter(words)
index = defaultdict(list)
for w in words:
    index[len(w)].append(w)
window = deque(maxlen=3)
for w in words:
    window.append(w)
lru = OrderedDict(a=1, b=2, c=3)
lru.move_to_end("a")
conf = ChainMap({"debug": True}, {"debug": False, "port": 80})
Point = namedtuple("Point", "x y", defaults=[0])
{
    "top": counts.most_common(1),
    "lengths": {str(k): len(v) for k, v in sorted(index.items())},
    "window": list(window),
    "lru": list(lru),
    "conf": dict(conf),
    "point": Point(5)._asdict(),
    "diff": sorted((Counter("aabbc") - Counter("abc")).elements()),
}
""",
        value={
            "top": [["the", 3]],
            "lengths": {"3": 6, "4": 2, "5": 3},
            "window": ["dog", "the", "end"],
            "lru": ["b", "c", "a"],
            "conf": {"debug": True, "port": 80},
            "point": {"x": 5, "y": 0},
            "diff": ["a", "b"],
        },
    ),
    Harmless(
        "decimal_money",
        A,
        r"""
from decimal import Decimal, ROUND_HALF_UP, getcontext, localcontext

prices = ["19.99", "5.01", "0.335"]
total = sum((Decimal(p) for p in prices), Decimal("0"))
rounded = total.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
with localcontext() as ctx:
    ctx.prec = 10
    third = Decimal(1) / Decimal(3)
print(rounded, third, getcontext().prec)
str(rounded)
""",
        value="25.34",
        prints="25.34 0.3333333333 28\n",
    ),
    Harmless(
        "fractions_egyptian",
        A,
        r"""
from fractions import Fraction
import math

def egyptian(f: Fraction) -> list[str]:
    parts = []
    while f > 0:
        n = math.ceil(1 / f)
        parts.append(f"1/{n}")
        f -= Fraction(1, n)
    return parts

mix = sum([Fraction(1, n) for n in (2, 3, 4)])
print(mix, mix.limit_denominator(10), float(mix))
egyptian(Fraction(5, 6)), egyptian(Fraction("0.7"))
""",
        value=[["1/2", "1/3"], ["1/2", "1/5"]],
        prints="13/12 11/10 1.0833333333333333\n",
    ),
    Harmless(
        "csv_from_and_to_strings",
        A,
        r'''
import csv
import io

raw = """name,team,amount
Alice,"R&D, Berlin",120.50
Bob,Sales,80
"Eve ""E."" Smith",Sales,99.99
"""
rows = list(csv.DictReader(io.StringIO(raw)))
for row in rows:
    row["amount"] = float(row["amount"])

buf = io.StringIO()
writer = csv.DictWriter(buf, fieldnames=["team", "total"], lineterminator="\n")
writer.writeheader()
totals = {}
for r in rows:
    totals[r["team"]] = totals.get(r["team"], 0) + r["amount"]
for team, total in sorted(totals.items()):
    writer.writerow({"team": team, "total": f"{total:.2f}"})
print(buf.getvalue(), end="")
rows[2]["name"]
''',
        value='Eve "E." Smith',
        prints='team,total\n"R&D, Berlin",120.50\nSales,179.99\n',
    ),
    Harmless(
        "csv_files_in_the_temp_folder",
        A,
        r"""
import csv

path = "/tmp/harmless_report.csv"
with open(path, "w", newline="", encoding="utf-8") as f:
    w = csv.writer(f)
    w.writerow(["id", "näme"])
    w.writerows([[1, "Zoë"], [2, "Łukasz"]])

with open(path, newline="", encoding="utf-8") as f:
    reader = csv.reader(f)
    header = next(reader)
    data = [dict(zip(header, row)) for row in reader]
data
""",
        value=[{"id": "1", "näme": "Zoë"}, {"id": "2", "näme": "Łukasz"}],
    ),
    Harmless(
        "open_relative_append_and_read_lines",
        A,
        r"""
import json

with open("events.jsonl", "w") as fh:
    for i in range(3):
        fh.write(json.dumps({"n": i, "ok": i % 2 == 0}) + "\n")
with open("events.jsonl", "a") as fh:
    fh.write(json.dumps({"n": 3, "ok": False}) + "\n")

with open("events.jsonl") as fh:
    events = [json.loads(line) for line in fh if line.strip()]

with open("blob.bin", "wb") as fh:
    fh.write(bytes(range(10)))
with open("blob.bin", "rb") as fh:
    fh.seek(4)
    tail = list(fh.read())
{"ok": sum(e["ok"] for e in events), "events": len(events), "tail": tail}
""",
        value={"ok": 2, "events": 4, "tail": [4, 5, 6, 7, 8, 9]},
    ),
    Harmless(
        "tempfile_round_trip",
        A,
        r"""
import tempfile

with tempfile.NamedTemporaryFile("w+", suffix=".txt") as tmp:
    tmp.write("line one\nline two\n")
    tmp.flush()
    tmp.seek(0)
    lines = tmp.read().splitlines()
lines
""",
        value=["line one", "line two"],
    ),
    Harmless(
        "json_dumps_options",
        A,
        r"""
import json
from datetime import date
from decimal import Decimal

class Encoder(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, (date, Decimal)):
            return str(o)
        return super().default(o)

doc = {"b": Decimal("1.10"), "a": date(2024, 1, 2), "ü": [None, True, 1e3]}
text = json.dumps(doc, cls=Encoder, indent=2, sort_keys=True, ensure_ascii=False)
print(text)
try:
    json.loads("{bad json}")
except json.JSONDecodeError as e:
    msg = f"{e.msg} at {e.lineno}:{e.colno}"
msg
""",
        value="Expecting property name enclosed in double quotes at 1:2",
        prints='{\n  "a": "2024-01-02",\n  "b": "1.10",\n  "ü": [\n    null,\n    true,\n    1000.0\n  ]\n}\n',
    ),
    Harmless(
        "io_bytes_and_text",
        A,
        r"""
import io

buffer = io.BytesIO()
buffer.write("héllo\nworld".encode("utf-8"))
buffer.seek(0)
reader = io.TextIOWrapper(buffer, encoding="utf-8")
first = reader.readline().strip()
out = io.StringIO()
print("captured", 42, sep="|", file=out)
[first, out.getvalue()]
""",
        value=["héllo", "captured|42\n"],
    ),
    Harmless(
        "textwrap_and_string_template",
        A,
        r'''
import string
import textwrap

body = """
    Dear $name,
    your balance is $$${amount}. Please pay by $due, otherwise we will have to close your account without further notice.
"""
text = string.Template(textwrap.dedent(body).strip()).safe_substitute(name="Ann", amount="12.00")
print(textwrap.fill(text, width=40))
print(textwrap.shorten(text, 30, placeholder="..."))
print(textwrap.indent("a\nb", "> "))
string.capwords("hello wide world") + string.digits[:3]
''',
        value="Hello Wide World012",
        prints=(
            "Dear Ann, your balance is $12.00. Please\npay by $due, otherwise we will have to\nclose your account without further\n"
            "notice.\nDear Ann, your balance is...\n> a\n> b\n"
        ),
    ),
    Harmless(
        "random_with_a_seed",
        A,
        r"""
import random

rng = random.Random(42)
rolls = [rng.randint(1, 6) for _ in range(10)]
random.seed(7)
first = [random.random() for _ in range(3)]
random.seed(7)
again = [random.random() for _ in range(3)]
deck = list(range(5))
rng.shuffle(deck)
{"rolls": rolls, "same": first == again, "deck": sorted(deck), "choice": rng.choice(["only"])}
""",
        value={"rolls": [6, 1, 1, 6, 3, 2, 2, 2, 6, 1], "same": True, "deck": [0, 1, 2, 3, 4], "choice": "only"},
    ),
    Harmless(
        "hashlib_base64_hmac_uuid",
        A,
        r"""
import base64
import binascii
import hashlib
import hmac
import uuid

payload = b"toolweaver"
sig = hmac.new(b"key", payload, hashlib.sha256).hexdigest()
{
    "md5": hashlib.md5(payload).hexdigest(),
    "sha256": hashlib.sha256(payload).hexdigest()[:12],
    "sig": sig[:8],
    "equal": hmac.compare_digest(sig, sig),
    "b64": base64.b64encode(payload).decode(),
    "back": base64.urlsafe_b64decode("dG9vbHdlYXZlcg==").decode(),
    "hex": binascii.hexlify(b"\x00\xff").decode(),
    "crc": binascii.crc32(payload),
    "uuid5": str(uuid.uuid5(uuid.NAMESPACE_DNS, "example.com")),
    "uuid4": len(str(uuid.uuid4())),
}
""",
        value={
            "md5": "3f4df0668276d860e1d54a5bd8eb4a8e",
            "sha256": "4e3681582bda",
            "sig": "090321a7",
            "equal": True,
            "b64": "dG9vbHdlYXZlcg==",
            "back": "toolweaver",
            "hex": "00ff",
            "crc": 3904723285,
            "uuid5": "cfbff0d1-9375-5685-968c-48ce8b15ae17",
            "uuid4": 36,
        },
    ),
    Harmless(
        "heapq_top_k_and_bisect",
        A,
        r"""
import bisect
import heapq

orders = [("a", 30), ("b", 75), ("c", 12), ("d", 99), ("e", 54)]
top = heapq.nlargest(2, orders, key=lambda o: o[1])
heap = []
for name, total in orders:
    heapq.heappush(heap, (total, name))
drained = [heapq.heappop(heap)[1] for _ in range(len(heap))]
merged = list(heapq.merge([1, 4, 9], [2, 3, 10]))

def grade(score, breakpoints=(60, 70, 80, 90), grades="FDCBA"):
    return grades[bisect.bisect(breakpoints, score)]

scores = [33, 99, 77, 70, 89, 90, 100]
sorted_list = []
for s in scores:
    bisect.insort(sorted_list, s)
[top, drained, merged, [grade(s) for s in scores], sorted_list]
""",
        value=[
            [["d", 99], ["b", 75]],
            ["c", "a", "e", "b", "d"],
            [1, 2, 3, 4, 9, 10],
            ["F", "A", "C", "C", "B", "A", "A"],
            [33, 70, 77, 89, 90, 99, 100],
        ],
    ),
    Harmless(
        "copy_deep_and_shallow",
        A,
        r"""
import copy

original = {"limits": [1, 2, 3], "name": "cfg"}
shallow = copy.copy(original)
deep = copy.deepcopy(original)
original["limits"].append(4)

class Node:
    def __init__(self, v): self.v, self.next = v, None
    def __deepcopy__(self, memo):
        n = Node(self.v * 10)
        memo[id(self)] = n
        return n

[len(shallow["limits"]), len(deep["limits"]), copy.deepcopy(Node(3)).v]
""",
        value=[4, 3, 30],
    ),
    Harmless(
        "operator_itemgetter_attrgetter",
        A,
        r"""
import operator
from operator import itemgetter, attrgetter, methodcaller
from types import SimpleNamespace

rows = [{"n": "b", "v": 2}, {"n": "a", "v": 2}, {"n": "c", "v": 1}]
by_two = sorted(rows, key=itemgetter("v", "n"))
people = [SimpleNamespace(name="Zed", age=30), SimpleNamespace(name="Amy", age=41)]
oldest = max(people, key=attrgetter("age")).name
ops = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
rpn = []
for tok in "3 4 + 2 * 7 /".split():
    if tok in ops:
        b, a = rpn.pop(), rpn.pop()
        rpn.append(ops[tok](a, b))
    else:
        rpn.append(float(tok))
["".join(r["n"] for r in by_two), oldest, rpn[0], list(map(methodcaller("upper"), "ab"))]
""",
        value=["cab", "Amy", 2.0, ["A", "B"]],
    ),
    Harmless(
        "enum_flags_and_auto",
        A,
        r"""
from enum import Enum, IntEnum, Flag, StrEnum, auto, unique

@unique
class Color(Enum):
    RED = "r"
    GREEN = "g"

    @classmethod
    def parse(cls, text: str) -> "Color":
        return cls[text.upper()]

class Perm(Flag):
    READ = auto()
    WRITE = auto()
    ADMIN = READ | WRITE

class Level(IntEnum):
    LOW = 1
    HIGH = 10

class State(StrEnum):
    OPEN = auto()
    CLOSED = auto()

[
    Color.parse("green").name, Color("r").value, [c.name for c in Color],
    bool(Perm.ADMIN & Perm.WRITE), Level.HIGH > Level.LOW, f"{State.OPEN}", State("closed") is State.CLOSED,
]
""",
        value=["GREEN", "r", ["RED", "GREEN"], True, True, "open", True],
    ),
    Harmless(
        "typing_generic_protocol_typeddict",
        A,
        r"""
from __future__ import annotations

from typing import (
    Any, Callable, ClassVar, Final, Generic, Iterable, Literal, NamedTuple, NewType, Optional, Protocol, TypeAlias, TypedDict,
    TypeVar, Union, cast, get_type_hints, overload, runtime_checkable,
)

T = TypeVar("T")
UserId = NewType("UserId", int)
Json: TypeAlias = Union[dict[str, Any], list[Any], str, int, float, bool, None]
MAX: Final[int] = 3

class Movie(TypedDict, total=False):
    title: str
    year: int

class Row(NamedTuple):
    name: str
    score: float = 0.0

@runtime_checkable
class Sized(Protocol):
    def size(self) -> int: ...

class Stack(Generic[T]):
    kind: ClassVar[str] = "stack"

    def __init__(self, items: Optional[Iterable[T]] = None) -> None:
        self._items: list[T] = list(items or [])

    def push(self, item: T) -> Stack[T]:
        self._items.append(item)
        return self

    def size(self) -> int:
        return len(self._items)

@overload
def double(x: int) -> int: ...
@overload
def double(x: str) -> str: ...
def double(x):
    return x * 2

def apply(fn: Callable[[T], T], value: T, mode: Literal["once", "twice"] = "once") -> T:
    return fn(fn(value)) if mode == "twice" else fn(value)

movie: Movie = {"title": "Alien", "year": 1979}
stack: Stack[int] = Stack[int]([1]).push(2).push(cast(int, UserId(3)))
[
    movie["year"], Row("x")._asdict(), isinstance(stack, Sized), stack.size() == MAX,
    apply(double, "ab", "twice"), sorted(get_type_hints(Movie)),
]
""",
        value=[1979, {"name": "x", "score": 0.0}, True, True, "abababab", ["title", "year"]],
    ),
    Harmless(
        "abc_template_method",
        A,
        r"""
from abc import ABC, abstractmethod
import math

class Shape(ABC):
    @property
    @abstractmethod
    def area(self) -> float: ...

    def describe(self) -> str:
        return f"{self.__class__.__name__}: {self.area:.2f}"

class Circle(Shape):
    def __init__(self, r): self.r = r
    @property
    def area(self): return math.pi * self.r ** 2

class Rect(Shape):
    def __init__(self, w, h): self.w, self.h = w, h
    @property
    def area(self): return self.w * self.h

try:
    Shape()
except TypeError as e:
    print("abstract:", "abstract" in str(e))
[s.describe() for s in (Circle(1), Rect(2, 3))]
""",
        value=["Circle: 3.14", "Rect: 6.00"],
        prints="abstract: True\n",
    ),
    Harmless(
        "contextlib_tour",
        A,
        r"""
import contextlib
import io
from contextlib import contextmanager, suppress, ExitStack, redirect_stdout, closing, nullcontext

log = []

@contextmanager
def step(name):
    log.append(f"+{name}")
    try:
        yield name.upper()
    except ValueError as e:
        log.append(f"!{e}")
    finally:
        log.append(f"-{name}")

with suppress(KeyError, IndexError):
    {}["missing"]

with ExitStack() as stack:
    names = [stack.enter_context(step(n)) for n in ("a", "b")]
    stack.callback(log.append, "callback")

with step("c"):
    raise ValueError("boom")

buf = io.StringIO()
with redirect_stdout(buf):
    print("hidden")
with nullcontext(5) as five:
    pass
[names, log, buf.getvalue(), five]
""",
        value=[["A", "B"], ["+a", "+b", "callback", "-b", "-a", "+c", "!boom", "-c"], "hidden\n", 5],
    ),
    Harmless(
        "logging_to_stdout",
        A,
        r"""
import logging
import sys

logger = logging.getLogger("report")
logger.setLevel(logging.INFO)
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
logger.addHandler(handler)
logger.propagate = False

logger.debug("not shown")
logger.info("processed %d rows", 10)
try:
    1 / 0
except ZeroDivisionError as exc:
    logger.error("failed: %s", exc)
logger.getEffectiveLevel() == logging.INFO
""",
        value=True,
        prints="INFO:report:processed 10 rows\nERROR:report:failed: division by zero\n",
    ),
    Harmless(
        "logging_basic_config_stderr",
        A,
        r"""
import logging

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger(__name__)
log.info("starting")
log.warning("careful: %s", {"a": 1})
log.name
""",
        value="__main__",
    ),
    Harmless(
        "pathlib_pure_paths",
        A,
        r"""
from pathlib import PurePath, PurePosixPath, PureWindowsPath

p = PurePosixPath("/data/reports/2024/q3.final.csv")
w = PureWindowsPath(r"C:\Users\ann\file.TXT")
[
    p.name, p.stem, p.suffix, p.suffixes, str(p.parent), p.parts[1], str(p.with_suffix(".json")), p.match("*.csv"),
    str(p.relative_to("/data")), w.drive, w.suffix.lower(), str(PurePosixPath("a") / "b" / "../c"), p.is_absolute(),
]
""",
        value=[
            "q3.final.csv",
            "q3.final",
            ".csv",
            [".final", ".csv"],
            "/data/reports/2024",
            "data",
            "/data/reports/2024/q3.final.json",
            True,
            "reports/2024/q3.final.csv",
            "C:",
            ".txt",
            "a/b/../c",
            True,
        ],
    ),
    Harmless(
        "time_and_calendar",
        A,
        r"""
import calendar
import time

t0 = time.perf_counter()
total = sum(i * i for i in range(1000))
elapsed = time.perf_counter() - t0
stamp = time.strftime("%Y-%m-%d", time.gmtime(86400 * 365))
time.sleep(0.001)
[
    total, elapsed >= 0, time.time() > 1_600_000_000, stamp, calendar.monthrange(2024, 2), calendar.isleap(1900),
    calendar.month_name[9], calendar.weekday(2024, 9, 1), time.monotonic() > 0, calendar.timegm((1970, 1, 2, 0, 0, 0)),
]
""",
        value=[332833500, True, True, "1971-01-01", [3, 29], False, "September", 6, True, 86400],
    ),
    Harmless(
        "unicodedata_slugify",
        A,
        r"""
import re
import unicodedata

def slugify(text: str) -> str:
    norm = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", norm).strip().lower())

[slugify("  Crème Brûlée -- Déjà Vu! "), unicodedata.name("é"), unicodedata.category("A"), "ß".casefold(), "İ".lower() != "i"]
""",
        value=["creme-brulee-deja-vu", "LATIN SMALL LETTER E WITH ACUTE", "Lu", "ss", True],
    ),
    Harmless(
        "difflib_fuzzy_matching",
        A,
        r"""
import difflib

catalog = ["iPhone 15 Pro", "Galaxy S24", "Pixel 8 Pro", "iPad Air"]
queries = ["iphone 15pro", "galxy s24", "pixl 8"]
lowered = {c.lower(): c for c in catalog}
matches = {
    q: [lowered[m] for m in difflib.get_close_matches(q.lower(), lowered, n=1, cutoff=0.5)] for q in queries
}
ratio = difflib.SequenceMatcher(None, "kitten", "sitting").ratio()
diff = [d for d in difflib.unified_diff(["a", "b"], ["a", "c"], lineterm="") if d[0] in "+-" and d[:3] not in ("+++", "---")]
{"matches": matches, "ratio": round(ratio, 4), "diff": diff}
""",
        value={
            "matches": {"iphone 15pro": ["iPhone 15 Pro"], "galxy s24": ["Galaxy S24"], "pixl 8": ["Pixel 8 Pro"]},
            "ratio": 0.6154,
            "diff": ["-b", "+c"],
        },
    ),
    Harmless(
        "pprint_nested",
        A,
        r"""
from pprint import pprint, pformat

data = {"users": [{"id": i, "roles": ["admin", "editor", "viewer"][:i]} for i in range(1, 4)], "count": 3}
pprint(data, width=60)
len(pformat(data, width=200).splitlines())
""",
        value=1,
        prints=(
            "{'count': 3,\n 'users': [{'id': 1, 'roles': ['admin']},\n           {'id': 2, 'roles': ['admin', 'editor']},\n"
            "           {'id': 3,\n            'roles': ['admin', 'editor', 'viewer']}]}\n"
        ),
    ),
    Harmless(
        "struct_and_array",
        A,
        r"""
import array
import struct

packet = struct.pack(">HIf4s", 7, 123456, 1.5, b"abcd")
kind, size, ratio, tag = struct.unpack(">HIf4s", packet)
values = array.array("d", [1.0, 2.5])
values.extend([3.5])
view = memoryview(bytearray(b"hello"))
view[0:1] = b"J"
[len(packet), kind, size, ratio, tag.decode(), sum(values), values.itemsize, bytes(view).decode(), struct.calcsize("<ii"),
 int.from_bytes(b"\x01\x00", "big"), (258).to_bytes(2, "little").hex()]
""",
        value=[14, 7, 123456, 1.5, "abcd", 7.0, 8, "Jello", 8, 256, "0201"],
    ),
    Harmless(
        "queue_threading_lock",
        A,
        r"""
import queue
import threading

work: "queue.Queue[int]" = queue.Queue()
results = []
lock = threading.Lock()

def worker():
    while True:
        try:
            n = work.get_nowait()
        except queue.Empty:
            return
        with lock:
            results.append(n * n)
        work.task_done()

for i in range(20):
    work.put(i)
threads = [threading.Thread(target=worker, daemon=True, name=f"w{i}") for i in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join(timeout=5)
sum(results), work.empty()
""",
        value=[2470, True],
    ),
    Harmless(
        "thread_pool_executor",
        A,
        r"""
from concurrent.futures import ThreadPoolExecutor, as_completed

def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))

with ThreadPoolExecutor(max_workers=4) as pool:
    flags = list(pool.map(is_prime, range(30)))
    futures = {pool.submit(pow, 2, n): n for n in range(5)}
    powers = {futures[f]: f.result() for f in as_completed(futures)}

[[i for i, f in enumerate(flags) if f], [powers[n] for n in sorted(powers)]]
""",
        value=[[2, 3, 5, 7, 11, 13, 17, 19, 23, 29], [1, 2, 4, 8, 16]],
    ),
    Harmless(
        "html_and_urllib_parse",
        A,
        r"""
import html
from html.parser import HTMLParser

class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs).get("href"))

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())

page = '<html><body><p>Hi <a href="/docs?x=1&amp;y=2">docs</a></p><a href="https://e.org">E</a></body></html>'
parser = Links()
parser.feed(page)
{"links": parser.links, "text": parser.text, "escaped": html.escape("<b>&</b>"), "un": html.unescape("&euro;5")}
""",
        value={
            "links": ["/docs?x=1&y=2", "https://e.org"],
            "text": ["Hi", "docs", "E"],
            "escaped": "&lt;b&gt;&amp;&lt;/b&gt;",
            "un": "€5",
        },
    ),
    Harmless(
        "urllib_parse_query_strings",
        A,
        r"""
from urllib.parse import urlparse, parse_qs, urlencode, quote

u = urlparse("https://shop.example.com:8443/search?q=red+lamp&page=2&tag=a&tag=b#top")
q = parse_qs(u.query)
{"host": u.hostname, "port": u.port, "tags": q["tag"], "again": urlencode({"q": "red lamp", "n": 1}), "quoted": quote("a b/ü")}
""",
        value={
            "host": "shop.example.com",
            "port": 8443,
            "tags": ["a", "b"],
            "again": "q=red+lamp&n=1",
            "quoted": "a%20b/%C3%BC",
        },
    ),
    Harmless(
        "xml_etree_from_string",
        A,
        r'''
import xml.etree.ElementTree as ET

doc = """<orders><order id="1"><total>10.5</total></order><order id="2"><total>4.5</total></order></orders>"""
root = ET.fromstring(doc)
totals = {o.get("id"): float(o.findtext("total")) for o in root.iter("order")}
ET.SubElement(root, "sum").text = str(sum(totals.values()))
ET.tostring(root.find("sum"), encoding="unicode")
''',
        value="<sum>15.0</sum>",
    ),
    Harmless(
        "configparser_from_string",
        A,
        r'''
import configparser

ini = """
[server]
host = localhost
port = 8080
debug = yes

[paths]
root = /srv
logs = %(root)s/logs
"""
cfg = configparser.ConfigParser()
cfg.read_string(ini)
[cfg.sections(), cfg.getint("server", "port"), cfg["server"].getboolean("debug"), cfg.get("paths", "logs"),
 cfg.get("x", "y", fallback="-")]
''',
        value=[["server", "paths"], 8080, True, "/srv/logs", "-"],
    ),
    Harmless(
        "sqlite_in_memory",
        A,
        r"""
import sqlite3

conn = sqlite3.connect(":memory:")
conn.execute("CREATE TABLE sales (region TEXT, amount REAL)")
conn.executemany("INSERT INTO sales VALUES (?, ?)", [("north", 10.0), ("south", 5.5), ("north", 2.5)])
rows = conn.execute("SELECT region, SUM(amount) FROM sales GROUP BY region ORDER BY region").fetchall()
conn.close()
rows
""",
        value=[["north", 12.5], ["south", 5.5]],
    ),
    Harmless(
        "zlib_gzip_zip_in_memory",
        A,
        r"""
import gzip
import io
import zipfile
import zlib

text = ("spam " * 200).encode()
packed = zlib.compress(text, 9)
buf = io.BytesIO()
with zipfile.ZipFile(buf, "w", zipfile.ZIP_DEFLATED) as zf:
    zf.writestr("a/readme.txt", "hello")
with zipfile.ZipFile(io.BytesIO(buf.getvalue())) as zf:
    names, content = zf.namelist(), zf.read("a/readme.txt").decode()
[len(packed) < len(text), zlib.decompress(packed) == text, gzip.decompress(gzip.compress(b"x")).decode(), names, content]
""",
        value=[True, True, "x", ["a/readme.txt"], "hello"],
    ),
    Harmless(
        "ast_literal_eval_and_inspect",
        A,
        r'''
import ast
import inspect

settings = ast.literal_eval("{'retries': 3, 'ratio': 0.5, 'names': ('a', 'b')}")

def connect(host, port=5432, *, ssl: bool = True):
    """Connects."""

sig = inspect.signature(connect)
[settings["retries"], settings["names"], [p.name for p in sig.parameters.values()], inspect.getdoc(connect),
 inspect.isfunction(connect)]
''',
        value=[3, ["a", "b"], ["host", "port", "ssl"], "Connects.", True],
    ),
    Harmless(
        "traceback_warnings_and_sys",
        A,
        r"""
import sys
import traceback
import warnings

def fail():
    raise RuntimeError("inner problem")

try:
    fail()
except RuntimeError:
    last = traceback.format_exc().strip().splitlines()[-1]

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.warn("old api", DeprecationWarning)

print("progress 50%", file=sys.stderr)
sys.stdout.write("done\n")
sys.stdout.flush()
[last, len(caught), sys.version_info >= (3, 10), sys.maxsize > 2**32, sys.getsizeof([]) > 0]
""",
        value=["RuntimeError: inner problem", 1, True, True, True],
    ),
    Harmless(
        "math_cmath_numbers",
        A,
        r"""
import cmath
import math
import numbers

[
    math.gcd(84, 36), math.lcm(4, 6), math.comb(5, 2), math.prod([1, 2, 3, 4]), math.isclose(0.1 + 0.2, 0.3), math.hypot(3, 4),
    round(math.log2(1024)), math.floor(-1.5), math.trunc(-1.5), round(abs(cmath.sqrt(-4)), 6), isinstance(3, numbers.Integral),
    math.factorial(20), divmod(-7, 3), round(2.5), math.inf > 10**400, math.isnan(float("nan")), math.dist((0, 0), (1, 1)) ** 2,
]
""",
        value=[
            12,
            12,
            10,
            24,
            True,
            5.0,
            10,
            -2,
            -1,
            2.0,
            True,
            2432902008176640000,
            [-3, 2],
            2,
            True,
            True,
            2.0000000000000004,
        ],
    ),
    Harmless(
        "shlex_argparse_getopt",
        A,
        r"""
import argparse
import shlex

parser = argparse.ArgumentParser(prog="tool", add_help=False)
parser.add_argument("name")
parser.add_argument("-n", "--count", type=int, default=1)
parser.add_argument("--verbose", action="store_true")
args = parser.parse_args(shlex.split("'big job' -n 3 --verbose"))
vars(args)
""",
        value={"name": "big job", "count": 3, "verbose": True},
    ),
    Harmless(
        "secrets_and_http_status",
        A,
        r"""
import secrets
import string
from http import HTTPStatus

alphabet = string.ascii_letters + string.digits
password = "".join(secrets.choice(alphabet) for _ in range(16))
[len(password), password.isalnum(), len(secrets.token_hex(8)), HTTPStatus.NOT_FOUND.phrase, HTTPStatus(200).name]
""",
        value=[16, True, 16, "Not Found", "OK"],
    ),
    Harmless(
        "weakref_types_graphlib",
        A,
        r"""
import graphlib
import types
import weakref

class Res:
    pass

r = Res()
ref = weakref.ref(r)
alive = ref() is r
cache = weakref.WeakValueDictionary(a=r)
del r
order = list(graphlib.TopologicalSorter({"deploy": {"test"}, "test": {"build"}, "build": set()}).static_order())
frozen = types.MappingProxyType({"a": 1})
[alive, ref() is None, len(cache), order, frozen["a"]]
""",
        value=[True, True, 0, ["build", "test", "deploy"], 1],
    ),
    Harmless(
        "pathlib_path_in_the_temp_folder",
        A,
        r"""
from pathlib import Path

folder = Path("/tmp") / "harmless_notes"
folder.mkdir(parents=True, exist_ok=True)
note = folder / "a.txt"
note.write_text("one\ntwo\n", encoding="utf-8")
lines = note.read_text(encoding="utf-8").splitlines()
exists, size = note.exists(), note.stat().st_size
note.unlink()
folder.rmdir()
[lines, exists, size, note.exists()]
""",
        value=[["one", "two"], True, 8, False],
    ),
    Harmless(
        "tomllib_ipaddress_mimetypes_colorsys",
        A,
        r"""
import codecs
import colorsys
import ipaddress
import mimetypes
import tomllib

cfg = tomllib.loads('title = "x"\n[server]\nports = [80, 443]\n')
net = ipaddress.ip_network("10.0.0.0/29")
[
    cfg["server"]["ports"], net.num_addresses, ipaddress.ip_address("10.0.0.3") in net, mimetypes.guess_type("a.csv")[0],
    [round(x, 2) for x in colorsys.rgb_to_hsv(1, 0, 0)], codecs.encode("Hello", "rot13"), codecs.BOM_UTF8.hex(),
]
""",
        value=[[80, 443], 8, True, "text/csv", [0.0, 1.0, 1.0], "Uryyb", "efbbbf"],
    ),
    Harmless(
        "email_message_and_quoting",
        A,
        r"""
from email.message import EmailMessage
from email.utils import formataddr

msg = EmailMessage()
msg["Subject"] = "Report"
msg["To"] = formataddr(("Ann", "ann@example.com"))
msg.set_content("Hello Ann")
[msg["To"], msg.get_content().strip(), msg.get_content_type()]
""",
        value=["Ann <ann@example.com>", "Hello Ann", "text/plain"],
    ),
    Harmless(
        "timeit_sched_gc_and_platform_free_timing",
        A,
        r"""
import gc
import sched
import time
import timeit

elapsed = timeit.timeit("sum(range(100))", number=50)
ran = []
s = sched.scheduler(time.monotonic, time.sleep)
now = time.monotonic()
s.enterabs(now + 0.002, 1, ran.append, argument=("late",))
s.enterabs(now + 0.001, 1, ran.append, argument=("early",))
s.run()
gc.collect()
[elapsed > 0, ran, gc.isenabled()]
""",
        value=[True, ["early", "late"], True],
    ),
    Harmless(
        "string_formatter_reprlib_and_contextlib_decorator",
        A,
        r"""
import reprlib
import string
from contextlib import ContextDecorator
from types import GeneratorType
from typing import Self, assert_never

class Fmt(string.Formatter):
    def get_value(self, key, args, kwargs):
        return kwargs.get(key, f"<{key}>") if isinstance(key, str) else super().get_value(key, args, kwargs)

class track(ContextDecorator):
    seen = []
    def __enter__(self) -> Self:
        self.seen.append("in")
        return self
    def __exit__(self, *exc):
        self.seen.append("out")
        return False

@track()
def work():
    track.seen.append("work")

work()
def kind(x: int | str) -> str:
    if isinstance(x, int):
        return "int"
    if isinstance(x, str):
        return "str"
    assert_never(x)
[Fmt().format("{a} {missing}", a=1), reprlib.repr(list(range(100))), track.seen, kind("s"),
 isinstance((i for i in ()), GeneratorType)]
""",
        value=["1 <missing>", "[0, 1, 2, 3, 4, 5, ...]", ["in", "work", "out"], "str", True],
    ),
)
