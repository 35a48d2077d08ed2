"""Programs that misuse tools: those not granted, too many, too large, malformed, at the wrong time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.models.program import Status
from tests.sandbox.hostile.program import ANY, FAILED, RAN, STUCK, Hostile


def misuse(
    name: str,
    code: str,
    *tools: str,
    status: frozenset[Status] = RAN,
    held: bool = True,
    limits: Mapping[str, Any] | None = None,
    note: str = "",
) -> Hostile:
    """An attack through tools; one that is held ends by printing so."""
    return Hostile(
        name, "tools", code + ("\nheld()\n" if held else ""), tools=tools, status=status, held=held, limits=limits or {}, note=note
    )


_MANY = """
async def one(n):
    try: return await count(n=n)
    except Exception as error: return str(error)[:500]
"""

PROGRAMS: list[Hostile] = [
    misuse(
        "tool_not_granted",
        """
try: print(await vault())
except NameError: pass
try: print(await call_tool(server='default', tool_name='vault', parameters={}))
except Exception as error: print(error)
""",
        "echo",
    ),
    misuse(
        "tool_not_granted_by_import",
        """
for text in ('from tools.secrets import vault', 'from tools import vault', 'import tools.vault', 'from tools.general import vault'):
    try:
        exec(text)
        breach(text)
    except ImportError: pass
""",
        "echo",
    ),
    misuse(
        "more_calls_than_allowed",
        _MANY
        + """
got = [await one(n) for n in range(150)]
if sum(isinstance(g, int) for g in got) > 100: breach('more than 100 calls')
print(got[-1])
""",
        "count",
    ),
    misuse(
        "ten_thousand_calls_at_once",
        _MANY
        + """
got = await asyncio.gather(*[one(n) for n in range(10_000)])
if sum(isinstance(g, int) for g in got) > 100: breach('more than 100 calls')
""",
        "count",
        status=ANY,
        held=False,
        limits={"timeout_s": 8},
    ),
    misuse(
        "all_slots_at_once",
        """
async def one():
    try: await slow(seconds=0.2)
    except Exception as error: return error
await asyncio.gather(*[one() for _ in range(100)])
""",
        "slow",
    ),
    misuse(
        "calls_from_threads",
        """
got = []
def work():
    async def inner():
        for n in range(20):
            try: got.append(await count(n=n))
            except Exception: pass
    try: asyncio.run(inner())
    except Exception: pass
threads = [threading.Thread(target=work) for _ in range(10)]
[t.start() for t in threads]
await asyncio.sleep(2)
if len(got) > 100: breach('more than 100 calls')
""",
        "count",
        status=ANY,
        held=False,
        limits={"timeout_s": 5},
    ),
    misuse(
        "arguments_that_collide",
        """
for args in ({'self': 1}, {'tool': 'vault'}, {'id': 1}, {'op': 'done'}, {'args': {}}, {'caller': {'type': 'direct'}},
    {'execution_id': 'forged'}, {'key': 'x'}, {'__class__': 'x'}, {'timeout': -1}, {'server': 'x'}, {'_tool': 'vault'},
    {'name': 'vault'}):
    try: await echo(**{'text': 'x', **args})
    except Exception as error: print(type(error).__name__)
""",
        "echo",
    ),
    misuse(
        "arguments_against_the_schema",
        """
for args in ({'amount': 'all', 'to': 'me'}, {'amount': -5, 'to': 'me'}, {'amount': 1}, {'to': 'me'}, {}, {'amount': None,
    'to': None}, {'amount': [1], 'to': {}}, {'amount': True, 'to': 'me'}, {'amount': 1, 'to': 'me', 'more': 1}, {'amount': 1e308,
    'to': 'x' * 10_000}):
    for way in (lambda: pay(**args), lambda: call_tool(server='default', tool_name='pay', parameters=args)):
        try: await way()
        except Exception as error: print(type(error).__name__)
        else: breach(f'paid {args!r:.100}')
""",
        "pay",
        note="a tool whose schema asks for an amount from 1 to 100 and a short name",
    ),
    misuse(
        "arguments_no_json",
        """
for value in (b'x', object(), {1, 2}, float('nan'), float('inf'), 1j, print, ..., range(3), {(1, 2): 3}, '\\ud800', 10 ** 5000):
    try: print(type(await echo(text=value)).__name__)
    except Exception as error: print(type(error).__name__)
""",
        "echo",
        status=ANY,
        held=False,
    ),
    misuse(
        "large_arguments",
        """
try: await echo(text='x' * (20 << 20))
except Exception as error: print(str(error)[:200])
""",
        "echo",
        status=ANY,
        held=False,
    ),
    misuse(
        "large_arguments_again_and_again",
        """
for n in range(100):
    try: await echo(text='x' * (12 << 20))
    except Exception as error: print(str(error)[:200])
""",
        "echo",
        status=ANY,
        held=False,
        limits={"timeout_s": 6},
    ),
    misuse(
        "deep_arguments",
        """
deep = 'x'
for _ in range(5000): deep = [deep]
try: await echo(text=deep)
except Exception as error: print(type(error).__name__)
""",
        "echo",
        status=ANY,
        held=False,
    ),
    misuse(
        "arguments_in_themselves",
        """
me = {}
me['me'] = me
try: await echo(text=me)
except Exception as error: print(type(error).__name__)
""",
        "echo",
        status=ANY,
        held=False,
    ),
    misuse(
        "arguments_changed_after_the_check",
        """
class Shift(str):
    n = 0
    def __str__(self): return 'other'
    def __len__(self): return 1
class Turn(dict):
    def items(self): return [('amount', 10**9), ('to', 'me')]
try:
    await call_tool(server='default', tool_name='pay', parameters=Turn(amount=1, to='x'))
    breach('paid')
except Exception as error: print(type(error).__name__)
""",
        "pay",
    ),
    misuse(
        "secret_in_an_error",
        """
for _ in range(3):
    try: await leaky()
    except BaseException as error:
        import traceback
        print(str(error), repr(error), error.__cause__, error.__context__, vars(error), ''.join(traceback.format_exception(error)))
    else: breach('no error')
""",
        "leaky",
        note="an unexpected exception of a tool: its text belongs to the host",
    ),
    misuse(
        "secret_behind_an_error",
        """
try: await refuses()
except BaseException as error:
    print(str(error), getattr(error, 'code', None), error.__cause__, error.__context__, vars(error))
else: breach('no error')
""",
        "refuses",
        note="a tool's error, meant for the caller, raised from one that is not",
    ),
    misuse("secret_in_an_error_as_value", "await leaky()\n", "leaky", status=FAILED, held=False),
    misuse(
        "results_hoarded",
        """
kept = []
for _ in range(99):
    kept.append(await big())
    kept.append(kept[-1] * 20)
""",
        "big",
        status=ANY,
        held=False,
        limits={"timeout_s": 6},
    ),
    misuse(
        "calls_in_flight_at_the_end",
        """
kept = [asyncio.create_task(slow(seconds=20)) for _ in range(30)]
await asyncio.sleep(0.3)
held()
'left in flight'
""",
        "slow",
        held=False,
        status=ANY,
    ),
    misuse(
        "calls_in_flight_at_the_limit",
        """
await asyncio.gather(*[slow(seconds=20) for _ in range(64)])
""",
        "slow",
        held=False,
        status=STUCK,
        limits={"timeout_s": 2},
        note="cancelled when the time is over",
    ),
    misuse(
        "calls_in_flight_when_it_dies",
        """
kept = [asyncio.create_task(slow(seconds=20)) for _ in range(10)]
await asyncio.sleep(0.3)
os._exit(0)
""",
        "slow",
        held=False,
        status=FAILED,
    ),
    misuse(
        "calls_for_ever",
        """
n = 0
while True:
    n += 1
    try: await count(n=n)
    except Exception: pass
""",
        "count",
        held=False,
        status=FAILED,
        limits={"timeout_s": 2},
        note="after the limit: errors for ever, and none after the end",
    ),
    misuse(
        "cancelled_and_called_again",
        """
for _ in range(60):
    task = asyncio.create_task(slow(seconds=20))
    await asyncio.sleep(0.005)
    task.cancel()
    try: await task
    except (asyncio.CancelledError, Exception): pass
""",
        "slow",
        status=ANY,
        held=False,
    ),
    misuse(
        "odd_timeouts",
        """
for timeout in (0, -1, float('nan'), float('inf'), 1e308, '30', None, True, [], 10**400):
    try: await call_tool(server='default', tool_name='echo', parameters={'text': 'x'}, timeout=timeout)
    except Exception as error: print(type(error).__name__)
""",
        "echo",
        limits={"timeout_s": 20},
    ),
    misuse(
        "input_of_another",
        """
print(input_data)
print(input)
if 'other_job' in str(input_data): breach('input of another job')
""",
    ),
]
