"""What the catalog costs: `python bench/catalog.py`. `pip install 'toolweaver[mcp]'` first.

- discovery: `discover_all()` from the cache, in a fresh process each time, without its imports; beside it, in the same
  processes, the least that any cache of this content could take: to read such a file and to parse it as JSON.
- render: ten of those tools for each vendor, with their names mapped.
- update: from `publish` in one process to the catalog that another one reads; and from a server's `tools/list_changed`.
- a call: of a tool that does next to nothing, its server's session kept. `bare` is the SDK's own `Client.call_tool`, `session`
  our connection's call, `job` a whole job of one such call through the pool, from its submission to its end; `hop` the same
  job of a trivial async function. In turn, call by call: the goal for a job is a hop and 1.3 bare calls. At once: 50 calls
  of one session, and a job that maps over 200.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, interleaved, median_ratio, medians, options
from mcp import Client, StdioServerParameters
from ours import Ours

from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.catalog.render.vendors import VendorName
from orchestrator.catalog.render.vendors import render as render_for
from orchestrator.catalog.store import CatalogStore
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.settings import Settings, load_settings
from orchestrator.state.keys import job_keys
from orchestrator.tool_discovery.connect import connect
from orchestrator.tool_discovery.orchestrator import ToolDiscoveryOrchestrator
from orchestrator.tool_discovery.servers import ServerConfig, load_servers

ROOT = Path(__file__).parents[1]
SERVER = Path(__file__).parent / "mcp_server.py"
SIZES = {30: 2.0, 1_000: 50.0}  # tools: milliseconds
RENDER_MS = 5.0
SEEN_S = 1.0
CALL = 1.3
AT_ONCE = 50
MAPPED = 200
PATIENCE_S = 60.0

_CACHED = """
import asyncio, json, sys, time
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.orchestrator import ToolDiscoveryOrchestrator

async def main():
    settings = load_settings(_env_file=None)
    began = time.perf_counter()
    catalog = await ToolDiscoveryOrchestrator(settings=settings).discover_all()
    took = time.perf_counter() - began
    text = (settings.home / "discovered_tools.json").read_bytes()
    began = time.perf_counter()
    json.loads((settings.home / "discovered_tools.json").read_bytes())
    bare = time.perf_counter() - began
    print(json.dumps({"ms": took * 1000, "bare": bare * 1000, "tools": len(catalog.tools), "bytes": len(text),
                      "hit": catalog.metadata["cache_hit"]}))

asyncio.run(main())
"""

_WATCH = """
import sys, time
from orchestrator.catalog.store import CatalogStore
from orchestrator.settings import load_settings
from orchestrator.state.connection import connect

store = CatalogStore(connect(load_settings(_env_file=None)))
store.all()
print("ready", flush=True)
for line in sys.stdin:
    name, version = line.split()
    while (found := store.all().get_tool(name)) is None or found.content_hash != version:
        time.sleep(0.001)
    print(time.time(), flush=True)
"""


def entry(tools: int) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(SERVER), str(tools)]}


def servers_file(folder: Path, tools: int) -> Path:
    path = folder / f"servers-{tools}.json"
    path.write_text(json.dumps({"mcpServers": {"bench": entry(tools)}}))
    return path


# Discovery and rendering


def discover(report: Report, folder: Path, rounds: int) -> ToolCatalog:
    """The catalog of the larger server; each cached run is a process of its own."""
    for size, goal in SIZES.items():
        home = folder / f"home-{size}"
        env = {"TOOLWEAVER_HOME": str(home), "TOOLWEAVER_SERVERS_FILE": str(servers_file(folder, size)), "PYTHONPATH": str(ROOT)}
        settings = load_settings(_env_file=None, home=home, servers_file=env["TOOLWEAVER_SERVERS_FILE"])
        cold = asyncio.run(ToolDiscoveryOrchestrator(settings=settings).discover_all())
        if "bench.echo" not in {t.name for t in cold.tools}:
            raise SystemExit(f"the server was not discovered: {cold.metadata}")
        said = [cached(env) for _ in range(max(rounds, 5))]
        if not all(s["hit"] for s in said):
            raise SystemExit(f"not from the cache: {said}")
        report.add(f"discover_{size}_cold", cold.metadata["discovery_time_ms"], "ms")
        report.add(f"discover_{size}_tools_in_all", said[0]["tools"], "tools")
        report.add(f"discover_{size}_cache_file", said[0]["bytes"] / 1024, "KiB")
        report.add(f"discover_{size}_cached", median(s["ms"] for s in said), "ms", goal)
        report.add(f"discover_{size}_cached_worst_of_{len(said)}", max(s["ms"] for s in said), "ms")
        report.add(f"discover_{size}_cached_to_bare_json", median(s["ms"] / s["bare"] for s in said), "ratio")
    return cold


def cached(env: dict[str, str]) -> dict[str, Any]:
    ran = subprocess.run([sys.executable, "-c", _CACHED], env=os.environ | env, capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(ran.stdout)
    return made


def rendering(report: Report, catalog: ToolCatalog, rounds: int) -> None:
    tools = [t for t in catalog.tools if t.server == "bench"][:10]
    for name, do in renderers(tools).items():
        do()
        took = [timed(do) for _ in range(5 * rounds)]
        report.add(f"render_10_{name}", median(took), "ms", RENDER_MS)


def timed(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000


def renderers(tools: list[ToolDefinition]) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {v: partial(render_for, tools, v) for v in get_args(VendorName)}
    return made | {"stubs": lambda: StubGenerator(tools).modules()}


# What other processes see


def updates(report: Report, platform: Ours, rounds: int) -> None:
    store = CatalogStore(platform.redis)
    watch = [sys.executable, "-c", _WATCH]
    with subprocess.Popen(
        watch, env=os.environ | platform.env | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        took = []
        for n in range(4 * rounds):
            tools = [ToolDefinition(name=f"news.tool_{k}", description=f"Version {n}.", server="news") for k in range(30)]
            began = time.time()
            store.publish("mcp:news", tools)
            other.stdin.write(f"{tools[-1].name} {tools[-1].content_hash}\n")
            other.stdin.flush()
            took.append(float(other.stdout.readline()) - began)
        other.stdin.close()
    store.publish("mcp:news", [])
    report.add("update_seen_by_another_process", median(took), "s", SEEN_S)
    report.add(f"update_seen_worst_of_{len(took)}", max(took), "s", SEEN_S)


# Calls


class Pool(Ours):
    """A platform with the pools `mcp` and `async`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, workers=0, servers_file=servers_file(folder, 30))
        for pool in ("mcp", "async"):
            self.add_worker(pool, pool=pool, concurrency=MAPPED)
        self.wait_workers(2)
        until = time.monotonic() + PATIENCE_S
        while CatalogStore(self.redis).all().get_tool("bench.echo") is None:
            if time.monotonic() > until:
                raise SystemExit(f"the pool announces no tools; see {folder}/mcp.log:\n{(folder / 'mcp.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def job(self, plan: Plan) -> float:
        """Milliseconds from its submission to its last event, which is waited for without a look in between."""
        began = time.perf_counter()
        job = self.submit(plan)
        key, at = job_keys(job, self.settings.shards).events, "0-0"
        while True:
            for id, fields in self.redis.xread({key: at}, block=10_000)[0][1]:
                at = id
                if fields[b"t"] == b"job.succeeded":
                    return (time.perf_counter() - began) * 1000
                if fields[b"t"] in (b"job.failed", b"job.cancelled"):
                    raise SystemExit(f"a job failed: {fields}")


def plan(tool: str, **given: Any) -> Plan:
    return Plan.model_validate({"steps": [{"id": "one", "tool": tool, "input": given}]})


def mapped(tool: str, **given: Any) -> Plan:
    step = {"id": "many", "tool": tool, "map": "input:xs", "input": given}
    return Plan.model_validate({"inputs": {"xs": list(range(MAPPED))}, "steps": [step]})


Call = Callable[[int], Awaitable[Any]]


class Sessions:
    """The bare SDK's session and ours, with the same server each, kept on a loop of the main thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.config: ServerConfig = load_servers(settings.servers_path).servers["bench"]
        self.runner = asyncio.Runner()
        self._ends: list[Any] = []

    def open(self) -> dict[str, Call]:
        assert self.config.command is not None
        parameters = StdioServerParameters(command=self.config.command, args=list(self.config.args))
        client = self._enter(Client(parameters))
        connection = self._enter(connect(self.config, settings=self.settings))
        return {
            "bare": lambda n: client.call_tool("echo", {"n": n}),
            "session": lambda n: connection.call("echo", {"n": n}, timeout_s=60),
        }

    def _enter(self, context: Any) -> Any:
        """A task holds each open, since a context of anyio ends in the task that began it."""
        entered: Any = None
        ready, end = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            nonlocal entered
            async with context as entered:
                ready.set()
                await end.wait()

        async def begin() -> asyncio.Task[None]:
            task = asyncio.create_task(hold())
            await asyncio.wait([task, asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task

        task = self.runner.run(begin())
        self._ends.append((end, task))
        return entered

    def one(self, call: Call, times: int = 1) -> float:
        """Milliseconds a call, one after the other."""

        async def run() -> float:
            began = time.perf_counter()
            for n in range(times):
                await call(n)
            return (time.perf_counter() - began) * 1000 / times

        return self.runner.run(run())

    def together(self, call: Call) -> float:
        """Milliseconds a call, many at once."""

        async def run() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(call(n) for n in range(AT_ONCE)))
            return (time.perf_counter() - began) * 1000 / AT_ONCE

        return self.runner.run(run())

    def close(self) -> None:
        async def finish() -> None:
            for end, task in reversed(self._ends):
                end.set()
                await task

        self.runner.run(finish())
        self.runner.close()


@contextmanager
def sessions(settings: Settings) -> Iterator[tuple[Sessions, dict[str, Call]]]:
    made = Sessions(settings)
    calls = made.open()
    try:
        yield made, calls
    finally:
        made.close()


def measure_calls(report: Report, platform: Pool, rounds: int, *, each: int) -> None:
    echo, hop = plan("bench.echo", n=1), plan("bench_wait", seconds=0)
    with sessions(platform.settings) as (kept, calls):
        bare, ours = calls["bare"], calls["session"]
        for _ in range(5):  # everything is loaded, everywhere
            platform.job(echo), platform.job(hop), kept.one(bare, 20), kept.one(ours, 20)
        alone = interleaved({"bare": lambda: kept.one(bare, 100), "session": lambda: kept.one(ours, 100)}, 2 * rounds)
        at_once = interleaved({"bare": lambda: kept.together(bare), "session": lambda: kept.together(ours)}, 2 * rounds)
        turns = [(platform.job(hop), platform.job(echo), kept.one(bare)) for _ in range(each * rounds)]
    tell_sessions(report, "call", alone)
    tell_sessions(report, f"{AT_ONCE}_calls_at_once_each", at_once)
    hops, jobs, bares = (median(column) for column in zip(*turns, strict=True))
    more = median(job - hop for hop, job, _ in turns)
    report.add("call_hop", hops, "ms")
    report.add("call_bare_between_jobs", bares, "ms")
    report.add("call_job", jobs, "ms", round(hops + CALL * bares, 3))
    report.add("call_job_less_hop_to_bare", more / bares, "ratio", CALL)
    many = interleaved(
        {
            "hop": lambda: platform.job(mapped("bench_wait", seconds=0)) / MAPPED,
            "job": lambda: platform.job(mapped("bench.echo", n="item")) / MAPPED,
        },
        rounds,
    )
    middle = medians(many)
    report.add(f"map_of_{MAPPED}_hops_each", middle["hop"], "ms")
    report.add(f"map_of_{MAPPED}_calls_each", middle["job"], "ms")
    report.add(f"map_of_{MAPPED}_calls_to_hops", median_ratio(many["job"], many["hop"]), "ratio")


def tell_sessions(report: Report, name: str, seen: dict[str, list[float]]) -> None:
    middle = medians(seen)
    report.add(f"{name}_bare", middle["bare"], "ms")
    report.add(f"{name}_session", middle["session"], "ms")
    report.add(f"{name}_session_to_bare", median_ratio(seen["session"], seen["bare"]), "ratio", CALL)


def main() -> None:
    chosen = options(__doc__ or "", on=("discovery", "calls"))
    rounds = 3 if chosen.quick else chosen.rounds
    report = Report("catalog")
    with tempfile.TemporaryDirectory(prefix="twb-") as name:
        folder = Path(name)
        if chosen.on != "calls":
            rendering(report, discover(report, folder, rounds), rounds)
        if chosen.on != "discovery":
            platform = Pool(folder)
            try:
                updates(report, platform, rounds)
                measure_calls(report, platform, rounds, each=10 if chosen.quick else 40)
            finally:
                platform.close()
    report.print(chosen.json)


if __name__ == "__main__":
    main()
