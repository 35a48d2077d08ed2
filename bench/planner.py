"""What a plan saves: three jobs done four ways, with the same tools on the same pools. `pip install bpe-openai` first.

  one       the model asks for one call, reads its result, asks for the next
  parallel  it asks in one turn for all calls whose inputs it knows
  plan      `LargePlanner` asks it once; the plan is a graph of steps
  program   the same, and the plan is one program that calls the tools from its container

SIMULATED is the model: a local server that speaks OpenAI's Responses protocol answers each request after 0.5 s with what a good
model would say, without thinking, mistakes or repairs, so its skill is no part of the figures. Real are the requests (the SDK's, as
they arrive), `LargePlanner` with its prompt and its check, dispatch, pools, tools, OCR and the sandbox. The tools that stand for
services take 0.2 to 1 s by themselves. Tokens are those of `o200k_base` over the bodies of requests and answers; money is what
those tokens cost at list price, without a cache, which makes the ways with many turns dearer than a cache would.

Goals: plan or program at least 3 times as fast as `one` where at least 8 calls are independent; the job of 45 people with one call
of the planner and at least 90 % less context. `--quick` has 8, 10 and 12 in place of 20, 45 and 50.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, options
from ours import Ours

from bench.planner_tools import amount_by_category, seats_by_city, travel_over_budget
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.render.vendors import render
from orchestrator.catalog.store import CatalogStore
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.large import LargePlanner
from orchestrator.providers.model import Block, ModelRequest, TokenCounts, ToolResult, ToolUse, Turn
from orchestrator.providers.prices import cost_usd, price_source
from orchestrator.providers.warm import large_model
from orchestrator.settings import Settings, load_settings
from tests.wire.base import Turn as Said
from tests.wire.base import WireServer, wire_server

MODEL_S = 0.5
PART = 200_000  # characters
TOOLS = Path(__file__).parent / "planner_tools.py"
LATENCY_S = 1.0  # of the slowest call of get_expenses
PRICED_AS = ("openai", "gpt-4o")
WAYS = ("one", "parallel", "plan", "program")
SYSTEM = "You are an assistant. Use the tools, and answer with JSON only."
PICTURES = ("grocery", "cafe", "pharmacy", "notice")

Call = tuple[str, dict[str, Any]]
Layers = Generator[Sequence[Call], Sequence[Any], Any]


@dataclass(frozen=True)
class Work:
    """A job: the sentence, the tools of the loops, what a model asks for layer by layer, a plan and a program for the same."""

    name: str
    sentence: str
    inputs: Mapping[str, Any]
    tools: Sequence[str]
    layers: Callable[[], Layers]
    plan: dict[str, Any]
    program: str
    called: Sequence[str]  # tools of the program
    width: int


def receipts(number: int) -> Work:
    images = [f"bundled:{PICTURES[n % len(PICTURES)]}" for n in range(number)]

    def layers() -> Layers:
        read = yield [("receipt_ocr", {"image_uri": image}) for image in images]
        parsed = yield [("line_item_parser", {"ocr": text}) for text in read]
        sorted_ = yield [("expense_categorizer", {"items": p["items"]}) for p in parsed if p["is_receipt"]]
        return amount_by_category(sorted_)

    plan = {
        "inputs": {"images": images},
        "steps": [
            {"id": "read", "tool": "receipt_ocr", "map": "input:images", "input": {"image_uri": "item"}},
            {"id": "parse", "tool": "line_item_parser", "map": "step:read", "input": {"ocr": "item"}},
            {
                "id": "sort", "tool": "expense_categorizer", "map": "step:parse", "when": {"ref": "item.is_receipt"},
                "input": {"items": "item.items"},
            },
            {"id": "sum", "tool": "amount_by_category", "input": {"receipts": "step:sort[*]"}},
        ],
        "output": "step:sum",
    }  # fmt: skip
    program = """
import asyncio
from tools.receipts import receipt_ocr, line_item_parser, expense_categorizer

async def one(image):
    parsed = await line_item_parser(await receipt_ocr(image_uri=image))
    return (await expense_categorizer(parsed["items"]))["items"] if parsed["is_receipt"] else []

totals = {}
for items in await asyncio.gather(*(one(image) for image in input["images"])):
    for item in items:
        totals[item["category"]] = totals.get(item["category"], 0) + (item["amount"] or 0)
output = {name: round(totals[name], 2) for name in sorted(totals)}
"""
    tools = ("receipt_ocr", "line_item_parser", "expense_categorizer")
    sentence = "Read these receipts and tell me what was spent by category."
    return Work(f"{number} receipts", sentence, {"images": images}, tools, layers, plan, program, tools, number)


def expenses(number: int) -> Work:
    def layers() -> Layers:
        (team,) = yield [("get_team_members", {})]
        (budget,) = yield [("get_budget", {"quarter": "Q3"})]
        team = team[:number]
        reports = yield [("get_expenses", {"user_id": m["id"], "quarter": "Q3"}) for m in team]
        return travel_over_budget(team, reports, budget)

    ids = [f"u{n:02}" for n in range(1, number + 1)]
    plan = {
        "inputs": {"ids": ids},
        "steps": [
            {"id": "team", "tool": "get_team_members", "input": {}},
            {"id": "budget", "tool": "get_budget", "input": {"quarter": "Q3"}},
            {"id": "reports", "tool": "get_expenses", "map": "step:team", "input": {"user_id": "item.id", "quarter": "Q3"}},
            {
                "id": "over", "tool": "travel_over_budget",
                "input": {"team": "step:team", "reports": "step:reports[*]", "budget": "step:budget"},
            },
        ],
        "output": "step:over",
    }  # fmt: skip
    program = """
import asyncio
from tools.finance import get_budget, get_expenses
from tools.hr import get_team_members

team = (await get_team_members())[:NUMBER]
budget = (await get_budget(quarter="Q3"))["travel"]
reports = await asyncio.gather(*(get_expenses(member["id"], "Q3") for member in team))
output = []
for member, report in zip(team, reports, strict=True):
    spent = round(sum(e["amount"] for e in report["expenses"] if e["category"] == "travel"), 2)
    if spent > budget[member["level"]]:
        output.append({"name": member["name"], "spent": spent, "budget": budget[member["level"]]})
output = sorted(output, key=lambda person: person["name"])
""".replace("NUMBER", str(number))
    if number < 45:  # a plan takes everybody who is there: here a list of some
        plan["steps"][2] |= {"map": "input:ids", "input": {"user_id": "item", "quarter": "Q3"}}
        plan["steps"][0] = {"id": "team", "tool": "first_members", "input": {"number": number}}
    tools = ("get_team_members", "get_budget", "get_expenses")
    sentence = f"Who of the {number} people spent more on travel in Q3 than their level may?"
    return Work(f"{number} expense reports", sentence, {}, tools, layers, plan, program, tools, number)


def lookups(number: int) -> Work:
    ids = [f"u{n:03}" for n in range(number)]

    def layers() -> Layers:
        users = yield [("get_user", {"user_id": id}) for id in ids]
        return seats_by_city(users)

    plan = {
        "inputs": {"ids": ids},
        "steps": [
            {"id": "users", "tool": "get_user", "map": "input:ids", "input": {"user_id": "item"}},
            {"id": "seats", "tool": "seats_by_city", "input": {"users": "step:users[*]"}},
        ],
        "output": "step:seats",
    }
    program = """
import asyncio
from tools.directory import get_user

seats = {}
for user in await asyncio.gather(*(get_user(id) for id in input["ids"])):
    seats[user["city"]] = seats.get(user["city"], 0) + user["seats"]
output = dict(sorted(seats.items()))
"""
    sentence = "How many seats do the users of each city have?"
    return Work(f"{number} users", sentence, {"ids": ids}, ("get_user",), layers, plan, program, ("get_user",), number)


@dataclass
class Run:
    """What one way of one job took."""

    seconds: float
    answer: Any
    requests: int
    read: Sequence[str]  # the bodies of the requests
    written: Sequence[str]  # the answers

    @property
    def bytes(self) -> int:
        return sum(len(text.encode()) for text in (*self.read, *self.written))


class Server:
    """The simulated model: it says what it is told to say next, after `MODEL_S`."""

    def __init__(self) -> None:
        self.says: Said = Said(text="")
        self.written: list[str] = []

    def __call__(self, _number: int, _body: dict[str, Any]) -> Said:
        self.written.append(json.dumps([self.says.text, self.says.value, [list(u) for u in self.says.uses]]))
        return self.says


class Platform(Ours):
    """The pools that the jobs need; calls and plans go the same way, through the ledger to a pool."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, workers=0)
        pools = {"ocr": 2, "small_model": 1, "function": 1, "async": 100, "code": 2}
        for pool, slots in pools.items():
            own = ["--tools", str(TOOLS)] if pool in ("function", "async", "code") else []
            command = [sys.executable, "-m", "workers.boot", "--pool", pool, "--concurrency", str(slots), *own]
            self.spawn(pool, command, {"EXPENSES_LATENCY_S": str(LATENCY_S)})
        self.wait_workers(len(pools))
        self.catalog: ToolCatalog = CatalogStore(self.redis).all(bundled_catalog())

    async def call(self, call: Call) -> Any:
        """One call as a job of one step, as `submit_tool` makes it."""
        name, arguments = call
        plan = Plan.model_validate({"steps": [{"id": "call", "tool": name, "input": _literal(arguments)}]})
        return (await self.job(plan)).get("call")

    async def job(self, plan: Plan, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The results of a job's steps."""
        job = (await asyncio.to_thread(self.control.accept, plan, inputs=dict(inputs or {})))[0]
        await asyncio.to_thread(self.wait, [job])
        return dict((await asyncio.to_thread(self.store.result, job)).steps)


def _literal(arguments: dict[str, Any]) -> dict[str, Any]:
    """Values are no references, also those that look like one."""
    return {name: value if _plain(value) else {"$literal": value} for name, value in arguments.items()}


def _plain(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and not value.startswith(("step:", "input:", "item")))


async def loop(work: Work, platform: Platform, server: Server, settings: Settings, *, together: bool) -> Any:
    """A conversation of turns with tools: one call a turn, or all of a layer."""
    model = large_model(settings)
    chosen = [t for t in platform.catalog.tools if t.name in work.tools]
    rendered = render(chosen, model.vendor)  # type: ignore[arg-type]
    turns: list[Turn] = [Turn("user", (Block(f"{work.sentence}\n{json.dumps(dict(work.inputs))}"),))]
    layers = work.layers()
    wanted = next(layers)
    try:
        while True:
            results: list[Any] = []
            for group in [wanted] if together else [[c] for c in wanted]:
                server.says = Said(uses=group, delay_s=MODEL_S)
                reply = await model.ask(
                    ModelRequest((Block(SYSTEM),), tuple(turns), "chat", tools=tuple(rendered.tools), deadline_s=60)
                )
                answers = await asyncio.gather(*(platform.call(c) for c in group))
                results += answers
                turns += [_assistant(reply.turn, reply.uses), _results(reply.uses, answers)]
            wanted = layers.send(results)
    except StopIteration as end:
        server.says = Said(text=json.dumps(end.value), delay_s=MODEL_S)
        await model.ask(ModelRequest((Block(SYSTEM),), tuple(turns), "chat", tools=tuple(rendered.tools), deadline_s=60))
        return end.value
    finally:
        await model.close()


def _assistant(turn: Turn | None, uses: Sequence[ToolUse]) -> Turn:
    return turn or Turn("assistant", uses=tuple(uses))


def _results(uses: Sequence[ToolUse], answers: Sequence[Any]) -> Turn:
    pairs = zip(uses, answers, strict=True)
    return Turn("user", results=tuple(ToolResult(u.id, u.name, json.dumps(a, separators=(",", ":"))) for u, a in pairs))


async def planned(work: Work, platform: Platform, server: Server, settings: Settings, *, program: bool) -> Any:
    """One request for a plan, which the platform runs."""
    inputs = dict(work.inputs)
    plan = _program(work) if program else {k: v for k, v in work.plan.items() if not (k == "inputs" and inputs)}
    server.says = Said(value=plan, delay_s=MODEL_S)
    planner = LargePlanner(settings=settings, tool_catalog=platform.catalog, provider=settings.planner_provider)
    made = await planner.make_plan(PlanRequest(work.sentence, inputs))
    output = made.plan.output or ""
    return (await platform.job(made.plan, inputs))[output.removeprefix("step:")]


def _program(work: Work) -> dict[str, Any]:
    given = {name: f"input:{name}" for name in work.inputs}
    step = {"id": "run", "tool": "code_exec", "input": {"code": work.program, "input_data": given, "tools": list(work.called)}}
    return {"steps": [step], "output": "step:run"}


async def once(way: str, work: Work, platform: Platform, server: Server, wire: WireServer, settings: Settings) -> Run:
    """One way of one job, with what went over the wire."""
    before = len(wire.seen)
    server.written.clear()
    began = time.perf_counter()
    if way in ("one", "parallel"):
        answer = await loop(work, platform, server, settings, together=way == "parallel")
    else:
        answer = await planned(work, platform, server, settings, program=way == "program")
    seconds = time.perf_counter() - began
    bodies = wire.seen[before:]
    return Run(seconds, answer, len(bodies), [json.dumps(b, ensure_ascii=False) for b in bodies], list(server.written))


def tell(report: Report, work: Work, runs: Mapping[str, Sequence[Run]], tokens: Callable[[str], int]) -> None:
    """All figures of a job, and the goals."""
    for way, some in runs.items():
        run = some[0]
        read, written = sum(map(tokens, run.read)), sum(map(tokens, run.written))
        money = cost_usd(*PRICED_AS, TokenCounts(read, written))
        report.add(f"{work.name}, {way}: model calls (simulated)", run.requests, "calls")
        report.add(f"{work.name}, {way}: context", run.bytes / 1000, "kB")
        report.add(f"{work.name}, {way}: tokens in", read, "tokens")
        report.add(f"{work.name}, {way}: tokens out", written, "tokens")
        report.add(f"{work.name}, {way}: at list price", 100 * (money or 0.0), "cent")
        report.add(f"{work.name}, {way}: wall", median(r.seconds for r in some), "s")
    walls = {way: median(r.seconds for r in some) for way, some in runs.items()}
    best = min(walls[w] for w in ("plan", "program") if w in walls)
    report.add(f"{work.name}: wall of one to the better of plan, program", walls["one"] / best, "x", 3.0, least=True)
    report.add(f"{work.name}: wall of parallel to the same", walls["parallel"] / best, "x")
    for way in ("plan", "program"):
        if way in runs:
            saved = 1 - runs[way][0].bytes / runs["one"][0].bytes
            report.add(
                f"{work.name}: context that {way} saves", 100 * saved, "%", 90.0 if "expense" in work.name else None, least=True
            )
            if "expense" in work.name:
                report.add(f"{work.name}: planner calls of {way}", runs[way][0].requests, "calls", 1)


def agree(work: Work, runs: Mapping[str, Sequence[Run]]) -> None:
    """Ends when two ways give different answers."""
    answers = {way: json.dumps(run.answer, sort_keys=True) for way, some in runs.items() for run in some}
    if len(set(answers.values())) != 1:
        raise SystemExit(f"{work.name}: the ways disagree: { {w: a[:300] for w, a in answers.items()} }")


def sandbox() -> bool:
    seen = subprocess.run([sys.executable, "-m", "workers.code.check", "--brief"], stdout=subprocess.PIPE, text=True)
    if seen.returncode:
        print(f"without `program`, which cannot run here: {seen.stdout.strip()}", file=sys.stderr)
    return seen.returncode == 0


async def measure(works: Sequence[Work], ways: Sequence[str], platform: Platform, rounds: int, report: Report) -> None:
    """Every way of every job, in turn."""
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")
    server = Server()
    with wire_server("openai", server) as wire:
        settings = load_settings(_env_file=None, home=platform.folder, **wire.settings(), planner_retries=0)
        for work in works:
            runs: dict[str, list[Run]] = {way: [] for way in ways}
            await once("plan", work, platform, server, wire, settings)  # everything is loaded
            for number in range(rounds):
                for way in ways:
                    runs[way].append(await once(way, work, platform, server, wire, settings))
                    took = runs[way][-1].seconds
                    print(f"{work.name}, {way}, round {number + 1}: {took:.1f} s", file=sys.stderr, flush=True)
            agree(work, runs)
            tell(report, work, runs, lambda text: sum(len(encoding.encode(part)) for part in _parts(text)))


def _parts(text: str) -> list[str]:
    """The tokenizer takes no more at once; a cut costs a token at most."""
    return [text[at : at + PART] for at in range(0, len(text), PART)]


def main() -> None:
    chosen = options(__doc__ or "")
    sizes = (8, 10, 12) if chosen.quick else (20, 45, 50)
    works = [receipts(sizes[0]), expenses(sizes[1]), lookups(sizes[2])]
    ways = WAYS if sandbox() else WAYS[:3]
    report = Report("planner")
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        platform = Platform(Path(folder))
        try:
            asyncio.run(measure(works, ways, platform, 1 if chosen.quick else min(chosen.rounds, 3), report))
        finally:
            platform.close()
    print(f"simulated: the model and its {MODEL_S:g} s a call. prices: {price_source()}, {'/'.join(PRICED_AS)}", file=sys.stderr)
    report.print(chosen.json)


if __name__ == "__main__":
    main()
