"""Data work: group, pivot, rank, parse, format."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "data"

SALES = [
    {"region": "north", "product": "lamp", "month": "2024-01", "amount": 120.0},
    {"region": "south", "product": "chair", "month": "2024-01", "amount": 80.5},
    {"region": "north", "product": "chair", "month": "2024-02", "amount": 200.0},
    {"region": "west", "product": "lamp", "month": "2024-02", "amount": 50.0},
    {"region": "south", "product": "lamp", "month": "2024-02", "amount": 99.5},
    {"region": "north", "product": "lamp", "month": "2024-02", "amount": 30.0},
]

CASES = (
    Harmless(
        "output_from_input",
        A,
        "output = {'total': sum(input['values'])}",
        value={"total": 60},
        input_data={"values": [10, 20, 30]},
    ),
    Harmless(
        "output_from_input_data",
        A,
        r"""
rows = input_data["rows"]
output = [{"name": r["name"].title(), "total": round(r["qty"] * r["price"], 2)} for r in rows if r.get("qty")]
""",
        value=[{"name": "Pen", "total": 3.75}],
        input_data={"rows": [{"name": "pen", "qty": 3, "price": 1.25}, {"name": "cap", "qty": 0, "price": 9}]},
    ),
    Harmless(
        "group_by_and_aggregate",
        A,
        r"""
from collections import defaultdict

groups = defaultdict(lambda: {"count": 0, "total": 0.0, "max": float("-inf")})
for sale in input_data:
    g = groups[sale["region"]]
    g["count"] += 1
    g["total"] += sale["amount"]
    g["max"] = max(g["max"], sale["amount"])

output = {region: {**g, "avg": round(g["total"] / g["count"], 2)} for region, g in sorted(groups.items())}
""",
        value={
            "north": {"count": 3, "total": 350.0, "max": 200.0, "avg": 116.67},
            "south": {"count": 2, "total": 180.0, "max": 99.5, "avg": 90.0},
            "west": {"count": 1, "total": 50.0, "max": 50.0, "avg": 50.0},
        },
        input_data=SALES,
    ),
    Harmless(
        "pivot_table_as_text",
        A,
        r"""
sales = input
months = sorted({s["month"] for s in sales})
regions = sorted({s["region"] for s in sales})
pivot = {r: {m: 0.0 for m in months} for r in regions}
for s in sales:
    pivot[s["region"]][s["month"]] += s["amount"]

header = f"{'region':<8}" + "".join(f"{m:>10}" for m in months) + f"{'total':>10}"
print(header)
print("-" * len(header))
for r in regions:
    print(f"{r:<8}" + "".join(f"{pivot[r][m]:>10.2f}" for m in months) + f"{sum(pivot[r].values()):>10.2f}")
""",
        prints=(
            "region     2024-01   2024-02     total\n--------------------------------------\n"
            "north       120.00    230.00    350.00\nsouth        80.50     99.50    180.00\n"
            "west          0.00     50.00     50.00\n"
        ),
        input_data=SALES,
    ),
    Harmless(
        "running_totals_and_moving_average",
        A,
        r"""
from itertools import accumulate
from collections import deque

values = input_data["series"]
running = list(accumulate(values))

def moving_average(xs, k):
    window, total, out = deque(), 0, []
    for x in xs:
        window.append(x)
        total += x
        if len(window) > k:
            total -= window.popleft()
        out.append(round(total / len(window), 2))
    return out

changes = [None] + [round((b - a) / a * 100, 1) for a, b in zip(values, values[1:])]
{"running": running, "ma3": moving_average(values, 3), "pct": changes}
""",
        value={
            "running": [10, 30, 45, 85, 135],
            "ma3": [10.0, 15.0, 15.0, 25.0, 35.0],
            "pct": [None, 100.0, -25.0, 166.7, 25.0],
        },
        input_data={"series": [10, 20, 15, 40, 50]},
    ),
    Harmless(
        "percentiles_and_outliers",
        A,
        r"""
import math
from statistics import mean, stdev

def percentile(data, p):
    xs = sorted(data)
    k = (len(xs) - 1) * p / 100
    lo, hi = math.floor(k), math.ceil(k)
    return xs[lo] if lo == hi else xs[lo] + (xs[hi] - xs[lo]) * (k - lo)

latencies = [12, 15, 14, 13, 200, 16, 15, 14, 13, 15]
mu, sigma = mean(latencies), stdev(latencies)
iqr = percentile(latencies, 75) - percentile(latencies, 25)
hist = {}
for x in latencies:
    bucket = f"{x // 10 * 10}-{x // 10 * 10 + 9}"
    hist[bucket] = hist.get(bucket, 0) + 1
{
    "p50": percentile(latencies, 50), "p90": round(percentile(latencies, 90), 2), "iqr": iqr,
    "outliers": [x for x in latencies if abs(x - mu) > 2 * sigma], "hist": hist,
}
""",
        value={"p50": 14.5, "p90": 34.4, "iqr": 1.75, "outliers": [200], "hist": {"10-19": 9, "200-209": 1}},
    ),
    Harmless(
        "dedupe_and_merge_records",
        A,
        r"""
import re
from difflib import SequenceMatcher

contacts = [
    {"name": "Jon Smith", "email": "JON@EXAMPLE.COM ", "phone": None},
    {"name": "Jonathan Smith", "email": "jon@example.com", "phone": "555-0101"},
    {"name": "Mary Jones", "email": "mary@x.org", "phone": None},
    {"name": "Mary  Jonse", "email": None, "phone": "(555) 0202"},
]

def norm(c):
    return {
        "name": re.sub(r"\s+", " ", c["name"]).strip(),
        "email": (c["email"] or "").strip().lower() or None,
        "phone": re.sub(r"\D", "", c["phone"] or "") or None,
    }

def similar(a, b):
    if a["email"] and a["email"] == b["email"]:
        return True
    return SequenceMatcher(None, a["name"].lower(), b["name"].lower()).ratio() > 0.85

merged = []
for c in map(norm, contacts):
    for m in merged:
        if similar(m, c):
            m.update({k: v for k, v in c.items() if v and (not m[k] or len(v) > len(m[k]) and k == "name")})
            break
    else:
        merged.append(c)
unique = list(dict.fromkeys([3, 1, 3, 2, 1]))
merged, unique
""",
        value=[
            [
                {"name": "Jonathan Smith", "email": "jon@example.com", "phone": "5550101"},
                {"name": "Mary Jones", "email": "mary@x.org", "phone": "5550202"},
            ],
            [3, 1, 2],
        ],
    ),
    Harmless(
        "parse_a_log_by_hand",
        A,
        r"""
import re
from collections import Counter
from datetime import datetime

log = await read_log("api")
LINE = re.compile(r"^(?P<ts>\S+ \S+) \[(?P<level>\w+)\] (?P<svc>\w+): (?P<msg>.*?took (?P<ms>\d+) ms)$")

levels, slow, stamps = Counter(), [], []
for line in log.splitlines():
    m = LINE.match(line)
    if not m:
        continue
    levels[m["level"]] += 1
    stamps.append(datetime.strptime(m["ts"], "%Y-%m-%d %H:%M:%S"))
    if int(m["ms"]) > 80:
        slow.append(int(m["ms"]))

span = max(stamps) - min(stamps)
print(f"{sum(levels.values())} lines, {levels['ERROR']} errors ({levels['ERROR'] / sum(levels.values()):.0%})")
{"levels": dict(levels), "slow": sorted(slow, reverse=True), "span": str(span)}
""",
        tools=("read_log",),
        prints="30 lines, 6 errors (20%)\n",
        value={"levels": {"INFO": 18, "WARNING": 6, "ERROR": 6}, "slow": [92, 91, 86, 85], "span": "2 days, 0:29:00"},
        calls=(("read_log", {"service": "api"}),),
    ),
    Harmless(
        "parse_ini_by_hand",
        A,
        r'''
text = """
; settings
[database]
host = db.local
port=5432
ssl = true

[cache]
ttl = 1.5
tags = a, b ,c
"""

def convert(v):
    if v.lower() in ("true", "false"):
        return v.lower() == "true"
    for cast in (int, float):
        try:
            return cast(v)
        except ValueError:
            pass
    return [p.strip() for p in v.split(",")] if "," in v else v

config, section = {}, None
for raw in text.splitlines():
    line = raw.strip()
    if not line or line[0] in ";#":
        continue
    if line.startswith("[") and line.endswith("]"):
        section = config.setdefault(line[1:-1], {})
    else:
        key, _, value = line.partition("=")
        section[key.strip()] = convert(value.strip())
config
''',
        value={"database": {"host": "db.local", "port": 5432, "ssl": True}, "cache": {"ttl": 1.5, "tags": ["a", "b", "c"]}},
    ),
    Harmless(
        "parse_an_html_table_by_hand",
        A,
        r'''
import re
from html import unescape

page = """
<table class="prices">
  <tr><th>Item</th><th>Price</th></tr>
  <tr><td>Caf&eacute; <b>latte</b></td><td>$4.50</td></tr>
  <tr><td>Tea</td><td>$1,003.00</td></tr>
</table>"""

def text(fragment):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", fragment))).strip()

rows = [[text(c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r, re.S)] for r in re.findall(r"<tr.*?</tr>", page, re.S)]
header, *body = rows
[{**dict(zip(header, r)), "Price": float(re.sub(r"[^\d.]", "", r[1]))} for r in body]
''',
        value=[{"Item": "Café latte", "Price": 4.5}, {"Item": "Tea", "Price": 1003.0}],
    ),
    Harmless(
        "csv_report_from_tool_data",
        A,
        r"""
import csv, io
from collections import defaultdict

cursor, orders = None, []
while True:
    batch = await list_orders(cursor=cursor)
    orders += batch["orders"]
    cursor = batch["next_cursor"]
    if cursor is None:
        break

by_region = defaultdict(list)
for o in orders:
    by_region[o["region"]].append(o["total"])

out = io.StringIO()
w = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
w.writerow(["region", "orders", "revenue"])
for region in sorted(by_region):
    w.writerow([region, len(by_region[region]), sum(by_region[region])])
print(out.getvalue())
""",
        tools=("list_orders",),
        prints='"region","orders","revenue"\n"north",20,1000.0\n"south",20,940.0\n"west",20,1080.0\n\n',
        calls=(("list_orders", {}), ("list_orders", {"cursor": "25"}), ("list_orders", {"cursor": "50"})),
    ),
    Harmless(
        "json_transform_nested",
        A,
        r"""
import json

doc = json.loads(input_data)

def flatten(obj, prefix=""):
    if isinstance(obj, dict):
        for k, v in obj.items():
            yield from flatten(v, f"{prefix}.{k}" if prefix else k)
    elif isinstance(obj, list):
        for i, v in enumerate(obj):
            yield from flatten(v, f"{prefix}[{i}]")
    else:
        yield prefix, obj

def camel(d):
    if isinstance(d, dict):
        return {(p := k.split("_"))[0] + "".join(x.title() for x in p[1:]): camel(v) for k, v in d.items()}
    return [camel(x) for x in d] if isinstance(d, list) else d

def get(d, path, default=None):
    for part in path.split("."):
        try:
            d = d[int(part)] if isinstance(d, list) else d[part]
        except (KeyError, IndexError, TypeError):
            return default
    return d

[dict(flatten(doc)), camel(doc), get(doc, "user_info.tags.1"), get(doc, "a.b.c", "none")]
""",
        input_data='{"user_info": {"first_name": "Ann", "tags": ["x", "y"]}, "is_active": true}',
        value=[
            {"user_info.first_name": "Ann", "user_info.tags[0]": "x", "user_info.tags[1]": "y", "is_active": True},
            {"userInfo": {"firstName": "Ann", "tags": ["x", "y"]}, "isActive": True},
            "y",
            "none",
        ],
    ),
    Harmless(
        "inner_and_left_join",
        A,
        r"""
users = [{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bo"}, {"id": 3, "name": "Cy"}]
orders = [{"user": 1, "total": 5}, {"user": 1, "total": 7}, {"user": 3, "total": 2}, {"user": 9, "total": 1}]

by_id = {u["id"]: u for u in users}
inner = [(by_id[o["user"]]["name"], o["total"]) for o in orders if o["user"] in by_id]
left = {u["name"]: sum(o["total"] for o in orders if o["user"] == u["id"]) for u in users}
orphans = [o for o in orders if o["user"] not in by_id]
only = {o["user"] for o in orders} ^ set(by_id)
inner, left, orphans, only
""",
        value=[[["Ann", 5], ["Ann", 7], ["Cy", 2]], {"Ann": 12, "Bo": 0, "Cy": 2}, [{"user": 9, "total": 1}], [2, 9]],
    ),
    Harmless(
        "currency_formatting_and_markdown_table",
        A,
        r"""
def money(value, symbol="$", places=2):
    sign = "-" if value < 0 else ""
    return f"{sign}{symbol}{abs(value):,.{places}f}"

def euro(value):
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,")) + " €"

rows = [("Rent", 1500), ("Coffee", 86.4), ("Refund", -1234.5)]
width = max(len(n) for n, _ in rows)
print("| " + "Item".ljust(width) + " | Amount |")
print("|" + "-" * (width + 2) + "|-------:|")
for name, value in rows:
    print(f"| {name:<{width}} | {money(value)} |")
print(f"\n**Total:** {money(sum(v for _, v in rows))} / {euro(1234567.5)}")
""",
        prints=(
            "| Item   | Amount |\n|--------|-------:|\n| Rent   | $1,500.00 |\n| Coffee | $86.40 |\n| Refund | -$1,234.50 |\n\n"
            "**Total:** $351.90 / 1.234.567,50 €\n"
        ),
    ),
    Harmless(
        "dates_business_days_and_schedule",
        A,
        r"""
from datetime import date, timedelta

HOLIDAYS = {date(2024, 12, 25), date(2024, 12, 26), date(2025, 1, 1)}

def business_days(start, end):
    d = start
    while d <= end:
        if d.weekday() < 5 and d not in HOLIDAYS:
            yield d
        d += timedelta(days=1)

def add_months(d, n):
    y, m = divmod(d.month - 1 + n, 12)
    y, m = d.year + y, m + 1
    last = (date(y + m // 12, m % 12 + 1, 1) - timedelta(days=1)).day
    return d.replace(year=y, month=m, day=min(d.day, last))

days = list(business_days(date(2024, 12, 23), date(2025, 1, 3)))
due = [add_months(date(2024, 1, 31), n).isoformat() for n in range(4)]
age = (lambda b, t: t.year - b.year - ((t.month, t.day) < (b.month, b.day)))(date(1990, 6, 15), date(2024, 6, 14))
len(days), days[-1], due, age, f"{date(2024, 1, 1):%A}"
""",
        value=[7, "2025-01-03", ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"], 33, "Monday"],
    ),
    Harmless(
        "word_frequencies_and_sentiment",
        A,
        r"""
import re
from collections import Counter

reviews = input_data["reviews"]
STOP = {"the", "a", "is", "and", "it", "was", "but", "i", "very", "not"}
POS, NEG = {"great", "love", "good"}, {"bad", "broken", "slow"}

tokens = [w for r in reviews for w in re.findall(r"[a-z']+", r.lower()) if w not in STOP]
top = Counter(tokens).most_common(2)

def score(review):
    words = re.findall(r"\w+", review.lower())
    return sum((w in POS) - (w in NEG) for w in words)

labels = ["positive" if (s := score(r)) > 0 else "negative" if s < 0 else "neutral" for r in reviews]
bigrams = Counter(zip(tokens, tokens[1:]))
{"top": top, "labels": labels, "bigram": bigrams[("great", "phone")]}
""",
        input_data={"reviews": ["Great phone, love it!", "The phone is slow and broken", "It was good but slow", "great phone"]},
        value={"top": [["phone", 3], ["great", 2]], "labels": ["positive", "negative", "neutral", "positive"], "bigram": 2},
    ),
    Harmless(
        "simple_linear_regression_and_forecast",
        A,
        r"""
import statistics as st

def fit(xs, ys):
    mx, my = st.fmean(xs), st.fmean(ys)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)
    return slope, my - slope * mx

xs, ys = [1, 2, 3, 4, 5], [2.1, 3.9, 6.2, 7.8, 10.1]
slope, intercept = fit(xs, ys)
r2 = st.correlation(xs, ys) ** 2
builtin = st.linear_regression(xs, ys)
[round(slope, 3), round(intercept, 3), round(slope * 6 + intercept, 2), round(r2, 4), round(builtin.slope, 3)]
""",
        value=[1.99, 0.05, 11.99, 0.9973, 1.99],
    ),
    Harmless(
        "validation_of_records_with_errors",
        A,
        r"""
from __future__ import annotations
import re
from dataclasses import dataclass, field
from typing import Any, Callable

Rule = Callable[[Any], str | None]

def required(v): return "is required" if v in (None, "") else None
def matches(p): return lambda v: None if re.fullmatch(p, str(v)) else f"must match {p}"
def between(lo, hi): return lambda v: None if isinstance(v, (int, float)) and lo <= v <= hi else f"must be {lo}..{hi}"

@dataclass
class Schema:
    rules: dict[str, list[Rule]] = field(default_factory=dict)

    def check(self, record: dict[str, Any]) -> dict[str, list[str]]:
        errors: dict[str, list[str]] = {}
        for name, rules in self.rules.items():
            for rule in rules:
                if (problem := rule(record.get(name))) is not None:
                    errors.setdefault(name, []).append(problem)
                    break
        return errors

schema = Schema({"email": [required, matches(r"\S+@\S+\.\w+")], "age": [required, between(18, 120)]})
[schema.check(r) for r in ({"email": "a@b.co", "age": 30}, {"email": "nope", "age": 7}, {})]
""",
        value=[
            {},
            {"email": ["must match \\S+@\\S+\\.\\w+"], "age": ["must be 18..120"]},
            {"email": ["is required"], "age": ["is required"]},
        ],
    ),
    Harmless(
        "tree_from_parent_pointers",
        A,
        r"""
people = await get_team_members("engineering")
children = {}
for p in people:
    children.setdefault(p["manager_id"], []).append(p)

def tree(node, depth=0):
    yield "  " * depth + node["name"]
    for c in sorted(children.get(node["id"], []), key=lambda c: c["id"]):
        yield from tree(c, depth + 1)

def size(node):
    return 1 + sum(size(c) for c in children.get(node["id"], []))

root = children[None][0]
lines = list(tree(root))
print("\n".join(lines[:4]))
output = {"lines": len(lines), "size": size(root), "depth": max((len(l) - len(l.lstrip())) // 2 for l in lines)}
""",
        tools=("get_team_members",),
        prints="Person 1\n  Person 2\n    Person 4\n      Person 8\n",
        value={"lines": 20, "size": 20, "depth": 4},
        calls=1,
    ),
    Harmless(
        "sessions_from_events",
        A,
        r"""
from datetime import datetime, timedelta
from itertools import groupby

raw = [("ann", "2024-05-01T10:00:00"), ("bo", "2024-05-01T10:05:00"), ("ann", "2024-05-01T10:20:00"),
       ("ann", "2024-05-01T12:00:00"), ("bo", "2024-05-01T10:06:30Z")]
events = sorted((u, datetime.fromisoformat(t.rstrip("Z"))) for u, t in raw)
GAP = timedelta(minutes=30)

sessions = []
for user, group in groupby(events, key=lambda e: e[0]):
    current = []
    for _, t in group:
        if current and t - current[-1] > GAP:
            sessions.append((user, current))
            current = []
        current.append(t)
    sessions.append((user, current))
[{"user": u, "start": ts[0].strftime("%H:%M"), "minutes": (ts[-1] - ts[0]) / timedelta(minutes=1)} for u, ts in sessions]
""",
        value=[
            {"user": "ann", "start": "10:00", "minutes": 20.0},
            {"user": "ann", "start": "12:00", "minutes": 0.0},
            {"user": "bo", "start": "10:05", "minutes": 1.5},
        ],
    ),
    Harmless(
        "ten_thousand_rows_in_memory",
        A,
        r"""
import random
from collections import Counter

random.seed(1234)
rows = [{"id": i, "v": (i * 7919) % 1000, "k": "abcde"[i % 5]} for i in range(10_000)]
by_key = Counter()
for r in rows:
    by_key[r["k"]] += r["v"]
top = sorted(rows, key=lambda r: (-r["v"], r["id"]))[:3]
sample = random.sample(rows, 5)
{"sum": sum(by_key.values()), "top": [r["id"] for r in top], "keys": "".join(sorted(by_key)), "sample": len(sample)}
""",
        value={"sum": 4995000, "top": [321, 1321, 2321], "keys": "abcde", "sample": 5},
    ),
)
