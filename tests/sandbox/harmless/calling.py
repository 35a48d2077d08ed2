"""Tools called from programs: fan-out, chains, pages, retries, caches, failures."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "calling"
TEAM = tuple(f"u{n:03d}" for n in range(1, 46))

CASES = (
    Harmless(
        "fan_out_over_45_employees",
        A,
        r"""
import asyncio
import json
from tools.hr import get_team_members
from tools.finance import get_expenses

team = await get_team_members(status="active")
expenses = await asyncio.gather(*[get_expenses(m["id"], "Q3") for m in team])

by_category = {}
for items in expenses:
    for e in items:
        by_category[e["category"]] = by_category.get(e["category"], 0) + e["amount"]

totals = {m["name"]: sum(e["amount"] for e in items) for m, items in zip(team, expenses)}
top = sorted(totals.items(), key=lambda kv: kv[1], reverse=True)[:3]
print(json.dumps({"people": len(team), "top": top}))
output = {"by_category": by_category, "grand_total": sum(totals.values())}
""",
        value={
            "by_category": {"meals": 54561.0, "software": 52361.0, "office": 50004.0, "travel": 52204.0},
            "grand_total": 209130.0,
        },
        prints='{"people": 45, "top": [["Person 44", 13371.0], ["Person 41", 12471.0], ["Person 38", 11571.0]]}\n',
        tools=("get_team_members", "get_expenses"),
        calls=(("get_team_members", {}), *(("get_expenses", {"user_id": u}) for u in TEAM)),
    ),
    Harmless(
        "fan_out_over_50_calls",
        A,
        r"""
results = await asyncio.gather(*(compute_tax(amount=100.0 + i) for i in range(50)))
round(sum(r["tax"] for r in results), 2)
""",
        value=498.0,
        tools=("compute_tax",),
        calls=tuple(("compute_tax", {"amount": 100.0 + i}) for i in range(50)),
    ),
    Harmless(
        "fan_out_over_slow_calls_is_parallel",
        A,
        r"""
import asyncio, time

start = time.monotonic()
found = await asyncio.gather(*[slow_lookup(f"key-{i}", seconds=0.2) for i in range(45)])
elapsed = time.monotonic() - start
{"all": all(f["found"] for f in found), "parallel": elapsed < 4.5}
""",
        value={"all": True, "parallel": True},
        tools=("slow_lookup",),
        calls=45,
    ),
    Harmless(
        "chain_where_the_second_uses_the_first",
        A,
        r"""
profile = await get_user_profile("u009")
manager = await get_user_profile(profile["manager_id"])
expenses = await get_expenses(manager["id"], quarter="Q1")
total = sum(e["amount"] for e in expenses)
tax = await compute_tax(total, tax_rate=0.2)
mail = await send_email(
    to=f"{manager['id']}@example.com",
    subject=f"Q1 expenses of {manager['name']}",
    body=f"Total: {tax['total']:.2f}",
)
[total, tax, mail]
""",
        value=[
            852.0,
            {"tax": 170.4, "total": 1022.4},
            {"sent": True, "to": "u004@example.com", "subject": "Q1 expenses of Person 4", "length": 14, "recipients": 1},
        ],
        tools=("get_user_profile", "get_expenses", "compute_tax", "send_email"),
        calls=(
            ("get_user_profile", {"user_id": "u009"}),
            ("get_user_profile", {"user_id": "u004"}),
            ("get_expenses", {"user_id": "u004", "quarter": "Q1"}),
            ("compute_tax", {"amount": 852.0, "tax_rate": 0.2}),
            ("send_email", {"to": "u004@example.com", "subject": "Q1 expenses of Person 4", "body": "Total: 1022.40"}),
        ),
    ),
    Harmless(
        "sequential_loop_with_await",
        A,
        r"""
cities = ["Paris", "Oslo", "Rome"]
report = []
for city in cities:
    weather = await get_weather(city)
    report.append(f"{weather['city']}: {weather['temperature']}°C, {weather['condition']}")
print("\n".join(report))
warmest = max([await get_weather(c, units="imperial") for c in cities], key=lambda w: w["temperature"])
warmest["city"]
""",
        value="Oslo",
        prints="Paris: 1°C, rainy\nOslo: 23°C, cloudy\nRome: 13°C, rainy\n",
        tools=("get_weather",),
        calls=6,
    ),
    Harmless(
        "conditional_calls",
        A,
        r"""
low = []
for product in ["laptop", "mouse", "monitor", "dock"]:
    stock = await check_stock(product)
    if stock == 0:
        await send_email("buyer@example.com", f"Out of stock: {product}", cc=["boss@example.com"])
    elif stock < 10:
        low.append(product)
low
""",
        value=["dock"],
        tools=("check_stock", "send_email"),
        calls=(
            ("check_stock", {"product": "laptop"}),
            ("check_stock", {"product": "mouse"}),
            ("check_stock", {"product": "monitor"}),
            ("send_email", {"to": "buyer@example.com", "subject": "Out of stock: monitor", "cc": ["boss@example.com"]}),
            ("check_stock", {"product": "dock"}),
        ),
    ),
    Harmless(
        "pagination_until_the_last_page",
        A,
        r"""
async def search_all(query, per_page=10):
    page, found = 1, []
    while True:
        result = await search_products(query=query, page=page, per_page=per_page)
        found.extend(result["items"])
        if page >= result["pages"]:
            return found
        page += 1

lamps = await search_all("lamp")
{"count": len(lamps), "skus": len({p["sku"] for p in lamps}), "avg": round(sum(p["price"] for p in lamps) / len(lamps), 2)}
""",
        value={"count": 40, "skus": 40, "avg": 45.0},
        tools=("search_products",),
        calls=tuple(("search_products", {"query": "lamp"} | ({"page": n} if n > 1 else {})) for n in range(1, 5)),
    ),
    Harmless(
        "pagination_first_page_then_gather",
        A,
        r"""
first = await search_products("red", per_page=7)
rest = await asyncio.gather(*[search_products("red", page=p, per_page=7) for p in range(2, first["pages"] + 1)])
items = first["items"] + [i for page in rest for i in page["items"]]
assert len(items) == first["total"], "pages do not add up"
[len(items), max(i["price"] for i in items), len(rest)]
""",
        value=[30, 88.5, 4],
        tools=("search_products",),
        calls=5,
    ),
    Harmless(
        "pagination_as_an_async_generator",
        A,
        r"""
async def orders(limit=20):
    cursor = None
    while True:
        page = await list_orders(cursor=cursor, limit=limit)
        for order in page["orders"]:
            yield order
        cursor = page["next_cursor"]
        if not cursor:
            return

big = [o["id"] async for o in orders() if o["total"] > 95]
first = None
async for o in orders():
    if o["region"] == "west":
        first = o["id"]
        break
big, first
""",
        value=[[8, 27, 35, 54], 2],
        tools=("list_orders",),
        calls=4,
    ),
    Harmless(
        "retries_with_backoff_around_a_flaky_tool",
        A,
        r"""
import asyncio
import random

async def with_retry(fn, *args, attempts=4, base=0.001, **kwargs):
    for attempt in range(1, attempts + 1):
        try:
            return await fn(*args, **kwargs)
        except ToolError as e:
            if attempt == attempts:
                raise
            delay = base * 2 ** (attempt - 1) * (1 + random.random())
            print(f"attempt {attempt} failed ({e.code}), retrying")
            await asyncio.sleep(delay)

result = await with_retry(flaky_fetch, "invoice-1")
result
""",
        value={"key": "invoice-1", "attempts": 3},
        prints="attempt 1 failed (temporary), retrying\nattempt 2 failed (temporary), retrying\n",
        tools=("flaky_fetch",),
        calls=3,
    ),
    Harmless(
        "retry_decorator_on_a_tool",
        A,
        r"""
import asyncio
from functools import wraps

def retry(times: int = 3, exceptions: tuple = (Exception,)):
    def deco(fn):
        @wraps(fn)
        async def inner(*a, **kw):
            last = None
            for _ in range(times):
                try:
                    return await fn(*a, **kw)
                except exceptions as exc:
                    last = exc
            raise RuntimeError(f"gave up after {times}") from last
        return inner
    return deco

fetch = retry(times=3, exceptions=(ToolError,))(flaky_fetch)

@retry(times=2)
async def stubborn():
    return await always_down("billing")

ok = await asyncio.gather(*[fetch(k) for k in ("a", "b")])
try:
    await stubborn()
except RuntimeError as e:
    failure = (str(e), type(e.__cause__).__name__)
[r["attempts"] for r in ok], failure
""",
        value=[[3, 3], ["gave up after 2", "ToolError"]],
        tools=("flaky_fetch", "always_down"),
        calls=8,
    ),
    Harmless(
        "caching_of_tool_results",
        A,
        r"""
cache = {}

async def cached_rate(base):
    if base not in cache:
        cache[base] = await get_exchange_rate(base)
    return cache[base]

payments = [("EUR", 10), ("GBP", 4), ("EUR", 20), ("USD", 5), ("GBP", 6)]
usd = [round(amount * await cached_rate(cur), 2) for cur, amount in payments]
sum(usd), sorted(cache)
""",
        value=[50.5, ["EUR", "GBP", "USD"]],
        tools=("get_exchange_rate",),
        calls=(
            ("get_exchange_rate", {"base": "EUR"}),
            ("get_exchange_rate", {"base": "GBP"}),
            ("get_exchange_rate", {"base": "USD"}),
        ),
    ),
    Harmless(
        "in_flight_deduplication_with_tasks",
        A,
        r"""
import asyncio

inflight: dict[str, asyncio.Task] = {}

def once(key):
    if key not in inflight:
        inflight[key] = asyncio.create_task(count_call(key))
    return inflight[key]

values = await asyncio.gather(*[once(k) for k in ["x", "y", "x", "x", "y"]])
[len(inflight), max(values), values[0] == values[2] == values[3]]
""",
        value=[2, 2, True],
        tools=("count_call",),
        calls=2,
    ),
    Harmless(
        "tool_error_code_and_message",
        A,
        r"""
errors = []
for user in ["u003", "u999", "nobody"]:
    try:
        profile = await get_user_profile(user)
        print(profile["name"])
    except ToolError as e:
        errors.append({"user": user, "code": e.code, "said": "no user" in str(e), "is_exception": isinstance(e, Exception)})
errors
""",
        value=[
            {"user": "u999", "code": "not_found", "said": True, "is_exception": True},
            {"user": "nobody", "code": "not_found", "said": True, "is_exception": True},
        ],
        prints="Person 3\n",
        tools=("get_user_profile",),
        calls=3,
    ),
    Harmless(
        "partial_failures_with_return_exceptions",
        A,
        r"""
products = ["laptop", "unicorn", "mouse", "dragon"]
results = await asyncio.gather(*[check_stock(p) for p in products], return_exceptions=True)
ok = {p: r for p, r in zip(products, results) if not isinstance(r, Exception)}
failed = [p for p, r in zip(products, results) if isinstance(r, ToolError)]
print(f"{len(ok)} ok, {len(failed)} failed")
output = {"ok": ok, "failed": failed}
""",
        value={"ok": {"laptop": 12, "mouse": 250}, "failed": ["unicorn", "dragon"]},
        prints="2 ok, 2 failed\n",
        tools=("check_stock",),
        calls=4,
    ),
    Harmless(
        "fallback_except_exception_and_finally",
        A,
        r"""
async def rate_or_default(cur, default=1.0):
    try:
        return await get_exchange_rate(cur)
    except Exception as exc:
        print(f"no rate for {cur}: {type(exc).__name__}")
        return default
    finally:
        tried.append(cur)

tried = []
rates = {c: await rate_or_default(c) for c in ("EUR", "XXX")}
rates, tried
""",
        value=[{"EUR": 1.1, "XXX": 1.0}, ["EUR", "XXX"]],
        prints="no rate for XXX: ToolError\n",
        tools=("get_exchange_rate",),
        calls=2,
    ),
    Harmless(
        "circuit_breaker",
        A,
        r"""
from dataclasses import dataclass

@dataclass
class Breaker:
    threshold: int = 2
    failures: int = 0
    skipped: int = 0

    async def call(self, fn, *args):
        if self.failures >= self.threshold:
            self.skipped += 1
            return None
        try:
            result = await fn(*args)
            self.failures = 0
            return result
        except ToolError:
            self.failures += 1
            return None

b = Breaker()
results = [await b.call(always_down, f"svc{i}") for i in range(5)]
results, b
""",
        value=[[None] * 5, {"threshold": 2, "failures": 2, "skipped": 3}],
        tools=("always_down",),
        calls=2,
    ),
    Harmless(
        "positional_and_default_arguments",
        A,
        r"""
a = await compute_tax(200)
b = await compute_tax(200.0, 0.1)
c = await compute_tax(tax_rate=0.5, amount=10)
args, kwargs = ("Oslo",), {"units": "imperial"}
d = await get_weather(*args, **kwargs)
e = await send_email("a@b.c", "s", cc=None)
[a["tax"], b["tax"], c["total"], d["units"], e["recipients"]]
""",
        value=[16.0, 20.0, 15.0, "imperial", 1],
        tools=("compute_tax", "get_weather", "send_email"),
        calls=(
            ("compute_tax", {"amount": 200}),
            ("compute_tax", {"amount": 200.0, "tax_rate": 0.1}),
            ("compute_tax", {"tax_rate": 0.5, "amount": 10}),
            ("get_weather", {"city": "Oslo", "units": "imperial"}),
            ("send_email", {"to": "a@b.c", "subject": "s"}),
        ),
    ),
    Harmless(
        "call_tool_with_server_and_parameters",
        A,
        r"""
one = await call_tool(server="finance", tool_name="get_expenses", parameters={"user_id": "u005", "quarter": "Q2"})
two = await call_tool("finance", "compute_tax", {"amount": 50})
three = await call_tool(server="weather", tool_name="get_weather", parameters={"city": "Rome"}, timeout=10)
[sum(e["amount"] for e in one), two["total"], three["city"]]
""",
        value=[1662.0, 54.0, "Rome"],
        tools=("get_expenses", "compute_tax", "get_weather"),
        calls=(
            ("get_expenses", {"user_id": "u005", "quarter": "Q2"}),
            ("compute_tax", {"amount": 50}),
            ("get_weather", {"city": "Rome"}),
        ),
    ),
    Harmless(
        "call_tool_in_a_gather",
        A,
        r"""
names = ["laptop", "keyboard", "dock"]
counts = await asyncio.gather(
    *(call_tool(server="shop", tool_name="check_stock", parameters={"product": n}) for n in names)
)
dict(zip(names, counts))
""",
        value={"laptop": 12, "keyboard": 85, "dock": 3},
        tools=("check_stock",),
        calls=3,
    ),
    Harmless(
        "tools_as_values",
        A,
        r"""
from functools import partial

handlers = {"tax": compute_tax, "rate": get_exchange_rate}
jobs = [("tax", (100,)), ("rate", ("EUR",)), ("tax", (10, 0.5))]
results = [await handlers[name](*args) for name, args in jobs]
vat = partial(compute_tax, tax_rate=0.19)
async def apply(fn, *args):
    return await fn(*args)
[results, (await vat(100))["tax"], await apply(handlers["rate"], "USD"), compute_tax.__name__,
 asyncio.iscoroutinefunction(compute_tax)]
""",
        value=[[{"tax": 8.0, "total": 108.0}, 1.1, {"tax": 5.0, "total": 15.0}], 19.0, 1.0, "compute_tax", True],
        tools=("compute_tax", "get_exchange_rate"),
        calls=5,
    ),
    Harmless(
        "tools_in_methods_and_closures",
        A,
        r"""
class Inventory:
    def __init__(self, threshold: int):
        self.threshold = threshold
        self.levels: dict[str, int] = {}

    async def load(self, *names: str) -> "Inventory":
        counts = await asyncio.gather(*map(check_stock, names))
        self.levels.update(zip(names, counts))
        return self

    @property
    def low(self):
        return sorted(n for n, c in self.levels.items() if c < self.threshold)

def make_checker(limit):
    async def check(name):
        return (await check_stock(name)) > limit
    return check

inv = await Inventory(threshold=50).load("laptop", "mouse", "dock")
is_plenty = make_checker(100)
inv.low, await is_plenty("mouse"), [n for n in inv.levels if await is_plenty(n)]
""",
        value=[["dock", "laptop"], True, ["mouse"]],
        tools=("check_stock",),
        calls=7,
    ),
    Harmless(
        "echo_of_every_json_shape",
        A,
        r"""
shapes = [None, True, 0, -1.5, 1e300, "", "héllo ☃ 🎉 \u0000 \" \\ \n", [], {}, [[[]]], {"a": {"b": [1, None]}}, 2**53,
          12345678901234567890]
back = [await echo(s) for s in shapes]
[b == s and type(b) is type(s) for b, s in zip(back, shapes)].count(True), len(shapes)
""",
        value=[13, 13],
        tools=("echo",),
        calls=13,
    ),
    Harmless(
        "tuples_and_comprehensions_as_arguments",
        A,
        r"""
from datetime import date
rows = await echo({"ids": [i for i in range(3)], "pair": (1, 2), "when": date(2024, 1, 2).isoformat(), 5: "five"})
rows
""",
        value={"ids": [0, 1, 2], "pair": [1, 2], "when": "2024-01-02", "5": "five"},
        tools=("echo",),
        calls=1,
    ),
    Harmless(
        "large_argument_and_large_result",
        A,
        r"""
text = "0123456789" * 20_000
rows = [{"i": i, "name": f"row {i}"} for i in range(5_000)]
a, b = await asyncio.gather(echo(text), echo(rows))
len(a), a == text, b == rows, sum(r["i"] for r in b)
""",
        value=[200000, True, True, 12497500],
        tools=("echo",),
        calls=2,
    ),
    Harmless(
        "batches_of_ten",
        A,
        r"""
from itertools import islice

def batched(iterable, n):
    it = iter(iterable)
    while batch := list(islice(it, n)):
        yield batch

team = await get_team_members()
scores = []
for i, batch in enumerate(batched(team, 10), start=1):
    reports = await asyncio.gather(*(generate_report(m["id"]) for m in batch))
    scores.extend(r["score"] for r in reports)
    print(f"batch {i}: {len(batch)}")
round(sum(scores) / len(scores), 3)
""",
        value=79.667,
        prints="batch 1: 10\nbatch 2: 10\nbatch 3: 10\nbatch 4: 10\nbatch 5: 5\n",
        tools=("get_team_members", "generate_report"),
        calls=46,
    ),
    Harmless(
        "worker_pool_over_a_queue_of_calls",
        A,
        r"""
import asyncio

async def worker(queue: asyncio.Queue, results: dict) -> None:
    while True:
        city = await queue.get()
        try:
            results[city] = (await get_weather(city))["temperature"]
        finally:
            queue.task_done()

async def main(cities):
    queue, results = asyncio.Queue(), {}
    for c in cities:
        queue.put_nowait(c)
    workers = [asyncio.create_task(worker(queue, results)) for _ in range(3)]
    await queue.join()
    for w in workers:
        w.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return dict(sorted(results.items()))

asyncio.run(main(["Lima", "Kyiv", "Bern", "Doha", "Riga", "Male", "Apia"]))
""",
        value={"Apia": 19, "Bern": 1, "Doha": 20, "Kyiv": 29, "Lima": 27, "Male": 23, "Riga": 27},
        tools=("get_weather",),
        calls=7,
    ),
    Harmless(
        "tools_that_are_granted_and_not_used",
        A,
        "1 + 1",
        value=2,
        tools=("echo", "get_expenses", "always_down"),
        calls=(),
    ),
    Harmless(
        "dates_decimals_and_sets_as_arguments",
        A,
        r"""
from datetime import date, datetime
from decimal import Decimal
from enum import Enum

class Quarter(str, Enum):
    Q3 = "Q3"

items = await get_expenses("u001", quarter=Quarter.Q3)
back = await echo({"d": Decimal("1.5"), "day": date(2024, 1, 2), "at": datetime(2024, 1, 2, 3), "ids": {2, 1}, "t": (1,)})
len(items), back
""",
        value=[2, {"d": 1.5, "day": "2024-01-02", "at": "2024-01-02T03:00:00", "ids": [1, 2], "t": [1]}],
        tools=("get_expenses", "echo"),
        calls=2,
    ),
)
