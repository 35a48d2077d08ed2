"""asyncio in every shape that models give it, beside threads."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "concurrency"

CASES = (
    Harmless(
        "asyncio_run_main_value",
        A,
        r"""
import asyncio

async def work(n):
    await asyncio.sleep(0)
    return n * 2

async def main():
    results = await asyncio.gather(*(work(i) for i in range(5)))
    return sum(results)

asyncio.run(main())
""",
        value=20,
    ),
    Harmless(
        "asyncio_run_assigned_and_printed",
        A,
        r"""
import asyncio

async def main():
    await asyncio.sleep(0.001)
    return {"ok": True}

result = asyncio.run(main())
print(result)
""",
        prints="{'ok': True}\n",
    ),
    Harmless(
        "asyncio_run_twice",
        A,
        r"""
import asyncio

async def step(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1

a = asyncio.run(step(1))
b = asyncio.run(step(a), debug=False)
a, b
""",
        value=[2, 3],
    ),
    Harmless(
        "main_guard_with_asyncio_run",
        A,
        r"""
#!/usr/bin/env python3
import asyncio

async def main() -> None:
    team = await get_team_members("engineering")
    print(f"{len(team)} engineers")

if __name__ == "__main__":
    asyncio.run(main())
""",
        prints="20 engineers\n",
        tools=("get_team_members",),
        calls=(("get_team_members", {"department": "engineering"}),),
    ),
    Harmless(
        "run_until_complete",
        A,
        r"""
import asyncio

async def fetch_all():
    rates = await asyncio.gather(get_exchange_rate("EUR"), get_exchange_rate("GBP"))
    return rates

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
try:
    rates = loop.run_until_complete(fetch_all())
finally:
    loop.close()
rates
""",
        value=[1.1, 1.25],
        tools=("get_exchange_rate",),
        calls=2,
    ),
    Harmless(
        "get_event_loop_run_until_complete",
        A,
        r"""
import asyncio

async def total():
    return sum([await compute(i) for i in range(4)])

async def compute(i):
    await asyncio.sleep(0)
    return i ** 2

loop = asyncio.get_event_loop()
output = loop.run_until_complete(total())
""",
        value=14,
    ),
    Harmless(
        "asyncio_runner_context",
        A,
        r"""
import asyncio

async def double(x):
    await asyncio.sleep(0)
    return x * 2

with asyncio.Runner() as runner:
    values = [runner.run(double(i)) for i in (1, 2)]
values
""",
        value=[2, 4],
    ),
    Harmless(
        "asyncio_run_inside_a_function_with_top_level_await",
        A,
        r"""
import asyncio

async def inner(x):
    return (await echo(x)) + 1

def sync_wrapper(x):
    return asyncio.run(inner(x))

first = await echo(10)
second = sync_wrapper(first)
[first, second]
""",
        value=[10, 11],
        tools=("echo",),
        calls=(("echo", {"value": 10}), ("echo", {"value": 10})),
    ),
    Harmless(
        "task_group",
        A,
        r"""
import asyncio

async def main():
    async with asyncio.TaskGroup() as tg:
        tasks = [tg.create_task(slow_lookup(f"k{i}"), name=f"t{i}") for i in range(5)]
    return [t.result()["key"] for t in tasks]

await main()
""",
        value=["k0", "k1", "k2", "k3", "k4"],
        tools=("slow_lookup",),
        calls=tuple(("slow_lookup", {"key": f"k{i}"}) for i in range(5)),
    ),
    Harmless(
        "task_group_failure_as_exception_group",
        A,
        r"""
import asyncio

async def ok():
    await asyncio.sleep(5)
    return 1

async def bad(msg):
    await asyncio.sleep(0)
    raise ValueError(msg)

caught, cancelled = [], None
try:
    async with asyncio.TaskGroup() as tg:
        t = tg.create_task(ok())
        tg.create_task(bad("one"))
        tg.create_task(bad("two"))
except* ValueError as eg:
    caught = sorted(str(e) for e in eg.exceptions)
caught, t.cancelled()
""",
        value=[["one", "two"], True],
    ),
    Harmless(
        "semaphore_limits_concurrency",
        A,
        r"""
import asyncio

async def bounded(items, limit=3):
    sem = asyncio.Semaphore(limit)
    running = peak = 0

    async def one(item):
        nonlocal running, peak
        async with sem:
            running += 1
            peak = max(peak, running)
            result = await slow_lookup(item, seconds=0.01)
            running -= 1
            return result["key"]

    return await asyncio.gather(*[one(i) for i in items]), peak

keys, peak = await bounded([f"id-{n}" for n in range(9)])
{"n": len(keys), "first": keys[0], "peak": peak}
""",
        value={"n": 9, "first": "id-0", "peak": 3},
        tools=("slow_lookup",),
        calls=9,
    ),
    Harmless(
        "queue_producer_consumer",
        A,
        r"""
import asyncio

async def producer(q, n):
    for i in range(n):
        await q.put(i)
    await q.put(None)

async def consumer(q, out):
    while (item := await q.get()) is not None:
        out.append(item * item)
        q.task_done()
    q.task_done()

async def main():
    q, out = asyncio.Queue(maxsize=2), []
    await asyncio.gather(producer(q, 6), consumer(q, out))
    await q.join()
    pq = asyncio.PriorityQueue()
    for p in (3, 1, 2):
        pq.put_nowait((p, f"job{p}"))
    order = [pq.get_nowait()[1] for _ in range(3)]
    return out, order

output = await main()
""",
        value=[[0, 1, 4, 9, 16, 25], ["job1", "job2", "job3"]],
    ),
    Harmless(
        "wait_first_completed",
        A,
        r"""
import asyncio

fast = asyncio.create_task(slow_lookup("fast", 0.01))
slow = asyncio.create_task(slow_lookup("slow", 20))
done, pending = await asyncio.wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED)
winner = done.pop().result()["key"]
for task in pending:
    task.cancel()
gathered = await asyncio.gather(*pending, return_exceptions=True)
[winner, len(pending), [type(g).__name__ for g in gathered]]
""",
        value=["fast", 1, ["CancelledError"]],
        tools=("slow_lookup",),
    ),
    Harmless(
        "wait_for_timeout",
        A,
        r"""
import asyncio

try:
    await asyncio.wait_for(slow_lookup("x", seconds=20), timeout=0.05)
    status = "finished"
except asyncio.TimeoutError:
    status = "timed out"

quick = await asyncio.wait_for(slow_lookup("y", 0.001), timeout=10)
[status, quick["key"]]
""",
        value=["timed out", "y"],
        tools=("slow_lookup",),
    ),
    Harmless(
        "timeout_context",
        A,
        r"""
import asyncio

results = {}
for name, seconds in [("a", 0.001), ("b", 30)]:
    try:
        async with asyncio.timeout(0.2 if name == "b" else 10):
            results[name] = (await slow_lookup(name, seconds))["found"]
    except TimeoutError:
        results[name] = "timeout"
results
""",
        value={"a": True, "b": "timeout"},
        tools=("slow_lookup",),
    ),
    Harmless(
        "as_completed_with_progress",
        A,
        r"""
import asyncio

async def job(n):
    for _ in range(n):
        await asyncio.sleep(0)
    return n

finished = []
for i, coro in enumerate(asyncio.as_completed([job(n) for n in (9, 1, 5)]), 1):
    finished.append(await coro)
    print(f"{i}/3")
sorted(finished)
""",
        value=[1, 5, 9],
        prints="1/3\n2/3\n3/3\n",
    ),
    Harmless(
        "event_condition_lock",
        A,
        r"""
import asyncio

async def main():
    ready, log = asyncio.Event(), []
    lock, cond = asyncio.Lock(), asyncio.Condition()
    stock = []

    async def waiter(name):
        await ready.wait()
        async with lock:
            log.append(name)

    async def taker():
        async with cond:
            await cond.wait_for(lambda: len(stock) > 0)
            return stock.pop()

    tasks = [asyncio.create_task(waiter(n)) for n in "abc"]
    take = asyncio.create_task(taker())
    await asyncio.sleep(0)
    ready.set()
    async with cond:
        stock.append("box")
        cond.notify_all()
    await asyncio.gather(*tasks)
    return log, await take, lock.locked()

asyncio.run(main())
""",
        value=[["a", "b", "c"], "box", False],
    ),
    Harmless(
        "create_task_callbacks_and_cancel",
        A,
        r"""
import asyncio

log = []

async def child(n):
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        log.append(f"cancelled {n}")
        raise
    finally:
        log.append(f"cleanup {n}")

task = asyncio.create_task(child(1), name="child-1")
task.add_done_callback(lambda t: log.append(t.get_name()))
await asyncio.sleep(0)
task.cancel("stop")
try:
    await task
except asyncio.CancelledError:
    log.append("done")
await asyncio.sleep(0)
future = asyncio.get_running_loop().create_future()
asyncio.get_running_loop().call_soon(future.set_result, 7)
shielded = await asyncio.shield(asyncio.ensure_future(asyncio.sleep(0, "s")))
sorted(log), await future, shielded, asyncio.iscoroutinefunction(child), task.cancelled()
""",
        value=[["cancelled 1", "child-1", "cleanup 1", "done"], 7, "s", True, True],
    ),
    Harmless(
        "to_thread_and_run_in_executor",
        A,
        r"""
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

def blocking(n):
    time.sleep(0.005)
    return n * 10

first = await asyncio.gather(*(asyncio.to_thread(blocking, n) for n in range(3)))
loop = asyncio.get_running_loop()
with ThreadPoolExecutor(2) as pool:
    second = await asyncio.gather(*[loop.run_in_executor(pool, blocking, n) for n in (7, 8)])
third = await loop.run_in_executor(None, lambda: blocking(1))
[first, second, third]
""",
        value=[[0, 10, 20], [70, 80], 10],
    ),
    Harmless(
        "async_generators_and_comprehensions",
        A,
        r"""
import asyncio
from contextlib import aclosing

async def ticker(n):
    try:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    finally:
        closed.append(n)

closed = []
evens = [i async for i in ticker(6) if i % 2 == 0]
table = {i: await echo(i * i) async for i in ticker(3)}
total = sum([x async for x in (y * 2 async for y in ticker(4))])
async with aclosing(ticker(100)) as gen:
    async for i in gen:
        if i == 2:
            break
first = await anext(ticker(1))
evens, list(table.values()), total, first, closed[:4]
""",
        value=[[0, 2, 4], [0, 1, 4], 12, 0, [6, 3, 4, 100]],
        tools=("echo",),
        calls=3,
    ),
    Harmless(
        "async_context_manager_and_iterator_class",
        A,
        r"""
import asyncio
from contextlib import asynccontextmanager, AsyncExitStack

events = []

@asynccontextmanager
async def session(name):
    events.append(f"open {name}")
    try:
        yield {"name": name}
    finally:
        await asyncio.sleep(0)
        events.append(f"close {name}")

class Pages:
    def __init__(self, n): self.n, self.i = n, 0
    def __aiter__(self): return self
    async def __anext__(self):
        if self.i >= self.n:
            raise StopAsyncIteration
        self.i += 1
        return await echo(self.i)

class Conn:
    async def __aenter__(self): events.append("enter"); return self
    async def __aexit__(self, *exc): events.append("exit")

async with session("a") as s, Conn() as c:
    pages = [p async for p in Pages(3)]
async with AsyncExitStack() as stack:
    for n in "xy":
        await stack.enter_async_context(session(n))
[s["name"], pages, events]
""",
        value=["a", [1, 2, 3], ["open a", "enter", "exit", "close a", "open x", "open y", "close y", "close x"]],
        tools=("echo",),
        calls=3,
    ),
    Harmless(
        "contextvars_across_tasks",
        A,
        r"""
import asyncio
import contextvars

request_id = contextvars.ContextVar("request_id", default="-")

async def handle(n):
    request_id.set(f"req-{n}")
    await echo(n)
    return request_id.get()

ids = await asyncio.gather(*map(handle, range(3)))
ids, request_id.get()
""",
        value=[["req-0", "req-1", "req-2"], "-"],
        tools=("echo",),
        calls=3,
    ),
    Harmless(
        "awaitable_object_and_coroutine_reuse",
        A,
        r"""
import asyncio

class Lazy:
    def __init__(self, value): self.value = value
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value

coro = echo("later")
task = asyncio.ensure_future(echo("now"))
pending = {"a": echo(1), "b": echo(2)}
named = dict(zip(pending, await asyncio.gather(*pending.values())))
[await Lazy(5), await task, await coro, named, await asyncio.gather()]
""",
        value=[5, "now", "later", {"a": 1, "b": 2}, []],
        tools=("echo",),
        calls=4,
    ),
    Harmless(
        "threads_and_top_level_await",
        A,
        r"""
import threading
from concurrent.futures import ThreadPoolExecutor

profile = await get_user_profile("u007")
counter = {"n": 0}
lock = threading.RLock()
done = threading.Event()
local = threading.local()

def bump(k):
    local.k = k
    for _ in range(100):
        with lock:
            counter["n"] += 1
    if k == 3:
        done.set()

with ThreadPoolExecutor(max_workers=4) as pool:
    list(pool.map(bump, range(4)))
timer = threading.Timer(0.001, done.set)
timer.start()
timer.join()
profile["name"], counter["n"], done.is_set(), hasattr(local, "k")
""",
        value=["Person 7", 400, True, False],
        tools=("get_user_profile",),
        calls=1,
    ),
    Harmless(
        "gather_of_gathers_and_nested_tasks",
        A,
        r"""
import asyncio

async def department(name):
    people = await get_users(name)
    reports = await asyncio.gather(*(generate_report(p["id"]) for p in people))
    return name, round(sum(r["score"] for r in reports) / len(reports), 2)

departments = ["engineering", "sales", "marketing", "finance"]
averages = dict(await asyncio.gather(*[asyncio.create_task(department(d)) for d in departments]))
averages
""",
        value={"engineering": 79.5, "sales": 82.11, "marketing": 82.5, "finance": 74.5},
        tools=("get_users", "generate_report"),
        calls=49,
    ),
    Harmless(
        "loop_time_and_sleep_zero_rounds",
        A,
        r"""
import asyncio, time

loop = asyncio.get_running_loop()
start = loop.time()
order = []

async def player(name, rounds):
    for i in range(rounds):
        order.append(f"{name}{i}")
        await asyncio.sleep(0)

await asyncio.gather(player("a", 2), player("b", 2))
await asyncio.sleep(0.01)
elapsed = loop.time() - start
order, elapsed >= 0.009, asyncio.current_task() is not None, len(asyncio.all_tasks()) >= 1
""",
        value=[["a0", "b0", "a1", "b1"], True, True, True],
    ),
    Harmless(
        "asyncio_run_in_threads_of_a_pool",
        A,
        r"""
import asyncio
from concurrent.futures import ThreadPoolExecutor

def worker(user_id):
    return asyncio.run(generate_report(user_id))["score"]

with ThreadPoolExecutor(max_workers=3) as pool:
    scores = list(pool.map(worker, ["u001", "u002", "u003", "u004"]))
scores
""",
        value=[67, 74, 81, 88],
        tools=("generate_report",),
        calls=4,
    ),
    Harmless(
        "run_coroutine_threadsafe_from_a_thread",
        A,
        r"""
import asyncio

loop = asyncio.get_running_loop()

def blocking(x):
    future = asyncio.run_coroutine_threadsafe(echo(x), loop)
    return future.result(timeout=10) + 1

await asyncio.gather(*(asyncio.to_thread(blocking, i) for i in range(3)))
""",
        value=[1, 2, 3],
        tools=("echo",),
        calls=3,
    ),
    Harmless(
        "notebook_or_script",
        A,
        r"""
import asyncio

async def main():
    rate = await get_exchange_rate("EUR")
    print(f"rate {rate}")
    return rate

try:
    loop = asyncio.get_running_loop()
except RuntimeError:
    loop = None

if loop and loop.is_running():
    task = loop.create_task(main())
else:
    asyncio.run(main())
""",
        prints="rate 1.1\n",
        tools=("get_exchange_rate",),
        calls=1,
    ),
    Harmless(
        "event_loop_is_running_or_not",
        A,
        r"""
import asyncio

async def main():
    print("hello from", (await get_weather("Bonn"))["city"])

loop = asyncio.get_event_loop()
if loop.is_running():
    asyncio.ensure_future(main())
else:
    loop.run_until_complete(main())
""",
        prints="hello from Bonn\n",
        tools=("get_weather",),
        calls=1,
    ),
    Harmless(
        "windows_policy_and_keyboard_interrupt",
        A,
        r"""
import asyncio
import sys

async def main() -> int:
    await asyncio.sleep(0)
    print("ran")
    return 0

if __name__ == "__main__":
    if sys.platform == "win32":
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped by the user")
""",
        prints="ran\n",
    ),
    Harmless(
        "asyncio_run_inside_an_async_function",
        A,
        r"""
import asyncio

async def total(users):
    return sum([len(await get_expenses(u)) for u in users])

def count(users):
    return asyncio.run(total(users))

async def main():
    return [count(["u001"]), await total(["u002"]), count(["u003", "u004"])]

await main()
""",
        value=[2, 3, 3],
        tools=("get_expenses",),
        calls=4,
    ),
    Harmless(
        "background_task_beside_a_nested_run",
        A,
        r"""
import asyncio

async def beat():
    for i in range(3):
        beats.append(i)
        await asyncio.sleep(0)

async def fetch(n):
    return await echo(n)

beats = []
task = asyncio.create_task(beat())
inner = asyncio.run(asyncio.wait_for(fetch(1), 10)), await fetch(2)
await task
inner, beats
""",
        value=[[1, 2], [0, 1, 2]],
        tools=("echo",),
        calls=2,
    ),
    Harmless(
        "barrier_bounded_semaphore_and_queue_timeout",
        A,
        r"""
import asyncio

async def main():
    barrier = asyncio.Barrier(3)
    order = []

    async def racer(n):
        position = await barrier.wait()
        order.append(n)
        return position

    positions = await asyncio.gather(*map(racer, range(3)))
    sem = asyncio.BoundedSemaphore(1)
    async with sem:
        locked = sem.locked()
    try:
        sem.release()
    except ValueError as e:
        problem = type(e).__name__
    q = asyncio.LifoQueue()
    for x in "ab":
        await q.put(x)
    last = await q.get()
    await q.get()
    try:
        await asyncio.wait_for(q.get(), 0.01)
    except asyncio.TimeoutError:
        empty = q.empty()
    return sorted(positions), sorted(order), locked, problem, last, empty

asyncio.run(main())
""",
        value=[[0, 1, 2], [0, 1, 2], True, "ValueError", "b", True],
    ),
    Harmless(
        "chain_of_tasks_each_starting_the_next",
        A,
        r"""
import asyncio

async def step(n):
    if n == 0:
        return await echo("end")
    return await asyncio.create_task(step(n - 1))

await step(300)
""",
        value="end",
        tools=("echo",),
        calls=1,
    ),
    Harmless(
        "recursive_fan_out",
        A,
        r"""
async def walk(node_id, depth):
    profile = await get_user_profile(f"u{node_id:03d}")
    if depth == 0:
        return [profile["id"]]
    left, right = await asyncio.gather(walk(node_id * 2, depth - 1), walk(node_id * 2 + 1, depth - 1))
    return left + right

await walk(1, 3)
""",
        value=["u008", "u009", "u010", "u011", "u012", "u013", "u014", "u015"],
        tools=("get_user_profile",),
        calls=15,
    ),
    Harmless(
        "a_loop_of_its_own_in_each_thread",
        A,
        r"""
import asyncio
import threading

found = []

def work(i):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        found.append(loop.run_until_complete(echo(i)))
    finally:
        loop.close()

threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
sorted(found)
""",
        value=[0, 1, 2],
        tools=("echo",),
        calls=3,
    ),
    Harmless(
        "future_set_from_a_thread",
        A,
        r"""
import asyncio, threading

loop = asyncio.get_running_loop()
future = loop.create_future()
threading.Thread(target=lambda: loop.call_soon_threadsafe(future.set_result, 9)).start()
handle = loop.call_later(60, print, "never")
handle.cancel()
await asyncio.wait_for(future, 10)
""",
        value=9,
    ),
    Harmless(
        "a_thread_that_nobody_joins",
        A,
        r"""
import threading

told = threading.Event()

def late():
    told.wait(10)
    print("late")

threading.Thread(target=late).start()
print("main")
told.set()
""",
        prints="main\nlate\n",
    ),
    Harmless(
        "nest_asyncio_where_there_is_one",
        A,
        r"""
try:
    import nest_asyncio
    nest_asyncio.apply()
except ImportError:
    pass

async def main():
    return await echo(3)

asyncio.run(main())
""",
        value=3,
        tools=("echo",),
        calls=1,
    ),
)
