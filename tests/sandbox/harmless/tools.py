"""The tools of the harmless programs: ordinary functions with type hints, the same answer every time, nothing outside.

`tools_for` makes them anew for every program, since some of them count how often they were called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Literal

from orchestrator.errors import ToolError

Tool = Callable[..., Any]

DEPARTMENTS = ("engineering", "sales", "marketing", "finance")
CATEGORIES = ("travel", "meals", "software", "office")
QUARTERS = {"Q1": 1, "Q2": 4, "Q3": 7, "Q4": 10}
RATES = {"USD": 1.0, "EUR": 1.1, "GBP": 1.25, "JPY": 0.0068, "INR": 0.012}
STOCK = {"laptop": 12, "mouse": 250, "monitor": 0, "keyboard": 85, "dock": 3}
PEOPLE = 48  # 45 of them active


def _person(number: int) -> dict[str, Any]:
    department = DEPARTMENTS[0] if number <= 20 else DEPARTMENTS[1 + number % 3]
    return {
        "id": f"u{number:03d}",
        "name": f"Person {number}",
        "department": department,
        "level": ("junior", "mid", "senior")[number % 3],
        "status": "active" if number <= 45 else "inactive",
        "manager_id": None if number == 1 else f"u{number // 2:03d}",
    }


def get_team_members(department: str | None = None, status: str = "active") -> list[dict[str, Any]]:
    """People of a department (all departments by default) with a status.

    Args:
        department: engineering, sales, marketing or finance.
        status: active or inactive.
    """
    people = [_person(n) for n in range(1, PEOPLE + 1)]
    return [p for p in people if p["status"] == status and department in (None, p["department"])]


def get_users(department: str) -> list[dict[str, Any]]:
    """The active users of one department: id and name."""
    return [{"id": p["id"], "name": p["name"]} for p in get_team_members(department)]


def get_user_profile(user_id: str) -> dict[str, Any]:
    """One person by id."""
    number = int(user_id[1:]) if user_id[1:].isdigit() else 0
    if not 1 <= number <= PEOPLE:
        raise ToolError(f"There is no user `{user_id}`.", code="not_found")
    return _person(number)


def get_expenses(user_id: str, quarter: str = "Q3") -> list[dict[str, Any]]:
    """The expenses of one person in a quarter: amount in US dollars, category, date."""
    number, month = int(user_id[1:]), QUARTERS[quarter]
    return [
        {
            "amount": float(number * 100 + 50 * i + month),
            "category": CATEGORIES[(number + i) % 4],
            "date": f"2024-{month + i:02d}-{1 + number % 28:02d}",
        }
        for i in range(1 + number % 3)
    ]


def get_budget(department: str) -> dict[str, Any]:
    """The travel budget of a department for each of its people."""
    return {"department": department, "travel": 1500.0, "currency": "USD"}


def get_exchange_rate(base: str, quote: str = "USD") -> float:
    """How much of `quote` one unit of `base` buys."""
    if base not in RATES or quote not in RATES:
        raise ToolError(f"No rate for {base}/{quote}.", code="unknown_currency")
    return round(RATES[base] / RATES[quote], 6)


def compute_tax(amount: float, tax_rate: float = 0.08) -> dict[str, float]:
    """The tax on an amount, and the total."""
    tax = round(amount * tax_rate, 2)
    return {"tax": tax, "total": round(amount + tax, 2)}


def generate_report(user_id: str) -> dict[str, Any]:
    """The performance report of one person: name and a score of 60 to 99."""
    number = int(user_id[1:])
    return {"name": f"Person {number}", "score": 60 + number * 7 % 40}


def search_products(query: str, page: int = 1, per_page: int = 10) -> dict[str, Any]:
    """Products whose name has the query in it, a page at a time: items, page, pages, total."""
    found = [
        {"sku": f"P{n:03d}", "name": f"{'red' if n % 2 else 'blue'} {'lamp' if n % 3 else 'chair'} {n}", "price": n * 1.5}
        for n in range(1, 61)
    ]
    found = [p for p in found if query in str(p["name"])]
    items = found[(page - 1) * per_page : page * per_page]
    return {"items": items, "page": page, "pages": -(-len(found) // per_page), "total": len(found)}


def list_orders(cursor: str | None = None, limit: int = 25) -> dict[str, Any]:
    """Orders by cursor: orders and next_cursor, which is null on the last page."""
    start = int(cursor) if cursor else 0
    orders = [{"id": n, "total": (n * 37 % 100) + 0.5, "region": ("north", "south", "west")[n % 3]} for n in range(60)]
    end = start + limit
    return {"orders": orders[start:end], "next_cursor": str(end) if end < len(orders) else None}


def check_stock(product: str) -> int:
    """How many of a product are in stock."""
    if product not in STOCK:
        raise ToolError(f"Unknown product: {product}", code="not_found")
    return STOCK[product]


def get_weather(city: str, units: Literal["metric", "imperial"] = "metric") -> dict[str, Any]:
    """The weather of a city: temperature, condition, humidity."""
    celsius = sum(map(ord, city)) % 30
    temperature = celsius if units == "metric" else celsius * 9 / 5 + 32
    return {"city": city, "temperature": temperature, "condition": ("sunny", "rainy", "cloudy")[celsius % 3], "units": units}


def get_tickets(status: str = "open", priority: str | None = None) -> list[dict[str, Any]]:
    """Support tickets: id, status, priority, hours, subject."""
    tickets = [
        {
            "id": 100 + n,
            "status": ("open", "closed", "pending")[n % 3],
            "priority": ("low", "high", "urgent", "normal")[n % 4],
            "hours": n * 5 % 48,
            "subject": ("Login fails", "Refund please", "App crashes", "Slow dashboard", "Login page broken")[n % 5],
        }
        for n in range(24)
    ]
    return [t for t in tickets if t["status"] == status and priority in (None, t["priority"])]


def send_email(to: str, subject: str, body: str = "", cc: list[str] | None = None) -> dict[str, Any]:
    """Sends an email; says to how many it went."""
    return {"sent": True, "to": to, "subject": subject, "length": len(body), "recipients": 1 + len(cc or [])}


def read_log(service: str) -> str:
    """The last lines of a service's log."""
    levels = ("INFO", "INFO", "WARNING", "INFO", "ERROR")
    return "\n".join(
        f"2024-03-{1 + n // 10:02d} 12:{n:02d}:00 [{levels[n % 5]}] {service}: request {n} took {n * 13 % 97} ms" for n in range(30)
    )


def echo(value: Any) -> Any:
    """Gives back what it got."""
    return value


def always_down(service: str) -> dict[str, Any]:
    """Asks a service that is never there."""
    raise ToolError(f"{service} is unavailable", code="unavailable")


async def slow_lookup(key: str, seconds: float = 0.05) -> dict[str, Any]:
    """Looks a key up, slowly."""
    await asyncio.sleep(seconds)
    return {"key": key, "found": True}


def _flaky_fetch() -> Tool:
    tries: dict[str, int] = {}

    def flaky_fetch(key: str, fails: int = 2) -> dict[str, Any]:
        """Fetches a key; the first `fails` tries of each key fail."""
        tries[key] = tries.get(key, 0) + 1
        if tries[key] <= fails:
            raise ToolError(f"temporary failure {tries[key]} for {key}", code="temporary")
        return {"key": key, "attempts": tries[key]}

    return flaky_fetch


def _counter() -> Tool:
    calls: list[str] = []

    def count_call(label: str) -> int:
        """Counts its calls in this program."""
        calls.append(label)
        return len(calls)

    return count_call


DOMAINS: dict[str, tuple[Tool, ...]] = {
    "hr": (get_team_members, get_users, get_user_profile),
    "finance": (get_expenses, get_budget, get_exchange_rate, compute_tax),
    "reports": (generate_report,),
    "shop": (search_products, list_orders, check_stock),
    "weather": (get_weather,),
    "support": (get_tickets, send_email),
    "ops": (read_log, always_down, slow_lookup),
    "general": (echo,),
}
STATEFUL: dict[str, tuple[str, Callable[[], Tool]]] = {"flaky_fetch": ("ops", _flaky_fetch), "count_call": ("ops", _counter)}

_STATELESS = {tool.__name__: (domain, tool) for domain, tools in DOMAINS.items() for tool in tools}


def tools_for(names: Iterable[str]) -> dict[str, Tool]:
    """The tools of those names, fresh."""
    return {name: STATEFUL[name][1]() if name in STATEFUL else _STATELESS[name][1] for name in names}


def domain_of(name: str) -> str:
    """The domain of a tool: `finance` in `from tools.finance import get_expenses`."""
    return STATEFUL[name][0] if name in STATEFUL else _STATELESS[name][0]
