"""Programs of some length, as models write them when a task has parts."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "long"

EXPENSE_AUDIT = r'''
"""Quarterly expense audit.

1. Load the active engineers and their budget.
2. Fetch two quarters of expenses for each of them, in parallel.
3. Flag people over budget, the biggest movers, and duplicate entries.
4. Print a report and return a summary.
"""
from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, Iterable

from tools.finance import get_budget, get_expenses
from tools.hr import get_team_members

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
logger = logging.getLogger("audit")

QUARTERS = ("Q2", "Q3")
TRAVEL = "travel"


@dataclass(frozen=True)
class Expense:
    amount: float
    category: str
    day: date

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "Expense":
        return cls(
            amount=float(raw["amount"]),
            category=raw["category"].lower(),
            day=datetime.strptime(raw["date"], "%Y-%m-%d").date(),
        )


@dataclass
class Person:
    id: str
    name: str
    level: str
    expenses: dict[str, list[Expense]] = field(default_factory=lambda: defaultdict(list))

    def total(self, quarter: str, category: str | None = None) -> float:
        return sum(e.amount for e in self.expenses[quarter] if category in (None, e.category))

    @property
    def change(self) -> float:
        before, after = (self.total(q) for q in QUARTERS)
        return round((after - before) / before * 100, 1) if before else 0.0


@dataclass
class Finding:
    person: str
    kind: str
    detail: str
    severity: int = 1


class Audit:
    def __init__(self, department: str) -> None:
        self.department = department
        self.people: dict[str, Person] = {}
        self.findings: list[Finding] = []
        self.limit = 0.0

    async def load(self) -> None:
        team, budget = await asyncio.gather(get_team_members(self.department), get_budget(self.department))
        self.limit = budget["travel"]
        self.people = {m["id"]: Person(m["id"], m["name"], m["level"]) for m in team}
        jobs = [(pid, q) for pid in self.people for q in QUARTERS]
        fetched = await asyncio.gather(*(get_expenses(pid, q) for pid, q in jobs))
        for (pid, q), rows in zip(jobs, fetched):
            if not rows:
                logger.warning("no expenses for %s in %s", pid, q)
            self.people[pid].expenses[q].extend(map(Expense.parse, rows))

    def check(self) -> None:
        for person in self.people.values():
            travel = person.total("Q3", TRAVEL)
            if travel > self.limit:
                over = travel - self.limit
                self.findings.append(Finding(person.name, "over_budget", f"${over:,.2f} over", severity=2 if over > 300 else 1))
            if abs(person.change) > 2:
                self.findings.append(Finding(person.name, "mover", f"{person.change:+.1f}%"))
        self.findings.sort(key=lambda f: (-f.severity, f.kind, f.person))

    def by_category(self, quarter: str) -> dict[str, float]:
        totals: Counter[str] = Counter()
        for person in self.people.values():
            for e in person.expenses[quarter]:
                totals[e.category] += e.amount
        return dict(totals.most_common())


def render(findings: Iterable[Finding]) -> str:
    rows = [(f.person, f.kind, f.detail, "!" * f.severity) for f in findings]
    widths = [max(len(str(r[i])) for r in rows) for i in range(4)]
    return "\n".join("  ".join(str(c).ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


async def main() -> dict[str, Any]:
    audit = Audit("engineering")
    await audit.load()
    audit.check()
    print(f"Expense audit: {audit.department} ({len(audit.people)} people, limit ${audit.limit:,.0f})")
    print("=" * 60)
    print(render(audit.findings[:4]))
    return {
        "people": len(audit.people),
        "findings": len(audit.findings),
        "worst": asdict(audit.findings[0]),
        "categories": audit.by_category("Q3"),
    }


if __name__ == "__main__":
    summary = asyncio.run(main())
    output = json.loads(json.dumps(summary))
'''

STATE_MACHINE = r'''
"""A small order workflow: states, transitions, history, invariants."""
from __future__ import annotations

import enum
import functools
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Callable, ClassVar, Iterator


class State(enum.Enum):
    NEW = "new"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in {State.DELIVERED, State.CANCELLED}


class TransitionError(Exception):
    def __init__(self, order: "Order", action: str) -> None:
        super().__init__(f"order {order.number}: cannot {action} while {order.state.value}")
        self.action = action


class Clock:
    """Deterministic time: every look is one hour later."""

    def __init__(self, start: datetime) -> None:
        self._ticks = itertools.count()
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(hours=next(self._ticks))


def transition(*, source: State | tuple[State, ...], target: State) -> Callable:
    sources = source if isinstance(source, tuple) else (source,)

    def decorate(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapper(self: "Order", *args, **kwargs):
            if self.state not in sources:
                raise TransitionError(self, method.__name__)
            result = method(self, *args, **kwargs)
            self.history.append((self.clock.now(), self.state, target))
            self.state = target
            for listener in self.listeners:
                listener(self, method.__name__)
            return result

        wrapper.sources, wrapper.target = sources, target
        return wrapper

    return decorate


@dataclass
class Order:
    number: int
    clock: Clock
    total: float = 0.0
    state: State = State.NEW
    history: list[tuple[datetime, State, State]] = field(default_factory=list)
    listeners: ClassVar[list[Callable]] = []

    def add(self, price: float, qty: int = 1) -> "Order":
        self.total += price * qty
        return self

    @transition(source=State.NEW, target=State.PAID)
    def pay(self, amount: float) -> float:
        if amount < self.total:
            raise ValueError(f"short by {self.total - amount:.2f}")
        return amount - self.total

    @transition(source=State.PAID, target=State.SHIPPED)
    def ship(self) -> None: ...

    @transition(source=State.SHIPPED, target=State.DELIVERED)
    def deliver(self) -> None: ...

    @transition(source=(State.NEW, State.PAID), target=State.CANCELLED)
    def cancel(self) -> None: ...

    def path(self) -> Iterator[str]:
        yield State.NEW.value
        yield from (after.value for _, _, after in self.history)


events: list[str] = []
Order.listeners.append(lambda order, action: events.append(f"{order.number}:{action}"))

clock = Clock(datetime(2024, 3, 1, 8))
happy = Order(1, clock).add(19.5, 2).add(1)
change = happy.pay(50)
happy.ship()
happy.deliver()

sad = Order(2, clock).add(5)
errors = []
for attempt in (lambda: sad.pay(1), sad.ship, sad.cancel, sad.cancel):
    try:
        attempt()
    except (TransitionError, ValueError) as exc:
        errors.append(str(exc))

graph = {}
for name, member in vars(Order).items():
    if hasattr(member, "target"):
        graph[name] = [sorted(s.value for s in member.sources), member.target.value]

assert happy.state.final and sad.state.final
output = {
    "change": change,
    "path": list(happy.path()),
    "hours": (happy.history[-1][0] - happy.history[0][0]) / timedelta(hours=1),
    "errors": errors,
    "events": events,
    "graph": graph,
}
'''

INVENTORY = r'''
import asyncio
import csv
import io
import json
import re
import time
from collections import OrderedDict, defaultdict
from contextlib import asynccontextmanager
from statistics import mean, median

# ---------------------------------------------------------------- configuration
CONCURRENCY = 5
PAGE_SIZE = 15
QUERIES = ["lamp", "chair"]

stats = defaultdict(int)


# ---------------------------------------------------------------- helpers
class LRU(OrderedDict):
    """Least recently used cache."""

    def __init__(self, size=8):
        super().__init__()
        self.size = size

    def get_or(self, key):
        if key in self:
            self.move_to_end(key)
            stats["hits"] += 1
            return self[key]
        stats["misses"] += 1
        return None

    def put(self, key, value):
        self[key] = value
        while len(self) > self.size:
            self.popitem(last=False)


@asynccontextmanager
async def timed(label):
    begin = time.perf_counter()
    try:
        yield
    finally:
        stats[f"{label}_ok"] = int(time.perf_counter() - begin < 60)


cache = LRU(size=20)
sem = asyncio.Semaphore(CONCURRENCY)


async def fetch_page(query, page):
    key = (query, page)
    if (hit := cache.get_or(key)) is not None:
        return hit
    async with sem:
        result = await search_products(query, page=page, per_page=PAGE_SIZE)
    cache.put(key, result)
    return result


async def fetch_all(query):
    first = await fetch_page(query, 1)
    others = await asyncio.gather(*(fetch_page(query, p) for p in range(2, first["pages"] + 1)))
    return [item for page in (first, *others) for item in page["items"]]


def parse_name(name):
    m = re.match(r"(?P<color>\w+) (?P<kind>\w+) (?P<number>\d+)$", name)
    if m is None:
        raise ValueError(f"unexpected name: {name!r}")
    return m["color"], m["kind"], int(m["number"])


def bucket(price):
    for limit, label in ((20, "cheap"), (60, "normal")):
        if price < limit:
            return label
    return "expensive"


def to_csv(rows, columns):
    buf = io.StringIO()
    writer = csv.DictWriter(buf, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buf.getvalue()


# ---------------------------------------------------------------- main
async def main():
    async with timed("fetch"):
        found = await asyncio.gather(*map(fetch_all, QUERIES))
    await fetch_all(QUERIES[0])  # from the cache

    table = []
    for query, items in zip(QUERIES, found):
        for item in items:
            color, kind, number = parse_name(item["name"])
            assert kind == query
            row = {"sku": item["sku"], "color": color, "kind": kind, "price": item["price"]}
            table.append(row | {"bucket": bucket(item["price"])})

    pivot = defaultdict(lambda: defaultdict(int))
    for row in table:
        pivot[row["kind"]][row["bucket"]] += 1

    prices = [r["price"] for r in table]
    rows = sorted(table, key=lambda r: (-r["price"], r["sku"]))[:3]
    print(to_csv(rows, ["sku", "color", "price"]), end="")
    return {
        "count": len(table),
        "pivot": {k: dict(sorted(v.items())) for k, v in sorted(pivot.items())},
        "mean": round(mean(prices), 2),
        "median": median(prices),
        "stats": dict(sorted(stats.items())),
    }


result = await main()
print(json.dumps(result["pivot"]))
result
'''

LISP = r'''
# A tiny interpreter: tokenizer, parser, evaluator with scopes and functions
from __future__ import annotations

import math
import operator as op
from dataclasses import dataclass
from typing import Any, Callable

Symbol = str
Atom = int | float | Symbol
Expr = Atom | list["Expr"]


class LispError(Exception):
    pass


class Env(dict):
    def __init__(self, params=(), args=(), outer: Env | None = None) -> None:
        super().__init__(zip(params, args))
        self.outer = outer

    def find(self, var: str) -> Env:
        if var in self:
            return self
        if self.outer is None:
            raise LispError(f"undefined: {var}")
        return self.outer.find(var)


@dataclass
class Lambda:
    params: list[str]
    body: Any
    env: Env
    evaluate: Callable

    def __call__(self, *args):
        if len(args) != len(self.params):
            raise LispError(f"expected {len(self.params)} arguments, got {len(args)}")
        return self.evaluate(self.body, Env(self.params, args, self.env))


def standard_env() -> Env:
    env = Env()
    env.update({k: v for k, v in vars(math).items() if not k.startswith("_")})
    env.update({
        "+": lambda *a: sum(a), "-": op.sub, "*": lambda *a: math.prod(a), "/": op.truediv, ">": op.gt, "<": op.lt, "=": op.eq,
        "<=": op.le, "list": lambda *x: list(x), "car": lambda x: x[0], "cdr": lambda x: x[1:], "cons": lambda x, y: [x] + y,
        "null?": lambda x: x == [], "length": len, "map": lambda f, xs: [f(x) for x in xs], "print": print,
    })
    return env


def tokenize(chars: str) -> list[str]:
    lines = [line.split(";")[0] for line in chars.splitlines()]
    return " ".join(lines).replace("(", " ( ").replace(")", " ) ").split()


def read(tokens: list[str]) -> Expr:
    if not tokens:
        raise LispError("unexpected EOF")
    token = tokens.pop(0)
    if token == "(":
        items = []
        while tokens and tokens[0] != ")":
            items.append(read(tokens))
        if not tokens:
            raise LispError("missing )")
        tokens.pop(0)
        return items
    if token == ")":
        raise LispError("unexpected )")
    return atom(token)


def atom(token: str) -> Atom:
    for kind in (int, float):
        try:
            return kind(token)
        except ValueError:
            continue
    return token


def evaluate(x: Expr, env: Env) -> Any:
    match x:
        case str():
            return env.find(x)[x]
        case int() | float():
            return x
        case ["quote", value]:
            return value
        case ["if", test, then, other]:
            return evaluate(then if evaluate(test, env) else other, env)
        case ["define", str(name), value]:
            env[name] = evaluate(value, env)
            return None
        case ["lambda", list(params), body]:
            return Lambda(params, body, env, evaluate)
        case ["let", list(pairs), body]:
            inner = Env([p[0] for p in pairs], [evaluate(p[1], env) for p in pairs], env)
            return evaluate(body, inner)
        case [head, *rest]:
            fn = evaluate(head, env)
            return fn(*(evaluate(a, env) for a in rest))
        case _:
            raise LispError(f"cannot evaluate {x!r}")


def run(program: str, env: Env | None = None) -> list[Any]:
    env = env or standard_env()
    tokens = tokenize(program)
    results = []
    while tokens:
        value = evaluate(read(tokens), env)
        if value is not None:
            results.append(value)
    return results


program = """
(define fact (lambda (n) (if (<= n 1) 1 (* n (fact (- n 1))))))   ; recursion
(define compose (lambda (f g) (lambda (x) (f (g x)))))
(fact 10)
((compose sqrt (lambda (x) (+ x 9))) 16)
(map (lambda (x) (* x x)) (list 1 2 3))
(let ((a 2) (b 3)) (+ a b pi))
(length (quote (a b c)))
"""
values = [round(v, 4) if isinstance(v, float) else v for v in run(program)]
problems = []
for bad in ("(foo 1)", "(+ 1", ")", "((lambda (x) x) 1 2)"):
    try:
        run(bad)
    except LispError as e:
        problems.append(str(e))
values, problems
'''

SUPPORT_TRIAGE = r'''
import asyncio
import difflib
import json
import textwrap
from collections import defaultdict
from datetime import datetime, timedelta

NOW = datetime(2024, 6, 3, 9, 0)
SLA_HOURS = {"urgent": 4, "high": 12, "normal": 24, "low": 48}
WEIGHT = {"urgent": 100, "high": 50, "normal": 20, "low": 5}

def score(ticket):
    age = ticket["hours"]
    limit = SLA_HOURS[ticket["priority"]]
    breach = max(0, age - limit)
    return WEIGHT[ticket["priority"]] + breach * 2

def cluster(tickets, cutoff=0.5):
    """Groups tickets of similar subject."""
    groups = []
    for t in tickets:
        for g in groups:
            ratio = difflib.SequenceMatcher(None, g[0]["subject"].lower(), t["subject"].lower()).ratio()
            if ratio >= cutoff:
                g.append(t)
                break
        else:
            groups.append([t])
    return groups

def assign(tickets, agents, capacity=4):
    """Round robin by load; returns agent -> ticket ids, and the rest."""
    load = {a: [] for a in agents}
    rest = []
    for t in tickets:
        free = [a for a in agents if len(load[a]) < capacity]
        if not free:
            rest.append(t["id"])
            continue
        agent = min(free, key=lambda a: (len(load[a]), a))
        load[agent].append(t["id"])
    return load, rest

async def load_tickets():
    statuses = ["open", "pending"]
    batches = await asyncio.gather(*(get_tickets(status=s) for s in statuses))
    return [t for b in batches for t in b]

async def notify(agent, ids):
    body = textwrap.dedent(f"""\
        Hello {agent},

        you have {len(ids)} ticket(s): {', '.join(f'#{i}' for i in ids)}.
    """)
    try:
        answer = await send_email(to=f"{agent}@example.com", subject="Your tickets", body=body)
        return answer["sent"]
    except ToolError as e:
        print(f"could not notify {agent}: {e}")
        return False

async def main():
    tickets = await load_tickets()
    ranked = sorted(tickets, key=lambda t: (-score(t), t["id"]))
    groups = cluster(ranked)
    breached = [t for t in ranked if t["hours"] > SLA_HOURS[t["priority"]]]
    agents = [u["id"] for u in (await get_users("marketing"))[:3]]
    load, rest = assign(ranked, agents)
    sent = await asyncio.gather(*(notify(a, ids) for a, ids in load.items() if ids))

    print(f"{'ID':>4} {'PRIO':<7} {'SCORE':>5}  OPENED")
    for t in ranked[:5]:
        opened = NOW - timedelta(hours=t["hours"])
        print(f"{t['id']:>4} {t['priority']:<7} {score(t):>5}  {opened:%a %d %b %H:%M}")

    by_priority = defaultdict(int)
    for t in tickets:
        by_priority[t["priority"]] += 1
    return {
        "tickets": len(tickets),
        "breached": len(breached),
        "clusters": sorted((len(g) for g in groups), reverse=True),
        "load": load,
        "rest": rest,
        "sent": sum(sent),
        "by_priority": dict(sorted(by_priority.items())),
    }

report = asyncio.run(main())
print(json.dumps(report["by_priority"], sort_keys=True))
output = report
'''

EVENT_SIMULATION = r'''
"""Simulates a queue at a service desk with a seeded generator; discrete events on a heap."""
import heapq
import random
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Deque, List, Optional, Tuple

SEED = 2024


class Kind(IntEnum):
    ARRIVAL = 0
    DEPARTURE = 1


@dataclass(order=True)
class Event:
    time: float
    kind: Kind
    customer: "Customer" = field(compare=False)


@dataclass
class Customer:
    number: int
    arrived: float
    started: Optional[float] = None
    left: Optional[float] = None

    @property
    def waited(self) -> float:
        assert self.started is not None
        return self.started - self.arrived


class Desk:
    def __init__(self, servers: int, rng: random.Random, mean_service: float) -> None:
        self.free = servers
        self.rng = rng
        self.mean_service = mean_service
        self.queue: Deque[Customer] = deque()
        self.longest = 0

    def arrive(self, customer: Customer, now: float) -> Optional[Event]:
        self.queue.append(customer)
        self.longest = max(self.longest, len(self.queue))
        return self.serve(now)

    def serve(self, now: float) -> Optional[Event]:
        if self.free == 0 or not self.queue:
            return None
        customer = self.queue.popleft()
        self.free -= 1
        customer.started = now
        return Event(now + self.rng.expovariate(1 / self.mean_service), Kind.DEPARTURE, customer)

    def release(self, now: float) -> Optional[Event]:
        self.free += 1
        return self.serve(now)


class Simulation:
    def __init__(self, servers: int, customers: int, *, gap: float = 1.0, service: float = 1.8, seed: int = SEED) -> None:
        rng = random.Random(seed)
        self.desk = Desk(servers, rng, service)
        self.done: List[Customer] = []
        self.events: List[Event] = []
        t = 0.0
        for n in range(customers):
            t += rng.expovariate(1 / gap)
            heapq.heappush(self.events, Event(t, Kind.ARRIVAL, Customer(n, t)))

    def run(self) -> "Simulation":
        while self.events:
            event = heapq.heappop(self.events)
            if event.kind is Kind.ARRIVAL:
                follow = self.desk.arrive(event.customer, event.time)
            else:
                event.customer.left = event.time
                self.done.append(event.customer)
                follow = self.desk.release(event.time)
            if follow is not None:
                heapq.heappush(self.events, follow)
        return self

    def summary(self) -> Tuple[int, float, int]:
        return len(self.done), round(statistics.mean(c.waited for c in self.done), 6), self.desk.longest


results = {servers: Simulation(servers, 400).run().summary() for servers in (1, 2, 3)}
again = Simulation(2, 400).run().summary()

waits = [results[s][1] for s in sorted(results)]
print("deterministic:", again == results[2])
print("more servers, less waiting:", waits == sorted(waits, reverse=True))
output = {"served": [results[s][0] for s in results], "order": sorted(results, key=lambda s: results[s][1])}
'''

SUDOKU = r'''
# Solve a sudoku by constraint propagation and search, then print it.
from copy import deepcopy
from itertools import product
import time

PUZZLE = """
53..7....
6..195...
.98....6.
8...6...3
4..8.3..1
7...2...6
.6....28.
...419..5
....8..79
"""


def parse(text: str) -> list[list[int]]:
    rows = [line.strip() for line in text.strip().splitlines()]
    if len(rows) != 9 or any(len(r) != 9 for r in rows):
        raise ValueError("a sudoku has nine rows of nine")
    return [[0 if ch == "." else int(ch) for ch in row] for row in rows]


def peers(r: int, c: int) -> set[tuple[int, int]]:
    row = {(r, k) for k in range(9)}
    col = {(k, c) for k in range(9)}
    box = {(r // 3 * 3 + i, c // 3 * 3 + j) for i, j in product(range(3), repeat=2)}
    return (row | col | box) - {(r, c)}


PEERS = {(r, c): peers(r, c) for r, c in product(range(9), repeat=2)}


class Contradiction(Exception):
    """No digit is left for a cell."""


def candidates(grid):
    cells = {}
    for (r, c), around in PEERS.items():
        if grid[r][c]:
            continue
        used = {grid[i][j] for i, j in around} - {0}
        left = set(range(1, 10)) - used
        if not left:
            raise Contradiction(f"cell {r},{c}")
        cells[r, c] = left
    return cells


def propagate(grid):
    changed = True
    while changed:
        changed = False
        for (r, c), left in candidates(grid).items():
            if len(left) == 1 and grid[r][c] == 0:
                (grid[r][c],) = left
                changed = True
                break
    return grid


def solve(grid, depth=0):
    try:
        grid = propagate(deepcopy(grid))
    except Contradiction:
        return None
    cells = candidates(grid)
    if not cells:
        return grid
    (r, c), left = min(cells.items(), key=lambda kv: len(kv[1]))
    for digit in sorted(left):
        trial = deepcopy(grid)
        trial[r][c] = digit
        if (found := solve(trial, depth + 1)) is not None:
            return found
    return None


def valid(grid) -> bool:
    return all(grid[r][c] not in {grid[i][j] for i, j in PEERS[r, c]} for r, c in PEERS)


started = time.time()
solution = solve(parse(PUZZLE))
assert solution is not None and valid(solution)
for i, row in enumerate(solution):
    if i % 3 == 0 and i:
        print("------+-------+------")
    print(" | ".join(" ".join(str(d) for d in row[k:k + 3]) for k in (0, 3, 6)))
["".join(map(str, row)) for row in solution][0]
'''

CASES = (
    Harmless(
        "expense_audit",
        A,
        EXPENSE_AUDIT,
        value={
            "people": 20,
            "findings": 5,
            "worst": {"person": "Person 19", "kind": "over_budget", "detail": "$457.00 over", "severity": 2},
            "categories": {"software": 11877.0, "travel": 11720.0, "meals": 10770.0, "office": 10720.0},
        },
        prints=(
            f"Expense audit: engineering (20 people, limit $1,500)\n{'=' * 60}\n"
            "Person 19  over_budget  $457.00 over  !!\nPerson 20  over_budget  $507.00 over  !!\n"
            "Person 1   mover        +2.3%         !\nPerson 14  over_budget  $7.00 over    !\n"
        ),
        tools=("get_team_members", "get_budget", "get_expenses"),
        calls=42,
    ),
    Harmless(
        "order_state_machine",
        A,
        STATE_MACHINE,
        value={
            "change": 10.0,
            "path": ["new", "paid", "shipped", "delivered"],
            "hours": 2.0,
            "errors": ["short by 4.00", "order 2: cannot ship while new", "order 2: cannot cancel while cancelled"],
            "events": ["1:pay", "1:ship", "1:deliver", "2:cancel"],
            "graph": {
                "pay": [["new"], "paid"],
                "ship": [["paid"], "shipped"],
                "deliver": [["shipped"], "delivered"],
                "cancel": [["new", "paid"], "cancelled"],
            },
        },
    ),
    Harmless(
        "inventory_with_cache_and_pages",
        A,
        INVENTORY,
        value={
            "count": 60,
            "mean": 45.75,
            "median": 45.75,
            "stats": {"fetch_ok": 1, "hits": 3, "misses": 5},
            "pivot": {"chair": {"cheap": 4, "expensive": 7, "normal": 9}, "lamp": {"cheap": 9, "expensive": 14, "normal": 17}},
        },
        prints=(
            "sku,color,price\nP060,blue,90.0\nP059,red,88.5\nP058,blue,87.0\n"
            '{"chair": {"cheap": 4, "expensive": 7, "normal": 9}, "lamp": {"cheap": 9, "expensive": 14, "normal": 17}}\n'
        ),
        tools=("search_products",),
        calls=5,
    ),
    Harmless(
        "lisp_interpreter",
        A,
        LISP,
        value=[
            [3628800, 5.0, [1, 4, 9], 8.1416, 3],
            ["undefined: foo", "missing )", "unexpected )", "expected 1 arguments, got 2"],
        ],
    ),
    Harmless(
        "support_triage",
        A,
        SUPPORT_TRIAGE,
        value={
            "tickets": 16,
            "breached": 8,
            "clusters": [6, 4, 3, 3],
            "rest": [100, 108, 112, 120],
            "sent": 3,
            "load": {"u022": [118, 109, 105, 103], "u025": [106, 102, 121, 111], "u028": [114, 117, 115, 123]},
            "by_priority": {"high": 4, "low": 4, "normal": 4, "urgent": 4},
        },
        prints=(
            "  ID PRIO    SCORE  OPENED\n 118 urgent    176  Sat 01 Jun 15:00\n 106 urgent    152  Sun 02 Jun 03:00\n"
            " 114 urgent    136  Sun 02 Jun 11:00\n 109 high      116  Sat 01 Jun 12:00\n 102 urgent    112  Sun 02 Jun 23:00\n"
            '{"high": 4, "low": 4, "normal": 4, "urgent": 4}\n'
        ),
        tools=("get_tickets", "send_email", "get_users"),
        calls=6,
    ),
    Harmless(
        "queue_simulation",
        A,
        EVENT_SIMULATION,
        value={"served": [400, 400, 400], "order": [3, 2, 1]},
        prints="deterministic: True\nmore servers, less waiting: True\n",
    ),
    Harmless(
        "sudoku",
        A,
        SUDOKU,
        value="534678912",
        prints=(
            "5 3 4 | 6 7 8 | 9 1 2\n6 7 2 | 1 9 5 | 3 4 8\n1 9 8 | 3 4 2 | 5 6 7\n------+-------+------\n"
            "8 5 9 | 7 6 1 | 4 2 3\n4 2 6 | 8 5 3 | 7 9 1\n7 1 3 | 9 2 4 | 8 5 6\n------+-------+------\n"
            "9 6 1 | 5 3 7 | 2 8 4\n2 8 7 | 4 1 9 | 6 3 5\n3 4 5 | 2 8 6 | 1 7 9\n"
        ),
    ),
)
