"""Imports in every form, of tools and of the library."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "imports"
TOOLS = ("get_expenses", "compute_tax")
CALL = (("get_expenses", {"user_id": "u002"}),)
TOTAL = "sum(e['amount'] for e in items)"

CASES = (
    Harmless(
        "from_tools_finance_import",
        A,
        f"from tools.finance import get_expenses\n\nitems = await get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "import_tools_finance",
        A,
        f"import tools.finance\n\nitems = await tools.finance.get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "import_tools_finance_as_f",
        A,
        f"import tools.finance as f\n\nitems = await f.get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "from_tools_import_finance",
        A,
        f"from tools import finance\n\nitems = await finance.get_expenses(user_id='u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "from_tools_import_finance_as_fin",
        A,
        f"from tools import finance as fin, weather\n\nitems = await fin.get_expenses(user_id='u002')\n[{TOTAL}, weather.__name__]",
        value=[771.0, "tools.weather"],
        tools=(*TOOLS, "get_weather"),
        calls=CALL,
    ),
    Harmless(
        "from_tools_finance_import_several_with_alias",
        A,
        f"from tools.finance import (\n    get_expenses as fetch,\n    compute_tax,\n)\n\nitems = await fetch('u002')\n"
        f"(await compute_tax({TOTAL}, 0.1))['total']",
        value=848.1,
        tools=TOOLS,
        calls=2,
    ),
    Harmless(
        "from_tools_finance_import_star",
        A,
        f"from tools.finance import *\n\nitems = await get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "plain_names_without_import",
        A,
        f"items = await get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "import_inside_a_function",
        A,
        r"""
async def load(user):
    from tools.finance import get_expenses
    import math
    return math.fsum(e["amount"] for e in await get_expenses(user))

await load("u002")
""",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "imports_from_several_domains",
        A,
        r"""
from tools.finance import get_budget
from tools.hr import get_users
from tools import reports
import tools.support as support

users, budget = await asyncio.gather(get_users("sales"), get_budget(department="sales"))
report = await reports.generate_report(users[0]["id"])
urgent = await support.get_tickets(priority="urgent")
[len(users), budget["travel"], report["name"], [t["id"] for t in urgent]]
""",
        value=[9, 1500.0, "Person 21", [106, 118]],
        tools=("get_budget", "get_users", "generate_report", "get_tickets"),
        calls=4,
    ),
    Harmless(
        "import_under_try_with_fallback",
        A,
        r"""
try:
    import orjson as fastjson
except ImportError:
    import json as fastjson

try:
    from tools.finance import get_expenses
except ImportError:
    get_expenses = None

fastjson.loads(fastjson.dumps({"have": get_expenses is not None}))
""",
        value={"have": True},
        tools=TOOLS,
        calls=(),
    ),
    Harmless(
        "preloaded_names_need_no_import",
        A,
        r"""
data = json.loads('{"xs": [4, 9]}')
roots = [math.sqrt(x) for x in data["xs"]]
digits = re.findall(r"\d", "a1b2")
day = datetime.date(2024, 2, 29).isoformat()
await asyncio.sleep(0)
roots, digits, day
""",
        value=[[2.0, 3.0], ["1", "2"], "2024-02-29"],
    ),
    Harmless(
        "from_datetime_import_shadows_the_module",
        A,
        r"""
from datetime import datetime, timedelta
import datetime as dt
d = datetime(2024, 1, 1) + timedelta(days=1)
d == dt.datetime(2024, 1, 2), isinstance(d, datetime)
""",
        value=[True, True],
    ),
    Harmless(
        "imports_in_one_line_and_dotted",
        A,
        r"""
import json, math, re; import collections.abc as cabc
import xml.dom.minidom, email.utils
import concurrent.futures
from collections import (abc,
                         Counter)
[cabc is abc, isinstance([], cabc.Sequence), Counter("aab").most_common(1)[0][0], email.utils.parseaddr("A <a@b.c>")[1],
 concurrent.futures.ThreadPoolExecutor.__name__]
""",
        value=[True, True, "a", "a@b.c", "ThreadPoolExecutor"],
    ),
    Harmless(
        "type_checking_imports",
        A,
        r"""
from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

def price(x: Decimal | None = None) -> Decimal | str:
    return x or "free"

price()
""",
        value="free",
    ),
    Harmless(
        "docs_of_a_stub",
        A,
        r"""
import inspect
from tools.finance import compute_tax

params = list(inspect.signature(compute_tax).parameters)
params, "tax" in (compute_tax.__doc__ or "").lower(), inspect.iscoroutinefunction(compute_tax)
""",
        value=[["amount", "tax_rate"], True, True],
        tools=TOOLS,
        calls=(),
    ),
    Harmless(
        "from_tools_import_the_function",
        A,
        f"from tools import get_expenses\n\nitems = await get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "import_tools_alone",
        A,
        f"import tools\n\nitems = await tools.finance.get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "import_from_the_module_of_the_stub",
        A,
        f"from tools.finance.get_expenses import get_expenses\n\nitems = await get_expenses('u002')\n{TOTAL}",
        value=771.0,
        tools=TOOLS,
        calls=CALL,
    ),
    Harmless(
        "same_import_twice_and_both_ways",
        A,
        "import tools.finance as f\nfrom tools.finance import get_expenses\nimport tools.finance\n\n"
        "a, b = await asyncio.gather(f.get_expenses('u002'), get_expenses('u002'))\na == b, f.get_expenses is get_expenses",
        value=[True, True],
        tools=TOOLS,
        calls=2,
    ),
)
